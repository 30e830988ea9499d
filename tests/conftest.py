"""A real Postgres for the tests: one server per run, one fresh database per test."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from dagster._core.storage.defs_state.base import _current_storage
from psycopg import sql
from xdist.scheduler import LoadScopeScheduling

from core.text_encoders import parse_text_encoder
from resources.embedded_postgres import EmbeddedPostgres, ServerSettings
from resources.postgres import Postgres
from resources.text_conversion import convert_text
from store.migrate import check_server, migrate

hypothesis.settings.register_profile("quire", deadline=None)  # timing is a benchmark's
hypothesis.settings.load_profile("quire")

TEMPLATE = "migrated"

SLOWEST_FIRST = ("faults", "security", "degraded", "assets", "orchestration", "deploy", "resources")
"""Folders in the order in which two workers begin them: what is short fills the end."""

ONE_WORKER = ("security",)
"""Folders whose files share what takes minutes to make."""


class _ByFile(LoadScopeScheduling):
    """Has a file's tests, or a folder's, run by one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.split("/")[1]
        return folder if folder in ONE_WORKER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Share the tests out among workers."""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest begun first."""
    order = {folder: place for place, folder in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.nodeid.split("/")[1], len(order)))


@dataclass(frozen=True)
class ForgetfulSettings(ServerSettings):
    """Nothing here outlives the run, so nothing needs to reach the disk."""

    fsync: str = "off"
    synchronous_commit: str = "off"
    full_page_writes: str = "off"


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def forgetful_settings() -> ServerSettings:
    """For servers of tests that kill none: several times faster to start and stop."""
    return ForgetfulSettings()


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A directory for data directories: in memory where there is room, on disk otherwise."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    home = Path(tempfile.mkdtemp(prefix="quire-test-", dir=memory if roomy else None))
    home.chmod(0o711)  # under root the server is another user, who has to pass
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_postgres(
    server_home: Path, forgetful_settings: ServerSettings
) -> Iterator[EmbeddedPostgres]:
    """A running server with a migrated database that others are copied from."""
    server = EmbeddedPostgres(server_home / "shared", settings=forgetful_settings)
    try:
        server.start()
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        with psycopg.connect(server.url_of(TEMPLATE), autocommit=True) as db:
            check_server(db)
            migrate(db)
        yield server
    finally:
        server.stop()


@contextmanager
def fresh_database(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a fresh, migrated, empty database, dropped at the end."""
    name = sql.Identifier(f"test_{next(_numbers)}")
    template = sql.Identifier(TEMPLATE)
    with psycopg.connect(embedded_postgres.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
        yield embedded_postgres.url_of(name.as_string().strip('"'))
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def postgres_url(embedded_postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a fresh, migrated, empty database."""
    with fresh_database(embedded_postgres) as url:
        yield url


@pytest.fixture
def postgres(postgres_url: str) -> Postgres:
    """The resource for a fresh, migrated, empty database."""
    return Postgres(database_url=postgres_url)


@pytest.fixture
def db(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """An open connection to a fresh, migrated, empty database."""
    with postgres.connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The default text encoder, converted once for all tests, as a setting names the folder."""
    folder = tmp_path_factory.mktemp("minilm") / "all-MiniLM-L6-v2"
    convert_text(parse_text_encoder("minilm"), folder, cores=1)
    return f"sentence-transformers:{folder}"


@pytest.fixture(autouse=True)
def _no_instance_outlives_its_test() -> Iterator[None]:
    """Contexts of sensors and schedules leave the storage of their closed instance behind."""
    yield
    _current_storage.set(None)
