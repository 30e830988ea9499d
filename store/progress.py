"""Progress: how far each asset has come in some partitions, for people who watch."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row


@dataclass(frozen=True)
class Stage:
    """One asset: units done, and units known so far."""

    asset: str
    done: int
    known: int


def stages(db: Connection, batch_keys: Sequence[str]) -> list[Stage]:
    """Every asset in the order in which they are made.

    How many panels there are is known once the pages are cut, and how many pairs there are to
    verify once the search is through: ``known`` grows while the stages before are at work.
    """
    with db.cursor(row_factory=class_row(Stage)) as cursor:
        return cursor.execute(
            """
            WITH done AS (
                SELECT asset, count(*)::int AS units FROM work
                WHERE batch_key = ANY(%(keys)s) GROUP BY asset
            ), known AS (
                SELECT (SELECT coalesce(sum(greatest(last_page - first_page + 1, 0)), 0)::int
                        FROM page_batch_ranges WHERE batch_key = ANY(%(keys)s)) AS pages,
                       (SELECT count(*)::int FROM panels
                        WHERE batch_key = ANY(%(keys)s) AND NOT drawing) AS panels,
                       (SELECT count(DISTINCT (panel_a, panel_b))::int FROM candidate_pairs
                        WHERE batch_key = ANY(%(keys)s)) AS pairs,
                       (SELECT count(*)::int FROM gallery_items
                        WHERE batch_key = ANY(%(keys)s)) AS items,
                       (SELECT count(*)::int FROM gallery_images JOIN gallery_items USING (item_id)
                        WHERE batch_key = ANY(%(keys)s) AND file_key <> '') AS images,
                       (SELECT count(*)::int FROM scans
                        WHERE batch_key = ANY(%(keys)s)) AS scans,
                       (SELECT count(*)::int FROM detections JOIN scans USING (scan_id)
                        WHERE batch_key = ANY(%(keys)s)) AS detections
            )
            SELECT stage.asset, coalesce(done.units, 0) AS done,
                   CASE stage.unit WHEN 'page' THEN known.pages WHEN 'panel' THEN known.panels
                        WHEN 'pair' THEN known.pairs WHEN 'item' THEN known.items
                        WHEN 'image' THEN known.images WHEN 'scan' THEN known.scans
                        ELSE known.detections END AS known
            FROM (VALUES (1, 'pages', 'page'), (2, 'panels', 'page'),
                         (3, 'panel_features', 'panel'), (4, 'candidate_pairs', 'panel'),
                         (5, 'verified_pairs', 'pair'), (6, 'ocr_pages', 'page'),
                         (7, 'chunks', 'page'), (8, 'chunk_embeddings', 'page'),
                         (9, 'gallery_templates', 'image'), (10, 'template_embeddings', 'image'),
                         (11, 'confusion_pairs', 'item'), (12, 'detections', 'scan'),
                         (13, 'candidates', 'detection'), (14, 'identifications', 'detection'))
                  AS stage (place, asset, unit)
            CROSS JOIN known LEFT JOIN done USING (asset)
            ORDER BY stage.place
            """,
            {"keys": list(batch_keys)},
        ).fetchall()
