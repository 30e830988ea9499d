from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

import resources.recall
import store.gallery_items
import store.gallery_templates
import store.template_embeddings
from assets.candidates import _sought  # pyright: ignore[reportPrivateUsage]
from core.errors import InputError
from core.gallery import GalleryItem, ReceivedImage
from core.recall import RECALL
from resources.recall import Recalled, View, nearest_items
from store.template_embeddings import EVERYTHING, Among, QueryTooSlowError

DIM = 8
Vectors = NDArray[np.float32]


def unit(count: int) -> Vectors:
    vectors = np.random.default_rng(4).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def table(db: psycopg.Connection) -> str:
    """Thirty items of two sets, with two templates each."""
    table = store.template_embeddings.table_of(db, "encoder", DIM)
    items = [GalleryItem(f"i{n}", set_code="base" if n % 2 else "jungle") for n in range(30)]
    images = [
        ReceivedImage(item.item_id, f"{item.item_id}/{n}", f"{n}.png", "key")
        for item in items
        for n in range(2)
    ]
    store.gallery_items.add(db, "g-1", items, images)
    for image in images:
        store.gallery_templates.replace(db, image.template_id, "spec", "key")
    ids, owners = [i.template_id for i in images], [i.item_id for i in images]
    store.template_embeddings.add(db, table, ids, owners, unit(60))
    return table


def slow(search: Callable[..., Any]) -> Callable[..., Any]:
    """A search before which the database sleeps for longer than anybody waits."""

    def sleeping(db: psycopg.Connection, *arguments: Any) -> Any:
        db.execute("SELECT pg_sleep(30)")
        return search(db, *arguments)

    return sleeping


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search may take a quarter of a second."""
    monkeypatch.setattr(resources.recall, "RECALL", replace(RECALL, statement_s=0.25))


@pytest.fixture
def slow_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = store.template_embeddings.nearest_exact
    monkeypatch.setattr(store.template_embeddings, "nearest_exact", slow(exact))


@pytest.fixture
def slow_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    indexed = store.template_embeddings.nearest_indexed
    monkeypatch.setattr(store.template_embeddings, "nearest_indexed", slow(indexed))


def views(upright: NDArray[np.float32], turned: NDArray[np.float32]) -> list[View]:
    return [(upright, False), (turned, True)]


def timeout(db: psycopg.Connection) -> object:
    return db.execute("SHOW statement_timeout").fetchone()


def test_a_card_is_found_as_it_lies_and_upside_down(db: psycopg.Connection, table: str) -> None:
    vectors = unit(60)
    upright = nearest_items(db, table, 60, views(vectors[10], -vectors[10]))
    assert (upright.hits[0].item_id, upright.hits[0].turned, upright.loss) == ("i5", False, "")
    turned = nearest_items(db, table, 60, views(-vectors[10], vectors[10]))
    assert (turned.hits[0].item_id, turned.hits[0].turned) == ("i5", True)
    assert len({hit.item_id for hit in upright.hits}) == len(upright.hits) == 30


def test_only_what_is_allowed_is_brought(db: psycopg.Connection, table: str) -> None:
    vectors = unit(60)
    found = nearest_items(db, table, 60, views(vectors[10], vectors[20]), Among(sets=("jungle",)))
    assert {int(hit.item_id[1:]) % 2 for hit in found.hits} == {0}
    assert len(found.hits) == 15


@pytest.mark.usefixtures("impatient", "slow_exact")
def test_where_a_search_takes_too_long_a_cheaper_one_answers_and_that_is_said(
    db: psycopg.Connection, table: str
) -> None:
    before = timeout(db)
    vectors = unit(60)
    found = nearest_items(db, table, 60, views(vectors[10], -vectors[10]))
    assert found.hits[0].item_id == "i5"
    assert found.loss == (
        "searching the gallery took longer than 0.25 s; a cheaper search brought the nearest "
        f"{len(found.hits)} items"
    )
    assert 0 < len(found.hits) <= 2 * RECALL.cheap_rows
    assert timeout(db) == before


@pytest.mark.usefixtures("impatient", "slow_exact", "slow_indexed")
def test_where_both_take_too_long_there_is_no_answer_rather_than_a_wrong_one(
    db: psycopg.Connection, table: str
) -> None:
    before = timeout(db)
    vectors = unit(60)
    with pytest.raises(QueryTooSlowError, match=r"longer than 0\.25 s"):
        nearest_items(db, table, 60, views(vectors[10], -vectors[10]))
    refused = _sought(db, table, 60, views(vectors[10], -vectors[10]), EVERYTHING)
    assert isinstance(refused, InputError)
    assert str(refused).startswith("the gallery could not be searched: a search took longer")
    assert timeout(db) == before
    assert db.info.transaction_status.name == "IDLE"


def test_a_gallery_beyond_what_is_compared_whole_is_searched_by_its_index(
    db: psycopg.Connection, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.recall, "RECALL", replace(RECALL, exact_rows=59, rows=3))

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(store.template_embeddings, "nearest_exact", never)
    vectors = unit(60)
    assert nearest_items(db, table, 60, views(vectors[10], -vectors[10])).hits[0].item_id == "i5"


def test_what_cannot_be_sought_is_no_answer_either(db: psycopg.Connection, table: str) -> None:
    vectors = unit(60)
    known = _sought(db, table, 60, views(vectors[0], vectors[1]), EVERYTHING)
    assert isinstance(known, Recalled)
    among = Among(sets=("' OR '1'='1' --",), languages=("ja",))
    refused = _sought(db, table, 60, views(vectors[0], vectors[1]), among)
    assert str(refused) == ("no item of the gallery is of set ' OR '1'='1' -- and of language ja")
    db.execute("DELETE FROM gallery_items")
    empty = _sought(db, table, 0, views(vectors[0], vectors[1]), EVERYTHING)
    assert "the gallery holds no templates" in str(empty)
