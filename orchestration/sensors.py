"""Sensors: what happens when something arrives."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import dagster as dg
from upath import UPath

import store.batches
import store.page_batches
from core.batches import runs_of_neighbours
from core.text import visible
from orchestration import jobs
from orchestration import settings as environment
from orchestration.files import Refusal, Refused, files_below, is_pdf, refused
from orchestration.ingest import not_taken, receive, register_partitions
from orchestration.requests import requests_for
from orchestration.specs import specs_in_force, text_specs_in_force
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.postgres import Postgres
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource

FILES_PER_TICK = 50
"""Taking in a file costs about 0.2 s and its copy."""

TICK_S = 20.0
"""No file is begun later than this. Dagster ends a tick after 60 s and forgets what it did, and the
last file may take 30 to open."""

SETTLED_S = 5.0
"""A file that changed less than this ago may still be on its way in, unless it is just as it was
when it was last looked at: a file's date may lie in the future, and clocks are set back."""

Stamp = list[float]


@dataclass
class Memory:
    """What a tick leaves for the next one, by path in the inbox.

    Attributes:
        seen: Size and times of what was taken in or refused for good.
        waiting: The same of what may still be on its way in.
    """

    seen: dict[str, Stamp]
    waiting: dict[str, Stamp]

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        """From a cursor; nothing is known from one of another form, and content is known anyway."""
        try:
            stored = json.loads(cursor or "{}")
        except ValueError:
            stored = {}
        if not isinstance(stored, dict) or not {"seen", "waiting"} <= stored.keys():
            return cls({}, {})
        return cls(stored["seen"], stored["waiting"])

    def settle(self, name: str) -> None:
        """A file was taken in, or refused for good."""
        self.seen[name] = self.waiting.pop(name)

    def written(self) -> str:
        """As a cursor."""
        return json.dumps({"seen": self.seen, "waiting": self.waiting})


@dg.sensor(
    job=jobs.take_in,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Watches the inbox folder (QUIRE_INBOX). Each PDF is taken in once, told apart by its "
        "content: renaming or copying a file starts nothing. Files stay where they are. What "
        "arrives is searched for reused panels and read, in one run."
    ),
)
def inbox(
    context: dg.SensorEvaluationContext,
    postgres: Postgres,
    images: ImageStore,
    copy_search: CopySearch,
    encoder: Encoder,
    reading: Reading,
    text_encoder: TextEncoderResource,
) -> dg.SensorResult | dg.SkipReason:
    """Take in what is new in the inbox and request its page batches."""
    folder = environment.from_environment().inbox
    if not folder.is_dir():
        return dg.SkipReason(f"there is no inbox at {folder}; make the folder or set QUIRE_INBOX")
    started = time.monotonic()
    seen = look(folder, is_pdf, context.cursor)
    taken: list[str] = []
    troubles: list[str] = []
    with postgres.connect() as db:
        for name in seen.fresh[:FILES_PER_TICK]:
            if time.monotonic() - started > TICK_S:
                break
            if name in seen.refusals:
                received = not_taken(seen.refusals[name])
            else:
                received = receive(db, images, UPath(folder / name))
            if received.document is not None:
                taken.append(received.document.document_id)
            if received.reason:
                troubles.append(received.reason)
            if not received.again:
                seen.after.settle(name)
        register_partitions(db, context.instance)
        specs = specs_in_force(db, copy_search, encoder)
        specs |= text_specs_in_force(db, reading, text_encoder)
        missing = set(store.batches.unfinished(db, "page", specs))
        wanted = missing.intersection(store.page_batches.keys(db, taken))
        neighbours = runs_of_neighbours(wanted, store.page_batches.keys(db))
    for trouble in troubles:
        context.log.warning(visible(trouble))
    if wanted:
        requests = requests_for(neighbours, name="inbox")
        return dg.SensorResult(run_requests=requests, cursor=seen.after.written())
    context.update_cursor(seen.after.written())
    return dg.SkipReason(nothing_new(seen, troubles))


@dataclass(frozen=True)
class Seen:
    """What a tick finds in a folder that is watched.

    Attributes:
        count: Files of the kind meant, those included that are not taken in.
        fresh: Names of those that are new or have changed, and are not on their way in any more.
        refusals: Of all, those that are not taken in as they are.
        after: What this tick leaves for the next one.
    """

    count: int
    fresh: list[str]
    refusals: dict[str, Refused]
    after: Memory


def look(folder: Path, is_meant: Callable[[str], bool], cursor: str | None) -> Seen:
    """What is new in a folder since the tick that left a cursor."""
    before = Memory.read(cursor)
    now: dict[str, Stamp] = {}
    refusals: dict[str, Refused] = {}
    for found in files_below(folder, is_meant):
        path = found.path if isinstance(found, Refusal) else found
        name = str(path.relative_to(folder))
        with contextlib.suppress(FileNotFoundError):  # taken away since
            facts = path.lstat()
            now[name] = [facts.st_size, facts.st_mtime, facts.st_ctime]
            if isinstance(found, Refusal):
                refusals[name] = refused(found, folder)
    fresh = [
        name
        for name, stamp in now.items()
        if before.seen.get(name) != stamp and _is_settled(stamp, before.waiting.get(name))
    ]
    after = Memory(
        {name: stamp for name, stamp in before.seen.items() if name in now},
        {name: stamp for name, stamp in now.items() if before.seen.get(name) != stamp},
    )
    return Seen(len(now), fresh, refusals, after)


def _is_settled(stamp: Stamp, last: Stamp | None) -> bool:
    return stamp == last or time.time() - stamp[1] >= SETTLED_S


def nothing_new(seen: Seen, troubles: Sequence[str]) -> str:
    """Why a tick requests nothing, with what cannot be taken in, tick after tick."""
    told = [*troubles, *(refusal.reason for refusal in seen.refusals.values())]
    told = list(dict.fromkeys(visible(each) for each in told))
    text = f"{seen.count} files, nothing new among them"
    if told:
        text += f"; {len(told)} cannot be taken in as they are: " + "; ".join(told[:5])
    return text
