import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pymupdf
import pytest

import resources.tesseract
import store.ocr_pages
import store.page_batches
import store.searchable_pdfs
from core.reading import PageText
from core.work import Job
from resources.settings import Reading
from store.database import Db
from store.ocr_pages import OcrPage
from tests.assets.conftest import Pipeline, metadata, until_somebody_waits
from tests.written_pages import (
    LINES,
    blank_page,
    hybrid_page,
    scanned,
    text_page,
    written,
)

CHAIN = ("documents", "pages", "ocr_pages")


def pages_of(pipeline: Pipeline, document_id: str, count: int) -> list[OcrPage]:
    with pipeline.postgres.connect() as db:
        found = [store.ocr_pages.get(db, document_id, page) for page in range(1, count + 1)]
    assert None not in found
    return [page for page in found if page is not None]


def troubles(pipeline: Pipeline, asset: str = "ocr_pages") -> list[tuple[str, str]]:
    with pipeline.postgres.connect() as db:
        return db.execute(
            "SELECT status, reason FROM work WHERE asset = %(asset)s AND status <> 'ok'",
            {"asset": asset},
        ).fetchall()


def test_text_scans_both_and_nothing_are_read_for_what_they_are(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = written(
        tmp_path / "all.pdf",
        text_page,
        scanned,
        hybrid_page,
        blank_page,
        lambda doc: scanned(doc, rotate=90),
    )
    (received,) = pipeline.receive(path)
    (result,) = pipeline.run(only=CHAIN)
    assert result.success
    assert troubles(pipeline) == []
    assert received.document is not None
    text, scan, both, blank, turned = pages_of(pipeline, received.document.document_id, 5)
    kinds = [page.kind for page in (text, scan, both, blank, turned)]
    assert kinds == ["text_layer", "ocr", "hybrid", "blank", "ocr"]
    assert text.text.split("\n\n")[0].split("\n")[0] == LINES[0]
    assert (text.confidence, text.dpi) == (None, None)
    for page in (scan, turned):
        assert page.text.split() == " ".join(LINES).split()
        assert page.confidence is not None
        assert page.confidence > 85
        assert page.language == "eng"
    assert both.text.index("harbour") < both.text.index("lantern") < both.text.index("museum")
    assert (blank.text, blank.words, blank.language) == ("", [], "")
    # A word is where it is shown: "harbour" of the scan where the text layer has it.
    there = {page.text[w.start : w.end]: w.box_pt for page in (text,) for w in page.decoded_words()}
    here = {scan.text[w.start : w.end]: w.box_pt for w in scan.decoded_words()}
    assert all(abs(a - b) < 6 for a, b in zip(here["harbour"], there["harbour"], strict=True))

    made = metadata(result, "ocr_pages")[-1]
    assert made["peak_mb"] <= made["budget_mb"]
    (again,) = pipeline.run(only=["ocr_pages"])
    assert metadata(again, "ocr_pages")[-1]["items"] == 0


def test_the_searchable_copy_looks_the_same_and_has_the_words(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = written(tmp_path / "scan.pdf", scanned, text_page, lambda doc: scanned(doc, rotate=90))
    with pymupdf.open(path) as doc:
        doc[0].set_rotation(270)
        doc.saveIncr()
    (received,) = pipeline.receive(path)
    (result,) = pipeline.run(only=(*CHAIN, "searchable_pdfs"))
    assert result.success
    assert received.document is not None
    with pipeline.postgres.connect() as db:
        copy = store.searchable_pdfs.get(db, received.document.document_id)
    assert copy is not None
    assert copy.pages == 2
    data = pipeline.images.read_bytes(copy.key)
    assert data.startswith(path.read_bytes())  # what was received is in it, byte by byte
    with pymupdf.open(path) as before, pymupdf.open(stream=data) as after:
        for number in range(len(before)):
            old, new = before[number], after[number]
            assert new.get_pixmap(dpi=72).samples == old.get_pixmap(dpi=72).samples
            assert str(new.get_text()).split() == " ".join(LINES).split()
        (found,) = after[0].search_for("lantern")
        word = next(w for w in after[0].get_text("words") if w[4] == "lantern")
        assert abs(found & word[:4]) > 0.5 * abs(found)

    with pipeline.postgres.connect() as db:  # a page that says something else makes it stale
        db.execute("DELETE FROM ocr_pages WHERE page = 1")
    pipeline.run(only=["searchable_pdfs"])
    assert troubles(pipeline, "searchable_pdfs") == [
        ("degraded", "1 of 3 pages have not been read")
    ]


def test_a_copy_is_made_again_of_a_page_that_is_read_anew_while_it_is_made(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (received,) = pipeline.receive(written(tmp_path / "two.pdf", text_page, text_page))
    (result,) = pipeline.run(only=CHAIN)
    assert result.success
    assert received.document is not None
    document_id = received.document.document_id
    job = Job("ocr_pages", "another", (), 256, "another run")
    said = [as_recognized(page) for page in pages_of(pipeline, document_id, 2)]
    recognized, calls = store.searchable_pdfs.recognized, []

    def meanwhile(db: Db, document_id: str, after: int, limit: int) -> list[OcrPage]:
        """A page says more as soon as it was looked at; the other one is read for the first time"""
        found = recognized(db, document_id, after, limit)
        calls.append(len(found))
        if len(calls) in (1, 2):
            page = len(calls)
            with pipeline.postgres.connect() as other, other.transaction():
                store.ocr_pages.replace(other, job, document_id, page, said[page - 1])
        return found

    with pipeline.postgres.connect() as db:
        db.execute("DELETE FROM ocr_pages WHERE page = 2")
    monkeypatch.setattr(store.searchable_pdfs, "recognized", meanwhile)
    (result,) = pipeline.run(only=["searchable_pdfs"])
    assert result.success
    assert metadata(result, "searchable_pdfs")[-1]["items"] == 1
    assert troubles(pipeline, "searchable_pdfs") == []  # both pages are read by now
    with pipeline.postgres.connect() as db:
        copy = store.searchable_pdfs.get(db, document_id)
    assert copy is not None
    assert copy.pages == 2


def as_recognized(page: OcrPage) -> PageText:
    """What a page says, as if none of it stood in the file."""
    words = tuple(replace(word, confidence=90.0) for word in page.decoded_words())
    return PageText("ocr", page.language, 150.0, 90.0, page.text, words)


def test_a_page_that_is_being_read_for_the_first_time_is_waited_for(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    (received,) = pipeline.receive(written(tmp_path / "two.pdf", text_page, text_page))
    pipeline.run(only=CHAIN)
    assert received.document is not None
    document_id = received.document.document_id
    second = pages_of(pipeline, document_id, 2)[1]
    with pipeline.postgres.connect() as db, pipeline.postgres.connect() as watching:
        db.execute("DELETE FROM ocr_pages WHERE page = 2")
        keys = tuple(store.page_batches.keys(db))
        job = Job("searchable_pdfs", "spec", keys, 256, "run")
        (item,) = store.searchable_pdfs.pending(db, job, 1)
        with db.transaction():
            assert store.searchable_pdfs.is_of_these_pages(db, item)

        def look() -> bool:
            with pipeline.postgres.connect() as other, other.transaction():
                return store.searchable_pdfs.is_of_these_pages(other, item)

        with ThreadPoolExecutor(1) as another:
            with db.transaction():
                store.ocr_pages.replace(db, job, document_id, 2, as_recognized(second))
                asked = another.submit(look)
                until_somebody_waits(watching)
                assert not asked.done()
            assert asked.result(30) is False


def test_a_language_that_is_not_installed_is_an_error_that_says_what_is(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline = replace(pipeline, reading=Reading(languages="eng+xyz"))
    pipeline.receive(written(tmp_path / "scan.pdf", scanned))
    (result,) = pipeline.run(only=CHAIN)
    assert not result.success
    (failure,) = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    said = str(failure.error and failure.error.to_string())
    assert "tesseract lacks the language xyz; installed are" in said
    assert "sudo apt-get install tesseract-ocr-xyz" in said
    assert troubles(pipeline) == []  # no page is blamed for it


def test_a_sheet_that_is_too_large_is_read_at_less_and_that_is_said(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    def poster(doc: pymupdf.Document) -> None:
        page = doc.new_page(width=2384, height=3370)  # A0, text as outlines: no text layer
        with pymupdf.open() as drawn:
            text_page(drawn)
            page.insert_image(pymupdf.Rect(0, 0, 2384, 1700), pixmap=drawn[0].get_pixmap(dpi=600))
        page.draw_rect(pymupdf.Rect(100, 2000, 2200, 3200), color=(0, 0, 0), width=3)

    pipeline.receive(written(tmp_path / "a0.pdf", poster))
    pipeline.run(only=CHAIN)
    ((status, reason),) = troubles(pipeline)
    assert status == "degraded"
    assert reason.startswith("page 1 is so large that its text was read at 8")
    assert "instead of 150 dpi" in reason
    with pipeline.postgres.connect() as db:
        text, dpi = db.execute("SELECT text, dpi FROM ocr_pages").fetchall()[0]
    assert "lantern" in text
    assert 80 < dpi < 90


SHAMS = {"sleep 60": "took longer than 1 s", "kill -KILL $$": "needs more than the"}


@pytest.mark.parametrize("behaviour", SHAMS)
def test_a_tesseract_that_fails_is_a_reason_on_that_page(
    pipeline: Pipeline, tmp_path: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sham = tmp_path / "tesseract"
    sham.write_text(
        "#!/bin/sh\ncase \"$*\" in --list-langs) printf 'List\\neng\\n'; exit;; "
        f"--version) echo sham; exit;; esac\n{behaviour}\n"
    )
    sham.chmod(stat.S_IRWXU)
    monkeypatch.setattr(resources.tesseract, "PROGRAM", os.fspath(sham))
    pipeline = replace(pipeline, reading=Reading(timeout_s=1))
    pipeline.receive(written(tmp_path / "scan.pdf", text_page, scanned))
    pipeline.run(only=CHAIN)
    ((status, reason),) = troubles(pipeline)
    assert status == "failed"
    assert SHAMS[behaviour] in reason
    with pipeline.postgres.connect() as db:  # and the page beside it is read
        assert db.execute("SELECT page, kind FROM ocr_pages").fetchall() == [(1, "text_layer")]
