"""Gallery items: the known things, and the pictures of them as they were received."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

import store.batches
from core.gallery import GalleryItem, ReceivedImage
from core.work import Job


@dataclass(frozen=True)
class PendingItem:
    """An item that is still to be checked.

    Attributes:
        images: How many reference pictures it has that could be read.
        reasons: Why the others could not.
    """

    unit: str
    batch_key: str
    name: str
    images: int
    reasons: list[str]


def add(
    db: Connection,
    batch_key: str,
    items: Sequence[GalleryItem],
    images: Sequence[ReceivedImage],
) -> tuple[int, int]:
    """Remember items and their pictures in one transaction of the caller's.

    An item that is there keeps its batch; what the manifest says of it now takes the place of what
    an earlier one said, and pictures are added to those it has. Of those that could not be read,
    the reasons stay that still hold.

    Returns:
        How many items and how many pictures are new; a batch without a new item is none.
    """
    store.batches.add(db, "gallery", [batch_key])
    new = 0
    for item in items:
        values = {**vars(item), "batch_key": batch_key}
        row = db.execute(
            """
            INSERT INTO gallery_items
                (item_id, batch_key, name, set_code, number, language, source)
            VALUES (%(item_id)s, %(batch_key)s, %(name)s, %(set_code)s, %(number)s, %(language)s,
                    %(source)s)
            ON CONFLICT (item_id) DO UPDATE SET
                name = excluded.name, set_code = excluded.set_code, number = excluded.number,
                language = excluded.language, source = excluded.source
            RETURNING xmax = 0
            """,
            values,
        ).fetchone()
        new += bool(row and row[0])
    db.execute(
        """
        DELETE FROM batches AS b WHERE batch_key = %(key)s
          AND NOT EXISTS (SELECT FROM gallery_items AS i WHERE i.batch_key = b.batch_key)
        """,
        {"key": batch_key},
    )
    unread = db.execute(
        """
        DELETE FROM gallery_images
        WHERE item_id = ANY(%(items)s) AND file_key = '' AND template_id <> ALL(%(images)s)
        RETURNING item_id
        """,
        {
            "items": [item.item_id for item in items],
            "images": [image.template_id for image in images],
        },
    ).fetchall()
    _look_again(db, [item_id for (item_id,) in unread])
    return new, add_images(db, images)


def add_images(db: Connection, images: Sequence[ReceivedImage]) -> int:
    """Remember reference pictures; those that are there stay, and one that failed is tried again.

    One that a correction gave and a manifest names is official. Their items and templates are to be
    looked at again; of one that a correction gives, the template alone is to be made.

    Returns:
        How many that could be read are new.
    """
    new = 0
    named: list[str] = []
    learned: list[str] = []
    for image in images:
        values = {**vars(image), "template_id": image.template_id}
        row = db.execute(
            """
            INSERT INTO gallery_images
                (template_id, item_id, image_sha256, name, file_key, reason, correction_id)
            VALUES (%(template_id)s, %(item_id)s, %(image_sha256)s, %(name)s, %(file_key)s,
                    %(reason)s, %(correction_id)s)
            ON CONFLICT (template_id) DO UPDATE SET
                file_key = excluded.file_key, reason = excluded.reason,
                correction_id = excluded.correction_id
            WHERE gallery_images.reason <> excluded.reason
               OR gallery_images.correction_id IS NOT NULL AND excluded.correction_id IS NULL
            RETURNING item_id, xmax = 0
            """,
            values,
        ).fetchone()
        if row is not None:
            (named if image.correction_id is None else learned).append(row[0])
            new += bool(row[1] and image.file_key)
    _look_again(db, named)
    _forget_finished(db, learned, ["gallery_templates", "template_embeddings", "confusion_pairs"])
    return new


def _look_again(db: Connection, item_ids: Sequence[str]) -> None:
    """Have items checked, and what is made of them."""
    db.execute(
        "DELETE FROM work WHERE asset = 'gallery_items' AND unit = ANY(%(ids)s)",
        {"ids": list(item_ids)},
    )
    _forget_finished(db, item_ids, None)


def _forget_finished(db: Connection, item_ids: Sequence[str], assets: list[str] | None) -> None:
    """Have the batches of items gone through again, for some assets or for all."""
    db.execute(
        """
        DELETE FROM finished
        WHERE (%(assets)s::text[] IS NULL OR asset = ANY(%(assets)s)) AND batch_key IN (
            SELECT batch_key FROM gallery_items WHERE item_id = ANY(%(ids)s))
        """,
        {"ids": list(item_ids), "assets": assets},
    )


def forget_learned(db: Connection, template_id: str) -> None:
    """Take a picture that a correction gave out again, with its template and vectors."""
    gone = db.execute(
        """
        DELETE FROM gallery_images
        WHERE template_id = %(id)s AND correction_id IS NOT NULL
        RETURNING item_id
        """,
        {"id": template_id},
    ).fetchone()
    if gone is not None:
        db.execute(
            """
            DELETE FROM work
            WHERE unit = %(id)s OR asset = 'confusion_pairs' AND unit = %(item_id)s
            """,
            {"id": template_id, "item_id": gone[0]},
        )


def pending(db: Connection, job: Job, limit: int) -> list[PendingItem]:
    """Items that the job has still to check, in order."""
    with db.cursor(row_factory=class_row(PendingItem)) as cursor:
        return cursor.execute(
            """
            SELECT item_id AS unit, batch_key, i.name,
                   (count(*) FILTER (WHERE g.file_key <> ''))::int AS images,
                   coalesce(array_agg(g.reason) FILTER (WHERE g.reason <> ''), '{}') AS reasons
            FROM gallery_items AS i LEFT JOIN gallery_images AS g USING (item_id)
            WHERE batch_key = ANY(%(keys)s)
              AND NOT is_done(%(asset)s, item_id, %(spec)s, %(budget_mb)s)
            GROUP BY item_id, batch_key, i.name ORDER BY item_id LIMIT %(limit)s
            """,
            {
                "keys": list(job.batch_keys),
                "asset": job.asset,
                "spec": job.spec,
                "budget_mb": job.budget_mb,
                "limit": limit,
            },
        ).fetchall()


def get(db: Connection, item_ids: Sequence[str]) -> dict[str, GalleryItem]:
    """Items by their ids; those that are not there are left out."""
    with db.cursor(row_factory=class_row(GalleryItem)) as cursor:
        found = cursor.execute(
            """
            SELECT item_id, name, set_code, number, language, source
            FROM gallery_items WHERE item_id = ANY(%(ids)s)
            """,
            {"ids": list(item_ids)},
        ).fetchall()
    return {item.item_id: item for item in found}


def batches_of(db: Connection, item_ids: Iterable[str]) -> dict[str, str]:
    """The batch of each of some items; those that are not there are left out."""
    rows = db.execute(
        "SELECT item_id, batch_key FROM gallery_items WHERE item_id = ANY(%(ids)s)",
        {"ids": list(item_ids)},
    ).fetchall()
    return dict(rows)


@dataclass(frozen=True)
class Contents:
    """What the gallery holds.

    Attributes:
        items: Known items.
        without: Of these, how many have no template.
        templates: Templates that can be searched, learned ones included.
        learned: Those that corrections gave.
        unread: Pictures that could not be read.
        sets: How many sets there are.
        languages: Items by language.
        oldest_days: Age of the oldest template, in days.
    """

    items: int
    without: int
    templates: int
    learned: int
    unread: int
    sets: int
    languages: dict[str, int]
    oldest_days: float


def contents(db: Connection) -> Contents:
    """What the gallery holds, counted."""
    with db.cursor(row_factory=class_row(Contents)) as cursor:
        row = cursor.execute(
            """
            SELECT (SELECT count(*)::int FROM gallery_items) AS items,
                   (SELECT count(*)::int FROM gallery_items AS i WHERE NOT EXISTS (
                        SELECT FROM gallery_images JOIN gallery_templates USING (template_id)
                        WHERE item_id = i.item_id)) AS without,
                   (SELECT count(*)::int FROM gallery_templates) AS templates,
                   (SELECT count(*)::int FROM gallery_templates
                    JOIN gallery_images USING (template_id)
                    WHERE correction_id IS NOT NULL) AS learned,
                   (SELECT count(*)::int FROM gallery_images WHERE reason <> '') AS unread,
                   (SELECT count(DISTINCT set_code)::int FROM gallery_items) AS sets,
                   (SELECT coalesce(jsonb_object_agg(language, items), '{}') FROM (
                        SELECT language, count(*)::int AS items FROM gallery_items
                        GROUP BY language) AS each) AS languages,
                   (SELECT coalesce(extract(epoch FROM now() - min(received_at)) / 86400, 0)::float
                    FROM gallery_images) AS oldest_days
            """
        ).fetchone()
    assert row is not None
    return row


def troubles(db: Connection, batch_keys: Sequence[str], limit: int = 1000) -> list[str]:
    """What did not end well in some batches of the gallery, each reason once."""
    rows = db.execute(
        """
        SELECT reason FROM work
        WHERE batch_key = ANY(%(keys)s) AND (status <> 'ok' OR reason <> '')
        GROUP BY reason ORDER BY min(unit), reason LIMIT %(limit)s
        """,
        {"keys": list(batch_keys), "limit": limit},
    ).fetchall()
    return [reason for (reason,) in rows]
