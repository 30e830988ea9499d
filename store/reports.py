"""Reports: what the stored report of each document was written from."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class StoredReport:
    """One written report."""

    document_id: str
    contents: str
    status: str
    pairs: int
    key: str


@dataclass(frozen=True)
class PendingReport:
    """A document whose report may have to be written anew."""

    unit: str
    batch_key: str


def get(db: Connection, document_id: str) -> StoredReport | None:
    """What the stored report of a document was written from."""
    with db.cursor(row_factory=class_row(StoredReport)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, contents, status, pairs, key FROM reports
            WHERE document_id = %(id)s
            """,
            {"id": document_id},
        ).fetchone()


def put(db: Connection, report: StoredReport) -> None:
    """Remember a written report in place of the one before."""
    db.execute(
        """
        INSERT INTO reports (document_id, contents, status, pairs, key)
        VALUES (%(document_id)s, %(contents)s, %(status)s, %(pairs)s, %(key)s)
        ON CONFLICT (document_id) DO UPDATE SET
            contents = excluded.contents, status = excluded.status, pairs = excluded.pairs,
            key = excluded.key, written_at = now()
        """,
        vars(report),
    )


def pending(db: Connection, job: Job, verified_spec: str, limit: int) -> list[PendingReport]:
    """Documents of the job's partitions, and those they share a pair with, not yet seen to.

    A report depends on every other document, so the ledger of an earlier run says nothing: each run
    sees to each of them once, and writes it only where its contents have changed.
    """
    with db.cursor(row_factory=class_row(PendingReport)) as cursor:
        return cursor.execute(
            """
            WITH involved AS (
                SELECT document_id FROM page_batch_ranges WHERE batch_key = ANY(%(keys)s)
                UNION
                SELECT p.document_id
                FROM verified_pairs AS v
                JOIN panels AS p ON p.panel_id IN (v.panel_a, v.panel_b)
                WHERE v.batch_key = ANY(%(keys)s) AND v.spec = %(spec)s
            )
            SELECT document_id AS unit, batch_key
            FROM involved JOIN page_batch_ranges USING (document_id)
            WHERE first_page = 1 AND NOT EXISTS (
                SELECT FROM work
                WHERE asset = %(asset)s AND unit = document_id AND run_id = %(run_id)s)
            ORDER BY document_id
            LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "spec": verified_spec,
                "asset": job.asset,
                "run_id": job.run_id,
                "limit": limit,
            },
        ).fetchall()


@contextmanager
def locked(db: Connection, document_id: str) -> Generator[None]:
    """Hold the right to write one document's report, across processes."""
    name = {"name": f"report:{document_id}"}
    db.execute("SELECT pg_advisory_lock(hashtext(%(name)s))", name)
    try:
        yield
    finally:
        db.execute("SELECT pg_advisory_unlock(hashtext(%(name)s))", name)
