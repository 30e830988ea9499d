"""Local features of a panel: where its corners and blobs are, and what surrounds them.

A copied picture keeps its small neighbourhoods whatever is done to the whole: cropped, turned,
mirrored, brightened or compressed, most corners still look the same from within. Features are
therefore both the candidate channel that needs no learned weights and the first step of
verification. They are small enough (78 bytes each) to live in a database row.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.annotations import find_annotations
from core.geometry import Box, Image
from core.opencv import cv2

Points = NDArray[np.float32]
"""Shape (n, 4): x, y in panel pixels, size in pixels, angle in degrees."""
Descriptors = NDArray[np.uint8]
"""Shape (n, 64)."""
Grey = NDArray[np.float32]

_MAGIC = b"QLF1"
_SUBPIXEL = 32.0


@dataclass(frozen=True)
class FeatureSpec:
    """What is extracted from a panel. Changing any number makes features of another kind.

    Attributes:
        version: Part of the key of every stored row.
        max_features: Most features kept per panel, 1,000. More than that adds inliers to pairs that
            are found anyway; 1,000 x 78 bytes is what a row can carry.
        index_features: The first so many take part in the search for candidates, 300. They are
            spread over the panel, so an overlap of a third still holds about 100.
        min_short_side_px: Panels with a shorter side are enlarged to it, 320: below, a third of the
            panel holds too few scales of the pyramid to be told apart.
        max_long_side_px: Panels with a longer side are reduced to it, 1024.
        max_area_px: And larger ones to this area, 450,000 px (an 11 cm square at 150 dpi):
            the pyramid of the doubled panel takes about 250 bytes per pixel, 110 MB at the most.
        normalise_sigma_px: Width of the neighbourhood whose mean and contrast are divided out, 24
            px, about one cell: the features of a faint panel and of its brightened copy agree.
        contrast_floor: Grey levels below which a neighbourhood counts as flat and is not amplified,
            3.0: twice the noise of an 8-bit camera after JPEG.
        contrast_threshold: Weakest blob kept, in OpenCV's unit, on the normalised panel.
        edge_threshold: Largest ratio of principal curvatures, as in SIFT.
        margin_px: Features whose centre is nearer to the panel's edge than this are dropped: frames
            and neighbouring panels bleed in there.
        ignore_margin_px: Features are dropped where their core touches a masked box (letters, scale
            bars, arrows) grown by this.
    """

    version: int = 1
    max_features: int = 1000
    index_features: int = 300
    min_short_side_px: int = 320
    max_long_side_px: int = 1024
    max_area_px: int = 450_000
    normalise_sigma_px: float = 24.0
    contrast_floor: float = 3.0
    contrast_threshold: float = 0.012
    edge_threshold: float = 12.0
    margin_px: float = 3.0
    ignore_margin_px: float = 2.0

    @property
    def spec_id(self) -> str:
        """Names everything the features depend on, for the key of a stored row."""
        return f"rootsift64-v{self.version}"


@dataclass(frozen=True)
class LocalFeatures:
    """Features of one panel, most useful first.

    Any prefix of the rows is spread over the whole panel, so ``head(n)`` is a fair summary, and the
    first bytes of ``to_bytes()`` hold exactly that summary.

    Attributes:
        points: Shape (n, 4), float32: x, y in panel pixels, size in pixels, angle in degrees.
        descriptors: Shape (n, 64), uint8.
        words: Shape (n, 2), uint16: the nearest and the second nearest entry of the codebook, for
            the features that take part in the search; 0 for the rest.
    """

    points: Points
    descriptors: Descriptors
    words: NDArray[np.uint16]

    def __len__(self) -> int:
        """How many features there are."""
        return len(self.points)

    def head(self, count: int) -> Self:
        """The first ``count`` features."""
        return type(self)(self.points[:count], self.descriptors[:count], self.words[:count])

    def to_bytes(self) -> bytes:
        """A header of 8 bytes, then 78 bytes per feature; a cut after any record is valid."""
        records = np.zeros(len(self), dtype=_RECORD)
        records["xy"] = np.clip(np.rint(self.points[:, :2] * _SUBPIXEL), 0, 65535)
        records["size"] = np.clip(np.rint(self.points[:, 2] * _SUBPIXEL), 0, 65535)
        records["angle"] = np.rint(self.points[:, 3] / 360.0 * 65536.0).astype(np.int64) % 65536
        records["words"] = self.words
        records["descriptor"] = self.descriptors
        return _MAGIC + np.uint32(len(self)).tobytes() + records.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Read what ``to_bytes`` wrote, or a prefix of it that ends anywhere.

        Raises:
            ValueError: The data were not written by ``to_bytes`` of this version.
        """
        if bytes(data[:4]) != _MAGIC or len(data) < 8:
            raise ValueError(f"not local features of this version: starts with {bytes(data[:4])!r}")
        count = (len(data) - 8) // _RECORD.itemsize
        records = np.frombuffer(data, dtype=_RECORD, count=count, offset=8)
        points = np.empty((count, 4), np.float32)
        points[:, :2] = records["xy"] / _SUBPIXEL
        points[:, 2] = records["size"] / _SUBPIXEL
        points[:, 3] = records["angle"] * (360.0 / 65536.0)
        return cls(points, records["descriptor"].copy(), records["words"].copy())


_RECORD = np.dtype(
    [
        ("xy", "<u2", (2,)),
        ("size", "<u2"),
        ("angle", "<u2"),
        ("words", "<u2", (2,)),
        ("descriptor", "u1", (64,)),
    ]
)
RECORD_BYTES: int = _RECORD.itemsize
HEADER_BYTES = 8


@dataclass(frozen=True)
class _Tables:
    """The shipped linear map and codebook; see docs/calibration.md for how they were fitted."""

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    scale: float
    antisymmetric: NDArray[np.bool_]
    codebook: NDArray[np.float32]


@cache
def _tables() -> _Tables:
    with (files("core") / "data" / "local_features.npz").open("rb") as file:
        data: Any = np.load(file, allow_pickle=False)
        return _Tables(
            mean=data["mean"].astype(np.float32),
            basis=data["basis"].astype(np.float32),
            scale=float(data["scale"]),
            antisymmetric=data["antisymmetric"].astype(np.bool_),
            codebook=data["codebook"].astype(np.float32) - 128.0,
        )


def grey_of(image: Image) -> Grey:
    """Luminance, float32, 0 to 255, shape (height, width)."""
    if image.ndim == 2:
        return image.astype(np.float32)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def normalise_contrast(grey: Grey, sigma_px: float, floor: float) -> Grey:
    """Divide out local mean and contrast: about N(0, 1) where there is content, 0 where flat."""
    mean = _wide_blur(grey, sigma_px)
    centred = (grey - mean).astype(np.float32)
    deviation = np.sqrt(np.maximum(_wide_blur(centred * centred, sigma_px), 0))
    return (centred / (deviation + floor)).astype(np.float32)


def _wide_blur(grey: Grey, sigma_px: float) -> Grey:
    """A Gaussian of many pixels, computed on a reduced picture: its result has no fine detail."""
    step = max(1, int(sigma_px / 3))
    size = max(1, -(-grey.shape[1] // step)), max(1, -(-grey.shape[0] // step))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / step)
    return cv2.resize(small, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)


def working_scale(shape: tuple[int, ...], spec: FeatureSpec) -> float:
    """The factor by which a panel is resized before features are extracted."""
    height, width = shape[:2]
    scale = max(1.0, spec.min_short_side_px / min(height, width))
    scale = min(scale, spec.max_long_side_px / max(height, width))
    return min(scale, (spec.max_area_px / (height * width)) ** 0.5)


def extract_features(
    image: Image, ignore_boxes: tuple[Box, ...] = (), spec: FeatureSpec | None = None
) -> LocalFeatures:
    """RootSIFT features of a panel, compacted to 64 bytes each.

    Args:
        image: The panel, RGB, uint8, shape (height, width, 3).
        ignore_boxes: Boxes in panel pixels that are not picture: the text layer's words. Letters,
            scale bars and arrows that are part of the pixels are found and left out as well.
        spec: What to extract.

    Returns:
        At most ``spec.max_features`` features, spread over the panel; none for a flat panel.

    Source:
        Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004;
        Arandjelovic and Zisserman, "Three things everyone should know to improve object
        retrieval", CVPR 2012 (RootSIFT).
    """
    spec = spec or FeatureSpec()
    points, raw = extract_raw(image, ignore_boxes, spec)
    descriptors = compact(raw)
    words = np.zeros((len(descriptors), 2), np.uint16)
    words[: spec.index_features] = assign_words(descriptors[: spec.index_features])
    return LocalFeatures(points, descriptors, words)


def extract_raw(
    image: Image, ignore_boxes: tuple[Box, ...], spec: FeatureSpec
) -> tuple[Points, NDArray[np.float32]]:
    """Points and full RootSIFT descriptors, shape (n, 128), unit length, before compaction."""
    nothing = np.empty((0, 4), np.float32), np.empty((0, 128), np.float32)
    if min(image.shape[:2]) < 12:
        return nothing
    scale = working_scale(image.shape, spec)
    grey = grey_of(image)
    if scale != 1.0:
        interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=interpolation)
    flat = normalise_contrast(grey, spec.normalise_sigma_px * scale, spec.contrast_floor)
    canvas = np.clip(flat * 42.0 + 127.5, 0, 255).astype(np.uint8)
    most = spec.max_features * 3 // 2
    sift: Any = cv2.SIFT.create(most, 3, spec.contrast_threshold * 3, spec.edge_threshold, 1.6)
    mask = _mask(grey.shape, (*ignore_boxes, *find_annotations(image)), scale, spec)
    keypoints, raw = sift.detectAndCompute(canvas, mask)
    if raw is None or len(keypoints) == 0:
        return nothing
    table = np.array([(*k.pt, k.size, k.angle, k.response) for k in keypoints], np.float64)
    order = _spread_order(table, grey.shape)[: spec.max_features]
    raw = raw[order]
    points = table[order, :4].astype(np.float32)
    points[:, :2] = (points[:, :2] + 0.5) / scale - 0.5
    points[:, 2] /= scale
    points[:, :2] = np.maximum(points[:, :2], 0)
    raw = np.asarray(raw, np.float32)
    raw = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6))
    return points, raw


def _mask(
    shape: tuple[int, ...], ignore_boxes: tuple[Box, ...], scale: float, spec: FeatureSpec
) -> NDArray[np.uint8]:
    """255 where features may be, 0 at the edge and in masked boxes."""
    mask = np.zeros(shape, np.uint8)
    edge = max(1, round(spec.margin_px * scale))
    mask[edge:-edge, edge:-edge] = 255
    for x0, y0, x1, y1 in ignore_boxes:
        grow = spec.ignore_margin_px
        left, top = max(0, int((x0 - grow) * scale)), max(0, int((y0 - grow) * scale))
        mask[top : max(0, int((y1 + grow) * scale) + 1), left : int((x1 + grow) * scale) + 1] = 0
    return mask


def _spread_order(table: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Strong features first, but every part of the panel in turn.

    The panel is cut into about 8 x 8 cells; first come the strongest of every cell, then the second
    strongest, and so on. Ties are broken by place, so that the order does not depend on the
    detector's.
    """
    height, width = shape
    cell = max(height, width) / 8.0
    columns = np.floor(table[:, 0] / cell).astype(np.int64)
    rows = np.floor(table[:, 1] / cell).astype(np.int64)
    cells = rows * 64 + columns
    strongest = np.lexsort((table[:, 3], table[:, 0], table[:, 1], -table[:, 4], cells))
    ordered = cells[strongest]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.arange(len(ordered)) - first
    again = np.lexsort((-table[strongest, 4], rank))
    return strongest[again]


def compact(raw: NDArray[np.float32]) -> Descriptors:
    """Project RootSIFT onto the shipped basis and round to bytes; 128 is zero."""
    tables = _tables()
    projected = (raw - tables.mean) @ tables.basis * tables.scale + 128.0
    return np.clip(np.rint(projected), 1, 255).astype(np.uint8)


def mirrored(descriptors: Descriptors) -> Descriptors:
    """The descriptors that the mirrored panel would give, without extracting it.

    Mirroring a patch permutes the bins of its descriptor. The shipped basis was fitted on patches
    and their mirror images, so each of its directions is either kept or negated by that
    permutation, and mirroring a compact descriptor is a change of sign.
    """
    result = descriptors.copy()
    odd = _tables().antisymmetric
    result[:, odd] = 0 - result[:, odd]
    return result


def antisymmetric() -> NDArray[np.bool_]:
    """Which of the 64 directions change sign when the patch is mirrored, shape (64,)."""
    return _tables().antisymmetric


def mirror_permutation() -> NDArray[np.int64]:
    """Where each of SIFT's 4 x 4 x 8 bins goes when the patch is mirrored across its own axis."""
    bins = np.arange(128).reshape(4, 4, 8)
    return bins[::-1][:, :, (-np.arange(8)) % 8].reshape(-1)


def assign_words(descriptors: Descriptors, block: int = 1024) -> NDArray[np.uint16]:
    """The two nearest entries of the codebook for each descriptor, nearest first, shape (n, 2)."""
    codebook = _tables().codebook
    norm = (codebook * codebook).sum(axis=1)
    words = np.empty((len(descriptors), 2), np.uint16)
    for start in range(0, len(descriptors), block):
        vectors = descriptors[start : start + block].astype(np.float32) - 128.0
        distance = norm - 2.0 * (vectors @ codebook.T)
        rows = np.arange(len(vectors))
        words[start : start + block, 0] = nearest = distance.argmin(axis=1)
        distance[rows, nearest] = np.inf
        words[start : start + block, 1] = distance.argmin(axis=1)
    return words


def mirrored_words(words: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The words of the mirrored descriptors: the codebook's second half mirrors its first."""
    size = codebook_size()
    return ((words.astype(np.int64) + size // 2) % size).astype(np.uint16)


def codebook_size() -> int:
    """How many words the shipped codebook has."""
    return len(_tables().codebook)
