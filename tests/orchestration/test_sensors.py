import itertools
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

import store.documents
from orchestration.files import NotNowError
from orchestration.schedules import nightly
from orchestration.sensors import inbox
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource
from tests.hostile import small_paper


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    monkeypatch.setenv("QUIRE_INBOX", str(folder))
    monkeypatch.setenv("QUIRE_HOME", str(tmp_path))
    return folder


def settled(path: Path) -> None:
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))


def reading_of(tmp_path: Path) -> dict[str, Any]:
    store_url = (tmp_path / "store").as_uri()
    return {"reading": Reading(), "text_encoder": TextEncoderResource(store_url=store_url)}


def tick(
    instance: dg.DagsterInstance, postgres: Postgres, tmp_path: Path, cursor: str | None
) -> object:
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        return inbox(
            context,
            postgres=postgres,
            images=ImageStore(url=(tmp_path / "store").as_uri()),
            copy_search=CopySearch(),
            encoder=Encoder(),
            **reading_of(tmp_path),
        )


def evaluated(
    instance: dg.DagsterInstance, postgres: Postgres, tmp_path: Path, cursor: str | None = None
) -> Any:
    """A tick as the daemon sees it: its requests, its message and the cursor it leaves."""
    resources = {
        "postgres": postgres,
        "images": ImageStore(url=(tmp_path / "store").as_uri()),
        "copy_search": CopySearch(),
        "encoder": Encoder(),
        **reading_of(tmp_path),
    }
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources=resources, sensor_name="inbox"
    ) as context:
        return inbox.evaluate_tick(context)


def test_the_inbox_takes_in_each_content_once(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    small_paper(folder / "a.pdf", seed=1)
    settled(folder / "a.pdf")
    (folder / "link.pdf").symlink_to(folder / "a.pdf")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(instance, postgres, tmp_path, None)
        assert isinstance(first, dg.SensorResult)
        assert len(first.run_requests or []) == 1
        (request,) = first.run_requests or []
        assert len(instance.get_dynamic_partitions("page_batches")) == 1
        assert isinstance(tick(instance, postgres, tmp_path, first.cursor), dg.SkipReason)
        (folder / "b.pdf").write_bytes((folder / "a.pdf").read_bytes())
        settled(folder / "b.pdf")
        renamed = tick(instance, postgres, tmp_path, first.cursor)
        # Not made yet, so asked for again, under the same run key: Dagster starts it once.
        assert isinstance(renamed, dg.SensorResult)
        assert [r.run_key for r in renamed.run_requests or []] == [request.run_key]
        assert len(instance.get_dynamic_partitions("page_batches")) == 1


def test_a_file_still_being_written_waits(folder: Path, postgres: Postgres, tmp_path: Path) -> None:
    small_paper(folder / "a.pdf", seed=1)
    with dg.DagsterInstance.ephemeral() as instance:
        result = tick(instance, postgres, tmp_path, None)
        assert isinstance(result, dg.SkipReason)


def test_the_night_asks_for_what_is_missing_and_nothing_else(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    at = datetime(2026, 1, 2, 2, tzinfo=UTC)
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context,
    ):

        def night() -> object:
            return nightly(
                context,
                postgres=postgres,
                copy_search=CopySearch(),
                encoder=Encoder(),
                **reading_of(tmp_path),
            )

        assert isinstance(night(), dg.SkipReason)
        small_paper(folder / "a.pdf", seed=1)
        settled(folder / "a.pdf")
        tick(instance, postgres, tmp_path, None)
        requests = night()
        assert isinstance(requests, list)
        assert len(requests) == 1


def test_what_the_inbox_does_not_take_in_is_told_at_every_tick(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    small_paper(tmp_path / "elsewhere.pdf", seed=1, panels=2, planted=0)
    (folder / "link.pdf").symlink_to(tmp_path / "elsewhere.pdf")
    (folder / "loop.pdf").symlink_to(folder / "loop.pdf")
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance, postgres.connect() as db:
        for _ in range(3):
            ended = evaluated(instance, postgres, tmp_path, cursor)
            assert "link.pdf: a link, which is not followed" in ended.skip_message
            assert "loop.pdf: a link, which is not followed" in ended.skip_message
            cursor = ended.cursor
        assert store.documents.everything(db) == []


def test_a_pipe_in_the_inbox_does_not_hold_up_the_rest(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    os.mkfifo(folder / "a.pdf")
    settled(folder / "a.pdf")
    small_paper(folder / "b.pdf", seed=1, panels=2, planted=0)
    settled(folder / "b.pdf")
    with dg.DagsterInstance.ephemeral() as instance:
        ended = evaluated(instance, postgres, tmp_path)
        assert len(ended.run_requests) == 1
        assert set(json.loads(ended.cursor)["seen"]) == {"a.pdf", "b.pdf"}


def test_a_file_dated_in_the_future_is_taken_in_once_it_rests(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    small_paper(folder / "a.pdf", seed=1, panels=2, planted=0)
    tomorrow = time.time() + 86_400
    os.utime(folder / "a.pdf", (tomorrow, tomorrow))
    with dg.DagsterInstance.ephemeral() as instance:
        first = evaluated(instance, postgres, tmp_path)
        assert not first.run_requests
        second = evaluated(instance, postgres, tmp_path, first.cursor)
        assert len(second.run_requests) == 1


def test_a_file_that_cannot_be_read_now_is_tried_again(
    folder: Path, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_paper(folder / "a.pdf", seed=1, panels=2, planted=0)
    settled(folder / "a.pdf")

    def busy(path: Any, most_bytes: int) -> Any:
        raise NotNowError("stale file handle")

    with dg.DagsterInstance.ephemeral() as instance:
        with monkeypatch.context() as patched:
            patched.setattr("orchestration.files.read_blocks", busy)
            first = evaluated(instance, postgres, tmp_path)
            assert "a.pdf: stale file handle" in first.skip_message
        second = evaluated(instance, postgres, tmp_path, first.cursor)
        assert len(second.run_requests) == 1


def test_a_tick_ends_in_time_and_the_next_one_goes_on(
    folder: Path, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        small_paper(folder / f"{seed}.pdf", seed=seed, panels=2, planted=0)
        settled(folder / f"{seed}.pdf")
    clock = itertools.count(0, 15)  # each look at the clock comes 15 s after the last
    slow = SimpleNamespace(time=time.time, monotonic=lambda: next(clock))
    with dg.DagsterInstance.ephemeral() as instance:
        with monkeypatch.context() as patched:
            patched.setattr("orchestration.sensors.time", slow)
            first = evaluated(instance, postgres, tmp_path)
        assert len(json.loads(first.cursor)["seen"]) == 1
        second = evaluated(instance, postgres, tmp_path, first.cursor)
        assert len(json.loads(second.cursor)["seen"]) == 3
        assert len(instance.get_dynamic_partitions("page_batches")) == 3


def test_a_cursor_of_another_form_starts_anew(
    folder: Path, postgres: Postgres, tmp_path: Path
) -> None:
    small_paper(folder / "a.pdf", seed=1, panels=2, planted=0)
    settled(folder / "a.pdf")
    with dg.DagsterInstance.ephemeral() as instance:
        ended = evaluated(instance, postgres, tmp_path, '{"a.pdf": [1.0, 2.0]}')
        assert len(ended.run_requests) == 1
