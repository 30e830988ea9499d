import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.geometry import Image
from core.modality import FEATURES, Modality, classify, features

RNG = np.random.default_rng(5)


def as_rgb(level: np.ndarray) -> Image:
    gray = (level.clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def blot(ground: float = 0.92, height: int = 120, width: int = 420) -> Image:
    y, x = np.mgrid[0:height, 0:width]
    ink = np.zeros((height, width))
    for lane, strength in enumerate((0.9, 0.7, 0.3, 0.8, 0.5, 0.9)):
        centre = (lane + 0.5) * width / 6
        ink += strength * np.exp(-(((x - centre) / 24) ** 4) - ((y - height / 2) / 8) ** 2)
    return as_rgb(ground - 0.85 * ink + 0.006 * RNG.standard_normal((height, width)))


def nuclei(count: int = 40, side: int = 260) -> Image:
    level = np.full((side, side), 0.03, np.float32)
    for _ in range(count):
        spot = np.zeros_like(level)
        centre = (int(RNG.integers(side)), int(RNG.integers(side)))
        cv2.ellipse(spot, centre, (11, 8), float(RNG.uniform(0, 180)), 0, 360, 0.7, -1)
        level = np.maximum(level, cv2.GaussianBlur(spot, (0, 0), 2))
    return as_rgb(level + 0.015 * RNG.standard_normal(level.shape))


def stained(side: int = 260) -> Image:
    dark = cv2.GaussianBlur(RNG.random((side, side), np.float32), (0, 0), 6)
    dark = ((dark - dark.min()) / (dark.max() - dark.min()))[..., None]
    light, deep = np.array([243, 215, 240]), np.array([92, 40, 140])
    grain = 5 * RNG.standard_normal((side, side, 3))
    return (light * (1 - dark) + deep * dark + grain).clip(0, 255).astype(np.uint8)


def bars(width: int = 300, height: int = 220) -> Image:
    chart = np.full((height, width, 3), 255, np.uint8)
    cv2.line(chart, (30, 10), (30, 190), (0, 0, 0), 1)
    cv2.line(chart, (30, 190), (290, 190), (0, 0, 0), 1)
    for k, top in enumerate((60, 120, 40, 90)):
        x = 50 + 60 * k
        cv2.rectangle(chart, (x, top), (x + 35, 190), (50, 100, 205), -1)
        cv2.rectangle(chart, (x, top), (x + 35, 190), (0, 0, 0), 1)
        cv2.putText(chart, "WT", (x + 5, 208), 0, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return chart


def schematic() -> Image:
    drawing = np.full((200, 360, 3), 255, np.uint8)
    for x, colour in ((10, (255, 229, 204)), (130, (204, 229, 255)), (250, (229, 255, 204))):
        cv2.rectangle(drawing, (x, 70), (x + 90, 130), colour, -1)
        cv2.rectangle(drawing, (x, 70), (x + 90, 130), (0, 0, 0), 1)
        cv2.putText(drawing, "Kinase", (x + 12, 105), 0, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.arrowedLine(drawing, (100, 100), (130, 100), (0, 0, 0), 2)
    return drawing


def logo() -> Image:
    drawing = np.full((60, 180, 3), 255, np.uint8)
    cv2.circle(drawing, (28, 30), 22, (200, 60, 20), -1, cv2.LINE_AA)
    cv2.putText(drawing, "Journal", (60, 40), 0, 0.9, (30, 30, 30), 2, cv2.LINE_AA)
    return drawing


def heat_map() -> Image:
    cells = (RNG.random((12, 9)) * 255).astype(np.uint8)
    large = cv2.resize(cells, (270, 240), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS), np.uint8)


@pytest.mark.parametrize(
    ("panel", "kind"),
    [
        (blot(), Modality.BLOT),
        (255 - blot(), Modality.BLOT),
        (nuclei(), Modality.FLUORESCENCE),
        (nuclei(count=3), Modality.FLUORESCENCE),
        (nuclei() * np.array([0, 1, 0], np.uint8), Modality.FLUORESCENCE),
        (stained(), Modality.HISTOLOGY),
    ],
    ids=["blot", "gel", "nuclei", "few nuclei", "green nuclei", "stained section"],
)
def test_pictures_get_their_kind(panel: Image, kind: Modality) -> None:
    result = classify(panel)
    assert result.modality is kind
    assert not result.is_drawing


@pytest.mark.parametrize("panel", [bars(), schematic(), logo(), heat_map()])
def test_drawings_are_told_from_pictures(panel: Image) -> None:
    result = classify(panel)
    assert result.is_drawing
    assert result.modality is Modality.CHART
    assert result.drawing > 0.9


@pytest.mark.parametrize("quality", [40, 70, 90])
def test_compression_makes_no_picture_of_a_chart(quality: int) -> None:
    coded = cv2.imencode(".jpg", bars(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    stored = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert classify(np.asarray(stored, np.uint8)).is_drawing


def test_a_scale_bar_makes_no_drawing_of_a_dark_field() -> None:
    panel = nuclei(count=4)
    panel[235:241, 170:245] = 255
    cv2.putText(panel, "50 um", (175, 228), 0, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    assert not classify(panel).is_drawing


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    fill=st.sampled_from([0, 7, 128, 255]),
    noise=st.booleans(),
)
def test_every_panel_gets_an_answer(height: int, width: int, fill: int, noise: bool) -> None:
    panel = np.full((height, width, 3), fill, np.uint8)
    if noise:
        panel = np.random.default_rng(0).integers(0, 256, panel.shape, dtype=np.uint8)
    result = classify(panel)
    assert 0 <= result.confidence <= 1
    assert 0 <= result.drawing <= 1
    assert result.is_drawing == (result.modality is Modality.CHART)


def test_features_are_finite_and_named() -> None:
    values = features(stained())
    assert values.shape == (len(FEATURES),)
    assert np.isfinite(values).all()


def test_a_panel_of_a_few_pixels_shows_nothing() -> None:
    result = classify(np.zeros((5, 200, 3), np.uint8))
    assert result.modality is Modality.OTHER
    assert result.confidence == 0
