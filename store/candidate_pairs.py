"""Candidate pairs: what a recall channel brings close; nothing is claimed yet."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class Candidate:
    """Two panels (or one, for copy-move) that one channel proposes; ``panel_a <= panel_b``."""

    panel_a: str
    panel_b: str
    channel: str
    score: float
    votes: int


@dataclass(frozen=True)
class PendingPair:
    """A pair to verify, whichever channels proposed it."""

    panel_a: str
    panel_b: str
    batch_key: str
    channels: list[str]

    @property
    def unit(self) -> str:
        """Both panel ids, the smaller first."""
        return f"{self.panel_a}+{self.panel_b}"


def add(db: Connection, spec: str, batch_key: str, candidates: Sequence[Candidate]) -> None:
    """Store candidates; one that is there already keeps the batch that found it first."""
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO candidate_pairs
                (panel_a, panel_b, channel, spec, batch_key, score, votes)
            VALUES
                (%(panel_a)s, %(panel_b)s, %(channel)s, %(spec)s, %(batch_key)s, %(score)s,
                 %(votes)s)
            ON CONFLICT (panel_a, panel_b, channel, spec) DO NOTHING
            """,
            [{**vars(candidate), "spec": spec, "batch_key": batch_key} for candidate in candidates],
        )


def forget_other_specs(db: Connection, spec: str, batch_keys: Sequence[str]) -> int:
    """Drop candidates of these partitions that were made under another spec."""
    return db.execute(
        "DELETE FROM candidate_pairs WHERE batch_key = ANY(%(keys)s) AND spec <> %(spec)s",
        {"keys": list(batch_keys), "spec": spec},
    ).rowcount


def pending(db: Connection, job: Job, candidate_spec: str, limit: int) -> list[PendingPair]:
    """Pairs that the job's partitions propose and that it has still to verify, in order."""
    with db.cursor(row_factory=class_row(PendingPair)) as cursor:
        return cursor.execute(
            """
            SELECT panel_a, panel_b, min(batch_key) AS batch_key,
                   array_agg(DISTINCT channel ORDER BY channel) AS channels
            FROM candidate_pairs
            WHERE batch_key = ANY(%(keys)s) AND spec = %(candidate_spec)s
              AND NOT is_done(%(asset)s, panel_a || '+' || panel_b, %(spec)s, %(budget_mb)s)
            GROUP BY panel_a, panel_b
            ORDER BY panel_a, panel_b
            LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "candidate_spec": candidate_spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def panel_bytes(db: Connection, batch_keys: Sequence[str], spec: str, features_spec: str) -> int:
    """Pixels (RGB) and packed features of all panels in the candidates of these partitions."""
    row = db.execute(
        """
        SELECT coalesce(sum(3 * width_px * height_px + octet_length(features)), 0)::bigint
        FROM panels JOIN panel_features USING (panel_id)
        WHERE panel_features.spec = %(features_spec)s AND panel_id IN (
            SELECT unnest(ARRAY[panel_a, panel_b]) FROM candidate_pairs
            WHERE batch_key = ANY(%(keys)s) AND spec = %(spec)s)
        """,
        {"keys": list(batch_keys), "spec": spec, "features_spec": features_spec},
    ).fetchone()
    assert row is not None
    return row[0]


def of_pair(db: Connection, spec: str, panel_a: str, panel_b: str) -> list[Candidate]:
    """What each channel said of one pair."""
    with db.cursor(row_factory=class_row(Candidate)) as cursor:
        return cursor.execute(
            """
            SELECT panel_a, panel_b, channel, score, votes FROM candidate_pairs
            WHERE panel_a = %(panel_a)s AND panel_b = %(panel_b)s AND spec = %(spec)s
            ORDER BY channel
            """,
            {"panel_a": panel_a, "panel_b": panel_b, "spec": spec},
        ).fetchall()
