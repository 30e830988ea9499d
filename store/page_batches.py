"""Page batches: the partitions, and which pages of which documents each one holds."""

from collections.abc import Sequence

from psycopg import Connection

import store.batches
from core.batches import PageRange


def add(db: Connection, batches: Sequence[tuple[str, Sequence[PageRange]]]) -> None:
    """Register batches in order; a batch that exists stays as it is."""
    for key, ranges in batches:
        store.batches.add(db, "page", [key])
        for part in ranges:
            db.execute(
                """
                INSERT INTO page_batch_ranges (batch_key, document_id, first_page, last_page)
                VALUES (%(key)s, %(document_id)s, %(first_page)s, %(last_page)s)
                ON CONFLICT DO NOTHING
                """,
                {"key": key, **vars(part)},
            )


def keys(db: Connection, document_ids: Sequence[str] | None = None) -> list[str]:
    """Batch keys in order of registration, of all documents or of the given ones."""
    rows = db.execute(
        """
        SELECT batch_key FROM batches
        WHERE kind = 'page' AND (%(ids)s::text[] IS NULL OR batch_key IN (
            SELECT batch_key FROM page_batch_ranges WHERE document_id = ANY(%(ids)s)))
        ORDER BY ordinal
        """,
        {"ids": None if document_ids is None else list(document_ids)},
    ).fetchall()
    return [key for (key,) in rows]


def documents(db: Connection, batch_keys: Sequence[str]) -> list[str]:
    """Ids of the documents that these batches hold pages of."""
    rows = db.execute(
        """
        SELECT DISTINCT document_id FROM page_batch_ranges WHERE batch_key = ANY(%(keys)s)
        ORDER BY document_id
        """,
        {"keys": list(batch_keys)},
    ).fetchall()
    return [document_id for (document_id,) in rows]
