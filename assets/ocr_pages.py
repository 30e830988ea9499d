"""OCR pages: what each page says, with a box and a confidence for every word."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import dagster as dg

import store.ocr_pages
import store.pages
from assets.pages import OpenDocument, pages
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import BudgetError, InputError
from core.geometry import Box
from core.paper import Grey
from core.reading import PageText, Plan, ReadingSpec, TextLayer, dpi_for, native_dpi, plan_reading
from core.recognition import (
    Attempt,
    Picture,
    Recognized,
    as_it_is,
    is_writing,
    put_together,
    read_first,
    settle,
)
from core.work import Job, Outcome, Status
from resources.images import ImageStore
from resources.memory import MemoryContract, give_back, memory_budget
from resources.postgres import Postgres
from resources.process_tree import tree_mb
from resources.settings import Reading
from resources.tesseract import Tesseract, open_tesseract, version
from store.database import Db
from store.pages import Page

TESSERACT_MB = 40.0
"""What tesseract holds before a picture: its code, its language, the tables of one thread."""

BYTES_PER_PIXEL = 6.0
"""Of a picture that is read: five in tesseract, one in the pipe."""

CLEANED_BYTES_PER_PIXEL = 3.0
"""What cleaning, turning and sending a picture takes here."""

LEAST_TESSERACT_MB = 64
"""What tesseract is given even where the budget leaves less: a page at 150 dpi takes as much."""

USUAL_PIXELS = 8.5 * 11.7 * 150**2
"""Of a page at the first resolution, letter or A4."""

CLEANING_MB = 15.0
"""What cleaning and measuring pictures leaves behind in this process."""

AGAIN_MB = 32.0
"""What a finer reading leaves free of the budget, for what else may be held by then."""

PAGES_DRAWN = 4
"""As many usual pages are drawn, then the PDF parser is ended and they are read: it holds as much
as tesseract does, and is up again in 0.2 s."""


@dataclass(frozen=True)
class ReadPage:
    """What a page says, and what its reader has to know."""

    said: PageText
    loss: str = ""


@dg.asset(
    partitions_def=page_batches,
    deps=[pages],
    group_name="text",
    kinds={"tesseract", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=256),
    backfill_policy=per_batches,
    check_specs=[complete_check("ocr_pages")],
)
def ocr_pages(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    reading: Reading,
) -> dg.MaterializeResult:
    """What each page says: words with boxes and confidences, in reading order.

    A usable text layer is taken as it is; other pages are recognized by tesseract, and so are
    pictures without text on pages that have a text layer. A page without anything is blank, which
    is an answer. Several pages are recognized at a time, each by a process of its own.
    """
    budget_mb = memory.granted_mb(context)
    left_mb = budget_mb - tree_mb() - CLEANING_MB
    spec = _within(left_mb, reading.spec)
    engine = open_tesseract(
        spec.languages, timeout_s=spec.timeout_s, memory_mb=max(LEAST_TESSERACT_MB, round(left_mb))
    )
    source = OpenDocument(images, memory_mb=budget_mb)
    reader = _Reader(source, engine, spec, reading.workers)

    def keep(db: Db, job: Job, item: Page, result: ReadPage) -> Outcome:
        store.ocr_pages.replace(db, job, item.document_id, item.page, result.said)
        status = Status.DEGRADED if result.loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=result.loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        told = store.ocr_pages.summary(db, job.batch_keys)
        return {
            **told.kinds,
            "words": told.words,
            "confidence": told.confidence,
            "doubtful_regions": told.regions,
            "languages": "+".join(spec.languages),
            "tesseract": version(engine.program),
        }

    def page_mb(item: Page) -> float:
        return TESSERACT_MB + BYTES_PER_PIXEL * _pixels(item, spec) / 2**20

    try:
        return work_through(
            context,
            postgres,
            memory,
            spec=reading.spec.reading_id,
            recompute=config.recompute,
            pending=store.pages.pending_read,
            compute=reader.read_all,
            keep=keep,
            item_mb=page_mb,
            most=8 * reading.workers,
            fixed_mb=PAGES_DRAWN * USUAL_PIXELS / 2**20 + CLEANING_MB,
            parallel=reading.workers,
            describe=describe,
        )
    finally:
        source.close()


@dataclass
class _Drawn:
    """A page on its way: pictures of what is to be recognized of it, and what came of them."""

    item: Page
    layer: TextLayer
    plan: Plan
    engine: "_PageEngine"
    pictures: list[Picture] = field(default_factory=list[Picture])
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    losses: list[str] = field(default_factory=list[str])


class _Reader:
    """Reads pages: some are drawn, one by one, then several at a time are recognized.

    What needs another look gets it afterwards, one page at a time: that takes more memory.
    """

    def __init__(
        self, source: OpenDocument, engine: Tesseract, spec: ReadingSpec, workers: int
    ) -> None:
        self._source = source
        self._engine = engine
        self._spec = spec
        self._workers = workers

    def read_all(self, items: Sequence[Page]) -> list[ReadPage | InputError | BudgetError]:
        """What some pages say, in their order."""
        results: list[ReadPage | InputError | BudgetError] = []
        for some in _portions(items, self._spec):
            units = [item.unit for item in some]
            drawn: dict[str, _Drawn | InputError | BudgetError] = dict(
                zip(units, each(self._draw)(some), strict=True)
            )
            self._source.close()  # it holds as much as the engine does
            drawn.update(zip(units, self._first_readings(drawn, some), strict=True))
            results += each(partial(self._settle, drawn))(some)
        return results

    def _first_readings(
        self, drawn: Mapping[str, _Drawn | InputError | BudgetError], items: Sequence[Page]
    ) -> list[_Drawn | InputError | BudgetError]:
        """The pages with first readings, several at a time.

        Where that is interrupted, as it is for want of memory, nothing of it goes on.
        """
        one = each(partial(self._read_first, drawn))
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                return [page for (page,) in pool.map(lambda item: one([item]), items)]
            except BaseException:
                self._engine.end_all()
                raise

    def _draw(self, item: Page) -> _Drawn:
        """What a page holds, and pictures of what of it is to be recognized."""
        layer = self._source.get(item.file_key).text(item.page)
        plan = plan_reading(layer, self._spec)
        engine = _PageEngine(self._engine, self._spec.page_timeout_s)
        drawn = _Drawn(item, layer, plan, engine, losses=list(layer.complaints))
        if layer.cut and plan.kind in ("text_layer", "hybrid"):
            drawn.losses.append(f"has more than {len(layer.words):,} words; the rest was left out")
        for area in plan.areas_pt:
            dpi = dpi_for(area, self._spec.dpi, self._native(item, area), self._spec)
            drawn.pictures.append(self._rendered(drawn, area, dpi))
        return drawn

    def _read_first(
        self, drawn: Mapping[str, _Drawn | InputError | BudgetError], item: Page
    ) -> _Drawn:
        """The page with a first reading of each picture, and without the pictures."""
        page = _taken(drawn, item)
        for area in page.plan.areas_pt:
            picture, native = page.pictures.pop(0), self._native(item, area)
            try:
                attempt = read_first(area, native, picture, page.engine, self._spec)
            except InputError as error:
                attempt = Attempt(area, native, 0.0, picture.dpi, None)
                _lose(page, error)
            page.attempts.append(attempt)
        return page

    def _settle(
        self, drawn: Mapping[str, _Drawn | InputError | BudgetError], item: Page
    ) -> ReadPage:
        """What a page says, after another look where the first was not enough."""
        page = _taken(drawn, item)

        def render(part: Box, dpi: float) -> Picture:
            return self._rendered(page, part, dpi)

        page.engine.before = self._source.close
        read: list[tuple[Box, Recognized]] = []
        for attempt in page.attempts:
            try:
                if page.plan.kind == "hybrid" and not is_writing(attempt, self._spec):
                    found = as_it_is(attempt)
                else:
                    found = settle(attempt, render, page.engine, self._spec)
            except InputError as error:
                _lose(page, error)
                found = Recognized()
            page.losses.extend(found.losses)
            read.append((attempt.area_pt, found))
        said = put_together(page.plan, page.layer, read, self._spec)
        told = (f"page {item.page} {loss}" for loss in dict.fromkeys(page.losses))
        return ReadPage(said, "; ".join(told))

    def _rendered(self, page: _Drawn, part: Box, dpi: float) -> Picture:
        pdf = self._source.get(page.item.file_key)
        rendered = pdf.render(page.item.page, dpi, part, grey=True)
        page.losses.extend(rendered.complaints)
        return Picture(rendered.image, rendered.dpi)

    def _native(self, item: Page, area: Box) -> float | None:
        return native_dpi(area, item.decoded().images, self._spec)


class _PageEngine:
    """The engine for one page, within the page's time."""

    def __init__(self, engine: Tesseract, timeout_s: float) -> None:
        self.before: Callable[[], None] | None = None
        """What is to be done before the engine starts."""
        self._engine = engine
        self._timeout_s = self._left_s = timeout_s

    def read(self, grey: Grey, dpi: float, *, one_block: bool = False) -> str:
        """As the engine does."""
        with self._timed() as left_s:
            return self._engine.read(grey, dpi, one_block=one_block, timeout_s=left_s)

    def quarter_turn(self, grey: Grey, dpi: float) -> int:
        """As the engine does."""
        with self._timed() as left_s:
            return self._engine.quarter_turn(grey, dpi, timeout_s=left_s)

    @contextmanager
    def _timed(self) -> Iterator[float]:
        if self._left_s < 1:
            raise InputError(f"reading the page took longer than {self._timeout_s:g} s")
        if self.before is not None:
            self.before()
        give_back()  # pictures that are done with are as large as what the engine needs
        started = time.monotonic()
        try:
            yield self._left_s
        finally:
            self._left_s -= time.monotonic() - started


def _within(left_mb: float, spec: ReadingSpec) -> ReadingSpec:
    """The numbers with no more pixels to a picture than can be cleaned and read in this memory."""
    fits = (left_mb - TESSERACT_MB - AGAIN_MB) * 2**20 / (BYTES_PER_PIXEL + CLEANED_BYTES_PER_PIXEL)
    most = min(spec.most_pixels, max(round(USUAL_PIXELS), round(fits)))
    return replace(spec, most_pixels=most)


def _portions(items: Sequence[Page], spec: ReadingSpec) -> Iterator[list[Page]]:
    """The pages in groups that have no more pixels than some usual pages, one at least."""
    portion: list[Page] = []
    pixels = 0.0
    for item in items:
        pixels += _pixels(item, spec)
        if portion and pixels > PAGES_DRAWN * USUAL_PIXELS:
            yield portion
            portion, pixels = [], _pixels(item, spec)
        portion.append(item)
    yield portion


def _pixels(item: Page, spec: ReadingSpec) -> float:
    """How many pixels a page has at first, if all of it is drawn."""
    dpi = dpi_for((0.0, 0.0, item.width_pt, item.height_pt), spec.dpi, None, spec)
    return item.width_pt * item.height_pt * (dpi / 72) ** 2


def _taken(drawn: Mapping[str, _Drawn | InputError | BudgetError], item: Page) -> _Drawn:
    """What was drawn of a page; raises why it was not."""
    page = drawn[item.unit]
    if isinstance(page, InputError | BudgetError):
        raise page
    return page


def _lose(page: _Drawn, error: InputError) -> None:
    """Losing one of several pictures on a page with text loses not the page."""
    if page.plan.kind != "hybrid":
        raise _on_page(page.item.page, error) from error
    page.losses.append(f"has a picture that could not be read: {error}")


def _on_page(page: int, error: InputError) -> InputError:
    """The error with the page it is about, unless it names that already."""
    text = str(error)
    return error if text.startswith("page ") else InputError(f"page {page}: {text}.")
