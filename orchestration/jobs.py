"""Jobs: the assets that are made together."""

import dagster as dg

from assets.partitions import days, gallery_batches, page_batches, scan_batches

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

build_gallery = dg.define_asset_job(
    "build_gallery",
    selection=dg.AssetSelection.assets(
        "gallery_items",
        "learned_templates",
        "gallery_templates",
        "template_embeddings",
        "confusion_pairs",
    ),
    partitions_def=gallery_batches,
    description="From manifests and corrections to a gallery that can be searched.",
)

identify_scans = dg.define_asset_job(
    "identify_scans",
    selection=dg.AssetSelection.assets("scans", "detections", "candidates", "identifications"),
    partitions_def=scan_batches,
    description="From photographs to the known items on them.",
)

measure_gallery = dg.define_asset_job(
    "measure_gallery",
    selection=dg.AssetSelection.assets("gallery_quality"),
    partitions_def=days,
    description="How well the gallery did on one day.",
)
