from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from orchestration.cli_db import DbSettings, make_app
from resources.embedded_postgres import EmbeddedPostgres


def run(settings: DbSettings, command: str) -> Result:
    return CliRunner().invoke(make_app(lambda: settings), [command], catch_exceptions=False)


@pytest.fixture
def embedded(server_home: Path) -> Iterator[DbSettings]:
    settings = DbSettings(data_dir=server_home / "command-line")
    yield settings
    EmbeddedPostgres(settings.data_dir).stop()


def test_making_the_app_reads_no_settings() -> None:
    def load() -> DbSettings:
        raise AssertionError("read too early")

    assert CliRunner().invoke(make_app(load), ["--help"]).exit_code == 0


def test_the_embedded_server_is_started_migrated_shown_and_stopped(embedded: DbSettings) -> None:
    stopped = run(embedded, "status")
    assert (stopped.exit_code, stopped.stdout.split()[0]) == (3, "stopped")

    assert run(embedded, "start").exit_code == 0
    status = run(embedded, "status")
    assert (status.exit_code, status.stdout.split()[0]) == (0, "running")
    assert str(embedded.data_dir) in status.stdout

    assert "applied  0001_" in run(embedded, "migrate").stdout
    assert run(embedded, "migrate").stdout == "up to date\n"
    with psycopg.connect(run(embedded, "url").stdout.strip()) as db:
        assert db.execute("SELECT count(*) > 0 FROM schema_migrations").fetchone() == (True,)

    assert run(embedded, "stop").stdout == "stopped\n"
    assert run(embedded, "stop").stdout == "was not running\n"
    assert run(embedded, "status").exit_code == 3


@pytest.mark.parametrize("command", ["start", "stop"])
def test_a_server_of_the_users_own_is_left_to_them(tmp_path: Path, command: str) -> None:
    own = DbSettings(tmp_path, "postgresql://u:s3cret@127.0.0.1:1/name")
    result = run(own, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: QUIRE_DATABASE_URL is set (u@127.0.0.1:1/name)")
    assert result.stderr.count("\n") == 1
    assert "s3cret" not in result.output


def test_a_server_of_the_users_own_is_shown_without_its_password(
    tmp_path: Path, postgres_url: str
) -> None:
    there = run(DbSettings(tmp_path, postgres_url), "status")
    assert (there.exit_code, there.stdout.split()[0]) == (0, "running")

    away = run(DbSettings(tmp_path, "postgresql://u:s3cret@127.0.0.1:1/name"), "status")
    assert away.exit_code == 3
    assert away.stdout.startswith("out of reach: no connection to the database")
    assert "s3cret" not in away.output


def test_an_error_is_one_line_and_not_a_traceback(tmp_path: Path) -> None:
    result = run(DbSettings(tmp_path, "postgresql://u:s3cret/x@host/name"), "migrate")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the database URL is not understood")
    assert result.stderr.count("\n") == 1
    assert "s3cret" not in result.output
