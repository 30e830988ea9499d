"""Fit the probabilities of core.scoring, and say how far they can be trusted.

    python -m benchmarks.calibrate --images FOLDER [--bench FOLDER ...] --write

Calibration data are panels with planted reuse made from a folder of pictures and, where given, PDFs
whose copies are listed. What is scored was never fitted on: the reliability is measured fold by
fold, a fold being a quarter of the pictures or one bench.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.planted_pairs import draw_blot, load_pictures, plant, plant_copy_move, show
from core.copy_move import find_copy_moves
from core.features import extract_features
from core.geometry import Box, iou
from core.local_search import search_local
from core.modality import classify
from core.panels import detect_panels
from core.scoring import (
    COPY_MOVE_NUMBERS,
    PAIR_NUMBERS,
    ScoreModel,
    TierSpec,
    copy_move_vector,
    pair_vector,
)
from core.verification import PanelView, verify_pair
from resources.pdf import PdfFile


@dataclass(frozen=True)
class Row:
    """One scored match.

    Attributes:
        numbers: What the model sees.
        real: Whether it is a planted pair.
        fold: Rows of one fold are scored by a model fitted on the others.
        note: What it is, for looking at mistakes.
    """

    numbers: NDArray[np.float64]
    real: bool
    fold: str
    note: str


def view_of(
    image: NDArray[np.uint8], ignore: tuple[Any, ...] = (), modality: str = "other"
) -> PanelView:
    """A panel with its features."""
    return PanelView(image, extract_features(image, ignore), ignore, modality)


def planted_rows(pictures: dict[str, NDArray[np.uint8]], fold: str, seed: int) -> Iterator[Row]:
    """Matches among panels with planted copies; every candidate of the search is verified."""
    rng = np.random.default_rng(seed)
    panels = plant(pictures, rng)
    views = [view_of(p.image, modality=p.modality) for p in panels]
    by_id = {f"{i:05d}": view.features for i, view in enumerate(views)}
    for candidate in search_local(by_id, [by_id]).candidates:
        i, j = int(candidate.a), int(candidate.b)
        a, b = panels[i], panels[j]
        common = 0.0
        if a.source == b.source:
            smaller = min(a.area.sum(), b.area.sum())
            common = float((a.area & b.area).sum() / max(1, smaller))
        if 0 < common < 0.15:
            continue
        match = verify_pair(views[i], views[j])
        if match is not None:
            note = f"{a.source}/{b.source} {a.edit}{b.edit} overlap {common:.2f}"
            yield Row(pair_vector(match), common > 0, fold, note)


def copy_move_rows(pictures: dict[str, NDArray[np.uint8]], fold: str, seed: int) -> Iterator[Row]:
    """Repeated regions in panels with a planted one, and in the same panels without."""
    rng = np.random.default_rng(seed)
    for name, picture in pictures.items():
        side = float(rng.uniform(180, 380))
        moved, planted = plant_copy_move(picture, rng)
        for image, places in ((picture, None), (moved, planted)):
            shown = show(image, rng, side)
            scale = picture.shape[1] / shown.shape[1]
            for match in find_copy_moves(view_of(shown)):
                a, b = (r.mean(axis=0) * scale for r in (match.region_a, match.region_b))
                real = places is not None and (
                    (_holds(places[0], a) and _holds(places[1], b))
                    or (_holds(places[1], a) and _holds(places[0], b))
                )
                yield Row(copy_move_vector(match), real, fold, name)


def bench_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    """Matches among the detected panels of PDFs whose ``groundtruth.json`` lists the copies.

    Boxes there are in points; a match is real when each of its panels is a listed one.
    """
    truth = json.loads((folder / "groundtruth.json").read_text("utf-8"))
    panels: list[tuple[str, int, Box, PanelView]] = []
    for path in sorted(folder.glob("*.pdf")):
        with PdfFile(path) as pdf:
            for page in range(1, pdf.page_count + 1):
                shown = pdf.render(page, dpi=150)
                for found in detect_panels(shown.image, shown.dpi, pdf.content(page)):
                    x0, y0, x1, y1 = found.box_px
                    image = np.ascontiguousarray(shown.image[y0:y1, x0:x1])
                    kind = classify(image)
                    if not kind.is_drawing and found.alternative_of is None:
                        view = view_of(image, found.ignore_boxes_px, str(kind.modality))
                        panels.append((path.name, page, found.box_pt, view))

    def is_side(panel: tuple[str, int, Box, PanelView], side: dict[str, Any]) -> bool:
        return panel[:2] == (side["doc"], side["page"]) and iou(panel[2], side["bbox"]) > 0.5

    copied = [q for q in truth["pairs"] if q["cls"] == "copy_move"]
    pairs = [q for q in truth["pairs"] if q["cls"] != "copy_move"]
    for panel in panels:
        listed = next((q for q in copied if is_side(panel, q["a"])), None)
        for match in find_copy_moves(panel[3]):
            real = False
            if listed is not None:
                scale = (panel[2][2] - panel[2][0]) / panel[3].image.shape[1]
                a, b = (
                    r.mean(axis=0) * scale + panel[2][:2] for r in (match.region_a, match.region_b)
                )
                first, second = listed["a"]["region"], listed["b"]["region"]
                real = (_holds(first, a) and _holds(second, b)) or (
                    _holds(second, a) and _holds(first, b)
                )
            yield "copy_move", Row(copy_move_vector(match), real, folder.name, str(panel[:3]))
    by_id = {f"{i:05d}": panel[3].features for i, panel in enumerate(panels)}
    for candidate in search_local(by_id, [by_id]).candidates:
        one, other = panels[int(candidate.a)], panels[int(candidate.b)]
        match = verify_pair(one[3], other[3])
        if match is not None:
            real = any(
                (is_side(one, q["a"]) and is_side(other, q["b"]))
                or (is_side(other, q["a"]) and is_side(one, q["b"]))
                for q in pairs
            )
            yield "pair", Row(pair_vector(match), real, folder.name, f"{one[:3]} {other[:3]}")


def _holds(box: Sequence[float], point: NDArray[np.float64]) -> bool:
    """Whether a point lies in a box."""
    return bool(box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3])


def fit(rows: Sequence[Row], names: tuple[str, ...], ridge: float = 0.3) -> ScoreModel:
    """Logistic regression with weights that are not negative; both kinds weigh the same."""
    vectors = np.array([row.numbers for row in rows])
    real = np.array([row.real for row in rows], np.float64)
    centre, spread = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-3)
    x = (vectors - centre) / spread

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = x @ parameters[:-1] + parameters[-1]
        value = (np.logaddexp(0, logit) - real * logit).sum()
        error = 1 / (1 + np.exp(-logit)) - real
        gradient = np.append(x.T @ error + ridge * parameters[:-1], error.sum())
        return float(value + ridge / 2 * (parameters[:-1] ** 2).sum()), gradient

    bounds = [(0, None)] * len(names) + [(None, None)]
    start = np.append(np.full(len(names), 0.5), 0.0)
    result = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return ScoreModel(names, centre, spread, result.x[:-1], float(result.x[-1]))


def out_of_fold(rows: Sequence[Row], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Each row's probability from a model that saw no row of its fold."""
    probability = np.zeros(len(rows))
    for fold in sorted({row.fold for row in rows}):
        model = fit([row for row in rows if row.fold != fold], names)
        mine = [i for i, row in enumerate(rows) if row.fold == fold]
        probability[mine] = model.probability(np.array([rows[i].numbers for i in mine]))
    return probability


def reliability(probability: NDArray[np.float64], real: NDArray[np.bool_]) -> tuple[str, float]:
    """A table of stated against observed shares in ten bins, and the expected calibration error."""
    lines = ["| stated | matches | mean stated | real |", "|---|---|---|---|"]
    error = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (probability >= low) & (probability < low + 0.1 + (low > 0.85))
        if inside.any():
            stated, seen = probability[inside].mean(), real[inside].mean()
            error += inside.mean() * abs(stated - seen)
            lines.append(
                f"| {low:.1f}-{low + 0.1:.1f} | {inside.sum()} | {stated:.3f} | {seen:.3f} |"
            )
    return "\n".join(lines), float(error)


def tiers_table(probability: NDArray[np.float64], real: NDArray[np.bool_]) -> str:
    """How many matches each tier holds, and how many of them are real."""
    spec = TierSpec()
    lines = ["| tier | from | matches | real | share real |", "|---|---|---|---|---|"]
    bounds = (
        ("A", spec.tier_a, 1.1),
        ("B", spec.tier_b, spec.tier_a),
        ("not shown", 0, spec.tier_b),
    )
    for name, low, high in bounds:
        inside = (probability >= low) & (probability < high)
        count, true = int(inside.sum()), int(real[inside].sum())
        lines.append(f"| {name} | {low} | {count} | {true} | {true / max(1, count):.3f} |")
    return "\n".join(lines)


def collect(folder: Path, most: int, benches: Sequence[Path]) -> dict[str, list[Row]]:
    """Matches of panels with planted reuse, four folds by picture; neighbours share a fold.

    Every bench is a fold of its own.
    """
    pictures = load_pictures(folder, most, np.random.default_rng(0))
    names = sorted(pictures)
    rows: dict[str, list[Row]] = {"pair": [], "copy_move": []}
    for k in range(4):
        part = {n: pictures[n] for i, n in enumerate(names) if i // 8 % 4 == k}
        rows["pair"] += planted_rows(part, f"pictures {k}", k)
        for i in range(12):
            rng = np.random.default_rng([k, i])
            part[f"blot{i}"] = draw_blot(int(rng.integers(4, 9)), int(rng.integers(1, 3)), rng)
        rows["copy_move"] += copy_move_rows(part, f"pictures {k}", k)
        print(f"fold {k}: { {n: len(r) for n, r in rows.items()} }", flush=True)
    for bench in benches:
        for name, row in bench_rows(bench):
            rows[name].append(row)
        print(f"{bench.name}: { {n: len(r) for n, r in rows.items()} }", flush=True)
    return rows


def describe(name: str, rows: Sequence[Row], numbers: tuple[str, ...], model: ScoreModel) -> str:
    """The section of docs/calibration.md on one model."""
    probability = out_of_fold(rows, numbers)
    real = np.array([row.real for row in rows])
    table, error = reliability(probability, real)
    clean = probability[~real].max() if (~real).any() else 0.0
    weights = ", ".join(f"{n} {w:.2f}" for n, w in zip(numbers, model.weights, strict=True))
    worst = sorted(zip(probability, real, (r.note for r in rows), strict=True), key=lambda t: t[0])
    for stated, is_real, note in worst[::-1]:
        if not is_real and stated > 0.2:
            print(f"  false {stated:.3f} {note}")
    for stated, is_real, note in worst:
        if is_real and stated < 0.8:
            print(f"  missed {stated:.3f} {note}")
    title = "Pairs of panels" if name == "pair" else "Regions copied within a panel"
    return f"""## {title}

{len(rows)} matches, {int(real.sum())} of them real. Expected calibration error {error:.4f}; the
highest probability of a false match is {clean:.3f}.

{table}

{tiers_table(probability, real)}

Weights on standardised numbers: {weights}.
"""


HEAD = """# Calibration: what a probability means

Written by `benchmarks/calibrate.py`; run it again after any change to features, verification or
copy-move, and commit `core/data/scoring.json` with it.

The probability of a pair is a logistic model on a few numbers that verification measured. Its
weights are not negative, so more agreement never lowers it. It is fitted on matches among panels
with planted reuse, made from freely licensed micrographs and drawn blots: exact, recompressed,
resized, brightened, turned, mirrored, cropped, greyed and combined copies. False matches are what
the search proposed among all other panels: other parts of the same picture, neighbouring fields of
one slide, and blots of the same layout; and matches among the detected panels of synthetic papers
whose copies are known. Every probability below was stated by a model that saw nothing of that fold:
a quarter of the pictures, or one set of papers.

Real papers hold fewer copies per look-alike than this set. The probability says how a match
compares with these, not how often authors reuse pictures.

- **Tier A** starts where no false match of the set lies, with a margin. Another channel or the
  merge of one field is never tier A.
- **Tier B** starts at 0.5: at least every second is real.
- Anything less is kept for a later calibration and not shown.

"""

FOOT = """## What was fitted on what

`core/data/local_features.npz` (linear map and 4,096 visual words, `benchmarks/fit_features.py`) and
`core/data/scoring.json` were fitted on 340 micrographs: BBBC038v1 (CC0-1.0), CellProfiler examples
(BSD-3-Clause), NEUBIAS training resources (CC-BY-4.0), BCCD (MIT) and pyclesperanto_prototype
(BSD-3-Clause); the score also on two sets of synthetic papers. No picture is part of this project.
"""


def main() -> None:
    """Collect, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--most", type=int, default=110)
    parser.add_argument("--bench", type=Path, nargs="*", default=[], help="folders of PDFs + truth")
    parser.add_argument("--write", action="store_true", help="replace the shipped model and docs")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = collect(options.images, options.most, options.bench)
    written: dict[str, Any] = {}
    text = HEAD
    for name, numbers in (("pair", PAIR_NUMBERS), ("copy_move", COPY_MOVE_NUMBERS)):
        model = fit(rows[name], numbers)
        text += describe(name, rows[name], numbers, model) + "\n"
        written[name] = {
            "names": list(numbers),
            "centre": [round(float(v), 4) for v in model.centre],
            "spread": [round(float(v), 4) for v in model.spread],
            "weights": [round(float(v), 4) for v in model.weights],
            "bias": round(model.bias, 4),
        }
    text += FOOT
    print(text)
    if options.write:
        Path("core/data/scoring.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
        Path("docs/calibration.md").write_text(text.rstrip() + "\n", "utf-8")


if __name__ == "__main__":
    main()
