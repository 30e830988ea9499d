"""Figures and pages of the sample papers, and where each panel ended up.

A figure is rows of panels. It is drawn onto its page as separate image objects and vector charts,
or flattened into one JPEG, as figures reach publishers in either form.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
import pymupdf
from numpy.typing import NDArray
from PIL import Image as Pillow

from samples.micrographs import Image

Box = tuple[float, float, float, float]
Draw = Callable[[pymupdf.Page, pymupdf.Rect], None]

FOOTER = "Synthetic sample, not a real paper"
TAIL, NECK = pymupdf.Point(10, -7), pymupdf.Point(2.5, -1.8)
BARBS = (pymupdf.Point(5.2, -0.8), pymupdf.Point(2.5, -4.9))
# The shape of an arrow in points, seen from its tip.
STYLE = """
body { margin: 0 }
p { font-family: Times; font-size: 9.3px; line-height: 1.17; text-align: justify; margin: 0;
    text-indent: 9px }
p.ref { font-size: 7.2px; text-indent: 0 }
p.caption { font-family: Helvetica; font-size: 7.3px; line-height: 1.22; text-indent: 0 }
p.abstract { font-size: 9.6px; text-indent: 0; font-weight: bold }
p.authors { font-family: Helvetica; font-size: 9.5px; text-indent: 0; text-align: left }
p.small { font-family: Helvetica; font-size: 7px; text-indent: 0; color: #444; text-align: left }
h1 { font-family: Times; font-size: 20px; line-height: 1.1; margin: 0 0 7px 0 }
h2 { font-family: Helvetica; font-size: 10px; margin: 7px 0 2px 0 }
sup { font-size: 6px }
"""


@dataclass(frozen=True)
class View:
    """Part of a master image as a figure shows it.

    Attributes:
        image: Pixels shown.
        source: Name of the master; views of one master show the same scene.
        to_master: Affine map, shape (3, 3), from pixels of the view to pixels of the master.
    """

    image: Image
    source: str
    to_master: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def _moved(self, image: Image, to_view: list[list[float]]) -> "View":
        return replace(
            self,
            image=np.ascontiguousarray(image),
            to_master=self.to_master @ np.array([*to_view, [0, 0, 1]], np.float64),
        )

    def crop(self, x0: int, y0: int, x1: int, y1: int) -> "View":
        """The part inside a box of pixels."""
        return self._moved(self.image[y0:y1, x0:x1], [[1, 0, x0], [0, 1, y0]])

    def turned(self, quarters: int) -> "View":
        """Turned counter-clockwise by 90 degrees, ``quarters`` times."""
        view = self
        for _ in range(quarters % 4):
            width, _ = view.size
            view = view._moved(np.rot90(view.image), [[0, -1, width], [1, 0, 0]])
        return view

    def mirrored(self) -> "View":
        """Left and right exchanged."""
        return self._moved(self.image[:, ::-1], [[-1, 0, self.size[0]], [0, 1, 0]])

    def scaled(self, factor: float) -> "View":
        """Resampled to ``factor`` times the size."""
        width, height = (round(side * factor) for side in self.size)
        image = cv2.resize(self.image, (width, height), interpolation=cv2.INTER_AREA)
        return self._moved(
            np.asarray(image, np.uint8),
            [[self.size[0] / width, 0, 0], [0, self.size[1] / height, 0]],
        )

    def rotated(self, degrees: float, width: int, height: int) -> "View":
        """Turned counter-clockwise about the middle and cut to ``width`` x ``height``."""
        angle = np.deg2rad(degrees)
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        middle_x, middle_y = self.size[0] / 2, self.size[1] / 2
        matrix = [
            [cos, -sin, middle_x - cos * width / 2 + sin * height / 2],
            [sin, cos, middle_y - sin * width / 2 - cos * height / 2],
        ]
        # Pixel centres lie half a pixel inside their corner, where the map's origin is.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        centres = np.linalg.inv(half) @ np.array([*matrix, [0, 0, 1]]) @ half
        image = cv2.warpAffine(
            self.image,
            centres[:2],
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        return self._moved(np.asarray(image, np.uint8), matrix)

    def toned(self, gamma: float = 1, contrast: float = 1, bright: float = 0) -> "View":
        """Other gamma, contrast (about mid-grey) and brightness (in grey levels)."""
        level = (np.arange(256) / 255) ** gamma * 255
        table = np.clip((level - 127.5) * contrast + 127.5 + bright, 0, 255)
        return replace(self, image=table.astype(np.uint8)[self.image])

    def grey(self) -> "View":
        """Without colour."""
        level = cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY)
        return replace(self, image=np.repeat(np.asarray(level)[:, :, None], 3, axis=2))

    def recompressed(self, quality: int) -> "View":
        """Through a JPEG file and back."""
        return replace(
            self,
            image=np.asarray(Pillow.open(io.BytesIO(jpeg(self.image, quality))).convert("RGB")),
        )

    def patched(self, box: tuple[int, int, int, int], to: tuple[int, int], flip: bool) -> "View":
        """With the content of ``box`` copied, softly edged, to where ``to`` is its top left."""
        x0, y0, x1, y1 = box
        piece = self.image[y0:y1, x0:x1].astype(np.float32)
        if flip:
            piece = piece[:, ::-1]
        height, width = piece.shape[:2]
        soft = np.zeros((height, width), np.float32)
        soft[3:-3, 3:-3] = 1
        soft = cv2.GaussianBlur(soft, (0, 0), 1.2)[:, :, None]
        image = self.image.copy()
        below = image[to[1] : to[1] + height, to[0] : to[0] + width]
        below[:] = (soft * piece + (1 - soft) * below + 0.5).astype(np.uint8)
        return replace(self, image=image)


@dataclass(frozen=True)
class Panel:
    """One picture or chart of a figure.

    Attributes:
        name: How the story refers to it, unique within the paper, such as ``"2B"``.
        view: The image; None for a chart or a schematic.
        draw: Draws a chart or schematic into a rectangle; None for an image.
        modality: fluorescence, histology, em, brightfield, blot, gel, chart or diagram.
        aspect: Width over height of a chart; an image has its own.
        label: Words in the image, such as the stain.
        bar: Colour of the scale bar (0 black to 1 white); None for no bar.
        arrows: Tips of arrows, as shares of width and height.
        lanes: Words above the lanes of a blot.
        side: Word right of a blot, such as the protein.
        quality: JPEG quality of the image object.
    """

    name: str
    view: View | None = None
    draw: Draw | None = None
    modality: str = "chart"
    aspect: float = 1.3
    label: str = ""
    bar: float | None = None
    arrows: tuple[tuple[float, float], ...] = ()
    lanes: tuple[str, ...] = ()
    side: str = ""
    quality: int = 86

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.view.size[0] / self.view.size[1] if self.view else self.aspect

    @property
    def kind(self) -> str:
        """Image, chart or diagram, as the evaluator tells them apart."""
        return "image" if self.view else self.modality


@dataclass(frozen=True)
class Figure:
    """Rows of panels with a caption.

    Attributes:
        number: As printed.
        rows: Panels from left to right, rows from top to bottom.
        caption: HTML.
        gutter_pt: Space between panels; 0 lets them touch.
        letters: Where panel letters stand.
        flat: None for separate objects; else JPEG quality of the one image.
        flat_dpi: Resolution of the one image.
        ink: Colour space of the one image.
        place: Where on the page.
        width_share: Share of the available width that is used.
    """

    number: int
    rows: tuple[tuple[Panel, ...], ...]
    caption: str
    gutter_pt: float = 5
    letters: Literal["in", "out", "none"] = "out"
    flat: int | None = None
    flat_dpi: int = 200
    ink: Literal["RGB", "L", "CMYK"] = "RGB"
    place: Literal["top", "bottom", "left", "right"] = "top"
    width_share: float = 1.0


def jpeg(image: Image, quality: int, ink: str = "RGB") -> bytes:
    """The image as a JPEG file; a grey one as a one-channel file."""
    if ink == "RGB" and all(np.array_equal(image[..., 0], image[..., k]) for k in (1, 2)):
        ink = "L"
    out = io.BytesIO()
    Pillow.fromarray(image).convert(ink).save(out, "JPEG", quality=quality)
    return out.getvalue()


def placed(figure: Figure, width: float) -> tuple[dict[str, Box], float]:
    """Where the panels lie when the figure is ``width`` points wide, and how high that makes it."""
    boxes: dict[str, Box] = {}
    y = 0.0
    for row in figure.rows:
        above = 11.0 if figure.letters == "out" else 0.0
        if any(panel.lanes for panel in row):
            above = max(above, 24.0)
        aside = [30.0 if panel.side else 0.0 for panel in row]
        free = width * figure.width_share - figure.gutter_pt * (len(row) - 1) - sum(aside)
        height = free / sum(panel.ratio for panel in row)
        y += above
        x = (width - width * figure.width_share) / 2
        for panel, space in zip(row, aside, strict=True):
            boxes[panel.name] = (x, y, x + height * panel.ratio, y + height)
            x += height * panel.ratio + figure.gutter_pt + space
        y += height + figure.gutter_pt
    return boxes, y - figure.gutter_pt


def draw_figure(page: pymupdf.Page, figure: Figure, left: float, top: float, width: float) -> None:
    """Draw the figure with its top left corner at (left, top)."""
    boxes, height = placed(figure, width)
    if figure.flat is None:
        _draw_panels(page, figure, boxes, left, top)
        return
    doc = pymupdf.open()
    sheet = doc.new_page(width=width, height=height)
    _draw_panels(sheet, figure, boxes, 0, 0)
    pixmap = sheet.get_pixmap(dpi=figure.flat_dpi)
    pixels = np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, 3)
    doc.close()
    page.insert_image(
        pymupdf.Rect(left, top, left + width, top + height),
        stream=jpeg(pixels, figure.flat, figure.ink),
        keep_proportion=False,
    )


def _draw_panels(
    page: pymupdf.Page, figure: Figure, boxes: dict[str, Box], left: float, top: float
) -> None:
    panels = [panel for row in figure.rows for panel in row]
    for k, panel in enumerate(panels):
        x0, y0, x1, y1 = boxes[panel.name]
        rect = pymupdf.Rect(x0 + left, y0 + top, x1 + left, y1 + top)
        dark = True
        if panel.view:
            page.insert_image(
                rect, stream=jpeg(panel.view.image, panel.quality), keep_proportion=False
            )
            dark = panel.view.image[:40, :60].mean() < 120
        if panel.draw:
            panel.draw(page, rect)
        if panel.modality == "blot":
            page.draw_rect(rect, color=(0, 0, 0), width=0.5)
        letter = chr(65 + k)
        if figure.letters == "out":
            page.insert_text((rect.x0, rect.y0 - 3), letter, fontname="hebo", fontsize=10)
        elif figure.letters == "in" and panel.view:
            color = (1, 1, 1) if dark else (0, 0, 0)
            at = (rect.x0 + 4, rect.y0 + 12)
            page.insert_text(at, letter, fontname="hebo", fontsize=11, color=color)
        elif figure.letters == "in":
            at = (rect.x0, rect.y0 + 9)
            page.insert_text(at, letter, fontname="hebo", fontsize=11)
        _annotate(page, panel, rect)


def _annotate(page: pymupdf.Page, panel: Panel, rect: pymupdf.Rect) -> None:
    """Words, scale bar, arrows and lane names of one panel."""
    if panel.label and panel.view:
        dark = panel.view.image[:40, -120:].mean() < 120
        width = pymupdf.get_text_length(panel.label, "hebo", 7)
        color = (1, 1, 1) if dark else (0, 0, 0)
        at = (rect.x1 - width - 4, rect.y0 + 10)
        page.insert_text(at, panel.label, fontname="hebo", fontsize=7, color=color)
    if panel.bar is not None:
        color = (panel.bar,) * 3
        length = rect.width * 0.22
        bar = pymupdf.Rect(rect.x1 - 6 - length, rect.y1 - 8, rect.x1 - 6, rect.y1 - 6)
        page.draw_rect(bar, color=None, fill=color)
        text_width = pymupdf.get_text_length("20 µm", "helv", 5.5)
        at = (bar.x0 + (length - text_width) / 2, bar.y0 - 2)
        page.insert_text(at, "20 µm", fontname="helv", fontsize=5.5, color=color)
    for x, y in panel.arrows:
        tip = pymupdf.Point(rect.x0 + x * rect.width, rect.y0 + y * rect.height)
        color = (1, 0.9, 0.1) if panel.bar == 1 else (0, 0, 0)
        page.draw_line(tip + TAIL, tip + NECK, color=color, width=1.3)
        head = [tip, *(tip + barb for barb in BARBS)]
        page.draw_polyline(head, color=color, fill=color, closePath=True, width=0.3)
    for k, word in enumerate(panel.lanes):
        x = rect.x0 + rect.width * (k + 0.5) / len(panel.lanes)
        width = pymupdf.get_text_length(word, "helv", 6.5)
        page.insert_text((x - width / 2, rect.y0 - 3), word, fontname="helv", fontsize=6.5)
    if panel.side:
        for k, word in enumerate(panel.side.split("|")):
            rows = len(panel.side.split("|"))
            y = rect.y0 + rect.height * (k + 0.5) / rows + 2.3
            page.insert_text((rect.x1 + 3, y), word, fontname="helv", fontsize=6.5)


@dataclass(frozen=True)
class Journal:
    """What a journal prints on every page."""

    name: str
    color: tuple[float, float, float]
    logo: Image | None
    width_pt: float
    height_pt: float
    margin_pt: float = 48


@dataclass(frozen=True)
class Manuscript:
    """A paper as written, before it is set.

    Attributes:
        file: Name of the PDF.
        journal: Where it appears.
        title: HTML.
        authors: HTML.
        address: HTML.
        abstract: HTML.
        text: Makes the body, given the share of its sentences to use.
        pages: Figures of each page, the first page included; None for a page without text.
        sideways: The figure of the page without text.
    """

    file: str
    journal: Journal
    title: str
    authors: str
    address: str
    abstract: str
    text: Callable[[float], str]
    pages: tuple[tuple[Figure, ...] | None, ...]
    sideways: Figure | None = None


def _height(html: str, width: float) -> float:
    story = pymupdf.Story(html=html, user_css=STYLE)
    _, filled = story.place(pymupdf.Rect(0, 0, width, 5000))
    return float(filled[3])


@dataclass
class _Sheet:
    """One page while it is laid out: what goes where."""

    blocks: list[tuple[str, pymupdf.Rect]] = field(default_factory=list)
    columns: list[pymupdf.Rect] = field(default_factory=list)
    figures: list[tuple[Figure, float, float, float]] = field(default_factory=list)


def _lay_out(story: Manuscript) -> list[_Sheet]:
    journal = story.journal
    left, right = journal.margin_pt, journal.width_pt - journal.margin_pt
    top, bottom = 62.0, journal.height_pt - 48
    column = (right - left - 16) / 2
    sheets: list[_Sheet] = []
    for number, figures in enumerate(story.pages):
        sheet = _Sheet()
        sheets.append(sheet)
        if figures is None:
            continue
        high, low = top, bottom
        if number == 0:
            head = f"<h1>{story.title}</h1><p class='authors'>{story.authors}</p>"
            head += f"<p class='small'>{story.address}</p>"
            tall = _height(head, right - left) + 3
            sheet.blocks.append((head, pymupdf.Rect(left, high, right, high + tall)))
            high += tall + 10
            abstract = f"<p class='abstract'>{story.abstract}</p>"
            tall = _height(abstract, right - left - 24) + 3
            box = pymupdf.Rect(left + 12, high, right - 12, high + tall)
            sheet.blocks.append((abstract, box))
            high += tall + 12
        lefts, rights = [high, low], [high, low]
        for figure in figures:
            wide = figure.place in ("top", "bottom")
            width = right - left if wide else column
            caption = f"<p class='caption'><b>Figure {figure.number}.</b> {figure.caption}</p>"
            tall = placed(figure, width)[1]
            text = _height(caption, width) + 3
            x = left if wide or figure.place == "left" else right - column
            sides = {"left": [lefts], "right": [rights]}.get(figure.place, [lefts, rights])
            if figure.place == "bottom":
                y = min(side[1] for side in sides) - tall - text - 6
                for side in sides:
                    side[1] = y - 10
            else:
                y = max(side[0] for side in sides)
                for side in sides:
                    side[0] = y + tall + text + 16
            sheet.figures.append((figure, x, y, width))
            below = pymupdf.Rect(x, y + tall + 5, x + width, y + tall + 5 + text)
            sheet.blocks.append((caption, below))
        for x, (from_y, to_y) in ((left, lefts), (right - column, rights)):
            if to_y - from_y > 30:
                sheet.columns.append(pymupdf.Rect(x, from_y, x + column, to_y))
    return sheets


def _set_text(story: Manuscript, sheets: list[_Sheet], share: float) -> bytes | None:
    """The pages with text only, or None where the text does not fit them well."""
    out = io.BytesIO()
    writer = pymupdf.DocumentWriter(out)
    body = pymupdf.Story(html=story.text(share), user_css=STYLE)
    more = 1
    for sheet in sheets:
        device = writer.begin_page(
            pymupdf.Rect(0, 0, story.journal.width_pt, story.journal.height_pt)
        )
        for html, rect in sheet.blocks:
            block = pymupdf.Story(html=html, user_css=STYLE)
            block.place(rect)
            block.draw(device)
        for rect in sheet.columns:
            if more:
                more, _ = body.place(rect)
                body.draw(device)
        writer.end_page()
    writer.close()
    return None if more or _stranded(out.getvalue(), sheets) else out.getvalue()


def _stranded(data: bytes, sheets: list[_Sheet]) -> bool:
    """Whether some column ends with a section's title."""
    with pymupdf.open(stream=data, filetype="pdf") as doc:
        for number, sheet in enumerate(sheets):
            for rect in sheet.columns:
                text: Any = doc[number].get_text("dict", clip=rect)
                lines = [line for block in text["blocks"] for line in block.get("lines", [])]
                last = max(lines, key=lambda line: line["bbox"][3], default=None)
                if last and "Sans" in last["spans"][0]["font"]:
                    return True
    return False


def set_paper(story: Manuscript) -> tuple[Any, dict[str, Any]]:
    """Set the paper.

    Returns:
        The document, not yet saved, and its truth: pages with the boxes of their panels.

    Raises:
        ValueError: Even the shortest text does not fit the pages.
    """
    sheets = _lay_out(story)
    share = 1.0
    while (data := _set_text(story, sheets, share)) is None:
        share -= 0.04
        if share < 0.1:
            raise ValueError(f"{story.file}: the pages are too few for the shortest text")
    doc = pymupdf.open(stream=data, filetype="pdf")
    journal = story.journal
    pages: list[dict[str, Any]] = []
    for number, sheet in enumerate(sheets, start=1):
        page = doc[number - 1]
        _furnish(page, journal, number)
        truth: dict[str, Any] = {
            "page": number,
            "width": journal.width_pt,
            "height": journal.height_pt,
            "rotation": 0,
            "figures": [],
            "panels": [],
        }
        for figure, x, y, width in sheet.figures:
            draw_figure(page, figure, x, y, width)
            add_truth(truth, figure, story.file, x, y, width)
        pages.append(truth)
    return doc, {"file": story.file, "pages": pages}


def add_truth(
    page: dict[str, Any], figure: Figure, file: str, x: float, y: float, width: float
) -> None:
    """Note where the figure's panels lie on the page."""
    page["figures"].append(
        {
            "number": figure.number,
            "gutter": figure.gutter_pt,
            "flattened": figure.flat is not None,
            "letter": figure.letters,
        }
    )
    boxes, _ = placed(figure, width)
    for row in figure.rows:
        for panel in row:
            x0, y0, x1, y1 = boxes[panel.name]
            page["panels"].append(
                {
                    "id": f"{file.removesuffix('.pdf')}_{panel.name}",
                    "bbox": [round(v, 2) for v in (x0 + x, y0 + y, x1 + x, y1 + y)],
                    "kind": panel.kind,
                    "source": panel.view.source if panel.view else panel.name,
                    "modality": panel.modality,
                }
            )


def _furnish(page: pymupdf.Page, journal: Journal, number: int) -> None:
    """Logo, running head, footer and page number."""
    left, right = journal.margin_pt, journal.width_pt - journal.margin_pt
    if journal.logo is not None:
        height, width = journal.logo.shape[:2]
        rect = pymupdf.Rect(left, 24, left + 20 * width / height, 44)
        out = io.BytesIO()
        Pillow.fromarray(journal.logo).save(out, "PNG")
        page.insert_image(rect, stream=out.getvalue())
        start = rect.x1 + 6
    else:
        page.draw_circle((left + 10, 34), 10, color=None, fill=journal.color)
        page.draw_circle((left + 10, 34), 5, color=(1, 1, 1), width=1.5)
        page.draw_line((left + 10, 24), (left + 10, 44), color=(1, 1, 1), width=1)
        start = left + 26
    page.insert_text((start, 38), journal.name, fontname="tibi", fontsize=11, color=journal.color)
    head = f"Vol. 12, 2026, {100 + number}"
    width = pymupdf.get_text_length(head, "helv", 7)
    page.insert_text((right - width, 38), head, fontname="helv", fontsize=7)
    page.draw_line((left, 50), (right, 50), color=journal.color, width=0.8)
    low = journal.height_pt - 28
    page.insert_text((left, low), FOOTER, fontname="heit", fontsize=7, color=(0.4, 0.4, 0.4))
    page.insert_text((right - 10, low), str(number), fontname="helv", fontsize=8)
