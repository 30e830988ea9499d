"""Sound PDFs to be broken: small, different in what they are made of, and each with panels.

Every image codec, filter and way of storing objects that papers use is in one of them. All are
read without a complaint, so whatever is said about a mutation of one is owed to the mutation.
"""

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image as Pillow

import samples.make
from core.geometry import Image
from samples import micrographs

SAMPLES = Path(samples.make.__file__).parent
WIDTH_PX, HEIGHT_PX = 240, 160


@dataclass(frozen=True)
class Specimen:
    """One sound file.

    Attributes:
        name: What it is made of.
        data: The file.
    """

    name: str
    data: bytes


@cache
def specimens() -> tuple[Specimen, ...]:
    """All of them; equal on every call and every machine."""
    return tuple(Specimen(name, data) for name, data in _made())


def assemble(objects: dict[int, bytes], trailer: bytes = b"") -> bytes:
    """A PDF file from numbered objects; object 1 is the catalog."""
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    offsets: dict[int, int] = {}
    for number, body in objects.items():
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        used = number in offsets
        out += b"%010d %05d %s \n" % (offsets.get(number, 0), 0, b"n" if used else b"f")
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        size,
        trailer,
        start,
    )
    return bytes(out)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    """A stream object's body."""
    return b"<< /Length %d %s >>\nstream\n" % (len(data), entries) + data + b"\nendstream"


def _made() -> Iterator[tuple[str, bytes]]:
    picture, other = _picture(1), _picture(2)
    raw = picture.tobytes()
    flate = (zlib.compress(raw), b"/Filter /FlateDecode")
    yield "flate", _page([flate, (zlib.compress(other.tobytes()), b"/Filter /FlateDecode")])
    yield "dct", _page([(_encoded(picture, "JPEG", quality=90), b"/Filter /DCTDecode")])
    progressive = _encoded(other, "JPEG", quality=85, progressive=True)
    yield "dct progressive", _page([(progressive, b"/Filter /DCTDecode")])
    yield "jpx", _page([(_encoded(picture, "JPEG2000"), b"/Filter /JPXDecode")])
    packed = zlib.compress(_encoded(picture, "JPEG", quality=90))
    yield "flate of dct", _page([(packed, b"/Filter [/FlateDecode /DCTDecode]")])
    hexed = zlib.compress(raw).hex().encode() + b">"
    yield "hex of flate", _page([(hexed, b"/Filter [/ASCIIHexDecode /FlateDecode]")])
    rows = b"".join(
        b"\x01" + bytes(row[:3]) + bytes((row[3:].astype(int) - row[:-3]).astype(np.uint8))
        for row in picture.reshape(HEIGHT_PX, -1)
    )
    predicted = b"/Filter /FlateDecode /DecodeParms << /Predictor 15 /Colors 3 /Columns %d >>"
    yield "predictor", _page([(zlib.compress(rows), predicted % WIDTH_PX)])
    runs = b"".join(b"\x7f" + raw[at : at + 128] for at in range(0, len(raw), 128)) + b"\x80"
    yield "run length", _page([(runs, b"/Filter /RunLengthDecode")])
    bits = _fax(picture)
    fax = b"/Filter /CCITTFaxDecode /DecodeParms << /K -1 /Columns %d /Rows %d >>"
    yield "fax", _page([(bits, fax % (WIDTH_PX, HEIGHT_PX))], bits=1)
    yield "jbig2", _page([(_jbig2(bits), b"/Filter /JBIG2Decode /Decode [1 0]")], bits=1)
    yield "soft mask", _masked(picture)
    yield "indexed", _indexed(picture)
    yield "inline", _inline(picture)
    yield "forms and fonts", _forms(picture)
    yield "owner password", _encrypted(_page([flate]))
    for number in (1, 2, 3, 4):
        yield from _excerpt(number)


def _picture(seed: int) -> Image:
    rng = np.random.default_rng([seed, 5])
    return micrographs.histology(rng, HEIGHT_PX, WIDTH_PX, 26)


def _encoded(picture: Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(picture).save(out, form, **options)
    return out.getvalue()


def _fax(picture: Image) -> bytes:
    """The picture in black and white, packed as a fax (T.6)."""
    out = io.BytesIO()
    Pillow.fromarray(picture).convert("1").save(out, "TIFF", compression="group4")
    tags = Pillow.open(out).tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    offsets, counts = tags[273], tags[279]
    return b"".join(
        out.getvalue()[at : at + size] for at, size in zip(offsets, counts, strict=True)
    )


def _jbig2(fax: bytes) -> bytes:
    """A JBIG2 stream of one page with one generic region, packed as a fax."""

    def segment(number: int, kind: int, body: bytes) -> bytes:
        return struct.pack(">IBBBI", number, kind, 0, 1, len(body)) + body

    page = struct.pack(">IIIIBH", WIDTH_PX, HEIGHT_PX, 0, 0, 0, 0)
    region = struct.pack(">IIIIBB", WIDTH_PX, HEIGHT_PX, 0, 0, 0, 1) + fax
    return segment(0, 48, page) + segment(1, 38, region)


def _page(
    images: list[tuple[bytes, bytes]],
    *,
    bits: int = 8,
    space: bytes | None = None,
    more: dict[int, bytes] | None = None,
) -> bytes:
    """One page that shows each image 160 points wide, below each other, with a caption."""
    objects: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        5: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    commands = b"BT /F1 9 Tf 40 370 Td (Figure 1. A synthetic panel.) Tj ET\n"
    named = b""
    for k, (data, entries) in enumerate(images):
        number = 6 + k
        drawn = space or (b"/DeviceGray" if bits == 1 else b"/DeviceRGB")
        objects[number] = stream(
            data,
            b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent %d "
            b"/ColorSpace %s %s" % (WIDTH_PX, HEIGHT_PX, bits, drawn, entries),
        )
        named += b"/Im%d %d 0 R " % (k, number)
        commands += b"q 180 0 0 120 40 %d cm /Im%d Do Q\n" % (230 - 140 * k, k)
    objects[4] = stream(zlib.compress(commands), b"/Filter /FlateDecode")
    objects[3] = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 280 400] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> /XObject << %s>> >> >>" % named
    )
    return assemble(dict(sorted((objects | (more or {})).items())))


def _masked(picture: Image) -> bytes:
    mask = np.full((HEIGHT_PX, WIDTH_PX), 255, np.uint8)
    mask[:20, :20] = 0
    entries = b"/Filter /FlateDecode /SMask 20 0 R"
    soft = stream(
        zlib.compress(mask.tobytes()),
        b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 8 "
        b"/ColorSpace /DeviceGray /Filter /FlateDecode" % (WIDTH_PX, HEIGHT_PX),
    )
    return _page([(zlib.compress(picture.tobytes()), entries)], more={20: soft})


def _indexed(picture: Image) -> bytes:
    reduced = Pillow.fromarray(picture).quantize(64)
    palette = stream(bytes(reduced.getpalette() or [])[: 64 * 3])
    data = zlib.compress(np.asarray(reduced).tobytes())
    space = b"[/Indexed /DeviceRGB 63 20 0 R]"
    return _page([(data, b"/Filter /FlateDecode")], space=space, more={20: palette})


def _inline(picture: Image) -> bytes:
    data = zlib.compress(picture.tobytes()).hex().encode() + b">"
    commands = (
        b"q 180 0 0 120 40 230 cm BI /W %d /H %d /CS /RGB /BPC 8 /F [/AHx /Fl] ID %s EI Q"
        % (WIDTH_PX, HEIGHT_PX, data)
    )
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 280 400] /Contents 4 0 R >>",
        4: stream(commands),
    }
    return assemble(objects)


def _forms(picture: Image) -> bytes:
    """An image and an embedded font inside a form."""
    doc = pymupdf.open()
    inner = doc.new_page(width=280, height=400)
    inner.insert_image(pymupdf.Rect(40, 50, 220, 170), stream=_encoded(picture, "PNG"))
    inner.insert_text((40, 200), "Scale bar 20 um", fontname="helv", fontsize=9)
    inner.insert_font("F9", fontbuffer=pymupdf.Font("cjk").buffer)
    inner.insert_text((40, 240), "Embedded \u0391\u03b2", fontname="F9", fontsize=11)
    doc.subset_fonts()
    outer = pymupdf.open()
    page = outer.new_page(width=280, height=400)
    page.show_pdf_page(page.rect, doc, 0)
    return outer.tobytes(deflate=True, garbage=3, no_new_id=True)


def _encrypted(data: bytes) -> bytes:
    """The file with an owner's password, by the one method of PDF that uses no random numbers."""
    filler = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    permissions = struct.pack("<i", -4)
    owner = _rc4(hashlib.md5((b"owner" + filler)[:32]).digest()[:5], filler)
    key = hashlib.md5(filler + owner + permissions + b"\0").digest()[:5]
    objects: dict[int, bytes] = {}
    for found in re.finditer(rb"(\d+) 0 obj\n(.*?)\nendobj\n", data, re.DOTALL):
        number, body = int(found[1]), found[2]
        head, marker, rest = body.partition(b"stream\n")
        if marker:
            own = hashlib.md5(key + struct.pack("<I", number)[:3] + b"\0\0").digest()[:10]
            rest = _rc4(own, rest.removesuffix(b"\nendstream")) + b"\nendstream"
        objects[number] = head + marker + rest
    trailer = b"/ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>"
    return assemble(objects, trailer % (owner.hex().encode(), _rc4(key, filler).hex().encode()))


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(data), 0, 0
    for at in range(len(out)):
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out[at] ^= state[(state[i] + state[j]) % 256]
    return bytes(out)


def _excerpt(number: int) -> Iterator[tuple[str, bytes]]:
    """The page of a sample paper that shows most images, stored in two ways."""
    doc = pymupdf.open(SAMPLES / f"paper-{number}.pdf")
    counts = [len(page.get_image_info()) for page in doc]
    doc.select([counts.index(max(counts))])
    plain = doc.tobytes(garbage=4, deflate=True, no_new_id=True)
    yield f"paper {number}", plain
    packed = doc.tobytes(garbage=4, deflate=True, no_new_id=True, use_objstms=1)
    yield f"paper {number}, object streams", packed
