"""Which of several rectangles, one inside another, is the edge of the card.

A card shows its edge and, inside it, the frame of what is printed; a pocket or a sleeve adds a rim
outside. All of them are rectangles of about a card's proportions, and all cards of a picture share
them, so agreement on a size does not say which is which. Colour does: beyond the edge of a card
its border ends and the page begins, whereas the page is the same on both sides of a rim.
"""

import numpy as np
from numpy.typing import NDArray

from core.detection_choice import overlap
from core.detection_plane import FOLLOWING, Plane, Quads
from core.detection_sides import Lab, colours_across, edges_across, measure_sides, moved_sides
from core.detection_spec import DetectionSpec


def border_beyond(lab: Lab, quads: Quads, spec: DetectionSpec) -> float:
    """How far outside of given rectangles the edges of the cards are, in widths of theirs.

    Args:
        lab: The picture in Lab.
        quads: Rectangles of one size that do not overlap, shape (n, 4, 2).
        spec: What a border is.

    Returns:
        0 where the rectangles are the edges.
    """
    outsets = np.arange(spec.narrowest_border, spec.widest_border, 0.01)
    best, border = 0.0, 0.0
    for outset in outsets.tolist():
        grown = grown_by(quads, outset)
        sides = measure_sides(lab, grown, 0.008, spec, hold=0.0)
        weakest = sides.along.mean(axis=2).min(axis=1)
        ring = colours_across(lab, quads, np.array([outset / 2]))[:, :, 0]
        beyond = colours_across(lab, grown, np.array([0.025]))[:, :, 0]
        apart = np.abs(ring - beyond).max(axis=-1).min(axis=1)
        votes = (weakest > spec.border_support) & (apart > spec.border_contrast)
        # In small pictures the search reaches further than from one outset to the next.
        votes &= np.abs(sides.offsets.mean(axis=(1, 2))) < 0.012
        votes &= ~_between_neighbours(quads, outset)
        if not votes.any():
            continue
        off = float(np.median(sides.offsets[votes].mean(axis=(1, 2))))
        # The edge is within reach of several of the outsets; nearest to it the offset is smallest.
        total = float(weakest[votes].sum()) * (1.0 - 10.0 * abs(off))
        if votes.sum() >= spec.border_votes * len(quads) and total > best:
            best, border = total, outset + off
    return border


def sides_put_right(lab: Lab, quads: Quads, spec: DetectionSpec) -> Quads | None:
    """Rectangles some of whose sides are the frame and others the edge, with all at the edge.

    Args:
        lab: The picture in Lab.
        quads: Rectangles of one size, shape (n, 4, 2).
        spec: What a border is.

    Returns:
        The rectangles of which sides were moved; None unless those are most.
    """
    best = np.full((len(quads), 4), spec.side_support)
    ends = np.zeros((len(quads), 4))
    for outset in np.arange(spec.narrowest_border - 0.005, 0.056, 0.007).tolist():
        grown = grown_by(quads, outset)
        sides = measure_sides(lab, grown, 0.006, spec, hold=0.0)
        support = sides.along.mean(axis=2)
        better = support > best + 0.01
        best = np.where(better, support, best)
        ends = np.where(better, outset + sides.offsets.mean(axis=2), ends)
    moved = (ends > 0).sum(axis=1) >= 2
    if moved.mean() < 0.5:
        return None
    return _moved_by(quads, ends)[moved]


def frame_within(lab: Lab, quads: Quads, spec: DetectionSpec) -> float:
    """How far inside the edges of cards the frame is that their border is printed around.

    Args:
        lab: The picture in Lab.
        quads: Cards of one size, shape (n, 4, 2).
        spec: What a border is.

    Returns:
        In card widths; 0 where most cards have no frame in common.
    """
    insets = np.arange(spec.narrowest_border * 0.95, spec.widest_border, 0.004)
    edge = np.sort(edges_across(lab, quads, -insets[::-1], spec)[..., ::-1], axis=1)
    votes = edge[:, 1:].mean(axis=1) * (edge[:, 1] > 0.6)
    total = votes.sum(axis=0)
    best = int(total.argmax())
    return float(insets[best]) if total[best] > spec.frame_votes * len(quads) else 0.0


def framed_cards(quads: Quads, plane: Plane, border: float) -> Quads:
    """The cards whose frames some of the quads are.

    Args:
        quads: Of any size, in pixels, shape (n, 4, 2).
        plane: Where the cards lie.
        border: Width of their border, in card widths.

    Returns:
        The quads that have a frame's size, with the border around them.
    """
    if len(quads) == 0:
        return quads
    flat = plane.outlines(np.zeros((1, 3)))
    high = 1.0 / plane.aspect
    frame = flat * [1.0 - 2 * border, 1.0 - 2 * border / high]
    wanted = np.log(_extents(frame))
    off = np.abs(np.log(np.maximum(_extents(plane.to_plane(quads)), 1e-9)) - wanted).max(axis=1)
    return grown_by(quads[off < 0.03], border / (1 - 2 * border))


def _extents(quads: Quads) -> NDArray[np.float64]:
    """Mean width and mean height, shape (n, 2)."""
    sides = quads[:, FOLLOWING] - quads
    length = np.hypot(sides[..., 0], sides[..., 1])
    return np.stack([length[:, [0, 2]].mean(axis=1), length[:, [1, 3]].mean(axis=1)], axis=1)


def _between_neighbours(quads: Quads, outset: float) -> NDArray[np.bool_]:
    """Whether growing a rectangle so far makes it meet two others or more: those are its edges."""
    small, large = grown_by(quads, outset - 0.02), grown_by(quads, outset + 0.035)
    met = np.zeros(len(quads), np.intp)
    for one in range(len(quads)):
        for other in range(len(quads)):
            if one != other and overlap(large[one], quads[other]) > 0.002:
                met[one] += overlap(small[one], quads[other]) < 0.0005
    return met >= 2


def grown_by(quads: Quads, outset: float) -> Quads:
    """Quads with all sides moved outwards, in widths of theirs."""
    return _moved_by(quads, np.full((len(quads), 4), outset))


def _moved_by(quads: Quads, outsets: NDArray[np.float64]) -> Quads:
    """Quads with each side moved outwards by its own number of widths, shape (n, 4)."""
    top, bottom = quads[:, 1] - quads[:, 0], quads[:, 2] - quads[:, 3]
    width = (np.hypot(top[:, 0], top[:, 1]) + np.hypot(bottom[:, 0], bottom[:, 1])) / 2
    return moved_sides(quads, np.repeat((outsets * width[:, None])[..., None], 2, axis=2))
