"""Photographs from strangers: upright, bounded in memory, without what cameras write beside.

Pillow reads them. JPEG, PNG, TIFF, WebP and, through libheif, HEIC are taken; whatever else calls
itself a picture is refused. Where a camera says how it was held, the picture is turned; the place,
the time and the owner that it says, too, end here: they stay in the file as received.
"""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import PIL.Image
import PIL.ImageOps

from core.errors import InputError, is_out_of_memory
from core.geometry import Image

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "HEIF")
"""What is taken, as Pillow calls it. A JPEG with more pictures in it opens as MPO, which has no
opener of its own."""

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif")

BYTES_PER_PIXEL = 11
"""Decoded as four channels, reduced, and copied as three; measured with 12 megapixels, of which
little is reduced away."""

HEIF_BYTES_PER_PIXEL = 14
"""libheif holds the planes that it decodes from, too."""

WEBP_BYTES_PER_PIXEL = 16
"""Pillow reads every WebP as if it moved: two canvases of four channels, a copy, and the result."""

COEFFICIENT_BYTES = 2
"""Of a progressive JPEG, for each pixel and channel, until its last byte is read."""


@dataclass(frozen=True)
class Photograph:
    """A picture, upright.

    Attributes:
        image: RGB, shape (height, width, 3).
        scale: Pixels here for each one of the file; below 1 where it was reduced.
        loss: What was lost, in one sentence; empty for nothing.
    """

    image: Image
    scale: float = 1.0
    loss: str = ""


@dataclass(frozen=True)
class Header:
    """What a file says of itself, before a pixel is decoded.

    Attributes:
        format: As Pillow calls it.
        width_px: Width as stored.
        height_px: Height as stored.
    """

    format: str
    width_px: int
    height_px: int

    def megabytes(self, most_px: int) -> float:
        """Memory that decoding takes, in MB, where the result has at most so long a side."""
        more = {"HEIF": HEIF_BYTES_PER_PIXEL, "WEBP": WEBP_BYTES_PER_PIXEL}
        each = more.get(self.format, BYTES_PER_PIXEL) / self._part(most_px) ** 2
        return self.width_px * self.height_px * each / 2**20

    def most_px_within(self, room_mb: float, *, most_px: int, least_px: int) -> int:
        """Longest side that can be decoded within some memory.

        Only a JPEG can be decoded at a part of its size. Where no side of at least ``least_px``
        fits, all of it is to be tried.
        """
        longest = max(self.width_px, self.height_px)
        for part in (1, 2, 4, 8):
            side = min(most_px, -(-longest // part))
            if side < min(least_px, longest):
                break
            if self.megabytes(side) <= room_mb:
                return most_px if part == 1 else side
        return most_px

    def _part(self, most_px: int) -> int:
        """To which part of its size a JPEG is decoded for a result of at most so long a side."""
        if self.format not in ("JPEG", "MPO"):
            return 1
        stored = (self.width_px, self.height_px)
        ratio = min(
            side // wanted for side, wanted in zip(stored, _draft(stored, most_px), strict=True)
        )
        return max(part for part in (1, 2, 4, 8) if part <= max(1, ratio))


def is_picture(name: str) -> bool:
    """Whether a file is called like a picture."""
    return name.lower().endswith(ENDINGS)


def read_header(path: Path) -> Header:
    """What a file says of itself.

    Raises:
        InputError: It is no picture that is taken.
    """
    if (size := _webp_size(path)) is not None:
        return Header("WEBP", *size)  # Pillow takes memory for all of its pixels to open one
    with _opened(path) as picture:
        width, height = picture.size
        return Header(picture.format or "", width, height)


def read_photograph(path: Path, *, most_px: int, most_megapixels: float) -> Photograph:
    """Decode a photograph upright, and reduce it where it is larger than what is looked at.

    Args:
        path: The file.
        most_px: Longest side of the result.
        most_megapixels: More are not decoded. A JPEG of more is decoded at a half, a quarter or an
            eighth of its size, unless it is progressive: all of its coefficients are held until its
            last byte is read, so that a few kilobytes could ask for gigabytes.

    Raises:
        InputError: It is no picture that is taken, is damaged, or is too large.
        MemoryError: There is not enough to decode it.
    """
    if (size := _webp_size(path)) is not None:
        _refuse_larger(size, most_megapixels)
        _require(size[0] * size[1] * WEBP_BYTES_PER_PIXEL)
    with _opened(path) as picture:
        stored = picture.size
        if picture.format in ("JPEG", "MPO"):
            picture.draft("RGB", _draft(stored, most_px))
        if picture.info.get("progressive"):
            _refuse_larger(stored, most_megapixels)
            coefficients = stored[0] * stored[1] * len(picture.getbands()) * COEFFICIENT_BYTES
            _require(coefficients + picture.size[0] * picture.size[1] * 4)
        elif picture.size[0] * picture.size[1] > most_megapixels * 1e6:
            _refuse_larger(stored, most_megapixels)
        loss = ""
        if picture.format == "TIFF" and getattr(picture, "is_animated", False):
            loss = "only the first of its pictures is looked at"  # counting them may take hours
        try:
            picture.load()
            PIL.ImageOps.exif_transpose(picture, in_place=True)
            upright = _flattened(picture)
        except MemoryError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise InputError(f"the picture is damaged: {_words(error)}") from error
    del picture  # or its pixels would be held beside those that they are reduced to
    longest = max(upright.size)
    if longest > most_px:
        size = [max(1, round(side * most_px / longest)) for side in upright.size]
        upright = upright.resize((size[0], size[1]), PIL.Image.Resampling.BOX, reducing_gap=2.0)
    scale = max(upright.size) / max(stored)
    return Photograph(cast(Image, np.asarray(upright)), min(1.0, scale), loss)


def _draft(stored: tuple[int, int], most_px: int) -> tuple[int, int]:
    """What a JPEG has to be decoded to at least: for one pixel less not all of it is decoded."""
    longest = max(1, *stored)
    width, height = (max(1, -(-side * min(most_px, longest) // longest) - 1) for side in stored)
    return width, height


def _flattened(picture: PIL.Image.Image) -> PIL.Image.Image:
    """As RGB: on white where it is see-through, and scaled where it has 16 bits."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        values = np.nan_to_num(np.asarray(picture, np.float32))
        most = values.max(initial=0)
        top = 65535.0 if most > 255 else 255.0 if most > 1 or picture.mode != "F" else 1.0
        grey = np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)
        return PIL.Image.fromarray(grey).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = PIL.Image.new("RGB", layered.size, (255, 255, 255))
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _refuse_larger(size: tuple[int, int], most_megapixels: float) -> None:
    if size[0] * size[1] > most_megapixels * 1e6:
        raise InputError(
            f"it has {size[0]} x {size[1]} pixels, more than {most_megapixels:g} million; "
            "make it smaller and add it again"
        )


def _require(size_bytes: int) -> None:
    """Make sure of memory before a library is asked that calls a file damaged for the lack of it.

    Raises:
        MemoryError: There is not enough.
    """
    np.empty(size_bytes, np.uint8)


def _webp_size(path: Path) -> tuple[int, int] | None:
    """Width and height by a WebP's first bytes; None for what is no WebP, or says neither."""
    with path.open("rb") as file:
        start = file.read(30)
    if len(start) < 30 or (start[:4], start[8:12]) != (b"RIFF", b"WEBP"):
        return None
    if start[12:16] == b"VP8X":
        sides = [int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27)]
    elif start[12:16] == b"VP8L" and start[20] == 0x2F:
        bits = int.from_bytes(start[21:25], "little")
        sides = [(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1]
    elif start[12:16] == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        sides = [int.from_bytes(start[at : at + 2], "little") & 0x3FFF for at in (26, 28)]
    else:
        return None
    return sides[0], sides[1]


def _opened(path: Path) -> PIL.Image.Image:
    _with_heif()
    before, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None  # the header is looked at
    try:
        return PIL.Image.open(path, formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        kinds = "JPEG, PNG, TIFF, WebP or HEIC"
        raise InputError(f"it is no picture that is taken ({kinds}): {_words(error)}") from error
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before


@cache
def _with_heif() -> None:
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False)


def _words(error: Exception) -> str:
    """What a library says is wrong, without the path that it may name."""
    text = str(error)
    if isinstance(error, PIL.UnidentifiedImageError):
        return "its content is of another kind, or cut off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return text.splitlines()[0][:200] if text else type(error).__name__


def jpeg_of(image: Image, quality: int) -> bytes:
    """An RGB image as JPEG, without anything beside its pixels."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
