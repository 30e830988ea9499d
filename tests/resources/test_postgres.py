import dataclasses
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import numpy as np
import psutil
import psycopg
import pytest
import sqlalchemy
from pgvector import HalfVector
from psycopg import sql

from resources import dagster_tables
from resources.embedded_postgres import EmbeddedPostgres, ServerSettings
from resources.postgres import DatabaseUnavailableError, Postgres

PASSWORD = "s3cret/with@odd:signs"


@pytest.fixture(scope="module")
def listening(server_home: Path, forgetful_settings: ServerSettings) -> Iterator[EmbeddedPostgres]:
    """A server that asks for a password, as a user's own does."""
    server = EmbeddedPostgres(server_home / "own", tcp_port=0, settings=forgetful_settings)
    server.data_dir.mkdir(mode=0o711)
    (server.data_dir / "password").write_text(PASSWORD)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_url(listening: EmbeddedPostgres) -> str:
    """As a user writes it into QUIRE_DATABASE_URL."""
    return listening.tcp_url


def everything_shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_connection_commits_by_itself_and_knows_the_types_of_pgvector(
    postgres: Postgres,
) -> None:
    with postgres.connect() as db:
        assert db.autocommit
        assert db.prepare_threshold is None
        assert db.info.parameter_status("application_name") == "quire"
        row = db.execute("SELECT %s::halfvec", [HalfVector([1, 0.5])]).fetchone()
        assert row is not None
        np.testing.assert_array_equal(row[0].to_numpy(), np.array([1, 0.5], np.float16))
        assert db.execute("SELECT %s::vector(2)", [np.ones(2, np.float32)]).fetchone()
    assert db.closed


def test_what_fails_inside_a_transaction_leaves_nothing(postgres: Postgres) -> None:
    with postgres.connect() as db:
        db.execute("CREATE TABLE rows (n integer)")
        with suppress(psycopg.errors.DivisionByZero), db.transaction():
            db.execute("INSERT INTO rows VALUES (1)")
            db.execute("SELECT 1 / 0")
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (0,)


def test_a_statement_that_takes_too_long_is_cancelled(postgres_url: str) -> None:
    hasty = Postgres(database_url=postgres_url, statement_timeout_s=0.05)
    with hasty.connect() as db, pytest.raises(psycopg.errors.QueryCanceled):
        db.execute("SELECT pg_sleep(5)")


def test_the_first_connection_prepares_an_empty_database(own_url: str) -> None:
    with Postgres(database_url=own_url).connect() as db:
        assert db.execute("SELECT count(*) > 0 FROM schema_migrations").fetchone() == (True,)
    assert Postgres(database_url=own_url).migrate() == []


def test_a_url_with_the_driver_of_sqlalchemy_is_understood(own_url: str) -> None:
    postgres = Postgres(database_url=own_url.replace("postgresql:", "postgresql+psycopg:"))
    with postgres.connect() as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
    assert postgres.url() == own_url


def test_a_wrong_password_is_one_sentence_at_once_without_the_password(own_url: str) -> None:
    wrong = "n0t-the-password"
    postgres = Postgres(database_url=own_url.replace(quote(PASSWORD, safe=""), wrong))
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError) as caught, postgres.connect():
        pass
    assert time.monotonic() - started < 15
    assert "\n" not in str(caught.value)
    assert 'password authentication failed for user "quire"' in str(caught.value)
    assert wrong not in everything_shown(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret/pw@host/name",
        "postgresql://u:5432/s3cret@host/name",
        "postgresql://u:pa@s3cret@host/name",
        "postgresql://u:s3cret%@host/name",
        "postgresql://u:s3cret@host:port/name",
        "mysql://u:s3cret@host/name",
        "s3cret",
    ],
)
def test_a_url_that_makes_no_sense_is_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="not understood") as caught:
        Postgres(database_url=url).migrate()
    assert "\n" not in str(caught.value)
    assert "s3cret" not in everything_shown(caught.value)


def test_a_server_that_stays_away_is_waited_for_no_longer_than_stated() -> None:
    postgres = Postgres(database_url="postgresql://u:s3cret@127.0.0.1:1/name", patience_s=0.5)
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="Connection refused") as caught:
        postgres.migrate()
    assert 0.2 < time.monotonic() - started < 15
    assert "127.0.0.1:1/name" in str(caught.value)
    assert "s3cret" not in everything_shown(caught.value)


def test_a_server_that_is_on_its_way_is_waited_for(
    listening: EmbeddedPostgres, own_url: str
) -> None:
    port = int(own_url.rpartition(":")[2].partition("/")[0])
    listening.stop()
    again = EmbeddedPostgres(listening.data_dir, tcp_port=port, settings=listening.settings)
    later = threading.Timer(0.3, again.start)
    later.start()
    try:
        with Postgres(database_url=own_url).connect() as db:
            assert db.execute("SELECT 1").fetchone() == (1,)
    finally:
        later.join()


def test_a_full_server_is_waited_for_and_then_said_to_be_full(
    server_home: Path, forgetful_settings: ServerSettings
) -> None:
    few = dataclasses.replace(forgetful_settings, max_connections=4)
    server = EmbeddedPostgres(server_home / "few", settings=few)
    url = server.start()
    held = [psycopg.connect(url) for _ in range(4)]
    try:
        with (
            pytest.raises(DatabaseUnavailableError, match="too many clients already"),
            Postgres(database_url=url, patience_s=0.5).connect(),
        ):
            pass
        later = threading.Timer(0.3, held.pop().close)
        later.start()
        with Postgres(database_url=url).connect() as db:
            assert db.execute("SELECT 1").fetchone() == (1,)
        later.join()
    finally:
        for connection in held:
            connection.close()
        server.stop()


def test_the_embedded_server_is_started_by_whoever_needs_it(listening: EmbeddedPostgres) -> None:
    listening.stop()
    postgres = Postgres(data_dir=str(listening.data_dir))
    for _ in range(2):
        with postgres.connect() as db:
            assert db.execute("SELECT 1").fetchone() == (1,)
        assert listening.is_running()
        listening.stop()
    listening.start()


def test_an_embedded_server_that_was_just_killed_is_back_for_the_next_connection(
    listening: EmbeddedPostgres,
) -> None:
    postgres = Postgres(data_dir=str(listening.data_dir))
    with postgres.connect() as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
        psutil.Process(listening.status().pid).kill()
        with postgres.connect() as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
    listening.stop()
    listening.start()


def test_dagster_gets_a_database_of_its_own_and_a_driver_that_works(
    postgres_url: str, listening: EmbeddedPostgres
) -> None:
    embedded = Postgres(data_dir=str(listening.data_dir)).dagster_storage_url()
    assert embedded.startswith("postgresql+psycopg2://quire@/dagster?")
    own = Postgres(database_url=postgres_url).dagster_storage_url()
    assert Postgres(database_url=postgres_url).dagster_storage_url() == own
    for url, name in ((embedded, "dagster"), (own, "_dagster")):
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as db:
            found = db.execute(sqlalchemy.text("SELECT current_database()")).scalar_one()
        engine.dispose()
        assert str(found).endswith(name)
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(f"{db.info.dbname}_dagster")))


def test_dagsters_tables_are_made_whole_and_made_anew_where_a_kill_left_half_of_them(
    postgres_url: str,
) -> None:
    postgres = Postgres(database_url=postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as db:
        name = f"{db.info.dbname}_dagster"
        db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"{name}_begun")))
        db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(postgres_url, dbname=name, autocommit=True) as there:
        there.execute("CREATE TABLE event_logs (id integer)")
    for _ in range(2):
        postgres.dagster_storage_url()
        with psycopg.connect(postgres_url, dbname=name, autocommit=True) as there:
            rows = there.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert {row[0] for row in rows} >= dagster_tables.expected_tables()
            there.execute("CREATE TABLE IF NOT EXISTS kept (id integer)")
    with psycopg.connect(postgres_url, dbname=name) as there:
        assert there.execute("SELECT to_regclass('kept')::text").fetchone() == ("kept",)
    with psycopg.connect(postgres_url, autocommit=True) as db:
        db.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def test_the_url_for_dagster_carries_odd_passwords_over_tcp(own_url: str) -> None:
    engine = sqlalchemy.create_engine(Postgres(database_url=own_url).dagster_storage_url())
    with engine.connect() as db:
        found = db.execute(sqlalchemy.text("SELECT current_database()")).scalar_one()
    engine.dispose()
    assert found == "quire_dagster"


def test_whoever_may_not_create_databases_is_told_what_to_ask_for(own_url: str) -> None:
    with Postgres(database_url=own_url).connect() as db:
        db.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        db.execute("CREATE DATABASE guests")
    url = own_url.replace(f"quire:{quote(PASSWORD, safe='')}", "guest:guest")
    guest = Postgres(database_url=url.replace("/quire", "/guests"))
    with pytest.raises(DatabaseUnavailableError, match='CREATE DATABASE "guests_dagster" OWNER'):
        guest.dagster_storage_url()


def test_neither_a_url_nor_a_directory_is_an_error() -> None:
    with pytest.raises(DatabaseUnavailableError, match="neither"):
        Postgres().url()


def test_the_password_is_not_part_of_how_the_resource_presents_itself(own_url: str) -> None:
    postgres = Postgres(database_url=own_url)
    for shown in (repr(postgres), str(postgres), postgres.described()):
        assert "s3cret" not in shown
    assert "quire@127.0.0.1" in postgres.described()


def test_a_url_given_as_a_variable_is_found_outside_dagster_too(
    own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_DATABASE_URL", own_url)
    postgres = Postgres(database_url=dg.EnvVar("QUIRE_DATABASE_URL"))
    assert postgres.url() == own_url
    with postgres.connect() as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
    assert "s3cret" not in repr(postgres)


def test_dagster_stores_the_name_of_the_variable_and_hands_over_its_value(
    own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_DATABASE_URL", own_url)
    answers: list[object] = []

    @dg.asset
    def asking(postgres: Postgres) -> dg.MaterializeResult:
        with postgres.connect() as db:
            answers.append(db.execute("SELECT 1").fetchone())
        return dg.MaterializeResult()

    definitions = dg.Definitions(
        assets=[asking],
        resources={"postgres": Postgres(database_url=dg.EnvVar("QUIRE_DATABASE_URL"))},
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        snapshot = instance.get_job_snapshot(result.dagster_run.job_snapshot_id or "")
        events = instance.all_logs(result.run_id)
    assert answers == [(1,)]
    assert "QUIRE_DATABASE_URL" in dg.serialize_value(snapshot)
    assert "s3cret" not in dg.serialize_value(snapshot)
    assert not any("s3cret" in dg.serialize_value(event) for event in events)


def test_what_a_database_error_quotes_does_not_act(postgres: Postgres) -> None:
    hostile = "\x1b[31mred\r\nquire: finished\u202e"
    with (
        pytest.raises(psycopg.errors.InvalidTextRepresentation) as caught,
        postgres.connect() as db,
    ):
        db.execute("SELECT %(text)s::text::int", {"text": hostile})
    assert str(caught.value).startswith("invalid input syntax for type integer")
    assert "\\x1b[31mred\\r\\nquire: finished\\u202e" in str(caught.value)
    assert str(caught.value).isprintable()
