from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import psycopg
import pytest
import sqlalchemy.event
from sqlalchemy.engine import Engine

from orchestration import dagster_storage
from orchestration.settings import from_environment, prepare_dagster_home
from resources.embedded_postgres import DatabaseUnavailableError, EmbeddedPostgres
from resources.postgres import Postgres


@pytest.fixture
def server(server_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPostgres]:
    home = server_home / "patient"
    for name in ("QUIRE_HOME", "DAGSTER_HOME", "QUIRE_DAGSTER_STORAGE_URL"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.delenv("QUIRE_DATABASE_URL", raising=False)
    home.mkdir(exist_ok=True)
    settings = from_environment()
    prepare_dagster_home(settings, Postgres(data_dir=str(settings.data_dir)).dagster_storage_url())
    server = EmbeddedPostgres(settings.data_dir)
    yield server
    server.stop()


def test_dagsters_storage_outlives_the_embedded_server_it_is_in(server: EmbeddedPostgres) -> None:
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 0
        postmaster = psutil.Process(server.status().pid)
        for process in [postmaster, *postmaster.children()]:
            process.kill()
        assert instance.get_runs_count() == 0
        assert server.is_running()


def test_a_statement_that_the_server_drops_is_sent_again(server: EmbeddedPostgres) -> None:
    dropped: list[str] = []

    def drop_the_first(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "dynamic_partitions" in statement and not dropped:
            dropped.append(statement)
            with psycopg.connect(server.url_of("postgres"), autocommit=True) as db:
                pid = cursor.connection.info.backend_pid
                db.execute("SELECT pg_terminate_backend(%(pid)s, 10000)", {"pid": pid})

    with dg.DagsterInstance.get() as instance:
        sqlalchemy.event.listen(Engine, "before_cursor_execute", drop_the_first)
        try:
            instance.add_dynamic_partitions("papers", ["a", "b"])
        finally:
            sqlalchemy.event.remove(Engine, "before_cursor_execute", drop_the_first)
        assert dropped
        assert sorted(instance.get_dynamic_partitions("papers")) == ["a", "b"]


def test_a_server_that_stays_away_is_one_sentence(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagster_storage, "OUTAGE_S", 0.5)
    with dg.DagsterInstance.get() as instance:
        monkeypatch.setenv("QUIRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        server.stop()
        with pytest.raises(DatabaseUnavailableError, match="Dagster's own database") as caught:
            instance.get_runs_count()
    assert "\n" not in str(caught.value)
