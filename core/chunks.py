"""Chunks: passages of a page, short enough for the encoder that reads them, with their place in it.

A page's text stands as the page has it, line by line. What reads it, an encoder or full text
search, is given the same text with lines run together and divided words joined; every character of
that knows where on the page it came from, so that a passage is a span of the page and nothing else.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

_HYPHENS = "-\u00ad\u2010\u00ac"
"""What stands at the end of a divided word; the last one is how recognition often reads it."""

_DIVIDED = re.compile(rf"(?<=\w)[{_HYPHENS}][^\S\n]*\n[^\S\n]*(?=\w|$)")
"""A hyphen behind a word at the end of a line, and the line break."""

_WORD_END = re.compile(r"[^\W\d_]{2}$")

_SOFT = re.compile("\u00ad")
_BREAK = re.compile(r"(?<=\S)[^\S\n]*\n[^\S\n]*(?=\S)")
"""A single line break between two lines of a paragraph."""


@dataclass(frozen=True)
class ChunkSpec:
    """How pages are divided into passages."""

    tokens: int = 200
    """The most that a passage has, special tokens and prefix apart, where the encoder has room for
    more: about 150 words, a long paragraph. The default encoder was trained on 128 tokens and has
    room for 256; what is found should be read at a glance."""

    overlap: int = 32
    """Tokens at most that a passage repeats from the one before, in whole sentences or words: what
    a boundary divides is whole in one of the two."""

    version: int = 1
    """Raised whenever this module divides otherwise by the same numbers."""


CHUNKS = ChunkSpec()

CONFIGURATIONS = {
    "ara": "arabic",
    "cat": "catalan",
    "dan": "danish",
    "deu": "german",
    "ell": "greek",
    "eng": "english",
    "eus": "basque",
    "fin": "finnish",
    "fra": "french",
    "gle": "irish",
    "hin": "hindi",
    "hun": "hungarian",
    "hye": "armenian",
    "ind": "indonesian",
    "ita": "italian",
    "lit": "lithuanian",
    "nep": "nepali",
    "nld": "dutch",
    "nor": "norwegian",
    "por": "portuguese",
    "ron": "romanian",
    "rus": "russian",
    "spa": "spanish",
    "srp": "serbian",
    "swe": "swedish",
    "tam": "tamil",
    "tur": "turkish",
    "yid": "yiddish",
}
"""Postgres's text search configurations, by the language as tesseract names it; those that every
supported version has."""

OTHER_LANGUAGES = "simple"
"""Words as they are, in small letters."""


def configuration_of(language: str) -> str:
    """The text search configuration for a language; ``deu_frak`` and the like are their language.

    Args:
        language: Three letters, as ``ocr_pages`` has them; empty where there is no text.
    """
    return CONFIGURATIONS.get(language.partition("_")[0], OTHER_LANGUAGES)


@dataclass(frozen=True)
class Readable:
    """A text as it is read, and where each of its characters came from.

    Attributes:
        text: Lines of a paragraph run together, divided words joined.
        places: Place of each character in the original, and last the original's length.
    """

    text: str
    places: tuple[int, ...]


def readable(text: str) -> Readable:
    """What an encoder or full text search reads of a page, or of a part of one.

    Words that a hyphen divides at the end of a line are joined. The hyphen goes where the word goes
    on with a small letter, so a compound that is divided at its own hyphen may lose it; it stays
    before a capital or a number and behind a single letter. Soft hyphens go wherever they are. A
    line break within a paragraph becomes a blank, so that a passage ends with a sentence rather
    than with a line; empty lines stay.
    """
    gone: set[int] = set()
    for found in _DIVIDED.finditer(text):
        start, end = found.span()
        goes_on = text[end : end + 1].islower() or end == len(text)
        joined = goes_on and _WORD_END.search(text[max(0, start - 2) : start])
        gone |= set(range(start if joined else start + 1, end))
    gone |= {found.start() for found in _SOFT.finditer(text)}
    blank: set[int] = set()
    for found in _BREAK.finditer(text):
        start, end = found.span()
        if start not in gone:
            blank.add(start)
            gone |= set(range(start + 1, end))
    places = [place for place in range(len(text)) if place not in gone]
    said = "".join(" " if place in blank else text[place] for place in places)
    return Readable(said, (*places, len(text)))


@dataclass(frozen=True)
class Passage:
    """A passage of a page.

    Attributes:
        start: Where it begins in the page's text.
        end: Where it ends, outside.
        text: Those characters.
        readable: The same as it is read.
    """

    start: int
    end: int
    text: str
    readable: str


def passages_of(
    text: str, count: Callable[[str], int], room: int, spec: ChunkSpec = CHUNKS
) -> list[Passage]:
    """Divide a page's text into passages, none longer than the encoder's window.

    Boundaries are, where possible, those of paragraphs, else of sentences, else of words; a word
    that is longer than a whole passage is divided, too. Nothing is left out but blanks.

    Args:
        text: What the page says.
        count: Tokens of a readable text, special tokens and prefix apart.
        room: Tokens that the encoder has room for, likewise.
        spec: How long passages are.

    Returns:
        Passages in the order of the text; together they hold every character but blanks.

    Raises:
        ValueError: There is no room.
    """
    if room < 1:
        raise ValueError(f"an encoder with room for {room} tokens reads nothing")
    from semantic_text_splitter import TextSplitter

    whole = readable(text)
    most = min(room, spec.tokens)
    overlap = min(spec.overlap, most // 4)
    splitter = TextSplitter.from_callback(count, most, overlap, trim=False)
    found: list[Passage] = []
    for begin, part in splitter.chunk_indices(whole.text):
        start, end = whole.places[begin], whole.places[begin + len(part)]
        start += len(text[start:end]) - len(text[start:end].lstrip())
        end -= len(text[start:end]) - len(text[start:end].rstrip())
        if end > start:
            said = text[start:end]
            found.append(Passage(start, end, said, readable(said).text))
    return found


def chunk_id(document_id: str, page: int, chunk_set: str, passage: Passage) -> str:
    """Names a passage by where it is, what it says, and whose tokens it was counted in."""
    parts = (document_id, page, chunk_set, passage.start, passage.end, passage.text)
    named = "\x1f".join(map(str, parts))
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:24]
