"""Tiles: the windows over each panel that the encoder channel compares."""

import dagster as dg

import store.panels
import store.tiles
from assets.encoder_channel import encoder_in_force, not_configured
from assets.encoders import encoders
from assets.panels import panels
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.tiles import is_blank, tile_boxes
from core.work import Job, Outcome
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from store.panels import Panel
from store.tiles import StoredTile


@dg.asset(
    partitions_def=page_batches,
    deps=[panels, encoders],
    group_name="copy_search",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=250),
    backfill_policy=per_batches,
    check_specs=[complete_check("tiles")],
)
def tiles(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """Square windows over each panel, at sizes relative to it, covering it to the last edge.

    Blank windows are marked and never compared: an empty corner resembles every other one. Without
    a configured encoder nothing would look at them, and none are cut.
    """
    spec = copy_search.spec
    with postgres.connect() as db:
        serving = encoder_in_force(db, copy_search, encoder)
    if serving is None:
        return not_configured(memory.granted_mb(context))

    def cut(panel: Panel) -> list[StoredTile]:
        image = images.read_image(panel.image_key)
        found: list[StoredTile] = []
        for ordinal, tile in enumerate(tile_boxes(panel.width_px, panel.height_px, spec.tiles)):
            x0, y0, x1, y1 = tile.box_px
            window = image[y0:y1, x0:x1]
            ignored = [(a - x0, b - y0, c - x0, d - y0) for a, b, c, d in panel.ignore_boxes]
            blank = is_blank(window, spec.tiles, ignored)
            found.append(StoredTile(panel.panel_id, ordinal, tile.level, [x0, y0, x1, y1], blank))
        return found

    def keep(db: Db, job: Job, panel: Panel, result: list[StoredTile]) -> Outcome:
        store.tiles.replace(db, panel.panel_id, job.spec, result)
        return Outcome(panel.unit, panel.batch_key, made=len(result))

    return work_through(
        context,
        postgres,
        memory,
        spec=spec.tiles_id,
        recompute=config.recompute,
        pending=store.panels.pending,
        compute=each(cut),
        keep=keep,
        item_mb=lambda panel: 3 * 3 * panel.width_px * panel.height_px / 2**20,
        most=16,
    )
