"""Sensors: what happens when something arrives."""

import json
import time
from pathlib import Path

import dagster as dg
from upath import UPath

import store.page_batches
from core.batches import runs_of_neighbours
from core.text import visible
from orchestration import jobs
from orchestration import settings as environment
from orchestration.ingest import receive, register_partitions
from orchestration.requests import requests_for
from orchestration.specs import specs_in_force
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch

FILES_PER_TICK = 50
"""A tick has a minute; taking in a file costs about 0.2 s and its copy."""

SETTLED_S = 5.0
"""A file that changed less than this ago may still be on its way in."""


@dg.sensor(
    job=jobs.copy_search,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Watches the inbox folder (QUIRE_INBOX). Each PDF is taken in once, told apart by its "
        "content: renaming or copying a file starts nothing. Files stay where they are."
    ),
)
def inbox(
    context: dg.SensorEvaluationContext,
    postgres: Postgres,
    images: ImageStore,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.SensorResult | dg.SkipReason:
    """Take in what is new in the inbox and request its page batches."""
    folder = environment.from_environment().inbox
    if not folder.is_dir():
        return dg.SkipReason(f"there is no inbox at {folder}; make the folder or set QUIRE_INBOX")
    seen: dict[str, list[float]] = json.loads(context.cursor or "{}")
    now = {str(path.relative_to(folder)): _stamp(path) for path in _candidates(folder)}
    fresh = [name for name, stamp in now.items() if seen.get(name) != stamp][:FILES_PER_TICK]
    taken: list[str] = []
    troubles: list[str] = []
    with postgres.connect() as db:
        for name in fresh:
            received = receive(db, images, UPath(folder / name))
            if received.document is not None:
                taken.append(received.document.document_id)
            if received.reason:
                troubles.append(received.reason)
        register_partitions(db, context.instance)
        missing = set(store.page_batches.unfinished(db, specs_in_force(db, copy_search, encoder)))
        wanted = missing.intersection(store.page_batches.keys(db, taken))
        neighbours = runs_of_neighbours(wanted, store.page_batches.keys(db))
    for trouble in troubles:
        context.log.warning(visible(trouble))
    kept = {name: stamp for name, stamp in seen.items() if name in now}
    cursor = json.dumps(kept | {name: now[name] for name in fresh})
    if not wanted:
        context.update_cursor(cursor)
        return dg.SkipReason(f"{len(now)} files, nothing new among them")
    return dg.SensorResult(run_requests=requests_for(neighbours, name="inbox"), cursor=cursor)


def _candidates(folder: Path) -> list[Path]:
    horizon = time.time() - SETTLED_S
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() == ".pdf"
        and path.is_file()
        and not path.is_symlink()
        and path.stat().st_mtime <= horizon
    )


def _stamp(path: Path) -> list[float]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime]
