from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geometry import Box
from core.pages import PlacedImage
from core.reading import (
    CERTAIN,
    LayerWord,
    ReadingSpec,
    TextLayer,
    Token,
    assemble,
    doubts,
    dpi_for,
    language_of,
    merge,
    native_dpi,
    parse_tsv,
    placed_at,
    plan_reading,
    replaced,
    sure_letters,
)

SPEC = ReadingSpec()
PAGE: Box = (0, 0, 612, 792)
SENTENCE = "nobody had seen the lantern since thursday and a letter arrived by noon " * 4
SCAN = ((0.0, 0.0, 612.0, 792.0),)
SCAN_TEXT = "nobody had seen it since then"


def layer(
    text: str = SENTENCE,
    *,
    images: tuple[Box, ...] = (),
    unseen: bool = False,
    unknown: int = 0,
    top: float = 72,
) -> TextLayer:
    words = tuple(
        LayerWord(word, (72 + 40 * (i % 10), top, 100 + 40 * (i % 10), top + 10), 0, i // 10)
        for i, word in enumerate(text.split())
    )
    boxes = tuple(word.box_pt for word in words)
    return TextLayer(
        612,
        792,
        words,
        unknown_letters=unknown,
        seen_boxes_pt=() if unseen else boxes,
        unseen_boxes_pt=boxes if unseen else (),
        image_boxes_pt=images,
    )


def shifted(text: str) -> str:
    """As a font says it whose codes are three off."""
    return "".join(chr((ord(c) - 94) % 26 + 97) if c.isalpha() else c for c in text)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (layer(), "text_layer"),
        (layer(""), "blank"),
        (layer("", images=SCAN), "ocr"),
        (layer(unknown=20), "ocr"),
        (layer(shifted(SENTENCE)), "ocr"),
        (layer("\ue001\ue002\ue003 \ue004\ue005"), "ocr"),
        (layer(images=SCAN, unseen=True), "text_layer"),
        (layer("~| ;: _.- nobody '' =+= .,. <>", images=SCAN, unseen=True), "ocr"),
        (layer("Received 12 May", images=((0.0, 100.0, 612.0, 792.0),)), "ocr"),
        (layer("Received 12 May", images=SCAN), "ocr"),
        (layer(images=((72.0, 300.0, 400.0, 600.0),)), "hybrid"),
        (layer(images=((72.0, 300.0, 100.0, 330.0),)), "text_layer"),  # a logo
        (layer(images=((72.0, 60.0, 540.0, 400.0),)), "text_layer"),  # a figure with its labels
    ],
)
def test_each_kind_of_page_is_read_its_own_way(page: TextLayer, kind: str) -> None:
    assert plan_reading(page, SPEC).kind == kind


def test_strips_of_a_scan_are_one_picture() -> None:
    strips = tuple((0.0, 300.0 + 10 * k, 612.0, 310.0 + 10 * k) for k in range(30))
    assert plan_reading(layer(images=strips), SPEC).areas_pt == ((0.0, 300.0, 612.0, 600.0),)


def test_a_resolution_is_lowered_to_fit_and_raised_for_a_letter_on_a_small_sheet() -> None:
    assert dpi_for(PAGE, 150, None, SPEC) == 150
    assert dpi_for(PAGE, 300, None, SPEC) == 300
    a0 = dpi_for((0, 0, 2384, 3370), 150, None, SPEC)
    assert 2384 * 3370 * (a0 / 72) ** 2 == pytest.approx(SPEC.most_pixels)
    card: Box = (0, 0, 144, 216)  # two inches by three
    assert dpi_for(card, 150, None, SPEC) == 150
    assert dpi_for(card, 150, 720, SPEC) == 500  # 1,500 pixels
    assert dpi_for(card, 150, 200, SPEC) == 200  # there are no more


def test_the_resolution_of_a_turned_picture_is_that_along_its_sides() -> None:
    turned = PlacedImage(1, PAGE, (0.0, 792.0, -612.0, 0.0, 612.0, 0.0), 3300, 2550)
    assert native_dpi(PAGE, [turned], SPEC) == pytest.approx(300)
    assert native_dpi(PAGE, [], SPEC) is None


TSV = "\n".join(
    [
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext",
        "1\t1\t0\t0\t0\t0\t0\t0\t1275\t1650\t-1\t",
        "5\t1\t1\t1\t1\t1\t150\t300\t75\t30\t96.5\tThe",
        "5\t1\t1\t1\t1\t2\t240\t300\t150\t30\t91\tharbour",
        "5\t1\t1\t1\t2\t1\t150\t345\t60\t30\t40.25\twa$",
        "5\t1\t2\t1\t1\t1\t150\t600\t60\t30\t95\t ",
        "5\t1\t2\t1\t1\t2\t150\t600\t60\t30\t100\tquiet",
    ]
)


def test_words_of_tesseract_are_placed_in_points_and_lines_and_blocks_are_kept() -> None:
    tokens = parse_tsv(TSV, placed_at(150, (10, 20, 612, 792)))
    text, words = assemble(tokens)
    assert text == "The harbour\nwa$\n\nquiet"
    assert words[1].box_pt == pytest.approx((10 + 115.2, 20 + 144, 10 + 187.2, 20 + 158.4))
    assert [text[word.start : word.end] for word in words] == ["The", "harbour", "wa$", "quiet"]
    assert [word.confidence for word in words] == [96.5, 91, 40.25, 99.9]  # never certain
    assert sure_letters(tokens, SPEC) == len("Theharbourquiet")


TOKENS = st.lists(
    st.builds(
        Token,
        text=st.text(min_size=1, max_size=8),
        box_pt=st.just((0.0, 0.0, 1.0, 1.0)),
        confidence=st.floats(0, 100),
        block=st.integers(0, 3),
        line=st.integers(0, 3),
    ),
    max_size=20,
)


@given(tokens=TOKENS)
def test_every_span_holds_its_word(tokens: list[Token]) -> None:
    text, words = assemble(tokens)
    assert [text[word.start : word.end] for word in words] == [token.text for token in tokens]
    assert all(a.end < b.start for a, b in pairwise(words))


@given(tokens=TOKENS)
def test_reading_doubtful_regions_again_touches_no_other_word(tokens: list[Token]) -> None:
    for doubt in doubts(tokens, SPEC):
        kept = [token for place, token in enumerate(tokens) if place not in doubt.places]
        anew = Token("anew", doubt.box_pt, 99.0, 0, 0)
        after = replaced(tokens, doubt, [anew])
        assert [token for token in after if token.text != "anew"] == [
            token for token in kept if token.text != "anew"
        ]
        assert sum(token.text == "anew" and token.box_pt == doubt.box_pt for token in after) >= 1


def line(text: str, top: float, block: int, confidence: float = CERTAIN, left: float = 72) -> Token:
    return Token(text, (left, top, left + 200, top + 12), confidence, block, 0)


def test_doubtful_lines_of_a_block_are_one_region() -> None:
    found = doubts(
        [
            line("good", 72, 0, 90),
            line("bad", 90, 0, 30),
            Token("worse", (72, 104, 300, 116), 20, 0, 1),
            line("other", 300, 1, 59),
            line("file", 400, 2, CERTAIN),
        ],
        SPEC,
    )
    # "good" and "bad" share a line number, so they are one line, and that is fine.
    assert [doubt.places for doubt in found] == [(2,), (3,)]
    assert found[0].box_pt == (72, 104, 300, 116)


def test_what_a_picture_says_comes_where_the_picture_stands() -> None:
    text = [line("above", 72, 0), line("below", 500, 1), line("right", 200, 2, left=400)]
    said = [line("inside", 300, 0, 90), line("too", 320, 1, 90)]
    merged = merge(text, [((72.0, 280.0, 300.0, 400.0), said)])
    assert [token.text for token in merged] == ["above", "inside", "too", "below", "right"]
    assert len({token.block for token in merged}) == 5


def test_the_language_is_told_by_its_commonest_words_among_those_asked_for() -> None:
    german = "die Katze und der Hund sind nicht von hier"
    assert language_of(german, ("eng", "deu")) == "deu"
    assert language_of(german, ("eng",)) == "eng"
    assert language_of("12 34", ("deu", "eng")) == "deu"
    assert language_of(" \n", ("eng",)) == ""


@pytest.mark.parametrize(
    "wrong", [{"dpi": 20}, {"rotate": "sideways"}, {"languages": ()}, {"timeout_s": 0}]
)
def test_settings_that_cannot_be_meant_are_errors(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"dpi|rotate|language|timeout"):
        ReadingSpec(**wrong)  # type: ignore[arg-type]


def test_whatever_decides_a_reading_is_in_its_id() -> None:
    ids = {spec.reading_id for spec in (SPEC, ReadingSpec(dpi=200), ReadingSpec(("deu", "eng")))}
    assert len(ids) == 3
