"""Views: what one place of a picture looks like after the edits that reuse goes through.

Two views of one place are a positive pair. They share 30 to 100 % of their area, and each goes its
own way through orientation, rotation, tone, channels, resolution, blur, noise, JPEG and lettering.
Views of other places, of the same picture above all, are negatives.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.sources import Picture, Rng, Source


@dataclass(frozen=True)
class ViewSpec:
    """The edits, and how often."""

    side_px: int = 128
    """Smaller than the encoder's input: a training step takes two thirds of the time, and a picture
    that is shown larger than those learned from is told apart at least as well (Touvron et al.,
    "Fixing the train-test resolution discrepancy", NeurIPS 2019)."""

    least_overlap: float = 0.3
    """Share of the area that two views of one place have in common, at least."""

    same_window: float = 0.25
    """How often both views show exactly the same window."""

    least_contrast: float = 7.0
    """Standard deviation in levels below which a window counts as blank and is not learnt from."""

    window_px: tuple[int, int] = (64, 420)
    """Side of a window in source pixels: a third of a small panel to a whole large one."""

    shown_px: tuple[int, int] = (72, 320)
    """Side at which a page shows the window, before it becomes the encoder's input."""

    oriented: float = 0.5
    """How often a view is turned by a right angle or mirrored."""

    rotated: float = 0.3
    angle_degrees: float = 20.0
    toned: float = 0.8
    grey: float = 0.25
    one_channel: float = 0.1
    blurred: float = 0.25
    noisy: float = 0.3
    compressed: float = 0.6
    jpeg_quality: tuple[int, int] = (30, 95)
    lettered: float = 0.35


@dataclass(frozen=True)
class Window:
    """A square of a picture: centre and side in its pixels."""

    x: float
    y: float
    side: float


def places(source: Source, count: int, spec: ViewSpec, rng: Rng) -> list[tuple[Window, Window]]:
    """Pairs of overlapping windows; windows of different pairs have no pixel in common.

    Args:
        source: The picture.
        count: Pairs wanted, 1, 2 or 4; fewer where the picture is too small for so many.
        spec: Sizes and overlap.
        rng: Source of all randomness.
    """
    height, width = source.image.shape[:2]
    down, across = {1: (1, 1), 2: (1, 2) if width >= height else (2, 1), 4: (2, 2)}[count]
    while down * across > 1 and min(height / down, width / across) < spec.window_px[0]:
        down, across = max(1, down // 2), (across if down > 1 else max(1, across // 2))
    cells = [
        (width * i / across, height * j / down, width * (i + 1) / across, height * (j + 1) / down)
        for j in range(down)
        for i in range(across)
    ]
    return [pair for cell in cells if (pair := _pair(source.image, cell, spec, rng)) is not None]


def _pair(
    image: Picture, cell: tuple[float, float, float, float], spec: ViewSpec, rng: Rng
) -> tuple[Window, Window] | None:
    """Two windows of a cell; None where it is blank."""
    x0, y0, x1, y1 = cell
    most = min(x1 - x0, y1 - y0, spec.window_px[1])
    least = min(most, max(spec.window_px[0], most * 0.3))
    for _ in range(4):
        side = math.exp(rng.uniform(math.log(least), math.log(most)))
        first = _inside(rng.uniform(x0, x1), rng.uniform(y0, y1), side, cell)
        if _contrast(image, first) >= spec.least_contrast:
            break
    else:
        return None
    if rng.random() < spec.same_window:
        return first, first
    for _ in range(20):
        other = min(most, side * math.exp(rng.uniform(-0.35, 0.35)))
        reach = side * 0.6
        x, y = first.x + rng.uniform(-reach, reach), first.y + rng.uniform(-reach, reach)
        second = _inside(x, y, other, cell)
        if overlap(first, second) >= spec.least_overlap:
            blank = _contrast(image, second) < spec.least_contrast
            return (first, first) if blank else (first, second)
    return first, first


def _contrast(image: Picture, window: Window) -> float:
    """Standard deviation over a coarse grid of a window's pixels, in levels."""
    x0, y0 = max(0, round(window.x - window.side / 2)), max(0, round(window.y - window.side / 2))
    step = max(1, int(window.side / 32))
    side = round(window.side)
    return float(image[y0 : y0 + side : step, x0 : x0 + side : step].std())


def _inside(x: float, y: float, side: float, cell: tuple[float, float, float, float]) -> Window:
    x0, y0, x1, y1 = cell
    return Window(
        min(max(x, x0 + side / 2), x1 - side / 2), min(max(y, y0 + side / 2), y1 - side / 2), side
    )


def overlap(a: Window, b: Window) -> float:
    """Area in common as a share of the larger window."""
    across = (a.side + b.side) / 2 - abs(a.x - b.x)
    down = (a.side + b.side) / 2 - abs(a.y - b.y)
    common = max(0.0, min(across, a.side, b.side)) * max(0.0, min(down, a.side, b.side))
    return common / max(a.side, b.side) ** 2


def view(image: Picture, window: Window, spec: ViewSpec, rng: Rng) -> Picture:
    """One edited view of a window, shape (side_px, side_px, 3)."""
    shown = _cut(image, window, spec, rng)
    shown = _tone(shown, spec, rng)
    shown = _channels(shown, spec, rng)
    shown = _degrade(shown, spec, rng)
    if rng.random() < spec.lettered:
        _letter(shown, rng)
    if rng.random() < spec.compressed:
        quality = int(rng.integers(*spec.jpeg_quality))
        _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])
        shown = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    larger = shown.shape[0] > spec.side_px
    how = cv2.INTER_AREA if larger else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(shown, (spec.side_px, spec.side_px), interpolation=how), np.uint8)


def _cut(image: Picture, window: Window, spec: ViewSpec, rng: Rng) -> Picture:
    """The window at the resolution of a page, turned and mirrored."""
    low, high = spec.shown_px
    around = window.side * math.exp(rng.uniform(-0.5, 0.5))
    side = round(min(max(around, low), high))
    scale = side / window.side
    reduced, factor = image, 1.0
    while scale * factor < 0.5:  # linear interpolation alone would alias
        reduced = np.asarray(cv2.pyrDown(reduced), np.uint8)
        factor *= 2
    turned = rng.random() < spec.rotated
    angle = math.radians(rng.uniform(-spec.angle_degrees, spec.angle_degrees)) if turned else 0.0
    cos, sin = math.cos(angle) * scale * factor, math.sin(angle) * scale * factor
    x, y = window.x / factor, window.y / factor
    matrix = np.array(
        [[cos, -sin, side / 2 - cos * x + sin * y], [sin, cos, side / 2 - sin * x - cos * y]]
    )
    cut = np.asarray(
        cv2.warpAffine(
            reduced, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        ),
        np.uint8,
    )
    if rng.random() < spec.oriented:
        cut = np.rot90(cut, int(rng.integers(4)))
        cut = cut[:, ::-1] if rng.random() < 0.5 else cut
    return np.ascontiguousarray(cut)


def _tone(image: Picture, spec: ViewSpec, rng: Rng) -> Picture:
    if rng.random() >= spec.toned:
        return image
    levels = np.linspace(0, 1, 256)
    gamma = math.exp(rng.uniform(-0.65, 0.65))
    contrast = math.exp(rng.uniform(-0.4, 0.4))
    table = (levels**gamma - 0.5) * contrast + 0.5 + rng.uniform(-0.12, 0.12)
    if rng.random() < 0.04:
        table = 1 - table
    return np.asarray(cv2.LUT(image, (np.clip(table, 0, 1) * 255).astype(np.uint8)), np.uint8)


def _channels(image: Picture, spec: ViewSpec, rng: Rng) -> Picture:
    chance = rng.random()
    if chance < spec.grey:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)
    if chance < spec.grey + spec.one_channel:
        strongest = int(np.argmax(image.reshape(-1, 3).std(0)))
        if rng.random() < 0.5:
            return np.repeat(image[:, :, strongest, None], 3, axis=2)
        kept = np.zeros_like(image)
        kept[:, :, strongest] = image[:, :, strongest]
        return kept
    if chance < spec.grey + spec.one_channel + 0.25:
        gains = np.exp(rng.uniform(-0.2, 0.2, 3))
        return np.clip(image * gains, 0, 255).astype(np.uint8)
    return image


def _degrade(image: Picture, spec: ViewSpec, rng: Rng) -> Picture:
    side = image.shape[0]
    if rng.random() < spec.blurred:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)
    if rng.random() < 0.2:
        small = max(48, round(side * rng.uniform(0.4, 0.9)))
        reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(reduced, (side, side)), np.uint8)
    if rng.random() < spec.noisy:
        grain = np.empty((side, side, 1), np.float32)
        cv2.randn(grain, np.zeros(1), np.full(1, rng.uniform(1, 9)))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    return image


def _letter(image: Picture, rng: Rng) -> None:
    """A panel letter, an arrow, a scale bar or a dashed box, drawn into the image."""
    side = image.shape[0]
    ink = (255, 255, 255) if image.mean() < 128 else (0, 0, 0)
    if rng.random() < 0.2:
        ink = tuple(int(v) for v in rng.integers(0, 256, 3))
    x, y = (int(v) for v in rng.uniform(0.05, 0.9, 2) * side)
    match int(rng.integers(4)):
        case 0:
            letter = "ABCDEFGHabcdefgh*#"[int(rng.integers(18))]
            size = side / 160 * rng.uniform(0.5, 1.3)
            at = (int(side * 0.03), int(side * 0.03 + 26 * size))
            cv2.putText(image, letter, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 2, cv2.LINE_AA)
        case 1:
            dx, dy = (int(v) for v in rng.uniform(-0.2, 0.2, 2) * side)
            cv2.arrowedLine(image, (x, y), (x + dx, y + dy), ink, 2, cv2.LINE_AA, tipLength=0.4)
        case 2:
            length = int(side * rng.uniform(0.15, 0.4))
            y = int(side * rng.uniform(0.85, 0.95))
            cv2.rectangle(image, (x, y), (x + length, y + max(1, side // 50)), ink, -1)
        case _:
            box = int(side * rng.uniform(0.15, 0.4))
            cv2.rectangle(image, (x, y), (x + box, y + box), ink, 1 + side // 160)


def batch(
    sources: Sequence[Source],
    by_group: dict[str, list[int]],
    pairs: int,
    spec: ViewSpec,
    rng: Rng,
) -> NDArray[np.uint8]:
    """Views of a batch, pair by pair, shape (2 * pairs, side, side, 3); row 2i goes with 2i + 1.

    Half of the pictures come with others of their group and with several places each, so that a
    batch is full of negatives that look alike.
    """
    rows: list[Picture] = []
    groups = list(by_group)
    while len(rows) < 2 * pairs:
        group = by_group[groups[int(rng.integers(len(groups)))]]
        members = min(len(group), int(rng.choice([1, 2, 4])))
        for index in rng.choice(len(group), members, replace=False).tolist():
            source = sources[group[index]]
            for first, second in places(source, int(rng.choice([1, 2, 4])), spec, rng):
                rows.append(view(source.image, first, spec, rng))
                rows.append(view(source.image, second, spec, rng))
    return np.stack(rows[: 2 * pairs])
