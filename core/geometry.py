"""Boxes in the frames that Quire uses: page points, page pixels, panel pixels.

A box is ``(x0, y0, x1, y1)``, origin top left, ``x1`` and ``y1`` outside.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Image = NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""

POINTS_PER_INCH = 72.0


def area(box: Box) -> float:
    """Area of a box; 0 for an empty or inverted one."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(a: Box, b: Box) -> Box:
    """The common part of two boxes; empty (area 0) where they do not touch."""
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1."""
    common = area(intersection(a, b))
    union = area(a) + area(b) - common
    return common / union if union > 0 else 0.0


def share_inside(inner: Box, outer: Box) -> float:
    """Share of ``inner``'s area that lies in ``outer``, 0 to 1."""
    whole = area(inner)
    return area(intersection(inner, outer)) / whole if whole > 0 else 0.0


def scale_box(box: Box, factor: float) -> Box:
    """The box in a frame whose unit is ``1 / factor`` of this one (points to pixels: dpi / 72)."""
    return (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor)


def bounding_box(points: NDArray[Any]) -> Box:
    """The smallest box around points of shape (n, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
