import re
import string
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.passages import highlight, is_alike, snippet_of, terms_of, uses_operators
from core.search import (
    ChannelName,
    Coverage,
    Filters,
    IndexSpec,
    IndexWork,
    Query,
    QueryError,
    Ranked,
    Scope,
    SearchSpec,
    fuse,
    index_work,
    parse_query,
    reason_for_fewer,
)
from core.text import file_name, inert

DENSE, WORDS = ChannelName.DENSE, ChannelName.WORDS


def ranked(*ids: str) -> list[Ranked]:
    return [Ranked(chunk_id, 1.0 / place) for place, chunk_id in enumerate(ids, start=1)]


def test_what_both_channels_have_comes_before_what_one_has_first() -> None:
    fused = fuse({DENSE: ranked("a", "b"), WORDS: ranked("c", "b")})
    assert [found.chunk_id for found in fused] == ["b", "a", "c"]
    assert fused[0].score == pytest.approx(2 / 62)
    assert [(part.channel, part.rank, part.score) for part in fused[0].parts] == [
        (DENSE, 2, 0.5),
        (WORDS, 2, 0.5),
    ]


def test_weights_and_the_constant_are_those_of_the_spec() -> None:
    spec = SearchSpec(rrf_k=0, dense_weight=1.0, words_weight=3.0)
    fused = fuse({DENSE: ranked("a"), WORDS: ranked("c", "b")}, spec)
    assert [(found.chunk_id, found.score) for found in fused] == [
        ("c", 3.0),
        ("b", 1.5),
        ("a", 1.0),
    ]


IDS = st.lists(st.sampled_from(string.ascii_lowercase), unique=True, max_size=12)


@settings(max_examples=40)
@given(dense=IDS, words=IDS)
def test_fusion_loses_nothing_and_adds_nothing(dense: list[str], words: list[str]) -> None:
    fused = fuse({DENSE: ranked(*dense), WORDS: ranked(*words)})
    assert {found.chunk_id for found in fused} == {*dense, *words}
    assert len(fused) == len({*dense, *words})
    scores = [found.score for found in fused]
    assert scores == sorted(scores, reverse=True)
    again = fuse({WORDS: ranked(*words), DENSE: ranked(*dense)})
    assert [found.chunk_id for found in again] == [found.chunk_id for found in fused]
    assert fuse({DENSE: ranked(*dense), WORDS: ranked(*words)}, most=3) == fused[:3]


def test_a_query_is_what_was_meant() -> None:
    query = parse_query(
        "  loading\u202e \n control ", top_k=3, documents=["a.pdf", "a.pdf"], pages="3-7",
        languages=["ENG"], kinds=["ocr"], since="2026-01-01", until="2026-01-01",
    )  # fmt: skip
    filters = Filters(("a.pdf",), 3, 7, ("eng",), ("ocr",), date(2026, 1, 1), date(2026, 1, 1))
    assert query == Query("loading control", 3, filters)
    for text, pages in {"5": (5, 5), "3-": (3, None), "-7": (None, 7), "": (None, None)}.items():
        found = parse_query("x", pages=text).filters
        assert (found.first_page, found.last_page) == pages


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"text": " -- "}, "no word"),
        ({"text": "x" * 1001}, "1,001 letters"),
        ({"top_k": 0}, "1 to 100, not 0"),
        ({"pages": "7-3"}, "last page \\(3\\) lies before the first \\(7\\)"),
        ({"pages": "0-3"}, "numbered from 1"),
        ({"pages": "1; DROP TABLE"}, "pages are written as"),
        ({"pages": "-"}, "pages are written as"),
        ({"languages": ["english"]}, "three letters"),
        ({"kinds": ["scan"]}, "text_layer, ocr, hybrid"),
        ({"since": "2026-02-30"}, "since is a day like"),
        ({"since": "2026-02-02", "until": "2026-02-01"}, "later than until"),
        ({"documents": [""]}, "is empty"),
        ({"documents": ["a\x00b"]}, "no stored name has"),
        ({"documents": ["\ud800"]}, "no stored name has"),
        ({"documents": [str(n) for n in range(201)]}, "201 documents are more than"),
    ],
)
def test_what_cannot_be_searched_for_is_said(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        parse_query(**{"text": "x", **given})  # pyright: ignore[reportArgumentType]


def test_terms_leave_out_what_is_to_be_absent() -> None:
    assert terms_of('Western "blot assay" -northern -"dot blot" or CELLS') == (
        "western", "blot", "assay", "cells",
    )  # fmt: skip
    assert terms_of("well-known") == ("well", "known")
    assert uses_operators('"a b"')
    assert uses_operators("a -b")
    assert uses_operators("a or b")
    assert not uses_operators("well-known ore")


@pytest.mark.parametrize(
    ("word", "term", "alike"),
    [
        ("cells", "cell", True),
        ("Measuring", "measure", True),
        ("watched", "watching", True),
        ("studies", "study", True),
        ("Häuser", "HÄUSER", True),
        ("internal", "interest", False),
        ("card", "car", False),
        ("cat", "dog", False),
    ],
)
def test_forms_of_one_word_are_marked(word: str, term: str, alike: bool) -> None:
    assert is_alike(word, term) is alike


FORMS = "cat Cats cattle Häuser HAUS Straße strassen σας ΣΑΣ naïve ab ABC abcd a1 1 x-cat _cat"


@given(
    words=st.lists(st.sampled_from(FORMS.split()), max_size=8),
    terms=st.lists(st.sampled_from(FORMS.split()), min_size=1, max_size=4),
)
def test_all_words_that_are_alike_are_marked_and_no_others(
    words: list[str], terms: list[str]
) -> None:
    wanted = terms_of(" ".join(terms))
    snippet = snippet_of(" ".join(words), wanted, 1_000)
    assert snippet.marks == tuple(
        word.span()
        for word in re.finditer(r"\w+", snippet.text)
        if any(is_alike(word[0], term) for term in wanted)
    )


def test_a_snippet_shows_where_most_of_the_terms_are() -> None:
    text = "cat " + "filler " * 60 + "the cat\nsat on\u00ad the mat " + "filler " * 60
    snippet = snippet_of(text, ["cat", "mat"], 80)
    assert len(snippet.text) <= 80
    assert [snippet.text[a:b] for a, b in snippet.marks] == ["cat", "mat"]
    assert "the cat sat on the mat" in snippet.text
    assert not snippet.begins
    assert not snippet.ends
    assert snippet.text.split()[0] == "filler"  # cut between words
    nothing = snippet_of(text, ["dog"], 80)
    assert nothing.begins
    assert nothing.marks == ()


@settings(max_examples=40)
@given(
    text=st.text(max_size=90),
    terms=st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=4), max_size=3),
    most=st.integers(10, 60),
)
def test_a_snippet_is_short_and_its_marks_lie_in_it(text: str, terms: list[str], most: int) -> None:
    snippet = snippet_of(text, terms, most)
    assert len(snippet.text) <= most
    assert all(0 <= a < b <= len(snippet.text) for a, b in snippet.marks)
    assert inert(snippet.text) == snippet.text


def test_boxes_are_those_of_the_passage_and_its_words() -> None:
    page = "Top line. The cat sat. Below."
    words = [[0, 3, 0, 0, 30, 10, 90], [4, 9, 35, 0, 60, 10, 90], [10, 13, 0, 20, 30, 30, 90],
             [14, 17, 35, 20, 60, 30, 90], [18, 22, 65, 20, 90, 31, 90],
             [23, 29, 0, 40, 50, 50, 90]]  # fmt: skip
    shown = highlight(words, page[10:22], 10, ["cat"], 10)
    assert shown.words == ((35, 20, 60, 30),)
    assert shown.passage == ((0, 20, 90, 31),)
    assert highlight(words, page, 0, ["cat"], 2).passage == ((0, 0, 60, 10), (0, 20, 90, 31))


@pytest.mark.parametrize(
    ("found", "scope", "dense", "reason"),
    [
        (10, Scope(99, stored=True), True, ""),
        (3, Scope(3, stored=True), True, "only 3 passages match the filter"),
        (1, Scope(1, stored=True), True, "only 1 passage matches the filter"),
        (0, Scope(0, stored=True), True, "no passage matches the filter"),
        (0, Scope(0, stored=False), True, "nothing has been read yet: there is no passage to find"),
        (2, Scope(9, stored=True), False,
         "only 2 passages have these words, and meaning was not searched"),
        (0, Scope(0, stored=True, unknown=("x\n.pdf",)), True, "no document is called 'x .pdf'"),
        (2, Scope(9, stored=True, cut_short=True), True,
         "only 2 passages came of the time that a search may take"),
    ],
)  # fmt: skip
def test_fewer_hits_than_asked_for_have_a_reason(
    found: int, scope: Scope, dense: bool, reason: str
) -> None:
    query = parse_query("x", pages="1")
    assert reason_for_fewer(query, found, scope, dense_ran=dense) == reason


def test_what_is_missing_is_counted_in_words() -> None:
    covered = Coverage(3, 1, 10, 7, 2, 40, 38)
    assert covered.losses(dense=True) == (
        "1 document could not be opened, and nothing of what they say can be found",
        "2 pages could not be read",
        "1 page not read yet",
        "2 passages not embedded yet: found by their words alone",
    )
    assert Coverage(3, 0, 10, 10, 0, 40, 0).losses(dense=False) == ()
    undivided = Coverage(3, 0, 10, 10, 0, 3, 3, pages_undivided=9)
    assert undivided.losses(dense=True) == (
        "9 pages not divided into passages for this encoder yet: nothing of them can be found",
    )


def test_an_index_comes_with_many_rows_and_goes_with_few() -> None:
    spec = IndexSpec(index_rows=100, drop_rows=50, measure_again=0.2)
    assert index_work(99, False, None, spec) is IndexWork.NOTHING
    assert index_work(100, False, None, spec) is IndexWork.BUILD
    assert index_work(60, True, 60, spec) is IndexWork.NOTHING
    assert index_work(100, True, None, spec) is IndexWork.MEASURE
    assert index_work(121, True, 100, spec) is IndexWork.MEASURE
    assert index_work(49, True, 49, spec) is IndexWork.DROP


def test_names_of_strangers_become_names_of_files() -> None:
    assert file_name("../../etc/passwd") == "etc_passwd"
    assert file_name("a\x00b\n<c>.pdf") == "a_b _c_.pdf"
    assert file_name("\u202e...") == "document"
    assert len(file_name("x" * 500)) == 100
