"""Scans: photographs as received, and the upright pictures that are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

import store.batches
from core.work import Job


@dataclass(frozen=True)
class Scan:
    """A photograph as received.

    Attributes:
        scan_id: SHA-256 of the file.
        sets: Items are sought in these sets alone; empty: in all.
        languages: And in these languages alone.
        evaluation: Kept aside to measure with.
    """

    scan_id: str
    name: str
    size_bytes: int
    file_key: str
    reason: str = ""
    sets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    evaluation: bool = False

    @property
    def batch_key(self) -> str:
        """Its partition: a photograph of its own, since cards are many on one."""
        return f"s-{self.scan_id[:12]}"


@dataclass(frozen=True)
class PendingScan:
    """A photograph that is still to be made upright."""

    unit: str
    batch_key: str
    name: str
    file_key: str
    reason: str
    scale: float
    loss: str

    @property
    def picture_key(self) -> str:
        """Where its upright picture is, or goes."""
        return f"scans/{self.unit[:2]}/{self.unit}.jpg"


@dataclass(frozen=True)
class Picture:
    """An upright picture in which items are to be found."""

    unit: str
    batch_key: str
    name: str
    image_key: str
    width_px: int
    height_px: int
    scale: float


def add(db: Connection, scan: Scan) -> bool:
    """Remember a photograph; returns whether it is new.

    Other filters than before have its items sought anew. One that was kept aside stays so.
    """
    store.batches.add(db, "scan", [scan.batch_key])
    values = {
        **vars(scan),
        "sets": list(scan.sets),
        "languages": list(scan.languages),
        "batch_key": scan.batch_key,
    }
    before = db.execute(
        "SELECT sets, languages, reason FROM scans WHERE scan_id = %(scan_id)s FOR UPDATE", values
    ).fetchone()
    db.execute(
        """
        INSERT INTO scans
            (scan_id, batch_key, name, size_bytes, file_key, reason, sets, languages, evaluation)
        VALUES (%(scan_id)s, %(batch_key)s, %(name)s, %(size_bytes)s, %(file_key)s, %(reason)s,
                %(sets)s, %(languages)s, %(evaluation)s)
        ON CONFLICT (scan_id) DO UPDATE SET
            sets = excluded.sets, languages = excluded.languages, reason = excluded.reason,
            file_key = excluded.file_key, evaluation = scans.evaluation OR excluded.evaluation
        """,
        values,
    )
    if before is not None and (before[0], before[1]) != (values["sets"], values["languages"]):
        db.execute(
            """
            DELETE FROM work WHERE asset IN ('candidates', 'identifications')
              AND batch_key = %(batch_key)s
            """,
            values,
        )
        db.execute("DELETE FROM finished WHERE batch_key = %(batch_key)s", values)
    failed = db.execute(  # what failed is tried again, now that the file is there
        "DELETE FROM work WHERE status = 'failed' AND batch_key = %(batch_key)s", values
    ).rowcount
    if failed:
        db.execute("DELETE FROM finished WHERE batch_key = %(batch_key)s", values)
    return before is None


def get(db: Connection, scan_ids: Sequence[str]) -> list[Scan]:
    """Photographs by their ids, in order of arrival."""
    with db.cursor() as cursor:
        rows = cursor.execute(
            """
            SELECT scan_id, name, size_bytes, file_key, reason, sets, languages, evaluation
            FROM scans JOIN batches USING (batch_key)
            WHERE scan_id = ANY(%(ids)s) ORDER BY ordinal
            """,
            {"ids": list(scan_ids)},
        ).fetchall()
    return [
        Scan(scan_id, name, size_bytes, key, reason, tuple(sets), tuple(languages), evaluation)
        for scan_id, name, size_bytes, key, reason, sets, languages, evaluation in rows
    ]


def pending(db: Connection, job: Job, limit: int) -> list[PendingScan]:
    """Photographs of the job's batches that are still to be made upright, in order."""
    with db.cursor(row_factory=class_row(PendingScan)) as cursor:
        return cursor.execute(
            """
            SELECT scan_id AS unit, batch_key, name, file_key, reason,
                   coalesce(scale, 1) AS scale, coalesce(loss, '') AS loss
            FROM scans LEFT JOIN scan_pictures USING (scan_id)
            WHERE batch_key = ANY(%(keys)s)
              AND NOT is_done(%(asset)s, scan_id, %(spec)s, %(budget_mb)s)
            ORDER BY scan_id LIMIT %(limit)s
            """,
            _of(job, limit),
        ).fetchall()


def keep_picture(
    db: Connection,
    scan_id: str,
    spec: str,
    image_key: str,
    size_px: tuple[int, int],
    scale: float,
    loss: str = "",
    *,
    whole: bool = True,
) -> None:
    """Store an upright picture in place of what was there, with all that was found on it.

    All of that is to be found anew. ``loss`` says what was lost in making it, ``whole`` whether
    the file as received has nothing more to give.
    """
    db.execute(
        """
        DELETE FROM work WHERE asset IN ('candidates', 'identifications') AND unit IN (
            SELECT detection_id FROM detections WHERE scan_id = %(id)s)
        """,
        {"id": scan_id},
    )
    db.execute(
        """
        DELETE FROM finished
        WHERE asset IN ('detections', 'candidates', 'identifications')
          AND batch_key = (SELECT batch_key FROM scans WHERE scan_id = %(id)s)
        """,
        {"id": scan_id},
    )
    db.execute("DELETE FROM scan_pictures WHERE scan_id = %(id)s", {"id": scan_id})
    db.execute(
        """
        INSERT INTO scan_pictures
            (scan_id, spec, image_key, width_px, height_px, scale, loss, whole)
        VALUES (%(id)s, %(spec)s, %(key)s, %(width)s, %(height)s, %(scale)s, %(loss)s, %(whole)s)
        """,
        {
            "id": scan_id,
            "spec": spec,
            "key": image_key,
            "width": size_px[0],
            "height": size_px[1],
            "scale": scale,
            "loss": loss,
            "whole": whole,
        },
    )
    db.execute("DELETE FROM work WHERE asset = 'detections' AND unit = %(id)s", {"id": scan_id})


def pending_pictures(db: Connection, job: Job, limit: int) -> list[Picture]:
    """Upright pictures of the job's batches in which items are still to be found, in order."""
    with db.cursor(row_factory=class_row(Picture)) as cursor:
        return cursor.execute(
            """
            SELECT scan_id AS unit, batch_key, name, image_key, width_px, height_px, scale
            FROM scan_pictures JOIN scans USING (scan_id)
            WHERE batch_key = ANY(%(keys)s)
              AND NOT is_done(%(asset)s, scan_id, %(spec)s, %(budget_mb)s)
            ORDER BY scan_id LIMIT %(limit)s
            """,
            _of(job, limit),
        ).fetchall()


def pictures(db: Connection, batch_keys: Sequence[str]) -> list[Picture]:
    """The upright pictures of some batches, in order of arrival."""
    with db.cursor(row_factory=class_row(Picture)) as cursor:
        return cursor.execute(
            """
            SELECT scan_id AS unit, batch_key, name, image_key, width_px, height_px, scale
            FROM scan_pictures JOIN scans USING (scan_id) JOIN batches USING (batch_key)
            WHERE batch_key = ANY(%(keys)s) ORDER BY ordinal
            """,
            {"keys": list(batch_keys)},
        ).fetchall()


def files_with_picture(db: Connection, batch_keys: Sequence[str]) -> list[str]:
    """Keys of the files as received that nobody needs any more: their picture has all of them."""
    rows = db.execute(
        """
        SELECT file_key FROM scans JOIN scan_pictures USING (scan_id)
        WHERE batch_key = ANY(%(keys)s) AND whole ORDER BY scan_id
        """,
        {"keys": list(batch_keys)},
    ).fetchall()
    return [row[0] for row in rows]


@dataclass(frozen=True)
class ScanTrouble:
    """Something that did not end well for a photograph."""

    scan_id: str
    asset: str
    status: str
    reason: str


def troubles(db: Connection, scan_ids: Sequence[str]) -> list[ScanTrouble]:
    """What did not end well for some photographs, in the order in which they are worked on."""
    with db.cursor(row_factory=class_row(ScanTrouble)) as cursor:
        return cursor.execute(
            """
            SELECT s.scan_id, asset, status, w.reason
            FROM scans AS s JOIN work AS w USING (batch_key)
            WHERE s.scan_id = ANY(%(ids)s) AND (status <> 'ok' OR w.reason <> '')
            ORDER BY s.scan_id, array_position(
                ARRAY['scans', 'detections', 'candidates', 'identifications'], asset), unit
            """,
            {"ids": list(scan_ids)},
        ).fetchall()


def _of(job: Job, limit: int) -> dict[str, object]:
    return {
        "keys": list(job.batch_keys),
        "asset": job.asset,
        "spec": job.spec,
        "budget_mb": job.budget_mb,
        "limit": limit,
    }


def has_picture(db: Connection, scan_id: str) -> bool:
    """Whether the upright picture of a photograph has been made, of all of it."""
    row = db.execute(
        "SELECT EXISTS (SELECT FROM scan_pictures WHERE scan_id = %(id)s AND whole)",
        {"id": scan_id},
    ).fetchone()
    assert row is not None
    return row[0]


def is_kept_aside(db: Connection, file_sha256: str) -> bool:
    """Whether a file with this content is a photograph that is kept aside to measure with."""
    row = db.execute(
        "SELECT EXISTS (SELECT FROM scans WHERE scan_id = %(hash)s AND evaluation)",
        {"hash": file_sha256},
    ).fetchone()
    assert row is not None
    return row[0]


def has_taught(db: Connection, scan_id: str) -> bool:
    """Whether a photograph, or a crop of it, is a reference picture in the gallery."""
    row = db.execute(
        """
        SELECT EXISTS (SELECT FROM gallery_images WHERE image_sha256 = %(id)s)
            OR EXISTS (SELECT FROM gallery_images AS g JOIN corrections AS c USING (correction_id)
                       WHERE c.scan_id = %(id)s)
            OR EXISTS (SELECT FROM gallery_images AS g
                       JOIN detections AS d ON d.crop_sha256 = g.image_sha256
                       WHERE d.scan_id = %(id)s)
        """,
        {"id": scan_id},
    ).fetchone()
    assert row is not None
    return row[0]
