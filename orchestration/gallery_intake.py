"""Gallery intake: manifests become items and batches, photographs become scans, once each."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import dagster as dg
from upath import UPath

import store.batches
import store.detections
import store.gallery_items
import store.scans
from assets.partitions import gallery_batches, scan_batches
from core.errors import InputError
from core.gallery import GALLERY, GalleryItem, ReceivedImage, batch_key
from core.gallery_manifest import MOST_ID, ManifestRow, read_manifest
from core.scans import SCANS
from core.text import NO_CREDENTIALS, holds_credentials, legible, without_secrets
from orchestration.files import (
    LOCAL,
    NotNowError,
    Refused,
    copy_of,
    find,
    found_in,
    in_words,
    read_blocks,
)
from resources.images import ImageStore
from resources.photographs import is_picture, read_header
from store.batches import Kind
from store.database import Db
from store.scans import Scan

MANIFESTS = ("gallery.jsonl", "gallery.csv", "gallery.json", "items.jsonl", "items.csv")
"""What a folder's manifest may be called, in the order in which it is looked for."""

MOST_MANIFEST_BYTES = 500 * 2**20
MOST_TROUBLES = 1000

FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp", "HEIF": "heic"}


@dataclass
class Added:
    """What became of a manifest.

    Attributes:
        items: How many it names.
        new_items: How many of them are new.
        new_images: Reference pictures that are new.
        batches: The batches they are in, in order.
        troubles: What could not be taken in and why; more than so many are counted alone.
        more_troubles: How many are not listed.
    """

    items: int = 0
    new_items: int = 0
    new_images: int = 0
    batches: list[str] = field(default_factory=list[str])
    troubles: list[str] = field(default_factory=list[str])
    more_troubles: int = 0

    def complain(self, reason: str) -> None:
        """Note something that could not be taken in."""
        if len(self.troubles) < MOST_TROUBLES:
            self.troubles.append(reason)
        else:
            self.more_troubles += 1


@dataclass(frozen=True)
class Source:
    """Where a gallery is: its rows, and the folder to which their pictures are relative."""

    rows: Iterator[ManifestRow | InputError]
    folder: UPath


def find_gallery(path: str, pictures: str = "") -> Source:
    """The gallery that a path means.

    Args:
        path: A manifest, or a folder with one; a folder without one is a gallery in which every
            picture is an item, called as its place in the folder without the ending.
        pictures: The folder with the pictures, where it is another than the manifest's.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    for text in (path, pictures):
        if holds_credentials(text):
            raise InputError(f"{without_secrets(text)}: {NO_CREDENTIALS}")
    here = UPath(path)
    try:
        is_folder = here.is_dir()
        if not is_folder and not here.exists():
            raise InputError(f"{path}: there is no such file or folder")
        manifest = here
        if is_folder:
            found = [here / name for name in MANIFESTS if (here / name).exists()]
            if not found:
                return Source(_rows_of_folder(here), here)
            manifest = found[0]
        folder = UPath(pictures) if pictures else manifest.parent
        if pictures and not folder.is_dir():
            raise InputError(f"{pictures}: there is no such folder")
        data = b"".join(read_blocks(manifest, MOST_MANIFEST_BYTES))
    except OSError as error:
        raise InputError(f"{path}: {in_words(error)}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{manifest.name}: it is no text in UTF-8 ({error.reason})") from error
    return Source(read_manifest(legible(manifest.name), text), folder)


def _rows_of_folder(folder: UPath) -> Iterator[ManifestRow | InputError]:
    """Every picture of a folder as an item of its own, called as its place below the folder."""
    taken: dict[str, str] = {}
    for found in found_in(folder, is_picture):
        if isinstance(found, Refused):
            yield InputError(found.reason)
            continue
        place = found.relative_to(folder).as_posix()
        shown, item_id = legible(place), legible(str(PurePosixPath(place).with_suffix("")))
        if len(item_id) > MOST_ID:
            yield InputError(f"{shown}: its name has more than {MOST_ID} letters; shorten it")
        elif item_id in taken:
            yield InputError(
                f"{shown}: {taken[item_id]} has the same name up to its ending; a manifest can say "
                "what each of them is"
            )
        else:
            taken[item_id] = shown
            item = GalleryItem(item_id, name=PurePosixPath(item_id).name, source=shown)
            yield ManifestRow(item, (place,))


def add_gallery(db: Db, images: ImageStore, source: Source) -> Iterator[Added]:
    """Take in a gallery, a batch at a time, each committed with its pictures.

    Yields:
        The running account after each batch, always the same object. Taking in the same manifest
        again, also after it was cut short, adds what is missing.
    """
    added = Added()
    rows: list[ManifestRow] = []
    for row in source.rows:
        if isinstance(row, InputError):
            added.complain(str(row))
            continue
        rows.append(row)
        if len(rows) == GALLERY.items_per_batch:
            _add_batch(db, images, source.folder, rows, added)
            yield added
            rows = []
    if rows:
        _add_batch(db, images, source.folder, rows, added)
    yield added


def _add_batch(
    db: Db, images: ImageStore, folder: UPath, rows: Sequence[ManifestRow], added: Added
) -> None:
    received: list[ReceivedImage] = []
    for row in rows:
        for name in row.images:
            image = _receive_image(db, images, folder, row.item, name)
            if image.reason:
                added.complain(image.reason)
            received.append(image)
    items = [row.item for row in rows]
    key = batch_key([item.item_id for item in items])
    known = store.gallery_items.batches_of(db, [item.item_id for item in items])
    with db.transaction():
        new_items, new_images = store.gallery_items.add(db, key, items, received)
    added.items += len(items)
    added.new_items += new_items
    added.new_images += new_images
    for each in dict.fromkeys(known.get(item.item_id, key) for item in items):
        if each not in added.batches:
            added.batches.append(each)


def _receive_image(
    db: Db, images: ImageStore, folder: UPath, item: GalleryItem, name: str
) -> ReceivedImage:
    """Copy one reference picture into the store, under the hash of its content."""
    shown = f"{item.source}: {legible(name)}"
    unread = hashlib.sha256(f"unread\0{legible(name)}".encode()).hexdigest()
    try:
        data = b"".join(read_blocks(_below(folder, name), GALLERY.max_file_bytes))
    except InputError as error:
        return ReceivedImage(item.item_id, unread, legible(name), "", f"{shown}: {error}")
    digest = hashlib.sha256(data).hexdigest()
    if store.scans.is_kept_aside(db, digest) or store.detections.is_kept_aside(db, digest):
        reason = f"{shown}: the same picture is kept aside to measure with"
        return ReceivedImage(item.item_id, unread, legible(name), "", reason)
    ending = name.rsplit(".", 1)[-1].lower() if is_picture(name) else "bin"
    key = f"gallery/{digest[:2]}/{digest}.{ending}"
    if not images.exists(key):
        images.write_bytes(key, data)
    return ReceivedImage(item.item_id, digest, legible(name), key)


def _below(folder: UPath, name: str) -> UPath:
    """The picture of that name, unless a link leads out of the folder that was handed over.

    Raises:
        InputError: One does, or there cannot be such a file.
    """
    try:
        path = folder / name
        if folder.protocol in LOCAL and not Path(path.path).resolve().is_relative_to(
            Path(folder.path).resolve()
        ):
            raise InputError("a link, which is not followed; add what it leads to")
    except (ValueError, OSError, RuntimeError) as error:  # names that no path can have; loops
        raise InputError("there can be no file of this name") from error
    return path


@dataclass(frozen=True)
class ReceivedScan:
    """One photograph that was taken in, or why it was not.

    Attributes:
        name: What it was called.
        scan: What the store knows of it; None where not even its bytes could be read.
        new: Whether it was seen for the first time.
        reason: Why it could not be taken in; empty otherwise.
        again: Whether trying again may help.
    """

    name: str
    scan: Scan | None
    new: bool = False
    reason: str = ""
    again: bool = False


def find_scans(paths: Iterable[str]) -> Iterator[UPath | ReceivedScan]:
    """The photographs that paths mean: files themselves, those below folders, URLs of a store.

    Raises:
        InputError: A path leads nowhere, or is a URL that holds credentials.
    """
    for found in find(paths, is_picture):
        is_refused = isinstance(found, Refused)
        yield ReceivedScan(found.name, None, reason=found.reason) if is_refused else found


def receive_scan(
    db: Db,
    images: ImageStore,
    path: UPath,
    *,
    sets: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    evaluation: bool = False,
) -> ReceivedScan:
    """Take in one photograph: copy and hash it, and look at its header.

    One that is no picture is a scan all the same, with the reason, so that it is in the result.
    One that is to be kept aside, and of which a template was made, is refused. Filters that are
    None stay as they are: a folder that is watched does not undo what was asked.
    """
    name = legible(path.name)
    with tempfile.NamedTemporaryFile() as copy:
        try:
            digest, size = copy_of(path, cast(BinaryIO, copy), SCANS.max_file_bytes)
        except InputError as error:
            again = isinstance(error, NotNowError)
            return ReceivedScan(name, None, reason=f"{name}: {error}", again=again)
        copy.flush()
        if evaluation and store.scans.has_taught(db, digest):
            taught = (
                f"{name}: a template was learned from this photograph; revoke its corrections "
                "before it is kept aside to measure with"
            )
            return ReceivedScan(name, None, reason=taught)
        reason, ending = "", "bin"
        try:
            ending = FORMATS[read_header(Path(copy.name)).format]
        except InputError as error:
            reason = f"{name}: {error}"
        key = f"scans/{digest[:2]}/{digest}.original.{ending}"
        upright = images.exists(f"scans/{digest[:2]}/{digest}.jpg")
        if not images.exists(key) and not (upright and store.scans.has_picture(db, digest)):
            copy.seek(0)
            with images.writing(key) as target:
                while block := copy.read(1 << 20):
                    target.write(block)
    (known, *_) = [*store.scans.get(db, [digest]), Scan(digest, name, size, key)]
    scan = Scan(
        scan_id=digest,
        name=name,
        size_bytes=size,
        file_key=key,
        reason=reason,
        sets=known.sets if sets is None else tuple(sorted(set(sets))),
        languages=known.languages if languages is None else tuple(sorted(set(languages))),
        evaluation=evaluation,
    )
    with db.transaction():
        new = store.scans.add(db, scan)
    return ReceivedScan(name, scan, new=new, reason=reason)


def register_gallery_partitions(db: Db, instance: dg.DagsterInstance) -> None:
    """Tell Dagster of every batch of items and of photographs that it does not know, in order."""
    kinds: tuple[tuple[dg.DynamicPartitionsDefinition, Kind], ...] = (
        (gallery_batches, "gallery"),
        (scan_batches, "scan"),
    )
    for partitions, kind in kinds:
        assert partitions.name is not None
        known = set(instance.get_dynamic_partitions(partitions.name))
        missing = [key for key in store.batches.keys(db, kind) if key not in known]
        if missing:
            instance.add_dynamic_partitions(partitions.name, missing)
