import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.gallery_quality import BINS, calibration_error, share


def test_probabilities_that_come_true_as_often_as_they_say_have_no_error() -> None:
    pairs = [(0.75, 1), (0.75, 1), (0.75, 1), (0.75, 0), (0.25, 1), (0.25, 0), (0.25, 0), (0.25, 0)]
    assert calibration_error(pairs) == pytest.approx(0)


def test_the_error_is_averaged_over_bins_by_what_is_in_them() -> None:
    # Three of .9 come true once in three: off by 1.7 / 3; one of .2 that does: off by .8.
    pairs = [(0.9, 1), (0.9, 0), (0.9, 0), (0.2, 1)]
    assert calibration_error(pairs) == pytest.approx((1.7 + 0.8) / 4)


def test_certainty_falls_into_the_last_bin() -> None:
    assert calibration_error([(1.0, 1), (0.95, 1)]) == pytest.approx(0.025)
    assert calibration_error([(1.0, 0)]) == 1


def test_nothing_has_no_error_and_no_share() -> None:
    assert calibration_error([]) is None
    assert share(0, 0) is None
    assert share(3, 0) is None


def test_a_share_is_of_the_whole() -> None:
    assert share(1, 4) == 0.25
    assert share(0, 4) == 0


@given(
    pairs=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1),
    bins=st.integers(1, 2 * BINS),
)
def test_an_error_is_never_below_0_or_above_1(pairs: list[tuple[float, int]], bins: int) -> None:
    error = calibration_error(pairs, bins)
    assert error is not None
    assert -1e-9 <= error <= 1 + 1e-9


@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1))
def test_one_bin_compares_the_averages(pairs: list[tuple[float, int]]) -> None:
    stated = sum(probability for probability, _ in pairs) / len(pairs)
    true = sum(came_true for _, came_true in pairs) / len(pairs)
    assert calibration_error(pairs, 1) == pytest.approx(abs(stated - true))
