"""The words of a report: neutral, exact, and the same wherever a pair is shown.

A report says what is similar and how; it never says why. The words for the why (and any verdict)
belong to the person who signs.
"""

import math
import re
from dataclasses import dataclass

from core.report import ChannelKind, DocumentScope, Relation, Report, ReportPair, Status, Tier
from core.text import visible


@dataclass(frozen=True)
class WordLimits:
    """From where on a change between two regions is worth a word."""

    turn_deg: float = 1.0
    """Registration of panels a few hundred pixels wide is good to a fraction of a degree."""
    scale: float = 0.02
    """Relative. Resampling to another dpi shows from about 2 %; below it is rounding of boxes."""
    stretch: float = 0.03
    """Relative difference of the two directions, just above what the registration leaves."""
    brightness: float = 4.0
    """Grey levels of 255. Recompression as JPEG moves the mean of a region by less."""
    contrast: float = 0.06
    """Relative; blurring by resampling changes the spread by a few percent."""
    shift_px: float = 2.0
    """Below, two regions of one panel lie at the same place."""


LIMITS = WordLimits()

RELATION_LABEL: dict[Relation, str] = {
    "same_image": "Same image",
    "other_channel": "Another channel or merge of one field",
    "overlapping_fields": "Overlapping fields",
    "copy_move": "Repeated region within one panel",
    "same_blot": "Same blot or gel bands",
}
RELATION_NOTE: dict[Relation, str] = {
    "same_image": (
        "The two panels appear to show one picture. That can be intended, for instance a control "
        "shown twice and said to be so; the legends and the source images tell."
    ),
    "other_channel": (
        "The two panels appear to show one field in different channels, or a channel and the "
        "merged picture. Figures often do this for good reasons; it needs a look only where the "
        "legends say otherwise."
    ),
    "overlapping_fields": (
        "The two panels appear to share part of one field of view. Neighbouring or enlarged views "
        "of one sample are common; legends that name different samples need a look."
    ),
    "copy_move": (
        "Two regions of one panel resemble each other. Regular texture, stitching and compression "
        "can produce this; the source image tells."
    ),
    "same_blot": (
        "Bands of the two panels resemble each other in shape and background. Loading controls of "
        "one membrane may be shown more than once; the uncropped blot tells."
    ),
}
TIER_LABEL: dict[Tier, str] = {"A": "Tier A, clear match", "B": "Tier B, possible match"}
TIER_NOTE: dict[Tier, str] = {
    "A": "On development documents without any reuse, this threshold raised no alarm.",
    "B": "On development documents, at least half of the pairs at this threshold were real.",
}
STATUS_LABEL: dict[Status, str] = {
    "ok": "Complete",
    "degraded": "Degraded",
    "failed": "Failed",
}
STATUS_NOTE: dict[Status, str] = {
    "ok": "Everything in scope was looked at.",
    "degraded": (
        "Parts were not looked at. Regions in what is listed here may be similar to others "
        "without being reported."
    ),
    "failed": "There is no result, and no conclusion can be drawn from this report.",
}
CHANNEL_LABEL: dict[ChannelKind, str] = {
    "local": "Local image features",
    "encoder": "Image encoder",
    "copy_move": "Repeats within one panel",
}


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 pair``, ``1,204 pairs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share in percent that never rounds to all or nothing what is neither."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


def shortened(text: str, limit: int = 64) -> str:
    """The text with its middle left out where it is longer than a line has room for.

    Start and end stay, because names of files differ there.
    """
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def describe(pair: ReportPair) -> str:
    """What the measurements say, in one sentence that claims nothing else.

    The order is that of the transform: mirror, turn, scale; then what happened to the grey levels;
    then how much is shared. "B matches A mirrored left to right, turned 12 degrees clockwise,
    reduced to 80 %, brighter; they share 63 % of the smaller panel."
    """
    geometry, greys = _geometry(pair), _greys(pair)
    if geometry:
        how = " " + ", ".join(geometry + greys)
    else:
        but = f" but {', '.join(greys)}" if greys else ""
        how = f", neither turned, mirrored nor scaled{but}"
    matches = {
        "same_image": "B matches A",
        "other_channel": "B matches the structures of A",
        "overlapping_fields": "Part of B matches part of A",
        "copy_move": "Within one panel, region B matches region A",
        "same_blot": "The bands of B match those of A",
    }[pair.relation]
    return f"{matches}{how}; {_shared(pair)}."


def _shared(pair: ReportPair) -> str:
    if pair.relation == "copy_move":
        return f"B lies {_shifted(pair)}, each covers {percent(pair.overlap)} of the panel"
    if pair.overlap >= 0.995:
        return "they share the whole of the smaller panel"
    return f"they share {percent(pair.overlap)} of the smaller panel"


def _geometry(pair: ReportPair) -> list[str]:
    words: list[str] = []
    turn = pair.rotation_deg
    if pair.mirrored and abs(abs(turn) - 180) < LIMITS.turn_deg:
        words.append("mirrored top to bottom")
    else:
        if pair.mirrored:
            words.append("mirrored left to right")
        if abs(turn) >= LIMITS.turn_deg:
            words.append(_turned(turn))
    if pair.stretch - 1 >= LIMITS.stretch:
        words.append("stretched in one direction")
    if pair.scale - 1 >= LIMITS.scale:
        words.append(f"enlarged to {100 * pair.scale:.0f} %")
    elif 1 - pair.scale >= LIMITS.scale:
        words.append(f"reduced to {100 * pair.scale:.0f} %")
    return words


def _turned(degrees: float) -> str:
    whole = round(abs(degrees))
    if whole == 180:
        return "turned upside down (180 degrees)"
    sense = "clockwise" if degrees > 0 else "counter-clockwise"
    return f"turned {counted(whole, 'degree')} {sense}"


def _shifted(pair: ReportPair) -> str:
    """How far, in the panel, region A's centre travels under the transform."""
    corners = pair.a.region_px
    x = sum(corner[0] for corner in corners) / len(corners)
    y = sum(corner[1] for corner in corners) / len(corners)
    (a, b, c), (d, e, f) = pair.transform
    right, down = a * x + b * y + c - x, d * x + e * y + f - y
    if math.hypot(right, down) < LIMITS.shift_px:
        return "at the same place as A"
    steps = [
        f"{abs(step):.0f} px {direction}"
        for step, direction in (
            (right, "to the right of" if right > 0 else "to the left of"),
            (down, "below" if down > 0 else "above"),
        )
        if abs(step) >= 1
    ]
    return " and ".join(
        f"{step} {'it' if position else 'A'}" for position, step in enumerate(steps)
    )


def _greys(pair: ReportPair) -> list[str]:
    words: list[str] = []
    if pair.contrast < 0:
        words.append("inverted in brightness")
    else:
        if abs(pair.brightness) >= LIMITS.brightness:
            words.append("brighter" if pair.brightness > 0 else "darker")
        if abs(pair.contrast - 1) >= LIMITS.contrast:
            words.append("with more contrast" if pair.contrast > 1 else "with less contrast")
    return words


def outcome(status: Status, pairs: int) -> str:
    """One word for programs that no two different results share.

    ``pairs_found``, ``no_pairs_found`` (everything was looked at), ``pairs_found_incomplete``,
    ``no_pairs_found_incomplete`` (more may be in what was not looked at), ``failed``.
    """
    if status == "failed" and not pairs:
        return "failed"
    found = "pairs_found" if pairs else "no_pairs_found"
    return found if status == "ok" else f"{found}_incomplete"


def headline(report: Report) -> str:
    """The answer in one sentence, which is never a bare "none" when something was left out."""
    review = report.pairs - report.pairs_often_legitimate
    legitimate = report.pairs_often_legitimate
    kind = outcome(report.status, report.pairs)
    if kind == "failed":
        return "The search failed. Nothing can be concluded from this report."
    if kind == "no_pairs_found":
        return "No similar regions found."
    if kind == "no_pairs_found_incomplete":
        return "No similar regions found in what was looked at, but parts were not looked at."
    parts: list[str] = []
    if review:
        verb = "needs" if review == 1 else "need"
        parts.append(f"{counted(review, 'pair')} of similar regions {verb} review")
    if legitimate:
        more = "more " if review else ""
        verb = "is" if legitimate == 1 else "are"
        noun = "pair" if legitimate == 1 else "pairs"
        of = "" if review else " of similar regions"
        parts.append(f"{legitimate:,} {more}{noun}{of} {verb} of a kind that is often legitimate")
    sentence = "; ".join(parts) + "."
    return sentence if report.status == "ok" else sentence + " Parts were not looked at."


def document_reasons(document: DocumentScope) -> tuple[str, ...]:
    """Why a document is not ``ok``: its own reasons, then those of its pages."""
    pages = tuple(f"Page {failed.page}: {failed.reason}" for failed in document.pages_failed)
    return document.reasons + pages


def modality_label(modality: str) -> str:
    """``bright_field`` as ``bright field``."""
    return re.sub(r"[_\s]+", " ", visible(modality)).strip()


def not_looked_at(report: Report) -> tuple[str, ...]:
    """What the search did not see, one sentence each; empty when it saw everything.

    Pages and documents that failed are listed with their reasons beside the document and are only
    counted here.
    """
    coverage = report.coverage
    failed = sum(document.status == "failed" for document in report.documents)
    pages = sum(document.pages - document.pages_looked_at for document in report.documents)
    sentences: list[str] = []
    if failed:
        sentences.append(f"{counted(failed, 'document')} of {len(report.documents):,} failed.")
    if pages:
        sentences.append(f"{counted(pages, 'page')} could not be looked at.")
    if coverage.panels_missed:
        sentences.append(f"{counted(coverage.panels_missed, 'panel')} found but not compared.")
    if coverage.tiles_missed:
        sentences.append(f"{counted(coverage.tiles_missed, 'tile')} of panels not compared.")
    if coverage.panels_set_aside:
        verb = "was" if coverage.panels_set_aside == 1 else "were"
        sentences.append(
            f"{counted(coverage.panels_set_aside, 'chart or drawing', 'charts and drawings')} "
            f"{verb} set aside: their axes and shapes resemble each other by nature."
        )
    if coverage.tiles_blank:
        verb = "was" if coverage.tiles_blank == 1 else "were"
        sentences.append(
            f"{counted(coverage.tiles_blank, 'blank tile')} {verb} not compared: they hold no "
            "structure."
        )
    sentences += [
        f"{CHANNEL_LABEL[channel.kind]}: not used ({visible(channel.detail)})."
        for channel in report.channels
        if not channel.ran
    ]
    return tuple(sentences)
