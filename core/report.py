"""What a report says: the scope that was looked at, and the pairs of similar regions found in it.

The same records are written as TSV (`core.report_tsv`), JSON (`core.report_json`) and HTML
(`core.report_html`). They refuse to be built where they would contradict themselves, because
somebody signs under them: a report cannot be ``ok`` over a failed page, nor announce another number
of pairs than it lists, nor call a pair mirrored when its transform is not.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from core.geometry import Box

Status = Literal["ok", "degraded", "failed"]
Tier = Literal["A", "B"]
Relation = Literal["same_image", "other_channel", "overlapping_fields", "copy_move", "same_blot"]
ChannelKind = Literal["local", "encoder", "copy_move"]
Polygon = tuple[tuple[float, float], ...]
"""Corners in order, at least three, not closed."""
Transform = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Two rows of an affine matrix: pixel (x, y) of A's crop frame to pixel of B's."""

STATUSES: tuple[Status, ...] = get_args(Status)
"""From best to worst."""
TIERS: tuple[Tier, ...] = get_args(Tier)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OFTEN_LEGITIMATE: frozenset[Relation] = frozenset({"other_channel"})
"""Relations that figures show for good reasons: another stain, or the merge, of one field."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


@dataclass(frozen=True)
class PageFailure:
    """A page that could not be looked at, and why in one sentence."""

    page: int
    reason: str


@dataclass(frozen=True)
class DocumentScope:
    """What was looked at in one document.

    Attributes:
        sha256: Of the file as received.
        name: As received; a label, never a path.
        pages: Pages of the document; 0 where the file could not be opened.
        pages_looked_at: Pages whose panels were searched.
        pages_failed: Pages that were not, with reasons.
        panels: Panels found, by modality, those set aside as charts included.
        status: ``ok`` only when every page was looked at.
        reasons: Why the status is not ``ok``, one sentence each.
    """

    sha256: str
    name: str
    pages: int
    pages_looked_at: int
    pages_failed: tuple[PageFailure, ...] = ()
    panels: Mapping[str, int] = field(default_factory=dict[str, int])
    status: Status = "ok"
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(_SHA256.fullmatch(self.sha256), f"{self.sha256!r} is not a SHA-256 in hex")
        _require(0 <= self.pages_looked_at <= self.pages, f"{self.sha256}: more pages than it has")
        complete = self.pages_looked_at == self.pages and not self.pages_failed
        _require(self.status != "ok" or complete, f"{self.sha256}: ok, but pages are missing")
        _require(
            self.status == "ok" or self.reasons or self.pages_failed,
            f"{self.sha256}: {self.status} without a reason",
        )


@dataclass(frozen=True)
class Channel:
    """One way in which candidates are found, whether it ran, and with what.

    Attributes:
        kind: ``local`` (local image features), ``encoder`` (tile embeddings) or ``copy_move``
            (within one panel).
        ran: Whether every panel in scope went through it.
        detail: The specification it ran with, or why it did not: an encoder id, "none configured".
    """

    kind: ChannelKind
    ran: bool
    detail: str


@dataclass(frozen=True)
class Coverage:
    """How much of what was found was also compared.

    Attributes:
        panels: Panels found in the scope.
        panels_compared: Panels compared with all others.
        panels_set_aside: Panels not compared because of what they show: charts and drawings.
        tiles: Square windows over the panels; 0 where no channel used any.
        tiles_compared: Tiles compared with all others.
        tiles_blank: Tiles marked as blank and therefore not compared.
        earlier_documents: Documents stored before, outside this scope, that were compared against.
        earlier_panels: Panels of those.
    """

    panels: int
    panels_compared: int
    panels_set_aside: int = 0
    tiles: int = 0
    tiles_compared: int = 0
    tiles_blank: int = 0
    earlier_documents: int = 0
    earlier_panels: int = 0

    @property
    def panels_missed(self) -> int:
        """Panels neither compared nor set aside by content: what the search did not see."""
        return self.panels - self.panels_compared - self.panels_set_aside

    @property
    def tiles_missed(self) -> int:
        """Tiles neither compared nor blank."""
        return self.tiles - self.tiles_compared - self.tiles_blank

    def __post_init__(self) -> None:
        _require(self.panels_missed >= 0, "more panels compared than found")
        _require(self.tiles_missed >= 0, "more tiles compared than found")


@dataclass(frozen=True)
class Flag:
    """Something a reader must know before trusting the result.

    Attributes:
        kind: A short stable word for programs, such as ``page_failed`` or ``dpi_lowered``.
        sentence: What happened and what it means for the result.
        document: SHA-256 of the document concerned, if one.
        page: Page concerned, from 1, if one.
    """

    kind: str
    sentence: str
    document: str | None = None
    page: int | None = None


@dataclass(frozen=True)
class PairCount:
    """How many pairs of one relation and tier the report lists."""

    relation: Relation
    tier: Tier
    pairs: int


@dataclass(frozen=True)
class Report:
    """Everything but the pairs, which are passed beside it and one at a time.

    Attributes:
        title: Heading of the report.
        quire_version: What made it.
        code_version: Revision of the code; may equal ``quire_version``.
        specs: Version of each specification that decided a result, by name.
        documents: The scope.
        channels: Every channel, those that did not run included.
        coverage: Over the whole scope.
        status: No better than that of its worst document.
        flags: Reasons for a status that is not ``ok``, and notes that leave it so.
        counts: Pairs to come, so that the heading can say how many; see `count_pairs`.
    """

    title: str
    quire_version: str
    code_version: str
    specs: Mapping[str, str]
    documents: tuple[DocumentScope, ...]
    channels: tuple[Channel, ...]
    coverage: Coverage
    status: Status = "ok"
    flags: tuple[Flag, ...] = ()
    counts: tuple[PairCount, ...] = ()

    def __post_init__(self) -> None:
        hashes = [document.sha256 for document in self.documents]
        _require(len(set(hashes)) == len(hashes), "a document appears twice in the scope")
        worst = max((STATUSES.index(document.status) for document in self.documents), default=0)
        _require(worst == 0 or self.status != "ok", "the report is ok, but a document is not")
        missed = self.coverage.panels_missed or self.coverage.tiles_missed
        _require(
            not missed or self.status != "ok", "the report is ok, but panels were not compared"
        )
        _require(
            self.documents or self.status != "ok", "the report is ok, but nothing was looked at"
        )
        _require(
            self.status == "ok" or self.flags or worst > 0,
            f"the report is {self.status} without a flag",
        )

    @property
    def pairs(self) -> int:
        """Pairs the report lists."""
        return sum(count.pairs for count in self.counts)

    @property
    def pairs_often_legitimate(self) -> int:
        """Pairs listed apart, because their relation often has a good reason."""
        return sum(count.pairs for count in self.counts if count.relation in OFTEN_LEGITIMATE)


@dataclass(frozen=True)
class Crop:
    """A picture of a panel.

    Attributes:
        data: A JPEG or PNG file, of any resolution.
        width_px: Width of the frame in which regions and transforms are stated, normally that of
            the panel; the picture is stretched to it.
        height_px: Height of that frame.
    """

    data: bytes
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        _require(self.width_px > 0 and self.height_px > 0, "a crop needs a size")
        media_type(self.data)


@dataclass(frozen=True)
class Side:
    """One of the two regions of a pair, and where it comes from.

    Attributes:
        document: SHA-256 of the file.
        name: Its name as received.
        page: From 1.
        panel_id: Of the panel that holds the region.
        box_pt: The panel on the page.
        region_pt: The similar region on the page.
        xref: Number of the image object in the file; None where the panel was rendered.
        extraction_method: How the panel's pixels were obtained.
        dpi: Pixels of the panel per inch of the page.
        modality: What kind of picture it is.
        confidence: Of the modality, 0 to 1.
        crop: The panel.
        region_px: The similar region in the crop's frame.
        page_size_pt: Width and height of the page, for the page map; may be unknown.
    """

    document: str
    name: str
    page: int
    panel_id: str
    box_pt: Box
    region_pt: Polygon
    xref: int | None
    extraction_method: str
    dpi: float
    modality: str
    confidence: float
    crop: Crop
    region_px: Polygon
    page_size_pt: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _require(_SHA256.fullmatch(self.document), f"{self.document!r} is not a SHA-256 in hex")
        _require(self.page >= 1, f"page {self.page}: pages are counted from 1")
        _require(
            len(self.region_pt) >= 3 and len(self.region_px) >= 3, "a region needs three corners"
        )
        corners = [value for corner in self.region_pt + self.region_px for value in corner]
        _require_finite(
            [*self.box_pt, *corners, *(self.page_size_pt or ()), self.dpi, self.confidence]
        )


@dataclass(frozen=True)
class ReportPair:
    """Two similar regions and the evidence for it.

    Attributes:
        pair_id: Stable over runs.
        a: The region that sorts first.
        b: The other one.
        relation: How the two pictures are related.
        tier: A where development data without reuse raised no alarm, B where at least half of the
            pairs were real.
        probability: That the relation is real, calibrated, 0 to 1.
        transform: From A's crop frame to B's; mirrored, rotation and scale follow from it.
        overlap: Share of the smaller panel that the common region covers, 0 to 1; within one panel,
            share of the panel that each of the two regions covers.
        brightness: Mean of B less mean of A over the common region, in grey levels (0 to 255).
        contrast: Spread of B over spread of A there; 1 is unchanged, negative is inverted.
        inliers: Local features that agree with the transform.
        ncc: Normalized cross-correlation over the common region, -1 to 1.
        ssim: Structural similarity there; None where not computed.
        hamming_distance: Between perceptual hashes, in bits; None where not computed.
        tile_matches: Tiles of the two panels that the search brought together.
        cosine_similarity: Best of those; None where no encoder ran.
        channels: What proposed the pair: "local", "encoder:<id>", "copy_move".
        encoder_id: Model whose cosine similarity is given.
        code_version: Of the code that verified the pair.
        evidence: Further measurements by name.
        aligned: B warped onto A's crop frame, JPEG or PNG, black or clear outside B.
    """

    pair_id: str
    a: Side
    b: Side
    relation: Relation
    tier: Tier
    probability: float
    transform: Transform
    overlap: float
    brightness: float
    contrast: float
    inliers: int
    ncc: float
    ssim: float | None
    hamming_distance: int | None
    tile_matches: int
    cosine_similarity: float | None
    channels: tuple[str, ...]
    encoder_id: str | None
    code_version: str
    evidence: Mapping[str, float] = field(default_factory=dict[str, float])
    aligned: bytes | None = None

    def __post_init__(self) -> None:
        _require(self.relation in RELATIONS, f"unknown relation {self.relation!r}")
        _require(self.tier in TIERS, f"unknown tier {self.tier!r}")
        _require(0 <= self.probability <= 1, f"probability {self.probability} is not in 0..1")
        _require(0 <= self.overlap <= 1.000001, f"overlap {self.overlap} is not in 0..1")
        _require(self.channels, "a pair needs the channel that proposed it")
        rest = [self.brightness, self.contrast, self.ncc, self.ssim, self.cosine_similarity]
        _require_finite(
            [
                *self.transform[0],
                *self.transform[1],
                *(value for value in rest if value is not None),
                *self.evidence.values(),
            ]
        )
        _require(abs(self._determinant) > 1e-9, "the transform maps A onto a line")
        if self.aligned is not None:
            media_type(self.aligned)

    @property
    def _determinant(self) -> float:
        (a, b, _), (c, d, _) = self.transform
        return a * d - b * c

    @property
    def mirrored(self) -> bool:
        """Whether A has to be mirrored to fit B."""
        return self._determinant < 0

    @property
    def rotation_deg(self) -> float:
        """Turn that takes A, mirrored left to right where `mirrored`, onto B.

        Clockwise as seen, in (-180, 180].
        """
        (a, b, _), (c, d, _) = self.transform
        if self.mirrored:
            a, c = -a, -c
        degrees = math.degrees(math.atan2(c - b, a + d))
        return 180.0 if degrees <= -179.995 else degrees

    @property
    def scale(self) -> float:
        """Length in B of a unit length in A, the geometric mean of both directions."""
        return math.sqrt(abs(self._determinant))

    @property
    def stretch(self) -> float:
        """Largest scale over smallest, at least 1; 1 is a transform that keeps shapes."""
        linear = np.array([row[:2] for row in self.transform], dtype=np.float64)
        largest, smallest = np.linalg.svd(linear, compute_uv=False)
        return float(largest / smallest)

    @property
    def often_legitimate(self) -> bool:
        """Whether the relation is one that figures show for good reasons."""
        return self.relation in OFTEN_LEGITIMATE


def media_type(data: bytes) -> str:
    """``image/jpeg`` or ``image/png``, by content.

    Raises:
        ValueError: It is neither. SVG above all can carry script and is never embedded.
    """
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    raise ValueError("an embedded picture must be JPEG or PNG")


def count_pairs(pairs: Iterable[tuple[Relation, Tier]]) -> tuple[PairCount, ...]:
    """What `Report.counts` wants, from the relation and tier of each pair."""
    counted = Counter(pairs)
    return tuple(
        PairCount(relation, tier, counted[relation, tier])
        for relation in RELATIONS
        for tier in TIERS
        if counted[relation, tier]
    )


def report_order(pair: ReportPair) -> tuple[bool, float, str]:
    """Sort key of a report: what needs review first, then by falling probability."""
    return (pair.often_legitimate, -pair.probability, pair.pair_id)


def checked(report: Report, pairs: Iterable[ReportPair]) -> Iterator[ReportPair]:
    """Pass the pairs on, one in memory at a time.

    Raises:
        ValueError: They are not in `report_order`, repeat, or are not as many as the report
            announces. What has been written by then must be thrown away.
    """
    seen: Counter[tuple[Relation, Tier]] = Counter()
    last: tuple[bool, float, str] | None = None
    for pair in pairs:
        key = report_order(pair)
        _require(last is None or last < key, f"pair {pair.pair_id} is out of order or repeated")
        last = key
        seen[pair.relation, pair.tier] += 1
        yield pair
    announced = {(count.relation, count.tier): count.pairs for count in report.counts}
    listed = {kind: number for kind, number in seen.items() if number}
    _require(
        listed == {kind: number for kind, number in announced.items() if number},
        f"the report announces {report.pairs} pairs {announced}, but lists {dict(seen)}",
    )


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_finite(values: Iterable[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{value} among the measurements of a pair")
