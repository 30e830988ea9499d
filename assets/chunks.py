"""Chunks: the passages of each page that search finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

import store.chunks
import store.ocr_pages
from assets.ocr_pages import ocr_pages
from assets.partitions import page_batches, per_batches
from assets.text_channel import text_encoders_at_hand
from assets.text_encoders import text_encoders
from assets.work import Recompute, complete_check, each, work_through
from core.chunks import CHUNKS, chunk_id, configuration_of, passages_of
from core.text_encoders import Tokens
from core.work import Job, Outcome, spec_id
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.text_encoder_resource import TextEncoderResource
from store.chunks import Chunk
from store.database import Db
from store.ocr_pages import OcrPage


@dataclass(frozen=True)
class ChunkSet:
    """Whose tokens the passages of a set are counted in, and under which spec they are made."""

    name: str
    spec: str
    tokens: Tokens


@dg.asset(
    partitions_def=page_batches,
    deps=[ocr_pages, text_encoders],
    group_name="text",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=250),
    backfill_policy=per_batches,
    check_specs=[complete_check("chunks")],
)
def chunks(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    memory: MemoryContract,
    text_encoder: TextEncoderResource,
) -> dg.MaterializeResult:
    """Passages of each page, none longer than what the text encoder reads, for meaning and words.

    A passage is a span of the page; what is read of it has divided words joined. Where two encoders
    are configured and count otherwise, each has passages of its own, side by side; the second one
    is left out where it is not to be had, and that is said.
    """
    with postgres.connect() as db:
        at_hand = text_encoders_at_hand(db, text_encoder)
    if at_hand.left_out:
        context.log.warning(at_hand.left_out)
    sets = _chunk_sets(at_hand.encoders)

    def divide(page: OcrPage) -> list[Chunk]:
        return [chunk for one in sets for chunk in _chunks(page, one)]

    def keep(db: Db, job: Job, page: OcrPage, result: list[Chunk]) -> Outcome | None:
        if not store.ocr_pages.still_says(db, page):
            return None  # it was read anew meanwhile
        names = [one.name for one in sets]
        store.chunks.replace(db, page.document_id, page.page, names, result)
        return Outcome(page.unit, page.batch_key, made=len(result))

    def describe(db: Db, job: Job) -> dict[str, Any]:
        left_out = {"left_out": at_hand.left_out} if at_hand.left_out else {}
        return {"chunk_sets": dg.MetadataValue.json([one.name for one in sets]), **left_out}

    return work_through(
        context,
        postgres,
        memory,
        spec=chunks_spec(at_hand.encoders),
        recompute=config.recompute,
        pending=store.ocr_pages.pending_read,
        compute=each(divide),
        keep=keep,
        # The page, its words, and where each character came from, a number for every one of them.
        item_mb=lambda page: (200 * len(page.text) + 500 * len(page.words)) / 2**20,
        most=16,
        fixed_mb=30.0,  # tokenizers, with their tables of words
        describe=describe,
    )


def chunks_spec(encoders: Sequence[TextEncoderResource]) -> str:
    """Spec id of the passages for these encoders.

    Raises:
        EncoderError: One of them is not to be had.
    """
    names = {one.describe().chunk_set for one in encoders}
    return spec_id("chunks", 1, *(_set_spec(name) for name in sorted(names)))


def _set_spec(name: str) -> str:
    return spec_id("chunk_set", 1, CHUNKS, name)


def _chunk_sets(encoders: Sequence[TextEncoderResource]) -> list[ChunkSet]:
    """One for each way of counting among these encoders."""
    found: dict[str, ChunkSet] = {}
    for encoder in encoders:
        tokens = encoder.tokens()
        name = tokens.spec.chunk_set
        found.setdefault(name, ChunkSet(name, _set_spec(name), tokens))
    return [found[name] for name in sorted(found)]


def _chunks(page: OcrPage, one: ChunkSet) -> list[Chunk]:
    around = one.tokens.count("", "passage")
    passages = passages_of(
        page.text,
        lambda text: one.tokens.count(text, "passage") - around,
        one.tokens.spec.max_tokens - around,
        CHUNKS,
    )
    return [
        Chunk(
            chunk_id=chunk_id(page.document_id, page.page, one.name, passage),
            chunk_set=one.name,
            spec=one.spec,
            ordinal=ordinal,
            start_char=passage.start,
            end_char=passage.end,
            text=passage.text,
            tokens=one.tokens.count(passage.readable, "passage"),
            language=page.language,
            kind=page.kind,
            readable=passage.readable,
            configuration=configuration_of(page.language),
        )
        for ordinal, passage in enumerate(passages)
    ]
