"""Encoders: checkpoints in the form that runs, each runtime measured and judged."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

import store.panels
import store.work
from assets.encoder_channel import not_configured
from assets.panels import panels
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, Refused, complete_check, work_through
from core.encoders import EncoderError
from core.errors import BudgetError, InputError
from core.runtimes import CONVERSION, CONVERTER, Manifest, Runtime, checkpoint_sha256
from core.text import visible
from core.work import Job, Outcome, spec_id
from resources.checkpoints import find_checkpoint, folder_of
from resources.conversion import convert_in_child
from resources.encoder import Encoder
from resources.encoder_folder import EncoderFolder, folder_encoder, keep, stored_encoder
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db

SPEC = spec_id("encoders", 1, CONVERTER)

BUDGET_MB = 1200
"""Room for converting ViT-B/32. Larger towers are converted by hand, where there is room."""

COLUMNS = [
    dg.TableColumn("encoder", "string"),
    dg.TableColumn("runtime", "string"),
    dg.TableColumn("used", "bool"),
    dg.TableColumn("passed", "bool"),
    dg.TableColumn("why not", "string"),
    dg.TableColumn("images", "int", "real images that it was judged on"),
    dg.TableColumn("worst cosine", "float", "centred, to the reference"),
    dg.TableColumn("nearest agree", "float"),
    dg.TableColumn("ten nearest agree", "float"),
    dg.TableColumn("finds edited", "float"),
    dg.TableColumn("reference finds", "float"),
    dg.TableColumn("images per s", "float"),
    dg.TableColumn("peak MB", "float", "of a process that decodes and embeds"),
    dg.TableColumn("budget MB", "float", "of an op that embeds with it"),
]


@dataclass(frozen=True)
class PendingEncoder:
    """An encoder that is configured and is not in the image store yet, or is to be made anew.

    Attributes:
        encoder: The one encoder.
        unit: Hash of its checkpoint.
        batch_key: The partition whose run makes it.
        folder: The form that runs, where it is configured so; else it has to be converted.
        mb: What conversion is expected to take.
    """

    encoder: Encoder
    unit: str
    batch_key: str
    folder: EncoderFolder | None
    mb: float


@dg.asset(
    partitions_def=page_batches,
    deps=[panels],
    group_name="copy_search",
    kinds={"onnx"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=BUDGET_MB),
    pool="encoder",
    backfill_policy=per_batches,
    check_specs=[complete_check("encoders")],
)
def encoders(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
    encoder: Encoder,
) -> dg.MaterializeResult:
    """The configured image encoders in the form that runs, made once, whichever partition asks.

    A checkpoint is exported to ONNX in full precision and in two of reduced precision; each is run
    in a process of its own over up to 256 stored panels, for its speed and its memory, and compared
    with what torch computes. One of reduced precision is used only if vectors, neighbours and the
    finding of edited copies stay what they were, on 200 panels or more. The budget of the op that
    embeds then picks the fastest that fits. With recompute all of that is done anew, on the panels
    that are stored by then.
    """
    if copy_search.spec.tile_first == "off" or not encoder.configured:
        return not_configured(memory.granted_mb(context))

    def pending(db: Db, job: Job, limit: int) -> list[PendingEncoder]:
        found = [_wanted(one, job.batch_keys[0]) for one in encoder.each()]
        open_units = store.work.not_done(db, job, [one.unit for one in found])

        def is_lost(unit: str) -> bool:
            """Done, and no longer in the image store; what failed never was."""
            failed = store.work.has_failed(db, job.asset, unit)
            return not failed and stored_encoder(images, unit) is None

        return [one for one in found if one.unit in open_units or is_lost(one.unit)][:limit]

    def make(items: Sequence[PendingEncoder]) -> list[Manifest | Refused]:
        results: list[Manifest | Refused] = []
        for item in items:
            stored = stored_encoder(images, item.unit)
            if item.folder is not None:
                results.append(keep(images, item.folder).manifest)
            elif stored and stored.manifest.converter == CONVERTER and not config.recompute:
                results.append(stored.manifest)  # the ledger forgot it, the store has not
            else:
                try:
                    results.append(_converted(postgres, images, item.encoder))
                except (InputError, BudgetError) as refusal:
                    results.append(refusal)
        return results

    def kept(db: Db, job: Job, item: PendingEncoder, result: Manifest) -> Outcome:
        passed = sum(runtime.passed for runtime in result.runtimes)
        return Outcome(item.unit, item.batch_key, made=passed)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        rows = [row for one in encoder.each() for row in _rows(one, images)]
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


def _wanted(encoder: Encoder, batch_key: str) -> PendingEncoder:
    choice = encoder.choice()
    folder = folder_of(choice)
    if folder is not None and (found := folder_encoder(folder)):
        return PendingEncoder(encoder, found.manifest.checkpoint, batch_key, found, 1.0)
    checkpoint = find_checkpoint(choice)
    weights_mb = checkpoint.path.stat().st_size / 1e6
    mb = CONVERSION.base_mb + CONVERSION.per_weight * weights_mb
    return PendingEncoder(encoder, checkpoint_sha256(checkpoint.spec), batch_key, None, mb)


def _converted(postgres: Postgres, images: ImageStore, encoder: Encoder) -> Manifest:
    """Convert one checkpoint with stored panels as the gate's images, and keep what came of it."""
    with postgres.connect() as db:
        keys = store.panels.spread(db, CONVERSION.most_images)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "pictures"
        pictures.mkdir()
        for number, key in enumerate(keys):
            (pictures / f"{number:03d}.png").write_bytes(images.read_bytes(key))
        made = Path(scratch) / "encoder"
        folder = convert_in_child(encoder.choice(), pictures, made, cores=encoder.cores)
        return keep(images, folder).manifest


def _rows(encoder: Encoder, images: ImageStore) -> list[dg.TableRecord]:
    wanted = _wanted(encoder, "")
    stored = stored_encoder(images, wanted.unit)
    if stored is None:
        return []
    manifest = stored.manifest
    try:
        chosen = encoder.chosen(manifest).name
    except (BudgetError, EncoderError):
        chosen = ""
    return [
        dg.TableRecord(_row(visible(encoder.spec), runtime, chosen))
        for runtime in manifest.runtimes
    ]


def _row(name: str, runtime: Runtime, chosen: str) -> dict[str, Any]:
    parity, trial = runtime.parity, runtime.trial
    return {
        "encoder": name[:300],
        "runtime": runtime.name,
        "used": runtime.name == chosen,
        "passed": runtime.passed,
        "why not": visible(runtime.reason)[:500],
        "images": parity and parity.images,
        "worst cosine": parity and round(parity.worst, 6),
        "nearest agree": parity and parity.top_1,
        "ten nearest agree": parity and parity.top_10,
        "finds edited": parity and parity.recall,
        "reference finds": parity and parity.reference_recall,
        "images per s": trial and trial.images_per_s,
        "peak MB": trial and trial.peak_mb,
        "budget MB": trial and round(runtime.step_mb),
    }
