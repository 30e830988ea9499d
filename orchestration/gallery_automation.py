"""Sensors and schedules of the gallery: photographs and corrections that arrive, nights, days."""

import time
from collections.abc import Mapping
from datetime import timedelta

import dagster as dg
from upath import UPath

import store.batches
import store.corrections
import store.gallery_items
from core.batches import runs_of_neighbours
from core.text import visible
from orchestration import jobs
from orchestration import settings as environment
from orchestration.gallery_intake import receive_scan, register_gallery_partitions
from orchestration.gallery_specs import gallery_specs, scan_specs
from orchestration.requests import requests_for
from orchestration.sensors import FILES_PER_TICK, TICK_S, look, nothing_new
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.photographs import is_picture
from resources.postgres import Postgres
from store.batches import Kind
from store.database import Db


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
    seen = look(folder, is_picture, context.cursor)
    taken: set[str] = set()
    troubles: list[str] = []
    with postgres.connect() as db:
        for name in seen.fresh[:FILES_PER_TICK]:
            if time.monotonic() - started > TICK_S:
                break
            if name in seen.refusals:
                troubles.append(seen.refusals[name].reason)
                seen.after.settle(name)
                continue
            received = receive_scan(db, images, UPath(folder / name))
            if received.scan is not None:
                taken.add(received.scan.batch_key)
            if received.reason:
                troubles.append(received.reason)
            if not received.again:
                seen.after.settle(name)
        register_gallery_partitions(db, context.instance)
        missing = set(store.batches.unfinished(db, "scan", scan_specs(db, gallery)))
        wanted = runs_of_neighbours(missing & taken, store.batches.keys(db, "scan"))
    for trouble in troubles:
        context.log.warning(visible(trouble))
    if wanted:
        requests = requests_for(wanted, name="scans")
        return dg.SensorResult(run_requests=requests, cursor=seen.after.written())
    context.update_cursor(seen.after.written())
    return dg.SkipReason(nothing_new(seen, troubles))


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
    context: dg.SensorEvaluationContext, postgres: Postgres
) -> dg.SensorResult | dg.SkipReason:
    """Request the batches of items that new corrections speak of."""
    text = context.cursor or ""
    after = int(text) if text.isascii() and text.isdigit() else 0
    with postgres.connect() as db:
        register_gallery_partitions(db, context.instance)
        events = store.corrections.since(db, after)
        if not events:
            return dg.SkipReason("nobody corrected anything since the last look")
        items = store.corrections.items_of(db, events)
        batches = set(store.gallery_items.batches_of(db, items).values())
        wanted = runs_of_neighbours(batches, store.batches.keys(db, "gallery"))
    requests = requests_for(wanted, name=f"corrections-{events[-1]}")
    return dg.SensorResult(run_requests=requests, cursor=str(events[-1]))


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
    there = "every batch of the gallery is there, under the settings in force"
    with postgres.connect() as db:
        return _missing(context, db, "gallery", gallery_specs(gallery), there)


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
    there = "every photograph is identified among the gallery as it is"
    with postgres.connect() as db:
        return _missing(context, db, "scan", scan_specs(db, gallery), there)


def _missing(
    context: dg.ScheduleEvaluationContext,
    db: Db,
    kind: Kind,
    specs: Mapping[str, str],
    there: str,
) -> dg.SkipReason | list[dg.RunRequest]:
    """Runs over the batches of a kind that lack what is in force, or that none does."""
    register_gallery_partitions(db, context.instance)
    wanted = store.batches.unfinished(db, kind, specs)
    if not wanted:
        return dg.SkipReason(there)
    night = context.scheduled_execution_time.date().isoformat()
    runs = runs_of_neighbours(wanted, store.batches.keys(db, kind))
    return requests_for(runs, name=f"{kind}-{night}")


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
