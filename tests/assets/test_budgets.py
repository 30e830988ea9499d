"""Budgets that are too small for one item, on real ops: the budget that is named really does."""

import re
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import psycopg
import pymupdf
import pytest

from core.errors import BudgetError
from resources.memory import MemoryContract
from resources.pdf import PdfFile
from resources.process_tree import tree_mb
from tests.assets.conftest import Pipeline, metadata

TO_FEATURES = ["documents", "pages", "panels", "panel_features"]


class Exactly(MemoryContract):
    """One budget for every op."""

    budget_mb: int

    def granted_mb(self, context: dg.AssetExecutionContext) -> int:
        return self.budget_mb


def picture(width_px: int, height_px: int, seed: int) -> bytes:
    """A picture full of detail, as PNG: its pixels reach the PDF compressed without loss."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (height_px // 4, width_px // 4, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(cv2.resize(small, (width_px, height_px)), (0, 0), 1.5)
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def two_pages(path: Path, large_px: int, large_pt: float) -> Path:
    """A small picture on page 1, a large one on page 2."""
    with pymupdf.open() as document:
        for number, (side_px, side_pt) in enumerate(((240, 120.0), (large_px, large_pt))):
            page = document.new_page(width=595, height=842)
            place = pymupdf.Rect(60, 60, 60 + side_pt, 60 + side_pt)
            page.insert_image(place, stream=picture(side_px, side_px, number))
        document.save(path)
    return path


def named_mb(text: str) -> int:
    found = re.search(r"about (\d+) MB would do", text)
    assert found, text
    return int(found[1])


def reasons(result: dg.ExecuteInProcessResult, asset: str) -> str:
    return " ".join(str(numbers.get("reasons", "")) for numbers in metadata(result, asset))


def items(result: dg.ExecuteInProcessResult, asset: str) -> int:
    (numbers,) = [n for n in metadata(result, asset) if "items" in n]
    return numbers["items"]


@pytest.mark.parametrize("memory_mb", [60, 75])
def test_a_page_that_does_not_fit_the_reader_names_what_would_do(
    tmp_path: Path, memory_mb: int
) -> None:
    path = two_pages(tmp_path / "large.pdf", large_px=3000, large_pt=300.0)

    def read(budget_mb: int) -> Any:
        with PdfFile(path, memory_mb=budget_mb) as pdf:
            return pdf.content(2), pdf.render(2, 150).image

    with pytest.raises(BudgetError) as refusal:
        read(memory_mb)
    needed_mb = named_mb(str(refusal.value))
    assert needed_mb == refusal.value.needed_mb
    _, image = read(needed_mb)
    assert image.std() > 10


def test_a_panel_beyond_the_budget_fails_alone_and_is_done_with_exactly_what_is_named(
    pipeline: Pipeline, db: psycopg.Connection
) -> None:
    path = two_pages(pipeline.folder / "paper.pdf", large_px=700, large_pt=330.0)
    pipeline.receive(path)
    (prepared,) = pipeline.run(only=TO_FEATURES[:3])
    assert prepared.success
    base_mb = int(tree_mb())

    pipeline.memory = Exactly(budget_mb=base_mb + 70)
    (small,) = pipeline.run(only=TO_FEATURES[3:])
    made = db.execute("SELECT count(*) FROM panel_features").fetchone()
    assert made == (1,)
    assert db.execute(
        "SELECT count(*) FROM work WHERE asset = 'panel_features' AND status = 'failed'"
    ).fetchone() == (1,)

    pipeline.memory = Exactly(budget_mb=named_mb(reasons(small, "panel_features")))
    (enough,) = pipeline.run(only=TO_FEATURES[3:])
    assert items(enough, "panel_features") == 1
    assert "MB would do" not in reasons(enough, "panel_features")
    (numbers,) = [n for n in metadata(enough, "panel_features") if "items" in n]
    assert numbers["halved"] == 0
    assert numbers["peak_mb"] <= numbers["budget_mb"]
    assert db.execute("SELECT count(*) FROM panel_features").fetchone() == (2,)
