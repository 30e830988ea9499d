"""Gallery and photographs through Dagster, on a fresh database and store: the sample cards."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import psycopg
import pytest
from upath import UPath

import assets
import store.batches
import store.corrections
import store.detections
import store.gallery_items
import store.gallery_templates
import store.template_embeddings
import store.work
from core.batches import runs_of_neighbours
from core.errors import InputError
from core.geometry import Image
from core.identification import Decision
from core.learning import State
from orchestration.gallery import add_correction
from orchestration.gallery_intake import (
    add_gallery,
    find_gallery,
    receive_scan,
    register_gallery_partitions,
)
from orchestration.requests import range_tags
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.postgres import Postgres
from samples.cards import Card, catalogue, draw, photograph, unseen_reprint
from store.detections import Found
from store.template_embeddings import QueryTooSlowError
from tests.assets.conftest import Roomy, metadata

SAMPLES = Path(__file__).parents[2] / "samples" / "cards"
BUILD = [
    "gallery_items",
    "learned_templates",
    "gallery_templates",
    "template_embeddings",
    "confusion_pairs",
]
IDENTIFY = ["scans", "detections", "candidates", "identifications"]


@dataclass
class Table:
    """A gallery, photographs, and how to run what is made of them."""

    postgres: Postgres
    images: ImageStore
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    tools: GalleryTools = field(default_factory=GalleryTools)
    room_mb: int = 600

    def add(self, path: Path, pictures: str = "") -> list[str]:
        with self.postgres.connect() as db:
            *_, added = add_gallery(db, self.images, find_gallery(str(path), pictures))
            register_gallery_partitions(db, self.instance)
        return added.troubles

    def photograph(self, path: Path, **options: Any) -> str:
        with self.postgres.connect() as db:
            received = receive_scan(db, self.images, UPath(path), **options)
            register_gallery_partitions(db, self.instance)
        assert received.scan is not None
        return received.scan.scan_id

    def build(self, only: Sequence[str] = BUILD, **options: Any) -> dg.ExecuteInProcessResult:
        return self._run("gallery", only, **options)

    def identify(self, only: Sequence[str] = IDENTIFY, **options: Any) -> dg.ExecuteInProcessResult:
        return self._run("scan", only, **options)

    def _run(self, kind: Any, only: Sequence[str], recompute: bool = False) -> Any:
        with self.postgres.connect() as db:
            keys = store.batches.keys(db, kind)
        (neighbours,) = runs_of_neighbours(keys, keys)
        chosen = [
            each
            for each in dg.load_assets_from_package_module(assets)
            if isinstance(each, dg.AssetsDefinition) and each.key.to_user_string() in only
        ]
        result = dg.materialize(
            chosen,
            instance=self.instance,
            resources={
                "postgres": self.postgres,
                "images": self.images,
                "memory": Roomy(room_mb=self.room_mb),
                "gallery": self.tools,
            },
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {name: {"config": {"recompute": recompute}} for name in only},
            },
            tags=range_tags(neighbours),
            raise_on_error=False,
        )
        for event in result.all_events:
            if event.is_step_failure and (error := event.step_failure_data.error) is not None:
                print(event.step_key, error.to_string()[-1500:])  # pytest shows it on failure
        return result

    def found(self, scan_id: str) -> list[Found]:
        with self.postgres.connect() as db:
            return store.detections.found(db, [scan_id])


@pytest.fixture
def table(postgres: Postgres, tmp_path: Path) -> Table:
    return Table(postgres, ImageStore(url=(tmp_path / "store").as_uri()))


@pytest.fixture
def shot(tmp_path: Path) -> Callable[..., Path]:
    """Photographs some cards."""

    def make(cards: Sequence[Card], *, seed: int = 1, columns: int = 3) -> Path:
        picture, _ = photograph(list(cards), columns=columns, seed=seed)
        path = tmp_path / f"shot-{seed}-{len(cards)}.png"
        cv2.imwrite(str(path), np.ascontiguousarray(picture[:, :, ::-1]))
        return path

    return make


def named(found: Sequence[Found]) -> list[str | None]:
    """The first candidate of each."""
    return [each.candidates[0]["item_id"] if each.candidates else None for each in found]


def failed(result: dg.ExecuteInProcessResult, asset: str) -> list[str]:
    """The reasons that an asset's check gives."""
    (check,) = [
        each
        for each in result.get_asset_check_evaluations()
        if each.asset_key.to_user_string() == asset and each.check_name == "complete"
    ]
    value: Any = check.metadata["reasons"].value
    return [] if check.passed else list(value)


def test_a_binder_page_is_identified_and_a_second_run_does_nothing(
    table: Table, db: psycopg.Connection
) -> None:
    assert table.add(SAMPLES) == []
    scan_id = table.photograph(SAMPLES / "binder.jpg")
    assert table.build().success
    result = table.identify()
    assert result.success
    truth = json.loads((SAMPLES / "truth.json").read_text())["binder.jpg"]
    found = table.found(scan_id)
    assert len(found) == len(truth) == 9
    for each, card in zip(found, truth, strict=True):
        if card["known"]:
            assert each.candidates[0]["item_id"] == card["card_id"]
            assert each.decision != Decision.UNKNOWN.value
        elif card["card_id"] == "novel":
            assert each.decision == Decision.UNKNOWN.value
            assert each.item_id is None
        else:  # a print that the gallery does not hold
            assert each.decision != Decision.ACCEPT.value
            assert each.reasons
    assert sum(each.decision == Decision.ACCEPT.value for each in found) >= 4
    (told,) = metadata(result, "detections")
    assert "data:image/jpeg;base64," in told["overlay"]

    again = [*BUILD, *IDENTIFY]
    for rerun in (table.build(), table.identify()):
        assert rerun.success
        for name in again:
            assert all(each["items"] == 0 for each in metadata(rerun, name))
    assert named(table.found(scan_id)) == named(found)
    assert db.execute("SELECT count(*) FROM look_alikes").fetchone() != (0,)


def test_filters_leave_only_items_of_the_set_and_other_ones_have_it_sought_anew(
    table: Table,
) -> None:
    table.add(SAMPLES)
    table.build()
    scan_id = table.photograph(SAMPLES / "binder.jpg", sets=["TID"])
    table.identify()
    sets = {card.card_id: card.set_code for card in catalogue()}
    for each in table.found(scan_id):
        assert {sets[one["item_id"]] for one in each.candidates} <= {"TID"}
    table.photograph(SAMPLES / "binder.jpg", sets=["no such set"])
    result = table.identify()
    assert failed(result, "candidates") == ["no item of the gallery is of set no such set"]
    assert all(each.decision is None for each in table.found(scan_id))
    table.photograph(SAMPLES / "binder.jpg")  # as a sensor does, which says nothing of sets
    assert not any(each.decision for each in table.found(scan_id))
    table.photograph(SAMPLES / "binder.jpg", sets=[])
    assert table.identify().success
    assert all(each.decision is not None for each in table.found(scan_id))


def test_an_empty_gallery_and_a_gallery_that_answers_too_late_make_no_card_unknown(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id = table.photograph(SAMPLES / "binder.jpg")
    reason = "the gallery holds no templates: add some with quire gallery add PATH"
    assert failed(table.identify(), "candidates") == [reason]

    table.add(SAMPLES)
    table.build()

    def late(db: psycopg.Connection, *_: object) -> None:
        db.execute("SELECT set_config('statement_timeout', '20', false)")
        db.execute("SELECT pg_sleep(5)")

    with monkeypatch.context() as patched:
        patched.setattr(store.template_embeddings, "nearest_exact", late)
        result = table.identify()
    found = table.found(scan_id)
    assert named(found)[0] == "mdw-010"
    (loss,) = failed(result, "candidates")
    assert "took longer than 10 s; a cheaper search" in loss
    assert all(each.degraded == loss for each in found)
    assert failed(result, "identifications") == [loss]

    with monkeypatch.context() as patched:
        patched.setattr(store.template_embeddings, "nearest_exact", late)
        patched.setattr(store.template_embeddings, "nearest_indexed", late)
        result = table.identify(recompute=True)
    assert "the gallery could not be searched" in failed(result, "candidates")[0]
    assert not any(each.decision == Decision.UNKNOWN.value for each in table.found(scan_id))
    assert QueryTooSlowError.__name__ not in failed(result, "candidates")[0]


def test_a_new_template_has_photographs_identified_anew(table: Table, tmp_path: Path) -> None:
    cards = catalogue()
    few = tmp_path / "few.jsonl"
    rows = (SAMPLES / "gallery.jsonl").read_text().splitlines()
    few.write_text("\n".join(rows[:6]))
    table.add(few, str(SAMPLES))
    table.build()
    scan_id = table.photograph(SAMPLES / "binder.jpg")
    table.identify()
    before = named(table.found(scan_id))
    assert cards[7].card_id not in before
    table.add(SAMPLES)
    table.build()
    table.identify()
    assert cards[7].card_id in named(table.found(scan_id))


def test_a_picture_that_cannot_be_read_is_a_reason_and_the_items_other_one_serves(
    table: Table, tmp_path: Path, db: psycopg.Connection
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    name = catalogue()[0].card_id
    good = (SAMPLES / "images" / f"{name}.jpg").read_bytes()
    (tmp_path / "good.jpg").write_bytes(good)
    manifest = tmp_path / "gallery.csv"
    manifest.write_text("id,image\nfirst,good.jpg;broken.jpg\nsecond,broken.jpg\nthird,gone.jpg\n")
    (trouble,) = table.add(manifest)
    assert "gallery.csv, line 4: gone.jpg: no such file" in trouble
    result = table.build()
    (missing,) = failed(result, "gallery_items")
    assert missing.startswith("third has no reference picture: gallery.csv, line 4: gone.jpg")
    (broken, *_) = failed(result, "gallery_templates")
    assert broken.startswith("broken.jpg: it is no picture that is taken")
    assert store.gallery_items.contents(db).templates == 1


def correct(db: psycopg.Connection, detection: Found, item_id: str, user: str, **more: Any) -> int:
    return add_correction(db, detection.detection_id, item_id=item_id, user=user, **more)


def states(db: psycopg.Connection) -> dict[int, str]:
    return {each.correction_id: each.state for each in store.corrections.learned(db)}


def test_two_who_agree_teach_the_gallery_and_taking_it_back_takes_it_out(
    table: Table, db: psycopg.Connection
) -> None:
    table.add(SAMPLES)
    table.build()
    scan_id = table.photograph(SAMPLES / "binder.jpg")
    table.identify()
    first = table.found(scan_id)[0]
    number = correct(db, first, "mdw-010", "ada")
    table.build()
    assert states(db) == {number: State.QUARANTINED}
    assert store.gallery_items.contents(db).learned == 0

    second = correct(db, first, "mdw-010", "ben")
    table.build()
    assert states(db) == {number: State.ACTIVE}
    contents = store.gallery_items.contents(db)
    assert (contents.learned, contents.templates) == (1, len(catalogue()) + 1)
    (learned,) = [
        each
        for each in store.gallery_templates.of_items(db, ["mdw-010"])
        if each.template_id == store.corrections.learned(db)[0].template_id
    ]
    assert table.images.read_image(learned.image_key).shape == (420, 300, 3)

    add_correction(db, revokes=second, user="ben")
    table.build()
    assert states(db) == {number: State.QUARANTINED}
    assert store.gallery_items.contents(db).learned == 0
    with pytest.raises(psycopg.errors.RaiseException, match="added and never changed"):
        db.execute("DELETE FROM corrections")


def test_a_crop_of_another_card_is_refused_whoever_says_so(
    table: Table, db: psycopg.Connection
) -> None:
    table.add(SAMPLES)
    table.build()
    scan_id = table.photograph(SAMPLES / "binder.jpg")
    table.identify()
    novel = table.found(scan_id)[7]
    number = correct(db, novel, "mdw-010", "eve", curator=True)
    table.build()
    (learned,) = store.corrections.learned(db)
    assert states(db) == {number: State.REFUSED}
    assert "its features do not match the item's template" in learned.reason


def test_what_is_kept_aside_never_teaches_and_vetoes_what_would_harm_it(
    table: Table, db: psycopg.Connection, shot: Callable[..., Path]
) -> None:
    cards = catalogue()
    table.add(SAMPLES)
    table.build()
    aside = table.photograph(shot(cards[:3], seed=3), evaluation=True)
    table.identify()
    found = table.found(aside)
    for each, card in zip(found, cards[:3], strict=True):
        correct(db, each, card.card_id, "ada", curator=True)
    table.build()
    assert set(states(db).values()) == {State.REFUSED}

    # The same artwork from another set: geometry agrees, and two people may be wrong together.
    scan_id = table.photograph(shot([cards[0]], seed=5, columns=1))
    table.identify()
    (crop,) = table.found(scan_id)
    number = correct(db, crop, cards[1].card_id, "mallory", curator=True)
    table.build()
    learned = {each.correction_id: each for each in store.corrections.learned(db)}[number]
    before = named(table.found(aside))
    table.identify()
    assert named(table.found(aside)) == before == [card.card_id for card in cards[:3]]
    assert learned.state == State.REFUSED
    assert "of 3 cards kept aside are right" in learned.reason


def test_a_photograph_of_nothing_and_one_that_is_none_are_answers(
    table: Table, tmp_path: Path
) -> None:
    table.add(SAMPLES)
    table.build()
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((600, 800, 3), 200, np.uint8))
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    nothing, none = table.photograph(blank), table.photograph(text)
    result = table.identify()
    assert table.found(nothing) == table.found(none) == []
    (reason,) = failed(result, "scans")
    assert reason.startswith("text.jpg: it is no picture that is taken")
    with table.postgres.connect() as db:
        rows = db.execute(
            "SELECT status, made FROM work WHERE asset = 'detections' AND unit = %(id)s",
            {"id": nothing},
        ).fetchall()
    assert rows == [("ok", 0)]


def test_nothing_that_a_camera_writes_is_kept(table: Table, tmp_path: Path) -> None:
    from PIL import Image as Pictures

    picture = Pictures.open(SAMPLES / "binder.jpg")
    exif = picture.getexif()
    exif[0x010F] = "Planted Maker"
    exif[0x0112] = 3  # held upside down
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    path = tmp_path / "phone.jpg"
    picture.save(path, exif=exif)
    scan_id = table.photograph(path)
    table.identify(only=["scans"])
    stored = table.images.read_bytes(f"scans/{scan_id[:2]}/{scan_id}.jpg")
    assert b"Exif" not in stored
    kept = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert not any(b"Planted" in each.read_bytes() for each in kept)
    upright = table.images.read_image(f"scans/{scan_id[:2]}/{scan_id}.jpg")
    turned: Image = np.asarray(picture.convert("RGB"))[::-1, ::-1]
    assert np.abs(upright.astype(int) - turned).mean() < 4

    assert table.photograph(path) == scan_id  # again: its upright picture is there already
    assert table.identify(only=["scans"], recompute=True).success
    anew = table.images.read_image(f"scans/{scan_id[:2]}/{scan_id}.jpg")
    assert np.abs(upright.astype(int) - anew).mean() < 2
    assert [p for p in (tmp_path / "store").rglob("*.original.*")] == []


def test_the_file_as_received_is_there_until_the_rows_of_its_picture_are(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    table.photograph(SAMPLES / "binder.jpg")
    with monkeypatch.context() as patched:
        patched.setattr(store.work, "record", cut)
        assert not table.identify(only=["scans"]).success
    (received,) = (tmp_path / "store").rglob("*.original.*")
    assert received.read_bytes() == (SAMPLES / "binder.jpg").read_bytes()
    assert table.identify(only=["scans"]).success
    assert list((tmp_path / "store").rglob("*.original.*")) == []


def test_an_op_that_was_killed_goes_on_where_it_stopped(
    table: Table, monkeypatch: pytest.MonkeyPatch, db: psycopg.Connection
) -> None:
    table.add(SAMPLES)
    table.build(only=BUILD[:3])
    written = store.template_embeddings.add
    calls = 0

    def cut(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        written(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(store.template_embeddings, "add", cut)
        patched.setattr("assets.template_embeddings.AT_A_TIME", 2)
        assert not table.build(only=["template_embeddings"]).success
    table_name = store.template_embeddings.known_table(db, table.tools.encoder_id)
    assert table_name is not None
    kept = store.template_embeddings.count(db, table_name)
    assert 0 < kept < len(catalogue())
    (numbers,) = metadata(table.build(), "template_embeddings")
    assert numbers["items"] == len(catalogue()) - kept
    assert store.template_embeddings.count(db, table_name) == len(catalogue())


def test_a_reprint_that_no_gallery_holds_is_not_accepted(
    table: Table, shot: Callable[..., Path]
) -> None:
    cards = catalogue()
    table.add(SAMPLES)
    table.build()
    unseen = [unseen_reprint(card) for card in (cards[0], cards[3], cards[8])]
    scan_id = table.photograph(shot(unseen, seed=9))
    table.identify()
    found = table.found(scan_id)
    assert len(found) == 3
    assert all(each.decision != Decision.ACCEPT.value for each in found)


def test_numbers_are_read_where_the_photograph_shows_them(
    table: Table, tmp_path: Path, shot: Callable[..., Path], db: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cards = catalogue()
    table.add(SAMPLES)
    table.build()
    small = shot([cards[0], cards[3]], seed=11, columns=2)
    picture = cv2.imread(str(small))
    assert picture is not None
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    ids = [table.photograph(small), table.photograph(large)]
    result = table.identify()
    assert all(told["reads_numbers"] for told in metadata(result, "identifications"))
    read = dict(
        db.execute(
            """
            SELECT scan_id, array_agg(measures -> 'read' ORDER BY ordinal)
            FROM identifications JOIN detections USING (detection_id) GROUP BY scan_id
            """
        ).fetchall()
    )
    assert read[ids[0]] == [None, None]
    assert 1.0 in read[ids[1]]
    assert set(read[ids[1]]) <= {1.0, None}  # a number that is hard to read is not counted

    def lost(*_: object) -> str:
        raise InputError("tesseract took longer than 5 s")

    with monkeypatch.context() as patched:
        patched.setattr("resources.numbers.NumberReader.read", lost)
        result = table.identify(recompute=True)
    (small_one, large_one) = (table.found(scan_id) for scan_id in ids)
    assert [each.degraded for each in small_one] == ["", ""]
    reason = "its number was not read: tesseract took longer than 5 s"
    assert {each.degraded for each in large_one} == {reason}
    assert failed(result, "identifications") == [reason]


def test_of_a_reference_file_with_several_pictures_it_is_said_that_one_is_used(
    table: Table, tmp_path: Path
) -> None:
    from PIL import Image as Pictures

    first, second = (Pictures.fromarray(draw(card)) for card in catalogue()[:2])
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    table.add(tmp_path)
    (reason,) = failed(table.build(), "gallery_templates")
    assert reason.startswith("two.tif: only the first of its")


def test_a_photograph_that_does_not_fit_is_reduced_and_made_whole_when_there_is_more_memory(
    table: Table, tmp_path: Path, db: psycopg.Connection
) -> None:
    picture = cv2.resize(draw(catalogue()[0]), (3000, 4200), interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(tmp_path / "large.jpg"), picture)
    scan_id = table.photograph(tmp_path / "large.jpg")
    ((original,),) = db.execute("SELECT file_key FROM scans").fetchall()

    def kept() -> tuple[int, int, bool]:
        return db.execute("SELECT width_px, height_px, whole FROM scan_pictures").fetchall()[0]

    table.room_mb = 100
    (reason,) = failed(table.identify(["scans"]), "scans")
    assert reason.startswith("large.jpg: reduced to 1500 x 2100 px, for all of it takes about ")
    assert reason.endswith("; with more memory, identify it again with --recompute")
    assert kept() == (1500, 2100, False)
    assert table.images.exists(original)

    table.room_mb = 600
    assert failed(table.identify(["scans"], recompute=True), "scans") == []
    assert kept() == (2571, 3600, True)
    assert not table.images.exists(original)

    table.room_mb = 90  # less than its estimate; but what is there is not made worse
    table.identify(["scans"], recompute=True)
    assert kept() == (2571, 3600, True)
    assert table.images.read_image(f"scans/{scan_id[:2]}/{scan_id}.jpg").shape == (3600, 2571, 3)
