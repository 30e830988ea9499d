"""Candidates: the items that a detection may be, nearest first."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

import store.detections
import store.gallery_templates
import store.template_embeddings
from assets.detections import detections
from assets.partitions import per_batches, scan_batches
from assets.template_embeddings import template_embeddings
from assets.work import Recompute, Refused, complete_check, work_through
from core.errors import InputError
from core.gallery import GALLERY
from core.geometry import Image
from core.recall import RECALL
from core.work import Job, Outcome, Status, spec_id
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.recall import Recalled, View, nearest_items
from store.database import Db
from store.detections import PendingDetection
from store.template_embeddings import Among, QueryTooSlowError

AT_A_TIME = 16


def candidates_spec(db: Db, gallery: GalleryTools) -> str:
    """Spec id of candidates: of the encoder, and of everything that the gallery holds now."""
    version = store.gallery_templates.version(db)
    return spec_id("candidates", 2, RECALL, GALLERY, gallery.encoder_id, version)


@dg.asset(
    partitions_def=scan_batches,
    deps=[detections, template_embeddings],
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=400),
    pool="encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("candidates")],
)
def candidates(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    gallery: GalleryTools,
) -> dg.MaterializeResult:
    """At most 50 distinct items for each detection, upright or upside down, among those allowed.

    Where the search takes too long, one cheaper search answers, and the result says so. A detection
    is never taken for unknown because a query failed.
    """
    encoder_id = gallery.encoder_id
    with postgres.connect() as db:
        spec = candidates_spec(db, gallery)
        table = store.template_embeddings.table_of(db, encoder_id, gallery.dim)
        rows = store.template_embeddings.count(db, table)

    def seek(items: Sequence[PendingDetection]) -> list[Recalled | Refused]:
        crops: list[Image] = []
        results: list[Recalled | Refused | None] = []
        for item in items:
            try:
                crops.append(images.read_image(item.crop_key))
                results.append(None)
            except InputError as refusal:
                results.append(refusal)
        if not crops:
            return [result for result in results if result is not None]
        views = iter(gallery.views_of(crops))
        with postgres.connect() as db:
            return [
                _sought(db, table, rows, next(views), item.among) if result is None else result
                for item, result in zip(items, results, strict=True)
            ]

    def keep(db: Db, job: Job, item: PendingDetection, result: Recalled) -> Outcome:
        store.detections.keep_candidates(db, item.unit, result.hits)
        status = Status.DEGRADED if result.loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=len(result.hits), reason=result.loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        return {"encoder": encoder_id, "templates": rows}

    return work_through(
        context,
        postgres,
        memory,
        spec=spec,
        recompute=config.recompute,
        pending=store.detections.pending,
        compute=seek,
        keep=keep,
        item_mb=lambda item: 4.0,
        most=AT_A_TIME,
        parallel=AT_A_TIME,
        fixed_mb=20.0 + gallery.encoder_mb,
        closing=store.detections.forget_stale,
        describe=describe,
    )


def _sought(
    db: Db,
    table: str,
    rows: int,
    views: Sequence[View],
    among: Among,
) -> Recalled | Refused:
    """The items nearest to a card; a search that brings none for want of items is no answer."""
    if not rows:
        return InputError("the gallery holds no templates: add some with quire gallery add PATH")
    try:
        found = nearest_items(db, table, rows, views, among)
    except QueryTooSlowError as slow:
        return InputError(f"the gallery could not be searched: {slow}, and so did a cheaper one")
    if not found.hits:
        sets = " or ".join(f"set {name}" for name in among.sets)
        languages = " or ".join(f"language {name}" for name in among.languages)
        wanted = " and of ".join(filter(None, (sets, languages)))
        return InputError(f"no item of the gallery is of {wanted}")
    return found
