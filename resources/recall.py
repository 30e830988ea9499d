"""Searching the gallery: exact, or by its index, and cheaper where that takes too long."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import store.template_embeddings
from core.recall import RECALL, Hit, best_items
from store.database import Db
from store.template_embeddings import EVERYTHING, Among, Near, QueryTooSlowError, in_time

View = tuple[NDArray[np.float32], bool]
"""A unit vector, and whether the card was turned by 180 degrees for it."""


@dataclass(frozen=True)
class Recalled:
    """What a search brought, and what it lost in one sentence; empty for nothing."""

    hits: list[Hit]
    loss: str = ""


def nearest_items(
    db: Db,
    table: str,
    rows: int,
    views: Sequence[View],
    among: Among = EVERYTHING,
) -> Recalled:
    """The items nearest to a card; one cheaper search where the first takes too long.

    Args:
        db: A connection.
        table: Vectors of the encoder.
        rows: How many they are.
        views: Vectors of the card: whole and without its rim, both ways up.
        among: Which items are sought.

    Raises:
        QueryTooSlowError: The cheaper search took too long, too.
    """

    def near(cheap: bool) -> list[Hit]:
        found: list[Hit] = []
        for vector, is_turned in views:
            each = _nearest(db, table, rows, vector, among, cheap=cheap)
            found += [Hit(n.template_id, n.item_id, n.similarity, is_turned) for n in each]
        return best_items(found, RECALL.items)

    try:
        with in_time(db, RECALL.statement_s):
            return Recalled(near(cheap=False))
    except QueryTooSlowError:
        with in_time(db, RECALL.statement_s):
            found = near(cheap=True)
        loss = (
            f"searching the gallery took longer than {RECALL.statement_s:g} s; a cheaper search "
            f"brought the nearest {len(found)} items"
        )
        return Recalled(found, loss)


def _nearest(
    db: Db, table: str, rows: int, vector: NDArray[np.float32], among: Among, *, cheap: bool
) -> list[Near]:
    if cheap:
        return store.template_embeddings.nearest_indexed(
            db, table, vector, among, RECALL.cheap_rows, RECALL.cheap_ef_search
        )
    if rows <= RECALL.exact_rows or among != EVERYTHING:
        return store.template_embeddings.nearest_exact(db, table, vector, among, RECALL.rows)
    return store.template_embeddings.nearest_indexed(
        db, table, vector, among, RECALL.rows, RECALL.ef_search
    )
