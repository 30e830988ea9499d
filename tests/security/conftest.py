"""One real run over the whole corpus of injections, looked at from every side by these tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.faults.egress import Outcome, watched, why_not_watched
from benchmarks.faults.injections import FAMILIES, INJECTIONS, as_name, inject, of_family
from resources.embedded_postgres import EmbeddedPostgres
from tests.hostile import small_paper

REFUSED = 12
"""Files that are no PDF, each named by one injection; with the papers they make one run."""

HALF = 120
"""Characters of a family in the name of a paper, so that two families share one."""


@dataclass(frozen=True)
class Home:
    """A home of its own: database, store, Dagster."""

    path: Path

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of the commands: as plain as a terminal can be, so that all escapes are the corpus's."""
        plain = {"QUIRE_HOME": str(self.path), "COLUMNS": "120", "NO_COLOR": "1"}
        return {**os.environ, **plain, **(more or {})}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "orchestration.cli", *arguments]

    def quire(self, *arguments: str, **more: str) -> Outcome:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(more),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=280,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, 0)

    @property
    def server(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.path / "postgres")

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.url_of(database)) as db:
            return db.execute(query.encode()).fetchall()

    def events(self) -> list[dict[str, Any]]:
        """Every event that Dagster has stored, as it stored it."""
        return [
            json.loads(event)
            for (event,) in self.rows("dagster", "SELECT event FROM event_logs ORDER BY id")
        ]


@dataclass(frozen=True)
class HostileRun:
    """What the run over the corpus left behind."""

    home: Home
    out: Path
    names: list[str]
    outcome: Outcome
    is_watched: bool


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Papers named and filled with the texts of two families each, and files that are no papers."""
    folder = tmp_path_factory.mktemp("corpus")
    paper = folder / "paper.pdf"
    for number in range((len(FAMILIES) + 1) // 2):
        shared = max(number, 1)  # the first two show the same pictures
        small_paper(paper, seed=500 + shared, panels=4)
        texts = [of_family(family) for family in FAMILIES[2 * number : 2 * number + 2]]
        name = " ".join(" ".join(some)[:HALF] for some in texts)
        (folder / as_name(name)).write_bytes(
            inject(paper.read_bytes(), [text for some in texts for text in some])
        )
    paper.unlink()
    for number in range(REFUSED):
        text = INJECTIONS[number * len(INJECTIONS) // REFUSED].text
        (folder / as_name(text)).write_bytes(f"no PDF, number {number}".encode())
    return folder


@pytest.fixture(scope="session")
def hostile_run(
    corpus: Path, server_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HostileRun]:
    """`quire run` over the corpus, with every address that it names written down."""
    home = Home(server_home / "hostile")
    out = tmp_path_factory.mktemp("hostile") / "out"
    home.quire("db", "start")  # so that the watched processes end when the run does
    command = home.command("run", str(corpus), "--out", str(out))
    is_watched = not why_not_watched()
    if is_watched:
        outcome = watched(command, home.environment(), Path.cwd(), timeout_s=280)
    else:
        outcome = home.quire(*command[5:])
    names = sorted(path.name for path in corpus.iterdir())
    yield HostileRun(home, out, names, outcome, is_watched)
    home.quire("db", "stop")
