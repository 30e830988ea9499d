"""Text encoders: checkpoints in the form that runs, each runtime compared with the original."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

import store.work
from assets.partitions import page_batches, per_batches
from assets.text_channel import serving_text_encoder
from assets.work import Recompute, Refused, complete_check, work_through
from core.encoders import EncoderError
from core.errors import BudgetError, InputError
from core.text import visible
from core.text_runtimes import (
    TEXT_CONVERSION,
    TEXT_CONVERTER,
    TextManifest,
    TextRuntime,
    recorded_manifest,
    text_checkpoint_sha256,
)
from core.work import Job, Outcome, Status, spec_id
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.text_checkpoints import find_text_checkpoint
from resources.text_conversion import convert_text_in_child, needs_torch
from resources.text_encoder import TextFolder, keep_text, stored_text, text_folder
from resources.text_encoder_resource import TextEncoderResource
from store.database import Db

SPEC = spec_id("text_encoders", 1, TEXT_CONVERTER)

BUDGET_MB = 400
"""Room for converting the default encoder. One that needs torch is converted by hand, where there
is room."""

COLUMNS = [
    dg.TableColumn("encoder", "string"),
    dg.TableColumn("runtime", "string"),
    dg.TableColumn("used", "bool"),
    dg.TableColumn("why not", "string"),
    dg.TableColumn("compared with", "string"),
    dg.TableColumn("texts", "int", "samples that it was compared on"),
    dg.TableColumn("worst cosine", "float", "to the reference"),
    dg.TableColumn("MB", "float", "of its files"),
]


Converted = TextManifest | EncoderError
"""What came of an encoder, or why the second one of two could not be made."""


@dataclass(frozen=True)
class PendingTextEncoder:
    """An encoder of this machine that is not in the image store yet, or is to be made anew.

    Attributes:
        encoder: The one encoder.
        unit: Hash of its checkpoint.
        batch_key: The partition whose run makes it.
        folder: The form that runs, where it is configured so; else it has to be converted.
        mb: What conversion is expected to take.
    """

    encoder: TextEncoderResource
    unit: str
    batch_key: str
    folder: TextFolder | None
    mb: float


@dg.asset(
    partitions_def=page_batches,
    group_name="text",
    kinds={"onnx"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=BUDGET_MB),
    pool="text_encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("text_encoders")],
)
def text_encoders(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    text_encoder: TextEncoderResource,
) -> dg.MaterializeResult:
    """The configured text encoders in the form that runs, made once, whichever partition asks.

    A checkpoint is written as an ONNX graph in full precision and in 8 bits, and each is compared
    with what torch computes, over texts in several languages; the smaller one that agrees is used.
    An encoder on another machine needs nothing of the kind; the second of two that is not on this
    one is left out, and that is said.
    """
    with postgres.connect() as db:
        serving = serving_text_encoder(db, text_encoder)
    local = [one for one in text_encoder.each() if _is_found(one, serving, context.log.warning)]
    given_up: set[str] = set()

    def pending(db: Db, job: Job, limit: int) -> list[PendingTextEncoder]:
        found = [_wanted(one, job.batch_keys[0]) for one in local]
        found = [one for one in found if one.unit not in given_up]
        open_units = store.work.not_done(db, job, [one.unit for one in found])

        def is_lost(unit: str) -> bool:
            """Done, and no longer in the image store; what failed never was."""
            failed = store.work.has_failed(db, job.asset, unit)
            return not failed and stored_text(images, unit) is None

        return [one for one in found if one.unit in open_units or is_lost(one.unit)][:limit]

    def make(items: Sequence[PendingTextEncoder]) -> list[Converted | Refused]:
        results: list[Converted | Refused] = []
        for item in items:
            stored = stored_text(images, item.unit)
            if item.folder is not None:
                results.append(keep_text(images, item.folder).manifest)
            elif stored and stored.manifest.converter == TEXT_CONVERTER and not config.recompute:
                results.append(stored.manifest)  # the ledger forgot it, the store has not
            else:
                try:
                    results.append(_converted(images, item.encoder))
                except (InputError, BudgetError) as refusal:
                    results.append(refusal)
                except EncoderError as error:
                    if item.encoder.spec == serving.spec:
                        raise
                    given_up.add(item.unit)
                    results.append(error)
        return results

    def kept(db: Db, job: Job, item: PendingTextEncoder, result: Converted) -> Outcome:
        if isinstance(result, EncoderError):  # of a budget of 0: the next run tries again
            why = visible(str(result))
            return Outcome(item.unit, item.batch_key, Status.FAILED, reason=why, budget_mb=0)
        return Outcome(item.unit, item.batch_key, made=sum(r.passed for r in result.runtimes))

    def describe(db: Db, job: Job) -> dict[str, Any]:
        rows = [row for one in local for row in _rows(one, images)]
        return {"runtimes": dg.MetadataValue.table(rows, dg.TableSchema(COLUMNS))}

    return work_through(
        context,
        postgres,
        memory,
        spec=SPEC,
        recompute=config.recompute,
        pending=pending,
        compute=make,
        keep=kept,
        item_mb=lambda item: item.mb,
        most=1,
        describe=describe,
    )


def _is_found(
    encoder: TextEncoderResource, serving: TextEncoderResource, tell: Callable[[str], None]
) -> bool:
    """Whether an encoder is one of this machine; told where it should be and is not.

    Raises:
        EncoderError: It is the one that serves, which nothing can be done without.
    """
    try:
        if encoder.choice().remote:
            return False
        _wanted(encoder, "")
    except EncoderError as error:
        if encoder.spec == serving.spec:
            raise
        tell(visible(f"the text encoder {encoder.spec} is left out: {error}"))
        return False
    return True


def _wanted(encoder: TextEncoderResource, batch_key: str) -> PendingTextEncoder:
    choice = encoder.choice()
    folder = text_folder(Path(choice.name).expanduser()) if choice.source == "folder" else None
    if folder is not None:
        return PendingTextEncoder(encoder, folder.manifest.checkpoint, batch_key, folder, 1.0)
    checkpoint = find_text_checkpoint(choice)
    unit = text_checkpoint_sha256(checkpoint.spec)
    mb = TEXT_CONVERSION.recorded_mb
    if recorded_manifest(unit) is None:
        mb = TEXT_CONVERSION.base_mb
        mb += TEXT_CONVERSION.per_weight * checkpoint.weights.stat().st_size / 1e6
        mb += TEXT_CONVERSION.torch_mb if needs_torch(checkpoint) else 0.0
    return PendingTextEncoder(encoder, unit, batch_key, None, mb)


def _converted(images: ImageStore, encoder: TextEncoderResource) -> TextManifest:
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "encoder"
        folder = convert_text_in_child(encoder.choice(), made, cores=encoder.cores)
        return keep_text(images, folder).manifest


def _rows(encoder: TextEncoderResource, images: ImageStore) -> list[dg.TableRecord]:
    stored = stored_text(images, _wanted(encoder, "").unit)
    if stored is None:
        return []
    try:
        chosen = stored.manifest.chosen().name
    except EncoderError:
        chosen = ""
    return [
        dg.TableRecord(_row(visible(encoder.spec), stored.manifest, runtime, chosen))
        for runtime in stored.manifest.runtimes
    ]


def _row(name: str, manifest: TextManifest, runtime: TextRuntime, chosen: str) -> dict[str, Any]:
    return {
        "encoder": name[:300],
        "runtime": runtime.name,
        "used": runtime.name == chosen,
        "why not": visible(runtime.reason)[:500],
        "compared with": manifest.reference,
        "texts": manifest.samples,
        "worst cosine": runtime.worst_cosine,
        "MB": round(runtime.size_bytes / 1e6, 1),
    }
