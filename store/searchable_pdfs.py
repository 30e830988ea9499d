"""Searchable PDFs: the searchable copy of each document, and what goes into it."""

from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job
from store.ocr_pages import OcrPage


@dataclass(frozen=True)
class PendingCopy:
    """A document whose searchable copy is still to be made.

    Attributes:
        unit: The document.
        batch_key: Its first partition.
        file_key: Where its file is.
        size_bytes: Of the file.
        page_count: Its pages.
        read_pages: How many of them have been read.
        version: Names the rows in which they are: another once any page was read anew.
    """

    unit: str
    batch_key: str
    file_key: str
    size_bytes: int
    page_count: int
    read_pages: int
    version: str


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
                   d.page_count, o.read_pages, o.version
            FROM page_batch_ranges AS r JOIN documents AS d USING (document_id)
            CROSS JOIN LATERAL (
                SELECT count(*)::int AS read_pages,
                       md5(string_agg(page || ' ' || xmin::text, ' ' ORDER BY page)) AS version
                FROM ocr_pages AS o WHERE o.document_id = d.document_id) AS o
            WHERE r.batch_key = ANY(%(keys)s) AND o.read_pages > 0
              AND NOT is_done(%(asset)s, d.document_id, %(spec)s, %(budget_mb)s)
            GROUP BY d.document_id, o.read_pages, o.version
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


def is_of_these_pages(db: Connection, item: PendingCopy) -> bool:
    """Whether a document has the read pages that it had when it was taken up.

    ``xmin`` is the transaction that wrote a row: a page that was read anew has another one,
    whatever it says. Whoever reads a page of the document (``store.ocr_pages.replace``) waits until
    the transaction ends.
    """
    values = {"document_id": item.unit}
    db.execute(
        "SELECT FROM documents WHERE document_id = %(document_id)s FOR NO KEY UPDATE", values
    )
    row = db.execute(
        """
        SELECT md5(string_agg(page || ' ' || xmin::text, ' ' ORDER BY page)) FROM (
            SELECT page, xmin FROM ocr_pages WHERE document_id = %(document_id)s
            ORDER BY page FOR SHARE) AS o
        """,
        values,
    ).fetchone()
    return row == (item.version,)


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
