"""The connection to Postgres: the embedded server, or one of the user's own.

Nothing here knows Dagster, so the service that answers searches can use it, too.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from core.text import visible
from resources.embedded_postgres import DatabaseUnavailableError, EmbeddedPostgres
from store.migrate import MigrationError, UnsuitableServerError, check_server, migrate

__all__ = ["Database", "DatabaseAccess", "DatabaseUnavailableError"]

CONNECT_TIMEOUT_S = 10
"""Per attempt; a server in reach answers within one."""

ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A server that vanished from the network is noticed after a minute, not after two hours."""

OUTAGES = 10
"""How often one op takes up its work again: a server that keeps falling over is another matter."""

HOPELESS = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied",
    "certificate",
    "does not support ssl",
    "requires ssl",
    "invalid",
)
"""Answers, in lower case, that waiting does not change."""

GONE = ("08", "57P", "25P03")
"""SQLSTATEs of a session that the server has ended: connection, shutdown or crash, idle time."""

Done = TypeVar("Done")

_ready: set[str] = set()
"""Databases that this process has found, or made, fit for use."""

_preparing = Lock()


class DatabaseAccess:
    """Connections to the database, which is checked and brought up to date by the first of them.

    The base of two classes that say where the database is: ``Database`` below, and the resource
    ``resources.postgres.Postgres``, which Dagster configures.

    Attributes:
        database_url: A Postgres >= 15 with pgvector >= 0.8; empty for the embedded server.
        data_dir: Where the embedded server keeps its files.
        statement_timeout_s: A statement that takes longer is cancelled.
        patience_s: How long the server may be starting, full or out of reach before that fails.
        outage_s: How long an op waits for a server that went away under it.
    """

    database_url: str
    data_dir: str
    statement_timeout_s: float
    patience_s: float
    outage_s: float

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """An open connection in autocommit mode, closed at the end.

        Rows that belong together are written inside ``with db.transaction()``. The embedded server
        is started when it is not running, and a server that is starting or briefly out of reach is
        waited for.

        Raises:
            DatabaseUnavailableError: There is no server, it refuses, or it does not suit; one
                sentence, never with the password in it.
        """
        with self._connected(self.patience_s) as db:
            yield db

    def keep_at(
        self, work: Callable[[psycopg.Connection], Done], tell: Callable[[str], None]
    ) -> Done:
        """Do work on a connection, and where the server goes away under it, on the next one.

        Args:
            work: Safe to begin again: what it had committed is there, the rest was rolled back.
            tell: Told, once the server is back, that it was away.

        Raises:
            DatabaseUnavailableError: The server stayed away for ``outage_s``.
            psycopg.Error: Anything else that the work met.
        """
        reason, away_since, patience_s = "", 0.0, self.patience_s
        for _ in range(OUTAGES):
            with self._connected(patience_s) as db:
                if reason:
                    tell(
                        f"the database was away for {time.monotonic() - away_since:.1f} s "
                        f"({reason}); the work goes on with the first unit that is not committed"
                    )
                try:
                    return work(db)
                except (psycopg.OperationalError, DatabaseUnavailableError) as error:
                    if not is_gone(error):
                        raise
                    reason = _without_password(str(error), {})
            away_since, patience_s = time.monotonic(), self.outage_s
        raise DatabaseUnavailableError(
            f"the database went away {OUTAGES} times under one op ({self.described()}): {reason}"
        )

    def migrate(self) -> list[str]:
        """Bring the database up to date, which the first connection does as well.

        Returns:
            The names of the files that were applied.

        Raises:
            DatabaseUnavailableError: See ``connect``.
        """
        with self.wait_for_server(parse_url(self.url())) as db:
            return self._prepare(db)

    def server_version(self) -> str:
        """What the server says it is, ``18.4``; changes nothing.

        Raises:
            DatabaseUnavailableError: See ``connect``.
        """
        with self.wait_for_server(parse_url(self.url())) as db:
            return db.info.parameter_status("server_version") or "unknown"

    def url(self) -> str:
        """The connection string for psql, password included; starts the embedded server."""
        if not self.given_url():
            return self._embedded().start()
        return _without_driver(self.given_url())

    def described(self) -> str:
        """Where the database is, for people: no password."""
        if not self.given_url():
            return f"embedded server in {self._embedded().data_dir}"
        known = parse_url(self.given_url())
        where = known.get("host") or known.get("service") or "localhost"
        return (
            f"{known.get('user', '')}@{where}:{known.get('port', 5432)}/{known.get('dbname', '')}"
        )

    @contextmanager
    def _connected(self, patience_s: float) -> Iterator[psycopg.Connection]:
        db = self._open(patience_s)
        try:
            yield db
        except psycopg.errors.DiskFull as error:
            raise DatabaseUnavailableError(
                f"no space left for the database ({self.described()}): "
                f"{_without_password(str(error), {})}"
            ) from error
        except psycopg.Error as error:
            _make_inert(error)
            raise
        finally:
            db.close()

    def given_url(self) -> str:
        """The user's URL; empty for the embedded server."""
        return self.database_url

    def _embedded(self) -> EmbeddedPostgres:
        if not self.data_dir:
            raise DatabaseUnavailableError("neither a database URL nor a data directory is set")
        return EmbeddedPostgres(Path(self.data_dir))

    def _open(self, patience_s: float) -> psycopg.Connection:
        known = parse_url(self.url())
        db = self.wait_for_server(known, patience_s)
        try:
            db.execute(
                """
                SELECT set_config('statement_timeout', %(ms)s, false),
                       set_config('idle_in_transaction_session_timeout', %(ms)s, false)
                """,
                {"ms": str(round(self.statement_timeout_s * 1000))},
            )
            conninfo = make_conninfo("", **known)
            with _preparing:
                if conninfo not in _ready:
                    self._prepare(db)
                    _ready.add(conninfo)
            register_vector(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: psycopg.Connection) -> list[str]:
        try:
            check_server(db)
            return [migration.file_name for migration in migrate(db)]
        except (UnsuitableServerError, MigrationError) as error:
            raise DatabaseUnavailableError(str(error)) from error

    def wait_for_server(
        self, known: dict[str, Any], patience_s: float | None = None
    ) -> psycopg.Connection:
        """Connect, trying again while the server may be on its way."""
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        pause_s = 0.05
        while True:
            try:
                return psycopg.connect(
                    make_conninfo("", **known),
                    autocommit=True,
                    prepare_threshold=None,
                )
            except psycopg.OperationalError as error:
                reason = _without_password(str(error), known)
            if is_hopeless(reason) or time.monotonic() + pause_s > deadline:
                raise DatabaseUnavailableError(
                    f"no connection to the database ({self.described()}): {reason}"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)
            if not self.given_url():
                known = parse_url(self.url())


@dataclass(frozen=True)
class Database(DatabaseAccess):
    """The database of a process that has nothing to do with Dagster; see ``DatabaseAccess``."""

    database_url: str = field(default="", repr=False)
    data_dir: str = ""
    statement_timeout_s: float = 600
    patience_s: float = 20
    outage_s: float = 180


def is_hopeless(reason: str) -> bool:
    """Whether what a server answered to a connection will not change by waiting."""
    return any(sign in reason.lower() for sign in HOPELESS)


def what_the_database_said(error: BaseException) -> str:
    """The line in which a server refused or went away, of an error or what it came from; or "".

    Dagster speaks to its own tables through another driver, whose errors have the same name.
    """
    known: BaseException | None = error
    while known is not None:
        if any(kind.__name__ == "OperationalError" for kind in type(known).__mro__):
            return _without_password(str(known).replace("(psycopg2.OperationalError) ", ""), {})
        known = known.__cause__
    return ""


def is_gone(error: psycopg.OperationalError | DatabaseUnavailableError) -> bool:
    """Whether the session is over, or no second one was to be had, rather than one statement."""
    state = error.sqlstate if isinstance(error, psycopg.OperationalError) else None
    return state is None or state.startswith(GONE)


def _without_driver(url: str) -> str:
    """``postgresql://...`` for SQLAlchemy's ``postgresql+psycopg://...``."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}" if separator else url


def parse_url(url: str) -> dict[str, Any]:
    """The parts of a connection string, with what Quire adds unless it is given."""
    try:
        known = conninfo_to_dict(_without_driver(url))
        sensible = _is_sensible(known)
    except psycopg.ProgrammingError:  # its message repeats parts of the password
        known, sensible = {}, False
    if not sensible:
        raise DatabaseUnavailableError(
            "the database URL is not understood: it looks like "
            "postgresql://user:password@host:5432/name, with special characters in the password "
            "percent-encoded"
        )
    return {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "quire", **ALIVE} | known


def _is_sensible(known: dict[str, Any]) -> bool:
    """Whether no part of a password has come to lie elsewhere, for want of percent-encoding."""
    ports = str(known.get("port") or "").split(",")
    return all(port == "" or port.isdigit() for port in ports) and not any(
        "@" in str(known.get(part) or "") for part in ("host", "dbname")
    )


def _without_password(message: str, known: dict[str, Any]) -> str:
    """The first line of an error of libpq; what follows are guesses at its cause."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    reason = lines[0] if lines else "no answer"
    for opening in ("connection failed: ", "connection is bad: "):
        reason = reason.removeprefix(opening)
    password = str(known.get("password") or "")
    return reason.replace(password, "***") if password else reason


def _make_inert(error: psycopg.Error) -> None:
    """Spell out what would act in the words of a database error, which quote what was stored."""
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    said = [visible(part) for part in parts if part]
    if said:
        error.args = ("\n".join(said),)
