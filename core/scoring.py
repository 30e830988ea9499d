"""One calibrated probability per match, and the tier it falls into.

What verification measured is turned into a few numbers that can only speak for a match, never
against it, and a logistic model whose weights are all positive adds them up: more agreement never
lowers the probability. It is fitted by ``benchmarks/calibrate.py``; docs/calibration.md shows how
far its probabilities can be trusted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.relations import Relation
from core.verification import Match

Tier = Literal["A", "B", "C"]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class TierSpec:
    """From which probability on a pair is reported, and how.

    Attributes:
        version: Part of the key of stored pairs.
        tier_a: No pair of the clean calibration data reaches it; see docs/calibration.md.
        tier_b: At least every second pair at this probability is real; below it nothing is shown.
        keep: Matches below this probability are not stored at all.
    """

    version: int = 1
    tier_a: float = 0.95
    tier_b: float = 0.5
    keep: float = 0.05


@dataclass(frozen=True)
class ScoreModel:
    """A logistic model on named, standardised numbers.

    Attributes:
        names: What the numbers are, for the documentation.
        centre: Subtracted from each.
        spread: Divides each.
        weights: None of them negative.
        bias: Added last.
    """

    names: tuple[str, ...]
    centre: Vector
    spread: Vector
    weights: Vector
    bias: float

    def probability(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of being real for vectors of shape (n, numbers), shape (n,)."""
        logit = ((vectors - self.centre) / self.spread) @ self.weights + self.bias
        return 1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30)))


PAIR_NUMBERS = ("ncc", "local", "agree", "detail", "inliers", "support", "area")
COPY_MOVE_NUMBERS = ("ncc", "local", "detail", "ssim", "hull", "weakest", "votes", "area", "rigid")


def pair_vector(match: Match) -> Vector:
    """What speaks for a match of two panels, in the order of ``PAIR_NUMBERS``.

    Correlations enter as the logarithm of what is missing to 1: from 0.9 to 0.99 is as far as from
    0.0 to 0.9, for only true copies come close to 1.
    """
    evidence = match.evidence
    return np.array(
        [
            _missing(match.ncc, 0.01),
            _missing(evidence["local"], 0.02),
            evidence["agree"],
            _missing(evidence["detail_ncc"], 0.05),
            np.log1p(min(match.inliers, 60)),
            min(evidence["support"], 0.6) * min(1.0, evidence["supported"] / 20),
            np.log(np.clip(evidence["area_px"] * evidence["textured"], 50, 8000)),
        ]
    )


def copy_move_vector(match: Match) -> Vector:
    """What speaks for a copied region within a panel, in the order of ``COPY_MOVE_NUMBERS``.

    ``rigid`` is 1 for a region moved without resizing by a right angle, and falls to 0 with the
    departure from that: natural look-alikes lie at any angle. ``weakest`` is the least of three
    agreements, each as a share of what is possible: a copy agrees in everything at once, while a
    band resembles the next band in shape but not in grain.
    """
    evidence = match.evidence
    turn = abs((match.rotation_deg + 45.0) % 90.0 - 45.0)
    whole, detail = _missing(match.ncc, 0.01), _missing(evidence["detail_ncc"], 0.03)
    structure = _missing(match.ssim, 0.02)
    return np.array(
        [
            whole,
            _missing(evidence["local"], 0.02),
            detail,
            structure,
            _missing(evidence["hull_detail_ncc"], 0.05),
            min(whole / 4.6, detail / 3.5, structure / 3.9),
            np.log1p(min(evidence["votes"], 20)),
            np.log(np.clip(evidence["area_px"], 200, 6000)),
            float(np.exp(-turn / 3.0 - abs(np.log(match.scale)) / 0.03)),
        ]
    )


def _missing(correlation: float, floor: float) -> float:
    """-log of what a correlation lacks to 1; below 0 it counts as 0."""
    return -float(np.log(1.0 - min(max(correlation, 0.0), 1.0) + floor))


def probability_of(match: Match, relation: Relation) -> float:
    """Calibrated probability, 0 to 1, that the two regions show the same thing."""
    models = _models()
    if relation == Relation.COPY_MOVE:
        return float(models["copy_move"].probability(copy_move_vector(match)[None])[0])
    return float(models["pair"].probability(pair_vector(match)[None])[0])


def tier_of(probability: float, relation: Relation, spec: TierSpec | None = None) -> Tier:
    """A: no false alarm on clean data. B: more likely real than not. C: not shown.

    Another channel or the merge of one field often has a good reason, so it is never tier A.
    """
    spec = spec or TierSpec()
    if probability >= spec.tier_a and relation != Relation.OTHER_CHANNEL:
        return "A"
    return "B" if probability >= spec.tier_b else "C"


@cache
def _models() -> dict[str, ScoreModel]:
    data: Any = json.loads((files("core") / "data" / "scoring.json").read_text("utf-8"))
    return {name: read_model(data[name]) for name in ("pair", "copy_move")}


def read_model(data: Mapping[str, Any]) -> ScoreModel:
    """A model from its JSON form.

    Raises:
        ValueError: A weight is negative, or the lists differ in length.
    """
    arrays = {key: np.array(data[key], np.float64) for key in ("centre", "spread", "weights")}
    if len({len(data["names"]), *(len(array) for array in arrays.values())}) != 1:
        raise ValueError("names, centre, spread and weights of a score model differ in length")
    if (arrays["weights"] < 0).any():
        raise ValueError("a weight of the score model is negative")
    return ScoreModel(tuple(data["names"]), **arrays, bias=float(data["bias"]))
