"""Panels: one row per picture found on a page, with where it came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.geometry import Box
from core.work import Job


@dataclass(frozen=True)
class Panel:
    """One panel as stored; boxes as lists, the way the database returns them."""

    panel_id: str
    document_id: str
    page: int
    batch_key: str
    spec: str
    box_pt: list[float]
    width_px: int
    height_px: int
    dpi: float
    method: str
    xref: int
    alternative_of: str | None
    ignore_boxes_px: list[list[float]]
    modality: str
    modality_confidence: float
    drawing: bool
    image_key: str

    @property
    def unit(self) -> str:
        """A panel is its own unit of work."""
        return self.panel_id

    @property
    def box(self) -> Box:
        """Where it is on its page, in points."""
        x0, y0, x1, y1 = self.box_pt
        return (x0, y0, x1, y1)

    @property
    def ignore_boxes(self) -> tuple[Box, ...]:
        """Letters, scale bars and arrows, in panel pixels."""
        return tuple((b[0], b[1], b[2], b[3]) for b in self.ignore_boxes_px)


def replace(db: Connection, document_id: str, page: int, panels: Sequence[Panel]) -> None:
    """Store the panels of one page in place of what was there; unchanged ones keep their row."""
    db.execute(
        """
        DELETE FROM panels
        WHERE document_id = %(document_id)s AND page = %(page)s AND panel_id <> ALL(%(ids)s)
        """,
        {
            "document_id": document_id,
            "page": page,
            "ids": [panel.panel_id for panel in panels],
        },
    )
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO panels
                (panel_id, document_id, page, batch_key, spec, box_pt, width_px, height_px, dpi,
                 method, xref, alternative_of, ignore_boxes_px, modality, modality_confidence,
                 drawing, image_key)
            VALUES
                (%(panel_id)s, %(document_id)s, %(page)s, %(batch_key)s, %(spec)s, %(box_pt)s,
                 %(width_px)s, %(height_px)s, %(dpi)s, %(method)s, %(xref)s, %(alternative_of)s,
                 %(ignore_boxes_px)s, %(modality)s, %(modality_confidence)s, %(drawing)s,
                 %(image_key)s)
            ON CONFLICT (panel_id) DO NOTHING
            """,
            [{**vars(panel), "ignore_boxes_px": Jsonb(panel.ignore_boxes_px)} for panel in panels],
        )


def pending(db: Connection, job: Job, limit: int) -> list[Panel]:
    """Panels of the job's partitions, drawings apart, that it has still to work on."""
    with db.cursor(row_factory=class_row(Panel)) as cursor:
        return cursor.execute(
            """
            SELECT panel_id, document_id, page, batch_key, spec, box_pt, width_px, height_px, dpi,
                   method, xref, alternative_of, ignore_boxes_px, modality, modality_confidence,
                   drawing, image_key
            FROM panels AS p
            WHERE batch_key = ANY(%(keys)s) AND NOT drawing
              AND NOT is_done(%(asset)s, panel_id, %(spec)s, %(budget_mb)s)
            ORDER BY document_id, page, panel_id
            LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def pending_search(
    db: Connection, job: Job, features_spec: str, encoder_specs: tuple[str, str] | None, limit: int
) -> list[Panel]:
    """Panels of the job's partitions that have what they are searched by and are still to be.

    A panel whose features could not be made is not searched and not called compared; once it has
    them, under a larger budget, it is pending. Where the encoder's channel runs (specs of tiles and
    of embeddings), a panel waits for its vectors, or for the news that there will be none.
    """
    tiles_spec, embeddings_spec = encoder_specs or (None, None)
    with db.cursor(row_factory=class_row(Panel)) as cursor:
        return cursor.execute(
            """
            SELECT panel_id, document_id, page, batch_key, p.spec, box_pt, width_px, height_px,
                   dpi, method, xref, alternative_of, ignore_boxes_px, modality,
                   modality_confidence, drawing, image_key
            FROM panels AS p JOIN panel_features AS f USING (panel_id)
            WHERE batch_key = ANY(%(keys)s) AND NOT drawing AND f.spec = %(features_spec)s
              AND (%(embeddings_spec)s::text IS NULL OR EXISTS (
                  SELECT FROM work AS w
                  WHERE w.unit = panel_id
                    AND (w.asset = 'tile_embeddings' AND w.spec = %(embeddings_spec)s
                         OR w.asset = 'tiles' AND w.spec = %(tiles_spec)s
                            AND w.status = 'failed')))
              AND NOT is_done(%(asset)s, panel_id, %(spec)s, %(budget_mb)s)
            ORDER BY document_id, page, panel_id
            LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "features_spec": features_spec,
                "tiles_spec": tiles_spec,
                "embeddings_spec": embeddings_spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def get(db: Connection, panel_ids: Sequence[str]) -> dict[str, Panel]:
    """Panels by id."""
    with db.cursor(row_factory=class_row(Panel)) as cursor:
        rows = cursor.execute(
            """
            SELECT panel_id, document_id, page, batch_key, spec, box_pt, width_px, height_px, dpi,
                   method, xref, alternative_of, ignore_boxes_px, modality, modality_confidence,
                   drawing, image_key
            FROM panels WHERE panel_id = ANY(%(ids)s)
            """,
            {"ids": list(panel_ids)},
        ).fetchall()
    return {row.panel_id: row for row in rows}


@dataclass(frozen=True)
class Place:
    """Where a panel is: its page, and its box in points."""

    panel_id: str
    document_id: str
    page: int
    box_pt: list[float]

    @property
    def box(self) -> Box:
        """Where it is on its page, in points."""
        x0, y0, x1, y1 = self.box_pt
        return (x0, y0, x1, y1)


def on_pages_of(db: Connection, panel_ids: Sequence[str]) -> dict[str, Place]:
    """Where the panels are that share a page with any of these, themselves included, by id."""
    with db.cursor(row_factory=class_row(Place)) as cursor:
        rows = cursor.execute(
            """
            SELECT panel_id, document_id, page, box_pt FROM panels
            WHERE (document_id, page) IN (
                SELECT document_id, page FROM panels WHERE panel_id = ANY(%(ids)s))
            """,
            {"ids": list(panel_ids)},
        ).fetchall()
    return {row.panel_id: row for row in rows}


def of_documents(db: Connection, document_ids: Sequence[str]) -> list[Panel]:
    """All panels of some documents, in reading order."""
    with db.cursor(row_factory=class_row(Panel)) as cursor:
        return cursor.execute(
            """
            SELECT panel_id, document_id, page, batch_key, spec, box_pt, width_px, height_px, dpi,
                   method, xref, alternative_of, ignore_boxes_px, modality, modality_confidence,
                   drawing, image_key
            FROM panels WHERE document_id = ANY(%(ids)s)
            ORDER BY document_id, page, box_pt[2], box_pt[1], panel_id
            """,
            {"ids": list(document_ids)},
        ).fetchall()


def samples(db: Connection, batch_keys: Sequence[str], limit: int) -> list[str]:
    """Image keys of a few primary panels of these partitions, for thumbnails."""
    rows = db.execute(
        """
        SELECT image_key FROM panels
        WHERE batch_key = ANY(%(keys)s) AND alternative_of IS NULL AND NOT drawing
        ORDER BY document_id, page, box_pt[2], box_pt[1] LIMIT %(limit)s
        """,
        {"keys": list(batch_keys), "limit": limit},
    ).fetchall()
    return [key for (key,) in rows]


def spread(db: Connection, limit: int) -> list[str]:
    """Image keys of primary panels of all documents, in an order that has no meaning."""
    rows = db.execute(
        """
        SELECT image_key FROM panels WHERE alternative_of IS NULL AND NOT drawing
        ORDER BY md5(panel_id) LIMIT %(limit)s
        """,
        {"limit": limit},
    ).fetchall()
    return [key for (key,) in rows]


def counts(db: Connection, document_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Primary panels by modality, per document."""
    rows: list[tuple[str, str, Any]] = db.execute(
        """
        SELECT document_id, modality, count(*) FROM panels
        WHERE document_id = ANY(%(ids)s) AND alternative_of IS NULL
        GROUP BY document_id, modality ORDER BY document_id, modality
        """,
        {"ids": list(document_ids)},
    ).fetchall()
    found: dict[str, dict[str, int]] = {}
    for document_id, modality, count in rows:
        found.setdefault(document_id, {})[modality] = count
    return found


@dataclass(frozen=True)
class Compared:
    """How much of what was found has been compared.

    Attributes:
        panels: Primary panels.
        drawings: Those set aside as drawings.
        compared: Those that were compared.
        readings_missed: Second readings of panels that were not.
    """

    panels: int
    drawings: int
    compared: int
    readings_missed: int


def coverage(
    db: Connection, document_ids: Sequence[str], candidate_spec: str, verified_spec: str
) -> Compared:
    """How much of some documents has been compared.

    A panel has been compared when it was searched, and every pair that the search proposed for it
    was verified, under the specs in force, and what verification made is there: an empty list of
    pairs means something only then.
    """
    with db.cursor(row_factory=class_row(Compared)) as cursor:
        row = cursor.execute(
            """
            WITH found AS (
                SELECT alternative_of IS NULL AS first, drawing, EXISTS (
                       SELECT FROM work WHERE asset = 'candidate_pairs' AND unit = panel_id
                         AND spec = %(candidate_spec)s AND status <> 'failed')
                   AND NOT EXISTS (
                       SELECT FROM candidate_pairs AS c
                       WHERE panel_id IN (c.panel_a, c.panel_b) AND c.spec = %(candidate_spec)s
                         AND NOT EXISTS (
                             SELECT FROM work
                             WHERE asset = 'verified_pairs'
                               AND unit = c.panel_a || '+' || c.panel_b
                               AND spec = %(verified_spec)s AND status <> 'failed'
                               AND made = (SELECT count(*) FROM verified_pairs AS v
                                           WHERE v.panel_a = c.panel_a AND v.panel_b = c.panel_b
                                             AND v.spec = %(verified_spec)s))) AS compared
                FROM panels WHERE document_id = ANY(%(ids)s)
            )
            SELECT (count(*) FILTER (WHERE first))::int AS panels,
                   (count(*) FILTER (WHERE first AND drawing))::int AS drawings,
                   (count(*) FILTER (WHERE first AND NOT drawing AND compared))::int AS compared,
                   (count(*) FILTER (WHERE NOT first AND NOT drawing AND NOT compared))::int
                       AS readings_missed
            FROM found
            """,
            {
                "ids": list(document_ids),
                "candidate_spec": candidate_spec,
                "verified_spec": verified_spec,
            },
        ).fetchone()
    assert row is not None
    return row


@dataclass(frozen=True)
class Others:
    """What is stored beside some documents.

    Attributes:
        documents: Documents with panels that new ones are compared with.
        panels: Those panels, primary ones.
        panels_apart: Primary panels without features of the kind that new ones are compared by.
    """

    documents: int
    panels: int
    panels_apart: int


def others(db: Connection, document_ids: Sequence[str], features_spec: str) -> Others:
    """What is stored beside these documents, and whether it can be compared with them."""
    with db.cursor(row_factory=class_row(Others)) as cursor:
        row = cursor.execute(
            """
            SELECT (count(DISTINCT document_id) FILTER (WHERE f.panel_id IS NOT NULL))::int
                       AS documents,
                   count(f.panel_id)::int AS panels,
                   (count(*) FILTER (WHERE f.panel_id IS NULL))::int AS panels_apart
            FROM panels AS p LEFT JOIN panel_features AS f
                ON f.panel_id = p.panel_id AND f.spec = %(features_spec)s
            WHERE document_id <> ALL(%(ids)s) AND alternative_of IS NULL AND NOT drawing
            """,
            {"ids": list(document_ids), "features_spec": features_spec},
        ).fetchone()
    assert row is not None
    return row
