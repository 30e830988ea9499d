"""A sample paper within small containers; ``benchmarks/containers.py`` measures a larger one."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.containers import headless, with_ui

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.timeout(900),
]
PAPER = str(Path(__file__).parent.parent.parent / "samples" / "paper-4.pdf")
Measured = tuple[dict[str, Any], dict[str, bytes]]


@pytest.fixture(scope="module")
def without_limit() -> Measured:
    return headless([PAPER], None)


def test_a_cold_headless_run_within_512_mb_finds_what_one_without_a_limit_finds(
    without_limit: Measured,
) -> None:
    facts, results = headless([PAPER], 512)
    assert facts["completed"], facts
    assert "512 MB for everything" in facts["said"][0]
    assert facts["peak_mb"] <= 512
    assert {"postgres", "fork server", "op", "quire"} <= set(facts["most of one process, MB"])
    assert set(results) == {"pairs.tsv", "pairs.json"}
    assert results == without_limit[1]


def test_1_gb_holds_webserver_daemon_code_server_database_and_a_run_launched_from_the_ui(
    without_limit: Measured,
) -> None:
    facts, results = with_ui([PAPER], 1024)
    assert facts["completed"], facts
    assert facts["peak_mb"] <= 1024
    services = {"webserver", "daemon", "code server", "ui", "postgres"}
    assert services | {"run", "fork server", "op"} <= set(facts["most of one process, MB"])
    assert results == without_limit[1]
