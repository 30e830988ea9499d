import os
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from orchestration.schedules import nightly
from orchestration.sensors import inbox
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch
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
        )


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
            return nightly(context, postgres=postgres, copy_search=CopySearch(), encoder=Encoder())

        assert isinstance(night(), dg.SkipReason)
        small_paper(folder / "a.pdf", seed=1)
        settled(folder / "a.pdf")
        tick(instance, postgres, tmp_path, None)
        requests = night()
        assert isinstance(requests, list)
        assert len(requests) == 1
