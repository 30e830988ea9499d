"""Tiles: the square windows over a panel that the encoder channel compares."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.geometry import Box, Image, area, intersection


@dataclass(frozen=True)
class TileSpec:
    """How panels are cut into tiles; every field decides which tiles exist or are compared."""

    levels: tuple[float, ...] = (1.0, 1 / 2, 1 / 3)
    """Window sides as shares of the panel's short side, coarse to fine. Shares rather than pixels:
    the median panel is 268 px on its short side at 150 dpi, so a fixed 384 px window fits few of
    them. A third still finds an overlap of 30 % of the area, whose side is about half."""

    stride: float = 0.5
    """Largest step between neighbouring windows, as a share of their side. With a half, any region
    of 1.5 window sides holds a whole window, and the best window of a copy that is shifted at will
    still shares at least 56 % (0.75 squared) of its area with its counterpart."""

    side_px: int | None = None
    """A fixed window side in place of the levels, for those who tune by pixels (the older
    ``--tile-size``, 384 there). Panels smaller than that get windows of their short side: none goes
    without a tile."""

    min_side_px: int = 32
    """Levels with smaller windows are left out: an encoder sees 160 px and more, so such a window
    is mostly interpolation. The coarsest level always stays, however small the panel."""

    max_tiles: int = 80
    """A level that takes a panel beyond this many tiles is left out, whole, so that what remains
    covers everything. A square panel has 1 + 9 + 25 = 35 tiles, a 2 : 1 panel all 79; a 10 : 1 blot
    keeps its 19 full-height windows, in which a band is whole, and would have 431 otherwise."""

    blank_detail: float = 3.0
    """Grey levels. A tile whose detail, the standard deviation of ``blank_side_px`` x
    ``blank_side_px`` averages about their neighbourhood, is below this is blank. Flat areas with
    contrast 2 matched each other in ten of ten cases where nothing was held against them; averaging
    takes sensor noise out, and the neighbourhood takes out uneven illumination."""

    blank_ink_share: float = 0.02
    """A tile in which fewer pixels than this differ from its most common grey by more than
    ``blank_ink_levels`` is blank: a panel letter or an arrow tip on a plain ground, 0.3 to 1 % of a
    tile. One band of a blot is 3 % and more."""

    blank_ink_levels: int = 12
    """Grey levels; twice the ringing of JPEG at the quality that journals use."""

    blank_side_px: int = 64
    """Side to which a tile is averaged before its detail is judged: the cost is the same for every
    tile, and texture of a 400 px tile's 12 px grain is still seen."""

    blank_masked_share: float = 0.7
    """A tile with more than this share of its area under letters, arrows and scale bars is blank:
    what is left is too little to compare."""

    version: int = 1
    """Counts changes of the functions in this module that change their result."""

    def __post_init__(self) -> None:
        if not self.levels or any(not 0 < level <= 1 for level in self.levels):
            raise ValueError(f"levels are shares of the short side, 0 to 1, not {self.levels}")
        if list(self.levels) != sorted(self.levels, reverse=True):
            raise ValueError(f"levels go from coarse to fine, not {self.levels}")
        if not 0 < self.stride <= 1:
            raise ValueError(f"a stride of {self.stride} window sides leaves gaps or never ends")
        if self.side_px is not None and self.side_px < 1:
            raise ValueError(f"a tile side of {self.side_px} px holds nothing")
        if self.max_tiles < 1:
            raise ValueError("max_tiles has to allow at least one tile a panel")


FAST_TILES = TileSpec(levels=(1.0, 1 / 2))
"""10 instead of 35 tiles for a square panel; overlaps below half of the area are left to luck."""

THOROUGH_TILES = TileSpec(stride=1 / 3, max_tiles=240)
"""About twice the tiles; a shifted copy's best window shares at least 69 % of its area."""


@dataclass(frozen=True)
class Tile:
    """One window.

    Attributes:
        level: Which of the spec's levels, from 0, the coarsest.
        box_px: ``(x0, y0, x1, y1)`` in panel pixels, whole numbers.
    """

    level: int
    box_px: tuple[int, int, int, int]


def tile_boxes(width_px: int, height_px: int, spec: TileSpec) -> list[Tile]:
    """Windows over a panel: each level by itself covers every pixel of it.

    Windows are square with equal steps between them, the first at the near edge and the last at the
    far one. Only where even the coarsest level would exceed ``max_tiles`` (beyond about 40 : 1,
    which is a rule rather than a picture) do they stretch along the long side.

    Args:
        width_px: Panel width, at least 1.
        height_px: Panel height, at least 1.
        spec: The levels and their steps.

    Returns:
        Tiles from coarse to fine, row by row: the same list for the same arguments.

    Raises:
        ValueError: The panel is empty.
    """
    if width_px < 1 or height_px < 1:
        raise ValueError(f"a panel of {width_px} x {height_px} px has no tiles")

    short_px = min(width_px, height_px)
    if spec.side_px is not None:
        sides_px = [min(spec.side_px, short_px)]
    else:
        sides_px = [max(1, round(short_px * level)) for level in spec.levels]

    tiles: list[Tile] = []
    for level, side_px in enumerate(sides_px):
        lefts, tops = _starts(width_px, side_px, spec), _starts(height_px, side_px, spec)
        if level > 0:
            beyond = len(tiles) + len(lefts) * len(tops) > spec.max_tiles
            if beyond or side_px < spec.min_side_px or side_px == sides_px[level - 1]:
                break
            across, down = side_px, side_px
        else:
            lefts, across = _within(lefts, width_px, side_px, spec, rows=len(tops))
            tops, down = _within(tops, height_px, side_px, spec, rows=len(lefts))
        tiles += [Tile(level, (x, y, x + across, y + down)) for y in tops for x in lefts]
    return tiles


def _starts(length_px: int, side_px: int, spec: TileSpec) -> list[int]:
    """First pixels of windows along one axis, evenly spread from edge to edge."""
    room_px = length_px - side_px
    step_px = max(1.0, side_px * spec.stride)
    gaps = int(np.ceil(room_px / step_px - 1e-9))
    return [round(room_px * i / gaps) for i in range(gaps + 1)] if gaps else [0]


def _within(
    starts: list[int], length_px: int, side_px: int, spec: TileSpec, *, rows: int
) -> tuple[list[int], int]:
    """The same axis with fewer, longer windows where there are too many; starts and side."""
    most = max(1, spec.max_tiles // rows)
    if len(starts) <= most:
        return starts, side_px
    side_px = min(length_px, int(np.ceil(length_px / (1 + (most - 1) * spec.stride))) + 1)
    starts = _starts(length_px, side_px, spec)[:most]
    starts[-1] = length_px - side_px
    return starts, side_px


def is_blank(tile: Image, spec: TileSpec, ignore_boxes_px: Sequence[Box] = ()) -> bool:
    """Whether a tile holds too little of a picture to be compared with anything.

    An encoder puts all blank tiles next to each other, so comparing them reports pairs that say
    nothing. Blank are: flat areas with or without noise or uneven light, a letter or arrow on a
    plain ground, and tiles that are mostly annotation.

    Args:
        tile: RGB, shape (height, width, 3).
        spec: What counts as too little.
        ignore_boxes_px: Letters, arrows and scale bars, in the tile's pixels; what they cover
            counts neither as ink nor as ground. They may reach over the edge.
    """
    height, width = tile.shape[:2]
    grey = cv2.cvtColor(np.ascontiguousarray(tile), cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    seen = np.ones((height, width), dtype=bool)
    for box in ignore_boxes_px:
        x0, y0, x1, y1 = intersection(box, (0, 0, width, height))
        if area((x0, y0, x1, y1)) > 0:
            seen[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = False
    if seen.mean() < 1 - spec.blank_masked_share:
        return True

    histogram = np.bincount(grey[seen], minlength=256)
    ground = int(histogram.argmax())
    near = histogram[max(0, ground - spec.blank_ink_levels) : ground + spec.blank_ink_levels + 1]
    if near.sum() > (1 - spec.blank_ink_share) * seen.sum():
        return True

    grey[~seen] = ground
    return _detail(grey, spec.blank_side_px) < spec.blank_detail


def _detail(grey: NDArray[np.uint8], side_px: int) -> float:
    """Standard deviation of local averages about their neighbourhood, in grey levels."""
    height, width = grey.shape
    size = (min(width, side_px), min(height, side_px))
    averages = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    around = cv2.GaussianBlur(averages, (0, 0), side_px / 8, borderType=cv2.BORDER_REFLECT)
    return float((averages - around).std())
