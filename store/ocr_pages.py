"""OCR pages: what each page says, one row per page that was read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.reading import PageText, Region, Word
from core.work import Job


@dataclass(frozen=True)
class OcrPage:
    """A page that was read, as stored.

    ``words`` and ``regions`` are lists, the way the database returns them.
    """

    document_id: str
    page: int
    batch_key: str
    spec: str
    kind: str
    language: str
    dpi: float | None
    confidence: float | None
    text: str
    words: list[list[float]]
    regions: list[dict[str, Any]]

    @property
    def unit(self) -> str:
        """The page's key in the ledger."""
        return f"{self.document_id}:{self.page}"

    def decoded_words(self) -> tuple[Word, ...]:
        """The words as the core knows them."""
        return tuple(
            Word(int(start), int(end), (x0, y0, x1, y1), confidence)
            for start, end, x0, y0, x1, y1, confidence in self.words
        )


def replace(db: Connection, job: Job, document_id: str, page: int, said: PageText) -> None:
    """Store what a page says in place of what was there.

    A row that says the same keeps its place, and so do the chunks made from it. Another row takes
    the chunks of the earlier one along. Whoever makes something of the whole document
    (``store.searchable_pdfs.is_of_these_pages``) waits until the transaction ends.
    """
    values = {
        "document_id": document_id,
        "page": page,
        "spec": job.spec,
        "kind": said.kind,
        "language": said.language,
        "dpi": said.dpi,
        "confidence": said.confidence,
        "text": said.text,
        "words": Jsonb([_encode_word(word) for word in said.words]),
        "regions": Jsonb([_encode_region(region) for region in said.regions]),
    }
    db.execute("SELECT FROM documents WHERE document_id = %(document_id)s FOR SHARE", values)
    db.execute(
        """
        DELETE FROM ocr_pages
        WHERE document_id = %(document_id)s AND page = %(page)s
          AND (spec, kind, language, dpi, confidence, text, words, regions) IS DISTINCT FROM
              (%(spec)s, %(kind)s, %(language)s, %(dpi)s::real, %(confidence)s::real, %(text)s,
               %(words)s::jsonb, %(regions)s::jsonb)
        """,
        values,
    )
    db.execute(
        """
        INSERT INTO ocr_pages
            (document_id, page, batch_key, spec, kind, language, dpi, confidence, text, words,
             regions)
        SELECT document_id, page, batch_key, %(spec)s, %(kind)s, %(language)s, %(dpi)s,
               %(confidence)s, %(text)s, %(words)s, %(regions)s
        FROM pages WHERE document_id = %(document_id)s AND page = %(page)s
        ON CONFLICT (document_id, page) DO NOTHING
        """,
        values,
    )


def pending_read(db: Connection, job: Job, limit: int) -> list[OcrPage]:
    """Pages that were read and that a later asset has still to work on, in order."""
    with db.cursor(row_factory=class_row(OcrPage)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, page, batch_key, spec, kind, language, dpi, confidence, text, words,
                   regions
            FROM ocr_pages
            WHERE batch_key = ANY(%(keys)s)
              AND NOT is_done(%(asset)s, page_unit(document_id, page), %(spec)s, %(budget_mb)s)
            ORDER BY document_id, page
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


def still_says(db: Connection, page: OcrPage) -> bool:
    """Whether a page says what it said when it was taken up.

    Whoever reads it anew, or makes something else of it, waits until the transaction ends.
    """
    row = db.execute(
        """
        SELECT kind, language, text FROM ocr_pages
        WHERE document_id = %(document_id)s AND page = %(page)s
        FOR NO KEY UPDATE
        """,
        {"document_id": page.document_id, "page": page.page},
    ).fetchone()
    return row == (page.kind, page.language, page.text)


def get(db: Connection, document_id: str, page: int) -> OcrPage | None:
    """What one page says, with its words; None where it has not been read."""
    with db.cursor(row_factory=class_row(OcrPage)) as cursor:
        return cursor.execute(
            """
            SELECT document_id, page, batch_key, spec, kind, language, dpi, confidence, text, words,
                   regions
            FROM ocr_pages WHERE document_id = %(document_id)s AND page = %(page)s
            """,
            {"document_id": document_id, "page": page},
        ).fetchone()


@dataclass(frozen=True)
class Summary:
    """What was read in some partitions, for an operator."""

    kinds: dict[str, int]
    words: int
    confidence: float | None
    regions: int


def summary(db: Connection, batch_keys: Sequence[str]) -> Summary:
    """Pages by kind, words, mean confidence of recognized pages, doubtful regions."""
    rows = db.execute(
        """
        SELECT kind, count(*)::int, coalesce(sum(jsonb_array_length(words)), 0)::int,
               avg(confidence), coalesce(sum(jsonb_array_length(regions)), 0)::int,
               count(confidence)::int
        FROM ocr_pages WHERE batch_key = ANY(%(keys)s)
        GROUP BY kind ORDER BY kind
        """,
        {"keys": list(batch_keys)},
    ).fetchall()
    sums = [(float(mean) * count, count) for *_, mean, _, count in rows if mean is not None]
    recognized = sum(count for _, count in sums)
    return Summary(
        kinds={kind: pages for kind, pages, *_ in rows},
        words=sum(words for _, _, words, *_ in rows),
        confidence=round(sum(total for total, _ in sums) / recognized, 1) if recognized else None,
        regions=sum(regions for *_, regions, _ in rows),
    )


def _encode_word(word: Word) -> list[float]:
    box = [round(value, 2) for value in word.box_pt]
    return [word.start, word.end, *box, round(word.confidence, 1)]


def _encode_region(region: Region) -> dict[str, Any]:
    return {
        "box_pt": [round(value, 2) for value in region.box_pt],
        "confidence": round(region.confidence, 1),
        "read_again_dpi": region.read_again_dpi,
    }
