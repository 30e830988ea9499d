"""Scans: photographs, upright, and nothing of what a camera writes beside the pixels."""

import math
from dataclasses import dataclass, replace

import dagster as dg

import store.scans
from assets.partitions import per_batches, scan_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.scans import SCANS
from core.text import legible
from core.work import Job, Outcome, Status
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.photographs import Header, Photograph, jpeg_of, read_header, read_photograph
from resources.postgres import Postgres
from resources.process_tree import tree_mb
from store.database import Db
from store.scans import PendingScan

BUDGET_MB = 500
BASE_MB = 150
"""What the op holds before its first photograph."""


@dataclass(frozen=True)
class Made:
    """An upright picture, and whether memory sufficed for all of it."""

    picture: Photograph
    whole: bool


@dg.asset(
    partitions_def=scan_batches,
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=BUDGET_MB),
    backfill_policy=per_batches,
    check_specs=[complete_check("scans")],
)
def scans(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
) -> dg.MaterializeResult:
    """Each photograph as an upright picture of at most 3,600 px; JPEG, PNG, TIFF, WebP, HEIC.

    Once the picture is there the file as received is deleted, since phones write place, time and
    owner into it; what is made anew is made of the picture. A file that cannot be decoded stays,
    with the reason; so does a JPEG that was reduced because there is no memory for all of it.
    """
    budget_mb = memory.granted_mb(context)
    base_mb = tree_mb()

    def most_px(header: Header, source: str, item: PendingScan) -> int:
        if source == item.picture_key:  # what was made is not made worse
            return SCANS.most_px
        room_mb = budget_mb - base_mb
        return header.most_px_within(room_mb, most_px=SCANS.most_px, least_px=SCANS.least_px)

    def make(item: PendingScan) -> Made:
        name = legible(item.name)
        if item.reason:
            raise InputError(item.reason)
        source = _source(images, item)
        try:
            with images.local(source) as path:
                header = read_header(path)
                side_px = most_px(header, source, item)
                picture = read_photograph(
                    path, most_px=side_px, most_megapixels=SCANS.most_megapixels
                )
        except FileNotFoundError as error:
            raise InputError(f"{name}: its stored copy is missing; add it again") from error
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        if source == item.picture_key:
            picture = replace(picture, scale=picture.scale * item.scale, loss=item.loss)
        whole = side_px == SCANS.most_px
        if not whole:
            height, width = picture.image.shape[:2]
            needed = math.ceil((base_mb + header.megabytes(SCANS.most_px)) / 50) * 50
            reduced = (
                f"reduced to {width} x {height} px, for all of it takes about {needed} MB instead "
                f"of {budget_mb}; with more memory, identify it again with --recompute"
            )
            picture = replace(picture, loss="; ".join(filter(None, [picture.loss, reduced])))
        images.write_bytes(item.picture_key, jpeg_of(picture.image, SCANS.jpeg_quality))
        return Made(picture, whole)

    def keep(db: Db, job: Job, item: PendingScan, result: Made) -> Outcome:
        picture = result.picture
        height, width = picture.image.shape[:2]
        store.scans.keep_picture(
            db, item.unit, job.spec, item.picture_key, (width, height), picture.scale, picture.loss,
            whole=result.whole,
        )  # fmt: skip
        loss = f"{legible(item.name)}: {picture.loss}" if picture.loss else ""
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=loss)

    def megabytes(item: PendingScan) -> float:
        if item.reason:
            return 1.0
        source = _source(images, item)
        try:
            with images.local(source) as path:
                header = read_header(path)
                side_px = most_px(header, source, item)
                return min(header.megabytes(side_px), BUDGET_MB - BASE_MB)
        except (InputError, FileNotFoundError):
            return 1.0

    result = work_through(
        context,
        postgres,
        memory,
        spec=SCANS.scans_id,
        recompute=config.recompute,
        pending=store.scans.pending,
        compute=each(make),
        keep=keep,
        item_mb=megabytes,
        most=8,
    )
    # Only now: a file that went before its rows were committed might be missed.
    with postgres.connect() as db:
        for key in store.scans.files_with_picture(db, context.partition_keys):
            images.remove(key)
    return result


def _source(images: ImageStore, item: PendingScan) -> str:
    """What the upright picture is made of: the file as received, or the picture as it was."""
    return item.file_key if images.exists(item.file_key) else item.picture_key
