import numpy as np
import pytest

from training.sources import DRAWINGS, Source, drawn_pictures, real_pictures
from training.views import ViewSpec, batch, overlap, places, view

SPEC = ViewSpec()


@pytest.fixture(scope="module")
def drawn() -> list[Source]:
    return drawn_pictures(2 * len(DRAWINGS), seed=3, workers=1)


def test_every_kind_is_drawn_and_the_same_seed_draws_the_same(drawn: list[Source]) -> None:
    assert {source.kind for source in drawn} == set(DRAWINGS)
    again = drawn_pictures(len(DRAWINGS), seed=3, workers=1)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(drawn, again, strict=False))
    assert not np.array_equal(drawn[0].image, drawn[len(DRAWINGS)].image)


def test_views_of_a_place_share_enough_and_places_share_nothing(drawn: list[Source]) -> None:
    rng = np.random.default_rng(1)
    found = 0
    for source in drawn:
        height, width = source.image.shape[:2]
        pairs = places(source, 4, SPEC, rng)
        found += len(pairs)
        for first, second in pairs:
            assert overlap(first, second) >= SPEC.least_overlap
            for window in (first, second):
                assert window.x - window.side / 2 + 1e-6 >= 0
                assert window.x + window.side / 2 <= width + 1e-6
                assert window.y + window.side / 2 <= height + 1e-6
        for place, (first, _) in enumerate(pairs):
            for other in pairs[place + 1 :]:
                assert all(overlap(first, window) <= 1e-6 for window in other)
    assert found > len(drawn)


def test_nothing_is_learnt_from_a_blank_picture() -> None:
    blank = Source("blank", "blank", "real", np.full((300, 300, 3), 200, np.uint8))
    assert places(blank, 4, SPEC, np.random.default_rng(0)) == []


def test_a_view_is_of_the_encoders_size_and_repeats_with_its_seed(drawn: list[Source]) -> None:
    source = drawn[0]
    ((first, _), *_) = places(source, 1, SPEC, np.random.default_rng(5))
    views = [view(source.image, first, SPEC, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert views[0].shape == (SPEC.side_px, SPEC.side_px, 3)
    assert views[0].dtype == np.uint8
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_a_batch_is_full_and_goes_pair_by_pair(drawn: list[Source]) -> None:
    groups: dict[str, list[int]] = {}
    for place, source in enumerate(drawn):
        groups.setdefault(source.group, []).append(place)
    plain = ViewSpec(
        same_window=1.0, oriented=0, rotated=0, toned=0, grey=0, one_channel=0, blurred=0,
        noisy=0, compressed=0, lettered=0, shown_px=(160, 160),
    )  # fmt: skip
    views = batch(drawn, groups, 8, plain, np.random.default_rng(2)).astype(float)
    assert views.shape == (16, SPEC.side_px, SPEC.side_px, 3)
    alike = [np.abs(views[2 * i] - views[2 * i + 1]).mean() for i in range(8)]
    other = [np.abs(views[2 * i] - views[(2 * i + 2) % 16]).mean() for i in range(8)]
    assert np.median(alike) < 0.3 * np.median(other)


def test_a_folder_without_pictures_is_an_error(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no picture"):
        real_pictures(tmp_path)
