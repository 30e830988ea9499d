import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.features import (
    HEADER_BYTES,
    RECORD_BYTES,
    FeatureSpec,
    LocalFeatures,
    extract_features,
    mirror_permutation,
    mirrored,
    mirrored_words,
)
from tests.core.pictures import cells, lettered

PANEL = cells(1)
FEATURES = extract_features(PANEL)


def nearest_share(left: LocalFeatures, right: LocalFeatures, places: np.ndarray) -> float:
    """Share of features of ``left`` whose nearest descriptor in ``right`` lies at ``places``."""
    a, b = left.descriptors.astype(float), right.descriptors.astype(float)
    distance = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    found = right.points[distance.argmin(axis=1), :2]
    return float((np.abs(found - places).max(axis=1) < 2.5).mean())


def test_features_are_bounded_and_inside_the_panel() -> None:
    height, width = PANEL.shape[:2]
    assert 50 < len(FEATURES) <= FeatureSpec().max_features
    assert (FEATURES.points[:, :2] >= 0).all()
    assert (FEATURES.points[:, :2] < (width, height)).all()
    assert FEATURES.descriptors.dtype == np.uint8


def test_extraction_is_deterministic() -> None:
    again = extract_features(PANEL.copy())
    np.testing.assert_array_equal(again.points, FEATURES.points)
    np.testing.assert_array_equal(again.descriptors, FEATURES.descriptors)


def test_features_of_a_brightened_copy_match_in_place() -> None:
    bright = np.clip(255 * (PANEL / 255.0) ** 0.6 + 15, 0, 255).astype(np.uint8)
    copy = extract_features(bright)
    assert nearest_share(FEATURES, copy, FEATURES.points[:, :2]) > 0.6


def test_mirrored_descriptors_match_the_mirrored_panel_in_place() -> None:
    other = extract_features(np.ascontiguousarray(PANEL[:, ::-1]))
    flipped = LocalFeatures(FEATURES.points, mirrored(FEATURES.descriptors), FEATURES.words)
    expected = FEATURES.points[:, :2] * (-1, 1) + (PANEL.shape[1] - 1, 0)
    assert nearest_share(flipped, other, expected) > 0.6
    assert nearest_share(FEATURES, other, expected) < 0.2


def test_mirroring_twice_changes_nothing() -> None:
    np.testing.assert_array_equal(mirrored(mirrored(FEATURES.descriptors)), FEATURES.descriptors)
    np.testing.assert_array_equal(mirrored_words(mirrored_words(FEATURES.words)), FEATURES.words)
    twice = mirror_permutation()[mirror_permutation()]
    np.testing.assert_array_equal(twice, np.arange(128))


def test_lettering_gives_no_features() -> None:
    points = extract_features(lettered(PANEL)).points
    in_letter = (points[:, 0] < 26) & (points[:, 1] > 6) & (points[:, 1] < 28)
    on_bar = (points[:, 0] > 240) & (points[:, 0] < 300) & (abs(points[:, 1] - 246.5) < 4)
    assert not in_letter.any()
    assert not on_bar.any()


def test_masked_boxes_give_no_features() -> None:
    points = extract_features(PANEL, ((0, 0, 160, 260),)).points
    assert len(points) > 0
    assert (points[:, 0] > 160).all()


def test_a_flat_panel_has_no_features() -> None:
    assert len(extract_features(np.full((200, 200, 3), 90, np.uint8))) == 0


@pytest.mark.parametrize("shape", [(5, 400, 3), (12, 12, 3), (40, 2000, 3)])
def test_odd_shapes_are_taken(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, shape).astype(np.uint8)
    points = extract_features(image).points
    assert (points[:, :2] < (shape[1], shape[0])).all()


def test_any_prefix_is_spread_over_the_panel() -> None:
    head = FEATURES.head(60).points
    quarters = (head[:, 0] > 160).astype(int) + 2 * (head[:, 1] > 130)
    assert np.bincount(quarters, minlength=4).min() >= 6


def test_bytes_come_back_as_they_went() -> None:
    back = LocalFeatures.from_bytes(FEATURES.to_bytes())
    np.testing.assert_array_equal(back.descriptors, FEATURES.descriptors)
    np.testing.assert_array_equal(back.words, FEATURES.words)
    np.testing.assert_allclose(back.points[:, :3], FEATURES.points[:, :3], atol=1 / 60)
    turn = (back.points[:, 3] - FEATURES.points[:, 3] + 180) % 360 - 180
    assert np.abs(turn).max() < 0.01


@settings(max_examples=30)
@given(cut=st.integers(0, 3000))
def test_bytes_cut_anywhere_hold_the_features_before_the_cut(cut: int) -> None:
    data = FEATURES.to_bytes()[: HEADER_BYTES + cut]
    count = min(cut // RECORD_BYTES, len(FEATURES))
    back = LocalFeatures.from_bytes(data)
    np.testing.assert_array_equal(back.descriptors, FEATURES.descriptors[:count])


def test_other_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="not local features of this version"):
        LocalFeatures.from_bytes(b"QLF0" + bytes(100))
