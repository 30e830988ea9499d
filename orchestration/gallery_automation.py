"""Sensors and schedules of the gallery: photographs and corrections that arrive, nights, days."""

import contextlib
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import cast

import dagster as dg
from upath import UPath

import store.batches
import store.corrections
import store.gallery_items
from core.batches import runs_of_neighbours
from core.text import visible
from orchestration import jobs
from orchestration import settings as environment
from orchestration.files import Refusal, files_below
from orchestration.gallery_intake import receive_scan, register_gallery_partitions
from orchestration.gallery_specs import gallery_specs, scan_specs
from orchestration.requests import requests_for
from orchestration.sensors import FILES_PER_TICK, SETTLED_S, TICK_S
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.photographs import is_picture
from resources.postgres import Postgres


@dg.sensor(
    job=jobs.identify_scans,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Watches the folder of photographs (QUIRE_SCANS). Each is taken in once, told apart by its "
        "content, and its items are identified. Files stay where they are."
    ),
)
def photographs(
    context: dg.SensorEvaluationContext,
    postgres: Postgres,
    images: ImageStore,
    gallery: GalleryTools,
) -> dg.SensorResult | dg.SkipReason:
    """Take in what is new among the photographs and request their identification."""
    folder = environment.from_environment().scans
    if not folder.is_dir():
        return dg.SkipReason(f"there is no folder {folder}; make it or set QUIRE_SCANS")
    started = time.monotonic()
    before = _remembered(context.cursor)
    now, troubles = _looked_at(folder)
    after = {name: stamp for name, stamp in before.items() if now.get(name) == stamp}
    fresh = [name for name, stamp in now.items() if name not in after and _is_settled(stamp)]
    taken: set[str] = set()
    with postgres.connect() as db:
        for name in fresh[:FILES_PER_TICK]:
            if time.monotonic() - started > TICK_S:
                break
            received = receive_scan(db, images, UPath(folder / name))
            if received.scan is not None:
                taken.add(received.scan.batch_key)
            if received.reason:
                troubles.append(received.reason)
            if not received.again:
                after[name] = now[name]
        register_gallery_partitions(db, context.instance)
        missing = set(store.batches.unfinished(db, "scan", scan_specs(db, gallery)))
        wanted = runs_of_neighbours(missing & taken, store.batches.keys(db, "scan"))
    for trouble in troubles:
        context.log.warning(visible(trouble))
    cursor = json.dumps(after)
    if wanted:
        return dg.SensorResult(run_requests=requests_for(wanted, name="scans"), cursor=cursor)
    context.update_cursor(cursor)
    told = "; ".join(dict.fromkeys(visible(each) for each in troubles[:5]))
    return dg.SkipReason(f"{len(now)} photographs, nothing new among them. {told}".rstrip(". "))


def _remembered(cursor: str | None) -> dict[str, list[float]]:
    """What the last tick left; nothing where it is of another form, and content is known anyway."""
    try:
        stored = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return cast(dict[str, list[float]], stored) if isinstance(stored, dict) else {}


def _looked_at(folder: Path) -> tuple[dict[str, list[float]], list[str]]:
    """The photographs of a folder with size and time, and what is not taken in as it is."""
    now: dict[str, list[float]] = {}
    troubles: list[str] = []
    for found in files_below(folder, is_picture):
        if isinstance(found, Refusal):
            troubles.append(f"{found.path.name}: {found.reason}")
            continue
        with contextlib.suppress(FileNotFoundError):  # taken away since
            facts = found.lstat()
            now[str(found.relative_to(folder))] = [facts.st_size, facts.st_mtime]
    return now, troubles


def _is_settled(stamp: list[float]) -> bool:
    return time.time() - stamp[1] >= SETTLED_S or stamp[1] > time.time() + SETTLED_S


@dg.sensor(
    job=jobs.build_gallery,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches corrections. What people say of a card is judged, and where enough agree its crop "
        "becomes a template of the gallery."
    ),
)
def corrections(
    context: dg.SensorEvaluationContext, postgres: Postgres, gallery: GalleryTools
) -> dg.SensorResult | dg.SkipReason:
    """Request the batches of items that new corrections speak of."""
    text = context.cursor or ""
    after = int(text) if text.isascii() and text.isdigit() else 0
    with postgres.connect() as db:
        register_gallery_partitions(db, context.instance)
        events = [e for e in store.corrections.everything(db) if e.correction_id > after]
        if not events:
            return dg.SkipReason("nobody corrected anything since the last look")
        latest = max(event.correction_id for event in events)
        items = store.corrections.items_of(db, [event.correction_id for event in events])
        batches = set(store.gallery_items.batches_of(db, items).values())
        wanted = runs_of_neighbours(batches, store.batches.keys(db, "gallery"))
    requests = requests_for(wanted, name=f"corrections-{latest}")
    return dg.SensorResult(run_requests=requests, cursor=str(latest))


@dg.schedule(
    job=jobs.build_gallery,
    cron_schedule="30 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every night at half past two: batches of the gallery that are missing, or were made under "
        "other settings than those in force, are made."
    ),
)
def gallery_nightly(
    context: dg.ScheduleEvaluationContext, postgres: Postgres, gallery: GalleryTools
) -> dg.SkipReason | list[dg.RunRequest]:
    """Request runs over the batches of the gallery that are missing or stale."""
    with postgres.connect() as db:
        register_gallery_partitions(db, context.instance)
        wanted = store.batches.unfinished(db, "gallery", gallery_specs(gallery))
        registered = store.batches.keys(db, "gallery")
    if not wanted:
        return dg.SkipReason("every batch of the gallery is there, under the settings in force")
    night = context.scheduled_execution_time.date().isoformat()
    return requests_for(runs_of_neighbours(wanted, registered), name=f"gallery-{night}")


@dg.schedule(
    job=jobs.identify_scans,
    cron_schedule="0 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every night at four: photographs that are not identified, or were among another gallery, "
        "are identified."
    ),
)
def scans_nightly(
    context: dg.ScheduleEvaluationContext, postgres: Postgres, gallery: GalleryTools
) -> dg.SkipReason | list[dg.RunRequest]:
    """Request runs over photographs that are not identified under what is in force."""
    with postgres.connect() as db:
        register_gallery_partitions(db, context.instance)
        wanted = store.batches.unfinished(db, "scan", scan_specs(db, gallery))
        registered = store.batches.keys(db, "scan")
    if not wanted:
        return dg.SkipReason("every photograph is identified among the gallery as it is")
    night = context.scheduled_execution_time.date().isoformat()
    return requests_for(runs_of_neighbours(wanted, registered), name=f"scans-{night}")


@dg.schedule(
    job=jobs.measure_gallery,
    cron_schedule="15 0 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Shortly after midnight, UTC: how well the gallery did on the day before.",
)
def gallery_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Request the day that has ended."""
    day = (context.scheduled_execution_time - timedelta(days=1)).date().isoformat()
    return dg.RunRequest(run_key=f"quality-{day}", partition_key=day)
