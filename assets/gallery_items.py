"""Gallery items: the known things, as manifests name them."""

from typing import Any

import dagster as dg

import store.gallery_items
from assets.partitions import gallery_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.work import Job, Outcome, Status, spec_id
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.database import Db
from store.gallery_items import PendingItem

SPEC = spec_id("gallery_items", 1)


@dg.asset(
    partitions_def=gallery_batches,
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=200),
    backfill_policy=per_batches,
    check_specs=[complete_check("gallery_items")],
)
def gallery_items(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
) -> dg.MaterializeResult:
    """The known items, and whether each has a reference picture.

    An item without one cannot be found on any photograph; it stays here with the reason, so that
    nobody takes it for one that was looked for and not seen.
    """

    def check(item: PendingItem) -> PendingItem:
        if not item.images:
            why = "; ".join(dict.fromkeys(item.reasons)) or "the manifest names none"
            raise InputError(f"{item.name or item.unit} has no reference picture: {why}")
        return item

    def keep(db: Db, job: Job, item: PendingItem, result: PendingItem) -> Outcome:
        reason = "; ".join(dict.fromkeys(result.reasons))
        status = Status.DEGRADED if reason else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=reason)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        found = store.gallery_items.contents(db)
        return {
            "gallery": dg.MetadataValue.json(
                {"items": found.items, "templates": found.templates, "sets": found.sets}
            )
        }

    return work_through(
        context,
        postgres,
        memory,
        spec=SPEC,
        recompute=config.recompute,
        pending=store.gallery_items.pending,
        compute=each(check),
        keep=keep,
        item_mb=lambda item: 0.01,
        most=500,
        describe=describe,
    )
