"""PDF files, parsed and rendered by a child process that a bad file may take down.

PyMuPDF lives behind this module and its worker, and nowhere else: replacing it means replacing
these two files. The worker gets no environment (so no secrets), its own memory wall, and a time
limit per request; when it dies, the file is at fault, the caller gets an
:class:`~core.errors.InputError` that names the page, and the next request starts a fresh worker.
"""

import json
import math
import os
import re
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from core.complaints import in_words
from core.errors import BudgetError, InputError
from core.geometry import Box, Image
from core.pages import PageContent, PlacedImage
from core.reading import LayerWord, TextLayer
from core.text import legible

WORKER = Path(__file__).with_name("pdf_worker.py")
Header = dict[str, Any]

_MOST_HEADER_BYTES = 64 << 20
"""Ten times what a page with as many boxes as are listed takes; no more is believed."""


_BEGINNINGS = (
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture"),
    (b"%!PS", "a PostScript file"),
    (b"{\\rtf", "a text document"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"\x1f\x8b", "a compressed file"),
)
"""What files that people take for PDFs begin with."""


@dataclass(frozen=True)
class PdfLimits:
    """How large a file and a page may be; checked before anything of that size is allocated."""

    max_file_bytes: int = 1 << 30
    """1 GiB: MuPDF reads by seeking, so this bounds time and storage, not memory. Illustrated
    theses reach some 500 MB."""
    max_pages: int = 5_000
    """Beyond any book; a file that claims a million pages would become 100,000 partitions."""
    max_page_pixels: int = 12_000_000
    """36 MB as RGB, held once in the worker and once here. A letter page has 2.1 million at 150 dpi
    and 8.4 at 300; a larger page is rendered at a lower resolution and the caller is told."""
    min_dpi: float = 20.0
    """A page that needs less than this to fit is refused. The 200 inches that PDF 1.x allows to a
    side still render, at 17 dpi were both sides that long; a label is 2 px high there."""
    max_memory_mb: int = 4_096
    """What a page may ask for at once, whatever the budget: 30,000 x 30,000 pixels of RGB take
    2,600. A page that asks for more states a size that its data cannot have."""
    max_lost_s: float = 600.0
    """Ten pages that never end, at a minute each. A file that has cost so much is not worth the
    hours that its other 4,990 pages may take; they are refused with that reason."""
    max_page_items: int = 20_000
    """Words, paths and images listed per page; a dense page has 1,500, a scatter plot a million."""


@dataclass(frozen=True)
class Rendered:
    """A rendered page or part of one.

    Attributes:
        image: RGB pixels, or grey ones of shape (height, width) where those were asked for.
        dpi: The resolution it has, which is what its pixels are to be converted with.
        lowered: Whether the page was too large for the resolution asked for.
        complaints: What could not be read of the page, such as an image that was left out, in
            words; empty for a sound page.
    """

    image: Image
    dpi: float
    lowered: bool
    complaints: tuple[str, ...] = ()


class WorkerError(Exception):
    """The child ended, or had to be ended, before it answered."""

    def __init__(self, reason: str, *, by_memory: bool) -> None:
        super().__init__(reason)
        self.by_memory = by_memory


class PdfFile:
    """One PDF, open in a child process.

        with PdfFile(path) as pdf:
            for page in range(1, pdf.page_count + 1):
                rendered = pdf.render(page, dpi=150)

    Args:
        path: The file.
        memory_mb: What the child may allocate. It needs 40 before it opens anything, and 60 to 90
            for pages of ordinary papers at 150 dpi.
        timeout_s: How long one request may take, opening included.
        limits: What is refused or rendered smaller.
        writes_bytes: How large the child may make the file by adding text to it; 0 forbids it.

    Attributes:
        page_count: Pages, numbered from 1.
        is_repaired: The file was damaged, and pages of it may be missing or blank.
        complaints: What else is wrong with the file as a whole, in words; empty for a sound one.
        title: The title in its metadata, often empty.

    Raises:
        InputError: It cannot be read, is no PDF, is encrypted, damaged beyond repair, without
            pages, or beyond the limits.
        BudgetError: It does not open within ``memory_mb``.
    """

    page_count: int
    is_repaired: bool
    complaints: tuple[str, ...]
    title: str

    def __init__(
        self,
        path: str | Path,
        *,
        memory_mb: int = 200,
        timeout_s: float = 60.0,
        limits: PdfLimits | None = None,
        writes_bytes: int = 0,
    ) -> None:
        self.path = Path(path)
        self.writes_bytes = writes_bytes
        self.memory_mb = memory_mb
        self.timeout_s = timeout_s
        self.limits = limits or PdfLimits()
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr = b""
        self._lost_s = 0.0
        _require_pdf(self.path, self.limits)
        try:
            facts = self._open()
            self._accept(facts)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """The child's process id; None while none runs."""
        return self._child.pid if self._child is not None else None

    def content(self, page: int) -> PageContent:
        """What the page holds, without decoding a pixel.

        Raises:
            InputError: The page cannot be read, with the reason.
            BudgetError: It does not fit ``memory_mb``.
        """
        reply, _ = self._ask("content", page, {"max_items": self.limits.max_page_items})
        width_pt, height_pt = (float(side) for side in reply["size"])
        if not (math.isfinite(width_pt) and math.isfinite(height_pt)):
            raise InputError(f"page {page} has no finite size.")
        shown: Box = (0.0, 0.0, width_pt, height_pt)
        placed = (_placed(item, shown) for item in reply["images"])
        return PageContent(
            width_pt=width_pt,
            height_pt=height_pt,
            images=tuple(image for image in placed if image is not None),
            word_boxes_pt=_boxes(reply["words"], shown),
            drawing_boxes_pt=_boxes(reply["paths"], shown),
            complaints=self._complaints(reply),
        )

    def text(self, page: int) -> TextLayer:
        """The words of the page's text layer, and what tells whether they are usable.

        Raises:
            InputError: The page cannot be read, with the reason.
            BudgetError: It does not fit ``memory_mb``.
        """
        reply, _ = self._ask("text", page, {"max_items": self.limits.max_page_items})
        width_pt, height_pt = (float(side) for side in reply["size"])
        if not (math.isfinite(width_pt) and math.isfinite(height_pt)):
            raise InputError(f"page {page} has no finite size.")
        shown: Box = (0.0, 0.0, width_pt, height_pt)
        words = (
            LayerWord(legible(str(text)), box, int(block), int(line))
            for text, *sides, block, line in reply["words"]
            if (box := _clipped(sides, shown)) is not None
        )
        return TextLayer(
            width_pt=width_pt,
            height_pt=height_pt,
            words=tuple(words),
            unknown_letters=int(reply["unknown"]),
            seen_boxes_pt=_boxes(reply["seen"], shown),
            unseen_boxes_pt=_boxes(reply["unseen"], shown),
            image_boxes_pt=_boxes(reply["images"], shown),
            path_boxes_pt=_boxes(reply["paths"], shown),
            cut=bool(reply["cut"]),
            complaints=self._complaints(reply),
        )

    def add_text(self, page: int, words: Sequence[tuple[str, Box]]) -> None:
        """Write words onto the page that can be selected and searched, and show nothing.

        They are in the file once :meth:`save` has returned.

        Args:
            page: Its number.
            words: Text and box in points, as the page is shown.

        Raises:
            InputError: The page cannot be written to, with the reason.
            BudgetError: It does not fit ``memory_mb``.
        """
        self._ask("add_text", page, {"words": [[text, *box] for text, box in words]})

    def save(self) -> None:
        """Write added text to the file, after what is there; a repaired file is written anew.

        Raises:
            InputError: It cannot be written, with the reason.
            BudgetError: It does not fit ``memory_mb``.
        """
        self._ask("save", 1, {})

    def render(
        self, page: int, dpi: float, clip_pt: Box | None = None, *, grey: bool = False
    ) -> Rendered:
        """Render a page, or the part of it in ``clip_pt`` (points, as the page is shown).

        Raises:
            InputError: The page cannot be rendered, with the reason.
            BudgetError: It does not fit ``memory_mb``.
        """
        request = {
            "dpi": dpi,
            "clip": clip_pt,
            "max_pixels": self.limits.max_page_pixels,
            "min_dpi": self.limits.min_dpi,
            "grey": grey,
        }
        reply, payload = self._ask("render", page, request)
        height, width = (int(side) for side in reply["shape"])
        rows = np.frombuffer(payload, np.uint8).reshape(height, int(reply["stride"]))
        image = rows[:, :width] if grey else rows[:, : width * 3].reshape(height, width, 3)
        return Rendered(
            image=image,
            dpi=float(reply["dpi"]),
            lowered=reply["dpi"] < dpi,
            complaints=self._complaints(reply),
        )

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        """The file itself; it is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child, however the block ended."""
        self.close()

    def _accept(self, facts: Header) -> None:
        """Keep what the file says about itself, or refuse it."""
        name = self.path.name
        if not facts["is_pdf"]:
            raise InputError(f"{name} is not a PDF; export or print it as one.")
        if facts["locked"]:
            raise InputError(f"{name} is encrypted; remove its password and add it again.")
        if facts["pages"] < 1:
            raise InputError(
                f"{name} is damaged beyond repair or empty: no page of it can be read."
            )
        if facts["pages"] > self.limits.max_pages:
            raise InputError(
                f"{name} has {facts['pages']:,} pages, more than the {self.limits.max_pages:,} "
                "allowed; split it, or raise max_pages."
            )
        self.page_count = int(facts["pages"])
        self.is_repaired = bool(facts["repaired"])
        self.complaints = ()
        if not self.is_repaired:  # which says more than the messages that led to it
            self.complaints = in_words(legible(str(line)) for line in facts["complaints"])
        if facts["listed"] > self.page_count:
            self.complaints += (
                f"the file says that it has {self.page_count:,} of the {facts['listed']:,} pages "
                "that it lists; the others are not looked at",
            )
        self.title = legible(str(facts["title"]))

    def _open(self) -> Header:
        """Start a child and have it open the file."""
        self._stderr = b""
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-I", "-X", "utf8", str(WORKER)),
                *(str(self.memory_mb), str(self.writes_bytes)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            start_new_session=True,
            bufsize=0,
        )
        where = f"{self.path.name}"
        try:
            reply, _ = self._exchange(
                {
                    "op": "open",
                    "path": str(self.path.resolve()),
                    "max_pages": self.limits.max_pages,
                }
            )
        except WorkerError as death:
            self._fail(where, death)
        self._check(where, reply, "cannot be opened as a PDF")
        return reply

    def _ask(
        self, operation: str, page: int, details: Mapping[str, Any]
    ) -> tuple[Header, bytearray]:
        """Put one request about a page to the child, starting another child where it died."""
        if not 1 <= page <= self.page_count:
            raise ValueError(f"page {page} of a document with {self.page_count} pages")
        if self._lost_s >= self.limits.max_lost_s:
            raise InputError(
                f"page {page} was not tried: other pages of the file took {self._lost_s:.0f} s and "
                "came to nothing; print it to a new PDF and add that."
            )
        started = time.monotonic()
        try:
            if self._child is None:
                self._open()
            reply, payload = self._exchange({"op": operation, "page": page, **details})
        except WorkerError as death:
            self._lost_s += time.monotonic() - started
            self._fail(f"page {page}", death)
        self._check(f"page {page}", reply, "cannot be read")
        return reply, payload

    def _complaints(self, reply: Header) -> tuple[str, ...]:
        """What is wrong with the page of a reply, in words."""
        found = in_words(legible(str(line)) for line in reply["complaints"])
        if reply["repaired"] and not self.is_repaired:
            found += ("the file proved to be damaged here and was repaired; parts may be missing",)
        return found

    def _check(self, where: str, reply: Header, complaint: str) -> None:
        """Raise what an error reply stands for."""
        kind = reply.get("error")
        # The parser's messages begin with its own classes and codes, and hold the full path.
        message = re.sub(r"^\w+: (code=\d+: )?", "", str(reply.get("message", "")))
        message = legible(message.replace(str(self.path.resolve()), self.path.name)).rstrip(".")
        if kind == "memory":
            self._over_budget(where, asked_mb=_asked_mb(message))
        if kind == "input" and message.startswith("Failed to open file"):
            heard = (legible(str(line)) for line in reply["complaints"])
            if method := next((line for line in heard if "encryption" in line), ""):
                raise InputError(
                    f"{where} is encrypted in an unknown way ({method}); remove its protection and "
                    "add it again."
                )
            raise InputError(
                f"{where} is damaged beyond repair; download it again, or export it anew."
            )
        if message.startswith("exception stack overflow"):
            message = "it is nested deeper than can be followed"
        if kind == "input" and message.endswith("not in document"):
            raise InputError(f"{where} is missing, although the file counts it among its pages.")
        if kind == "input":
            raise InputError(
                f"{message}." if message.startswith("page ") else f"{where} {complaint}: {message}."
            )

    def _fail(self, where: str, death: WorkerError) -> NoReturn:
        """End what is left of the child and raise what its death means."""
        self.close()
        if death.by_memory:
            self._over_budget(where)
        raise InputError(f"{where} {death}.") from death

    def _over_budget(self, where: str, asked_mb: float = 0.0) -> NoReturn:
        """Raise what a lack of memory means, where ``asked_mb`` were asked for at once."""
        if asked_mb > self.limits.max_memory_mb:
            raise InputError(
                f"{where} asks for {asked_mb:,.0f} MB of memory at once, more than any page may; "
                "it is damaged or made to do harm."
            )
        # An image is decoded, filtered and converted: up to three times what is asked for at once.
        least_mb = max(2.0 * self.memory_mb, self.memory_mb + 4.0 * asked_mb)
        needed_mb = math.ceil(least_mb / 50) * 50
        raise BudgetError(
            f"{where} needs more than the {self.memory_mb} MB that reading a PDF was given; about "
            f"{needed_mb} MB would do.",
            budget_mb=self.memory_mb,
            needed_mb=needed_mb,
        )

    def _exchange(self, request: Header) -> tuple[Header, bytearray]:
        """One request and its reply."""
        child = self._child
        if child is None or child.stdin is None or child.stdout is None or child.stderr is None:
            raise WorkerError("could not be read: its reader had ended", by_memory=False)
        body = json.dumps({**request, "timeout_s": self.timeout_s}).encode()
        deadline = time.monotonic() + self.timeout_s
        try:
            child.stdin.write(struct.pack(">I", len(body)) + body)
            child.stdin.flush()
        except OSError as error:
            raise self._death(child) from error
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            ready.register(child.stderr, selectors.EVENT_READ)
            (size,) = struct.unpack(">I", self._read(child, ready, 4, deadline))
            if size > _MOST_HEADER_BYTES:
                raise _nonsense()
            try:
                header: Header = json.loads(self._read(child, ready, size, deadline))
                payload = int(header["payload"])
            except (ValueError, TypeError, KeyError) as error:
                raise _nonsense() from error
            if not 0 <= payload <= 4 * self.limits.max_page_pixels + _MOST_HEADER_BYTES:
                raise _nonsense()
            return header, self._read(child, ready, payload, deadline)

    def _read(
        self,
        child: subprocess.Popen[bytes],
        ready: selectors.BaseSelector,
        size: int,
        deadline: float,
    ) -> bytearray:
        """Exactly ``size`` bytes of the child's output; its complaints are kept aside."""
        assert child.stdout is not None
        assert child.stderr is not None
        buffer = bytearray(size)
        view, filled = memoryview(buffer), 0
        while filled < size:
            left = deadline - time.monotonic()
            events = ready.select(left) if left > 0 else []
            if not events:
                raise WorkerError(
                    f"took longer than {self.timeout_s:g} s; leave it out, or raise the timeout",
                    by_memory=False,
                )
            for key, _ in events:
                if key.fileobj is child.stdout:
                    count = os.readv(child.stdout.fileno(), [view[filled:]])
                    if count == 0:
                        raise self._death(child)
                    filled += count
                else:
                    said = os.read(child.stderr.fileno(), 4096)
                    self._stderr = (self._stderr + said)[-4096:]
                    if not said:
                        ready.unregister(child.stderr)
        return buffer

    def _death(self, child: subprocess.Popen[bytes]) -> WorkerError:
        """Why the child ended by itself."""
        code = child.wait()
        assert child.stderr is not None
        os.set_blocking(child.stderr.fileno(), False)
        said = (self._stderr + (child.stderr.read() or b"")).decode(errors="replace")
        said = legible(said)
        last = said.strip().splitlines()[-1][:200] if said.strip() else ""
        if code == -signal.SIGKILL or "MemoryError" in said or "std::bad_alloc" in said:
            return WorkerError("needed more memory than there is", by_memory=True)
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerError(
            f"crashed the PDF parser ({ended}{': ' + last if last else ''}); "
            "print it to a new PDF and add that",
            by_memory=False,
        )


def _nonsense() -> WorkerError:
    """The child's answer is none: the file has got the better of the parser."""
    return WorkerError("broke the PDF parser; print it to a new PDF and add that", by_memory=False)


def _asked_mb(message: str) -> float:
    """How much memory the allocation that failed was for; 0 where the message does not say."""
    sizes = re.search(r"\((\d+)(?: x (\d+))? bytes\)", message)
    return int(sizes[1]) * int(sizes[2] or 1) / 2**20 if sizes else 0.0


def _require_pdf(path: Path, limits: PdfLimits) -> None:
    """Refuse what is no PDF, or too large a file, before a parser sees it."""
    name = path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from error
    if size == 0:
        raise InputError(f"{name} is empty; copy or download it again.")
    if size > limits.max_file_bytes:
        raise InputError(
            f"{name} has {size / 1e6:,.0f} MB, more than the {limits.max_file_bytes / 1e6:,.0f} "
            "allowed; split it, or raise max_file_bytes."
        )
    if b"%PDF-" in head:
        return
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise InputError(
            f"{name} is a web page, not a PDF; perhaps a login page was saved instead of the file."
        )
    if head.startswith(b"PK\x03\x04"):
        raise InputError(
            f"{name} is a ZIP archive or an office document, not a PDF; unpack it or export it."
        )
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            raise InputError(f"{name} is {kind}, not a PDF; export or print it as one.")
    raise InputError(f"{name} is not a PDF; export or print it as one.")


def _placed(item: Header, shown: Box) -> PlacedImage | None:
    """An image of the child's reply; None where it lies off the page or nowhere at all."""
    box, transform = _clipped(item["box"], shown), _six(item["transform"])
    if box is None or not all(math.isfinite(value) for value in transform):
        return None
    width_px, height_px = (int(side) for side in item["size"])
    return PlacedImage(int(item["xref"]), box, transform, width_px, height_px)


def _clipped(box: list[float], shown: Box) -> Box | None:
    """The part of a box that lies on the page; None where there is none."""
    x0, x1 = max(box[0], shown[0]), min(box[2], shown[2])
    y0, y1 = max(box[1], shown[1]), min(box[3], shown[3])
    return (x0, y0, x1, y1) if x0 <= x1 and y0 <= y1 else None


def _boxes(items: list[list[float]], shown: Box) -> tuple[Box, ...]:
    return tuple(box for item in items if (box := _clipped(item, shown)) is not None)


def _six(values: list[float]) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = (float(value) for value in values)
    return (a, b, c, d, e, f)
