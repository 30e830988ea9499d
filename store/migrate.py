"""What a database must have: Postgres, pgvector, and the migrations, each applied once in order."""

import hashlib
import importlib.resources
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import psycopg
from psycopg.pq import TransactionStatus

LOCK_KEY = (
    0x5155495245  # "QUIRE" in ASCII: one advisory lock for everything that prepares a database
)

OLDEST_POSTGRES = 15
OLDEST_PGVECTOR = (0, 8)
"""The first with halfvec and with index scans that go on until the filter is satisfied."""

FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version     integer PRIMARY KEY,
        name        text NOT NULL,
        sha256      text NOT NULL,
        applied_at  timestamptz NOT NULL DEFAULT now()
    )
"""


class MigrationError(Exception):
    """The files and the database disagree, or a file does not apply; the message says which."""


class UnsuitableServerError(Exception):
    """The server is too old or lacks pgvector; the message says what its owner can do."""


@dataclass(frozen=True)
class Migration:
    """One file: ``0001_documents.sql`` is version 1, name ``documents``.

    Attributes:
        version: The number the file name starts with; versions run from 1 without gaps.
        name: The rest of the file name.
        sql: The file's text, with line endings as on Unix.
        sha256: Of ``sql``, so that a checkout with other line endings is not a changed file.
    """

    version: int
    name: str
    sql: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name the migration was read from."""
        return f"{self.version:04d}_{self.name}.sql"


def check_server(db: psycopg.Connection) -> None:
    """Make sure of the server's version and of pgvector, which is created where it is missing.

    Raises:
        UnsuitableServerError: One is too old, or pgvector is not installed or may not be created.
    """
    if db.info.server_version < OLDEST_POSTGRES * 10_000:
        found = db.info.parameter_status("server_version") or "unknown"
        raise UnsuitableServerError(
            f"the server is Postgres {found}; Quire needs {OLDEST_POSTGRES} or newer"
        )
    installed = _pgvector(db)
    if installed is None:
        installed = _create_pgvector(db)
    if _numbers(installed) < OLDEST_PGVECTOR:
        raise UnsuitableServerError(
            f"database {db.info.dbname} has pgvector {installed}; Quire needs 0.8 or newer: "
            "install it on the server, then run ALTER EXTENSION vector UPDATE"
        )


def packaged() -> Traversable:
    """The migrations that come with this version of Quire."""
    return importlib.resources.files("migrations")


def read(folder: Traversable) -> list[Migration]:
    """The migrations of a folder, in order.

    Raises:
        MigrationError: A ``.sql`` file is not named ``0001_name.sql``, two share a number, or a
            number is missing.
    """
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    migrations: list[Migration] = []
    for file in files:
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"migration {file.name} is not named like 0001_name.sql")
        sql = file.read_text(encoding="utf-8").replace("\r\n", "\n")
        digest = hashlib.sha256(sql.encode()).hexdigest()
        migrations.append(Migration(int(match[1]), match[2], sql, digest))
    for expected, migration in enumerate(migrations, start=1):
        if migration.version < expected:
            raise MigrationError(f"two migrations have the number {migration.version:04d}")
        if migration.version > expected:
            raise MigrationError(f"migration {expected:04d} is missing")
    return migrations


def pending(db: psycopg.Connection, migrations: Iterable[Migration]) -> list[Migration]:
    """The migrations this database does not have yet.

    Raises:
        MigrationError: A file was changed after it was applied, or the database has migrations that
            the files do not.
    """
    applied = _applied(db)
    missing: list[Migration] = []
    for migration in migrations:
        sha256 = applied.pop(migration.version, None)
        if sha256 is None:
            missing.append(migration)
        elif sha256 != migration.sha256:
            raise MigrationError(
                f"{migration.file_name} was changed after it was applied to this database; "
                "restore the file and put the change into a new migration"
            )
    if applied:
        raise MigrationError(
            f"the database has migration {max(applied):04d}, which this version of Quire does not "
            "know; it was prepared by a newer one: update Quire"
        )
    return missing


def migrate(db: psycopg.Connection, folder: Traversable | None = None) -> list[Migration]:
    """Bring the database up to date, each file in a transaction of its own.

    Whoever comes second waits for the first and then finds nothing left to do. A file that fails
    leaves nothing behind; the files before it stay applied.

    Args:
        db: An open connection in autocommit mode.
        folder: Where the files are; those of this version of Quire by default.

    Returns:
        What was applied, in order; empty when the database was up to date.

    Raises:
        MigrationError: See ``read`` and ``pending``; or a file does not apply, with the reason.
    """
    migrations = read(packaged() if folder is None else folder)
    if not pending(db, migrations):
        return []
    with _alone(db):
        db.execute(CREATE_TABLE)
        applied = pending(db, migrations)
        for migration in applied:
            _apply(db, migration)
    return applied


@contextmanager
def _alone(db: psycopg.Connection) -> Generator[None]:
    """Be the only one who prepares this database."""
    db.execute("SELECT pg_advisory_lock(%(key)s)", {"key": LOCK_KEY})
    try:
        yield
    finally:
        if not db.closed:
            db.execute("SELECT pg_advisory_unlock(%(key)s)", {"key": LOCK_KEY})


def _pgvector(db: psycopg.Connection) -> str | None:
    """The version of pgvector in this database, None when it has none."""
    row = db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return None if row is None else str(row[0])


def _create_pgvector(db: psycopg.Connection) -> str:
    try:
        with _alone(db):
            db.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege:
        raise UnsuitableServerError(
            f"database {db.info.dbname} lacks pgvector and {db.info.user} may not create it: have "
            "an administrator run CREATE EXTENSION vector there"
        ) from None
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
        raise UnsuitableServerError(
            f"the server of database {db.info.dbname} does not have pgvector: install it (0.8 or "
            "newer; Debian: postgresql-NN-pgvector)"
        ) from None
    return _pgvector(db) or "0"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _applied(db: psycopg.Connection) -> dict[int, str]:
    """Checksum of each applied migration by version; empty for a database without the table."""
    exists = db.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    if exists is None or not exists[0]:
        return {}
    rows = db.execute("SELECT version, sha256 FROM schema_migrations ORDER BY version").fetchall()
    return {int(version): str(sha256) for version, sha256 in rows}


def _apply(db: psycopg.Connection, migration: Migration) -> None:
    try:
        with db.transaction():
            db.execute(migration.sql.encode())
            if db.info.transaction_status != TransactionStatus.INTRANS:
                raise MigrationError(
                    f"{migration.file_name} ends its transaction: take BEGIN, COMMIT and ROLLBACK "
                    "out of it"
                )
            db.execute(
                """
                INSERT INTO schema_migrations (version, name, sha256)
                VALUES (%(version)s, %(name)s, %(sha256)s)
                """,
                {
                    "version": migration.version,
                    "name": migration.name,
                    "sha256": migration.sha256,
                },
            )
    except psycopg.Error as error:
        reason = error.diag.message_primary or str(error).strip()
        raise MigrationError(f"{migration.file_name} does not apply: {reason}") from error
