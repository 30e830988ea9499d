import numpy as np
import pytest

from core.copy_move import find_copy_moves
from core.features import extract_features
from core.geometry import Image
from core.relations import Relation
from core.scoring import copy_move_vector, probability_of
from core.verification import Match, PanelView
from tests.core.pictures import cells


def find(image: Image) -> list[Match]:
    return find_copy_moves(PanelView(image, extract_features(image)))


def planted(edit: str) -> Image:
    image = cells(1)
    patch = image[20:100, 130:210].copy()
    moved = {"none": patch, "flip": patch[:, ::-1], "half turn": patch[::-1, ::-1]}[edit]
    image[150:230, 20:100] = moved
    return image


@pytest.mark.parametrize("edit", ["none", "flip", "half turn"])
def test_a_moved_region_is_found_where_it_was_taken_and_put(edit: str) -> None:
    match = find(planted(edit))[0]
    put, taken = sorted(
        (match.region_a.mean(axis=0), match.region_b.mean(axis=0)), key=lambda p: p[0]
    )
    assert 20 < put[0] < 100
    assert 150 < put[1] < 230
    assert 130 < taken[0] < 210
    assert 20 < taken[1] < 100
    assert match.mirrored is (edit == "flip")
    assert probability_of(match, Relation.COPY_MOVE) > 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cells_that_merely_resemble_each_other_are_improbable(seed: int) -> None:
    assert all(probability_of(m, Relation.COPY_MOVE) < 0.5 for m in find(cells(seed)))


def test_the_two_regions_are_apart() -> None:
    for match in find(planted("none")):
        low_a, high_a = match.region_a.min(axis=0), match.region_a.max(axis=0)
        low_b, high_b = match.region_b.min(axis=0), match.region_b.max(axis=0)
        common = np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None).prod()
        assert common < 0.4 * (high_a - low_a).prod()


def test_one_moved_region_is_one_finding() -> None:
    likely = [m for m in find(planted("none")) if probability_of(m, Relation.COPY_MOVE) > 0.5]
    assert len(likely) == 1


def test_flat_and_tiny_panels_have_no_copies() -> None:
    assert find(np.full((120, 120, 3), 200, np.uint8)) == []
    assert find(cells(1)[:20, :20]) == []


def test_all_numbers_of_a_finding_are_finite() -> None:
    for match in find(planted("half turn")):
        assert np.isfinite(copy_move_vector(match)).all()
