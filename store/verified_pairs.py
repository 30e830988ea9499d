"""Verified pairs: candidates that geometry confirmed, and what it measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb


@dataclass(frozen=True)
class VerifiedPair:
    """One confirmed pair; ``match`` holds transform, regions and evidence in panel pixels."""

    pair_id: str
    panel_a: str
    panel_b: str
    spec: str
    batch_key: str
    relation: str
    probability: float
    tier: str
    match: dict[str, Any]


def replace(
    db: Connection, spec: str, panel_a: str, panel_b: str, pairs: Sequence[VerifiedPair]
) -> None:
    """Store what verifying one candidate found, in place of what was there under this spec."""
    db.execute(
        """
        DELETE FROM verified_pairs
        WHERE panel_a = %(panel_a)s AND panel_b = %(panel_b)s AND spec = %(spec)s
        """,
        {"panel_a": panel_a, "panel_b": panel_b, "spec": spec},
    )
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO verified_pairs
                (pair_id, panel_a, panel_b, spec, batch_key, relation, probability, tier, match)
            VALUES
                (%(pair_id)s, %(panel_a)s, %(panel_b)s, %(spec)s, %(batch_key)s, %(relation)s,
                 %(probability)s, %(tier)s, %(match)s)
            """,
            [{**vars(pair), "match": Jsonb(pair.match)} for pair in pairs],
        )


def forget_other_specs(db: Connection, batch_keys: Sequence[str], spec: str) -> int:
    """Drop the pairs of these partitions that were verified under another spec."""
    return db.execute(
        "DELETE FROM verified_pairs WHERE batch_key = ANY(%(keys)s) AND spec <> %(spec)s",
        {"keys": list(batch_keys), "spec": spec},
    ).rowcount


def of_documents(
    db: Connection, document_ids: Sequence[str], spec: str, least: float
) -> list[VerifiedPair]:
    """Pairs with a side in any of these documents, the most probable first.

    Args:
        db: An open connection.
        document_ids: The documents.
        spec: What the pairs were verified under.
        least: Probability from which a pair is shown. One that is stored in a tier that is shown
            comes whatever its probability says: that the two disagree has to be told.
    """
    with db.cursor(row_factory=class_row(VerifiedPair)) as cursor:
        return cursor.execute(
            """
            SELECT DISTINCT v.pair_id, v.panel_a, v.panel_b, v.spec, v.batch_key, v.relation,
                   v.probability, v.tier, v.match
            FROM verified_pairs AS v
            JOIN panels AS p ON p.panel_id IN (v.panel_a, v.panel_b)
            WHERE p.document_id = ANY(%(ids)s) AND v.spec = %(spec)s
              AND (v.tier <> 'C' OR v.probability >= %(least)s)
            ORDER BY v.probability DESC, v.pair_id
            """,
            {"ids": list(document_ids), "spec": spec, "least": least},
        ).fetchall()
