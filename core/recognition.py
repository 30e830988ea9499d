"""Recognizing part of a page: in which order what is tried, and which reading is kept.

First readings are alike in what they take, and several pages go side by side. What makes a reading
better takes more memory, and few pages need it: it is a step of its own. Rendering and tesseract
are handed in, so this knows no process and no file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from core.errors import BudgetError, InputError
from core.geometry import Box, intersection, share_inside
from core.paper import Grey, cleaned, ink_share, skew_of, turned
from core.reading import (
    Doubt,
    Matrix,
    PageText,
    Plan,
    ReadingSpec,
    Region,
    TextLayer,
    Token,
    doubts,
    dpi_for,
    has_center,
    is_doubtful,
    layer_tokens,
    mean_confidence,
    merge,
    page_text,
    parse_tsv,
    placed_at,
    replaced,
    sure_letters,
)


@dataclass(frozen=True)
class Picture:
    """Part of a page in grey, and the resolution that it has."""

    grey: Grey
    dpi: float


class Engine(Protocol):
    """What recognizes letters; see ``resources.tesseract``."""

    def read(self, grey: Grey, dpi: float, *, one_block: bool = False) -> str:
        """Words, boxes and confidences as tesseract's TSV."""
        ...

    def quarter_turn(self, grey: Grey, dpi: float) -> int:
        """How far to turn the picture clockwise until it is upright; 0 where that is open."""
        ...


Render = Callable[[Box, float], Picture]
"""Draws part of a page (points) at a resolution."""


@dataclass
class Recognized:
    """What was recognized in part of a page.

    Attributes:
        tokens: The words, in reading order.
        dpi: The resolution of the reading that was kept; None where nothing was read.
        blank: There is nothing but paper, and perhaps dust.
        regions: Where it is doubtful.
        losses: What kept it from being read as well as it should be.
    """

    tokens: list[Token] = field(default_factory=list[Token])
    dpi: float | None = None
    blank: bool = False
    regions: list[Region] = field(default_factory=list[Region])
    losses: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class _Slant:
    """How a page lies: quarter turns in degrees clockwise to be upright, and the rise of lines."""

    upright: int = 0
    skew: float | None = None
    """None where it has not been measured."""


@dataclass(frozen=True)
class _Reading:
    tokens: list[Token]
    dpi: float
    slant: _Slant


@dataclass(frozen=True)
class Attempt:
    """A first reading of part of a page.

    Attributes:
        area_pt: The part.
        native: The resolution of the picture that is shown there, if it is one.
        ink: Share of it that is dark.
        dpi: At which it was drawn.
        reading: What was read; None where it is blank, or where that did not fit the memory.
        refusal: Why it did not fit.
    """

    area_pt: Box
    native: float | None
    ink: float
    dpi: float
    reading: _Reading | None
    refusal: BudgetError | None = None


def read_first(
    area_pt: Box, native: float | None, picture: Picture, engine: Engine, spec: ReadingSpec
) -> Attempt:
    """Read part of a page as it is.

    Args:
        area_pt: The part.
        native: The resolution of the picture that is shown there, if it is one.
        picture: The part, drawn at the resolution that ``dpi_for`` gives.
        engine: Reads what was drawn.
        spec: The numbers.

    Raises:
        InputError: The engine fails on it.
    """
    ink = ink_share(picture.grey, spec.paper)
    reading = refusal = None
    if ink > spec.blank_ink:
        try:
            reading = _read(picture, area_pt, _Slant(), engine, spec)
        except BudgetError as error:
            refusal = error
    return Attempt(area_pt, native, ink, picture.dpi, reading, refusal)


def is_settled(attempt: Attempt, spec: ReadingSpec) -> bool:
    """Whether nothing would be tried to make a first reading better."""
    if attempt.refusal is not None:
        return False
    reading = attempt.reading
    return reading is None or not (
        _may_be_turned(reading, spec)
        or is_doubtful(reading.tokens, spec)
        or doubts(reading.tokens, spec)
    )


def is_writing(attempt: Attempt, spec: ReadingSpec) -> bool:
    """Whether most of what was read in a picture among text is sure, so that it is worth more.

    What is nearly letters in a photograph does not become letters by looking closer.
    """
    tokens = attempt.reading.tokens if attempt.reading is not None else []
    sure = sum(token.confidence >= spec.doubtful_word for token in tokens)
    return attempt.refusal is not None or 2 * sure > len(tokens)


def as_it_is(attempt: Attempt) -> Recognized:
    """A first reading that nothing is done about."""
    reading = attempt.reading
    return Recognized(reading.tokens, reading.dpi) if reading is not None else Recognized()


def settle(attempt: Attempt, render: Render, engine: Engine, spec: ReadingSpec) -> Recognized:
    """Make a first reading better where that may help: turned, then finer, then line by line.

    Args:
        attempt: The first reading.
        render: Draws the part again, or some of it.
        engine: Reads what was drawn.
        spec: The numbers.

    Raises:
        InputError: Nothing of it can be drawn or read.
        BudgetError: It does not fit the memory, at the lowest resolution either.
    """
    area_pt, dpi, best = attempt.area_pt, attempt.dpi, attempt.reading
    if best is None and attempt.refusal is None:
        return Recognized(blank=True)
    found = Recognized()
    if best is None:
        best = _at_less(attempt, render, engine, spec)
        dpi = best.dpi
    if dpi < min(spec.dpi, attempt.native or spec.dpi) - 1:
        found.losses.append(
            f"is so large that its text was read at {dpi:.0f} instead of {spec.dpi:.0f} dpi; "
            "small print may be missing"
        )
    try:
        if spec.rotate == "auto" and _may_be_turned(best, spec):
            best = _upright(best, area_pt, render, engine, spec)
        for wanted in spec.again_dpi:
            finer = dpi_for(area_pt, wanted, attempt.native, spec)
            if is_doubtful(best.tokens, spec) and finer >= 1.2 * dpi:
                again = _read(render(area_pt, finer), area_pt, best.slant, engine, spec)
                best = _better(best, again, spec)
    except (InputError, BudgetError, MemoryError) as error:
        why = str(error) or "not enough memory"
        found.losses.append(f"could not be read again, to read it better: {why}")
    if not best.tokens:
        found.blank = attempt.ink <= spec.empty_ink
        found.dpi = None if found.blank else best.dpi
        return found
    found.dpi = best.dpi
    found.tokens, found.regions = _mended(best, area_pt, render, engine, spec)
    return found


def _at_less(attempt: Attempt, render: Render, engine: Engine, spec: ReadingSpec) -> _Reading:
    """The reading at the highest resolution that fits the memory, each of half the pixels."""
    assert attempt.refusal is not None
    dpi, refusal = attempt.dpi / 1.4, attempt.refusal
    while dpi >= spec.least_dpi:
        try:
            return _read(render(attempt.area_pt, dpi), attempt.area_pt, _Slant(), engine, spec)
        except BudgetError as error:
            dpi, refusal = dpi / 1.4, error
    raise refusal


def _upright(
    reading: _Reading, area_pt: Box, render: Render, engine: Engine, spec: ReadingSpec
) -> _Reading:
    """The reading of a page that is turned as the engine advises, where that is better."""
    picture = render(area_pt, reading.dpi)
    turn = engine.quarter_turn(cleaned(picture.grey, picture.dpi, spec.paper), picture.dpi)
    if not turn:
        return reading
    upright = _read(picture, area_pt, _Slant(turn), engine, spec)
    gain = sure_letters(upright.tokens, spec) / max(1, sure_letters(reading.tokens, spec))
    return upright if gain >= spec.turned_gain else reading


def put_together(
    plan: Plan, layer: TextLayer, read: Sequence[tuple[Box, Recognized]], spec: ReadingSpec
) -> PageText:
    """What a page says, from its text layer and what was recognized of it, as planned.

    Of pictures among text only what is well recognized counts: a photograph is full of shapes that
    are nearly letters. A page with nothing on it is blank, however it was to be read.
    """
    if plan.kind == "text_layer":
        return page_text("text_layer", layer_tokens(layer), None, (), spec)
    dpis = [found.dpi for _, found in read if found.dpi is not None]
    dpi = min(dpis, default=None)
    if plan.kind == "hybrid":
        sure = [
            (area, [token for token in found.tokens if token.confidence >= spec.doubtful_word])
            for area, found in read
        ]
        tokens = merge(layer_tokens(layer), sure)
        if not any(token.recognized for token in tokens):
            return page_text("text_layer", tokens, None, (), spec)
        return page_text("hybrid", tokens, dpi, (), spec)
    tokens = [token for _, found in read for token in found.tokens]
    if all(found.blank for _, found in read):
        return page_text("blank", (), None, (), spec)
    return page_text("ocr", tokens, dpi, [r for _, found in read for r in found.regions], spec)


def _read(
    picture: Picture,
    area_pt: Box,
    slant: _Slant,
    engine: Engine,
    spec: ReadingSpec,
    *,
    one_block: bool = False,
) -> _Reading:
    """Clean, turn and straighten a picture, and read it."""
    grey = cleaned(picture.grey, picture.dpi, spec.paper)
    to_pt = placed_at(picture.dpi, area_pt)
    if slant.upright:
        grey, back = turned(grey, -slant.upright)
        to_pt = _after(to_pt, back)
    if slant.skew is None:
        slant = replace(slant, skew=skew_of(grey, spec.paper.most_skew))
    if slant.skew is not None and abs(slant.skew) >= spec.paper.least_skew:
        grey, back = turned(grey, -slant.skew)
        to_pt = _after(to_pt, back)
    said = engine.read(grey, picture.dpi, one_block=one_block)
    return _Reading(parse_tsv(said, to_pt), picture.dpi, slant)


def _after(to_pt: Matrix, back: Matrix) -> Matrix:
    """The matrix that maps by ``back`` first, then by ``to_pt``."""
    last = np.array([[0.0, 0.0, 1.0]])
    return to_pt @ np.vstack([back, last])


def _may_be_turned(reading: _Reading, spec: ReadingSpec) -> bool:
    confidence = mean_confidence(reading.tokens)
    return confidence is None or confidence < spec.turned_page


def _better(first: _Reading, second: _Reading, spec: ReadingSpec) -> _Reading:
    more = sure_letters(second.tokens, spec) > sure_letters(first.tokens, spec)
    return second if more else first


def _mended(
    reading: _Reading, area_pt: Box, render: Render, engine: Engine, spec: ReadingSpec
) -> tuple[list[Token], list[Region]]:
    """Read the largest doubtful regions again, closer, and keep what is better.

    All are drawn first: whoever draws may be let go before the engine starts. Where one fails,
    the others are left as they are, and told as doubtful.
    """

    def closer(doubt: Doubt) -> tuple[Box, Picture] | None:
        around = intersection(_widened(doubt.box_pt, spec.region_margin_pt), area_pt)
        dpi = dpi_for(around, spec.region_dpi, None, spec)
        return (around, render(around, dpi)) if dpi >= 1.2 * reading.dpi else None

    tokens = reading.tokens
    largest = sorted(doubts(tokens, spec), key=lambda doubt: -len(doubt.places))
    again: list[tuple[Box, float]] = []
    # From the end on, so that the places of those before stay what they are.
    chosen = sorted(largest[: spec.most_regions], key=lambda doubt: -doubt.places[0])
    try:
        drawn = [(doubt, *found) for doubt in chosen if (found := closer(doubt))]
        for doubt, around, picture in drawn:
            read = _read(picture, around, reading.slant, engine, spec, one_block=True)
            again.append((doubt.box_pt, picture.dpi))
            before = [tokens[place] for place in doubt.places]
            # What else shows at the edges is read where it belongs.
            own = [token for token in read.tokens if has_center(doubt.box_pt, token.box_pt)]
            if sure_letters(own, spec) > sure_letters(before, spec):
                tokens = replaced(tokens, doubt, own)
    except (InputError, BudgetError, MemoryError):
        pass  # what was not read again is told as such
    return tokens, [
        Region(doubt.box_pt, doubt.confidence, _read_at(doubt.box_pt, again))
        for doubt in doubts(tokens, spec)
    ]


def _widened(box: Box, margin: float) -> Box:
    return (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)


def _read_at(box: Box, again: list[tuple[Box, float]]) -> float | None:
    """The resolution at which most of a region was read again; None where it was not."""
    shares = [(share_inside(box, other), dpi) for other, dpi in again]
    share, dpi = max(shares, default=(0.0, 0.0))
    return dpi if share > 0.5 else None
