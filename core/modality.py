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

    side_px: int = 256
    """Larger panels are reduced to this long side by averaging; it keeps one panel below 3 ms and
    leaves bands, nuclei and axis lines visible."""
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
    "strong_edges",
    "edge_contrast",
    "upright_edges",
    "fine_texture",
    "coarse_texture",
    "colour_concentration",
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
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    level = gray.astype(np.float32) / 255
    quantiles = np.quantile(level, [0.05, 0.25, 0.5, 0.75, 0.95])
    edge = np.concatenate([level[0], level[-1], level[:, 0], level[:, -1]])

    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    pixels = small.reshape(-1, 3).astype(np.float32) / 255
    spread = pixels.max(axis=1) - pixels.min(axis=1)
    coloured = spread > 0.12
    weight = spread[coloured]
    tint = pixels[coloured] - pixels[coloured].mean(axis=1, keepdims=True)
    total = len(pixels)
    red, green, blue = (float(tint[:, c].clip(0).sum()) / total * 3 for c in range(3))
    purple = float(np.minimum(tint[:, 0], tint[:, 2]).clip(0).sum()) / total * 6
    chroma = float(weight.sum()) / total

    kernel = np.ones((3, 3), np.uint8)
    span = cv2.subtract(cv2.dilate(gray, kernel), cv2.erode(gray, kernel))
    strong = span > 90
    gradient_x = np.abs(cv2.Sobel(level, cv2.CV_32F, 1, 0))
    gradient_y = np.abs(cv2.Sobel(level, cv2.CV_32F, 0, 1))
    larger, smaller = np.maximum(gradient_x, gradient_y), np.minimum(gradient_x, gradient_y)
    clear = larger > 0.25
    upright = float((smaller[clear] < 0.15 * larger[clear]).mean()) if clear.any() else 0.0
    blurred = cv2.GaussianBlur(level, (0, 0), 1.5)
    coarse = cv2.GaussianBlur(level, (0, 0), 6.0)
    codes = (small >> 4).astype(np.int32)
    counts = np.sort(
        np.bincount((codes[..., 0] << 8 | codes[..., 1] << 4 | codes[..., 2]).ravel(), minlength=8)
    )[::-1]
    deviation = float(level.std())
    rows, columns = level.mean(axis=1), level.mean(axis=0)
    values = (
        float(level.mean()),
        deviation,
        *(float(q) for q in quantiles),
        float(np.median(edge)),
        float((gray >= 250).mean()),
        float((gray <= 8).mean()),
        float(coloured.mean()),
        chroma,
        red,
        green,
        blue,
        purple,
        float(pixels.mean(axis=0).max() - pixels.mean(axis=0).min()),
        float((span <= 3).mean()),
        float(((span <= 3) & (gray >= 245)).mean()),
        float(strong.mean()),
        float(np.quantile(span, 0.98)) / 255,
        upright,
        min(1.0, 10 * float(np.abs(level - blurred).mean())),
        min(1.0, 10 * float(np.abs(blurred - coarse).mean())),
        float(counts[0] / total),
        float(counts[:6].sum() / total),
        float(rows.std()) / (deviation + 0.02),
        float(columns.std()) / (deviation + 0.02),
        float(np.log(width / height)),
        float(
            (quantiles[4] + quantiles[0] - 2 * quantiles[2]) / (quantiles[4] - quantiles[0] + 0.02)
        ),
        float(((level > 0.8) | (level < 0.2)).mean()),
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
