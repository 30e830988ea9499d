"""Learning from corrections: which crops may become templates, out of events alone.

Nothing that one person says changes the gallery. A crop waits in quarantine until two people
agree, or a curator says so; it is taken out again when too few are left who do. Which of the crops
that may then pass also look like their item, and do no harm, is for the asset to find out.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """What became of a crop that a correction names."""

    QUARANTINED = "quarantined"
    ACTIVE = "active"
    REFUSED = "refused"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Event:
    """One thing that somebody said.

    Attributes:
        correction_id: Its number; later events have larger ones.
        verdict: ``is``, ``unknown`` (not in the gallery) or ``revoke``.
        detection_id: Of which detection.
        item_id: What it is; None unless the verdict is ``is``.
        revokes: The event that is taken back; None unless the verdict is ``revoke``.
        user: Who said it.
        curator: Whether that person's word is enough.
        crop_sha256: Hash of the picture it was said of.
        evaluation: Whether that picture is kept aside to measure with.
    """

    correction_id: int
    verdict: str
    detection_id: str
    item_id: str | None
    revokes: int | None
    user: str
    curator: bool
    crop_sha256: str
    evaluation: bool = False


@dataclass(frozen=True)
class LearningSpec:
    """What a crop needs to become a template.

    Attributes:
        users: So many people must agree; one may be wrong, or may wish to deceive.
        most_per_item: Learned templates of an item; more would crowd out other items.
        least_inliers: Geometric matches with an official template: those of another artwork are
            below 15.
    """

    users: int = 2
    most_per_item: int = 10
    least_inliers: int = 40


LEARNING = LearningSpec()


@dataclass(frozen=True)
class Proposal:
    """A crop that somebody says is an item.

    Attributes:
        correction_id: The first event that says so; it names the proposal.
        item_id: The item.
        detection_id: What it was cut from.
        crop_sha256: The crop.
        state: ``ACTIVE`` means that people agree; geometry, replay and the cap may still stop it.
        reason: Why it is in this state, in one sentence.
        latest: The last event that speaks of the crop: what was judged before it is judged anew.
    """

    correction_id: int
    item_id: str
    detection_id: str
    crop_sha256: str
    state: State
    reason: str
    latest: int = 0


def proposals(events: Sequence[Event], spec: LearningSpec = LEARNING) -> list[Proposal]:
    """What people's corrections propose, and whether enough of them agree.

    Args:
        events: All of them, in any order.
        spec: How many have to agree.

    Returns:
        One for each crop and item that was ever named together, by their first event. What a
        person said last of a crop is what that person says of it; what was revoked was not said.
        Only who said it, or a curator, can revoke it.
    """
    latest: dict[str, int] = defaultdict(int)
    for event in events:
        latest[event.crop_sha256] = max(latest[event.crop_sha256], event.correction_id)
    revoked = _revoked(events)
    said: dict[str, dict[str, Event]] = defaultdict(dict)
    first: dict[tuple[str, str], Event] = {}
    for event in sorted(events, key=lambda event: event.correction_id):
        if event.verdict == "revoke":
            continue
        if event.item_id is not None:
            first.setdefault((event.crop_sha256, event.item_id), event)
        if event.correction_id not in revoked:
            said[event.crop_sha256][person(event.user)] = event
    found: list[Proposal] = []
    for (crop, item_id), event in first.items():
        state, reason = _judged(list(said[crop].values()), item_id, event, spec)
        found.append(
            Proposal(
                event.correction_id, item_id, event.detection_id, crop, state, reason, latest[crop]
            )
        )
    return sorted(found, key=lambda each: each.correction_id)


def person(user: str) -> str:
    """A user's name as it is compared: nobody is two people by writing it in capitals."""
    return " ".join(unicodedata.normalize("NFKC", user).casefold().split())


def may_revoke(user: str, curator: bool, author: str) -> bool:
    """Whether somebody can take back what an author said."""
    return curator or person(user) == person(author)


def _revoked(events: Sequence[Event]) -> set[int]:
    authors = {event.correction_id: event.user for event in events if event.verdict != "revoke"}
    return {
        event.revokes
        for event in events
        if event.revokes is not None
        and event.revokes in authors
        and may_revoke(event.user, event.curator, authors[event.revokes])
    }


def _judged(
    words: Sequence[Event], item_id: str, event: Event, spec: LearningSpec
) -> tuple[State, str]:
    if event.evaluation or any(word.evaluation for word in words):
        return State.REFUSED, "the photograph is kept aside to measure with"
    here = [word for word in words if word.item_id == item_id]
    others = [word for word in words if word.item_id != item_id]
    if not here:
        return State.REVOKED, "nobody says so any more"
    curators = [word for word in words if word.curator]
    if curators:
        last = max(curators, key=lambda word: word.correction_id)
        if last.item_id == item_id:
            return State.ACTIVE, f"the curator {last.user} says so"
        return State.REFUSED, f"the curator {last.user} says otherwise"
    if others:
        return State.QUARANTINED, "people disagree; a curator can decide"
    if len(here) < spec.users:
        return State.QUARANTINED, f"{len(here)} of {spec.users} people who have to agree say so"
    return State.ACTIVE, f"{len(here)} people agree"


def capped(found: Sequence[Proposal], spec: LearningSpec = LEARNING) -> list[Proposal]:
    """Only so many of an item are active: those that were proposed first.

    Args:
        found: Proposals that were judged in every other respect, in the order of their events: one
            that was refused takes no other's place.
        spec: How many.
    """
    active: dict[str, int] = defaultdict(int)
    kept: list[Proposal] = []
    for each in found:
        if each.state is State.ACTIVE:
            active[each.item_id] += 1
            if active[each.item_id] > spec.most_per_item:
                reason = f"the item has {spec.most_per_item} learned templates, which is the most"
                each = replace(each, state=State.QUARANTINED, reason=reason)
        kept.append(each)
    return kept
