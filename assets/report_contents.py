"""Report contents: what is stored, gathered into the records that reports are written from."""

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

import store.candidate_pairs
import store.documents
import store.pages
import store.panels
import store.tile_embeddings
import store.tiles
import store.verified_pairs
import store.work
from assets.candidate_pairs import candidates_spec
from assets.encoder_channel import embeddings_spec, encoder_in_force
from core.degraded import NOTES, Kind, kind_of
from core.encoders import EncoderSpec
from core.errors import InputError
from core.geometry import Box, Image
from core.pair_selection import Finding, select
from core.relations import Relation as FoundRelation
from core.report import (
    RELATIONS,
    TIERS,
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
from core.report_words import counted
from core.scoring import TierSpec, tier_of
from core.work import Status as Outcome
from resources.encoder import Encoder
from resources.images import ImageStore
from resources.settings import CopySearch
from store.database import Db
from store.documents import Document
from store.panels import Panel
from store.verified_pairs import VerifiedPair

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 88]

NOT_RECORDED = "not recorded"
"""Channel of a pair that the search under the settings in force has not proposed yet."""

_OF_THE_ENCODER = ("tiles", "tile_embeddings")

_MATCH_KEYS = frozenset(
    {
        "transform", "region_a", "region_b", "overlap", "brightness", "contrast", "inliers", "ncc",
        "ssim", "hamming", "evidence",
    }
)  # fmt: skip
"""What verification stores of a pair."""


@dataclass(frozen=True)
class InForce:
    """What is searched with under the settings in force.

    Attributes:
        copy_search: The numbers.
        candidate_spec: Spec id of candidate pairs.
        encoder: The encoder whose channel runs, or None.
    """

    copy_search: CopySearch
    candidate_spec: str
    encoder: EncoderSpec | None


@dataclass(frozen=True)
class Loss:
    """One thing that keeps a result from being whole.

    Attributes:
        kind: What it is about.
        sentence: What happened, for people.
        page: The page concerned, if one.
    """

    kind: Kind
    sentence: str
    page: int | None = None


@dataclass(frozen=True)
class Contents:
    """A report and what is needed to make its pairs one at a time.

    Attributes:
        report: Everything but the pairs.
        pairs: In the report's order.
        panels: The panels of the pairs, by id.
        names: Of the documents of these panels, by id.
        page_sizes: By document and page, in points.
        candidates: What each channel said of a pair.
        faults: Panels whose stored picture cannot be shown, with the reason.
    """

    report: Report
    pairs: list[VerifiedPair]
    panels: dict[str, Panel]
    names: dict[str, str]
    page_sizes: dict[tuple[str, int], tuple[float, float]]
    candidates: dict[tuple[str, str], list[store.candidate_pairs.Candidate]]
    faults: Mapping[str, str]


class PictureError(Exception):
    """The stored picture of a panel cannot be shown; the report has to say so from its head on."""

    def __init__(self, panel_id: str, reason: str) -> None:
        super().__init__(reason)
        self.panel_id = panel_id


@lru_cache
def version() -> str:
    """The version of Quire that runs."""
    return importlib.metadata.version("quire")


def in_force(db: Db, copy_search: CopySearch, encoder: Encoder) -> InForce:
    """What the settings come to."""
    return InForce(
        copy_search,
        candidates_spec(db, copy_search, encoder),
        encoder_in_force(db, copy_search, encoder),
    )


def gather(
    db: Db,
    settings: InForce,
    document_ids: Sequence[str],
    title: str,
    *,
    refused: Sequence[str] = (),
    faults: Mapping[str, str] | None = None,
) -> Contents:
    """Everything that a report over these documents says, its pictures apart.

    Args:
        db: An open connection.
        settings: What the documents were to be searched with.
        document_ids: The scope. One that is not stored is told as such, not left out.
        title: Heading of the report.
        refused: Files that should have been in the scope and were not taken in, with the reason.
        faults: Panels whose stored picture is known not to be there, with the reason.
    """
    spec, faults = settings.copy_search.spec, faults or {}
    documents = store.documents.get(db, document_ids)
    stored = store.verified_pairs.of_documents(
        db, document_ids, spec.verification_id, spec.judgement.tiers.tier_b
    )
    found, altered = _trusted(stored, spec.judgement.tiers)
    panels = store.panels.get(db, [i for pair in found for i in (pair.panel_a, pair.panel_b)])
    kept = _selected(found, panels)
    involved = sorted({panel.document_id for panel in panels.values()} | set(document_ids))
    read = store.pages.read_counts(db, document_ids, spec.panels_id)
    scopes: list[DocumentScope] = []
    flags = [Flag(Kind.FILE_REFUSED, reason) for reason in refused]
    for missing in sorted(set(document_ids) - {document.document_id for document in documents}):
        flags.append(
            Flag(Kind.DOCUMENT_UNKNOWN, f"document {missing} is not stored; add its file again")
        )
    for document in documents:
        looked_at = min(read.get(document.document_id, 0), document.page_count)
        losses = _losses(db, document, looked_at, settings)
        losses += _picture_losses(document.document_id, kept, panels, faults)
        modalities = store.panels.counts(db, [document.document_id])
        scopes.append(_scope(document, looked_at, modalities.get(document.document_id, {}), losses))
        flags += [
            Flag(loss.kind, loss.sentence, document=document.document_id, page=loss.page)
            for loss in losses
        ]
    flags += [Flag(Kind.PAIR_ALTERED, sentence) for sentence in altered]
    compared = store.panels.coverage(
        db, document_ids, settings.candidate_spec, spec.verification_id
    )
    others = store.panels.others(db, document_ids, spec.features_id)
    if others.panels_apart:
        flags.append(Flag(Kind.EARLIER_NOT_COMPARED, _apart(others.panels_apart)))
    embedded = _embedded(db, settings, document_ids)
    report = Report(
        title=title,
        quire_version=version(),
        code_version=version(),
        specs={
            "pages": spec.pages_id,
            "panels": spec.panels_id,
            "features": spec.features_id,
            "candidates": settings.candidate_spec,
            "verification": spec.verification_id,
        },
        documents=tuple(scopes),
        channels=(
            Channel("local", ran=True, detail=spec.features_id),
            _encoder_channel(settings, embedded),
            Channel("copy_move", ran=True, detail=spec.verification_id),
        ),
        coverage=Coverage(
            panels=compared.panels,
            panels_compared=compared.compared,
            panels_set_aside=compared.drawings,
            tiles=embedded.tiles,
            tiles_compared=embedded.compared,
            tiles_blank=embedded.blank,
            earlier_documents=others.documents,
            earlier_panels=others.panels,
        ),
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
                db, settings.candidate_spec, p.panel_a, p.panel_b
            )
            for p in kept
        },
        faults=faults,
    )


def picture_faults(contents: Contents, images: ImageStore) -> dict[str, str]:
    """Which panels of a report's pairs have no picture that can be shown, and why."""
    faults: dict[str, str] = {}
    for panel_id in sorted({s for p in contents.pairs for s in (p.panel_a, p.panel_b)}):
        try:
            images.read_image(contents.panels[panel_id].image_key)
        except (InputError, ValueError) as fault:
            faults[panel_id] = str(fault)
    return faults


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


def _trusted(stored: list[VerifiedPair], tiers: TierSpec) -> tuple[list[VerifiedPair], list[str]]:
    """The pairs whose record holds together, and a sentence for each one whose record does not.

    What verification measured decides the tier. A row that says otherwise was not written by it;
    it is shown as what its probability makes it, or not at all where it cannot be read.
    """
    trusted: list[VerifiedPair] = []
    altered: list[str] = []
    for pair in stored:
        readable = pair.relation in RELATIONS and set(pair.match or ()) >= _MATCH_KEYS
        tier = tier_of(pair.probability, FoundRelation(pair.relation), tiers) if readable else ""
        if tier != pair.tier:
            told = "and cannot be read" if not readable else f"tier {pair.tier}, should be {tier}"
            altered.append(
                f"the stored record of pair {pair.pair_id} was altered ({told}); have it made anew "
                "with --recompute"
            )
        if tier in TIERS:
            trusted.append(replace(pair, tier=tier))
        elif readable:
            trusted.append(replace(pair, tier=TIERS[-1]))
    return trusted, altered


def _losses(db: Db, document: Document, looked_at: int, settings: InForce) -> list[Loss]:
    """Everything that is known to be missing of one document, in the order of the pipeline."""
    spec = settings.copy_search.spec
    ids = [document.document_id]
    losses: list[Loss] = []
    if document.status != Outcome.OK or document.page_count == 0:
        kind = kind_of("documents", document.status)
        losses.append(Loss(kind, document.reason or f"the document is {document.status}"))
    for trouble in store.work.troubles(db, document.document_id):
        if settings.encoder is None and trouble.asset in _OF_THE_ENCODER:
            continue  # that its channel does not run is said with the channels
        page = trouble.unit.partition(":")[2]
        sentence = trouble.reason or f"{trouble.asset} is {trouble.status} and does not say why"
        if sentence != document.reason:
            kind = kind_of(trouble.asset, trouble.status)
            losses.append(Loss(kind, sentence, int(page) if page else None))
    failed = {loss.page for loss in losses if loss.kind == Kind.PAGE_FAILED}
    unseen = document.page_count - looked_at - len(failed)
    if unseen > 0:
        losses.append(Loss(Kind.PAGES_MISSING, f"{_not(unseen, 'page')} looked at yet"))
    seen = store.panels.coverage(db, ids, settings.candidate_spec, spec.verification_id)
    uncompared = seen.panels - seen.drawings - seen.compared
    embedded = _embedded(db, settings, ids)
    missed = (
        (uncompared, "panel", "compared yet"),
        (seen.readings_missed, "second reading of a panel", "compared yet"),
        (embedded.panels_missed, "panel", "compared by the image encoder yet"),
        (embedded.missed, "tile", "compared by the image encoder yet"),
    )
    losses += [
        Loss(Kind.PANELS_NOT_COMPARED, f"{_not(number, noun)} {done}")
        for number, noun, done in missed
        if number > 0
    ]
    return list(dict.fromkeys(losses))


def _not(number: int, noun: str) -> str:
    many = noun.replace("reading", "readings") if "reading" in noun else f"{noun}s"
    return f"{counted(number, noun, many)} {'has' if number == 1 else 'have'} not been"


def _picture_losses(
    document_id: str,
    pairs: Sequence[VerifiedPair],
    panels: Mapping[str, Panel],
    faults: Mapping[str, str],
) -> list[Loss]:
    """The pictures that a document's pairs are to show and cannot."""
    sides = {
        side
        for pair in pairs
        if document_id in {panels[pair.panel_a].document_id, panels[pair.panel_b].document_id}
        for side in (pair.panel_a, pair.panel_b)
    }
    return [
        Loss(Kind.PICTURE_MISSING, f"panel {side} cannot be shown: {faults[side]}")
        for side in sorted(sides & faults.keys())
    ]


def _scope(
    document: Document, looked_at: int, panels: Mapping[str, int], losses: Sequence[Loss]
) -> DocumentScope:
    failures = {
        loss.page: loss.sentence
        for loss in losses
        if loss.kind == Kind.PAGE_FAILED and loss.page is not None
    }
    status: Status = "degraded" if losses else "ok"
    if document.page_count == 0 or document.status == Outcome.FAILED:
        status = "failed"
    return DocumentScope(
        sha256=document.document_id,
        name=document.name,
        pages=document.page_count,
        pages_looked_at=looked_at,
        pages_failed=tuple(PageFailure(p, r) for p, r in sorted(failures.items())),
        panels=panels,
        status=status,
        reasons=tuple(
            dict.fromkeys(loss.sentence for loss in losses if loss.kind != Kind.PAGE_FAILED)
        ),
    )


def _apart(panels: int) -> str:
    return (
        f"{_not(panels, 'panel')} compared with these although stored beside them: made under "
        "other settings, or not finished; pairs with them are found once they are made under these"
    )


@dataclass(frozen=True)
class _Embedded:
    """How much of some documents the encoder has seen; nothing where its channel does not run."""

    tiles: int = 0
    blank: int = 0
    compared: int = 0
    panels_missed: int = 0

    @property
    def missed(self) -> int:
        """Tiles neither compared nor blank, beyond those of panels that are missing as a whole."""
        return 0 if self.panels_missed else self.tiles - self.blank - self.compared


def _embedded(db: Db, settings: InForce, document_ids: Sequence[str]) -> _Embedded:
    encoder, tiles_id = settings.encoder, settings.copy_search.spec.tiles_id
    if encoder is None:
        return _Embedded()
    tiles, blank = store.tiles.counts(db, document_ids, tiles_id)
    seen = store.tile_embeddings.coverage(
        db,
        store.tile_embeddings.table_of(db, encoder.encoder_id, encoder.dim),
        document_ids,
        tiles_id,
        embeddings_spec(settings.copy_search, encoder),
    )
    return _Embedded(tiles, blank, min(seen.vectors, tiles - blank), seen.panels_missed)


def _encoder_channel(settings: InForce, embedded: _Embedded) -> Channel:
    if settings.encoder is None:
        off = settings.copy_search.spec.tile_first == "off"
        return Channel("encoder", ran=False, detail="switched off" if off else "none configured")
    missed = f", {_not(embedded.panels_missed, 'panel')} embedded" if embedded.panels_missed else ""
    return Channel("encoder", ran=not missed, detail=f"{settings.encoder.encoder_id}{missed}")


def _overall(scopes: Sequence[DocumentScope], flags: Sequence[Flag]) -> Status:
    if all(scope.status == "failed" for scope in scopes):
        return "failed"
    return "degraded" if any(flag.kind not in NOTES for flag in flags) else "ok"


def _report_pair(contents: Contents, images: ImageStore, pair: VerifiedPair) -> ReportPair:
    match = pair.match
    panel_a, panel_b = contents.panels[pair.panel_a], contents.panels[pair.panel_b]
    image_a, image_b = (_picture(contents, images, panel) for panel in (panel_a, panel_b))
    transform = np.asarray(match["transform"], dtype=np.float64)
    candidates = contents.candidates[pair.panel_a, pair.panel_b]
    encoder = next((c for c in candidates if c.channel.startswith("encoder:")), None)
    evidence: dict[str, float] = match["evidence"]
    aligned = None
    if image_a is not None and image_b is not None:
        aligned = _jpeg(_aligned(image_b, transform, image_a.shape))
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
        channels=tuple(candidate.channel for candidate in candidates) or (NOT_RECORDED,),
        encoder_id=encoder.channel.partition(":")[2] if encoder else None,
        code_version=version(),
        evidence=evidence,
        aligned=aligned,
    )


def _picture(contents: Contents, images: ImageStore, panel: Panel) -> Image | None:
    """The panel's pixels, or None where the report says that they cannot be shown.

    Raises:
        PictureError: They cannot be shown, and the report does not say so.
    """
    if panel.panel_id in contents.faults:
        return None
    try:
        return images.read_image(panel.image_key)
    except (InputError, ValueError) as fault:
        raise PictureError(panel.panel_id, str(fault)) from fault


def _placeholder(panel: Panel) -> Image:
    """Paper with two lines across it, in the size of a panel whose picture is gone."""
    picture = np.full((panel.height_px, panel.width_px, 3), 255, np.uint8)
    right, bottom = panel.width_px - 1, panel.height_px - 1
    for start, end in (((0, 0), (right, bottom)), ((0, bottom), (right, 0))):
        cv2.line(picture, start, end, (190, 0, 0), 2)
    return cast(Image, picture)


def _side(contents: Contents, panel: Panel, image: Image | None, region: Any) -> Side:
    shown = _placeholder(panel) if image is None else image
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
        crop=Crop(_jpeg(shown), shown.shape[1], shown.shape[0]),
        region_px=_polygon(region),
        page_size_pt=contents.page_sizes.get((panel.document_id, panel.page)),
    )


def _aligned(image_b: Image, transform: NDArray[np.float64], shape: tuple[int, ...]) -> Image:
    """B as it lies on A."""
    size = (shape[1], shape[0])
    warped = cv2.warpAffine(image_b, transform, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)
    return cast(Image, warped)


def _jpeg(image: Image) -> bytes:
    made, data = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), _JPEG)
    if not made:
        raise RuntimeError(f"a picture of {image.shape} could not be written as JPEG")
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
