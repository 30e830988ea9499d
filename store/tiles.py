"""Tiles: the windows of each panel, blank ones marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class StoredTile:
    """One window of a panel, in panel pixels."""

    panel_id: str
    ordinal: int
    level: int
    box_px: list[int]
    blank: bool


@dataclass(frozen=True)
class PendingTiles:
    """A panel whose tiles are still to be embedded."""

    panel_id: str
    batch_key: str
    image_key: str
    tiles: int
    ordinals: list[int]
    boxes_px: list[list[int]]

    @property
    def unit(self) -> str:
        """The panel: its tiles are embedded together."""
        return self.panel_id


def replace(db: Connection, panel_id: str, spec: str, tiles: Sequence[StoredTile]) -> None:
    """Store the tiles of a panel in place of what was there."""
    db.execute("DELETE FROM tiles WHERE panel_id = %(panel_id)s", {"panel_id": panel_id})
    with (
        db.cursor() as cursor,
        cursor.copy(
            "COPY tiles (panel_id, spec, ordinal, level, box_px, blank) FROM STDIN"
        ) as copy,
    ):
        for tile in tiles:
            copy.write_row((panel_id, spec, tile.ordinal, tile.level, tile.box_px, tile.blank))


def pending(db: Connection, job: Job, tiles_spec: str, limit: int) -> list[PendingTiles]:
    """Panels with tiles of one spec that the job has still to embed; blank tiles are left out."""
    with db.cursor(row_factory=class_row(PendingTiles)) as cursor:
        return cursor.execute(
            """
            SELECT p.panel_id, p.batch_key, p.image_key, count(t.ordinal)::int AS tiles,
                   coalesce(array_agg(t.ordinal ORDER BY t.ordinal)
                       FILTER (WHERE NOT t.blank), '{}') AS ordinals,
                   coalesce(jsonb_agg(to_jsonb(t.box_px) ORDER BY t.ordinal)
                       FILTER (WHERE NOT t.blank), '[]') AS boxes_px
            FROM panels AS p JOIN tiles AS t USING (panel_id)
            WHERE p.batch_key = ANY(%(keys)s) AND t.spec = %(tiles_spec)s
              AND NOT is_done(%(asset)s, p.panel_id, %(spec)s, %(budget_mb)s)
            GROUP BY p.panel_id
            ORDER BY p.document_id, p.page, p.panel_id
            LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "tiles_spec": tiles_spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def counts(db: Connection, document_ids: Sequence[str], spec: str) -> tuple[int, int]:
    """How many tiles the documents' panels have, and how many of those are blank."""
    row = db.execute(
        """
        SELECT count(*)::int, (count(*) FILTER (WHERE blank))::int
        FROM tiles JOIN panels USING (panel_id)
        WHERE document_id = ANY(%(ids)s) AND tiles.spec = %(spec)s
        """,
        {"ids": list(document_ids), "spec": spec},
    ).fetchone()
    assert row is not None
    return row[0], row[1]
