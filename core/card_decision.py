"""From what was measured on a card to a probability, and from that to a decision.

The model is logistic and small, and each of its numbers can only speak for the first candidate as
it grows. ``benchmarks/fit_identification.py`` fits it on cards that are known, cards that are not,
and reprints that share their artwork with a known card; what it writes is
``core/data/identification_model.json``.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.card_comparison import ComparisonSpec, Windows
from core.card_verification import FRAME_PX
from core.scoring import ScoreModel, read_model

Vector = NDArray[np.float64]

NUMBERS = ("inliers", "agree", "agree_low", "strip", "strip_agree", "spots", "margin", "leaning")


def window_measures(windows: Windows, spec: ComparisonSpec) -> dict[str, float]:
    """What the windows say in a few numbers.

    Args:
        windows: Agreement of the card with the first candidate.
        spec: Where the strip is, and what counts as showing something.

    Returns:
        ``agree``, ``agree_low``: median and lowest tenth of the correlation of windows that show
        something. ``strip``: how much the worst place of either half of the number strip differs
        more than is typical, in logarithms; ``strip_agree`` its lowest correlation. ``spots`` the
        same as ``strip`` for the rest of the card. 0 where there are no such windows.
    """
    shows = windows.detail > spec.texture
    x, y = windows.places.T
    low = y > FRAME_PX[1] * (1 - spec.strip_height)
    agree = windows.agree[shows]
    halves = [low & shows & side for side in (x < FRAME_PX[0] / 2, x >= FRAME_PX[0] / 2)]
    return {
        "agree": float(np.median(agree)) if len(agree) else 0.0,
        "agree_low": float(np.quantile(agree, 0.1)) if len(agree) else 0.0,
        "strip": max(_worst(windows.excess[half], 6) for half in halves),
        "strip_agree": min(_least(windows.agree[half], 6) for half in halves),
        "spots": _worst(windows.excess[~low & shows], 40),
        "textured": float(shows.mean()) if len(shows) else 0.0,
    }


def _worst(excess: Vector, count: int) -> float:
    """Mean of the largest few."""
    return float(np.sort(excess)[-count:].mean()) if len(excess) else 0.0


def _least(agree: Vector, count: int) -> float:
    """Mean of the smallest few."""
    return float(np.sort(agree)[:count].mean()) if len(agree) else 1.0


def vector_of(measures: Mapping[str, float]) -> Vector:
    """What speaks for the first candidate, in the order of ``NUMBERS``."""
    return np.array(
        [
            np.log1p(min(measures["inliers"], 150.0)),
            _missing(measures["agree"]),
            _missing(measures["agree_low"]),
            -np.clip(measures["strip"], 0.0, 4.0),
            _missing(measures["strip_agree"]),
            -np.clip(measures["spots"], 0.0, 4.0),
            np.log1p(np.clip(measures["margin"], 0.0, 400.0)),
            np.clip(measures["leaning"], 0.0, 1.0),
        ]
    )


def _missing(correlation: float) -> float:
    """-log of what a correlation lacks to 1; below 0 it counts as 0."""
    return -float(np.log(1.0 - min(max(correlation, 0.0), 1.0) + 0.02))


def probability_of(measures: Mapping[str, float]) -> float:
    """Calibrated probability, 0 to 1, that the first candidate is the card."""
    return float(model().probability(vector_of(measures)[None])[0])


@cache
def model() -> ScoreModel:
    """The shipped model."""
    text = (files("core") / "data" / "identification_model.json").read_text("utf-8")
    data: Any = json.loads(text)
    return read_model(data)
