"""What a page holds, as far as finding its panels needs to know."""

from dataclasses import dataclass

from core.geometry import Box


@dataclass(frozen=True)
class PlacedImage:
    """One image object of the file and where the page shows it.

    Attributes:
        xref: The object's number in the file; 0 for an inline image.
        box_pt: Where it is drawn, in page points, clipped to the page.
        transform: The matrix ``(a, b, c, d, e, f)`` from the unit square to page points.
        width_px: Width of the stored image.
        height_px: Height of the stored image.
    """

    xref: int
    box_pt: Box
    transform: tuple[float, float, float, float, float, float]
    width_px: int
    height_px: int


@dataclass(frozen=True)
class PageContent:
    """A page's geometry and what is drawn on it, as shown, in points (1/72 inch), origin top left.

    Attributes:
        width_pt: Width as shown, rotation applied.
        height_pt: Height as shown, rotation applied.
        images: Image objects in drawing order.
        word_boxes_pt: One box per word of the text layer.
        drawing_boxes_pt: One box per vector path (lines, curves, fills).
        complaints: What could not be read of it, in words; empty for a sound page. Not stored.
    """

    width_pt: float
    height_pt: float
    images: tuple[PlacedImage, ...] = ()
    word_boxes_pt: tuple[Box, ...] = ()
    drawing_boxes_pt: tuple[Box, ...] = ()
    complaints: tuple[str, ...] = ()
