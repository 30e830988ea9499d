"""Files that go wrong: broken, misleading and hostile PDFs, made on the fly for the tests.

``HOSTILE`` names every case, its maker, and what reading it must come to:

- ``"ok"``: the document is read to its end, whatever odd thing it carries, and within the memory
  budget: what a bomb costs is time;
- ``"degraded"``: part of it is read, and the result says which part is not;
- ``"failed"``: the document is refused with a reason; nothing else is harmed.

A maker takes a folder and returns the path of the file it wrote there. ``small_paper`` writes a
well-formed two-page paper with known duplicates in well under a second.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pymupdf
from PIL import Image as Pillow

from samples import micrographs
from tests.hostile_pages import FILES, jpeg_of_size, write_pages

Maker = Callable[[Path], Path]
Expectation = Literal["ok", "degraded", "failed"]
Box = tuple[float, float, float, float]

LETTER_PT = (612.0, 792.0)
AES_256 = 5
PERMIT_PRINT = 4
# PyMuPDF's PDF_ENCRYPT_AES_256 and PDF_PERM_PRINT, which its type stubs do not know.
DETERMINISTIC = {"deflate": True, "garbage": 1, "no_new_id": True}


def jpeg(image: micrographs.Image, quality: int = 92) -> bytes:
    """The image as a JPEG file."""
    out = io.BytesIO()
    Pillow.fromarray(image).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def png(image: micrographs.Image) -> bytes:
    """The image as a PNG file."""
    out = io.BytesIO()
    Pillow.fromarray(image).save(out, "PNG")
    return out.getvalue()


def small_paper(
    path: Path, seed: int, panels: int = 6, planted: int = 1, width_pt: float = 160.0
) -> dict[str, Any]:
    """Write a two-page paper with known duplicates, quickly.

    The first half of the panels is on page 1, the rest on page 2; the last ones are copies of the
    first ones: ``planted`` exact copies (same pixels), then ``planted`` turned by 90 degrees.

    Args:
        path: Where the PDF goes.
        seed: Equal seeds write equal files; other seeds share no image.
        panels: All panels, copies included; from 2 to 24.
        planted: How many exact and how many rotated copies; 0 for a clean paper.
        width_pt: How wide panels are shown; small ones are searched sooner.

    Returns:
        The truth in the shape of ``samples/truth.json``: ``docs``, ``pairs``, ``hard_negatives``.

    Raises:
        ValueError: The copies would need more originals than there are.
    """
    if 4 * planted > panels or not 2 <= panels <= 24:
        raise ValueError(f"{panels} panels do not hold {planted} exact and {planted} turned copies")

    rng = np.random.default_rng([seed, 71])
    originals = [_small_panel(rng, k) for k in range(panels - 2 * planted)]
    images = [Pillow.open(io.BytesIO(jpeg(image))) for image, _ in originals]
    pixels = [np.asarray(image.convert("RGB")) for image in images]
    kinds = [kind for _, kind in originals]
    files = [jpeg(image) for image, _ in originals]
    copies: list[tuple[int, int, str]] = []
    for k in range(2 * planted):
        exact = k < planted
        copies.append((k, len(files), "exact" if exact else "rot90_180"))
        files.append(png(pixels[k] if exact else np.ascontiguousarray(np.rot90(pixels[k]))))
        kinds.append(kinds[k])

    doc = pymupdf.open()
    first = (panels + 1) // 2
    pages: list[dict[str, Any]] = []
    placed: list[dict[str, Any]] = []
    for number, chosen in ((1, range(first)), (2, range(first, panels))):
        page = doc.new_page(width=LETTER_PT[0], height=LETTER_PT[1])
        page.insert_text((54, 60), f"A small synthetic paper, number {seed}", fontsize=12)
        page_panels: list[dict[str, Any]] = []
        for slot, k in enumerate(chosen):
            column, row = slot % 3, slot // 3
            x, y = 54 + column * 172.0, 90 + row * 158.0
            box = [x, y, x + width_pt, y + 0.8 * width_pt]
            if k >= panels - planted and planted:
                box = [x, y, x + 0.64 * width_pt, y + 0.8 * width_pt]
            page.insert_image(pymupdf.Rect(box), stream=files[k], keep_proportion=False)
            page.insert_text((x, y + 138), f"({chr(97 + k)}) {kinds[k]}", fontsize=7)
            panel = {"id": f"p{number}_{slot}", "bbox": box, "kind": "image", "modality": kinds[k]}
            page_panels.append(panel | {"source": f"seed{seed}/{k}"})
            placed.append({"doc": path.name, "page": number, "bbox": box, "panel": panel["id"]})
        page.insert_text((54, 760), "Synthetic sample, not a real paper", fontsize=7)
        pages.append(
            {"page": number, "width": 612, "height": 792, "figures": [], "panels": page_panels}
        )
    doc.save(path, **DETERMINISTIC)
    doc.close()
    pairs = [
        {
            "id": n,
            "cls": cls,
            "scope": "same_page" if placed[a]["page"] == placed[b]["page"] else "cross_page",
            "relation": "same_image",
            "transform": {} if cls == "exact" else {"rot": 90},
            "modality": kinds[a],
            "a": placed[a] | {"region": placed[a]["bbox"]},
            "b": placed[b] | {"region": placed[b]["bbox"]},
        }
        for n, (a, b, cls) in enumerate(copies)
    ]
    docs = [{"file": path.name, "pages": pages}]
    return {"pool": "small", "seed": seed, "docs": docs, "pairs": pairs, "hard_negatives": []}


def _small_panel(rng: np.random.Generator, k: int) -> tuple[micrographs.Image, str]:
    """One 320 x 256 px image and its modality, another modality for each ``k`` in turn."""
    size = (256, 320)
    match k % 4:
        case 0:
            return micrographs.gray(micrographs.nuclei(rng, *size, 52)), "fluorescence"
        case 1:
            return micrographs.histology(rng, *size, 30), "histology"
        case 2:
            return micrographs.phase(rng, *size, 50), "brightfield"
        case _:
            image = micrographs.tint(micrographs.puncta(rng, *size, 60), (1, 0.3, 0.2))
            return image, "fluorescence"


def assemble(objects: dict[int, bytes], *, trailer: bytes = b"", xref: bool = True) -> bytes:
    """A PDF file from numbered objects; object 1 is the catalog.

    Nothing is checked, so that any contradiction can be written down. Without ``xref`` the offset
    table is wrong and a reader has to repair the file.
    """
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    offsets: dict[int, int] = {}
    for number, body in objects.items():
        offsets[number] = len(out) if xref else 7
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % offsets.get(number, 0)
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\n" % (size, trailer)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % (start if xref else 11))


def stream(data: bytes, entries: bytes = b"") -> bytes:
    """A stream object's body."""
    return b"<< /Length %d %s >>\nstream\n" % (len(data), entries) + data + b"\nendstream"


def deflated_zeros(size_bytes: int) -> bytes:
    """What ``zlib`` would make of that many zero bytes, without compressing them all."""
    chunk = 1 << 20

    def block(length: int) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(bytes(length)) + packer.flush(zlib.Z_FULL_FLUSH)

    blocks = block(chunk) * (size_bytes // chunk) + block(size_bytes % chunk)
    adler = (size_bytes % 65521) << 16 | 1
    return b"\x78\xda" + blocks + b"\x03\x00" + adler.to_bytes(4, "big")


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _good(folder: Path, seed: int) -> bytes:
    """A well-formed small paper, as bytes."""
    path = folder / f"good-{seed}.pdf"
    small_paper(path, seed, panels=2, planted=0, width_pt=50)
    data = path.read_bytes()
    path.unlink()
    return data


def _saved(folder: Path, name: str, doc: Any, **options: Any) -> Path:
    path = folder / name
    doc.save(path, **options)
    doc.close()
    return path


def encrypted_for_readers(folder: Path) -> Path:
    """Opens only with a password."""
    doc = pymupdf.open(stream=_good(folder, 1), filetype="pdf")
    return _saved(
        folder,
        "encrypted-user.pdf",
        doc,
        encryption=AES_256,
        owner_pw="owner",
        user_pw="reader",
    )


def encrypted_for_owners(folder: Path) -> Path:
    """Opens without a password; only changes are forbidden, as publishers like it."""
    doc = pymupdf.open(stream=_good(folder, 2), filetype="pdf")
    return _saved(
        folder,
        "encrypted-owner.pdf",
        doc,
        encryption=AES_256,
        owner_pw="owner",
        user_pw="",
        permissions=PERMIT_PRINT,
    )


def truncated(folder: Path) -> Path:
    """A download that stopped halfway: the page tree is there, the last images are not."""
    data = _good(folder, 3)
    return _write(folder, "truncated.pdf", data[: len(data) // 2])


def truncated_early(folder: Path) -> Path:
    """A download that stopped before the first page."""
    return _write(folder, "truncated-early.pdf", _good(folder, 3)[:60])


def zero_bytes(folder: Path) -> Path:
    """An empty file."""
    return _write(folder, "zero-bytes.pdf", b"")


def zero_pages(folder: Path) -> Path:
    """A well-formed PDF without a page."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [] /Count 0 >>",
    }
    return _write(folder, "zero-pages.pdf", assemble(objects))


def plain_text(folder: Path) -> Path:
    """Prose under the name of a PDF."""
    return _write(folder, "plain-text.pdf", b"Dear editor,\n\nplease find attached.\n" * 40)


def html(folder: Path) -> Path:
    """What a publisher's login page leaves behind when a script downloads it."""
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><p>403</p></body></html>"
    return _write(folder, "login-page.pdf", page)


def archive(folder: Path) -> Path:
    """A ZIP file under the name of a PDF."""
    path = folder / "archive.pdf"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("paper.txt", "not here")
    return path


def picture(folder: Path) -> Path:
    """A PNG file under the name of a PDF; lenient readers open it as a page."""
    image = micrographs.gray(micrographs.nuclei(np.random.default_rng(5), 120, 160, 40))
    return _write(folder, "picture.pdf", png(image))


def jpeg_picture(folder: Path) -> Path:
    """A JPEG file of 65,500 x 65,500 pixels, as it says, under the name of a PDF."""
    image = micrographs.gray(micrographs.nuclei(np.random.default_rng(6), 120, 160, 40))
    return _write(folder, "jpeg-picture.pdf", jpeg_of_size(jpeg(image), 65_500, 65_500))


def png_picture(folder: Path) -> Path:
    """A PNG file of two billion by two billion pixels, as it says, under the name of a PDF."""
    image = micrographs.gray(micrographs.nuclei(np.random.default_rng(7), 120, 160, 40))
    data = bytearray(png(image))
    data[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    return _write(folder, "png-picture.pdf", bytes(data))


def tiff_picture(folder: Path) -> Path:
    """A TIFF file of four billion columns, as it says, under the name of a PDF."""
    entries = struct.pack("<HHII", 256, 4, 1, 2**32 - 1) + struct.pack("<HHII", 257, 4, 1, 1)
    return _write(
        folder, "tiff-picture.pdf", b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    )


def unknown_encryption(folder: Path) -> Path:
    """Encrypted by a method that only the publisher's own reader knows."""
    locked = b"/Encrypt << /Filter /Acme.Secure /V 9 >> /ID [<00> <00>]"
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
    }
    return _write(folder, "unknown-encryption.pdf", assemble(objects, trailer=locked))


def truncated_tail(folder: Path) -> Path:
    """Everything is there but the table of offsets and what follows."""
    data = _good(folder, 17)
    return _write(folder, "truncated-tail.pdf", data[: data.rindex(b"startxref") - 40])


def xref_loop(folder: Path) -> Path:
    """A table of offsets that says its predecessor is itself."""
    data = _good(folder, 18)
    start = data.rsplit(b"startxref", 1)[1].split()[0]
    head, tail = data.rsplit(b"trailer", 1)
    return _write(
        folder, "xref-loop.pdf", head + b"trailer" + tail.replace(b"<<", b"<</Prev " + start, 1)
    )


def parent_loop(folder: Path) -> Path:
    """A page that is its own parent, and has no size but what it inherits."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 3 0 R >>",
    }
    return _write(folder, "parent-loop.pdf", assemble(objects))


def count_too_low(folder: Path) -> Path:
    """Three pages, said to be one: a reader that believes it never sees the others."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R 4 0 R 5 0 R] /Count 1 >>",
        **{
            number: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 %d] >>" % (300 + number)
            for number in (3, 4, 5)
        },
    }
    return _write(folder, "count-too-low.pdf", assemble(objects))


def count_too_high(folder: Path) -> Path:
    """Two pages, said to be three."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 3 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
        4: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 400] >>",
    }
    return _write(folder, "count-too-high.pdf", assemble(objects))


def count_negative(folder: Path) -> Path:
    """Fewer pages than none."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count -7 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
    }
    return _write(folder, "count-negative.pdf", assemble(objects))


def endless_title(folder: Path) -> Path:
    """Half a million letters of title, with a NUL and half a surrogate pair among them."""
    doc = pymupdf.open(stream=_good(folder, 19), filetype="pdf")
    doc.set_metadata({"title": "Q"})
    info = int(doc.xref_get_key(-1, "Info")[1].split()[0])
    odd = "FEFF0000D800202E" + "0041" * 500_000
    doc.xref_set_key(info, "Title", f"<{odd}>")
    return _saved(folder, "endless-title.pdf", doc, **DETERMINISTIC)


def page_tree_loop(folder: Path) -> Path:
    """A page tree whose branch is its own root."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R 2 0 R] /Count 2 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
    }
    return _write(folder, "page-tree-loop.pdf", assemble(objects))


def page_tree_deep(folder: Path) -> Path:
    """One page below three thousand nested branches."""
    depth = 3000
    objects = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    for k in range(2, depth):
        parent = b"/Parent %d 0 R" % (k - 1) if k > 2 else b""
        objects[k] = b"<< /Type /Pages %s /Kids [%d 0 R] /Count 1 >>" % (parent, k + 1)
    objects[depth] = b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 300 300] >>" % (depth - 1)
    return _write(folder, "page-tree-deep.pdf", assemble(objects))


def count_lies(folder: Path) -> Path:
    """One page, said to be a million."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1000000 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
    }
    return _write(folder, "count-lies.pdf", assemble(objects))


def page_flood(folder: Path) -> Path:
    """A hundred thousand pages in less than a megabyte: one page, listed again and again."""
    kids = b"3 0 R " * 100_000
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [" + kids + b"] /Count 100000 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] >>",
    }
    return _write(folder, "page-flood.pdf", assemble(objects))


def huge_page(folder: Path) -> Path:
    """Two good pages, then one of 200,000 by 200,000 points: 70 metres, 520 GB at 150 dpi."""
    doc = pymupdf.open(stream=_good(folder, 4), filetype="pdf")
    page = doc.new_page(width=200_000, height=200_000)
    page.draw_rect((100, 100, 199_000, 199_000))
    return _saved(folder, "huge-page.pdf", doc, **DETERMINISTIC)


def _with_last_page(
    folder: Path, name: str, seed: int, resources: bytes, content: bytes, extra: list[bytes]
) -> Path:
    """A good small paper with one more page, whose resources may name ``extra`` as {0}, {1}, ..."""
    doc = pymupdf.open(stream=_good(folder, seed), filetype="pdf")
    page = doc.new_page(width=612, height=792)
    numbers = [doc.get_new_xref() for _ in extra]
    path = folder / name
    for k, number in enumerate(numbers):
        resources = resources.replace(b"{%d}" % k, b"%d 0 R" % number)
    contents = doc.get_new_xref()
    doc.update_object(contents, "<<>>")
    doc.update_stream(contents, b" ")
    doc.xref_set_key(page.xref, "Resources", resources.decode())
    doc.xref_set_key(page.xref, "Contents", f"{contents} 0 R")
    for number in numbers:
        doc.update_object(number, "<< /Marker true >>")
    doc.save(path, no_new_id=True)
    doc.close()
    # The last page's objects are written by hand: a library would mend what has to stay broken.
    data = bytearray(path.read_bytes())
    trailer = bytes(data).rsplit(b"trailer", 1)[1]
    trailer = trailer[trailer.index(b"<<") : trailer.rindex(b">>")]
    update = {contents: content} | dict(zip(numbers, extra, strict=True))
    previous = int(data.rsplit(b"startxref", 1)[1].split()[0])
    table = bytearray(b"xref\n")
    for number, body in update.items():
        body = body.replace(b"{self}", b"%d 0 R" % number)
        table += b"%d 1\n%010d 00000 n \n" % (number, len(data))
        data += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(data)
    data += table + b"trailer\n" + trailer + b" /Prev %d >>\n" % previous
    data += b"startxref\n%d\n%%%%EOF\n" % start
    path.write_bytes(data)
    return path


def _image_bomb(folder: Path, name: str, seed: int, side: int, bits: int) -> Path:
    """A good paper whose last page shows one blank ``side`` x ``side`` image of few bytes."""
    packed = deflated_zeros(side * ((side * bits + 7) // 8))
    entries = b"/Type /XObject /Subtype /Image /Width %d /Height %d " % (side, side)
    space = b"/DeviceGray" if bits < 24 else b"/DeviceRGB"
    entries += b"/BitsPerComponent %d /ColorSpace %s " % (min(bits, 8), space)
    entries += b"/Filter /FlateDecode"
    return _with_last_page(
        folder,
        name,
        seed,
        b"<< /XObject << /Im0 {0} >> >>",
        stream(b"q 500 0 0 500 50 150 cm /Im0 Do Q"),
        [stream(packed, entries)],
    )


def image_bomb_bits(folder: Path) -> Path:
    """An image of 30,000 x 30,000 black and white pixels: 112 MB unpacked from 110 kB."""
    return _image_bomb(folder, "image-bomb-bits.pdf", 6, 30_000, 1)


def image_bomb_color(folder: Path) -> Path:
    """An image of 20,000 x 20,000 RGB pixels: 1.2 GB unpacked from 1.2 MB."""
    return _image_bomb(folder, "image-bomb-color.pdf", 7, 20_000, 24)


def nested_filters(folder: Path) -> Path:
    """A last page whose content is packed two hundred times over."""
    data = b"0 0 1 rg 100 100 200 200 re f"
    depth = 200
    for _ in range(depth):
        data = zlib.compress(data)
    content = stream(data, b"/Filter [" + b"/FlateDecode " * depth + b"]")
    return _with_last_page(folder, "nested-filters.pdf", 8, b"<< >>", content, [])


def filter_bomb(folder: Path) -> Path:
    """A last page whose content unpacks, in three layers, to 300 MB of white space."""
    data = zlib.compress(zlib.compress(deflated_zeros(300_000_000), 9), 9)
    content = stream(data, b"/Filter [/FlateDecode /FlateDecode /FlateDecode]")
    return _with_last_page(folder, "filter-bomb.pdf", 9, b"<< >>", content, [])


def form_loop(folder: Path) -> Path:
    """A last page with a form that draws itself."""
    form = stream(
        b"0 1 0 rg 50 50 80 80 re f /Fm0 Do",
        b"/Type /XObject /Subtype /Form /BBox [0 0 600 700] "
        b"/Resources << /XObject << /Fm0 {self} >> >>",
    )
    resources = b"<< /XObject << /Fm0 {0} >> >>"
    return _with_last_page(folder, "form-loop.pdf", 10, resources, stream(b"/Fm0 Do"), [form])


def garbage_content(folder: Path) -> Path:
    """A last page whose content is noise."""
    noise = np.random.default_rng(11).integers(0, 256, 6000, dtype=np.uint8).tobytes()
    return _with_last_page(folder, "garbage-content.pdf", 11, b"<< >>", stream(noise), [])


def missing_font(folder: Path) -> Path:
    """A last page whose text names a font that is nowhere."""
    return _with_last_page(
        folder,
        "missing-font.pdf",
        12,
        b"<< /Font << /F1 {0} >> >>",
        stream(
            b"BT /F1 12 Tf 72 700 Td (Set in a font that is not here) Tj /F9 9 Tf (nor this) Tj ET"
        ),
        [
            b"<< /Type /Font /Subtype /TrueType /BaseFont /NoSuchFont-Bold "
            b"/FontDescriptor 99999 0 R >>"
        ],
    )


def tiny_images(folder: Path) -> Path:
    """Three thousand images of 6 x 6 points, as some exporters cut a picture up."""
    doc = pymupdf.open()
    page = doc.new_page(width=612, height=792)
    whole = micrographs.histology(np.random.default_rng(13), 60 * 6, 50 * 6, 30)
    commands = []
    names = []
    for k in range(3000):
        row, column = divmod(k, 50)
        number = doc.get_new_xref()
        tile = whole[row * 6 : row * 6 + 6, column * 6 : column * 6 + 6]
        doc.update_object(
            number,
            "<< /Type /XObject /Subtype /Image /Width 6 /Height 6 /ColorSpace /DeviceRGB "
            "/BitsPerComponent 8 >>",
        )
        doc.update_stream(number, np.ascontiguousarray(tile).tobytes(), compress=False)
        names.append(f"/T{k} {number} 0 R")
        commands.append(f"q 8 0 0 8 {100 + column * 8} {700 - row * 8} cm /T{k} Do Q")
    doc.xref_set_key(page.xref, "Resources", f"<< /XObject << {' '.join(names)} >> >>")
    contents = doc.get_new_xref()
    doc.update_object(contents, "<<>>")
    doc.update_stream(contents, "\n".join(commands).encode())
    doc.xref_set_key(page.xref, "Contents", f"{contents} 0 R")
    return _saved(folder, "tiny-images.pdf", doc, no_new_id=True)


def script_and_attachment(folder: Path) -> Path:
    """Runs JavaScript on opening, fetches an address and carries a program: none may happen."""
    doc = pymupdf.open(stream=_good(folder, 14), filetype="pdf")
    program = doc.get_new_xref()
    doc.update_object(
        program,
        "<< /Type /Action /S /JavaScript "
        "/JS (app.alert\\('no'\\); this.submitForm\\('https://example.invalid/'\\);) >>",
    )
    doc.xref_set_key(doc.pdf_catalog(), "OpenAction", f"{program} 0 R")
    doc.embfile_add("setup.exe", b"MZ not a program", filename="../../setup.exe")
    link = {"kind": pymupdf.LINK_LAUNCH, "from": pymupdf.Rect(0, 0, 612, 792), "file": "/bin/sh"}
    doc[0].insert_link(link)
    return _saved(folder, "script-and-attachment.pdf", doc, **DETERMINISTIC)


def broken_xref(folder: Path) -> Path:
    """Offsets that point nowhere. The objects are whole, but who repairs the file cannot know."""
    data = _good(folder, 15)
    head, tail = data.rsplit(b"startxref", 1)
    return _write(
        folder, "broken-xref.pdf", head.replace(b"xref\n", b"xrfe\n") + b"startxref" + tail
    )


def late_header(folder: Path) -> Path:
    """Mail headers in front of the PDF, as some gateways leave them."""
    junk = b"X-Gateway: kept the headers\r\n\r\n"
    return _write(folder, "late-header.pdf", junk + _good(folder, 16))


ODD_NAMES: tuple[tuple[str, str], ...] = (
    ("spaces", "  a paper  with spaces .pdf"),
    ("formula", "=HYPERLINK(1)+cmd|' 'A1.pdf"),
    ("markup", "<img src=x onerror=alert(1)>&amp;.pdf"),
    ("quotes", 'it\'s "quoted"; DROP TABLE document--.pdf'),
    ("newline", "two\nlines\ttab\r.pdf"),
    ("option", "--help.pdf"),
    ("right_to_left", "paper\u202efdp.exe.pdf"),
    ("unicode", "Ärzte\u0301 論文 🧬.pdf"),
    ("percent", "%2e%2e%2fetc%2fpasswd {0} %s $HOME `id`.pdf"),
    ("backslashes", "..\\..\\windows\\paper.pdf"),
    ("long", "n" * 251 + ".pdf"),
    ("not_utf8", b"caf\xe9.pdf".decode("utf-8", "surrogateescape")),
    ("upper_case", "PAPER.PDF"),
)
"""(what is odd about it, the name): all are legal on Linux; none may matter to the result."""


def _named(name: str, seed: int) -> Maker:
    def make(folder: Path) -> Path:
        return _write(folder, name, _good(folder, seed))

    return make


def _of_pages(name: str) -> Maker:
    def make(folder: Path) -> Path:
        return write_pages(folder / f"{name}.pdf", FILES[name])

    return make


HOSTILE: list[tuple[str, Maker, Expectation]] = [
    ("encrypted_for_readers", encrypted_for_readers, "failed"),
    ("encrypted_for_owners", encrypted_for_owners, "ok"),
    ("truncated", truncated, "degraded"),
    ("truncated_early", truncated_early, "failed"),
    ("zero_bytes", zero_bytes, "failed"),
    ("zero_pages", zero_pages, "failed"),
    ("plain_text", plain_text, "failed"),
    ("html", html, "failed"),
    ("archive", archive, "failed"),
    ("picture", picture, "failed"),
    ("page_tree_loop", page_tree_loop, "degraded"),
    ("page_tree_deep", page_tree_deep, "degraded"),
    ("count_lies", count_lies, "failed"),
    ("page_flood", page_flood, "failed"),
    ("huge_page", huge_page, "degraded"),
    ("image_bomb_bits", image_bomb_bits, "ok"),
    ("image_bomb_color", image_bomb_color, "ok"),
    ("nested_filters", nested_filters, "ok"),
    ("filter_bomb", filter_bomb, "ok"),
    ("form_loop", form_loop, "ok"),
    ("tiny_images", tiny_images, "ok"),
    ("script_and_attachment", script_and_attachment, "ok"),
    ("broken_xref", broken_xref, "degraded"),
    ("late_header", late_header, "ok"),
    ("garbage_content", garbage_content, "degraded"),
    ("missing_font", missing_font, "degraded"),
    ("jpeg_picture", jpeg_picture, "failed"),
    ("png_picture", png_picture, "failed"),
    ("tiff_picture", tiff_picture, "failed"),
    ("unknown_encryption", unknown_encryption, "failed"),
    ("truncated_tail", truncated_tail, "degraded"),
    ("xref_loop", xref_loop, "degraded"),
    ("parent_loop", parent_loop, "degraded"),
    ("count_too_low", count_too_low, "degraded"),
    ("count_too_high", count_too_high, "degraded"),
    ("count_negative", count_negative, "failed"),
    ("endless_title", endless_title, "ok"),
    *((name, _of_pages(name), "degraded") for name in FILES),
    *((f"name_{what}", _named(name, 20 + k), "ok") for k, (what, name) in enumerate(ODD_NAMES)),
]
"""(name, maker, expectation) of every case, for ``pytest.mark.parametrize``."""

REASONS: dict[str, str] = {
    "encrypted_for_readers": r"the file is encrypted; remove its password and add it again",
    "truncated": r"the file is damaged and was repaired on opening; pages may be missing",
    "truncated_early": r"damaged beyond repair; download it again, or export it anew",
    "zero_bytes": r"the file is empty; copy or download it again",
    "zero_pages": r"damaged beyond repair or empty: no page of it can be read",
    "plain_text": r"the file is not a PDF; export or print it as one",
    "html": r"is a web page, not a PDF; perhaps a login page was saved instead",
    "archive": r"is a ZIP archive or an office document, not a PDF; unpack it or export it",
    "picture": r"is a PNG picture, not a PDF",
    "page_tree_loop": r"page 2 cannot be read: cycle in page tree",
    "page_tree_deep": r"the structure of the file is damaged",
    "count_lies": r"cannot be opened as a PDF: Invalid number of pages",
    "page_flood": r"cannot be opened as a PDF: Invalid number of pages",
    "huge_page": r"page 3 measures 2778 x 2778 inches",
    "broken_xref": r"the file is damaged and was repaired on opening; pages may be missing",
    "garbage_content": r"page 3: the drawing commands are damaged",
    "missing_font": r"page 3: something that the page draws is not in the file .*'F9'",
    "jpeg_picture": r"is a JPEG picture, not a PDF; export or print it as one",
    "png_picture": r"is a PNG picture, not a PDF; export or print it as one",
    "tiff_picture": r"is a TIFF picture, not a PDF; export or print it as one",
    "unknown_encryption": r"is encrypted in an unknown way .*; remove its protection and add",
    "truncated_tail": r"the file is damaged and was repaired on opening; pages may be missing",
    "xref_loop": r"the structure of the file is damaged; .*recursion",
    "parent_loop": r"page 1: the structure of the file is damaged",
    "count_too_low": r"says that it has 1 of the 3 pages that it lists; the others are not looked",
    "count_too_high": r"page 3 is missing, although the file counts it among its pages",
    "count_negative": r"cannot be opened as a PDF: Invalid number of pages",
    **dict.fromkeys(FILES, r"page \d"),
}
"""What the user is told of each case that is not ok, as a regular expression."""
