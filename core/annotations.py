"""Where a panel carries lettering instead of picture: letters, scale bars, arrows, number labels.

The same letter and the same scale bar stand on every panel of a paper, so features on them make
unrelated panels look alike. Where the text is part of the picture (flattened figures) it is found
here by what sets it apart from anything a microscope shows: one flat colour with an edge of a pixel
or two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.geometry import Box, Image
from core.opencv import cv2


@dataclass(frozen=True)
class AnnotationSpec:
    """What counts as lettering.

    Attributes:
        tolerance: Grey levels within which a pixel has the ink's colour, 34: what JPEG leaves of
            pure white and pure black in thin strokes.
        contrast: Least difference of the ring around a mark from its ink, 70 levels. A bright cell
            fades over several pixels and fails this two pixels out.
        sharp_share: Share of the ring that must show that contrast, 0.8.
        ring_px: How far out the ring lies, 2 px.
        max_share: A mark is no longer than this share of the panel's long side, 0.55 (scale bars
            reach a third).
        max_height_share: And no higher than this share of the short side, 0.3, its width likewise
            unless it is a bar.
        min_px: Smaller marks are specks, 5 px.
        corner_share: Letters are believed only this near to a corner, 0.3 of width and height, or
            beside a scale bar: a dark nucleus in the middle can be as sharp as a letter.
        label_share: The label of a scale bar stands within this share of the bar's length above or
            below it, 0.45.
        max_marks: Panels with more such components are textured in pure white or black, and nothing
            is masked, 150.
    """

    tolerance: int = 34
    contrast: float = 70.0
    sharp_share: float = 0.8
    ring_px: int = 2
    max_share: float = 0.55
    max_height_share: float = 0.3
    min_px: int = 5
    corner_share: float = 0.3
    label_share: float = 0.45
    max_marks: int = 150


def find_annotations(image: Image, spec: AnnotationSpec | None = None) -> tuple[Box, ...]:
    """Boxes of letters, scale bars and arrows drawn into a panel, in panel pixels.

    Args:
        image: The panel, RGB, uint8, shape (height, width, 3).
        spec: What counts as lettering.

    Returns:
        Boxes in no particular order, a pixel wider than the marks on every side.
    """
    spec = spec or AnnotationSpec()
    low, high = image.min(axis=2), image.max(axis=2)
    yellow = (
        (image[..., 0] > 200) & (image[..., 1] > 180) & (image[..., 2] < 110)
    )  # the arrows of figures
    inks = ((low >= 255 - spec.tolerance, False), (high <= spec.tolerance, False), (yellow, True))
    boxes: list[Box] = []
    for ink, free_standing in inks:
        boxes += _marks(image, ink.astype(np.uint8), spec, free_standing=free_standing)
    return tuple(boxes)


def _marks(
    image: Image, ink: NDArray[np.uint8], spec: AnnotationSpec, *, free_standing: bool
) -> list[Box]:
    """Boxes of the components of one ink that are sharp, of a mark's size and in a mark's place."""
    height, width = ink.shape
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    found: list[Box] = []
    x, y, w, h, size = (stats[1:, i] for i in range(5))
    long_side, short_side = np.maximum(w, h), np.minimum(w, h)
    bar = (size > 0.8 * w * h) & (w > 3 * h)
    compact = long_side <= spec.max_height_share * min(height, width)
    plausible = (long_side >= spec.min_px) & (long_side <= spec.max_share * max(height, width))
    plausible &= (bar | compact) & (size >= spec.min_px) & (short_side >= 1)
    if plausible.sum() > spec.max_marks:
        return found
    reach = spec.ring_px + 1
    for i in np.flatnonzero(plausible):
        x0, y0 = max(0, x[i] - reach), max(0, y[i] - reach)
        x1, y1 = min(width, x[i] + w[i] + reach), min(height, y[i] + h[i] + reach)
        mark = (labels[y0:y1, x0:x1] == i + 1).astype(np.uint8)
        near = cv2.dilate(mark, np.ones((2 * spec.ring_px - 1,) * 2, np.uint8))
        ring = (cv2.dilate(mark, np.ones((2 * spec.ring_px + 1,) * 2, np.uint8)) > 0) & (near == 0)
        if not ring.any():
            continue
        patch = image[y0:y1, x0:x1].astype(np.float32)
        colour = patch[mark > 0].mean(axis=0)
        away = np.abs(patch[ring] - colour).max(axis=1)
        if (away >= spec.contrast).mean() < spec.sharp_share:
            continue
        left, top, right, bottom = (float(v) for v in (x[i], y[i], x[i] + w[i], y[i] + h[i]))
        if bar[i]:
            label = spec.label_share * (right - left) if right - left >= 4 * spec.min_px else 1.0
            found.append((left - 2, top - label, right + 2, bottom + label))
        elif free_standing or _in_corner((left, top, right, bottom), (width, height), spec):
            found.append((left - 1, top - 1, right + 1, bottom + 1))
    return found


def _in_corner(box: Box, size: tuple[int, int], spec: AnnotationSpec) -> bool:
    """Whether the middle of a mark lies near one of the panel's corners."""
    across = (box[0] + box[2]) / 2 / size[0]
    down = (box[1] + box[3]) / 2 / size[1]
    return max(min(across, 1 - across), min(down, 1 - down)) <= spec.corner_share
