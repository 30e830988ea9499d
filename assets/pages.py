"""Pages: what each page holds, before any of it is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import dagster as dg
import numpy as np

import store.pages
from assets.documents import documents
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.pages import PageContent
from core.work import Job, Outcome, Status
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.pdf import PdfFile
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from store.pages import PendingPage

WORKER_MB = 50.0
"""What the PDF worker holds before a page: MuPDF's code and tables, half of it file-backed."""


class OpenDocument:
    """The document of the pages at hand, opened once for as long as pages of it follow."""

    def __init__(self, images: ImageStore, memory_mb: int) -> None:
        self._images = images
        self._memory_mb = memory_mb
        self._key = ""
        self._open: Any = None
        self._pdf: PdfFile | None = None

    def get(self, file_key: str) -> PdfFile:
        """The document stored under this key."""
        if self._pdf is None or self._key != file_key:
            self.close()
            self._open = self._opened(file_key)
            self._pdf = self._open.__enter__()
            self._key = file_key
        assert self._pdf is not None
        return self._pdf

    @contextmanager
    def _opened(self, file_key: str) -> Iterator[PdfFile]:
        with (
            self._images.local(file_key) as path,
            PdfFile(path, memory_mb=self._memory_mb) as pdf,
        ):
            yield pdf

    def close(self) -> None:
        """End the worker process of the document that is open, if one is."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = self._pdf = None


@dg.asset(
    partitions_def=page_batches,
    deps=[documents],
    group_name="ingest",
    kinds={"pdf", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=250),
    backfill_policy=per_batches,
    check_specs=[complete_check("pages")],
)
def pages(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
) -> dg.MaterializeResult:
    """Size, image objects, words and vector paths of each page, and a thumbnail.

    Pages are parsed one at a time by a separate process, so that a page that crashes the parser is
    a reason on that page and nothing more.
    """
    spec = copy_search.spec
    source = OpenDocument(images, memory_mb=memory.granted_mb(context))

    def read(item: PendingPage) -> tuple[PageContent, str, str]:
        pdf = source.get(item.file_key)
        content = pdf.content(item.page)
        rendered = pdf.render(item.page, spec.pages.thumbnail_dpi)
        key = f"pages/{item.document_id[:2]}/{item.document_id}/{item.page:05d}.jpg"
        _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(rendered.image[:, :, ::-1]))
        images.write_bytes(key, jpeg.tobytes())
        complaints = dict.fromkeys((*content.complaints, *rendered.complaints))
        loss = "; ".join(f"page {item.page}: {complaint}" for complaint in complaints)
        return content, key, loss

    def keep(db: Db, job: Job, item: PendingPage, result: tuple[PageContent, str, str]) -> Outcome:
        content, key, loss = result
        store.pages.add(db, job, item, content, key)
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=loss)

    try:
        return work_through(
            context,
            postgres,
            memory,
            spec=spec.pages_id,
            recompute=config.recompute,
            pending=store.pages.pending,
            compute=each(read),
            keep=keep,
            item_mb=lambda item: 6.0,  # what the page holds is not known yet
            most=16,
            fixed_mb=WORKER_MB,
        )
    finally:
        source.close()
