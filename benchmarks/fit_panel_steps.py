"""Fit ``core.panels.StepModel``: where do two pictures touch?

    python -m benchmarks.fit_panel_steps --images FOLDER --truth groundtruth.json ... \
        [--held-out groundtruth.json ...]

Pairs of different pictures are put side by side as a flattened figure would hold them (resampled,
joined, compressed, resampled again to 150 dpi, with the border anywhere within a pixel), and single
pictures the same way. The model learns the border of each pair against the most border-like line of
each single picture, found again after each round, and the same in the documents of truth files.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.fit_modality import annotated, blot
from core.geometry import Image
from core.panels import StepModel, step_evidence
from resources.pdf import PdfFile

Rng = np.random.Generator
NAMES = (
    "wins",
    "wins_clearly",
    "wins_widely",
    "loses",
    "everywhere",
    "contrast",
    "lead",
    "shift",
)
MARGIN = 42
"""20 points at 150 dpi: no cut is nearer to a picture's edge."""


@dataclass(frozen=True)
class FitSpec:
    """How the sample is made."""

    pairs: int = 900
    singles: int = 1500
    rounds: int = 5
    """Of finding the most border-like lines again; the last two agree."""
    ridge: float = 1e-4
    document_weight: int = 10
    """How often each line of a real layout counts: the sample's are many and all of one making."""
    seed: int = 3


def pictures(folder: Path) -> list[Image]:
    """The images of a folder."""
    found: list[Image] = []
    for path in sorted(folder.glob("*.png")):
        stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if stored is not None:
            found.append(np.ascontiguousarray(stored[..., ::-1]))
    return found


def view(pool: list[Image], height: int, rng: Rng) -> Image:
    """A part of a picture, or a blot, at a height in pixels, with or without a scale bar."""
    source = blot(rng) if rng.random() < 0.15 else pool[int(rng.integers(len(pool)))]
    h, w = source.shape[:2]
    share = rng.uniform(0.5, 1.0)
    y, x = int(rng.uniform(0, 1 - share) * h), int(rng.uniform(0, 1 - share) * w)
    part = source[y : y + int(share * h), x : x + int(share * w)]
    width = max(90, round(part.shape[1] * height / part.shape[0] * rng.uniform(0.8, 1.2)))
    sized = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    image = np.asarray(sized, np.uint8)
    return annotated(image, rng)[:height, :width] if rng.random() < 0.3 else image


def flattened(parts: list[Image], rng: Rng) -> tuple[NDArray[np.uint8], float]:
    """Pictures side by side as rendered from one compressed image, and where the first ends."""
    high = min(part.shape[0] for part in parts)
    joined = np.hstack([part[:high] for part in parts])
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 97))]
    stored = cv2.imdecode(cv2.imencode(".jpg", joined, quality)[1], cv2.IMREAD_COLOR)
    scale = rng.uniform(0.45, 1.15)
    sized = cv2.resize(stored, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    gray = np.asarray(cv2.cvtColor(sized, cv2.COLOR_RGB2GRAY), np.uint8)
    return gray, parts[0].shape[1] * gray.shape[1] / joined.shape[1]


def sample(pool: list[Image], spec: FitSpec) -> tuple[list[Any], list[Any]]:
    """Evidence around borders, and evidence of all lines of single pictures."""
    rng = np.random.default_rng(spec.seed)
    borders: list[Any] = []
    singles: list[Any] = []
    while len(borders) < spec.pairs:
        height = int(rng.integers(110, 520))
        gray, at = flattened([view(pool, height, rng), view(pool, height, rng)], rng)
        if min(at, gray.shape[1] - at) > MARGIN and gray.shape[0] > 40:
            middle = round(at)
            borders.append(step_evidence(gray[2:-2])[middle - 2 : middle + 3])
    while len(singles) < spec.singles:
        gray, _ = flattened([view(pool, int(rng.integers(110, 520)), rng)], rng)
        if rng.random() < 0.5:
            gray = np.ascontiguousarray(gray.T)
        if gray.shape[1] > 2 * MARGIN + 10 and gray.shape[0] > 40:
            singles.append(step_evidence(gray[2:-2])[MARGIN:-MARGIN])
    return borders, singles


def in_documents(truth: Path) -> Iterator[tuple[bool, Any]]:
    """Evidence of touching borders and of single pictures in the documents beside a truth file."""
    k = 150 / 72
    for doc in json.loads(truth.read_text())["docs"]:
        with PdfFile(truth.parent / doc["file"]) as pdf:
            for page in doc["pages"]:
                image = pdf.render(page["page"], 150).image
                gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
                boxes = [each["bbox"] for each in page["panels"] if each["kind"] == "image"]
                for turned in (gray, np.ascontiguousarray(gray.T)):
                    for a in boxes:
                        x0, y0, x1, y1 = (round(v * k) for v in a)
                        inner = turned[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
                        if inner.shape[1] > 2 * MARGIN + 10:
                            yield False, step_evidence(np.ascontiguousarray(inner))[MARGIN:-MARGIN]
                        for b in boxes:
                            same_rows = abs(a[1] - b[1]) < 1 and abs(a[3] - b[3]) < 1
                            if same_rows and abs(a[2] - b[0]) < 0.4:
                                part = turned[y0 + 2 : y1 - 2, x1 - 60 : x1 + 60]
                                yield True, step_evidence(np.ascontiguousarray(part))[57:64]
                    boxes = [[b[1], b[0], b[3], b[2]] for b in boxes]


def fit(borders: list[Any], singles: list[Any], spec: FitSpec) -> NDArray[np.float64]:
    """Eight weights and the constant."""
    weights = np.array([5.0, 5, 10, -7, 1, 2, 2, 2, -9.6])
    for _ in range(spec.rounds):
        best = [each[(each @ weights[:-1]).argmax()] for each in (*borders, *singles)]
        table = np.hstack([np.array(best), np.ones((len(best), 1))])
        sign = np.where(np.arange(len(best)) < len(borders), 1.0, -1.0)
        share = np.where(sign > 0, 0.5 / len(borders), 0.5 / len(singles))
        scale = np.append(table[:, :-1].std(axis=0), 1.0)

        def loss(w: NDArray[Any]) -> float:
            margins = sign * (table / scale @ w)  # noqa: B023 - used within this round only
            return float((share * np.logaddexp(0, -margins)).sum() + spec.ridge * w[:-1] @ w[:-1])  # noqa: B023

        weights = minimize(loss, np.zeros(9)).x / scale
    return weights


def describe(name: str, borders: list[Any], singles: list[Any], weights: NDArray[Any]) -> None:
    """Print how borders and single pictures score."""
    score = lambda items: np.sort([(e @ weights[:-1]).max() + weights[-1] for e in items])  # noqa: E731
    true, false = score(borders), score(singles)
    print(f"{name}: {len(true)} borders, {len(false)} single pictures")
    print("  lowest borders ", true[:8].round(2), " highest singles", false[-8:].round(2))
    for odds in (0, 1, 2, 3, 4, 5, 6, 7, 8):
        print(f"  odds >= {odds}: {(true >= odds).mean():.3f} found, {(false >= odds).sum()} false")


def main() -> None:
    """Fit and print; the numbers go into ``StepModel``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--truth", type=Path, nargs="*", default=[])
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    spec = FitSpec()
    borders, singles = sample(pictures(arguments.images), spec)
    own = [line for truth in arguments.truth for line in in_documents(truth)]
    weights = fit(
        borders + spec.document_weight * [line for touches, line in own if touches],
        singles + [line for touches, line in own if not touches],
        spec,
    )
    for name, value in zip((*NAMES, "constant"), weights, strict=True):
        print(f"    {name}: float = {value:.3f}")
    describe("sample", borders, singles, weights)
    now = StepModel()
    current = np.array([*(getattr(now, name) for name in NAMES), now.constant])
    for truth in (*arguments.truth, *arguments.held_out):
        found = list(in_documents(truth))
        true, false = [e for yes, e in found if yes], [e for yes, e in found if not yes]
        describe(f"{truth.parent.name}, fitted now", true, false, weights)
        describe(f"{truth.parent.name}, in use", true, false, current)
    describe("sample, in use", borders, singles, current)


if __name__ == "__main__":
    main()
