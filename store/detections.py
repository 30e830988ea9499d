"""Detections: where items are on a photograph, and which known item each turned out to be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.recall import Hit
from core.work import Job
from store.template_embeddings import Among


@dataclass(frozen=True)
class StoredDetection:
    """Where an item is, as it is stored.

    Attributes:
        quad: Eight numbers, x and y of each corner, clockwise from the top left one, in pixels of
            the upright picture.
        crop_key: The item alone, made rectangular, in the image store.
        crop_sha256: Hash of its pixels.
    """

    detection_id: str
    ordinal: int
    quad: list[float]
    score: float
    how: str
    crop_key: str
    crop_sha256: str


@dataclass(frozen=True)
class PendingDetection:
    """A detection for which something is still to be done."""

    unit: str
    batch_key: str
    crop_key: str
    quad: list[float]
    sets: list[str]
    languages: list[str]

    @property
    def width_px(self) -> float:
        """Length of its shorter sides on the photograph: how much of its print can be read."""
        corners = list(zip(self.quad[::2], self.quad[1::2], strict=True))
        sides = [math.dist(corners[i], corners[(i + 1) % 4]) for i in range(4)]
        return min(sides[0] + sides[2], sides[1] + sides[3]) / 2

    @property
    def among(self) -> Among:
        """Which items are sought."""
        return Among(tuple(self.sets), tuple(self.languages))


@dataclass(frozen=True)
class StoredIdentification:
    """What a detection turned out to be; see the table for what the fields mean."""

    decision: str
    score: float
    item_id: str | None
    turned: bool
    candidates: list[dict[str, Any]]
    reasons: list[str]
    measures: dict[str, float]
    degraded: str = ""


@dataclass(frozen=True)
class Found:
    """One detection with everything that is known of it."""

    detection_id: str
    scan_id: str
    scan: str
    ordinal: int
    quad: list[float]
    scale: float
    score: float
    how: str
    crop_key: str
    crop_sha256: str
    evaluation: bool
    decision: str | None
    probability: float | None
    item_id: str | None
    turned: bool | None
    candidates: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    reasons: list[str] = field(default_factory=list[str])
    degraded: str | None = None
    made_at: datetime | None = None


def replace(db: Connection, scan_id: str, spec: str, detections: Sequence[StoredDetection]) -> None:
    """Store what was found on a photograph in place of what was found before.

    A detection that is the same keeps what was identified; the others are to be.
    """
    kept = [detection.detection_id for detection in detections]
    values: dict[str, Any] = {"scan_id": scan_id, "spec": spec, "kept": kept}
    gone = db.execute(
        """
        DELETE FROM detections WHERE scan_id = %(scan_id)s AND detection_id <> ALL(%(kept)s)
        RETURNING detection_id
        """,
        values,
    ).fetchall()
    db.execute("DELETE FROM work WHERE unit = ANY(%(ids)s)", {"ids": [each for (each,) in gone]})
    db.execute(
        """
        DELETE FROM finished
        WHERE asset IN ('candidates', 'identifications')
          AND batch_key = (SELECT batch_key FROM scans WHERE scan_id = %(scan_id)s)
        """,
        values,
    )
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO detections
                (detection_id, scan_id, spec, ordinal, quad, score, how, crop_key, crop_sha256)
            VALUES (%(detection_id)s, %(scan_id)s, %(spec)s, %(ordinal)s, %(quad)s, %(score)s,
                    %(how)s, %(crop_key)s, %(crop_sha256)s)
            ON CONFLICT (detection_id) DO UPDATE SET
                spec = excluded.spec, ordinal = excluded.ordinal, score = excluded.score,
                how = excluded.how
            """,
            [{**values, **vars(detection)} for detection in detections],
        )


def pending(
    db: Connection, job: Job, limit: int, candidates_spec: str = ""
) -> list[PendingDetection]:
    """Detections of the job's batches that it has still to do, in order.

    Args:
        db: A connection.
        job: What is asked for.
        limit: At most so many.
        candidates_spec: Only those whose candidates were sought under this spec; empty: all.
    """
    with db.cursor(row_factory=class_row(PendingDetection)) as cursor:
        return cursor.execute(
            """
            SELECT detection_id AS unit, batch_key, crop_key, quad, sets, languages
            FROM detections JOIN scans USING (scan_id)
            WHERE batch_key = ANY(%(keys)s)
              AND (%(candidates_spec)s = '' OR EXISTS (
                    SELECT FROM work AS w WHERE w.asset = 'candidates' AND w.unit = detection_id
                      AND w.spec = %(candidates_spec)s AND w.status <> 'failed'))
              AND NOT is_done(%(asset)s, detection_id, %(spec)s, %(budget_mb)s)
            ORDER BY scan_id, ordinal LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "budget_mb": job.budget_mb,
                "candidates_spec": candidates_spec,
                "limit": limit,
            },
        ).fetchall()


def keep_candidates(db: Connection, detection_id: str, candidates: Sequence[Hit]) -> None:
    """Store what was sought for a detection, best first, in place of what was there.

    What was identified among the earlier ones is to be done anew.
    """
    db.execute("DELETE FROM candidates WHERE detection_id = %(id)s", {"id": detection_id})
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO candidates (detection_id, rank, template_id, item_id, similarity, turned)
            VALUES (%(id)s, %(rank)s, %(template_id)s, %(item_id)s, %(similarity)s, %(turned)s)
            """,
            [
                {"id": detection_id, "rank": rank, **vars(candidate)}
                for rank, candidate in enumerate(candidates, start=1)
            ],
        )
    db.execute(
        "DELETE FROM work WHERE asset = 'identifications' AND unit = %(id)s", {"id": detection_id}
    )


def forget_stale(db: Connection, job: Job) -> None:
    """Drop what was sought and identified before, where seeking anew under a job's spec failed."""
    db.execute(
        """
        WITH stale AS (
            SELECT detection_id FROM detections JOIN scans USING (scan_id)
            WHERE batch_key = ANY(%(keys)s) AND NOT EXISTS (
                SELECT FROM work AS w WHERE w.asset = %(asset)s AND w.unit = detection_id
                  AND w.spec = %(spec)s AND w.status <> 'failed')
        ), sought AS (
            DELETE FROM candidates WHERE detection_id IN (SELECT detection_id FROM stale)
        )
        DELETE FROM identifications WHERE detection_id IN (SELECT detection_id FROM stale)
        """,
        {"keys": list(job.batch_keys), "asset": job.asset, "spec": job.spec},
    )


def candidates(db: Connection, detection_id: str) -> list[Hit]:
    """What was sought for a detection, best first."""
    with db.cursor(row_factory=class_row(Hit)) as cursor:
        return cursor.execute(
            """
            SELECT template_id, item_id, similarity, turned FROM candidates
            WHERE detection_id = %(id)s ORDER BY rank
            """,
            {"id": detection_id},
        ).fetchall()


def candidates_degraded(db: Connection, detection_id: str, spec: str) -> str:
    """What was lost when a detection's candidates were sought; empty for nothing."""
    row = db.execute(
        """
        SELECT reason FROM work
        WHERE asset = 'candidates' AND unit = %(id)s AND spec = %(spec)s AND status = 'degraded'
        """,
        {"id": detection_id, "spec": spec},
    ).fetchone()
    return "" if row is None else row[0]


def keep_identification(
    db: Connection, detection_id: str, spec: str, found: StoredIdentification
) -> None:
    """Store what a detection turned out to be, in place of what was there."""
    values = {
        **vars(found),
        "id": detection_id,
        "spec": spec,
        "candidates": Jsonb(found.candidates),
        "reasons": Jsonb(found.reasons),
        "measures": Jsonb(found.measures),
    }
    db.execute(
        """
        INSERT INTO identifications
            (detection_id, spec, decision, score, item_id, turned, candidates, reasons, measures,
             degraded)
        VALUES (%(id)s, %(spec)s, %(decision)s, %(score)s, %(item_id)s, %(turned)s, %(candidates)s,
                %(reasons)s, %(measures)s, %(degraded)s)
        ON CONFLICT (detection_id) DO UPDATE SET
            spec = excluded.spec, decision = excluded.decision, score = excluded.score,
            item_id = excluded.item_id, turned = excluded.turned,
            candidates = excluded.candidates, reasons = excluded.reasons,
            measures = excluded.measures, degraded = excluded.degraded, made_at = now()
        """,
        values,
    )


def found(db: Connection, scan_ids: Sequence[str]) -> list[Found]:
    """Everything that was found on some photographs, in reading order."""
    return _found(db, scan_ids=scan_ids, begins=None, limit=None)


def get(db: Connection, detection_id: str) -> list[Found]:
    """The detections whose id begins with these digits, at most two."""
    return _found(db, scan_ids=None, begins=detection_id, limit=2)


def _found(
    db: Connection, scan_ids: Sequence[str] | None, begins: str | None, limit: int | None
) -> list[Found]:
    with db.cursor(row_factory=class_row(Found)) as cursor:
        return cursor.execute(
            """
            SELECT detection_id, scan_id, s.name AS scan, ordinal, quad, scale, d.score, how,
                   crop_key,
                   crop_sha256, evaluation, decision, i.score AS probability, item_id, turned,
                   coalesce(candidates, '[]') AS candidates, coalesce(reasons, '[]') AS reasons,
                   degraded, made_at
            FROM detections AS d JOIN scans AS s USING (scan_id)
            JOIN scan_pictures USING (scan_id)
            LEFT JOIN identifications AS i USING (detection_id)
            WHERE (%(ids)s::text[] IS NULL OR scan_id = ANY(%(ids)s))
              AND (%(begins)s::text IS NULL OR starts_with(detection_id, %(begins)s))
            ORDER BY scan_id, ordinal LIMIT %(limit)s
            """,
            {
                "ids": None if scan_ids is None else list(scan_ids),
                "begins": begins,
                "limit": limit,
            },
        ).fetchall()


def decisions(db: Connection, batch_keys: Sequence[str]) -> dict[str, int]:
    """How many detections of some batches were decided which way."""
    rows = db.execute(
        """
        SELECT decision, count(*)::int
        FROM identifications JOIN detections USING (detection_id) JOIN scans USING (scan_id)
        WHERE batch_key = ANY(%(keys)s) GROUP BY decision
        """,
        {"keys": list(batch_keys)},
    ).fetchall()
    return dict(rows)


def is_kept_aside(db: Connection, crop_sha256: str) -> bool:
    """Whether a crop with this content is of a photograph that is kept aside to measure with."""
    row = db.execute(
        """
        SELECT EXISTS (SELECT FROM detections JOIN scans USING (scan_id)
                       WHERE crop_sha256 = %(hash)s AND evaluation)
        """,
        {"hash": crop_sha256},
    ).fetchone()
    assert row is not None
    return row[0]
