import os
import stat
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

import resources.tesseract
from core.errors import BudgetError, InputError
from core.paper import Grey
from core.reading import parse_tsv, placed_at
from resources.tesseract import Tesseract, TesseractError, installed_languages, open_tesseract
from tests.written_pages import LINES, picture


@pytest.fixture(scope="module")
def engine() -> Tesseract:
    return open_tesseract(["eng"])


@pytest.fixture(scope="module")
def page() -> Grey:
    encoded = np.frombuffer(picture(LINES, 150), np.uint8)
    grey = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    return grey.astype(np.uint8)


def sham(folder: Path, behaviour: str) -> str:
    """A program that behaves like this whatever it is asked."""
    path = folder / "tesseract"
    path.write_text(f"#!/bin/sh\n{behaviour}\n")
    path.chmod(stat.S_IRWXU)
    return os.fspath(path)


def test_a_page_is_read_and_turned_pages_are_recognized(engine: Tesseract, page: Grey) -> None:
    tokens = parse_tsv(engine.read(page, 150), placed_at(150, (0, 0, 420, 300)))
    assert [token.text for token in tokens] == " ".join(LINES).split()
    assert engine.quarter_turn(np.ascontiguousarray(np.rot90(page)), 150) == 90
    assert engine.quarter_turn(page, 150) == 0
    assert engine.quarter_turn(np.full((200, 200), 255, np.uint8), 150) == 0  # nothing to tell by


def test_it_gets_one_thread_and_no_secrets_and_may_write_nothing(
    tmp_path: Path, page: Grey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_TEXT_API_KEY", "sk-planted")
    told = Tesseract(sham(tmp_path, "cat > /dev/null; env; ulimit -f; ulimit -c"), ("eng",))
    said = told.read(page, 150)
    assert "OMP_THREAD_LIMIT=1" in said
    assert "planted" not in said
    assert said.split()[-2:] == ["0", "0"]


@pytest.mark.parametrize(
    ("behaviour", "kind", "reason"),
    [
        ("sleep 30 & sleep 30", InputError, "took longer than 1 s"),
        ("kill -SEGV $$", InputError, r"crashed \(SIGSEGV\)"),
        ("echo oddity >&2; exit 3", InputError, r"crashed \(exit code 3: oddity\)"),
        ("kill -KILL $$", BudgetError, "needs more than the 250 MB"),
        ("echo 'terminate: std::bad_alloc' >&2; exit 134", BudgetError, "needs more than"),
    ],
)
def test_whatever_befalls_it_is_told_and_nothing_of_it_is_left(
    tmp_path: Path, page: Grey, behaviour: str, kind: type[Exception], reason: str
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    started = time.monotonic()
    with pytest.raises(kind, match=reason):
        Tesseract(sham(tmp_path, behaviour), ("eng",), timeout_s=1).read(page, 150)
    assert time.monotonic() - started < 10
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_memory_beyond_what_it_is_given_is_a_budget_that_is_too_small(page: Grey) -> None:
    program, large = open_tesseract(["eng"]).program, np.tile(page, (3, 2))
    for too_little_mb in (20, 30):  # crashing, or leaving out lines without a word to its caller
        with pytest.raises(BudgetError, match="MB that it was given"):
            Tesseract(program, ("eng",), memory_mb=too_little_mb).read(large, 150)


def test_languages_are_checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TesseractError) as refusal:
        open_tesseract(["eng", "chi_xyz"])
    said = str(refusal.value)
    assert "tesseract lacks the language chi_xyz; installed are" in said
    assert "eng" in said
    assert said.endswith("sudo apt-get install tesseract-ocr-chi-xyz")
    with pytest.raises(TesseractError, match="'--psm' is no language of tesseract"):
        open_tesseract(["--psm"])
    monkeypatch.setattr(resources.tesseract, "PROGRAM", "tesseract-that-is-not-there")
    with pytest.raises(TesseractError, match="apt-get install tesseract-ocr tesseract-ocr-eng"):
        open_tesseract(["eng"])


def test_data_that_is_no_language_is_not_called_one(engine: Tesseract) -> None:
    installed = installed_languages(engine.program)
    assert "eng" in installed
    assert "osd" not in installed
