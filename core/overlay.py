"""Overlays: a photograph with what was found on it drawn in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.geometry import Image
from core.opencv import cv2

COLOURS = {
    "accept": (40, 170, 70),
    "review": (240, 160, 20),
    "unknown": (210, 50, 60),
    "": (40, 110, 230),
}
"""Of outlines, by what was decided; RGB."""

REACH_PX = 10_000.0
"""A corner farther out is drawn there: OpenCV counts in whole numbers of 32 bits."""


@dataclass(frozen=True)
class Mark:
    """One outline: its corners in pixels of the photograph, a label, and what was decided."""

    quad: NDArray[np.float32]
    label: str
    decision: str = ""


def overlay(image: Image, marks: Sequence[Mark], longest_px: int) -> Image:
    """The photograph, no larger than asked for, with outlines and their labels.

    Args:
        image: RGB, shape (height, width, 3).
        marks: What is drawn; labels in ASCII, since the font has nothing else.
        longest_px: Longer side of the result.
    """
    height, width = image.shape[:2]
    factor = min(1.0, longest_px / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    drawn = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    stroke = max(1, round(max(size) / 500))
    letters = max(0.35, max(size) / 2400)
    for mark in marks:
        colour = COLOURS.get(mark.decision, COLOURS[""])
        quad = np.nan_to_num(np.asarray(mark.quad, np.float64).reshape(4, 2) * factor)
        corners = np.round(np.clip(quad, -REACH_PX, REACH_PX)).astype(np.int32)
        cv2.polylines(drawn, [corners], True, colour, stroke, cv2.LINE_AA)
        label = mark.label.encode("ascii", "replace").decode()
        (wide, high), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, letters, stroke)
        x, y = (int(v) for v in corners.mean(axis=0))
        x, y = max(0, x - wide // 2), max(high + 2, y)
        box = ((x - 3, y - high - 4), (x + wide + 3, y + below + 2))
        cv2.rectangle(drawn, box[0], box[1], colour, -1)
        white = (255, 255, 255)
        cv2.putText(
            drawn, label, (x, y), cv2.FONT_HERSHEY_SIMPLEX, letters, white, stroke, cv2.LINE_AA
        )
    return drawn
