"""The work ledger: which units are done, under which spec, and how they ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job, Outcome

OF_TEXT = (
    "ocr_pages",
    "searchable_pdfs",
    "text_encoders",
    "chunks",
    "chunk_embeddings",
    "next_chunk_embeddings",
    "search_index",
)
"""Assets that read documents: what is lost there is told by ``quire read`` and by searches, and is
no loss to a report of reused panels."""


@dataclass(frozen=True)
class BatchSummary:
    """What the ledger holds of one asset in one partition, whichever run did it."""

    batch_key: str
    units: int
    made: int
    new_units: int
    degraded: int
    failed: int
    reasons: list[str]
    other_run: str | None


@dataclass(frozen=True)
class Trouble:
    """A unit that did not end well, for the eyes of a user."""

    asset: str
    unit: str
    status: str
    reason: str


def record(db: Connection, job: Job, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes into the ledger; call it in the transaction that writes what was made."""
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO work
                (asset, unit, spec, batch_key, status, reason, made, budget_mb, run_id)
            VALUES
                (%(asset)s, %(unit)s, %(spec)s, %(batch_key)s, %(status)s, %(reason)s, %(made)s,
                 %(budget_mb)s, %(run_id)s)
            ON CONFLICT (asset, unit, spec) DO UPDATE SET
                batch_key = excluded.batch_key, status = excluded.status,
                reason = excluded.reason, made = excluded.made, budget_mb = excluded.budget_mb,
                run_id = excluded.run_id, done_at = now()
            """,
            [
                {
                    "asset": job.asset,
                    "spec": job.spec,
                    "run_id": job.run_id,
                    "unit": outcome.unit,
                    "batch_key": outcome.batch_key,
                    "status": outcome.status.value,
                    "reason": outcome.reason,
                    "made": outcome.made,
                    "budget_mb": outcome.budget_mb,
                }
                for outcome in outcomes
            ],
        )


def take_turn(db: Connection, job: Job) -> None:
    """Be the only one who writes what this asset makes, until the transaction ends.

    Two runs over the same units would else put the same rows in the same place, where one of them
    fails, or wait for each other.
    """
    db.execute(
        "SELECT pg_advisory_xact_lock(hashtext('asset ' || %(asset)s))", {"asset": job.asset}
    )


def not_done(db: Connection, job: Job, units: Sequence[str]) -> list[str]:
    """Those of some units that the job has still to do, in their order."""
    rows = db.execute(
        """
        SELECT unit FROM unnest(%(units)s::text[]) WITH ORDINALITY AS wanted (unit, place)
        WHERE NOT is_done(%(asset)s, unit, %(spec)s, %(budget_mb)s)
        ORDER BY place
        """,
        {
            "units": list(units),
            "asset": job.asset,
            "spec": job.spec,
            "budget_mb": job.budget_mb,
        },
    ).fetchall()
    return [unit for (unit,) in rows]


def forget(db: Connection, job: Job) -> int:
    """Drop the ledger rows of a job's partitions, under every spec, so that they are done anew."""
    return db.execute(
        "DELETE FROM work WHERE asset = %(asset)s AND batch_key = ANY(%(keys)s)",
        {"asset": job.asset, "keys": list(job.batch_keys)},
    ).rowcount


def forget_earlier_specs(db: Connection, job: Job) -> int:
    """Drop ledger rows of other specs in a job's partitions, once the job is complete."""
    return db.execute(
        """
        DELETE FROM work
        WHERE asset = %(asset)s AND batch_key = ANY(%(keys)s) AND spec <> %(spec)s
        """,
        {"asset": job.asset, "keys": list(job.batch_keys), "spec": job.spec},
    ).rowcount


def summary(db: Connection, job: Job) -> list[BatchSummary]:
    """One row per partition of the job, in the job's order, with at most ten reasons each."""
    with db.cursor(row_factory=class_row(BatchSummary)) as cursor:
        return cursor.execute(
            """
            SELECT key AS batch_key,
                   count(unit)::int AS units,
                   coalesce(sum(made), 0)::int AS made,
                   (count(*) FILTER (WHERE run_id = %(run_id)s))::int AS new_units,
                   (count(*) FILTER (WHERE status = 'degraded'))::int AS degraded,
                   (count(*) FILTER (WHERE status = 'failed'))::int AS failed,
                   coalesce((array_agg(DISTINCT reason) FILTER (WHERE reason <> ''))[1:10], '{}')
                       AS reasons,
                   max(run_id) FILTER (WHERE run_id <> %(run_id)s) AS other_run
            FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS wanted (key, place)
            LEFT JOIN work ON batch_key = key AND asset = %(asset)s AND spec = %(spec)s
            GROUP BY key, place
            ORDER BY place
            """,
            {
                "asset": job.asset,
                "spec": job.spec,
                "keys": list(job.batch_keys),
                "run_id": job.run_id,
            },
        ).fetchall()


def forget_units(db: Connection, asset: str, units: Sequence[str]) -> int:
    """Drop what one asset did for some units: what it was made from has been made anew."""
    return db.execute(
        "DELETE FROM work WHERE asset = %(asset)s AND unit = ANY(%(units)s)",
        {"asset": asset, "units": list(units)},
    ).rowcount


def exchange(db: Connection, serving: str, waiting: str, spec: str) -> None:
    """Let two assets change places: the one that serves takes over what was done under a spec.

    Args:
        db: A connection, in the transaction that makes the change.
        serving: The asset whose results are in use.
        waiting: The asset that prepares, and keeps, the results of another encoder.
        spec: Spec id of what is to be in use.
    """
    values = {"serving": serving, "next": waiting, "spec": spec}
    # Of one encoder the ledger has either asset, and both where it was configured alone before.
    db.execute("DELETE FROM work WHERE asset = %(next)s AND spec <> %(spec)s", values)
    db.execute(
        "UPDATE work SET asset = %(next)s WHERE asset = %(serving)s AND spec <> %(spec)s", values
    )
    db.execute(
        """
        DELETE FROM work AS w WHERE asset = %(next)s AND spec = %(spec)s
          AND EXISTS (SELECT FROM work AS o WHERE o.asset = %(serving)s
                        AND o.unit = w.unit AND o.spec = w.spec)
        """,
        values,
    )
    db.execute(
        "UPDATE work SET asset = %(serving)s WHERE asset = %(next)s AND spec = %(spec)s", values
    )


def reason_of_failure(db: Connection, asset: str, unit: str) -> str:
    """Why a unit failed last, under whatever spec and in whatever partition; empty: it did not."""
    row = db.execute(
        """
        SELECT reason FROM work
        WHERE asset = %(asset)s AND unit = %(unit)s AND status = 'failed'
        ORDER BY done_at DESC LIMIT 1
        """,
        {"asset": asset, "unit": unit},
    ).fetchone()
    return "" if row is None else row[0]


def has_failed(db: Connection, asset: str, unit: str) -> bool:
    """Whether a unit failed, under whatever spec."""
    row = db.execute(
        """
        SELECT EXISTS (SELECT FROM work
                       WHERE asset = %(asset)s AND unit = %(unit)s AND status = 'failed')
        """,
        {"asset": asset, "unit": unit},
    ).fetchone()
    assert row is not None
    return row[0]


def forget_failures(db: Connection, document_id: str) -> int:
    """Drop what failed of a document and its pages, so that it is tried again."""
    return db.execute(
        """
        DELETE FROM work WHERE status = 'failed' AND unit IN (
            SELECT document_id FROM documents WHERE document_id = %(id)s
            UNION ALL
            SELECT page_unit(document_id, page)
            FROM documents CROSS JOIN generate_series(1, page_count) AS page
            WHERE document_id = %(id)s)
        """,
        {"id": document_id},
    ).rowcount


def troubles(db: Connection, document_id: str) -> list[Trouble]:
    """Everything of copy search that did not end well for one document, reports themselves apart.

    Whichever partition it belongs to: a pair with a panel of an earlier document is worked on in
    the partition of the later one.
    """
    with db.cursor(row_factory=class_row(Trouble)) as cursor:
        return cursor.execute(
            """
            WITH own AS (
                SELECT panel_id FROM panels WHERE document_id = %(document_id)s
            ), units AS (
                SELECT document_id AS unit FROM documents WHERE document_id = %(document_id)s
                UNION
                SELECT page_unit(document_id, page)
                FROM documents CROSS JOIN generate_series(1, page_count) AS page
                WHERE document_id = %(document_id)s
                UNION
                SELECT panel_id FROM own
                UNION
                SELECT panel_a || '+' || panel_b FROM candidate_pairs
                WHERE panel_a IN (SELECT panel_id FROM own)
                   OR panel_b IN (SELECT panel_id FROM own)
            )
            SELECT asset, unit, status, reason FROM work
            WHERE unit IN (SELECT unit FROM units)
              AND (status <> 'ok' OR reason <> '') AND asset <> ALL(%(apart)s)
            ORDER BY asset, unit
            """,
            {"document_id": document_id, "apart": ["duplicate_reports", *OF_TEXT]},
        ).fetchall()
