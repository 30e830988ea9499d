"""Jobs: the assets that are made together."""

import dagster as dg

from assets.partitions import page_batches

copy_search = dg.define_asset_job(
    "copy_search",
    selection=dg.AssetSelection.groups("ingest", "copy_search"),
    partitions_def=page_batches,
    description="From received documents to reports of reused panels.",
)

prepare_encoder = dg.define_asset_job(
    "prepare_encoder",
    selection=dg.AssetSelection.assets("encoders", "next_tile_embeddings"),
    partitions_def=page_batches,
    description="Everything stored, embedded by the encoder that is to serve next.",
)
