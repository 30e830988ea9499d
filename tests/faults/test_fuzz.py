"""A hundred broken PDFs, and that the benchmark would notice what it looks for."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from benchmarks.faults.mutations import KINDS, mutate
from benchmarks.faults.specimens import specimens
from benchmarks.fuzz import Chunk, Result, examine, examine_chunk, input_of, leaks, table
from core.complaints import in_words
from core.panels import DetectedPanel
from resources.pdf import PdfFile, Rendered

SEED = 7
INPUTS = 100


@pytest.fixture(scope="module")
def chunk(tmp_path_factory: pytest.TempPathFactory) -> Chunk:
    """A hundred inputs, each kind of mutation five times."""
    before = tempfile.tempdir
    try:
        return examine_chunk(range(INPUTS), SEED, tmp_path_factory.mktemp("fuzz"))
    finally:
        tempfile.tempdir = before


@pytest.mark.timeout(900)
def test_a_hundred_broken_files_break_no_rule(chunk: Chunk) -> None:
    assert [(r.index, r.kind, r.violations) for r in chunk.results if r.violations] == []
    assert {result.kind for result in chunk.results} == set(KINDS)
    assert all(result.reasons for result in chunk.results if result.told)


def test_the_hundred_are_not_all_refused(chunk: Chunk) -> None:
    outcomes = [result.outcome for result in chunk.results]
    assert {"refused", "degraded", "different"} <= set(outcomes)
    assert outcomes.count("refused") < INPUTS / 2
    assert "degraded" in table(chunk.results)


def test_equal_numbers_make_equal_inputs() -> None:
    for index in range(len(KINDS)):
        assert input_of(index, SEED) == input_of(index, SEED)
    assert input_of(0, SEED)[2] != input_of(0, SEED + 1)[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mutation_changes_a_file(kind: str) -> None:
    first, second = specimens()[0], specimens()[1]
    made = {mutate(kind, first.data, second.data, np.random.default_rng(n)) for n in range(8)}
    assert len(made - {first.data}) > 4


def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmark examine a sound file instead of a broken one."""
    sound = specimens()[1]
    monkeypatch.setattr(fuzz, "input_of", lambda index, seed: ("none", sound, sound.data))


def test_a_sound_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is(monkeypatch)
    assert (examine(0, SEED, tmp_path).outcome, examine(0, SEED, tmp_path).violations) == (
        "same",
        [],
    )


def test_panels_that_are_seen_and_not_found_are_a_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is(monkeypatch)
    fuzz.sound(specimens()[1])
    nothing: list[DetectedPanel] = []
    monkeypatch.setattr(fuzz, "detect_panels", lambda *_: nothing)
    assert examine(0, SEED, tmp_path).violations == ["a panel is still visible and was not found"]


def test_an_exception_that_is_no_reason_is_a_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is(monkeypatch)
    fuzz.sound(specimens()[1])

    def slip(*_: object) -> list[DetectedPanel]:
        raise IndexError("list index out of range")

    monkeypatch.setattr(fuzz, "detect_panels", slip)
    (violation,) = examine(0, SEED, tmp_path).violations
    assert violation.startswith("unexplained: IndexError")


def test_a_reason_that_is_a_slip_of_ours_is_a_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is(monkeypatch)
    usual = PdfFile.render

    def complaining(self: PdfFile, page: int, dpi: float) -> Rendered:
        rendered = usual(self, page, dpi)
        said = in_words(["'NoneType' object has no attribute 'xref'"])
        return Rendered(rendered.image, rendered.dpi, rendered.lowered, said)

    fuzz.sound(specimens()[1])
    monkeypatch.setattr(PdfFile, "render", complaining)
    result = examine(0, SEED, tmp_path)
    assert result.told
    assert any(violation.startswith("reads like a slip") for violation in result.violations)


def test_a_process_that_grows_is_a_leak() -> None:
    held = [100.0, 101.0, 100.0, 120.0, 140.0]
    chunks = [Chunk([Result(0, "none", "dct", "same")], 1, mb, 50.0) for mb in held]
    assert leaks(chunks) == ["process 1 grew from 100 to 140 MB"]
    assert leaks(chunks[:3]) == []
