"""Jobs: the assets that are made together."""

import dagster as dg

from assets.partitions import page_batches

copy_search = dg.define_asset_job(
    "copy_search",
    selection=dg.AssetSelection.groups("ingest", "copy_search"),
    partitions_def=page_batches,
    description="From received documents to reports of reused panels.",
)
