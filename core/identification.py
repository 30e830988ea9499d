"""Which known card is on a rectified crop.

The embedding brings up to fifty items near; here it is decided which of them it is, or that it is
none. Local features find the one whose picture lies on the crop. Cards that share its artwork
(reprints, parallels, other frames, other languages) cannot be told apart by that, so they are
compared only where they differ from each other, as they would look in this photograph. What is left
different in the best one, above all where cards carry their set symbol and number, tells whether
the card is a print that the gallery does not hold.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from core.card_comparison import (
    Aligned,
    ComparisonSpec,
    Expected,
    Mask,
    Shown,
    Vector,
    above_strip,
    blurred_like,
    compare,
    differing,
    hidden,
    light_of,
    same_artwork,
    same_tone,
    seen_pixels,
    strip_seen,
    versus,
)
from core.card_decision import probability_of, window_measures
from core.card_verification import (
    FRAME_PX,
    CardFeatures,
    Colour,
    Fit,
    GeometrySpec,
    Plane,
    Sheet,
    align,
    card_features,
    find_fit,
    sheet,
)
from core.features import grey_of, normalise_contrast
from core.geometry import Image
from core.opencv import cv2


class Decision(StrEnum):
    """What is done with a card."""

    ACCEPT = "accept"
    REVIEW = "review"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class IdentificationSpec:
    """What decides which card it is.

    Attributes:
        version: Part of the key of stored identifications.
        strong_inliers: A template on which so many features agree ends the search, 60: two cards of
            one frame and unlike artwork share up to about 40.
        max_verified: Templates whose features are compared before the best one so far is taken, 10:
            a card that is partly covered is not always the first that the embedding brings.
        look_alikes_within: Items, in the order of recall, among which look-alikes of the confirmed
            one are sought, 16: they look alike to the embedding, too.
        less_similar: Templates that the embedding finds so much less similar than the confirmed one
            are not compared, 0.35: cards with another frame come to 0.25.
        max_look_alikes: Most templates that are compared with each other.
        perhaps_same_artwork: Share of a template that must agree with another's when both are
            reduced to a quarter, 0.7: look-alikes come to 0.77 and more, and 99 of 100 others in
            the same frame stay below.
        same_artwork: The same when they are aligned and reduced to half, 0.78: look-alikes come to
            0.87 and more, other artworks in the same frame to at most 0.69.
        unknown_inliers: With fewer inliers, 60, no known card is on the crop,
        unknown_agree: if three of ten windows correlate less than this, 0.4, either: another
            artwork in the same frame comes to about 0, a known card mostly to 0.9.
        accept: Probability from which nobody needs to look, 0.85: with a tenth of unknown cards,
            997 of 1000 accepted are right, and three quarters are accepted.
        doubtful_margin: Logarithm of the likelihood ratio below which two prints count as hard to
            tell apart in the reasons, 20.
        doubtful_strip: From which excess in the number strip on the reasons name an unseen print,
            1.5: 19 of 20 known cards stay below, 19 of 20 unseen reprints of which the strip can be
            seen do not.
        accept_seen: Share of what is printed on the strip that has to be seen to accept, 0.5: a
            print whose number is covered may be any print.
        read_scale: Width of the strip for reading, in widths of the frame.
        read_match: What a number that was read and is the candidate's adds to the logit.
        read_contradicts: What another number takes away.
        geometry: How a template is found on a crop.
        comparison: How pixels are compared.
    """

    version: int = 1
    strong_inliers: int = 60
    max_verified: int = 10
    look_alikes_within: int = 16
    less_similar: float = 0.35
    max_look_alikes: int = 12
    perhaps_same_artwork: float = 0.7
    same_artwork: float = 0.78
    unknown_inliers: int = 60
    unknown_agree: float = 0.4
    accept: float = 0.85
    doubtful_margin: float = 20.0
    doubtful_strip: float = 1.5
    accept_seen: float = 0.5
    read_scale: float = 4.0
    read_match: float = 2.0
    read_contradicts: float = 3.0
    geometry: GeometrySpec = field(default_factory=GeometrySpec)
    comparison: ComparisonSpec = field(default_factory=ComparisonSpec)


@dataclass(frozen=True)
class Template:
    """One reference view of a known item.

    Attributes:
        item_id: The item.
        template_id: This view of it; unique.
        load: Reads its pixels: RGB, uint8, a rectified card in portrait, best 300 x 420 px. Called
            at most once per identification, and only for the few templates that are looked at.
        load_small: Reads them in grey, uint8, reduced to about a quarter, where that takes less
            time than to load and reduce them. Unlike templates are told by that.
        set_code: As printed, or empty.
        number: As printed, such as ``012/145`` or ``TG07``, or empty.
        language: Of the text, or empty.
        name: Of the card, or empty.
    """

    item_id: str
    template_id: str
    load: Callable[[], Image]
    load_small: Callable[[], NDArray[np.uint8]] | None = None
    set_code: str = ""
    number: str = ""
    language: str = ""
    name: str = ""


@dataclass(frozen=True)
class Recalled:
    """What the search of the gallery brought.

    Attributes:
        template: The template.
        similarity: Inner product of the two vectors, -1 to 1.
        turned: The crop resembled it more when turned by 180 degrees.
    """

    template: Template
    similarity: float
    turned: bool = False


@dataclass(frozen=True)
class Candidate:
    """An item that the card may be.

    Attributes:
        item_id: The item.
        template_id: Its view that fits best.
        score: Probability, 0 to 1, that this is the card; over all candidates at most 1.
        similarity: Of the embedding, -1 to 1; 0 for a view that the search had not brought.
        inliers: Features of the picture on which geometry agrees; 0 for another artwork.
        differential: Where the card lies between this candidate and the best other one of the same
            artwork: 1 is this, -1 the other. None where no other has this artwork.
        reasons: Sentences for the user.
    """

    item_id: str
    template_id: str
    score: float
    similarity: float
    inliers: int = 0
    differential: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identification:
    """Which item a card is.

    Attributes:
        decision: Accept, review or unknown.
        score: Probability, 0 to 1, that the first candidate is right; low for cards that the
            gallery does not hold, also for a reprint of which it holds another print.
        candidates: Distinct items, best first, at most five.
        turned: The crop is upside down.
        reasons: Sentences for the user: why it needs a look, or why it is unknown.
        measures: What was measured, for plots and for fitting the model.
    """

    decision: Decision
    score: float
    candidates: tuple[Candidate, ...]
    turned: bool
    reasons: tuple[str, ...]
    measures: dict[str, float]


@dataclass
class _Shelf:
    """Templates, each loaded once, and brought into the frame when that is asked for."""

    images: dict[str, Image] = field(default_factory=dict[str, Image])
    sheets: dict[str, Sheet] = field(default_factory=dict[str, Sheet])

    def image(self, template: Template) -> Image:
        """Its pixels as they are stored."""
        if template.template_id not in self.images:
            self.images[template.template_id] = template.load()
        return self.images[template.template_id]

    def sheet(self, template: Template) -> Sheet:
        """Its pixels in the frame."""
        if template.template_id not in self.sheets:
            self.sheets[template.template_id] = sheet(self.image(template))
        return self.sheets[template.template_id]


@dataclass(frozen=True)
class _Confirmed:
    """The template that geometry confirms."""

    hit: Recalled
    fit: Fit


@dataclass(frozen=True)
class _Contest:
    """The confirmed template and its look-alikes, compared on the card.

    Attributes:
        hits: The confirmed one first.
        best: Which of them the card is.
        margins: Likelihood ratio of the best to each, shape (n,).
        leanings: Where the card lies between the best and each; 1 is the best.
        measures: Of the best.
    """

    hits: tuple[Recalled, ...]
    best: int
    margins: Vector
    leanings: Vector
    measures: dict[str, float]


def identify(
    card: Image,
    recalled: Sequence[Recalled],
    spec: IdentificationSpec | None = None,
    *,
    more: Callable[[str], Sequence[Template]] | None = None,
    read: Callable[[Image], str] | None = None,
) -> Identification:
    """Decide which of the recalled items a card is, or that it is none of them.

    At most ``spec.max_verified`` templates are matched by features and ``spec.look_alikes_within``
    loaded, so memory stays below 100 MB. The result depends on nothing but the arguments.

    Args:
        card: The rectified crop in portrait, RGB, uint8, upright or upside down, best 300 x 420 px.
        recalled: Up to fifty distinct items, nearest first; an item may come with several views.
        spec: What decides.
        more: Further views of an item, asked for the items that remain in contention.
        read: Reads the number strip of the upright card, enlarged, RGB; called once, and only if
            a candidate has a number. What it returns is searched for numbers.

    Returns:
        UNKNOWN where no known artwork is on the crop; REVIEW where the artwork is known and the
        print is in doubt.

    Raises:
        ValueError: The card is not RGB or has no pixels.
    """
    spec = spec or IdentificationSpec()
    seen, shelf = sheet(card), _Shelf()
    confirmed = _confirm(seen, recalled, shelf, spec)
    if confirmed is None:
        return _unknown(recalled, {"inliers": 0.0})
    rivals = _look_alikes(confirmed.hit, recalled, shelf, more, spec)
    contest = _settle(seen, confirmed, rivals, shelf, spec)
    measures = {**contest.measures, "inliers": float(confirmed.fit.inliers)}
    measures["similarity"] = confirmed.hit.similarity
    few = confirmed.fit.inliers < spec.unknown_inliers
    if few and contest.measures["agree"] < spec.unknown_agree:
        return _unknown(_first(contest, recalled), measures, turned=confirmed.fit.turned)
    return _decide(card, confirmed, contest, recalled, measures, read, spec)


def _confirm(
    card: Sheet, recalled: Sequence[Recalled], shelf: _Shelf, spec: IdentificationSpec
) -> _Confirmed | None:
    """The first template on which strong geometry agrees, or the strongest of those tried."""
    features: CardFeatures = card_features(card, spec.geometry)
    best: _Confirmed | None = None
    for hit in recalled[: spec.max_verified]:
        known = card_features(shelf.sheet(hit.template), spec.geometry)
        fit = find_fit(features, known, spec.geometry)
        if fit is not None and (best is None or fit.inliers > best.fit.inliers):
            best = _Confirmed(hit, fit)
            if fit.inliers >= spec.strong_inliers:
                break
    return best


def _look_alikes(
    first: Recalled,
    recalled: Sequence[Recalled],
    shelf: _Shelf,
    more: Callable[[str], Sequence[Template]] | None,
    spec: IdentificationSpec,
) -> tuple[tuple[Recalled, Colour], ...]:
    """Templates of the same artwork in the same place, in the frame and tone of the first."""
    reference = shelf.sheet(first.template)
    coarse, fine = _coarse(first.template, shelf), _fine(reference.colour)
    found: list[tuple[Recalled, Colour]] = []
    known = {first.template.template_id}
    items = {first.template.item_id: first.similarity}

    def consider(hit: Recalled) -> None:
        if hit.template.template_id in known or len(found) >= spec.max_look_alikes:
            return
        known.add(hit.template.template_id)
        if first.similarity - hit.similarity > spec.less_similar:
            return
        if same_artwork(coarse, _coarse(hit.template, shelf), 7) < spec.perhaps_same_artwork:
            return
        other = shelf.sheet(hit.template)
        moved, _ = align(other, reference, np.eye(3), spec.geometry)
        if same_artwork(fine, _fine(moved)) >= spec.same_artwork:
            found.append((hit, same_tone(moved, reference.colour)))
            items.setdefault(hit.template.item_id, hit.similarity)

    within: set[str] = set()
    for hit in recalled:
        within.add(hit.template.item_id)
        if len(within) > spec.look_alikes_within:
            break
        consider(hit)
    if more is not None:
        for item_id, similarity in list(items.items()):
            for template in more(item_id):
                consider(Recalled(template, similarity, first.turned))
    return tuple(found)


def _coarse(template: Template, shelf: _Shelf) -> Plane:
    """A template reduced to a quarter of the frame, with local contrast divided out."""
    image = template.load_small() if template.load_small else shelf.image(template)
    size = (FRAME_PX[0] // 4, FRAME_PX[1] // 4)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.clip(normalise_contrast(grey_of(small), 6.0, 4.0), -3, 3)


def _fine(colour: Colour) -> Plane:
    """A template reduced to half of the frame, with local contrast divided out."""
    size = (FRAME_PX[0] // 2, FRAME_PX[1] // 2)
    grey = cv2.cvtColor(cv2.resize(colour, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return np.clip(normalise_contrast(np.asarray(grey), 12.0, 4.0), -3, 3)


def _settle(
    card: Sheet,
    confirmed: _Confirmed,
    rivals: Sequence[tuple[Recalled, Colour]],
    shelf: _Shelf,
    spec: IdentificationSpec,
) -> _Contest:
    """Show every contender as this photograph would show it, and see which one is there."""
    comparison = spec.comparison
    first = shelf.sheet(confirmed.hit.template)
    pixels, inside = align(card, first, confirmed.fit.homography, spec.geometry)
    aligned = Aligned(pixels, seen_pixels(pixels, inside, comparison))
    hits = (confirmed.hit, *(hit for hit, _ in rivals))
    pictures = [first.colour, *(picture for _, picture in rivals)]
    common = aligned.seen & ~differing(pictures, comparison)
    enough = common.sum() >= comparison.least_common * aligned.seen.sum()
    trusted = (common if enough else aligned.seen) & above_strip(comparison)
    blurred = blurred_like(pictures, pixels, trusted, comparison)
    items = [hit.template.item_id for hit in hits]
    return _Contest(hits, *judge(aligned, blurred, items, common if enough else None, comparison))


def judge(
    aligned: Aligned,
    blurred: Sequence[Colour],
    items: Sequence[str],
    common: Mask | None,
    spec: ComparisonSpec,
) -> tuple[int, Vector, Vector, dict[str, float]]:
    """Which of some look-alikes an aligned card is, and what is left different in that one.

    Args:
        aligned: The card, in the look-alikes' frame.
        blurred: The look-alikes, as blurred as the card.
        items: Which item each is a view of; views of one item do not compete.
        common: Where all of them show the same; None if that is too little to measure light there.
        spec: How pixels are compared.

    Returns:
        The place of the best; its likelihood ratio to each, shape (n,); where the card lies between
        the best and each, shape (n,); and the measures of the best.
    """
    above = above_strip(spec)
    everywhere = aligned.seen if common is None else common
    light = light_of(aligned.colour, blurred[0], everywhere, spec)
    shown = [Shown(light.on(picture)) for picture in blurred]
    if common is None:
        lights = (light_of(aligned.colour, picture, everywhere, spec) for picture in blurred)
        shown = [Shown(own.on(picture)) for own, picture in zip(lights, blurred, strict=True)]
    windows, expected = compare(aligned, shown[0], everywhere & above, spec)
    covered = hidden(aligned, shown, expected, spec)
    aligned = Aligned(aligned.colour, aligned.seen & ~covered)
    best, margins, leanings = _strongest(aligned, shown, expected, spec)
    if len(shown) > 1 or covered.any():  # now the light can be measured on the whole of the best
        light = light_of(aligned.colour, blurred[best], aligned.seen, spec)
        windows, _ = compare(aligned, Shown(light.on(blurred[best])), aligned.seen & above, spec)
    rival = np.array([item != items[best] for item in items])
    measures = window_measures(windows, float(covered.mean()), spec)
    measures["strip_seen"] = strip_seen(aligned, shown[best], spec)
    measures["margin"] = float(margins[rival].min()) if rival.any() else 400.0
    measures["leaning"] = float(leanings[rival].min()) if rival.any() else 1.0
    measures["look_alikes"] = float(len(set(items)) - 1)
    measures["noise"] = float(np.sqrt(expected.levels[0]))
    return best, margins, leanings, measures


def _strongest(
    aligned: Aligned, shown: Sequence[Shown], expected: Expected, spec: ComparisonSpec
) -> tuple[int, Vector, Vector]:
    """The look-alike that loses to no other, and how it does against each."""

    @cache
    def forward(one: int, other: int) -> Vector:
        return np.array(versus(aligned, shown[one], shown[other], expected, spec))

    def outcome(one: int, other: int) -> Vector:
        return forward(one, other) if one <= other else -forward(other, one)

    best = 0
    for place in range(1, len(shown)):
        if outcome(place, best)[0] > 0:
            best = place
    against = np.zeros((len(shown), 2))
    for _ in shown:
        against = np.array([outcome(best, other) for other in range(len(shown))])
        worst = int(against[:, 0].argmin())
        if against[worst, 0] >= 0:
            break
        best = worst  # it has beaten others, but not this one
    return best, against[:, 0], against[:, 1]


def _decide(
    card: Image,
    confirmed: _Confirmed,
    contest: _Contest,
    recalled: Sequence[Recalled],
    measures: dict[str, float],
    read: Callable[[Image], str] | None,
    spec: IdentificationSpec,
) -> Identification:
    score = probability_of(measures)
    number = contest.hits[contest.best].template.number
    reasons: list[str] = []
    if read is not None and number:
        text = read(number_strip(card, spec, turned=confirmed.fit.turned))
        agrees = number_agrees(text, number)
        if agrees is not None:
            measures["read"] = 1.0 if agrees else -1.0
            logit = float(np.log(score + 1e-6) - np.log(1 - score + 1e-6))
            logit += spec.read_match if agrees else -spec.read_contradicts
            score = float(1 / (1 + np.exp(-logit)))
            if not agrees:
                reasons.append(f"The number on the card does not read {number}.")
                others = [
                    hit.template for hit in contest.hits if number_agrees(text, hit.template.number)
                ]
                reasons += [f"It reads that of {other.item_id}." for other in others[:1]]
    sure = score >= spec.accept and measures["strip_seen"] >= spec.accept_seen
    decision = Decision.ACCEPT if sure else Decision.REVIEW
    if decision == Decision.REVIEW:
        reasons += _doubts(measures, spec)
    candidates = _candidates(confirmed, contest, recalled, score)
    return Identification(
        decision, score, candidates, confirmed.fit.turned, tuple(reasons), measures
    )


def _doubts(measures: dict[str, float], spec: IdentificationSpec) -> list[str]:
    """Why somebody should look."""
    doubts: list[str] = []
    if measures["strip"] > spec.doubtful_strip:
        doubts.append(
            "The artwork is known, but the set symbol or number at the lower edge differs: "
            "perhaps a print that the gallery does not hold."
        )
    if measures["look_alikes"] > 0 and measures["margin"] < spec.doubtful_margin:
        doubts.append("Two prints of this artwork can hardly be told apart on this photograph.")
    if measures["strip_seen"] < spec.accept_seen:
        doubts.append("The set symbol or number at the lower edge is covered or burnt out.")
    if measures["inliers"] < spec.strong_inliers:
        doubts.append(f"Only {round(measures['inliers'])} features of the picture agree.")
    return doubts or ["The picture is too blurred or too bright to be sure of the print."]


def _candidates(
    confirmed: _Confirmed, contest: _Contest, recalled: Sequence[Recalled], score: float
) -> tuple[Candidate, ...]:
    """The contenders by likelihood, then what else was recalled."""
    found: dict[str, Candidate] = {}
    order = np.argsort(contest.margins, kind="stable").tolist()
    order.remove(contest.best)
    rest = 1.0 - score
    for place in [contest.best, *order]:
        hit = contest.hits[place]
        own = place == contest.best
        if hit.template.item_id in found:
            continue
        rest = rest if own else rest / 2
        others = [
            float(contest.leanings[k])
            for k in range(len(contest.hits))
            if contest.hits[k].template.item_id != hit.template.item_id
        ]
        toward = min(others) if own and others else -float(contest.leanings[place])
        less = 1.0 if own else float(np.exp(-min(float(contest.margins[place]), 50.0) / 25.0))
        reason = f"{confirmed.fit.inliers} features of the picture agree."
        found[hit.template.item_id] = Candidate(
            hit.template.item_id,
            hit.template.template_id,
            score if own else min(score, rest) * less,
            hit.similarity,
            confirmed.fit.inliers,
            toward if others else None,
            (reason,) if own else ("The same artwork in another print.",),
        )
    for hit in recalled:
        if len(found) >= 5:
            break
        found.setdefault(
            hit.template.item_id,
            Candidate(hit.template.item_id, hit.template.template_id, 0.0, hit.similarity),
        )
    return tuple(found.values())[:5]


def _first(contest: _Contest, recalled: Sequence[Recalled]) -> list[Recalled]:
    best = contest.hits[contest.best]
    return [best, *(hit for hit in recalled if hit is not best)]


def _unknown(
    recalled: Sequence[Recalled], measures: dict[str, float], *, turned: bool | None = None
) -> Identification:
    found: dict[str, Candidate] = {}
    score = 0.02 * min(1.0, measures["inliers"] / 100)
    for hit in recalled:
        template = hit.template
        found.setdefault(
            template.item_id,
            Candidate(
                template.item_id, template.template_id, 0.0 if found else score, hit.similarity
            ),
        )
        if len(found) == 5:
            break
    if turned is None:
        turned = bool(recalled) and recalled[0].turned
    reason = "No known card has this artwork." if recalled else "The gallery is empty."
    return Identification(
        Decision.UNKNOWN, score, tuple(found.values()), turned, (reason,), measures
    )


def number_strip(card: Image, spec: IdentificationSpec, *, turned: bool) -> Image:
    """The lower edge of the upright card, from the crop as it is and enlarged for reading."""
    pixels = card[::-1, ::-1] if turned else card
    height, width = pixels.shape[:2]
    strip = np.ascontiguousarray(pixels[round(height * (1 - spec.comparison.strip_height)) :])
    scale = spec.read_scale * FRAME_PX[0] / width
    large = cv2.resize(strip, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, np.uint8)


def number_agrees(text: str, number: str) -> bool | None:
    """Whether a printed number is among what was read; None where nothing like it was read.

    Leading zeros and case do not count. A number after a slash, the size of the set, is compared
    where both have one.
    """
    wanted = _numbers(number)
    found = _numbers(text)
    if not wanted or not found:
        return None
    first = wanted[0]
    if any(_equal(first, other) for other in found):
        return True
    alike = [other for other in found if bool(other[1]) == bool(first[1])]
    return False if alike else None


def _numbers(text: str) -> list[tuple[str, str]]:
    matches = re.findall(r"([A-Z]{0,4}\d{1,4}[A-Z]?)(?:\s*/\s*([A-Z]{0,4}\d{1,4}))?", text.upper())
    return [(_plain(number), _plain(size)) for number, size in matches]


def _plain(number: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", number)


def _equal(a: tuple[str, str], b: tuple[str, str]) -> bool:
    return a[0] == b[0] and (not a[1] or not b[1] or a[1] == b[1])
