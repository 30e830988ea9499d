"""Gallery quality: how well the gallery did, day by day."""

from dataclasses import asdict
from typing import Any

import dagster as dg

import store.confusion_pairs
import store.gallery_items
import store.gallery_quality
from assets.confusion_pairs import as_table, confusion_pairs
from assets.identifications import identifications
from assets.partitions import days, per_batches
from assets.work import complete_check
from core.gallery_quality import calibration_error, share
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.database import Db

PRECISION = "accepted_are_right"
LEAST_PRECISION = 0.99
LEAST_NAMED = 20
"""Fewer accepted cards that people named say nothing about the share that is right."""


@dg.asset(
    partitions_def=days,
    deps=[identifications, confusion_pairs],
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=200),
    backfill_policy=per_batches,
    check_specs=[
        complete_check("gallery_quality"),
        dg.AssetCheckSpec(
            PRECISION,
            asset="gallery_quality",
            description="Of accepted cards that people named, at least .99 were named the same.",
        ),
    ],
)
def gallery_quality(
    context: dg.AssetExecutionContext,
    postgres: Postgres,
    memory: MemoryContract,
) -> dg.MaterializeResult:
    """Coverage, unknown and degraded share, corrections, calibration error, confusions, by day.

    A share is of what happened on that day and is missing where nothing did. Days are computed anew
    whenever they are asked for: people correct on Monday what was identified on Sunday.
    """
    budget_mb = memory.granted_mb(context)
    watching = memory.watch(budget_mb, "gallery_quality", context.log.error)
    with watching as watch, postgres.connect() as db:
        each = {day: _measured(db, day) for day in context.partition_keys}
        worst = store.confusion_pairs.worst(db, None, limit=20)
    for day, measures in each.items():
        numbers = {name: value for name, value in measures.items() if value is not None}
        context.add_asset_metadata(numbers, partition_key=day)
    named = sum(measures["accepted_named"] for measures in each.values())
    wrong = sum(measures["accepted_wrong"] for measures in each.values())
    precision = share(named - wrong, named)
    return dg.MaterializeResult(
        metadata={
            "budget_mb": budget_mb,
            "peak_mb": round(watch.peak_mb, 1),
            "items": len(each),
            "top_confusions": as_table(worst),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not watch.over,
                check_name="complete",
                description="Every day that was asked for was measured.",
            ),
            dg.AssetCheckResult(
                passed=precision is None or named < LEAST_NAMED or precision >= LEAST_PRECISION,
                check_name=PRECISION,
                severity=dg.AssetCheckSeverity.WARN,
                description=(
                    f"{named - wrong} of {named} accepted cards that people named were right"
                    if named
                    else "nobody named an accepted card"
                ),
                metadata={"named": named, "wrong": wrong},
            ),
        ],
    )


def _measured(db: Db, day: str) -> dict[str, Any]:
    counts = store.gallery_quality.of_day(db, day)
    contents = store.gallery_items.contents(db)
    numbers = asdict(counts)
    pairs = numbers.pop("pairs")
    measures: dict[str, Any] = {
        **numbers,
        "coverage": share(counts.accepted, counts.identified),
        "unknown_rate": share(counts.unknown, counts.identified),
        "degraded_share": share(counts.degraded, counts.identified),
        "correction_rate": share(counts.named_otherwise, counts.named),
        "calibration_error": calibration_error(pairs),
        "items": contents.items,
        "items_without_template": contents.without,
        "templates": contents.templates,
        "learned_templates": contents.learned,
        "oldest_template_days": round(contents.oldest_days, 2),
    }
    store.gallery_quality.keep(db, day, measures)
    return measures
