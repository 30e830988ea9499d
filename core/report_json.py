"""`pairs.json`: the whole record with its provenance, for programs and for the archive.

The shape is fixed by ``core/data/pairs.schema.json``. Numbers are rounded to six decimals, keys
keep one order and no clock is read, so equal results are equal bytes and one SHA-256 names a
report. Pictures are named by their SHA-256 and not embedded.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from core.report import Crop, DocumentScope, Report, ReportPair, Side, checked, media_type
from core.report_tsv import TextSink
from core.report_words import describe, headline, outcome
from core.text import well_formed

SCHEMA = "quire.pairs/1"
"""Changes when a reader of the previous shape would misread the file."""

_NOT_ASCII = re.compile("[^\\x00-\\x7f]")
_SPELLED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\x7f"}

DECIMALS = 6
"""A millionth of a pixel or point: finer than any measurement, coarse enough to hide how one
processor rounds."""


def write_json(report: Report, pairs: Iterable[ReportPair], file: TextSink) -> None:
    """Write the record, one pair in memory at a time.

    Args:
        report: Scope and status.
        pairs: In `core.report.report_order`.
        file: Open for text; ASCII is all it gets.

    Raises:
        ValueError: The pairs are not those the report announces; the file is then unusable.
    """
    file.write(json_head(report))
    for number, pair in enumerate(checked(report, pairs)):
        file.write(json_pair(pair, first=number == 0))
    file.write(json_tail())


def json_head(report: Report) -> str:
    """The file up to its first pair."""
    head = _dumps(_report(report), indent=1)
    return f'{{"schema": {_dumps(SCHEMA)},\n"report": {head},\n"pairs": ['


def json_pair(pair: ReportPair, *, first: bool) -> str:
    """One pair on a line of its own."""
    return ("\n" if first else ",\n") + _dumps(_pair(pair))


def json_tail() -> str:
    """What closes the file; without it the file is no JSON, so a cut is noticed."""
    return "\n]}\n"


class Fingerprint:
    """SHA-256 of the `pairs.json` of a report, taken while something else is written."""

    def __init__(self, report: Report) -> None:
        self._hash = hashlib.sha256(json_head(report).encode())
        self._first = True

    def add(self, pair: ReportPair) -> None:
        """Take the next pair."""
        self._hash.update(json_pair(pair, first=self._first).encode())
        self._first = False

    def hex(self) -> str:
        """The digest, as if no pair followed."""
        closed = self._hash.copy()
        closed.update(json_tail().encode())
        return closed.hexdigest()


def _dumps(value: object, indent: int | None = None) -> str:
    """JSON in ASCII, without what strict readers refuse and what a web page would act on.

    Unpaired surrogates become U+FFFD; ``<``, ``>``, ``&`` and DEL, which JSON may hold as they are,
    are spelled.
    """
    text = json.dumps(value, indent=indent, allow_nan=False)
    if "\\ud" in text:
        whole = well_formed(json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False))
        text = _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], whole)
    return text.translate(_SPELLED)


def _report(report: Report) -> dict[str, object]:
    coverage = report.coverage
    return {
        "title": report.title,
        "status": report.status,
        "outcome": outcome(report.status, report.pairs),
        "sentence": headline(report),
        "quire_version": report.quire_version,
        "code_version": report.code_version,
        "specs": dict(sorted(report.specs.items())),
        "documents": [_document(document) for document in report.documents],
        "channels": [
            {"kind": channel.kind, "ran": channel.ran, "detail": channel.detail}
            for channel in report.channels
        ],
        "coverage": {
            "panels": coverage.panels,
            "panels_compared": coverage.panels_compared,
            "panels_set_aside": coverage.panels_set_aside,
            "panels_missed": coverage.panels_missed,
            "tiles": coverage.tiles,
            "tiles_compared": coverage.tiles_compared,
            "tiles_blank": coverage.tiles_blank,
            "tiles_missed": coverage.tiles_missed,
            "earlier_documents": coverage.earlier_documents,
            "earlier_panels": coverage.earlier_panels,
        },
        "flags": [
            {
                "kind": flag.kind,
                "sentence": flag.sentence,
                "document": flag.document,
                "page": flag.page,
            }
            for flag in report.flags
        ],
        "counts": [
            {"relation": count.relation, "tier": count.tier, "pairs": count.pairs}
            for count in report.counts
        ],
    }


def _document(document: DocumentScope) -> dict[str, object]:
    return {
        "sha256": document.sha256,
        "name": document.name,
        "status": document.status,
        "reasons": list(document.reasons),
        "pages": document.pages,
        "pages_looked_at": document.pages_looked_at,
        "pages_failed": [
            {"page": failed.page, "reason": failed.reason} for failed in document.pages_failed
        ],
        "panels": dict(sorted(document.panels.items())),
    }


def _pair(pair: ReportPair) -> dict[str, object]:
    return {
        "pair_id": pair.pair_id,
        "relation": pair.relation,
        "often_legitimate": pair.often_legitimate,
        "tier": pair.tier,
        "probability": _rounded(pair.probability),
        "sentence": describe(pair),
        "a": _side(pair.a),
        "b": _side(pair.b),
        "transform": _rows(pair.transform),
        "mirrored": pair.mirrored,
        "rotation_deg": _rounded(pair.rotation_deg),
        "scale": _rounded(pair.scale),
        "overlap": _rounded(pair.overlap),
        "brightness": _rounded(pair.brightness),
        "contrast": _rounded(pair.contrast),
        "inliers": int(pair.inliers),
        "ncc": _rounded(pair.ncc),
        "ssim": _rounded(pair.ssim),
        "hamming_distance": None if pair.hamming_distance is None else int(pair.hamming_distance),
        "tile_matches": int(pair.tile_matches),
        "cosine_similarity": _rounded(pair.cosine_similarity),
        "channels": list(pair.channels),
        "encoder_id": pair.encoder_id,
        "code_version": pair.code_version,
        "evidence": _evidence(pair.evidence),
        "aligned_sha256": None if pair.aligned is None else _sha256(pair.aligned),
    }


def _side(side: Side) -> dict[str, object]:
    return {
        "document": side.document,
        "name": side.name,
        "page": side.page,
        "panel_id": side.panel_id,
        "box_pt": [_rounded(value) for value in side.box_pt],
        "region_pt": _rows(side.region_pt),
        "region_px": _rows(side.region_px),
        "page_size_pt": side.page_size_pt and [_rounded(value) for value in side.page_size_pt],
        "xref": side.xref,
        "extraction_method": side.extraction_method,
        "dpi": _rounded(side.dpi),
        "modality": side.modality,
        "confidence": _rounded(side.confidence),
        "crop": _crop(side.crop),
    }


def _crop(crop: Crop) -> dict[str, object]:
    return {
        "sha256": _sha256(crop.data),
        "media_type": media_type(crop.data),
        "width_px": crop.width_px,
        "height_px": crop.height_px,
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _evidence(evidence: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in sorted(evidence.items())}


def _rows(rows: Iterable[Iterable[float]]) -> list[list[float | None]]:
    return [list(_each(row)) for row in rows]


def _each(values: Iterable[float]) -> Iterator[float | None]:
    return (_rounded(value) for value in values)


def _rounded(value: float | None) -> float | None:
    """Rounded, a plain float, without a negative zero."""
    return None if value is None else round(float(value), DECIMALS) + 0.0
