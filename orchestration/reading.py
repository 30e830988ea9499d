"""``quire read``: documents become text files, and a list of what could not be read."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.table import Table

import store.documents
import store.read_pages
from core.text import file_name, inert
from core.work import Status
from orchestration.definitions import defs
from orchestration.headless import (
    FAILED,
    FAILED_BECAUSE,
    INCOMPLETE,
    MOST_TROUBLES,
    Made,
    run_config,
    said_first,
    take_in_and_make,
)
from orchestration.settings import Settings
from orchestration.terminal import say, shown
from resources import scratch
from resources.settings import Reading
from store.database import Db
from store.documents import Document
from store.read_pages import PageTrouble, ReadPage

PAGES = "pages.json"

BETWEEN_PAGES = "\f\n"
"""As other programs that extract text have it."""

_WORDS = {
    "pages": "opening pages",
    "ocr_pages": "reading",
    "chunks": "passages",
    "chunk_embeddings": "embedding",
}


@dataclass(frozen=True)
class ReadOptions:
    """What the user asked ``quire read`` for; zeros and empty words leave the settings' values."""

    paths: Sequence[str]
    out: Path
    languages: str = ""
    memory_mb: int = 0
    recompute: bool = False


@dataclass
class ReadDocument:
    """What came of one document.

    Attributes:
        document: What the store knows of it.
        file: Where its text is, below the folder of all.
        read: Pages that were read, as ``pages.json`` has them.
        failed: Pages that could not be, each with the reason.
        notes: What was lost of pages that were read, and of the file as a whole.
    """

    document: Document
    file: str
    read: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether everything was read, and without a loss."""
        return not self.failed and not self.notes

    def as_json(self) -> dict[str, Any]:
        """As ``pages.json`` has it."""
        return {
            "document_id": self.document.document_id,
            "name": self.document.name,
            "file": self.file,
            "status": "ok" if self.whole else "degraded" if self.read else "failed",
            "pages": self.document.page_count,
            "pages_read": len(self.read),
            "read": self.read,
            "failed": [{"page": n, "reason": reason} for n, reason in self.failed.items()],
            "notes": self.notes,
        }


def read_documents_job() -> dg.JobDefinition:
    """The job, as a process of its own rebuilds it."""
    return defs().resolve_job_def("read_documents")


def read_paths(settings: Settings, options: ReadOptions, out: Console, err: Console) -> int:
    """Take in the paths, read what is not read yet, write the texts; returns the exit code."""
    reading = Reading(languages=options.languages or settings.languages, workers=settings.threads)
    _ = reading.spec  # a wrong value is an error now, not in the run
    config = run_config(read_documents_job, {"reading": reading}, recompute=options.recompute)
    made = take_in_and_make(
        settings, options.paths, options.memory_mb, read_documents_job, config, _WORDS, err
    )
    with said_first(made.failed, err), made.postgres.connect() as db:
        documents = list(write_texts(db, made.documents, options.out))
    _write(options.out / PAGES, json.dumps(_summary(documents, made), indent=1) + "\n")
    return _tell(documents, made, options.out, out, err)


def write_texts(db: Db, document_ids: Sequence[str], out: Path) -> Iterator[ReadDocument]:
    """Write the text of each document into a folder, and say what came of it."""
    taken: set[str] = {PAGES}
    for document in store.documents.get(db, document_ids):
        name = f"{file_name(document.name.removesuffix('.pdf'))}.txt"
        if name.casefold() in taken:
            name = f"{name[:-4]}-{document.document_id[:12]}.txt"
        taken.add(name.casefold())
        came = ReadDocument(document, name)
        troubles = store.read_pages.troubles(db, document.document_id)
        with scratch.partial_file(out, out / name) as file:
            for text in _texts(came, store.read_pages.pages(db, document.document_id), troubles):
                file.write(text.encode("utf-8"))
        yield came


def _texts(
    came: ReadDocument, pages: Iterator[ReadPage], troubles: Sequence[PageTrouble]
) -> Iterator[str]:
    """The text of a document, a page at a time; a page that was not read says so in its place."""
    came.notes += [inert(t.reason) for t in troubles if t.page == 0]
    if came.document.status != Status.OK and not came.notes:
        came.notes.append(inert(came.document.reason))
    of_page: defaultdict[int, list[PageTrouble]] = defaultdict(list)
    for trouble in troubles:
        of_page[trouble.page].append(trouble)
    found = {page.page: page for page in pages}
    for number in range(1, came.document.page_count + 1):
        page = found.pop(number, None)
        if page is None:
            failed = [t for t in of_page[number] if t.status == Status.FAILED]
            reason = _reasons(number, failed) or "it has not been read yet"
            came.failed[number] = reason
            yield f"[page {number} was not read: {reason}]\n"
        else:
            came.read.append(_as_json(page, of_page[number]))
            if of_page[number]:
                came.notes.append(f"page {number}: {_reasons(number, of_page[number])}")
            lines = (inert(line) for line in page.text.split("\n"))
            yield "\n".join(lines).rstrip("\n") + "\n"
        if number < came.document.page_count:
            yield BETWEEN_PAGES


def _reasons(page: int, troubles: Sequence[PageTrouble]) -> str:
    """What they say of a page, each sentence once and without the page's number."""
    said = (inert(trouble.reason).removeprefix(f"page {page}: ") for trouble in troubles)
    return "; ".join(dict.fromkeys(filter(None, said)))


def _as_json(page: ReadPage, troubles: Sequence[PageTrouble]) -> dict[str, Any]:
    return {
        "page": page.page,
        "kind": page.kind,
        "language": page.language,
        "dpi": page.dpi,
        "confidence": page.confidence,
        "letters": len(page.text),
        "low_confidence": page.regions,
        "status": (Status.DEGRADED if troubles else Status.OK).value,
        "reason": _reasons(page.page, troubles),
    }


def _summary(documents: Sequence[ReadDocument], made: Made) -> dict[str, Any]:
    whole = not made.failed and not made.refused and all(each.whole for each in documents)
    return {
        "status": "ok" if whole else "degraded",
        "failed": made.failed,
        "refused": [inert(reason) for reason in made.refused],
        "documents": [each.as_json() for each in documents],
    }


def _write(path: Path, text: str) -> None:
    with scratch.partial_file(path.parent, path) as file:
        file.write(text.encode("utf-8"))


def _tell(
    documents: Sequence[ReadDocument], made: Made, folder: Path, out: Console, err: Console
) -> int:
    table = Table(show_edge=False)
    for name in ("document", "pages", "read", "confidence", "doubtful regions", "text"):
        table.add_column(name, justify="left" if name in ("document", "text") else "right")
    for each in documents:
        sure = [page["confidence"] for page in each.read if page["confidence"] is not None]
        table.add_row(
            shown(each.document.name),
            f"{each.document.page_count:,}",
            f"{len(each.read):,}",
            f"{sum(sure) / len(sure):.0f}" if sure else "",
            f"{sum(len(page['low_confidence']) for page in each.read):,}",
            shown(each.file),
        )
    out.print(table)
    say(out, f"  {folder / PAGES}")
    if not made.new_work and not made.failed:
        say(out, "Everything was already there: nothing was read again.")
    say(out, 'Search it with: quire search "..."')
    troubles = [*made.refused]
    for each in documents:
        name = each.document.name
        troubles += [f"{name}: page {number}: {why}" for number, why in each.failed.items()]
        troubles += [f"{name}: {note}" for note in each.notes]
    for trouble in troubles[:MOST_TROUBLES]:
        say(err, f"quire: {trouble}")
    if len(troubles) > MOST_TROUBLES:
        say(err, f"quire: and {len(troubles) - MOST_TROUBLES} more, all in {PAGES}")
    if made.failed:
        say(err, f"quire: {FAILED_BECAUSE} {made.failed}")
        return FAILED
    if troubles:
        say(err, f"quire: finished, but not everything could be read as it is (in {PAGES})")
        return INCOMPLETE
    return 0
