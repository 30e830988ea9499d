"""Detections: where items are on a photograph."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np

import store.detections
import store.scans
from assets.partitions import per_batches, scan_batches
from assets.scans import scans
from assets.work import Recompute, complete_check, each, work_through
from core.detection import rectify
from core.geometry import Image
from core.overlay import Mark, overlay
from core.scans import SCANS
from core.text import legible
from core.work import Job, Outcome, Status
from resources.gallery_tools import GalleryTools
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.photographs import jpeg_of
from resources.postgres import Postgres
from store.database import Db
from store.detections import StoredDetection
from store.scans import Picture

THUMBNAIL_PX = 480
MODEL_MB = 80.0
"""Working pictures of the detector."""


@dataclass(frozen=True)
class Detected:
    """What was found on one photograph."""

    stored: list[StoredDetection]
    complaints: tuple[str, ...]


def detections_spec(gallery: GalleryTools) -> str:
    """Spec id of detections under the settings in force."""
    return SCANS.detections_id(gallery.detector_id)


@dg.asset(
    partitions_def=scan_batches,
    deps=[scans],
    group_name="gallery",
    kinds={"opencv", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=400),
    backfill_policy=per_batches,
    check_specs=[complete_check("detections")],
)
def detections(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    gallery: GalleryTools,
) -> dg.MaterializeResult:
    """The four corners of every item on a photograph, and the item alone, made rectangular.

    The overlay in the metadata shows what was found. A photograph on which nothing was found is an
    answer, and says so.
    """
    detector = gallery.find_detector()

    def detect(item: Picture) -> Detected:
        image = images.read_image(item.image_key)
        found = detector.detect(image)
        stored: list[StoredDetection] = []
        for ordinal, detection in enumerate(found, start=1):
            crop = rectify(image, detection.quad, SCANS.crop_width_px, SCANS.crop_height_px)
            key, digest = _keep_crop(images, crop)
            quad = [round(float(value), 2) for value in np.asarray(detection.quad).ravel()]
            name = f"{item.unit}\0{digest}\0{quad}"
            stored.append(
                StoredDetection(
                    detection_id=hashlib.sha256(name.encode()).hexdigest()[:32],
                    ordinal=ordinal,
                    quad=quad,
                    score=float(detection.score),
                    how=detection.how,
                    crop_key=key,
                    crop_sha256=digest,
                )
            )
        complaints = tuple(dict.fromkeys(c for each in found for c in each.complaints))
        return Detected(stored, complaints)

    def keep(db: Db, job: Job, item: Picture, result: Detected) -> Outcome:
        store.detections.replace(db, item.unit, job.spec, result.stored)
        loss = "; ".join(f"{legible(item.name)}: {each}" for each in result.complaints)
        status = Status.DEGRADED if loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, made=len(result.stored), reason=loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        pictures = store.scans.pictures(db, job.batch_keys)
        told: dict[str, Any] = {"photographs": len(pictures)}
        if pictures:
            picture = pictures[0]
            known = store.detections.found(db, [picture.unit])
            marks = [Mark(np.asarray(one.quad, np.float32), str(one.ordinal)) for one in known]
            drawn = overlay(images.read_image(picture.image_key), marks, THUMBNAIL_PX)
            shown = base64.b64encode(jpeg_of(drawn, 75)).decode()
            told["overlay"] = dg.MetadataValue.md(f"![found](data:image/jpeg;base64,{shown})")
        return told

    return work_through(
        context,
        postgres,
        memory,
        spec=detections_spec(gallery),
        recompute=config.recompute,
        pending=store.scans.pending_pictures,
        compute=each(detect),
        keep=keep,
        item_mb=lambda item: item.width_px * item.height_px * 6 / 2**20 + MODEL_MB,
        most=4,
        describe=describe,
    )


def _keep_crop(images: ImageStore, crop: Image) -> tuple[str, str]:
    """Store a crop under the hash of its file; its key and the hash."""
    data = jpeg_of(crop, SCANS.jpeg_quality)
    digest = hashlib.sha256(data).hexdigest()
    key = f"crops/{digest[:2]}/{digest}.jpg"
    if not images.exists(key):
        images.write_bytes(key, data)
    return key, digest
