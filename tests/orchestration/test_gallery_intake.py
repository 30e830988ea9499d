import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import PIL.Image
import psycopg
import pytest
from upath import UPath

import orchestration.gallery_intake
import store.batches
import store.corrections
import store.detections
import store.gallery_items
import store.gallery_templates
import store.scans
import store.work
from core.errors import InputError
from core.gallery import GALLERY, ReceivedImage
from core.work import Job, Outcome
from orchestration.gallery import add_correction
from orchestration.gallery_intake import (
    MOST_TROUBLES,
    Added,
    ReceivedScan,
    add_gallery,
    find_gallery,
    find_scans,
    receive_scan,
    register_gallery_partitions,
)
from resources.images import ImageStore
from store.detections import StoredDetection

Db = psycopg.Connection


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    return ImageStore(url=(tmp_path / "store").as_uri())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gallery").mkdir()
    return tmp_path / "gallery"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items share a batch."""
    spec = type(GALLERY)(items_per_batch=2)
    monkeypatch.setattr(orchestration.gallery_intake, "GALLERY", spec)


def picture(path: Path, seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (28, 20, 3), np.uint8)
    PIL.Image.fromarray(values).save(path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(folder: Path, *items: dict[str, Any]) -> Path:
    path = folder / "gallery.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def cards(folder: Path, count: int) -> list[dict[str, Any]]:
    """So many items, with a picture each."""
    for number in range(count):
        picture(folder / f"{number}.png", number)
    return [{"id": f"c{number}", "image": f"{number}.png"} for number in range(count)]


def take_in(db: Db, images: ImageStore, path: Path, pictures: str = "") -> Added:
    *_, added = add_gallery(db, images, find_gallery(str(path), pictures))
    return added


def numbers(added: Added) -> tuple[int, int, int]:
    return added.items, added.new_items, added.new_images


# Galleries


def test_a_folder_with_a_manifest_becomes_items_with_their_pictures(
    db: Db, images: ImageStore, folder: Path
) -> None:
    manifest(folder, *cards(folder, 3))
    added = take_in(db, images, folder)
    assert (numbers(added), added.troubles) == ((3, 3, 3), [])
    (key,) = added.batches
    assert store.batches.keys(db, "gallery") == [key]
    pending = store.gallery_templates.pending(db, Job("gallery_templates", "s", (key,), 9, "r"), 9)
    stored = [images.read_bytes(each.file_key) for each in pending]
    assert stored == [(folder / each.name).read_bytes() for each in pending]
    assert len(stored) == 3


def test_a_csv_from_a_spreadsheet_may_begin_with_a_mark(
    db: Db, images: ImageStore, folder: Path
) -> None:
    picture(folder / "a.png")
    (folder / "gallery.csv").write_bytes(b"\xef\xbb\xbfid,image\r\n1,a.png\r\n")
    assert numbers(take_in(db, images, folder)) == (1, 1, 1)


def test_a_manifest_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "gallery.csv").write_bytes("id,image\n1,a.png\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"gallery\.csv: it is no text in UTF-8"):
        find_gallery(str(folder))


@pytest.mark.usefixtures("small_batches")
def test_adding_a_gallery_twice_adds_nothing(db: Db, images: ImageStore, folder: Path) -> None:
    items = cards(folder, 5)
    manifest(folder, *items)
    first = take_in(db, images, folder)
    keys = store.batches.keys(db, "gallery")
    assert (numbers(first), len(keys)) == ((5, 5, 5), 3)
    for key in keys:
        store.batches.finish(db, Job("gallery_items", "s", (key,), 9, "r"))
    again = take_in(db, images, folder)
    assert (numbers(again), again.batches) == ((5, 0, 0), first.batches)
    manifest(folder, *reversed(items))  # in other batches, were they new
    assert numbers(take_in(db, images, folder)) == (5, 0, 0)
    assert store.batches.keys(db, "gallery") == keys
    assert store.batches.unfinished(db, "gallery", {"gallery_items": "s"}) == []


@pytest.mark.usefixtures("small_batches")
def test_what_was_cut_short_is_completed(db: Db, images: ImageStore, folder: Path) -> None:
    manifest(folder, *cards(folder, 6))
    begun = add_gallery(db, images, find_gallery(str(folder)))
    assert numbers(next(begun)) == (2, 2, 2)
    del begun  # killed after the first batch
    (folder / "gallery.jsonl").write_text((folder / "gallery.jsonl").read_text())
    assert store.gallery_items.contents(db).items == 2
    added = take_in(db, images, folder)
    assert numbers(added) == (6, 4, 4)
    assert len(added.batches) == len(store.batches.keys(db, "gallery")) == 3


@pytest.mark.usefixtures("small_batches")
def test_half_a_manifest_first_and_the_whole_later_is_the_whole(
    db: Db, images: ImageStore, folder: Path
) -> None:
    items = cards(folder, 5)
    manifest(folder, *items[:3])
    take_in(db, images, folder)
    manifest(folder, *items)
    added = take_in(db, images, folder)
    assert numbers(added) == (5, 2, 2)
    assert store.gallery_items.batches_of(db, [item["id"] for item in items]).keys() == {
        "c0", "c1", "c2", "c3", "c4",
    }  # fmt: skip
    assert set(added.batches) == set(store.batches.keys(db, "gallery"))


def test_a_picture_that_cannot_be_read_is_a_reason_and_the_others_serve(
    db: Db, images: ImageStore, folder: Path
) -> None:
    picture(folder / "a.png")
    (folder / "sub.png").mkdir()
    manifest(folder, {"id": 1, "images": ["a.png", "gone.png", "sub.png", "n" * 300 + ".png"]})
    added = take_in(db, images, folder)
    assert numbers(added) == (1, 1, 1)
    assert [trouble.split(": ", 2)[2] for trouble in added.troubles] == [
        "no such file or directory",
        "not a regular file; copy its content to a file and add that",
        "file name too long",
    ]
    assert added.troubles[0].startswith("gallery.jsonl, line 1: gone.png: ")
    assert store.gallery_items.contents(db).unread == 3
    picture(folder / "gone.png", 2)
    assert numbers(take_in(db, images, folder)) == (1, 0, 1)
    assert store.gallery_items.contents(db).unread == 2


def test_an_item_without_a_picture_is_an_item(db: Db, images: ImageStore, folder: Path) -> None:
    manifest(folder, {"id": 1, "name": "Lotus"})
    assert numbers(take_in(db, images, folder)) == (1, 1, 0)
    assert store.gallery_items.contents(db).without == 1


def test_a_row_at_fault_does_not_keep_the_others_out(
    db: Db, images: ImageStore, folder: Path
) -> None:
    (card,) = cards(folder, 1)
    manifest(folder, {"name": "no id"}, card, {"id": "x", "image": "../store/a.png"})
    added = take_in(db, images, folder)
    assert numbers(added) == (1, 1, 1)
    assert [trouble.split(":")[0] for trouble in added.troubles] == [
        "gallery.jsonl, line 1",
        "gallery.jsonl, line 3",
    ]


def test_endless_troubles_are_counted(db: Db, images: ImageStore, folder: Path) -> None:
    manifest(folder, *({"name": "no id"} for _ in range(MOST_TROUBLES + 7)))
    added = take_in(db, images, folder)
    assert (len(added.troubles), added.more_troubles) == (MOST_TROUBLES, 7)


def has_image(db: Db, image_sha256: str) -> bool:
    """Whether a picture with this content is a reference picture of any item."""
    found = db.execute("SELECT FROM gallery_images WHERE image_sha256 = %s", [image_sha256])
    return found.rowcount > 0


def test_a_link_out_of_the_folder_is_not_followed(
    db: Db, images: ImageStore, folder: Path, tmp_path: Path
) -> None:
    secret = picture(tmp_path / "elsewhere" / "secret.png")
    (folder / "link.png").symlink_to(secret)
    (folder / "folder").symlink_to(secret.parent)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    picture(folder / "a.png", 2)
    (folder / "within.png").symlink_to(folder / "a.png")
    names = ["link.png", "folder/secret.png", "loop.png", "within.png"]
    manifest(folder, {"id": 1, "images": names})
    added = take_in(db, images, folder)
    assert [trouble.split(": ")[1] for trouble in added.troubles] == names[:3]
    assert "a link, which is not followed" in added.troubles[0]
    assert not has_image(db, sha256(secret))
    assert has_image(db, sha256(folder / "a.png"))


def test_pictures_may_lie_in_another_folder_than_the_manifest(
    db: Db, images: ImageStore, folder: Path, tmp_path: Path
) -> None:
    items = cards(tmp_path / "pictures", 2)
    path = manifest(folder, *items)
    assert numbers(take_in(db, images, path, str(tmp_path / "pictures"))) == (2, 2, 2)
    with pytest.raises(InputError, match="there is no such folder"):
        find_gallery(str(path), str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["s3:/x.png", "file:/etc/passwd", "a\\b.png", "C:\\x.png"])
def test_a_picture_of_a_name_that_reads_otherwise_elsewhere_stops_nothing(
    db: Db, images: ImageStore, folder: Path, name: str
) -> None:
    (card,) = cards(folder, 1)
    manifest(folder, {"id": "odd", "image": name}, card)
    added = take_in(db, images, folder)
    assert added.new_images == 1
    assert len(added.troubles) == 1


def test_in_a_folder_without_a_manifest_every_picture_is_an_item(
    db: Db, images: ImageStore, folder: Path, tmp_path: Path
) -> None:
    picture(folder / "Lotus, Black.png", 1)
    picture(folder / "base" / "1.jpg", 2)
    picture(folder / "jungle" / "1.jpg", 3)
    (folder / "notes.txt").write_text("no")
    (folder / "link.png").symlink_to(picture(tmp_path / "x.png", 4))
    added = take_in(db, images, folder)
    assert numbers(added) == (3, 3, 3)
    (trouble,) = added.troubles
    assert trouble.endswith("/link.png: a link, which is not followed; add what it leads to")
    found = store.gallery_items.get(db, ["Lotus, Black", "base/1", "jungle/1"])
    assert {item.name for item in found.values()} == {"Lotus, Black", "1"}
    assert len(found) == 3


def test_pictures_of_one_name_are_not_thrown_together(
    db: Db, images: ImageStore, folder: Path
) -> None:
    picture(folder / "1.jpg", 1)
    picture(folder / "1.png", 2)
    added = take_in(db, images, folder)
    assert numbers(added) == (1, 1, 1)
    (trouble,) = added.troubles
    assert trouble.startswith("1.png: 1.jpg has the same name up to its ending")


def test_names_that_are_no_text_or_nothing_but_an_ending_become_items(
    db: Db, images: ImageStore, folder: Path
) -> None:
    picture(folder / "x.png", 1).rename(folder / ".png")
    odd = os.fsencode(folder) + b"/\xff\xfe.png"
    picture(folder / "x.png", 2).rename(os.fsdecode(odd))
    picture(folder / ("d" * 150) / ("n" * 100 + ".png"), 3)
    added = take_in(db, images, folder)
    assert numbers(added) == (2, 2, 2)
    assert "its name has more than 200 letters" in added.troubles[0]
    assert set(store.gallery_items.get(db, [".png", "\ufffd\ufffd"])) == {".png", "\ufffd\ufffd"}


def test_what_is_not_there_is_an_error_in_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        find_gallery(str(folder / "nowhere"))
    with pytest.raises(InputError, match="leave user and password out") as refusal:
        find_gallery("s3://AKIAPLANTED:s3cret@bucket/gallery")
    assert "s3cret" not in str(refusal.value)
    with pytest.raises(InputError, match="leave user and password out"):
        find_gallery(str(folder), "https://ann:s3cret@example.org/pictures")


def test_a_gallery_may_lie_in_an_object_store(db: Db, images: ImageStore, folder: Path) -> None:
    (card,) = cards(folder, 1)
    there = UPath("memory://cards/gallery.jsonl")
    there.fs.pipe(there.path, (json.dumps(card) + "\n").encode())
    there.fs.pipe((there.parent / card["image"]).path, (folder / card["image"]).read_bytes())
    *_, added = add_gallery(db, images, find_gallery("memory://cards/gallery.jsonl"))
    assert (numbers(added), added.troubles) == ((1, 1, 1), [])


@pytest.mark.parametrize("text", ["' OR '1'='1' --", "%(id)s", "{0}", "a\u202eb", "<b>|x"])
def test_an_id_is_a_text_whatever_it_reads_like(
    db: Db, images: ImageStore, folder: Path, text: str
) -> None:
    picture(folder / "a.png")
    manifest(folder, {"id": text, "set": text, "lang": text, "name": text, "image": "a.png"})
    take_in(db, images, folder)
    found = store.gallery_items.get(db, [text])[text]
    assert (found.set_code, found.language, found.name) == (text, text, text)


# What is kept aside to measure with


def test_a_picture_that_is_kept_aside_becomes_no_reference(
    db: Db, images: ImageStore, folder: Path, tmp_path: Path
) -> None:
    shot = picture(tmp_path / "shots" / "shot.png", 9)
    received = receive_scan(db, images, UPath(shot), evaluation=True)
    assert received.scan is not None
    store.scans.keep_picture(db, received.scan.scan_id, "s", "key", (20, 28), 1.0)
    crop = picture(folder / "crop.png", 10)
    quad = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]
    found = StoredDetection("d" * 32, 1, quad, 0.9, "seen", "crops/d.jpg", sha256(crop))
    store.detections.replace(db, received.scan.scan_id, "s", [found])
    (folder / "copy.png").write_bytes(shot.read_bytes())
    picture(folder / "own.png", 11)
    manifest(folder, {"id": 1, "images": ["copy.png", "crop.png", "own.png"]})
    added = take_in(db, images, folder)
    assert numbers(added) == (1, 1, 1)
    assert [trouble.split(": ", 2)[1:] for trouble in added.troubles] == [
        ["copy.png", "the same picture is kept aside to measure with"],
        ["crop.png", "the same picture is kept aside to measure with"],
    ]
    assert not has_image(db, sha256(shot))
    assert not has_image(db, sha256(crop))


def test_a_photograph_that_taught_a_template_cannot_be_kept_aside(
    db: Db, images: ImageStore, folder: Path
) -> None:
    cards(folder, 1)
    manifest(folder, {"id": "a", "image": "0.png"})
    take_in(db, images, folder)
    refused = receive_scan(db, images, UPath(folder / "0.png"), evaluation=True)
    assert refused.scan is None
    assert refused.reason.startswith("0.png: a template was learned from this photograph; revoke")
    assert receive_scan(db, images, UPath(folder / "0.png")).scan is not None


def test_a_photograph_whose_crop_was_learned_cannot_be_kept_aside_until_that_is_revoked(
    db: Db, images: ImageStore, folder: Path
) -> None:
    manifest(folder, *cards(folder, 1))
    take_in(db, images, folder)
    shot = picture(folder / "shot.png", 5)
    scan = receive_scan(db, images, UPath(shot)).scan
    assert scan is not None
    store.scans.keep_picture(db, scan.scan_id, "s", "key", (20, 28), 1.0)
    quad = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]
    found = StoredDetection("d" * 32, 1, quad, 0.9, "seen", "crops/d.jpg", "c" * 64)
    store.detections.replace(db, scan.scan_id, "s", [found])
    number = add_correction(db, "dddd", item_id="c0", user="ann", curator=True)
    learned = ReceivedImage("c0", "c" * 64, "correction", "crops/d.jpg", correction_id=number)
    store.gallery_items.add_images(db, [learned])
    assert "revoke its corrections" in receive_scan(db, images, UPath(shot), evaluation=True).reason
    store.gallery_items.forget_learned(db, learned.template_id)
    received = receive_scan(db, images, UPath(shot), evaluation=True)
    assert received.scan is not None
    assert store.scans.get(db, [received.scan.scan_id])[0].evaluation


# Corrections


def test_only_its_author_or_a_curator_takes_a_correction_back(
    db: Db, images: ImageStore, folder: Path
) -> None:
    manifest(folder, *cards(folder, 1))
    take_in(db, images, folder)
    scan = receive_scan(db, images, UPath(picture(folder / "shot.png", 5))).scan
    assert scan is not None
    store.scans.keep_picture(db, scan.scan_id, "s", "key", (20, 28), 1.0)
    quad = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]
    found = StoredDetection("d" * 32, 1, quad, 0.9, "seen", "crops/d.jpg", "c" * 64)
    store.detections.replace(db, scan.scan_id, "s", [found])
    number = add_correction(db, "dd", item_id="c0", user="ann", note="a\0b\udcff")
    with pytest.raises(InputError, match=f"correction {number} is ann's, who can take it back"):
        add_correction(db, revokes=number, user="eve")
    assert add_correction(db, revokes=number, user="Ann ") > number
    assert add_correction(db, revokes=number, user="keeper", curator=True) > number
    wrongs: list[dict[str, Any]] = [
        {"revokes": 999},
        {"revokes": number + 1},  # which takes back itself
        {"detection_id": "e", "unknown": True},
        {"detection_id": "", "unknown": True},
        {"detection_id": "dd"},
        {"detection_id": "dd", "unknown": True, "item_id": "c0"},
    ]
    for wrong in wrongs:
        with pytest.raises(InputError, match=r"there is no|no single|say one thing"):
            add_correction(db, user="ann", **wrong)
    with pytest.raises(InputError, match="say who corrects"):
        add_correction(db, "dd", unknown=True, user=" \t")
    with pytest.raises(InputError, match="there is no item"):
        add_correction(db, "dd", item_id="' OR '1'='1' --", user="ann")


# Photographs


def test_a_file_that_comes_twice_is_one_scan(db: Db, images: ImageStore, tmp_path: Path) -> None:
    shot = picture(tmp_path / "shots" / "a.png")
    (tmp_path / "shots" / "b.png").write_bytes(shot.read_bytes())
    first, second = (
        receive_scan(db, images, UPath(tmp_path / "shots" / name)) for name in ("a.png", "b.png")
    )
    assert (first.new, second.new) == (True, False)
    assert first.scan is not None
    assert second.scan is not None
    assert first.scan.scan_id == second.scan.scan_id == sha256(shot)
    assert store.batches.keys(db, "scan") == [first.scan.batch_key]
    assert [scan.name for scan in store.scans.get(db, [first.scan.scan_id])] == ["a.png"]
    assert images.read_bytes(first.scan.file_key) == shot.read_bytes()


def test_other_filters_forget_what_was_sought(db: Db, images: ImageStore, tmp_path: Path) -> None:
    shot = UPath(picture(tmp_path / "a.png"))
    scan = receive_scan(db, images, shot, sets=["jungle", "base", "base"]).scan
    assert scan is not None
    assert scan.sets == ("base", "jungle")
    for asset in ("scans", "candidates"):
        job = Job(asset, "s", (scan.batch_key,), 9, "r")
        store.work.record(db, job, [Outcome(f"{asset} unit", scan.batch_key)])
    receive_scan(db, images, shot, sets=["base", "jungle"])
    assert db.execute("SELECT count(*) FROM work").fetchone() == (2,)
    receive_scan(db, images, shot, languages=["ja"])
    assert db.execute("SELECT asset FROM work").fetchall() == [("scans",)]
    assert store.scans.get(db, [scan.scan_id])[0].languages == ("ja",)


def test_a_text_that_is_called_a_picture_is_a_scan_with_a_reason(
    db: Db, images: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_text("Dear reader")
    received = receive_scan(db, images, UPath(tmp_path / "a.jpg"))
    assert received.scan is not None
    assert received.new
    assert received.reason.startswith("a.jpg: it is no picture that is taken")
    assert store.scans.get(db, [received.scan.scan_id])[0].reason == received.reason
    assert received.scan.file_key.endswith(".bin")


@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing"])
def test_what_cannot_be_read_is_no_scan(
    db: Db, images: ImageStore, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    received = receive_scan(db, images, UPath(path))
    assert received.scan is None
    assert received.reason.startswith("a.png: ")
    assert received.again == (kind == "nothing")
    assert store.batches.keys(db, "scan") == []


def test_a_file_that_is_too_large_says_so(
    db: Db, images: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png")
    spec = type(orchestration.gallery_intake.SCANS)(max_file_bytes=100)
    monkeypatch.setattr(orchestration.gallery_intake, "SCANS", spec)
    received = receive_scan(db, images, UPath(tmp_path / "a.png"))
    assert received.scan is None
    assert "larger than 0 MB" in received.reason


def test_photographs_are_sought_below_folders_and_links_are_told(tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    picture(shots / "b" / "2.JPG")
    picture(shots / "1.png")
    (shots / "notes.txt").write_text("no")
    (shots / "link.png").symlink_to(shots / "1.png")
    found = list(find_scans([str(shots), str(shots / "notes.txt")]))
    refused = [each for each in found if isinstance(each, ReceivedScan)]
    assert [each.name for each in found if isinstance(each, UPath)] == [
        "1.png", "2.JPG", "notes.txt",
    ]  # fmt: skip
    assert [each.reason for each in refused] == [
        "shots/link.png: a link, which is not followed; add what it leads to"
    ]
    with pytest.raises(InputError, match="there is no such file or folder"):
        list(find_scans([str(shots / "nowhere")]))
    with pytest.raises(InputError, match="leave user and password out"):
        list(find_scans(["s3://AKIA:s3cret@bucket/shots"]))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_dagster_learns_of_batches_and_photographs_once_and_in_order(
    db: Db, images: ImageStore, folder: Path, instance: dg.DagsterInstance
) -> None:
    manifest(folder, *cards(folder, 2))
    take_in(db, images, folder)
    for number in (3, 1, 2):
        receive_scan(db, images, UPath(picture(folder / f"shot-{number}.png", number)))
    for _ in range(2):
        register_gallery_partitions(db, instance)
        for name, kind in (("gallery_batches", "gallery"), ("scan_batches", "scan")):
            keys = store.batches.keys(db, kind)  # pyright: ignore[reportArgumentType]
            assert instance.get_dynamic_partitions(name) == keys
    assert len(store.batches.keys(db, "scan")) == 3
