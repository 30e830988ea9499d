from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from core.card_descriptor import describe
from core.card_verification import GeometrySpec, align, card_features, find_fit, sheet, turn_round
from core.geometry import Image
from core.identification import (
    Decision,
    IdentificationSpec,
    Recalled,
    Template,
    identify,
    number_agrees,
)

SIZE = (300, 420)
CORNERS = np.array([[0, 0], [300, 0], [300, 420], [0, 420]], np.float32)


def picture(art: int) -> Image:
    """An artwork: blobs with outlines, and lines, on a ground that is not flat."""
    rng = np.random.default_rng(art)
    ground = cv2.resize(rng.integers(40, 220, (3, 4, 3)).astype(np.float32), (250, 170))
    drawn = np.clip(ground + rng.normal(0, 6, ground.shape), 0, 255).astype(np.uint8)
    for _ in range(16):
        place = (int(rng.integers(0, 250)), int(rng.integers(0, 170)))
        axes = (int(rng.integers(6, 40)), int(rng.integers(6, 30)))
        angle, colour = float(rng.uniform(0, 180)), tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.ellipse(drawn, place, axes, angle, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(drawn, place, axes, angle, 0, 360, (15, 15, 20), 1, cv2.LINE_AA)
        ends = [(int(rng.integers(0, 250)), int(rng.integers(0, 170))) for _ in range(2)]
        cv2.line(drawn, ends[0], ends[1], colour, 1, cv2.LINE_AA)
    return drawn


def card(
    art: int, *, number: str = "012/145", symbol: int = 3, frame: int = 0, words: int = 0
) -> Image:
    """A card: frame, artwork, rows of type; symbol and number at the lower left."""
    rng = np.random.default_rng((art, words))
    drawn = np.full((420, 300, 3), ((200, 70, 60), (70, 110, 200), (80, 160, 90))[frame], np.uint8)
    drawn[45:215, 25:275] = picture(art)
    drawn[235:375, 25:275] = 228
    for row in range(6):
        line = "".join(chr(97 + int(v)) for v in rng.integers(0, 26, 24))
        cv2.putText(drawn, line, (30, 256 + 19 * row), 0, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    cv2.putText(drawn, f"Name {art}", (28, 32), 0, 0.6, (20, 20, 20), 1, cv2.LINE_AA)
    shape = np.random.default_rng(symbol)
    points = np.array([36, 396]) + shape.integers(-9, 10, (5, 2))
    cv2.fillPoly(drawn, [points], tuple(int(v) for v in shape.integers(0, 255, 3)), cv2.LINE_AA)
    cv2.putText(drawn, number, (54, 401), 0, 0.38, (15, 15, 15), 1, cv2.LINE_AA)
    return drawn


def photographed(image: Image, seed: int = 0, *, turned: bool = False) -> Image:
    """Off at its corners, blurred, under uneven yellow light, with a reflection and noise."""
    rng = np.random.default_rng(seed)
    moved = CORNERS + rng.normal(0, 3.0, (4, 2)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(moved, CORNERS)
    seen = cv2.warpPerspective(image, matrix, SIZE, borderMode=cv2.BORDER_REPLICATE)
    level = cv2.GaussianBlur(seen, (0, 0), 0.9).astype(np.float32) * (0.84, 0.8, 0.7) + 6
    y, x = np.mgrid[0:420, 0:300]
    level += (60 * np.exp(-(((x + 0.7 * y - 250) / 25) ** 2)))[..., None]
    level *= (0.75 + 0.25 * x / 300)[..., None]
    level = np.clip(level + rng.normal(0, 3, level.shape), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(level[::-1, ::-1]) if turned else level


class Gallery:
    """Known cards, searched as the pipeline does, counting what is loaded."""

    def __init__(self, cards: dict[str, Image], numbers: dict[str, str] | None = None) -> None:
        self.cards = cards
        self.loaded: list[str] = []
        self.templates = [
            Template(name, f"{name}.jpg", self._loader(name), number=(numbers or {}).get(name, ""))
            for name in cards
        ]
        self.vectors = describe(list(cards.values()))

    def _loader(self, name: str) -> Callable[[], Image]:
        def load() -> Image:
            self.loaded.append(name)
            return self.cards[name]

        return load

    def recall(self, crop: Image) -> list[Recalled]:
        ways = describe([crop, crop[::-1, ::-1]])
        scores = self.vectors @ ways.T
        order = np.argsort(-scores.max(axis=1), kind="stable")
        return [
            Recalled(self.templates[k], float(scores[k].max()), bool(scores[k].argmax()))
            for k in order.tolist()
        ]


ALONE = {f"alone-{art}": card(art, number=f"{art:03d}/145", frame=art % 3) for art in range(8)}
PRINTS = {
    "first": card(20, number="012/145", symbol=3),
    "reprint": card(20, number="087/190", symbol=8),
    "other-frame": card(20, number="012/145", symbol=3, frame=1),
    "other-language": card(20, number="012/145", symbol=3, words=1),
}
GALLERY = Gallery(
    ALONE | PRINTS, {"first": "012/145", "reprint": "087/190"} | {"alone-2": "002/145"}
)


@pytest.mark.parametrize("turned", [False, True])
def test_a_known_card_is_accepted_whichever_way_up(turned: bool) -> None:
    crop = photographed(ALONE["alone-2"], turned=turned)
    found = identify(crop, GALLERY.recall(crop))
    assert (found.decision, found.candidates[0].item_id) == (Decision.ACCEPT, "alone-2")
    assert found.turned is turned
    assert found.candidates[0].score == found.score > 0.9
    assert found.reasons == ()


@pytest.mark.parametrize("name", PRINTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_prints_of_one_artwork_are_told_apart(name: str, seed: int) -> None:
    crop = photographed(PRINTS[name], seed)
    found = identify(crop, GALLERY.recall(crop))
    assert found.candidates[0].item_id == name
    assert found.candidates[0].differential is not None
    assert found.candidates[0].differential > 0.3
    assert {c.item_id for c in found.candidates[:4]} == set(PRINTS)


def test_an_unseen_reprint_is_left_to_review_and_told_why() -> None:
    crop = photographed(card(4, number="151/203", symbol=11, frame=1))
    found = identify(crop, GALLERY.recall(crop))
    known = photographed(ALONE["alone-4"])
    assert (found.decision, found.candidates[0].item_id) == (Decision.REVIEW, "alone-4")
    assert found.score < identify(known, GALLERY.recall(known)).score - 0.3
    assert "a print that the gallery does not hold" in found.reasons[0]


def test_another_artwork_in_a_known_frame_is_unknown() -> None:
    crop = photographed(card(50))
    found = identify(crop, GALLERY.recall(crop))
    assert found.decision == Decision.UNKNOWN
    assert found.score < 0.1
    assert found.reasons == ("No known card has this artwork.",)


def test_what_is_no_card_is_unknown() -> None:
    flat = np.full((420, 300, 3), 120, np.uint8)
    assert identify(flat, GALLERY.recall(flat)).decision == Decision.UNKNOWN


def test_an_empty_gallery_says_so() -> None:
    found = identify(photographed(card(1)), [])
    assert (found.decision, found.candidates) == (Decision.UNKNOWN, ())
    assert found.reasons == ("The gallery is empty.",)


def test_the_same_crop_gives_the_same_answer() -> None:
    crop = photographed(PRINTS["reprint"], 5)
    first, second = (identify(crop, GALLERY.recall(crop)) for _ in range(2))
    assert first == second


def test_candidates_are_distinct_items_best_first() -> None:
    crop = photographed(PRINTS["first"], 3)
    candidates = identify(crop, GALLERY.recall(crop)).candidates
    assert len(candidates) == len({c.item_id for c in candidates}) == 5
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)


def test_templates_are_loaded_once_and_only_where_they_resemble() -> None:
    gallery = Gallery(ALONE)
    crop = photographed(ALONE["alone-6"])
    identify(crop, gallery.recall(crop), IdentificationSpec(look_alikes_within=3))
    assert len(gallery.loaded) == len(set(gallery.loaded)) <= 3


def test_further_views_are_asked_of_the_items_in_contention() -> None:
    asked: list[str] = []

    def more(item_id: str) -> Sequence[Template]:
        asked.append(item_id)
        return [Template(item_id, f"{item_id}-b.jpg", lambda: PRINTS[item_id])]

    crop = photographed(PRINTS["first"], 1)
    found = identify(crop, GALLERY.recall(crop), more=more)
    assert sorted(asked) == sorted(PRINTS)
    assert found.candidates[0].item_id == "first"


def test_a_number_that_was_read_speaks_for_or_against() -> None:
    crop = photographed(ALONE["alone-2"], 4)
    recalled = GALLERY.recall(crop)
    shapes: list[tuple[int, ...]] = []

    def reading(text: str) -> Callable[[Image], str]:
        def read(strip: Image) -> str:
            shapes.append(strip.shape)
            return text

        return read

    plain, agrees, contradicts = (
        identify(crop, recalled, read=read)
        for read in (None, reading("illus. 2/145"), reading("150/145"))
    )
    assert contradicts.score < plain.score < agrees.score
    assert contradicts.reasons[0] == "The number on the card does not read 002/145."
    assert shapes == [(200, 1200, 3)] * 2


@pytest.mark.parametrize(
    ("text", "number", "agrees"),
    [
        ("* 012/145 C", "12/145", True),
        ("12 / 145", "012/145", True),
        ("012", "012/145", True),
        ("013/145", "012/145", False),
        ("012/190", "012/145", False),
        ("TG07/TG30", "TG07", True),
        ("tg7", "TG07", True),
        ("no digits", "012/145", None),
        ("2019 012/145", "012/145", True),
        ("012/145", "", None),
    ],
)
def test_numbers_are_compared_as_printed(text: str, number: str, agrees: bool | None) -> None:
    assert number_agrees(text, number) is agrees


def test_a_card_without_colours_is_an_error() -> None:
    with pytest.raises(ValueError, match="a card is RGB"):
        identify(np.zeros((420, 300), np.uint8), [])  # type: ignore[arg-type]


def test_a_shifted_card_is_aligned_to_a_fraction_of_a_pixel() -> None:
    spec = GeometrySpec()
    known = sheet(card(7))
    goal = CORNERS + np.array([[4, -3], [-5, 2], [3, 5], [-4, -4]], np.float32)
    matrix = cv2.getPerspectiveTransform(CORNERS, goal)
    moved = cv2.warpPerspective(card(7), matrix, SIZE, borderMode=cv2.BORDER_REPLICATE)
    seen = sheet(np.asarray(moved, np.uint8))
    fit = find_fit(card_features(seen, spec), card_features(known, spec), spec)
    assert fit is not None
    assert not fit.turned
    pixels, inside = align(seen, known, fit.homography, spec)
    off = np.abs(pixels - known.colour)[inside].mean()
    before = np.abs(seen.colour - known.colour)[inside].mean()
    assert off < 0.25 * before


def test_a_card_upside_down_has_a_turned_fit() -> None:
    spec = GeometrySpec()
    known = sheet(card(7))
    turned = sheet(np.ascontiguousarray(card(7)[::-1, ::-1]))
    fit = find_fit(card_features(turned, spec), card_features(known, spec), spec)
    assert fit is not None
    assert fit.turned
    np.testing.assert_allclose(fit.homography / fit.homography[2, 2], turn_round(), atol=1.5)
