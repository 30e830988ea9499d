"""Report contents: what is stored, gathered into the records that reports are written from."""

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

import store.candidate_pairs
import store.documents
import store.pages
import store.panels
import store.tiles
import store.verified_pairs
import store.work
from core.geometry import Box, Image
from core.pair_selection import Finding, select
from core.report import (
    Channel,
    Coverage,
    Crop,
    DocumentScope,
    Flag,
    PageFailure,
    Polygon,
    Relation,
    Report,
    ReportPair,
    Side,
    Status,
    Tier,
    Transform,
    count_pairs,
)
from core.work import Status as Outcome
from resources.images import ImageStore
from resources.settings import CopySearch
from store.database import Db
from store.documents import Document
from store.panels import Panel
from store.verified_pairs import VerifiedPair

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88]


@dataclass(frozen=True)
class Contents:
    """A report and what is needed to make its pairs one at a time."""

    report: Report
    pairs: list[VerifiedPair]
    panels: dict[str, Panel]
    names: dict[str, str]
    page_sizes: dict[tuple[str, int], tuple[float, float]]
    candidates: dict[tuple[str, str], list[store.candidate_pairs.Candidate]]


@lru_cache
def version() -> str:
    """The version of Quire that runs."""
    return importlib.metadata.version("quire")


def gather(
    db: Db,
    copy_search: CopySearch,
    candidate_spec: str,
    encoder_id: str | None,
    document_ids: Sequence[str],
    title: str,
) -> Contents:
    """Everything that a report over these documents says, its pictures apart."""
    spec = copy_search.spec
    documents = store.documents.get(db, document_ids)
    found = store.verified_pairs.of_documents(db, document_ids, spec.verification_id)
    panels = store.panels.get(db, [i for pair in found for i in (pair.panel_a, pair.panel_b)])
    kept = _selected(found, panels)
    involved = sorted({panel.document_id for panel in panels.values()} | set(document_ids))
    scopes = _scopes(db, documents, spec.panels_id, candidate_spec, spec.verification_id)
    compared = store.panels.coverage(db, document_ids, candidate_spec, spec.verification_id)
    cut, blank = store.tiles.counts(db, document_ids, spec.tiles_id) if encoder_id else (0, 0)
    other_documents, other_panels = store.panels.others(db, document_ids)
    coverage = Coverage(
        panels=compared.panels,
        panels_compared=compared.compared,
        panels_set_aside=compared.drawings,
        tiles=cut,
        tiles_compared=cut - blank,
        tiles_blank=blank,
        earlier_documents=other_documents,
        earlier_panels=other_panels,
    )
    flags = _flags(scopes)
    report = Report(
        title=title,
        quire_version=version(),
        code_version=version(),
        specs={
            "pages": spec.pages_id,
            "panels": spec.panels_id,
            "features": spec.features_id,
            "candidates": candidate_spec,
            "verification": spec.verification_id,
        },
        documents=tuple(scopes),
        channels=(
            Channel("local", ran=True, detail=spec.features_id),
            Channel("encoder", ran=encoder_id is not None, detail=encoder_id or "none configured"),
            Channel("copy_move", ran=True, detail=spec.verification_id),
        ),
        coverage=coverage,
        status=_overall(scopes, flags),
        flags=tuple(flags),
        counts=count_pairs((cast(Relation, p.relation), cast(Tier, p.tier)) for p in kept),
    )
    return Contents(
        report=report,
        pairs=kept,
        panels=panels,
        names={d.document_id: d.name for d in store.documents.get(db, involved)},
        page_sizes=store.pages.sizes(db, involved),
        candidates={
            (p.panel_a, p.panel_b): store.candidate_pairs.of_pair(
                db, candidate_spec, p.panel_a, p.panel_b
            )
            for p in kept
        },
    )


def report_pairs(contents: Contents, images: ImageStore) -> Iterator[ReportPair]:
    """The pairs with their pictures, one in memory at a time, in the report's order."""
    often = {"other_channel"}
    ordered = sorted(contents.pairs, key=lambda p: (p.relation in often, -p.probability, p.pair_id))
    for pair in ordered:
        yield _report_pair(contents, images, pair)


def _selected(found: list[VerifiedPair], panels: dict[str, Panel]) -> list[VerifiedPair]:
    """One finding per real pair, where several readings of a panel found the same."""
    findings = [
        Finding(
            key=pair.pair_id,
            probability=pair.probability,
            document_a=panels[pair.panel_a].document_id,
            page_a=panels[pair.panel_a].page,
            box_a=_bounds(_region_pt(panels[pair.panel_a], pair.match["region_a"])),
            panel_a=panels[pair.panel_a].box,
            document_b=panels[pair.panel_b].document_id,
            page_b=panels[pair.panel_b].page,
            box_b=_bounds(_region_pt(panels[pair.panel_b], pair.match["region_b"])),
            panel_b=panels[pair.panel_b].box,
            alternatives=sum(
                panels[side].alternative_of is not None for side in (pair.panel_a, pair.panel_b)
            ),
        )
        for pair in found
    ]
    kept = {finding.key for finding in select(findings)}
    return [pair for pair in found if pair.pair_id in kept]


def _scopes(
    db: Db,
    documents: Sequence[Document],
    panels_spec: str,
    candidate_spec: str,
    verified_spec: str,
) -> list[DocumentScope]:
    ids = [document.document_id for document in documents]
    read = store.pages.read_counts(db, ids, panels_spec)
    panels = store.panels.counts(db, ids)
    scopes: list[DocumentScope] = []
    for document in documents:
        troubles = store.work.troubles(db, document.document_id)
        failures: dict[int, str] = {}
        reasons: list[str] = []
        if document.status != Outcome.OK:
            reasons.append(document.reason)
        for trouble in troubles:
            page = trouble.unit.partition(":")[2]
            if trouble.status == Outcome.FAILED and trouble.asset in ("pages", "panels"):
                failures[int(page)] = trouble.reason
            elif trouble.unit != document.document_id or trouble.reason not in reasons:
                reasons.append(trouble.reason)
        looked_at = read.get(document.document_id, 0)
        missing = document.page_count - looked_at - len(failures)
        if missing > 0:
            reasons.append(f"{missing} pages have not been looked at yet")
        seen = store.panels.coverage(db, [document.document_id], candidate_spec, verified_spec)
        uncompared = seen.panels - seen.drawings - seen.compared
        if uncompared > 0:
            reasons.append(f"{uncompared} of its panels have not been compared")
        status: Status = "ok"
        if document.page_count == 0 or document.status == Outcome.FAILED:
            status = "failed"
        elif reasons or failures:
            status = "degraded"
        scopes.append(
            DocumentScope(
                sha256=document.document_id,
                name=document.name,
                pages=document.page_count,
                pages_looked_at=looked_at,
                pages_failed=tuple(PageFailure(p, r) for p, r in sorted(failures.items())),
                panels=panels.get(document.document_id, {}),
                status=status,
                reasons=tuple(dict.fromkeys(reasons)),
            )
        )
    return scopes


def _flags(
    scopes: Sequence[DocumentScope],
) -> list[Flag]:
    flags: list[Flag] = []
    for scope in scopes:
        if scope.status == "failed":
            kind = "document_failed"
        elif scope.status == "degraded":
            kind = "document_degraded"
        else:
            continue
        flags += [Flag(kind, reason, document=scope.sha256) for reason in scope.reasons]
        flags += [
            Flag("page_failed", failure.reason, document=scope.sha256, page=failure.page)
            for failure in scope.pages_failed
        ]
    return flags


def _overall(scopes: Sequence[DocumentScope], flags: Sequence[Flag]) -> Status:
    if scopes and all(scope.status == "failed" for scope in scopes):
        return "failed"
    return "degraded" if flags else "ok"


def _report_pair(contents: Contents, images: ImageStore, pair: VerifiedPair) -> ReportPair:
    match = pair.match
    panel_a, panel_b = contents.panels[pair.panel_a], contents.panels[pair.panel_b]
    image_a, image_b = images.read_image(panel_a.image_key), images.read_image(panel_b.image_key)
    transform = np.asarray(match["transform"], dtype=np.float64)
    candidates = contents.candidates[pair.panel_a, pair.panel_b]
    encoder = next((c for c in candidates if c.channel.startswith("encoder:")), None)
    evidence: dict[str, float] = match["evidence"]
    return ReportPair(
        pair_id=pair.pair_id,
        a=_side(contents, panel_a, image_a, match["region_a"]),
        b=_side(contents, panel_b, image_b, match["region_b"]),
        relation=cast(Relation, pair.relation),
        tier=cast(Tier, pair.tier),
        probability=pair.probability,
        transform=cast(Transform, tuple(tuple(float(v) for v in row) for row in transform)),
        overlap=min(1.0, match["overlap"]),
        brightness=match["brightness"],
        contrast=match["contrast"],
        inliers=match["inliers"],
        ncc=match["ncc"],
        ssim=match["ssim"],
        hamming_distance=match["hamming"],
        tile_matches=encoder.votes if encoder else 0,
        cosine_similarity=encoder.score if encoder else None,
        channels=tuple(candidate.channel for candidate in candidates) or ("local",),
        encoder_id=encoder.channel.partition(":")[2] if encoder else None,
        code_version=version(),
        evidence=evidence,
        aligned=_jpeg(_aligned(image_b, transform, image_a.shape)),
    )


def _side(contents: Contents, panel: Panel, image: Image, region: Any) -> Side:
    return Side(
        document=panel.document_id,
        name=contents.names[panel.document_id],
        page=panel.page,
        panel_id=panel.panel_id,
        box_pt=panel.box,
        region_pt=_region_pt(panel, region),
        xref=panel.xref or None,
        extraction_method=panel.method,
        dpi=panel.dpi,
        modality=panel.modality,
        confidence=panel.modality_confidence,
        crop=Crop(_jpeg(image), image.shape[1], image.shape[0]),
        region_px=_polygon(region),
        page_size_pt=contents.page_sizes.get((panel.document_id, panel.page)),
    )


def _aligned(image_b: Image, transform: NDArray[np.float64], shape: tuple[int, ...]) -> Image:
    """B as it lies on A."""
    size = (shape[1], shape[0])
    warped = cv2.warpAffine(image_b, transform, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)
    return cast(Image, warped)


def _jpeg(image: Image) -> bytes:
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), _JPEG)
    return data.tobytes()


def _polygon(region: Sequence[Sequence[float]]) -> Polygon:
    return tuple((float(x), float(y)) for x, y in region)


def _region_pt(panel: Panel, region: Sequence[Sequence[float]]) -> Polygon:
    """A polygon in panel pixels, in points of the page."""
    x0, y0, x1, y1 = panel.box_pt
    across, down = (x1 - x0) / panel.width_px, (y1 - y0) / panel.height_px
    return tuple((x0 + x * across, y0 + y * down) for x, y in region)


def _bounds(polygon: Polygon) -> Box:
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return (min(xs), min(ys), max(xs), max(ys))
