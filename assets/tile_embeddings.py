"""Tile embeddings: the vectors that the encoder channel compares."""

from collections.abc import Sequence

import dagster as dg
import numpy as np
from numpy.typing import NDArray

import store.tile_embeddings
import store.tiles
import store.work
from assets.encoder_channel import embeddings_spec, encoder_in_force, not_configured
from assets.partitions import page_batches, per_batches
from assets.tiles import tiles
from assets.work import Recompute, Refused, complete_check, work_through
from core.errors import BudgetError, InputError
from core.work import Job, Outcome
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from store.tiles import PendingTiles

TILES_AT_A_TIME = 64
"""Crops held together with the model; 64 at 224 px are 10 MB."""


@dg.asset(
    partitions_def=page_batches,
    deps=[tiles],
    group_name="copy_search",
    kinds={"pytorch", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=1000),
    pool="encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("tile_embeddings")],
)
def tile_embeddings(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """One unit vector per tile and encoder, comparable by inner product.

    Without a configured encoder there is nothing to do, and the reports say that this channel did
    not run. Vectors of different encoders live in different tables and never meet in one search.
    """
    spec = copy_search.spec
    described = encoder_in_force(copy_search, encoder)
    if described is None:
        return not_configured(memory.granted_mb(context))
    with postgres.connect() as db:
        table = store.tile_embeddings.table_of(db, described.encoder_id, described.dim)

    def embed(panels: Sequence[PendingTiles]) -> list[NDArray[np.float32] | Refused]:
        results: list[NDArray[np.float32] | Refused] = []
        for panel in panels:
            try:
                image = images.read_image(panel.image_key)
                crops = [image[y0:y1, x0:x1] for x0, y0, x1, y1 in panel.boxes_px]
                parts = [
                    encoder.embed(crops[start : start + TILES_AT_A_TIME])
                    for start in range(0, len(crops), TILES_AT_A_TIME)
                ]
            except (InputError, BudgetError) as refusal:
                results.append(refusal)
                continue
            empty = np.empty((0, described.dim), np.float32)
            results.append(np.concatenate([empty, *parts]))
        return results

    def keep(db: Db, job: Job, panel: PendingTiles, result: NDArray[np.float32]) -> Outcome:
        store.tile_embeddings.replace(db, table, panel.panel_id, panel.ordinals, result)
        store.work.forget_units(db, "candidate_pairs", [panel.panel_id])  # searched without them
        return Outcome(panel.unit, panel.batch_key, made=len(result))

    return work_through(
        context,
        postgres,
        memory,
        spec=embeddings_spec(copy_search, described),
        recompute=config.recompute,
        pending=lambda db, job, limit: store.tiles.pending(db, job, spec.tiles_id, limit),
        compute=embed,
        keep=keep,
        item_mb=lambda panel: min(panel.tiles, TILES_AT_A_TIME) * 0.6,
        most=8,
        fixed_mb=600.0,
        describe=lambda db, job: {"encoder": described.encoder_id},
    )
