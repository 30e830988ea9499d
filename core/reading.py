"""Reading a page: what kind it is, what it says, and where, and how sure that is.

A page is taken from its text layer where that is usable, recognized from a picture of it where not,
and both where a page with text also shows pictures that may hold more. What to do is decided here,
from boxes and counts; rendering and recognizing happen elsewhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.geometry import POINTS_PER_INCH, Box, area, intersection
from core.pages import PlacedImage
from core.paper_spec import PaperSpec
from core.work import spec_id

Kind = Literal["text_layer", "ocr", "hybrid", "blank"]
"""Which way a page was read; ``blank`` is an answer, and not the lack of one."""

Rotate = Literal["auto", "off"]
"""Whether pages that lie on their side or upside down are turned before they are read."""

Matrix = NDArray[np.float64]
"""Shape (2, 3): maps pixels of a picture to points of the page it shows."""

READING_VERSION = 1

CERTAIN = 100.0
"""Confidence of a word that the file itself says."""

MOST_RECOGNIZED = 99.9
"""Recognized words stay below certainty, so that the two can be told apart."""

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class ReadingSpec:
    """Every number that decides how pages are read."""

    languages: tuple[str, ...] = ("eng",)
    """As tesseract has them, the most likely first."""

    dpi: float = 150.0
    """On the 44-page bench the fewest characters are wrong at 150 dpi; at 75 they are fifteen times
    as many, and at 300 twice (`benchmarks/ocr.py`)."""

    again_dpi: tuple[float, ...] = (200.0, 300.0)
    """Where a page is read again: type below 9 points gains at 200, poor print at 300."""

    doubtful_page: float = 85.0
    """Mean confidence below which a page is read again. Sound pages have 90 to 96."""

    doubtful_word: float = 60.0
    """Below this about half of the recognized words of the bench are wrong."""

    most_pixels: int = 12_000_000
    """12 MB as grey, held once here and three times by tesseract. A letter page has 8.4 million at
    300 dpi; a larger page is read at a lower resolution, and that is said."""

    least_dpi: float = 50.0
    """A page that does not fit the memory is read at less and less, down to here: headlines."""

    least_side_px: float = 1_500.0
    """The longer side of a picture of a page. Where a page is smaller than a letter at 150 dpi, it
    may well be a scan of one on a sheet of the wrong size."""

    least_region_pt: float = 6.0
    """Smaller regions are specks, and no letters."""

    most_regions: int = 8
    """Doubtful regions of a page that are read again, the largest first: each costs 0.15 s before
    its first letter."""

    region_dpi: float = 300.0
    """For doubtful regions; what is not legible there is not at 600 either."""

    region_margin_pt: float = 4.0
    """White around a region: letters that touch the edge of a picture are misread."""

    blank_ink: float = 2e-5
    """Share of a page's dark pixels up to which it is blank without a look at it. One letter of 10
    points on a letter page has 5e-5."""

    empty_ink: float = 1e-4
    """The same for a page on which nothing was recognized: dust. Print too faint to be read has
    more."""

    paper: PaperSpec = field(default_factory=PaperSpec)
    """When a picture is cleaned and straightened before it is read."""

    least_unknown: float = 0.05
    """Share of letters without a character from which a text layer is not usable."""

    least_vowels: float = 0.2
    """Share of vowels among Latin letters below which they are no language: a font whose codes are
    shifted. Natural languages have 0.3 to 0.5."""

    enough_letters: int = 200
    """Latin letters from which that share means anything."""

    odd_words: float = 0.4
    """Share of words without two letters or digits in a row from which an invisible text layer,
    which somebody else recognized, is not believed."""

    picture_share: float = 0.05
    """Of the page that a picture without text covers, from which it is read for what it says."""

    picture_side_pt: float = 54.0
    """Three quarters of an inch; smaller pictures are logos and symbols."""

    full_page: float = 0.8
    """Share of the page from which a picture is the page."""

    rotate: Rotate = "auto"
    """A page on its side has a mean confidence of 30 to 50, and is turned if that helps; upright
    pages cost nothing more."""

    turned_page: float = 65.0
    """Mean confidence below which a page may lie on its side or upside down."""

    turned_gain: float = 1.5
    """How many times as many letters must be sure once it is turned: tesseract reads much of a page
    on its side as well, and is often wrong about how poor print lies."""

    timeout_s: float = 120.0
    """For one call of tesseract; a dense page takes 10 s on a busy machine."""

    page_timeout_s: float = 240.0
    """For all of them on one page: after the first, the others are to make it better."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 72 <= self.dpi <= 300:
            raise ValueError(f"pages are read at 72 to 300 dpi, not {self.dpi:g}")
        if self.rotate not in ("auto", "off"):
            raise ValueError(f"rotate is auto or off, not {self.rotate!r}")
        if not self.languages:
            raise ValueError("pages are read in at least one language, such as eng")
        if self.timeout_s <= 0:
            raise ValueError(f"a timeout is more than 0 s, not {self.timeout_s:g}")

    @property
    def reading_id(self) -> str:
        """Spec id of what is read."""
        return spec_id("reading", READING_VERSION, self)


@dataclass(frozen=True)
class Word:
    """One word: its span in the text of its page, its box in points, its confidence (0 to 100)."""

    start: int
    end: int
    box_pt: Box
    confidence: float


@dataclass(frozen=True)
class Region:
    """A part of a page where recognition is doubtful.

    Attributes:
        box_pt: Where it is, in points as the page is shown.
        confidence: Mean of its words.
        read_again_dpi: The higher resolution that it was read again at; None where it was not.
    """

    box_pt: Box
    confidence: float
    read_again_dpi: float | None = None


@dataclass(frozen=True)
class PageText:
    """What a page says.

    Attributes:
        kind: Which way it was read.
        language: Of the text, three letters; empty where there is none.
        dpi: The resolution it was recognized at; None where nothing was.
        confidence: Mean over recognized words; None where no word was recognized.
        text: In reading order; a line break after each line, an empty line after each block.
        words: In the order of the text.
        regions: Where recognition is doubtful, in reading order.
    """

    kind: Kind
    language: str
    dpi: float | None
    confidence: float | None
    text: str
    words: tuple[Word, ...] = ()
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class LayerWord:
    """A word of a text layer, with the numbers of its block and of its line within that."""

    text: str
    box_pt: Box
    block: int
    line: int


@dataclass(frozen=True)
class TextLayer:
    """The text layer of a page, and what else is drawn there; points, as the page is shown.

    Attributes:
        width_pt: Width of the page.
        height_pt: Height of the page.
        words: In the file's order.
        unknown_letters: Letters that the file draws without saying which they are.
        seen_boxes_pt: Text that shows.
        unseen_boxes_pt: Text that does not show, as OCR programs put it below a scan.
        image_boxes_pt: Images.
        path_boxes_pt: Everything else.
        cut: Not all words are listed.
        complaints: What could not be read of the page, in words.
    """

    width_pt: float
    height_pt: float
    words: tuple[LayerWord, ...] = ()
    unknown_letters: int = 0
    seen_boxes_pt: tuple[Box, ...] = ()
    unseen_boxes_pt: tuple[Box, ...] = ()
    image_boxes_pt: tuple[Box, ...] = ()
    path_boxes_pt: tuple[Box, ...] = ()
    cut: bool = False
    complaints: tuple[str, ...] = ()

    @property
    def page_box_pt(self) -> Box:
        """All of the page."""
        return (0.0, 0.0, self.width_pt, self.height_pt)


@dataclass(frozen=True)
class Plan:
    """How a page is to be read.

    Attributes:
        kind: Which way.
        areas_pt: What is recognized: the whole page, some pictures, or nothing.
    """

    kind: Kind
    areas_pt: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Token:
    """A word as it was found; blocks and lines are numbers that only need to differ.

    Attributes:
        text: What it says.
        box_pt: Where, in points as the page is shown.
        confidence: 0 to 100.
        block: Number of its block.
        line: Number of its line within the block.
    """

    text: str
    box_pt: Box
    confidence: float
    block: int
    line: int

    @property
    def recognized(self) -> bool:
        """Whether it comes from a picture, and not from the file."""
        return self.confidence < CERTAIN


# ---- what kind of page it is ----------------------------------------------------------------


def plan_reading(layer: TextLayer, spec: ReadingSpec) -> Plan:
    """Choose how a page is read: from its text layer, from a picture of it, or both."""
    if not (layer.words or layer.unknown_letters or layer.image_boxes_pt or layer.path_boxes_pt):
        return Plan("blank")
    whole = Plan("ocr", (layer.page_box_pt,))
    if not is_usable(layer, spec):
        return whole
    large = _large_pictures(layer, spec)
    covered = sum(area(box) for box in large) / max(1e-9, area(layer.page_box_pt))
    if covered >= spec.full_page and _is_sparse(layer):
        return whole  # whether the stamp is beside the scan or on it
    pictures = unread_pictures(layer, large)
    return Plan("hybrid", pictures) if pictures else Plan("text_layer")


def is_usable(layer: TextLayer, spec: ReadingSpec) -> bool:
    """Whether the text layer says what the page shows, as far as can be told without looking."""
    text = "".join(word.text for word in layer.words)
    letters = sum(not character.isspace() for character in text)
    if not letters:
        return False
    if layer.unknown_letters / letters >= spec.least_unknown or _has_private(text, spec):
        return False
    latin = [character for character in text.lower() if "a" <= character <= "z"]
    if len(latin) >= spec.enough_letters:
        vowels = sum(character in "aeiou" for character in latin)
        if vowels / len(latin) < spec.least_vowels:
            return False
    if layer.unseen_boxes_pt and not layer.seen_boxes_pt:
        odd = sum(not _is_word(word.text) for word in layer.words)
        return odd / len(layer.words) < spec.odd_words
    return True


def unread_pictures(layer: TextLayer, pictures: Iterable[Box]) -> tuple[Box, ...]:
    """Those of the pictures that have no text over them.

    A picture on which the file itself sets words, such as a scan with recognized text below or a
    figure with labels, has been read.
    """
    return tuple(
        box for box in pictures if not any(has_center(box, word.box_pt) for word in layer.words)
    )


def _large_pictures(layer: TextLayer, spec: ReadingSpec) -> list[Box]:
    """Pictures that are large enough to hold text, overlapping ones joined."""
    page = area(layer.page_box_pt)
    return [
        box
        for box in _joined(layer.image_boxes_pt)
        if area(box) >= spec.picture_share * page
        and min(box[2] - box[0], box[3] - box[1]) >= spec.picture_side_pt
    ]


def _is_sparse(layer: TextLayer) -> bool:
    """A stamp or a page number beside a scan, rather than a page of text."""
    return len(layer.words) < 12


def _has_private(text: str, spec: ReadingSpec) -> bool:
    """Whether too many characters are of the private use area, with a meaning in one font alone."""
    private = sum("\ue000" <= character <= "\uf8ff" for character in text)
    return private >= spec.least_unknown * max(1, len(text))


def _is_word(text: str) -> bool:
    """Whether two letters or digits follow each other, or the word is short."""
    if len(text) < 3:
        return text.isalnum()
    return any(a.isalnum() and b.isalnum() for a, b in pairwise(text))


def _joined(boxes: Sequence[Box]) -> list[Box]:
    """Boxes with those joined that overlap or touch: scans come in strips."""
    joined: list[Box] = []
    for box in sorted(boxes[:2_000], key=lambda b: (b[1], b[0])):
        merged = box
        while touching := [other for other in joined if _touch(other, merged)]:
            for other in touching:
                joined.remove(other)
                merged = _around([merged, other])
        joined.append(merged)
    return joined


def _touch(a: Box, b: Box, slack_pt: float = 1.0) -> bool:
    return (
        a[0] <= b[2] + slack_pt
        and b[0] <= a[2] + slack_pt
        and a[1] <= b[3] + slack_pt
        and b[1] <= a[3] + slack_pt
    )


def _around(boxes: Iterable[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return (min(x0), min(y0), max(x1), max(y1))


def has_center(box: Box, other: Box) -> bool:
    """Whether the middle of another box lies in a box."""
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return box[0] <= x < box[2] and box[1] <= y < box[3]


# ---- at what resolution ---------------------------------------------------------------------


def native_dpi(area_pt: Box, images: Sequence[PlacedImage], spec: ReadingSpec) -> float | None:
    """The finest resolution of the images that cover a part of a page; None where none does."""
    there = [
        image
        for image in images
        if area(intersection(image.box_pt, area_pt)) >= spec.full_page * area(area_pt)
    ]
    return max((_density(image) for image in there), default=None)


def _density(image: PlacedImage) -> float:
    """Pixels per inch along the image's own sides, however it is turned on the page."""
    a, b, c, d, _, _ = image.transform
    across, down = max(math.hypot(a, b), 1e-6), max(math.hypot(c, d), 1e-6)
    return POINTS_PER_INCH * max(image.width_px / across, image.height_px / down)


def dpi_for(area_pt: Box, dpi: float, native: float | None, spec: ReadingSpec) -> float:
    """The resolution that a part of a page is read at: so many pixels at most, and enough of them.

    Args:
        area_pt: The part.
        dpi: What is wanted of a page of the usual size.
        native: The resolution of the picture that is shown there, if it is one.
        spec: The numbers.
    """
    width_in = (area_pt[2] - area_pt[0]) / POINTS_PER_INCH
    height_in = (area_pt[3] - area_pt[1]) / POINTS_PER_INCH
    wanted = dpi
    if native is not None:  # a letter may be scanned onto a sheet of the wrong size
        enough = spec.least_side_px / max(width_in, height_in, 1e-6) * dpi / spec.dpi
        wanted = max(dpi, min(enough, native))
    return min(wanted, math.sqrt(spec.most_pixels / max(1e-9, width_in * height_in)))


# ---- what tesseract says --------------------------------------------------------------------


def parse_tsv(tsv: str, to_pt: Matrix) -> list[Token]:
    """The words of tesseract's TSV.

    Args:
        tsv: As ``tesseract ... tsv`` prints it.
        to_pt: Where the picture's pixels are on the page.

    Returns:
        In tesseract's order. Blocks are numbered by its blocks and paragraphs, so that a paragraph
        of its own remains one.
    """
    tokens: list[Token] = []
    blocks: dict[tuple[str, ...], int] = {}
    for row in tsv.splitlines()[1:]:
        columns = row.split("\t", 11)
        if len(columns) != 12 or columns[0] != "5":
            continue
        text = " ".join(columns[11].replace("\x00", UNKNOWN).split())
        if not text:
            continue
        left, top, width, height = (int(value) for value in columns[6:10])
        block = blocks.setdefault(tuple(columns[1:4]), len(blocks))
        tokens.append(
            Token(
                text=text,
                box_pt=_mapped((left, top, left + width, top + height), to_pt),
                confidence=min(max(0.0, float(columns[10])), MOST_RECOGNIZED),
                block=block,
                line=int(columns[4]),
            )
        )
    return tokens


def placed_at(dpi: float, area_pt: Box) -> Matrix:
    """The matrix of a picture that shows a part of a page upright."""
    scale = POINTS_PER_INCH / dpi
    return np.array([[scale, 0.0, area_pt[0]], [0.0, scale, area_pt[1]]])


def _mapped(box: tuple[int, int, int, int], to_pt: Matrix) -> Box:
    """The box around the four corners of a box of pixels, in points."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]], dtype=np.float64)
    points = to_pt @ corners
    low, high = points.min(axis=1), points.max(axis=1)
    return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def mean_confidence(tokens: Sequence[Token]) -> float | None:
    """Mean over recognized words; None where there is none."""
    recognized = [token.confidence for token in tokens if token.recognized]
    return sum(recognized) / len(recognized) if recognized else None


def sure_letters(tokens: Sequence[Token], spec: ReadingSpec) -> int:
    """Letters and digits of the words that are recognized well: what a better reading has more of.

    The mean alone prefers a reading that leaves out what is hard.
    """
    return sum(
        sum(character.isalnum() for character in token.text)
        for token in tokens
        if token.confidence >= spec.doubtful_word
    )


def is_doubtful(tokens: Sequence[Token], spec: ReadingSpec) -> bool:
    """Whether a page, or a part of one, is worth reading again."""
    confidence = mean_confidence(tokens)
    return confidence is not None and confidence < spec.doubtful_page


# ---- where it is doubtful -------------------------------------------------------------------


@dataclass(frozen=True)
class Doubt:
    """Lines of one block that follow each other and are recognized poorly.

    Attributes:
        box_pt: Around all of their words.
        confidence: Mean of their words.
        places: Indices of their words among the tokens.
    """

    box_pt: Box
    confidence: float
    places: tuple[int, ...]


def doubts(tokens: Sequence[Token], spec: ReadingSpec) -> list[Doubt]:
    """Lines that are recognized poorly on the whole, neighbours together, in reading order."""
    found: list[list[int]] = []
    open_block: int | None = None
    for (block, _), places in groupby(
        range(len(tokens)), key=lambda place: (tokens[place].block, tokens[place].line)
    ):
        line = [place for place in places if tokens[place].recognized]
        mean = mean_confidence([tokens[place] for place in line])
        if mean is None or mean >= spec.doubtful_word:
            open_block = None
            continue
        if open_block == block:
            found[-1].extend(line)
        else:
            found.append(line)
        open_block = block
    regions: list[Doubt] = []
    for places in found:
        box = _around(tokens[place].box_pt for place in places)
        if min(box[2] - box[0], box[3] - box[1]) < spec.least_region_pt:
            continue
        mean = mean_confidence([tokens[place] for place in places])
        regions.append(Doubt(box, mean or 0.0, tuple(places)))
    return regions


def replaced(tokens: Sequence[Token], doubt: Doubt, again: Sequence[Token]) -> list[Token]:
    """The tokens with those of a doubtful region read anew, in its place and its block."""
    first, gone = doubt.places[0], set(doubt.places)
    anew = [
        replace(token, block=tokens[first].block, line=tokens[first].line + 1_000 * index)
        for index, (_, line) in enumerate(
            groupby(again, key=lambda token: (token.block, token.line))
        )
        for token in line
    ]
    before = [token for place, token in enumerate(tokens[:first]) if place not in gone]
    after = [token for place, token in enumerate(tokens) if place > first and place not in gone]
    return [*before, *anew, *after]


# ---- put together ---------------------------------------------------------------------------


def layer_tokens(layer: TextLayer) -> list[Token]:
    """The words of a text layer."""
    return [
        Token(word.text, word.box_pt, CERTAIN, word.block, word.line)
        for word in layer.words
        if word.text.strip()
    ]


def merge(tokens: Sequence[Token], areas: Sequence[tuple[Box, Sequence[Token]]]) -> list[Token]:
    """Put what pictures say where they stand among the blocks of a text layer.

    A picture comes before the first block that begins below its top in the same column, and after
    everything else.

    Args:
        tokens: Of the text layer, in its order.
        areas: The pictures and what was recognized in each.
    """
    merged = list(tokens)
    block = 1 + max((token.block for token in tokens), default=-1)
    for box, said in sorted(areas, key=lambda found: (found[0][1], found[0][0])):
        if not said:
            continue
        numbers = {number: block + place for place, number in enumerate({t.block: 0 for t in said})}
        block += len(numbers)
        own = [replace(token, block=numbers[token.block]) for token in said]
        place = _place_of(box, merged)
        merged = [*merged[:place], *own, *merged[place:]]
    return merged


def _place_of(box: Box, tokens: Sequence[Token]) -> int:
    """Where among the tokens a picture belongs: the start of a block, or the end."""
    start = 0
    for _, members in groupby(tokens, key=lambda token: token.block):
        block = list(members)
        around = _around(token.box_pt for token in block)
        if around[1] >= box[1] and min(around[2], box[2]) > max(around[0], box[0]):
            return start
        start += len(block)
    return len(tokens)


def assemble(tokens: Sequence[Token]) -> tuple[str, tuple[Word, ...]]:
    """The text and the words with their spans: lines on lines, an empty line between blocks."""
    parts: list[str] = []
    words: list[Word] = []
    length = 0
    before: Token | None = None
    for token in tokens:
        if before is not None:
            same = before.block == token.block
            gap = " " if same and before.line == token.line else "\n" if same else "\n\n"
            parts.append(gap)
            length += len(gap)
        parts.append(token.text)
        words.append(Word(length, length + len(token.text), token.box_pt, token.confidence))
        length += len(token.text)
        before = token
    return "".join(parts), tuple(words)


def page_text(
    kind: Kind,
    tokens: Sequence[Token],
    dpi: float | None,
    regions: Sequence[Region],
    spec: ReadingSpec,
) -> PageText:
    """What a page says, put together from its words."""
    text, words = assemble(tokens)
    return PageText(
        kind=kind,
        language=language_of(text, spec.languages),
        dpi=dpi,
        confidence=mean_confidence(tokens),
        text=text,
        words=words,
        regions=tuple(regions),
    )


# ---- which language -------------------------------------------------------------------------

_COMMON = {
    "dan": "og at det en den til er som på med for ikke af han var",
    "deu": "der die und das ist nicht von zu den mit dem des ein eine für auf sich als auch im",
    "eng": "the of and to in is that for it as was with be by on not are this which or",
    "fin": "ja on ei se että oli hän mutta myös ovat kun niin kuin joka",
    "fra": "le la les et des est un une du que dans pour qui sur pas par au ne sont avec",
    "ita": "di che è il per un una non sono la del della con più gli anche come nel le",
    "nld": "de het een van en in is dat op te zijn niet met voor aan er ook als om door",
    "nor": "og det er på til en som for av ikke den med har at de var",
    "pol": "i w na z się nie jest do że to o jak przez po od oraz dla są",
    "por": "de que e o do da em um para com não uma os no se na por mais as dos",
    "spa": "de la que el en y los se del las un por con no una su para es al lo",
    "swe": "och att det i en som på är av för med till den har inte om ett de",
    "tur": "ve bir bu da de için ile olarak daha çok olan gibi kadar ancak en ne ya",
}
"""The commonest words of languages, by tesseract's names."""


def language_of(text: str, languages: Sequence[str]) -> str:
    """Which of some languages a text is in, by its commonest words; the first where that is open.

    Args:
        text: What the page says.
        languages: The languages that pages were read in, the most likely first.

    Returns:
        Three letters; empty for an empty text.
    """
    if not text.strip():
        return ""
    words = text.lower().split()
    counts = {
        language: sum(word in common for word in words)
        for language in languages
        if (common := set(_COMMON.get(language, "").split()))
    }
    best = max(counts, key=lambda language: counts[language], default="")
    return best if best and counts[best] > counts.get(languages[0], 0) else languages[0]
