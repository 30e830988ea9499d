"""Reports to test with: pictures drawn here, and names that try to break out of every format."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.faults.injections import INJECTIONS
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
    Tier,
    Transform,
    count_pairs,
    report_order,
)

Picture = NDArray[np.uint8]

HOSTILE = tuple(injection.text for injection in INJECTIONS)
"""Names and texts as a hostile document could bring them."""


def sha256(text: str) -> str:
    """Any document's hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def jpeg(picture: NDArray[Any]) -> bytes:
    """The picture as a file."""
    return cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


@lru_cache
def cells(seed: int, width: int = 320, height: int = 240, color: int = 1) -> Picture:
    """Bright blobs on black, like nuclei under a fluorescence microscope."""
    rng = np.random.default_rng(seed)
    scale = 2
    canvas = np.zeros((height * scale, width * scale), np.float32)
    for _ in range(60):
        x, y = rng.uniform(0, width * scale), rng.uniform(0, height * scale)
        axes = (int(rng.uniform(14, 30)), int(rng.uniform(10, 20)))
        layer = np.zeros_like(canvas)
        cv2.ellipse(
            layer, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.35, 1.0), -1
        )
        canvas = np.maximum(canvas, layer)
    speckle = cv2.GaussianBlur(rng.normal(1.0, 0.55, canvas.shape).astype(np.float32), (0, 0), 3)
    canvas = cv2.GaussianBlur(canvas, (0, 0), 3.0) * speckle
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    small = small + rng.normal(0.03, 0.015, small.shape)
    picture = np.zeros((height, width, 3), np.float32)
    picture[:, :, color] = small
    picture[:, :, 2] += 0.12 * small
    return np.clip(picture * 235, 0, 255).astype(np.uint8)


@lru_cache
def blot(seed: int, width: int = 340, height: int = 120) -> Picture:
    """Dark bands on light grey."""
    rng = np.random.default_rng(seed)
    ink = np.zeros((height, width), np.float32)
    for lane in range(7):
        x = int((lane + 0.5) * width / 7)
        size = (int(rng.uniform(14, 19)), int(rng.uniform(4, 9)))
        cv2.ellipse(
            ink, (x, int(height * 0.5 + rng.uniform(-4, 4))), size, rng.uniform(-6, 6), 0, 360,
            rng.uniform(0.4, 1.0), -1,
        )  # fmt: skip
    ink = cv2.GaussianBlur(ink, (0, 0), 2.6)
    shade = cv2.GaussianBlur(rng.normal(0, 1, ink.shape).astype(np.float32), (0, 0), 18)
    grey = 205 + 60 * shade - 175 * ink + rng.normal(0, 3, ink.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


@lru_cache
def tissue(seed: int, width: int = 320, height: int = 250) -> Picture:
    """Pink and purple texture, like stained histology."""
    rng = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 9)
    fine = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.6)
    pink = np.array([228, 160, 192], np.float32) + 420 * coarse[:, :, None]
    nuclei = np.clip((fine * 4 - 0.55) * 2, 0, 1)[:, :, None]
    mixed = pink * (1 - nuclei) + np.array([92, 58, 132], np.float32) * nuclei
    return np.clip(mixed, 0, 255).astype(np.uint8)


def similarity(
    degrees: float, scale: float, a_size: tuple[int, int], b_size: tuple[int, int], *, mirror: bool
) -> Transform:
    """A's centre onto B's, after mirroring left to right and a clockwise turn."""
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirror:
        linear = linear @ np.diag([-1.0, 1.0])
    shift = np.array(b_size) / 2 - linear @ (np.array(a_size) / 2)
    rows = [(float(linear[i, 0]), float(linear[i, 1]), float(shift[i])) for i in range(2)]
    return (rows[0], rows[1])


def moved(transform: Transform, polygon: Polygon) -> Polygon:
    """The polygon of A in B."""
    (a, b, c), (d, e, f) = transform
    return tuple((a * x + b * y + c, d * x + e * y + f) for x, y in polygon)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """Its corners, clockwise."""
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def side(
    name: str, page: int, panel: str, picture: Picture, region: Polygon, modality: str
) -> Side:
    """A panel of the picture, placed on a letter page."""
    height, width = picture.shape[:2]
    x0, y0, factor = 72.0 + 40 * (page % 3), 96.0 + 60 * (page % 5), 0.48
    return Side(
        document=sha256(name),
        name=name,
        page=page,
        panel_id=panel,
        box_pt=(x0, y0, x0 + width * factor, y0 + height * factor),
        region_pt=tuple((x0 + x * factor, y0 + y * factor) for x, y in region),
        xref=40 + page,
        extraction_method="pdf_image",
        dpi=150.0,
        modality=modality,
        confidence=0.94,
        crop=Crop(jpeg(picture), width, height),
        region_px=region,
        page_size_pt=(612.0, 792.0),
    )


def pair(
    picture: Picture,
    *,
    relation: Relation = "same_image",
    tier: Tier = "A",
    probability: float = 0.987,
    degrees: float = 0.0,
    scale: float = 1.0,
    mirror: bool = False,
    gain: float = 1.0,
    offset: float = 0.0,
    names: tuple[str, str] = ("Smith 2021.pdf", "Smith 2021.pdf"),
    pages: tuple[int, int] = (3, 5),
    modality: str = "fluorescence",
    region: Polygon | None = None,
    swap_channels: bool = False,
    pair_id: str | None = None,
) -> ReportPair:
    """The picture as A, and as B after the given changes."""
    height, width = picture.shape[:2]
    b_size = (round(width * scale), round(height * scale))
    transform = similarity(degrees, scale, (width, height), b_size, mirror=mirror)
    matrix = np.array(transform)
    changed = picture[:, :, [1, 2, 0]] if swap_channels else picture
    warped = cv2.warpAffine(changed, matrix, b_size, flags=cv2.INTER_AREA)
    noise = np.random.default_rng(1).normal(0, 2, warped.shape)
    b_picture = np.clip(gain * warped.astype(np.float64) + offset + noise, 0, 255).astype(np.uint8)
    aligned = cv2.warpAffine(
        b_picture, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    corners = region or rectangle(8, 8, width - 8, height - 8)
    return ReportPair(
        pair_id=pair_id or f"{relation}-{names[0]}-{pages[0]}-{names[1]}-{pages[1]}",
        a=side(names[0], pages[0], f"p{pages[0]:04d}-02", picture, corners, modality),
        b=side(
            names[1],
            pages[1],
            f"p{pages[1]:04d}-04",
            b_picture,
            moved(transform, corners),
            modality,
        ),
        relation=relation,
        tier=tier,
        probability=probability,
        transform=transform,
        overlap=0.87,
        brightness=offset + (gain - 1) * float(picture.mean()),
        contrast=gain,
        inliers=184,
        ncc=0.964,
        ssim=0.91,
        hamming_distance=6,
        tile_matches=9,
        cosine_similarity=None,
        channels=("local",),
        encoder_id=None,
        code_version="0.1.0+3f9a1c2",
        evidence={"grid_cells": 14.0, "residual_px": 0.42},
        aligned=jpeg(aligned),
    )


def copy_move() -> ReportPair:
    """A repeated patch in one panel."""
    picture = tissue(8).copy()
    picture[130:200, 190:270] = picture[40:110, 30:110]
    whole = pair(picture, relation="copy_move", tier="B", probability=0.71, modality="histology")
    shift = ((1.0, 0.0, 160.0), (0.0, 1.0, 90.0))
    a = replace(whole.a, region_px=rectangle(30, 40, 110, 110))
    b = replace(a, region_px=rectangle(190, 130, 270, 200))
    aligned = cv2.warpAffine(
        picture, np.array(shift), (320, 250), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return replace(
        whole, a=a, b=b, transform=shift, overlap=0.07, channels=("copy_move",),
        aligned=jpeg(aligned),
    )  # fmt: skip


def sample_pairs() -> list[ReportPair]:
    """One pair of each relation, in report order."""
    return list(_sample_pairs())


@lru_cache
def _sample_pairs() -> tuple[ReportPair, ...]:
    other = "Lee et al. - supplementary figures (final, revised) 2023.pdf"
    pairs: list[ReportPair] = [
        pair(cells(1), degrees=12, scale=0.8, mirror=True, gain=1.15, offset=10),
        pair(blot(2), relation="same_blot", tier="A", probability=0.95, degrees=180,
             modality="blot", pages=(2, 7), names=("Smith 2021.pdf", other)),
        pair(tissue(4), relation="overlapping_fields", tier="B", probability=0.83,
             modality="histology", pages=(4, 4), region=rectangle(120, 20, 312, 180)),
        copy_move(),
        pair(cells(6, color=0), relation="other_channel", tier="B", probability=0.93,
             swap_channels=True, pages=(6, 6)),
    ]  # fmt: skip
    return tuple(sorted(pairs, key=report_order))


def scope(name: str, pages: int = 12) -> DocumentScope:
    """A document looked at in full."""
    return DocumentScope(
        sha256=sha256(name),
        name=name,
        pages=pages,
        pages_looked_at=pages,
        panels={"fluorescence": 41, "blot": 18, "histology": 22, "chart": 9},
    )


def report_of(pairs: Sequence[ReportPair], documents: Sequence[DocumentScope] = ()) -> Report:
    """A complete report over these pairs."""
    documents = tuple(documents) or (scope("Smith 2021.pdf"),)
    return Report(
        title="Similar regions in " + ", ".join(document.name for document in documents),
        quire_version="0.1.0",
        code_version="0.1.0+3f9a1c2",
        specs={"panels": "1", "features": "1", "verify": "2"},
        documents=documents,
        channels=(
            Channel("local", True, "rootsift-pca64/1, direct and mirrored, 10 per panel"),
            Channel("encoder", False, "none configured"),
            Channel("copy_move", True, "copy-move/1"),
        ),
        coverage=Coverage(
            panels=90, panels_compared=81, panels_set_aside=9, tiles=324, tiles_compared=310,
            tiles_blank=14, earlier_documents=31, earlier_panels=2240,
        ),
        counts=count_pairs((pair.relation, pair.tier) for pair in pairs),
    )  # fmt: skip


def degraded(report: Report) -> Report:
    """The same, with a page lost and a document that could not be opened."""
    first = report.documents[0]
    return replace(
        report,
        status="degraded",
        documents=(
            replace(
                first,
                status="degraded",
                pages_looked_at=first.pages - 1,
                pages_failed=(PageFailure(9, "The image is larger than 200 megapixels."),),
            ),
            DocumentScope(
                sha256("locked"), "locked.pdf", 0, 0, status="failed",
                reasons=("The file is encrypted; store it without a password.",),
            ),
        ),
        flags=(
            Flag("page_failed", "One page was left out at the memory limit.", first.sha256, 9),
        ),
    )  # fmt: skip


def failed() -> Report:
    """Nothing could be opened."""
    document = DocumentScope(
        sha256("locked"), "locked.pdf", 0, 0, status="failed",
        reasons=("The file is encrypted; store it without a password.",),
    )  # fmt: skip
    return replace(
        report_of(()), documents=(document,), status="failed", coverage=Coverage(0, 0),
        title="Similar regions in locked.pdf",
        channels=(
            Channel("local", False, "no panels"), Channel("encoder", False, "none configured"),
        ),
    )  # fmt: skip


def hostile(text: str) -> tuple[Report, list[ReportPair]]:
    """A degraded report that says the text wherever a report can be made to say something."""
    listed = [
        replace(
            one,
            pair_id=f"{position}{text}",
            a=replace(one.a, name=text, panel_id=text, extraction_method=text, modality=text),
            b=replace(one.b, name=text, panel_id=f"{text}2", modality=text),
            channels=(f"encoder:{text}", text),
            encoder_id=text,
            code_version=text,
            evidence={text: 1.0},
        )
        for position, one in enumerate(sample_pairs())
    ]
    report = degraded(report_of(listed))
    return (
        replace(
            report,
            title=text,
            quire_version=text,
            code_version=text,
            specs={text: text},
            documents=tuple(
                replace(document, name=text, reasons=(text,), panels={text: 3})
                for document in report.documents
            ),
            channels=tuple(replace(channel, detail=text) for channel in report.channels),
            flags=tuple(replace(flag, sentence=text) for flag in report.flags),
        ),
        listed,
    )
