import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.features import extract_features
from core.geometry import Image
from core.opencv import cv2
from core.verification import (
    PanelView,
    VerificationSpec,
    apply,
    compose,
    correlation,
    decompose,
    invert,
    local_correlation,
    regions,
    verify_pair,
)
from tests.core.pictures import cells, grey_picture, lettered, turned


def view(image: Image, modality: str = "other") -> PanelView:
    return PanelView(image, extract_features(image), (), modality)


PANEL = view(cells(1))


def test_an_exact_copy_lies_on_itself() -> None:
    match = verify_pair(PANEL, view(cells(1)))
    assert match is not None
    np.testing.assert_allclose(match.transform, [[1, 0, 0], [0, 1, 0]], atol=0.02)
    assert match.ncc > 0.999
    assert match.overlap > 0.99
    assert match.hamming == 0
    assert not match.mirrored


def test_a_turned_and_reduced_copy_gives_its_turn_and_scale() -> None:
    copy = cv2.resize(turned(cells(1), -15), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    match = verify_pair(PANEL, view(copy))
    assert match is not None
    assert match.rotation_deg == pytest.approx(15, abs=0.5)
    assert match.scale == pytest.approx(0.7, rel=0.01)
    assert match.ncc > 0.95


def test_a_mirrored_copy_is_called_mirrored() -> None:
    match = verify_pair(PANEL, view(np.ascontiguousarray(cells(1)[:, ::-1])))
    assert match is not None
    assert match.mirrored
    assert match.rotation_deg == pytest.approx(0, abs=0.5)
    assert match.ncc > 0.99


def test_overlapping_crops_share_the_region_they_share() -> None:
    whole = cells(3, 300, 420)
    left, right = whole[:, :280], whole[:, 150:]
    match = verify_pair(view(left), view(right))
    assert match is not None
    np.testing.assert_allclose(match.region_a.min(axis=0), (150, 0), atol=1)
    np.testing.assert_allclose(match.region_b.max(axis=0), (130, 300), atol=1)
    assert match.evidence["share_a"] == pytest.approx(130 / 280, abs=0.02)


def test_a_brightened_compressed_copy_still_matches() -> None:
    bright = np.clip(255 * (cells(1) / 255.0) ** 0.6 + 12, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", bright, [cv2.IMWRITE_JPEG_QUALITY, 55])
    match = verify_pair(PANEL, view(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))))
    assert match is not None
    assert match.ncc > 0.9
    assert match.evidence["brightness"] > 5


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_other_cells_under_the_same_lettering_do_not_agree(seed: int) -> None:
    match = verify_pair(view(lettered(cells(1))), view(lettered(cells(seed))))
    assert match is None or match.evidence["local"] < 0.5


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_panels_never_match(level: int) -> None:
    blank = view(np.full((200, 200, 3), level, np.uint8))
    assert verify_pair(blank, blank) is None
    assert verify_pair(blank, PANEL) is None


def test_the_same_light_over_other_noise_does_not_match() -> None:
    y, x = np.mgrid[:220, :260].astype(np.float32)
    light = 60 + 120 * np.exp(-((x - 130) ** 2 + (y - 110) ** 2) / 9000)
    a, b = (
        grey_picture(light + np.random.default_rng(i).normal(0, 8, light.shape)) for i in (1, 2)
    )
    match = verify_pair(view(a), view(b))
    assert match is None or match.evidence["local"] < 0.5


def test_verification_is_deterministic_and_symmetric_in_what_it_finds() -> None:
    other = view(turned(cells(1), 30))
    first, second, back = (
        verify_pair(PANEL, other),
        verify_pair(PANEL, other),
        verify_pair(other, PANEL),
    )
    assert first is not None
    assert second is not None
    assert back is not None
    np.testing.assert_array_equal(first.transform, second.transform)
    np.testing.assert_allclose(invert(back.transform), first.transform, atol=0.6)


@given(
    angle=st.floats(-179, 179),
    scale=st.floats(0.3, 3),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    mirror=st.booleans(),
)
def test_a_transform_comes_apart_into_what_it_was_made_of(
    angle: float, scale: float, shift: tuple[float, float], mirror: bool
) -> None:
    c, s = np.cos(np.deg2rad(angle)) * scale, np.sin(np.deg2rad(angle)) * scale
    transform = np.array([[c, -s, shift[0]], [s, c, shift[1]]])
    if mirror:
        transform[:, 0] *= -1
    was_mirrored, turn, size = decompose(transform)
    assert was_mirrored is mirror
    assert (turn - angle + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert size == pytest.approx(scale)
    there_and_back = compose(invert(transform), transform)
    np.testing.assert_allclose(there_and_back, np.eye(2, 3), atol=1e-9)


@settings(max_examples=40)
@given(dx=st.floats(-150, 150), dy=st.floats(-120, 120))
def test_common_regions_lie_in_both_panels(dx: float, dy: float) -> None:
    transform = np.array([[1.0, 0, dx], [0, 1.0, dy]])
    region_a, region_b = regions((130, 160, 3), (130, 160, 3), transform)
    if len(region_a):
        np.testing.assert_allclose(apply(transform, region_a), region_b)
        for region in (region_a, region_b):
            assert (region >= -1e-3).all()
            assert (region <= np.array([160, 130]) + 1e-3).all()


def test_correlation_ignores_brightness_and_contrast() -> None:
    grey = cells(1)[..., 0].astype(np.float32)
    everywhere = np.ones(grey.shape, np.bool_)
    assert correlation(grey, 0.3 * grey + 40, everywhere) == pytest.approx(1)
    assert correlation(grey, 255 - grey, everywhere) == pytest.approx(-1)
    assert correlation(grey, np.full_like(grey, 7), everywhere) == 0


def test_windows_that_show_nothing_do_not_count() -> None:
    grey = np.full((80, 80), 50, np.float32)
    grey[:, :40] += np.random.default_rng(0).normal(0, 20, (80, 40)).astype(np.float32)
    value, shown = local_correlation(grey, grey.copy(), np.ones(grey.shape, np.bool_), 9)
    assert shown[:, :30].all()
    assert not shown[:, 50:].any()
    assert value[shown].min() > 0.999


def test_few_features_end_before_the_pixels() -> None:
    spec = VerificationSpec(min_inliers=10_000)
    assert verify_pair(PANEL, PANEL, spec) is None
