"""Ingest: files become documents and page batches, once each, whatever they are called."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import dagster as dg
from upath import UPath

import store.documents
import store.page_batches
import store.uploads
import store.work
from assets.partitions import page_batches
from core.batches import BatchSpec, divide
from core.errors import BudgetError, InputError
from core.text import legible
from core.work import Status
from orchestration.files import LOCAL, NotNowError, Refused, copy_of, find, is_pdf
from resources.images import ImageStore
from resources.pdf import PdfFile, PdfLimits
from store.database import Db
from store.documents import Document

_BLOCK = 1 << 20
WORKER_MB = 250
"""Memory for opening a file: parsing the page tree of a 5,000-page file takes less than 100."""


OPENING_S = 30.0
"""Half of what a tick of the inbox has. Opening takes some 0.1 s, and seconds for 5,000 pages."""

TITLE_LETTERS = 300
"""Of a title that is kept; some files have their whole text there."""


@dataclass(frozen=True)
class Received:
    """One file that was taken in, or the reason why it was not.

    Attributes:
        name: What it was called.
        document: What the store knows of it; None where not even its bytes could be read.
        new: Whether it was seen for the first time.
        reason: Why it could not be taken in or opened; empty otherwise.
        again: Whether trying again may help: it could not be read, or changed while it was.
    """

    name: str
    document: Document | None
    new: bool
    reason: str = ""
    again: bool = False


def find_files(paths: Iterable[str]) -> Iterator[UPath | Received]:
    """The files that paths mean: files themselves, the PDFs below folders, URLs of a store.

    What is called PDF in a folder and is not taken in comes with the reason instead.

    Raises:
        InputError: A path leads nowhere, or is a URL that holds credentials.
    """
    for found in find(paths, is_pdf):
        yield not_taken(found) if isinstance(found, Refused) else found


def not_taken(refused: Refused) -> Received:
    """What is said of something in a folder that is not taken in."""
    return Received(refused.name, None, new=False, reason=refused.reason)


def receive(
    db: Db,
    images: ImageStore,
    path: UPath,
    limits: PdfLimits | None = None,
    spec: BatchSpec | None = None,
) -> Received:
    """Take in one file: copy, hash, open, divide into batches; all of it known or none of it.

    A file that cannot be opened as a PDF is a document all the same, with the reason, so that it
    ends in a report; added again, it is tried again. The same content under another name is the
    same document.
    """
    limits = limits or PdfLimits()
    name = legible(_name(path))
    with tempfile.NamedTemporaryFile(suffix=".pdf") as copy:
        try:
            digest, size = copy_of(path, cast(BinaryIO, copy), limits.max_file_bytes)
        except InputError as error:
            again = isinstance(error, NotNowError)
            return Received(name, None, new=False, reason=f"{name}: {error}", again=again)
        if name == f"{digest}.pdf":  # as the service drops uploads into the inbox
            name = store.uploads.name_of(db, digest) or name
        known = store.documents.get(db, [digest])
        whole = bool(known) and _is_whole(db, images, known[0])
        if whole and known[0].status != Status.FAILED:
            return Received(name, known[0], new=False, reason=known[0].reason)
        copy.flush()
        document = _opened(Path(copy.name), digest, name, size, limits)
        if whole and document.status == Status.FAILED:
            return Received(name, known[0], new=False, reason=known[0].reason)
        copy.seek(0)
        with images.writing(document.file_key) as target:
            while block := copy.read(_BLOCK):
                target.write(block)
    with db.transaction():
        new = store.documents.add(db, document)
        store.work.forget_failures(db, digest)  # it is tried again, now that the file is there
        batches = divide(digest, document.page_count, spec or BatchSpec())
        if known and known[0].status == Status.FAILED:
            key, (pages,) = batches[0]
            store.documents.reopen(db, document, key, pages.last_page)
        store.page_batches.add(db, batches)
    return Received(name, document, new=new, reason=document.reason)


def _is_whole(db: Db, images: ImageStore, known: Document) -> bool:
    """Whether the stored copy is there and was not found to be another file than was received."""
    altered = known.status != Status.FAILED and store.work.has_failed(
        db, "documents", known.document_id
    )
    return images.exists(known.file_key) and not altered


def _name(path: UPath) -> str:
    """What the file is called; the query of an address may be a signature, and is no name."""
    if path.protocol in LOCAL:
        return path.name
    return re.split("[?#]", path.name)[0]


def register_partitions(db: Db, instance: dg.DagsterInstance) -> int:
    """Tell Dagster of every batch that it does not know yet, in order; how many were added.

    Called after every ingest and by the sensor: a crash between the two is mended by the next call.
    """
    assert page_batches.name is not None
    known = set(instance.get_dynamic_partitions(page_batches.name))
    missing = [key for key in store.page_batches.keys(db) if key not in known]
    if missing:
        instance.add_dynamic_partitions(page_batches.name, missing)
    return len(missing)


def _opened(path: Path, digest: str, name: str, size: int, limits: PdfLimits) -> Document:
    status, reason, pages, title = Status.OK, "", 0, ""
    try:
        with PdfFile(path, memory_mb=WORKER_MB, timeout_s=OPENING_S, limits=limits) as pdf:
            pages, title = pdf.page_count, pdf.title
            wrong = list(pdf.complaints)
            if pdf.is_repaired:
                wrong.append(
                    "the file is damaged and was repaired on opening; pages may be missing"
                )
            if wrong:
                status, reason = Status.DEGRADED, "; ".join(wrong)
    except (InputError, BudgetError) as error:
        status, reason = Status.FAILED, str(error).replace(path.name, "the file")
    return Document(
        document_id=digest,
        name=name,
        size_bytes=size,
        page_count=pages,
        title=legible(title)[:TITLE_LETTERS],
        status=status,
        reason=reason,
        file_key=f"documents/{digest[:2]}/{digest}.pdf",
    )
