import threading
from pathlib import Path

import psycopg
import pytest

import store.migrate
from store.migrate import (
    MigrationError,
    UnsuitableServerError,
    check_server,
    migrate,
    packaged,
    read,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_papers.sql").write_text(
        "CREATE TABLE papers (title text);\nINSERT INTO papers VALUES ('first');\n"
    )
    (tmp_path / "0002_years.sql").write_text("ALTER TABLE papers ADD COLUMN year integer;\n")
    return tmp_path


@pytest.fixture
def bare(db: psycopg.Connection) -> psycopg.Connection:
    """A database of which only its migrations are known to be missing."""
    db.execute("DROP TABLE schema_migrations")
    return db


def test_the_packaged_migrations_are_what_a_fresh_database_has(db: psycopg.Connection) -> None:
    rows = db.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY 1").fetchall()
    assert rows == [(m.version, m.name, m.sha256) for m in read(packaged())]
    assert migrate(db) == []


def test_each_migration_is_applied_once_and_in_order(
    bare: psycopg.Connection, folder: Path
) -> None:
    assert [m.file_name for m in migrate(bare, folder)] == ["0001_papers.sql", "0002_years.sql"]
    assert migrate(bare, folder) == []
    (folder / "0003_more.sql").write_text("INSERT INTO papers VALUES ('second', 2026)")
    assert [m.version for m in migrate(bare, folder)] == [3]
    assert bare.execute("SELECT * FROM papers ORDER BY title").fetchall() == [
        ("first", None),
        ("second", 2026),
    ]


def test_a_file_changed_after_it_was_applied_is_refused(
    bare: psycopg.Connection, folder: Path
) -> None:
    migrate(bare, folder)
    (folder / "0001_papers.sql").write_text("CREATE TABLE papers (title text, author text);")
    with pytest.raises(MigrationError, match=r"0001_papers\.sql was changed after it was applied"):
        migrate(bare, folder)


def test_a_checkout_with_windows_line_endings_is_not_a_change(
    bare: psycopg.Connection, folder: Path
) -> None:
    migrate(bare, folder)
    file = folder / "0001_papers.sql"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate(bare, folder) == []


def test_a_file_that_fails_leaves_nothing_behind_and_the_files_before_it_stay(
    bare: psycopg.Connection, folder: Path
) -> None:
    (folder / "0003_broken.sql").write_text("CREATE TABLE half (a integer); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match=r"0003_broken\.sql does not apply: division by zero"):
        migrate(bare, folder)
    found = bare.execute("SELECT to_regclass('papers') IS NOT NULL, to_regclass('half')").fetchone()
    assert found == (True, None)

    (folder / "0003_broken.sql").write_text("CREATE TABLE half (a integer);")
    assert [m.version for m in migrate(bare, folder)] == [3]


def test_a_file_that_ends_its_own_transaction_is_refused(
    bare: psycopg.Connection, folder: Path
) -> None:
    (folder / "0003_commit.sql").write_text("CREATE TABLE kept (a integer); COMMIT;")
    with pytest.raises(MigrationError, match="ends its transaction"):
        migrate(bare, folder)
    recorded = bare.execute("SELECT max(version) FROM schema_migrations").fetchone()
    assert recorded == (2,)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("0002_again.sql", "two migrations have the number 0002"),
        ("0004_later.sql", "migration 0003 is missing"),
        ("3_short.sql", r"3_short\.sql is not named like 0001_name\.sql"),
        ("0003-dash.sql", r"0003-dash\.sql is not named like 0001_name\.sql"),
    ],
)
def test_numbers_run_from_one_without_gaps_or_doubles(
    folder: Path, name: str, problem: str
) -> None:
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=problem):
        read(folder)


def test_a_database_from_a_newer_version_is_refused(bare: psycopg.Connection, folder: Path) -> None:
    migrate(bare, folder)
    (folder / "0002_years.sql").unlink()
    with pytest.raises(MigrationError, match=r"has migration 0002.*update Quire"):
        migrate(bare, folder)


def test_of_several_at_once_one_applies_and_the_others_wait(
    postgres_url: str, bare: psycopg.Connection, folder: Path
) -> None:
    (folder / "0003_slow.sql").write_text("SELECT pg_sleep(0.2);")
    applied: list[int] = []

    def apply() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as db:
            applied.append(len(migrate(db, folder)))

    threads = [threading.Thread(target=apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(applied) == [0, 0, 0, 3]


def test_pgvector_is_created_where_it_is_missing(
    bare: psycopg.Connection,
) -> None:
    bare.execute("DROP EXTENSION vector CASCADE")
    check_server(bare)
    assert bare.execute("SELECT '[1,2]'::halfvec::text").fetchone() == ("[1,2]",)


def test_whoever_may_not_create_pgvector_is_told_who_can(
    bare: psycopg.Connection,
) -> None:
    bare.execute("DROP EXTENSION vector CASCADE")
    bare.execute("CREATE ROLE guest")
    bare.execute("SET ROLE guest")
    try:
        with pytest.raises(UnsuitableServerError, match="administrator run CREATE EXTENSION"):
            check_server(bare)
    finally:
        bare.execute("RESET ROLE")
        bare.execute("DROP ROLE guest")


def test_an_old_pgvector_is_refused_with_both_versions(db: psycopg.Connection) -> None:
    db.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(UnsuitableServerError, match=r"has pgvector 0\.7\.4; Quire needs 0\.8"):
        check_server(db)


def test_an_old_server_is_refused_with_both_versions(
    db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.migrate, "OLDEST_POSTGRES", 99)
    with pytest.raises(UnsuitableServerError, match=r"is Postgres 18.*; Quire needs 99 or newer"):
        check_server(db)
