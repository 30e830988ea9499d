"""Encoders: what is remembered about each of them beside its vectors."""

from psycopg import Connection


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
    stored = background(db, encoder_id)
    assert stored is not None
    return stored
