"""Pictures of pages, rendered by the PDF worker: a bad file ends that process and no other."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from core.geometry import Box, Image
from resources.image_files import ImageFiles
from web.limits import LIMITS

_PAD_PT = 1.0
"""Room around a highlighted word."""


class NoPictureError(Exception):
    """The picture cannot be made now: too many are being made, or the stored file is gone."""


@dataclass(frozen=True)
class Picture:
    """A picture of a page: PNG, the resolution it has, and whether it was kept from before."""

    png: bytes
    dpi: float
    cached: bool = False


class Pictures:
    """Renders pages and keeps the latest pictures, up to so many bytes."""

    def __init__(self, images: ImageFiles) -> None:
        self._images = images
        self._kept: OrderedDict[tuple[str, int, int, tuple[Box, ...]], Picture] = OrderedDict()
        self._lock = threading.Lock()
        self._rendering = threading.BoundedSemaphore(LIMITS.pictures)

    def of(self, file_key: str, page: int, dpi: int, boxes: Sequence[Box]) -> Picture:
        """A page with parts of it highlighted.

        Args:
            file_key: The document's file in the image store.
            page: Numbered from 1; the caller has made sure that there is one.
            dpi: At most so many; large pages are rendered at fewer.
            boxes: In points.

        Raises:
            InputError: The page cannot be rendered.
            BudgetError: It does not fit what a worker may hold.
            NoPictureError: Not now.
        """
        key = (file_key, page, dpi, tuple(boxes))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if not self._rendering.acquire(timeout=LIMITS.worker_s):
            raise NoPictureError("too many pages are being rendered; try again in a moment")
        try:
            picture = self._rendered(file_key, page, dpi, boxes)
        finally:
            self._rendering.release()
        with self._lock:
            self._kept[key] = Picture(picture.png, picture.dpi, cached=True)
            while sum(len(kept.png) for kept in self._kept.values()) > LIMITS.cache_bytes:
                self._kept.popitem(last=False)
        return picture

    def _rendered(self, file_key: str, page: int, dpi: int, boxes: Sequence[Box]) -> Picture:
        from resources.pdf import PdfFile  # brings what only reading and rendering need

        if not self._images.exists(file_key):
            raise NoPictureError("the stored file of the document is missing; add it again")
        with (
            self._images.local(file_key) as path,
            PdfFile(path, memory_mb=LIMITS.worker_mb, timeout_s=LIMITS.worker_s) as pdf,
        ):
            rendered = pdf.render(page, dpi)
        shown = highlighted(rendered.image, boxes, rendered.dpi)
        file = io.BytesIO()
        PIL.Image.fromarray(shown).save(file, "PNG", compress_level=3)
        return Picture(file.getvalue(), rendered.dpi)


def highlighted(image: Image, boxes: Sequence[Box], dpi: float) -> Image:
    """The picture with boxes as with a yellow marker: what is dark stays dark."""
    shown = np.array(image)
    height, width = shown.shape[:2]
    for x0, y0, x1, y1 in boxes:
        left, top = (max(0, round((side - _PAD_PT) * dpi / 72)) for side in (x0, y0))
        right, bottom = (round((side + _PAD_PT) * dpi / 72) for side in (x1, y1))
        shown[top : min(bottom, height), left : min(right, width), 2] //= 4
    return shown
