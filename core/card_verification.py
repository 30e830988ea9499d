"""Where a known card's picture lies on a crop: the geometry of identification.

A detector's outline is off by a few pixels and may be upside down. Local features of the crop are
matched with those of a template near the place where they are expected, in both ways up, and a
robust fit of a plane projection says which of them agree. What the fit leaves is taken out by
letting the pixels pull the projection into place.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from core.features import grey_of, normalise_contrast
from core.geometry import Image
from core.opencv import cv2

FRAME_PX = (300, 420)
"""Width and height of the frame in which cards are compared: 63 x 88 mm at 120 dpi, type 8 px high.
"""

Plane = NDArray[np.float32]
"""One value per pixel of the frame, shape (420, 300)."""
Colour = NDArray[np.float32]
"""RGB, 0 to 255, shape (420, 300, 3)."""
Homography = NDArray[np.float64]
"""Shape (3, 3): from places on the template to places on the card, both in the frame."""
Places = NDArray[np.float64]
"""Shape (n, 2): x, y in the frame."""


@dataclass(frozen=True)
class GeometrySpec:
    """How a template is found on a crop.

    Attributes:
        sift_width_px: Cards are reduced to this width for features, 210: OpenCV doubles the picture
            first, and finer detail than this is blur on a phone's photograph.
        max_features: Most features per card, 500; more change no decision and cost time.
        contrast_threshold: Weakest feature kept, in OpenCV's unit, on the normalised picture.
        search_px: How far from its expected place a feature is looked for, 36 px: an eighth of the
            card's width, several times what outlines are off.
        ratio: A match must be this much nearer than the next elsewhere, 0.9. Lowe's 0.8 is for
            looking everywhere; here the place already excludes most of the others.
        same_place_px: Features nearer than this to the best one are the same corner in another
            scale, and no alternative to it.
        tolerance_px: Largest misfit of an inlier, 2.5 px: 1 px of a feature at reduced size, and a
            bent card.
        min_inliers: Fewer than 8 inliers fix no projection of 8 unknowns.
        max_shift_px: A projection that moves a corner further than this is no card in its frame.
        prior_px: How far corners are off typically; holds the projection where no inliers are.
        block_px: Side of the blocks that are shifted to refine the fit: three letters wide.
        max_step_px: Largest shift of a block that is believed.
        steps_px: Blur of the pictures in each step of the refinement at half size, coarse to fine.
        settled_px: A step that moves no corner further than this was the last.
        local_px: How far a part of a bent card may lie beside the projection.
    """

    sift_width_px: int = 210
    max_features: int = 500
    contrast_threshold: float = 0.012
    search_px: float = 36.0
    ratio: float = 0.9
    same_place_px: float = 6.0
    tolerance_px: float = 2.5
    min_inliers: int = 8
    max_shift_px: float = 60.0
    prior_px: float = 6.0
    block_px: int = 30
    max_step_px: float = 3.0
    steps_px: tuple[float, ...] = (3.0, 2.0, 1.5)
    settled_px: float = 0.25
    local_px: float = 1.5


@dataclass(frozen=True)
class CardFeatures:
    """Local features of a card.

    Attributes:
        places: Shape (n, 2), in the frame.
        descriptors: RootSIFT, unit length, shape (n, 128), float32.
    """

    places: Places
    descriptors: NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """How a template lies on a card.

    Attributes:
        homography: From the template to the card as it was given.
        inliers: Features that agree with it.
        turned: The card lies upside down.
    """

    homography: Homography
    inliers: int
    turned: bool


@dataclass(frozen=True)
class Sheet:
    """A card or template in the frame, with what the comparison needs of it.

    Attributes:
        colour: Its pixels.
        flat: Grey with local mean and contrast divided out, about -3 to 3.
        half: The same at half the size.
    """

    colour: Colour
    flat: Plane
    half: Plane


def sheet(image: Image) -> Sheet:
    """Bring a card into the frame.

    Args:
        image: RGB, uint8, shape (height, width, 3), any size.

    Raises:
        ValueError: It has no pixels or is not RGB.
    """
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
        raise ValueError(f"a card is RGB of shape (height, width, 3), got {image.shape}")
    if image.shape[:2] != FRAME_PX[::-1]:
        larger = image.shape[0] > FRAME_PX[1] and image.shape[1] > FRAME_PX[0]
        flags = cv2.INTER_AREA if larger else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, FRAME_PX, interpolation=flags), np.uint8)
    image = np.ascontiguousarray(image)
    flat = np.clip(normalise_contrast(grey_of(image), 24.0, 4.0), -3, 3)
    size = (FRAME_PX[0] // 2, FRAME_PX[1] // 2)
    half = np.asarray(cv2.resize(flat, size, interpolation=cv2.INTER_AREA))
    return Sheet(image.astype(np.float32), flat, half)


def card_features(card: Sheet, spec: GeometrySpec) -> CardFeatures:
    """RootSIFT features of a card.

    Source:
        Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004;
        Arandjelovic and Zisserman, "Three things everyone should know to improve object
        retrieval", CVPR 2012.
    """
    scale = spec.sift_width_px / FRAME_PX[0]
    small = cv2.resize(card.flat, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.clip(small * 42.0 + 127.5, 0, 255).astype(np.uint8)
    sift = cv2.SIFT.create(spec.max_features, 3, spec.contrast_threshold * 3, 12.0, 1.6)
    keypoints, raw = sift.detectAndCompute(canvas, None)
    if raw is None or len(keypoints) == 0:
        return CardFeatures(np.empty((0, 2)), np.empty((0, 128), np.float32))
    places = (np.array([k.pt for k in keypoints], np.float64) + 0.5) / scale - 0.5
    raw = np.asarray(raw, np.float32)
    raw = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6))
    return CardFeatures(places, raw)


def find_fit(card: CardFeatures, template: CardFeatures, spec: GeometrySpec) -> Fit | None:
    """The plane projection on which most features of a template agree with those of a card.

    Both ways up are tried: the descriptors do not change with the turn, only the places do.

    Returns:
        None where fewer than ``spec.min_inliers`` agree, or only on something that is no card in
        its frame. Two cards of the same frame and unlike artwork can fit with a few dozen inliers:
        whether the artwork is the same, the pixels say.

    Source:
        Barath et al., "MAGSAC++, a Fast, Reliable and Accurate Robust Estimator", CVPR 2020.
    """
    if len(card.places) < 2 or len(template.places) < 2:
        return None
    similarity = card.descriptors @ template.descriptors.T
    apart = ~_within(template.places, template.places, spec.same_place_px)
    around = np.array(FRAME_PX, np.float64) - 1.0
    best: Fit | None = None
    for turned in (False, True):
        places = around - card.places if turned else card.places
        near = _within(places, template.places, spec.search_px)
        rows, columns = _matches(similarity, near, apart, spec)
        fit = _project(places[rows], template.places[columns], spec, turned=turned)
        if fit is not None and (best is None or fit.inliers > best.inliers):
            best = fit
    return best


def _within(a: Places, b: Places, px: float) -> NDArray[np.bool_]:
    """Which of some places are nearer to which others than so many pixels."""
    across, down = (a[:, None, axis] - b[None, :, axis] for axis in (0, 1))
    return across * across + down * down < px * px


def _matches(
    similarity: NDArray[np.float32],
    within: NDArray[np.bool_],
    apart: NDArray[np.bool_],
    spec: GeometrySpec,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Features that are each other's nearest near the expected place, with no equal elsewhere.

    ``within`` says which of the card's are near to where which of the template's are expected,
    ``apart`` which of the template's are not one corner in two scales.
    """
    near = np.where(within, similarity, np.float32(-1.0))
    rows = np.arange(len(near))
    best = near.argmax(axis=1)
    value = near[rows, best]
    other = np.where(apart[best], near, np.float32(-1.0)).max(axis=1)
    mutual = near.argmax(axis=0)[best] == rows
    clear = (1.0 - value) < spec.ratio**2 * (1.0 - other)
    kept = np.flatnonzero(mutual & clear & (value > 0))
    return kept, best[kept]


def _project(
    on_card: Places, on_template: Places, spec: GeometrySpec, *, turned: bool
) -> Fit | None:
    if len(on_card) < spec.min_inliers:
        return None
    params = cv2.UsacParams()
    params.score, params.sampler = cv2.SCORE_METHOD_MAGSAC, cv2.SAMPLING_UNIFORM
    params.threshold, params.confidence, params.maxIterations = spec.tolerance_px, 0.999, 1000
    params.loMethod, params.isParallel, params.randomGeneratorState = (
        cv2.LOCAL_OPTIM_SIGMA,
        False,
        7,
    )
    found, kept = cv2.findHomography(
        on_template.astype(np.float32), on_card.astype(np.float32), params
    )
    if found is None or kept is None:
        return None
    inside = np.asarray(kept).reshape(-1).astype(bool)
    inliers = int(inside.sum())
    if inliers < spec.min_inliers:
        return None
    start, goal = on_template[inside], on_card[inside]
    homography = bend(start, goal - start, np.ones(len(start)), spec.prior_px)
    if homography is None or corner_shift(homography) > spec.max_shift_px:
        return None
    return Fit(turn_round() @ homography if turned else homography, inliers, turned)


def turn_round() -> Homography:
    """The half turn of the frame."""
    width, height = FRAME_PX
    return np.array([[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]], np.float64)


def corner_shift(homography: Homography) -> float:
    """How far the corner that moves furthest is moved, in pixels."""
    corners = _corners()
    moved = np.asarray(cv2.perspectiveTransform(corners[None], homography))[0]
    return float(np.linalg.norm(moved - corners, axis=1).max())


def _corners() -> Places:
    width, height = FRAME_PX
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _design(places: Places) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What shift in x and in y each of the 8 numbers of a small projection causes."""
    half = np.array(FRAME_PX) / 2
    u, v = ((places - half) / half[0]).T
    one, none = np.ones_like(u), np.zeros_like(u)
    along_x = np.column_stack([one, u, v, none, none, none, u * u, u * v])
    along_y = np.column_stack([none, none, none, one, u, v, u * v, v * v])
    return along_x, along_y


def bend(
    places: Places, shifts: Places, weights: NDArray[np.float64], prior_px: float
) -> Homography | None:
    """The projection near the identity that shifts places as told, as far as they determine it.

    Args:
        places: Shape (n, 2), in the frame.
        shifts: Shape (n, 2), in pixels.
        weights: How much each counts, shape (n,); one place of weight 1 is known to 1 px.
        prior_px: Typical size of each of the 8 numbers where no place says otherwise.

    Returns:
        None where the shifted corners are no quadrilateral.

    Source:
        The plane projection to first order (Szeliski, "Image Alignment and Stitching", 2006).
    """
    design = np.vstack(_design(places))
    both = np.concatenate([weights, weights])
    gram = (design * both[:, None]).T @ design + np.eye(8) / prior_px**2
    numbers = np.linalg.solve(gram, (design * both[:, None]).T @ shifts.T.reshape(-1))
    corners = _corners()
    along_x, along_y = _design(corners)
    moved = corners + np.column_stack([along_x @ numbers, along_y @ numbers])
    if not cv2.isContourConvex(moved.astype(np.float32)):
        return None
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(matrix, np.float64)


def align(
    card: Sheet, template: Sheet, homography: Homography, spec: GeometrySpec
) -> tuple[Colour, NDArray[np.bool_]]:
    """The card's pixels where the template has them, to a fraction of a pixel.

    Blocks of the card are shifted until they agree with the template, and the projection follows
    where most of them go; at last each part may lie a little beside it, for cards bend in sleeves.
    Blocks that do not resemble the template have no say.

    Args:
        card: What was photographed.
        template: What it is thought to be.
        homography: From the template to the card, good to a few pixels.
        spec: How far anything may be shifted.

    Returns:
        The card in the template's frame, and where the card has pixels at all.

    Source:
        Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981, per block;
        the projection is then a weighted fit to the blocks' shifts.
    """
    centres = _block_centres(spec)
    start = homography
    for blur in spec.steps_px:
        shifts, weights = _block_shifts(card.half, template.half, homography, blur, spec)
        step = bend(centres, shifts, weights, spec.prior_px)
        if step is None:
            break
        homography = homography @ step
        if corner_shift(step) < spec.settled_px:
            break
    if corner_shift(homography) < spec.settled_px and np.array_equal(start, np.eye(3)):
        return card.colour, np.ones(card.flat.shape, bool)
    shifts, weights = _block_shifts(card.flat, template.flat, homography, 1.0, spec)
    trust = (weights / (weights + 0.3))[:, None]
    beside = np.clip(shifts * trust, -spec.local_px, spec.local_px)
    return _sample(card, homography, beside, spec)


def _grid(spec: GeometrySpec) -> tuple[int, int]:
    return round(FRAME_PX[0] / spec.block_px), round(FRAME_PX[1] / spec.block_px)


def _block_centres(spec: GeometrySpec) -> Places:
    columns, rows = _grid(spec)
    x = (np.arange(columns) + 0.5) * FRAME_PX[0] / columns - 0.5
    y = (np.arange(rows) + 0.5) * FRAME_PX[1] / rows - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _block_shifts(
    card: Plane, template: Plane, homography: Homography, blur_px: float, spec: GeometrySpec
) -> tuple[Places, NDArray[np.float64]]:
    """By how much each block of the card has to move, and how far that can be trusted, 0 to 1.

    Both planes have the size of the frame or half of it; shifts are in pixels of the frame.
    """
    scale = template.shape[1] / FRAME_PX[0]
    size = (template.shape[1], template.shape[0])
    to_plane = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    reduced = to_plane @ homography @ np.linalg.inv(to_plane)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(card, reduced, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.GaussianBlur(seen, (0, 0), blur_px * scale)
    known = cv2.GaussianBlur(template, (0, 0), blur_px * scale)
    across = cv2.Sobel(known, cv2.CV_32F, 1, 0, scale=0.125 * scale)
    down = cv2.Sobel(known, cv2.CV_32F, 0, 1, scale=0.125 * scale)

    def mean(values: Plane) -> NDArray[np.float64]:
        small = cv2.resize(values, _grid(spec), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float64).reshape(-1)

    mean_seen, mean_known = mean(seen), mean(known)
    variance_seen = mean(seen * seen) - mean_seen**2
    variance_known = mean(known * known) - mean_known**2
    covariance = mean(seen * known) - mean_seen * mean_known
    error = seen - known
    off = mean_seen - mean_known
    along_x = mean(across * error) - mean(across) * off
    along_y = mean(down * error) - mean(down) * off
    xx, xy, yy = mean(across * across), mean(across * down), mean(down * down)
    floor = 2e-4
    xx, yy = xx + floor, yy + floor
    determinant = np.maximum(xx * yy - xy * xy, 1e-12)
    shifts = -np.column_stack([yy * along_x - xy * along_y, xx * along_y - xy * along_x])
    shifts /= determinant[:, None]
    agree = covariance / np.sqrt(np.maximum(variance_seen * variance_known, 1e-4))
    weakest = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    believed = np.linalg.norm(shifts, axis=1) < spec.max_step_px
    weights = np.clip((agree - 0.4) / 0.5, 0, 1) * weakest / (weakest + 2e-3) * believed
    return np.clip(shifts, -spec.max_step_px, spec.max_step_px), weights


def _sample(
    card: Sheet, homography: Homography, beside: Places, spec: GeometrySpec
) -> tuple[Colour, NDArray[np.bool_]]:
    columns, rows = _grid(spec)
    coarse = beside.reshape(rows, columns, 2).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (3, 3), 0.8)
    field = cv2.resize(coarse, FRAME_PX, interpolation=cv2.INTER_LINEAR)
    width, height = FRAME_PX
    moved = (field + _places()).reshape(1, -1, 2)
    places = cv2.perspectiveTransform(moved, homography).reshape(height, width, 2)
    seen = cv2.remap(card.colour, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    x, y = cv2.split(places)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return np.asarray(seen, np.float32), np.asarray(inside)


@cache
def _places() -> NDArray[np.float32]:
    """Every pixel's own place, shape (420, 300, 2)."""
    y, x = np.mgrid[0 : FRAME_PX[1], 0 : FRAME_PX[0]]
    return np.stack([x, y], axis=-1).astype(np.float32)
