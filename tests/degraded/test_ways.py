"""Each way to be degraded is provoked, and looked for wherever users look.

``PROVOKED`` below names a provocation for every way that ``core.degraded`` lists. Files at fault go
through one run of the whole pipeline; the parser's misbehaviour is played by a parser that
misbehaves; what happens to a finished search is done to one, and undone.
"""

import errno
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, LiteralString

import dagster as dg
import psycopg
import pymupdf
import pytest

import assets.pages
import assets.panel_features
import orchestration.files
import resources.settings
import store.panel_features
from core.complaints import in_words
from core.degraded import WAYS, Kind, Way
from core.errors import BudgetError
from core.geometry import Image
from core.pages import PageContent
from orchestration.ingest import Received, find_files, receive
from resources.encoder import Encoder
from resources.pdf import PdfFile, PdfLimits, Rendered
from resources.settings import CopySearch
from store.database import Db
from tests.assets.conftest import Pipeline, Roomy
from tests.degraded.conftest import Told, tell
from tests.hostile import HOSTILE, assemble, small_paper
from tests.resources.tiny_encoders import tiny_encoder

ROOT = Path(__file__).parents[2]
MAKERS = {name: maker for name, maker, _ in HOSTILE}
TOO_MANY = PdfLimits().max_pages + 1
LARGE_PT = (72.0, 72.0, 300.0, 180.0)
"""Where the picture lies that is played to be too large: another shape than all others have."""


def paper(folder: Path, name: str, seed: int) -> Path:
    """A small paper without copies, one panel on each of its two pages."""
    small_paper(folder / name, seed=seed, panels=2, planted=0)
    return folder / name


def plain(folder: Path, name: str, pages: int = 1) -> Path:
    """Pages with nothing but a line of text."""
    doc = pymupdf.open()
    for _ in range(pages):
        doc.new_page(width=300, height=300).insert_text((40, 40), name)
    doc.save(folder / f"{name}.pdf")
    return folder / f"{name}.pdf"


def large_panel(folder: Path) -> Path:
    source = pymupdf.open(paper(folder, "source.pdf", 70))
    picture = source.extract_image(source[0].get_images()[0][0])["image"]
    doc = pymupdf.open()
    doc.new_page(width=612, height=792).insert_image(
        pymupdf.Rect(LARGE_PT), stream=picture, keep_proportion=False
    )
    doc.save(folder / "large-panel.pdf")
    return folder / "large-panel.pdf"


def counting(folder: Path, name: str, stated: int, pages: int) -> Path:
    """Empty pages, and a statement of how many there are."""
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>"
    kids = b" ".join(b"%d 0 R" % (number + 3) for number in range(pages))
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [" + kids + b"] /Count %d >>" % stated,
        **{number + 3: page for number in range(pages)},
    }
    (folder / f"{name}.pdf").write_bytes(assemble(objects))
    return folder / f"{name}.pdf"


def similar_panels(folder: Path) -> Path:
    small_paper(folder / "similar.pdf", seed=71)
    return folder / "similar.pdf"


FILES: dict[str, Callable[[Path], Path]] = {
    "encrypted": MAKERS["encrypted_for_readers"],
    "web_page": MAKERS["html"],
    "archive": MAKERS["archive"],
    "no_pdf": MAKERS["plain_text"],
    "empty_file": MAKERS["zero_bytes"],
    "no_pages": MAKERS["zero_pages"],
    "beyond_repair": MAKERS["truncated_early"],
    "unreadable_file": lambda folder: counting(folder, "negative", -1, 1),
    "too_many_pages": lambda folder: counting(folder, "many", TOO_MANY, TOO_MANY),
    "uncounted_pages": lambda folder: counting(folder, "uncounted", 1, 3),
    "repaired": MAKERS["broken_xref"],
    "page_too_large": MAKERS["huge_page"],
    "item_over_budget": large_panel,
    "candidates_capped": similar_panels,
}
"""Documents that are at fault themselves."""


class Odd(PdfFile):
    """A parser that misbehaves on each page of one document in another way."""

    document_id: ClassVar[str] = ""
    """Which document."""

    def _way(self, page: int) -> str:
        return PARSED[page - 1] if self.path.stem == self.document_id else ""

    def _send(self, sent: signal.Signals) -> None:
        if self.pid is None:
            self._open()
        assert self.pid is not None
        os.kill(self.pid, sent)

    def content(self, page: int) -> PageContent:
        match self._way(page):
            case "page_unreadable":
                self._check(
                    f"page {page}", {"error": "input", "message": "an oddity"}, "cannot be read"
                )
            case "page_absent":
                self._check(
                    f"page {page}", {"error": "input", "message": "page not in document"}, ""
                )
            case "page_without_area":
                said = f"page {page} has no area to render"
                self._check(f"page {page}", {"error": "input", "message": said}, "")
            case "page_broke_parser":
                self._send(signal.SIGSEGV)
            case "page_too_slow":
                self._send(signal.SIGSTOP)
                self.timeout_s = 0.2
            case "page_not_tried":
                self._lost_s = 2 * self.limits.max_lost_s
            case "page_over_budget":
                self._over_budget(f"page {page}")
            case "page_asks_too_much":
                self._over_budget(f"page {page}", asked_mb=2.0 * self.limits.max_memory_mb)
            case _:
                pass
        try:
            return super().content(page)
        finally:
            self.timeout_s, self._lost_s = 60.0, 0.0

    def render(self, page: int, dpi: float, clip_pt: Any = None, *, grey: bool = False) -> Rendered:
        rendered = super().render(page, dpi, clip_pt, grey=grey)
        way = self._way(page)
        if way == "dpi_lowered":
            return replace(rendered, lowered=True)
        if way == "page_repaired":
            return replace(
                rendered, complaints=self._complaints({"complaints": [], "repaired": True})
            )
        return replace(rendered, complaints=in_words([SAID[way]]) if way in SAID else ())


SAID = {
    "not_decoded": "premature end of file in jpeg",
    "not_in_file": "cannot find XObject resource 'Im7'",
    "font_unreadable": "FT_New_Memory_Face: unknown file format",
    "commands_damaged": "unknown keyword: 'oddity'",
    "structure_damaged": "trailer dictionary expected",
    "page_damaged": "a thing that nobody has seen before",
    "out_of_sight": "1 of 1 images out of sight",
    "page_crowded": "more than 20000 images; the rest was not looked at one by one",
}
"""What the parser says of the pages of these ways."""

PARSED = (
    "page_unreadable", "page_absent", "page_without_area", "page_broke_parser", "page_too_slow",
    "page_not_tried", "page_over_budget", "page_asks_too_much", "dpi_lowered", "page_repaired",
    *SAID,
)  # fmt: skip


@dataclass
class Searched:
    """Everything that went through the pipeline, and what came of it."""

    pipeline: Pipeline
    received: dict[str, Received]
    results: list[dg.ExecuteInProcessResult]
    settings: CopySearch = field(default_factory=lambda: CopySearch(threads=1))

    def id_of(self, name: str) -> str:
        document = self.received[name].document
        assert document is not None
        return document.document_id


@pytest.fixture(scope="module")
def searched(new_pipeline: Callable[[], Pipeline]) -> Searched:
    """Everything that is at fault by itself, searched in one go by a parser that misbehaves."""
    pipeline = new_pipeline()
    made = {name: maker(pipeline.folder) for name, maker in FILES.items()}
    made["odd"] = plain(pipeline.folder, "odd", pages=len(PARSED))
    received = dict(zip(made, pipeline.receive(*made.values()), strict=True))
    received |= dict.fromkeys(PARSED, received["odd"])
    extract = assets.panel_features.extract_features

    def too_large(image: Image, *rest: Any) -> Any:
        if image.shape[1] > 1.5 * image.shape[0]:
            raise MemoryError
        return extract(image, *rest)

    with pytest.MonkeyPatch.context() as patch:
        settings = few_candidates(patch)
        assert received["odd"].document is not None
        patch.setattr(Odd, "document_id", received["odd"].document.document_id)
        patch.setattr(assets.pages, "PdfFile", Odd)
        patch.setattr(assets.panel_features, "extract_features", too_large)
        results = pipeline.run()
    return Searched(pipeline, received, results, settings)


def few_candidates(patch: pytest.MonkeyPatch) -> CopySearch:
    """Have the search find many candidates, and keep one per panel; returns such settings."""
    usual = resources.settings.copy_search_spec

    def capped(*arguments: Any, **named: Any) -> Any:
        spec = usual(*arguments, **named)
        return replace(
            spec, local_search=replace(spec.local_search, max_pairs_per_panel=1, min_score=1.0)
        )

    patch.setattr(resources.settings, "copy_search_spec", capped)
    settings = CopySearch(threads=1)
    assert settings.spec.local_search.max_pairs_per_panel == 1  # and is kept
    return settings


@pytest.fixture(scope="module")
def finished(new_pipeline: Callable[[], Pipeline]) -> Searched:
    """A paper with two pairs, searched to the end without a loss."""
    pipeline = new_pipeline()
    small_paper(pipeline.folder / "paper.pdf", seed=61)
    received = pipeline.receive(pipeline.folder / "paper.pdf")
    results = pipeline.run()
    assert results[0].success
    return Searched(pipeline, {"paper": received[0]}, results)


Provoke = Callable[[Searched, Db, Path, pytest.MonkeyPatch], Told]


def by_sql(statement: LiteralString) -> Provoke:
    def provoke(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
        db.execute(statement)
        return tell(finished.pipeline, db, [finished.id_of("paper")], out)

    return provoke


def by_refusal(spoil: Callable[[Path, pytest.MonkeyPatch], object]) -> Provoke:
    """A folder with something in it that cannot be taken in, as `quire run` goes through it."""

    def provoke(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
        folder = out / "given"
        folder.mkdir(parents=True)
        spoil(folder, patch)
        reasons: list[str] = []
        for found in find_files([str(folder)]):
            taken = found
            if not isinstance(found, Received):
                limits = PdfLimits(max_file_bytes=1 << 20)
                taken = receive(db, finished.pipeline.images, found, limits=limits)
            assert isinstance(taken, Received)
            assert taken.document is None
            reasons.append(taken.reason)
        return tell(finished.pipeline, db, [finished.id_of("paper")], out, refused=reasons)

    return provoke


def changing(folder: Path, patch: pytest.MonkeyPatch) -> None:
    plain(folder, "changing")
    stamps = itertools.count()
    patch.setattr(orchestration.files, "_stamp", lambda *_: (next(stamps), 0, 0))


def unreadable(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "inner").mkdir()
    usual = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "inner":
            raise PermissionError(errno.EACCES, "Permission denied")
        return usual(path)

    patch.setattr(os, "scandir", scandir)


def by_copy(spoil: Callable[[Path], object]) -> Provoke:
    """The stored copy of the document, spoiled before the document is checked again."""

    def provoke(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
        digest = finished.id_of("paper")
        copy = finished.pipeline.folder / "store" / "documents" / digest[:2] / f"{digest}.pdf"
        whole = copy.read_bytes()
        spoil(copy)
        try:
            finished.pipeline.run(only=["documents"], recompute=True)
        finally:
            copy.write_bytes(whole)
        told = tell(finished.pipeline, db, [digest], out)
        finished.pipeline.run(only=["documents"], recompute=True)
        return told

    return provoke


def panel_pictures(finished: Searched) -> list[Path]:
    return sorted((finished.pipeline.folder / "store" / "panels").rglob("*.png"))


def by_pictures(spoil: Callable[[Path], object], *made: str) -> Provoke:
    """The stored pictures of the panels, spoiled before an asset that needs them is made anew."""

    def provoke(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
        whole = {path: path.read_bytes() for path in panel_pictures(finished)}
        for path in whole:
            spoil(path)
        try:
            if made:
                finished.pipeline.run(only=made, recompute=True)
            told = tell(finished.pipeline, db, [finished.id_of("paper")], out)
        finally:
            for path, data in whole.items():
                path.write_bytes(data)
        if made:
            finished.pipeline.run(only=made, recompute=True)
        return told

    return provoke


def features_gone(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
    """What verification aligns by is gone when the pairs are verified anew."""
    finished.pipeline.run(only=["panel_features", "candidate_pairs"])
    patch.setattr(store.panel_features, "get", lambda *_: {})
    finished.pipeline.run(only=["verified_pairs"], recompute=True)
    told = tell(finished.pipeline, db, [finished.id_of("paper")], out)
    patch.undo()
    finished.pipeline.run(only=["verified_pairs"], recompute=True)
    return told


class Choking(Encoder):
    """An encoder that does not fit, whatever it is given."""

    def embed(self, images: Sequence[Image]) -> Any:
        said = "encoder tiny does not fit: a single image runs out of memory"
        raise BudgetError(said, budget_mb=1000, needed_mb=2000)


def encoder_over_budget(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
    pipeline = replace(
        finished.pipeline, encoder=Choking(spec=f"open_clip:{tiny_encoder(out / 'tiny')}")
    )
    pipeline.run(only=["tiles", "tile_embeddings"])
    return tell(pipeline, db, [finished.id_of("paper")], out)


def encoder_waiting(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
    unused = Encoder(spec=f"open_clip:{tiny_encoder(out / 'tiny')}")
    pipeline = replace(finished.pipeline, encoder=unused)
    return tell(pipeline, db, [finished.id_of("paper")], out)


def document_unknown(finished: Searched, db: Db, out: Path, patch: pytest.MonkeyPatch) -> Told:
    return tell(finished.pipeline, db, [finished.id_of("paper"), "f" * 64], out)


DONE: dict[str, Provoke] = {
    "file_irregular": by_refusal(lambda folder, _: os.mkfifo(folder / "pipe.pdf")),
    "file_is_link": by_refusal(lambda folder, _: (folder / "to.pdf").symlink_to("elsewhere.pdf")),
    "file_too_large": by_refusal(
        lambda folder, _: (folder / "large.pdf").write_bytes(bytes(2 << 20))
    ),
    "file_changing": by_refusal(changing),
    "folder_unreadable": by_refusal(unreadable),
    "document_unknown": document_unknown,
    "copy_missing": by_copy(Path.unlink),
    "copy_altered": by_copy(lambda copy: copy.write_bytes(copy.read_bytes() + b"%")),
    "pages_waiting": by_sql("DELETE FROM pages WHERE page = 2"),
    "picture_lost": by_pictures(Path.unlink, "panel_features"),
    "picture_broken": by_pictures(lambda path: path.write_bytes(b""), "panel_features"),
    "picture_not_shown": by_pictures(Path.unlink),
    "pair_not_verified": by_pictures(Path.unlink, "verified_pairs"),
    "features_gone": features_gone,
    "panels_waiting": by_sql("DELETE FROM work WHERE asset = 'candidate_pairs'"),
    "encoder_waiting": encoder_waiting,
    "encoder_over_budget": encoder_over_budget,
    "pair_altered": by_sql("UPDATE verified_pairs SET tier = 'C'"),
    "no_reason_stored": by_sql(
        "UPDATE work SET status = 'failed', reason = '' WHERE asset = 'panel_features'"
    ),
}
"""What is done to a finished search, or said of what was to be in it."""

NOTED = {"earlier_apart": "candidates_capped"}
"""Ways that are told of a document although it is not at fault."""

FAILING = ("budget_hopeless", "encoder_missing", "encoder_without_room", "step_failed")
"""Ways in which the run fails."""

ELSEWHERE = {"op_stopped": "tests/faults/test_greedy_ops.py"}
"""Ways that need processes of their own to be provoked in, and the tests that have them."""

PROVOKED = {*FILES, *PARSED, *DONE, *NOTED, *FAILING, *ELSEWHERE}


def test_ways_that_are_provoked_elsewhere_are() -> None:
    for name, path in ELSEWHERE.items():
        assert way_of(name).says in (ROOT / path).read_text()


def test_every_way_is_provoked_and_nothing_else() -> None:
    assert {way.name for way in WAYS} == PROVOKED


def way_of(name: str) -> Way:
    return next(way for way in WAYS if way.name == name)


def assert_seen(way: Way, told: Told) -> None:
    """The way is told wherever users look."""
    assert told.status != "ok"
    assert any(flag["kind"] == way.kind and way.says in flag["sentence"] for flag in told.flags), (
        way,
        told.flags,
    )
    assert any(way.says in row["Reasons"] for row in told.table)
    assert all(row["Status"] != "ok" for row in told.table if row["Record"] != "document")
    assert way.says in told.banner
    assert any(way.says in trouble for trouble in told.troubles)  # printed, and exit code 3


@pytest.mark.parametrize("name", [*FILES, *PARSED])
def test_what_is_at_fault_itself_is_told(searched: Searched, tmp_path: Path, name: str) -> None:
    with searched.pipeline.postgres.connect() as db:
        told = tell(
            searched.pipeline, db, [searched.id_of(name)], tmp_path, copy_search=searched.settings
        )
    assert_seen(way_of(name), told)
    stored = searched.pipeline.report(searched.received[name]).decode()
    assert way_of(name).says in stored
    # One run over all of them: its blocking check fails, and names what is affected.
    assert not any(result.success for result in searched.results)


@pytest.mark.parametrize("name", DONE)
def test_what_happens_to_a_finished_search_is_told(
    finished: Searched, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with finished.pipeline.postgres.connect() as db:
        with db.transaction():
            told = DONE[name](finished, db, tmp_path / "first", monkeypatch)
            raise psycopg.Rollback
        monkeypatch.undo()
        assert_seen(way_of(name), told)
        again = tell(finished.pipeline, db, [finished.id_of("paper")], tmp_path)
        assert again.status == "ok", again.troubles
        assert len(again.pairs) == 2


@pytest.mark.parametrize("name", NOTED)
def test_what_a_reader_has_to_know_is_noted(searched: Searched, tmp_path: Path, name: str) -> None:
    with searched.pipeline.postgres.connect() as db:
        told = tell(
            searched.pipeline,
            db,
            [searched.id_of(NOTED[name])],
            tmp_path,
            copy_search=searched.settings,
        )
    way = way_of(name)
    assert any(flag["kind"] == way.kind and way.says in flag["sentence"] for flag in told.flags)
    assert any(way.says in note for note in told.notes)
    assert way.says in told.table[-1]["Reasons"]
    assert way.says in told.page


def failures(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What the steps of a run failed of; the command line prints the first."""
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        while error is not None:
            yield f"{event.step_key}: {error.message}"
            error = error.cause


@pytest.mark.parametrize("name", FAILING)
def test_a_run_that_fails_says_so_and_leaves_no_report_that_is_ok(
    new_pipeline: Callable[[], Pipeline],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = new_pipeline()
    (received,) = pipeline.receive(paper(tmp_path, "paper.pdf", 62))
    assert received.document is not None
    usable = pipeline.encoder
    match name:
        case "budget_hopeless":
            pipeline.memory = Roomy(room_mb=1)
        case "encoder_missing":
            pipeline.encoder = Encoder(spec="open_clip:ViT-B-32/./nowhere.safetensors", cores=1)
        case "encoder_without_room":
            folder = tiny_encoder(tmp_path / "tiny")
            pipeline.encoder = Encoder(spec=f"open_clip:{folder}", budget_mb=100)
        case _:

            def odd(*_: object) -> None:
                raise RuntimeError("an oddity that nobody foresaw")

            monkeypatch.setattr(assets.panel_features, "extract_features", odd)
    (result,) = pipeline.run()
    assert not result.success
    assert way_of(name).says in " ".join(failures(result))
    pipeline.encoder = usable
    with pipeline.postgres.connect() as db:
        told = tell(pipeline, db, [received.document.document_id], tmp_path / "out")
    assert told.status == "degraded"
    assert {Kind(flag["kind"]) for flag in told.flags} <= {
        Kind.PAGES_MISSING, Kind.PANELS_NOT_COMPARED,
    }  # fmt: skip
