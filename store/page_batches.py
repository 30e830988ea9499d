"""Page batches: the partitions, and which pages of which documents each one holds."""

from collections.abc import Mapping, Sequence

from psycopg import Connection

from core.batches import PageRange
from core.work import Job


def add(db: Connection, batches: Sequence[tuple[str, Sequence[PageRange]]]) -> None:
    """Register batches in order; a batch that exists stays as it is."""
    for key, ranges in batches:
        db.execute(
            "INSERT INTO page_batches (batch_key) VALUES (%(key)s) ON CONFLICT DO NOTHING",
            {"key": key},
        )
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
        SELECT batch_key FROM page_batches
        WHERE %(ids)s::text[] IS NULL OR batch_key IN (
            SELECT batch_key FROM page_batch_ranges WHERE document_id = ANY(%(ids)s))
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


def finish(db: Connection, job: Job) -> None:
    """Record that every unit of the job's partitions is done under its spec."""
    db.execute(
        """
        INSERT INTO finished (asset, batch_key, spec, run_id)
        SELECT %(asset)s, key, %(spec)s, %(run_id)s FROM unnest(%(keys)s::text[]) AS key
        ON CONFLICT (asset, batch_key) DO UPDATE
            SET spec = excluded.spec, run_id = excluded.run_id, done_at = now()
        """,
        {
            "asset": job.asset,
            "spec": job.spec,
            "run_id": job.run_id,
            "keys": list(job.batch_keys),
        },
    )


def exchange(db: Connection, serving: str, waiting: str) -> None:
    """Let two assets change places in batches that have both, as in ``store.work.exchange``."""
    db.execute(
        """
        UPDATE finished AS own
        SET spec = other.spec, run_id = other.run_id, done_at = other.done_at
        FROM finished AS other
        WHERE own.batch_key = other.batch_key
          AND (own.asset, other.asset) IN ((%(serving)s, %(next)s), (%(next)s, %(serving)s))
        """,
        {"serving": serving, "next": waiting},
    )


def unfinished(db: Connection, specs: Mapping[str, str]) -> list[str]:
    """Batches, in order, that lack an asset or have it under another spec than the one in force.

    Args:
        db: An open connection.
        specs: The spec in force of each asset that should be there.
    """
    rows = db.execute(
        """
        SELECT batch_key FROM page_batches AS b
        WHERE EXISTS (
            SELECT FROM unnest(%(assets)s::text[], %(specs)s::text[]) AS wanted (asset, spec)
            WHERE NOT EXISTS (
                SELECT FROM finished AS f
                WHERE f.batch_key = b.batch_key AND f.asset = wanted.asset
                  AND f.spec = wanted.spec))
        ORDER BY ordinal
        """,
        {"assets": list(specs), "specs": list(specs.values())},
    ).fetchall()
    return [key for (key,) in rows]
