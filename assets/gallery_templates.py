"""Gallery templates: upright pictures of one size, which search and verification compare with."""

import cv2
import dagster as dg

import store.gallery_templates
from assets.learned_templates import learned_templates
from assets.partitions import gallery_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.gallery import GALLERY
from core.geometry import Image
from core.text import legible
from core.work import Job, Outcome, Status
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.photographs import jpeg_of, read_photograph
from resources.postgres import Postgres
from store.database import Db
from store.gallery_templates import PendingTemplate

AT_A_TIME = 256
"""Made one after the other and committed together. What is pending is looked for once for so many:
among the 12,500 of a run that takes a tenth of a second."""

LARGEST_MB = 30.0
"""Decoding a reference picture of a few million pixels; larger JPEGs are decoded reduced."""


@dg.asset(
    partitions_def=gallery_batches,
    deps=[learned_templates],
    group_name="gallery",
    kinds={"postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=300),
    backfill_policy=per_batches,
    check_specs=[complete_check("gallery_templates")],
)
def gallery_templates(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
) -> dg.MaterializeResult:
    """One upright picture of 300 x 420 px for each reference picture that could be read.

    Pictures in landscape are turned by a quarter. A reference picture that is damaged is a reason
    on that picture, and the item's other ones serve.
    """

    def make(item: PendingTemplate) -> tuple[str, str]:
        try:
            with images.local(item.file_key) as path:
                picture = read_photograph(
                    path,
                    most_px=4 * GALLERY.template_height_px,
                    most_megapixels=GALLERY.max_megapixels,
                )
        except FileNotFoundError as error:
            raise InputError(f"{item.name}: its stored copy is missing; add it again") from error
        except InputError as error:
            raise InputError(f"{legible(item.name)}: {error}") from error
        key = f"templates/{item.unit[:2]}/{item.unit}.jpg"
        images.write_bytes(key, jpeg_of(_as_template(picture.image), GALLERY.jpeg_quality))
        return key, f"{legible(item.name)}: {picture.loss}" if picture.loss else ""

    def keep(db: Db, job: Job, item: PendingTemplate, result: tuple[str, str]) -> Outcome:
        key, loss = result
        store.gallery_templates.replace(db, item.unit, job.spec, key)
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=1, reason=loss)

    return work_through(
        context,
        postgres,
        memory,
        spec=GALLERY.templates_id,
        recompute=config.recompute,
        pending=store.gallery_templates.pending,
        compute=each(make),
        keep=keep,
        item_mb=lambda item: LARGEST_MB,
        most=AT_A_TIME,
    )


def _as_template(image: Image) -> Image:
    """In portrait and of the size of all templates."""
    height, width = image.shape[:2]
    if width > height:
        image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)  # pyright: ignore[reportAssignmentType]
        height, width = width, height
    size = (GALLERY.template_width_px, GALLERY.template_height_px)
    way = cv2.INTER_AREA if width > size[0] else cv2.INTER_CUBIC
    return image if (width, height) == size else cv2.resize(image, size, interpolation=way)  # pyright: ignore[reportReturnType]
