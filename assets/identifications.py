"""Identifications: which known item each detection is, or that it is none."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

import store.detections
import store.gallery_templates
from assets.candidates import candidates, candidates_spec
from assets.partitions import per_batches, scan_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import BudgetError, InputError
from core.geometry import Image
from core.identification import (
    Decision,
    Identification,
    IdentificationSpec,
    Template,
    identify,
)
from core.work import Job, Outcome, Status, spec_id
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.numbers import NUMBERS, NumberReader
from resources.postgres import Postgres
from resources.templates import as_recalled, as_template
from store.database import Db
from store.detections import PendingDetection, StoredIdentification

SPEC = IdentificationSpec()

ITEM_MB = 100.0
"""One card, its look-alikes and what is compared of them."""


def identifications_spec(candidates: str) -> str:
    """Spec id of identifications among candidates of a spec."""
    return spec_id("identifications", 2, SPEC, NUMBERS, candidates)


@dataclass(frozen=True)
class Identified:
    """What a detection turned out to be, and what was lost on the way."""

    found: Identification
    loss: str


@dg.asset(
    partitions_def=scan_batches,
    deps=[candidates],
    group_name="gallery",
    kinds={"opencv", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=500),
    backfill_policy=per_batches,
    check_specs=[complete_check("identifications")],
)
def identifications(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    gallery: GalleryTools,
) -> dg.MaterializeResult:
    """Which item each detection is: accepted, for a person to look at, or not in the gallery.

    Candidates are compared with the crop by their features and, where several share an artwork,
    where they differ from each other. Five candidates stay with their scores and reasons. What was
    lost on the way is on the result itself.
    """
    with postgres.connect() as db:
        sought = candidates_spec(db, gallery)
    numbers = NumberReader()

    def decide(item: PendingDetection) -> Identified:
        crop = images.read_image(item.crop_key)
        unread: list[str] = []

        def read(strip: Image) -> str:
            try:
                return numbers.read(strip)
            except (InputError, BudgetError) as error:
                unread.append(f"its number was not read: {error}")
                return ""

        is_large = item.width_px >= NUMBERS.least_px
        with postgres.connect() as db:
            lost = store.detections.candidates_degraded(db, item.unit, sought)
            found = decided(db, images, item.unit, crop, read if is_large else None)
        return Identified(found, "; ".join(filter(None, [lost, *unread])))

    def keep(db: Db, job: Job, item: PendingDetection, result: Identified) -> Outcome:
        store.detections.keep_identification(db, item.unit, job.spec, as_stored(result))
        status = Status.DEGRADED if result.loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=result.loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        counts = store.detections.decisions(db, job.batch_keys)
        told = {each.value: counts.get(each.value, 0) for each in Decision}
        return {**told, "reads_numbers": numbers.reads}

    return work_through(
        context,
        postgres,
        memory,
        spec=identifications_spec(sought),
        recompute=config.recompute,
        pending=lambda db, job, limit: store.detections.pending(db, job, limit, sought),
        compute=each(decide, threads=gallery.cores),
        keep=keep,
        item_mb=lambda item: ITEM_MB,
        most=8,
        parallel=gallery.cores,
        describe=describe,
    )


def decided(
    db: Db,
    images: ImageStore,
    detection_id: str,
    crop: Image,
    read: Callable[[Image], str] | None = None,
) -> Identification:
    """Identify one detection among its stored candidates; ``read`` reads its number."""
    recalled = as_recalled(images, db, store.detections.candidates(db, detection_id))
    if not recalled:
        raise InputError("its candidates have left the gallery; search anew with --recompute")

    def more(item_id: str) -> list[Template]:
        found = store.gallery_templates.of_items(db, [item_id])
        return [as_template(images, template) for template in found]

    return identify(crop, recalled, SPEC, more=more, read=read)


def as_stored(result: Identified) -> StoredIdentification:
    """As it is kept."""
    found = result.found
    first = found.candidates[0].item_id if found.candidates else None
    return StoredIdentification(
        decision=found.decision.value,
        score=min(1.0, max(0.0, float(found.score))),
        item_id=None if found.decision is Decision.UNKNOWN else first,
        turned=found.turned,
        candidates=[asdict(candidate) for candidate in found.candidates],
        reasons=list(found.reasons),
        measures={name: float(value) for name, value in found.measures.items()},
        degraded=result.loss,
    )
