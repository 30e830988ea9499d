"""Jobs: the assets that are made together."""

import dagster as dg

from assets.partitions import page_batches

ON_DEMAND = dg.AssetSelection.key_substring("searchable_pdfs")
"""What is made only where somebody asks for it."""

copy_search = dg.define_asset_job(
    "copy_search",
    selection=dg.AssetSelection.groups("ingest", "copy_search"),
    partitions_def=page_batches,
    description="From received documents to reports of reused panels.",
)

read_documents = dg.define_asset_job(
    "read_documents",
    selection=dg.AssetSelection.groups("ingest", "text") - ON_DEMAND,
    partitions_def=page_batches,
    description="From received documents to pages that are read and can be searched.",
)

take_in = dg.define_asset_job(
    "take_in",
    selection=dg.AssetSelection.groups("ingest", "copy_search", "text") - ON_DEMAND,
    partitions_def=page_batches,
    description=(
        "Everything that is made of a document that arrives: reports of reused panels, and pages "
        "that can be searched."
    ),
)

prepare_encoder = dg.define_asset_job(
    "prepare_encoder",
    selection=dg.AssetSelection.assets("encoders", "next_tile_embeddings"),
    partitions_def=page_batches,
    description="Everything stored, embedded by the encoder that is to serve next.",
)

prepare_text_encoder = dg.define_asset_job(
    "prepare_text_encoder",
    selection=dg.AssetSelection.assets(
        "text_encoders", "chunks", "next_chunk_embeddings", "search_index"
    ),
    partitions_def=page_batches,
    description=(
        "Everything that was read, divided and embedded for the text encoder that is to serve "
        "next, with an index where there is much of it."
    ),
)
