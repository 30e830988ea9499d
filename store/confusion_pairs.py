"""Confusion pairs: items that are taken for one another.

Stored is what looks like each item; pairs, and how often people corrected one into the other, are
read from that and from the events, and never counted up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class PendingConfusion:
    """An item whose look-alikes are still to be sought."""

    unit: str
    batch_key: str
    template_ids: list[str]


@dataclass(frozen=True)
class ConfusionPair:
    """Two items, how alike their nearest templates are, and how often people set one right."""

    item_a: str
    item_b: str
    similarity: float
    corrections: int


def pending(db: Connection, job: Job, limit: int) -> list[PendingConfusion]:
    """Items of the job's batches, those with templates, that it has still to do, in order."""
    with db.cursor(row_factory=class_row(PendingConfusion)) as cursor:
        return cursor.execute(
            """
            SELECT item_id AS unit, batch_key, array_agg(template_id ORDER BY template_id)
                       AS template_ids
            FROM gallery_items JOIN gallery_images USING (item_id)
            JOIN gallery_templates USING (template_id)
            WHERE batch_key = ANY(%(keys)s)
              AND NOT is_done(%(asset)s, item_id, %(spec)s, %(budget_mb)s)
            GROUP BY item_id, batch_key ORDER BY item_id LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def replace(
    db: Connection, item_id: str, encoder_id: str, others: Sequence[tuple[str, float]]
) -> None:
    """Store the look-alikes of an item in place of those it had.

    Args:
        db: A connection.
        item_id: The item.
        encoder_id: By whose vectors they look alike.
        others: Other items, and how alike they are; those that are gone since are left out.
    """
    db.execute("DELETE FROM look_alikes WHERE item_id = %(id)s", {"id": item_id})
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO look_alikes (item_id, other_id, encoder_id, similarity)
            SELECT %(id)s, %(other)s, %(encoder)s, %(similarity)s
            WHERE EXISTS (SELECT FROM gallery_items WHERE item_id = %(other)s)
            """,
            [
                {"id": item_id, "encoder": encoder_id, "other": other, "similarity": similarity}
                for other, similarity in others
            ],
        )


def worst(db: Connection, batch_keys: Sequence[str] | None, limit: int) -> list[ConfusionPair]:
    """Pairs that people corrected most, then those that look most alike.

    Counted anew from the events, those that were revoked left out. People may set one item right
    into another that does not look like it to the encoder: its similarity is 0.

    Args:
        db: A connection.
        batch_keys: Only pairs with an item of these batches; None: all.
        limit: At most so many.
    """
    with db.cursor(row_factory=class_row(ConfusionPair)) as cursor:
        return cursor.execute(
            """
            WITH alike AS (
                SELECT least(item_id, other_id) AS item_a, greatest(item_id, other_id) AS item_b,
                       max(similarity) AS similarity
                FROM look_alikes GROUP BY 1, 2
            ), corrected AS (
                SELECT least(predicted_item, item_id) AS item_a,
                       greatest(predicted_item, item_id) AS item_b,
                       count(DISTINCT (detection_id, user_name))::int AS corrections
                FROM corrections AS c
                WHERE verdict = 'is' AND predicted_item <> item_id
                  AND NOT EXISTS (SELECT FROM corrections AS r WHERE r.revokes = c.correction_id)
                GROUP BY 1, 2
            )
            SELECT item_a, item_b, coalesce(similarity, 0)::real AS similarity,
                   coalesce(corrections, 0) AS corrections
            FROM alike FULL JOIN corrected USING (item_a, item_b)
            WHERE %(keys)s::text[] IS NULL OR EXISTS (
                SELECT FROM gallery_items AS i
                WHERE i.item_id IN (item_a, item_b) AND i.batch_key = ANY(%(keys)s))
            ORDER BY corrections DESC, similarity DESC, item_a, item_b LIMIT %(limit)s
            """,
            {"keys": None if batch_keys is None else list(batch_keys), "limit": limit},
        ).fetchall()
