"""The process that parses PDFs: it may be killed by the file, and nothing else dies with it.

Started by :mod:`resources.pdf` as a script of its own, with an empty environment, and the only
module that imports PyMuPDF. It imports nothing of Quire, so it is up in a tenth of a second.

Both directions speak the same frame: four bytes of header length (big-endian), a JSON header, then
``header["payload"]`` raw bytes. A request names an ``op`` (a method of ``Worker``). Every reply
carries ``complaints``, what MuPDF said while it worked, and ``repaired``, whether it had to mend
the file; a refusal has ``error`` (one of input, memory) with a ``message`` instead of an answer.

It may write no file, unless it was started with a second argument: so many bytes.
"""

import base64
import contextlib
import ctypes
import json
import math
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import pymupdf
import pymupdf.mupdf as mupdf

MEGABYTE = 1 << 20
CPU_GRACE_S = 5
"""CPU seconds beyond a request's timeout after which the kernel ends a worker nobody waits for."""

COMPLAINTS = 20
"""Different messages kept of one request; a broken page repeats a few of them without end."""

JPEG_HEADER_BYTES = 1 << 25
"""A JPEG's size is told in its first kilobytes, but reading them takes the whole stream into
memory: larger ones are not checked."""

MOST_IMAGES_CHECKED = 200

WORD_LETTERS = 500
"""Letters listed of one word; a run of text without a blank can be as long as the page."""

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

REFERENCE = re.compile(r"(\d+) \d+ R")

ALLOCATION_FAILED = re.compile(
    r"\b(?:malloc|calloc|realloc)(?: array)? \([^)]*bytes\) failed|memory allocation failed"
    r"|std::bad_alloc|out of memory"
)

PR_SET_PDEATHSIG = 1

DRAW = re.compile(rb"/([^\s/\[\]()<>{}%]+)\s+Do\b")
"""The command that draws a named image or form."""

SET_FONT = re.compile(rb"/([^\s/\[\]()<>{}%#]+)\s+[\d.]+\s+Tf\b")
"""The command that chooses a font, by a name that is written plainly."""

DRAWN_AS = {
    "fill-text": "seen",
    "stroke-text": "seen",
    "clip-text": "seen",
    "clip-stroke-text": "seen",
    "ignore-text": "unseen",
    "fill-image": "images",
    "fill-imgmask": "images",
    "clip-imgmask": "images",
}
"""What MuPDF calls what it draws, by what it means for reading a page."""

FONT_NAME = "QuireUnseen"
GLYPH_WIDTH = 0.5
"""Width of every character of the font without glyphs, in its own size."""

GLYPHLESS = base64.b64decode(
    "AAEAAAAKAIAAAwAgT1MvMlbeyJQAAAEoAAAAYGNtYXAACgA0AAABkAAAAB5nbHlmFSJBJAAAAbgAAAAYaGVhZAt48W"
    "UAAACsAAAANmhoZWEMAgQCAAAA5AAAACRobXR4BAAAAAAAAYgAAAAIbG9jYQAMAAAAAAGwAAAABm1heHAABAAFAAAB"
    "CAAAACBuYW1l8usW2gAAAdAAAABLcG9zdAABAAEAAAIcAAAAIAABAAAAAQAAsJRxEF8PPPUEBwgAAAAAAM+a/G4AAA"
    "AA1MOn8gAAAAAEAAgAAAAAEAACAAAAAAAAAAEAAAgA//8AAAQAAAAAAAQAAAEAAAAAAAAAAAAAAAAAAAACAAEAAAAC"
    "AAQAAQAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAwAAAZAABQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAUAAQABAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAR09PRwBAAAAAAAAB//8AAAABAAGAAAAAAAAAAAAAAAAAAAABAAAAAAAABAAAAAAAAAIA"
    "AQAAAAAAFAADAAAAAAAUAAYACgAAAAAAAAAAAAAAAAAMAAAAAQAAAAAEAAgAAAMAADEhESEEAPwACAAAAAADACoAAA"
    "ADAAAABQAWAAAAAQAAAAAABQALABYAAwABBAkABQAWAAAAVgBlAHIAcwBpAG8AbgAgADEALgAwVmVyc2lvbiAxLjAA"
    "AAEAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAA="
)
"""A TrueType font of two empty glyphs: ``pdf.ttf`` of tesseract, Apache License 2.0."""

TO_UNICODE = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identify-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""
"""Every code is a character of UTF-16."""

Header = dict[str, Any]


class Complaints:
    """What MuPDF says while it answers one request.

    MuPDF counts a message that it repeats instead of saying it again, and goes on counting from one
    request to the next; flushing at both ends keeps what is said about one page with that page.
    """

    def __init__(self) -> None:
        self.said: dict[str, None] = {}
        self.short_of_memory = False

    def hear(self, text: str) -> None:
        """Called by MuPDF for every error and warning."""
        if ALLOCATION_FAILED.search(text):
            self.short_of_memory = True
        if len(self.said) < COMPLAINTS:
            self.said.setdefault(text[:200])

    def add(self, text: str) -> None:
        """What the worker found wrong by itself."""
        self.said.setdefault(text)

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """What fails here, for lack of memory or otherwise, is not needed for the answer."""
        said, short = dict(self.said), self.short_of_memory
        try:
            yield
        except (MemoryError, RuntimeError, mupdf.FzErrorBase):
            mupdf.fz_flush_warnings()
            self.said, self.short_of_memory = said, short

    def forget(self) -> None:
        """Begin anew."""
        mupdf.fz_flush_warnings()
        self.said.clear()
        self.short_of_memory = False

    def list(self) -> list[str]:
        """Everything heard since."""
        mupdf.fz_flush_warnings()
        return list(self.said)


class Worker:
    """Answers requests about one file."""

    def __init__(self) -> None:
        self.complaints = Complaints()
        self.doc: Any = None
        self.font = 0
        """Number of the font that words are added in; 0 while the file has none."""
        self.pixels: Any = None
        """The last rendering: it owns the memory that a reply's payload points into."""

    def open(self, request: Header) -> tuple[Header, memoryview | None]:
        """Open the file and say what it is; pages are looked at only when they are asked for."""
        self.doc = pymupdf.open(request["path"], filetype="pdf")
        doc = self.doc
        locked = bool(doc.needs_pass)
        pages = 0 if locked else int(doc.page_count)
        listed = 0
        if 0 < pages <= request["max_pages"]:
            listed = listed_pages(doc, request["max_pages"])
        return {
            "is_pdf": bool(doc.is_pdf),
            "locked": locked,
            "pages": pages,
            "listed": listed,
            "title": "" if locked else str((doc.metadata or {}).get("title") or ""),
        }, None

    def content(self, request: Header) -> tuple[Header, memoryview | None]:
        """The page's size, image objects, words and vector paths, in points as the page is shown.

        One pass over the page without decoding a pixel. At most ``max_items`` images, words and
        paths each are listed. More images are complained about; words and paths only mask
        lettering, and a scatter plot can hold a million.
        """
        page = self.doc[request["page"] - 1]
        limit = int(request["max_items"])
        shown = page.rect
        # Read before anything else: listing the paths rebuilds the page without its rotation.
        turn: Any = pymupdf.Matrix(page.rotation_matrix)
        commands = b""
        with self.complaints.unheard():
            commands = bytes(page.read_contents())
        drawn = drawn_images(page, commands)
        images = [
            {
                "xref": int(info["xref"]),
                "box": rounded(pymupdf.Rect(info["bbox"]) * turn),
                "transform": [float(value) for value in pymupdf.Matrix(info["transform"]) * turn],
                "size": [int(info["width"]), int(info["height"])],
            }
            for info in drawn[:limit]
        ]
        if len(drawn) > limit:
            self.complaints.add(f"more than {limit} images; the rest was not looked at one by one")
        if hidden := sum(is_out_of_sight(image, shown) for image in images):
            self.complaints.add(f"{hidden} of {len(images)} images out of sight")
        for xref in sorted({image["xref"] for image in images})[:MOST_IMAGES_CHECKED]:
            if lie := lying_size(self.doc, xref):
                self.complaints.add(lie)
        for name in missing_fonts(page, commands):
            self.complaints.add(f"cannot find Font resource '{name}'")
        words = [
            rounded(pymupdf.Rect(word[:4]) * turn)
            for word in page.get_text("words", sort=False)[:limit]
        ]
        paths: list[list[float]] = []
        for kind, box, *_ in page.get_bboxlog():
            if kind in ("fill-path", "stroke-path", "fill-shade") and len(paths) < limit:
                paths.append(rounded(pymupdf.Rect(box) * turn))
        size = [float(shown.width), float(shown.height)]
        return {"size": size, "images": images, "words": words, "paths": paths}, None

    def text(self, request: Header) -> tuple[Header, memoryview | None]:
        """The words of the text layer in the file's order, and what tells whether it is usable.

        At most ``max_items`` words are listed, and ``cut`` tells of the rest. Glyphs that the file
        gives no character for count as unknown. What is drawn on the page is listed as boxes by
        kind: text that shows, text that does not (as below a scan), images, and everything else.
        """
        page = self.doc[request["page"] - 1]
        limit = int(request["max_items"])
        shown = page.rect
        turn: Any = pymupdf.Matrix(page.rotation_matrix)
        found = page.get_text(
            "words", sort=False, flags=pymupdf.TEXT_PRESERVE_WHITESPACE | pymupdf.TEXT_MEDIABOX_CLIP
        )
        words = [
            [word[4][:WORD_LETTERS], *rounded(pymupdf.Rect(word[:4]) * turn), word[5], word[6]]
            for word in found[:limit]
        ]
        drawn: dict[str, list[list[float]]] = {"seen": [], "unseen": [], "images": [], "paths": []}
        for kind, box, *_ in page.get_bboxlog():
            listed = drawn[DRAWN_AS.get(kind, "paths")]
            if len(listed) < limit:
                listed.append(rounded(pymupdf.Rect(box) * turn))
        return {
            "size": [float(shown.width), float(shown.height)],
            "words": words,
            "cut": len(found) > limit or any(len(word[4]) > WORD_LETTERS for word in found[:limit]),
            "unknown": sum(word[4].count(UNKNOWN) for word in found),
            **drawn,
        }, None

    def add_text(self, request: Header) -> tuple[Header, memoryview | None]:
        """Write words onto a page that select and search as text and show nothing.

        Each word gets the width and height of its box, in a font without glyphs.
        """
        page = self.doc[request["page"] - 1]
        if self.font == 0:
            self.font = glyphless_font(self.doc)
        name_font(page, FONT_NAME, self.font)
        # From points as the page is shown to the file's own coordinates, and back to unit length.
        place: Any = pymupdf.Matrix(page.derotation_matrix) * ~pymupdf.Matrix(
            page.transformation_matrix
        )
        commands = ["q BT 3 Tr"]
        for text, x0, y0, x1, y1 in request["words"]:
            size, code = y1 - y0, text.encode("utf-16-be", "replace").hex()
            if size <= 0 or x1 <= x0 or not code:
                continue
            spread = 100 * (x1 - x0) / (GLYPH_WIDTH * size * len(code) / 4)
            corner: Any = pymupdf.Point(x0, y1) * place
            # Type is set upwards, and points count downwards.
            turned = (place.a, place.b, -place.c, -place.d, corner.x, corner.y)
            numbers = " ".join(f"{value:.4f}" for value in turned)
            commands.append(
                f"{numbers} Tm /{FONT_NAME} {size:.3f} Tf {spread:.3f} Tz <{code}0020> Tj"
            )
        commands.append("ET Q")
        page.wrap_contents()
        pymupdf.TOOLS._insert_contents(page, "\n".join(commands).encode(), 1)
        return {}, None

    def save(self, request: Header) -> tuple[Header, memoryview | None]:
        """Write what was added to the file; what was there stays as it is, byte by byte.

        A file that had to be repaired cannot be added to: it is written anew beside it, and takes
        its place.
        """
        doc, path = self.doc, self.doc.name
        if doc.can_save_incrementally():
            doc.saveIncr()
        else:
            anew = f"{path}.anew"
            doc.save(anew, deflate=True)
            os.replace(anew, path)  # noqa: PTH105
        doc.close()
        self.doc, self.font = pymupdf.open(path, filetype="pdf"), 0
        return {}, None

    def render(self, request: Header) -> tuple[Header, memoryview | None]:
        """Render a page or a part of it as RGB, at a lower resolution where it has too many pixels.

        The size is computed, and refused, before a pixel is allocated.
        """
        page = self.doc[request["page"] - 1]
        area = pymupdf.Rect(page.rect)
        if request["clip"] is not None:
            area = area & pymupdf.Rect(request["clip"])
        if not all(math.isfinite(v) for v in area) or area.is_empty:
            return refuse(f"page {request['page']} has no area to render"), None
        dpi, wanted = float(request["dpi"]), float(request["dpi"])
        square_inches = area.width * area.height / 72.0**2
        if square_inches * dpi**2 > request["max_pixels"]:
            dpi = math.sqrt(request["max_pixels"] / square_inches)
        if dpi < min(request["min_dpi"], wanted):
            return refuse(
                f"page {request['page']} measures {area.width / 72:.0f} x {area.height / 72:.0f} "
                f"inches; at {request['min_dpi']:.0f} dpi it would have more than the "
                f"{request['max_pixels'] / 1e6:.0f} megapixels that a page may have"
            ), None
        scale = pymupdf.Matrix(dpi / 72.0, dpi / 72.0)
        colors = pymupdf.csGRAY if request["grey"] else pymupdf.csRGB
        pixels = page.get_pixmap(matrix=scale, clip=area, alpha=False, colorspace=colors)
        self.pixels = pixels
        header = {"dpi": dpi, "shape": [pixels.height, pixels.width], "stride": pixels.stride}
        return header, pixels.samples_mv


def glyphless_font(doc: Any) -> int:
    """Add a font that has every character and draws none of them; returns its number in the file.

    Every code is the character of that number (``Identity-H``), and every glyph is the first.
    """

    def stream(data: bytes, entries: str = "") -> int:
        number = doc.get_new_xref()
        doc.update_object(number, f"<<{entries}>>")
        doc.update_stream(number, data, new=True, compress=True)
        return number

    def plain(entries: str) -> int:
        number = doc.get_new_xref()
        doc.update_object(number, f"<<{entries}>>")
        return number

    file = stream(GLYPHLESS, f"/Length1 {len(GLYPHLESS)}")
    described = plain(
        "/Type/FontDescriptor/FontName/GlyphLessFont/Flags 5/FontBBox[0 0 500 1000]/ItalicAngle 0"
        f"/Ascent 1000/Descent -1/CapHeight 1000/StemV 80/FontFile2 {file} 0 R"
    )
    glyphs = stream(b"\x00\x01" * 0x10000)
    family = plain(
        f"/Type/Font/Subtype/CIDFontType2/BaseFont/GlyphLessFont/CIDToGIDMap {glyphs} 0 R"
        "/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
        f"/FontDescriptor {described} 0 R/DW {1000 * GLYPH_WIDTH:.0f}"
    )
    return plain(
        "/Type/Font/Subtype/Type0/BaseFont/GlyphLessFont/Encoding/Identity-H"
        f"/DescendantFonts[{family} 0 R]/ToUnicode {stream(TO_UNICODE)} 0 R"
    )


def name_font(page: Any, name: str, font: int) -> None:
    """Let the page's commands call a font by a name."""
    pdf = mupdf.pdf_document_from_fz_document(page.parent.this)
    here = mupdf.pdf_page_from_fz_page(page.this).obj()
    resources = mupdf.pdf_dict_get_inheritable(here, mupdf.PDF_ENUM_NAME_Resources)
    if not resources.m_internal:
        resources = mupdf.pdf_dict_put_dict(here, mupdf.PDF_ENUM_NAME_Resources, 1)
    fonts = mupdf.pdf_dict_get(resources, mupdf.PDF_ENUM_NAME_Font)
    if not fonts.m_internal:
        fonts = mupdf.pdf_dict_put_dict(resources, mupdf.PDF_ENUM_NAME_Font, 1)
    mupdf.pdf_dict_puts(fonts, name, mupdf.pdf_new_indirect(pdf, font, 0))


def drawn_images(page: Any, commands: bytes) -> list[Header]:
    """The page's images in drawing order, each with its number in the file.

    MuPDF finds the numbers by decoding and hashing every image, which takes as long as rendering.
    The page's own drawing ``commands`` name them as well; where the two lists fit, they do.
    """
    drawn = page.get_image_info()
    if not drawn:
        return []
    named = {image[7]: image for image in page.get_images(full=True) if image[9] == 0}
    names = (name.decode("latin-1") for name in DRAW.findall(commands))
    listed = [named[name] for name in names if name in named]
    sizes = [(image[2], image[3]) for image in listed]
    if sizes != [(info["width"], info["height"]) for info in drawn]:
        return page.get_image_info(xrefs=True)
    return [{**info, "xref": image[0]} for info, image in zip(drawn, listed, strict=True)]


def is_out_of_sight(image: Header, shown: Any) -> bool:
    """Whether a page of this size shows nothing of an image: it is drawn elsewhere, or as a point.

    MuPDF takes operands that are no numbers for zeros, so one damaged command moves what follows
    off the page, or shrinks it to nothing, without a word.
    """
    x0, y0, x1, y1 = image["box"]
    a, b, c, d, *_ = image["transform"]
    on_page = x1 > 0 and x0 < shown.width and y1 > 0 and y0 < shown.height
    return not (on_page and abs(a * d - b * c) > 1e-9)


def missing_fonts(page: Any, commands: bytes) -> list[str]:
    """Fonts that the page's text is set in and that the page does not have.

    MuPDF sets it in another one without a word.
    """
    wanted = {name.decode("latin-1") for name in SET_FONT.findall(commands)}
    if not wanted:
        return []
    return sorted(wanted - {font[4] for font in page.get_fonts(full=True)})


def listed_pages(doc: Any, most: int) -> int:
    """Pages that the page tree lists, whatever it says their number is; counted up to ``most``.

    MuPDF believes the tree's own counts, so pages beyond a count that is too small are never seen.
    """
    waiting, seen, pages = [doc.xref_get_key(doc.pdf_catalog(), "Pages")], set[int](), 0
    while waiting and pages < most:
        kind, node = waiting.pop()
        for number in REFERENCE.findall(node) if kind in ("xref", "array") else ():
            xref = int(number)
            if not 0 < xref < doc.xref_length():
                continue
            kids = doc.xref_get_key(xref, "Kids")
            if kids[0] == "null":
                pages += 1
            elif xref not in seen:
                seen.add(xref)
                if kids[0] == "xref":
                    number = REFERENCE.findall(kids[1])[0]
                    kids = ("array", doc.xref_object(int(number), compressed=True))
                waiting.append(kids)
    return min(pages, most)


def lying_size(doc: Any, xref: int) -> str:
    """What is wrong with the size that an image object states; empty where nothing is.

    Such an image decodes without a complaint, into stripes.
    """
    if not 0 < xref < doc.xref_length():
        return ""

    def value(key: str) -> str:
        return doc.xref_get_key(xref, key)[1]

    width, height, name = value("Width"), value("Height"), value("Filter").strip("[] ")
    if name == "/DCTDecode":
        length = value("Length")
        if not length.isdigit() or int(length) > JPEG_HEADER_BYTES:
            return ""
        found = jpeg_size(doc.xref_stream_raw(xref) or b"")
        if found is not None and [str(side) for side in found] != [width, height]:
            return f"image data of {found[0]} x {found[1]} pixels in an image of {width} x {height}"
    columns = value("DecodeParms/Columns")
    parameters = name == "/CCITTFaxDecode" or value("DecodeParms/Predictor") not in ("null", "1")
    if parameters and columns.isdigit() and width.isdigit() and columns != width:
        return f"image data of {columns} columns in an image of {width} x {height}"
    return ""


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a JPEG's frame header; None where there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return (width, height) if height else None  # 0: told later, by a DNL marker
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def rounded(box: Any) -> list[float]:
    """A box as four numbers to a thousandth of a point."""
    return [round(float(value), 3) for value in box]


def refuse(message: str) -> Header:
    """The reply to a request that the file makes impossible."""
    return {"error": "input", "message": message}


def limit_data(megabytes: int) -> None:
    """Cap what this process may allocate; where the system has no such cap, leave it as it is."""
    with contextlib.suppress(ValueError, OSError):
        size = megabytes * MEGABYTE
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def end_with_parent() -> None:
    """Have the kernel kill this process with its caller, even in the middle of a page (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit_harm(timeout_s: float, writes: int) -> None:
    """No core dumps, no file beyond what may be written, no CPU time after the caller gave up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = math.ceil(usage.ru_utime + usage.ru_stime + timeout_s) + CPU_GRACE_S
    wanted = (
        (resource.RLIMIT_CORE, (0, 0)),
        (resource.RLIMIT_FSIZE, (writes, writes)),
        (resource.RLIMIT_CPU, (cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1])),
    )
    for kind, values in wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, values)


def answer(worker: Worker, request: Header) -> tuple[Header, memoryview | None]:
    """Answer one request; whatever the file provokes becomes a reply."""
    complaints = worker.complaints
    complaints.forget()
    try:
        operations = {
            "open": worker.open,
            "content": worker.content,
            "text": worker.text,
            "render": worker.render,
            "add_text": worker.add_text,
            "save": worker.save,
        }
        header, payload = operations[request["op"]](request)
    except MemoryError as error:
        header, payload = {"error": "memory", "message": str(error)}, None
    except Exception as error:  # noqa: BLE001 - MuPDF raises classes that share no base of their own
        text = f"{type(error).__name__}: {error}"
        complaints.hear(re.sub(r"^code=\d+: ", "", str(error.__cause__ or error)))
        header, payload = {"error": "input", "message": text[:500]}, None
    said = complaints.list()
    if complaints.short_of_memory:
        # MuPDF leaves out what it finds no memory for, and goes on.
        heard = next((text for text in said if ALLOCATION_FAILED.search(text)), "")
        header, payload = {"error": "memory", "message": heard[:500]}, None
    repaired = bool(worker.doc is not None and worker.doc.is_repaired)
    return {**header, "complaints": said, "repaired": repaired}, payload


def send(stream: BinaryIO, header: Header, payload: memoryview | None) -> None:
    """Write one frame."""
    size = payload.nbytes if payload is not None else 0
    body = json.dumps({**header, "payload": size}).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    if payload is not None:
        stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO) -> Header | None:
    """Read one frame; None when the caller has closed the pipe."""
    prefix = stream.read(4)
    if len(prefix) < 4:
        return None
    return json.loads(stream.read(struct.unpack(">I", prefix)[0]))


def main() -> None:
    """Answer requests from standard input until it is closed."""
    end_with_parent()
    limit_data(int(sys.argv[1]))
    writes = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond that fails, and is told
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print, of Python or of a C library, must not break the frames
    worker = Worker()
    mupdf.fz_set_warning_callback(worker.complaints.hear)
    mupdf.fz_set_error_callback(worker.complaints.hear)
    while (request := receive(requests)) is not None:
        limit_harm(float(request["timeout_s"]), writes)
        header, payload = answer(worker, request)
        send(replies, header, payload)
        del header, payload
        worker.pixels = None
        # MuPDF keeps decoded images and glyphs of earlier pages; drop them so that memory is flat.
        pymupdf.TOOLS.store_shrink(100)


if __name__ == "__main__":
    main()
