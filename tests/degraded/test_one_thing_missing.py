"""Take any one thing away from a finished search: what is left is whole, or says that it is not.

Every table, column, row and stored object is found by asking the database and the store what there
is, so what a later migration adds is tried as well.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

import core.report_files
import store.batches
import store.page_batches
from orchestration.specs import specs_in_force
from resources.encoder import Encoder
from resources.settings import CopySearch
from store.database import Db
from tests.assets.conftest import Pipeline, Roomy
from tests.degraded.conftest import Told, tell
from tests.hostile import small_paper
from tests.resources.tiny_encoders import tiny_encoder

ROWS_PER_TABLE = 12
"""Rows tried of each table, spread over it; small tables are tried whole."""

NOT_TRIED = {
    "schema_migrations": "another program version, which is refused on connecting",
}

ALTERED: dict[str, tuple[LiteralString, ...]] = {
    "text": ("'x' || {column}", "''", "'ok'", "'degraded'", "'failed'", "'C'"),
    "integer": ("{column} + 1", "0"),
    "bigint": ("{column} + 1", "0"),
    "double precision": ("{column} / 2", "0"),
    "real": ("{column} / 2", "0"),
    "boolean": ("NOT {column}",),
    "jsonb": ("'{{}}'", "'null'"),
    "bytea": ("''",),
    "ARRAY": ("'{{0,0,1,1}}'",),
    "timestamp with time zone": ("{column} - interval '1 year'",),
}
"""What a value of each type may turn into."""


@dataclass
class Finished:
    """A paper that was searched to the end, and what its report says."""

    pipeline: Pipeline
    document_id: str
    told: Told


@pytest.fixture(scope="module")
def finished(new_pipeline: Callable[[], Pipeline]) -> Finished:
    pipeline = new_pipeline()
    folder = pipeline.folder
    pipeline.encoder = Encoder(spec=f"open_clip:{tiny_encoder(folder / 'tiny')}", cores=1)
    pipeline.memory = Roomy(room_mb=1000)
    small_paper(folder / "paper.pdf", seed=41)
    (received,) = pipeline.receive(folder / "paper.pdf")
    pipeline.run()
    assert received.document is not None
    document_id = received.document.document_id
    with pipeline.postgres.connect() as db:
        told = tell(pipeline, db, [document_id], folder / "out")
    assert told.status == "ok", told.troubles
    assert len(told.pairs) == 2
    return Finished(pipeline, document_id, told)


def is_honest(found: Told, whole: Told) -> bool:
    """Whether a report shows everything that the whole one shows, or says that it does not."""
    return found.status != "ok" or sorted(whole.pairs) == sorted(found.pairs)


def tables(db: Db) -> list[str]:
    rows = db.execute(
        """
        SELECT table_name FROM information_schema.tables
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1
        """
    ).fetchall()
    return [name for (name,) in rows if name not in NOT_TRIED]


def columns(db: Db, table: str) -> list[dict[str, Any]]:
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            """
            SELECT column_name, data_type FROM information_schema.columns
            WHERE table_schema = 'public' AND table_name = %(table)s ORDER BY ordinal_position
            """,
            {"table": table},
        ).fetchall()


def places(db: Db, table: str) -> list[str]:
    """Where rows of a table are, evenly over it."""
    found = [
        place
        for (place,) in db.execute(
            sql.SQL("SELECT ctid::text FROM {} ORDER BY ctid").format(sql.Identifier(table))
        ).fetchall()
    ]
    step = max(1, -(-len(found) // ROWS_PER_TABLE))
    return found[::step]


class UndoneError(Exception):
    """Rolls a try back."""


def tried(finished: Finished, db: Db, statement: sql.Composed | sql.SQL, out: Path) -> Told | None:
    """What is told after a statement, which is then undone; None where the database refuses it."""
    told = None
    try:
        with db.transaction():
            try:
                with db.transaction():
                    db.execute(statement)
            except psycopg.Error:
                raise UndoneError from None
            told = tell(finished.pipeline, db, [finished.document_id], out)
            raise UndoneError
    except UndoneError:
        return told


def test_a_row_that_is_deleted_is_missed_or_told(finished: Finished, tmp_path: Path) -> None:
    silent: list[str] = []
    told_of: set[str] = set()
    with finished.pipeline.postgres.connect() as db:
        for table in tables(db):
            name = sql.Identifier(table)
            deletions = [
                sql.SQL("DELETE FROM {} WHERE ctid = {}::tid").format(name, sql.Literal(place))
                for place in places(db, table)
            ]
            for statement in [*deletions, sql.SQL("DELETE FROM {}").format(name)]:
                found = tried(finished, db, statement, tmp_path)
                assert found is not None, statement.as_string(db)
                if not is_honest(found, finished.told):
                    silent.append(statement.as_string(db))
                if found.status != "ok":
                    told_of.add(table)
    assert not silent
    assert told_of >= {
        "batches", "candidate_pairs", "documents", "pages", "panels", "verified_pairs", "work",
    }  # fmt: skip


LOUD = (ValueError, ZeroDivisionError, psycopg.Error)
"""A record that contradicts itself may end the command with an error: that is not silent."""


def test_a_value_that_is_altered_is_harmless_or_told(finished: Finished, tmp_path: Path) -> None:
    silent: list[str] = []
    tries = loud = 0
    with finished.pipeline.postgres.connect() as db:
        for statement in alterations(db):
            try:
                found = tried(finished, db, statement, tmp_path)
            except LOUD:
                loud += 1
                continue
            tries += found is not None
            if found is not None and not is_honest(found, finished.told):
                silent.append(statement.as_string(db))
    assert not silent
    assert tries > 200
    assert loud < tries / 10


def alterations(db: Db) -> Iterator[sql.Composed]:
    """Every column of every table turned into something else, in a few rows."""
    for table in tables(db):
        for column in columns(db, table):
            named = sql.Identifier(column["column_name"])
            for change in ALTERED.get(column["data_type"], ()):
                value = sql.SQL(change).format(column=named)
                for place in places(db, table)[:3]:
                    yield sql.SQL("UPDATE {} SET {} = {} WHERE ctid = {}::tid").format(
                        sql.Identifier(table), named, value, sql.Literal(place)
                    )


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "altered": lambda data: data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stored_file_that_is_lost_or_damaged_is_not_needed_or_told(
    finished: Finished, tmp_path: Path, damage: str
) -> None:
    stored = sorted(p for p in (finished.pipeline.folder / "store").rglob("*") if p.is_file())
    told_of = 0
    with finished.pipeline.postgres.connect() as db:
        for path in stored:
            whole = path.read_bytes()
            left = DAMAGES[damage](whole)
            path.unlink() if left is None else path.write_bytes(left)
            try:
                found = tell(finished.pipeline, db, [finished.document_id], tmp_path)
            finally:
                path.write_bytes(whole)
            assert len(found.pairs) == len(finished.told.pairs), path
            if found.status != "ok":
                told_of += 1
                assert "its stored picture is" in found.banner
            else:
                assert found.table == finished.told.table
    assert told_of == 4  # two pairs, four panels


def test_what_was_deleted_is_made_again_by_the_next_run(finished: Finished, tmp_path: Path) -> None:
    kept = {"documents", "batches", "page_batch_ranges"}  # what arrived, not what is made
    with finished.pipeline.postgres.connect() as db:
        for table in [name for name in tables(db) if name not in kept]:
            db.execute(
                sql.SQL("DELETE FROM {} WHERE ctid = (SELECT min(ctid) FROM {})").format(
                    sql.Identifier(table), sql.Identifier(table)
                )
            )
        assert tell(finished.pipeline, db, [finished.document_id], tmp_path).status == "degraded"
        finished.pipeline.run()
        again = tell(finished.pipeline, db, [finished.document_id], tmp_path)
    assert again == finished.told


def test_what_was_made_under_other_settings_is_not_shown_as_current(
    finished: Finished, tmp_path: Path
) -> None:
    fast = CopySearch(preset="fast", threads=1)
    with finished.pipeline.postgres.connect() as db:
        found = tell(finished.pipeline, db, [finished.document_id], tmp_path, copy_search=fast)
        assert found.status == "degraded"
        assert "2 pages have not been looked at yet" in found.banner
        specs = specs_in_force(db, fast, finished.pipeline.encoder)
        stale = store.batches.unfinished(db, "page", specs)
        assert stale == store.page_batches.keys(db)  # counted by `quire status`, mended at night


def test_a_disk_that_fills_up_leaves_the_report_that_was_there(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with finished.pipeline.postgres.connect() as db:
        tell(finished.pipeline, db, [finished.document_id], tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(core.report_files, "write_html", full)
        with pytest.raises(OSError, match="No space left"):
            tell(finished.pipeline, db, [finished.document_id], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert set(before) == set(core.report_files.FILES)
