"""Chunk embeddings: the vectors by which passages are found."""

from typing import Any

import dagster as dg

import store.chunk_embeddings
import store.chunks
from assets.chunks import chunks
from assets.partitions import page_batches, per_batches
from assets.text_channel import (
    chunk_embeddings_spec,
    described_text_encoder,
    serving_text_encoder,
    waiting_text_encoder,
)
from assets.work import COMPLETE, Recompute, complete_check, each, work_through
from core.chunks import readable
from core.text_encoders import WITNESS, Encoded, require_agreement
from core.work import Job, Outcome, Status
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.remote_text_encoder import RemoteTextEncoder
from resources.text_encoder_resource import TextEncoderResource
from store.chunks import PendingChunks
from store.database import Db

BUDGET_MB = 350
"""Room for the default encoder, and for others of up to twice its size."""

MODEL_MB = 120.0
"""What the default encoder takes beside Dagster: its weights in the form that computes, those of
them that are mapped, ONNX Runtime, and two passages at a time. ``benchmarks/text_encoders.py``
prints it."""

UNKNOWN_SHARE = 0.2
"""A page of which the encoder does not know so many tokens is found by its words alone: it is in a
script that the encoder was not made for."""


@dg.asset(
    partitions_def=page_batches,
    deps=[chunks],
    group_name="text",
    kinds={"onnx", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=BUDGET_MB),
    pool="text_encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("chunk_embeddings")],
)
def chunk_embeddings(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
    text_encoder: TextEncoderResource,
) -> dg.MaterializeResult:
    """One unit vector per passage and encoder, comparable by inner product.

    Vectors of different encoders live in different tables and never meet in one search. An encoder
    that has become another one under the same name is refused.
    """
    with postgres.connect() as db:
        serving = serving_text_encoder(db, text_encoder)
    return _embed(context, config, postgres, memory, serving)


@dg.asset(
    partitions_def=page_batches,
    deps=[chunks],
    group_name="encoders",
    kinds={"onnx", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=BUDGET_MB),
    pool="text_encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("next_chunk_embeddings")],
)
def next_chunk_embeddings(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
    text_encoder: TextEncoderResource,
) -> dg.MaterializeResult:
    """The same for the second text encoder that is configured, while the first one serves.

    Nothing is searched with these vectors until ``quire encoders switch --text``; then the two
    change places, and what served is kept here, ready to go back to.
    """
    with postgres.connect() as db:
        waiting = waiting_text_encoder(db, text_encoder)
    if waiting is None:
        answer = "no second text encoder is configured; there is none to prepare"
        return dg.MaterializeResult(
            metadata={"answer": answer, "items": 0, "budget_mb": memory.granted_mb(context)},
            check_results=[
                dg.AssetCheckResult(passed=True, check_name=COMPLETE, description=answer)
            ],
        )
    return _embed(context, config, postgres, memory, waiting)


def _embed(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
    text_encoder: TextEncoderResource,
) -> dg.MaterializeResult:
    """Embed what one encoder has not seen yet."""
    with postgres.connect() as db:
        described = described_text_encoder(db, text_encoder)
        name, chunk_set = described.encoder_id, described.chunk_set
        table = store.chunk_embeddings.table_of(db, name, described.dim, chunk_set)
    known_again = False

    def embed(page: PendingChunks) -> Encoded:
        nonlocal known_again
        encoder = text_encoder.load()
        if not known_again:
            seen = encoder.encode([WITNESS], "passage").vectors[0].tolist()
            with postgres.connect() as db:
                kept = store.chunk_embeddings.set_witness(db, name, seen)
            require_agreement(kept, seen, name)
            known_again = True
        return encoder.encode([readable(text).text for text in page.texts], "passage")

    def keep(db: Db, job: Job, page: PendingChunks, result: Encoded) -> Outcome | None:
        if not store.chunks.are_still(db, page, chunk_set):
            return None  # it was divided anew meanwhile
        store.chunk_embeddings.replace(db, table, page.chunk_ids, result.vectors)
        loss = _loss(page, result)
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(page.unit, page.batch_key, status, len(page.chunk_ids), loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        told: dict[str, Any] = {"encoder": name, "runtime": described.runtime}
        if described.runtime == "remote" and known_again:
            encoder = text_encoder.load()
            assert isinstance(encoder, RemoteTextEncoder)
            told |= {
                "sent_to": text_encoder.choice().url,
                "sent_requests": encoder.sent.requests,
                "sent_texts": encoder.sent.texts,
                "sent_bytes": encoder.sent.size_bytes,
            }
        return told

    return work_through(
        context,
        postgres,
        memory,
        spec=chunk_embeddings_spec(described),
        recompute=config.recompute,
        pending=lambda db, job, limit: store.chunks.pending(db, job, chunk_set, limit),
        compute=each(embed),
        keep=keep,
        item_mb=lambda page: 8 * described.dim * len(page.texts) / 2**20,
        most=8,
        fixed_mb=0.0 if described.runtime == "remote" else MODEL_MB,
        describe=describe,
    )


def _loss(page: PendingChunks, result: Encoded) -> str:
    """What the vectors of a page do not know of it; empty where they know all."""
    number = page.unit.rpartition(":")[2]
    losses: list[str] = []
    if cut := sum(result.cut):
        losses.append(
            f"page {number}: {cut} tokens were beyond the window of the text encoder and were cut"
        )
    unknown, tokens = sum(result.unknown), sum(result.tokens)
    if unknown > UNKNOWN_SHARE * tokens:
        losses.append(
            f"page {number}: {unknown} of {tokens} tokens are unknown to the text encoder; it is "
            "found by its words alone"
        )
    return "; ".join(losses)
