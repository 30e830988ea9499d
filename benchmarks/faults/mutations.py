"""Mutations of sound PDFs: bytes, tokens, objects, streams, images, page trees.

``mutate(kind, data, other, rng)`` returns a broken copy; equal generators give equal copies.
Nothing here parses PDF properly: objects are found by their keywords, which is enough for files
that ``specimens`` made, and cheap enough for ten thousand of them.
"""

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

from benchmarks.faults.specimens import assemble

Rng = np.random.Generator
Mutation = Callable[[bytes, bytes, Rng], bytes]

_OBJECT = re.compile(rb"(?<!\d)(\d+) 0 obj\b[ \r\n]*(.*?)[ \r\n]*\bendobj\b", re.DOTALL)
_STREAM = re.compile(rb"^(.*?)\bstream\r?\n(.*)\r?\nendstream", re.DOTALL)
_LENGTH = re.compile(rb"/Length \d+(?: 0 R)?")
_NUMBER_OF = re.compile(
    rb"/(Length|Width|Height|Count|BitsPerComponent|Columns|Rows|Colors|Predictor|K|First|N|Size"
    rb"|Prev|W|H|BPC|Rotate|Index|Root|XRefStm|FirstChar|LastChar|V|R|P|Length1)"
    rb"(\s*\[?\s*)(-?\d+)"
)
_BOX_OF = re.compile(rb"/(MediaBox|CropBox|BBox|Rect|Matrix|Decode|W|Index|Widths)\s*\[([^\]]*)\]")
_NAME = re.compile(rb"/[A-Za-z][A-Za-z0-9]*")
_REFERENCE = re.compile(rb"(?<!\d)(\d+) 0 R")

NUMBERS = (
    *(b"0", b"1", b"-1", b"2", b"3", b"7", b"17", b"255", b"256", b"65535", b"65536", b"99999"),
    *(b"1000000", b"2147483647", b"2147483648", b"-2147483648", b"4294967295", b"4294967296"),
    *(b"9223372036854775807", b"-9223372036854775808", b"99999999999999999999999", b"1e99"),
    *(b"0.0000001", b"3.4e38", b"null", b"(7)", b"/Seven", b"[7]", b"99 0 R", b"1 0 R"),
)
"""What lies are made of: edges of every integer type, and things that are no number."""

FILTERS = (
    *(b"/FlateDecode", b"/LZWDecode", b"/ASCII85Decode", b"/ASCIIHexDecode", b"/RunLengthDecode"),
    *(b"/CCITTFaxDecode", b"/JBIG2Decode", b"/DCTDecode", b"/JPXDecode", b"/Crypt", b"/Nothing"),
)

NAMES = (
    *FILTERS,
    *(b"/DeviceRGB", b"/DeviceCMYK", b"/DeviceGray", b"/Indexed", b"/ICCBased", b"/Separation"),
    *(b"/Pattern", b"/Lab", b"/Image", b"/Form", b"/Page", b"/Pages", b"/Catalog", b"/Type3"),
    *(b"/Kids", b"/Parent", b"/Contents", b"/Resources", b"/XObject", b"/Im0", b"/Im1", b"/SMask"),
)

COMMANDS = (
    *(b"q", b"Q", b"cm", b"Do", b"BT", b"ET", b"Tj", b"Tf", b"re", b"f", b"W n", b"sh", b"gs"),
    *(b"BI", b"ID", b"EI", b"BMC", b"EMC", b"d0", b"d1", b"scn", b"/P1", b"(", b"<", b"[", b"<<"),
    *(b"0 0 0 0 0 0 cm", b"1e9 0 0 1e9 0 0 cm", b"0 0 0 0 re W n", b"99999999 0 Td"),
)


def mutate(kind: str, data: bytes, other: bytes, rng: Rng) -> bytes:
    """A copy of ``data`` with one to three mutations of one kind; ``other`` is what it may mix in.

    Raises:
        KeyError: There is no such kind.
    """
    mutation = KINDS[kind]
    for _ in range(int(rng.integers(1, 4))):
        data = mutation(data, other, rng)
    return data


def objects_of(data: bytes) -> dict[int, bytes]:
    """The objects that stand in a file by themselves, by number."""
    return {int(found[1]): found[2] for found in _OBJECT.finditer(data)}


def _rewritten(data: bytes, objects: dict[int, bytes]) -> bytes:
    """The file with other objects and offsets that are right, as far as it has a plain trailer."""
    trailer = re.findall(rb"trailer\s*<<(.*?)>>\s*startxref", data, re.DOTALL)
    if not trailer or not objects:
        return _replaced_in_place(data, objects)
    kept = re.sub(rb"/(Size|Prev|XRefStm) \d+", b"", trailer[-1])
    root = re.search(rb"/Root (\d+) 0 R", kept)
    rewritten = assemble(dict(sorted(objects.items())), kept)
    return rewritten.replace(b"/Root 1 0 R", b"", 1) if root else rewritten


def _replaced_in_place(data: bytes, objects: dict[int, bytes]) -> bytes:
    """The file with other bodies in the places of the old ones; its offsets go wrong."""

    def body(found: re.Match[bytes]) -> bytes:
        number = int(found[1])
        if number not in objects:
            return b""
        return b"%d 0 obj\n%s\nendobj" % (number, objects[number])

    return _OBJECT.sub(body, data)


def _pick(rng: Rng, items: list[int]) -> int:
    return items[int(rng.integers(len(items)))]


def _span(data: bytes, rng: Rng, most: int = 4096) -> tuple[int, int]:
    """A random stretch; short ones are as likely as long ones."""
    size = min(len(data), round(2 ** rng.uniform(0, np.log2(most))))
    start = int(rng.integers(0, max(1, len(data) - size)))
    return start, start + size


def _flipped(data: bytes, rng: Rng, flips: int) -> bytes:
    out = bytearray(data)
    for at in rng.integers(0, max(1, len(out)), flips):
        if out:
            out[int(at)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _with_number(found: re.Match[bytes], value: bytes, group: int) -> bytes:
    start, end = found.span(group)
    return found.string[:start] + value + found.string[end:]


def _hostile_number(old: bytes, rng: Rng) -> bytes:
    if re.fullmatch(rb"-?\d+", old) and rng.random() < 0.4:
        return b"%d" % (int(old) + _pick(rng, [-1, 1, -8, 8, int(old), -int(old) // 2]))
    return NUMBERS[int(rng.integers(len(NUMBERS)))]


def byte_flips(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Single bits anywhere."""
    return _flipped(data, rng, int(rng.integers(1, 40)))


def blanked(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A stretch of zeros, 0xFF or spaces: a hole that a download left."""
    start, end = _span(data, rng)
    return data[:start] + bytes([_pick(rng, [0, 255, 32])]) * (end - start) + data[end:]


def cut_out(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A stretch is missing, and everything after it moves up."""
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def truncated(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The end is missing."""
    return data[: int(len(data) * rng.beta(2, 0.8))]


def spliced(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The head of one file and the tail of another, or a piece of another in the middle."""
    if rng.random() < 0.5:
        return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]
    start, end = _span(other, rng, 1 << 16)
    at = int(rng.integers(len(data)))
    return data[:at] + other[start:end] + data[at:]


def numbers(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A number of a dictionary lies: a length, a width, a count, an index."""
    found = list(_NUMBER_OF.finditer(data))
    if not found:
        return byte_flips(data, other, rng)
    match = found[int(rng.integers(len(found)))]
    return _with_number(match, _hostile_number(match[3], rng), 3)


def boxes(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A number of a box, matrix or range lies."""
    found = list(_BOX_OF.finditer(data))
    if not found:
        return numbers(data, other, rng)
    match = found[int(rng.integers(len(found)))]
    values = match[2].split()
    if values:
        at = int(rng.integers(len(values)))
        values[at] = _hostile_number(values[at], rng)
    return _with_number(match, b" ".join(values), 2)


def offsets(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The table of offsets, or where it is said to be, is wrong."""
    if rng.random() < 0.3:
        found = list(re.finditer(rb"startxref\s+(\d+)", data))
    else:
        found = list(re.finditer(rb"\n(\d{10}) \d{5} [nf]", data))
    if not found:
        return numbers(data, other, rng)
    match = found[int(rng.integers(len(found)))]
    value = b"%010d" % int(rng.integers(0, len(data) + 100))
    return _with_number(match, value, 1)


def names(data: bytes, other: bytes, rng: Rng) -> bytes:
    """One name for another: a filter, a color space, a type, a key."""
    found = [name for name in _NAME.finditer(data) if name[0] in NAMES or rng.random() < 0.2]
    if not found:
        return byte_flips(data, other, rng)
    match = found[int(rng.integers(len(found)))]
    return _with_number(match, NAMES[int(rng.integers(len(NAMES)))], 0)


def references(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A reference leads elsewhere: to nothing, to itself, round in a circle."""
    objects = objects_of(data)
    linked = [number for number, body in objects.items() if _REFERENCE.search(_dictionary(body))]
    if not linked:
        return numbers(data, other, rng)
    number = _pick(rng, linked)
    found = list(_REFERENCE.finditer(_dictionary(objects[number])))
    match = found[int(rng.integers(len(found)))]
    target = _pick(rng, [number, *objects, 0, max(objects) + 5, 2**31])
    head = _with_number(match, b"%d" % target, 1)
    objects[number] = head + objects[number][len(match.string) :]
    return _rewritten(data, objects)


def _dictionary(body: bytes) -> bytes:
    """What stands before an object's stream."""
    found = _STREAM.match(body)
    return found[1] if found else body


def objects_lost(data: bytes, other: bytes, rng: Rng) -> bytes:
    """An object is missing, empty, twice there, or another one's twin."""
    objects = objects_of(data)
    if len(objects) < 2:
        return cut_out(data, other, rng)
    a, b = (_pick(rng, list(objects)) for _ in range(2))
    match int(rng.integers(5)):
        case 0:
            del objects[a]
        case 1:
            objects[a] = b"<< >>"
        case 2:
            objects[a], objects[b] = objects[b], objects[a]
        case 3:
            objects[a] = objects[b]
        case _:
            return data + b"\n%d 0 obj\n%s\nendobj\n" % (a, objects[b])
    return _rewritten(data, objects)


def keys_lost(data: bytes, other: bytes, rng: Rng) -> bytes:
    """A key of a dictionary is missing or has another's value."""
    objects = objects_of(data)
    if not objects:
        return names(data, other, rng)
    number = _pick(rng, list(objects))
    head = _dictionary(objects[number])
    found = list(_NAME.finditer(head))
    if not found:
        return byte_flips(data, other, rng)
    match = found[int(rng.integers(len(found)))]
    value = b"/Lost" if rng.random() < 0.6 else b"/Lost null " + match[0]
    objects[number] = _with_number(match, value, 0) + objects[number][len(head) :]
    return _rewritten(data, objects)


def _streams(objects: dict[int, bytes]) -> list[int]:
    return [number for number, body in objects.items() if _STREAM.match(body)]


def _with_stream(body: bytes, data: bytes, entries: bytes | None = None) -> bytes:
    """The object with other stream data and a length that is right."""
    found = _STREAM.match(body)
    assert found is not None
    head = _LENGTH.sub(b"/Length %d" % len(data), found[1] if entries is None else entries)
    return head + b"stream\n" + data + b"\nendstream"


def _on_stream(data: bytes, rng: Rng, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """The file with one object's body replaced by ``change(dictionary, stream data)``."""
    objects = objects_of(data)
    streams = _streams(objects)
    if not streams:
        return _flipped(data, rng, 20)
    number = _pick(rng, streams)
    found = _STREAM.match(objects[number])
    assert found is not None
    objects[number] = change(found[1], found[2])
    return _rewritten(data, objects)


def packed_streams(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The stored bytes of a stream are damaged, cut short or missing; its length is right."""

    def change(head: bytes, body: bytes) -> bytes:
        match int(rng.integers(4)):
            case 0:
                broken = _flipped(body, rng, int(rng.integers(1, 30)))
            case 1:
                broken = body[: int(rng.integers(len(body) + 1))]
            case 2:
                broken = blanked(body, other, rng)
            case _:
                broken = cut_out(body, other, rng)
        return _with_stream(head + b"stream\n\nendstream", broken, head)

    return _on_stream(data, rng, change)


def plain_streams(data: bytes, other: bytes, rng: Rng) -> bytes:
    """What a deflated stream holds is damaged and packed again without a fault."""

    def change(head: bytes, body: bytes) -> bytes:
        plain = _unpacked(body)
        if plain is None:
            broken = _flipped(body, rng, 10)
        else:
            damage = (byte_flips, blanked, cut_out, truncated)[int(rng.integers(4))]
            broken = zlib.compress(damage(plain, other, rng), 1)
        return _with_stream(head + b"stream\n\nendstream", broken, head)

    return _on_stream(data, rng, change)


def _unpacked(body: bytes) -> bytes | None:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return None


def commands(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Drawing commands are lost, doubled, replaced, or meet operands that are none."""
    objects = objects_of(data)
    drawing: dict[int, bytes] = {}
    for number in _streams(objects):
        found = _STREAM.match(objects[number])
        assert found is not None
        plain = _unpacked(found[2]) or found[2]
        if len(plain) < 200_000 and re.search(rb"\b(Do|Tj|TJ|ID|re)\b", plain[:20_000]):
            drawing[number] = plain
    if not drawing:
        return plain_streams(data, other, rng)
    number = _pick(rng, list(drawing))
    words = drawing[number].split(b" ")
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(words)))
        match int(rng.integers(4)):
            case 0:
                words[at] = b""
            case 1:
                words[at] = COMMANDS[int(rng.integers(len(COMMANDS)))]
            case 2:
                words.insert(at, COMMANDS[int(rng.integers(len(COMMANDS)))])
            case _:
                words[at] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    head = b"<< /Length 0 /Filter /FlateDecode "
    old = _dictionary(objects[number])
    kept = re.sub(rb"/(Length|Filter|DecodeParms) *(\d+ 0 R|\d+|\[[^\]]*\]|/\w+)", b"", old)
    entries = head + kept.strip().removeprefix(b"<<").lstrip()
    packed = zlib.compress(b" ".join(words), 1)
    objects[number] = _with_stream(b"stream\n\nendstream", packed, entries)
    return _rewritten(data, objects)


def filters(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Filters are nested: truly, in name only, or around something else."""

    def change(head: bytes, body: bytes) -> bytes:
        declared = re.search(rb"/Filter\s*(\[[^\]]*\]|/\w+)", head)
        names_ = declared[1].strip(b"[] ") if declared else b""
        depth = _pick(rng, [1, 2, 3, 30])
        if rng.random() < 0.5:
            for _ in range(depth):
                body = zlib.compress(body, 1)
            added = b"/FlateDecode " * depth
        else:
            added = b" ".join(FILTERS[int(k)] for k in rng.integers(0, len(FILTERS), depth)) + b" "
        listed = b"/Filter [" + added + names_ + b"]"
        head = head[: declared.start()] + head[declared.end() :] if declared else head
        return _with_stream(
            b"stream\n\nendstream", body, head.replace(b"/Length", listed + b" /Length", 1)
        )

    return _on_stream(data, rng, change)


def image_headers(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The size that an image file inside the PDF states of itself is a lie."""
    size = struct.pack(
        ">HH", *(_pick(rng, [0, 1, 8, 100, 5_000, 30_000, 65_500, 65_535]) for _ in range(2))
    )
    large = struct.pack(
        ">II", *(_pick(rng, [0, 1, 100, 30_000, 60_000, 2**31 - 1, 2**32 - 1]) for _ in range(2))
    )
    places = [
        *((found.end() + 3, size) for found in re.finditer(rb"\xff[\xc0\xc2](?=\x00\x11)", data)),
        *((found.end() + 4, large) for found in re.finditer(rb"\xff\x51\x00", data)),
        *((found.end(), large) for found in re.finditer(rb"ihdr", data)),
        *((found.end(), large) for found in re.finditer(rb"\x00\x00\x00\x000\x00\x01....", data)),
    ]
    if not places:
        return numbers(data, other, rng)
    at, lie = places[int(rng.integers(len(places)))]
    return data[:at] + lie + data[at + len(lie) :]


def image_bodies(data: bytes, other: bytes, rng: Rng) -> bytes:
    """The coded pixels of an image are damaged behind its header."""
    objects = objects_of(data)
    shown = [n for n in _streams(objects) if b"/Image" in _dictionary(objects[n])]
    if not shown:
        return packed_streams(data, other, rng)
    number = _pick(rng, shown)
    found = _STREAM.match(objects[number])
    assert found is not None
    keep = min(len(found[2]), _pick(rng, [0, 64, 700]))
    tail = found[2][keep:]
    damage = (byte_flips, blanked, cut_out, truncated)[int(rng.integers(4))]
    objects[number] = _with_stream(objects[number], found[2][:keep] + damage(tail, other, rng))
    return _rewritten(data, objects)


def nesting(data: bytes, other: bytes, rng: Rng) -> bytes:
    """Arrays or dictionaries, nested as deep as no reader can follow."""
    depth = _pick(rng, [50, 500, 5_000, 100_000])
    opened, closed = ((b"[", b"]"), (b"<</A", b">>"), (b"(", b")"))[int(rng.integers(3))]
    deep = opened * depth + (closed * depth if rng.random() < 0.5 else b"")
    found = list(re.finditer(rb"/(Contents|Resources|Kids|Filter|ColorSpace|Info|Font) ", data))
    if not found:
        return data + deep
    match = found[int(rng.integers(len(found)))]
    return data[: match.end()] + deep + b" " + data[match.end() :]


KINDS: dict[str, Mutation] = {
    mutation.__name__.replace("_", " "): mutation
    for mutation in (
        byte_flips,
        blanked,
        cut_out,
        truncated,
        spliced,
        numbers,
        boxes,
        offsets,
        names,
        references,
        objects_lost,
        keys_lost,
        packed_streams,
        plain_streams,
        commands,
        filters,
        image_headers,
        image_bodies,
        nesting,
    )
}
"""Every kind of mutation by name."""
