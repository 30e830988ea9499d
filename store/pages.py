"""Pages: what each page holds, one row per page that could be read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.geometry import Box
from core.pages import PageContent, PlacedImage
from core.work import Job


@dataclass(frozen=True)
class PendingPage:
    """A page still to be worked on, and where its document's file is."""

    unit: str
    batch_key: str
    document_id: str
    page: int
    file_key: str


@dataclass(frozen=True)
class Page:
    """A page that was read, still to be worked on by a later asset."""

    unit: str
    batch_key: str
    document_id: str
    page: int
    file_key: str
    width_pt: float
    height_pt: float
    content: dict[str, Any]

    def decoded(self) -> PageContent:
        """The content as the core knows it."""
        return _decode(self.content)


def pending(db: Connection, job: Job, limit: int) -> list[PendingPage]:
    """Pages of the job's partitions that are not yet in its ledger, in order.

    None of a document whose stored copy is not what was received: what is in it would go under the
    document's name.
    """
    with db.cursor(row_factory=class_row(PendingPage)) as cursor:
        return cursor.execute(
            """
            SELECT page_unit(r.document_id, page) AS unit, r.batch_key, r.document_id, page,
                   d.file_key
            FROM page_batch_ranges AS r
            JOIN documents AS d USING (document_id)
            CROSS JOIN generate_series(r.first_page, r.last_page) AS page
            WHERE r.batch_key = ANY(%(keys)s) AND d.status <> 'failed'
              AND NOT EXISTS (SELECT FROM work WHERE asset = 'documents' AND unit = d.document_id
                                AND status = 'failed')
              AND NOT is_done(%(asset)s, page_unit(r.document_id, page), %(spec)s, %(budget_mb)s)
            ORDER BY r.document_id, page
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


def pending_read(db: Connection, job: Job, limit: int) -> list[Page]:
    """Pages that were read and that the job has still to work on, in order."""
    with db.cursor(row_factory=class_row(Page)) as cursor:
        return cursor.execute(
            """
            SELECT page_unit(p.document_id, p.page) AS unit, p.batch_key, p.document_id, p.page,
                   d.file_key, p.width_pt, p.height_pt, p.content
            FROM pages AS p JOIN documents AS d USING (document_id)
            WHERE p.batch_key = ANY(%(keys)s)
              AND NOT EXISTS (SELECT FROM work WHERE asset = 'documents' AND unit = d.document_id
                                AND status = 'failed')
              AND NOT is_done(%(asset)s, page_unit(p.document_id, p.page), %(spec)s, %(budget_mb)s)
            ORDER BY p.document_id, p.page
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


def add(
    db: Connection, job: Job, item: PendingPage, content: PageContent, thumbnail_key: str
) -> None:
    """Store a page, replacing what an earlier spec made of it."""
    db.execute(
        """
        INSERT INTO pages
            (document_id, page, batch_key, spec, width_pt, height_pt, content, thumbnail_key)
        VALUES
            (%(document_id)s, %(page)s, %(batch_key)s, %(spec)s, %(width_pt)s, %(height_pt)s,
             %(content)s, %(thumbnail_key)s)
        ON CONFLICT (document_id, page) DO UPDATE SET
            batch_key = excluded.batch_key, spec = excluded.spec, width_pt = excluded.width_pt,
            height_pt = excluded.height_pt, content = excluded.content,
            thumbnail_key = excluded.thumbnail_key
        """,
        {
            "document_id": item.document_id,
            "page": item.page,
            "batch_key": item.batch_key,
            "spec": job.spec,
            "width_pt": content.width_pt,
            "height_pt": content.height_pt,
            "content": Jsonb(_encode(content)),
            "thumbnail_key": thumbnail_key,
        },
    )


def _encode(content: PageContent) -> dict[str, Any]:
    def rounded(boxes: tuple[Box, ...]) -> list[list[float]]:
        return [[round(value, 2) for value in box] for box in boxes]

    return {
        "width_pt": content.width_pt,
        "height_pt": content.height_pt,
        "images": [asdict(image) for image in content.images],
        "words": rounded(content.word_boxes_pt),
        "drawings": rounded(content.drawing_boxes_pt),
    }


def _decode(row: dict[str, Any]) -> PageContent:
    def boxes(values: list[list[float]]) -> tuple[Box, ...]:
        return tuple((v[0], v[1], v[2], v[3]) for v in values)

    return PageContent(
        width_pt=row["width_pt"],
        height_pt=row["height_pt"],
        images=tuple(
            PlacedImage(
                xref=image["xref"],
                box_pt=boxes([image["box_pt"]])[0],
                transform=tuple(image["transform"]),
                width_px=image["width_px"],
                height_px=image["height_px"],
            )
            for image in row["images"]
        ),
        word_boxes_pt=boxes(row["words"]),
        drawing_boxes_pt=boxes(row["drawings"]),
    )


def read_counts(db: Connection, document_ids: Sequence[str], panels_spec: str) -> dict[str, int]:
    """How many pages of each document have been read and cut into panels under one spec.

    A page of which panels are missing that the ledger says were made counts as not read.
    """
    rows = db.execute(
        """
        SELECT document_id, count(*)::int FROM pages
        WHERE document_id = ANY(%(ids)s) AND EXISTS (
            SELECT FROM work WHERE asset = 'panels' AND unit = page_unit(document_id, page)
              AND spec = %(spec)s AND status <> 'failed'
              AND made = (SELECT count(*) FROM panels AS p
                          WHERE p.document_id = pages.document_id AND p.page = pages.page))
        GROUP BY document_id
        """,
        {"ids": list(document_ids), "spec": panels_spec},
    ).fetchall()
    return {document_id: count for document_id, count in rows}


def sizes(
    db: Connection, document_ids: Sequence[str]
) -> dict[tuple[str, int], tuple[float, float]]:
    """Width and height in points, by document and page."""
    rows = db.execute(
        """
        SELECT document_id, page, width_pt, height_pt FROM pages
        WHERE document_id = ANY(%(ids)s)
        """,
        {"ids": list(document_ids)},
    ).fetchall()
    return {(document_id, page): (width, height) for document_id, page, width, height in rows}
