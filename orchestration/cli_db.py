"""``quire db``: the database from the command line."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from core.text import visible
from resources.database import Database
from resources.embedded_postgres import DatabaseUnavailableError, EmbeddedPostgres

STOPPED = 3
"""Exit code of ``status`` for a stopped server, as ``pg_ctl`` and service managers have it."""


@dataclass(frozen=True)
class DbSettings:
    """Which database.

    Attributes:
        data_dir: Where the embedded server keeps its files.
        database_url: A server of the user's own; empty for the embedded one.
    """

    data_dir: Path
    database_url: str = ""

    def postgres(self, *, patience_s: float = 20) -> Database:
        """Connections to this database."""
        return Database(
            database_url=self.database_url, data_dir=str(self.data_dir), patience_s=patience_s
        )

    def embedded(self) -> EmbeddedPostgres:
        """The embedded server.

        Raises:
            DatabaseUnavailableError: The database is a server of the user's own.
        """
        if self.database_url:
            raise DatabaseUnavailableError(
                f"QUIRE_DATABASE_URL is set ({self.postgres().described()}): that server "
                "is started and stopped by its owner"
            )
        return EmbeddedPostgres(self.data_dir)


def make_app(load_settings: Callable[[], DbSettings]) -> typer.Typer:
    """The commands ``start``, ``stop``, ``status``, ``url`` and ``migrate``.

    Args:
        load_settings: Called by each command, so that making the app reads nothing.
    """
    app = typer.Typer(help="The database: an embedded Postgres, or your own.", no_args_is_help=True)

    @app.command()
    def start() -> None:
        """Start the embedded Postgres; it goes on until it is stopped."""
        with _one_line_errors():
            server = load_settings().embedded()
            server.start()
            typer.echo(
                f"running  process {server.status().pid}, log {visible(str(server.log_file))}"
            )

    @app.command()
    def stop() -> None:
        """Stop the embedded Postgres; whoever uses it is disconnected."""
        with _one_line_errors():
            typer.echo("stopped" if load_settings().embedded().stop() else "was not running")

    @app.command()
    def status() -> None:
        """Say whether the database runs; the exit code is 3 when it does not."""
        with _one_line_errors():
            settings = load_settings()
            running = _show_own(settings) if settings.database_url else _show_embedded(settings)
        if not running:
            raise typer.Exit(STOPPED)

    @app.command()
    def url() -> None:
        """Print the connection string, password included: psql "$(quire db url)"."""
        with _one_line_errors():
            typer.echo(load_settings().postgres().url())

    @app.command()
    def migrate() -> None:
        """Bring the database up to date, which the first run does as well."""
        with _one_line_errors():
            applied = load_settings().postgres().migrate()
            for name in applied:
                typer.echo(f"applied  {name}")
            if not applied:
                typer.echo("up to date")

    return app


def _show_embedded(settings: DbSettings) -> bool:
    status = settings.embedded().status()
    typer.echo(f"{'running' if status.running else 'stopped'}  embedded Postgres {status.version}")
    if status.pid is not None:
        typer.echo(f"process  {status.pid}")
    where = visible(str(status.data_dir))
    if status.data_dir not in status.cluster_dir.parents:
        where += f" (files in {visible(str(status.cluster_dir))})"
    typer.echo(f"data     {where}, {status.size_bytes / 1e6:.0f} MB")
    if status.running:
        typer.echo(f'connect  psql "{status.url}"')
    return status.running


def _show_own(settings: DbSettings) -> bool:
    postgres = settings.postgres(patience_s=0)
    try:
        version = postgres.server_version()
    except DatabaseUnavailableError as error:
        typer.echo(f"out of reach: {visible(str(error))}")
        return False
    typer.echo(f"running  Postgres {visible(version)}")
    typer.echo(f"connect  {visible(postgres.described())}")
    return True


@contextmanager
def _one_line_errors() -> Generator[None]:
    """What a user can do something about, in one line and without a traceback."""
    try:
        yield
    except DatabaseUnavailableError as error:
        typer.echo(f"error: {visible(str(error))}", err=True)
        raise typer.Exit(1) from None
