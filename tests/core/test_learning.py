from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.learning import Event, LearningSpec, Proposal, State, capped, may_revoke, proposals

CURATORS = ("curator", "keeper")
USERS = ("ann", "ben", "eve", *CURATORS)


def said(
    number: int, user: str, item: str | None = "lotus", crop: str = "c1", **more: Any
) -> Event:
    """Somebody says what a crop is; None: that it is not in the gallery."""
    return Event(
        correction_id=number,
        verdict="unknown" if item is None else "is",
        detection_id=f"detection of {crop}",
        item_id=item,
        revokes=None,
        user=user,
        curator=more.pop("curator", user in CURATORS),
        crop_sha256=crop,
        **more,
    )


def taken_back(number: int, user: str, which: Event) -> Event:
    return replace(
        which,
        correction_id=number,
        verdict="revoke",
        item_id=None,
        revokes=which.correction_id,
        user=user,
        curator=user in CURATORS,
    )


def states(*events: Event) -> dict[str, State]:
    """What became of one crop, by item."""
    return {each.item_id: each.state for each in proposals(events)}


def only(*events: Event) -> Proposal:
    (proposal,) = proposals(events)
    return proposal


def test_nobody_said_anything() -> None:
    assert proposals([]) == []
    assert proposals([said(1, "ann", None)]) == []


def test_the_word_of_one_person_is_kept_in_quarantine() -> None:
    proposal = only(said(1, "ann"))
    assert proposal == Proposal(
        1, "lotus", "detection of c1", "c1", State.QUARANTINED,
        "1 of 2 people who have to agree say so", latest=1,
    )  # fmt: skip


def test_two_people_who_agree_are_enough() -> None:
    proposal = only(said(2, "ben"), said(1, "ann"))
    assert (proposal.correction_id, proposal.state) == (1, State.ACTIVE)
    assert proposal.reason == "2 people agree"


def test_one_person_is_not_two_by_repeating_it_nor_by_writing_another_name() -> None:
    names = ["ann", "ann", "Ann", " ANN ", "\uff41nn"]
    events = [said(number, name) for number, name in enumerate(names, start=1)]
    assert only(*events).state is State.QUARANTINED


def test_the_word_of_a_curator_is_enough() -> None:
    proposal = only(said(1, "curator"))
    assert (proposal.state, proposal.reason) == (State.ACTIVE, "the curator curator says so")


def test_a_curator_decides_against_those_who_agree() -> None:
    agreed = [said(1, "ann"), said(2, "ben")]
    assert states(*agreed, said(3, "curator", "island")) == {
        "lotus": State.REFUSED,
        "island": State.ACTIVE,
    }
    assert states(*agreed, said(3, "curator", None)) == {"lotus": State.REFUSED}


def test_of_two_curators_the_last_decides() -> None:
    events = [said(1, "curator", "lotus"), said(2, "keeper", "island")]
    assert states(*events) == {"lotus": State.REFUSED, "island": State.ACTIVE}


def test_as_long_as_people_disagree_nothing_is_learned() -> None:
    events = [said(1, "ann"), said(2, "ben"), said(3, "eve", "island")]
    assert states(*events) == {"lotus": State.QUARANTINED, "island": State.QUARANTINED}
    assert "people disagree" in proposals(events)[0].reason
    assert states(said(1, "ann"), said(2, "ben"), said(3, "eve", None)) == {
        "lotus": State.QUARANTINED
    }


def test_who_changes_their_mind_counts_once_and_as_they_said_last() -> None:
    events = [said(1, "ann", "island"), said(2, "ben"), said(3, "ann")]
    assert states(*events) == {"island": State.REVOKED, "lotus": State.ACTIVE}


def test_what_is_taken_back_was_not_said() -> None:
    first, second = said(1, "ann"), said(2, "ben")
    assert only(first, second, taken_back(3, "ben", second)).state is State.QUARANTINED
    gone = only(first, second, taken_back(3, "ben", second), taken_back(4, "ann", first))
    assert (gone.state, gone.reason) == (State.REVOKED, "nobody says so any more")
    again = [taken_back(3, "ann", first), said(4, "ann")]
    assert only(first, second, *again).state is State.ACTIVE


def test_taking_back_ones_last_word_leaves_the_one_before() -> None:
    first, second = said(1, "ann", "island"), said(2, "ann", "lotus")
    assert states(first, second, taken_back(3, "ann", second)) == {
        "island": State.QUARANTINED,
        "lotus": State.REVOKED,
    }


def test_nobody_but_a_curator_takes_back_what_another_said() -> None:
    events = [said(1, "ann"), said(2, "ben"), said(3, "curator", "island")]
    assert states(*events, taken_back(4, "ann", events[2]))["lotus"] is State.REFUSED
    assert states(*events, taken_back(4, "keeper", events[2]))["lotus"] is State.ACTIVE
    assert may_revoke("Ann ", False, "ann")
    assert not may_revoke("ann", False, "curator")


def test_to_take_back_what_nobody_said_changes_nothing() -> None:
    first = said(1, "ann")
    odd = [replace(taken_back(5, "ann", first), revokes=number) for number in (5, 77)]
    assert only(first, *odd).state is State.QUARANTINED


@pytest.mark.parametrize("user", USERS)
def test_what_is_kept_aside_to_measure_with_is_never_learned(user: str) -> None:
    kept = said(1, user, evaluation=True)
    proposal = only(kept, said(2, "ben"), said(3, "curator"))
    assert proposal.state is State.REFUSED
    assert proposal.reason == "the photograph is kept aside to measure with"
    later = only(said(1, "ann"), said(2, "curator", evaluation=True))
    assert later.state is State.REFUSED


def test_a_proposal_knows_the_last_event_that_speaks_of_its_crop() -> None:
    first = said(1, "ann")
    events = [first, said(2, "ben", None), taken_back(3, "ann", first), said(4, "ann", crop="b")]
    assert [(each.crop_sha256, each.latest) for each in proposals(events)] == [("c1", 3), ("b", 4)]


def test_each_crop_is_judged_by_itself() -> None:
    events = [said(1, "ann", crop="a"), said(2, "ben", crop="b"), said(3, "ann", crop="b")]
    assert [(each.crop_sha256, each.state) for each in proposals(events)] == [
        ("a", State.QUARANTINED),
        ("b", State.ACTIVE),
    ]


def test_an_item_learns_so_many_and_those_that_came_first() -> None:
    events = [said(number, "curator", crop=f"c{number}") for number in range(1, 13)]
    events.append(said(13, "curator", "island", crop="other"))
    kept = capped(proposals(events))
    assert [each.state for each in kept] == (
        [State.ACTIVE] * 10 + [State.QUARANTINED] * 2 + [State.ACTIVE]
    )
    assert kept[10].reason == "the item has 10 learned templates, which is the most"


def test_a_crop_that_is_refused_takes_no_others_place() -> None:
    events = [said(number, "curator", crop=f"c{number}") for number in range(1, 12)]
    first, *rest = proposals(events)
    kept = capped([replace(first, state=State.REFUSED, reason="no match"), *rest])
    assert [each.state for each in kept] == [State.REFUSED] + [State.ACTIVE] * 10


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(USERS),
        st.sampled_from(["lotus", "island", None]),
        st.sampled_from(["a", "b"]),
        st.none() | st.integers(1, 12),
    ),
    max_size=12,
)


def made(words: list[tuple[str, str | None, str, int | None]]) -> list[Event]:
    """Events out of drawn words; those with a number take that event back."""
    events: list[Event] = []
    for number, (user, item, crop, which) in enumerate(words, start=1):
        event = said(number, user, item, crop)
        if which is not None:
            event = replace(event, verdict="revoke", item_id=None, revokes=which)
        events.append(event)
    return events


def active(events: list[Event], spec: LearningSpec | None = None) -> set[tuple[str, str]]:
    found = proposals(events, spec or LearningSpec())
    return {(each.crop_sha256, each.item_id) for each in found if each.state is State.ACTIVE}


@given(words=EVENTS)
def test_no_single_user_ever_teaches_anything(
    words: list[tuple[str, str | None, str, int | None]],
) -> None:
    alone = [("eve", *rest) for _, *rest in words]
    assert active(made(alone)) == set()  # pyright: ignore[reportArgumentType]


@given(words=EVENTS)
def test_whatever_is_active_two_people_or_a_curator_say_last(
    words: list[tuple[str, str | None, str, int | None]],
) -> None:
    events = made(words)
    for crop, item in active(events):
        users = {
            event.user for event in events if event.crop_sha256 == crop and event.item_id == item
        }
        assert len(users) >= 2 or users & set(CURATORS)


@given(words=EVENTS, more=EVENTS)
def test_no_single_user_makes_active_what_a_curator_refused(
    words: list[tuple[str, str | None, str, int | None]],
    more: list[tuple[str, str | None, str, int | None]],
) -> None:
    before = made(words)
    added = [
        replace(event, correction_id=100 + event.correction_id, user="eve", curator=False)
        for event in made(more)
    ]
    refused = {
        (each.crop_sha256, each.item_id) for each in proposals(before) if "otherwise" in each.reason
    }
    assert not refused & active([*before, *added])


@given(words=EVENTS, order=st.randoms(use_true_random=False))
def test_the_order_in_which_events_are_read_does_not_matter(
    words: list[tuple[str, str | None, str, int | None]], order: Any
) -> None:
    events = made(words)
    shuffled = events.copy()
    order.shuffle(shuffled)
    assert proposals(shuffled) == proposals(events)
