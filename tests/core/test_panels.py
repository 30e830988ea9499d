from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.geometry import Box, Image, iou, scale_box
from core.pages import PageContent, PlacedImage
from core.panels import DetectedPanel, PanelSpec, detect_panels, step_odds

DPI = 150.0
FACTOR = DPI / 72
PixelBox = tuple[int, int, int, int]


def picture(width: int, height: int, seed: int, ground: float = 0.35) -> Image:
    """A textured picture: blobs of its own size and tint on a ground."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), 2 + seed % 5)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    level = ground * (0.25 + 0.75 * noise) + 0.01 * rng.standard_normal((height, width))
    tint = rng.uniform(0.6, 1.0, 3)
    return ((level[..., None] * tint).clip(0, 0.98) * 255).astype(np.uint8)


def page(width: int = 1000, height: int = 800) -> Image:
    return np.full((height, width, 3), 255, np.uint8)


def put(canvas: Image, box: PixelBox, seed: int, ground: float = 0.35) -> None:
    x0, y0, x1, y1 = box
    canvas[y0:y1, x0:x1] = picture(x1 - x0, y1 - y0, seed, ground)


def placed(box: PixelBox, xref: int = 7, size: tuple[int, int] | None = None) -> PlacedImage:
    width, height = size or (box[2] - box[0], box[3] - box[1])
    points = scale_box(box, 1 / FACTOR)
    transform = (points[2] - points[0], 0.0, 0.0, points[3] - points[1], points[0], points[1])
    return PlacedImage(xref, points, transform, width, height)


def content_of(
    canvas: Image, images: Sequence[PlacedImage], words: Sequence[Box] = ()
) -> PageContent:
    height, width = canvas.shape[:2]
    return PageContent(width / FACTOR, height / FACTOR, tuple(images), tuple(words))


def primary(panels: Sequence[DetectedPanel]) -> list[PixelBox]:
    return [panel.box_px for panel in panels if panel.alternative_of is None]


def assert_same_boxes(
    found: Sequence[PixelBox], wanted: Sequence[PixelBox], least: float = 0.95
) -> None:
    assert len(found) == len(wanted), found
    for box in wanted:
        assert max(iou(box, other) for other in found) >= least, (box, found)


def as_jpeg(canvas: Image, quality: int) -> Image:
    coded = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    stored = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(stored[..., ::-1])


WHOLE: PixelBox = (50, 50, 950, 750)
GRID: list[PixelBox] = [
    (60, 60, 340, 300),
    (350, 60, 640, 300),
    (60, 310, 430, 560),
    (440, 310, 940, 560),
]


def test_a_placed_picture_keeps_the_exact_box_of_its_object() -> None:
    canvas, box = page(), (100, 120, 400, 420)
    put(canvas, box, 1)
    image = placed(box, xref=12)
    (panel,) = detect_panels(canvas, DPI, content_of(canvas, [image]))
    assert panel.box_pt == image.box_pt
    assert panel.box_px == box
    assert (panel.method, panel.xref, panel.alternative_of) == ("image_object", 12, None)


@pytest.mark.parametrize("quality", [60, 95])
def test_a_flattened_figure_falls_apart_at_its_gutters(quality: int) -> None:
    canvas = page()
    for seed, box in enumerate(GRID):
        put(canvas, box, seed)
    canvas = as_jpeg(canvas, quality)
    panels = detect_panels(canvas, DPI, content_of(canvas, [placed(WHOLE)]))
    assert_same_boxes(primary(panels), GRID)
    assert {panel.method for panel in panels} == {"gutter"}


@settings(max_examples=12, deadline=None)
@given(gutter=st.integers(2, 12), seed=st.integers(0, 1000))
def test_gutters_of_any_usual_width_are_seen(gutter: int, seed: int) -> None:
    canvas = page()
    boxes: list[PixelBox] = [(60, 60, 300, 300), (300 + gutter, 60, 620, 300)]
    for k, box in enumerate(boxes):
        put(canvas, box, seed + k)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed(WHOLE)])))
    assert_same_boxes(found, boxes)


def test_black_gutters_separate_too() -> None:
    canvas = page()
    canvas[50:570, 50:950] = 0
    boxes = [*GRID, (650, 60, 940, 300)]
    for seed, box in enumerate(boxes):
        put(canvas, box, seed, ground=0.6)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed((50, 50, 950, 570))])))
    assert_same_boxes(found, boxes)


def test_a_gutter_dimmed_to_a_grey_line_is_a_gutter() -> None:
    canvas, box = page(), (60, 60, 660, 300)
    put(canvas, (60, 60, 360, 300), 3)
    put(canvas, (361, 60, 660, 300), 4)
    canvas[60:300, 360] = 190
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed(box)])))
    assert_same_boxes(found, [(60, 60, 360, 300), (361, 60, 660, 300)])


def test_pictures_that_touch_are_cut_where_they_touch() -> None:
    canvas, box = page(), (60, 60, 860, 300)
    parts: list[PixelBox] = [(60, 60, 300, 300), (300, 60, 560, 300), (560, 60, 860, 300)]
    for seed, part in enumerate(parts):
        put(canvas, part, 3 * seed + 1, ground=0.2 + 0.3 * seed)
    panels = detect_panels(as_jpeg(canvas, 85), DPI, content_of(canvas, [placed(box)]))
    assert_same_boxes(primary(panels), parts)
    assert "step_edge" in {panel.method for panel in panels}


@pytest.mark.parametrize("seed", range(6))
def test_one_picture_stays_one(seed: int) -> None:
    canvas, box = page(), (60, 60, 560, 460)
    put(canvas, box, seed, ground=0.2 + 0.12 * seed)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed(box)])))
    assert found == [box]


def test_a_picture_on_a_light_ground_stays_one() -> None:
    canvas, box = page(), (60, 60, 460, 360)
    canvas[60:360, 60:460] = 247
    for x in (120, 240, 360):
        cv2.ellipse(canvas, (x, 190), (45, 30), x, 0, 360, (150, 90, 160), -1, cv2.LINE_AA)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed(box)])))
    assert found == [box]


def test_an_l_shaped_figure_with_a_chart_in_its_corner_yields_its_pictures() -> None:
    canvas = page()
    boxes: list[PixelBox] = [(60, 60, 400, 260), (400, 60, 700, 260), (60, 260, 330, 520)]
    for seed, box in enumerate(boxes):
        put(canvas, box, 2 * seed, ground=0.25 + 0.25 * seed)
    cv2.line(canvas, (380, 290), (380, 500), (0, 0, 0), 1)
    cv2.line(canvas, (380, 500), (900, 500), (0, 0, 0), 1)
    for x in (420, 540, 660, 780):
        cv2.rectangle(canvas, (x, 300 + x % 90), (x + 70, 500), (50, 100, 205), -1)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed(WHOLE)])))
    assert_same_boxes(found, boxes, least=0.9)


def test_letters_above_a_panel_are_no_part_of_it() -> None:
    canvas = page()
    boxes: list[PixelBox] = [(60, 84, 300, 300), (310, 84, 600, 300)]
    for seed, box in enumerate(boxes):
        put(canvas, box, seed)
        cv2.putText(canvas, "AB"[seed], (box[0], 82), 0, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed((50, 50, 650, 320))])))
    assert_same_boxes(found, boxes)


def test_strips_of_one_picture_are_joined_and_touching_pictures_are_not() -> None:
    canvas = page()
    whole = picture(400, 300, 5)
    canvas[100:400, 100:500] = whole
    strips = [placed((100, 100 + 60 * k, 500, 160 + 60 * k), xref=20 + k) for k in range(5)]
    (panel,) = detect_panels(canvas, DPI, content_of(canvas, strips))
    assert iou(panel.box_px, (100, 100, 500, 400)) > 0.99

    put(canvas, (100, 220, 500, 340), 9, ground=0.9)
    halves = [placed((100, 100, 500, 220), 20), placed((100, 220, 500, 340), 21)]
    found = primary(detect_panels(canvas, DPI, content_of(canvas, halves)))
    assert found == [(100, 100, 500, 220), (100, 220, 500, 340)]


def test_a_picture_and_its_mirror_image_side_by_side_stay_two() -> None:
    canvas = page()
    canvas[100:400, 100:400] = picture(300, 300, 4)
    canvas[100:400, 400:700] = canvas[100:400, 100:400][:, ::-1]
    images = [placed((100, 100, 400, 400), 1), placed((400, 100, 700, 400), 2)]
    found = primary(detect_panels(canvas, DPI, content_of(canvas, images)))
    assert found == [(100, 100, 400, 400), (400, 100, 700, 400)]


def test_a_scanned_page_yields_its_picture_and_not_its_text() -> None:
    canvas = page()
    canvas[:] = 236
    put(canvas, (120, 100, 620, 400), 2)
    for y in range(450, 780, 22):
        cv2.putText(canvas, "the quick brown fox jumps over", (80, y), 0, 0.6, (40, 40, 40), 1)
    found = primary(detect_panels(canvas, DPI, content_of(canvas, [placed((0, 0, 1000, 800))])))
    assert_same_boxes(found, [(120, 100, 620, 400)])


def test_a_page_of_text_and_drawings_yields_nothing() -> None:
    canvas = page()
    cv2.putText(canvas, "Results", (80, 100), 0, 1.2, (0, 0, 0), 2)
    cv2.rectangle(canvas, (100, 200), (300, 400), (200, 60, 20), -1)
    assert detect_panels(canvas, DPI, content_of(canvas, [])) == []


def test_icons_are_no_panels() -> None:
    canvas = page()
    put(canvas, (100, 100, 130, 130), 1)
    assert detect_panels(canvas, DPI, content_of(canvas, [placed((100, 100, 130, 130))])) == []


def test_a_background_under_pictures_is_no_panel() -> None:
    canvas = page()
    canvas[50:400, 50:700] = 240
    boxes: list[PixelBox] = [(60, 60, 370, 390), (380, 60, 690, 390)]
    for seed, box in enumerate(boxes):
        put(canvas, box, seed)
    images = [placed((50, 50, 700, 400), 1), *(placed(box, 2 + k) for k, box in enumerate(boxes))]
    assert primary(detect_panels(canvas, DPI, content_of(canvas, images))) == boxes


def test_words_and_baked_in_bars_are_to_be_ignored() -> None:
    canvas, box = page(), (100, 100, 500, 400)
    put(canvas, box, 3)
    canvas[370:376, 400:480] = 255
    word = scale_box((110, 110, 130, 132), 1 / FACTOR)
    (panel,) = detect_panels(canvas, DPI, content_of(canvas, [placed(box)], words=[word]))
    assert any(iou(ignored, (10, 10, 30, 32)) > 0.7 for ignored in panel.ignore_boxes_px)
    assert any(
        x0 <= 300 and x1 >= 380 and y0 <= 270 and y1 >= 276
        for x0, y0, x1, y1 in panel.ignore_boxes_px
    )


def test_an_inset_is_a_panel_and_ignored_in_what_it_lies_on() -> None:
    canvas, outer, inner = page(), (100, 100, 600, 500), (450, 350, 590, 490)
    put(canvas, outer, 1)
    put(canvas, inner, 8, ground=0.9)
    images = [placed(outer, 1), placed(inner, 2)]
    panels = detect_panels(canvas, DPI, content_of(canvas, images))
    assert {panel.box_px for panel in panels} >= {inner}
    large = next(panel for panel in panels if panel.box_px == outer)
    assert any(iou(box, (350, 250, 490, 390)) > 0.9 for box in large.ignore_boxes_px)


def test_a_higher_resolution_finds_the_same_panels() -> None:
    canvas = page()
    for seed, box in enumerate(GRID):
        put(canvas, box, seed)
    content = content_of(canvas, [placed(WHOLE)])
    large = np.asarray(
        cv2.resize(canvas, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8
    )
    found = detect_panels(large, 2 * DPI, content)
    assert_same_boxes([p.box_px for p in found], [tuple(2 * v for v in box) for box in GRID])  # pyright: ignore[reportArgumentType]
    for panel in found:
        assert panel.box_pt == pytest.approx(scale_box(panel.box_px, 0.5 / FACTOR), abs=0.5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 6))
def test_panels_lie_on_the_page_and_alternatives_name_a_primary(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    canvas = page(700, 500)
    images: list[PlacedImage] = []
    for k in range(count):
        x, y = int(rng.integers(0, 600)), int(rng.integers(0, 400))
        box = (
            x,
            y,
            min(700, x + int(rng.integers(1, 400))),
            min(500, y + int(rng.integers(1, 300))),
        )
        put(canvas, box, seed + k)
        images.append(placed(box, k))
    panels = detect_panels(canvas, DPI, content_of(canvas, images))
    for panel in panels:
        x0, y0, x1, y1 = panel.box_px
        assert 0 <= x0 < x1 <= 700
        assert 0 <= y0 < y1 <= 500
        for a, b, c, d in panel.ignore_boxes_px:
            assert 0 <= a <= c <= x1 - x0
            assert 0 <= b <= d <= y1 - y0
        if panel.alternative_of is not None:
            assert panels[panel.alternative_of].alternative_of is None


def test_the_odds_of_a_border_peak_at_the_border() -> None:
    left, right = picture(120, 200, 1, 0.3), picture(120, 200, 6, 0.7)
    gray = np.asarray(cv2.cvtColor(np.hstack([left, right]), cv2.COLOR_RGB2GRAY), np.uint8)
    odds = step_odds(gray)
    assert abs(int(odds[10:-10].argmax()) + 10 - 120) <= 1
    assert odds.max() > PanelSpec().step_sure
    assert np.median(odds) < PanelSpec().step_doubtful
