"""The process that parses PDFs: it may be killed by the file, and nothing else dies with it.

Started by :mod:`resources.pdf` as a script of its own, with an empty environment, and the only
module that imports PyMuPDF. It imports nothing of Quire, so it is up in a tenth of a second.

Both directions speak the same frame: four bytes of header length (big-endian), a JSON header, then
``header["payload"]`` raw bytes. A request names an ``op`` (open, content, render); a reply carries
``ok``, or ``error`` (one of input, memory) with a ``message``.
"""

import contextlib
import json
import math
import re
import resource
import struct
import sys
from typing import Any, BinaryIO

import pymupdf

MEGABYTE = 1 << 20
CPU_GRACE_S = 5
"""CPU seconds beyond a request's timeout after which the kernel ends a worker nobody waits for."""

DRAW = re.compile(rb"/([^\s/\[\]()<>{}%]+)\s+Do\b")
"""The command that draws a named image or form."""

Header = dict[str, Any]


class Worker:
    """Answers requests about one file."""

    def __init__(self) -> None:
        self.doc: Any = None
        self.pixels: Any = None
        """The last rendering: it owns the memory that a reply's payload points into."""

    def open(self, request: Header) -> tuple[Header, memoryview | None]:
        """Open the file and say what it is; pages are looked at only when they are asked for."""
        self.doc = pymupdf.open(request["path"], filetype="pdf")
        doc = self.doc
        locked = bool(doc.needs_pass)
        return {
            "is_pdf": bool(doc.is_pdf),
            "locked": locked,
            "pages": 0 if locked else int(doc.page_count),
            "repaired": bool(doc.is_repaired),
            "title": "" if locked else str((doc.metadata or {}).get("title") or ""),
        }, None

    def content(self, request: Header) -> tuple[Header, memoryview | None]:
        """The page's size, image objects, words and vector paths, in points as the page is shown.

        One pass over the page without decoding a pixel. At most ``max_items`` words and paths each
        are listed: a scatter plot can hold a million.
        """
        page = self.doc[request["page"] - 1]
        limit = int(request["max_items"])
        shown = page.rect
        # Read before anything else: listing the paths rebuilds the page without its rotation.
        turn: Any = pymupdf.Matrix(page.rotation_matrix)
        images = [
            {
                "xref": int(info["xref"]),
                "box": rounded(pymupdf.Rect(info["bbox"]) * turn),
                "transform": [float(value) for value in pymupdf.Matrix(info["transform"]) * turn],
                "size": [int(info["width"]), int(info["height"])],
            }
            for info in drawn_images(page)[:limit]
        ]
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
        pymupdf.TOOLS.reset_mupdf_warnings()
        pixels = page.get_pixmap(matrix=scale, clip=area, alpha=False, colorspace=pymupdf.csRGB)
        self.pixels = pixels
        complaints = [line[:200] for line in pymupdf.TOOLS.mupdf_warnings().splitlines() if line]
        if any("alloc" in line for line in complaints):
            raise MemoryError("an image of the page was left out")
        header = {
            "dpi": dpi,
            "shape": [pixels.height, pixels.width],
            "stride": pixels.stride,
            "complaints": complaints[:10],
        }
        return header, pixels.samples_mv


def drawn_images(page: Any) -> list[Header]:
    """The page's images in drawing order, each with its number in the file.

    MuPDF finds the numbers by decoding and hashing every image, which takes as long as rendering.
    The page's own drawing commands name them as well; where the two lists fit together, they do.
    """
    drawn = page.get_image_info()
    if not drawn:
        return []
    named = {image[7]: image for image in page.get_images(full=True) if image[9] == 0}
    commands = (name.decode("latin-1") for name in DRAW.findall(page.read_contents()))
    listed = [named[name] for name in commands if name in named]
    sizes = [(image[2], image[3]) for image in listed]
    if sizes != [(info["width"], info["height"]) for info in drawn]:
        return page.get_image_info(xrefs=True)
    return [{**info, "xref": image[0]} for info, image in zip(drawn, listed, strict=True)]


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


def limit_harm(timeout_s: float) -> None:
    """No core dumps, no written files, and no CPU time long after the caller has given up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = math.ceil(usage.ru_utime + usage.ru_stime + timeout_s) + CPU_GRACE_S
    wanted = (
        (resource.RLIMIT_CORE, (0, 0)),
        (resource.RLIMIT_FSIZE, (0, 0)),
        (resource.RLIMIT_CPU, (cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1])),
    )
    for kind, values in wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, values)


def answer(worker: Worker, request: Header) -> tuple[Header, memoryview | None]:
    """Answer one request; whatever the file provokes becomes a reply."""
    try:
        operation = {"open": worker.open, "content": worker.content, "render": worker.render}
        return operation[request["op"]](request)
    except MemoryError as error:
        return {"error": "memory", "message": str(error)}, None
    except Exception as error:  # noqa: BLE001 - MuPDF raises classes that share no base of their own
        text = f"{type(error).__name__}: {error}"
        short_of_memory = "alloc" in text or "memory" in text.lower()
        return {"error": "memory" if short_of_memory else "input", "message": text[:500]}, None


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
    limit_data(int(sys.argv[1]))
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    worker = Worker()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not break the frames
    while (request := receive(requests)) is not None:
        limit_harm(float(request["timeout_s"]))
        header, payload = answer(worker, request)
        send(replies, header, payload)
        del header, payload
        worker.pixels = None
        # MuPDF keeps decoded images and glyphs of earlier pages; drop them so that memory is flat.
        pymupdf.TOOLS.store_shrink(100)


if __name__ == "__main__":
    main()
