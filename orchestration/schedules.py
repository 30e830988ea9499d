"""Schedules: what happens by the clock."""

import dagster as dg

import store.batches
import store.page_batches
from core.batches import runs_of_neighbours
from orchestration import jobs
from orchestration.ingest import register_partitions
from orchestration.requests import requests_for
from orchestration.specs import specs_in_force, text_encoder_troubles, text_specs_in_force
from resources.encoder import Encoder
from resources.postgres import Postgres
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource


@dg.schedule(
    job=jobs.take_in,
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description=(
        "Every night at two: whatever is missing, or was made under other settings than those in "
        "force, is made. Nothing that is there is computed again."
    ),
)
def nightly(
    context: dg.ScheduleEvaluationContext,
    postgres: Postgres,
    copy_search: CopySearch,
    encoder: Encoder,
    reading: Reading,
    text_encoder: TextEncoderResource,
) -> dg.SkipReason | list[dg.RunRequest]:
    """Request runs over the page batches that are missing or stale."""
    with postgres.connect() as db:
        register_partitions(db, context.instance)
        registered = store.page_batches.keys(db)
        specs = specs_in_force(db, copy_search, encoder)
        specs |= text_specs_in_force(db, reading, text_encoder)
        wanted = store.batches.unfinished(db, "page", specs)
        troubles = text_encoder_troubles(db, text_encoder)
    for trouble in troubles:
        context.log.warning(trouble)
    if not wanted:
        there = "every page batch is there, under the settings in force"
        return dg.SkipReason("; ".join([there, *troubles]))
    night = context.scheduled_execution_time.date().isoformat()
    return requests_for(runs_of_neighbours(wanted, registered), name=f"nightly-{night}")
