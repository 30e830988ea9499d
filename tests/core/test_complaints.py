import pytest

from core.complaints import HARMLESS, KINDS, Kind, in_words

LOST = "a picture or drawing could not be decoded completely; part of it may be missing"


def test_one_sentence_for_each_kind_of_loss_with_what_the_parser_said_first() -> None:
    said = in_words(
        [
            "library error: zlib error: incorrect header check",
            "padding truncated image",
            "syntax error: cannot find XObject resource 'Im7'",
        ]
    )
    assert said == (
        f"{LOST} (zlib error: incorrect header check)",
        "something that the page draws is not in the file (cannot find XObject resource 'Im7')",
    )


def test_what_changes_nothing_that_is_drawn_is_no_complaint() -> None:
    assert in_words(["bogus font (Arial) ascent/descent values (3 / -1)", "lcms: Corrupted"]) == ()


def test_an_echo_counts_only_where_nothing_else_was_said() -> None:
    echo = "encountered syntax errors; page may not be correct"
    assert in_words(["padding truncated image", echo]) == (f"{LOST} (padding truncated image)",)
    (alone,) = in_words([echo])
    assert alone.startswith("the drawing commands are damaged")
    assert in_words(["... repeated 7 times..."]) == ()


def test_what_nobody_has_met_before_is_told_all_the_same() -> None:
    assert in_words(["the moon is in the wrong house"]) == (
        "something here is damaged (the moon is in the wrong house)",
    )


def test_a_complaint_quotes_a_line_and_no_more() -> None:
    (said,) = in_words(["unknown filter name (" + "\n" * 50 + "x" * 9000 + ")"])
    assert "\n" not in said
    assert len(said) < 200


@pytest.mark.parametrize("kind", KINDS, ids=range(len(KINDS)))
def test_no_kind_matches_an_empty_message(kind: Kind) -> None:
    assert in_words(["", "   "]) == ()
    assert KINDS[0].words == HARMLESS
    assert kind.pattern.search("") is None
