"""Panels: the single pictures within the figures of a page.

A figure reaches the PDF in one of two ways. Placed pictures are image objects of their own, and
their boxes are exact; a flattened figure is one image object that holds many panels, and those are
found in the rendered pixels: first along white gutters, then along straight steps where two
pictures touch. Where a cut is doubtful both readings are returned, one of them as the alternative,
so that a copy is not lost to a wrong cut.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from core.geometry import Box, Image, area, intersection, iou, scale_box, share_inside
from core.pages import PageContent, PlacedImage

Method = Literal["image_object", "gutter", "step_edge"]
Mask = NDArray[np.bool_]
PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class PanelSpec:
    """What counts as a panel and as a border between two."""

    dpi: float = 150.0
    """A 1.2 point gutter is 2.5 px, so one whole pixel of it is white; a letter page is 6 MB."""
    min_side_pt: float = 14.0
    """Half a centimetre: single blot strips are as low as this, icons and letters are lower."""
    min_area_pt: float = 900.0
    """30 x 30 points; smaller pictures are markers, icons and bars of charts."""
    white_level: int = 244
    """A pixel whose darkest channel is above this is paper. JPEG leaves 246-255 in white gutters;
    the light backgrounds of blots and bright field end at about 242."""
    stroke_pt: float = 2.4
    """What is thinner (axes, text, thin frames) does not bridge a gutter: 5 px at 150 dpi."""
    gutter_share: float = 0.004
    """Share of a line that may be dark in a gutter: specks of compression, not a picture."""
    solid_share: float = 0.80
    """A rectangle filled to this share is a picture; letters, axes and bars leave more paper."""
    step_ratio: float = 2.2
    """How much a line where two pictures touch must exceed the usual difference between neighbors
    of its surroundings, in the median over its length."""
    step_share: float = 0.75
    """Share of the line's length in which the step must show."""
    doubtful_ratio: float = 1.7
    """Between this and ``step_ratio`` the panel stays whole and the cut is the alternative."""


@dataclass(frozen=True)
class DetectedPanel:
    """One panel of a page.

    Attributes:
        box_pt: In page points.
        box_px: The same in the rendered page, whole pixels.
        method: What found it.
        xref: The image object that shows it; 0 for an inline image.
        alternative_of: None for a panel of the primary set. For a second reading, the index in
            the same list of the primary panel it splits or joins.
        ignore_boxes_px: Letters, scale bars, arrows and other overlays, relative to the panel.
    """

    box_pt: Box
    box_px: PixelBox
    method: Method
    xref: int
    alternative_of: int | None = None
    ignore_boxes_px: tuple[PixelBox, ...] = ()


DEFAULT_SPEC = PanelSpec()


@dataclass(frozen=True)
class _Piece:
    """A rectangle of the rendered page on its way to becoming a panel."""

    box: PixelBox
    method: Method
    xref: int
    exact_pt: Box | None = None
    splits: tuple[PixelBox, ...] = ()


def detect_panels(
    page_image: Image, dpi: float, content: PageContent, spec: PanelSpec = DEFAULT_SPEC
) -> list[DetectedPanel]:
    """Find the panels of a rendered page.

    Args:
        page_image: The page as shown, RGB, shape (height, width, 3).
        dpi: Its resolution.
        content: The page's image objects, words and vector paths.
        spec: What counts as a panel.

    Returns:
        Panels in reading order, then the alternatives. Pictures only: text and vector drawings
        yield none, raster charts may come as panels and are told apart by ``core.modality``.
    """
    factor = dpi / 72.0
    pieces: list[_Piece] = []
    for placed in _large_images(content.images, spec):
        pieces += _pieces_of(page_image, placed, factor, spec)
    pieces = _without_repeats(pieces)
    pieces.sort(key=lambda piece: (round(piece.box[1] / (12 * factor)), piece.box[0]))
    panels: list[DetectedPanel] = []
    alternatives: list[DetectedPanel] = []
    overlays = [
        scale_box(box, factor) for box in (*content.word_boxes_pt, *content.drawing_boxes_pt)
    ]
    for index, piece in enumerate(pieces):
        panel = DetectedPanel(
            box_pt=piece.exact_pt or scale_box(piece.box, 1 / factor),
            box_px=piece.box,
            method=piece.method,
            xref=piece.xref,
            ignore_boxes_px=_overlays_on(piece.box, overlays),
        )
        panels.append(panel)
        alternatives += [
            replace(
                panel,
                box_pt=scale_box(split, 1 / factor),
                box_px=split,
                method="step_edge",
                alternative_of=index,
                ignore_boxes_px=_overlays_on(split, overlays),
            )
            for split in piece.splits
        ]
    return panels + alternatives


def _large_images(images: Iterable[PlacedImage], spec: PanelSpec) -> list[PlacedImage]:
    """The image objects that are large enough to be, or to hold, a panel."""
    return [placed for placed in images if _is_large(placed.box_pt, 1.0, spec)]


def _is_large(box: Box, factor: float, spec: PanelSpec) -> bool:
    """Whether a box in units of ``1 / factor`` points can be a panel."""
    short = min(box[2] - box[0], box[3] - box[1])
    return short >= spec.min_side_pt * factor and area(box) >= spec.min_area_pt * factor**2


def _pieces_of(
    page_image: Image, placed: PlacedImage, factor: float, spec: PanelSpec
) -> list[_Piece]:
    """The panels that one image object shows."""
    height, width = page_image.shape[:2]
    outer = _whole(scale_box(placed.box_pt, factor), width, height)
    crop = page_image[outer[1] : outer[3], outer[0] : outer[2]]
    if not crop.size:
        return []
    filled = crop.min(axis=2) <= spec.white_level
    leaves = _cut_gutters(filled, factor, spec)
    pieces: list[_Piece] = []
    for leaf in leaves:
        for box, splits in _cut_steps(crop, leaf, factor, spec):
            pieces.append(
                _Piece(
                    box=_shift(box, outer),
                    method="gutter" if box == leaf else "step_edge",
                    xref=placed.xref,
                    splits=tuple(_shift(split, outer) for split in splits),
                )
            )
    whole = (0, 0, outer[2] - outer[0], outer[3] - outer[1])
    if not pieces or (len(pieces) == 1 and iou(_shift(whole, outer), pieces[0].box) > 0.9):
        splits = pieces[0].splits if pieces else ()
        return [
            _Piece(
                box=outer,
                method="image_object",
                xref=placed.xref,
                exact_pt=placed.box_pt,
                splits=splits,
            )
        ]
    return pieces


def _cut_gutters(filled: Mask, factor: float, spec: PanelSpec) -> list[PixelBox]:
    """Rectangles of picture between white gutters, by a recursive cut along both axes.

    Args:
        filled: Where the crop is not paper.
        factor: Pixels per point.
        spec: Widths and shares.

    Returns:
        Boxes in the crop, each filled to ``solid_share`` and large enough to be a panel.
    """
    stroke = max(3, round(spec.stroke_pt * factor))
    kernel = np.ones((stroke, stroke), np.uint8)
    thick = cv2.morphologyEx(filled.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    leaves: list[PixelBox] = []
    waiting: list[PixelBox] = [(0, 0, filled.shape[1], filled.shape[0])]
    while waiting:
        x0, y0, x1, y1 = waiting.pop()
        part = thick[y0:y1, x0:x1]
        if not _is_large((x0, y0, x1, y1), factor, spec):
            continue
        columns = _runs(part.mean(axis=0) > spec.gutter_share)
        rows = _runs(part.mean(axis=1) > spec.gutter_share)
        if not columns or not rows:
            continue
        if len(rows) == 1 and len(columns) == 1:
            (left, right), (top, bottom) = columns[0], rows[0]
            tight = (x0 + left, y0 + top, x0 + right, y0 + bottom)
            if tight != (x0, y0, x1, y1):
                waiting.append(tight)
                continue
            tight = _without_fringe(thick, tight)
            if _is_large(tight, factor, spec):
                share = thick[tight[1] : tight[3], tight[0] : tight[2]].mean()
                if share >= spec.solid_share:
                    leaves.append(tight)
        elif len(rows) > 1:
            waiting += [(x0, y0 + top, x1, y0 + bottom) for top, bottom in rows]
        else:
            waiting += [(x0 + left, y0, x0 + right, y1) for left, right in columns]
    return leaves


def _without_fringe(thick: NDArray[np.uint8], box: PixelBox) -> PixelBox:
    """The box without border lines that are mostly paper: letters that touch, ticks."""
    x0, y0, x1, y1 = box
    part = thick[y0:y1, x0:x1]
    rows = np.flatnonzero(part.mean(axis=1) > 0.5)
    if not len(rows):
        return box
    columns = np.flatnonzero(part[rows[0] : rows[-1] + 1].mean(axis=0) > 0.5)
    if not len(columns):
        return box
    left, right = int(columns[0]), int(columns[-1]) + 1
    return (x0 + left, y0 + int(rows[0]), x0 + right, y0 + int(rows[-1]) + 1)


def _cut_steps(
    crop: Image, leaf: PixelBox, factor: float, spec: PanelSpec
) -> list[tuple[PixelBox, list[PixelBox]]]:
    """Cut a rectangle where pictures touch without a gutter.

    Returns:
        Boxes, each with the parts a doubtful cut would make of it (none, or two).
    """
    x0, y0, x1, y1 = leaf
    gray = cv2.cvtColor(crop[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY).astype(np.float32)
    done: list[tuple[PixelBox, list[PixelBox]]] = []
    waiting: list[PixelBox] = [(0, 0, x1 - x0, y1 - y0)]
    while waiting:
        left, top, right, bottom = waiting.pop()
        part = gray[top:bottom, left:right]
        margin = max(4, round(spec.min_side_pt * factor))
        across = _best_step(part, margin, spec)
        down = _best_step(part.T, margin, spec)
        vertical = across[1] >= down[1]
        at, strength = across if vertical else down
        if vertical:
            halves: list[PixelBox] = [
                (left, top, left + at, bottom),
                (left + at, top, right, bottom),
            ]
        else:
            halves = [(left, top, right, top + at), (left, top + at, right, bottom)]
        if strength >= spec.step_ratio:
            waiting += halves
            continue
        shifted = _shift((left, top, right, bottom), leaf)
        doubtful = strength >= spec.doubtful_ratio
        done.append((shifted, [_shift(half, leaf) for half in halves] if doubtful else []))
    return done


def _best_step(gray: NDArray[np.float32], margin: int, spec: PanelSpec) -> tuple[int, float]:
    """The column at which the picture changes most abruptly along its whole height.

    Returns:
        The first column of the right part, and the strength: the difference across the line, in
        units of the usual difference between neighbors around it, in the median over the height; 0
        where the line shows along less than ``step_share`` of it.
    """
    height, width = gray.shape
    if width < 2 * margin + 2 or height < 16:
        return 0, 0.0
    blocks = 16
    rows = height // blocks * blocks
    # Two columns apart: a border that falls inside a pixel is spread over two differences.
    across = np.abs(gray[:rows, 2:] - gray[:rows, :-2])
    energy = across.reshape(blocks, rows // blocks, width - 2).mean(axis=1) + 0.75
    reach = 12
    padded = np.pad(energy, ((0, 0), (reach, reach)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    usual = np.partition(windows, int(0.7 * (2 * reach + 1)), axis=2)[
        ..., int(0.7 * (2 * reach + 1))
    ]
    ratio = energy / usual
    shows = (ratio > 1.35).mean(axis=0)
    strength = np.where(shows >= spec.step_share, np.median(ratio, axis=0), 0.0)
    strength[: margin - 1] = 0
    strength[width - margin - 1 :] = 0
    best = int(strength.argmax())
    return best + 1, float(strength[best])


def _without_repeats(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Pieces with what is shown twice (shadows, soft masks, tiles over a whole) kept once."""
    kept: list[_Piece] = []
    for piece in pieces:
        if all(iou(piece.box, other.box) < 0.8 for other in kept):
            kept.append(piece)
    return kept


def _overlays_on(box: PixelBox, overlays: Sequence[Box]) -> tuple[PixelBox, ...]:
    """What is written or drawn on a panel, relative to it; not what it lies on as a whole."""
    width, height = box[2] - box[0], box[3] - box[1]
    found: list[PixelBox] = []
    for overlay in overlays:
        grown = (overlay[0] - 1, overlay[1] - 1, overlay[2] + 1, overlay[3] + 1)
        common = intersection(grown, box)
        if area(common) > 0 and share_inside(box, grown) < 0.5:
            moved = (common[0] - box[0], common[1] - box[1], common[2] - box[0], common[3] - box[1])
            found.append(_whole(moved, width, height))
    return tuple(found)


def _runs(flags: Mask) -> list[tuple[int, int]]:
    """Begin and end of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _whole(box: Box, width: int, height: int) -> PixelBox:
    """The box in whole pixels, within the image."""
    return (
        min(max(round(box[0]), 0), width),
        min(max(round(box[1]), 0), height),
        min(max(round(box[2]), 0), width),
        min(max(round(box[3]), 0), height),
    )


def _shift(box: PixelBox, origin: PixelBox) -> PixelBox:
    """A box relative to ``origin``'s corner, in the frame that ``origin`` is in."""
    return (box[0] + origin[0], box[1] + origin[1], box[2] + origin[0], box[3] + origin[1])
