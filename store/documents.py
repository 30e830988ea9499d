"""Documents: the files as received, told apart by content.

The order of arrival is that of their first batch: the time of day may be set back between two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class Document:
    """One file, as it is known to the store."""

    document_id: str
    name: str
    size_bytes: int
    page_count: int
    title: str
    status: str
    reason: str
    file_key: str


@dataclass(frozen=True)
class PendingDocument:
    """A document whose file is still to be checked by the ``documents`` asset."""

    document: Document
    unit: str
    batch_key: str


def add(db: Connection, document: Document) -> bool:
    """Remember a document; returns whether it was new. The first name it came under stays."""
    return (
        db.execute(
            """
            INSERT INTO documents
                (document_id, name, size_bytes, page_count, title, status, reason, file_key)
            VALUES
                (%(document_id)s, %(name)s, %(size_bytes)s, %(page_count)s, %(title)s, %(status)s,
                 %(reason)s, %(file_key)s)
            ON CONFLICT (document_id) DO NOTHING
            """,
            vars(document),
        ).rowcount
        == 1
    )


def reopen(db: Connection, document: Document, batch_key: str, last_page: int) -> None:
    """Put what is known of a document now in place of what it was when it could not be opened.

    Its first batch, which had no pages, gets the first ones and is to be worked on again. The batch
    itself stays, because partitions are ordered by when they were registered.
    """
    values = {**vars(document), "key": batch_key, "last_page": last_page}
    db.execute(
        """
        UPDATE documents
        SET page_count = %(page_count)s, title = %(title)s, status = %(status)s,
            reason = %(reason)s
        WHERE document_id = %(document_id)s
        """,
        values,
    )
    db.execute(
        """
        UPDATE page_batch_ranges SET last_page = %(last_page)s
        WHERE document_id = %(document_id)s AND first_page = 1
        """,
        values,
    )
    db.execute("DELETE FROM work WHERE batch_key = %(key)s", values)
    db.execute("DELETE FROM finished WHERE batch_key = %(key)s", values)


def set_status(db: Connection, document_id: str, status: str, reason: str) -> None:
    """Record what checking the stored file found."""
    db.execute(
        """
        UPDATE documents SET status = %(status)s, reason = %(reason)s
        WHERE document_id = %(document_id)s
        """,
        {"document_id": document_id, "status": status, "reason": reason},
    )


def get(db: Connection, document_ids: Sequence[str]) -> list[Document]:
    """The documents with these ids, in order of arrival."""
    with db.cursor(row_factory=class_row(Document)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, name, size_bytes, page_count, title, status, reason, file_key
            FROM documents AS d WHERE document_id = ANY(%(ids)s)
            ORDER BY (SELECT min(ordinal)
                      FROM page_batch_ranges AS r JOIN batches USING (batch_key)
                      WHERE r.document_id = d.document_id), d.document_id
            """,
            {"ids": list(document_ids)},
        ).fetchall()


def everything(db: Connection) -> list[Document]:
    """All documents, in order of arrival."""
    with db.cursor(row_factory=class_row(Document)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, name, size_bytes, page_count, title, status, reason, file_key
            FROM documents AS d
            ORDER BY (SELECT min(ordinal)
                      FROM page_batch_ranges AS r JOIN batches USING (batch_key)
                      WHERE r.document_id = d.document_id), d.document_id
            """
        ).fetchall()


def pending(db: Connection, job: Job, limit: int) -> list[PendingDocument]:
    """Documents that begin in the job's partitions and are not yet checked under its spec."""
    with db.cursor() as cursor:
        rows = cursor.execute(
            """
            SELECT d.document_id, d.name, d.size_bytes, d.page_count, d.title, d.status, d.reason,
                   d.file_key, r.batch_key
            FROM page_batch_ranges AS r
            JOIN documents AS d USING (document_id) JOIN batches AS b USING (batch_key)
            WHERE r.batch_key = ANY(%(keys)s) AND r.first_page = 1
              AND NOT is_done(%(asset)s, d.document_id, %(spec)s, %(budget_mb)s)
            ORDER BY b.ordinal, d.document_id
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
    return [PendingDocument(Document(*row[:8]), unit=row[0], batch_key=row[8]) for row in rows]


def in_batches(db: Connection, batch_keys: Sequence[str]) -> list[Document]:
    """The documents that these batches hold pages of, in order of arrival."""
    with db.cursor(row_factory=class_row(Document)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, name, size_bytes, page_count, title, status, reason, file_key
            FROM documents AS d
            WHERE document_id IN (
                SELECT document_id FROM page_batch_ranges WHERE batch_key = ANY(%(keys)s))
            ORDER BY (SELECT min(ordinal)
                      FROM page_batch_ranges AS r JOIN batches USING (batch_key)
                      WHERE r.document_id = d.document_id), d.document_id
            """,
            {"keys": list(batch_keys)},
        ).fetchall()
