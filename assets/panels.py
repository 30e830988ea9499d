"""Panels: the single pictures within the figures of each page."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import dagster as dg
import numpy as np

import store.pages
import store.panels
from assets.pages import WORKER_MB, OpenDocument, pages
from assets.partitions import page_batches, per_batches
from assets.work import Recompute, complete_check, each, work_through
from core.errors import InputError
from core.geometry import Box, Image
from core.modality import classify
from core.panels import detect_panels
from core.work import Job, Outcome, Status
from resources.images import ImageStore
from resources.memory import MemoryContract, memory_budget
from resources.pdf import PdfLimits
from resources.postgres import Postgres
from resources.settings import CopySearch
from store.database import Db
from store.pages import Page
from store.panels import Panel


@dataclass(frozen=True)
class FoundPanels:
    """The panels of one page, and what its reader has to know."""

    panels: list[Panel]
    loss: str = ""


@dg.asset(
    partitions_def=page_batches,
    deps=[pages],
    group_name="copy_search",
    kinds={"opencv", "postgres"},
    owners=["team:quire"],
    code_version="1",
    op_tags=memory_budget(mb=300),
    backfill_policy=per_batches,
    check_specs=[complete_check("panels")],
)
def panels(
    context: dg.AssetExecutionContext,
    config: Recompute,
    postgres: Postgres,
    images: ImageStore,
    memory: MemoryContract,
    copy_search: CopySearch,
) -> dg.MaterializeResult:
    """Every picture within a figure, with its modality and where exactly it came from.

    The file's own image boxes first, then white gutters and step edges of the rendered page. Where
    a cut is doubtful both readings are kept. Charts, schematics and logos are kept for the record
    and never compared. One page is in memory at a time.
    """
    spec = copy_search.spec
    source = OpenDocument(images, memory_mb=memory.granted_mb(context))

    def find(item: Page) -> FoundPanels:
        content = item.decoded()
        rendered = source.get(item.file_key).render(item.page, spec.panels.dpi)
        detected = detect_panels(rendered.image, rendered.dpi, content, spec.panels)
        ids = [_panel_id(item, spec.panels_id, panel.box_pt) for panel in detected]
        found: dict[str, Panel] = {}
        for panel_id, panel in zip(ids, detected, strict=True):
            x0, y0, x1, y1 = panel.box_px
            crop = np.ascontiguousarray(rendered.image[y0:y1, x0:x1])
            kind = classify(crop)
            key = f"panels/{item.document_id[:2]}/{item.document_id}/{panel_id}.png"
            images.write_image(key, crop)
            other = panel.alternative_of
            found[panel_id] = Panel(
                panel_id=panel_id,
                document_id=item.document_id,
                page=item.page,
                batch_key=item.batch_key,
                spec=spec.panels_id,
                box_pt=list(panel.box_pt),
                width_px=x1 - x0,
                height_px=y1 - y0,
                dpi=rendered.dpi,
                method=panel.method,
                xref=panel.xref,
                alternative_of=None if other is None else ids[other],
                ignore_boxes_px=[list(box) for box in panel.ignore_boxes_px],
                modality=kind.modality.value,
                modality_confidence=kind.confidence,
                drawing=kind.is_drawing,
                image_key=key,
            )
        losses = [f"page {item.page}: {complaint}" for complaint in rendered.complaints]
        if rendered.lowered:
            losses.append(
                f"page {item.page} is so large that it was read at {rendered.dpi:.0f} instead of "
                f"{spec.panels.dpi:.0f} dpi; small copies on it may be missed"
            )
        return FoundPanels(list(found.values()), "; ".join(losses))

    def keep(db: Db, job: Job, item: Page, result: FoundPanels) -> Outcome:
        store.panels.replace(db, item.document_id, item.page, result.panels)
        status = Status.DEGRADED if result.loss else Status.OK
        return Outcome(item.unit, item.batch_key, status, len(result.panels), result.loss)

    def describe(db: Db, job: Job) -> dict[str, Any]:
        keys = store.panels.samples(db, job.batch_keys, limit=24)
        if not keys:
            return {}
        pictures = [picture for key in keys if (picture := _sample(images, key)) is not None]
        told: dict[str, Any] = {}
        if pictures:
            sheet = _contact_sheet(pictures)
            told["sample"] = dg.MetadataValue.md(f"![panels](data:image/jpeg;base64,{sheet})")
        if len(pictures) < len(keys):
            told["sample_missing"] = len(keys) - len(pictures)
        return told

    def page_mb(item: Page) -> float:
        """RGB as received and float planes of the cuts, 16 bytes per pixel; the largest image.

        An image is held whole while it is drawn: Flate takes 1.3 times its pixels, JPEG half.
        """
        pixels = item.width_pt * item.height_pt * (spec.panels.dpi / 72) ** 2
        pixels = min(pixels, PdfLimits().max_page_pixels)
        drawn = max((i["width_px"] * i["height_px"] for i in item.content["images"]), default=0)
        return (16 * pixels + 0.6 * 3 * drawn) / 2**20

    try:
        return work_through(
            context,
            postgres,
            memory,
            spec=spec.panels_id,
            recompute=config.recompute,
            pending=store.pages.pending_read,
            compute=each(find),
            keep=keep,
            item_mb=page_mb,
            most=4,
            fixed_mb=WORKER_MB,
            describe=describe,
        )
    finally:
        source.close()


def _panel_id(page: Page, spec: str, box_pt: Box) -> str:
    box = ",".join(f"{value:.2f}" for value in box_pt)
    named = f"{page.document_id}/{page.page}/{spec}/{box}"
    return hashlib.sha256(named.encode()).hexdigest()[:20]


def _sample(images: ImageStore, key: str) -> Image | None:
    """A stored picture to show in the metadata, or None where it is gone."""
    try:
        return images.read_image(key)
    except InputError:
        return None


def _contact_sheet(pictures: list[Image], side_px: int = 72, columns: int = 8) -> str:
    """Thumbnails side by side as base64 JPEG, far below the 100 kB that the UI shows inline."""
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * side_px, columns * side_px, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        scale = (side_px - 4) / max(picture.shape[:2])
        width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        top, left = (index // columns) * side_px, (index % columns) * side_px
        sheet[top : top + height, left : left + width] = small
    _, jpeg = cv2.imencode(".jpg", sheet[:, :, ::-1].copy(), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(jpeg.tobytes()).decode()
