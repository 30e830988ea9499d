import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chunks import ChunkSpec, chunk_id, configuration_of, passages_of, readable

SPEC = ChunkSpec(tokens=8, overlap=2)

PAGES = st.text(
    st.sampled_from(list("aabEü1  .\n\n-\u00ad")) | st.characters(exclude_categories=["Cs"]),
    max_size=200,
)


def count(text: str) -> int:
    """As an encoder would: pieces of words of at most four characters, and every other sign."""
    return sum(-(-len(piece) // 4) for piece in re.findall(r"\w+|[^\w\s]", text))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("hyphen-\nated", "hyphenated"),
        ("hyphen- \n  ated words", "hyphenated words"),
        ("vor\u00ad\nüber", "vorüber"),
        ("Jean-\nLuc", "Jean-Luc"),
        ("F-\nactin", "F-actin"),
        ("pages 12-\n14", "pages 12-14"),
        ("a dash -\nand more", "a dash - and more"),
        ("one\ntwo", "one two"),
        ("a heading\n\nA paragraph", "a heading\n\nA paragraph"),
        ("exam-\n", "exam"),
        ("- a point\n- another", "- a point - another"),
        ("co\u00adoperate", "cooperate"),
    ],
)
def test_divided_words_are_joined_and_lines_run_together(text: str, read: str) -> None:
    assert readable(text).text == read


@given(PAGES)
def test_every_character_that_is_read_comes_from_its_place(text: str) -> None:
    said = readable(text)
    assert len(said.places) == len(said.text) + 1
    assert list(said.places) == sorted(set(said.places))
    for character, place in zip(said.text, said.places, strict=False):
        assert character == text[place] or (character == " " and text[place].isspace())


@given(PAGES)
def test_passages_hold_all_of_a_page_in_order_and_fit_the_window(text: str) -> None:
    found = passages_of(text, count, room=8, spec=SPEC)
    held: set[int] = set()
    for passage in found:
        assert passage.text == text[passage.start : passage.end]
        assert passage.text == passage.text.strip()
        assert count(passage.readable) <= 8
        held |= set(range(passage.start, passage.end))
    spans = [(passage.start, passage.end) for passage in found]
    assert spans == sorted(set(spans))
    left = [text[place] for place in range(len(text)) if place not in held]
    assert "".join(left).strip().strip("\u00ad") == ""


def test_a_word_longer_than_the_window_is_divided_and_nothing_of_it_is_lost() -> None:
    found = passages_of("x" * 300, count, room=8, spec=SPEC)
    assert len(found) >= 10
    assert {place for p in found for place in range(p.start, p.end)} == set(range(300))


def test_passages_end_with_sentences_and_repeat_some_of_the_one_before() -> None:
    text = "The first sen-\ntence is here. The second\none follows it. And a third one ends it."
    found = passages_of(text, count, room=20, spec=ChunkSpec(tokens=12, overlap=3))
    assert found[0].readable == "The first sentence is here."
    assert all(b.start <= a.end + 1 for a, b in pairwise(found))


def test_an_encoder_without_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="reads nothing"):
        passages_of("text", count, room=0)


def test_a_passage_is_named_by_its_place_its_words_and_its_set() -> None:
    (passage,) = passages_of("a few words", count, room=8)
    names = {
        chunk_id("d", 1, "s", passage),
        chunk_id("d", 2, "s", passage),
        chunk_id("d", 1, "t", passage),
        chunk_id("d", 1, "s", passages_of("other words", count, room=8)[0]),
    }
    assert len(names) == 4


def test_languages_without_rules_of_their_own_are_read_word_by_word() -> None:
    assert configuration_of("eng") == "english"
    assert configuration_of("deu_frak") == "german"
    assert configuration_of("jpn") == configuration_of("") == "simple"
