"""Gallery quality: what one day's identifications and corrections say of the gallery."""

from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb


@dataclass(frozen=True)
class DayCounts:
    """What happened on one day, in UTC.

    Attributes:
        identified: Detections that were identified.
        accepted: Of these, accepted without a look.
        reviewed: Left for a person.
        unknown: Taken for no known item.
        degraded: Made with a loss.
        named: Detections that people named on this day.
        named_otherwise: Of these, named otherwise than they were identified.
        accepted_named: Accepted ones that people named.
        accepted_wrong: Of these, named otherwise.
        pairs: Score of an identification, and 1 where people name its first candidate, else 0.
    """

    identified: int
    accepted: int
    reviewed: int
    unknown: int
    degraded: int
    named: int
    named_otherwise: int
    accepted_named: int
    accepted_wrong: int
    pairs: list[list[float]]


def of_day(db: Connection, day: str) -> DayCounts:
    """What happened on a day, such as ``2026-01-31``."""
    with db.cursor(row_factory=class_row(DayCounts)) as cursor:
        row = cursor.execute(
            """
            WITH made AS (
                SELECT decision, degraded FROM identifications
                WHERE (made_at AT TIME ZONE 'UTC')::date = %(day)s::date
            ), said AS (
                SELECT DISTINCT ON (detection_id)
                       verdict, item_id, predicted_item, predicted_decision, predicted_score,
                       CASE WHEN verdict = 'unknown' OR predicted_decision = 'unknown'
                            THEN verdict = predicted_decision
                            ELSE item_id IS NOT DISTINCT FROM predicted_item END AS agrees
                FROM corrections AS c
                WHERE verdict <> 'revoke' AND predicted_decision IS NOT NULL
                  AND (made_at AT TIME ZONE 'UTC')::date = %(day)s::date
                  AND NOT EXISTS (SELECT FROM corrections AS r WHERE r.revokes = c.correction_id)
                ORDER BY detection_id, curator DESC, correction_id DESC
            )
            SELECT (SELECT count(*)::int FROM made) AS identified,
                   (SELECT count(*)::int FROM made WHERE decision = 'accept') AS accepted,
                   (SELECT count(*)::int FROM made WHERE decision = 'review') AS reviewed,
                   (SELECT count(*)::int FROM made WHERE decision = 'unknown') AS unknown,
                   (SELECT count(*)::int FROM made WHERE degraded <> '') AS degraded,
                   (SELECT count(*)::int FROM said) AS named,
                   (SELECT count(*)::int FROM said WHERE NOT agrees) AS named_otherwise,
                   (SELECT count(*)::int FROM said WHERE predicted_decision = 'accept')
                       AS accepted_named,
                   (SELECT count(*)::int FROM said WHERE predicted_decision = 'accept'
                      AND NOT agrees) AS accepted_wrong,
                   (SELECT coalesce(jsonb_agg(jsonb_build_array(
                        predicted_score, CASE WHEN item_id = predicted_item THEN 1 ELSE 0 END)),
                        '[]') FROM said WHERE predicted_score IS NOT NULL) AS pairs
            """,
            {"day": day},
        ).fetchone()
    assert row is not None
    return row


def keep(db: Connection, day: str, measures: dict[str, Any]) -> None:
    """Store what was measured of a day, in place of what was there."""
    db.execute(
        """
        INSERT INTO gallery_quality (day, measures) VALUES (%(day)s::date, %(measures)s)
        ON CONFLICT (day) DO UPDATE SET measures = excluded.measures, made_at = now()
        """,
        {"day": day, "measures": Jsonb(measures)},
    )


def latest(db: Connection, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """The days that were measured last, latest first."""
    return db.execute(
        """
        SELECT day::text, measures FROM gallery_quality ORDER BY day DESC LIMIT %(limit)s
        """,
        {"limit": limit},
    ).fetchall()
