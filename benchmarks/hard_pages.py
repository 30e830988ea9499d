"""Pages that are hard to read: crooked, faded and photographed ones, beside 300 dpi.

    python -m benchmarks.hard_pages PDF [--pages 1-4]

Each page is rendered, spoilt in three ways and put into a PDF again as a picture of 200 dpi: turned
by three degrees; printed with a tenth of the ink; photographed from the side in uneven light. Quire
reads them as it reads any page. What counts are words of two letters and more that are read with a
confidence of at least 60, as a share of those that tesseract's command line is as sure of on the
same pages at 300 dpi; and how many of them are among those it reads before the page was spoilt.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymupdf
from numpy.typing import NDArray

from benchmarks.cards import quire
from orchestration.headless import prepare
from orchestration.settings import from_environment

DPI = 200
SURE = 60
Grey = NDArray[np.uint8]


def crooked(page: Grey) -> Grey:
    """Turned by three degrees."""
    height, width = page.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 3.0, 1.0)
    return cv2.warpAffine(page, turn, (width, height), borderValue=250).astype(np.uint8)


def faded(page: Grey) -> Grey:
    """A tenth of the ink on yellowed paper, with the grain of a scanner."""
    chance = np.random.default_rng(1)
    grey = 205.0 - (255.0 - page) * 0.1
    return np.clip(grey + chance.normal(0, 2.0, page.shape), 0, 255).astype(np.uint8)


def photographed(page: Grey) -> Grey:
    """From the side, a little out of focus, with a shadow over a third of it."""
    chance = np.random.default_rng(2)
    height, width = page.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    seen = corners + np.array(
        [[0.05, 0.04], [-0.02, 0.01], [-0.05, -0.02], [0.02, -0.04]]
    ) * np.array([width, height])
    view = cv2.getPerspectiveTransform(corners, seen.astype(np.float32))
    shot = cv2.warpPerspective(page, view, (width, height), borderValue=70).astype(np.float32)
    light = cv2.resize(
        np.array([[1.0, 0.92, 0.8], [0.97, 0.85, 0.62], [0.9, 0.75, 0.55]], np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    shot = cv2.GaussianBlur(shot * light, (0, 0), 0.9)
    return np.clip(shot + chance.normal(0, 4.0, page.shape), 0, 255).astype(np.uint8)


SPOILT: dict[str, Callable[[Grey], Grey]] = {
    "crooked": crooked,
    "faded": faded,
    "photographed": photographed,
}


def rendered(page: Any, dpi: int) -> Grey:
    """A page in grey, shape (height, width)."""
    pixmap = page.get_pixmap(dpi=dpi, colorspace=pymupdf.csGRAY)
    shape = (pixmap.height, pixmap.stride)
    return np.frombuffer(pixmap.samples, np.uint8).reshape(shape)[:, : pixmap.width].copy()


def words_of(text: str) -> list[str]:
    """Words of two letters and more, in lower case."""
    return re.findall(r"[^\W_]{2,}", text.casefold())


def at_300(page: Any) -> list[str]:
    """Words that the command line is sure of at 300 dpi."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.pgm"
        page.get_pixmap(dpi=300, colorspace=pymupdf.csGRAY).save(picture)
        done = subprocess.run(
            ["tesseract", str(picture), "stdout", "--psm", "3", "-l", "eng", "--dpi", "300", "tsv"],
            env={"OMP_THREAD_LIMIT": "1", "PATH": "/usr/bin:/usr/local/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    sure = [row[11] for row in rows if len(row) > 11 and float(row[10]) >= SURE]
    return [word for text in sure for word in words_of(text)]


def in_common(found: list[str], wanted: list[str]) -> int:
    """How many of the wanted words were found, each as often as it stands there."""
    return sum((Counter(found) & Counter(wanted)).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pdf", type=Path)
    parser.add_argument("--pages", default="1-4")
    arguments = parser.parse_args()
    first, _, last = arguments.pages.partition("-")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir(mode=0o755)
        told: dict[str, Any] = {}
        with pymupdf.open(arguments.pdf) as source:
            numbers = range(int(first) - 1, min(int(last or first), source.page_count))
            truth = {number: at_300(source[number]) for number in numbers}
            for way, spoil in SPOILT.items():
                part = folder / f"{way}.pdf"
                with pymupdf.open() as doc:
                    for number in numbers:
                        spoilt = spoil(rendered(source[number], DPI))
                        jpeg = cv2.imencode(".jpg", spoilt, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
                        rect = source[number].rect
                        page = doc.new_page(width=rect.width, height=rect.height)
                        page.insert_image(page.rect, stream=jpeg.tobytes())
                    doc.save(part)
                quire(["read", str(part), "--out", str(folder / way)], home)
                told[way] = compared(part, home, list(numbers), truth)
        quire(["db", "stop"], home)
    print(json.dumps(told, indent=1))


def compared(
    part: Path, home: Path, numbers: list[int], truth: dict[int, list[str]]
) -> dict[str, Any]:
    """What Quire is sure of on the pages of a document, beside 300 dpi."""
    os.environ["QUIRE_HOME"] = str(home)
    with prepare(from_environment()).connect() as db:
        rows = db.execute(
            """
            SELECT page, text, words FROM ocr_pages JOIN documents USING (document_id)
            WHERE name = %(name)s ORDER BY page
            """,
            {"name": part.name},
        ).fetchall()
    ours = sum_wide = right = right_wide = wanted = 0
    with pymupdf.open(part) as doc:
        for (page, text, words), number in zip(rows, numbers, strict=True):
            spans = [
                text[int(start) : int(end)]
                for start, end, *_, confidence in words
                if confidence >= SURE
            ]
            sure = [word for span in spans for word in words_of(span)]
            wide = at_300(doc[page - 1])
            ours += len(sure)
            sum_wide += len(wide)
            right += in_common(sure, truth[number])
            right_wide += in_common(wide, truth[number])
            wanted += len(truth[number])
    return {
        "pages": len(rows),
        "words with confidence >= 60": ours,
        "the same at 300 dpi": sum_wide,
        "share of 300 dpi": round(ours / max(1, sum_wide), 3),
        "of the words of the page before": round(right / max(1, wanted), 3),
        "the same at 300 dpi, of the page before": round(right_wide / max(1, wanted), 3),
    }


if __name__ == "__main__":
    main()
