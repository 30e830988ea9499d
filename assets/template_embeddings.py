"""Template embeddings: the vectors by which items are recalled."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

import store.gallery_templates
import store.template_embeddings
from assets.gallery_templates import gallery_templates
from assets.partitions import gallery_batches, per_batches
from assets.work import Recompute, Refused, complete_check, work_through
from core.errors import InputError
from core.gallery import GALLERY
from core.geometry import Image
from core.work import Job, Outcome, spec_id
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.database import Db
from store.gallery_templates import PendingTemplateVector

AT_A_TIME = 128
"""Templates held together with the model; 128 of 300 x 420 px are 48 MB."""


def template_embeddings_spec(encoder_id: str) -> str:
    """Spec id of the vectors made by an encoder."""
    return spec_id("template_embeddings", 1, GALLERY.templates_id, encoder_id)


@dg.asset(
    partitions_def=gallery_batches,
    deps=[gallery_templates],
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=500),
    pool="encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("template_embeddings")],
)
def template_embeddings(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    gallery: GalleryTools,
) -> dg.MaterializeResult:
    """One unit vector per template and encoder, comparable by inner product.

    Vectors of different encoders lie in different tables, each with an index that grows with it.
    """
    encoder_id = gallery.encoder_id
    with postgres.connect() as db:
        table = store.template_embeddings.table_of(db, encoder_id, gallery.dim)

    def embed(items: Sequence[PendingTemplateVector]) -> list[NDArray[np.float32] | Refused]:
        pixels: list[Image] = []
        results: list[NDArray[np.float32] | Refused | None] = []
        for item in items:
            try:
                pixels.append(images.read_image(item.image_key))
                results.append(None)
            except InputError as refusal:
                results.append(refusal)
        vectors = iter(gallery.embed(pixels)) if pixels else iter(())
        return [next(vectors) if result is None else result for result in results]

    def keep(db: Db, job: Job, item: PendingTemplateVector, result: NDArray[np.float32]) -> Outcome:
        store.template_embeddings.add(db, table, [item.unit], [item.item_id], result[None])
        return Outcome(item.unit, item.batch_key, made=1)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        return {"encoder": encoder_id, "vectors": store.template_embeddings.count(db, table)}

    return work_through(
        context,
        postgres,
        memory,
        spec=template_embeddings_spec(encoder_id),
        recompute=config.recompute,
        pending=store.gallery_templates.pending_vectors,
        compute=embed,
        keep=keep,
        item_mb=lambda item: 0.8,
        most=AT_A_TIME,
        parallel=AT_A_TIME,
        fixed_mb=20.0 + gallery.encoder_mb,
        describe=describe,
    )
