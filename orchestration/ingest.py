"""Ingest: files become documents and page batches, once each, whatever they are called."""

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import dagster as dg
from upath import UPath

import store.documents
import store.page_batches
from assets.partitions import page_batches
from core.batches import BatchSpec, divide
from core.errors import BudgetError, InputError
from core.text import NO_CREDENTIALS, holds_credentials, legible, without_secrets
from core.work import Status
from resources.images import ImageStore
from resources.pdf import PdfFile, PdfLimits
from store.database import Db
from store.documents import Document

_BLOCK = 1 << 20
WORKER_MB = 250
"""Memory for opening a file: parsing the page tree of a 5,000-page file takes less than 100."""


@dataclass(frozen=True)
class Received:
    """One file that was taken in, or the reason why it was not.

    Attributes:
        name: What it was called.
        document: What the store knows of it; None where not even its bytes could be read.
        new: Whether it was seen for the first time.
        reason: Why it could not be taken in or opened; empty otherwise.
    """

    name: str
    document: Document | None
    new: bool
    reason: str = ""


def find_files(paths: Iterable[str]) -> Iterator[UPath]:
    """The files that paths mean: files themselves, the PDFs below folders, URLs of a store.

    Raises:
        InputError: A path leads nowhere, or is a URL that holds credentials.
    """
    for text in paths:
        if holds_credentials(text):
            raise InputError(f"{without_secrets(text)}: {NO_CREDENTIALS}")
        path = UPath(text)
        if path.is_dir():
            found = sorted(
                (child for child in path.rglob("*") if child.suffix.lower() == ".pdf"),
                key=str,
            )
            yield from found
        elif path.exists():
            yield path
        else:
            raise InputError(f"{without_secrets(text)}: there is no such file or folder")


def receive(
    db: Db,
    images: ImageStore,
    path: UPath,
    limits: PdfLimits | None = None,
    spec: BatchSpec | None = None,
) -> Received:
    """Take in one file: copy, hash, open, divide into batches; all of it known or none of it.

    A file that cannot be opened as a PDF is a document all the same, with the reason, so that it
    ends in a report. The same content under another name is the same document.
    """
    limits = limits or PdfLimits()
    name = legible(_name(path))
    with tempfile.NamedTemporaryFile(suffix=".pdf") as copy:
        try:
            digest, size = _copy(path, cast(BinaryIO, copy), limits.max_file_bytes)
        except (InputError, OSError) as error:
            return Received(name, None, new=False, reason=f"{name}: {_words(error)}")
        known = store.documents.get(db, [digest])
        if known and images.exists(known[0].file_key):
            return Received(name, known[0], new=False, reason=known[0].reason)
        copy.flush()
        document = _opened(Path(copy.name), digest, name, size, limits)
        copy.seek(0)
        with images.writing(document.file_key) as target:
            while block := copy.read(_BLOCK):
                target.write(block)
    with db.transaction():
        new = store.documents.add(db, document)
        batches = divide(digest, document.page_count, spec or BatchSpec())
        store.page_batches.add(db, batches)
    return Received(name, document, new=new, reason=document.reason)


def _name(path: UPath) -> str:
    """What the file is called; the query of an address may be a signature, and is no name."""
    if path.protocol in ("", "file", "local"):
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


def _copy(path: UPath, target: BinaryIO, most: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with _open_regular(path) as source:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > most:
                raise InputError(f"larger than {most // _BLOCK} MB; split it, or raise the limit")
            digest.update(block)
            target.write(block)
    return digest.hexdigest(), size


def _open_regular(path: UPath) -> BinaryIO:
    """Open a file for reading, but no pipe, device or folder: those may never end."""
    if path.protocol not in ("", "file", "local"):
        return cast(BinaryIO, path.open("rb"))
    descriptor = os.open(path.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("not a regular file; copy its content to a file and add that")
    return os.fdopen(descriptor, "rb")


def _opened(path: Path, digest: str, name: str, size: int, limits: PdfLimits) -> Document:
    status, reason, pages, title = Status.OK, "", 0, ""
    try:
        with PdfFile(path, memory_mb=WORKER_MB, limits=limits) as pdf:
            pages, title = pdf.page_count, pdf.title
            if pdf.is_repaired:
                status = Status.DEGRADED
                reason = "the file is damaged and was repaired on opening; pages may be missing"
    except (InputError, BudgetError) as error:
        status, reason = Status.FAILED, str(error).replace(path.name, "the file")
    return Document(
        document_id=digest,
        name=name,
        size_bytes=size,
        page_count=pages,
        title=legible(title),
        status=status,
        reason=reason,
        file_key=f"documents/{digest[:2]}/{digest}.pdf",
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
