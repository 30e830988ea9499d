"""Everything that Dagster loads: assets, checks, jobs, sensors, schedules, resources."""

import dagster as dg

import assets
from orchestration import settings as environment
from orchestration.budgets import Share, op_budget_mb, share_of
from orchestration.executor import pods, processes
from orchestration.gallery_automation import (
    corrections,
    gallery_daily,
    gallery_nightly,
    photographs,
    scans_nightly,
)
from orchestration.jobs import (
    build_gallery,
    copy_search,
    identify_scans,
    measure_gallery,
    prepare_encoder,
    prepare_text_encoder,
    read_documents,
    take_in,
)
from orchestration.schedules import nightly
from orchestration.sensors import inbox
from resources.encoder import Encoder
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.memory import MemoryContract
from resources.postgres import Postgres
from resources.settings import CopySearch, Reading
from resources.text_encoder_resource import TextEncoderResource


def resources_of(settings: environment.Settings) -> dict[str, dg.ConfigurableResource]:
    """The resources that the settings describe; nothing is opened by making them."""
    return {
        "postgres": Postgres(
            database_url=dg.EnvVar("QUIRE_DATABASE_URL") if settings.database_url else "",
            data_dir=str(settings.data_dir),
        ),
        "images": ImageStore(url=settings.store_url),
        "copy_search": CopySearch(preset=settings.preset, threads=settings.threads),
        "encoder": Encoder(
            spec=settings.image_encoder,
            store_url=settings.store_url,
            budget_mb=op_budget_mb("tile_embeddings", settings) if settings.image_encoder else 0,
            cores=settings.threads,
        ),
        "gallery": GalleryTools(
            encoder=settings.gallery_encoder,
            detector=settings.detector,
            store_url=settings.store_url,
            budget_mb=op_budget_mb("template_embeddings", settings),
            cores=settings.threads,
        ),
        "reading": Reading(languages=settings.languages, workers=settings.threads),
        "text_encoder": TextEncoderResource(
            spec=settings.text_encoder,
            store_url=settings.store_url,
            cores=settings.threads,
            remote_hosts=settings.remote_hosts,
            api_key=dg.EnvVar("QUIRE_TEXT_API_KEY") if settings.text_api_key else "",
        ),
    }


def executor_of(settings: environment.Settings, share: Share) -> dg.ExecutorDefinition:
    """What runs the ops of a run: processes beside it, or a pod each with the op's own limit."""
    if settings.executor == "pods":
        return pods.configured({"max_concurrent": share.ops_at_a_time})
    return processes.configured(
        {
            "max_concurrent": share.ops_at_a_time,
            "start_method": {"forkserver": {"preload_modules": ["orchestration.preload"]}},
        }
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location. Loading it needs no database, no model and no network."""
    settings = environment.from_environment()
    share = share_of(settings)
    memory = MemoryContract(limit_mb=share.op_mb, whole=str(share))
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(assets),
        asset_checks=dg.load_asset_checks_from_package_module(assets),
        jobs=[
            copy_search,
            read_documents,
            take_in,
            prepare_encoder,
            prepare_text_encoder,
            build_gallery,
            identify_scans,
            measure_gallery,
        ],
        sensors=[inbox, photographs, corrections],
        schedules=[nightly, gallery_nightly, scans_nightly, gallery_daily],
        resources={**resources_of(settings), "memory": memory},
        executor=executor_of(settings, share),
    )
