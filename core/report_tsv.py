r"""`pairs.tsv`: one table for spreadsheets and scripts, the same columns in every outcome.

Rows come in three kinds, told apart by ``Record``: ``pair`` rows, then one ``document`` row per
document in scope, then one ``report`` row, which ends the file. A table without pairs therefore
still says what was looked at and whether it was all, a table without its ``report`` row was cut
off, and a parser meets nothing but rows of equal length below one header. `docs/reports.md` gives
the meaning of every column.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from core.report import DocumentScope, Report, ReportPair, Side, checked
from core.report_words import describe, document_reasons, headline, outcome
from core.text import visible

KEPT_COLUMNS = (
    "Path_A",
    "Path_B",
    "Cosine_Similarity",
    "SSIM",
    "Hamming_Distance",
    "Tile_Matches",
    "Tier",
    "Extraction_Method",
)
"""Names and order of the table that earlier tools read; more columns may follow, none may move."""

_SIDE_COLUMNS = (
    "Document", "Name", "Page", "Panel", "Box_pt", "Region_pt", "Region_px", "Xref",
    "Extraction", "Dpi", "Modality", "Modality_Confidence",
)  # fmt: skip

COLUMNS = (
    *KEPT_COLUMNS,
    "Record",
    "Status",
    "Outcome",
    "Pairs",
    "Sentence",
    "Pair",
    "Relation",
    "Often_Legitimate",
    "Probability",
    "Transform",
    "Mirrored",
    "Rotation_deg",
    "Scale",
    "Overlap",
    "Brightness",
    "Contrast",
    "Inliers",
    "NCC",
    "Channels",
    "Encoder",
    "Code_Version",
    *(f"{column}_A" for column in _SIDE_COLUMNS),
    *(f"{column}_B" for column in _SIDE_COLUMNS),
    "Pages",
    "Pages_Looked_At",
    "Pages_Failed",
    "Panels",
    "Panels_Compared",
    "Reasons",
)

_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""First characters that spreadsheets may read as a formula, full-width and small forms included."""

_SKIPPED = "\\s\"'`\x00-\x20\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff"
"""What a reader may take off the start of a cell: space of every kind, quotes, what is not seen."""

_RISKY = re.compile(
    f"(?:^|(?<=[,;|\t\r\n]))(?=[{_SKIPPED}]*[{_FORMULA}])|^(?=[{_SKIPPED}]*[\t\r\n])"
)
"""Where a cell begins that might be evaluated, whichever separator the reader goes by."""


class TextSink(Protocol):
    """Anything text can be written to."""

    def write(self, text: str, /) -> object:
        """Take the text."""
        ...


def write_tsv(report: Report, pairs: Iterable[ReportPair], file: TextSink) -> None:
    """Write the table, one pair in memory at a time.

    Args:
        report: Scope and status.
        pairs: In `core.report.report_order`.
        file: Open for text, UTF-8, without newline translation.

    Raises:
        ValueError: The pairs are not those the report announces; the file is then unusable.
    """
    table = Table(report, file)
    for pair in checked(report, pairs):
        table.add(pair)
    table.close()


class Table:
    """The table while pairs are added to it; whole once it is closed."""

    def __init__(self, report: Report, file: TextSink) -> None:
        self._report = report
        self._found: Counter[str] = Counter()
        self._table = csv.DictWriter(
            file, COLUMNS, restval="", dialect="excel-tab", lineterminator="\n"
        )
        self._table.writeheader()

    def add(self, pair: ReportPair) -> None:
        """Write the row of the next pair."""
        self._found.update({pair.a.document, pair.b.document})
        self._table.writerow(_pair_row(self._report, pair))

    def close(self) -> None:
        """Write the rows of the documents and of the report."""
        for document in self._report.documents:
            self._table.writerow(_document_row(document, self._found[document.sha256]))
        self._table.writerow(_report_row(self._report))


def _pair_row(report: Report, pair: ReportPair) -> dict[str, str]:
    return {
        "Path_A": cell(_path(pair.a)),
        "Path_B": cell(_path(pair.b)),
        "Cosine_Similarity": number(pair.cosine_similarity),
        "SSIM": number(pair.ssim),
        "Hamming_Distance": whole(pair.hamming_distance),
        "Tile_Matches": whole(pair.tile_matches),
        "Tier": pair.tier,
        "Extraction_Method": cell(_both(pair.a.extraction_method, pair.b.extraction_method)),
        "Record": "pair",
        "Status": report.status,
        "Outcome": outcome(report.status, report.pairs),
        "Sentence": cell(describe(pair)),
        "Pair": cell(pair.pair_id),
        "Relation": pair.relation,
        "Often_Legitimate": "yes" if pair.often_legitimate else "no",
        "Probability": number(pair.probability),
        "Transform": numbers(pair.transform, 6),
        "Mirrored": "yes" if pair.mirrored else "no",
        "Rotation_deg": number(pair.rotation_deg, 2),
        "Scale": number(pair.scale),
        "Overlap": number(pair.overlap),
        "Brightness": number(pair.brightness, 2),
        "Contrast": number(pair.contrast),
        "Inliers": whole(pair.inliers),
        "NCC": number(pair.ncc),
        "Channels": cell(",".join(pair.channels)),
        "Encoder": cell(pair.encoder_id or ""),
        "Code_Version": cell(pair.code_version),
        **_side_cells(pair.a, "A"),
        **_side_cells(pair.b, "B"),
    }


def _side_cells(side: Side, letter: str) -> dict[str, str]:
    values = (
        side.document,
        cell(side.name),
        whole(side.page),
        cell(side.panel_id),
        numbers((side.box_pt,), 2)[1:-1],
        numbers(side.region_pt, 2),
        numbers(side.region_px, 2),
        whole(side.xref),
        cell(side.extraction_method),
        number(side.dpi, 1),
        cell(side.modality),
        number(side.confidence),
    )
    named = zip(_SIDE_COLUMNS, values, strict=True)
    return {f"{column}_{letter}": value for column, value in named}


def _document_row(document: DocumentScope, pairs: int) -> dict[str, str]:
    result = outcome(document.status, pairs)
    return {
        "Record": "document",
        "Status": document.status,
        "Outcome": result,
        "Pairs": "" if result == "failed" else whole(pairs),
        "Document_A": document.sha256,
        "Name_A": cell(document.name),
        "Pages": whole(document.pages),
        "Pages_Looked_At": whole(document.pages_looked_at),
        "Pages_Failed": whole(len(document.pages_failed)),
        "Panels": whole(sum(document.panels.values())),
        "Reasons": cell(" | ".join(document_reasons(document))),
    }


def _report_row(report: Report) -> dict[str, str]:
    result = outcome(report.status, report.pairs)
    return {
        "Record": "report",
        "Status": report.status,
        "Outcome": result,
        "Pairs": "" if result == "failed" else whole(report.pairs),
        "Sentence": cell(headline(report)),
        "Code_Version": cell(report.code_version),
        "Pages": whole(sum(document.pages for document in report.documents)),
        "Pages_Looked_At": whole(sum(document.pages_looked_at for document in report.documents)),
        "Pages_Failed": whole(sum(len(document.pages_failed) for document in report.documents)),
        "Panels": whole(report.coverage.panels),
        "Panels_Compared": whole(report.coverage.panels_compared),
        "Reasons": cell(" | ".join(flag.sentence for flag in report.flags)),
    }


def cell(text: str) -> str:
    """Text that no spreadsheet runs and no parser splits.

    What does not show is spelled out (`core.text.visible`), so no tab or line break is left. An
    apostrophe goes before what a spreadsheet might evaluate: at the start, after space and quotes,
    and after commas, semicolons and bars, which some readers take for the end of a cell. Two
    different texts stay different.
    """
    return visible(_RISKY.sub("'", text))


def number(value: float | None, digits: int = 4) -> str:
    """A decimal with a fixed number of digits, no negative zero; empty for None."""
    if value is None:
        return ""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def whole(value: int | None) -> str:
    """An integer; empty for None."""
    return "" if value is None else str(value)


def numbers(rows: Iterable[Iterable[float]], digits: int) -> str:
    """Rows of numbers as JSON, so that a cell never starts with a sign."""
    rounded = [[float(number(value, digits)) for value in row] for row in rows]
    return json.dumps(rounded, allow_nan=False)


def _path(side: Side) -> str:
    return f"{side.name}#page={side.page}&panel={side.panel_id}"


def _both(a: str, b: str) -> str:
    return a if a == b else f"{a},{b}"
