"""Tile embeddings: the vectors that the encoder channel compares."""

from collections.abc import Sequence

import dagster as dg
import numpy as np
from numpy.typing import NDArray

import store.tile_embeddings
import store.tiles
import store.work
from assets.encoder_channel import (
    embeddings_spec,
    not_configured,
    serving_encoder,
    waiting_encoder,
)
from assets.encoders import encoders
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

BUDGET_MB = 600
"""Room for ViT-L/14 in 8 bits, or ViT-B/32 in full precision."""


@dg.asset(
    partitions_def=page_batches,
    deps=[tiles],
    group_name="copy_search",
    kinds={"onnx", "postgres"},
    owners=["team:quire"],
    code_version="2",
    op_tags=memory_budget(mb=BUDGET_MB),
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
    with postgres.connect() as db:
        serving = serving_encoder(db, copy_search, encoder)
    if serving is None:
        return not_configured(memory.granted_mb(context))
    return _embed(context, config, postgres, images, memory, copy_search, serving, searched=True)


@dg.asset(
    partitions_def=page_batches,
    deps=[tiles, encoders],
    group_name="encoders",
    kinds={"onnx", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=BUDGET_MB),
    pool="encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("next_tile_embeddings")],
)
def next_tile_embeddings(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """The same for the second encoder that is configured, while the first one serves.

    Nothing is searched with these vectors until ``quire encoders switch``; then the two change
    places, and what served is kept here, ready to go back to.
    """
    with postgres.connect() as db:
        waiting = waiting_encoder(db, copy_search, encoder)
    if waiting is None:
        return not_configured(
            memory.granted_mb(context), "no second encoder is configured; there is none to prepare"
        )
    return _embed(context, config, postgres, images, memory, copy_search, waiting, searched=False)


def _embed(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
    *,
    searched: bool,
) -> dg.MaterializeResult:
    """Embed what one encoder has not seen yet; ``searched``: candidates are sought with it."""
    spec = copy_search.spec
    runtime = encoder.chosen(encoder.find().manifest)
    described = encoder.describe()
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
        if searched:  # it was searched without them
            store.work.forget_units(db, "candidate_pairs", [panel.panel_id])
        return Outcome(panel.unit, panel.batch_key, made=len(result))

    trial = runtime.trial
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
        fixed_mb=trial.peak_mb - trial.base_mb if trial else 0.0,
        describe=lambda db, job: {"encoder": described.encoder_id, "runtime": runtime.name},
    )
