from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.parity import GATE, Measured, Parity, compare, edited, is_same, refusal, witness_image

IMAGES, DIM = 240, 48


def vectors(seed: int, images: int = IMAGES) -> NDArray[np.float32]:
    """Like an encoder's: all images share a large part."""
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(images, DIM)) + 3.0)


def unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def measured(images: int = IMAGES) -> Measured:
    originals = vectors(0, images)
    noise = np.random.default_rng(1).normal(size=originals.shape)
    return Measured(originals, unit(originals + 0.01 * noise))


def disturbed(by: float, images: int = IMAGES) -> Measured:
    """The reference's vectors with an error of this length."""
    noise = np.random.default_rng(2).normal(size=(2, images, DIM))
    noise /= np.linalg.norm(noise, axis=2, keepdims=True)
    reference = measured(images)
    return Measured(unit(reference.images + by * noise[0]), unit(reference.edited + by * noise[1]))


def test_the_reference_passes_against_itself() -> None:
    parity = compare(measured(), measured())
    assert (parity.images, parity.top_1, parity.top_10, parity.lost) == (IMAGES, 1.0, 1.0, 0)
    assert parity.worst == pytest.approx(1)
    assert parity.worst_plain == pytest.approx(1)
    assert parity.recall == parity.reference_recall
    assert refusal(parity, exact=True) == refusal(parity, exact=False) == ""
    assert parity.recall > 0.9


def test_a_small_error_passes_and_a_large_one_is_refused() -> None:
    assert refusal(compare(measured(), disturbed(0.0005)), exact=False) == ""
    said = refusal(compare(measured(), disturbed(0.1)), exact=False)
    assert "worst centred cosine 0." in said
    assert "nearest neighbours agree in" in said


def test_what_all_images_share_hides_nothing() -> None:
    """The error that plain cosines call .999 is most of what tells images apart."""
    parity = compare(measured(), disturbed(0.04))
    assert parity.worst_plain > 0.998
    assert parity.worst < 0.99


def test_full_precision_has_to_agree_but_for_rounding() -> None:
    parity = compare(measured(), disturbed(0.006))
    assert refusal(parity, exact=True).startswith("a vector is 0.99998")


def test_too_few_images_judge_no_reduced_precision() -> None:
    few = compare(measured(199), measured(199))
    assert refusal(few, exact=False) == "needs 200 real images, had 199"
    assert refusal(few, exact=True) == ""


PASSED = Parity(200, 1.0, 1.0, 1.0, 1.0, 1.0, 0.95, 0.95, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"worst": 0.9989}, "worst centred cosine 0.9989"),
        ({"top_1": 0.99}, "nearest neighbours agree in 99.0%"),
        ({"top_10": 0.994}, "ten nearest neighbours agree in 99.4%"),
        ({"lost": 1}, "finds 95.0% of edited images, the reference 95.0%"),
        ({"recall": 0.935}, "finds 93.5% of edited images, the reference 95.0%"),
    ],
)
def test_each_demand_refuses_by_itself(change: dict[str, float], said: str) -> None:
    assert refusal(PASSED, exact=False) == ""
    refused = replace(PASSED, **change)  # pyright: ignore[reportArgumentType]
    assert refusal(refused, exact=False) == said
    assert refusal(refused, exact=True) == said


def test_neighbours_as_near_as_the_nearest_are_a_tie() -> None:
    def three(angle: float) -> NDArray[np.float32]:
        turned = [[1.0, 0.0], [np.cos(0.5), np.sin(0.5)], [np.cos(angle), -np.sin(angle)]]
        return np.array([*turned, [-1.0, 0.0]], dtype=np.float32)

    wanted = Measured(three(0.501), three(0.501))
    assert compare(wanted, Measured(three(0.499), three(0.499))).top_1 == 1.0
    apart = Measured(three(0.4), three(0.4))
    assert compare(wanted, apart, replace(GATE, tie=1e-6)).top_1 < 1.0


@given(scale=st.floats(0.1, 10), seed=st.integers(0, 50))
def test_lengths_do_not_matter(scale: float, seed: int) -> None:
    found = Measured(vectors(seed, 12), vectors(seed + 1, 12))
    longer = Measured(found.images * np.float32(scale), found.edited * np.float32(scale))
    one, other = (compare(measured(12), each) for each in (found, longer))
    assert one.worst_plain == pytest.approx(other.worst_plain, abs=1e-6)


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(ValueError, match="compared with"):
        compare(measured(3), measured(4))


def test_edits_leave_a_picture_of_the_same_kind_and_differ_from_each_other() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 52, 3), dtype=np.uint8)
    copies = [edited(image, number) for number in range(6)]
    assert all(copy.dtype == np.uint8 and copy.shape[2] == 3 for copy in copies)
    assert len({copy.tobytes() for copy in copies} | {image.tobytes()}) == 7
    np.testing.assert_array_equal(edited(image, 6), copies[0])


def test_the_witness_is_always_the_same_picture() -> None:
    np.testing.assert_array_equal(witness_image(), witness_image())
    assert witness_image().shape == (160, 160, 3)
    vector = vectors(0)[0]
    assert is_same(vector, vector)
    assert not is_same(vector, vectors(1)[0])
