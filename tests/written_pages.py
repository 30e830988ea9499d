"""Pages of text as text, as a scan, as both and as neither, made with a real font."""

from pathlib import Path

import pymupdf

LINES = (
    "The harbour was quiet in the early morning,",
    "and seven boats lay moored along the wall.",
    "Nobody had seen the lantern since Thursday.",
    "A letter from the museum arrived by noon.",
)
SIZE_PT = (420.0, 300.0)


def text_page(doc: pymupdf.Document, lines: tuple[str, ...] = LINES, size_pt: float = 14) -> None:
    """A page with a text layer."""
    page = doc.new_page(width=SIZE_PT[0], height=SIZE_PT[1])
    for row, line in enumerate(lines):
        page.insert_text((40, 60 + 2 * size_pt * row), line, fontsize=size_pt, fontname="tiro")


def scanned(
    doc: pymupdf.Document, lines: tuple[str, ...] = LINES, *, rotate: int = 0, dpi: int = 150
) -> None:
    """A page that is nothing but the picture of one."""
    width, height = SIZE_PT if rotate % 180 == 0 else SIZE_PT[::-1]
    page = doc.new_page(width=width, height=height)
    page.insert_image(page.rect, stream=picture(lines, dpi), rotate=rotate)


def hybrid_page(doc: pymupdf.Document) -> None:
    """Text above, and below it the picture of other text."""
    text_page(doc, LINES[:1])
    doc[-1].insert_image(
        pymupdf.Rect(0, 90, SIZE_PT[0], 290), stream=picture(LINES[2:], 150), keep_proportion=False
    )


def blank_page(doc: pymupdf.Document) -> None:
    """A scan of nothing."""
    scanned(doc, ())


def picture(lines: tuple[str, ...], dpi: int) -> bytes:
    """A page of text as PNG."""
    with pymupdf.open() as drawn:
        text_page(drawn, lines)
        return drawn[0].get_pixmap(dpi=dpi).tobytes("png")


def written(path: Path, *pages: object) -> Path:
    """A document of such pages, each given as a function of the document."""
    with pymupdf.open() as doc:
        for page in pages:
            page(doc)  # type: ignore[operator]
        doc.save(path)
    return path
