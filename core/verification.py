"""Verified pairs: a candidate pair confirmed by geometry and by the pixels themselves.

Features propose how one panel would have to be turned, scaled, mirrored and moved to lie on the
other; the pixels of the overlap then say whether it does. What is measured here is judged in
``core.scoring``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.annotations import find_annotations
from core.features import Grey, LocalFeatures, antisymmetric, grey_of
from core.geometry import Box, Image
from core.opencv import NO_MEMORY, cv2

Transform = NDArray[np.float64]
"""Shape (2, 3): maps (x, y, 1) in pixels of panel A to pixels of panel B."""
Polygon = NDArray[np.float64]
"""Corners in pixels, shape (n, 2)."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PanelView:
    """One panel as verification sees it.

    Attributes:
        image: RGB, uint8, shape (height, width, 3).
        features: Its local features.
        ignore_boxes: Boxes in panel pixels that are not picture: the text layer's words. Lettering
            that is part of the pixels is found here.
        modality: What kind of picture it is, where known.
    """

    image: Image
    features: LocalFeatures
    ignore_boxes: tuple[Box, ...] = ()
    modality: str = "other"


@dataclass(frozen=True)
class VerificationSpec:
    """How a pair is verified.

    Attributes:
        version: Part of the key of stored pairs.
        max_distance: Largest descriptor distance of a match, in compact units, 150 of about 330
            between unrelated patches.
        ratio: A match must be closer than this share of the distance to the second nearest, 0.92,
            or be mutual: a true match of a repeated cell is often not mutual, or not unique.
        match_features: Features per panel that take part in proposing transforms, 600; all are
            counted as support afterwards.
        hypotheses: Most pairs of matches tried as a transform, 400.
        attempts: How many transforms are carried to the pixels, best first, 2 for each handedness:
            the first may rest on what the masks missed.
        inlier_share: Largest distance of an inlier from its predicted place, 0.012 of the panel's
            short side, at least ``min_inlier_px``.
        min_inliers: Fewer consistent features than this are chance and not looked at further.
        max_scale: Largest change of size that is believed, 4.
        dense_side_px: The overlap is compared at a long side of 256 px at most: more costs time and
            measures compression.
        min_overlap_px: Overlaps of a smaller area, 24 x 24 panel pixels, are too little to tell.
        min_ncc: Alignments whose grey values correlate less than this before refinement are not
            refined, 0.1; another channel of one field correlates little, so it is low.
        min_contrast: Standard deviation of grey levels below which an overlap is blank, 2.5: never
            a match.
    """

    version: int = 1
    max_distance: float = 150.0
    ratio: float = 0.92
    match_features: int = 600
    hypotheses: int = 400
    attempts: int = 2
    inlier_share: float = 0.012
    min_inlier_px: float = 2.5
    min_inliers: int = 4
    max_scale: float = 4.0
    dense_side_px: int = 256
    min_overlap_px: int = 24 * 24
    min_ncc: float = 0.1
    min_contrast: float = 2.5


@dataclass(frozen=True)
class Match:
    """How one panel lies on another, and how well.

    Attributes:
        transform: Pixels of A to pixels of B.
        mirrored: Whether the transform mirrors.
        rotation_deg: Turn of A's content in B, clockwise as seen, -180 to 180, after a left-right
            mirroring where ``mirrored``.
        scale: Size of the content in B relative to A.
        region_a: The common region as a polygon in pixels of A.
        region_b: The same in pixels of B.
        overlap: Common area as a share of the smaller panel (in common pixels), 0 to 1.
        inliers: Features that agree with the transform.
        ncc: Correlation of the grey values of the common region, -1 to 1.
        ssim: Structural similarity of the aligned region after matching brightness and contrast.
        hamming: Differing bits of the 64-bit perceptual hashes of the aligned region, 0 to 64.
        evidence: Further measurements by name, for scoring and for the report.
    """

    transform: Transform
    mirrored: bool
    rotation_deg: float
    scale: float
    region_a: Polygon
    region_b: Polygon
    overlap: float
    inliers: int
    ncc: float
    ssim: float
    hamming: int
    evidence: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class _Hypothesis:
    """A transform that features agree on."""

    transform: Transform
    mirrored: bool
    inliers: int
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class _Aligned:
    """Both panels in the frame of the overlap, at the coarser of the two resolutions."""

    a: NDArray[np.uint8]
    b: NDArray[np.uint8]
    mask: Mask
    frame: Transform


def verify_pair(a: PanelView, b: PanelView, spec: VerificationSpec | None = None) -> Match | None:
    """Whether and how a region of one panel is found again in the other.

    Args:
        a: One panel.
        b: The other.
        spec: How to verify.

    Returns:
        The best alignment with what was measured on it, or None where no alignment is worth
        measuring. A match is not yet a finding: ``core.scoring`` gives its probability.
    """
    spec = spec or VerificationSpec()
    best: Match | None = None
    hypotheses = propose(a.features, b.features, _tolerance(b.image, spec), spec)
    masks = None
    for hypothesis in hypotheses:
        masks = masks or (picture_mask(a), picture_mask(b))
        match = measure(a, b, hypothesis.transform, hypothesis.inliers, spec, masks)
        if match is not None and (best is None or _rank(match) > _rank(best)):
            best = match
    return best


def _rank(match: Match) -> float:
    """Which of several alignments of one pair is kept."""
    return max(match.ncc, 0.0) * np.log1p(match.inliers) * min(1.0, match.overlap / 0.2) ** 0.5


def _tolerance(image: Image, spec: VerificationSpec) -> float:
    return max(spec.min_inlier_px, spec.inlier_share * min(image.shape[:2]))


# Proposing transforms


def propose(
    a: LocalFeatures, b: LocalFeatures, tolerance_px: float, spec: VerificationSpec
) -> list[_Hypothesis]:
    """Transforms that several features agree on, most inliers first."""
    a, b = a.head(spec.match_features), b.head(spec.match_features)
    if min(len(a), len(b)) < spec.min_inliers:
        return []
    found: list[_Hypothesis] = []
    direct, mirror = _distances(a, b)
    for distance, is_mirrored in ((direct, False), (mirror, True)):
        pairs = _putative(distance, spec)
        for _ in range(spec.attempts):
            hypothesis = _ransac(a, b, pairs, tolerance_px, spec, mirror=is_mirrored)
            if hypothesis is None or hypothesis.inliers < spec.min_inliers:
                break
            found.append(hypothesis)
            pairs = np.delete(pairs, hypothesis.rows, axis=0)
    found.sort(key=lambda h: -h.inliers)
    most = found[0].inliers if found else 0
    return [h for h in found[: spec.attempts + 1] if h.inliers >= 0.25 * most]


def _distances(a: LocalFeatures, b: LocalFeatures) -> tuple[NDArray[Any], NDArray[Any]]:
    """Squared descriptor distances, shape (len(a), len(b)), direct and with A mirrored.

    Mirroring negates the odd directions of the basis, so one product per parity serves both.
    """
    odd = antisymmetric()
    left, right = a.descriptors.astype(np.float32) - 128.0, b.descriptors.astype(np.float32) - 128.0
    norms = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None, :]
    even_part = left[:, ~odd] @ right[:, ~odd].T
    odd_part = left[:, odd] @ right[:, odd].T
    return norms - 2 * (even_part + odd_part), norms - 2 * (even_part - odd_part)


def _putative(distance: NDArray[Any], spec: VerificationSpec) -> NDArray[np.int64]:
    """Pairs of features that are close and either mutual or unambiguous, shape (k, 2)."""
    rows = np.arange(len(distance))
    nearest = distance.argmin(axis=1)
    first = distance[rows, nearest]
    candidates = np.flatnonzero(first < spec.max_distance**2)
    if len(candidates) == 0:
        return np.empty((0, 2), np.int64)
    back = distance.argmin(axis=0)
    mutual = back[nearest[candidates]] == candidates
    others = distance[candidates].copy()
    others[np.arange(len(candidates)), nearest[candidates]] = np.inf
    clear = first[candidates] < spec.ratio**2 * others.min(axis=1)
    kept = candidates[mutual | clear]
    return np.stack([kept, nearest[kept]], axis=1)


def _ransac(
    a: LocalFeatures,
    b: LocalFeatures,
    pairs: NDArray[np.int64],
    tolerance_px: float,
    spec: VerificationSpec,
    *,
    mirror: bool,
) -> _Hypothesis | None:
    """The similarity with most inliers among pairs of matches; places are complex numbers.

    Every match alone says by its size and angle what the turn and scale should be; only pairs of
    matches that agree with that are tried, so a few hundred trials suffice. All trials are seeded.
    """
    if len(pairs) < 3:
        return None
    za, wa = _complex(a, pairs[:, 0])
    zb, wb = _complex(b, pairs[:, 1])
    if mirror:
        za, wa = za.conj(), wa.conj()
    own = wb / wa
    first, second = _pairs_to_try(len(pairs))
    dz, dw = za[second] - za[first], zb[second] - zb[first]
    far = (np.abs(dz) > 12) & (np.abs(dw) > 12)
    first, second = first[far], second[far]
    alpha = dw[far] / dz[far]
    misfit = _misfit(alpha, own[first]) + _misfit(alpha, own[second])
    fit = (misfit < 0.9) & (np.abs(np.log(np.abs(alpha))) < np.log(spec.max_scale))
    if not fit.any():
        return None
    order = np.flatnonzero(fit)[misfit[fit].argsort(kind="stable")][: spec.hypotheses]
    alpha, first = alpha[order], first[order]
    beta = zb[first] - alpha * za[first]
    near = np.abs(alpha[:, None] * za + beta[:, None] - zb) < tolerance_px
    near &= _misfit(alpha[:, None], own[None, :]) < 0.8
    inlier = near[int(near.sum(axis=1).argmax())]
    slope, offset = complex(alpha[0]), complex(beta[0])
    for _ in range(4):
        if inlier.sum() < 3:
            return None
        slope, offset = fit_similarity(za[inlier], zb[inlier])
        again = np.abs(slope * za + offset - zb) < tolerance_px
        again &= _misfit(np.asarray(slope), own) < 0.8
        if (again == inlier).all():
            break
        inlier = again
    rows = np.flatnonzero(inlier)
    distinct = min(_distinct(za[rows]), _distinct(zb[rows]))
    matrix = similarity(slope, offset, mirror=mirror)
    return _Hypothesis(matrix, mirror, distinct, rows)


def _complex(features: LocalFeatures, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places as x + iy, and size and angle as one complex number."""
    points = features.points[rows].astype(np.float64)
    return points[:, 0] + 1j * points[:, 1], points[:, 2] * np.exp(1j * np.deg2rad(points[:, 3]))


def _pairs_to_try(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of few matches, 12,000 seeded ones of many."""
    if count <= 120:
        first, second = np.triu_indices(count, 1)
        return first.astype(np.int64), second.astype(np.int64)
    rng = np.random.default_rng(count)
    first = rng.integers(0, count, 12_000)
    return first, (first + rng.integers(1, count, 12_000)) % count


def _misfit(alpha: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Difference of two turns-and-scales: log of the ratio of sizes plus radians."""
    ratio = alpha / reference
    return np.abs(np.log(np.maximum(np.abs(ratio), 1e-9))) + np.abs(np.angle(ratio))


def fit_similarity(za: NDArray[Any], zb: NDArray[Any]) -> tuple[complex, complex]:
    """Least squares slope and offset of zb = slope * za + offset."""
    middle_a, middle_b = za.mean(), zb.mean()
    centred = za - middle_a
    slope = (centred.conj() * (zb - middle_b)).sum() / max((np.abs(centred) ** 2).sum(), 1e-9)
    return complex(slope), complex(middle_b - slope * middle_a)


def _distinct(places: NDArray[Any]) -> int:
    """Places more than about two pixels apart: one corner found at several sizes counts once."""
    return len(np.unique(np.round(places / 2)))


# Measuring an alignment


def picture_mask(view: PanelView) -> Mask:
    """Where a panel shows picture: not lettering, not its outermost two pixels."""
    mask = np.zeros(view.image.shape[:2], np.bool_)
    mask[2:-2, 2:-2] = True
    for x0, y0, x1, y1 in (*view.ignore_boxes, *find_annotations(view.image)):
        mask[max(0, int(y0)) : max(0, int(y1) + 1), max(0, int(x0)) : max(0, int(x1) + 1)] = False
    return mask


def measure(
    a: PanelView,
    b: PanelView,
    transform: Transform,
    inliers: int,
    spec: VerificationSpec,
    masks: tuple[Mask, Mask] | None = None,
) -> Match | None:
    """Align the pixels by a proposed transform, refine it, and measure how well they agree."""
    masks = masks or (picture_mask(a), picture_mask(b))
    aligned = align(a.image, b.image, transform, masks, spec)
    if aligned is None:
        return None
    before = _ncc_of(aligned)
    if before < spec.min_ncc:
        return None
    refined = _refine(aligned, transform)
    if refined is not None:
        again = align(a.image, b.image, refined, masks, spec)
        if again is not None and _ncc_of(again) >= before:
            aligned, transform = again, refined
    mask = aligned.mask
    grey_a, grey_b, gain = _best_channels(aligned)
    if min(grey_a[mask].std(), grey_b[mask].std()) < spec.min_contrast:
        return None
    region_a, region_b = regions(a.image.shape, b.image.shape, transform)
    if len(region_a) < 3:
        return None
    is_mirrored, rotation, scale = decompose(transform)
    share_a = _polygon_area(region_a) / (a.image.shape[0] * a.image.shape[1])
    share_b = _polygon_area(region_b) / (b.image.shape[0] * b.image.shape[1])
    evidence = _evidence(grey_a, grey_b, mask) | _colours(aligned)
    evidence |= {"channel_gain": gain, "share_a": share_a, "share_b": share_b}
    evidence |= _support(a, b, transform, spec, mirror=is_mirrored)
    return Match(
        transform=transform,
        mirrored=is_mirrored,
        rotation_deg=rotation,
        scale=scale,
        region_a=region_a,
        region_b=region_b,
        overlap=min(1.0, max(share_a, share_b)),
        inliers=inliers,
        ncc=correlation(grey_a, grey_b, mask),
        ssim=structural_similarity(grey_a, grey_b, mask),
        hamming=_hash_distance(grey_a, grey_b, mask),
        evidence=evidence,
    )


def regions(
    shape_a: tuple[int, ...], shape_b: tuple[int, ...], transform: Transform
) -> tuple[Polygon, Polygon]:
    """The common region of two panels under a transform, as polygons in A and in B."""
    corners_b = apply(invert(transform), _corners(shape_b))
    _, common = cv2.intersectConvexConvex(
        _corners(shape_a).astype(np.float32), corners_b.astype(np.float32)
    )
    if common is None or len(common) < 3:
        return np.empty((0, 2)), np.empty((0, 2))
    region_a = np.asarray(common, np.float64).reshape(-1, 2)
    return region_a, apply(transform, region_a)


def decompose(transform: Transform) -> tuple[bool, float, float]:
    """Whether a transform mirrors, its turn in degrees clockwise as seen, and its scale."""
    linear = transform[:, :2].copy()
    determinant = float(np.linalg.det(linear))
    if determinant < 0:
        linear[:, 0] *= -1
    rotation = np.rad2deg(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    return determinant < 0, float(rotation), float(np.sqrt(abs(determinant)))


def align(
    image_a: Image,
    image_b: Image,
    transform: Transform,
    masks: tuple[Mask, Mask],
    spec: VerificationSpec,
) -> _Aligned | None:
    """Bring the overlap of both panels into one frame, neither of them enlarged."""
    region, _ = regions(image_a.shape, image_b.shape, transform)
    if len(region) < 3 or _polygon_area(region) < spec.min_overlap_px:
        return None
    low, high = region.min(axis=0), region.max(axis=0)
    scale = decompose(transform)[2]
    factor = min(1.0, scale, spec.dense_side_px / float((high - low).max()))
    size = (max(8, round((high[0] - low[0]) * factor)), max(8, round((high[1] - low[1]) * factor)))
    frame = np.array([[1 / factor, 0, low[0]], [0, 1 / factor, low[1]]])
    shown_a = _sample(image_a, frame, size)
    to_b = compose(transform, frame)
    shown_b = _sample(image_b, to_b, size)
    mask = _sample_mask(masks[0], frame, size) & _sample_mask(masks[1], to_b, size)
    if mask.sum() < 0.25 * spec.min_overlap_px * factor**2 or mask.sum() < 100:
        return None
    return _Aligned(shown_a, shown_b, mask, frame)


def _sample(image: Image, to_image: Transform, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read an image at the places a frame maps to, reduced first where the frame is coarser."""
    step = decompose(to_image)[2]
    if step > 1.3:
        sigma = 0.45 * step
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(image, to_image, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )


def _sample_mask(mask: Mask, to_image: Transform, size: tuple[int, int]) -> Mask:
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(mask.astype(np.uint8), to_image, size, flags=flags)) > 0


def _refine(aligned: _Aligned, transform: Transform) -> Transform | None:
    """Let the pixels pull the transform into place, as an affine map that changes little.

    Source:
        Evangelidis and Psarakis, "Parametric Image Alignment Using Enhanced Correlation
        Coefficient Maximization", TPAMI 2008.
    """
    step = max(1, round(max(aligned.mask.shape) / 160))
    height, width = (max(8, n // step) for n in aligned.mask.shape)
    shrink = np.array(
        [[width / aligned.mask.shape[1], 0, 0], [0, height / aligned.mask.shape[0], 0]]
    )
    left, right = (
        cv2.resize(grey_of(image), (width, height), interpolation=cv2.INTER_AREA)
        for image in (aligned.a, aligned.b)
    )
    inside = cv2.resize(
        aligned.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    warp = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-3)
    try:
        _, warp = cv2.findTransformECC(left, right, warp, cv2.MOTION_AFFINE, criteria, inside, 3)
    except cv2.error as error:
        if error.code == NO_MEMORY:
            raise  # the op answers with a smaller batch; "no better alignment" would be a loss
        return None
    if np.abs(np.asarray(warp)[:, :2] - np.eye(2)).max() > 0.12:
        return None
    moved = compose(compose(invert(shrink), np.asarray(warp, np.float64)), shrink)
    return compose(compose(transform, compose(aligned.frame, moved)), invert(aligned.frame))


def _best_channels(aligned: _Aligned) -> tuple[Grey, Grey, float]:
    """The grey values to compare, and how much better than luminance they correlate.

    A single channel and the merge that contains it agree in that channel, not in luminance. A
    channel is preferred only where it clearly agrees better, so grey pictures stay as they are.
    """
    mask = aligned.mask
    grey_a, grey_b = grey_of(aligned.a), grey_of(aligned.b)
    plain = correlation(grey_a, grey_b, mask)
    best = (grey_a, grey_b, 0.0)
    for left in _planes(aligned.a, grey_a, mask):
        for right in _planes(aligned.b, grey_b, mask):
            gain = correlation(left, right, mask) - plain
            if gain > max(0.04, best[2]):
                best = (left, right, gain)
    return best


def _planes(image: Image, grey: Grey, mask: Mask) -> list[Grey]:
    """Luminance, and the colour channels where the picture has colour and they show anything."""
    planes = [grey]
    pixels = image[mask].astype(np.int16)
    if np.percentile(pixels.max(axis=1) - pixels.min(axis=1), 98) > 40:
        channels = [image[..., i].astype(np.float32) for i in range(3)]
        planes += [c for c in channels if c[mask].std() > 8.0]
    return planes


def _colours(aligned: _Aligned) -> dict[str, float]:
    """Brightness of both pictures, and how much of the colour of either is not in the other.

    ``unexplained`` is the larger share of one picture's variance over its three channels that no
    linear mixture of the other's channels predicts.
    """
    step = max(1, int(aligned.mask.sum()) // 4000)
    left, right = (i[aligned.mask][::step].astype(np.float64) for i in (aligned.a, aligned.b))
    return {
        "level_a": float(np.median(left.mean(axis=1))),
        "level_b": float(np.median(right.mean(axis=1))),
        "unexplained": max(_unexplained(left, right), _unexplained(right, left)),
    }


def _unexplained(target: NDArray[np.float64], by: NDArray[np.float64]) -> float:
    """Share of the variance of ``target`` that a linear map of ``by`` leaves, 0 to 1."""
    centred = target - target.mean(axis=0)
    design = by - by.mean(axis=0)
    gram = design.T @ design + 1e-3 * max(float(np.trace(design.T @ design)), 1e-6) * np.eye(3)
    mixture = np.asarray(np.linalg.solve(gram, design.T @ centred), np.float64)
    left = centred - design @ mixture
    return float((left**2).sum() / max(float((centred**2).sum()), 1e-6))


def _ncc_of(aligned: _Aligned) -> float:
    return correlation(grey_of(aligned.a), grey_of(aligned.b), aligned.mask)


def correlation(a: Grey, b: Grey, mask: Mask) -> float:
    """Correlation of two pictures over a mask, -1 to 1; 0 where either is flat."""
    left, right = a[mask].astype(np.float64), b[mask].astype(np.float64)
    left -= left.mean()
    right -= right.mean()
    power = float(np.sqrt(np.square(left).sum() * np.square(right).sum()))
    return float((left * right).sum()) / power if power > 1e-6 else 0.0


def structural_similarity(a: Grey, b: Grey, mask: Mask) -> float:
    """Mean SSIM over a mask after giving B the mean and contrast of A.

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
        IEEE TIP 2004, with a Gaussian window of 1.5 px.
    """
    matched = (b - b[mask].mean()) * (a[mask].std() / max(float(b[mask].std()), 1e-3))
    matched = (matched + a[mask].mean()).astype(np.float32)

    def blur(values: Grey) -> Grey:
        return cv2.GaussianBlur(values, (0, 0), 1.5)

    mean_a, mean_b = blur(a), blur(matched)
    var_a, var_b = blur(a * a) - mean_a**2, blur(matched * matched) - mean_b**2
    covariance = blur(a * matched) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(value[mask].mean())


def _hash_distance(a: Grey, b: Grey, mask: Mask) -> int:
    """Differing bits of the perceptual hashes (8 x 8 lowest cosine terms) of two regions."""

    def bits(grey: Grey) -> NDArray[np.bool_]:
        filled = np.where(mask, grey, grey[mask].mean()).astype(np.float32)
        small = cv2.resize(filled, (32, 32), interpolation=cv2.INTER_AREA)
        low = np.asarray(cv2.dct(small))[:8, :8].reshape(-1)
        return low > np.median(low[1:])

    return int((bits(a) != bits(b)).sum())


def _evidence(a: Grey, b: Grey, mask: Mask) -> dict[str, float]:
    """How two aligned pictures agree: in small windows, in fine detail, in their edges.

    The grey values of a whole overlap also correlate when only the lighting is the same (two fields
    of one slide), so agreement is measured in small windows as well: ``local`` is the median
    correlation of windows that show something, ``agree`` the share of them above 0.6.
    """
    window = max(9, round(0.07 * max(mask.shape)) | 1)
    local, weight = local_correlation(a, b, mask, window)
    shown = local[weight]
    detail_a, detail_b = (g - cv2.GaussianBlur(g, (0, 0), 2.0) for g in (a, b))
    slope = float(np.polyfit(a[mask], b[mask], 1)[0])
    return {
        "local": float(np.median(shown)) if len(shown) else 0.0,
        "agree": float((shown > 0.6).mean()) if len(shown) else 0.0,
        "textured": float(weight.sum() / max(1, mask.sum())),
        "detail_ncc": correlation(detail_a, detail_b, mask),
        "edge_ncc": correlation(_edges(a), _edges(b), mask),
        "contrast": slope,
        "brightness": float(b[mask].mean() - a[mask].mean()),
        "area_px": float(mask.sum()),
    }


def local_correlation(
    a: Grey, b: Grey, mask: Mask, window: int, floor: float = 2.0
) -> tuple[Grey, Mask]:
    """Correlation in a sliding square window, and where there is something to correlate.

    Args:
        a: A picture, grey, shape (height, width).
        b: Another of the same shape.
        mask: What to look at.
        window: Side of the window in pixels, odd.
        floor: Standard deviation of grey levels below which a window shows nothing.

    Returns:
        The correlation at every pixel, -1 to 1, and the mask of windows that lie in ``mask`` and
        show something in at least one of the pictures.
    """
    inside = mask.astype(np.float32)
    size = (window, window)
    count = np.maximum(cv2.boxFilter(inside, -1, size, normalize=False), 1.0)

    def mean(values: Grey) -> Grey:
        return cv2.boxFilter(values, -1, size, normalize=False) / count

    left = ((a - a[mask].mean()) * inside).astype(np.float32)
    right = ((b - b[mask].mean()) * inside).astype(np.float32)
    mean_a, mean_b = mean(left), mean(right)
    var_a = np.maximum(mean(left * left) - mean_a * mean_a, 0)
    var_b = np.maximum(mean(right * right) - mean_b * mean_b, 0)
    covariance = mean(left * right) - mean_a * mean_b
    limit_a = max(floor, 0.2 * float(a[mask].std())) ** 2
    limit_b = max(floor, 0.2 * float(b[mask].std())) ** 2
    shown = mask & (count > 0.5 * window * window) & ((var_a > limit_a) | (var_b > limit_b))
    value = covariance / np.sqrt(np.maximum(var_a * var_b, 1e-2))
    return np.clip(value, -1, 1).astype(np.float32), shown


def _edges(grey: Grey) -> Grey:
    """Strength of edges, the same for a picture and its negative."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.2)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return np.sqrt(across * across + down * down)


def _support(
    a: PanelView, b: PanelView, transform: Transform, spec: VerificationSpec, *, mirror: bool
) -> dict[str, float]:
    """What share of the features in the overlap has its counterpart, and how they are spread.

    ``support`` is the share of A's or B's features in the overlap (whichever are fewer) with a
    feature of the other at the predicted place that also looks alike; ``spread`` the share of the
    8 x 8 cells holding features of A in which one of them is supported.
    """
    place_a, place_b = (v.features.points[:, :2].astype(np.float64) for v in (a, b))
    expected = apply(transform, place_a)
    height, width = b.image.shape[:2]
    seen_a = ((expected >= 3) & (expected < (width - 3, height - 3))).all(axis=1)
    back = apply(invert(transform), place_b)
    height, width = a.image.shape[:2]
    seen_b = ((back >= 3) & (back < (width - 3, height - 3))).all(axis=1)
    rows, columns = np.flatnonzero(seen_a), np.flatnonzero(seen_b)
    if len(rows) == 0 or len(columns) == 0:
        return {"support": 0.0, "spread": 0.0, "supported": 0.0}
    gap = np.abs((expected[rows] @ (1, 1j))[:, None] - (place_b[columns] @ (1, 1j))[None, :])
    close_row, close_column = np.nonzero(gap < _tolerance(b.image, spec))
    odd = antisymmetric()
    left = a.features.descriptors[rows[close_row]].astype(np.float32) - 128.0
    right = b.features.descriptors[columns[close_column]].astype(np.float32) - 128.0
    if mirror:
        left[:, odd] *= -1
    alike = ((left - right) ** 2).sum(axis=1) < (1.15 * spec.max_distance) ** 2
    hit = np.unique(close_row[alike])
    hits = min(len(hit), len(np.unique(close_column[alike])))
    cells = _cells(place_a[rows])
    return {
        "support": hits / min(len(rows), len(columns)),
        "supported": float(hits),
        "spread": len(np.unique(cells[hit])) / len(np.unique(cells)),
    }


def _cells(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the 8 x 8 cell of their own bounding box that places lie in."""
    low = places.min(axis=0)
    extent = np.maximum(places.max(axis=0) - low, 1.0)
    column_row = np.minimum((places - low) / extent * 8, 7).astype(np.int64)
    return column_row[:, 1] * 8 + column_row[:, 0]


# Small geometry


def similarity(slope: complex, offset: complex, *, mirror: bool) -> Transform:
    """The transform ``z -> slope * z + offset`` of places x + iy, of x - iy if mirrored."""
    matrix = np.array(
        [[slope.real, -slope.imag, offset.real], [slope.imag, slope.real, offset.imag]]
    )
    if mirror:
        matrix[:, 1] *= -1
    return matrix


def compose(outer: Transform, inner: Transform) -> Transform:
    """``inner`` first, then ``outer``."""
    both = np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])
    return both.astype(np.float64)


def invert(transform: Transform) -> Transform:
    """The way back."""
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]]).astype(np.float64)


def apply(transform: Transform, points: NDArray[Any]) -> NDArray[np.float64]:
    """Where points of shape (n, 2) go."""
    return points @ transform[:, :2].T + transform[:, 2]


def _corners(shape: tuple[int, ...]) -> Polygon:
    height, width = shape[:2]
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _polygon_area(polygon: Polygon) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
