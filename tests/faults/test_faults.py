"""Short versions of ``benchmarks/kills.py``; each ends in the bytes of a run left in peace."""

import random
import sys
from collections.abc import Callable

import pytest

from benchmarks.faults import scenarios
from benchmarks.faults.kills import Installation
from tests.faults.conftest import InPeace

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux alone"),
    pytest.mark.timeout(900),
]

Scenario = Callable[[Installation, Installation], list[str]]


def test_whatever_is_killed_nothing_is_lost_left_or_made_twice(
    installation: Installation, in_peace: InPeace
) -> None:
    kinds = ["postmaster", "step", "backend", "run"]
    found = scenarios.kills(
        installation, in_peace.installation, kinds, random.Random(4), in_peace.whole_s / 2
    )
    assert found == []


@pytest.mark.parametrize("slowly", [False, True])
def test_two_runs_over_the_same_papers_both_succeed_with_the_same_rows(
    installation: Installation, in_peace: InPeace, slowly: bool
) -> None:
    assert scenarios.two_runs(installation, in_peace.installation, slowly=slowly) == []


def test_a_database_that_is_away_for_a_while_is_waited_for(
    installation: Installation, in_peace: InPeace
) -> None:
    assert scenarios.database_away(installation, in_peace.installation, away_s=8) == []


@pytest.mark.parametrize(
    "scenario", [scenarios.store_full, scenarios.database_disk_full, scenarios.clock_jumps]
)
def test_what_is_wrong_around_a_run_is_said_and_once_put_right_nothing_is_missing(
    scenario: Scenario, installation: Installation, in_peace: InPeace
) -> None:
    try:
        assert scenario(installation, in_peace.installation) == []
    except scenarios.CannotError as reason:
        pytest.skip(str(reason))


def test_a_cancelled_backfill_goes_on_when_launched_again(
    installation: Installation, in_peace: InPeace
) -> None:
    assert scenarios.backfills(installation, in_peace.installation, kinds=()) == []
