"""What a picture of a page tells before it is read: its ink, its light, its slant."""

import math

import numpy as np
from numpy.typing import NDArray

from core.opencv import cv2
from core.paper_spec import PaperSpec

Grey = NDArray[np.uint8]
"""Shape (height, width)."""

_EVERY = 2
"""Every second pixel of every second row is looked at to tell what a picture lacks."""

_LIGHT_PX = 8
"""Side of the squares, of such pixels, that the paper's brightness is taken from: a letter and the
white around it at 150 dpi."""

_SKEW_SIDE_PX = 600
"""Longer side of the picture that slant is measured on: lines of 10 points are 5 px high there."""

_SKEW_INK = 24
"""How much darker than its paper a pixel is that counts as part of a line."""


def paper(grey: Grey) -> Grey:
    """How bright the paper is, as if nothing stood on it; one value per square of pixels.

    The brightest pixels of each square, then a median: paper shows between letters and lines, a
    picture or a bar wider than the median's reach counts as paper and is left as it is.
    """
    height, width = grey.shape
    bright = cv2.dilate(grey, np.ones((3, 3), np.uint8)) if min(height, width) < 64 else grey
    across, down = max(1, width // _LIGHT_PX), max(1, height // _LIGHT_PX)
    cells = bright[: down * (height // down), : across * (width // across)]
    cells = cells.reshape(down, height // down, across, width // across)
    best = np.percentile(cells, 85, axis=(1, 3)).astype(np.uint8)
    return cv2.GaussianBlur(cv2.medianBlur(best, 5), (0, 0), 2.0).astype(np.uint8)


def unevenness(light: Grey) -> float:
    """How much brighter the lightest paper is than the darkest, of 255; the extremes apart."""
    low, high = np.percentile(light, (5, 95))
    return float(high - low)


def evened(grey: Grey, light: Grey) -> Grey:
    """The picture as if lit evenly, paper white."""
    around = cv2.resize(light, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.divide(grey, around, scale=255).astype(np.uint8)


def cleaned(grey: Grey, dpi: float, spec: PaperSpec) -> Grey:
    """The picture with even light and full contrast, where it lacks them; else the picture."""
    small = _thinned(grey)
    light = paper(small)
    darkest = float(np.percentile(depth(small, light), 99.5))
    del small
    if darkest >= spec.faint and unevenness(light) < spec.uneven:
        return grey
    even = evened(grey, light)
    if darkest >= spec.faint:
        return even
    smooth = cv2.subtract(255, cv2.GaussianBlur(even, (0, 0), spec.blur_in * dpi))
    top = max(spec.least_ink, float(np.percentile(_thinned(smooth), 99.7)))
    return cv2.bitwise_not(cv2.convertScaleAbs(smooth, alpha=255.0 / top)).astype(np.uint8)


def ink_share(grey: Grey, spec: PaperSpec) -> float:
    """Share of the picture that is darker than its paper, faint print included and noise not."""
    smooth = _thinned(cv2.blur(grey, (3, 3)))
    deep = depth(smooth, paper(smooth))
    middle = float(np.median(deep))
    noise = 1.48 * float(np.median(cv2.absdiff(deep, middle)))
    return float((deep > middle + max(spec.blank_levels, spec.blank_noise * noise)).mean())


def _thinned(grey: Grey) -> Grey:
    """Every second pixel of every second row, of its own memory."""
    return np.ascontiguousarray(grey[::_EVERY, ::_EVERY])


def depth(grey: Grey, light: Grey) -> Grey:
    """How much darker each pixel is than the paper around it."""
    around = cv2.resize(light, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.subtract(around, grey).astype(np.uint8)


def skew_of(grey: Grey, most: float) -> float:
    """By how many degrees the lines of a page rise to the right, within ``most`` either way.

    The angle at which rows of ink are told apart best from the white between them (projection
    profile); 0 where no angle stands out.
    """
    scale = min(1.0, _SKEW_SIDE_PX / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(depth(small, paper(small)) > _SKEW_INK)
    if not len(rows):
        return 0.0

    def contrast(angle: float) -> float:
        level = rows + math.tan(math.radians(angle)) * columns
        profile = np.bincount((level - level.min()).astype(np.int32))
        return float(np.square(np.diff(profile)).sum())

    coarse = np.arange(-most, most + 0.5, 1.0)
    found = [contrast(float(angle)) for angle in coarse]
    best = float(coarse[int(np.argmax(found))])
    if max(found) < 1.3 * float(np.median(found)):
        return 0.0
    fine = best + np.arange(-0.75, 0.76, 0.25)
    return float(fine[int(np.argmax([contrast(float(angle)) for angle in fine]))])


def turned(grey: Grey, degrees: float) -> tuple[Grey, NDArray[np.float64]]:
    """The picture turned counter-clockwise about its middle, and where its pixels were before.

    Args:
        grey: The picture.
        degrees: How far; white comes in at the corners, and nothing is cut off.

    Returns:
        The turned picture, and the matrix (2, 3) from its pixels to those of ``grey``.
    """
    height, width = grey.shape
    forward = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cos, sin = abs(forward[0, 0]), abs(forward[0, 1])
    size = (math.ceil(width * cos + height * sin), math.ceil(width * sin + height * cos))
    forward[0, 2] += (size[0] - width) / 2
    forward[1, 2] += (size[1] - height) / 2
    white = int(np.percentile(grey[:: max(1, height // 500), :: max(1, width // 500)], 90))
    straight = cv2.warpAffine(
        grey, forward, size, flags=cv2.INTER_LINEAR, borderValue=(white, white, white)
    )
    return straight.astype(np.uint8), np.asarray(cv2.invertAffineTransform(forward))
