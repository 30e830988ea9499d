import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import report_words
from core.report import RELATIONS, STATUSES, PairCount, Relation, Status
from core.report_words import (
    counted,
    describe,
    headline,
    not_looked_at,
    outcome,
    percent,
    shortened,
)
from tests.core.report_samples import (
    cells,
    copy_move,
    degraded,
    failed,
    pair,
    report_of,
    similarity,
)

PAIR = replace(pair(cells(1, 64, 48)), overlap=0.63, brightness=0.0, contrast=1.0)

ACCUSING = re.compile(
    r"fraud|manipul|fabricat|falsif|misconduct|plagiar|tamper|cheat|fake|forge|guilt|suspicious"
    r"|suspect|stolen|dishonest|duplicat|copied",
    re.IGNORECASE,
)


def test_mirror_turn_scale_and_brightness_are_said_in_this_order() -> None:
    changed = replace(
        PAIR,
        transform=similarity(12, 0.8, (64, 48), (51, 38), mirror=True),
        brightness=14.0,
    )
    assert describe(changed) == (
        "B matches A mirrored left to right, turned 12 degrees clockwise, reduced to 80 %, "
        "brighter; they share 63 % of the smaller panel."
    )


def test_a_plain_repeat_is_said_to_be_one() -> None:
    assert describe(replace(PAIR, overlap=1.0)) == (
        "B matches A, neither turned, mirrored nor scaled; they share the whole of the smaller "
        "panel."
    )


def test_a_change_of_greys_alone_is_set_against_the_unchanged_geometry() -> None:
    assert describe(replace(PAIR, brightness=-20.0, contrast=0.8)) == (
        "B matches A, neither turned, mirrored nor scaled but darker, with less contrast; "
        "they share 63 % of the smaller panel."
    )


@pytest.mark.parametrize(
    ("degrees", "mirror", "words"),
    [
        (180, False, "turned upside down (180 degrees)"),
        (180, True, "mirrored top to bottom"),
        (0, True, "mirrored left to right"),
        (-90, False, "turned 90 degrees counter-clockwise"),
        (1.2, False, "turned 1 degree clockwise"),
    ],
)
def test_turns_have_the_words_a_reader_would_use(degrees: float, mirror: bool, words: str) -> None:
    turned = replace(PAIR, transform=similarity(degrees, 1, (64, 48), (64, 48), mirror=mirror))
    assert f"B matches A {words};" in describe(turned)


def test_what_registration_leaves_is_not_worth_a_word() -> None:
    nearly = replace(
        PAIR,
        transform=similarity(0.6, 1.01, (64, 48), (64, 48), mirror=False),
        brightness=1.5,
        contrast=1.02,
    )
    assert "neither turned, mirrored nor scaled;" in describe(nearly)


def test_an_inverted_or_stretched_picture_is_called_so() -> None:
    odd = replace(PAIR, transform=((1.5, 0.0, 0.0), (0.0, 1.0, 0.0)), contrast=-1.0)
    assert "stretched in one direction, enlarged to 122 %, inverted in brightness" in describe(odd)


def test_a_repeat_within_a_panel_says_where_it_lies() -> None:
    assert describe(copy_move()) == (
        "Within one panel, region B matches region A, neither turned, mirrored nor scaled; "
        "B lies 160 px to the right of A and 90 px below it, each covers 7 % of the panel."
    )


@pytest.mark.parametrize("relation", RELATIONS)
def test_no_sentence_accuses_anyone(relation: Relation) -> None:
    for degrees, scale, mirror, gain in itertools.product(
        (0, 12, 180), (0.5, 1, 2), (False, True), (-1.0, 0.5, 1.0, 1.5)
    ):
        one = replace(
            PAIR,
            relation=relation,
            transform=similarity(degrees, scale, (64, 48), (64, 48), mirror=mirror),
            contrast=gain,
        )
        assert not ACCUSING.search(describe(one))


def test_no_label_accuses_anyone() -> None:
    tables = [table for name, table in vars(report_words).items() if name.isupper()]
    texts = [
        text
        for table in tables
        if isinstance(table, dict)
        for text in table.values()  # pyright: ignore[reportUnknownVariableType]
        if isinstance(text, str)
    ]
    assert len(texts) > 20
    for text in texts:
        assert not ACCUSING.search(text), text


@given(status=st.sampled_from(STATUSES), pairs=st.integers(0, 3))
def test_no_two_different_results_share_an_outcome(status: Status, pairs: int) -> None:
    complete, found = status == "ok", pairs > 0
    word = outcome(status, pairs)
    assert (word == "no_pairs_found") == (complete and not found)
    assert word.endswith("_incomplete") or complete or word == "failed"
    assert (word == "failed") == (status == "failed" and not found)


def test_nothing_found_is_a_plain_sentence_only_when_everything_was_looked_at() -> None:
    whole = report_of(())
    assert headline(whole) == "No similar regions found."
    assert headline(degraded(whole)).endswith("but parts were not looked at.")
    assert headline(failed()) == "The search failed. Nothing can be concluded from this report."


@pytest.mark.parametrize(
    ("review", "legitimate", "sentence"),
    [
        (1, 0, "1 pair of similar regions needs review."),
        (
            2,
            1,
            "2 pairs of similar regions need review; "
            "1 more pair is of a kind that is often legitimate.",
        ),
        (0, 2, "2 pairs of similar regions are of a kind that is often legitimate."),
    ],
)
def test_the_headline_counts_what_needs_review_apart(
    review: int, legitimate: int, sentence: str
) -> None:
    counts = (PairCount("same_image", "A", review), PairCount("other_channel", "B", legitimate))
    assert headline(replace(report_of(()), counts=counts)) == sentence


def test_what_was_left_out_is_listed() -> None:
    assert not_looked_at(degraded(report_of(()))) == (
        "1 document of 2 failed.",
        "1 page could not be looked at.",
        "9 charts and drawings were set aside: their axes and shapes resemble each other by "
        "nature.",
        "14 blank tiles were not compared: they hold no structure.",
        "Image encoder: not used (none configured).",
    )


@given(st.text(min_size=1), st.integers(8, 80))
def test_a_shortened_text_fits_and_keeps_its_ends(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short) <= limit
    assert short[0] == text[0]
    assert short[-1] == text[-1]


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    assert [percent(share) for share in (0, 0.0004, 0.634, 0.9996, 1)] == [
        "0 %",
        "under 1 %",
        "63 %",
        "over 99 %",
        "100 %",
    ]
    assert counted(1204, "pair") == "1,204 pairs"
