"""Searchable PDFs: the searchable copy of each document, and what goes into it."""

from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job
from store.ocr_pages import OcrPage


@dataclass(frozen=True)
class PendingCopy:
    """A document whose searchable copy is still to be made."""

    unit: str
    batch_key: str
    file_key: str
    size_bytes: int
    page_count: int
    read_pages: int


@dataclass(frozen=True)
class SearchablePdf:
    """A searchable copy; where nothing had to be added, its key is the document's own."""

    document_id: str
    spec: str
    key: str
    pages: int
    words: int
    size_bytes: int


def pending(db: Connection, job: Job, limit: int) -> list[PendingCopy]:
    """Documents of the job's partitions of which pages were read and no copy was made since."""
    with db.cursor(row_factory=class_row(PendingCopy)) as cursor:
        return cursor.execute(
            """
            SELECT d.document_id AS unit, min(r.batch_key) AS batch_key, d.file_key, d.size_bytes,
                   d.page_count,
                   (SELECT count(*)::int FROM ocr_pages AS o
                    WHERE o.document_id = d.document_id) AS read_pages
            FROM page_batch_ranges AS r JOIN documents AS d USING (document_id)
            WHERE r.batch_key = ANY(%(keys)s)
              AND EXISTS (SELECT FROM ocr_pages AS o WHERE o.document_id = d.document_id)
              AND NOT is_done(%(asset)s, d.document_id, %(spec)s, %(budget_mb)s)
            GROUP BY d.document_id
            ORDER BY d.document_id
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


def recognized(db: Connection, document_id: str, after: int, limit: int) -> list[OcrPage]:
    """Pages with recognized words beyond a page, in order."""
    with db.cursor(row_factory=class_row(OcrPage)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, page, batch_key, spec, kind, language, dpi, confidence, text, words,
                   regions
            FROM ocr_pages
            WHERE document_id = %(document_id)s AND page > %(after)s AND kind IN ('ocr', 'hybrid')
            ORDER BY page
            LIMIT %(limit)s
            """,
            {"document_id": document_id, "after": after, "limit": limit},
        ).fetchall()


def put(db: Connection, copy: SearchablePdf) -> None:
    """Remember a copy in place of the one before."""
    db.execute(
        """
        INSERT INTO searchable_pdfs (document_id, spec, key, pages, words, size_bytes)
        VALUES (%(document_id)s, %(spec)s, %(key)s, %(pages)s, %(words)s, %(size_bytes)s)
        ON CONFLICT (document_id) DO UPDATE SET
            spec = excluded.spec, key = excluded.key, pages = excluded.pages,
            words = excluded.words, size_bytes = excluded.size_bytes, written_at = now()
        """,
        vars(copy),
    )


def get(db: Connection, document_id: str) -> SearchablePdf | None:
    """The searchable copy of a document; None where none was made."""
    with db.cursor(row_factory=class_row(SearchablePdf)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, spec, key, pages, words, size_bytes FROM searchable_pdfs
            WHERE document_id = %(document_id)s
            """,
            {"document_id": document_id},
        ).fetchone()
