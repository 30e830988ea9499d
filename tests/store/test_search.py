"""Search on a real Postgres: complete under every filter, and answers that say what they lack."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import LiteralString

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

import store.search
import store.search_index
from benchmarks.faults.injections import FAMILIES, of_family
from core.encoders import EncoderError
from core.passages import demands_words
from core.search import (
    Answer,
    Filters,
    Query,
    SearchSpec,
    SearchUnavailableError,
    parse_query,
)
from core.text import legible
from core.text_encoders import Encoded, Kind
from resources.postgres import Postgres
from resources.text_search import TextSearch
from store.search_index import IndexBuild
from tests.passages import Said, WordEncoder, boxed, keep

WORDS = "cat dog car road river stone cloud paper glass metal sugar water light sound"
BUILD = IndexBuild(m=16, ef_construction=64, memory_mb=32, timeout_s=60)
SMALL = SearchSpec(depth=30, exact_rows=40, hnsw_ef_search=60)
"""With a few hundred passages a filter is wide or narrow, and the index is walked on or not."""


def library(count: int = 300) -> list[Said]:
    """Pages of some documents in two languages, of all kinds, received on ten days."""
    rng = random.Random(7)
    pages: list[Said] = []
    for number in range(count):
        document, page = number % 12, number // 12 + 1
        pages.append(
            Said(
                f"paper-{document}.pdf",
                page,
                " ".join(rng.choices(WORDS.split(), k=12)),
                language="deu" if document % 4 == 0 else "eng",
                kind=("ocr", "text_layer", "hybrid")[rng.randrange(3)],
                received=datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=document % 10),
            )
        )
    return pages


def keeps(said: Said, filters: Filters) -> bool:
    """What a filter means, said once more in Python."""
    day = said.received.date()
    return (
        (not filters.documents or said.document_id in filters.documents)
        and (filters.first_page is None or said.page >= filters.first_page)
        and (filters.last_page is None or said.page <= filters.last_page)
        and (not filters.languages or said.language in filters.languages)
        and (not filters.kinds or said.kind in filters.kinds)
        and (filters.since is None or day >= filters.since)
        and (filters.until is None or day <= filters.until)
    )


FILTERS = st.builds(
    Filters,
    documents=st.lists(
        st.sampled_from([said.document_id for said in library(12)] + ["nobody"]), max_size=3
    ).map(tuple),
    first_page=st.none() | st.integers(1, 30),
    last_page=st.none() | st.integers(1, 30),
    languages=st.lists(st.sampled_from(["eng", "deu", "fra"]), max_size=2).map(tuple),
    kinds=st.lists(st.sampled_from(["ocr", "text_layer", "hybrid"]), max_size=2).map(tuple),
    since=st.none() | st.dates(date(2025, 12, 30), date(2026, 1, 14)),
    until=st.none() | st.dates(date(2025, 12, 30), date(2026, 1, 14)),
)


def test_filtered_search_is_complete(db: psycopg.Connection, postgres: Postgres) -> None:
    """Against brute force in numpy: as many as there are, the nearest ones, and no others."""
    pages, encoder = library(), WordEncoder()
    table = keep(db, pages, encoder)
    store.search_index.build_index(db, table, BUILD)
    stored = encoder.encode([said.text for said in pages], "passage").vectors
    stored = stored.astype(np.float16).astype(np.float64)
    search = TextSearch(postgres, lambda _: encoder, spec=SMALL)
    methods: set[str] = set()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(filters=FILTERS, words=st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=4))
    def check(filters: Filters, words: list[str]) -> None:
        query = encoder.encode([" ".join(words)], "query").vectors[0]
        left = [number for number, said in enumerate(pages) if keeps(said, filters)]
        scores = {pages[n].chunk_id: float(stored[n] @ query.astype(np.float16)) for n in left}
        best = sorted(scores.values(), reverse=True)[: SMALL.depth]
        state = store.search.state(db, encoder.spec.encoder_id)
        exact = store.search.nearest_exact(db, table, state.chunk_set, query, filters, SMALL.depth)
        np.testing.assert_allclose([ranked.score for ranked in exact], best, atol=2e-3)
        assert {ranked.chunk_id for ranked in exact} <= scores.keys()
        args = (db, table, state.chunk_set, query, filters, SMALL.depth)
        assert store.search.nearest_exact(*args, few=True) == exact
        answer = search.search(Query(" ".join(words), 25, filters))
        channel = answer.channels[0]
        methods.add(channel.method)
        assert channel.found == min(SMALL.depth, len(left)) or not channel.ran
        assert len(answer.hits) == min(25, len(left))
        assert all(hit.chunk_id in scores for hit in answer.hits)
        assert bool(answer.reason) == (len(left) < 25)

    check()
    assert methods >= {"exact", "hnsw"}
    search.close()


def test_the_index_is_used_where_it_is_asked_for_and_exact_search_never_is(
    db: psycopg.Connection,
) -> None:
    pages, encoder = library(200), WordEncoder()
    table = keep(db, pages, encoder)
    store.search_index.build_index(db, table, BUILD)
    state = store.search.state(db, encoder.spec.encoder_id)
    assert state.indexed
    assert store.search.languages(db, state.chunk_set) == ["deu", "eng"]
    query = encoder.encode(["cat river"], "query").vectors[0]

    def scans(filters: Filters) -> list[int]:
        seen: list[int] = []
        for indexed in (False, True):
            with db.transaction():
                args = (db, table, state.chunk_set, query, filters, 20)
                if indexed:
                    store.search.nearest_indexed(*args, 100)
                else:
                    store.search.nearest_exact(*args)
            db.execute("SELECT pg_stat_force_next_flush()")
            row = db.execute(
                "SELECT pg_stat_get_numscans(to_regclass(%s))", [f"{table}_hnsw"]
            ).fetchone()
            assert row is not None
            seen.append(row[0])
        return seen

    assert scans(Filters()) == [0, 1]
    assert scans(Filters(languages=("eng",))) == [1, 2]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(count=st.integers(1, 90), ends=st.tuples(st.integers(0, 90), st.integers(0, 90)))
def test_a_passage_comes_with_the_words_of_its_span(
    db: psycopg.Connection, count: int, ends: tuple[int, int]
) -> None:
    page = Said("a.pdf", 1, " ".join(f"word{n}" for n in range(count)))
    words = boxed(page.text)
    first, last = sorted(min(end, count - 1) for end in ends)
    start, end = int(words[first][0]), int(words[last][1])
    db.execute("TRUNCATE documents CASCADE")
    keep(db, [page], WordEncoder())
    db.execute(
        "UPDATE chunks SET start_char = %s, end_char = %s, text = %s",
        [start, end, page.text[start:end]],
    )
    (passage,) = store.search.passages(db, [page.chunk_id])
    within = [word for word in passage.words if word[0] < end and word[1] > start]
    assert within == words[first : last + 1]
    assert len(passage.words) <= len(within) + 32


def asked(search: TextSearch, text: str, **given: object) -> Answer:
    return search.search(parse_query(text, **given))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def cats(db: psycopg.Connection) -> WordEncoder:
    encoder = WordEncoder()
    keep(
        db,
        [
            Said("a.pdf", 1, "The cat sat on the mat and watched the river for hours"),
            Said("a.pdf", 2, "Annual report of the water works, with tables"),
            Said("b.pdf", 1, "Ein Hund liegt vor dem Haus und schläft", language="deu"),
        ],
        encoder,
    )
    return encoder


def test_both_channels_find_a_passage_and_show_where_it_is(
    cats: WordEncoder, postgres: Postgres
) -> None:
    search = TextSearch(postgres, lambda _: cats)
    answer = asked(search, "cats watching", top_k=1)
    (hit,) = answer.hits
    assert (hit.document, hit.page, hit.start_char) == ("a.pdf", 1, 0)
    assert [part.channel for part in hit.parts] == ["dense", "words"]
    assert hit.score == pytest.approx(sum(part.share for part in hit.parts))
    shown = [hit.snippet.text[a:b] for a, b in hit.snippet.marks]
    assert shown == ["cat", "watched"]
    assert hit.highlight.words == ((50.0, 0.0, 90.0, 10.0), (350.0, 0.0, 390.0, 10.0))
    assert len(hit.highlight.passage) == 2
    assert (answer.reason, answer.degraded) == ("", ())
    only_meant = asked(search, "feline", top_k=1).hits[0]
    assert (only_meant.page, [part.channel for part in only_meant.parts]) == (1, ["dense"])
    assert asked(search, "schlafen", languages=["deu"], top_k=1).hits[0].document == "b.pdf"
    few = asked(search, "cat", documents=["a.pdf"])
    assert (len(few.hits), few.reason) == (2, "only 2 passages match the filter")
    assert asked(search, "cat", documents=["c.pdf"]).reason == "no document is called 'c.pdf'"
    search.close()


def test_an_answer_is_kept_until_anything_changes(
    cats: WordEncoder, db: psycopg.Connection, postgres: Postgres
) -> None:
    search = TextSearch(postgres, lambda _: cats)
    first = asked(search, "cat river")
    assert not first.cached
    assert asked(search, "  cat   river ").cached
    assert not asked(search, "cat river", languages=["eng"]).cached
    keep(db, [Said("c.pdf", 1, "Another cat by the river")], cats)
    later = asked(search, "cat river")
    assert not later.cached
    assert later.index_version != first.index_version
    assert len(later.hits) == len(first.hits) + 1
    version = later.index_version
    assert store.search_index.forget_changes(db, 1) > 1
    assert asked(search, "cat river").index_version != version
    db.execute("DELETE FROM documents WHERE name = 'c.pdf'")
    gone = asked(search, "cat river")
    assert not gone.cached
    assert {hit.document for hit in gone.hits} == {"a.pdf", "b.pdf"}
    search.close()


def test_a_version_tells_of_commits_in_whatever_order_they_come(
    cats: WordEncoder, db: psycopg.Connection, postgres: Postgres
) -> None:
    """A transaction that began earlier and ends later still makes another version."""
    versions = [store.search.state(db, "").version]
    with postgres.connect() as early, postgres.connect() as late:
        with early.transaction():
            early.execute("UPDATE documents SET title = 'x' WHERE name = 'a.pdf'")
            late.execute("UPDATE documents SET title = 'y' WHERE name = 'b.pdf'")
            versions.append(store.search.state(db, "").version)
        versions.append(store.search.state(db, "").version)
    assert len(set(versions)) == 3


def test_what_is_missing_is_said(
    cats: WordEncoder, db: psycopg.Connection, postgres: Postgres
) -> None:
    keep(db, [Said("c.pdf", 3, "A cat without a vector")], cats, embed=False)

    def missing(switched: str) -> WordEncoder:
        raise EncoderError("its weights file is gone")

    search = TextSearch(postgres, lambda _: cats)
    answer = asked(search, "vector")
    assert any(hit.document == "c.pdf" for hit in answer.hits)
    assert answer.degraded == (
        "2 pages not read yet",
        "1 passage not embedded yet: found by their words alone",
    )
    by_words = asked(TextSearch(postgres, missing), "cat")
    assert {hit.document for hit in by_words.hits} == {"a.pdf", "c.pdf"}
    assert by_words.reason == "only 2 passages have these words, and meaning was not searched"
    assert "its weights file is gone" in by_words.degraded[0]
    assert not by_words.channels[0].ran
    search.close()


def test_pages_without_passages_for_the_encoder_in_use_are_said_to_be_missing(
    cats: WordEncoder, db: psycopg.Connection, postgres: Postgres
) -> None:
    search = TextSearch(postgres, lambda _: cats)
    assert asked(search, "cat").degraded == ()
    db.execute("DELETE FROM chunks WHERE document_id IN (SELECT document_id FROM documents"
               " WHERE name = 'b.pdf')")  # fmt: skip
    later = asked(search, "cat")
    assert later.degraded == (
        "1 page not divided into passages for this encoder yet: nothing of them can be found",
    )
    assert asked(search, "cat", documents=["a.pdf"]).degraded == ()
    search.close()


def test_what_a_query_says_of_its_words_holds_for_every_hit(
    cats: WordEncoder, postgres: Postgres
) -> None:
    search = TextSearch(postgres, lambda _: cats)
    without = asked(search, "the -cat", top_k=3)
    assert all("cat" not in hit.snippet.text for hit in without.hits)
    phrase = asked(search, '"water works"', top_k=3)
    assert [(hit.document, hit.page) for hit in phrase.hits] == [("a.pdf", 2)]
    assert phrase.reason == "only 1 passage has these words, and meaning was not searched"
    assert phrase.degraded == ()
    search.close()


def test_trouble_of_any_kind_with_the_encoder_leaves_the_words(
    cats: WordEncoder, postgres: Postgres
) -> None:
    class Broken(WordEncoder):
        def encode(self, texts: Sequence[str], kind: Kind) -> Encoded:
            raise MemoryError("no room for a matrix")

    def unreachable(switched: str) -> WordEncoder:
        raise PermissionError("the store may not be read")

    for opened, why in ((lambda _: Broken(), "no room"), (unreachable, "may not be read")):
        search = TextSearch(postgres, opened)
        answer = asked(search, "cat", top_k=1)
        assert [hit.document for hit in answer.hits] == ["a.pdf"]
        assert why in answer.degraded[0]
        health = search.health()
        assert (health.database, why in health.encoder) == ("", True)
        search.close()


HASTY = replace(SMALL, statement_s=1.0, cheap_ef_search=41)
"""Statements are really cancelled after a second: 57014."""


@pytest.fixture
def filtering(db: psycopg.Connection) -> Callable[[LiteralString], None]:
    """Has whatever filters passages take a minute while a condition in SQL holds."""

    def slow_while(condition: LiteralString) -> None:
        db.execute(
            sql.SQL(
                """
                CREATE OR REPLACE FUNCTION held_up() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
                BEGIN
                    IF {condition} THEN PERFORM pg_sleep(60); END IF;
                    RETURN true;
                END $$
                """
            ).format(condition=sql.SQL(condition))
        )

    slow_while("false")
    db.execute(
        """
        ALTER FUNCTION searched_chunks RENAME TO quickly_searched_chunks;
        CREATE FUNCTION searched_chunks(text, text[], integer, integer, text[], text[], date, date)
        RETURNS SETOF chunks LANGUAGE sql STABLE AS $$
            SELECT * FROM quickly_searched_chunks($1, $2, $3, $4, $5, $6, $7, $8) WHERE held_up()
        $$
        """
    )
    return slow_while


def test_a_search_by_meaning_that_takes_too_long_is_repeated_once_by_a_cheaper_one(
    db: psycopg.Connection, postgres: Postgres, filtering: Callable[[LiteralString], None]
) -> None:
    encoder = WordEncoder()
    store.search_index.build_index(db, keep(db, library(160), encoder), BUILD)
    hasty = TextSearch(postgres, lambda _: encoder, spec=HASTY)
    thorough = asked(hasty, "cat river", languages=["eng"])
    assert (thorough.channels[0].method, thorough.degraded) == ("hnsw", ())
    filtering("current_setting('hnsw.ef_search', true) = '60'")
    late = "searching by meaning took longer than 1 s"
    for _ in range(2):  # what was cut short is not kept
        answer = asked(hasty, "river cat", languages=["eng"])
        dense, words = answer.channels
        assert (dense.method, dense.found, dense.cut_short) == ("hnsw", 25, True)
        assert answer.degraded == (f"{late}; a cheaper search found the nearest 25",)
        assert (words.loss, answer.cached) == ("", False)
        assert {part.channel for hit in answer.hits for part in hit.parts} == {"dense", "words"}
    filtering("current_setting('hnsw.ef_search', true) IN ('60', '41')")
    answer = asked(hasty, "river cat", languages=["eng"])
    assert answer.degraded == (f"not searched by meaning: {late}",)
    assert {part.channel for hit in answer.hits for part in hit.parts} == {"words"}
    assert answer.hits
    filtering("false")
    assert asked(hasty, "river cat", languages=["eng"]).degraded == ()
    assert asked(hasty, "river cat", languages=["eng"]).cached
    hasty.close()


def test_without_an_index_a_search_by_meaning_that_takes_too_long_is_not_repeated(
    cats: WordEncoder, db: psycopg.Connection, postgres: Postgres
) -> None:
    """The table of vectors is held by another transaction, so they cannot be counted either."""
    hasty = TextSearch(postgres, lambda _: cats, spec=HASTY)
    table = store.search.state(db, cats.spec.encoder_id).table
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")
    with postgres.connect() as other, other.transaction():
        other.execute(lock.format(sql.Identifier(table)))
        answer = asked(hasty, "cat")
        assert [channel.ran for channel in answer.channels] == [False, True]
        assert answer.degraded == (
            "not searched by meaning: searching by meaning took longer than 1 s",
            "what is not read or embedded yet could not be counted in time",
        )
        assert answer.hits[0].page == 1
        assert not asked(hasty, "cat").cached  # what was cut short is not kept
    assert asked(hasty, "cat").degraded == ()
    hasty.close()


def test_a_search_by_words_that_takes_too_long_leaves_out_those_with_some_of_them(
    cats: WordEncoder, db: psycopg.Connection, postgres: Postgres
) -> None:
    hasty = TextSearch(postgres, lambda _: cats, spec=HASTY)
    (known,) = db.execute("SELECT pg_get_functiondef('lexeme_query'::regproc)").fetchone() or ("",)
    db.execute(
        """
        CREATE OR REPLACE FUNCTION lexeme_query(lexeme text) RETURNS tsquery LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_sleep(60);
            RETURN NULL;
        END $$
        """
    )
    for _ in range(2):  # what was cut short is not kept
        answer = asked(hasty, "cat river")
        dense, words = answer.channels
        assert answer.degraded == (
            "searching by words took longer than 1 s; only passages with all words were ranked, up "
            "to 100",
        )
        assert (dense.method, dense.found, words.found) == ("exact", 3, 1)
        assert (len(answer.hits), answer.cached) == (3, False)
    db.execute(known)
    assert asked(hasty, "cat river").degraded == ()
    assert asked(hasty, "cat river").cached
    hasty.close()


def test_a_search_by_words_that_takes_too_long_twice_is_left_out(
    cats: WordEncoder, postgres: Postgres, filtering: Callable[[LiteralString], None]
) -> None:
    """Without a filter, passages are filtered for their words and for counting alone."""
    hasty = TextSearch(postgres, lambda _: cats, spec=HASTY)
    filtering("true")
    answer = asked(hasty, "cat")
    assert [channel.ran for channel in answer.channels] == [True, False]
    assert answer.degraded == (
        "not searched by words: searching by words took longer than 1 s",
        "what is not read or embedded yet could not be counted in time",
    )
    assert (len(answer.hits), answer.hits[0].page) == (3, 1)
    assert answer.reason == "only 3 passages came of the time that a search may take"
    assert not asked(hasty, "cat").cached
    filtering("false")
    assert asked(hasty, "cat").degraded == ()
    assert asked(hasty, "cat").cached
    hasty.close()


@pytest.mark.parametrize(
    "text", [" ".join(of_family("sql")), *map(" ".join, map(of_family, FAMILIES))]
)
def test_hostile_words_are_words(cats: WordEncoder, postgres: Postgres, text: str) -> None:
    search = TextSearch(postgres, lambda _: cats)
    text = legible(text)[:900]
    everything = len(asked(search, "cat").hits)
    filters = Filters(documents=(text,), languages=(text,), kinds=(text,))
    assert search.search(Query(text, 10, filters)).hits == ()
    for one in (Filters(languages=(text,)), Filters(kinds=(text,))):
        assert search.search(Query("cat", 10, one)).hits == ()
    found = 0 if demands_words(text) else everything
    assert len(search.search(Query(text, 10)).hits) == found
    search.close()


def test_many_passages_with_the_words_are_ranked_up_to_a_number(
    db: psycopg.Connection, postgres: Postgres
) -> None:
    encoder = WordEncoder()
    keep(db, [Said("a.pdf", n, f"cat number {n} of many") for n in range(1, 60)], encoder)
    search = TextSearch(postgres, lambda _: encoder, spec=SearchSpec(ranked_rows=20))
    answer = asked(search, "cat")
    assert "more than 20 passages have these words" in answer.degraded[0]
    rare = asked(search, "cat 57 aardvark")  # not all words anywhere; the one that tells most wins
    assert (rare.hits[0].page, rare.degraded) == (57, ())
    search.close()


def test_an_index_replaces_the_one_before_and_is_measured(
    db: psycopg.Connection, postgres: Postgres
) -> None:
    encoder = WordEncoder()
    table = keep(db, library(120), encoder)
    for _ in range(2):
        store.search_index.build_index(db, table, BUILD)
    names = db.execute(
        "SELECT indexname FROM pg_indexes WHERE tablename = %s ORDER BY 1", [table]
    ).fetchall()
    assert names == [(f"{table}_hnsw",), (f"{table}_pkey",)]
    search = TextSearch(postgres, lambda _: encoder, spec=SMALL)
    assert asked(search, "cat").channels[0].method == "hnsw"
    store.search_index.set_recall(db, table, 120, 0.5, "spec")
    assert asked(search, "cat").channels[0].method == "exact"  # it misses too many
    search.close()
    facts = store.search_index.index_facts(db, table, "spec")
    assert (facts.rows, facts.indexed, facts.measured_rows, facts.recall) == (120, True, 120, 0.5)
    assert store.search_index.index_facts(db, table, "another").recall is None
    with db.transaction(), pytest.raises(ValueError, match="outside a transaction"):
        store.search_index.build_index(db, table, BUILD)


def test_no_database_and_no_channel_are_errors_and_no_answers(
    cats: WordEncoder, postgres: Postgres
) -> None:
    def missing(switched: str) -> WordEncoder:
        raise EncoderError("gone")

    with postgres.connect() as other, other.transaction():
        other.execute("LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE")
        blind = TextSearch(postgres, missing, spec=SearchSpec(statement_s=0.1))
        with pytest.raises(SearchUnavailableError):
            blind.search(Query("cat"))
