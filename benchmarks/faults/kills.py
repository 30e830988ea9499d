"""Kills: end what works with signal 9 at a given moment, and find what it leaves behind.

An ``Installation`` is a home of Quire's own with a few papers to search, a ``GalleryInstallation``
one with known items and a photograph of some of them. ``begin`` starts a run,
``strike`` kills a part of it, ``Audit`` looks for what must not be there afterwards: processes,
temporary files, half-written objects, locks, rows that were committed and are gone or were made
again. ``Installation.differences`` compares a finished one with one that was left in peace.

Orphans are found by having them handed to this process (``PR_SET_CHILD_SUBREAPER``), which takes no
privilege and misses none; so this works on Linux alone.
"""

import contextlib
import ctypes
import hashlib
import itertools
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from resources.embedded_postgres import EmbeddedPostgres

PR_SET_CHILD_SUBREAPER = 36

CHECKOUT = Path(__file__).parents[2]

SEMAPHORES = Path("/dev/shm")
"""Where the locks between processes are files, named after the folder of the run."""

TABLES: dict[str, tuple[str, ...]] = {
    "documents": ("received_at",),
    "batches": ("ordinal",),
    "page_batch_ranges": (),
    "pages": (),
    "panels": (),
    "panel_features": (),
    "tiles": (),
    "candidate_pairs": (),
    "verified_pairs": (),
    "reports": ("written_at",),
    "work": ("run_id", "done_at"),
    "finished": ("run_id", "done_at"),
}
"""Every table that a run writes, and the columns in which two runs may differ."""

GALLERY_TABLES: dict[str, tuple[str, ...]] = {
    "batches": ("ordinal",),
    "gallery_items": ("received_at",),
    "gallery_images": ("received_at",),
    "gallery_templates": (),
    "template_encoders": ("created_at",),
    "look_alikes": (),
    "scans": ("received_at",),
    "scan_pictures": (),
    "detections": (),
    "candidates": (),
    "identifications": ("made_at",),
    "work": ("run_id", "done_at"),
    "finished": ("run_id", "done_at"),
}
"""The same of a gallery and a photograph; each encoder has a table of vectors besides."""

_started: set[int] = set()
"""Processes whose exit codes their ``Run`` takes."""

GONE_WITHIN_S = 60.0
"""How long what belongs to a killed run may take to notice: a fork server does so once it has
imported what it is for, which takes 3 s of a processor."""

RUN_WITHIN_S = 600.0
"""A run that takes longer hangs."""


@contextlib.contextmanager
def adopted_orphans() -> Iterator[None]:
    """Have processes that lose their parent become children of this one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no subreaper on this system")
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@dataclass
class Installation:
    """A home of Quire's own: papers, database, store, results, temporary files.

    Attributes:
        root: Everything is below it; short, because sockets are.
        settings: More variables of the environment.
    """

    root: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    _bystanders: set[int] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def papers(self) -> Path:
        """The folder with what runs take in."""
        return self.root / "papers"

    @property
    def home(self) -> Path:
        """``QUIRE_HOME``."""
        return self.root / "home"

    @property
    def out(self) -> Path:
        """Where runs export to."""
        return self.root / "out"

    @property
    def temporary(self) -> Path:
        """``TMPDIR``."""
        return self.root / "tmp"

    @property
    def server(self) -> EmbeddedPostgres:
        """The embedded server."""
        return EmbeddedPostgres(self.home / "postgres")

    def prepare(self, papers: Path) -> None:
        """Make the folders, with copies of some papers."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)
        shutil.copytree(papers, self.papers)
        self.temporary.mkdir()
        self._bystanders = {process.pid for process in _below(os.getpid())}

    def remove(self) -> None:
        """Stop what runs and delete everything."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(Exception):
            self.server.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        return {
            **os.environ,
            "QUIRE_HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "COLUMNS": "300",
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "ignore",
            **self.settings,
        }

    def commands(self) -> list[list[str]]:
        """What ``quire`` is asked for in a run, one after the other as long as all goes well."""
        return [["run", str(self.papers), "--out", str(self.out)]]

    def begin(self, *arguments: str) -> "Run":
        """Start a command of ``quire``, the run over everything by default."""
        quire = [sys.executable, "-m", "orchestration.cli"]
        commands = [[*quire, *words] for words in ([arguments] if arguments else self.commands())]
        in_shell = len(commands) > 1
        one_by_one = ["/bin/sh", "-c", " && ".join(map(shlex.join, commands))]
        log = self.root / f"run-{next(self._numbers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                one_by_one if in_shell else commands[0],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=CHECKOUT,
            )
        _started.add(process.pid)
        return Run(process, log, time.time(), in_shell)

    def processes(self) -> list[psutil.Process]:
        """What is alive of it, the database's own processes apart."""
        _bury()
        return [
            process
            for process in _below(os.getpid())
            if process.pid not in self._bystanders and not _is_postgres(process)
        ]

    @contextlib.contextmanager
    def database(self, name: str = "quire") -> Iterator[psycopg.Connection]:
        """A connection, which does not start the server."""
        with psycopg.connect(
            self.server.url_of(name), autocommit=True, application_name="auditor"
        ) as db:
            yield db

    def ledger(self) -> dict[tuple[str, str, str], tuple[object, ...]]:
        """Rows of the work ledger by key; reports apart, which every run looks at anew."""
        with self.database() as db:
            if db.execute("SELECT to_regclass('work')").fetchone() == (None,):
                return {}
            rows = db.execute(
                """
                SELECT asset, unit, spec, run_id, done_at, status, made FROM work
                WHERE asset <> 'duplicate_reports'
                """
            ).fetchall()
        return {(row[0], row[1], row[2]): row[3:] for row in rows}

    def tables(self, db: psycopg.Connection) -> Mapping[str, tuple[str, ...]]:
        """Every table that its runs write, and the columns in which two runs may differ."""
        return TABLES

    def content(self) -> dict[str, list[str]]:
        """Every row of every table, sorted, without what may differ from run to run."""
        found: dict[str, list[str]] = {}
        with self.database() as db:
            for table, incidental in self.tables(db).items():
                rows = db.execute(
                    sql.SQL("SELECT (to_jsonb(t) - %(names)s::text[])::text FROM {} AS t").format(
                        sql.Identifier(table)
                    ),
                    {"names": list(incidental)},
                ).fetchall()
                found[table] = sorted(row[0] for row in rows)
        return found

    def files(self) -> dict[str, str]:
        """Digest by path of every file of the store and of the results."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in (self.home / "store", self.out)
            for path in folder.rglob("*")
            if path.is_file()
        }

    def differences(self, reference: "Installation") -> list[str]:
        """In what a finished installation differs from one that was left in peace."""
        found: list[str] = []
        here, there = self.files(), reference.files()
        for path in sorted(here.keys() | there.keys()):
            if here.get(path) != there.get(path):
                why = "differs" if path in here and path in there else "is only in one of the two"
                found.append(f"{path} {why}")
        ours_in, theirs_in = self.content(), reference.content()
        for table, rows in theirs_in.items():
            if (ours := ours_in.get(table, [])) != rows:
                extra = len(ours) - len(rows)
                found.append(f"the rows of {table} differ ({extra:+d})")
        return found


class GalleryInstallation(Installation):
    """One that takes in a gallery and looks at a photograph of some of its items."""

    def commands(self) -> list[list[str]]:
        """Take in the gallery, then identify."""
        photograph = str(self.papers / "binder.jpg")
        return [
            ["gallery", "add", str(self.papers)],
            ["identify", photograph, "--out", str(self.out)],
        ]

    def tables(self, db: psycopg.Connection) -> Mapping[str, tuple[str, ...]]:
        """Those of the gallery, with the vectors of every encoder."""
        rows = db.execute("SELECT table_name FROM template_encoders").fetchall()
        return {**GALLERY_TABLES, **{str(row[0]): () for row in rows}}


@dataclass
class Run:
    """A command that was started, or several of them one after the other.

    Attributes:
        process: Its first process.
        log: What it says.
        since: When it was started, on the wall clock.
        in_shell: Whether that process is a shell that starts one command after the other, and ends
            once one fails; it is none of Quire's and is left alone.
    """

    process: subprocess.Popen[bytes]
    log: Path
    since: float
    in_shell: bool = False

    def wait(self, timeout_s: float = RUN_WITHIN_S) -> int:
        """Its exit code; TimeoutExpired where it hangs."""
        return self.process.wait(timeout_s)

    def said(self) -> str:
        """What it has said."""
        return self.log.read_text(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """Its processes, the first one first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            below = first.children(recursive=True)
            return below if self.in_shell else [first, *below]
        return []

    def steps(self) -> list[psutil.Process]:
        """The processes that work on a step: forked from the fork server."""
        return [process for process in self.tree() if is_step(process)]


def is_step(process: psutil.Process) -> bool:
    """Whether a process was forked from a fork server."""
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        return parent is not None and _forks(parent) and _forks(process)
    return False


def _forks(process: psutil.Process) -> bool:
    return any("multiprocessing.forkserver" in word for word in process.cmdline())


def _is_postgres(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() == "postgres"
    return False


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _bury() -> None:
    """Take the exit codes of orphans that ended: nobody else does, now that they are ours."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE and process.pid not in _started:
                os.waitpid(process.pid, os.WNOHANG)


# What is killed.

Victims = Callable[[Installation, Run, random.Random], list[psutil.Process]]


def _a_step(installation: Installation, run: Run, choice: random.Random) -> list[psutil.Process]:
    steps = run.steps()
    return [choice.choice(steps)] if steps else []


def _the_run(installation: Installation, run: Run, choice: random.Random) -> list[psutil.Process]:
    return run.tree()[:1]


def _the_tree(installation: Installation, run: Run, choice: random.Random) -> list[psutil.Process]:
    return run.tree()


def _the_postmaster(
    installation: Installation, run: Run, choice: random.Random
) -> list[psutil.Process]:
    pid = installation.server.status().pid
    return [psutil.Process(pid)] if pid is not None else []


def _a_backend(installation: Installation, run: Run, choice: random.Random) -> list[psutil.Process]:
    """One that serves a client: the server then ends all others and recovers."""
    backends = [
        process
        for postmaster in _the_postmaster(installation, run, choice)
        for process in postmaster.children()
        if "client" in _title(process) or "[local]" in _title(process)
    ]
    return [choice.choice(backends)] if backends else []


def _all_of_postgres(
    installation: Installation, run: Run, choice: random.Random
) -> list[psutil.Process]:
    postmaster = _the_postmaster(installation, run, choice)
    return [*postmaster, *(child for process in postmaster for child in process.children())]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _a_service(words: str) -> Victims:
    """A process of ``quire ui``, by its command line."""

    def find(installation: Installation, run: Run, choice: random.Random) -> list[psutil.Process]:
        return [process for process in run.tree() if words in _title(process)][:1]

    return find


def _a_run_of_the_ui(
    installation: Installation, run: Run, choice: random.Random
) -> list[psutil.Process]:
    """The process that the code server started for a run: it has a fork server."""
    return [
        process
        for process in run.tree()
        if any(_forks(child) for child in process.children()) and not _forks(process)
    ][:1]


OF_THE_UI: dict[str, Victims] = {
    "run of the UI": _a_run_of_the_ui,
    "step of the UI": _a_step,
    "daemon": _a_service("dagster._daemon"),
    "webserver": _a_service("dagster_webserver"),
    "code server": _a_service("dagster api grpc"),
}
"""Parts of ``quire ui`` while a backfill is at work."""

KINDS: dict[str, Victims] = {
    "step": _a_step,
    "run": _the_run,
    "run and its tree": _the_tree,
    "postmaster": _the_postmaster,
    "backend": _a_backend,
    "all of Postgres": _all_of_postgres,
}

FATAL = ("step", "run", "run and its tree")
"""Kills that a run does not survive; after others the same run is struck again."""


def strike(
    kind: str, installation: Installation, run: Run, choice: random.Random, patience_s: float = 5.0
) -> bool:
    """Kill a part of what works; False where there was none of it before the run ended."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and run.process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            victims = (KINDS | OF_THE_UI)[kind](installation, run, choice)
            for process in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if victims:
                return True
        time.sleep(0.005)
    return False


# What must not be there afterwards.


@dataclass
class Audit:
    """What an installation must not lose, and what it must not keep.

    Attributes:
        installation: What is watched.
        committed: Rows of the ledger that were seen, under their key.
        violations: What was found, in words.
        folders: Names of the folders that runs had their temporary files in.
    """

    installation: Installation
    committed: dict[tuple[str, str, str], tuple[object, ...]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def remember(self) -> None:
        """Note what is committed now; nothing where the server does not answer."""
        self.folders |= {path.name for path in self.installation.temporary.iterdir()}
        with contextlib.suppress(psycopg.Error):
            for key, row in self.installation.ledger().items():
                if self.committed.setdefault(key, row) != row:
                    self.violations.append(f"{key[0]} of {key[1]} was made again")
                    self.committed[key] = row

    def after_a_kill(self) -> None:
        """Nothing of the run is alive, and the database holds nothing for it."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (left := self.installation.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.violations.append(f"an orphan lives on: {_title(process)[:200]}")
                process.kill()
        self._nothing_locked(deadline)
        self.remember()

    def _nothing_locked(self, deadline: float) -> None:
        held: list[str] = []
        while time.monotonic() < deadline:
            try:
                held = self._held()
            except psycopg.Error:
                return  # not running, or recovering: it holds nothing
            if not held:
                return
            time.sleep(0.05)
        self.violations += held

    def _held(self) -> list[str]:
        with self.installation.database() as db:
            rows = db.execute(
                """
                SELECT format('%s of %s is %s: %s', backend_type, datname, state, left(query, 80))
                FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                UNION ALL
                SELECT format('an advisory lock is held by %s', pid) FROM pg_locks
                WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
                UNION ALL
                SELECT format('a prepared transaction: %s', gid) FROM pg_prepared_xacts
                """
            ).fetchall()
        return [row[0] for row in rows]

    def after_the_end(self, reference: Installation) -> None:
        """As after a kill; and nothing is missing, there twice, made again or left over."""
        self.after_a_kill()
        self.installation.server.start()  # killed after the last row, it is down, and may be
        now = self.installation.ledger()
        for key in self.committed.keys() - now.keys():
            self.violations.append(f"{key[0]} of {key[1]} was committed and is gone")
        left = [path for path in self.installation.temporary.rglob("*") if not path.is_dir()]
        left += list(self.installation.temporary.iterdir())
        left += list((self.installation.home / "postgres").glob("cluster-*"))
        for name in self.folders:
            left += SEMAPHORES.glob(f"sem.{name[1:]}-*")
        self.violations += [f"left over: {path.name}" for path in dict.fromkeys(left)]
        self.violations += self.installation.differences(reference)


def stages_at(installation: Installation, since: float, moment: float) -> str:
    """What a run was at, by Dagster's event log; both times on the wall clock."""
    with installation.database("dagster") as db:
        rows = db.execute(
            """
            SELECT step_key, min(timestamp) FILTER (WHERE dagster_event_type = 'STEP_START'),
                   min(timestamp) FILTER (
                       WHERE dagster_event_type IN ('STEP_SUCCESS', 'STEP_FAILURE'))
            FROM event_logs
            WHERE step_key IS NOT NULL AND timestamp >= to_timestamp(%(since)s) AT TIME ZONE 'UTC'
            GROUP BY run_id, step_key
            """,
            {"since": since},
        ).fetchall()
    utc = [
        (step, _epoch(start), _epoch(end) if end else float("inf"))
        for step, start, end in rows
        if start is not None
    ]
    at_work = sorted(step for step, start, end in utc if start <= moment < end)
    if at_work:
        return " + ".join(at_work)
    if not any(start <= moment for _, start, _ in utc):
        return "before the first step"
    if any(start > moment for _, start, _ in utc):
        return "between two steps"
    return "after the last step"


def _epoch(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
