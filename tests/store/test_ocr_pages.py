import psycopg
import pytest
from psycopg.types.json import Jsonb

import store.documents
import store.ocr_pages
import store.page_batches
import store.work
from core.batches import BatchSpec, divide
from core.reading import PageText, Region, Word
from core.work import Job, Outcome
from store.documents import Document

DOCUMENT = "d" * 64
SAID = PageText(
    kind="ocr",
    language="eng",
    dpi=150.0,
    confidence=87.25,
    text="The harbour",
    words=(Word(0, 3, (72, 60, 90.123, 72), 96.0), Word(4, 11, (95, 60, 140, 72), 78.5)),
    regions=(Region((95, 60, 140, 72), 55.0, 300.0),),
)


@pytest.fixture
def job(db: psycopg.Connection) -> Job:
    """The asset that reads, over a document of two pages."""
    document = Document(DOCUMENT, "d.pdf", 1, 2, "", "ok", "", "documents/d.pdf")
    store.documents.add(db, document)
    store.page_batches.add(db, divide(DOCUMENT, 2, BatchSpec()))
    (key,) = store.page_batches.keys(db)
    for page in (1, 2):
        db.execute(
            """
            INSERT INTO pages (document_id, page, batch_key, spec, width_pt, height_pt, content,
                               thumbnail_key)
            VALUES (%(id)s, %(page)s, %(key)s, 'pages-1', 612, 792, %(content)s, '')
            """,
            {"id": DOCUMENT, "page": page, "key": key, "content": Jsonb({})},
        )
    return Job("ocr_pages", "reading-1", (key,), 256, "run")


def done(db: psycopg.Connection, job: Job, asset: str, unit: str) -> bool:
    later = Job(asset, "spec-1", job.batch_keys, 256, "run")
    return store.work.not_done(db, later, [unit]) == []


def keep(db: psycopg.Connection, job: Job, said: PageText, page: int = 1) -> None:
    """As the asset does it: the row and the ledger in one transaction."""
    with db.transaction():
        store.ocr_pages.replace(db, job, DOCUMENT, page, said)
        store.work.record(db, job, [Outcome(f"{DOCUMENT}:{page}", job.batch_keys[0], made=1)])


def make(db: psycopg.Connection, job: Job, asset: str, unit: str) -> None:
    later = Job(asset, "spec-1", job.batch_keys, 256, "run")
    store.work.record(db, later, [Outcome(unit, job.batch_keys[0], made=1)])


def test_a_page_comes_back_as_it_was_read(db: psycopg.Connection, job: Job) -> None:
    keep(db, job, SAID)
    page = store.ocr_pages.get(db, DOCUMENT, 1)
    assert page is not None
    assert (page.kind, page.language, page.dpi, page.confidence) == ("ocr", "eng", 150, 87.25)
    assert [page.text[w.start : w.end] for w in page.decoded_words()] == ["The", "harbour"]
    assert page.decoded_words()[0].box_pt == (72, 60, 90.12, 72)
    assert page.regions == [{"box_pt": [95, 60, 140, 72], "confidence": 55, "read_again_dpi": 300}]
    assert store.ocr_pages.get(db, DOCUMENT, 2) is None


def test_later_assets_see_pages_until_they_have_done_them(db: psycopg.Connection, job: Job) -> None:
    keep(db, job, SAID)
    keep(db, job, SAID, page=2)
    chunks = Job("chunks", "spec-1", job.batch_keys, 256, "run")
    assert [p.page for p in store.ocr_pages.pending_read(db, chunks, 8)] == [1, 2]
    make(db, job, "chunks", f"{DOCUMENT}:1")
    assert [p.unit for p in store.ocr_pages.pending_read(db, chunks, 8)] == [f"{DOCUMENT}:2"]


def test_what_is_made_of_a_page_is_done_again_only_where_the_page_says_something_else(
    db: psycopg.Connection, job: Job
) -> None:
    unit = f"{DOCUMENT}:1"
    keep(db, job, SAID)
    make(db, job, "chunks", unit)
    make(db, job, "searchable_pdfs", DOCUMENT)
    keep(db, job, SAID)
    assert done(db, job, "chunks", unit)
    assert done(db, job, "searchable_pdfs", DOCUMENT)
    keep(db, job, PageText("blank", "", None, None, ""))
    assert not done(db, job, "chunks", unit)
    assert not done(db, job, "searchable_pdfs", DOCUMENT)
    assert store.work.not_done(db, job, [unit]) == []  # the reading itself is done


def test_a_page_that_somebody_deletes_is_read_again(db: psycopg.Connection, job: Job) -> None:
    keep(db, job, SAID)
    db.execute("DELETE FROM ocr_pages")
    assert store.work.not_done(db, job, [f"{DOCUMENT}:1"]) == [f"{DOCUMENT}:1"]


def test_a_summary_counts_kinds_and_weighs_confidences(db: psycopg.Connection, job: Job) -> None:
    keep(db, job, SAID)
    keep(
        db, job, PageText("text_layer", "eng", None, None, "a", (Word(0, 1, (0, 0, 1, 1), 100),)), 2
    )
    told = store.ocr_pages.summary(db, job.batch_keys)
    assert (told.kinds, told.words, told.confidence, told.regions) == (
        {"ocr": 1, "text_layer": 1}, 3, 87.2, 1,
    )  # fmt: skip
