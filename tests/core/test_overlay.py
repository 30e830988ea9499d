import numpy as np
import pytest
from numpy.typing import NDArray

from core.geometry import Image
from core.overlay import COLOURS, Mark, overlay

GREY = 128


def photograph(width: int = 400, height: int = 300) -> Image:
    return np.full((height, width, 3), GREY, np.uint8)


def box(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float32]:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def test_the_photograph_itself_stays_as_it_is() -> None:
    image = photograph()
    drawn = overlay(image, [Mark(box(20, 20, 200, 200), "1")], 400)
    assert (image == GREY).all()
    assert (drawn != GREY).any()


def test_without_marks_it_is_the_photograph() -> None:
    np.testing.assert_array_equal(overlay(photograph(), [], 1000), photograph())


@pytest.mark.parametrize("decision", list(COLOURS))
def test_the_colour_of_an_outline_says_what_was_decided(decision: str) -> None:
    drawn = overlay(photograph(), [Mark(box(50, 40, 350, 260), "1", decision)], 400)
    np.testing.assert_allclose(drawn[40, 100], COLOURS[decision], atol=40)
    assert (drawn[5, 5] == GREY).all()


def test_a_decision_that_nobody_knows_is_drawn_all_the_same() -> None:
    drawn = overlay(photograph(), [Mark(box(50, 40, 350, 260), "1", "perhaps")], 400)
    np.testing.assert_allclose(drawn[40, 100], COLOURS[""], atol=40)


def test_a_large_photograph_is_reduced_and_its_outlines_with_it() -> None:
    drawn = overlay(photograph(1000, 600), [Mark(box(200, 100, 800, 500), "1", "accept")], 500)
    assert drawn.shape == (300, 500, 3)
    np.testing.assert_allclose(drawn[50, 150], COLOURS["accept"], atol=60)
    np.testing.assert_allclose(drawn[250, 350], COLOURS["accept"], atol=60)


def test_a_small_photograph_is_not_enlarged() -> None:
    assert overlay(photograph(40, 30), [], 500).shape == (30, 40, 3)
    assert overlay(photograph(1, 900), [], 100).shape == (100, 1, 3)


def test_corners_may_be_given_as_eight_numbers_in_a_row() -> None:
    quad = box(50, 40, 350, 260)
    row = overlay(photograph(), [Mark(quad.ravel(), "1")], 400)
    np.testing.assert_array_equal(row, overlay(photograph(), [Mark(quad, "1")], 400))


@pytest.mark.parametrize(
    "label",
    ["", "Pok\N{LATIN SMALL LETTER E WITH ACUTE}mon \u30ab\u30fc\u30c9", "x" * 500, "a\0b\nc"],
)
def test_any_label_can_be_drawn(label: str) -> None:
    assert overlay(photograph(), [Mark(box(50, 40, 350, 260), label)], 400).shape == (300, 400, 3)


@pytest.mark.parametrize(
    "quad",
    [
        box(-500, -500, -400, -400),
        box(-50, -50, 900, 900),
        box(1e30, 0, 2e30, 1e30),
        box(float("nan"), 0, 100, 100),
        box(float("inf"), 0, 100, 100),
        box(10, 10, 10, 10),
    ],
    ids=["outside", "around", "far away", "no number", "endless", "a point"],
)
@pytest.mark.filterwarnings("error")
def test_an_outline_may_lie_anywhere(quad: NDArray[np.float32]) -> None:
    assert overlay(photograph(), [Mark(quad, "1")], 400).shape == (300, 400, 3)
