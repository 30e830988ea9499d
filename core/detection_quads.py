"""Quads that stand out from what surrounds them, found without knowing the size of a card.

The reduced picture is cut at several levels of several channels, globally and locally, and what is
enclosed is kept where its outline is four straight sides. A card that touches another one, or whose
border is as dark as the page, is missed here; enough others are found to learn the size from.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.detection_plane import FOLLOWING, PRECEDING, Points, Quads
from core.detection_spec import DetectionSpec
from core.opencv import cv2

Channel = NDArray[np.uint8]
"""Shape (height, width)."""

_LEVELS = (6.0, 16.0, 28.0, 40.0, 52.0, 64.0, 76.0, 88.0)
"""Percentiles at which the lightness is cut: cards cover anything from a tenth to most of it."""


def free_quads(lab: NDArray[np.uint8], spec: DetectionSpec) -> Quads:
    """Convex quads with the proportions of a card seen at an angle.

    Args:
        lab: The reduced picture in Lab, shape (height, width, 3), uint8.
        spec: What a card is.

    Returns:
        In pixels of the reduced picture, short side first, shape (n, 4, 2); near repeats are one.
    """
    longer = max(lab.shape[:2])
    least = (spec.min_width_share * longer) ** 2 / spec.card_aspect * 0.8
    most = (spec.max_width_share * longer) ** 2 / spec.card_aspect
    found: list[Points] = []
    seen: set[tuple[int, ...]] = set()
    for mask in _masks(lab):
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            if len(contour) < 2.5 * least**0.5:
                continue
            quad = _quad_of(contour, least, most, spec)
            if quad is None:
                continue
            key = tuple(np.rint(quad.ravel() / (0.008 * longer)).astype(int).tolist())
            if key not in seen:
                seen.add(key)
                found.append(quad)
    return np.array(found, np.float64).reshape(-1, 4, 2)


def _masks(lab: NDArray[np.uint8]) -> Iterator[Channel]:
    """Pictures in black and white whose regions may be cards."""
    longer = max(lab.shape[:2])
    ring = np.ones((3, 3), np.uint8)
    for index in range(3):
        channel: Channel = np.ascontiguousarray(lab[..., index])
        values = channel[::4, ::4]
        low, high = np.percentile(values, (2, 98))
        if high - low < (12 if index == 0 else 8):
            continue
        spread = np.linspace(float(low), float(high), 6)[1:-1]
        levels = np.asarray(np.percentile(values, _LEVELS) if index == 0 else spread, np.float64)
        for level in dict.fromkeys(np.rint(levels).astype(int).tolist()):
            yield cv2.threshold(channel, float(level), 255, cv2.THRESH_BINARY)[1]
        block = int(longer * 0.06) | 1
        mean, binary = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
        offsets = (-6, 6) if index == 0 else (-4, 4)
        for offset in offsets:
            cut = cv2.adaptiveThreshold(channel, 255, mean, binary, block, offset)
            yield cv2.morphologyEx(cut, cv2.MORPH_OPEN, ring)
    light = np.ascontiguousarray(lab[..., 0])
    for low_level, high_level in ((12, 36), (30, 90)):
        edges = cv2.Canny(light, low_level, high_level, L2gradient=True)
        yield cv2.bitwise_not(cv2.dilate(edges, ring))


def _quad_of(
    contour: NDArray[np.int32], least: float, most: float, spec: DetectionSpec
) -> Points | None:
    """Four lines fitted to an outline, or None where it is not one of a card."""
    width, height = cv2.boundingRect(contour)[2:]
    if not least < width * height < 2.5 * most or min(width, height) ** 2 < 0.3 * least:
        return None
    hull = cv2.convexHull(contour)
    filled = float(cv2.contourArea(hull))
    if not least < filled < most or cv2.contourArea(contour) < 0.8 * filled:
        return None
    around = cv2.minAreaRect(hull)
    if filled < 0.75 * around[1][0] * around[1][1]:
        return None
    corners = _four_corners(hull, around)
    quad = _fitted(hull, corners)
    if quad is None:
        return None
    return short_side_first(quad) if _card_like(quad, filled, spec) else None


def _four_corners(hull: NDArray[np.int32], around: tuple[object, ...]) -> Points:
    """A first guess: the hull with few corners, if they are four, else the box around it."""
    length = cv2.arcLength(hull, True)
    for tolerance in (0.02, 0.04, 0.06):
        few = cv2.approxPolyDP(hull, tolerance * length, True)
        if len(few) == 4:
            return np.asarray(few, np.float64).reshape(4, 2)
        if len(few) < 4:
            break
    return np.asarray(cv2.boxPoints(around), np.float64)


def _fitted(hull: NDArray[np.int32], corners: Points) -> Points | None:
    """Sides as lines through what lies along them, rounded corners left out."""
    corners = clockwise(corners)
    dense = _dense(np.asarray(hull, np.float64).reshape(-1, 2))
    lines: list[NDArray[np.float64]] = []
    for start, end in zip(corners, corners[FOLLOWING], strict=True):
        side = end - start
        length = float(np.hypot(*side))
        if length < 8:
            return None
        along = (dense - start) @ side / length**2
        away = np.abs((dense - start) @ np.array([-side[1], side[0]])) / length
        near = dense[(along > 0.12) & (along < 0.88) & (away < 0.06 * length + 2)]
        if len(near) < 6:
            return None
        vx, vy, px, py = (
            cv2.fitLine(near.astype(np.float32), cv2.DIST_HUBER, 0, 0.01, 0.01).ravel().tolist()
        )
        lines.append(np.array([-vy, vx, vy * px - vx * py]))
    corners, crossed = crossings(np.array(lines)[None])
    return corners[0] if crossed[0] else None


def _dense(hull: Points) -> Points:
    """A point about every 2 px along a polygon."""
    following = np.roll(hull, -1, axis=0)
    gaps = np.hypot(*(following - hull).T)
    count = np.maximum(1, (gaps / 2.0).astype(int))
    which = np.repeat(np.arange(len(hull)), count)
    step = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)) / count[which]
    return hull[which] + (following - hull)[which] * step[:, None]


def crossings(lines: NDArray[np.float64]) -> tuple[Points, NDArray[np.bool_]]:
    """Corners between successive sides.

    Args:
        lines: Of n quads, as numbers of ``ax + by + c = 0``, shape (n, 4, 3).

    Returns:
        The corners, shape (n, 4, 2), and for which quads they count, shape (n,): those of which no
        two successive sides are parallel.
    """
    a, b, c = np.moveaxis(lines, 2, 0)
    p, q, r = (numbers[:, PRECEDING] for numbers in (a, b, c))
    third = p * b - q * a
    crossed = np.abs(third).min(axis=1) >= 1e-6
    third[~crossed] = 1.0
    return np.stack([(q * c - r * b) / third, (r * a - p * c) / third], axis=-1), crossed


def _card_like(quad: Points, filled: float, spec: DetectionSpec) -> bool:
    """Whether a quad may be a card under perspective, and is what the outline encloses."""
    area = float(cv2.contourArea(quad.astype(np.float32)))
    if not 0.9 < filled / max(area, 1.0) < 1.06 or not cv2.isContourConvex(quad.astype(np.float32)):
        return False
    sides = np.hypot(*(quad[FOLLOWING] - quad).T)
    first, second = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    ratio = min(first, second) / max(first, second)
    even = min(sides[0] / sides[2], sides[2] / sides[0], sides[1] / sides[3], sides[3] / sides[1])
    return bool(spec.card_aspect * 0.78 < ratio < spec.card_aspect * 1.25 and even > 0.75)


def clockwise(quad: Points) -> Points:
    """The corners in clockwise order as seen, starting anywhere."""
    around = quad - quad.mean(axis=0)
    return quad[np.argsort(np.arctan2(around[:, 1], around[:, 0]), kind="stable")]


def short_side_first(quad: Points) -> Points:
    """Start at the corner that is top left when the card is held with its short side up.

    Of the two short sides the one that is higher in the picture comes first; for a card that lies
    on its side, the one to the right, as if it had been turned clockwise.
    """
    quad = clockwise(quad)
    sides = np.hypot(*(quad[FOLLOWING] - quad).T)
    if sides[0] + sides[2] > sides[1] + sides[3]:
        quad = quad[FOLLOWING]
    across = quad[1] - quad[0] + quad[2] - quad[3]
    angle = float(np.degrees(np.arctan2(across[1], across[0])))
    return quad if -80.0 < angle <= 100.0 else quad[[2, 3, 0, 1]]
