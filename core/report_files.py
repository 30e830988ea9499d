"""The three files of a report, written together from one pass over its pairs."""

from collections.abc import Iterable, Iterator, Mapping

from core.report import Report, ReportPair
from core.report_html import write_html
from core.report_json import json_head, json_pair, json_tail
from core.report_tsv import Table, TextSink

TSV, JSON, HTML = "pairs.tsv", "pairs.json", "report.html"
FILES = (TSV, JSON, HTML)
"""The same records in each."""


def write_files(report: Report, pairs: Iterable[ReportPair], files: Mapping[str, TextSink]) -> None:
    """Write all three, with the pictures of one pair at a time in memory.

    A pair's pictures are decoded, warped and encoded once, not once per file; the bytes are those
    of `write_tsv`, `write_json` and `write_html`.

    Args:
        report: Scope and status.
        pairs: In `core.report.report_order`; read once.
        files: A sink for each of ``FILES``, open for text, UTF-8, without newline translation.

    Raises:
        ValueError: The pairs are not those the report announces; the files are then unusable.
    """
    table = Table(report, files[TSV])
    files[JSON].write(json_head(report))

    def passed_on() -> Iterator[ReportPair]:
        for number, pair in enumerate(pairs):
            table.add(pair)
            files[JSON].write(json_pair(pair, first=number == 0))
            yield pair

    write_html(report, passed_on(), files[HTML])
    table.close()
    files[JSON].write(json_tail())
