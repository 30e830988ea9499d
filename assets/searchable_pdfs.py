"""Searchable PDFs: the pages as they were received, with what was recognized on them as text."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

import store.page_batches
import store.searchable_pdfs
from assets.ocr_pages import ocr_pages
from assets.pages import WORKER_MB
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.geometry import Box
from core.reading import CERTAIN
from core.work import Job, Outcome, Status, spec_id
from resources import scratch
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.pdf import PdfFile
from resources.postgres import Postgres
from resources.settings import Reading
from store.database import Db
from store.ocr_pages import OcrPage
from store.searchable_pdfs import PendingCopy, SearchablePdf

SEARCHABLE_VERSION = 1

PAGES_AT_A_TIME = 32
"""Pages whose words are held, here and by the parser, before they are written to the file."""

MOST_ADDED_BYTES = 256 << 20
"""What the parser may add to a file, at most: 20 kB for each of 5,000 pages, and twice that for a
file that has to be written anew."""

SAVE_S = 300.0
"""For one request of the parser, which may be to write a file of 1 GiB anew."""

Words = list[tuple[str, Box]]


@dg.asset(
    partitions_def=page_batches,
    deps=[ocr_pages],
    group_name="text",
    kinds={"pdf"},
    owners=["team:quire"],
    code_version=str(SEARCHABLE_VERSION),
    op_tags=memory_budget(mb=250),
    backfill_policy=per_batches,
    check_specs=[complete_check("searchable_pdfs")],
)
def searchable_pdfs(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    reading: Reading,
) -> dg.MaterializeResult:
    """For each document a copy in which recognized words can be selected and searched.

    The pages look as they did: the text is written behind what is there, unseen, and the bytes that
    were received stay as they are. A document on which nothing was recognized needs no copy. Made
    on demand, whole documents at a time, in the image store under `searchable/`.
    """
    budget_mb = memory.granted_mb(context)

    def make(item: PendingCopy) -> tuple[SearchablePdf, str]:
        with postgres.connect() as db:
            return _made(db, images, item, reading.spec.reading_id, budget_mb)

    def keep(
        db: Db, job: Job, item: PendingCopy, result: tuple[SearchablePdf, str]
    ) -> Outcome | None:
        if not store.searchable_pdfs.is_of_these_pages(db, item):
            return None  # a page was read anew meanwhile
        copy, loss = result
        store.searchable_pdfs.put(db, copy)
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        ids = store.page_batches.documents(db, job.batch_keys)
        copies = [copy for i in ids if (copy := store.searchable_pdfs.get(db, i)) is not None]
        return {
            "pages_with_added_text": sum(copy.pages for copy in copies),
            "words_added": sum(copy.words for copy in copies),
            "files": dg.MetadataValue.json([copy.key for copy in copies[:50]]),
        }

    return work_through(
        context,
        postgres,
        memory,
        spec=spec_id("searchable", SEARCHABLE_VERSION, reading.spec.reading_id),
        recompute=config.recompute,
        pending=store.searchable_pdfs.pending,
        compute=each(make),
        keep=keep,
        item_mb=lambda item: 20.0,  # the words of some pages, and the parser's of the same
        most=4,
        fixed_mb=WORKER_MB,
        describe=describe,
    )


def _made(
    db: Db, images: ImageStore, item: PendingCopy, spec: str, budget_mb: int
) -> tuple[SearchablePdf, str]:
    """Make the copy of one document, and say what it lacks."""
    losses: list[str] = []
    if item.read_pages < item.page_count:
        missing = item.page_count - item.read_pages
        losses.append(f"{missing} of {item.page_count} pages have not been read")
    first = store.searchable_pdfs.recognized(db, item.unit, after=0, limit=1)
    if not first:
        return SearchablePdf(item.unit, spec, item.file_key, 0, 0, item.size_bytes), "; ".join(
            losses
        )
    with scratch.folder() as folder:
        path = folder / "copy.pdf"
        with images.local(item.file_key) as original:
            shutil.copyfile(original, path)
        pages, words = _written(db, path, item, budget_mb, losses)
        key = f"searchable/{item.unit[:2]}/{item.unit}.pdf"
        with path.open("rb") as file, images.writing(key) as target:
            shutil.copyfileobj(file, target)
        size_bytes = path.stat().st_size
    return SearchablePdf(item.unit, spec, key, pages, words, size_bytes), "; ".join(losses)


def _written(
    db: Db, path: Path, item: PendingCopy, budget_mb: int, losses: list[str]
) -> tuple[int, int]:
    """Write the recognized words of a document into a file; how many pages and words it took."""
    written_pages = written_words = after = 0
    limit = 2 * item.size_bytes + MOST_ADDED_BYTES
    with PdfFile(path, memory_mb=budget_mb, timeout_s=SAVE_S, writes_bytes=limit) as pdf:
        while pages := store.searchable_pdfs.recognized(
            db, item.unit, after=after, limit=PAGES_AT_A_TIME
        ):
            after = pages[-1].page
            texts = {page.page: words for page in pages if (words := _recognized_words(page))}
            for page in _added(pdf, texts, losses):
                written_pages += 1
                written_words += len(texts[page])
    return written_pages, written_words


def _added(pdf: PdfFile, texts: dict[int, Words], losses: list[str]) -> Sequence[int]:
    """Add words to some pages and save them; a page that cannot be written to is left as it is.

    What the parser holds unsaved is lost with it, so it begins anew without that page.
    """
    failed: set[int] = set()
    while True:
        wanted = [page for page in texts if page not in failed]
        page = 0
        try:
            for page in wanted:
                pdf.add_text(page, texts[page])
            page = 0
            if wanted:
                pdf.save()
        except InputError as error:
            if not page:
                raise
            pdf.close()
            failed.add(page)
            losses.append(f"page {page} stays without text: {error}")
        else:
            return wanted


def _recognized_words(page: OcrPage) -> Words:
    """The words that the file itself does not have."""
    return [
        (page.text[word.start : word.end], word.box_pt)
        for word in page.decoded_words()
        if word.confidence < CERTAIN
    ]
