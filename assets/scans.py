"""Scans: photographs, upright, and nothing of what a camera writes beside the pixels."""

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
from resources.photographs import Photograph, jpeg_of, read_header, read_photograph
from resources.postgres import Postgres
from store.database import Db
from store.scans import PendingScan

BUDGET_MB = 500
BASE_MB = 150
"""What the op holds before its first photograph."""


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

    Place, time and owner, which phones write into photographs, are in the file as received alone,
    and in nothing that is made of it. One that cannot be decoded stays with the reason.
    """

    def make(item: PendingScan) -> tuple[Photograph, str]:
        name = legible(item.name)
        if item.reason:
            raise InputError(item.reason)
        try:
            with images.local(item.file_key) as path:
                picture = read_photograph(
                    path, most_px=SCANS.most_px, most_megapixels=SCANS.most_megapixels
                )
        except FileNotFoundError as error:
            raise InputError(f"{name}: its stored copy is missing; add it again") from error
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        key = f"scans/{item.unit[:2]}/{item.unit}.jpg"
        images.write_bytes(key, jpeg_of(picture.image, SCANS.jpeg_quality))
        return picture, key

    def keep(db: Db, job: Job, item: PendingScan, result: tuple[Photograph, str]) -> Outcome:
        picture, key = result
        height, width = picture.image.shape[:2]
        store.scans.keep_picture(db, item.unit, job.spec, key, (width, height), picture.scale)
        loss = f"{legible(item.name)}: {picture.loss}" if picture.loss else ""
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=loss)

    def megabytes(item: PendingScan) -> float:
        if item.reason:
            return 1.0
        try:
            with images.local(item.file_key) as path:
                return min(read_header(path).megabytes, BUDGET_MB - BASE_MB)
        except (InputError, FileNotFoundError):
            return 1.0

    return work_through(
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
