"""Secrets: what lies in the environment and in addresses comes out nowhere."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from benchmarks.faults.egress import Outcome
from tests.hostile import small_paper
from tests.security.conftest import PASSWORD, PLANTED, Home, HostileRun

pytestmark = pytest.mark.timeout(900)  # the fixture is a run of its own

UNREACHABLE = f"postgresql://u:{quote(PASSWORD, safe='')}@127.0.0.1:9/db"


@pytest.fixture(scope="module")
def given_up(home: Home) -> Iterator["subprocess.Popen[str]"]:
    """A run whose database is out of reach; it is patient, so it is begun before it is needed."""
    with subprocess.Popen(
        home.command("run", "tests"),
        env=home.environment({"QUIRE_DATABASE_URL": UNREACHABLE}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def leaks(text: str | bytes) -> list[str]:
    """Where a planted secret stands in a text."""
    whole = text.decode("latin-1") if isinstance(text, bytes) else text
    found = whole.lower().split(PLANTED)
    return [f"...{before[-60:]}[{PLANTED}]" for before in found[:-1]]


def said(outcome: Outcome) -> str:
    return outcome.stdout + outcome.stderr


def stored(home: Home) -> Iterator[tuple[str, str]]:
    """Every row of every table of Quire's and of Dagster's database, as text."""
    for database in ("quire", "quire_dagster"):
        tables = home.rows(
            database, "SELECT table_name FROM information_schema.tables WHERE table_schema='public'"
        )
        with psycopg.connect(home.server.url_of(database)) as db:
            for (table,) in tables:
                every = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(table))
                for (row,) in db.execute(every):
                    yield f"{database}.{table}", row


def test_a_run_prints_and_writes_no_secret(
    given_up: "subprocess.Popen[str]", hostile_run: HostileRun
) -> None:
    assert leaks(said(hostile_run.outcome)) == []
    for path in hostile_run.out.iterdir():
        assert leaks(path.read_bytes()) == [], path


@pytest.mark.parametrize("command", [("status",), ("db", "status"), ("db", "migrate")])
def test_what_tells_of_the_database_leaves_the_password_out(
    hostile_run: HostileRun, command: tuple[str, ...]
) -> None:
    outcome = hostile_run.home.quire(*command)
    assert outcome.returncode == 0, outcome.stderr
    assert leaks(said(outcome)) == []


def test_only_the_command_that_is_for_it_prints_the_password(hostile_run: HostileRun) -> None:
    outcome = hostile_run.home.quire("db", "url")
    assert leaks(said(outcome)) != []
    assert quote(PASSWORD, safe="") in outcome.stdout


WRONG = f"postgresql://quire:wrong-{PLANTED}@127.0.0.1:{{port}}/quire"
FAILING = {
    "wrong password": ({"QUIRE_DATABASE_URL": WRONG}, "run", "tests", 1),
    "an address not encoded": (
        {"QUIRE_DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1/db"}, "run", "tests", 1
    ),
    "status, wrong password": ({"QUIRE_DATABASE_URL": WRONG}, "status", "", 1),
    "a store with credentials": (
        {"QUIRE_STORE_URL": f"s3://AKIA:{PLANTED}@bucket/x"}, "status", "", 2
    ),
    "a path with credentials": ({}, "run", f"s3://AKIA:{PLANTED}@bucket/x.pdf", 2),
    "a signed path": ({}, "run", f"memory://bucket/x.pdf?X-Amz-Signature={PLANTED}", 2),
    "a bucket out of reach": (
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
        "run", "s3://bucket/x.pdf", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_what_fails_says_why_without_the_secret(hostile_run: HostileRun, case: str) -> None:
    environment, command, argument, code = FAILING[case]
    port = hostile_run.home.server.tcp_url.rsplit(":", 1)[1].split("/")[0]
    known = {name: value.replace("{port}", port) for name, value in environment.items()}
    outcome = hostile_run.home.quire(command, *([argument] if argument else []), **known)
    assert outcome.returncode == code, said(outcome)
    assert said(outcome).strip()
    assert leaks(said(outcome)) == []


def test_a_database_out_of_reach_is_named_without_its_password(
    given_up: "subprocess.Popen[str]",
) -> None:
    stdout, stderr = given_up.communicate(timeout=800)
    assert given_up.returncode == 1
    assert "no connection to the database (u@127.0.0.1:9/db)" in stderr
    assert leaks(stdout + stderr) == []


def test_a_run_that_fails_in_the_middle_stores_no_secret_with_its_traceback(
    hostile_run: HostileRun, tmp_path: Path
) -> None:
    """The server ends the connection under a step, so the traceback is that of the driver."""
    home = hostile_run.home
    small_paper(tmp_path / "paper.pdf", seed=530, panels=4)
    before = len(home.events())
    end = """
        CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $leave$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $leave$;
        CREATE TRIGGER leave BEFORE INSERT ON pages FOR EACH ROW EXECUTE FUNCTION leave()
    """
    with psycopg.connect(home.server.url, autocommit=True) as db:
        db.execute(end)
        try:
            outcome = home.quire("run", str(tmp_path / "paper.pdf"), "--out", str(tmp_path / "out"))
        finally:
            db.execute("DROP TRIGGER leave ON pages; DROP FUNCTION leave()")
    assert outcome.returncode == 1, said(outcome)
    assert leaks(said(outcome)) == []
    events = [str(event) for event in home.events()[before:]]
    assert any("Traceback" in event or "stack" in event for event in events)
    assert [leak for event in events for leak in leaks(event)] == []


def test_neither_database_nor_home_holds_a_secret(hostile_run: HostileRun) -> None:
    """Run configuration, snapshots of jobs, tags, metadata, events, compute logs, everything."""
    seen: set[str] = set()
    for table, row in stored(hostile_run.home):
        seen.add(table)
        assert leaks(row) == [], table
    assert {"quire.documents", "quire_dagster.runs", "quire_dagster.event_logs"} <= seen
    assert {"quire_dagster.snapshots", "quire_dagster.run_tags"} <= seen
    files = [path for path in hostile_run.home.path.rglob("*") if path.is_file()]
    assert any(path.name == "dagster.yaml" for path in files)
    for path in files:
        assert leaks(path.read_bytes()) == [], path
    assert leaks(hostile_run.home.server.log_file.read_bytes()) == []
