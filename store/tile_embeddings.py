"""Tile embeddings: one table per encoder, so that two spaces can never meet in one search."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier, Literal


@dataclass(frozen=True)
class Rows:
    """Some vectors: whose they are, which tile, and shape (rows, dim) in half precision."""

    panel_ids: NDArray[np.str_]
    ordinals: NDArray[np.int64]
    vectors: NDArray[np.float16]


def table_of(db: Connection, encoder_id: str, dim: int) -> str:
    """The table that holds an encoder's vectors; made and registered when it is first asked for.

    Raises:
        ValueError: The encoder is registered with another dimension.
    """
    name = "tile_embeddings_" + hashlib.sha256(encoder_id.encode()).hexdigest()[:12]
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext('encoders'))")
        row = db.execute(
            "SELECT dim FROM encoders WHERE encoder_id = %(id)s", {"id": encoder_id}
        ).fetchone()
        if row is None:
            db.execute(
                SQL(
                    """
                    CREATE TABLE IF NOT EXISTS {table} (
                        panel_id text NOT NULL REFERENCES panels ON DELETE CASCADE,
                        ordinal integer NOT NULL,
                        embedding halfvec({dim}) NOT NULL
                            CHECK (abs(l2_norm(embedding) - 1) < 0.01),
                        PRIMARY KEY (panel_id, ordinal)
                    )
                    """
                ).format(table=Identifier(name), dim=Literal(dim))
            )
            db.execute(
                """
                INSERT INTO encoders (encoder_id, table_name, dim)
                VALUES (%(id)s, %(name)s, %(dim)s)
                """,
                {"id": encoder_id, "name": name, "dim": dim},
            )
        elif row[0] != dim:
            raise ValueError(f"{encoder_id} was stored with {row[0]} dimensions, not {dim}")
    return name


def replace(
    db: Connection,
    table: str,
    panel_id: str,
    ordinals: Sequence[int],
    vectors: NDArray[np.float32],
) -> None:
    """Store the vectors of one panel, shape (tiles, dim), in place of what was there."""
    db.execute(
        SQL("DELETE FROM {table} WHERE panel_id = %(panel_id)s").format(table=Identifier(table)),
        {"panel_id": panel_id},
    )
    statement = SQL("COPY {table} (panel_id, ordinal, embedding) FROM STDIN (FORMAT BINARY)")
    with db.cursor() as cursor, cursor.copy(statement.format(table=Identifier(table))) as copy:
        copy.set_types(["text", "int4", "halfvec"])
        for ordinal, vector in zip(ordinals, vectors, strict=True):
            copy.write_row((panel_id, ordinal, HalfVector(vector)))


def of_panels(db: Connection, table: str, panel_ids: Sequence[str]) -> Rows:
    """Vectors of some panels, ordered by panel and tile."""
    rows = db.execute(
        SQL(
            """
            SELECT panel_id, ordinal, embedding FROM {table}
            WHERE panel_id = ANY(%(ids)s) ORDER BY panel_id, ordinal
            """
        ).format(table=Identifier(table)),
        {"ids": list(panel_ids)},
    ).fetchall()
    return _unpack(rows)


@dataclass(frozen=True)
class Embedded:
    """How much of some documents an encoder has seen.

    Attributes:
        vectors: Tiles that have a vector.
        panels_missed: Panels, drawings apart, whose tiles or vectors are not all there.
    """

    vectors: int
    panels_missed: int


def coverage(
    db: Connection, table: str, document_ids: Sequence[str], tiles_spec: str, embeddings_spec: str
) -> Embedded:
    """How much of some documents has been embedded under the specs in force."""
    with db.cursor(row_factory=class_row(Embedded)) as cursor:
        row = cursor.execute(
            SQL(
                """
                SELECT (SELECT count(*)::int FROM {table} JOIN panels USING (panel_id)
                        WHERE document_id = ANY(%(ids)s)) AS vectors,
                       count(*)::int AS panels_missed
                FROM panels AS p
                WHERE document_id = ANY(%(ids)s) AND NOT drawing
                  AND NOT (
                    EXISTS (
                        SELECT FROM work AS w
                        WHERE w.asset = 'tiles' AND w.unit = p.panel_id
                          AND w.spec = %(tiles_spec)s AND w.status <> 'failed'
                          AND w.made = (SELECT count(*) FROM tiles AS t
                                        WHERE t.panel_id = p.panel_id AND t.spec = w.spec))
                    AND EXISTS (
                        SELECT FROM work AS w
                        WHERE w.asset = 'tile_embeddings' AND w.unit = p.panel_id
                          AND w.spec = %(embeddings_spec)s AND w.status <> 'failed'
                          AND w.made = (SELECT count(*) FROM {table} AS e
                                        WHERE e.panel_id = p.panel_id)))
                """
            ).format(table=Identifier(table)),
            {
                "ids": list(document_ids),
                "tiles_spec": tiles_spec,
                "embeddings_spec": embeddings_spec,
            },
        ).fetchone()
    assert row is not None
    return row


def missing(db: Connection, asset: str, spec: str) -> int:
    """How many panels, drawings apart, an asset of embeddings has not done under a spec."""
    row = db.execute(
        """
        SELECT count(*)::int FROM panels AS p
        WHERE NOT drawing AND NOT EXISTS (
            SELECT FROM work AS w
            WHERE w.asset = %(asset)s AND w.unit = p.panel_id
              AND w.spec = %(spec)s AND w.status <> 'failed')
        """,
        {"asset": asset, "spec": spec},
    ).fetchone()
    assert row is not None
    return row[0]


def stored_blocks(db: Connection, table: str, panels_per_block: int) -> Iterator[Rows]:
    """All stored vectors, some panels at a time, ordered by panel id."""
    after = ""
    while True:
        rows = db.execute(
            SQL(
                """
                SELECT panel_id, ordinal, embedding FROM {table}
                WHERE panel_id IN (
                    SELECT DISTINCT panel_id FROM {table}
                    WHERE panel_id > %(after)s ORDER BY panel_id LIMIT %(limit)s)
                ORDER BY panel_id, ordinal
                """
            ).format(table=Identifier(table)),
            {"after": after, "limit": panels_per_block},
        ).fetchall()
        if not rows:
            return
        yield _unpack(rows)
        after = rows[-1][0]


def _unpack(found: Sequence[tuple[str, int, HalfVector]]) -> Rows:
    owners = np.asarray([panel_id for panel_id, _, _ in found], dtype=np.str_)
    ordinals = np.asarray([ordinal for _, ordinal, _ in found], dtype=np.int64)
    vectors = [embedding.to_numpy() for _, _, embedding in found]
    return Rows(owners, ordinals, np.asarray(vectors, dtype=np.float16).reshape(len(found), -1))
