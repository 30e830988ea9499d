"""Dagster's own storage, with patience: a database that is away for a minute fails no run.

Dagster itself gives up on a connection after some six seconds, and on a statement at once.
"""

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy.event
from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from orchestration.settings import from_environment
from resources.database import OUTAGES, is_hopeless
from resources.embedded_postgres import DatabaseUnavailableError, EmbeddedPostgres

OUTAGE_S = 180.0
"""As long as ops wait; see ``resources.database``."""


class PatientStorage(DagsterPostgresStorage):
    """The storage of ``dagster-postgres``, whose connections wait for a server that went away."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        if not sqlalchemy.event.contains(Engine, "do_connect", _connect):
            sqlalchemy.event.listen(Engine, "do_connect", _connect)
        super().__init__(postgres_url, inst_data=inst_data)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            _keep_at(storage)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> "PatientStorage":
        """As Dagster makes it, from ``dagster.yaml``."""
        return cls(pg_url_from_config(config_value), inst_data)


def _keep_at(storage: object) -> None:
    """Have every call of a storage made again where the server goes away under it.

    A call whose answer was lost may have been heard: an event can stand in Dagster's log twice.
    """
    kind = type(storage)
    again = {
        name: _again(method)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and not inspect.isgeneratorfunction(inspect.unwrap(method))
    }
    storage.__class__ = type(kind.__name__, (kind,), again)


def _again(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **words: Any) -> Any:
        for _ in range(OUTAGES - 1):
            try:
                return method(*arguments, **words)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
        return method(*arguments, **words)

    return call


def _connect(dialect: Any, record: Any, arguments: list[Any], words: dict[str, Any]) -> Any:
    """A connection of the driver; the embedded server is started where it is not running.

    Raises:
        DatabaseUnavailableError: The server stayed away or does not start, with the reason. Dagster
            does not try this again, as it would after an error of the driver.
    """
    deadline = time.monotonic() + OUTAGE_S
    pause_s = 0.05
    while True:
        try:
            return dialect.loaded_dbapi.connect(*arguments, **words)
        except dialect.loaded_dbapi.OperationalError as error:
            reason = str(error).strip().partition("\n")[0]
        if is_hopeless(reason) or time.monotonic() + pause_s > deadline:
            raise DatabaseUnavailableError(f"no connection to Dagster's own database: {reason}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 2.0)
        settings = from_environment()
        embedded = EmbeddedPostgres(settings.data_dir)
        if not settings.database_url and embedded.cluster_dir.exists():
            embedded.start()
