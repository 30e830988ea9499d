"""Confusion pairs: items that are taken for one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

import store.confusion_pairs
import store.template_embeddings
from assets.partitions import gallery_batches, per_batches
from assets.template_embeddings import template_embeddings, template_embeddings_spec
from assets.work import Recompute, Refused, complete_check, work_through
from core.text import visible
from core.work import Job, Outcome, spec_id
from resources.gallery_tools import GalleryTools
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.confusion_pairs import ConfusionPair, PendingConfusion
from store.database import Db
from store.template_embeddings import EVERYTHING


@dataclass(frozen=True)
class ConfusionSpec:
    """Which items count as look-alikes.

    Attributes:
        least_similarity: Cosine of two items' templates; two views of one card come to 0.7.
        most: Look-alikes that are kept of an item.
        rows: Templates that are looked at around one.
        ef_search: Width of the search in the index.
    """

    least_similarity: float = 0.8
    most: int = 8
    rows: int = 40
    ef_search: int = 60


CONFUSION = ConfusionSpec()

COLUMNS = [
    dg.TableColumn("item", "string"),
    dg.TableColumn("other", "string"),
    dg.TableColumn("corrections", "int"),
    dg.TableColumn("similarity", "float"),
]


def confusion_spec(encoder_id: str) -> str:
    """Spec id of look-alikes by an encoder's vectors."""
    return spec_id("confusion_pairs", 1, CONFUSION, template_embeddings_spec(encoder_id))


@dg.asset(
    partitions_def=gallery_batches,
    deps=[template_embeddings],
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=250),
    backfill_policy=per_batches,
    check_specs=[complete_check("confusion_pairs")],
)
def confusion_pairs(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
    gallery: GalleryTools,
) -> dg.MaterializeResult:
    """Items that look alike to the encoder, and how often people corrected one into the other.

    Both are computed anew from vectors and from the events; nothing is counted up over time.
    """
    encoder_id = gallery.encoder_id
    with postgres.connect() as db:
        table = store.template_embeddings.table_of(db, encoder_id, gallery.dim)

    def seek(items: Sequence[PendingConfusion]) -> list[list[tuple[str, float]] | Refused]:
        with postgres.connect() as db:
            return [_look_alikes(db, table, item) for item in items]

    def keep(db: Db, job: Job, item: PendingConfusion, result: list[tuple[str, float]]) -> Outcome:
        store.confusion_pairs.replace(db, item.unit, encoder_id, result)
        return Outcome(item.unit, item.batch_key, made=len(result))

    def describe(db: Db, job: Job) -> dict[str, Any]:
        return {"worst": as_table(store.confusion_pairs.worst(db, job.batch_keys, limit=20))}

    return work_through(
        context,
        postgres,
        memory,
        spec=confusion_spec(encoder_id),
        recompute=config.recompute,
        pending=store.confusion_pairs.pending,
        compute=seek,
        keep=keep,
        item_mb=lambda item: 0.5,
        most=100,
        describe=describe,
    )


def as_table(pairs: Sequence[ConfusionPair]) -> dg.TableMetadataValue:
    """Pairs as a table of metadata."""
    records = [
        dg.TableRecord(
            {
                "item": visible(pair.item_a),
                "other": visible(pair.item_b),
                "corrections": pair.corrections,
                "similarity": round(pair.similarity, 3),
            }
        )
        for pair in pairs
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(COLUMNS))


def _look_alikes(db: Db, table: str, item: PendingConfusion) -> list[tuple[str, float]]:
    """Other items whose templates are near to this one's, most alike first."""
    near: dict[str, float] = {}
    for vector in store.template_embeddings.vectors_of(db, table, item.template_ids).values():
        found = store.template_embeddings.nearest_indexed(
            db, table, vector, EVERYTHING, CONFUSION.rows, CONFUSION.ef_search
        )
        for each in found:
            if each.item_id != item.unit and each.similarity >= CONFUSION.least_similarity:
                near[each.item_id] = max(near.get(each.item_id, 0.0), each.similarity)
    return sorted(near.items(), key=lambda pair: (-pair[1], pair[0]))[: CONFUSION.most]
