"""Copy-move: a region of a panel that appears a second time in the same panel.

Cells, bands and membranes resemble each other by nature, so likeness alone proves nothing. What a
copied region has and a look-alike lacks is agreement in everything at once: the object, the
background around it, and the grain. Features propose where a region might have been moved to; a
correlation in small windows then grows the region, and its fine detail is compared.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.features import Grey, LocalFeatures, antisymmetric, grey_of
from core.opencv import NO_MEMORY, cv2
from core.verification import (
    Mask,
    Match,
    PanelView,
    Transform,
    compose,
    correlation,
    decompose,
    fit_similarity,
    invert,
    local_correlation,
    picture_mask,
    similarity,
    structural_similarity,
)


@dataclass(frozen=True)
class CopyMoveSpec:
    """How a panel is searched for copies within itself.

    Attributes:
        version: Part of the key of stored pairs.
        side_px: The panel is compared with itself at this long side at most, 384.
        max_distance: Largest descriptor distance of a proposal, in compact units, 160.
        nearest: Proposals per feature, 3: natural look-alikes may be nearer than the copy.
        max_matches: Closest matches kept per handedness, 400.
        min_shift: Least distance between a feature and its copy, 0.06 of the long side.
        max_log_scale: Largest change of size, ln 1.3. Moved regions are seldom resized.
        proposals: Transforms tried per handedness, 14.
        features: Features that take part, 700.
        reach: How far around its seed a region is first looked for, 0.25 of the long side.
        window_px: Side of the correlation window, 11 px.
        seed_ncc: Correlation of a proposal's surroundings below which it is dropped, 0.85.
        grow_ncc: Correlation of the windows that a region is made of, 0.8.
        link_px: Agreeing parts up to twice this apart may be one region, 7 px: between the
            cells of a copied region lies a ground that has nothing to compare.
        min_area_share: Smallest region, 0.008 of the panel.
        min_region_px: And at least this many pixels, 250.
        max_common: Largest share of a region that lies in its own copy, 0.15.
        keep: Most findings per panel, 3.
    """

    version: int = 1
    side_px: int = 384
    max_distance: float = 160.0
    nearest: int = 3
    max_matches: int = 400
    min_shift: float = 0.06
    max_log_scale: float = 0.262
    proposals: int = 14
    features: int = 700
    reach: float = 0.25
    window_px: int = 11
    seed_ncc: float = 0.85
    grow_ncc: float = 0.8
    link_px: int = 7
    min_area_share: float = 0.008
    min_region_px: int = 250
    max_common: float = 0.15
    keep: int = 3


PLAIN_BONUS = 0.05
"""How much worse fine detail may agree under a plain move than under a free affine map, which also
fits what does not belong to the copy."""


@dataclass(frozen=True)
class _Proposal:
    """A transform of the panel onto itself, and the places it was proposed from."""

    transform: Transform
    votes: int
    seed: tuple[float, float]


def find_copy_moves(view: PanelView, spec: CopyMoveSpec | None = None) -> list[Match]:
    """Regions of a panel that appear twice in it, best first.

    Args:
        view: The panel.
        spec: How to search.

    Returns:
        One match per copied region; ``region_a`` and ``region_b`` are disjoint parts of the same
        panel and ``transform`` maps the first onto the second. Empty where nothing is repeated.
    """
    spec = spec or CopyMoveSpec()
    height, width = view.image.shape[:2]
    if len(view.features) < 4 or min(height, width) < 32:
        return []
    factor = min(1.0, spec.side_px / max(height, width))
    image = view.image
    mask = picture_mask(view)
    if factor < 1:
        size = (round(width * factor), round(height * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    grey = grey_of(image)
    head = view.features.head(spec.features)
    points = head.points * np.array([factor, factor, factor, 1.0], np.float32)
    features = LocalFeatures(points, head.descriptors, head.words)
    found: list[Match] = []
    for proposal in _proposals(features, max(grey.shape), spec):
        match = _examine(grey, mask, proposal, features, spec)
        if match is not None:
            found.append(_enlarged(match, 1 / factor))
    return _distinct_best(found, spec.keep)


def _proposals(features: LocalFeatures, side: int, spec: CopyMoveSpec) -> list[_Proposal]:
    odd = antisymmetric()
    vectors = features.descriptors.astype(np.float32) - 128.0
    place = features.points[:, 0].astype(np.float64) + 1j * features.points[:, 1]
    pose = features.points[:, 2] * np.exp(1j * np.deg2rad(features.points[:, 3].astype(np.float64)))
    norm = (vectors * vectors).sum(axis=1)
    x, y = features.points[:, 0], features.points[:, 1]
    gap_squared = (x[:, None] - x[None, :]) ** 2 + (y[:, None] - y[None, :]) ** 2
    near = gap_squared < (spec.min_shift * side) ** 2
    found: list[_Proposal] = []
    for mirror in (False, True):
        other = vectors * np.where(odd, -1.0, 1.0).astype(np.float32) if mirror else vectors
        distance = norm[:, None] + norm[None, :] - 2 * other @ vectors.T
        distance[near] = np.inf
        found += _agreeing(distance, place, pose, side, spec, mirror=mirror)
    return found


def _agreeing(
    distance: NDArray[Any],
    place: NDArray[Any],
    pose: NDArray[Any],
    side: int,
    spec: CopyMoveSpec,
    *,
    mirror: bool,
) -> list[_Proposal]:
    """Transforms that matches of a panel with itself agree on, most agreeing matches first."""
    count = min(spec.nearest, len(distance) - 1)
    column = np.argpartition(distance, count - 1, axis=1)[:, :count]
    row = np.repeat(np.arange(len(distance)), count)
    column = column.reshape(-1)
    gap = distance[row, column]
    close = np.flatnonzero(gap < spec.max_distance**2)
    if len(close) > spec.max_matches:
        close = np.sort(close[np.argpartition(gap[close], spec.max_matches)[: spec.max_matches]])
    row, column, gap = row[close], column[close], gap[close]
    za, wa = place[row], pose[row]
    if mirror:
        za, wa = za.conj(), wa.conj()
    zb = place[column]
    alpha = pose[column] / wa
    usable = np.abs(np.log(np.abs(alpha))) < 1.5 * spec.max_log_scale
    za, zb, alpha, gap = za[usable], zb[usable], alpha[usable], gap[usable]
    if len(za) == 0:
        return []
    snapped = _snapped(alpha)
    beta = zb - snapped * za
    error = np.abs(snapped[:, None] * za[None, :] + beta[:, None] - zb[None, :])
    local = np.abs(za[:, None] - za[None, :]) < 0.4 * side
    agree = (error < np.maximum(2.5, 0.012 * side)) & local
    agree &= np.abs(np.angle(alpha[None, :] / snapped[:, None])) < 0.5
    votes = agree @ (1.0 / _crowd(za))
    order = np.lexsort((gap, -votes))
    taken = np.zeros(len(za), np.bool_)
    found: list[_Proposal] = []
    for i in order:
        if taken[i]:
            continue
        taken |= agree[i]
        slope, offset = complex(snapped[i]), complex(beta[i])
        if votes[i] >= 4:
            slope, offset = fit_similarity(za[agree[i]], zb[agree[i]])
        matrix = similarity(slope, offset, mirror=mirror)
        start = complex(za[i]).conjugate() if mirror else complex(za[i])
        found.append(_Proposal(matrix, int(votes[i]), (start.real, start.imag)))
        if len(found) >= spec.proposals:
            break
    return found


def _crowd(places: NDArray[Any]) -> NDArray[np.float64]:
    """How many places fall on the same 3 x 3 px: one corner at several sizes votes once."""
    _, index, count = np.unique(np.round(places / 3), return_inverse=True, return_counts=True)
    return count[index].astype(np.float64)


def _snapped(alpha: NDArray[Any]) -> NDArray[Any]:
    """Turns and scales with size 1 and, within 12 degrees of one, a multiple of 90 degrees."""
    angle = np.angle(alpha)
    right = np.round(angle / (np.pi / 2)) * (np.pi / 2)
    angle = np.where(np.abs(angle - right) < np.deg2rad(12), right, angle)
    return np.exp(1j * angle)


def _examine(
    grey: Grey, mask: Mask, proposal: _Proposal, features: LocalFeatures, spec: CopyMoveSpec
) -> Match | None:
    """Grow the region that a proposal moves, and measure how well it agrees."""
    if not _seed_agrees(grey, proposal, spec):
        return None
    transform = proposal.transform
    region = _grow(grey, mask, transform, proposal.seed, spec)
    if region is None:
        return None
    transform = _settled(grey, transform, region)
    region = _grow(grey, mask, transform, proposal.seed, spec)
    if region is None:
        return None
    wider = _grow(grey, mask, transform, proposal.seed, spec, spec.link_px)
    if wider is not None and _holds_as_well(grey, transform, region, wider):
        region = wider
    return _measured(grey, mask, transform, region, proposal, features, spec)


def _moved(grey: Grey, transform: Transform, size: tuple[int, int]) -> Grey:
    """The panel as seen at the places a transform maps a window to; 0 outside."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(grey, transform, size, flags=flags))


def _moved_mask(mask: Mask, transform: Transform, size: tuple[int, int]) -> Mask:
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(mask.astype(np.uint8), transform, size, flags=flags)) > 0


def _seed_agrees(grey: Grey, proposal: _Proposal, spec: CopyMoveSpec) -> bool:
    """Whether the surroundings of the seed look alike where they are and where they would go."""
    half = spec.window_px
    x, y = proposal.seed
    frame = np.array([[1.0, 0, x - half], [0, 1.0, y - half]])
    size = (2 * half + 1, 2 * half + 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    own = np.asarray(cv2.warpAffine(grey, frame, size, flags=flags))
    to_copy = compose(proposal.transform, frame)
    copy = np.asarray(cv2.warpAffine(grey, to_copy, size, flags=flags))
    return correlation(own, copy, np.ones(own.shape, np.bool_)) >= spec.seed_ncc


def _grow(
    grey: Grey,
    mask: Mask,
    transform: Transform,
    seed: tuple[float, float],
    spec: CopyMoveSpec,
    link_px: int = 0,
) -> Mask | None:
    """The region around the seed whose windows agree with their copies.

    Looks near the seed first, and over the whole panel only when the region reaches that border.
    Parts of it may be ``2 * link_px`` apart.
    """
    height, width = grey.shape
    reach = spec.reach * max(height, width)
    for half in (reach, float(max(height, width))):
        x0, x1 = max(0, int(seed[0] - half)), min(width, int(seed[0] + half) + 1)
        y0, y1 = max(0, int(seed[1] - half)), min(height, int(seed[1] + half) + 1)
        frame = np.array([[1.0, 0, x0], [0, 1.0, y0]])
        local_seed = (seed[0] - x0, seed[1] - y0)
        part = _grow_in(
            grey[y0:y1, x0:x1],
            mask[y0:y1, x0:x1],
            _moved(grey, compose(transform, frame), (x1 - x0, y1 - y0)),
            _moved_mask(mask, compose(transform, frame), (x1 - x0, y1 - y0)),
            local_seed,
            spec,
            link_px,
        )
        if part is None:
            return None
        region = np.zeros(grey.shape, np.bool_)
        region[y0:y1, x0:x1] = part
        inner = region[y0 + (y0 > 0) : y1 - (y1 < height), x0 + (x0 > 0) : x1 - (x1 < width)]
        if inner.sum() == part.sum():
            break
    if region.sum() < max(spec.min_region_px, spec.min_area_share * height * width):
        return None
    copy = np.asarray(
        cv2.warpAffine(region.astype(np.uint8), transform, (width, height), flags=cv2.INTER_NEAREST)
    )
    if (region & (copy > 0)).sum() > spec.max_common * region.sum():
        return None
    return region


def _grow_in(
    own: Grey,
    own_mask: Mask,
    copy: Grey,
    copy_mask: Mask,
    seed: tuple[float, float],
    spec: CopyMoveSpec,
    link_px: int,
) -> Mask | None:
    """The agreeing region around a seed within one window of the panel."""
    both = own_mask & copy_mask
    if both.sum() < spec.min_region_px:
        return None
    value, shown = local_correlation(own, copy, both, spec.window_px, floor=1.5)
    agree = ((value > spec.grow_ncc) & shown).astype(np.uint8)
    agree = cv2.morphologyEx(agree, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    linked = cv2.dilate(agree, np.ones((2 * link_px + 1,) * 2, np.uint8))
    _, labels = cv2.connectedComponents(linked)
    labels = labels * agree
    x, y = round(seed[0]), round(seed[1])
    around = labels[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7]
    inside = around[around > 0]
    return labels == np.bincount(inside).argmax() if len(inside) else None


def _holds_as_well(grey: Grey, transform: Transform, core: Mask, wider: Mask) -> bool:
    """Whether fine detail agrees in what lies around a region about as well as within it.

    What was moved along with a cell agrees; what a look-alike happens to have for neighbours does
    not, and would blur the measure.
    """
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
    moved = _moved(detail, transform, (grey.shape[1], grey.shape[0]))
    added = wider & ~core
    if added.sum() < 0.1 * core.sum():
        return True
    return correlation(detail, moved, added) >= correlation(detail, moved, core) - 0.1


def _settled(grey: Grey, transform: Transform, region: Mask) -> Transform:
    """The transform pulled into place: whichever way of doing so makes fine detail agree best.

    Most regions are moved without resizing, turned by right angles or not at all. Where the
    transform is near such a move, only its translation is left to the pixels, which is far more
    exact than an affine map fitted to a few cells; else the affine map is.
    """
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)

    x0, y0, w, h = cv2.boundingRect(region.astype(np.uint8))
    window = np.s_[y0 : y0 + h, x0 : x0 + w]
    frame = np.array([[1.0, 0, x0], [0, 1.0, y0]])

    def agreement(candidate: Transform) -> float:
        moved = _moved(detail, compose(candidate, frame), (w, h))
        return correlation(detail[window], moved, region[window])

    free = [transform, _refined(grey, transform, region)]
    plain = [_right_angled(start, region) for start in free if start is not None]
    best_free = max((c for c in free if c is not None), key=agreement)
    shifted = [_shifted(detail, exact, region) for exact in plain if exact is not None]
    best_plain = max(shifted, key=agreement, default=None)
    if best_plain is not None and agreement(best_plain) >= agreement(best_free) - PLAIN_BONUS:
        return best_plain
    return best_free


def _right_angled(transform: Transform, region: Mask) -> Transform | None:
    """The nearest move by right angles at the same size, if one is near; its middle stays put."""
    linear = np.round(transform[:, :2])
    near = np.abs(transform[:, :2] - linear).max() < 0.12
    if not near or abs(abs(float(np.linalg.det(linear))) - 1) > 0.1:
        return None
    rows, columns = np.nonzero(region)
    middle = np.array([columns.mean(), rows.mean()])
    target = transform[:, :2] @ middle + transform[:, 2]
    return np.column_stack([linear, target - linear @ middle]).astype(np.float64)


def _shifted(detail: Grey, transform: Transform, region: Mask, reach: int = 4) -> Transform:
    """The transform moved by a few pixels, and a fraction, to where fine detail agrees best."""
    x0, y0, w, h = cv2.boundingRect(region.astype(np.uint8))
    frame = np.array([[1.0, 0, x0 - reach], [0, 1.0, y0 - reach]])
    around = _moved(detail, compose(transform, frame), (w + 2 * reach, h + 2 * reach))
    inside = region[y0 : y0 + h, x0 : x0 + w].astype(np.float32)
    own = np.ascontiguousarray(detail[y0 : y0 + h, x0 : x0 + w])
    score = np.asarray(cv2.matchTemplate(around, own, cv2.TM_CCORR_NORMED, mask=inside))
    row, column = np.unravel_index(int(np.nan_to_num(score, nan=-1).argmax()), score.shape)
    shift = [
        int(column) - reach + _vertex(score[row, :], int(column)),
        int(row) - reach + _vertex(score[:, column], int(row)),
    ]
    return compose(transform, np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]]]))


def _vertex(values: NDArray[Any], peak: int) -> float:
    """Where between pixels a parabola through a peak and its neighbours is highest, -0.5 to 0.5."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    before, at, after = (float(v) for v in values[peak - 1 : peak + 2])
    bend = before - 2 * at + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < -1e-9 else 0.0


def _refined(grey: Grey, transform: Transform, region: Mask) -> Transform | None:
    """Pull an affine transform into place by the pixels of the region."""
    x0, y0, w, h = cv2.boundingRect(region.astype(np.uint8))
    frame = np.array([[1.0, 0, x0], [0, 1.0, y0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    own = grey[y0 : y0 + h, x0 : x0 + w]
    copy = np.asarray(cv2.warpAffine(grey, compose(transform, frame), (w, h), flags=flags))
    inside = region[y0 : y0 + h, x0 : x0 + w].astype(np.uint8)
    warp = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
    try:
        _, warp = cv2.findTransformECC(own, copy, warp, cv2.MOTION_AFFINE, criteria, inside, 3)
    except cv2.error as error:
        if error.code == NO_MEMORY:
            raise  # the op answers with a smaller batch; "no better alignment" would be a loss
        return None
    if np.abs(np.asarray(warp)[:, :2] - np.eye(2)).max() > 0.08:
        return None
    moved = compose(compose(frame, np.asarray(warp, np.float64)), invert(frame))
    return compose(transform, moved)


def _measured(
    grey: Grey,
    mask: Mask,
    transform: Transform,
    region: Mask,
    proposal: _Proposal,
    features: LocalFeatures,
    spec: CopyMoveSpec,
) -> Match:
    moved = _moved(grey, transform, (grey.shape[1], grey.shape[0]))
    detail_a, detail_b = (g - cv2.GaussianBlur(g, (0, 0), 1.5) for g in (grey, moved))
    hull = _hull(region)
    solid = np.zeros(grey.shape, np.uint8)
    cv2.fillConvexPoly(solid, np.round(hull).astype(np.int32), 1)
    whole = (solid > 0) & mask
    is_mirrored, rotation, scale = decompose(transform)
    value, shown = local_correlation(grey, moved, whole, 7, floor=1.0)
    region_b = hull @ transform[:, :2].T + transform[:, 2]
    inside = cv2.dilate(region.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    place = np.round(features.points[:, :2]).astype(int)
    place = np.clip(place, 0, np.array(grey.shape)[::-1] - 1)
    held = int(inside[place[:, 1], place[:, 0]].sum())
    evidence = {
        "local": float(np.median(value[shown])) if shown.any() else 0.0,
        "agree": float((value[shown] > 0.6).mean()) if shown.any() else 0.0,
        "detail_ncc": correlation(detail_a, detail_b, region),
        "hull_ncc": correlation(grey, moved, whole),
        "hull_detail_ncc": correlation(detail_a, detail_b, whole),
        "solidity": float(region.sum() / max(1, solid.sum())),
        "area_px": float(region.sum()),
        "held": float(held),
        "votes": float(proposal.votes),
        "contrast": 1.0,
        "brightness": 0.0,
        "detail_level": float(detail_a[region].std()),
    }
    return Match(
        transform=transform,
        mirrored=is_mirrored,
        rotation_deg=rotation,
        scale=scale,
        region_a=hull,
        region_b=region_b,
        overlap=float(region.sum() / region.size),
        inliers=proposal.votes,
        ncc=correlation(grey, moved, region),
        ssim=structural_similarity(grey, moved, region),
        hamming=0,
        evidence=evidence,
    )


def _hull(region: Mask) -> NDArray[np.float64]:
    outline, _ = cv2.findContours(
        region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    points = np.concatenate([part.reshape(-1, 2) for part in outline])
    return np.asarray(cv2.convexHull(points), np.float64).reshape(-1, 2)


def _enlarged(match: Match, factor: float) -> Match:
    """The match in pixels of the panel instead of the reduced copy that was searched."""
    transform = match.transform.copy()
    transform[:, 2] *= factor
    return replace(
        match,
        transform=transform,
        region_a=match.region_a * factor,
        region_b=match.region_b * factor,
    )


def _distinct_best(found: list[Match], keep: int) -> list[Match]:
    """Without findings of the same two places, in either direction; the best by area first."""
    found.sort(key=lambda m: -m.evidence["area_px"] * max(m.evidence["detail_ncc"], 0.01))
    kept: list[Match] = []
    for match in found:
        here, there = match.region_a.mean(axis=0), match.region_b.mean(axis=0)
        near = 0.5 * float(np.sqrt(match.evidence["area_px"]))
        again = any(
            min(
                max(np.abs(here - p).max(), np.abs(there - q).max()),
                max(np.abs(here - q).max(), np.abs(there - p).max()),
            )
            < near
            for p, q in ((k.region_a.mean(axis=0), k.region_b.mean(axis=0)) for k in kept)
        )
        if not again:
            kept.append(match)
        if len(kept) == keep:
            break
    return kept
