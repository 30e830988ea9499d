"""The connection to Postgres as Dagster configures it; ``resources.database`` has the rest."""

from typing import Any
from urllib.parse import quote, urlencode

import dagster as dg
import psycopg
from psycopg.conninfo import make_conninfo
from pydantic import Field

from resources import dagster_tables
from resources.database import DatabaseAccess, DatabaseUnavailableError, parse_url

__all__ = ["DatabaseUnavailableError", "Postgres"]


class Postgres(DatabaseAccess, dg.ConfigurableResource):
    """Connections to the database, which is checked and brought up to date by the first of them.

    Also of use without Dagster: ``Postgres(data_dir="...").connect()``. Within Dagster give a URL
    that holds a password as ``dg.EnvVar``: Dagster stores the values of a resource with each run.
    """

    database_url: str = Field(
        default="",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
        description="A Postgres >= 15 with pgvector >= 0.8; empty for the embedded server.",
    )
    data_dir: str = Field(default="", description="Where the embedded server keeps its files.")
    statement_timeout_s: float = Field(
        default=600,
        description="A statement that takes longer is cancelled; the longest is an index build.",
    )

    patience_s: float = Field(
        default=20,
        description="How long the server may be starting, full or out of reach before that fails.",
    )
    outage_s: float = Field(
        default=180,
        description="How long an op waits for a server that went away under it.",
    )

    def given_url(self) -> str:
        """The user's URL; outside a run Dagster leaves finding a variable's value to us."""
        given = self.database_url
        return (given.get_value() or "") if isinstance(given, dg.EnvVar) else given

    def dagster_storage_url(self) -> str:
        """The URL for Dagster's own storage: a database of its own beside this one.

        It is ``dagster`` on the embedded server and ``<database>_dagster`` on one of the user's
        own, created when missing. The driver is named because SQLAlchemy 2.1 takes a plain
        ``postgresql://`` for psycopg 3, under which dagster-postgres fails.

        Raises:
            DatabaseUnavailableError: See ``connect``; or the database may not be created.
        """
        known = parse_url(self.url())
        name = "dagster"
        if self.given_url():
            name = f"{known.get('dbname') or known.get('user') or 'postgres'}_dagster"
        with self.wait_for_server(known) as db:
            _have_dagsters_database(db, name, known)
        return _dagsters_url(known, name)


def _have_dagsters_database(db: psycopg.Connection, name: str, known: dict[str, Any]) -> None:
    """Make Dagster's database where it is missing or was left half made."""
    db.execute("SELECT pg_advisory_lock(hashtext(%(name)s))", {"name": f"dagster tables {name}"})
    if dagster_tables.exists(db, name):
        with psycopg.connect(make_conninfo("", **{**known, "dbname": name})) as there:
            if not dagster_tables.is_half_made(there):
                return
    begun = f"{name[:50]}_begun"
    try:
        dagster_tables.create_database(db, begun)
        dagster_tables.make_tables(_dagsters_url(known, begun))
        dagster_tables.drop_database(db, name)
        dagster_tables.rename_database(db, begun, name)
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseUnavailableError(
            f"{db.info.user} may not create the database for Dagster's own storage: have an "
            f'administrator run CREATE DATABASE "{name}" OWNER "{db.info.user}"'
        ) from None


def _dagsters_url(known: dict[str, Any], name: str) -> str:
    return _sqlalchemy_url({**known, "dbname": name, "application_name": "dagster"})


def _sqlalchemy_url(known: dict[str, Any]) -> str:
    """The same connection for SQLAlchemy with psycopg2."""
    rest = dict(known)
    account = quote(str(rest.pop("user", "")), safe="")
    password = quote(str(rest.pop("password", "")), safe="")
    name = quote(str(rest.pop("dbname", "")), safe="")
    query = urlencode(rest, quote_via=quote, safe="")
    return f"postgresql+psycopg2://{account}{':' + password if password else ''}@/{name}?{query}"
