import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.report import Report, ReportPair
from core.report_tsv import COLUMNS, KEPT_COLUMNS, cell, number, numbers, write_tsv
from tests.core.report_samples import (
    HOSTILE,
    degraded,
    failed,
    hostile,
    report_of,
    sample_pairs,
    scope,
)

pandas: Any = pytest.importorskip("pandas")

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMERIC = {
    "Cosine_Similarity", "SSIM", "Hamming_Distance", "Tile_Matches", "Pairs", "Probability",
    "Rotation_deg", "Scale", "Overlap", "Brightness", "Contrast", "Inliers", "NCC",
}  # fmt: skip


def text_of(report: Report, pairs: Sequence[ReportPair] = ()) -> str:
    file = io.StringIO()
    write_tsv(report, pairs, file)
    return file.getvalue()


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), dialect="excel-tab", strict=True))


def test_the_eight_columns_of_earlier_tools_come_first_and_unchanged() -> None:
    assert KEPT_COLUMNS == (
        "Path_A", "Path_B", "Cosine_Similarity", "SSIM", "Hamming_Distance", "Tile_Matches",
        "Tier", "Extraction_Method",
    )  # fmt: skip
    header = text_of(report_of(())).splitlines()[0].split("\t")
    assert header[:8] == list(KEPT_COLUMNS)
    assert header == list(COLUMNS)
    assert len(set(header)) == len(header)


@pytest.mark.parametrize(
    ("report", "pairs", "status", "outcome", "number_found"),
    [
        (report_of(()), (), "ok", "no_pairs_found", "0"),
        (degraded(report_of(())), (), "degraded", "no_pairs_found_incomplete", "0"),
        (failed(), (), "failed", "failed", ""),
        (report_of(sample_pairs()), sample_pairs(), "ok", "pairs_found", "5"),
        (degraded(report_of(sample_pairs())), sample_pairs(), "degraded",
         "pairs_found_incomplete", "5"),
    ],
)  # fmt: skip
def test_every_outcome_can_be_told_from_the_table_alone(
    report: Report, pairs: Sequence[ReportPair], status: str, outcome: str, number_found: str
) -> None:
    rows = rows_of(text_of(report, pairs))
    last = rows[-1]
    assert [row["Record"] for row in rows] == (
        ["pair"] * len(pairs) + ["document"] * len(report.documents) + ["report"]
    )
    assert (last["Status"], last["Outcome"], last["Pairs"]) == (status, outcome, number_found)
    assert {row["Status"] for row in rows if row["Record"] == "pair"} <= {status}


def test_a_document_row_says_why_it_was_not_looked_at_and_leaves_the_pair_columns_empty() -> None:
    row = rows_of(text_of(degraded(report_of(()))))[1]
    assert (row["Record"], row["Status"], row["Pairs"]) == ("document", "failed", "")
    assert row["Reasons"] == "The file is encrypted; store it without a password."
    assert all(row[column] == "" for column in KEPT_COLUMNS)


def test_a_document_row_counts_the_pairs_it_is_part_of() -> None:
    pairs = sample_pairs()
    other = pairs[1].b.name
    rows = rows_of(text_of(report_of(pairs, [scope("Smith 2021.pdf"), scope(other)]), pairs))
    assert [row["Pairs"] for row in rows if row["Record"] == "document"] == ["5", "1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_cell_and_is_no_formula(text: str) -> None:
    report, pairs = hostile(text)
    table = text_of(report, pairs)
    table.encode("utf-8")
    assert len(table.split("\n")) == len(table.splitlines()) + 1 == 1 + 5 + 2 + 1 + 1
    for line in table.splitlines():
        assert len(line.split("\t")) == len(COLUMNS)
    for row in rows_of(table):
        for column, value in row.items():
            assert column in NUMERIC or not value.startswith(FORMULA), (column, value)
            assert "\x00" not in value


@pytest.mark.parametrize("text", HOSTILE)
def test_pandas_reads_the_rows_that_were_written(text: str) -> None:
    report, pairs = hostile(text)
    table = text_of(report, pairs)
    frame = pandas.read_csv(io.StringIO(table), sep="\t", dtype=str, keep_default_na=False)
    assert frame.to_dict("records") == rows_of(table)


def test_numbers_are_read_as_numbers() -> None:
    frame = pandas.read_csv(
        io.StringIO(text_of(report_of(sample_pairs()), sample_pairs())), sep="\t"
    )
    found = frame[frame["Record"] == "pair"]
    assert found["Probability"].tolist() == [0.987, 0.95, 0.83, 0.71, 0.93]
    assert found["Rotation_deg"].tolist() == pytest.approx([12, 180, 0, 0, 0], abs=0.01)
    assert json.loads(found["Transform"].iloc[3]) == [[1, 0, 160], [0, 1, 90]]
    assert len(json.loads(found["Box_pt_A"].iloc[0])) == 4
    assert found["Tile_Matches"].iloc[0] == 9


def test_a_negative_number_is_left_a_number() -> None:
    dark = replace(sample_pairs()[0], brightness=-12.5)
    assert rows_of(text_of(report_of([dark]), [dark]))[0]["Brightness"] == "-12.50"


CELL_START = re.compile(r"(?:^|[,;|\t])[\s\"'`]*")
FORMULA_CELL = re.compile(
    r"[=+\-@\uff1d\uff0b\uff0d\uff20](?![\d.]+(?:e-?\d+)?[\]\s]*(?:$|[,;|\t]))"
)
"""A formula sign that does not begin a number, as the columns of coordinates hold them."""


@pytest.mark.parametrize("text", HOSTILE)
def test_no_separator_that_a_reader_may_go_by_makes_a_formula_of_a_cell(text: str) -> None:
    for line in text_of(*hostile(text)).splitlines():
        for start in CELL_START.finditer(line):
            guarded = "'" in start[0].lstrip(",;|\t")
            assert guarded or not FORMULA_CELL.match(line, start.end()), line[start.start() :][:40]


def test_an_apostrophe_guards_the_start_of_a_formula_and_nothing_else() -> None:
    assert cell("=1+1") == "'=1+1"
    assert cell(' "=1+1') == "' \"=1+1"
    assert cell("a,=1; -2.pdf") == "a,'=1;' -2.pdf"
    assert cell("\ufeff=1") == "'\\ufeff=1"
    for plain in ("a-b=c+d@e", "Smith, J. 2021 (final - 2).pdf", "'quoted'", "a; b | c"):
        assert cell(plain) == plain


@given(st.text(), st.text())
def test_two_different_texts_stay_different(one: str, other: str) -> None:
    assert (cell(one) == cell(other)) == (one == other)


@given(st.text(st.sampled_from("=+-@'\" ,;|a\t"), max_size=6))
def test_a_text_that_looks_guarded_is_not_taken_for_one_that_is(text: str) -> None:
    assert cell(text) != cell(f"'{text}")


@given(st.text())
def test_no_cell_breaks_its_row(text: str) -> None:
    written = cell(text)
    assert len(f"x{written}x".splitlines()) == 1
    assert "\t" not in written
    assert not written.lstrip().startswith(FORMULA)


def test_the_table_is_the_same_bytes_every_time() -> None:
    pairs = sample_pairs()
    assert text_of(report_of(pairs), pairs) == text_of(report_of(pairs), sample_pairs())


def test_zero_has_no_sign() -> None:
    assert number(-0.00001) == "0.0000"
    assert numbers([[-0.0001, -1.25]], 2) == "[[0.0, -1.25]]"


def test_a_table_whose_pairs_are_not_those_announced_is_not_finished() -> None:
    file = io.StringIO()
    with pytest.raises(ValueError, match="announces 5 pairs"):
        write_tsv(report_of(sample_pairs()), sample_pairs()[:2], file)
    assert [row["Record"] for row in rows_of(file.getvalue())] == ["pair", "pair"]
