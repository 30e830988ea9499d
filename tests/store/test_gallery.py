from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, LiteralString

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from psycopg import sql

import store.batches
import store.confusion_pairs
import store.corrections
import store.detections
import store.gallery_items
import store.gallery_quality
import store.gallery_templates
import store.progress
import store.scans
import store.template_embeddings
import store.work
from core.gallery import GalleryItem, ReceivedImage
from core.learning import State, proposals
from core.recall import Hit
from core.work import Job, Outcome, Status
from resources.embedded_postgres import EmbeddedPostgres
from resources.postgres import Postgres
from store.corrections import Label, NewCorrection
from store.detections import StoredDetection, StoredIdentification
from store.scans import Scan
from store.template_embeddings import (
    EVERYTHING,
    Among,
    Near,
    QueryTooSlowError,
    in_time,
    nearest_exact,
    nearest_indexed,
)
from tests.conftest import fresh_database

DIM = 16
SETS = ("base", "jungle", "fossil")
LANGUAGES = ("en", "ja")
HOSTILE = (
    "' OR '1'='1' --",
    '"; DROP TABLE corrections; --',
    "%(id)s %s %",
    "{table}",
    "\\'; SELECT pg_sleep(9); --",
    "}{",
    "NULL",
)
"""Texts that are statements, parameters or markup for whoever reads them as such."""

Vectors = NDArray[np.float32]


def image(item_id: str, number: int = 0, **more: Any) -> ReceivedImage:
    digest = f"{abs(hash((item_id, number))):064x}"
    return ReceivedImage(
        item_id, digest, f"{number}.png", f"gallery/{item_id}/{number}.png", **more
    )


def unit(rng: np.random.Generator, count: int, dim: int = DIM) -> Vectors:
    vectors = rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def add_items(db: psycopg.Connection, items: list[GalleryItem], views: int = 1) -> list[str]:
    """Items with so many templates each; their ids in order."""
    images = [image(item.item_id, number) for item in items for number in range(views)]
    store.gallery_items.add(db, "g-1", items, images)
    for each in images:
        store.gallery_templates.replace(db, each.template_id, "spec", f"{each.template_id}.jpg")
    return [each.template_id for each in images]


def job(asset: str, *keys: str) -> Job:
    return Job(asset, "spec", keys, 999, "run")


def done(db: psycopg.Connection, asset: str, key: str, *units: str, **more: Any) -> None:
    """Have an asset finish some units of a batch."""
    store.work.record(db, job(asset, key), [Outcome(each, key, **more) for each in units])
    store.batches.finish(db, job(asset, key))


# Searching


class Gallery:
    """Items of two attributes with several templates each, and their vectors."""

    def __init__(self, db: psycopg.Connection, items: int, views: int) -> None:
        rng = np.random.default_rng(3)
        self.items = [
            GalleryItem(f"i{n}", set_code=SETS[n % 3], language=LANGUAGES[n % 2])
            for n in range(items)
        ]
        self.ids = add_items(db, self.items, views)
        self.owners = [item for item in self.items for _ in range(views)]
        self.vectors = unit(rng, len(self.ids)).astype(np.float16).astype(np.float32)
        self.table = store.template_embeddings.table_of(db, "encoder", DIM)
        owners = [item.item_id for item in self.owners]
        store.template_embeddings.add(db, self.table, self.ids, owners, self.vectors)

    def allowed(self, among: Among) -> NDArray[np.bool_]:
        return np.array(
            [
                (not among.sets or item.set_code in among.sets)
                and (not among.languages or item.language in among.languages)
                for item in self.owners
            ]
        )

    def check(self, found: list[Near], query: Vectors, among: Among, rows: int) -> None:
        """The answer is that of comparing each with the query."""
        query = query.astype(np.float16).astype(np.float32)
        cosines = self.vectors @ query
        best = np.sort(cosines[self.allowed(among)])[::-1][:rows]
        similarities = [each.similarity for each in found]
        np.testing.assert_allclose(similarities, best, atol=1e-5)
        assert len({each.template_id for each in found}) == len(found)
        for each in found:
            place = self.ids.index(each.template_id)
            assert self.allowed(among)[place]
            assert each.item_id == self.owners[place].item_id
            assert each.similarity == pytest.approx(float(cosines[place]), abs=1e-5)


AMONG = st.builds(
    Among,
    st.lists(st.sampled_from([*SETS, "none of them"]), unique=True, max_size=3).map(tuple),
    st.lists(st.sampled_from([*LANGUAGES, ""]), unique=True, max_size=2).map(tuple),
)


@pytest.fixture(scope="module")
def shared(embedded_postgres: EmbeddedPostgres) -> Iterator[tuple[psycopg.Connection, Gallery]]:
    """A gallery that searches only read."""
    with (
        fresh_database(embedded_postgres) as url,
        Postgres(database_url=url).connect() as db,
    ):
        yield db, Gallery(db, items=60, views=3)


@given(seed=st.integers(0, 2**32 - 1), among=AMONG, rows=st.integers(1, 250))
@settings(max_examples=60)
def test_the_exact_search_is_that_of_comparing_each(
    shared: tuple[psycopg.Connection, Gallery], seed: int, among: Among, rows: int
) -> None:
    db, gallery = shared
    (query,) = unit(np.random.default_rng(seed), 1)
    gallery.check(nearest_exact(db, gallery.table, query, among, rows), query, among, rows)


@given(seed=st.integers(0, 2**32 - 1), among=AMONG, rows=st.integers(1, 60))
@settings(max_examples=30)
def test_the_index_brings_as_many_as_the_filter_leaves(
    shared: tuple[psycopg.Connection, Gallery], seed: int, among: Among, rows: int
) -> None:
    db, gallery = shared
    (query,) = unit(np.random.default_rng(seed), 1)
    found = nearest_indexed(db, gallery.table, query, among, rows, ef_search=10)
    assert len(found) == min(rows, int(gallery.allowed(among).sum()))
    assert found == sorted(found, key=lambda near: (-near.similarity, near.template_id))


def test_where_few_pass_the_filter_they_are_found_though_the_scan_of_the_index_ends(
    db: psycopg.Connection,
) -> None:
    gallery = Gallery(db, items=150, views=2)
    store.gallery_items.add(db, "g-1", [GalleryItem("i7", set_code="promo")], [])
    db.execute("SET hnsw.max_scan_tuples = 1")
    query = -gallery.vectors[14]  # the two templates of i7 are among the last to be met
    found = nearest_indexed(db, gallery.table, query, Among(sets=("promo",)), 5, ef_search=2)
    assert {each.template_id for each in found} == set(gallery.ids[14:16])


def test_the_index_is_used_and_the_exact_search_passes_it_by(
    shared: tuple[psycopg.Connection, Gallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, gallery = shared
    plans: list[str] = []
    plain = store.template_embeddings._nearest  # pyright: ignore[reportPrivateUsage]

    def noting(at: psycopg.Connection, table: str, query: Vectors, *rest: Any) -> list[Near]:
        rows = at.execute(
            sql.SQL("EXPLAIN SELECT 1 FROM {t} ORDER BY embedding <#> %(q)s LIMIT 3").format(
                t=sql.Identifier(table)
            ),
            {"q": store.template_embeddings.HalfVector(query)},
        ).fetchall()
        plans.append(" ".join(row[0] for row in rows))
        return plain(at, table, query, *rest)

    monkeypatch.setattr(store.template_embeddings, "_nearest", noting)
    nearest_indexed(db, gallery.table, gallery.vectors[0], EVERYTHING, 3, 10)
    nearest_exact(db, gallery.table, gallery.vectors[0], EVERYTHING, 3)
    assert "Index Scan" in plans[0]
    assert "Index Scan" not in plans[1]


def test_vectors_of_two_encoders_never_meet(db: psycopg.Connection) -> None:
    gallery = Gallery(db, items=4, views=1)
    other = store.template_embeddings.table_of(db, "another", 4)
    assert other != gallery.table
    assert store.template_embeddings.count(db, other) == 0
    assert nearest_exact(db, other, unit(np.random.default_rng(1), 1, 4)[0], EVERYTHING, 9) == []
    assert store.template_embeddings.known_table(db, "another") == other
    assert store.template_embeddings.known_table(db, "nobody") is None


def test_an_encoder_keeps_its_dimension_and_its_vectors_their_length(
    db: psycopg.Connection,
) -> None:
    table = store.template_embeddings.table_of(db, "encoder", DIM)
    assert store.template_embeddings.table_of(db, "encoder", DIM) == table
    with pytest.raises(ValueError, match="was stored with 16 dimensions, not 8"):
        store.template_embeddings.table_of(db, "encoder", 8)
    (template_id,) = add_items(db, [GalleryItem("a")])
    with pytest.raises(psycopg.errors.CheckViolation):
        store.template_embeddings.add(
            db, table, [template_id], ["a"], np.full((1, DIM), 0.5, np.float32)
        )


def test_a_template_that_leaves_takes_its_vector_along(db: psycopg.Connection) -> None:
    gallery = Gallery(db, items=3, views=1)
    db.execute("DELETE FROM gallery_items WHERE item_id = 'i1'")
    assert store.template_embeddings.count(db, gallery.table) == 2
    assert store.template_embeddings.vectors_of(db, gallery.table, gallery.ids).keys() == {
        gallery.ids[0],
        gallery.ids[2],
    }


# Time


def timeout(db: psycopg.Connection) -> str:
    (value,) = db.execute("SHOW statement_timeout").fetchone() or ("",)
    return value


def test_a_statement_that_is_too_slow_is_given_up_and_the_timeout_is_as_before(
    db: psycopg.Connection,
) -> None:
    db.execute("SET statement_timeout = '77s'")
    with pytest.raises(QueryTooSlowError, match=r"took longer than 0\.05 s"), in_time(db, 0.05):
        db.execute("SELECT pg_sleep(20)")
    assert timeout(db) == "77s"
    with in_time(db, 5):
        assert timeout(db) == "5s"
    assert timeout(db) == "77s"


def test_within_a_transaction_that_fails_of_it_the_reason_is_the_slow_statement(
    db: psycopg.Connection,
) -> None:
    before = timeout(db)
    with pytest.raises(QueryTooSlowError), db.transaction(), in_time(db, 0.05):
        db.execute("SELECT pg_sleep(20)")
    assert timeout(db) == before


def test_what_else_goes_wrong_passes_and_the_timeout_is_as_before(db: psycopg.Connection) -> None:
    before = timeout(db)
    with pytest.raises(psycopg.errors.DivisionByZero), in_time(db, 5):
        db.execute("SELECT 1 / 0")
    assert timeout(db) == before


# Items


def test_an_item_keeps_its_batch_and_what_is_said_last_of_it_holds(db: psycopg.Connection) -> None:
    assert store.gallery_items.add(db, "g-1", [GalleryItem("a", name="old")], []) == (1, 0)
    changed = GalleryItem("a", name="new", set_code="base")
    assert store.gallery_items.add(db, "g-2", [changed, GalleryItem("b")], []) == (1, 0)
    assert store.gallery_items.batches_of(db, ["a", "b", "c"]) == {"a": "g-1", "b": "g-2"}
    assert store.gallery_items.get(db, ["a"])["a"].name == "new"


def test_a_batch_without_a_new_item_is_none(db: psycopg.Connection) -> None:
    store.gallery_items.add(db, "g-1", [GalleryItem("a"), GalleryItem("b")], [])
    store.gallery_items.add(db, "g-2", [GalleryItem("b"), GalleryItem("a")], [])
    assert store.batches.keys(db, "gallery") == ["g-1"]


def test_a_picture_that_can_be_read_now_ends_the_complaint(db: psycopg.Connection) -> None:
    item = GalleryItem("a", name="Lotus")
    unread = ReceivedImage("a", "f" * 64, "0.png", "", "0.png: no such file")
    typed = ReceivedImage("a", "e" * 64, "O.png", "", "O.png: no such file")
    assert store.gallery_items.add(db, "g-1", [item], [unread, typed, image("a", 1)]) == (1, 1)
    done(db, "gallery_items", "g-1", "a", status=Status.DEGRADED, reason="0.png: no such file")
    assert store.gallery_items.contents(db).unread == 2
    assert store.gallery_items.add(db, "g-1", [item], [unread, image("a", 1)]) == (0, 0)
    assert store.gallery_items.contents(db).unread == 1

    assert store.gallery_items.add(db, "g-1", [item], [image("a", 0), image("a", 1)]) == (0, 1)
    (pending,) = store.gallery_items.pending(db, job("gallery_items", "g-1"), 9)
    assert (pending.images, pending.reasons) == (2, [])
    assert store.batches.unfinished(db, "gallery", {"gallery_items": "spec"}) == ["g-1"]


def test_adding_the_same_again_leaves_what_is_done(db: psycopg.Connection) -> None:
    item = GalleryItem("a")
    store.gallery_items.add(db, "g-1", [item], [image("a")])
    done(db, "gallery_items", "g-1", "a")
    assert store.gallery_items.add(db, "g-1", [item], [image("a")]) == (0, 0)
    assert store.gallery_items.pending(db, job("gallery_items", "g-1"), 9) == []
    assert store.batches.unfinished(db, "gallery", {"gallery_items": "spec"}) == []


def test_a_new_template_has_its_item_compared_with_others_anew(db: psycopg.Connection) -> None:
    gallery = Gallery(db, items=2, views=1)
    done(db, "confusion_pairs", "g-1", "i0", "i1")
    assert store.confusion_pairs.pending(db, job("confusion_pairs", "g-1"), 9) == []
    store.template_embeddings.add(db, gallery.table, gallery.ids[:1], ["i0"], gallery.vectors[1:2])
    (pending,) = store.confusion_pairs.pending(db, job("confusion_pairs", "g-1"), 9)
    assert pending.unit == "i0"


def test_the_version_of_the_gallery_changes_with_templates_and_what_items_are(
    db: psycopg.Connection,
) -> None:
    versions = [store.gallery_templates.version(db)]
    add_items(db, [GalleryItem("a"), GalleryItem("b")])
    versions.append(store.gallery_templates.version(db))
    store.gallery_items.add(db, "g-1", [GalleryItem("a", language="ja")], [])
    versions.append(store.gallery_templates.version(db))
    db.execute("DELETE FROM gallery_items WHERE item_id = 'b'")
    versions.append(store.gallery_templates.version(db))
    store.gallery_items.add(db, "g-1", [GalleryItem("a", language="ja", name="new")], [])
    assert store.gallery_templates.version(db) == versions[-1]
    assert len(set(versions)) == 4


def test_a_learned_picture_has_its_template_made_and_its_item_not_looked_at_again(
    db: psycopg.Connection,
) -> None:
    store.gallery_items.add(db, "g-1", [GalleryItem("a")], [image("a", 1)])
    assets = ["gallery_items", "learned_templates", "gallery_templates", "template_embeddings"]
    for asset in assets:
        done(db, asset, "g-1", "a")
    assert store.gallery_items.add_images(db, [image("a", 2, correction_id=5)]) == 1
    assert store.gallery_items.pending(db, job("gallery_items", "g-1"), 9) == []
    unfinished = [
        asset for asset in assets if store.batches.unfinished(db, "gallery", {asset: "spec"})
    ]
    assert unfinished == ["gallery_templates", "template_embeddings"]


def test_a_learned_picture_leaves_and_an_official_one_stays(db: psycopg.Connection) -> None:
    learned, official = image("a", 1, correction_id=5), image("a", 2)
    store.gallery_items.add(db, "g-1", [GalleryItem("a")], [official, learned])
    for each in (learned, official):
        store.gallery_templates.replace(db, each.template_id, "spec", "key")
    done(db, "gallery_templates", "g-1", learned.template_id, official.template_id)
    done(db, "confusion_pairs", "g-1", "a")
    assert [t.template_id for t in store.gallery_templates.of_items(db, ["a"])] == [
        official.template_id, learned.template_id,
    ]  # fmt: skip
    (only,) = store.gallery_templates.of_items(db, ["a"], official=True)
    assert only.template_id == official.template_id
    for each in (learned, official):
        store.gallery_items.forget_learned(db, each.template_id)
    assert list(store.gallery_templates.get(db, [learned.template_id, official.template_id])) == [
        official.template_id
    ]
    assert store.gallery_templates.pending(db, job("gallery_templates", "g-1"), 9) == []
    assert len(store.confusion_pairs.pending(db, job("confusion_pairs", "g-1"), 9)) == 1


def test_a_learned_picture_that_a_manifest_names_is_official(db: psycopg.Connection) -> None:
    learned = image("a", 1, correction_id=5)
    store.gallery_items.add(db, "g-1", [GalleryItem("a")], [learned])
    store.gallery_items.add(db, "g-1", [GalleryItem("a")], [replace(learned, correction_id=None)])
    store.gallery_items.forget_learned(db, learned.template_id)
    rows = db.execute("SELECT image_sha256, correction_id FROM gallery_images").fetchall()
    assert rows == [(learned.image_sha256, None)]


# Scans


SCAN = Scan("ab" * 32, "shot.jpg", 10, "scans/ab/shot.jpg")


def detection(number: int = 1, **more: Any) -> StoredDetection:
    quad = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]
    name = f"{number:032x}"
    return replace(
        StoredDetection(name, number, quad, 0.9, "seen", f"crops/{name}.jpg", f"{number:064x}"),
        **more,
    )


def add_scan(db: psycopg.Connection, scan: Scan = SCAN, detections: int = 1) -> None:
    """A photograph on which so many items were found and identified."""
    store.scans.add(db, scan)
    store.scans.keep_picture(db, scan.scan_id, "spec", "scans/upright.jpg", (90, 60), 1.0)
    found = [
        detection(n, detection_id=f"{scan.scan_id[:8]}{n:024x}") for n in range(1, detections + 1)
    ]
    store.detections.replace(db, scan.scan_id, "spec", found)
    ids = [each.detection_id for each in found]
    for each in ids:
        store.detections.keep_candidates(db, each, [Hit("t", "lotus", 0.9, False)])
        identified(db, each)
    done(db, "scans", scan.batch_key, scan.scan_id)
    done(db, "detections", scan.batch_key, scan.scan_id)
    done(db, "candidates", scan.batch_key, *ids)
    done(db, "identifications", scan.batch_key, *ids)


def identified(
    db: psycopg.Connection, detection_id: str, decision: str = "accept", score: float = 0.9,
    item: str | None = "lotus", degraded: str = "",
) -> None:  # fmt: skip
    candidates = [{"item_id": item or "lotus"}]
    store.detections.keep_identification(
        db, detection_id, "spec",
        StoredIdentification(decision, score, item, False, candidates, [], {}, degraded),
    )  # fmt: skip


def is_pending(db: psycopg.Connection, asset: str, scan: Scan = SCAN) -> bool:
    return bool(store.detections.pending(db, job(asset, scan.batch_key), 99))


def unfinished(db: psycopg.Connection) -> bool:
    assets = ("scans", "detections", "candidates", "identifications")
    return bool(store.batches.unfinished(db, "scan", dict.fromkeys(assets, "spec")))


def test_a_photograph_that_comes_again_is_the_same_and_stays_done(db: psycopg.Connection) -> None:
    add_scan(db)
    assert not unfinished(db)
    assert not store.scans.add(db, SCAN)
    assert not unfinished(db)
    assert len(store.detections.found(db, [SCAN.scan_id])) == 1


def test_other_filters_have_items_sought_anew_and_not_found_anew(db: psycopg.Connection) -> None:
    add_scan(db)
    assert not store.scans.add(db, replace(SCAN, sets=("base",), languages=("ja",)))
    assert unfinished(db)
    assert is_pending(db, "candidates")
    assert is_pending(db, "identifications")
    assert store.scans.pending_pictures(db, job("detections", SCAN.batch_key), 9) == []
    (pending,) = store.detections.pending(db, job("candidates", SCAN.batch_key), 9)
    assert pending.among == Among(("base",), ("ja",))


def test_what_was_kept_aside_stays_so(db: psycopg.Connection) -> None:
    store.scans.add(db, replace(SCAN, evaluation=True))
    store.scans.add(db, SCAN)
    assert store.scans.get(db, [SCAN.scan_id])[0].evaluation
    assert store.scans.is_kept_aside(db, SCAN.scan_id)


def test_what_failed_is_tried_again_once_the_file_comes_again(db: psycopg.Connection) -> None:
    store.scans.add(db, SCAN)
    done(db, "scans", SCAN.batch_key, SCAN.scan_id, status=Status.FAILED, reason="missing")
    store.scans.add(db, SCAN)
    assert len(store.scans.pending(db, job("scans", SCAN.batch_key), 9)) == 1
    assert store.batches.unfinished(db, "scan", {"scans": "spec"}) == [SCAN.batch_key]


def test_a_picture_made_anew_has_everything_on_it_found_anew(db: psycopg.Connection) -> None:
    add_scan(db)
    store.scans.keep_picture(db, SCAN.scan_id, "spec", "scans/upright.jpg", (90, 60), 1.0)
    assert unfinished(db)
    same = detection(1, detection_id=f"{SCAN.scan_id[:8]}{1:024x}")
    store.detections.replace(db, SCAN.scan_id, "spec", [same])
    assert is_pending(db, "candidates")
    assert is_pending(db, "identifications")


def test_a_detection_that_is_the_same_keeps_what_it_was_identified_as(
    db: psycopg.Connection,
) -> None:
    add_scan(db, detections=2)
    first, second = store.detections.found(db, [SCAN.scan_id])
    kept = detection(2, detection_id=second.detection_id, ordinal=1)
    store.detections.replace(db, SCAN.scan_id, "spec", [kept, detection(9)])
    again, new = sorted(store.detections.found(db, [SCAN.scan_id]), key=lambda each: each.ordinal)
    assert (again.detection_id, again.item_id, again.ordinal) == (second.detection_id, "lotus", 1)
    assert (new.detection_id, new.decision) == (detection(9).detection_id, None)
    units = db.execute("SELECT unit FROM work WHERE asset = 'candidates'").fetchall()
    assert first.detection_id not in {name for (name,) in units}
    assert unfinished(db)


def test_a_detection_is_called_by_its_first_digits_where_they_tell_it(
    db: psycopg.Connection,
) -> None:
    add_scan(db, detections=3)
    found = store.detections.found(db, [SCAN.scan_id])
    assert len(store.detections.get(db, found[1].detection_id)) == 1
    assert len(store.detections.get(db, SCAN.scan_id[:8])) == 2  # more than one: enough to know
    for pattern in ("%", "_" * 32, "ab%", *HOSTILE):
        assert store.detections.get(db, pattern) == []


def test_candidates_sought_under_another_spec_are_not_identified_among(
    db: psycopg.Connection,
) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    store.detections.keep_candidates(db, found.detection_id, [])
    of = job("identifications", SCAN.batch_key)
    assert len(store.detections.pending(db, of, 9, "spec")) == 1
    assert store.detections.pending(db, of, 9, "another spec") == []
    done(db, "candidates", SCAN.batch_key, found.detection_id, status=Status.FAILED, reason="slow")
    assert store.detections.pending(db, of, 9, "spec") == []


def test_a_photograph_has_taught_when_it_or_a_crop_of_it_is_in_the_gallery(
    db: psycopg.Connection,
) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    assert not store.scans.has_taught(db, SCAN.scan_id)
    crop = ReceivedImage("a", found.crop_sha256, "crop", "key")
    store.gallery_items.add(db, "g-1", [GalleryItem("a")], [crop])
    assert store.scans.has_taught(db, SCAN.scan_id)
    db.execute("DELETE FROM gallery_images")
    store.gallery_items.add_images(db, [ReceivedImage("a", SCAN.scan_id, "whole", "key")])
    assert store.scans.has_taught(db, SCAN.scan_id)


# Corrections


def correction(found: store.detections.Found, **more: Any) -> NewCorrection:
    plain = NewCorrection(
        verdict="is", detection_id=found.detection_id, scan_id=found.scan_id, item_id="lotus",
        revokes=None, user_name="ann", curator=False, note="", predicted_item="lotus",
        predicted_decision="accept", predicted_score=0.9, crop_key=found.crop_key,
        crop_sha256=found.crop_sha256,
    )  # fmt: skip
    return replace(plain, **more)


REWRITES: tuple[LiteralString, ...] = (
    "UPDATE corrections SET item_id = 'island'",
    "UPDATE corrections SET note = note",
    "DELETE FROM corrections",
    "TRUNCATE corrections CASCADE",
    "INSERT INTO corrections OVERRIDING SYSTEM VALUE SELECT * FROM corrections"
    " ON CONFLICT (correction_id) DO UPDATE SET note = 'x'",
    "MERGE INTO corrections USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
)


@pytest.mark.parametrize("statement", REWRITES)
def test_the_database_refuses_to_rewrite_what_people_said(
    db: psycopg.Connection, statement: LiteralString
) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    store.corrections.add(db, correction(found))
    before = store.corrections.everything(db)
    with pytest.raises(psycopg.errors.RaiseException, match="added and never changed; revoke one"):
        db.execute(statement)
    assert store.corrections.everything(db) == before
    assert len(before) == 1


def test_a_photograph_may_go_and_what_people_said_of_it_stays(db: psycopg.Connection) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    number = store.corrections.add(db, correction(found))
    db.execute("DELETE FROM batches")
    stored = store.corrections.get(db, number)
    assert stored is not None
    assert (stored.item_id, stored.evaluation) == ("lotus", False)


def test_taking_back_keeps_the_event_and_adds_one(db: psycopg.Connection) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    first = store.corrections.add(db, correction(found))
    second = store.corrections.revoke(db, first, "ann", False, "a slip")
    said, back = store.corrections.everything(db)
    assert (said.correction_id, said.verdict, said.item_id) == (first, "is", "lotus")
    assert (back.correction_id, back.verdict, back.revokes) == (second, "revoke", first)
    assert (back.crop_sha256, back.item_id) == (said.crop_sha256, None)
    assert store.corrections.since(db, 0) == [first, second]
    assert store.corrections.since(db, first) == [second]
    (proposal,) = proposals([each.event for each in (said, back)])
    assert proposal.state is State.REVOKED


def test_events_appear_in_the_order_of_their_numbers(
    db: psycopg.Connection, postgres: Postgres
) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    with postgres.connect() as slow, postgres.connect() as quick:
        quick.execute("SET statement_timeout = '100ms'")
        with slow.transaction():
            first = store.corrections.add(slow, correction(found))
            with pytest.raises(psycopg.errors.QueryCanceled), quick.transaction():
                store.corrections.add(quick, correction(found, user_name="ben"))
        with quick.transaction():
            assert store.corrections.add(quick, correction(found, user_name="ben")) > first


def test_labels_are_what_a_curator_or_else_the_last_one_says_of_what_is_kept_aside(
    db: psycopg.Connection,
) -> None:
    aside = replace(SCAN, scan_id="cd" * 32, evaluation=True)
    add_scan(db)
    add_scan(db, aside, detections=3)
    (plain,) = store.detections.found(db, [SCAN.scan_id])
    one, two, three = store.detections.found(db, [aside.scan_id])
    store.corrections.add(db, correction(plain))
    store.corrections.add(db, correction(one, item_id="island", user_name="keeper", curator=True))
    store.corrections.add(db, correction(one, item_id="lotus"))
    store.corrections.add(db, correction(two, item_id="island"))
    store.corrections.add(db, correction(two, item_id="lotus", user_name="ben"))
    gone = store.corrections.add(db, correction(three))
    store.corrections.revoke(db, gone, "ann", False, "")
    store.corrections.add(db, correction(three, verdict="unknown", item_id=None))
    assert sorted(store.corrections.labels(db), key=lambda label: label.item_id) == [
        Label(one.crop_key, "island"),
        Label(two.crop_key, "lotus"),
    ]


def test_an_event_speaks_of_every_item_that_its_crop_was_called(db: psycopg.Connection) -> None:
    add_scan(db, detections=2)
    one, two = store.detections.found(db, [SCAN.scan_id])
    first = store.corrections.add(db, correction(one, item_id="lotus"))
    second = store.corrections.add(db, correction(one, item_id="island", user_name="ben"))
    other = store.corrections.add(db, correction(two, item_id="forest"))
    unknown = store.corrections.add(db, correction(one, verdict="unknown", item_id=None))
    back = store.corrections.revoke(db, first, "ann", False, "")
    for number in (first, second, unknown, back):
        assert sorted(store.corrections.items_of(db, [number])) == ["island", "lotus"]
    assert store.corrections.items_of(db, [other]) == ["forest"]
    assert store.corrections.items_of(db, []) == []
    assert store.corrections.items(db) == ["forest", "island", "lotus"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "is", "item_id": None},
        {"verdict": "unknown"},
        {"verdict": "perhaps"},
        {"verdict": "revoke", "item_id": None},
        {"verdict": "revoke", "item_id": None, "revokes": 999},
        {"user_name": ""},
    ],
)
def test_an_event_that_says_nothing_clear_is_refused(
    db: psycopg.Connection, wrong: dict[str, Any]
) -> None:
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    with pytest.raises(psycopg.errors.IntegrityError):
        store.corrections.add(db, correction(found, **wrong))


# Confusion


def test_pairs_are_read_from_both_sides_and_corrections_counted_anew(
    db: psycopg.Connection,
) -> None:
    add_items(db, [GalleryItem(name) for name in ("a", "B", "c", "d")])
    add_scan(db)
    (found,) = store.detections.found(db, [SCAN.scan_id])
    store.confusion_pairs.replace(db, "a", "e", [("B", 0.9), ("c", 0.8), ("gone", 0.99)])
    wrong = correction(found, item_id="B", predicted_item="a")
    number = store.corrections.add(db, wrong)
    store.corrections.add(db, wrong)  # says it again
    store.corrections.add(db, replace(wrong, user_name="ben", item_id="a", predicted_item="B"))
    worst, *_ = store.confusion_pairs.worst(db, None, 9)
    assert ({worst.item_a, worst.item_b}, worst.corrections) == ({"a", "B"}, 2)
    store.corrections.revoke(db, number, "ann", False, "")
    store.corrections.revoke(db, number + 1, "ann", False, "")
    assert [pair.corrections for pair in store.confusion_pairs.worst(db, ["g-1"], 9)] == [1, 0]
    assert store.confusion_pairs.worst(db, ["g-2"], 9) == []
    store.confusion_pairs.replace(db, "c", "e", [])  # "a" still looks like it
    assert len(store.confusion_pairs.worst(db, None, 9)) == 2
    store.confusion_pairs.replace(db, "a", "e", [])
    (only,) = store.confusion_pairs.worst(db, None, 9)
    assert ({only.item_a, only.item_b}, only.corrections, only.similarity) == ({"a", "B"}, 1, 0)


# Days


def test_a_day_counts_what_happened_on_it(db: psycopg.Connection) -> None:
    add_scan(db, detections=5)
    found = store.detections.found(db, [SCAN.scan_id])
    identified(db, found[1].detection_id, "review", 0.6)
    identified(db, found[2].detection_id, "unknown", 0.1, None)
    identified(db, found[3].detection_id, "unknown", 0.2, None, degraded="a cheaper search")
    store.corrections.add(db, correction(found[0]))  # right
    store.corrections.add(db, correction(found[0], user_name="ben", item_id="island"))  # wrong
    gone = store.corrections.add(db, correction(found[1], item_id="island"))
    store.corrections.revoke(db, gone, "ann", False, "")
    unknown = {"predicted_decision": "unknown", "predicted_score": 0.1}
    store.corrections.add(db, correction(found[2], **unknown))  # it was the first candidate
    store.corrections.add(db, correction(found[3], verdict="unknown", item_id=None, **unknown))
    store.corrections.add(db, correction(found[4], predicted_decision=None))
    day = datetime.now(UTC).date().isoformat()
    counts = store.gallery_quality.of_day(db, day)
    assert (counts.identified, counts.accepted, counts.reviewed, counts.unknown) == (5, 2, 1, 2)
    assert (counts.degraded, counts.named, counts.named_otherwise) == (1, 3, 2)
    assert (counts.accepted_named, counts.accepted_wrong) == (1, 1)
    assert sorted(map(tuple, counts.pairs)) == [(0.1, 0), (0.1, 1), (0.9, 0)]
    nothing = store.gallery_quality.of_day(db, "2026-01-01")
    assert (nothing.identified, nothing.named, nothing.pairs) == (0, 0, [])


def test_a_day_ends_at_midnight_utc_whatever_the_zone_of_the_session(
    db: psycopg.Connection,
) -> None:
    add_scan(db)
    db.execute("SET timezone = 'Asia/Tokyo'")
    db.execute("UPDATE identifications SET made_at = '2026-01-31 23:30:00+00'")
    assert store.gallery_quality.of_day(db, "2026-01-31").identified == 1
    assert store.gallery_quality.of_day(db, "2026-02-01").identified == 0


def test_a_day_that_is_measured_again_has_its_last_numbers(db: psycopg.Connection) -> None:
    store.gallery_quality.keep(db, "2026-01-01", {"named": 1})
    store.gallery_quality.keep(db, "2026-01-02", {"named": 2})
    store.gallery_quality.keep(db, "2026-01-01", {"named": 3})
    assert store.gallery_quality.latest(db, 9) == [
        ("2026-01-02", {"named": 2}),
        ("2026-01-01", {"named": 3}),
    ]


# Texts of strangers


@pytest.mark.parametrize("text", HOSTILE)
def test_what_strangers_write_is_text(db: psycopg.Connection, text: str) -> None:
    table = store.template_embeddings.table_of(db, text, DIM)
    other = GalleryItem("other", set_code="base", language="en")
    hostile = GalleryItem(text, text, text, text, text, text)
    ids = add_items(db, [hostile, other])
    vectors = unit(np.random.default_rng(1), 2)
    store.template_embeddings.add(db, table, ids, [text, "other"], vectors)
    for search in (
        lambda among: nearest_exact(db, table, vectors[1], among, 9),
        lambda among: nearest_indexed(db, table, vectors[1], among, 9, 10),
    ):
        assert len(search(EVERYTHING)) == 2
        for among in (Among((text,)), Among((), (text,)), Among((text,), (text,))):
            assert [each.item_id for each in search(among)] == [text]
        assert search(Among((text + " ",))) == []
    assert store.gallery_items.get(db, [text]) == {text: hostile}
    store.confusion_pairs.replace(db, text, text, [("other", 0.9)])
    (pair,) = store.confusion_pairs.worst(db, None, 9)
    assert text in (pair.item_a, pair.item_b)
    scan = replace(SCAN, name=text, reason=text, sets=(text,), languages=(text,), file_key=text)
    add_scan(db, scan)
    assert store.scans.get(db, [SCAN.scan_id]) == [scan]
    assert store.scans.get(db, [text]) == []
    (found,) = store.detections.found(db, [SCAN.scan_id])
    said = correction(found, item_id=text, user_name=text, note=text, predicted_item="other")
    number = store.corrections.add(db, said)
    stored = store.corrections.get(db, number)
    assert stored is not None
    assert (stored.item_id, stored.user_name) == (text, text)
    assert store.corrections.items(db) == [text]
    assert store.detections.get(db, text) == []
    assert not store.scans.is_kept_aside(db, text)
    assert not store.detections.is_kept_aside(db, text)
    assert len(store.corrections.everything(db)) == 1


# Progress


def test_how_far_a_gallery_and_photographs_have_come_is_told(db: psycopg.Connection) -> None:
    add_items(db, [GalleryItem("a"), GalleryItem("b")], views=2)
    add_scan(db, detections=3)
    done(db, "gallery_templates", "g-1", "some")
    told = {s.asset: (s.done, s.known) for s in store.progress.stages(db, ["g-1", SCAN.batch_key])}
    assert told["gallery_templates"] == (1, 4)
    assert told["confusion_pairs"] == (0, 2)
    assert told["detections"] == (1, 1)
    assert told["identifications"][1] == 3
