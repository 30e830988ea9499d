"""Panel features: what the local channel searches and verification aligns by."""

import dagster as dg

import store.panel_features
import store.panels
from assets.panels import panels
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.features import FeatureSpec, LocalFeatures, extract_features, working_scale
from core.work import Job, Outcome
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from store.panels import Panel


@dg.asset(
    partitions_def=page_batches,
    deps=[panels],
    group_name="copy_search",
    kinds={"opencv", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=300),
    backfill_policy=per_batches,
    check_specs=[complete_check("panel_features")],
)
def panel_features(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
) -> dg.MaterializeResult:
    """Local features of each panel: points that can be found again after turning and scaling.

    They need no trained weights. Letters, scale bars and arrows are masked, and drawings have none.
    """
    spec = copy_search.spec

    def extract(panel: Panel) -> LocalFeatures:
        image = images.read_image(panel.image_key)
        return extract_features(image, panel.ignore_boxes, spec.features)

    def keep(db: Db, job: Job, panel: Panel, result: LocalFeatures) -> Outcome:
        index = result.head(spec.features.index_features)
        store.panel_features.add(
            db, panel.panel_id, job.spec, len(result), result.to_bytes(), index.to_bytes()
        )
        return Outcome(panel.unit, panel.batch_key, made=1)

    return work_through(
        context,
        postgres,
        memory,
        spec=spec.features_id,
        recompute=config.recompute,
        pending=store.panels.pending,
        compute=each(extract, threads=copy_search.threads),
        keep=keep,
        item_mb=lambda panel: working_mb(panel.width_px, panel.height_px, spec.features),
        most=16,
        parallel=copy_search.threads,
    )


def working_mb(width_px: int, height_px: int, spec: FeatureSpec) -> float:
    """Memory for one panel: its pixels, and float planes of the doubled image, 14 an octave."""
    own = width_px * height_px
    pixels = own * working_scale((height_px, width_px), spec) ** 2
    return (3 * own + 4 * 4 * pixels * 14 * 4 / 3) / 2**20
