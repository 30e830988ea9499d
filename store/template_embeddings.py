"""Template embeddings: one table per encoder, searched exactly or by its HNSW index.

The index is there from the first row on and grows with each, about 2 ms a template. Exact search
does not use it; it is what a search falls back to that took too long, and what answers once the
gallery is too large to be compared whole.
"""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import Connection
from psycopg.errors import QueryCanceled
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier, Literal


class QueryTooSlowError(Exception):
    """A search was cancelled because it took too long (SQLSTATE 57014)."""


@contextmanager
def in_time(db: Connection, seconds: float) -> Generator[None]:
    """Give up a statement of this block that takes longer.

    The timeout that was there before is in force again afterwards; where a transaction around the
    block failed, once that is rolled back.

    Raises:
        QueryTooSlowError: One did.
    """
    (before,) = db.execute("SHOW statement_timeout").fetchone() or ("0",)
    _limit(db, str(max(1, round(seconds * 1000))))
    try:
        yield
    except QueryCanceled as slow:
        raise QueryTooSlowError(f"a search took longer than {seconds:g} s") from slow
    finally:
        if db.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS):
            _limit(db, before)


def _limit(db: Connection, timeout: str) -> None:
    db.execute("SELECT set_config('statement_timeout', %(timeout)s, false)", {"timeout": timeout})


@dataclass(frozen=True)
class Near:
    """A template close to a query: whose it is, and the cosine of the two."""

    template_id: str
    item_id: str
    similarity: float


@dataclass(frozen=True)
class Among:
    """Which items are sought; empty: all of them.

    Attributes:
        sets: Sets to which they belong.
        languages: Languages in which they are printed.
    """

    sets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


EVERYTHING = Among()


def table_of(db: Connection, encoder_id: str, dim: int) -> str:
    """The table that holds an encoder's vectors; made and registered when it is first asked for.

    Raises:
        ValueError: The encoder is registered with another dimension.
    """
    name = "template_embeddings_" + hashlib.sha256(encoder_id.encode()).hexdigest()[:12]
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext('template_encoders'))")
        row = db.execute(
            "SELECT dim FROM template_encoders WHERE encoder_id = %(id)s", {"id": encoder_id}
        ).fetchone()
        if row is None:
            table = Identifier(name)
            db.execute(
                SQL(
                    """
                    CREATE TABLE {table} (
                        template_id text PRIMARY KEY
                            REFERENCES gallery_templates ON DELETE CASCADE,
                        item_id text NOT NULL,
                        embedding halfvec({dim}) NOT NULL
                            CHECK (abs(l2_norm(embedding) - 1) < 0.01)
                    )
                    """
                ).format(table=table, dim=Literal(dim))
            )
            db.execute(SQL("CREATE INDEX ON {table} (item_id)").format(table=table))
            db.execute(
                SQL(
                    """
                    CREATE INDEX ON {table} USING hnsw (embedding halfvec_ip_ops)
                    WITH (m = 16, ef_construction = 64)
                    """
                ).format(table=table)
            )
            db.execute(
                """
                INSERT INTO template_encoders (encoder_id, table_name, dim)
                VALUES (%(id)s, %(name)s, %(dim)s)
                """,
                {"id": encoder_id, "name": name, "dim": dim},
            )
        elif row[0] != dim:
            raise ValueError(f"{encoder_id} was stored with {row[0]} dimensions, not {dim}")
    return name


def known_table(db: Connection, encoder_id: str) -> str | None:
    """The table that holds an encoder's vectors; None where it has none."""
    row = db.execute(
        "SELECT table_name FROM template_encoders WHERE encoder_id = %(id)s", {"id": encoder_id}
    ).fetchone()
    return None if row is None else row[0]


def add(
    db: Connection,
    table: str,
    template_ids: Sequence[str],
    item_ids: Sequence[str],
    vectors: NDArray[np.float32],
) -> None:
    """Store vectors, shape (templates, dim), in place of what was there of these templates.

    What their items are confused with is to be sought anew.
    """
    name = Identifier(table)
    db.execute(
        "DELETE FROM work WHERE asset = 'confusion_pairs' AND unit = ANY(%(ids)s)",
        {"ids": list(item_ids)},
    )
    db.execute(
        SQL("DELETE FROM {table} WHERE template_id = ANY(%(ids)s)").format(table=name),
        {"ids": list(template_ids)},
    )
    statement = SQL("COPY {table} (template_id, item_id, embedding) FROM STDIN (FORMAT BINARY)")
    with db.cursor() as cursor, cursor.copy(statement.format(table=name)) as copy:
        copy.set_types(["text", "text", "halfvec"])
        for template_id, item_id, vector in zip(template_ids, item_ids, vectors, strict=True):
            copy.write_row((template_id, item_id, HalfVector(vector)))


def count(db: Connection, table: str) -> int:
    """How many templates have a vector."""
    row = db.execute(SQL("SELECT count(*) FROM {t}").format(t=Identifier(table))).fetchone()
    assert row is not None
    return row[0]


def vectors_of(
    db: Connection, table: str, template_ids: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Vectors of some templates by their ids."""
    rows = db.execute(
        SQL("SELECT template_id, embedding FROM {t} WHERE template_id = ANY(%(ids)s)").format(
            t=Identifier(table)
        ),
        {"ids": list(template_ids)},
    ).fetchall()
    return {template_id: vector.to_numpy().astype(np.float32) for template_id, vector in rows}


def nearest_exact(
    db: Connection, table: str, query: NDArray[np.float32], among: Among, rows: int
) -> list[Near]:
    """The nearest templates, every one of them compared.

    Args:
        db: A connection.
        table: As ``table_of`` gives it.
        query: A unit vector.
        among: Which items are sought.
        rows: How many templates; several may be of one item.
    """
    with db.transaction():
        # The index would be scanned in order of distance, and end before the filter is satisfied.
        db.execute("SET LOCAL enable_indexscan = off")
        return _nearest(db, table, query, among, rows)


def nearest_indexed(
    db: Connection,
    table: str,
    query: NDArray[np.float32],
    among: Among,
    rows: int,
    ef_search: int,
) -> list[Near]:
    """The nearest templates as the index finds them: most of them, in a fraction of the time.

    The scan of the index goes on until the filter leaves as many as are sought. Postgres ends it
    after 20,000 vectors; where a filter lets so few pass, those are compared one by one.
    """
    with db.transaction():
        db.execute("SET LOCAL enable_seqscan = off")
        db.execute(SQL("SET LOCAL hnsw.ef_search = {n}").format(n=Literal(ef_search)))
        db.execute("SET LOCAL hnsw.iterative_scan = relaxed_order")
        found = _nearest(db, table, query, among, rows)
    if len(found) < rows and among != EVERYTHING:
        return nearest_exact(db, table, query, among, rows)
    return sorted(found, key=lambda near: (-near.similarity, near.template_id))


def _nearest(
    db: Connection, table: str, query: NDArray[np.float32], among: Among, rows: int
) -> list[Near]:
    values = {
        "query": HalfVector(query),
        "rows": rows,
        "filtered": among != EVERYTHING,
        "sets": list(among.sets) or None,
        "languages": list(among.languages) or None,
    }
    statement = SQL(
        """
        SELECT template_id, item_id, -(embedding <#> %(query)s)::real AS similarity
        FROM {table} AS e
        WHERE NOT %(filtered)s OR EXISTS (
            SELECT FROM gallery_items AS i
            WHERE i.item_id = e.item_id
              AND (%(sets)s::text[] IS NULL OR i.set_code = ANY(%(sets)s))
              AND (%(languages)s::text[] IS NULL OR i.language = ANY(%(languages)s)))
        ORDER BY embedding <#> %(query)s LIMIT %(rows)s
        """
    )
    with db.cursor(row_factory=class_row(Near)) as cursor:
        return cursor.execute(statement.format(table=Identifier(table)), values).fetchall()
