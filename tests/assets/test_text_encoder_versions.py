"""Two text encoders side by side: one serves, the other is prepared, and they change places."""

import io
import shutil
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import dagster as dg
import psycopg
import pytest
from rich.console import Console

import store.batches
import store.chunk_embeddings
import store.page_batches
from assets.chunk_embeddings import chunk_embeddings, next_chunk_embeddings
from assets.chunks import chunks
from assets.search_index import search_index
from assets.text_encoders import text_encoders
from core.encoders import EncoderError
from core.errors import InputError
from core.search import Query
from core.text_encoders import parse_text_encoder
from core.work import Job
from orchestration import status
from orchestration import text_encoders as commands
from orchestration.headless import first_failure
from orchestration.schedules import nightly
from orchestration.search import open_search
from orchestration.settings import Settings
from orchestration.specs import specs_in_force, text_specs_in_force
from resources.encoder import Encoder
from resources.settings import CopySearch, Reading
from tests.assets.conftest import Room, metadata
from tests.resources.tiny_text_encoders import tiny_checkpoint, tiny_text_encoder

NEXT = (text_encoders, chunks, next_chunk_embeddings, search_index)
"""What ``quire encoders prepare --text`` makes."""

PAGES = [
    f"The tenant pays rent of {word} under the lease, and cells {word} of the tenant. " * 3
    for word in ("harbour", "lantern", "museum", "letter", "boats", "quay", "gutter")
]


@pytest.fixture
def two(room: Room, db: psycopg.Connection) -> Room:
    """Pages that were read with the first of two encoders, which divide them otherwise."""
    room.read(db, *PAGES)
    first = room.text_encoder.spec
    assert room.run().success
    room.use(f"{first} {tiny_text_encoder(room.folder / 'other', seed=1, window=16)}")
    return room


@pytest.fixture(autouse=True)
def _address(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    monkeypatch.setenv("QUIRE_DATABASE_URL", postgres_url)


def settings_of(room: Room) -> Settings:
    return Settings(
        home=room.folder,
        database_url=room.postgres.url(),
        store_url=room.text_encoder.store_url,
        text_encoder=room.text_encoder.spec,
    )


def ids(room: Room) -> list[str]:
    return [one.describe().encoder_id for one in room.text_encoder.each()]


def said(room: Room, command: str, **options: bool) -> str:
    out = io.StringIO()
    getattr(commands, command)(settings_of(room), Console(file=out, width=200), **options)
    return out.getvalue()


def test_the_next_encoder_is_prepared_while_the_first_serves(
    two: Room, db: psycopg.Connection
) -> None:
    first, second = ids(two)
    table = store.chunk_embeddings.tables(db)[first]
    before = store.chunk_embeddings.vectors(db, table)
    listed = said(two, "show").splitlines()
    assert [line.split()[0] for line in listed[-2:]] == [first, second]
    assert "serves" in listed[-2]
    assert f"waits, {len(PAGES)} pages to go" in listed[-1]
    with pytest.raises(InputError, match="has not embedded 7 pages: quire encoders prepare --text"):
        said(two, "switch", force=False)
    prepared = two.run(*NEXT)
    assert prepared.success
    (numbers,) = metadata(prepared, "next_chunk_embeddings")
    assert (numbers["encoder"], numbers["items"]) == (second, len(PAGES))
    assert store.chunk_embeddings.vectors(db, table) == before
    assert "waits, complete" in said(two, "show")
    assert store.chunk_embeddings.switched_to(db) is None


def test_they_change_places_at_once_and_back_and_nothing_is_embedded_again(
    two: Room, db: psycopg.Connection
) -> None:
    first, second = ids(two)
    two.run(*NEXT)
    searching = open_search(settings_of(two))
    before = searching.search(Query("the rent of the museum"))
    for expected in (second, first):
        words = said(two, "switch", force=False)
        assert f"{expected} serves" in words
        assert "quire encoders switch --text goes back" in words
        assert store.chunk_embeddings.switched_to(db) == expected
        answer = searching.search(Query("the rent of the museum"))
        assert searching.health().encoder_id == expected
        assert answer.degraded == ()
        # What it was read with is divided as it serves, and nothing is left for the night to do.
        (chunk_set,) = {
            one.describe().chunk_set
            for one in two.text_encoder.each()
            if one.describe().encoder_id == expected
        }
        found = [hit.chunk_id for hit in answer.hits]
        rows = db.execute(
            "SELECT DISTINCT chunk_set FROM chunks WHERE chunk_id = ANY(%s)", [found]
        ).fetchall()
        assert rows == [(chunk_set,)]
        specs = text_specs_in_force(db, Reading(), two.text_encoder)
        wanted = {"chunk_embeddings": specs["chunk_embeddings"]}
        assert store.batches.unfinished(db, "page", wanted) == []
        again = two.run()
        (serving,) = metadata(again, "chunk_embeddings")
        (waiting,) = metadata(again, "next_chunk_embeddings")
        assert (serving["encoder"], serving["items"], waiting["items"]) == (expected, 0, 0)
    after = searching.search(Query("the rent of the museum"))
    assert [hit.chunk_id for hit in after.hits] == [hit.chunk_id for hit in before.hits]
    searching.close()


def test_what_both_find_is_compared_by_page(two: Room, db: psycopg.Connection) -> None:
    with pytest.raises(InputError, match="nothing has been embedded yet with from-"):
        said(two, "compare")
    two.run(*NEXT)
    words = said(two, "compare")
    assert all(encoder_id in words for encoder_id in ids(two))
    # Each page has six others, which are all among the ten nearest.
    assert "100.0% of the 10 pages nearest to each of" in words
    first, second = (store.chunk_embeddings.tables(db)[name] for name in ids(two))
    pairs = store.chunk_embeddings.seen_by_two(db, first, second, 5)
    assert [pair.chunk_id for pair in pairs] == [
        pair.chunk_id for pair in store.chunk_embeddings.seen_by_two(db, first, second, 5)
    ]
    same = store.chunk_embeddings.seen_by_two(db, first, first, 5)
    assert all((pair.first == pair.second).all() for pair in same)


def test_an_incomplete_encoder_is_switched_to_by_force_and_the_rest_is_embedded_later(
    two: Room, db: psycopg.Connection
) -> None:
    _, second = ids(two)
    assert f"{second} serves" in said(two, "switch", force=True)
    searching = open_search(settings_of(two))
    answer = searching.search(Query("museum"))
    assert not answer.hits
    assert answer.reason
    result = two.run()
    (numbers,) = metadata(result, "chunk_embeddings")
    assert (numbers["encoder"], numbers["items"]) == (second, len(PAGES))
    assert searching.search(Query("museum")).degraded == ()
    searching.close()


def test_a_query_is_never_answered_by_the_encoder_that_does_not_serve(two: Room) -> None:
    """Neither by its own vectors, nor by those of the one that serves."""
    _, second = two.text_encoder.each()
    two.run(*NEXT)
    said(two, "switch", force=False)
    shutil.rmtree(parse_text_encoder(second.spec).name)
    searching = open_search(settings_of(two))
    answer = searching.search(Query("museum"))
    assert [channel.ran for channel in answer.channels] == [False, True]
    assert "not searched by meaning: there is no encoder" in answer.degraded[0]
    searching.close()
    with pytest.raises(EncoderError):
        said(two, "show")
    third = tiny_text_encoder(two.folder / "third", seed=2, window=16)
    two.use(third)
    searching = open_search(settings_of(two))
    answer = searching.search(Query("museum"))
    assert not answer.channels[0].ran
    assert "nothing is embedded with from-" in answer.degraded[0]
    searching.close()


def test_what_was_switched_to_earlier_does_not_keep_a_new_one_from_waiting(two: Room) -> None:
    """An encoder that was not converted yet cannot be the one that somebody switched to."""
    first, _ = two.text_encoder.each()
    two.run(*NEXT)
    said(two, "switch", force=False)
    fresh = f"sentence-transformers:{tiny_checkpoint(two.folder / 'fresh', seed=3)}"
    two.use(f"{first.spec} {fresh}")
    listed = said(two, "show")
    assert "waits, not to be had" in listed
    assert "kept, not configured" in listed
    searching = open_search(settings_of(two))
    assert searching.search(Query("museum")).degraded == ()
    searching.close()


MISSING = "sentence-transformers:nobody/nothing"


def by_night(room: Room, db: psycopg.Connection) -> object:
    """What the nightly schedule does, with everything but the text done."""
    copy_search, encoder, reading = CopySearch(), Encoder(), Reading()
    specs = specs_in_force(db, copy_search, encoder) | {"ocr_pages": reading.spec.reading_id}
    keys = tuple(store.page_batches.keys(db))
    for asset, spec in specs.items():
        store.batches.finish(db, Job(asset, spec, keys, 256, "run"))
    at = datetime(2026, 1, 2, 2, tzinfo=UTC)

    def evaluated() -> object:
        with (
            dg.instance_for_test() as instance,
            dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context,
        ):
            return nightly(
                context,
                postgres=room.postgres,
                copy_search=copy_search,
                encoder=encoder,
                reading=reading,
                text_encoder=room.text_encoder,
            )

    return copy_context().run(evaluated)  # Dagster leaves a closed instance behind


def test_a_second_encoder_that_is_not_to_be_had_is_said_and_keeps_nobody_from_searching(
    room: Room, db: psycopg.Connection
) -> None:
    room.read(db, *PAGES)
    room.use(f"{room.text_encoder.spec} {MISSING}")
    result = room.run(text_encoders, chunks, chunk_embeddings, search_index)
    assert result.success
    (made,) = metadata(result, "chunks")
    assert made["left_out"].startswith(f"the text encoder {MISSING}, which is to serve next, is")
    skipped = by_night(room, db)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message is not None
    assert MISSING in skipped.skip_message
    assert "hf download nobody/nothing" in skipped.skip_message
    out = io.StringIO()
    status.show(settings_of(room), Console(file=out, width=400))
    assert f"the text encoder {MISSING}, which is to serve next, is left out" in out.getvalue()

    db.execute("DELETE FROM chunks WHERE page = 1")
    requests = by_night(room, db)
    assert isinstance(requests, list)
    assert len(requests) == 1
    assert room.run(text_encoders, chunks, chunk_embeddings, search_index).success
    assert isinstance(by_night(room, db), dg.SkipReason)


def test_an_encoder_that_goes_away_leaves_nothing_to_be_done_by_night(
    two: Room, db: psycopg.Connection
) -> None:
    first, second = two.text_encoder.each()
    assert two.run(*NEXT, chunk_embeddings).success
    assert isinstance(by_night(two, db), dg.SkipReason)
    shutil.rmtree(parse_text_encoder(second.spec).name)
    skipped = by_night(two, db)
    assert isinstance(skipped, dg.SkipReason)
    assert second.spec in (skipped.skip_message or "")
    shutil.rmtree(parse_text_encoder(first.spec).name)
    skipped = by_night(two, db)  # no run could make anything with it
    assert isinstance(skipped, dg.SkipReason)
    assert first.spec in (skipped.skip_message or "")


def test_a_second_encoder_that_cannot_be_converted_is_tried_by_each_run_and_stops_none(
    room: Room, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read(db, *PAGES)
    fresh = f"sentence-transformers:{tiny_checkpoint(room.folder / 'fresh', seed=3)}"
    room.use(f"{room.text_encoder.spec} {fresh}")
    tried: list[str] = []

    def lacking(*_: object, **__: object) -> None:
        tried.append(fresh)
        raise EncoderError("torch is not installed")

    monkeypatch.setattr("assets.text_encoders.convert_text_in_child", lacking)
    for _ in range(2):
        assert room.run(text_encoders, chunks, chunk_embeddings).success
    assert tried == [fresh, fresh]
    failed = room.run(*NEXT)
    said = first_failure(cast("dg.JobExecutionResult", failed))
    begins = "next_chunk_embeddings: text_encoders did not convert"
    assert said.startswith(f"{begins} {fresh}: torch is not installed")


def test_the_encoder_that_was_switched_to_serves_although_the_other_one_is_gone(
    two: Room, db: psycopg.Connection
) -> None:
    first, second = two.text_encoder.each()
    assert two.run(*NEXT).success
    said(two, "switch", force=False)
    shutil.rmtree(parse_text_encoder(first.spec).name)
    searching = open_search(settings_of(two))
    assert searching.search(Query("museum")).degraded == ()
    searching.close()
    result = two.run(text_encoders, chunks, chunk_embeddings)
    assert result.success
    (numbers,) = metadata(result, "chunk_embeddings")
    assert (numbers["encoder"], numbers["items"]) == (second.describe().encoder_id, 0)


def test_one_encoder_has_nothing_to_change_places_with(two: Room, tmp_path: Path) -> None:
    two.text_encoder = two.text_encoder.each()[0]
    for command, options in (("compare", {}), ("switch", {"force": True})):
        with pytest.raises(InputError, match="no second text encoder: name both in QUIRE_TEXT"):
            said(two, command, **options)
    with pytest.raises(InputError, match="no second text encoder"):
        commands.prepare_next(settings_of(two), Console(), Console())
    third = [tiny_text_encoder(tmp_path / f"tiny-{seed}", seed=seed) for seed in (4, 5)]
    two.use(" ".join([two.text_encoder.spec, *third]))
    with pytest.raises(EncoderError, match="3 text encoders are configured"):
        said(two, "show")
    searching = open_search(settings_of(two))
    assert "3 text encoders are configured" in searching.search(Query("museum")).degraded[0]
    searching.close()
