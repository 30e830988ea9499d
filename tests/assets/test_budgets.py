"""A budget that is too small for one page: the budget that is named really does."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymupdf
import pytest

from core.errors import BudgetError
from resources.pdf import PdfFile


def picture(side_px: int) -> bytes:
    """A picture full of detail, as PNG: its pixels reach the PDF compressed without loss."""
    rng = np.random.default_rng(1)
    small = rng.integers(0, 255, (side_px // 4, side_px // 4, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(cv2.resize(small, (side_px, side_px)), (0, 0), 1.5)
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


@pytest.mark.parametrize("memory_mb", [60, 75])
def test_a_page_that_does_not_fit_the_reader_names_what_would_do(
    tmp_path: Path, memory_mb: int
) -> None:
    path = tmp_path / "large.pdf"
    with pymupdf.open() as document:
        page = document.new_page(width=595, height=842)
        page.insert_image(pymupdf.Rect(60, 60, 360, 360), stream=picture(3000))
        document.save(path)

    def read(budget_mb: int) -> Any:
        with PdfFile(path, memory_mb=budget_mb) as pdf:
            return pdf.content(1), pdf.render(1, 150).image

    with pytest.raises(BudgetError) as refusal:
        read(memory_mb)
    named = re.search(r"about (\d+) MB would do", str(refusal.value))
    assert named
    assert int(named[1]) == refusal.value.needed_mb
    _, image = read(int(named[1]))
    assert image.std() > 10
