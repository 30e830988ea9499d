"""Chunk embeddings: one table per text encoder, which one serves, and how to change it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

import store.batches
import store.work


def table_of(db: Connection, encoder_id: str, dim: int, chunk_set: str) -> str:
    """The table that holds an encoder's vectors; made and registered when it is first asked for.

    Args:
        db: A connection.
        encoder_id: The encoder.
        dim: Length of its vectors.
        chunk_set: The chunks that it reads.

    Raises:
        ValueError: The encoder is registered with another dimension or other chunks.
    """
    name = "chunk_embeddings_" + hashlib.sha256(encoder_id.encode()).hexdigest()[:12]
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext('text_encoders'))")
        row = db.execute(
            "SELECT dim, chunk_set FROM text_encoders WHERE encoder_id = %(id)s",
            {"id": encoder_id},
        ).fetchone()
        if row is None:
            db.execute(
                SQL(
                    """
                    CREATE TABLE IF NOT EXISTS {table} (
                        chunk_id text PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
                        embedding halfvec({dim}) NOT NULL
                            CHECK (abs(l2_norm(embedding) - 1) < 0.01)
                    )
                    """
                ).format(table=Identifier(name), dim=Literal(dim))
            )
            db.execute(
                SQL(
                    """
                    CREATE OR REPLACE TRIGGER gone AFTER DELETE ON {table}
                        REFERENCING OLD TABLE AS gone
                        FOR EACH STATEMENT EXECUTE FUNCTION forget_chunk_embedding_work()
                    """
                ).format(table=Identifier(name))
            )
            db.execute(
                """
                INSERT INTO text_encoders (encoder_id, table_name, dim, chunk_set)
                VALUES (%(id)s, %(name)s, %(dim)s, %(chunk_set)s)
                """,
                {"id": encoder_id, "name": name, "dim": dim, "chunk_set": chunk_set},
            )
        elif row != (dim, chunk_set):
            raise ValueError(
                f"{encoder_id} was stored with {row[0]} dimensions of chunks {row[1]}, not {dim} "
                f"of {chunk_set}"
            )
    return name


def replace(
    db: Connection, table: str, chunk_ids: Sequence[str], vectors: NDArray[np.float32]
) -> None:
    """Store the vectors of some chunks, shape (chunks, dim), in place of what was there."""
    db.execute(
        SQL("DELETE FROM {table} WHERE chunk_id = ANY(%(ids)s)").format(table=Identifier(table)),
        {"ids": list(chunk_ids)},
    )
    statement = SQL("COPY {table} (chunk_id, embedding) FROM STDIN (FORMAT BINARY)")
    with db.cursor() as cursor, cursor.copy(statement.format(table=Identifier(table))) as copy:
        copy.set_types(["text", "halfvec"])
        for chunk_id, vector in zip(chunk_ids, vectors, strict=True):
            copy.write_row((chunk_id, HalfVector(vector)))


def of_chunks(db: Connection, table: str, chunk_ids: Sequence[str]) -> dict[str, HalfVector]:
    """The vectors of some chunks, by chunk; those that have none are left out."""
    rows = db.execute(
        SQL("SELECT chunk_id, embedding FROM {table} WHERE chunk_id = ANY(%(ids)s)").format(
            table=Identifier(table)
        ),
        {"ids": list(chunk_ids)},
    ).fetchall()
    return dict(rows)


@dataclass(frozen=True)
class SeenByTwo:
    """A passage as two encoders see it.

    Attributes:
        chunk_id: The passage, of the first encoder's chunks.
        unit: Its page.
        first: Its vector.
        second: That of the second encoder's passage which has the most of it.
    """

    chunk_id: str
    unit: str
    first: NDArray[np.float32]
    second: NDArray[np.float32]


def seen_by_two(db: Connection, table: str, other_table: str, count: int) -> list[SeenByTwo]:
    """Some passages with the vectors of two tables, the same ones until others are stored.

    Where both encoders read the same chunks it is the same passage; else they divide the page
    otherwise. Passages of pages of which the other table has nothing are left out.
    """
    rows = db.execute(
        SQL(
            """
            WITH sampled AS MATERIALIZED (
                SELECT chunk_id, document_id, page, start_char, end_char, embedding
                FROM {table} JOIN chunks USING (chunk_id)
                ORDER BY md5(chunk_id), chunk_id LIMIT %(count)s
            )
            SELECT s.chunk_id, page_unit(s.document_id, s.page), s.embedding, most.embedding
            FROM sampled AS s CROSS JOIN LATERAL (
                SELECT e.embedding FROM chunks AS c JOIN {other_table} AS e USING (chunk_id)
                WHERE c.document_id = s.document_id AND c.page = s.page
                ORDER BY least(c.end_char, s.end_char) - greatest(c.start_char, s.start_char) DESC,
                         c.ordinal
                LIMIT 1) AS most
            """
        ).format(table=Identifier(table), other_table=Identifier(other_table)),
        {"count": count},
    ).fetchall()
    return [
        SeenByTwo(chunk_id, unit, *(vector.to_numpy().astype(np.float32) for vector in vectors))
        for chunk_id, unit, *vectors in rows
    ]


def tables(db: Connection) -> dict[str, str]:
    """The table with the vectors of each encoder, by the encoder's id, the oldest first."""
    rows = db.execute(
        "SELECT encoder_id, table_name FROM text_encoders ORDER BY created_at, encoder_id"
    ).fetchall()
    return dict(rows)


def vectors(db: Connection, table: str) -> int:
    """How many chunks have a vector in a table."""
    row = db.execute(SQL("SELECT count(*) FROM {table}").format(table=Identifier(table))).fetchone()
    assert row is not None
    return row[0]


def missing(db: Connection, encoder_id: str) -> int:
    """How many pages have chunks of an encoder's set that it has not embedded.

    Pages without chunks of that set, although others have some of them, count as well.
    """
    row = db.execute(
        "SELECT table_name, chunk_set FROM text_encoders WHERE encoder_id = %(id)s",
        {"id": encoder_id},
    ).fetchone()
    if row is None:
        row = db.execute("SELECT count(DISTINCT (document_id, page))::int FROM chunks").fetchone()
        assert row is not None
        return row[0]
    found = db.execute(
        SQL(
            """
            SELECT count(*)::int FROM (
                SELECT document_id, page FROM chunks AS c
                GROUP BY document_id, page
                HAVING count(*) FILTER (WHERE chunk_set = %(chunk_set)s) = 0
                    OR count(*) FILTER (WHERE chunk_set = %(chunk_set)s AND NOT EXISTS (
                        SELECT FROM {table} AS e WHERE e.chunk_id = c.chunk_id)) > 0)
            """
        ).format(table=Identifier(row[0])),
        {"chunk_set": row[1]},
    ).fetchone()
    assert found is not None
    return found[0]


def witness(db: Connection, encoder_id: str) -> list[float] | None:
    """What an encoder first made of the witness; None where nothing is remembered."""
    row = db.execute(
        "SELECT witness FROM text_encoders WHERE encoder_id = %(id)s", {"id": encoder_id}
    ).fetchone()
    return None if row is None else row[0]


def set_witness(db: Connection, encoder_id: str, seen: Sequence[float]) -> list[float]:
    """Remember what an encoder makes of the witness; the first stays, and is returned."""
    db.execute(
        """
        UPDATE text_encoders SET witness = %(seen)s
        WHERE encoder_id = %(id)s AND witness IS NULL
        """,
        {"id": encoder_id, "seen": list(seen)},
    )
    kept = witness(db, encoder_id)
    assert kept is not None
    return kept


def switched_to(db: Connection) -> str | None:
    """The encoder that was last switched to; None where nobody ever switched."""
    row = db.execute(
        "SELECT encoder_id FROM text_encoder_switches ORDER BY switch_id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else row[0]


def switch_to(db: Connection, encoder_id: str, spec: str) -> None:
    """Let another encoder serve from the end of this transaction on, and the other one wait.

    Which ledger rows are of which asset changes with it, so that nothing is embedded again.

    Args:
        db: A connection.
        encoder_id: The encoder that is to serve; it has a table of vectors.
        spec: Spec id of its embeddings.
    """
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext('text_encoders'))")
        db.execute(
            "INSERT INTO text_encoder_switches (encoder_id) VALUES (%(id)s)", {"id": encoder_id}
        )
        store.work.exchange(db, "chunk_embeddings", "next_chunk_embeddings", spec)
        store.batches.exchange(db, "chunk_embeddings", "next_chunk_embeddings")
