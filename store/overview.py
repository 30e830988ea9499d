"""Overview: how much is stored, for a glance."""

from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row


@dataclass(frozen=True)
class Overview:
    """Counts of everything."""

    documents: int
    documents_failed: int
    pages: int
    panels: int
    candidate_pairs: int
    verified_pairs: int
    units_failed: int
    units_degraded: int


@dataclass(frozen=True)
class TroubledDocument:
    """A document of which something did not end well.

    Attributes:
        name: As received.
        reason: One of its reasons.
        reasons: How many it has.
        documents: How many such documents there are in all.
    """

    name: str
    reason: str
    reasons: int
    documents: int


def get(db: Connection) -> Overview:
    """Count everything; primary panels only."""
    with db.cursor(row_factory=class_row(Overview)) as cursor:
        row = cursor.execute(
            """
            SELECT (SELECT count(*) FROM documents)::int AS documents,
                   (SELECT count(*) FROM documents WHERE status = 'failed')::int
                       AS documents_failed,
                   (SELECT count(*) FROM pages)::int AS pages,
                   (SELECT count(*) FROM panels WHERE alternative_of IS NULL)::int AS panels,
                   (SELECT count(DISTINCT (panel_a, panel_b)) FROM candidate_pairs
                    WHERE panel_a <> panel_b)::int AS candidate_pairs,
                   (SELECT count(*) FROM verified_pairs)::int AS verified_pairs,
                   (SELECT count(*) FROM work WHERE status = 'failed'
                    AND asset <> 'duplicate_reports')::int AS units_failed,
                   (SELECT count(*) FROM work WHERE status = 'degraded'
                    AND asset <> 'duplicate_reports')::int AS units_degraded
            """
        ).fetchone()
    assert row is not None
    return row


def troubled_documents(db: Connection, limit: int) -> list[TroubledDocument]:
    """The latest documents with a reason, one reason each."""
    with db.cursor(row_factory=class_row(TroubledDocument)) as cursor:
        return cursor.execute(
            """
            SELECT name,
                   coalesce(min(coalesce(nullif(work.reason, ''), documents.reason)), '') AS reason,
                   count(DISTINCT coalesce(nullif(work.reason, ''), documents.reason))::int
                       AS reasons,
                   (count(*) OVER ())::int AS documents
            FROM documents
            LEFT JOIN page_batch_ranges USING (document_id)
            LEFT JOIN work ON work.batch_key = page_batch_ranges.batch_key
                AND work.status <> 'ok' AND work.asset <> 'duplicate_reports'
            WHERE documents.status <> 'ok' OR work.status IS NOT NULL
            GROUP BY document_id, name, received_at
            ORDER BY received_at DESC LIMIT %(limit)s
            """,
            {"limit": limit},
        ).fetchall()
