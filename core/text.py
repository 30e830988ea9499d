"""Text from outside, made inert before it is shown, stored or logged.

Names of files, what a PDF says about itself and the messages of parsers and databases are written
by strangers. A reader must see what is there, and nothing in it may act: on a terminal, on the line
structure of a log, or on the eye.
"""

import re
import unicodedata

_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that act on a line without showing: controls, direction marks, surrogates."""

_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)
"""Letters and marks of other categories that show nothing (Unicode's default ignorables)."""

NO_CREDENTIALS = (
    "leave user and password out of the address, which is logged and shown: give them in the "
    "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_... for other stores)"
)
"""What the user of an address with credentials is told."""

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
_QUERY = re.compile(r"(?P<address>[A-Za-z][A-Za-z0-9+.-]*://[^\s?#]*)[?#]\S*")


def visible(text: str) -> str:
    r"""The text with every character that would act without showing spelled out.

    A line break, a NUL or a right-to-left override in a file name must neither break a table, forge
    a line of a log, speak to a terminal, nor make one name look like another. They become ``\n``,
    ``\x00``, ``\u202e``; a backslash becomes two, so that the spelling can be undone. Letters of
    every script stay as they are.
    """
    return "".join(_spelled(character) for character in text)


def _spelled(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if unicodedata.category(character) not in _ACTING and character not in _UNSEEN:
        return character
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if character in named:
        return named[character]
    point = ord(character)
    return (
        f"\\x{point:02x}" if point < 0x100
        else f"\\u{point:04x}" if point < 0x10000
        else f"\\U{point:08x}"
    )  # fmt: skip


def inert(text: str) -> str:
    """The text of a page or a query without anything that acts: for one line that people read.

    Line breaks and tabs become blanks; marks that show nothing, such as soft hyphens, are left out;
    what is no character becomes U+FFFD. Unlike ``visible`` it cannot be undone.
    """
    return text.translate(_INERT)


def _inert(character: str) -> str:
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category == "Cf" or character in _UNSEEN:
        return ""
    return "\N{REPLACEMENT CHARACTER}" if category in _ACTING else character


class _Inert(dict[int, str]):
    """What becomes of each character, found out when it is first met."""

    def __missing__(self, point: int) -> str:
        self[point] = _inert(chr(point))
        return self[point]


_INERT = _Inert()


def file_name(name: str, most_letters: int = 100) -> str:
    """A name that strangers gave as one that every file system takes, and that is no path.

    Separators and what shells and systems give a meaning become ``_``; it begins with no dot.
    """
    safe = re.sub(r'[\\/:*?"<>|\x00-\x1f\ufffd]+', "_", " ".join(inert(name).split()))
    return safe.lstrip(".-_ ")[:most_letters].rstrip(". ") or "document"


def as_code(line: str) -> str:
    """A line as Markdown shows it letter by letter: no link, no picture, no markup.

    A code span is the only construct inside which nothing else is read, autolinks included; its
    fence is longer than any run of back quotes in the line.

    Args:
        line: As ``visible`` leaves it: a line break would end the span.
    """
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line[:1] in ("`", " ") or line[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def well_formed(text: str) -> str:
    """The text without unpaired surrogates, which no encoding but Python's can carry.

    Each becomes U+FFFD; a pair of surrogates becomes the character that it stands for.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def legible(text: str) -> str:
    """Text that a database can hold: no NUL, and bytes of a name that are no UTF-8 replaced."""
    return well_formed(text).replace("\x00", "\N{REPLACEMENT CHARACTER}")


def holds_credentials(url: str) -> bool:
    """Whether the URL names a user or a password: whoever logs it gives them away."""
    return _USER_INFO.search(url) is not None


def without_secrets(text: str) -> str:
    """The text with what may be secret in its URLs left out: user, password, query, fragment.

    ``s3://key:secret@bucket/prefix?token=1`` becomes ``s3://***@bucket/prefix?***``.
    """
    hidden = _USER_INFO.sub(r"\g<scheme>***@", text)
    return _QUERY.sub(r"\g<address>?***", hidden)
