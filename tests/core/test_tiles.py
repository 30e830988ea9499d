import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geometry import Image
from core.tiles import FAST_TILES, THOROUGH_TILES, TileSpec, is_blank, tile_boxes

SPEC = TileSpec()
SIZES = st.integers(1, 1500)
SPECS = st.sampled_from(
    [SPEC, FAST_TILES, THOROUGH_TILES, TileSpec(side_px=384, stride=0.65), TileSpec(max_tiles=1)]
)


def paper(side_px: int = 120, grey: int = 255) -> Image:
    return np.full((side_px, side_px, 3), grey, dtype=np.uint8)


def noise(sigma: float, side_px: int = 120, grey: float = 128) -> Image:
    values = np.random.default_rng(7).normal(grey, sigma, (side_px, side_px, 1))
    return np.repeat(values.clip(0, 255).astype(np.uint8), 3, axis=2)


@given(width_px=SIZES, height_px=SIZES, spec=SPECS)
def test_every_level_by_itself_covers_every_pixel(
    width_px: int, height_px: int, spec: TileSpec
) -> None:
    tiles = tile_boxes(width_px, height_px, spec)
    for level in {tile.level for tile in tiles}:
        boxes = [tile.box_px for tile in tiles if tile.level == level]
        assert all(0 <= x0 < x1 <= width_px for x0, _, x1, _ in boxes)
        assert all(0 <= y0 < y1 <= height_px for _, y0, _, y1 in boxes)
        # Windows of a level are a grid: it is enough that each axis is covered.
        assert len(boxes) == len({b[0] for b in boxes}) * len({b[1] for b in boxes})
        for low, high, length_px in ((0, 2, width_px), (1, 3, height_px)):
            seen = np.zeros(length_px, dtype=bool)
            for box in boxes:
                seen[box[low] : box[high]] = True
            assert seen.all()


@given(width_px=SIZES, height_px=SIZES, spec=SPECS)
def test_no_panel_goes_without_a_tile_or_has_too_many(
    width_px: int, height_px: int, spec: TileSpec
) -> None:
    tiles = tile_boxes(width_px, height_px, spec)
    if spec.side_px is None:
        assert 1 <= len(tiles) <= spec.max_tiles
    assert len(tiles) == len(set(tiles)) >= 1


@given(width_px=st.integers(64, 1500), height_px=st.integers(64, 1500))
def test_neighbouring_windows_are_square_and_half_a_side_apart(
    width_px: int, height_px: int
) -> None:
    tiles = tile_boxes(width_px, height_px, SPEC)
    for level in {tile.level for tile in tiles}:
        boxes = [tile.box_px for tile in tiles if tile.level == level]
        side_px = boxes[0][2] - boxes[0][0]
        assert {(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes} == {(side_px, side_px)}
        for axis in (0, 1):
            starts = sorted({box[axis] for box in boxes})
            assert all(b - a <= side_px / 2 + 1 for a, b in itertools.pairwise(starts))


def test_a_square_panel_has_one_nine_and_twenty_five_tiles() -> None:
    levels = [tile.level for tile in tile_boxes(300, 300, SPEC)]
    assert [levels.count(level) for level in range(3)] == [1, 9, 25]
    assert tile_boxes(300, 300, SPEC)[-1].box_px == (200, 200, 300, 300)


def test_a_blot_ten_times_as_long_as_high_is_read_in_full_height_windows() -> None:
    boxes = [tile.box_px for tile in tile_boxes(600, 60, SPEC)]
    assert boxes == [(30 * i, 0, 30 * i + 60, 60) for i in range(19)]


def test_a_tiny_panel_is_one_tile() -> None:
    assert [tile.box_px for tile in tile_boxes(20, 20, SPEC)] == [(0, 0, 20, 20)]


def test_a_fixed_tile_size_shrinks_to_small_panels_and_reaches_the_far_edge() -> None:
    spec = TileSpec(side_px=384, stride=0.65)
    assert [tile.box_px for tile in tile_boxes(200, 300, spec)] == [
        (0, 0, 200, 200),
        (0, 100, 200, 300),
    ]
    assert {tile.box_px[2] for tile in tile_boxes(700, 400, spec)} == {384, 542, 700}


def test_nonsense_is_an_error() -> None:
    with pytest.raises(ValueError, match="a panel of 0 x 5 px has no tiles"):
        tile_boxes(0, 5, SPEC)
    with pytest.raises(ValueError, match="leaves gaps"):
        TileSpec(stride=1.5)
    with pytest.raises(ValueError, match="coarse to fine"):
        TileSpec(levels=(0.5, 1.0))


@pytest.mark.parametrize("sigma", [0, 1, 2, 3])
@pytest.mark.parametrize("side_px", [24, 120, 400])
def test_a_flat_area_is_blank_with_or_without_noise(sigma: float, side_px: int) -> None:
    assert is_blank(noise(sigma, side_px), SPEC)


def test_uneven_light_on_nothing_is_blank() -> None:
    across = np.linspace(90, 150, 120, dtype=np.float32)
    vignette = np.repeat((across[None] + across[:, None])[..., None] / 2, 3, axis=2)
    assert is_blank(vignette.astype(np.uint8), SPEC)


def test_a_panel_letter_on_white_is_blank() -> None:
    tile = paper()
    tile[8:22, 8:11] = tile[8:22, 16:19] = tile[8:11, 8:19] = tile[14:16, 8:19] = 0  # an "A"
    assert is_blank(tile, SPEC)


def test_a_line_of_text_on_white_is_blank_once_its_box_is_known() -> None:
    tile = paper()
    tile[50:62, 10:110:4] = 0
    assert not is_blank(tile, SPEC)
    assert is_blank(tile, SPEC, ignore_boxes_px=[(8, 48, 114, 64)])


def test_a_tile_under_annotation_is_blank_whatever_is_below() -> None:
    assert is_blank(noise(40), SPEC, ignore_boxes_px=[(-10, -10, 130, 100)])


def test_a_single_band_of_a_blot_is_not_blank() -> None:
    y, x = np.mgrid[:120, :120]
    band = 245 - 190 * np.exp(-(((y - 60) / 5.0) ** 2) - ((x - 60) / 18.0) ** 4)
    assert not is_blank(np.repeat(band[..., None], 3, axis=2).astype(np.uint8), SPEC)


def test_faint_cells_on_a_dark_ground_are_not_blank() -> None:
    y, x = np.mgrid[:120, :120]
    cells = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 60) for cy, cx in [(30, 40), (80, 90)]]
    field = 6 + 40 * (cells[0] + cells[1])
    assert not is_blank(np.repeat(field[..., None], 3, axis=2).astype(np.uint8), SPEC)


def test_texture_is_not_blank() -> None:
    assert not is_blank(noise(40), SPEC)
