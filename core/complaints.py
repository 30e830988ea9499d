"""What the PDF parser says about a page, in words that its reader understands."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST_LETTERS = 100
"""Of the parser's own words that are quoted: enough to look them up, too few for a page of them."""

_REPEATED = re.compile(r"\.\.\. repeated \d+ times\.\.\.")
_COMPANION = re.compile(
    r"encountered syntax errors|ignoring error during interpretation|read error; treating as end",
    re.IGNORECASE,
)
"""Said after another message that tells more."""

_ORIGIN = re.compile(r"^(?:(?:syntax|format|library|argument|limit) error: )+")


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong, told by patterns of the parser's messages.

    Attributes:
        words: What the reader of a report is told; empty where nothing that is drawn is affected.
        pattern: What the messages look like, tried in the order of ``KINDS``.
    """

    words: str
    pattern: re.Pattern[str]


def _kind(words: str, *patterns: str) -> Kind:
    return Kind(words, re.compile("|".join(patterns), re.IGNORECASE))


HARMLESS = ""

KINDS = (
    _kind(
        HARMLESS,
        # Metrics and Unicode values of text: for selecting and copying, not for drawing.
        r"bogus font .*ascent/descent",
        r"cannot load ToUnicode CMap",
        r"ignoring CMap range",
        r"Actualtext with no position",
        # Exact shades; panels are compared by structure.
        r"ignoring broken ICC profile",
        r"ICC colorspace N=\d+ does not match profile",
        r"cannot create ICC link|^lcms: ",
        r"Ignoring (invalid )?(Page|XObject) blending colorspace",
        r"Ignoring Transfer function",
        # Slips of writers that change nothing.
        r"line feed missing after stream begin marker|PDF stream Length incorrect",
        r"gstate underflow in content stream|closepath with no current point",
        r"garbage bytes before version marker",
        r"unknown PDF version|invalid version in PDF header|cannot find version marker",
    ),
    _kind(
        "pictures lie outside the visible part of the page, where they are not looked at",
        r"^\d+ of \d+ images out of sight",
    ),
    _kind("the page holds more than is looked at one by one", r"^more than \d+ images"),
    _kind(
        "something that the page draws is not in the file",
        r"cannot find .* resource",
        r"no XObject subtype",
        r"cannot find object in xref",
        r"object out of range|not an object|undefined object",
        r"(object|page) is not a (stream|dict)",
    ),
    _kind(
        "a font could not be read; text may be missing or look different",
        r"font|glyph|freetype|\bFT_|cmap|\bcid\b|type3|type 3",
    ),
    _kind(
        "a picture or drawing could not be decoded completely; part of it may be missing",
        r"padding truncated|premature end|read error|unpack|predictor|too many columns",
        r"zlib|flate|lzw|run length|a85d|ahxd|faxd|jpeg|jpx|jp2|openjpeg|jbig2|brotli|crypt|aes",
        r"image|color ?space|soft mask|unknown filter|ignoring error during interpretation",
    ),
    _kind(
        "the drawing commands are damaged; what they should draw may be missing",
        r"syntax error|unknown keyword|content stream|operator|operand|nest|stack|interpret",
        r"clip|pattern|shading|function|graphics state|gsave|inline|hex string",
    ),
    _kind(
        "the structure of the file is damaged; what belongs here may be missing",
        r"xref|trailer|page ?tree|repair|\bobj|\bdict|generation|reference|claims to have",
    ),
)
"""First match wins; what matches none is quoted as it is, because it may well be a loss."""

OTHER = "something here is damaged"


def in_words(messages: Iterable[str]) -> tuple[str, ...]:
    """One sentence for each kind of thing that is wrong, with the first message that says so.

    Args:
        messages: What the parser said, in its own words.

    Returns:
        In order of appearance; empty where nothing that is drawn is affected.
    """
    heard = list(messages)
    telling = [message for message in heard if not _COMPANION.search(message)]
    found: dict[str, str] = {}
    for message in telling or heard:
        bare = _ORIGIN.sub("", " ".join(message.split()))
        if not bare or _REPEATED.fullmatch(bare):
            continue
        words = next((kind.words for kind in KINDS if kind.pattern.search(message)), OTHER)
        if words != HARMLESS:
            found.setdefault(words, bare[:MOST_LETTERS])
    return tuple(f"{words} ({said})" for words, said in found.items())
