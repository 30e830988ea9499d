"""Read pages to passages and vectors, with the default encoder, on a fresh database and store."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import dagster as dg
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import store.batches
import store.chunk_embeddings
import store.chunks
import store.ocr_pages
import store.page_batches
from assets.chunk_embeddings import chunk_embeddings
from assets.chunks import chunks
from assets.text_channel import chunk_embeddings_spec
from assets.text_encoders import text_encoders
from core.chunks import CHUNKS, passages_of, readable
from core.reading import PageText
from core.text_encoders import Encoded, parse_text_encoder
from core.work import Job
from orchestration.headless import first_failure
from orchestration.specs import text_specs_in_force
from resources.settings import Reading
from resources.text_encoder import OnnxTextEncoder, text_folder
from tests.assets.conftest import DIGEST, TEXT, Room, metadata, until_somebody_waits
from tests.passages import WordEncoder
from tests.resources.tiny_text_encoders import tiny_checkpoint, tiny_text_encoder

LEASE = (
    "RESIDENTIAL LEASE\n\nThe tenant pays a secu-\nrity deposit of two months' rent. "
    "It is returned\nwithin thirty days.\n\n"
)
FILLER = "Cells were stained with antibodies and imaged in the dark room of the laboratory. "


def numbers(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (found,) = metadata(result, asset)
    return found


def ids(db: psycopg.Connection) -> list[str]:
    rows = db.execute("SELECT chunk_id FROM chunks ORDER BY chunk_set, page, ordinal").fetchall()
    return [chunk_id for (chunk_id,) in rows]


def test_pages_become_passages_and_vectors_once(
    room: Room, db: psycopg.Connection, minilm: str
) -> None:
    room.use(minilm)
    room.read(db, LEASE + FILLER * 30, "", FILLER)
    result = room.run()
    assert result.success
    made, embedded = numbers(result, "chunks"), numbers(result, "chunk_embeddings")
    assert (made["items"], embedded["items"]) == (3, 2)
    assert numbers(result, "next_chunk_embeddings")["items"] == 0
    rows = db.execute(
        """
        SELECT c.text, o.text, start_char, end_char, tokens,
               tsv @@ to_tsquery('english', 'security')
        FROM chunks AS c JOIN ocr_pages AS o USING (document_id, page) ORDER BY page, ordinal
        """
    ).fetchall()
    assert len(rows) >= 4
    for text, page, start, end, tokens, _ in rows:
        assert page[start:end] == text
        assert 0 < tokens <= 202
    assert "secu-\nrity" in rows[0][0]
    assert [found for *_, found in rows] == [True] + [False] * (len(rows) - 1)

    described = room.text_encoder.describe()
    assert embedded["encoder"] == described.encoder_id
    table = store.chunk_embeddings.tables(db)[described.encoder_id]
    assert store.chunk_embeddings.vectors(db, table) == len(rows)
    encoder = room.text_encoder.load()
    (asked,) = encoder.encode(["How much is the security deposit?"], "query").vectors
    found = store.chunk_embeddings.of_chunks(db, table, ids(db))
    near = max(found, key=lambda name: float(found[name].to_numpy() @ asked))
    assert near == ids(db)[0]
    (again,) = encoder.encode([readable(rows[0][0]).text], "passage").vectors
    assert float(found[near].to_numpy() @ again) > 0.9999

    second = room.run()
    assert [numbers(second, a.key.to_user_string())["items"] for a in TEXT] == [0, 0, 0, 0]
    assert store.chunk_embeddings.missing(db, described.encoder_id) == 0


def test_what_is_gone_is_made_again_and_what_is_read_anew_is_embedded_anew(
    room: Room, db: psycopg.Connection
) -> None:
    room.read(db, LEASE, FILLER)
    first = room.run()
    described = room.text_encoder.describe()
    (table,) = store.chunk_embeddings.tables(db).values()
    before = ids(db)
    again = room.run(chunks, chunk_embeddings, recompute=True)
    assert numbers(first, "chunks")["items"] == numbers(again, "chunks")["items"] == 2
    assert ids(db) == before

    db.execute("DELETE FROM chunks WHERE page = 1")
    result = room.run()
    assert numbers(result, "chunks")["items"] == numbers(result, "chunk_embeddings")["items"] == 1
    assert ids(db) == before

    db.execute(SQL("DELETE FROM {}").format(Identifier(table)))
    assert store.chunk_embeddings.missing(db, described.encoder_id) == 2
    assert numbers(room.run(), "chunk_embeddings")["items"] == 2

    # A page that was blank when it was read first has chunks for the first time.
    db.execute("UPDATE ocr_pages SET text = '' WHERE page = 2")
    db.execute("DELETE FROM work WHERE asset = 'chunks'")
    room.run()
    assert set(ids(db)) < set(before)
    db.execute("UPDATE ocr_pages SET text = %(text)s WHERE page = 2", {"text": FILLER})
    db.execute("DELETE FROM work WHERE asset = 'chunks'")
    assert numbers(room.run(), "chunk_embeddings")["items"] == 1
    assert ids(db) == before
    assert store.chunk_embeddings.missing(db, described.encoder_id) == 0

    db.execute("DELETE FROM documents")
    assert ids(db) == []
    left = db.execute("SELECT asset FROM work WHERE asset <> 'text_encoders'").fetchall()
    assert left == []


def test_passages_of_another_length_are_made_and_embedded_by_night_too(
    room: Room, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read(db, FILLER * 3, "The rent.")
    room.run()
    (key,) = store.page_batches.keys(db)

    def unfinished() -> list[str]:
        specs = text_specs_in_force(db, Reading(), room.text_encoder)
        made = {asset: specs[asset] for asset in ("chunks", "chunk_embeddings")}
        return store.batches.unfinished(db, "page", made)

    assert unfinished() == []
    before = ids(db)
    monkeypatch.setattr("assets.chunks.CHUNKS", replace(CHUNKS, tokens=12))
    assert unfinished() == [key]
    assert numbers(room.run(chunks), "chunks")["items"] == 2
    assert not set(before) <= set(ids(db))
    assert before[-1] in ids(db)  # what is short enough stays
    assert unfinished() == [key]  # the run ended before the vectors were made
    assert numbers(room.run(), "chunk_embeddings")["items"] == 1
    assert unfinished() == []
    assert store.chunk_embeddings.missing(db, room.text_encoder.describe().encoder_id) == 0
    db.execute("DELETE FROM chunks WHERE page = 2")
    assert unfinished() == [key]


def read_anew(db: psycopg.Connection, room: Room, page: int, text: str) -> None:
    """Another reading of a page, stored as its asset does it."""
    job = Job("ocr_pages", "another", (), 256, "another run")
    with db.transaction():
        store.ocr_pages.replace(db, job, DIGEST, page, PageText("ocr", "eng", 150, 90, text))


def stored_texts(db: psycopg.Connection) -> list[tuple[int, str]]:
    rows = db.execute("SELECT page, text FROM chunks ORDER BY page, ordinal").fetchall()
    return [(page, text.strip()) for page, text in rows]


def test_a_page_that_is_read_anew_while_it_is_divided_is_divided_as_it_is_now(
    room: Room, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read(db, "The rent.", "The cells.")
    divided: list[str] = []

    def meanwhile(text: str, *others: Any) -> Any:
        divided.append(text)
        if text == "The cells.":
            read_anew(db, room, 2, "The lease.")
        return passages_of(text, *others)

    monkeypatch.setattr("assets.chunks.passages_of", meanwhile)
    result = room.run(text_encoders, chunks)
    assert result.success
    assert divided == ["The rent.", "The cells.", "The lease."]  # and what was the same not again
    assert stored_texts(db) == [(1, "The rent."), (2, "The lease.")]
    assert numbers(result, "chunks")["items"] == 2


def test_a_page_that_is_gone_by_the_time_it_is_divided_is_not_done(
    room: Room, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read(db, "The rent.")

    def meanwhile(text: str, *others: Any) -> Any:
        db.execute("DELETE FROM ocr_pages")
        return passages_of(text, *others)

    monkeypatch.setattr("assets.chunks.passages_of", meanwhile)
    assert room.run(text_encoders, chunks).success
    assert db.execute("SELECT FROM work WHERE asset = 'chunks'").fetchall() == []


def test_passages_that_change_while_they_are_embedded_are_embedded_as_they_are_now(
    room: Room, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read(db, "The rent.", "The cells.")
    assert room.run(text_encoders, chunks).success
    embedded: list[str] = []
    encode = OnnxTextEncoder.encode

    def meanwhile(self: OnnxTextEncoder, texts: Sequence[str], kind: Any) -> Encoded:
        embedded.extend(texts)
        if texts == ["The cells."]:
            read_anew(db, room, 2, "The lease.")
            assert room.run(chunks).success
        return encode(self, texts, kind)

    monkeypatch.setattr(OnnxTextEncoder, "encode", meanwhile)
    assert room.run(chunk_embeddings).success
    assert embedded[-3:] == ["The rent.", "The cells.", "The lease."]
    described = room.text_encoder.describe()
    assert store.chunk_embeddings.missing(db, described.encoder_id) == 0


def test_what_is_made_of_a_page_waits_for_whoever_is_reading_it(
    room: Room, db: psycopg.Connection
) -> None:
    room.read(db, "The rent.")
    job = Job("chunks", "spec", tuple(store.page_batches.keys(db)), 256, "run")
    (page,) = store.ocr_pages.pending_read(db, job, 1)
    with db.transaction():
        assert store.ocr_pages.still_says(db, page)

    def look() -> bool:
        with room.postgres.connect() as other, other.transaction():
            return store.ocr_pages.still_says(other, page)

    with ThreadPoolExecutor(1) as another, room.postgres.connect() as watching:
        with db.transaction():
            store.ocr_pages.replace(
                db, job, DIGEST, 1, PageText("ocr", "eng", 150, 90, "The lease.")
            )
            asked = another.submit(look)
            until_somebody_waits(watching)
            assert not asked.done()
        assert asked.result(30) is False


def test_what_the_encoder_does_not_see_or_know_is_told(room: Room, db: psycopg.Connection) -> None:
    room.read(db, LEASE, "\U0001f984 \U0001f98a \U0001f984 \U0001f98a")
    room.run(text_encoders, chunks)
    db.execute("UPDATE chunks SET text = repeat('rent ', 400) WHERE page = 1")
    result = room.run(chunk_embeddings)
    assert result.success
    found = numbers(result, "chunk_embeddings")
    (check,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    reasons = check.metadata["reasons"].value
    assert isinstance(reasons, list)
    assert sorted(map(str, reasons)) == [
        "page 1: 1480 tokens were beyond the window of the text encoder and were cut",
        "page 2: 4 of 6 tokens are unknown to the text encoder; it is found by its words alone",
    ]
    assert found["items"] == 2
    rows = db.execute("SELECT status FROM work WHERE asset = 'chunk_embeddings'").fetchall()
    assert rows == [("degraded",)] * 2


def test_an_encoder_that_became_another_one_is_refused(room: Room, db: psycopg.Connection) -> None:
    room.read(db, LEASE, FILLER)
    room.run()
    db.execute("UPDATE text_encoders SET witness[1] = 9")
    db.execute("DELETE FROM work WHERE asset = 'chunk_embeddings'")
    assert not room.run(chunk_embeddings).success


def test_a_second_encoder_is_prepared_beside_the_first_and_takes_its_place(
    room: Room, db: psycopg.Connection
) -> None:
    first = room.text_encoder
    other = tiny_text_encoder(room.folder / "other", seed=1, window=16)
    room.read(db, LEASE + FILLER * 10, FILLER)
    room.run()
    table = store.chunk_embeddings.tables(db)[first.describe().encoder_id]
    before = set(ids(db))

    both = room.use(f"{first.spec} {other}")
    result = room.run()
    assert numbers(result, "chunk_embeddings")["items"] == 0  # nothing of the first is made anew
    assert numbers(result, "next_chunk_embeddings")["items"] == 2
    assert before < set(ids(db))
    assert store.chunk_embeddings.vectors(db, table) == len(before)

    second = both.each()[1].describe()
    assert store.chunk_embeddings.missing(db, second.encoder_id) == 0
    store.chunk_embeddings.switch_to(db, second.encoder_id, chunk_embeddings_spec(second))
    after = room.run()
    assert numbers(after, "chunk_embeddings")["encoder"] == second.encoder_id
    for asset in ("chunk_embeddings", "next_chunk_embeddings"):
        assert numbers(after, asset)["items"] == 0
    with pytest.raises(ValueError, match="was stored with 24 dimensions"):
        store.chunk_embeddings.table_of(db, second.encoder_id, 25, second.chunk_set)


def test_vectors_that_are_not_of_unit_length_are_refused(db: psycopg.Connection) -> None:
    encoder = WordEncoder(dim=3)
    table = store.chunk_embeddings.table_of(db, "e", 3, "s")
    assert store.chunk_embeddings.table_of(db, "e", 3, "s") == table
    with pytest.raises(psycopg.errors.Error):
        store.chunk_embeddings.replace(
            db, table, ["c"], 2 * encoder.encode(["a"], "passage").vectors
        )


def test_a_checkpoint_that_is_not_there_fails_the_run_with_what_to_do(
    room: Room, db: psycopg.Connection
) -> None:
    room.read(db, LEASE)
    room.use("sentence-transformers:nobody/nothing")
    result = room.run()
    assert not result.success
    failures: Sequence[Any] = [
        e.step_failure_data.error for e in result.all_events if e.is_step_failure
    ]
    assert "hf download nobody/nothing" in str(failures)


def test_a_conversion_that_does_not_fit_is_said_to_be_why_the_run_failed(
    room: Room, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read(db, LEASE)
    fresh = f"sentence-transformers:{tiny_checkpoint(room.folder / 'fresh', seed=7)}"
    room.use(fresh)
    tried: list[str] = []

    def too_much(*_: object, **__: object) -> None:
        tried.append(fresh)
        raise MemoryError

    monkeypatch.setattr("assets.text_encoders.convert_text_in_child", too_much)
    for _ in range(2):  # the second run need not try it again to know
        result = room.run()
        assert not result.success
        said = first_failure(cast("dg.JobExecutionResult", result))
        assert re.match(
            rf"chunks: text_encoders did not convert {fresh}: it does not fit the memory budget of "
            r"\d+ MB; about \d+ MB would do\. Where there is room, python -m resources\.text_conv",
            said,
        )
        assert tried == [fresh]
        room.room_mb -= 100


def test_the_default_encoder_is_in_the_store_after_one_run(
    room: Room, db: psycopg.Connection, minilm: str
) -> None:
    room.use(minilm)
    room.read(db, LEASE)
    result = room.run(text_encoders)
    (row,) = [
        r.data for r in numbers(result, "text_encoders")["runtimes"].records if r.data["used"]
    ]
    assert row["compared with"] == "recorded"
    folder = text_folder(Path(parse_text_encoder(minilm).name))
    assert folder is not None
    described = room.text_encoder.describe()
    assert room.use("minilm").describe().encoder_id == described.encoder_id
