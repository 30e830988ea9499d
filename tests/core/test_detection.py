import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.detection import (
    ContourDetector,
    Detection,
    DetectionSpec,
    Detector,
    detect,
    rectify,
)
from core.detection_choice import overlap
from core.detection_spec import DEFAULT_SPEC
from core.geometry import Image

WIDTH, HEIGHT = 126, 176
"""A card of 63 x 88 mm at 2 px to the millimetre."""
BORDERS = ((240, 215, 90), (200, 200, 205), (28, 28, 32), (245, 245, 240))


def card(seed: int, border: tuple[int, int, int] = BORDERS[0]) -> Image:
    """A border, a picture of random shapes, a box with lines of text."""
    rng = np.random.default_rng([seed, 7])
    image = np.full((HEIGHT, WIDTH, 3), border, np.uint8)
    image[6:-6, 6:-6] = rng.integers(90, 230, 3)
    art = np.full((72, WIDTH - 24, 3), rng.integers(30, 220, 3), np.uint8)
    for _ in range(14):
        points = (rng.uniform(0, 1, (4, 2)) * art.shape[1::-1]).astype(np.int32)
        cv2.fillPoly(art, [points], rng.integers(0, 255, 3).tolist(), cv2.LINE_AA)
    image[20:92, 12:-12] = art
    image[100:-14, 11:-11] = 225
    for y in range(107, HEIGHT - 20, 8):
        cv2.line(image, (15, y), (int(rng.integers(60, WIDTH - 15)), y), (40, 40, 40), 1)
    return image


def put(
    scan: Image, picture: Image, centre: tuple[float, float], angle: float
) -> NDArray[np.float64]:
    """Lay a card on a scan, and say where its corners are."""
    matrix = cv2.getRotationMatrix2D((WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5), angle, 1.0)
    matrix[:, 2] += np.array(centre) - (WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5)
    size = scan.shape[1::-1]
    mask = cv2.warpAffine(np.full(picture.shape[:2], 255, np.uint8), matrix, size)
    laid = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    share = mask[..., None].astype(np.float32) / 255
    scan[:] = (scan * (1 - share) + laid * share).astype(np.uint8)
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]) - 0.5
    return corners @ matrix[:, :2].T + matrix[:, 2]


def photographed(scan: Image, seed: int = 0) -> Image:
    """The blur and the noise of a camera."""
    noise = np.random.default_rng(seed).normal(0, 2.5, scan.shape)
    return np.clip(cv2.GaussianBlur(scan, (0, 0), 0.8) + noise, 0, 255).astype(np.uint8)


def binder(
    cells: int = 9, *, page: int = 30, borders: tuple[tuple[int, int, int], ...] = BORDERS
) -> tuple[Image, list[NDArray[np.float64]]]:
    """A page of 3 x 3 pockets with seams, the first so many of which hold cards."""
    scan = np.full((656, 508, 3), page, np.uint8)
    quads: list[NDArray[np.float64]] = []
    rng = np.random.default_rng(5)
    for cell in range(9):
        x, y = 40 + 143 * (cell % 3), 40 + 193 * (cell // 3)
        seam = (page + 16 if page < 128 else page - 16,) * 3
        cv2.rectangle(scan, (x, y), (x + 140, y + 190), seam, 1)
        if cell < cells:
            centre = (x + 70 + float(rng.normal(0, 1)), y + 95 + float(rng.normal(0, 1)))
            quads.append(put(scan, card(cell, borders[cell % len(borders)]), centre, rng.normal()))
    return photographed(scan), quads


def off(found: Detection, quad: NDArray[np.float64]) -> float:
    """Mean distance of corners in card widths, whichever way up the card is."""
    turned = [np.roll(found.quad, turn, axis=0) for turn in (0, 2)]
    return min(float(np.hypot(*(each - quad).T).mean()) for each in turned) / WIDTH


def assert_found(found: list[Detection], quads: list[NDArray[np.float64]], within: float) -> None:
    """Each card once, nothing else."""
    assert len(found) == len(quads)
    for quad in quads:
        assert min(off(each, quad) for each in found) < within


def test_nine_cards_of_a_binder_page_are_found_in_reading_order() -> None:
    scan, quads = binder()
    found = detect(scan)
    assert_found(found, quads, 0.02)
    assert [off(each, quad) < 0.02 for each, quad in zip(found, quads, strict=True)] == [True] * 9
    assert all(0.6 < each.score <= 1.0 and not each.complaints for each in found)


def test_borders_as_dark_as_the_page_are_put_where_the_frame_says() -> None:
    scan, quads = binder(page=27, borders=(BORDERS[0], BORDERS[2]))
    assert_found(detect(scan), quads, 0.03)


def test_light_pages_do_as_well() -> None:
    scan, quads = binder(page=225, borders=BORDERS[:3])
    assert_found(detect(scan), quads, 0.02)


def test_empty_pockets_are_no_cards() -> None:
    scan, quads = binder(cells=5)
    assert_found(detect(scan), quads, 0.02)
    assert detect(binder(cells=0)[0]) == []


def test_a_page_on_its_side_gives_cards_that_start_with_a_short_side() -> None:
    scan, quads = binder()
    turned = np.ascontiguousarray(np.rot90(scan, -1))
    found = detect(turned)
    moved = [np.stack([scan.shape[0] - 1 - quad[:, 1], quad[:, 0]], -1) for quad in quads]
    assert_found(found, moved, 0.02)
    for each in found:
        top, side = each.quad[1] - each.quad[0], each.quad[2] - each.quad[1]
        assert np.hypot(*top) < np.hypot(*side)
        assert abs(top[1]) > abs(top[0])


def test_loose_cards_are_found_at_any_angle() -> None:
    scan = np.full((600, 740, 3), (70, 110, 150), np.uint8)
    places = (((130, 130), 17.0), ((370, 160), 75.0), ((600, 150), -40.0), ((200, 430), 133.0))
    quads = [
        put(scan, card(seed, BORDERS[seed]), centre, angle)
        for seed, (centre, angle) in enumerate(places)
    ]
    assert_found(detect(photographed(scan)), quads, 0.02)


def test_a_card_below_another_is_found_by_the_sides_that_show() -> None:
    scan = np.full((470, 600, 3), (40, 90, 60), np.uint8)
    quads = [
        put(scan, card(0), (130, 130), 10.0),
        put(scan, card(1, BORDERS[1]), (375, 220), -20.0),
        put(scan, card(2, BORDERS[3]), (478, 305), 35.0),
        put(scan, card(3), (150, 350), 80.0),
    ]
    assert_found(detect(photographed(scan)), quads, 0.03)


def test_perspective_is_taken_out() -> None:
    scan, quads = binder(borders=(*BORDERS[:2], BORDERS[3]))
    height, width = scan.shape[:2]
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    target = np.array([[45, 20], [480, 0], [width, height], [0, 630]], np.float32)
    warp = cv2.getPerspectiveTransform(source, target)
    tilted = np.asarray(
        cv2.warpPerspective(scan, warp, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )
    moved = cv2.perspectiveTransform(np.array(quads), warp)
    assert_found(detect(tilted), list(moved), 0.025)


def test_a_photograph_of_many_pixels_gives_quads_in_its_own() -> None:
    scan, quads = binder()
    large = np.asarray(cv2.resize(scan, None, fx=4, fy=4), np.uint8)
    found = detect(large)
    assert len(found) == 9
    for quad in quads:
        grown = (quad + 0.5) * 4 - 0.5
        assert min(off(each, grown) for each in found) < 4 * 0.02


def test_the_same_scan_gives_the_same_cards() -> None:
    scan, _ = binder(cells=4)
    first, second = detect(scan), detect(scan.copy())
    assert [each.quad.tolist() for each in first] == [each.quad.tolist() for each in second]
    assert [each.score for each in first] == [each.score for each in second]


@settings(max_examples=8, deadline=None)
@given(
    height=st.integers(1, 240),
    width=st.integers(1, 240),
    kind=st.sampled_from(["blank", "noise", "ramp"]),
    seed=st.integers(0, 1000),
)
def test_what_shows_no_card_gives_none(height: int, width: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        # Noise in a card's proportions is a picture that fills a card: see below.
        proportions = min(height, width) / max(height, width) / DEFAULT_SPEC.card_aspect
        assume(abs(proportions - 1) > DEFAULT_SPEC.cut_out_tolerance)
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    elif kind == "ramp":
        image = np.repeat(np.linspace(0, 255, width)[None, :, None], height, axis=0)
        image = np.repeat(image, 3, axis=2).astype(np.uint8)
    else:
        image = np.full((height, width, 3), seed % 256, np.uint8)
    assert detect(image) == []


@pytest.mark.parametrize("rest", [0, 1, 2, 3])
def test_a_card_cut_out_or_scanned_by_itself_is_the_whole_picture(rest: int) -> None:
    for seed in range(4):
        laid = np.asarray(cv2.resize(card(seed, BORDERS[seed]), None, fx=3, fy=3), np.uint8)
        picture = np.ascontiguousarray(np.rot90(photographed(laid), rest))
        height, width = picture.shape[:2]
        (found,) = detect(picture)
        assert found.how == "picture"
        bounds = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
        assert np.allclose([found.quad.min(axis=0), found.quad.max(axis=0)], bounds, atol=0.01)
        first, second = np.diff(found.quad[:3], axis=0)
        assert np.hypot(*first) < np.hypot(*second)


@pytest.mark.parametrize("place", [(90, 100), (70, 125), (100, 140)])
def test_a_card_with_a_cloth_around_it_is_not_the_whole_picture(place: tuple[float, float]) -> None:
    scan = np.full((240, 172, 3), (60, 90, 130), np.uint8)
    quad = put(scan, card(1), place, 0.0)
    assert_found(detect(photographed(scan)), [quad], 0.02)


def test_a_page_of_text_has_no_cards() -> None:
    page = np.full((660, 480, 3), 250, np.uint8)
    for y in range(50, 620, 14):
        cv2.putText(page, "the quick brown fox jumps over a lazy dog 0123", (40, y), 0, 0.45, 0, 1)
    assert detect(page) == []


def test_a_large_picture_of_noise_is_answered_and_empty() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3)).astype(np.uint8)
    assert detect(noise) == []


def test_a_bound_that_bites_is_said() -> None:
    scan, _ = binder()
    found = detect(scan, DetectionSpec(max_segments=40))
    assert found
    assert "40 longest of" in found[0].complaints[0]


def test_only_rgb_of_eight_bits_is_an_image() -> None:
    with pytest.raises(ValueError, match="expected RGB of 8 bits, got float64"):
        detect(np.zeros((90, 90, 3)))  # type: ignore[arg-type]


def test_a_detector_is_named_by_its_numbers() -> None:
    usual: Detector = ContourDetector()
    other: Detector = ContourDetector(DetectionSpec(min_support=0.7))
    assert usual.detector_id.startswith("detector-2-")
    assert usual.detector_id == ContourDetector().detector_id != other.detector_id


def test_a_rectified_card_is_the_card() -> None:
    scan = np.full((400, 400, 3), 60, np.uint8)
    picture = card(3)
    quad = put(scan, picture, (200, 200), 33.0)
    upright = rectify(scan, quad.astype(np.float32), WIDTH, HEIGHT)
    inner = np.s_[6:-6, 6:-6]
    difference = np.abs(upright[inner].astype(int) - picture[inner]).mean()
    assert difference < 8


def test_a_quad_that_starts_with_a_long_side_is_turned_upright() -> None:
    scan = np.full((400, 400, 3), 60, np.uint8)
    quad = put(scan, card(3), (200, 200), 0.0).astype(np.float32)
    upright = rectify(scan, quad)
    assert upright.shape == (420, 300, 3)
    np.testing.assert_array_equal(rectify(scan, np.roll(quad, 1, axis=0)), upright)


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((1260, 900, 3), np.uint8)
    stripes[:, ::2] = 255
    whole = np.array([[0, 0], [900, 0], [900, 1260], [0, 1260]], np.float32) - np.float32(0.5)
    small = rectify(stripes, whole, 100, 140)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() < 25


@pytest.mark.parametrize(
    "corners",
    [np.zeros((4, 2)), np.full((4, 2), np.nan), np.zeros((3, 2))],
)
def test_a_quad_without_area_cannot_be_rectified(corners: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="corners"):
        rectify(np.zeros((90, 90, 3), np.uint8), corners.astype(np.float32))


def test_overlap_is_a_share_of_the_smaller_one() -> None:
    large = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float64)
    small = np.array([[5, 5], [15, 5], [15, 7], [5, 7]], np.float64)
    assert overlap(large, small) == pytest.approx(0.5)
