"""Scenarios: one thing goes wrong around a run, is put right, and the next run comes to its end.

Each takes an installation and one that was left in peace, and returns what was found against it: a
run that should have gone on and did not, an error that does not say what and where, and everything
that ``faults.kills.Audit`` looks for.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg

from benchmarks.faults.kills import (
    CHECKOUT,
    FATAL,
    Audit,
    Installation,
    Run,
    strike,
)
from benchmarks.faults.webserver import (
    backfill_ended,
    cancel_backfill,
    free_port,
    launch_backfill,
    wait_until_loaded,
)
from resources.database import Database
from resources.embedded_postgres import EmbeddedPostgres, ServerSettings

ASSETS = (
    "documents",
    "pages",
    "panels",
    "panel_features",
    "tiles",
    "encoders",
    "tile_embeddings",
    "candidate_pairs",
    "verified_pairs",
    "duplicate_reports",
)

MB = 2**20
RUN_WITHIN_S = 600.0

CLOSED_WITHIN_S = 120.0
"""Run monitoring looks every 20 s, and has to be started again where the daemon was killed."""

FAKETIME = "faketime/libfaketime.so.1"


class CannotError(Exception):
    """The scenario takes something that this machine does not offer; the message says what."""


def kills(
    installation: Installation,
    reference: Installation,
    kinds: Sequence[str],
    choice: random.Random,
    whole_s: float,
) -> list[str]:
    """Parts of runs are killed, one kind after the other, at random moments."""
    audit = Audit(installation)
    run = installation.begin()
    for kind in kinds:
        if run.process.poll() is not None:
            run = installation.begin()
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(choice.uniform(0, whole_s))
        audit.remember()
        strike(kind, installation, run, choice)
        if kind in FATAL:
            run.wait()
            audit.after_a_kill()
    if run.wait() == 0:
        return _compared(reference, audit)
    return _finished(installation, reference, audit)


def two_runs(
    installation: Installation, reference: Installation, *, slowly: bool = False
) -> list[str]:
    """Two runs over the same papers at the same time: both succeed, with the same rows.

    Where they write ``slowly``, each is sure to come upon the other in the middle of a transaction.
    """
    if slowly:
        _slow_down_writing(installation)
    other_out = installation.root / "other"
    first = installation.begin()
    second = installation.begin("run", str(installation.papers), "--out", str(other_out))
    audit = Audit(installation)
    for run in (first, second):
        audit.violations += _must_succeed(run)
    for path in installation.out.iterdir():
        if path.read_bytes() != (other_out / path.name).read_bytes():
            audit.violations.append(f"the two runs do not agree on {path.name}")
    audit.after_the_end(reference)
    return audit.violations


def _slow_down_writing(installation: Installation) -> None:
    """Have every row of the ledger take a fifth of a second, which keeps its transaction open."""
    installation.home.mkdir(parents=True)
    with Database(data_dir=str(installation.home / "postgres")).connect() as db:
        db.execute(
            """
            CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$
            """
        )
        db.execute(
            """
            CREATE TRIGGER slow_down AFTER INSERT ON work
            FOR EACH STATEMENT EXECUTE FUNCTION slow_down()
            """
        )


def store_full(installation: Installation, reference: Installation) -> list[str]:
    """The disk of the store is full, then that of the results; then there is room."""
    audit = Audit(installation)
    needed = sum(p.stat().st_size for p in (reference.home / "store").rglob("*") if p.is_file())
    with (
        small_disk(installation.home / "store", 2 * needed // 3) as store,
        small_disk(installation.out, 8192) as out,
    ):
        audit.violations += _must_fail(installation.begin(), "no space left", str(store))
        audit.after_a_kill()
        resize(store, 64 * MB)
        audit.violations += _must_fail(installation.begin(), "no space left", str(out))
        audit.after_a_kill()
        resize(out, 64 * MB)
        return _finished(installation, reference, audit)


def database_disk_full(installation: Installation, reference: Installation) -> list[str]:
    """The database's disk fills up under a run; then there is room."""
    audit = Audit(installation)
    with small_disk(installation.home / "postgres", 192 * MB) as disk:
        run = installation.begin()
        _wait_for_rows(installation, run)
        fill(disk)
        audit.violations += _must_fail(run, "no space left", str(installation.home))
        (disk / "ballast").unlink()
        try:
            return _finished(installation, reference, audit)
        finally:
            installation.server.stop()


def database_away(installation: Installation, reference: Installation, away_s: float) -> list[str]:
    """The user's own server is stopped under a run, and is back after a while: the run goes on."""
    audit = Audit(installation)
    own = EmbeddedPostgres(installation.home / "postgres")
    installation.settings = {"QUIRE_DATABASE_URL": own.start()}
    run = installation.begin()
    _wait_for_rows(installation, run)
    own.stop()
    time.sleep(away_s)
    own.start()
    audit.violations += _must_succeed(run)
    return _compared(reference, audit)


def connections_taken(installation: Installation, reference: Installation) -> list[str]:
    """Others take all connections for a while: a run waits; then for good: it says so."""
    audit = Audit(installation)
    own = EmbeddedPostgres(
        installation.home / "postgres", settings=ServerSettings(max_connections=30)
    )
    installation.settings = {"QUIRE_DATABASE_URL": own.start()}
    with taken(own.url):
        audit.violations += _must_fail(installation.begin(), "too many clients", "quire")
    run = installation.begin()
    _wait_for_rows(installation, run)
    with taken(own.url):
        time.sleep(5)
    audit.violations += _must_succeed(run)
    return _compared(reference, audit)


def clock_jumps(installation: Installation, reference: Installation) -> list[str]:
    """A run is killed, the next one works a month ahead, is killed too, and the last back home."""
    audit = Audit(installation)
    library = _faketime()
    for settings in ({}, {"LD_PRELOAD": str(library), "FAKETIME": "+30d"}):
        installation.settings = settings
        known = len(audit.committed)
        run = installation.begin()
        _wait(lambda run=run, n=known: run.process.poll() is not None or _rows(installation) > n)
        audit.remember()
        strike("run", installation, run, random.Random(0))
        run.wait()
        audit.after_a_kill()
    installation.settings = {}
    return _finished(installation, reference, audit)


def backfills(
    installation: Installation, reference: Installation, kinds: Sequence[str]
) -> list[str]:
    """In ``quire ui`` a backfill is cancelled, parts of others are killed, the last succeeds."""
    audit = Audit(installation)
    choice = random.Random(0)
    keys = _taken_in(installation)
    port = free_port()
    ui = installation.begin("ui", "--port", str(port))
    try:
        wait_until_loaded(port)
        cancelled = launch_backfill(port, ASSETS, keys)
        _wait(lambda: bool(ui.steps()))
        cancel_backfill(port, cancelled)
        if (status := backfill_ended(port, cancelled)) != "CANCELED":
            audit.violations.append(f"a cancelled backfill is {status}")
        audit.violations += _nobody_works(installation, ui)
        for kind in kinds:
            audit.remember()
            struck = launch_backfill(port, ASSETS, keys)
            _wait(lambda: bool(ui.steps()))
            strike(kind, installation, ui, choice, patience_s=60)
            _ended_whatever_comes(port, struck)
            audit.violations += _nobody_works(installation, ui)
        audit.remember()
        last = launch_backfill(port, ASSETS, keys)
        if (status := backfill_ended(port, last)) != "COMPLETED_SUCCESS":
            audit.violations.append(f"the last backfill is {status}")
    finally:
        ui.process.terminate()
        ui.process.wait()
    return _finished(installation, reference, audit)


# Parts of the scenarios.

TAKE_IN = """
import json, sys
from pathlib import Path
import dagster as dg
from upath import UPath
import store.page_batches
from orchestration.headless import prepare
from orchestration.ingest import receive, register_partitions
from orchestration.settings import from_environment
from resources.images import ImageStore

settings = from_environment()
postgres = prepare(settings)
with dg.DagsterInstance.get() as instance, postgres.connect() as db:
    for path in sorted(Path(sys.argv[1]).glob("*.pdf")):
        receive(db, ImageStore(url=settings.store_url), UPath(path))
    register_partitions(db, instance)
    print(json.dumps(store.page_batches.keys(db)))
"""


def _taken_in(installation: Installation) -> list[str]:
    """Take in the papers, as the inbox does; the keys of their page batches."""
    done = subprocess.run(
        [sys.executable, "-c", TAKE_IN, str(installation.papers)],
        env=installation.environment(),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _ended_whatever_comes(port: int, backfill_id: str) -> None:
    """Wait for the end of a backfill, though the webserver may be away for a while."""
    deadline = time.monotonic() + RUN_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            backfill_ended(port, backfill_id, timeout_s=RUN_WITHIN_S)
            return
        time.sleep(1)
    raise TimeoutError(f"backfill {backfill_id} did not end")


def _nobody_works(installation: Installation, ui: Run) -> list[str]:
    """Once its backfill has ended, no step is at work and no run is called started."""
    with contextlib.suppress(TimeoutError):
        _wait(lambda: not ui.steps() and not _open_runs(installation), CLOSED_WITHIN_S)
    return [
        *(f"a step lives on: {step.pid}" for step in ui.steps()),
        *(f"a run is still {status}" for status in _open_runs(installation)),
    ]


def _open_runs(installation: Installation) -> list[str]:
    with installation.database("dagster") as db:
        rows = db.execute(
            """
            SELECT status FROM runs
            WHERE status IN ('STARTED', 'STARTING', 'CANCELING', 'QUEUED', 'NOT_STARTED')
            """
        ).fetchall()
    return [row[0] for row in rows]


def _finished(installation: Installation, reference: Installation, audit: Audit) -> list[str]:
    """Let a run come to its end and look at everything."""
    audit.violations += _must_succeed(installation.begin())
    return _compared(reference, audit)


def _compared(reference: Installation, audit: Audit) -> list[str]:
    """Look at everything, once a run has come to its end."""
    audit.after_the_end(reference)
    return audit.violations


def _must_succeed(run: Run) -> list[str]:
    code = run.wait(RUN_WITHIN_S)
    return [] if code == 0 else [f"a run ended with {code}: {run.said()[-1500:]}"]


def _must_fail(run: Run, *words: str) -> list[str]:
    """With exit code 1 and one line that holds these words."""
    code = run.wait(RUN_WITHIN_S)
    told = [line for line in run.said().splitlines() if line.startswith("quire: ")]
    if code != 1 or "Traceback" in run.said():
        return [f"it ended with {code} instead of one line: {run.said()[-1500:]}"]
    if not any(all(word in line.lower() for word in words) for line in told):
        return [f"no line says {' and '.join(words)}: {run.said()[-1500:]}"]
    return []


def _wait_for_rows(installation: Installation, run: Run) -> None:
    """Until the run has committed something."""
    _wait(lambda: run.process.poll() is not None or _rows(installation) > 0)


def _rows(installation: Installation) -> int:
    """How much of the ledger is there; nothing where the server does not answer."""
    with contextlib.suppress(psycopg.Error):
        return len(installation.ledger())
    return 0


def _wait(condition: Callable[[], bool], within_s: float = RUN_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.02)


@contextlib.contextmanager
def small_disk(place: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own, in memory, at a folder that is made for it."""
    place.mkdir(parents=True)
    options = f"size={max(4096, size_bytes)},mode=0711"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        place.rmdir()
        raise CannotError(f"no file system of its own to fill: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def resize(disk: Path, size_bytes: int) -> None:
    """Give a small disk another size."""
    options = f"remount,size={size_bytes}"
    subprocess.run(["mount", "-o", options, str(disk)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        free = shutil.disk_usage(disk).free
        os.posix_fallocate(ballast.fileno(), 0, max(1, free - MB))
        ballast.seek(0, os.SEEK_END)
        while True:
            ballast.write(bytes(4096))


@contextlib.contextmanager
def taken(url: str) -> Iterator[None]:
    """Every connection that a server still grants."""
    held: list[psycopg.Connection] = []
    try:
        for _ in range(50):
            with contextlib.suppress(psycopg.OperationalError):
                held.append(psycopg.connect(url, autocommit=True, application_name="others"))
        yield
    finally:
        for connection in held:
            connection.close()


def _faketime() -> Path:
    for folder in sorted(Path("/usr/lib").glob("*-linux-gnu")):
        if (folder / FAKETIME).exists():
            return folder / FAKETIME
    raise CannotError("no libfaketime to set the clock with (Debian: apt-get install faketime)")
