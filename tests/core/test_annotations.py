import numpy as np

from core.annotations import find_annotations
from core.geometry import share_inside
from tests.core.pictures import cells, lettered


def test_a_letter_and_a_scale_bar_are_found_where_they_are() -> None:
    found = find_annotations(lettered(cells(1)))
    letter, bar = (6.0, 8.0, 24.0, 26.0), (240.0, 244.0, 300.0, 249.0)
    assert any(share_inside(letter, box) > 0.9 for box in found)
    assert any(share_inside(bar, box) > 0.9 for box in found)


def test_bright_cells_are_not_lettering() -> None:
    assert find_annotations(cells(2)) == ()


def test_a_blank_panel_carries_no_lettering() -> None:
    assert find_annotations(np.full((100, 100, 3), 255, np.uint8)) == ()
