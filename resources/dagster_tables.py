"""Dagster's own tables: there whole or not at all.

Dagster makes them one statement at a time when it first meets an empty database, and never looks
again: killed in the middle, it would fail at every later start. So they are made in a database of
another name, which takes its place once they are there.
"""

import psycopg
from psycopg import sql

USED = {"runs", "jobs", "dynamic_partitions", "bulk_actions"}
"""Tables of which at least one has a row wherever Dagster was at work."""


def expected_tables() -> set[str]:
    """The names of all tables of this version of Dagster."""
    from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
    from dagster._core.storage.runs.schema import RunStorageSqlMetadata
    from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata

    parts = (SqlEventLogStorageMetadata, RunStorageSqlMetadata, ScheduleStorageSqlMetadata)
    return {name for part in parts for name in part.tables} | {"alembic_version"}


def make_tables(url: str) -> None:
    """Make them in an empty database, which Dagster does as soon as it opens it."""
    from dagster_postgres import DagsterPostgresStorage

    storage = DagsterPostgresStorage(url)
    for part in (storage.event_log_storage, storage.run_storage, storage.schedule_storage):
        part.dispose()


def is_half_made(db: psycopg.Connection) -> bool:
    """Whether some tables are missing and none of them was ever used."""
    rows = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    present = {name for (name,) in rows}
    if not present or expected_tables() <= present:
        return False
    return not any(
        db.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(name))).fetchone()
        is not None
        for name in present & USED
    )


def exists(db: psycopg.Connection, name: str) -> bool:
    """Whether the server has a database of this name."""
    found = db.execute("SELECT 1 FROM pg_database WHERE datname = %(name)s", {"name": name})
    return found.fetchone() is not None


def create_database(db: psycopg.Connection, name: str) -> None:
    """An empty database in place of the one of this name, if there is one."""
    drop_database(db, name)
    db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def drop_database(db: psycopg.Connection, name: str) -> None:
    """Remove a database, whoever is connected to it."""
    db.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def rename_database(db: psycopg.Connection, name: str, new_name: str) -> None:
    """Give a database that nobody is connected to another name."""
    db.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
            sql.Identifier(name), sql.Identifier(new_name)
        )
    )
