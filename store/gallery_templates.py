"""Gallery templates: upright pictures of one size, one for each reference picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

from core.work import Job


@dataclass(frozen=True)
class PendingTemplate:
    """A reference picture of which a template is still to be made."""

    unit: str
    batch_key: str
    item_id: str
    name: str
    file_key: str


@dataclass(frozen=True)
class StoredTemplate:
    """A template, and whose it is."""

    template_id: str
    item_id: str
    image_key: str
    name: str
    set_code: str
    number: str
    language: str


@dataclass(frozen=True)
class PendingTemplateVector:
    """A template that is still to be embedded."""

    unit: str
    batch_key: str
    item_id: str
    image_key: str


def pending(db: Connection, job: Job, limit: int) -> list[PendingTemplate]:
    """Reference pictures of the job's batches without a template, in order."""
    with db.cursor(row_factory=class_row(PendingTemplate)) as cursor:
        return cursor.execute(
            """
            SELECT template_id AS unit, batch_key, item_id, g.name, file_key
            FROM gallery_images AS g JOIN gallery_items USING (item_id)
            WHERE batch_key = ANY(%(keys)s) AND file_key <> ''
              AND NOT is_done(%(asset)s, template_id, %(spec)s, %(budget_mb)s)
            ORDER BY item_id, template_id LIMIT %(limit)s
            """,
            _of(job, limit),
        ).fetchall()


def pending_vectors(db: Connection, job: Job, limit: int) -> list[PendingTemplateVector]:
    """Templates of the job's batches that its encoder has not seen, in order."""
    with db.cursor(row_factory=class_row(PendingTemplateVector)) as cursor:
        return cursor.execute(
            """
            SELECT template_id AS unit, batch_key, item_id, image_key
            FROM gallery_templates JOIN gallery_images USING (template_id)
            JOIN gallery_items USING (item_id)
            WHERE batch_key = ANY(%(keys)s)
              AND NOT is_done(%(asset)s, template_id, %(spec)s, %(budget_mb)s)
            ORDER BY item_id, template_id LIMIT %(limit)s
            """,
            _of(job, limit),
        ).fetchall()


def replace(db: Connection, template_id: str, spec: str, image_key: str) -> None:
    """Store where a template is, in place of what was there; its vectors are to be made anew."""
    db.execute(
        """
        INSERT INTO gallery_templates (template_id, spec, image_key)
        VALUES (%(id)s, %(spec)s, %(key)s)
        ON CONFLICT (template_id) DO UPDATE SET spec = excluded.spec, image_key = excluded.image_key
        """,
        {"id": template_id, "spec": spec, "key": image_key},
    )
    db.execute(
        "DELETE FROM work WHERE asset = 'template_embeddings' AND unit = %(id)s",
        {"id": template_id},
    )


def get(db: Connection, template_ids: Sequence[str]) -> dict[str, StoredTemplate]:
    """Templates by their ids; those that are gone are left out."""
    with db.cursor(row_factory=class_row(StoredTemplate)) as cursor:
        found = cursor.execute(
            """
            SELECT template_id, item_id, image_key, i.name, set_code, number, language
            FROM gallery_templates JOIN gallery_images USING (template_id)
            JOIN gallery_items AS i USING (item_id)
            WHERE template_id = ANY(%(ids)s)
            """,
            {"ids": list(template_ids)},
        ).fetchall()
    return {template.template_id: template for template in found}


def of_items(
    db: Connection, item_ids: Sequence[str], *, official: bool = False
) -> list[StoredTemplate]:
    """Templates of some items, official ones first, or these alone."""
    with db.cursor(row_factory=class_row(StoredTemplate)) as cursor:
        return cursor.execute(
            """
            SELECT template_id, item_id, image_key, i.name, set_code, number, language
            FROM gallery_templates JOIN gallery_images AS g USING (template_id)
            JOIN gallery_items AS i USING (item_id)
            WHERE item_id = ANY(%(ids)s) AND (g.correction_id IS NULL OR NOT %(official)s)
            ORDER BY item_id, g.correction_id NULLS FIRST, template_id
            """,
            {"ids": list(item_ids), "official": official},
        ).fetchall()


def version(db: Connection) -> str:
    """Twelve hexadecimal digits that change with every template and every item's description."""
    row = db.execute(
        """
        SELECT left(md5(coalesce(string_agg(
            concat_ws(E'\\x1f', template_id, spec, item_id, set_code, number, language), E'\\x1e'
            ORDER BY template_id), '')), 12)
        FROM gallery_templates JOIN gallery_images USING (template_id)
        JOIN gallery_items USING (item_id)
        """
    ).fetchone()
    assert row is not None
    return row[0]


def _of(job: Job, limit: int) -> dict[str, object]:
    return {
        "keys": list(job.batch_keys),
        "asset": job.asset,
        "spec": job.spec,
        "budget_mb": job.budget_mb,
        "limit": limit,
    }
