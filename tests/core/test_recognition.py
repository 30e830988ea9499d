from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from core.errors import BudgetError, InputError
from core.geometry import Box
from core.paper import Grey, cleaned, ink_share, skew_of, turned
from core.paper_spec import PaperSpec
from core.reading import LayerWord, Plan, ReadingSpec, TextLayer
from core.recognition import (
    Picture,
    Recognized,
    as_it_is,
    is_settled,
    is_writing,
    put_together,
    read_first,
    settle,
)

SPEC = ReadingSpec()
PAGE: Box = (0, 0, 306, 396)
HEAD = "level\tpage\tblock\tpar\tline\tword\tleft\ttop\twidth\theight\tconf\ttext\n"


def lettered(shape: tuple[int, int] = (825, 638), ink: int = 0, paper: int = 255) -> Grey:
    """Lines of something like words."""
    grey = np.full(shape, paper, np.uint8)
    rng = np.random.default_rng(3)
    for top in range(60, shape[0] - 60, 30):
        left = 50
        while left < shape[1] - 90:
            width = int(rng.integers(20, 60))
            for x in range(left, left + width, 7):
                cv2.rectangle(grey, (x, top), (x + 3, top + 13), ink, -1)
            left += width + 12
    return grey


def render(part: Box, dpi: float) -> Picture:
    x0, y0, x1, y1 = (round(side * dpi / 72) for side in part)
    whole = cv2.resize(lettered(), (x1, y1)).astype(np.uint8)
    return Picture(whole[y0:, x0:], dpi)


def says(*lines: tuple[str, float], dpi: float = 150) -> str:
    rows = [
        f"5\t1\t1\t1\t{n}\t1\t{100 * dpi / 150:.0f}\t{(60 + 30 * n) * dpi / 150:.0f}"
        f"\t{200 * dpi / 150:.0f}\t{20 * dpi / 150:.0f}\t{confidence}\t{text}"
        for n, (text, confidence) in enumerate(lines)
    ]
    return HEAD + "\n".join(rows)


@dataclass
class Engine:
    """Says what it is told to, and remembers what it was asked."""

    answer: Callable[[int], str]
    turn: int = 0
    asked: list[tuple[int, bool]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def read(self, grey: Grey, dpi: float, *, one_block: bool = False) -> str:
        self.asked.append((round(dpi), one_block))
        self.shapes.append(grey.shape)
        return self.answer(len(self.asked))

    def quarter_turn(self, grey: Grey, dpi: float) -> int:
        return self.turn


def read(engine: Engine, picture: Picture | None = None) -> Recognized:
    """A first reading, and whatever makes it better."""
    drawn = picture or render(PAGE, 150)
    first = read_first(PAGE, None, drawn, engine, SPEC)
    asked = len(engine.asked)
    found = settle(first, (lambda part, dpi: drawn) if picture else render, engine, SPEC)
    assert len(engine.asked) == asked or not is_settled(first, SPEC)
    return found


def test_a_page_that_is_read_well_is_read_once() -> None:
    engine = Engine(lambda n: says(("harbour", 95), ("lantern", 92)))
    found = read(engine)
    assert [token.text for token in found.tokens] == ["harbour", "lantern"]
    assert (found.dpi, found.regions, found.losses, engine.asked) == (150, [], [], [(150, False)])


def test_a_page_that_is_read_badly_is_read_finer_until_it_is_read_well() -> None:
    answers = [
        says(("hxrbour", 50), ("lantern", 92)),
        says(("harbour", 80), ("lantern", 85), dpi=200),
        says(("harbour", 95), ("lantern", 30), dpi=300),
        says(("lantern", 97), dpi=300),
    ]
    engine = Engine(lambda n: answers[n - 1])
    found = read(engine)
    assert [dpi for dpi, _ in engine.asked[:3]] == [150, 200, 300]
    # The second reading is kept: it has more letters that are sure than the third.
    assert found.dpi == 200
    assert [round(value) for value in found.tokens[0].box_pt] == [48, 29, 144, 39]


def test_a_better_reading_that_fails_is_a_loss_and_the_first_is_kept() -> None:
    def answer(n: int) -> str:
        if n > 1:
            raise InputError("tesseract took longer than 120 s")
        return says(("harbour", 80))

    found = read(Engine(answer))
    assert [token.text for token in found.tokens] == ["harbour"]
    assert found.losses == [
        "could not be read again, to read it better: tesseract took longer than 120 s"
    ]


def test_a_first_reading_that_fails_fails_the_page() -> None:
    def answer(n: int) -> str:
        raise InputError("tesseract crashed (SIGSEGV)")

    with pytest.raises(InputError, match="SIGSEGV"):
        read(Engine(answer))


def test_what_does_not_fit_is_read_at_less_and_that_is_said() -> None:
    def answer(n: int) -> str:
        if n < 3:
            raise BudgetError("too large", budget_mb=1, needed_mb=2)
        return says(("harbour", 95), dpi=77)

    found = read(Engine(answer))
    assert found.dpi == pytest.approx(150 / 1.4**2)
    assert found.losses == [
        "is so large that its text was read at 77 instead of 150 dpi; small print may be missing"
    ]


def test_a_page_on_its_side_is_turned_and_its_boxes_are_where_it_shows_them() -> None:
    answers = [says(("hxrb", 20)), says(("harbour", 95))]
    engine = Engine(lambda n: answers[n - 1], turn=90)
    found = read(engine, Picture(np.ascontiguousarray(np.rot90(lettered())), 150))
    assert [token.text for token in found.tokens] == ["harbour"]
    assert engine.shapes == [(638, 825), (825, 638)]
    # 100 to 300 from the left and 60 to 80 from the top, before it was turned clockwise.
    expected = np.array([60, 638 - 300, 80, 638 - 100]) * 72 / 150
    assert found.tokens[0].box_pt == pytest.approx(tuple(expected), abs=1)


def test_doubtful_lines_are_read_closer_and_what_stays_doubtful_is_told() -> None:
    def answer(n: int) -> str:
        if n == 1:
            return says(*[("sound", 95)] * 14, ("l@ntxrn", 30), ("m&sxum", 20), ("sound", 95))
        # At 300 dpi the region begins 4 points above and left of its words.
        return HEAD + "5\t1\t1\t1\t1\t1\t20\t20\t300\t30\t96\tlantern"

    engine = Engine(answer)
    found = read(engine)
    assert engine.asked == [(150, False), (300, True)]
    assert [token.text for token in found.tokens] == [*["sound"] * 14, "lantern", "sound"]
    assert found.regions == []

    engine = Engine(lambda n: answer(1) if n == 1 else HEAD)
    (region,) = read(engine).regions
    assert (round(region.confidence), region.read_again_dpi) == (25, 300)


def test_nothing_is_an_answer_and_costs_no_reading() -> None:
    engine = Engine(lambda n: HEAD)
    rng = np.random.default_rng(0)
    for paper in (np.full((825, 638), 255), rng.normal(210, 6, (825, 638))):
        found = read(engine, Picture(np.clip(paper, 0, 255).astype(np.uint8), 150))
        assert found.blank
    assert engine.asked == []


def test_of_pictures_among_text_only_what_is_sure_counts() -> None:
    layer = TextLayer(306, 396, (LayerWord("above", (72, 40, 120, 52), 0, 0),))
    area: Box = (0, 60, 306, 396)
    plan = Plan("hybrid", (area,))
    sure = read(Engine(lambda n: says(("lantern", 95), ("~.", 20))))
    said = put_together(plan, layer, [(area, sure)], SPEC)
    assert (said.kind, said.text) == ("hybrid", "above\n\nlantern")
    assert said.confidence == pytest.approx(95)
    nothing = read(Engine(lambda n: says(("~.", 20))))
    said = put_together(plan, layer, [(area, nothing)], SPEC)
    assert (said.kind, said.text, said.confidence) == ("text_layer", "above", None)


def test_a_photograph_among_text_is_not_looked_at_closer_and_writing_is() -> None:
    photograph = read_first(
        PAGE,
        None,
        render(PAGE, 150),
        Engine(lambda n: says(("~i", 20), ("l.", 30), ("go", 90))),
        SPEC,
    )
    assert not is_writing(photograph, SPEC)
    assert [token.text for token in as_it_is(photograph).tokens] == ["~i", "l.", "go"]
    writing = Engine(lambda n: says(("lantern", 80), ("m&sxum", 40), ("harbour", 90)))
    assert is_writing(read_first(PAGE, None, render(PAGE, 150), writing, SPEC), SPEC)


# ---- paper ----------------------------------------------------------------------------------

PAPER = PaperSpec()


@pytest.mark.parametrize("degrees", [-9.0, -3.0, 0.0, 2.0, 6.0])
def test_the_slant_of_lines_is_found(degrees: float) -> None:
    slanted, _ = turned(lettered(), degrees)
    assert skew_of(slanted, PAPER.most_skew) == pytest.approx(degrees, abs=0.5)


def test_turning_knows_where_pixels_were() -> None:
    grey = np.full((400, 300), 255, np.uint8)
    cv2.circle(grey, (60, 80), 3, 0, -1)
    moved, back = turned(grey, 30)
    y, x = (float(values.mean()) for values in np.nonzero(moved < 100))
    assert back @ [x, y, 1] == pytest.approx([60, 80], abs=1)


def test_a_sound_page_is_left_as_it_is() -> None:
    grey = lettered()
    assert cleaned(grey, 150, PAPER) is grey


def test_light_that_falls_off_is_evened() -> None:
    falling = (lettered() * np.linspace(1.0, 0.3, 638)).astype(np.uint8)
    even = cleaned(falling, 150, PAPER)
    assert np.percentile(even[:, -100:], 90) > 235
    assert even[lettered() == 0].max() < 100


def test_faint_ink_under_noise_is_ink_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    faint = lettered(ink=190, paper=225) + rng.normal(0, 4, (825, 638))
    grey = np.clip(faint, 0, 255).astype(np.uint8)
    assert ink_share(grey, PAPER) > 0.05
    stretched = cleaned(grey, 150, PAPER)
    inside = cv2.erode((lettered() == 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert stretched[inside].mean() < 90
    assert np.percentile(stretched[lettered() == 255], 50) > 200
