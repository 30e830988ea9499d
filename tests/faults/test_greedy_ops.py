"""Ops that ignore their budget, in processes of their own, all under one limit."""

import sys
from typing import Any

import pytest

from benchmarks.faults.greedy import run_all

LIMIT_MB = 1000
"""Two ops at a time, the run and what it forks from; each op tries to get twice as much."""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="walls and memory files are Linux's"
)


_once: dict[str, Any] = {}


@pytest.fixture
def ends(postgres_url: str) -> dict[str, Any]:
    """How each op ended, by name, and what the whole run held; run once for all tests."""
    if not _once:
        ended, usage = run_all(postgres_url, LIMIT_MB)
        _once.update(ended, usage=usage)
    return _once


@pytest.mark.parametrize("op", ["shared_mapping", "unmapped_file", "child"])
def test_an_op_that_gets_past_the_wall_is_stopped_and_named_with_what_it_held(
    op: str, ends: dict[str, Any]
) -> None:
    # Its unit fails; where what it held is not free again at once, its step does; and where it does
    # not listen in time, as on a busy machine, its process is ended. It is named each time.
    words = " ".join([ends[op]["check"], ends[op]["failure"], *ends[op]["told"]])
    assert f"the op {op} " in words
    assert "220 MB" in words
    assert "was stopped" in words
    assert any(f"the op {op} held" in line for line in ends[op]["told"])
    assert any("child process" in line for line in ends[op]["told"]) == (op == "child")


def test_an_op_that_keeps_what_its_units_held_fails_by_name(ends: dict[str, Any]) -> None:
    failure = ends["kept_arrays"]["failure"]
    assert "BudgetError: the op kept_arrays ignores its budget of 220 MB" in failure


def test_an_op_that_goes_on_when_it_is_interrupted_is_ended_with_its_process(
    ends: dict[str, Any],
) -> None:
    assert "ChildProcessCrash" in ends["deaf"]["failure"]
    assert "its process was stopped" in ends["deaf"]["told"][-1]


def test_the_op_beside_them_finishes_and_the_limit_of_the_whole_is_never_met(
    ends: dict[str, Any],
) -> None:
    assert ends["modest"]["failure"] == ""
    assert ends["modest"]["check"] == "Everything was looked at."
    assert ends["usage"].within
