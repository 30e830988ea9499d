"""Pages that cannot be shown as they should: what each decoder does not survive, lies, circles.

What is wrong may cost that page, wholly or in part, and the reason has to say so; the pages beside
it are read. ``FILES`` holds them all, seven behind a sound page in each file.
"""

import io
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from benchmarks.faults.specimens import assemble, stream
from samples import micrographs

WIDTH, HEIGHT = 240, 160
SHOW = b"q 60 0 0 40 40 200 cm /Im0 Do Q"
FLATE = b"/Filter /FlateDecode"


@dataclass(frozen=True)
class HostilePage:
    """One case.

    Attributes:
        name: What is wrong.
        objects: The page's objects: 6 is its content, 10 is what ``/Im0`` names, others follow.
        content: Its drawing commands.
        resources: More of its resources.
        page: More of its dictionary.
        reason: A regular expression for what is said of the page; empty where nothing is.
    """

    name: str
    objects: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    content: bytes = SHOW
    resources: bytes = b""
    page: bytes = b""
    reason: str = r"could not be decoded completely"

    def numbered(self, base: int) -> dict[int, bytes]:
        """The page, as object ``base``, and its objects, as those behind it."""
        own = {6: stream(self.content), **self.objects}
        page = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 320 400] /Contents 6 0 R /Resources "
            b"<< /XObject << /Im0 10 0 R >> %s >> %s >>" % (self.resources, self.page)
        )
        objects = {base: page, **{base + number: body for number, body in own.items()}}

        def moved(found: re.Match[bytes]) -> bytes:
            number = int(found[1])
            return b"%d 0 R" % (base + number if number in own else number)

        def with_references(body: bytes) -> bytes:
            head, marker, data = body.partition(b"stream\n")
            return re.sub(rb"\b(\d+) 0 R", moved, head) + marker + data

        return {number: with_references(body) for number, body in objects.items()}


def write_pages(path: Path, pages: Sequence[HostilePage]) -> Path:
    """Write a file of one sound page and these, from page 2 on."""
    first, step = 20, 20
    good = micrographs.histology(np.random.default_rng([len(path.name), 9]), HEIGHT, WIDTH, 26)
    kids = b" ".join(b"%d 0 R" % (first + k * step) for k in range(len(pages)))
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R %s] /Count %d >>" % (kids, len(pages) + 1),
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 320 400] /Contents 4 0 R "
        b"/Resources << /XObject << /Im0 5 0 R >> >> >>",
        4: stream(SHOW),
        5: image(zlib.compress(good.tobytes()), FLATE),
    }
    for k, page in enumerate(pages):
        objects |= page.numbered(first + k * step)
    path.write_bytes(assemble(objects))
    return path


def image(
    data: bytes,
    entries: bytes,
    *,
    size: tuple[object, object] = (WIDTH, HEIGHT),
    space: bytes = b"/DeviceRGB",
    bits: int = 8,
) -> bytes:
    """An image object."""
    head = f"/Type /XObject /Subtype /Image /Width {size[0]} /Height {size[1]} "
    head += f"/BitsPerComponent {bits} /ColorSpace {space.decode()} "
    return stream(data, head.encode() + entries)


def _shown(data: bytes, entries: bytes, **options: object) -> dict[int, bytes]:
    return {10: image(data, entries, **options)}  # pyright: ignore[reportArgumentType]


def _encoded(form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(PICTURE).save(out, form, **options)
    return out.getvalue()


def jpeg_of_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG file whose header states another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def jpx_of_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG 2000 file whose codestream states another size."""
    at = data.index(b"\xff\x51") + 6
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def jbig2_page(width: int, height: int, more: bytes = b"") -> bytes:
    """A JBIG2 stream that begins with a page of this size."""
    page = struct.pack(">IIIIBH", width, height, 0, 0, 0, 0)
    return struct.pack(">IBBBI", 0, 48, 0, 1, len(page)) + page + more


PICTURE = micrographs.histology(np.random.default_rng(77), HEIGHT, WIDTH, 26)
RAW = PICTURE.tobytes()
PACKED = zlib.compress(RAW)
JPEG = _encoded("JPEG", quality=90)
JPX = _encoded("JPEG2000")
GARBAGE = b"not an image at all. " * 200
GRAY = b"/DeviceGray"
FAX = b"/Filter /CCITTFaxDecode /DecodeParms << /K -1 /Columns %d /Rows %d >>"
PREDICTED = b"/Filter /FlateDecode /DecodeParms << /Predictor 15 /Colors 3 /Columns %d >>"
MISSING = r"is not in the file"
COMMANDS = r"the drawing commands are damaged"

PAGES: tuple[HostilePage, ...] = (
    # Streams that end early, or are noise, one for each decoder.
    HostilePage("flate truncated", _shown(PACKED[:9000], FLATE)),
    HostilePage("flate garbage", _shown(GARBAGE, FLATE)),
    HostilePage("flate empty", _shown(b"", FLATE)),
    HostilePage("flate bad checksum", _shown(PACKED[:-4] + b"oops", FLATE)),
    HostilePage("raw too short", _shown(RAW[:999], b"")),
    HostilePage("dct truncated", _shown(JPEG[: len(JPEG) // 2], b"/Filter /DCTDecode")),
    HostilePage("dct garbage", _shown(b"\xff\xd8\xff" + GARBAGE, b"/Filter /DCTDecode")),
    HostilePage("jpx truncated", _shown(JPX[: len(JPX) // 2], b"/Filter /JPXDecode")),
    HostilePage("jpx header only", _shown(JPX[:90], b"/Filter /JPXDecode")),
    HostilePage("jpx garbage", _shown(GARBAGE, b"/Filter /JPXDecode")),
    HostilePage("jbig2 garbage", _shown(GARBAGE, b"/Filter /JBIG2Decode", space=GRAY, bits=1)),
    HostilePage(
        "jbig2 without globals",
        _shown(
            jbig2_page(WIDTH, HEIGHT),
            b"/Filter /JBIG2Decode /DecodeParms << /JBIG2Globals 99 0 R >>",
            space=GRAY,
            bits=1,
        ),
    ),
    HostilePage("fax garbage", _shown(GARBAGE, FAX % (WIDTH, HEIGHT), space=GRAY, bits=1)),
    HostilePage("lzw garbage", _shown(GARBAGE, b"/Filter /LZWDecode")),
    HostilePage("run length garbage", _shown(GARBAGE, b"/Filter /RunLengthDecode")),
    HostilePage("ascii85 garbage", _shown(b"\x01" + GARBAGE, b"/Filter /ASCII85Decode")),
    HostilePage("hex garbage", _shown(GARBAGE, b"/Filter /ASCIIHexDecode")),
    HostilePage("unknown filter", _shown(PACKED, b"/Filter /PocketDecode")),
    HostilePage("filters in the wrong order", _shown(PACKED, b"/Filter [/DCTDecode /FlateDecode]")),
    # Sizes that lie.
    HostilePage(
        "jpeg of 65500 pixels",
        _shown(jpeg_of_size(JPEG, 65_500, 65_500), b"/Filter /DCTDecode"),
        reason=r"image data of 65500 x 65500 pixels in an image of 240 x 160",
    ),
    HostilePage("jpeg smaller", _shown(jpeg_of_size(JPEG, 30, 20), b"/Filter /DCTDecode")),
    HostilePage(
        "image of 30000 pixels", _shown(JPEG, b"/Filter /DCTDecode", size=(30_000, 30_000))
    ),
    HostilePage(
        "jpx of 60000 pixels", _shown(jpx_of_size(JPX, 60_000, 60_000), b"/Filter /JPXDecode")
    ),
    HostilePage(
        "jpx of 2 billion pixels",
        _shown(jpx_of_size(JPX, 2**31 - 1, 2**31 - 1), b"/Filter /JPXDecode"),
    ),
    HostilePage(
        "jbig2 of 2 billion pixels",
        _shown(jbig2_page(2**31 - 1, 2**31 - 1), b"/Filter /JBIG2Decode", space=GRAY, bits=1),
    ),
    HostilePage(
        "fax of 2 billion columns",
        _shown(GARBAGE, FAX % (2_000_000_000, 2_000_000_000), space=GRAY, bits=1),
        reason=r"needs more than|its budget is|could not be decoded",
    ),
    HostilePage("predictor of 200 million columns", _shown(PACKED, PREDICTED % 200_000_000)),
    HostilePage(
        "predictor of other columns",
        _shown(zlib.compress(bytes(100_000)), PREDICTED % 99),
        reason=r"image data of 99 columns in an image of 240 x 160",
    ),
    HostilePage("width zero", _shown(PACKED, FLATE, size=(0, HEIGHT))),
    HostilePage("width negative", _shown(PACKED, FLATE, size=(-240, HEIGHT))),
    HostilePage(
        "width beyond numbers",
        _shown(PACKED, FLATE, size=("9" * 30, HEIGHT)),
        reason=r"needs more than|its budget is|could not be decoded",
    ),
    HostilePage("seven bits", _shown(PACKED, FLATE, bits=7)),
    HostilePage(
        "color space missing", _shown(PACKED, FLATE, space=b"99 0 R"), reason="could not|is not in"
    ),
    HostilePage(
        "palette missing",
        _shown(PACKED, FLATE, space=b"[/Indexed /DeviceRGB 255 99 0 R]"),
        reason=MISSING,
    ),
    HostilePage(
        "mask garbage",
        {**_shown(PACKED, FLATE + b" /SMask 11 0 R"), 11: image(GARBAGE, FLATE, space=GRAY)},
    ),
    HostilePage(
        "mask of itself",
        _shown(PACKED, FLATE + b" /SMask 10 0 R"),
    ),
    # Commands.
    HostilePage("image missing", content=b"q 60 0 0 40 40 200 cm /Gone Do Q", reason=MISSING),
    HostilePage("image is nothing", {10: b"<< >>"}, reason=MISSING),
    HostilePage("content is nothing", {6: b"<< >>", **_shown(PACKED, FLATE)}, reason=COMMANDS),
    HostilePage(
        "content truncated",
        {6: stream(zlib.compress(SHOW * 40)[:20], FLATE), **_shown(PACKED, FLATE)},
    ),
    HostilePage(
        "content garbage",
        _shown(PACKED, FLATE),
        content=np.random.default_rng(3).integers(0, 256, 4000, np.uint8).tobytes(),
        reason=COMMANDS,
    ),
    HostilePage(
        "content nested",
        _shown(PACKED, FLATE),
        content=b"[" * 100_000,
        reason=r"cannot be read: it is nested deeper than can be followed",
    ),
    HostilePage(
        "states nested",
        _shown(PACKED, FLATE),
        content=b"q " * 200_000 + SHOW,
        reason=r"cannot be read: too many nested graphics states",
    ),
    HostilePage(
        "inline image truncated",
        content=b"q 60 0 0 40 40 200 cm BI /W 240 /H 160 /CS /RGB /BPC 8 ID " + RAW[:2000],
    ),
    HostilePage(
        "matrix without end",
        _shown(PACKED, FLATE),
        content=b"q 4e99 0 0 1e40 100 300 cm /Im0 Do Q",
        reason=COMMANDS,
    ),
    HostilePage(
        "font missing",
        content=b"BT /F7 12 Tf 40 300 Td (Scale bar) Tj ET",
        reason=r"is not in the file \(cannot find Font resource 'F7'\)",
    ),
    HostilePage(
        "font broken",
        {
            11: b"<< /Type /Font /Subtype /TrueType /BaseFont /Broken /FirstChar 32 /LastChar 33 "
            b"/Widths [500 500] /FontDescriptor 12 0 R >>",
            12: b"<< /Type /FontDescriptor /FontName /Broken /Flags 4 /FontFile2 13 0 R >>",
            13: stream(GARBAGE),
        },
        content=b"BT /F1 12 Tf 40 300 Td (Scale bar) Tj ET",
        resources=b"/Font << /F1 11 0 R >>",
        reason=r"a font could not be read",
    ),
    # Circles.
    HostilePage(
        "type 3 glyph of itself",
        {
            11: b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 1000 1000] /FirstChar 97 "
            b"/LastChar 97 /Widths [1000] /FontMatrix [.001 0 0 .001 0 0] "
            b"/Encoding << /Differences [97 /a] >> /CharProcs << /a 12 0 R >> "
            b"/Resources << /Font << /F1 11 0 R >> >> >>",
            12: stream(b"1000 0 d0 BT /F1 500 Tf (a) Tj ET 0 0 500 500 re f"),
            **_shown(PACKED, FLATE),
        },
        content=b"BT /F1 40 Tf 40 100 Td (aaa) Tj ET " + SHOW,
        resources=b"/Font << /F1 11 0 R >>",
        reason=r"damaged|could not",
    ),
    HostilePage(
        "pattern of itself",
        {
            11: stream(
                b"/Pattern cs /P1 scn 0 0 9 9 re f",
                b"/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 9 9] "
                b"/XStep 9 /YStep 9 /Resources << /Pattern << /P1 11 0 R >> >>",
            ),
            **_shown(PACKED, FLATE),
        },
        content=b"/Pattern cs /P1 scn 10 10 90 90 re f " + SHOW,
        resources=b"/Pattern << /P1 11 0 R >>",
        reason=r"cannot be read: it is nested deeper than can be followed",
    ),
    HostilePage(
        "function of itself",
        {
            11: b"<< /FunctionType 3 /Domain [0 1] /Functions [11 0 R 11 0 R] /Bounds [.5] "
            b"/Encode [0 1 0 1] >>",
            10: image(PACKED, FLATE, space=b"[/Separation /Ink /DeviceRGB 11 0 R]"),
        },
        reason=r"damaged|could not",
    ),
    HostilePage(
        "length of itself",
        {6: b"<< /Length 6 0 R >>\nstream\n" + SHOW + b"\nendstream", **_shown(PACKED, FLATE)},
        reason="",  # the stream ends where it says so
    ),
    HostilePage(
        "annotation of itself",
        {
            11: b"<< /Type /Annot /Subtype /Stamp /Rect [40 20 200 100] /AP << /N 12 0 R >> >>",
            12: stream(
                b"/Fm0 Do 0 0 50 50 re f",
                b"/Type /XObject /Subtype /Form /BBox [0 0 160 80] "
                b"/Resources << /XObject << /Fm0 12 0 R >> >>",
            ),
            **_shown(PACKED, FLATE),
        },
        page=b"/Annots [11 0 R]",
        reason="",
    ),
    # Sizes of the page itself.
    HostilePage(
        "image off the page",
        _shown(PACKED, FLATE),
        content=b"q 60 0 0 40 4000 200 cm /Im0 Do Q",
        reason=r"outside the visible part of the page.*1 of 1 images",
    ),
    HostilePage(
        "matrix of a name",
        _shown(PACKED, FLATE),
        content=b"q /Im0 0 0 /Im0 40 200 cm /Im0 Do Q",
        reason=r"outside the visible part of the page.*1 of 1 images",
    ),
    HostilePage(
        "page cut away",
        _shown(PACKED, FLATE),
        page=b"/CropBox [0 0 3 400]",
        reason=r"outside the visible part of the page.*1 of 1 images",
    ),
    HostilePage(
        "page without area",
        _shown(PACKED, FLATE),
        page=b"/CropBox [900 900 900 900]",
        reason="",  # the box is void, so the page is shown whole
    ),
    # Data that is elsewhere: nothing outside the file is read.
    HostilePage("data in another file", _shown(b"", b"/F (/etc/hostname)")),
)


PAGES_PER_FILE = 7

FILES: dict[str, tuple[HostilePage, ...]] = {
    f"pages_{start // PAGES_PER_FILE + 1}": PAGES[start : start + PAGES_PER_FILE]
    for start in range(0, len(PAGES), PAGES_PER_FILE)
}
"""Every case by the name of its file; its page is its place in the file, from 2 on."""


def laughter(path: Path, depth: int = 12) -> Path:
    """A page whose forms each draw the next one ten times: ten to the twelfth rectangles."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents 5 0 R "
        b"/Resources << /XObject << /Fm0 6 0 R >> >> >>",
        4: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
        5: stream(b"/Fm0 Do"),
    }
    for level in range(depth):
        inner = b"/Fm0 Do " * 10 if level < depth - 1 else b"10 10 50 50 re f"
        following = b"/Resources << /XObject << /Fm0 %d 0 R >> >>" % (7 + level)
        objects[6 + level] = stream(
            inner, b"/Type /XObject /Subtype /Form /BBox [0 0 300 300] " + following
        )
    objects[6 + depth] = stream(b"", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    path.write_bytes(assemble(objects))
    return path
