"""Modality: what kind of picture a panel is, and whether it is a picture at all.

Some thirty numbers that a person could check by eye (how bright, how coloured, how flat, how
upright its edges) feed a logistic model whose coefficients lie in ``core/data/modality.json`` with
their provenance. Drawings matter most: charts, axes, schematics, labels and logos repeat shapes by
nature, so they raise no pair.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.geometry import Image

Vector = NDArray[np.float64]


class Modality(StrEnum):
    """Kinds of panel that reviewers tell apart."""

    BLOT = "blot"
    FLUORESCENCE = "fluorescence"
    HISTOLOGY = "histology"
    ELECTRON = "electron"
    BRIGHT_FIELD = "bright_field"
    CHART = "chart"
    OTHER = "other"


@dataclass(frozen=True)
class ModalitySpec:
    """How a panel is looked at, and from when on the answer is believed."""

    side_px: int = 192
    """Larger panels are reduced to this long side by averaging: bands, nuclei and axis lines stay
    visible, and one panel takes 2 ms."""
    min_confidence: float = 0.45
    """Below it no kind is likelier than the others together: the panel is ``other``."""
    drawing_threshold: float = 0.5
    """From this probability on a panel is a drawing, whatever else it resembles."""


@dataclass(frozen=True)
class ModalityResult:
    """What a panel seems to be.

    Attributes:
        modality: The likeliest kind.
        confidence: Its probability, 0 to 1.
        drawing: Probability that it is drawn (chart, schematic, text, logo) rather than taken,
            0 to 1. Panels with ``is_drawing`` raise no pair.
        is_drawing: Whether that probability reaches the threshold.
    """

    modality: Modality
    confidence: float
    drawing: float
    is_drawing: bool


DEFAULT_SPEC = ModalitySpec()

FEATURES = (
    "mean",
    "deviation",
    "dark_5",
    "dark_25",
    "median",
    "light_75",
    "light_95",
    "border",
    "white",
    "black",
    "coloured",
    "chroma",
    "red",
    "green",
    "blue",
    "purple",
    "channel_spread",
    "flat",
    "flat_light",
    "flat_tint",
    "even",
    "strong_edges",
    "edge_contrast",
    "upright_edges",
    "fine_texture",
    "coarse_texture",
    "top_colour",
    "top_colours",
    "row_structure",
    "column_structure",
    "elongation",
    "symmetry",
    "bimodality",
)


def features(image: Image, spec: ModalitySpec = DEFAULT_SPEC) -> Vector:
    """The numbers of :data:`FEATURES` for one panel, most of them between 0 and 1.

    Args:
        image: The panel, RGB, shape (height, width, 3), at least 2 x 2.
        spec: The size it is looked at.
    """
    height, width = image.shape[:2]
    factor = spec.side_px / max(height, width)
    if factor < 1:
        size = (max(2, round(width * factor)), max(2, round(height * factor)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    total = gray.size
    counts = np.bincount(gray.ravel(), minlength=256) / total
    below = np.cumsum(counts)
    low, quarter, middle, upper, high = (
        float(np.searchsorted(below, q)) / 255 for q in (0.05, 0.25, 0.5, 0.75, 0.95)
    )
    levels = np.arange(256) / 255
    mean = float(counts @ levels)
    deviation = float(np.sqrt(counts @ (levels - mean) ** 2))
    edge = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])

    red, green, blue = (image[::2, ::2, channel].astype(np.int16) for channel in range(3))
    strongest = np.maximum(np.maximum(red, green), blue)
    spread = strongest - np.minimum(np.minimum(red, green), blue)
    coloured = spread > 30
    shares = coloured / (255.0 * spread.size)
    center = (red + green + blue) / 3
    tints = [channel - center for channel in (red, green, blue)]
    redder, greener, bluer = (float((tint.clip(0) * shares).sum()) * 3 for tint in tints)
    purple = float((np.minimum(tints[0], tints[2]).clip(0) * shares).sum()) * 6
    means = [float(channel.mean()) / 255 for channel in (red, green, blue)]

    kernel = np.ones((3, 3), np.uint8)
    span = np.asarray(cv2.subtract(cv2.dilate(gray, kernel), cv2.erode(gray, kernel)), np.uint8)
    spans = np.cumsum(np.bincount(span.ravel(), minlength=256)) / total
    flat = span <= 3
    across = np.abs(np.asarray(cv2.Sobel(gray, cv2.CV_16S, 1, 0), np.int16))
    down = np.abs(np.asarray(cv2.Sobel(gray, cv2.CV_16S, 0, 1), np.int16))
    larger, smaller = np.maximum(across, down), np.minimum(across, down)
    clear = larger > 64
    clear_count = int(clear.sum())
    upright = int((clear & (smaller * 7 < larger)).sum()) / clear_count if clear_count else 0.0
    blurred = cv2.GaussianBlur(gray, (0, 0), 1.5)
    half = cv2.resize(blurred, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(half, (0, 0), 3.0)
    codes = (red >> 4) << 8 | (green >> 4) << 4 | (blue >> 4)
    usual = np.sort(np.bincount(codes.ravel(), minlength=8))[::-1] / codes.size
    values = (
        mean,
        deviation,
        low,
        quarter,
        middle,
        upper,
        high,
        float(np.median(edge)) / 255,
        float(counts[250:].sum()),
        float(counts[:9].sum()),
        float(coloured.mean()),
        float((spread * shares).sum()),
        redder,
        greener,
        bluer,
        purple,
        max(means) - min(means),
        float(flat.mean()),
        float((flat & (gray >= 245)).mean()),
        float((flat & (gray > 24) & (gray < 245)).mean()),
        float(spans[0]),
        1 - float(spans[90]),
        float(np.searchsorted(spans, 0.98)) / 255,
        upright,
        min(1.0, float(cv2.norm(gray, blurred, cv2.NORM_L1)) / total / 25.5),
        min(1.0, float(cv2.norm(half, coarse, cv2.NORM_L1)) / half.size / 25.5),
        float(usual[0]),
        float(usual[:6].sum()),
        float(gray.mean(axis=1).std()) / (255 * deviation + 5),
        float(gray.mean(axis=0).std()) / (255 * deviation + 5),
        float(np.log(width / height)),
        (high + low - 2 * middle) / (high - low + 0.02),
        float(counts[:51].sum() + counts[205:].sum()),
    )
    return np.array(values)


def classify(image: Image, spec: ModalitySpec = DEFAULT_SPEC) -> ModalityResult:
    """Say what kind of picture a panel is.

    Args:
        image: The panel, RGB, shape (height, width, 3).
        spec: Size and thresholds.

    Returns:
        The likeliest kind with its probability; ``other`` where none stands out, and for panels
        below 8 pixels, which show nothing.
    """
    if min(image.shape[:2]) < 8:
        return ModalityResult(Modality.OTHER, 0.0, 0.0, False)
    model = _model()
    standard = ((features(image, spec) - model.mean) / model.scale).clip(-4, 4)
    terms = expand(standard)
    scores = model.weights @ terms
    drawing = 1.0 / (1.0 + float(np.exp(-(model.drawing_weights @ terms))))
    is_drawing = drawing >= spec.drawing_threshold
    likely = np.exp(scores - scores.max())
    likely /= likely.sum()
    if is_drawing:
        return ModalityResult(Modality.CHART, drawing, drawing, True)
    kinds = [kind for kind in model.kinds if kind is not Modality.CHART]
    rest = np.array([likely[model.kinds.index(kind)] for kind in kinds])
    rest *= (1 - drawing) / max(float(rest.sum()), 1e-12)
    best = int(rest.argmax())
    confidence = float(rest[best])
    modality = kinds[best] if confidence >= spec.min_confidence else Modality.OTHER
    return ModalityResult(modality, confidence, drawing, False)


def expand(standard: Vector) -> Vector:
    """Terms of the model: the standardized features, their squares, and a constant."""
    return np.concatenate([standard, standard**2, np.ones((*standard.shape[:-1], 1))], axis=-1)


@dataclass(frozen=True)
class _Model:
    """Fitted coefficients; rows of ``weights`` are kinds, columns the terms of :func:`expand`."""

    kinds: list[Modality]
    mean: Vector
    scale: Vector
    weights: Vector
    drawing_weights: Vector


@functools.cache
def _model() -> _Model:
    """The model of ``core/data/modality.json``, read once."""
    text = (importlib.resources.files("core") / "data" / "modality.json").read_text("utf-8")
    data: Mapping[str, Any] = json.loads(text)
    if tuple(data["features"]) != FEATURES:
        raise ValueError("core/data/modality.json was fitted to other features; fit it again")
    return _Model(
        kinds=[Modality(kind) for kind in data["kinds"]],
        mean=np.array(data["mean"]),
        scale=np.array(data["scale"]),
        weights=np.array(data["weights"]),
        drawing_weights=np.array(data["drawing_weights"]),
    )
