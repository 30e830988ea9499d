"""What `quire read` says of pages that have more than one trouble."""

from pathlib import Path

import psycopg

from orchestration.reading import write_texts
from tests.passages import Said, WordEncoder, keep

DAMAGED, LOST, CUT = "a font is missing", "tesseract took longer than 120 s", "40 tokens were cut"


def test_every_reason_of_a_page_is_said(db: psycopg.Connection, tmp_path: Path) -> None:
    said = Said("a.pdf", 2, "what was read")
    keep(db, [said], WordEncoder())
    with db.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO work (asset, unit, spec, batch_key, status, made, reason, run_id)
            VALUES (%s, page_unit(%s, %s), 't', 'batch-1', %s, 0, %s, 'r')
            """,
            [
                ("pages", said.document_id, 1, "degraded", f"page 1: {DAMAGED}"),
                ("ocr_pages", said.document_id, 1, "failed", LOST),
                ("pages", said.document_id, 2, "degraded", DAMAGED),
                ("chunk_embeddings", said.document_id, 2, "degraded", f"page 2: {CUT}"),
            ],
        )
    (came,) = write_texts(db, [said.document_id], tmp_path)
    assert came.failed == {1: LOST}
    (page,) = came.read
    assert (page["status"], page["reason"]) == ("degraded", f"{CUT}; {DAMAGED}")
    assert came.notes == [f"page 2: {CUT}; {DAMAGED}"]
    text = (tmp_path / came.file).read_text()
    assert f"[page 1 was not read: {LOST}]" in text
    assert said.text in text
