from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.features import extract_features
from core.relations import Relation
from core.scoring import ScoreModel, pair_vector, probability_of, read_model, tier_of
from core.verification import Match, PanelView, verify_pair
from tests.core.pictures import cells, turned


def matched() -> Match:
    a, b = (PanelView(i, extract_features(i)) for i in (cells(1), turned(cells(1), 10)))
    match = verify_pair(a, b)
    assert match is not None
    return match


MATCH = matched()


def test_a_turned_copy_is_all_but_certain() -> None:
    assert probability_of(MATCH, Relation.SAME_IMAGE) > 0.95


@given(ncc=st.floats(-1, 1), less=st.floats(0, 1))
def test_less_agreement_never_raises_the_probability(ncc: float, less: float) -> None:
    worse = {**MATCH.evidence, "local": MATCH.evidence["local"] - less}
    high = replace(MATCH, ncc=ncc)
    low = replace(MATCH, ncc=ncc - less, evidence=worse)
    assert probability_of(low, Relation.SAME_IMAGE) <= probability_of(high, Relation.SAME_IMAGE)


@given(probability=st.floats(0, 1))
def test_another_channel_is_never_tier_a(probability: float) -> None:
    assert tier_of(probability, Relation.OTHER_CHANNEL) != "A"


@pytest.mark.parametrize(("probability", "tier"), [(0.99, "A"), (0.7, "B"), (0.3, "C")])
def test_tiers_follow_the_probability(probability: float, tier: str) -> None:
    assert tier_of(probability, Relation.SAME_IMAGE) == tier


def test_a_model_adds_up_standardised_numbers() -> None:
    model = ScoreModel(("x",), np.array([1.0]), np.array([2.0]), np.array([3.0]), 0.0)
    np.testing.assert_allclose(
        model.probability(np.array([[1.0], [3.0]])), [0.5, 1 / (1 + np.exp(-3))]
    )


def test_numbers_of_a_match_are_finite() -> None:
    assert np.isfinite(pair_vector(MATCH)).all()


def test_a_negative_weight_is_refused() -> None:
    data = {"names": ["x"], "centre": [0], "spread": [1], "weights": [-1], "bias": 0}
    with pytest.raises(ValueError, match="negative"):
        read_model(data)


def test_lists_of_different_length_are_refused() -> None:
    data = {"names": ["x", "y"], "centre": [0], "spread": [1], "weights": [1], "bias": 0}
    with pytest.raises(ValueError, match="differ in length"):
        read_model(data)
