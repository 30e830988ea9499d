"""Uploads: what clients of the service call their files."""

from psycopg import Connection


def remember(db: Connection, document_id: str, name: str) -> None:
    """Remember what an upload is called; the first name stays, as that of a document does."""
    db.execute(
        """
        INSERT INTO uploads (document_id, name) VALUES (%(document_id)s, %(name)s)
        ON CONFLICT (document_id) DO NOTHING
        """,
        {"document_id": document_id, "name": name},
    )


def name_of(db: Connection, document_id: str) -> str | None:
    """What an upload is called; None where the file was not uploaded, or has no name."""
    row = db.execute(
        "SELECT name FROM uploads WHERE document_id = %(document_id)s",
        {"document_id": document_id},
    ).fetchone()
    return None if row is None else row[0]
