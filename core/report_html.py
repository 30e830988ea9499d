"""`report.html`: the report as a person reads, prints and signs it.

One file that needs nothing else: pictures are embedded, and the style and the script are written
into it and named by their hashes in a content security policy that forbids everything else, the
network included. Every string is escaped where it is written (Jinja2 autoescape), after
`core.text.visible` has spelled out what would act without showing.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from core.geometry import Box
from core.report import (
    RELATIONS,
    TIERS,
    Polygon,
    Relation,
    Report,
    ReportPair,
    Tier,
    checked,
    media_type,
)
from core.report_drawing import SPEC, Mark, corresponding_marks, footprint, shown_part
from core.report_json import Fingerprint
from core.report_tsv import TextSink, number
from core.report_words import (
    CHANNEL_LABEL,
    RELATION_LABEL,
    RELATION_NOTE,
    STATUS_LABEL,
    STATUS_NOTE,
    TIER_LABEL,
    TIER_NOTE,
    counted,
    describe,
    document_reasons,
    headline,
    modality_label,
    not_looked_at,
    percent,
    shortened,
)
from core.text import visible


@dataclass(frozen=True)
class PairView:
    """A pair as the template shows it."""

    number: int
    pair: ReportPair
    a_uri: Markup
    b_uri: Markup
    aligned_uri: Markup | None
    marks: tuple[Mark, ...]
    stage: Box
    footprint: Polygon
    measurements: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class IndexLine:
    """A pair as the list above the signature names it; small, because all of them are kept."""

    number: int
    relation: Relation
    tier: Tier
    probability: float
    name_a: str
    page_a: int
    name_b: str
    page_b: int
    same_document: bool


@dataclass(frozen=True)
class Section:
    """Pairs shown under one heading; they are read from the stream as they are shown."""

    key: str
    pairs: Iterator[PairView]


def write_html(report: Report, pairs: Iterable[ReportPair], file: TextSink) -> None:
    """Write the report.

    The pictures of one pair at a time are in memory, and of the others one line each.

    Args:
        report: Scope and status.
        pairs: In `core.report.report_order`.
        file: Open for text, UTF-8, without newline translation.

    Raises:
        ValueError: The pairs are not those the report announces; the file is then unusable, and
            says so to whoever opens it.
    """
    fingerprint = Fingerprint(report)
    index: list[IndexLine] = []
    style, script = _asset("report.css"), _asset("report.js")
    chunks = (
        _environment()
        .get_template("report.html")
        .generate(
            report=report,
            policy=_policy(style, script),
            style=style,
            script=script,
            sections=_sections(report, pairs, fingerprint, index),
            fingerprint=fingerprint,
            index=index,
            many=report.pairs > SPEC.skip_hidden_above,
            scope={document.sha256: document.name for document in report.documents},
        )
    )
    for chunk in chunks:
        file.write(chunk)


def _sections(
    report: Report, pairs: Iterable[ReportPair], fingerprint: Fingerprint, index: list[IndexLine]
) -> Iterator[Section]:
    """What needs review, then what is often legitimate, out of one stream in that order."""
    stream = checked(report, pairs)
    held: list[ReportPair] = []

    def review() -> Iterator[ReportPair]:
        for pair in stream:
            if pair.often_legitimate:
                held.append(pair)
                return
            yield pair

    def legitimate() -> Iterator[ReportPair]:
        while held:
            yield held.pop()
        yield from stream

    def views(part: Iterator[ReportPair]) -> Iterator[PairView]:
        for pair in part:
            fingerprint.add(pair)
            index.append(_index_line(len(index) + 1, pair))
            yield _view(len(index), pair)

    yield Section("review", views(review()))
    yield Section("legitimate", views(legitimate()))


def _view(position: int, pair: ReportPair) -> PairView:
    return PairView(
        number=position,
        pair=pair,
        a_uri=_data_uri(pair.a.crop.data),
        b_uri=_data_uri(pair.b.crop.data),
        aligned_uri=None if pair.aligned is None else _data_uri(pair.aligned),
        marks=corresponding_marks(pair),
        stage=shown_part(pair),
        footprint=footprint(pair),
        measurements=_measurements(pair),
    )


def _index_line(position: int, pair: ReportPair) -> IndexLine:
    return IndexLine(
        number=position,
        relation=pair.relation,
        tier=pair.tier,
        probability=pair.probability,
        name_a=pair.a.name,
        page_a=pair.a.page,
        name_b=pair.b.name,
        page_b=pair.b.page,
        same_document=pair.a.document == pair.b.document,
    )


def _measurements(pair: ReportPair) -> tuple[tuple[str, str, str], ...]:
    """Name, value and meaning of each measurement, the decisive ones first."""
    cosine = number(pair.cosine_similarity, 3) or "not computed"
    bits = "not computed" if pair.hamming_distance is None else f"{pair.hamming_distance} bits"
    measured = [
        ("Matching features", f"{pair.inliers:,}", "local features that agree with the transform"),
        (
            "Correlation",
            number(pair.ncc, 3),
            "of the grey levels over the shared region; 1 is equal",
        ),
        ("Structural similarity", number(pair.ssim, 3) or "not computed", "SSIM there; 1 is equal"),
        ("Overlap", percent(pair.overlap), "of the smaller panel"),
        ("Mirrored", "yes" if pair.mirrored else "no", "whether A is mirrored in B"),
        ("Turn", f"{number(pair.rotation_deg, 1)}°", "clockwise, after mirroring"),
        ("Scale", f"{number(100 * pair.scale, 1)} %", "size in B of a length in A"),
        ("Brightness", number(pair.brightness, 1), "mean of B less that of A, of 255 grey levels"),
        ("Contrast", f"{number(100 * pair.contrast, 0)} %", "spread of B over that of A"),
        ("Hash distance", bits, "between perceptual hashes of the panels"),
        ("Tile matches", f"{pair.tile_matches:,}", "tiles that the search brought together"),
        ("Cosine similarity", cosine, "best of these, by the encoder"),
    ]
    extra = [
        (name.replace("_", " "), f"{value:.4g}", "further evidence")
        for name, value in sorted(pair.evidence.items())
    ]
    return tuple(measured + extra)


def _data_uri(data: bytes) -> Markup:
    """The picture as a ``data:`` address; its alphabet needs no escaping."""
    return Markup(f"data:{media_type(data)};base64,{base64.b64encode(data).decode('ascii')}")


def _policy(style: str, script: str) -> str:
    """Nothing but embedded pictures, this very style and this very script."""
    return (
        "default-src 'none'; img-src data:; "
        f"style-src 'sha256-{_csp_hash(style)}'; script-src 'sha256-{_csp_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _csp_hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@lru_cache
def _asset(name: str) -> Markup:
    """A style or script, written in as it is: part of this package, never of a document."""
    return Markup(files("core").joinpath("templates", name).read_text(encoding="utf-8"))


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("core", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(  # pyright: ignore[reportUnknownMemberType]
        visible=visible,
        short=_short,
        percent=percent,
        counted=counted,
        number=number,
        points=_points,
        glued=_glued,
        modality=modality_label,
    )
    environment.globals.update(  # pyright: ignore[reportUnknownMemberType]
        describe=describe,
        headline=headline,
        document_reasons=document_reasons,
        not_looked_at=not_looked_at,
        relation_label=RELATION_LABEL,
        relation_note=RELATION_NOTE,
        tier_label=TIER_LABEL,
        tier_note=TIER_NOTE,
        status_label=STATUS_LABEL,
        status_note=STATUS_NOTE,
        channel_label=CHANNEL_LABEL,
        relations=RELATIONS,
        tiers=TIERS,
    )
    return environment


def _short(text: str) -> str:
    return shortened(visible(text))


def _glued(text: str) -> str:
    """The text with each number kept on the line of the word it counts."""
    return re.sub(r"(\d|p\.) ", "\\1\u00a0", text)


def _points(polygon: Polygon) -> str:
    """A polygon as SVG writes it."""
    return " ".join(f"{number(x, 2)},{number(y, 2)}" for x, y in polygon)
