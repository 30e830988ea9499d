"""How well identifications agree with what people say of them."""

from collections.abc import Sequence

BINS = 10


def calibration_error(pairs: Sequence[Sequence[float]], bins: int = BINS) -> float | None:
    """Expected calibration error: how far probabilities are from how often they come true.

    Args:
        pairs: Probability that was stated, 0 to 1, and 1 where it came true, else 0.
        bins: Of equal width, over which the difference is averaged by the pairs in them.

    Returns:
        0 to 1; None without pairs.

    Source:
        Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    if not pairs:
        return None
    sums = [[0.0, 0.0, 0.0] for _ in range(bins)]
    for probability, came_true in pairs:
        one = sums[min(bins - 1, int(probability * bins))]
        one[0] += 1
        one[1] += probability
        one[2] += came_true
    return sum(abs(stated - true) for _, stated, true in sums) / len(pairs)


def share(part: int, whole: int) -> float | None:
    """A part of a whole, 0 to 1; None of nothing."""
    return part / whole if whole else None
