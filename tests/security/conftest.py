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
from resources.embedded_postgres import EmbeddedPostgres, ServerSettings
from tests.hostile import small_paper

REFUSED = 12
"""Files that are no PDF, each named by one injection; with the papers they make one run."""

HALF = 120
"""Characters of a family in the name of a paper, so that two families share one."""


PASSWORD = "pl4nted/pass@word:%26&"
"""Of the database; with every character that tempts somebody to take an address apart wrongly."""

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIApl4nted",
    "AWS_SECRET_ACCESS_KEY": "pl4nted+aws/secret",
    "AWS_SESSION_TOKEN": "pl4nted-session",
    "HF_TOKEN": "hf_pl4nted",
    "OPENAI_API_KEY": "sk-pl4nted",
    "DAGSTER_CLOUD_API_TOKEN": "pl4nted-cloud",
}
"""What lies about in the environment of users; all hold one word to search for."""

PLANTED = "pl4nted"


@dataclass(frozen=True)
class Home:
    """A home of its own: store and Dagster; and a database on a server with a password."""

    path: Path
    server: EmbeddedPostgres

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of the commands: as plain as a terminal can be, so that all escapes are the corpus's."""
        plain = {"QUIRE_HOME": str(self.path), "COLUMNS": "120", "NO_COLOR": "1"}
        database = {"QUIRE_DATABASE_URL": self.server.tcp_url}
        return {**os.environ, **plain, **database, **SECRETS, **(more or {})}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "orchestration.cli", *arguments]

    def quire(self, *arguments: str, **more: str) -> Outcome:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(more),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=800,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, 0)

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.url_of(database)) as db:
            return db.execute(query.encode()).fetchall()

    def events(self) -> list[dict[str, Any]]:
        """Every event that Dagster has stored, as it stored it."""
        return [
            json.loads(event)
            for (event,) in self.rows("quire_dagster", "SELECT event FROM event_logs ORDER BY id")
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
def home(server_home: Path, forgetful_settings: ServerSettings) -> Iterator[Home]:
    """A home whose database asks for a password, and an environment full of secrets."""
    data_dir = server_home / "guarded"
    data_dir.mkdir(mode=0o711)
    (data_dir / "password").write_text(PASSWORD)
    server = EmbeddedPostgres(data_dir, tcp_port=0, settings=forgetful_settings)
    server.start()
    yield Home(server_home / "hostile", server)
    server.stop()


@pytest.fixture(scope="session")
def hostile_run(home: Home, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> HostileRun:
    """`quire run` over the corpus, with every address that it names written down."""
    out = tmp_path_factory.mktemp("hostile") / "out"
    arguments = ("run", str(corpus), "--out", str(out))
    is_watched = not why_not_watched()
    if is_watched:
        command = home.command(*arguments)
        outcome = watched(command, home.environment(), Path.cwd(), timeout_s=800)
    else:
        outcome = home.quire(*arguments)
    names = sorted(path.name for path in corpus.iterdir())
    return HostileRun(home, out, names, outcome, is_watched)
