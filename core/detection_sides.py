"""The sides of a quad: how much edge there is along them, and where exactly.

Along each side the picture is resampled as a strip, straight where the side is straight. A side is
the line across the strip that most edge lies on; its support is the share of its length where there
is edge. Averaging along the strip before the edge is measured keeps the border of a card, whose
colour changes the same way all along, and levels cloth and wood, whose grain does not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.detection_plane import FOLLOWING, Points, Quads
from core.detection_quads import crossings
from core.detection_spec import DetectionSpec
from core.opencv import cv2

Lab = NDArray[np.uint8]
"""Shape (height, width, 3)."""
Support = NDArray[np.float32]

POINTS = 24
"""Places along a side; a card's side is 300 to 450 px, and an edge is averaged over 3 of them."""
_ENDS = 0.06
"""Share of a side left out at either end: corners are round."""
_SLOPES = 7
_BATCH = 64


@dataclass(frozen=True)
class Sides:
    """What the four sides of n quads show.

    Attributes:
        quads: The quads that were measured, shape (n, 4, 2).
        along: Support at each place of each side, 0 to 1, on the line chosen, shape (n, 4, points).
        places: Where that is, in pixels, shape (n, 4, points, 2).
        inside: Whether it is in the picture, shape (n, 4, points).
        fitted: The quads through the lines chosen, shape (n, 4, 2).
        offsets: How far each side moved outwards, in card widths, at its two ends, (n, 4, 2).
    """

    quads: Quads
    along: Support
    places: Points
    inside: NDArray[np.bool_]
    fitted: Quads
    offsets: NDArray[np.float64]

    def of(self, index: NDArray[np.intp]) -> "Sides":
        """Only some of the quads."""
        return Sides(
            self.quads[index],
            self.along[index],
            self.places[index],
            self.inside[index],
            self.fitted[index],
            self.offsets[index],
        )


def measure_sides(
    lab: Lab, quads: Quads, reach: float, spec: DetectionSpec, hold: float = 0.5
) -> Sides:
    """Find the four sides of each quad near where it puts them.

    Args:
        lab: The picture in Lab.
        quads: In its pixels, shape (n, 4, 2).
        reach: How far a side is sought to either side, in card widths.
        spec: What an edge is.
        hold: Support that a line must have more, to be preferred though it is at the end of the
            reach; 0 prefers none.
    """
    parts = [
        _measure(lab, quads[start : start + _BATCH], reach, spec, hold)
        for start in range(0, len(quads), _BATCH)
    ]
    if not parts:
        none = np.zeros((0, 4, POINTS))
        empty = np.zeros((0, 4, 2))
        return Sides(
            empty, none.astype(np.float32), np.zeros((0, 4, POINTS, 2)), none > 0, empty, empty
        )
    return Sides(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("quads", "along", "places", "inside", "fitted", "offsets")
        )
    )


def _measure(lab: Lab, quads: Quads, reach: float, spec: DetectionSpec, hold: float) -> Sides:
    base, outward, width = _along(quads)
    reach_px = float(np.clip(np.median(width) * reach, 3.0, 48.0))
    steps = 2 * int(np.ceil(reach_px)) + 1
    span = np.maximum(width * reach, 3.0)
    t = np.linspace(_ENDS, 1 - _ENDS, POINTS)
    edge = _edges(lab, base, outward, span, steps, spec)
    lines, slopes = _lines(edge, spec)
    rigid = _together(lines.max(axis=2))
    # Columns between a line and where the card as a whole puts it, and the lean of the line.
    away = (np.arange(steps) - steps // 2 - rigid[..., None]) / max(1, steps // 2)
    lean_of = slopes / max(1, steps // 2)
    loss = hold * (away[:, :, None] ** 2 + 0.5 * lean_of[:, None] ** 2)
    score = lines - loss.astype(np.float32)
    best: NDArray[np.intp] = score.reshape(*score.shape[:2], -1).argmax(axis=-1)
    slope, place = best // steps, best % steps
    shift = np.rint(slopes[slope][..., None] * (t - 0.5) * 2).astype(np.intp)
    columns = np.clip(place[..., None] + shift, 0, steps - 1)
    along = np.take_along_axis(edge, columns[..., None], axis=-1)[..., 0]
    middle = _between(score, slope, place)
    unit = span[:, None] / max(1, steps // 2)
    from_centre = (middle - steps // 2) * unit
    lean = slopes[slope] * unit
    ends = np.stack([from_centre - lean, from_centre + lean], -1)
    moved = (
        base
        + outward[:, :, None]
        * (from_centre[..., None] + lean[..., None] * (t - 0.5) * 2)[..., None]
    )
    height, width_px = lab.shape[:2]
    inside = (
        (moved[..., 0] >= 1)
        & (moved[..., 1] >= 1)
        & (moved[..., 0] < width_px - 1)
        & (moved[..., 1] < height - 1)
    )
    step = _steps(lab, moved, outward, width, spec)
    # What is steeper than the step from one side to the other goes up and down again.
    clear = np.maximum(spec.border_contrast, 0.6 * spec.edge_level * along)
    along = np.minimum(along, 1.0) * np.minimum(step / clear, 1.0)
    plain = 1.0 - spec.contrast_share * (1.0 - np.minimum(step / spec.full_contrast, 1.0))
    along = (along * plain).astype(np.float32)
    fitted = moved_sides(quads, ends)
    return Sides(quads, along, moved, inside, fitted, ends / width[:, None, None])


def _steps(
    lab: Lab, places: Points, outward: Points, width: NDArray[np.float64], spec: DetectionSpec
) -> NDArray[np.float32]:
    """How much the colour differs from one side of a line to the other, in levels of Lab.

    The seam of a pocket and the rim of a sleeve are lines with the same page on both sides.
    """
    distances = np.multiply.outer(np.maximum(width, 100.0), np.array(spec.step_distances))
    away = outward[:, :, None, None] * distances[:, None, None, :, None]
    height, width_px = lab.shape[:2]
    colours: list[NDArray[np.float32]] = []
    for sign in (-1, 1):
        spots = np.rint(places[..., None, :] + sign * away).astype(np.int32)
        x, y = np.clip(spots[..., 0], 0, width_px - 1), np.clip(spots[..., 1], 0, height - 1)
        colours.append(_median_of_five(lab[y, x]).astype(np.float32))
    step = colours[1] - colours[0]
    smooth = step.copy()
    smooth[:, :, 1:-1] = (step[:, :, :-2] + step[:, :, 1:-1] + step[:, :, 2:]) / 3
    return np.sqrt((smooth**2).sum(axis=-1))


def _median_of_five(values: Lab) -> Lab:
    """The median over the last axis but one, which has a length of 5, by seven comparisons."""
    a, b, c, d, e = np.moveaxis(values, -2, 0)
    low, high = (
        np.maximum(np.minimum(a, b), np.minimum(c, d)),
        np.minimum(np.maximum(a, b), np.maximum(c, d)),
    )
    return np.maximum(np.minimum(low, high), np.minimum(e, np.maximum(low, high)))


def _together(profile: Support) -> NDArray[np.intp]:
    """How far each side moves when the quad does as a whole, to where all four show most edge.

    Args:
        profile: The best line at each distance, shape (n, 4, steps), from inside to outside.

    Returns:
        Columns outwards, shape (n, 4).
    """
    half = profile.shape[-1] // 2
    shift = np.arange(-half, half + 1, dtype=np.int64)
    loss = np.asarray(0.1 * (shift / max(1, half)) ** 2, np.float32)
    across: NDArray[np.intp] = (profile[:, 1] + profile[:, 3, ::-1] - loss).argmax(axis=1) - half
    down: NDArray[np.intp] = (profile[:, 2] + profile[:, 0, ::-1] - loss).argmax(axis=1) - half
    return np.stack([-down, across, down, -across], axis=1)


def _edges(
    lab: Lab,
    base: Points,
    outward: Points,
    span: NDArray[np.float64],
    steps: int,
    spec: DetectionSpec,
) -> Support:
    """Edge along strips in units of a full one, shape (n, 4, points, steps)."""
    count = len(base)
    half = steps // 2
    # Two more columns on either side: the difference of neighbours is taken over 2 px.
    across = np.arange(-half - 1, half + 2)[None] * (span / max(1, half))[:, None]
    at = base[:, :, :, None] + outward[:, :, None, None] * across[:, None, None, :, None]
    x = at[..., 0].reshape(-1, steps + 2).astype(np.float32)
    y = at[..., 1].reshape(-1, steps + 2).astype(np.float32)
    strip = cv2.remap(lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    step = strip[:, 2:].astype(np.int16) - strip[:, :-2]
    step = step.reshape(count * 4, POINTS, steps * 3).astype(np.float32)
    total = step.copy()
    total[:, 1:] += step[:, :-1]
    total[:, :-1] += step[:, 1:]
    total[:, 1:-1] /= 3.0
    total[:, [0, -1]] /= 2.0
    total = total.reshape(count, 4, POINTS, steps, 3)
    size = np.sqrt(
        total[..., 0] ** 2 + 1.5 * (total[..., 1] ** 2 + total[..., 2] ** 2), dtype=np.float32
    )
    return size / np.float32(spec.edge_level)


def _lines(edge: Support, spec: DetectionSpec) -> tuple[Support, NDArray[np.float64]]:
    """Mean edge along straight lines, shape (n, 4, slopes, steps), and their slopes.

    A slope is how far the line's ends are from its middle, in columns.
    """
    steps = edge.shape[-1]
    # Strong edges count no more than weak ones, but within one their steepest place counts most.
    steepest = np.maximum(edge.max(axis=-1, keepdims=True).mean(axis=2, keepdims=True), 1.0)
    share = np.float32(spec.steepness_share)
    edge = (1 - share) * np.minimum(edge, np.float32(1.0)) + share * np.minimum(
        edge / steepest, np.float32(1.0)
    )
    thick = edge
    for shift in range(1, spec.curve_px + 1):
        wide = thick.copy()
        wide[..., shift:] = np.maximum(wide[..., shift:], 0.9 * edge[..., :-shift])
        wide[..., :-shift] = np.maximum(wide[..., :-shift], 0.9 * edge[..., shift:])
        thick = wide
    most = min(6.0, steps / 4)
    slopes = np.linspace(-most, most, _SLOPES)
    t = np.linspace(_ENDS, 1 - _ENDS, POINTS)
    result = np.zeros((*edge.shape[:2], _SLOPES, steps), np.float32)
    padded = np.pad(thick, ((0, 0), (0, 0), (0, 0), (8, 8)))
    for index, slope in enumerate(slopes.tolist()):
        shifts = np.rint(slope * (t - 0.5) * 2).astype(int)
        for point, shift in enumerate(shifts.tolist()):
            result[:, :, index] += padded[:, :, point, 8 + shift : 8 + shift + steps]
    return result / np.float32(POINTS), slopes


def _between(
    score: Support, slope: NDArray[np.intp], place: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The best column of each side to a fraction of it, by a parabola through three."""
    steps = score.shape[-1]
    rows = np.take_along_axis(score, slope[..., None, None], axis=2)[:, :, 0]
    inner = np.clip(place, 1, steps - 2)
    left, middle, right = (
        np.take_along_axis(rows, (inner + d)[..., None], axis=-1)[..., 0].astype(np.float64)
        for d in (-1, 0, 1)
    )
    bend = left - 2 * middle + right
    shift = np.where(bend < -1e-6, 0.5 * (left - right) / np.minimum(bend, -1e-6), 0.0)
    return np.where(inner == place, inner + np.clip(shift, -0.5, 0.5), place)


def moved_sides(quads: Quads, ends: NDArray[np.float64]) -> Quads:
    """Quads whose sides are moved outwards.

    Args:
        quads: Shape (n, 4, 2).
        ends: Pixels at the first and the second end of each side, shape (n, 4, 2).
    """
    following = quads[:, FOLLOWING]
    sides = following - quads
    length = np.maximum(np.hypot(sides[..., 0], sides[..., 1]), 1e-6)
    outward = np.stack([sides[..., 1], -sides[..., 0]], -1) / length[..., None]
    start = quads + outward * ends[..., :1]
    end = following + outward * ends[..., 1:]
    way = end - start
    lines = np.stack([-way[..., 1], way[..., 0], np.zeros_like(way[..., 0])], -1)
    lines[..., 2] = -(lines[..., 0] * start[..., 0] + lines[..., 1] * start[..., 1])
    corners, crossed = crossings(lines)
    return np.where(crossed[:, None, None], corners, quads)


@dataclass(frozen=True)
class Settled:
    """Cards moved as a whole to where their surroundings fit best.

    Attributes:
        quads: Moved, of the size they had, shape (n, 4, 2).
        inset: Where what fits is the frame printed inside the border rather than the edge: how far
            inside it is, in card widths; else 0. Shape (n,).
        support: Mean over the four sides, 0 to 1, shape (n,).
    """

    quads: Quads
    inset: NDArray[np.float64]
    support: NDArray[np.float64]


def settle(lab: Lab, quads: Quads, reach: float, border: float, spec: DetectionSpec) -> Settled:
    """Move quads, without changing their size, to where all four sides show edges.

    A border as dark as the page shows no edge of its own, but the frame printed inside it does, at
    one distance from all four sides. Both are tried; the frame has to be clearly better.

    Args:
        lab: The picture in Lab.
        quads: Predicted cards, shape (n, 4, 2).
        reach: How far they may be moved, in card widths.
        border: Where the frame is, in card widths inside the edge; 0 where that is not known.
        spec: What an edge is.
    """
    moved = quads.copy()
    insets, supports = np.zeros(len(quads)), np.zeros(len(quads))
    for index, quad in enumerate(quads):
        base, outward, widths = _along(quad[None])
        width = float(widths[0])
        steps = 2 * int(np.ceil(np.clip(width * 1.7 * reach, 6, 60) / 1.5)) + 1
        span = np.array([width * 1.7 * reach])
        edge = _edges(lab, base, outward, span, steps, spec)
        profile = _lines(edge, spec)[0][0].max(axis=1).astype(np.float64)
        half, unit = steps // 2, float(span[0]) / (steps // 2)
        most = int(half / 1.7)
        shift = np.arange(-most, most + 1)
        loss = 0.15 * (shift / max(1, most)) ** 2
        best: tuple[float, int, int, int] = (-1.0, 0, 0, 0)
        for inset in range(half - most + 1):
            away = inset * unit / width
            if inset and border and abs(away - border) > spec.frame_reach:
                continue
            if 0 < away < 0.02 or away > spec.widest_border:
                continue
            right, left = profile[1][half + shift - inset], profile[3][half - shift - inset]
            below, above = profile[2][half + shift - inset], profile[0][half - shift - inset]
            across, down = right + left - loss, below + above - loss
            x, y = int(across.argmax()), int(down.argmax())
            # Two sides that are there do not make up for two that are not.
            total = float(across[x] + down[y]) / 4 - (spec.frame_handicap if inset else 0.0)
            if total > best[0]:
                best = total, inset, int(shift[x]), int(shift[y])
        total, inset, x, y = best
        ends = np.array([-y, x, y, -x], np.float64) * unit
        moved[index] = moved_sides(quad[None], np.repeat(ends[None, :, None], 2, axis=2))[0]
        insets[index] = inset * unit / width
        supports[index] = total
    return Settled(moved, insets, supports)


def edges_across(
    lab: Lab, quads: Quads, outsets: NDArray[np.float64], spec: DetectionSpec
) -> NDArray[np.float64]:
    """Support of lines parallel to the sides, shape (n, 4, outsets).

    Args:
        lab: The picture in Lab.
        quads: Shape (n, 4, 2).
        outsets: How far outside of the sides, in card widths, evenly spaced.
        spec: What an edge is.
    """
    base, outward, width = _along(quads)
    middle, half = (outsets[0] + outsets[-1]) / 2, (outsets[-1] - outsets[0]) / 2
    steps = max(len(outsets), 2 * int(np.ceil(half * float(np.median(width)))) + 1) | 1
    # The strips are centred: move the sides to the middle of what is asked for.
    base = base + outward[:, :, None] * (middle * width)[:, None, None, None]
    edge = _edges(lab, base, outward, half * width, steps, spec)
    lines = _lines(edge, spec)[0].max(axis=2)
    place = np.rint(np.linspace(0, steps - 1, len(outsets))).astype(np.intp)
    near = np.stack([lines[..., np.clip(place + d, 0, steps - 1)] for d in (-1, 0, 1)])
    return near.max(axis=0).astype(np.float64)


def colours_across(lab: Lab, quads: Quads, outsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median colour along lines parallel to the sides, in Lab, shape (n, 4, outsets, 3)."""
    base, outward, width = _along(quads)
    away = outward[:, :, None] * (outsets[None] * width[:, None])[:, None, :, None]
    places = base[:, :, None] + away[:, :, :, None]
    height, width_px = lab.shape[:2]
    spots = np.rint(places).astype(np.int32)
    x, y = np.clip(spots[..., 0], 0, width_px - 1), np.clip(spots[..., 1], 0, height - 1)
    return np.median(lab[y, x], axis=3)


def _along(quads: Quads) -> tuple[Points, Points, NDArray[np.float64]]:
    """Places along the sides, (n, 4, points, 2), the outward normals, (n, 4, 2), the widths."""
    sides = quads[:, FOLLOWING] - quads
    length = np.maximum(np.hypot(sides[..., 0], sides[..., 1]), 1e-6)
    outward = np.stack([sides[..., 1], -sides[..., 0]], -1) / length[..., None]
    t = np.linspace(_ENDS, 1 - _ENDS, POINTS)
    base = quads[:, :, None] + sides[:, :, None] * t[:, None]
    return base, outward, (length[:, 0] + length[:, 2]) / 2
