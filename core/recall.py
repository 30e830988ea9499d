"""Recall: the items of a gallery that come near to a card, upright or upside down."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RecallSpec:
    """How the gallery is searched.

    Attributes:
        items: Distinct items that are brought, 50: with ten times as many the right one is there
            hardly more often, and each may have to be looked at.
        rows: Templates that are asked for; 50 rows are only about 24 items where each has several
            views and people added more.
        exact_rows: Up to so many templates each is compared; beyond, the index answers, unless a
            filter leaves a part of them. At 46,512 it takes 0.4 of the time and brings the same.
        ef_search: Width of the search in the index: 400 finds .99 of the nearest 50.
        cheap_rows: Templates that are asked for once a search took too long.
        cheap_ef_search: Width of that search.
        statement_s: How long one search may take before it is given up.
    """

    items: int = 50
    rows: int = 200
    exact_rows: int = 20_000
    ef_search: int = 400
    cheap_rows: int = 25
    cheap_ef_search: int = 60
    statement_s: float = 10.0


RECALL = RecallSpec()


@dataclass(frozen=True)
class Hit:
    """A template that came near, and whether the card was turned by 180 degrees for it."""

    template_id: str
    item_id: str
    similarity: float
    turned: bool


def best_items(hits: Sequence[Hit], items: int) -> list[Hit]:
    """The nearest template of each item, nearest items first.

    Args:
        hits: Templates of either direction, in any order.
        items: At most so many distinct items.
    """
    ordered = sorted(hits, key=lambda hit: (-hit.similarity, hit.template_id, hit.turned))
    best: dict[str, Hit] = {}
    for hit in ordered:
        best.setdefault(hit.item_id, hit)
    return list(best.values())[:items]
