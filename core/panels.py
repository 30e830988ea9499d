"""Panels: the single pictures within the figures of a page.

A figure reaches the PDF in one of two ways. Placed pictures are image objects of their own, and
their boxes are exact; a flattened figure is one image object that holds many panels, and those are
found in the rendered pixels: first along white gutters, then along straight steps where two
pictures touch. Where a cut is doubtful both readings are returned, one of them as the alternative,
so that a copy is not lost to a wrong cut.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from core.geometry import Box, Image, area, intersection, iou, scale_box, share_inside
from core.pages import PageContent, PlacedImage

Method = Literal["image_object", "gutter", "step_edge"]
Mask = NDArray[np.bool_]
Filled = NDArray[np.uint8]
"""1 where a pixel is not paper, else 0."""
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
    white_levels: tuple[int, ...] = (251, 244)
    """A pixel whose darkest channel is above this is paper. The higher level keeps pictures on a
    light ground (slides reach 250) in one piece; the lower one sees gutters that JPEG has dimmed,
    and is believed where what it separates are rectangles again."""
    black_level: int = 12
    """A pixel whose lightest channel is below this may be a black gutter."""
    stroke_pt: float = 2.4
    """What is thinner (axes, text, thin frames) does not bridge a gutter: 5 px at 150 dpi."""
    gutter_share: float = 0.004
    """Share of a line that may be dark in a gutter: specks of compression, not a picture."""
    solid_share: float = 0.80
    """A rectangle filled to this share is a picture; letters, axes and bars leave more paper."""
    refined_share: float = 0.90
    """Rectangles found at another level replace a larger one if they fill this share of it."""
    black_refined_share: float = 0.85
    """The same for black gutters, of the box around the rectangles: black frames are wide."""
    lit_share: float = 0.95
    """Black gutters are believed between rectangles filled to this share that together hold this
    share of what is lit: a dark picture falls apart into its bright parts, but not so evenly."""
    missed_share: float = 0.25
    """An area of which more than this share is in no rectangle is kept whole."""
    shoulder_share: float = 0.12
    """Share of its extent by which an area's width must jump to be cut there: narrower than the
    narrowest panel beside three others."""
    fringe_share: float = 0.06
    """Letters and ticks at an area's border hold at most this share of it; more is a panel."""
    flat_share: float = 0.985
    """A rectangle whose inner two thirds have one colour to this share is a bar or a box of a
    drawing; a coloured field with a few cells has 4 % of them."""
    page_share: float = 0.7
    """An image object that covers this share of the page is a scanned page, not a picture."""
    strip_aspect: float = 3.0
    """Strips of one picture are at least so many times as long as they are thick; two square
    pictures that touch may be copies of each other and go on across the seam by chance."""
    strip_likeness: float = 0.4
    """Correlation of the lines on both sides of a seam inside one picture, which is also near that
    of lines inside the strips; of unrelated pictures it is about 0."""
    step_sure: float = 2.8
    """Log odds from which a line where pictures touch is cut without other evidence, and then
    proves that its figure is put together so. Nine of ten borders pass it and one single picture
    in a hundred, mostly one that was stitched or has a rim."""
    step_likely: float = 0.5
    """Log odds that do in a figure with such a proof."""
    step_doubtful: float = 0.0
    """From here to being cut, the two parts are the panel's second reading."""
    step_side_pt: float = 20.0
    """A part narrower than this is not cut off at a touching line: rims and shadows are."""


@dataclass(frozen=True)
class StepModel:
    """Log odds that two pictures touch at a line, from what its pixels show.

    Fitted by ``benchmarks/fit_panel_steps.py`` on 900 composed borders, 1500 single pictures and
    the development documents. A difference spans two pixels, because a border that falls inside a
    pixel is spread over two; it *wins* where it exceeds both neighboring differences.
    """

    constant: float = -5.019
    wins: float = 5.134
    """Weight of the share of pixels where the difference wins by 1 grey level."""
    wins_clearly: float = 4.853
    """... by 30 % and 2 levels."""
    wins_widely: float = 0.114
    """... by 100 % and 2 levels."""
    loses: float = 0.316
    """... where a neighboring difference exceeds it by 30 % and 2 levels."""
    everywhere: float = -4.309
    """The third lowest of ``wins_clearly`` in eight equal stretches of the line."""
    contrast: float = 1.359
    """Log of the mean difference over what is usual (70th percentile) within 12 px."""
    lead: float = 3.381
    """Mean lead over the neighboring differences, in tens of grey levels."""
    shift: float = -1.038
    """Log of the mean change of brightness from one side to the other, in 20 grey levels."""


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
STEP_MODEL = StepModel()


@dataclass(frozen=True)
class _Piece:
    """A rectangle of the rendered page on its way to becoming a panel."""

    box: PixelBox
    method: Method
    xref: int
    exact_pt: Box | None = None
    readings: tuple[PixelBox, ...] = ()
    """The rectangles of the second reading, where there is one."""


def detect_panels(
    page_image: Image, dpi: float, content: PageContent, spec: PanelSpec = DEFAULT_SPEC
) -> list[DetectedPanel]:
    """Find the panels of a rendered page.

    Args:
        page_image: The page as shown, RGB, shape (height, width, 3).
        dpi: Its resolution. Above 1.2 times ``spec.dpi`` the search runs on a reduced copy, so
            that the cost does not depend on the resolution.
        content: The page's image objects, words and vector paths.
        spec: What counts as a panel.

    Returns:
        Panels in reading order, then the alternatives. Pictures only: text and vector drawings
        yield none, raster charts may come as panels and are told apart by ``core.modality``.
    """
    if dpi > 1.2 * spec.dpi:
        return _on_reduced(page_image, dpi, content, spec)
    factor = dpi / 72.0
    pieces: list[_Piece] = []
    pictures = _pictures(page_image, content, factor, spec)
    for placed in pictures:
        # The edges of a picture that lies on another one would pass for borders of that one.
        free = not any(
            other is not placed and share_inside(other.box_pt, placed.box_pt) > 0.5
            for other in pictures
        )
        pieces += _pieces_of(page_image, placed, content, factor, spec, may_touch=free)
    pieces = _without_repeats(pieces)
    pieces.sort(key=lambda piece: (round(piece.box[1] / (12 * factor)), piece.box[0]))
    drawn = [*content.word_boxes_pt, *content.drawing_boxes_pt]
    overlays = np.array(drawn, np.float64).reshape(-1, 4) * factor
    panels: list[DetectedPanel] = []
    alternatives: list[DetectedPanel] = []
    for index, piece in enumerate(pieces):
        insets = [other.box for other in pieces if _is_inset(other, piece)]
        above = np.vstack([overlays, np.array(insets, np.float64).reshape(-1, 4)])
        panel = DetectedPanel(
            box_pt=piece.exact_pt or scale_box(piece.box, 1 / factor),
            box_px=piece.box,
            method=piece.method,
            xref=piece.xref,
            ignore_boxes_px=_ignored(page_image, piece.box, above, factor),
        )
        panels.append(panel)
        alternatives += [
            replace(
                panel,
                box_pt=scale_box(box, 1 / factor),
                box_px=box,
                method="step_edge",
                alternative_of=index,
                ignore_boxes_px=_ignored(page_image, box, above, factor),
            )
            for box in piece.readings
        ]
    return panels + alternatives


def _on_reduced(
    page_image: Image, dpi: float, content: PageContent, spec: PanelSpec
) -> list[DetectedPanel]:
    """Detect at the specification's resolution and scale the boxes back."""
    height, width = page_image.shape[:2]
    factor = dpi / spec.dpi
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    reduced = np.asarray(cv2.resize(page_image, size, interpolation=cv2.INTER_AREA), np.uint8)
    found: list[DetectedPanel] = []
    for panel in detect_panels(reduced, spec.dpi, content, spec):
        box = _whole(scale_box(panel.box_px, factor), width, height)
        ignored = tuple(
            _whole(scale_box(each, factor), box[2] - box[0], box[3] - box[1])
            for each in panel.ignore_boxes_px
        )
        found.append(replace(panel, box_px=box, ignore_boxes_px=ignored))
    return found


def _pictures(
    page_image: Image, content: PageContent, factor: float, spec: PanelSpec
) -> list[PlacedImage]:
    """Image objects as a reader sees them: strips joined, backgrounds and icons left out."""
    joined = _join_strips(page_image, list(content.images), factor, spec)
    large = [placed for placed in joined if _is_large(placed.box_pt, 1.0, spec)]
    return [
        placed
        for index, placed in enumerate(large)
        if sum(area(intersection(other.box_pt, placed.box_pt)) for other in large[index + 1 :])
        < 0.6 * area(placed.box_pt)
    ]


def _join_strips(
    page_image: Image, images: list[PlacedImage], factor: float, spec: PanelSpec
) -> list[PlacedImage]:
    """Join image objects that are strips or tiles of one picture.

    Some writers cut a picture into strips that abut exactly, have the same length and the same
    resolution, and go on across the seam. Two pictures that only touch do not.
    """
    for axis in (1, 0, 1):
        images = sorted(images, key=lambda placed: (placed.box_pt[1 - axis], placed.box_pt[axis]))
        joined: list[PlacedImage] = []
        for placed in images:
            if joined and _continues(page_image, joined[-1], placed, axis, factor, spec):
                joined[-1] = _joined(joined[-1], placed, axis)
            else:
                joined.append(placed)
        images = joined
    return images


def _continues(
    page_image: Image,
    first: PlacedImage,
    second: PlacedImage,
    axis: int,
    factor: float,
    spec: PanelSpec,
) -> bool:
    """Whether ``second`` carries on ``first`` along an axis (0: to the right, 1: downwards)."""
    a, b = first.box_pt, second.box_pt
    other = 1 - axis
    lengths = (
        (first.width_px, second.width_px) if axis == 1 else (first.height_px, second.height_px)
    )
    if (
        abs(b[axis] - a[axis + 2]) > 0.5
        or abs(a[other] - b[other]) > 0.5
        or abs(a[other + 2] - b[other + 2]) > 0.5
        or lengths[0] != lengths[1]
    ):
        return False
    scale_a = (first.height_px if axis == 1 else first.width_px) / max(a[axis + 2] - a[axis], 1e-6)
    scale_b = (second.height_px if axis == 1 else second.width_px) / max(
        b[axis + 2] - b[axis], 1e-6
    )
    if not 0.8 < scale_a / max(scale_b, 1e-6) < 1.25:
        return False
    if min(a[axis + 2] - a[axis], b[axis + 2] - b[axis]) < spec.min_side_pt:
        return True
    length = min(a[other + 2] - a[other], b[other + 2] - b[other])
    if length < spec.strip_aspect * min(a[axis + 2] - a[axis], b[axis + 2] - b[axis]):
        return False
    height, width = page_image.shape[:2]
    seam = b[axis] * factor
    if axis == 0:
        around = (seam - 2, b[1] * factor + 2, seam + 2, b[3] * factor - 2)
    else:
        around = (b[0] * factor + 2, seam - 2, b[2] * factor - 2, seam + 2)
    x0, y0, x1, y1 = _whole(around, width, height)
    gray = _gray(page_image[y0:y1, x0:x1]).astype(np.float64)
    lines = gray if axis == 1 else gray.T
    if len(lines) < 4 or lines.std(axis=1).min() < 4:
        return False
    middle = len(lines) // 2
    alike: NDArray[np.float64] = np.asarray(np.corrcoef(lines), np.float64)
    above, across, below = (float(alike[at - 1, at]) for at in (middle - 1, middle, middle + 1))
    return across > max(spec.strip_likeness, 0.7 * min(above, below))


def _joined(first: PlacedImage, second: PlacedImage, axis: int) -> PlacedImage:
    """One image object that shows both; it keeps the first one's number."""
    a, b = first.box_pt, second.box_pt
    return replace(
        first,
        box_pt=(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])),
        width_px=first.width_px + (second.width_px if axis == 0 else 0),
        height_px=first.height_px + (second.height_px if axis == 1 else 0),
    )


def _is_large(box: Box, factor: float, spec: PanelSpec) -> bool:
    """Whether a box in units of ``1 / factor`` points can be a panel."""
    short = min(box[2] - box[0], box[3] - box[1])
    return short >= spec.min_side_pt * factor and area(box) >= spec.min_area_pt * factor**2


def _pieces_of(
    page_image: Image,
    placed: PlacedImage,
    content: PageContent,
    factor: float,
    spec: PanelSpec,
    *,
    may_touch: bool,
) -> list[_Piece]:
    """The panels that one image object shows, cut where they touch if ``may_touch``."""
    height, width = page_image.shape[:2]
    outer = _whole(scale_box(placed.box_pt, factor), width, height)
    crop = page_image[outer[1] : outer[3], outer[0] : outer[2]]
    if min(crop.shape[:2]) < 4:
        return []
    is_page = area(placed.box_pt) > spec.page_share * content.width_pt * content.height_pt
    levels = (_paper_level(crop),) if is_page else spec.white_levels
    found = _rectangles(crop, levels, factor, spec)
    leaves = [leaf for leaf in found if not _is_flat(crop, leaf, spec)]
    whole = (0, 0, outer[2] - outer[0], outer[3] - outer[1])
    alone = len(leaves) == 1 and max(
        abs(a - b) for a, b in zip(whole, leaves[0], strict=True)
    ) <= max(2.0, factor)
    solid = {leaf for leaf in leaves if found[leaf]}
    if not is_page and (not leaves or alone):
        leaves, solid = [whole], {whole} if solid else set[PixelBox]()
    if not may_touch:
        solid = set[PixelBox]()
    pieces: list[_Piece] = []
    for leaf, parts, readings in _cut_touching(crop, leaves, solid, factor, spec):
        for part in parts:
            exact = part == whole
            pieces.append(
                _Piece(
                    box=_shift(part, outer),
                    method="image_object" if exact else "gutter" if part == leaf else "step_edge",
                    xref=placed.xref,
                    exact_pt=placed.box_pt if exact else None,
                    readings=tuple(_shift(box, outer) for box in readings.get(part, ())),
                )
            )
    return pieces


def _paper_level(crop: Image) -> int:
    """The level that separates a scanned page's paper, which is seldom white, from its ink."""
    counts = np.bincount(crop[::4, ::4].min(axis=2).ravel(), minlength=256)
    return max(150, 150 + int(counts[150:].argmax()) - 14)


def _rectangles(
    crop: Image, levels: Sequence[int], factor: float, spec: PanelSpec
) -> dict[PixelBox, bool]:
    """Areas of picture that paper separates, then those that black gutters separate.

    Returns:
        Boxes in the crop, and whether each is a filled rectangle.
    """
    darkest, lightest = _extremes(crop)
    found = _cut_gutters(darkest <= levels[0], factor, spec)
    for level in levels[1:]:
        filled = darkest <= level
        found = _refined(found, filled, factor, spec, fill=spec.refined_share)
        own = filled.view(np.uint8)
        found = {
            _tightened(leaf, own, spec) if solid else leaf: solid for leaf, solid in found.items()
        }
    lit = lightest >= spec.black_level
    return _refined(
        found,
        lit,
        factor,
        spec,
        fill=spec.black_refined_share,
        least=2,
        solid_share=spec.lit_share,
    )


def _extremes(crop: Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The lowest and the highest channel of each pixel."""
    red, green, blue = crop[..., 0], crop[..., 1], crop[..., 2]
    return (
        np.minimum(np.minimum(red, green), blue),
        np.maximum(np.maximum(red, green), blue),
    )


def _refined(
    leaves: dict[PixelBox, bool],
    filled: Mask,
    factor: float,
    spec: PanelSpec,
    *,
    fill: float,
    least: int = 1,
    solid_share: float = 0.0,
) -> dict[PixelBox, bool]:
    """Each area, or the rectangles (at least so many) it falls into if they fill so much of it."""
    result: dict[PixelBox, bool] = {}
    for leaf, solid in leaves.items():
        x0, y0, x1, y1 = leaf
        own = filled[y0:y1, x0:x1].view(np.uint8)
        filled_px = {
            part: _profiles(own, part)[2] * area(part)
            for part, is_solid in _cut_gutters(own.view(np.bool_), factor, spec).items()
            if is_solid
        }
        parts = [part for part, count in filled_px.items() if count >= solid_share * area(part)]
        outline = leaf if solid_share == 0 else _around(parts)
        covered = sum(area(part) for part in parts) / max(area(outline), 1.0)
        held = sum(filled_px[part] for part in parts) / max(float(own.sum()), 1.0)
        if len(parts) >= least and covered >= fill and held >= solid_share:
            parts = [_shift(part, leaf) for part in parts]
            result.update(dict.fromkeys(parts, True))
        else:
            result[leaf] = solid
    return result


def _around(boxes: Sequence[PixelBox]) -> PixelBox:
    """The smallest box around some boxes; empty around none."""
    if not boxes:
        return (0, 0, 0, 0)
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return (min(x0), min(y0), max(x1), max(y1))


def _cut_gutters(filled: Mask, factor: float, spec: PanelSpec) -> dict[PixelBox, bool]:
    """Rectangles that paper separates.

    Connected areas first, so that a chart beside a picture does not stop the cuts between
    pictures; within one area a recursive cut along both axes, at white lines and then where
    the area becomes wider or narrower. An area that does not come apart into rectangles (a
    picture on a white ground, a schematic) is one piece.

    Args:
        filled: Where the crop is not paper.
        factor: Pixels per point.
        spec: Widths and shares.

    Returns:
        Boxes in the crop, large enough to be a panel, and whether each is a filled rectangle.
    """
    stroke = max(3, round(spec.stroke_pt * factor))
    kernel = np.ones((stroke, stroke), np.uint8)
    thick = cv2.morphologyEx(filled.view(np.uint8), cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(thick, connectivity=4)
    leaves: dict[PixelBox, bool] = {}
    for label in range(1, count):
        x0, y0, width, height, filled_px = (int(value) for value in stats[label])
        if not _is_large((0, 0, width, height), factor, spec):
            continue
        own = (labels[y0 : y0 + height, x0 : x0 + width] == label).view(np.uint8)
        found = _cut_area(own, factor, spec)
        inside = sum(_profiles(own, box)[2] * area(box) for box in found)
        if inside < (1 - spec.missed_share) * filled_px:
            leaves[x0, y0, x0 + width, y0 + height] = False
        else:
            leaves.update({_shift(leaf, (x0, y0, 0, 0)): True for leaf in found})
    kept = _without_nested(list(leaves))
    return {leaf: solid for leaf, solid in leaves.items() if leaf in kept}


def _without_nested(boxes: list[PixelBox]) -> list[PixelBox]:
    """Boxes that lie in no other one."""
    return [
        box
        for index, box in enumerate(boxes)
        if not any(
            share_inside(box, other) > 0.8 and (area(other), -at) > (area(box), -index)
            for at, other in enumerate(boxes)
            if at != index
        )
    ]


def _cut_area(own: Filled, factor: float, spec: PanelSpec) -> list[PixelBox]:
    """Solid rectangles of one connected area."""
    leaves: list[PixelBox] = []
    waiting: list[PixelBox] = [(0, 0, own.shape[1], own.shape[0])]
    while waiting:
        box = waiting.pop()
        x0, y0 = box[:2]
        if not _is_large(box, factor, spec):
            continue
        across, down, share = _profiles(own, box)
        found: list[PixelBox] = [
            (x0 + left, y0 + top, x0 + right, y0 + bottom)
            for left, right in _runs(across > spec.gutter_share)
            for top, bottom in _runs(down > spec.gutter_share)
        ]
        if found != [box]:
            waiting += found
            continue
        tight = _without_fringe(own, box)
        inside = _profiles(own, tight)[2]
        lost = 1 - inside * area(tight) / (share * area(box))
        if inside < spec.solid_share or lost > spec.fringe_share:
            waiting += _cut_at_shoulder(box, across, down, spec)
        elif tight == box:
            leaves.append(box)
        else:
            waiting.append(tight)
    return leaves


def _profiles(
    filled: Filled, box: PixelBox
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The filled share of each column, of each row, and of the whole of a box."""
    part = filled[box[1] : box[3], box[0] : box[2]]
    across = _column_means(part)
    down = np.asarray(cv2.reduce(part, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S), np.float64)[:, 0]
    return across, down / part.shape[1], float(across.mean())


def _cut_at_shoulder(
    box: PixelBox, across: NDArray[np.float64], down: NDArray[np.float64], spec: PanelSpec
) -> list[PixelBox]:
    """The two parts of an area that is L-shaped or stepped, cut where its width jumps; or none."""
    x0, y0, x1, y1 = box
    best: tuple[float, bool, int] = (spec.shoulder_share, False, 0)
    # Figures are laid out in rows more often than in columns, so rows need half the jump.
    for vertical, profile, favor in ((False, down, 2.0), (True, across, 1.0)):
        if len(profile) > 4:
            jumps = np.abs(profile[2:] - profile[:-2])
            at = int(jumps.argmax())
            if jumps[at] > spec.shoulder_share and favor * jumps[at] > best[0]:
                after = abs(profile[at + 2] - profile[at + 1]) > abs(profile[at + 1] - profile[at])
                best = (favor * float(jumps[at]), vertical, at + 1 + int(after))
    _, vertical, at = best
    if at == 0:
        return []
    if vertical:
        return [(x0, y0, x0 + at, y1), (x0 + at, y0, x1, y1)]
    return [(x0, y0, x1, y0 + at), (x0, y0 + at, x1, y1)]


def _without_fringe(filled: Filled, box: PixelBox) -> PixelBox:
    """The box without border lines that are mostly paper: letters that touch, ticks."""
    x0, y0, x1, _ = box
    rows = np.flatnonzero(_profiles(filled, box)[1] > 0.5)
    if not len(rows):
        return box
    top, bottom = y0 + int(rows[0]), y0 + int(rows[-1]) + 1
    columns = np.flatnonzero(_profiles(filled, (x0, top, x1, bottom))[0] > 0.5)
    if not len(columns):
        return box
    return (x0 + int(columns[0]), top, x0 + int(columns[-1]) + 1, bottom)


def _tightened(box: PixelBox, filled: Filled, spec: PanelSpec) -> PixelBox:
    """The box without border strips that are paper at a lower level: dimmed by compression."""
    tight = _without_fringe(filled, box)
    if tight == box:
        return box
    inner = _profiles(filled, tight)[2] * area(tight)
    outer = _profiles(filled, box)[2] * area(box)
    strip = area(box) - area(tight)
    clean = inner >= spec.solid_share * area(tight) and outer - inner <= 0.25 * strip
    return tight if clean else box


def _is_flat(crop: Image, box: PixelBox, spec: PanelSpec) -> bool:
    """Whether a rectangle is one even colour other than black: a bar or box, not a picture.

    An evenly black one may be a negative control, so it stays.
    """
    inset = max(2, min(box[2] - box[0], box[3] - box[1]) // 6)
    inner = crop[box[1] + inset : box[3] - inset : 2, box[0] + inset : box[2] - inset : 2]
    if not inner.size:
        return False
    usual = np.median(inner.reshape(-1, 3), axis=0)
    even = (np.abs(inner.astype(np.int16) - usual.astype(np.int16)).max(axis=2) <= 6).mean()
    return bool(even >= spec.flat_share and usual.max() > 24)


Step = tuple[float, list[PixelBox]]
NO_STEP: Step = (-99.0, [])
LINE_ODDS = 20.0
"""A drawn line from end to end counts as much as the clearest borders do."""
Parts = tuple[PixelBox, list[PixelBox], dict[PixelBox, list[PixelBox]]]


def _cut_touching(
    crop: Image,
    leaves: Sequence[PixelBox],
    solid: Collection[PixelBox],
    factor: float,
    spec: PanelSpec,
) -> list[Parts]:
    """Cut rectangles where pictures touch without a gutter.

    One clear border proves that the figure was put together so, and then fainter ones are
    believed; without proof only a very clear one is. Only ``solid`` rectangles are cut: the bars
    of a chart touch too.

    Returns:
        For each rectangle: itself, its parts, and the second reading of the parts that have one.
    """
    gray = _gray(crop)
    margin = max(4, round(spec.step_side_pt * factor))
    best = {leaf: _best_step(gray, leaf, margin) if leaf in solid else NO_STEP for leaf in leaves}
    proven = any(odds >= spec.step_sure for odds, _ in best.values())
    threshold = spec.step_likely if proven else spec.step_sure
    result: list[Parts] = []
    for leaf in leaves:
        parts: list[PixelBox] = []
        readings: dict[PixelBox, list[PixelBox]] = {}
        waiting = [leaf]
        while waiting:
            box = waiting.pop()
            odds, halves = best[box] if box in best else _best_step(gray, box, margin)
            if halves and odds >= threshold:
                waiting += halves
                continue
            parts.append(box)
            if halves and odds >= spec.step_doubtful:
                readings[box] = halves
        result.append((leaf, parts, readings))
    return result


def _best_step(gray: NDArray[np.uint8], box: PixelBox, margin: int) -> Step:
    """The straight line across a rectangle at which two pictures most likely touch.

    Returns:
        The log odds, and the two parts; no parts where the rectangle is too small to be two.
    """
    x0, y0, x1, y1 = box
    part = gray[y0:y1, x0:x1]
    best = NO_STEP
    for vertical in (True, False):
        turned = part if vertical else part.T
        if turned.shape[1] < 2 * margin + 2 or turned.shape[0] < 16:
            continue
        # The outermost rows may hold a trace of the gutter beside them; some 200 rows tell enough.
        rows = np.ascontiguousarray(turned[2 : -2 : max(1, len(turned) // 200)])
        odds = step_odds(rows)
        lines = np.flatnonzero(_thin_lines(rows)[margin:-margin]) + margin
        odds[lines] = LINE_ODDS
        at = int(odds[margin:-margin].argmax()) + margin
        if odds[at] > best[0]:
            # A line is no part of either picture, nor are the pixels that it shines into.
            end, begin = (at - 1, at + 2) if len(lines) else (at, at)
            halves: list[PixelBox] = (
                [(x0, y0, x0 + end, y1), (x0 + begin, y0, x1, y1)]
                if vertical
                else [(x0, y0, x1, y0 + end), (x0, y0 + begin, x1, y1)]
            )
            best = (float(odds[at]), halves)
    return best


def _thin_lines(gray: NDArray[np.uint8]) -> Mask:
    """Columns that hold a separating line: lighter or darker than both sides from end to end.

    A gutter or frame of one point is one pixel here, mixed with its neighbors, so it is no paper.
    """
    width = gray.shape[1]
    found = np.zeros(width, np.bool_)
    if width < 7:
        return found
    middle, left, right = gray[:, 3:-3], gray[:, :-6], gray[:, 6:]
    lighter = cv2.subtract(middle, cv2.max(left, right))
    darker = cv2.subtract(cv2.min(left, right), middle)
    level = _column_means(middle)
    for excess, plausible in ((lighter, level > 150), (darker, level < 90)):
        flags = (np.asarray(excess, np.uint8) > 6).view(np.uint8)
        found[3:-3] |= (_column_means(flags) > 0.97) & plausible
    return found


def step_odds(gray: NDArray[np.uint8], model: StepModel = STEP_MODEL) -> NDArray[np.float32]:
    """Log odds, for each column, that one picture ends and another begins there.

    Args:
        gray: Gray levels, shape (height, width).
        model: Fitted weights.

    Returns:
        Shape (width,).
    """
    return np.asarray(step_evidence(gray) @ _weights(model) + model.constant, np.float32)


def _weights(model: StepModel) -> NDArray[np.float64]:
    """The weights in the order of :func:`step_evidence`."""
    return np.array(
        [
            model.wins,
            model.wins_clearly,
            model.wins_widely,
            model.loses,
            model.everywhere,
            model.contrast,
            model.lead,
            model.shift,
        ]
    )


def step_evidence(gray: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What :class:`StepModel` weighs, for each column; shape (width, 8)."""
    height, width = gray.shape
    step = np.zeros((height, width), np.uint8)
    step[:, 1:-1] = cv2.absdiff(gray[:, 2:], gray[:, :-2])
    beside = np.zeros_like(step)
    beside[:, 2:] = step[:, :-2]
    beside[:, :-2] = np.maximum(beside[:, :-2], step[:, 2:])

    def share(larger: NDArray[np.uint8], smaller: NDArray[np.uint8], times: float, plus: int):
        levels = (np.arange(256) * times + plus).clip(0, 255).astype(np.uint8)
        flags = np.asarray(cv2.compare(larger, cv2.LUT(smaller, levels), cv2.CMP_GT), np.uint8)
        return flags, _column_means(flags) / 255.0

    clear, clearly = share(step, beside, 1.3, 2)
    stretches = cv2.resize(clear, (width, 8), interpolation=cv2.INTER_AREA) / 255.0
    mean = _column_means(step) + 0.75
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mean, 12, mode="reflect"), 25)
    lead = _column_means(np.minimum(cv2.subtract(step, beside), 20)) - _column_means(
        np.minimum(cv2.subtract(beside, step), 20)
    )
    return np.stack(
        [
            share(step, beside, 1.0, 1)[1],
            clearly,
            share(step, beside, 2.0, 2)[1],
            share(beside, step, 1.3, 2)[1],
            np.sort(stretches, axis=0)[2],
            np.log(mean / np.partition(around, 17, axis=1)[:, 17]),
            lead / 10.0,
            np.log1p(_side_shift(gray) / 20.0),
        ],
        axis=1,
    )


def _side_shift(gray: NDArray[np.uint8], reach: int = 10) -> NDArray[np.float64]:
    """Mean change of brightness between ``reach`` columns left and right, in eight stretches."""
    width = gray.shape[1]
    level = cv2.resize(gray, (width, 8), interpolation=cv2.INTER_AREA).astype(np.float64)
    total = np.cumsum(np.pad(level, ((0, 0), (1, 0))), axis=1)
    shift = np.zeros(width)
    x = np.arange(reach + 2, width - reach - 2, dtype=np.intp)
    left = total[:, x - 1] - total[:, x - 1 - reach]
    right = total[:, x + 2 + reach] - total[:, x + 2]
    shift[x] = np.abs(left - right).mean(axis=0) / reach
    return shift


def _column_means(values: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean of each column."""
    return np.asarray(cv2.reduce(values, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S), np.float64)[0] / len(
        values
    )


def _gray(image: Image) -> NDArray[np.uint8]:
    """Gray levels of an RGB image."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8)


def _without_repeats(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Pieces with what is shown twice (shadows, soft masks, tiles over a whole) kept once."""
    kept: list[_Piece] = []
    for piece in pieces:
        if all(iou(piece.box, other.box) < 0.8 for other in kept):
            kept.append(piece)
    return kept


def _is_inset(inner: _Piece, outer: _Piece) -> bool:
    """Whether a picture lies on another one."""
    return inner is not outer and (
        share_inside(inner.box, outer.box) > 0.9 and area(inner.box) < 0.5 * area(outer.box)
    )


def _ignored(
    page_image: Image, box: PixelBox, overlays: NDArray[np.float64], factor: float
) -> tuple[PixelBox, ...]:
    """What is written or drawn on a panel, as objects of the page or in its own pixels."""
    crop = page_image[box[1] : box[3], box[0] : box[2]]
    return (*_overlays_on(box, overlays), *_marks(crop, factor))


def _marks(crop: Image, factor: float) -> list[PixelBox]:
    """Scale bars, and the letter in a corner, that are part of a panel's pixels."""
    darkest, lightest = _extremes(crop)
    found: list[PixelBox] = []
    for mask in (darkest >= 245, lightest <= 10):
        if mask.any() and mask.mean() < 0.3:
            found += _bars(mask.view(np.uint8), factor) + _letters(mask.view(np.uint8), factor)
    return found[:20]


def _bars(mask: Filled, factor: float) -> list[PixelBox]:
    """Even bars with the length that is written above or below them, within a line of text."""
    height, width = mask.shape
    length = max(8, round(8 * factor))
    long = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))
    if not long.any():
        return []
    count, _, stats, _ = cv2.connectedComponentsWithStats(long, connectivity=8)
    found: list[PixelBox] = []
    for x, y, w, h, filled in stats[1:count].tolist():
        even = 0.7 * factor <= h <= 5 * factor and filled > 0.85 * w * h
        if even and 3 * h <= w < 0.8 * width:
            grown = (x - 2, y - 11 * factor, x + w + 2, y + h + 3 * factor)
            found.append(_whole(grown, width, height))
    return found


def _letters(mask: Filled, factor: float) -> list[PixelBox]:
    """Panel letters: compact shapes within a corner."""
    height, width = mask.shape
    side = round(26 * factor)
    found: list[PixelBox] = []
    for left in (0, max(0, width - side)):
        for top in (0, max(0, height - side)):
            corner = mask[top : top + side, left : left + side]
            count, _, stats, _ = cv2.connectedComponentsWithStats(corner, connectivity=8)
            for x, y, w, h, filled in stats[1:count].tolist():
                sized = 4 * factor <= h <= 18 * factor and 0.25 * h <= w <= 1.8 * h
                if sized and filled > 0.2 * w * h:
                    grown = (left + x - 2, top + y - 2, left + x + w + 2, top + y + h + 2)
                    found.append(_whole(grown, width, height))
    return found


def _overlays_on(box: PixelBox, overlays: NDArray[np.float64]) -> list[PixelBox]:
    """What of the overlays, shape (n, 4), touches a panel, relative to it.

    Frames and backgrounds, which lie on most of it, are none.
    """
    low = np.maximum(overlays[:, :2] - 1, box[:2])
    high = np.minimum(overlays[:, 2:] + 1, box[2:])
    sides = (high - low).clip(0)
    common = sides[:, 0] * sides[:, 1]
    touching = (common > 0) & (common < 0.5 * area(box))
    found: list[PixelBox] = []
    for x0, y0, x1, y1 in np.hstack([low, high])[touching].tolist():
        moved = (x0 - box[0], y0 - box[1], x1 - box[0], y1 - box[1])
        found.append(_whole(moved, box[2] - box[0], box[3] - box[1]))
    return found


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
