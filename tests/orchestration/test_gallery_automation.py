import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import PIL.Image
import psycopg
import pytest
from upath import UPath

import store.batches
import store.corrections
import store.detections
import store.gallery_items
import store.scans
from core.gallery import GalleryItem
from core.work import Job
from orchestration.files import NotNowError
from orchestration.gallery import add_correction
from orchestration.gallery_automation import (
    corrections,
    gallery_daily,
    gallery_nightly,
    photographs,
    scans_nightly,
)
from orchestration.gallery_intake import receive_scan
from orchestration.gallery_specs import gallery_specs, scan_specs
from orchestration.requests import RANGE_END, RANGE_START
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.postgres import Postgres
from store.detections import StoredDetection

NIGHT = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
GALLERY = GalleryTools()


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    return ImageStore(url=(tmp_path / "store").as_uri())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    monkeypatch.setenv("QUIRE_SCANS", str(folder))
    monkeypatch.setenv("QUIRE_HOME", str(tmp_path))
    return folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def picture(path: Path, seed: int = 1, age_s: float = 60.0) -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (28, 20, 3), np.uint8)
    PIL.Image.fromarray(values).save(path)
    at = time.time() - age_s
    os.utime(path, (at, at))
    return path


def look(
    instance: dg.DagsterInstance, postgres: Postgres, images: ImageStore, cursor: str | None = None
) -> Any:
    """A tick over the photographs as the daemon sees it."""
    resources = {"postgres": postgres, "images": images, "gallery": GALLERY}
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources=resources, sensor_name="photographs"
    ) as context:
        return photographs.evaluate_tick(context)


def listen(instance: dg.DagsterInstance, postgres: Postgres, cursor: str | None = None) -> Any:
    """A tick over corrections."""
    resources = {"postgres": postgres, "gallery": GALLERY}
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources=resources, sensor_name="corrections"
    ) as context:
        return corrections.evaluate_tick(context)


def ranges(requests: Any) -> list[tuple[str, str]]:
    return [(each.tags[RANGE_START], each.tags[RANGE_END]) for each in requests]


def finish(db: psycopg.Connection, key: str, specs: dict[str, str]) -> None:
    for asset, spec in specs.items():
        store.batches.finish(db, Job(asset, spec, (key,), 9, "run"))


# Photographs


def test_a_photograph_that_arrives_is_taken_in_once_and_asked_for(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance,
    db: psycopg.Connection,
) -> None:  # fmt: skip
    nothing = look(instance, postgres, images)
    assert not nothing.run_requests
    assert nothing.skip_message == "0 files, nothing new among them"
    picture(folder / "a.png")
    first = look(instance, postgres, images, nothing.cursor)
    (key,) = store.batches.keys(db, "scan")
    assert ranges(first.run_requests) == [(key, key)]
    assert instance.get_dynamic_partitions("scan_batches") == [key]
    assert list(json.loads(first.cursor)["seen"]) == ["a.png"]
    again = look(instance, postgres, images, first.cursor)
    assert not again.run_requests
    assert again.skip_message == "1 files, nothing new among them"


def test_a_copy_of_a_photograph_starts_nothing_once_it_is_identified(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance,
    db: psycopg.Connection,
) -> None:  # fmt: skip
    first = look(instance, postgres, images)
    picture(folder / "a.png")
    first = look(instance, postgres, images, first.cursor)
    (key,) = store.batches.keys(db, "scan")
    finish(db, key, scan_specs(db, GALLERY))
    picture(folder / "b.png")  # of the same content
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()
    second = look(instance, postgres, images, first.cursor)
    assert not second.run_requests
    assert sorted(json.loads(second.cursor)["seen"]) == ["a.png", "b.png"]
    assert store.batches.keys(db, "scan") == [key]


def test_a_photograph_that_is_still_being_written_waits(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance
) -> None:
    picture(folder / "a.png", age_s=0)
    waiting = look(instance, postgres, images)
    assert not waiting.run_requests
    assert json.loads(waiting.cursor)["seen"] == {}
    picture(folder / "a.png", age_s=60)
    assert len(look(instance, postgres, images, waiting.cursor).run_requests) == 1


def test_a_photograph_dated_in_the_future_is_taken_in(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance
) -> None:
    picture(folder / "a.png", age_s=-86_400)
    first = look(instance, postgres, images)
    assert not first.run_requests  # it may still be on its way in
    assert len(look(instance, postgres, images, first.cursor).run_requests) == 1


def test_a_photograph_that_changed_is_looked_at_again(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance,
    db: psycopg.Connection,
) -> None:  # fmt: skip
    picture(folder / "a.png", seed=1)
    first = look(instance, postgres, images)
    picture(folder / "a.png", seed=2, age_s=30)
    second = look(instance, postgres, images, first.cursor)
    assert len(store.batches.keys(db, "scan")) == 2
    assert ranges(second.run_requests) == [(store.batches.keys(db, "scan")[1],) * 2]


def test_links_texts_and_pipes_are_told_and_hold_up_nothing(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance,
    tmp_path: Path,
) -> None:  # fmt: skip
    (folder / "link.png").symlink_to(picture(tmp_path / "elsewhere.png", 7))
    (folder / "text.jpg").write_text("Dear reader")
    os.mkfifo(folder / "pipe.png")
    for name in ("text.jpg", "pipe.png"):
        os.utime(folder / name, (1e9, 1e9))
    told = look(instance, postgres, images)
    picture(folder / "z.png")
    ended = look(instance, postgres, images, told.cursor)
    assert len(ended.run_requests) == 1
    assert sorted(json.loads(ended.cursor)["seen"]) == [
        "link.png", "pipe.png", "text.jpg", "z.png",
    ]  # fmt: skip
    after = look(instance, postgres, images, ended.cursor)
    assert "link.png: a link, which is not followed" in after.skip_message


def test_a_photograph_that_cannot_be_read_now_is_tried_again(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    picture(folder / "a.png")

    def busy(path: Any, most_bytes: int) -> Any:
        raise NotNowError("stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr("orchestration.files.read_blocks", busy)
        first = look(instance, postgres, images)
    assert "a.png: stale file handle" in first.skip_message
    assert json.loads(first.cursor)["seen"] == {}
    assert len(look(instance, postgres, images, first.cursor).run_requests) == 1


@pytest.mark.parametrize("cursor", ["", "no json", "[1]", "7", '{"a.png": "x"}', "null"])
def test_a_cursor_of_another_form_starts_anew(
    folder: Path, postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance, cursor: str
) -> None:
    picture(folder / "a.png")
    assert len(look(instance, postgres, images, cursor).run_requests) == 1


def test_a_folder_that_is_not_there_is_named(
    postgres: Postgres, images: ImageStore, instance: dg.DagsterInstance, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("QUIRE_SCANS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("QUIRE_HOME", str(tmp_path))
    assert "make it or set QUIRE_SCANS" in look(instance, postgres, images).skip_message


# Corrections


@pytest.fixture
def named(db: psycopg.Connection, images: ImageStore, folder: Path) -> str:
    """Two batches of items, and a detection that people can name."""
    store.gallery_items.add(db, "g-1", [GalleryItem("a")], [])
    store.gallery_items.add(db, "g-2", [GalleryItem("b")], [])
    scan = receive_scan(db, images, UPath(picture(folder / "shot.png", 5))).scan
    assert scan is not None
    store.scans.keep_picture(db, scan.scan_id, "s", "key", (20, 28), 1.0)
    quad = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0]
    found = StoredDetection("d" * 32, 1, quad, 0.9, "seen", "crops/d.jpg", "c" * 64)
    store.detections.replace(db, scan.scan_id, "s", [found])
    return found.detection_id


def test_the_batches_that_corrections_speak_of_are_asked_for_once(
    db: psycopg.Connection, named: str, postgres: Postgres, instance: dg.DagsterInstance
) -> None:
    quiet = listen(instance, postgres)
    assert quiet.skip_message == "nobody corrected anything since the last look"
    number = add_correction(db, named, item_id="b", user="ann")
    first = listen(instance, postgres, quiet.cursor)
    assert ranges(first.run_requests) == [("g-2", "g-2")]
    assert first.cursor == str(number)
    assert not listen(instance, postgres, first.cursor).run_requests
    add_correction(db, named, item_id="a", user="ben")  # and contradicts the first
    second = listen(instance, postgres, first.cursor)
    assert ranges(second.run_requests) == [("g-1", "g-2")]
    assert {each.run_key for each in second.run_requests}.isdisjoint(
        each.run_key for each in first.run_requests
    )


def test_taking_back_asks_for_the_item_that_was_named(
    db: psycopg.Connection, named: str, postgres: Postgres, instance: dg.DagsterInstance
) -> None:
    number = add_correction(db, named, item_id="b", user="ann")
    back = add_correction(db, revokes=number, user="ann")
    ended = listen(instance, postgres, str(number))
    assert ranges(ended.run_requests) == [("g-2", "g-2")]
    assert ended.cursor == str(back)


def test_a_card_that_is_in_no_gallery_asks_for_nothing_and_is_not_looked_at_again(
    db: psycopg.Connection, named: str, postgres: Postgres, instance: dg.DagsterInstance
) -> None:
    number = add_correction(db, named, unknown=True, user="ann")
    ended = listen(instance, postgres)
    assert not ended.run_requests
    assert ended.cursor == str(number)


@pytest.mark.parametrize("cursor", ["x", "-3", "1.5", "\u0663", "{}"])
def test_a_cursor_of_corrections_of_another_form_starts_anew(
    db: psycopg.Connection, named: str, postgres: Postgres, instance: dg.DagsterInstance,
    cursor: str,
) -> None:  # fmt: skip
    add_correction(db, named, item_id="a", user="ann")
    assert len(listen(instance, postgres, cursor).run_requests) == 1


# Nights and days


def at_night(instance: dg.DagsterInstance, schedule: Any, postgres: Postgres) -> Any:
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=NIGHT) as context:
        return schedule(context, postgres=postgres, gallery=GALLERY)


def test_the_night_asks_for_the_gallery_that_is_missing_or_stale_and_for_nothing_else(
    db: psycopg.Connection, postgres: Postgres
) -> None:
    with dg.instance_for_test() as instance:
        assert isinstance(at_night(instance, gallery_nightly, postgres), dg.SkipReason)
        for number in (1, 2, 3):
            store.gallery_items.add(db, f"g-{number}", [GalleryItem(f"i{number}")], [])
        (request,) = at_night(instance, gallery_nightly, postgres)
        assert ranges([request]) == [("g-1", "g-3")]
        assert request.run_key == "gallery-2026-03-01-g-1-g-3"
        assert instance.get_dynamic_partitions("gallery_batches") == ["g-1", "g-2", "g-3"]
        specs = gallery_specs(GALLERY)
        finish(db, "g-2", specs)
        finish(db, "g-1", specs | {"template_embeddings": "of another encoder"})
        requests = at_night(instance, gallery_nightly, postgres)
        assert ranges(requests) == [("g-1", "g-1"), ("g-3", "g-3")]
        finish(db, "g-1", specs)
        finish(db, "g-3", specs)
        assert isinstance(at_night(instance, gallery_nightly, postgres), dg.SkipReason)


def test_the_night_identifies_anew_what_was_sought_in_another_gallery(
    db: psycopg.Connection, postgres: Postgres, images: ImageStore, folder: Path
) -> None:
    scan = receive_scan(db, images, UPath(picture(folder / "a.png"))).scan
    assert scan is not None
    with dg.instance_for_test() as instance:
        (request,) = at_night(instance, scans_nightly, postgres)
        assert ranges([request]) == [(scan.batch_key, scan.batch_key)]
        finish(db, scan.batch_key, scan_specs(db, GALLERY))
        assert isinstance(at_night(instance, scans_nightly, postgres), dg.SkipReason)
        store.gallery_items.add(db, "g-1", [GalleryItem("a")], [])
        assert isinstance(at_night(instance, scans_nightly, postgres), dg.SkipReason)
        db.execute(
            "INSERT INTO gallery_images VALUES (%(id)s, 'a', 'hash', 'a.png', 'key')",
            {"id": "e" * 32},
        )
        db.execute("INSERT INTO gallery_templates VALUES (%(id)s, 's', 'key')", {"id": "e" * 32})
        assert len(at_night(instance, scans_nightly, postgres)) == 1


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (datetime(2026, 3, 1, 0, 15, tzinfo=UTC), "2026-02-28"),
        (datetime(2027, 1, 1, 0, 15, tzinfo=UTC), "2026-12-31"),
    ],
)
def test_shortly_after_midnight_the_day_that_ended_is_asked_for(at: datetime, day: str) -> None:
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context,
    ):
        request = gallery_daily(context)
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == (day, f"quality-{day}")
