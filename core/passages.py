"""Passages: the words of a query in them, a few lines to show, and where on the page they are."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from core.geometry import Box
from core.text import inert


def terms_of(text: str) -> tuple[str, ...]:
    """The words of a query that a hit may show, without what is asked to be absent."""
    wanted = re.sub(r'(?:(?<=\s)|^)-("[^"]*"?|\S+)', " ", text)
    words = re.findall(r"\w+", _folded(wanted))
    return tuple(dict.fromkeys(word for word in words if word != "or"))


def uses_operators(text: str) -> bool:
    """Whether a query says how its words belong together: quotes, a minus, ``or``."""
    return bool(re.search(r'"|(?:^|\s)-\S|\sor\s', text, re.IGNORECASE))


def demands_words(text: str) -> bool:
    """Whether a query says what has to be there word by word, or must not: ``"..."``, ``-word``.

    A vector knows neither; what is near to one would break the demand.
    """
    return bool(re.search(r'"[^"]*\w[^"]*"|(?:^|\s)-\w', text))


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


_ENDINGS = frozenset(
    {"", "s", "es", "ed", "d", "e", "er", "ers", "ing", "ings", "y", "ies", "ied", "ly", "al"}
    | {"n", "en", "em", "ern", "t", "te", "ten"}
)
"""What English and German words end in when only their form differs."""


def is_alike(word: str, term: str) -> bool:
    """Whether two words are forms of one: roughly what full text search takes for the same.

    Only for showing why something was found: equal, or a common beginning of four letters or more
    (three before a plain ``s``) with such endings after it as forms of one word have.
    """
    word, term = _folded(word), _folded(term)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(word, term, strict=False))
    common = sum(1 for _ in alike)
    endings = {word[common:], term[common:]}
    if not any(endings):
        return True
    return endings <= _ENDINGS and (common >= 4 or (common == 3 and endings == {"", "s"}))


def _matches(text: str, terms: Sequence[str]) -> list[tuple[int, int, str]]:
    """Where words of a text are alike to a term: start, end, which term."""
    folded = text.lower() if text.isascii() else text.translate(_FOLDED_EACH)
    found: dict[int, tuple[int, int, str]] = {}
    # Words that are alike begin alike, and nearly all words begin otherwise: nothing but their
    # beginnings is looked for, which is a tenth of the work of looking at every word.
    for beginning in {term[:3] for term in terms}:
        start = folded.find(beginning)
        while start >= 0:
            word = (
                _WORD.match(text, start) if start == 0 or not _WORD.match(text[start - 1]) else None
            )
            if word is not None and start not in found:
                term = next((term for term in terms if is_alike(word[0], term)), None)
                if term is not None:
                    found[start] = (start, word.end(), term)
            start = folded.find(beginning, start + 1)
    return [found[start] for start in sorted(found)]


_WORD = re.compile(r"\w+")


class _FoldedEach(dict[int, str]):
    """Each character without its case where that is one, too, so that places stay as they are."""

    def __missing__(self, point: int) -> str:
        folded = chr(point).casefold()
        self[point] = folded if len(folded) == 1 else chr(point)
        return self[point]


_FOLDED_EACH = _FoldedEach()


@dataclass(frozen=True)
class Snippet:
    """A few lines of a passage, on one line, in which nothing acts.

    Attributes:
        text: What it says.
        marks: Start and end of the words that were asked for.
        begins: Whether it begins where the passage begins.
        ends: Whether it ends where the passage ends.
    """

    text: str
    marks: tuple[tuple[int, int], ...] = ()
    begins: bool = True
    ends: bool = True


def snippet_of(text: str, terms: Sequence[str], most_letters: int) -> Snippet:
    """The part of a passage that holds most of the terms; its beginning where none is there.

    Args:
        text: The passage.
        terms: As ``terms_of`` gives them.
        most_letters: How long it may be.
    """
    line = " ".join(inert(text).split())
    if len(line) <= most_letters:
        start, end = 0, len(line)
    else:
        start, end = _window(line, _matches(line, terms), most_letters)
    shown = line[start:end]
    marks = tuple((a, b) for a, b, _ in _matches(shown, terms))
    return Snippet(shown, marks, begins=start == 0, ends=end == len(line))


_BEFORE = 40
"""Letters of context before the first mark of a snippet."""


def _window(
    line: str, matches: Sequence[tuple[int, int, str]], most_letters: int
) -> tuple[int, int]:
    """The stretch with most different terms, the earliest of equal ones, cut between words."""
    best, most = 0, 0
    for start, _, _ in matches:
        begin = max(0, start - _BEFORE)
        inside = {term for a, b, term in matches if begin <= a and b <= begin + most_letters}
        if len(inside) > most:
            best, most = begin, len(inside)
    if best > 0:
        blank = line.find(" ", best, best + _BEFORE)
        best = blank + 1 if blank >= 0 else best
    end = min(len(line), best + most_letters)
    if end < len(line):
        blank = line.rfind(" ", best + most_letters // 2, end + 1)
        end = blank if blank >= 0 else end
    return best, end


@dataclass(frozen=True)
class Highlight:
    """Where on the page a hit is, in points as the page is shown, origin top left.

    Attributes:
        words: Boxes of the words that were asked for; empty where it was found by its meaning.
        passage: One box per line of the passage.
    """

    words: tuple[Box, ...] = ()
    passage: tuple[Box, ...] = ()


def highlight(
    words: Iterable[Sequence[float]],
    text: str,
    start_char: int,
    terms: Sequence[str],
    most_boxes: int,
) -> Highlight:
    """The boxes of a passage and of the words in it that were asked for.

    Args:
        words: Of the page, each ``start, end, x0, y0, x1, y1, ...`` with its span in the page's
            text, as ``ocr_pages`` stores them.
        text: The passage, as it stands in the page's text.
        start_char: Where it begins there.
        terms: As ``terms_of`` gives them.
        most_boxes: How many boxes are given of either kind.
    """
    end_char = start_char + len(text)
    waiting = [(a + start_char, b + start_char) for a, b, _ in reversed(_matches(text, terms))]
    asked: list[Box] = []
    boxes: list[Box] = []
    for word in words:
        start, end = word[0], word[1]
        if end <= start_char or start >= end_char:
            continue
        box = (word[2], word[3], word[4], word[5])
        boxes.append(box)
        while waiting and waiting[-1][1] <= start:
            waiting.pop()
        if waiting and waiting[-1][0] < end:
            asked.append(box)
    return Highlight(tuple(asked[:most_boxes]), tuple(_lines(boxes)[:most_boxes]))


def _lines(words: Sequence[Box]) -> list[Box]:
    """The lines that words stand on, one box each.

    A word goes on where a line ended if it is no further to the right than four heights, and half
    of its height beside it.
    """
    if not words:
        return []
    lines: list[Box] = []
    left, top, right, bottom = words[0]
    for x0, y0, x1, y1 in words[1:]:  # without calls: a search goes through a thousand words
        height = bottom - top if bottom - top < y1 - y0 else y1 - y0
        gap = x0 - right
        beside = (bottom if bottom < y1 else y1) - (top if top > y0 else y0)
        if -height < gap < 4 * (height if height > 1.0 else 1.0) and beside > 0.5 * height:
            left, top = (left if left < x0 else x0), (top if top < y0 else y0)
            right, bottom = (right if right > x1 else x1), (bottom if bottom > y1 else y1)
        else:
            lines.append((left, top, right, bottom))
            left, top, right, bottom = x0, y0, x1, y1
    return [*lines, (left, top, right, bottom)]
