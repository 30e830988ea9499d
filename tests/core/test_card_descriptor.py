import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.card_descriptor import DIM, describe, search_views
from core.geometry import Image

SIZE = (300, 420)


def card(seed: int, size: tuple[int, int] = SIZE) -> Image:
    """A frame of one of three colours, a picture of blobs and lines, and rows of type."""
    rng = np.random.default_rng(seed)
    frame = ((200, 60, 50), (60, 90, 200), (70, 160, 80))[seed % 3]
    drawn = np.full((420, 300, 3), frame, np.uint8)
    art = np.full((170, 250, 3), rng.integers(40, 220, 3), np.uint8)
    for _ in range(14):
        x, y = (int(v) for v in rng.integers(0, (250, 170)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        axes = (int(rng.integers(8, 50)), int(rng.integers(8, 40)))
        cv2.ellipse(art, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    drawn[45:215, 25:275] = art
    drawn[240:370, 25:275] = 225
    for row in range(6):
        word = "".join(chr(97 + int(v)) for v in rng.integers(0, 26, 14))
        cv2.putText(drawn, word, (32, 262 + 18 * row), 0, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
    return np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)


def photographed(image: Image, seed: int) -> Image:
    """Off by a hundredth of the width, blurred, with a reflection, a shadow and a yellow lamp."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0, 0], [300, 0], [300, 420], [0, 420]], np.float32)
    moved = corners + rng.normal(0, 3, (4, 2)).astype(np.float32)
    seen = cv2.warpPerspective(
        image, cv2.getPerspectiveTransform(moved, corners), SIZE, borderMode=cv2.BORDER_REPLICATE
    )
    level = cv2.GaussianBlur(seen, (0, 0), 1.2).astype(np.float32) * (0.8, 0.76, 0.62)
    y, x = np.mgrid[0:420, 0:300]
    level += (70 * np.exp(-(((x + 0.7 * y - 320) / 25) ** 2)))[..., None]
    level *= (0.7 + 0.3 * x / 300)[..., None]
    return np.clip(level + rng.normal(0, 4, level.shape), 0, 255).astype(np.uint8)


CARDS = [card(seed) for seed in range(24)]
KNOWN = describe(CARDS)


def test_vectors_have_unit_length() -> None:
    assert KNOWN.shape == (24, DIM)
    assert KNOWN.dtype == np.float32
    assert DIM <= 512
    np.testing.assert_allclose(np.linalg.norm(KNOWN, axis=1), 1, atol=1e-5)


def test_a_photograph_is_nearest_to_its_own_card() -> None:
    seen = describe([photographed(image, seed) for seed, image in enumerate(CARDS)])
    scores = seen @ KNOWN.T
    assert (scores.argmax(axis=1) == np.arange(24)).all()
    assert float(np.diag(scores).min()) > 0.7


def test_a_card_upside_down_is_another_picture() -> None:
    seen = [photographed(image, seed) for seed, image in enumerate(CARDS)]
    upright, turned = describe(seen), describe([image[::-1, ::-1] for image in seen])
    assert ((upright * KNOWN).sum(axis=1) > (turned * KNOWN).sum(axis=1) + 0.1).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 23), gain=st.floats(0.5, 1.0), offset=st.floats(0, 20))
def test_dim_light_changes_little(seed: int, gain: float, offset: float) -> None:
    dim = np.clip(CARDS[seed] * gain + offset, 0, 255).astype(np.uint8)
    assert float(describe([dim])[0] @ KNOWN[seed]) > 0.9


def test_the_size_of_the_crop_does_not_matter() -> None:
    larger = describe([card(5, (600, 840))])
    assert float(larger[0] @ KNOWN[5]) > 0.98


def test_a_blank_card_is_near_no_other() -> None:
    blank = describe([np.full((420, 300, 3), 90, np.uint8)])
    np.testing.assert_allclose(np.linalg.norm(blank), 1, atol=1e-5)
    assert float(np.abs(blank @ KNOWN.T).max()) < 0.3


def test_no_cards_give_no_vectors() -> None:
    assert describe([]).shape == (0, DIM)


def test_a_grey_picture_is_an_error() -> None:
    with pytest.raises(ValueError, match="a card is RGB"):
        describe([np.zeros((420, 300), np.uint8)])


def test_a_card_within_the_outline_of_its_sleeve_is_found_by_the_inner_view() -> None:
    for seed, image in enumerate(CARDS[:8]):
        sleeved = cv2.copyMakeBorder(image, 34, 34, 24, 24, cv2.BORDER_CONSTANT, value=(30, 30, 34))
        views = search_views(np.asarray(sleeved[::-1, ::-1], np.uint8))
        scores = describe([view for view, _ in views]) @ KNOWN.T
        best_view, best_card = np.unravel_index(int(scores.argmax()), scores.shape)
        assert (best_card, views[int(best_view)][1]) == (seed, True)
