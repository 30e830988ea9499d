"""Installations under fire, and one that was left in peace to compare them with."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.faults.kills import Installation, adopted_orphans
from tests.hostile import small_paper

_numbers = itertools.count(1)


@dataclass(frozen=True)
class InPeace:
    """A finished installation, and how long its run took."""

    installation: Installation
    whole_s: float


@pytest.fixture(scope="session")
def papers(server_home: Path) -> Path:
    folder = server_home / "papers"
    folder.mkdir()
    small_paper(folder / "paper.pdf", seed=71, panels=4)
    return folder


@pytest.fixture(scope="session")
def in_peace(server_home: Path, papers: Path) -> Iterator[InPeace]:
    installation = Installation(server_home / "peace")
    installation.prepare(papers)
    started = time.monotonic()
    run = installation.begin()
    assert run.wait() == 0, run.said()
    yield InPeace(installation, time.monotonic() - started)
    installation.remove()


@pytest.fixture
def installation(server_home: Path, papers: Path) -> Iterator[Installation]:
    installation = Installation(server_home / f"i{next(_numbers)}")
    with adopted_orphans():
        installation.prepare(papers)
        yield installation
        installation.remove()
