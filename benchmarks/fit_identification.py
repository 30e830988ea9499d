"""Fit the probability of identifications and write ``core/data/identification_model.json``.

    python -m benchmarks.fit_identification FOLDER [FOLDER ...] --held-out FOLDER [FOLDER ...] \
        [--jitter 0.012] [--write core/data/identification_model.json]

A folder holds ``gallery.json`` with ``gallery/``, and ``truth.json`` with ``scans/``: outlines of
cards, which item each is, and which are new artworks or unseen reprints. Every card is cut out
along its outline, with corners off by a normal error of ``--jitter`` times its width, searched by
``core.card_descriptor`` and identified. Prints what the held-out folders give, with the model that
was just fitted.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from core.card_decision import NUMBERS, vector_of
from core.card_descriptor import describe, search_views
from core.geometry import Image
from core.identification import IdentificationSpec, Recalled, Template, identify
from core.scoring import read_model

CARD_PX = (300, 420)
LEAST_VISIBLE = 0.6
"""Cards of which less is seen are nobody's to name."""
ACCEPT = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class FitSpec:
    """How the model is fitted.

    Attributes:
        ridge: Penalty on squared weights: the numbers are correlated.
        reprint_weight: How much an unseen reprint counts, 0.3: the folders for fitting hold a third
            of them, a collection perhaps a tenth.
    """

    ridge: float = 3e-3
    reprint_weight: float = 0.3


@dataclass(frozen=True)
class Case:
    """One card, and what came of it.

    Attributes:
        wanted: The item, or empty.
        unknown: ``novel``, ``reprint`` or empty.
        alone: No other item has its artwork.
        first: The first candidate.
        recalled: The place of the wanted item in the search, from 1; 0 where it is missing.
        measures: What was measured.
        took_s: How long identification took.
    """

    wanted: str
    unknown: str
    alone: bool
    first: str
    recalled: int
    measures: dict[str, float]
    took_s: float

    @property
    def right(self) -> bool:
        """Whether the first candidate is the card."""
        return bool(self.wanted) and self.first == self.wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--held-out", nargs="+", type=Path, default=[])
    parser.add_argument("--jitter", type=float, nargs="+", default=[0.0, 0.012])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    cases = [case for jitter in given.jitter for f in given.folders for case in measure(f, jitter)]
    model = fit(cases, FitSpec())
    print(json.dumps(model, indent=1))
    report("fitted on", cases, model)
    for jitter in given.jitter:
        held = [case for folder in given.held_out for case in measure(folder, jitter)]
        if held:
            report(f"held out, corners off by {jitter:g} of the width", held, model)
    if given.write:
        given.write.write_text(json.dumps(model, indent=1) + "\n", "utf-8")


def measure(folder: Path, jitter: float) -> Iterator[Case]:
    """Identify every card of a folder that is seen well enough."""
    gallery = json.loads((folder / "gallery.json").read_text())
    templates = [
        Template(item["id"], name, partial(read_image, folder / "gallery" / name))
        for item in gallery
        for name in item["templates"]
    ]
    views: dict[str, list[Template]] = {}
    for template in templates:
        views.setdefault(template.item_id, []).append(template)
    known = np.concatenate([describe([template.load()]) for template in templates])
    for card, crop in cards(folder, jitter):
        recalled = recall(crop, templates, known)
        started = time.perf_counter()
        result = identify(crop, recalled, more=lambda item: views[item])
        took = time.perf_counter() - started
        order = [hit.template.item_id for hit in recalled]
        wanted = card["card_id"] if card["known"] else ""
        yield Case(
            wanted,
            card["unknown_kind"] or "",
            card["kind"] == "single",
            result.candidates[0].item_id if result.candidates else "",
            order.index(wanted) + 1 if wanted in order else 0,
            result.measures,
            took,
        )


def read_image(path: Path) -> Image:
    """An RGB image."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)


def cards(folder: Path, jitter: float) -> Iterator[tuple[dict[str, Any], Image]]:
    """Each visible card of the scans, cut out along an outline that is a little off."""
    rng = np.random.default_rng(5)
    width, height = CARD_PX
    goal = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    for scan in json.loads((folder / "truth.json").read_text()):
        image = read_image(folder / "scans" / scan["file"])
        for card in scan["cards"]:
            if card["visible"] < LEAST_VISIBLE:
                continue
            quad = np.array(card["quad"], np.float64)
            quad += rng.normal(0, 1, (4, 2)) * jitter * np.linalg.norm(quad[1] - quad[0])
            matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), goal)
            crop = cv2.warpPerspective(image, matrix, CARD_PX, flags=cv2.INTER_AREA)
            yield card, np.asarray(crop, np.uint8)


def recall(
    crop: Image, templates: Sequence[Template], known: NDArray[np.float32], items: int = 50
) -> list[Recalled]:
    """The nearest items, each by its nearest view."""
    views = search_views(crop)
    scores = known @ describe([view for view, _ in views]).T
    best = scores.max(axis=1)
    found: dict[str, Recalled] = {}
    for place in np.argsort(-best, kind="stable").tolist():
        hit = Recalled(templates[place], float(best[place]), views[int(scores[place].argmax())][1])
        found.setdefault(templates[place].item_id, hit)
        if len(found) == items:
            break
    return list(found.values())


def fit(cases: Sequence[Case], spec: FitSpec) -> dict[str, Any]:
    """The model in its JSON form; only cards on which some artwork was confirmed take part."""
    usable = [case for case in cases if "agree" in case.measures]
    vectors = np.stack([vector_of(case.measures) for case in usable])
    right = np.array([case.right for case in usable], np.float64)
    counts = np.array([spec.reprint_weight if c.unknown == "reprint" else 1.0 for c in usable])
    centre, spread = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-3)
    scaled = (vectors - centre) / spread

    def loss(parameters: NDArray[np.float64]) -> float:
        logit = scaled @ parameters[:-1] + parameters[-1]
        losses = np.logaddexp(0, logit) - right * logit
        penalty = spec.ridge * float((parameters[:-1] ** 2).sum())
        return float((counts * losses).sum() / counts.sum()) + penalty

    count = len(NUMBERS)
    bounds = [(0.0, None)] * count + [(None, None)]
    found = minimize(loss, np.append(np.full(count, 0.5), 0.0), bounds=bounds)
    return {
        "names": list(NUMBERS),
        "centre": np.round(centre, 4).tolist(),
        "spread": np.round(spread, 4).tolist(),
        "weights": np.round(found.x[:-1], 4).tolist(),
        "bias": round(float(found.x[-1]), 4),
    }


def scores_of(cases: Sequence[Case], model: dict[str, Any]) -> NDArray[np.float64]:
    """Probabilities by a model; 0 where no artwork was confirmed."""
    scores = np.zeros(len(cases))
    sure = [place for place, case in enumerate(cases) if "agree" in case.measures]
    vectors = np.stack([vector_of(cases[place].measures) for place in sure])
    scores[sure] = read_model(model).probability(vectors)
    return scores


def auroc(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """Chance that one of the first is above one of the second."""
    if len(above) == 0 or len(below) == 0:
        return float("nan")
    gap = above[:, None] - below[None, :]
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())


def report(title: str, cases: Sequence[Case], model: dict[str, Any]) -> None:
    """Print what matters."""
    scores = scores_of(cases, model)
    right = np.array([case.right for case in cases])
    known = [case for case in cases if case.wanted]
    alike = [case for case in known if not case.alone]
    print(f"{title}: {len(cases)} cards")
    print(f"  recall among the first 50 items: {np.mean([c.recalled > 0 for c in known]):.4f}")
    print(f"  first candidate right: {np.mean([case.right for case in known]):.4f}", end="")
    print(f", of look-alikes {np.mean([case.right for case in alike]):.4f} of {len(alike)}")
    for kind in ("novel", "reprint"):
        below = scores[[case.unknown == kind for case in cases]]
        print(f"  known and right above {kind}: {auroc(scores[right], below):.4f} of {len(below)}")
    seen = np.array([case.measures.get("strip_seen", 0.0) for case in cases])
    for limit in ACCEPT:
        taken = (scores >= limit) & (seen >= IdentificationSpec().accept_seen)
        precision = right[taken].mean() if taken.any() else float("nan")
        print(f"  at {limit:g}: {taken.mean():.3f} accepted, {precision:.4f} of them right")
    print(f"  median time: {1000 * np.median([case.took_s for case in cases]):.0f} ms a card")


if __name__ == "__main__":
    main()
