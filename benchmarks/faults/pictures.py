"""Sound pictures to be broken, and ways to break them: bytes, headers, sizes, what lies beside.

``pictures`` are of every kind that ``quire identify`` takes and of most ways to pack pixels that
Pillow can write. ``mutate`` breaks one; equal generators give equal copies.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

import samples.cards
from samples import micrographs
from tests.resources.test_photographs import HEIC

Rng = np.random.Generator

BINDER = Path(samples.cards.__file__).parent / "cards" / "binder.jpg"

EDGES = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
"""Where integers of every width end."""

SIDES = (1, 2, 17, 999, 4096, 7000, 7700, 12_000, 20_000, 60_000, 65_535)
"""What a header may claim: up to 60 megapixels are decoded, and more are refused."""

SEGMENTS = (0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE)
"""Markers of JPEG whose content is looked at: frames, tables, scans, and what applications add."""

CHUNKS = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL")
"""Chunks of PNG that a reader looks into."""


@dataclass(frozen=True)
class Picture:
    """A sound file: how it is packed, how its name ends, and its bytes."""

    name: str
    ending: str
    data: bytes


@cache
def pictures() -> tuple[Picture, ...]:
    """All of them; equal on every call."""
    return tuple(_made())


def _made() -> Iterator[Picture]:
    pixels = micrographs.histology(np.random.default_rng(5), 96, 128, 20)
    colour = Pillow.fromarray(pixels)
    layered = Pillow.fromarray(np.dstack([pixels, pixels[:, :, 0]]))
    deep = Pillow.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    real = Pillow.fromarray(pixels[:, :, 0].astype(np.float32) / 255)
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "said " * 200, zip=True)
    beside: dict[str, Any] = {"exif": exif, "icc_profile": bytes(500)}
    yield Picture("photograph", "jpg", BINDER.read_bytes())
    yield Picture("heic", "heic", HEIC)
    for name, ending, form, picture, options in (
        ("baseline", "jpg", "JPEG", colour, beside),
        ("progressive", "jpg", "JPEG", colour, {"progressive": True}),
        ("restarts", "jpg", "JPEG", colour, {"restart_marker_blocks": 3, "subsampling": 0}),
        ("four colours", "jpg", "JPEG", colour.convert("CMYK"), {}),
        ("grey jpeg", "jpg", "JPEG", colour.convert("L"), {}),
        ("several", "jpg", "MPO", colour, {"save_all": True, "append_images": [layered]}),
        ("colour", "png", "PNG", colour, {**beside, "pnginfo": text}),
        ("layered", "png", "PNG", layered, {}),
        ("palette", "png", "PNG", colour.quantize(32), {"transparency": 3}),
        ("sixteen bits", "png", "PNG", deep, {}),
        ("one bit", "png", "PNG", colour.convert("1"), {}),
        ("raw", "tif", "TIFF", colour, {"exif": exif}),
        ("lzw", "tif", "TIFF", layered, {"compression": "tiff_lzw"}),
        ("deflate", "tif", "TIFF", deep, {"compression": "tiff_adobe_deflate"}),
        ("jpeg in tiff", "tif", "TIFF", colour, {"compression": "jpeg"}),
        ("fax", "tif", "TIFF", colour.convert("1"), {"compression": "group4"}),
        ("packbits", "tif", "TIFF", colour.convert("CMYK"), {"compression": "packbits"}),
        ("fractions", "tif", "TIFF", real, {}),
        ("pages", "tif", "TIFF", colour, {"save_all": True, "append_images": [colour, colour]}),
        ("big tiff", "tif", "TIFF", colour, {"big_tiff": True, "compression": "tiff_lzw"}),
        ("lossy", "webp", "WEBP", colour, beside),
        ("lossless", "webp", "WEBP", layered, {"lossless": True}),
        ("moving", "webp", "WEBP", colour, {"save_all": True, "append_images": [layered]}),
    ):
        out = io.BytesIO()
        saved = picture.convert("RGB") if form == "MPO" else picture
        if form == "MPO":
            options = {**options, "append_images": [saved]}
        saved.save(out, form, **options)
        yield Picture(name, ending, out.getvalue())


def mutate(kind: str, picture: Picture, other: Picture, rng: Rng) -> bytes:
    """A copy with one to three mutations of one kind; ``other`` is what it may mix in.

    Raises:
        KeyError: There is no such kind.
    """
    data = picture.data
    for _ in range(int(rng.integers(1, 4))):
        data = KINDS[kind](data, other.data, rng)
    return data


def _some_bits(data: bytes, other: bytes, rng: Rng) -> bytes:
    out = bytearray(data)
    for place in rng.integers(0, max(1, len(out)), int(rng.integers(1, 40))):
        if place < len(out):
            out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _bits_of_the_start(data: bytes, other: bytes, rng: Rng) -> bytes:
    return _some_bits(data[:300], other, rng) + data[300:]


def _cut_off(data: bytes, other: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(0, max(1, len(data))))]


def _block(data: bytes, rng: Rng) -> tuple[int, int]:
    start = int(rng.integers(0, max(1, len(data))))
    return start, start + int(rng.integers(1, max(2, len(data) // 4)))


def _doubled(data: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _block(data, rng)
    return data[:end] + data[start:]


def _dropped(data: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _block(data, rng)
    return data[:start] + data[end:]


def _garbage(data: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _block(data, rng)
    filled = bytes(end - start) if rng.random() < 0.5 else rng.bytes(end - start)
    return data[:start] + filled + data[end:]


def _spliced(data: bytes, other: bytes, rng: Rng) -> bytes:
    start, end = _block(other, rng)
    at = int(rng.integers(0, max(1, len(data))))
    return data[:at] + other[start:end] + data[at:]


def _fields(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Edges of integers in the places where the format keeps its numbers."""
    out = bytearray(data)
    places = [at for at in _places(data) if at + 4 <= len(data)] or [0]
    for _ in range(int(rng.integers(1, 4))):
        at, width = int(rng.choice(places)), int(rng.choice([1, 2, 4]))
        value = int(rng.choice(EDGES)) % 256**width
        order = "little" if data[:4] in (b"RIFF", b"II*\0", b"II+\0") else "big"
        out[at : at + width] = value.to_bytes(width, order)
    return _summed(bytes(out))


def _places(data: bytes) -> list[int]:
    """Where numbers are that a reader acts on."""
    if data[:2] == b"\xff\xd8":
        found = [at for at, marker in _markers(data) if marker in SEGMENTS]
        return [at + step for at in found for step in range(2, 24)]
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return [at + step for at, _ in _chunks(data) for step in (0, *range(8, 24))]
    if data[:2] in (b"II", b"MM"):
        start = min(len(data), int.from_bytes(data[4:8], "little"))
        return [4, *range(start, min(start + 400, len(data)))]
    return list(range(4, min(200, len(data))))


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    at = data.find(b"\xff")
    while 0 <= at < len(data) - 1:
        yield at, data[at + 1]
        at = data.find(b"\xff", at + 1)


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Place and length of the chunks of a PNG, as far as they follow each other."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield at, length
        at += 12 + length


def _summed(data: bytes) -> bytes:
    """A PNG with checksums that are right, so that a reader goes on; others as they are."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    out = bytearray(data)
    for at, length in _chunks(data):
        if at + 12 + length <= len(out):
            out[at + 8 + length : at + 12 + length] = struct.pack(
                ">I", zlib.crc32(out[at + 4 : at + 8 + length])
            )
    return bytes(out)


def _sizes(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Another width and height in the header."""
    width, height = (int(side) for side in rng.choice(SIDES, 2))
    out = bytearray(data)
    if data[:2] == b"\xff\xd8":
        for at, marker in _markers(data):
            if marker in (0xC0, 0xC1, 0xC2) and at + 9 <= len(out):
                out[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif data[:4] == b"\x89PNG":
        out[16:24] = struct.pack(">II", width, height)
    elif data[:4] == b"II*\0":
        start = int.from_bytes(data[4:8], "little")
        for at in range(start + 2, min(start + 400, len(out) - 12), 12):
            side = {256: width, 257: height, 278: height}.get(
                int.from_bytes(out[at : at + 2], "little")
            )
            if side is not None:
                out[at + 2 : at + 12] = struct.pack("<HII", 4, 1, side)
    elif data[8:12] == b"WEBP":
        if data[12:16] == b"VP8X":
            out[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        elif data[12:16] == b"VP8 ":
            out[26:30] = struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
        elif data[12:16] == b"VP8L":
            out[21:25] = struct.pack("<I", (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14)
    elif (at := data.find(b"ispe")) >= 0:
        out[at + 8 : at + 16] = struct.pack(">II", width, height)
    return _summed(bytes(out))


def _beside(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Garbage where cameras and programs write beside the pixels."""
    body = rng.bytes(int(rng.integers(0, 400)))
    entry = struct.pack(">HHI", int(rng.choice([0x0112, 0x8825, 0x8769, 0x014A])),
                        int(rng.integers(0, 14)), int(rng.choice(EDGES)))  # fmt: skip
    tags = b"MM\0*\0\0\0\x08" + struct.pack(">H", int(rng.choice([1, 2, 65535]))) + entry
    exif = tags + body if rng.random() < 0.7 else body
    if data[:2] == b"\xff\xd8":
        name = (b"Exif\0\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"http://ns.adobe.com/xap/1.0/\0")
        marker = int(rng.choice([0xE1, 0xE2, 0xED, 0xEE]))
        segment = name[int(rng.integers(4))] + exif
        return data[:2] + struct.pack(">BBH", 0xFF, marker, len(segment) + 2) + segment + data[2:]
    if data[:4] == b"\x89PNG":
        kind = CHUNKS[int(rng.integers(len(CHUNKS)))]
        if kind in (b"iCCP", b"zTXt") and rng.random() < 0.5:
            exif = b"name\0\0" + zlib.compress(bytes(int(rng.choice([10**4, 10**7]))))
        return _summed(
            data[:33] + struct.pack(">I", len(exif)) + kind + exif + bytes(4) + data[33:]
        )
    if data[8:12] == b"WEBP":
        chunk = (b"EXIF", b"ICCP", b"XMP ", b"ANMF")[int(rng.integers(4))]
        padded = exif + bytes(len(exif) % 2)
        out = data + chunk + struct.pack("<I", len(exif)) + padded
        return out[:4] + struct.pack("<I", len(out) - 8) + out[8:]
    return _fields(data, other, rng)


KINDS: dict[str, Callable[[bytes, bytes, Rng], bytes]] = {
    "bits": _some_bits,
    "bits of the start": _bits_of_the_start,
    "cut off": _cut_off,
    "block twice": _doubled,
    "block dropped": _dropped,
    "garbage": _garbage,
    "spliced": _spliced,
    "fields": _fields,
    "sizes": _sizes,
    "beside": _beside,
}
"""Every kind of mutation."""
