"""Encoders: which one serves, and what is remembered about each of them beside its vectors."""

from collections.abc import Sequence

from psycopg import Connection
from psycopg.sql import SQL, Identifier

import store.batches
import store.work


def tables(db: Connection) -> dict[str, str]:
    """The table with the vectors of each encoder, by the encoder's id, the oldest first."""
    rows = db.execute(
        "SELECT encoder_id, table_name FROM encoders ORDER BY created_at, encoder_id"
    ).fetchall()
    return dict(rows)


def switched_to(db: Connection) -> str | None:
    """The encoder that was last switched to; None where nobody ever switched."""
    row = db.execute(
        "SELECT encoder_id FROM encoder_switches ORDER BY switch_id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else row[0]


def switch_to(db: Connection, encoder_id: str, spec: str) -> None:
    """Let the encoder that waits serve from the end of this transaction on, and the other wait.

    Which ledger rows are of which asset changes with it, so that nothing is embedded again.

    Args:
        db: A connection.
        encoder_id: The encoder that is to serve; it has a table of vectors.
        spec: Spec id of its embeddings.
    """
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext('encoders'))")
        db.execute("INSERT INTO encoder_switches (encoder_id) VALUES (%(id)s)", {"id": encoder_id})
        store.work.exchange(db, "tile_embeddings", "next_tile_embeddings", spec)
        store.batches.exchange(db, "tile_embeddings", "next_tile_embeddings")


def vectors(db: Connection, table: str) -> int:
    """How many tiles have a vector in a table."""
    row = db.execute(SQL("SELECT count(*) FROM {table}").format(table=Identifier(table))).fetchone()
    assert row is not None
    return row[0]


def confirmed_pairs(db: Connection, tiers: Sequence[str], limit: int) -> list[tuple[str, str]]:
    """Pairs of different panels that verification confirmed, the likeliest first."""
    return db.execute(
        """
        SELECT panel_a, panel_b FROM verified_pairs
        WHERE panel_a <> panel_b AND tier = ANY(%(tiers)s)
        GROUP BY panel_a, panel_b
        ORDER BY max(probability) DESC, panel_a, panel_b LIMIT %(limit)s
        """,
        {"tiers": list(tiers), "limit": limit},
    ).fetchall()


def embedded_panels(db: Connection, table: str) -> list[str]:
    """Panels with vectors in a table."""
    statement = SQL("SELECT DISTINCT panel_id FROM {table}").format(table=Identifier(table))
    return [panel_id for (panel_id,) in db.execute(statement)]


def background(db: Connection, encoder_id: str) -> bytes | None:
    """The packed background of an encoder, if it has been fitted."""
    row = db.execute(
        "SELECT background FROM encoders WHERE encoder_id = %(id)s", {"id": encoder_id}
    ).fetchone()
    return None if row is None else row[0]


def set_background(db: Connection, encoder_id: str, packed: bytes) -> bytes:
    """Remember the background; the first one stays, and is returned.

    Scores are relative to it, so it must not move while pairs are compared with each other.
    """
    db.execute(
        """
        UPDATE encoders SET background = %(packed)s
        WHERE encoder_id = %(id)s AND background IS NULL
        """,
        {"id": encoder_id, "packed": packed},
    )
    kept = background(db, encoder_id)
    assert kept is not None
    return kept
