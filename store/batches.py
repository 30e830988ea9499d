"""Batches: the partitions of every kind, in order of registration, and which assets are done."""

from collections.abc import Mapping, Sequence
from typing import Literal

from psycopg import Connection

from core.work import Job

Kind = Literal["page", "gallery", "scan", "day"]
"""What a partition holds: pages of documents, items of the gallery, photographs, one day."""


def add(db: Connection, kind: Kind, keys: Sequence[str]) -> None:
    """Register batches in order; one that exists stays as it is."""
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO batches (batch_key, kind) VALUES (%(key)s, %(kind)s)
            ON CONFLICT DO NOTHING
            """,
            [{"key": key, "kind": kind} for key in keys],
        )


def keys(db: Connection, kind: Kind) -> list[str]:
    """All batch keys of one kind, in order of registration."""
    rows = db.execute(
        "SELECT batch_key FROM batches WHERE kind = %(kind)s ORDER BY ordinal", {"kind": kind}
    ).fetchall()
    return [key for (key,) in rows]


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


def unfinished(db: Connection, kind: Kind, specs: Mapping[str, str]) -> list[str]:
    """Batches, in order, that lack an asset or have it under another spec than the one in force.

    Args:
        db: An open connection.
        kind: Of which batches.
        specs: The spec in force of each asset that should be there.
    """
    rows = db.execute(
        """
        SELECT batch_key FROM batches AS b
        WHERE kind = %(kind)s AND EXISTS (
            SELECT FROM unnest(%(assets)s::text[], %(specs)s::text[]) AS wanted (asset, spec)
            WHERE NOT EXISTS (
                SELECT FROM finished AS f
                WHERE f.batch_key = b.batch_key AND f.asset = wanted.asset
                  AND f.spec = wanted.spec))
        ORDER BY ordinal
        """,
        {"kind": kind, "assets": list(specs), "specs": list(specs.values())},
    ).fetchall()
    return [key for (key,) in rows]
