"""What was read of a document, page by page, and what was not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

_AT_A_TIME = 100
"""Pages held at a time; a page of text has some 4 kB."""


@dataclass(frozen=True)
class ReadPage:
    """A page that was read, without the boxes of its words."""

    page: int
    kind: str
    language: str
    dpi: float | None
    confidence: float | None
    text: str
    regions: list[dict[str, Any]]


@dataclass(frozen=True)
class PageTrouble:
    """Something that did not end well on a page, or of the document as a whole (page 0)."""

    page: int
    asset: str
    status: str
    reason: str


def pages(db: Connection, document_id: str) -> Iterator[ReadPage]:
    """The pages of a document that were read, in order, some at a time."""
    after = 0
    while True:
        with db.cursor(row_factory=class_row(ReadPage)) as cursor:
            found = cursor.execute(
                """
                SELECT page, kind, language, dpi, confidence, text, regions FROM ocr_pages
                WHERE document_id = %(document_id)s AND page > %(after)s
                ORDER BY page LIMIT %(limit)s
                """,
                {"document_id": document_id, "after": after, "limit": _AT_A_TIME},
            ).fetchall()
        yield from found
        if len(found) < _AT_A_TIME:
            return
        after = found[-1].page


def troubles(db: Connection, document_id: str) -> list[PageTrouble]:
    """What kept pages of a document from being read as they are, in order of pages."""
    with db.cursor(row_factory=class_row(PageTrouble)) as cursor:
        return cursor.execute(
            """
            WITH units AS (
                SELECT document_id AS unit, 0 AS page FROM documents
                WHERE document_id = %(document_id)s
                UNION ALL
                SELECT page_unit(document_id, page), page
                FROM documents CROSS JOIN generate_series(1, page_count) AS page
                WHERE document_id = %(document_id)s
            )
            SELECT page, asset, status, reason FROM work JOIN units USING (unit)
            WHERE status <> 'ok'
              AND asset IN ('documents', 'pages', 'ocr_pages', 'chunks', 'chunk_embeddings')
            ORDER BY page, asset
            """,
            {"document_id": document_id},
        ).fetchall()
