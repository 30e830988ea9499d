"""The search index: made when there are enough vectors, measured, and kept good."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np

import store.chunk_embeddings
import store.search
import store.search_index
from assets.chunk_embeddings import chunk_embeddings, next_chunk_embeddings
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.search import NO_FILTERS, IndexSpec, IndexWork, SearchSpec, index_work
from core.work import Job, Outcome, Status, spec_id
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from store.database import Db
from store.search_index import IndexBuild, IndexFacts

INDEX = IndexSpec()
SEARCH = SearchSpec()
SPEC = spec_id("search_index", 1, INDEX, SEARCH.depth, SEARCH.hnsw_ef_search)
RECALL = "index_recall"


@dataclass(frozen=True)
class PendingIndex:
    """A table of vectors whose index is to be built, measured or dropped."""

    unit: str
    batch_key: str
    work: IndexWork


@dg.asset(
    partitions_def=page_batches,
    deps=[chunk_embeddings, next_chunk_embeddings],
    group_name="text",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=300),
    pool="search_index",
    backfill_policy=per_batches,
    check_specs=[
        complete_check("search_index"),
        dg.AssetCheckSpec(
            RECALL,
            asset="search_index",
            description=(
                "Share of the exact nearest passages that the approximate index finds. Exact "
                "search, which needs no index, finds all of them."
            ),
        ),
    ],
)
def search_index(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
) -> dg.MaterializeResult:
    """The approximate index over all vectors, whichever partition asks.

    Up to 50,000 passages are searched exactly and need none. Beyond, an HNSW index is built beside
    what serves, while passages are searched and stored, and compared with exact search. It is
    measured again when a fifth of the passages is new or gone, and built anew where it misses too
    many; with recompute it is built anew in any case.
    """
    built: set[str] = set()

    def pending(db: Db, job: Job, limit: int) -> list[PendingIndex]:
        found: list[PendingIndex] = []
        for table in store.chunk_embeddings.tables(db).values():
            facts = store.search_index.index_facts(db, table, job.spec)
            work = index_work(facts.rows, facts.indexed, facts.measured_rows, INDEX)
            if config.recompute and facts.indexed and table not in built:
                work = IndexWork.BUILD
            if work is not IndexWork.NOTHING:
                found.append(PendingIndex(table, job.batch_keys[0], work))
        return found[:limit]

    def make(item: PendingIndex) -> tuple[int, float]:
        """Do what is to be done; rows and recall, 1 where search is exact."""
        table = item.unit
        built.add(table)
        with postgres.connect() as db:
            if item.work is IndexWork.DROP:
                store.search_index.drop_index(db, table)
                return 0, 1.0
            if item.work is IndexWork.BUILD:
                _build(db, table)
            recall = measured_recall(db, table)
            if recall < INDEX.least_recall and item.work is IndexWork.MEASURE:
                _build(db, table)
                recall = measured_recall(db, table)
            return store.search_index.index_facts(db, table, SPEC).rows, recall

    def keep(db: Db, job: Job, item: PendingIndex, result: tuple[int, float]) -> Outcome:
        rows, recall = result
        store.search_index.set_recall(db, item.unit, rows, recall, job.spec)
        if recall >= INDEX.least_recall:
            return Outcome(item.unit, item.batch_key, made=1)
        reason = (
            f"the index over {item.unit} finds {recall:.1%} of the nearest passages, less than the "
            f"{INDEX.least_recall:.0%} it has to"
        )
        return Outcome(item.unit, item.batch_key, Status.DEGRADED, made=1, reason=reason)

    def closing(db: Db, job: Job) -> None:
        store.search_index.forget_changes(db, INDEX.changes_kept)

    facts: dict[str, IndexFacts] = {}

    def describe(db: Db, job: Job) -> dict[str, Any]:
        for table in store.chunk_embeddings.tables(db).values():
            facts[table] = store.search_index.index_facts(db, table, job.spec)
        rows = sum(known.rows for known in facts.values())
        return {"vectors": rows, "indexes": sum(known.indexed for known in facts.values())}

    result = work_through(
        context,
        postgres,
        memory,
        spec=SPEC,
        recompute=config.recompute,
        pending=pending,
        compute=each(make),
        keep=keep,
        item_mb=lambda item: 20.0,
        most=1,
        fixed_mb=float(INDEX.memory_mb),
        closing=closing,
        describe=describe,
    )
    return dg.MaterializeResult(
        metadata=result.metadata, check_results=[*(result.check_results or []), _check(facts)]
    )


def measured_recall(db: Db, table: str) -> float:
    """Share of the exact nearest passages that the index finds, for queries between passages.

    A question lies near several passages and on none of them: queries are halfway between two.
    """
    count = INDEX.recall_queries
    vectors = store.search_index.sample(db, table, 2 * count)
    halfway = vectors[: len(vectors) // 2] + vectors[len(vectors) - len(vectors) // 2 :]
    lengths = np.linalg.norm(halfway, axis=1, keepdims=True)
    found = wanted = 0
    for query in halfway / np.maximum(lengths, 1e-6):
        near = store.search.nearest_exact(db, table, "", query, NO_FILTERS, INDEX.recall_depth)
        seen = store.search.nearest_indexed(
            db, table, "", query, NO_FILTERS, SEARCH.depth, SEARCH.hnsw_ef_search
        )
        known = {passage.chunk_id for passage in seen}
        wanted += len(near)
        found += sum(passage.chunk_id in known for passage in near)
    return found / wanted if wanted else 1.0


def _build(db: Db, table: str) -> None:
    build = IndexBuild(INDEX.hnsw_m, INDEX.hnsw_ef_construction, INDEX.memory_mb, INDEX.timeout_s)
    store.search_index.build_index(db, table, build)


def _check(facts: dict[str, IndexFacts]) -> dg.AssetCheckResult:
    """Whether every index finds what it has to."""
    recalls = {
        table: known.recall
        for table, known in facts.items()
        if known.indexed and known.recall is not None
    }
    worst = min(recalls.values(), default=1.0)
    how = "the worst of the approximate indexes" if recalls else "search is exact"
    return dg.AssetCheckResult(
        passed=worst >= INDEX.least_recall,
        check_name=RECALL,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"recall {worst:.3f}: {how}",
        metadata={
            "recall": worst,
            "least_recall": INDEX.least_recall,
            "queries": INDEX.recall_queries,
            "indexes": dg.MetadataValue.json({t: round(r, 4) for t, r in recalls.items()}),
        },
    )
