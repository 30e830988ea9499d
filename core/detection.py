"""Cards in a photograph, found without a trained model.

Quads that stand out give the size of a card and the tilt of what they lie on. With both known a
card is a rigid rectangle, and two straight edges at a right angle are enough to propose one; the
share of its visible outline that is edge decides. Where cards lie in the rows and columns of a
binder page, the grid says where the missing ones are.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from core.detection_borders import (
    border_beyond,
    frame_within,
    framed_cards,
    grown_by,
    sides_put_right,
)
from core.detection_choice import choose, common_plane, overlap
from core.detection_lattice import empty_places
from core.detection_plane import FOLLOWING, Plane, Quads, fit_plane
from core.detection_poses import EdgeMaps, Segments, corner_poses, distinct_poses, find_segments
from core.detection_quads import free_quads, short_side_first
from core.detection_sides import Lab, Sides, measure_sides, moved_sides, settle
from core.detection_spec import DEFAULT_SPEC, DetectionSpec
from core.geometry import Image
from core.opencv import cv2
from core.work import spec_id

__all__ = [
    "ContourDetector",
    "Detection",
    "DetectionSpec",
    "Detector",
    "DetectorError",
    "How",
    "Quad",
    "detect",
    "rectify",
]

Quad = NDArray[np.float32]
"""Corners in pixels of the scan, shape (4, 2), clockwise as seen; pixel centres are whole numbers.

The first is the one at the top left when the card is held with a short side up. Which of the two
short sides is the card's top cannot be told here: the one that is higher in the scan comes first.
"""
How = Literal["contour", "lattice", "picture", "model"]


@dataclass(frozen=True)
class Detection:
    """Where a card is.

    Attributes:
        quad: Its corners.
        score: How sure it is that a card is there with these corners, 0 to 1.
        how: ``contour``: by its own edges; ``lattice``: by the grid of the page, confirmed by what
            is there; ``picture``: by the edges of the picture, which is a card cut out or scanned
            without anything around it; ``model``: by a trained detector.
        complaints: What limits it, in words for the user; empty for most.
    """

    quad: Quad
    score: float
    how: How
    complaints: tuple[str, ...] = field(default=())


class DetectorError(Exception):
    """A detector is not the one that was named, cannot be loaded, or answers nonsense."""


class Detector(Protocol):
    """Finds cards in a scan."""

    @property
    def detector_id(self) -> str:
        """Names everything the result depends on besides the scan."""
        ...

    def detect(self, image: Image) -> list[Detection]:
        """The cards of an RGB image, shape (height, width, 3), in reading order."""
        ...


@dataclass(frozen=True)
class ContourDetector:
    """The detector that needs no model."""

    spec: DetectionSpec = DEFAULT_SPEC

    @property
    def detector_id(self) -> str:
        """Names the numbers and the version of the code."""
        return spec_id("detector", 2, self.spec)

    def detect(self, image: Image) -> list[Detection]:
        """See :func:`detect`."""
        return detect(image, self.spec)


@dataclass(frozen=True)
class _Picture:
    """The scan at the two sizes that are worked on.

    Attributes:
        lab: At working size, slightly smoothed.
        coarse: At the size of hypotheses.
        step: Pixels of ``lab`` per pixel of ``coarse``.
        spec: What an edge is.
    """

    lab: Lab
    coarse: Lab
    step: float
    spec: DetectionSpec

    @cached_property
    def segments(self) -> Segments:
        """Straight pieces of edge, in pixels of ``lab``, longest first."""
        return (find_segments(self.coarse) + 0.5) * self.step - 0.5

    @cached_property
    def edges(self) -> EdgeMaps:
        """Where ``coarse`` has edges."""
        return EdgeMaps(self.coarse, self.spec)

    @cached_property
    def smooth(self) -> Lab:
        """``coarse`` without its grain."""
        return np.asarray(cv2.GaussianBlur(self.coarse, (0, 0), 2.0), np.uint8)


@dataclass(frozen=True)
class _Found:
    """A card on its way to becoming a detection, in pixels of the working size."""

    quad: NDArray[np.float64]
    score: float
    how: How


def detect(image: Image, spec: DetectionSpec | None = None) -> list[Detection]:
    """Find the cards of a scan.

    Args:
        image: RGB, uint8, shape (height, width, 3), of any size. It is reduced at once, so that a
            photograph of 50 megapixels needs no more memory than its reduced copy, about 100 MB.
        spec: What a card is.

    Returns:
        The cards in reading order: rows from above, each from the left. None for a picture that is
        blank, too small, or shows no rectangle of a card's proportions.

    Raises:
        ValueError: The image is not RGB of 8 bits.

    Source:
        Consensus of one size under one homography after Fischler and Bolles, "Random sample
        consensus", CACM 1981; the rest is described where it is done.
    """
    spec = spec or DEFAULT_SPEC
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected RGB of 8 bits, got {image.dtype} of shape {image.shape}")
    if min(image.shape[:2]) < spec.min_picture_px:
        return []
    picture = _prepared(image, spec)
    cards, complaints = _cards(picture, spec)
    if len(cards) == 1 and _is_cut_out(cards[0].quad, image.shape, picture.lab.shape, spec):
        height, width = picture.lab.shape[:2]
        edges = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
        cards = [_Found(edges, cards[0].score, "picture")]
    scale = max(image.shape[:2]) / max(picture.lab.shape[:2])
    found = [
        Detection(
            quad=((short_side_first(card.quad) + 0.5) * scale - 0.5).astype(np.float32),
            score=card.score,
            how=card.how,
            complaints=complaints,
        )
        for card in cards
    ]
    return reading_order(found)


def _prepared(image: Image, spec: DetectionSpec) -> _Picture:
    lab = cv2.cvtColor(_at_most(image, spec.working_px), cv2.COLOR_RGB2LAB)
    coarse = _at_most(lab, spec.coarse_px)
    step = max(lab.shape[:2]) / max(coarse.shape[:2])
    return _Picture(cv2.GaussianBlur(lab, (0, 0), 0.8), coarse, step, spec)


def _at_most(image: Image, longer_px: int) -> Image:
    """The image, reduced where its longer side exceeds a number of pixels."""
    height, width = image.shape[:2]
    factor = longer_px / max(height, width)
    if factor >= 1.0:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cards(picture: _Picture, spec: DetectionSpec) -> tuple[list[_Found], tuple[str, ...]]:
    """The cards, and what was left out of the search."""
    lab, shape = picture.lab, picture.lab.shape
    quads = (free_quads(picture.coarse, spec) + 0.5) * picture.step - 0.5
    free = measure_sides(lab, quads, spec.side_reach, spec)
    support = free.along.mean(axis=(1, 2), dtype=np.float64)
    free = free.of(np.flatnonzero(support > spec.min_support))
    support = support[support > spec.min_support]
    common = common_plane(free.fitted, support, shape, spec)
    if common is None:
        return [], ()
    plane, members = common
    agreed = free.fitted[members]
    if border := border_beyond(lab, agreed, spec):
        agreed = measure_sides(lab, grown_by(agreed, border), 0.015, spec).fitted
        plane = fit_plane(agreed, support[members], shape, spec)
    elif (righted := sides_put_right(lab, agreed, spec)) is not None:
        common = common_plane(righted, np.ones(len(righted)), shape, spec)
        if common is not None:
            plane, members = common
            agreed = righted[members]
    border = frame_within(lab, agreed, spec)
    cards: list[_Found] = []
    complaints: tuple[str, ...] = ()
    # The first plane rests on the few cards that stand alone; it is fitted again to all it finds.
    for _ in range(2):
        proposed, complaints = _proposed(picture, plane, agreed, spec)
        if border:
            proposed = np.concatenate([framed_cards(free.fitted, plane, border), proposed])
        sides, worth = _measured(lab, proposed, border, spec)
        worth *= _texture(picture, sides.fitted) > spec.min_texture
        chosen = choose(sides, worth, shape, spec)
        if len(chosen.index) == 0:
            return [], complaints
        cards = [
            _Found(sides.fitted[index], score, "contour")
            for index, score in zip(chosen.index.tolist(), chosen.support, strict=True)
        ]
        agreed = sides.fitted[chosen.index]
        before = plane.quads(plane.poses(agreed))
        plane = fit_plane(agreed, np.array(chosen.support), shape, spec)
        moved = np.abs(plane.quads(plane.poses(agreed)) - before).max()
        if moved < 0.01 * np.hypot(*(agreed[0, 1] - agreed[0, 0])):
            break
    firm = [card for card in cards if card.score >= spec.firm_score]
    completed = _completed(picture, plane, firm, border, spec)
    # Where the grid knows better, what was doubtful gives way.
    doubtful = [
        card
        for card in cards
        if card.score < spec.firm_score
        and all(overlap(card.quad, other.quad) < 0.2 for other in completed)
    ]
    found = [*firm, *doubtful, *completed]
    if len(found) >= spec.max_cards:
        complaints += (f"at most {spec.max_cards} cards are found on one; there may be more",)
    return found, complaints


def _is_cut_out(
    quad: NDArray[np.float64],
    original: tuple[int, ...],
    shape: tuple[int, ...],
    spec: DetectionSpec,
) -> bool:
    """Whether a picture is a card without anything around it, and its only quad a frame within.

    Such a picture has a card's proportions, and what was found in it lies in its middle as only
    printing does, or reaches beyond it. Where that is a card on a cloth after all, little is lost:
    the picture holds all of it.
    """
    short, long = sorted(original[:2])
    if abs(short / long / spec.card_aspect - 1) > spec.cut_out_tolerance:
        return False
    size = np.array([shape[1], shape[0]])
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    order = np.argmin(np.hypot(*np.moveaxis(quad[:, None] / size - corners, 2, 0)), axis=0)
    if len(set(order.tolist())) < 4:
        return False
    inset = (quad[order] - (corners * size - 0.5)) * (1 - 2 * corners) / min(size)
    if inset.max() > spec.cut_out_reach:
        return False
    beyond = bool(inset.min() < -spec.cut_out_play)
    return beyond or bool(np.ptp(inset) < spec.cut_out_play)


def _measured(
    lab: Lab, quads: Quads, border: float, spec: DetectionSpec
) -> tuple[Sides, NDArray[np.float64]]:
    """The sides of hypotheses, and what each is worth, 0 to 1.

    Where cards have a frame inside their border, a hypothesis that shows no edges but a whole frame
    is measured by the frame, and one that shows no frame is worth less.
    """
    outer = measure_sides(lab, quads, spec.side_reach, spec)
    if not border:
        return outer, np.ones(len(quads))
    inner = measure_sides(lab, grown_by(quads, -border), spec.frame_reach, spec)
    by_frame = grown_by(inner.fitted, border / (1 - 2 * border))
    support = np.sort(outer.along.mean(axis=2, dtype=np.float64), axis=1)
    framed = np.sort(inner.along.mean(axis=2, dtype=np.float64), axis=1)
    # A frame is believed with all of its sides only: two of them are in every pocket of the page.
    # Nor does it stand in for edges of which some are there: those would be there all around.
    torn = (support[:, 2] > 0.8) & (support[:, 0] < 0.3)
    credit = np.where(torn, spec.torn_worth, spec.frame_worth)
    better = credit * framed.mean(axis=1) > support[:, :2].mean(axis=1)
    better &= framed[:, 0] > 0.5
    worth = 1 - spec.frame_share * (1 - framed[:, 1:].mean(axis=1))
    by_credit = credit.astype(np.float32)[:, None, None] * inner.along
    sides = Sides(
        outer.quads,
        np.where(better[:, None, None], by_credit, outer.along),
        np.where(better[:, None, None, None], inner.places, outer.places),
        np.where(better[:, None, None], inner.inside, outer.inside),
        np.where(better[:, None, None], by_frame, outer.fitted),
        np.where(better[:, None, None], inner.offsets, outer.offsets),
    )
    return sides, worth


def _proposed(
    picture: _Picture, plane: Plane, agreed: Quads, spec: DetectionSpec
) -> tuple[Quads, tuple[str, ...]]:
    """Hypotheses worth a closer look: quads that agree, and corners with edges to go with them."""
    poses, complaints = corner_poses(picture.segments, plane, spec)
    sides = picture.edges.support((plane.quads(poses) + 0.5) / picture.step - 0.5)
    ordered = np.sort(sides, axis=1)
    # Hidden sides count little: a corner of a card below shows two.
    score = ordered[:, 2] + ordered[:, 3] + 0.7 * ordered[:, 1] + 0.5 * ordered[:, 0]
    worthy = ordered[:, 2] > 0.45
    poses, score = poses[worthy], score[worthy]
    best = distinct_poses(poses, score.astype(np.float32), spec.max_examined)
    return np.concatenate([agreed, plane.quads(poses[best])]), complaints


def _completed(
    picture: _Picture, plane: Plane, cards: list[_Found], border: float, spec: DetectionSpec
) -> list[_Found]:
    """Cards in the places that the grid of a page has, and that were not found by themselves."""
    if len(cards) < 3:
        return []
    pockets = empty_places(plane.poses(np.array([card.quad for card in cards])), plane)
    if len(pockets.poses) == 0:
        return []
    height, width = picture.lab.shape[:2]
    predicted = plane.quads(pockets.poses)
    bounds = np.array([width, height])
    seen = ((predicted > -0.02 * bounds) & (predicted < 1.02 * bounds)).all(axis=(1, 2))
    predicted, within = predicted[seen], pockets.within[seen]
    settled = settle(picture.lab, predicted, 0.09, border, spec)
    textured = _texture(picture, settled.quads) > spec.min_texture
    found: list[_Found] = []
    for index in np.argsort(-settled.support, kind="stable").tolist():
        needed = spec.lattice_support if within[index] else spec.min_support
        quad = settled.quads[index]
        if settled.support[index] < needed or not textured[index]:
            continue
        if any(overlap(quad, card.quad) > 0.2 for card in [*cards, *found]):
            continue
        tight = _tightened(picture.lab, quad, float(settled.inset[index]), spec)
        found.append(_Found(tight, float(settled.support[index]), "lattice"))
    return found


def _tightened(
    lab: Lab, quad: NDArray[np.float64], inset: float, spec: DetectionSpec
) -> NDArray[np.float64]:
    """Fit the sides of a settled quad, or those of the frame inside its border."""
    width = np.hypot(*(quad[1] - quad[0])) / 2 + np.hypot(*(quad[2] - quad[3])) / 2
    by = np.full((1, 4, 2), inset * width)
    sides = measure_sides(lab, moved_sides(quad[None], -by), 0.02, spec)
    return moved_sides(sides.fitted, by)[0]


def _texture(picture: _Picture, quads: Quads) -> NDArray[np.float64]:
    """How much the colour varies inside each quad: standard deviation in levels of Lab."""
    t = (np.arange(24) + 2.5) / 28.0
    top = quads[:, None, 0] + (quads[:, 1] - quads[:, 0])[:, None] * t[:, None]
    bottom = quads[:, None, 3] + (quads[:, 2] - quads[:, 3])[:, None] * t[:, None]
    places = top[:, None] + (bottom - top)[:, None] * t[:, None, None]
    height, width = picture.coarse.shape[:2]
    spots = np.rint((places + 0.5) / picture.step - 0.5).astype(np.int32)
    x, y = np.clip(spots[..., 0], 0, width - 1), np.clip(spots[..., 1], 0, height - 1)
    colours = picture.smooth[y, x].astype(np.float32)
    return colours.std(axis=(1, 2)).max(axis=-1).astype(np.float64)


def reading_order(found: list[Detection]) -> list[Detection]:
    """Rows from above, each from the left.

    A card belongs to a row if its centre is within half a card's height of the row's mean.
    """
    centres = [np.mean(each.quad, axis=0) for each in found]
    heights = [float(np.ptp(each.quad[:, 1])) for each in found]
    rows: list[list[int]] = []
    for index in sorted(range(len(found)), key=lambda i: float(centres[i][1])):
        if rows:
            middle = float(np.mean([centres[i][1] for i in rows[-1]]))
            if float(centres[index][1]) - middle < 0.5 * min(
                heights[index], *(heights[i] for i in rows[-1])
            ):
                rows[-1].append(index)
                continue
        rows.append([index])
    return [found[i] for row in rows for i in sorted(row, key=lambda i: float(centres[i][0]))]


def rectify(image: Image, quad: Quad, width_px: int = 300, height_px: int = 420) -> Image:
    """The card within a quad as if seen from straight above, upright.

    Where the card is larger in the scan than in the result, every pixel of the result is the mean
    of several samples, close enough together that none of the scan's detail is skipped: aliasing
    would look like print.

    Args:
        image: RGB, shape (height, width, 3).
        quad: Corners in its pixels, clockwise, shape (4, 2). If the first side is a long one the
            card is turned by a quarter so that the result is portrait.
        width_px: Width of the result.
        height_px: Height of the result.

    Returns:
        RGB, shape (height_px, width_px, 3). What lies outside the scan repeats its border.

    Raises:
        ValueError: The quad is not four finite corners with an area.
    """
    corners = np.asarray(quad, np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise ValueError(f"expected four corners, got {corners.tolist()}")
    sides = np.hypot(*(corners[FOLLOWING] - corners).T)
    if sides[0] + sides[2] > sides[1] + sides[3]:
        corners, sides = corners[FOLLOWING], sides[FOLLOWING]
    if abs(float(cv2.contourArea(corners.astype(np.float32)))) < 1.0:
        raise ValueError(f"the corners {corners.tolist()} enclose nothing")
    low = np.floor(np.maximum(corners.min(axis=0) - 2, 0)).astype(int)
    high = np.ceil(np.minimum(corners.max(axis=0) + 3, image.shape[1::-1])).astype(int)
    low = np.minimum(low, np.array(image.shape[1::-1]) - 1)
    high = np.maximum(high, low + 1)
    crop = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    finer = max(sides[0], sides[2]) / width_px, max(sides[1], sides[3]) / height_px
    times = int(np.clip(np.ceil(max(finer)), 1, 12))
    size = (width_px * times, height_px * times)
    target = np.array([[0, 0], [size[0], 0], size, [0, size[1]]], np.float32) - np.float32(0.5)
    warp = cv2.getPerspectiveTransform((corners - low).astype(np.float32), target)
    large = cv2.warpPerspective(
        crop, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if times == 1:
        return np.asarray(large, np.uint8)
    return np.asarray(
        cv2.resize(large, (width_px, height_px), interpolation=cv2.INTER_AREA), np.uint8
    )
