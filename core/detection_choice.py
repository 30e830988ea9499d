"""Which of many hypotheses are the cards of a picture, each pixel being of the topmost one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.detection_plane import Plane, Quads, fit_plane
from core.detection_sides import Sides
from core.detection_spec import DetectionSpec
from core.opencv import cv2


@dataclass(frozen=True)
class Choice:
    """The cards chosen.

    Attributes:
        index: Which of the hypotheses, best first.
        support: Share of the visible outline that is edge, 0 to 1, for each.
        visible: Share of each that no other covers, as far as it was seen while choosing.
    """

    index: NDArray[np.intp]
    support: list[float]
    visible: list[float]


def common_plane(
    quads: Quads, support: NDArray[np.float64], shape: tuple[int, ...], spec: DetectionSpec
) -> tuple[Plane, NDArray[np.intp]] | None:
    """The plane and size on which most quads agree.

    Every quad in turn is taken for a card; the others that come out as cards of its size, and do
    not lie on one another, speak for it with their support.

    Returns:
        The plane, and the quads that agree, best first; None where there is no quad.
    """
    if len(quads) == 0:
        return None
    order = np.argsort(-support, kind="stable")[:160]
    quads, strength = quads[order], support[order]
    families: list[_Family] = []
    spoken_for: set[int] = set()
    for seed in range(len(quads)):
        if seed in spoken_for:
            continue
        if len(families) == spec.max_seeds:
            break
        plane = fit_plane(quads[seed : seed + 1], np.ones(1), shape, spec)
        members, weights = _agreeing(plane, quads, strength, 3.0 * spec.size_tolerance)
        for tolerance in (2.0 * spec.size_tolerance, spec.size_tolerance):
            if len(members) == 0:
                break
            plane = fit_plane(quads[members], weights, shape, spec)
            members, weights = _agreeing(plane, quads, strength, tolerance)
        spoken_for.update(members.tolist())
        families.append(_Family(plane, members, float(weights.sum())))
    families.sort(key=lambda family: -family.total)
    best = families[0]
    for other in families[1:]:
        if _encloses(quads[other.members], quads[best.members]):
            best = other
    if len(best.members) == 0:
        return None
    return best.plane, order[best.members]


@dataclass(frozen=True)
class _Family:
    """Quads of one size on one plane, and how much speaks for them."""

    plane: Plane
    members: NDArray[np.intp]
    total: float


def _encloses(larger: Quads, smaller: Quads) -> bool:
    """Whether one family are the cards on which the other one is printed.

    Windows and boxes of text have the proportions of a card, too, and there are more of them.
    Pages enclose cards likewise, but many each.
    """
    if len(larger) == 0 or len(smaller) == 0:
        return False
    inside = 0
    holders: set[int] = set()
    for small in smaller:
        centre = small.mean(axis=0)
        for index, large in enumerate(larger):
            outline = large.astype(np.float32)
            if cv2.contourArea(small.astype(np.float32)) > 0.75 * cv2.contourArea(outline):
                continue
            if cv2.pointPolygonTest(outline, centre.tolist(), False) > 0:
                inside += 1
                holders.add(index)
                break
    return inside >= 0.4 * len(smaller) and inside <= 3 * len(holders)


def _agreeing(
    plane: Plane, quads: Quads, support: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Quads of the plane's size that do not lie on one another, best first, and their weights."""
    off = np.sqrt((plane.misfit(quads) ** 2).mean(axis=1))
    weight = support**2 * np.exp(-0.5 * (off / tolerance) ** 2)
    fits = np.flatnonzero(off < 2.0 * tolerance)
    fits = fits[np.argsort(-weight[fits], kind="stable")]
    centres = plane.to_plane(quads).mean(axis=1)
    kept: list[int] = []
    for index in fits.tolist():
        apart = centres[kept] - centres[index]
        if not kept or np.hypot(apart[:, 0], apart[:, 1]).min() > 0.5:
            kept.append(index)
    members = np.array(kept, np.intp)
    return members, weight[members]


class Cover:
    """What of the picture is taken by cards chosen so far."""

    def __init__(self, shape: tuple[int, ...], scale: float) -> None:
        """Start with nothing taken.

        Args:
            shape: Height and width of the picture.
            scale: Of the mask to the picture; an eighth of a card's border suffices.
        """
        self._scale = scale
        height, width = (max(1, int(np.ceil(side * scale))) for side in shape[:2])
        self._mask = np.zeros((height, width), np.uint8)

    def add(self, quad: NDArray[np.float64]) -> None:
        """Take a quad."""
        cv2.fillConvexPoly(self._mask, self._scaled(quad), 1)

    def at(self, places: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points of shape (..., 2) are taken."""
        height, width = self._mask.shape
        spots = np.rint(places * self._scale).astype(np.int32)
        x, y = np.clip(spots[..., 0], 0, width - 1), np.clip(spots[..., 1], 0, height - 1)
        return self._mask[y, x] > 0

    def free_share(self, quad: NDArray[np.float64]) -> float:
        """Share of a quad that is in the picture and not taken."""
        points = self._scaled(quad)
        low, high = points.min(axis=0), points.max(axis=0) + 1
        own = np.zeros((high - low)[::-1].tolist(), np.uint8)
        cv2.fillConvexPoly(own, points - low, 1)
        height, width = self._mask.shape
        x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
        x1, y1 = min(width, int(high[0])), min(height, int(high[1]))
        if x0 >= x1 or y0 >= y1:
            return 0.0
        part = own[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]]
        return float((part & (1 - self._mask[y0:y1, x0:x1])).sum()) / max(1, int(own.sum()))

    def _scaled(self, quad: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.rint(quad * self._scale).astype(np.int32)


def choose(
    sides: Sides, worth: NDArray[np.float64], shape: tuple[int, ...], spec: DetectionSpec
) -> Choice:
    """Take the best card, cover what it covers, and look again.

    A card on top shows all of its outline; one below shows what the others leave. So the outline of
    each hypothesis is judged twice, whole and where nothing chosen covers it, and the better
    reading counts.

    Args:
        sides: Of all hypotheses.
        worth: Factor on the support of each, shape (n,); 0 keeps one out.
        shape: Height and width of the picture.
        spec: What suffices.
    """
    cover = Cover(shape, 0.25)
    left = np.flatnonzero(worth > 0)
    chosen: list[int] = []
    supports: list[float] = []
    visibles: list[float] = []
    covered = np.zeros(sides.inside.shape, np.bool_)
    whole = _support(sides.along, sides.inside)
    while len(left) and len(chosen) < spec.max_cards:
        below = _support(sides.along[left], sides.inside[left] & ~covered[left])
        score = np.maximum(whole[left], below) * worth[left]
        best = int(score.argmax())
        if score[best] < spec.min_support:
            break
        index = int(left[best])
        left = np.delete(left, best)
        quad = sides.fitted[index]
        free = cover.free_share(quad)
        if free < spec.min_visible or any(
            overlap(quad, sides.fitted[other]) > spec.max_overlap for other in chosen
        ):
            continue
        chosen.append(index)
        supports.append(float(score[best]))
        visibles.append(free)
        cover.add(quad)
        covered[left] = cover.at(sides.places[left])
    return Choice(np.array(chosen, np.intp), supports, visibles)


def _support(along: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean support where it is seen, less for what is not; 0 if too little is.

    The weakest side counts as well as the mean: four sides make a card, and three make many.
    """
    share = seen.mean(axis=-1)
    side = (along * seen).sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1)
    mean = (side * share).sum(axis=-1) / np.maximum(share.sum(axis=-1), 1e-6)
    weakest = np.where(share > 0.3, side, 1.0).min(axis=-1)
    enough = ((share > 0.4).sum(axis=-1) >= 2) & (share.mean(axis=-1) > 0.4)
    return enough * (0.75 * mean + 0.25 * weakest) * (0.85 + 0.15 * share.mean(axis=-1))


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Common area over the smaller area of two convex quads, 0 to 1."""
    first, second = a.astype(np.float32), b.astype(np.float32)
    common, _ = cv2.intersectConvexConvex(first, second)
    smaller = min(cv2.contourArea(first), cv2.contourArea(second))
    return float(common) / smaller if smaller > 0 else 0.0
