"""Corrections: what people say a detection is. Events are added and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection
from psycopg.rows import class_row

from core.learning import Event


@dataclass(frozen=True)
class NewCorrection:
    """What somebody says; see the table for what the fields mean."""

    verdict: str
    detection_id: str
    scan_id: str
    item_id: str | None
    revokes: int | None
    user_name: str
    curator: bool
    note: str
    predicted_item: str | None
    predicted_decision: str | None
    predicted_score: float | None
    crop_key: str
    crop_sha256: str


@dataclass(frozen=True)
class Correction:
    """An event as it is stored."""

    correction_id: int
    verdict: str
    detection_id: str
    item_id: str | None
    revokes: int | None
    user_name: str
    curator: bool
    predicted_item: str | None
    predicted_decision: str | None
    predicted_score: float | None
    crop_key: str
    crop_sha256: str
    evaluation: bool
    made_at: datetime

    @property
    def event(self) -> Event:
        """As the rules of learning read it."""
        return Event(
            correction_id=self.correction_id,
            verdict=self.verdict,
            detection_id=self.detection_id,
            item_id=self.item_id,
            revokes=self.revokes,
            user=self.user_name,
            curator=self.curator,
            crop_sha256=self.crop_sha256,
            evaluation=self.evaluation,
        )


def add(db: Connection, correction: NewCorrection) -> int:
    """Add an event in a transaction of the caller's; returns its id."""
    _take_turns(db)
    row = db.execute(
        """
        INSERT INTO corrections
            (verdict, detection_id, scan_id, item_id, revokes, user_name, curator, note,
             predicted_item, predicted_decision, predicted_score, crop_key, crop_sha256)
        VALUES (%(verdict)s, %(detection_id)s, %(scan_id)s, %(item_id)s, %(revokes)s,
                %(user_name)s, %(curator)s, %(note)s, %(predicted_item)s, %(predicted_decision)s,
                %(predicted_score)s, %(crop_key)s, %(crop_sha256)s)
        RETURNING correction_id
        """,
        vars(correction),
    ).fetchone()
    assert row is not None
    return row[0]


def revoke(db: Connection, revokes: int, user: str, curator: bool, note: str) -> int:
    """Add an event that takes another back, in a transaction of the caller's; returns its id."""
    _take_turns(db)
    row = db.execute(
        """
        INSERT INTO corrections
            (verdict, detection_id, scan_id, revokes, user_name, curator, note, crop_key,
             crop_sha256)
        SELECT 'revoke', detection_id, scan_id, correction_id, %(user)s, %(curator)s, %(note)s,
               crop_key, crop_sha256
        FROM corrections WHERE correction_id = %(id)s
        RETURNING correction_id
        """,
        {"id": revokes, "user": user, "curator": curator, "note": note},
    ).fetchone()
    assert row is not None
    return row[0]


def _take_turns(db: Connection) -> None:
    """Have events appear in the order of their ids, so that whoever saw one missed none before."""
    db.execute("SELECT pg_advisory_xact_lock(hashtext('corrections'))")


def items(db: Connection) -> list[str]:
    """Every item that a correction ever named."""
    rows = db.execute(
        "SELECT DISTINCT item_id FROM corrections WHERE item_id IS NOT NULL ORDER BY item_id"
    ).fetchall()
    return [item_id for (item_id,) in rows]


def get(db: Connection, correction_id: int) -> Correction | None:
    """One event."""
    found = _found(db, correction_id)
    return found[0] if found else None


def everything(db: Connection) -> list[Correction]:
    """All events, in the order in which they were made."""
    return _found(db, None)


def _found(db: Connection, correction_id: int | None) -> list[Correction]:
    with db.cursor(row_factory=class_row(Correction)) as cursor:
        return cursor.execute(
            """
            SELECT correction_id, verdict, detection_id, item_id, revokes, user_name, curator,
                   predicted_item, predicted_decision, predicted_score, crop_key, crop_sha256,
                   EXISTS (SELECT FROM scans AS s
                           WHERE s.scan_id = c.scan_id AND s.evaluation) AS evaluation,
                   made_at
            FROM corrections AS c
            WHERE %(id)s::bigint IS NULL OR correction_id = %(id)s
            ORDER BY correction_id
            """,
            {"id": correction_id},
        ).fetchall()


def since(db: Connection, correction_id: int) -> list[int]:
    """Numbers of the events after one, in order."""
    rows = db.execute(
        "SELECT correction_id FROM corrections WHERE correction_id > %(id)s ORDER BY correction_id",
        {"id": correction_id},
    ).fetchall()
    return [number for (number,) in rows]


@dataclass(frozen=True)
class LearnedTemplate:
    """What became of the crop that a correction names."""

    correction_id: int
    item_id: str
    template_id: str
    state: str
    reason: str


def learned(db: Connection) -> list[LearnedTemplate]:
    """What became of every crop that corrections name."""
    with db.cursor(row_factory=class_row(LearnedTemplate)) as cursor:
        return cursor.execute(
            """
            SELECT correction_id, item_id, template_id, state, reason FROM learned_templates
            ORDER BY correction_id
            """
        ).fetchall()


def keep_learned(db: Connection, templates: Sequence[LearnedTemplate]) -> None:
    """Store what became of crops, in place of what was said before."""
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO learned_templates (correction_id, item_id, template_id, state, reason)
            VALUES (%(correction_id)s, %(item_id)s, %(template_id)s, %(state)s, %(reason)s)
            ON CONFLICT (correction_id) DO UPDATE SET
                state = excluded.state, reason = excluded.reason, decided_at = now()
            WHERE (learned_templates.state, learned_templates.reason)
                  IS DISTINCT FROM (excluded.state, excluded.reason)
            """,
            [vars(template) for template in templates],
        )


@dataclass(frozen=True)
class Label:
    """A card that was kept aside to measure with, and what people say it is."""

    crop_key: str
    item_id: str


def labels(db: Connection) -> list[Label]:
    """The cards that were kept aside and named: by a curator, or else by whoever said so last."""
    with db.cursor(row_factory=class_row(Label)) as cursor:
        return cursor.execute(
            """
            SELECT DISTINCT ON (detection_id) crop_key, item_id
            FROM corrections AS c JOIN scans AS s USING (scan_id)
            WHERE s.evaluation AND verdict = 'is'
              AND NOT EXISTS (SELECT FROM corrections AS r WHERE r.revokes = c.correction_id)
            ORDER BY detection_id, curator DESC, correction_id DESC
            """
        ).fetchall()


def items_of(db: Connection, correction_ids: Sequence[int]) -> list[str]:
    """The items that some events speak of, those that they take back or contradict included."""
    rows = db.execute(
        """
        SELECT DISTINCT o.item_id FROM corrections AS c
        JOIN corrections AS o ON o.crop_sha256 = c.crop_sha256 OR o.correction_id = c.revokes
        WHERE c.correction_id = ANY(%(ids)s) AND o.item_id IS NOT NULL
        """,
        {"ids": list(correction_ids)},
    ).fetchall()
    return [item_id for (item_id,) in rows]
