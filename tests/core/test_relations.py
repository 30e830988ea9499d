import numpy as np
import pytest

from core.features import extract_features
from core.geometry import Image
from core.relations import Relation, relation_of
from core.verification import PanelView, verify_pair
from tests.core.pictures import cells, turned


def relation(first: Image, second: Image, modality: str = "other") -> Relation:
    a, b = (PanelView(image, extract_features(image), (), modality) for image in (first, second))
    match = verify_pair(a, b)
    assert match is not None
    return relation_of(match, a, b)


def channel(image: Image, index: int) -> Image:
    shown = np.zeros_like(image)
    shown[..., index] = image[..., 0]
    return shown


MERGE = np.stack([cells(1)[..., 0], cells(2)[..., 0], np.zeros((260, 320), np.uint8)], axis=2)


def test_a_copy_is_the_same_image() -> None:
    assert relation(cells(1), turned(cells(1), 8)) == Relation.SAME_IMAGE


def test_a_crop_of_a_panel_is_the_same_image() -> None:
    assert relation(cells(1), cells(1)[40:220, 60:300]) == Relation.SAME_IMAGE


def test_panels_that_share_an_edge_overlap() -> None:
    whole = cells(3, 300, 420)
    assert relation(whole[:, :280], whole[:, 150:]) == Relation.OVERLAPPING_FIELDS


@pytest.mark.parametrize("index", [0, 1])
def test_a_channel_and_the_merge_are_another_channel(index: int) -> None:
    single = channel(cells(index + 1), index)
    assert relation(single, MERGE) == Relation.OTHER_CHANNEL
    assert relation(MERGE, single) == Relation.OTHER_CHANNEL


def test_a_grey_copy_of_stained_tissue_is_the_same_image() -> None:
    stain = 1 - cells(1).astype(np.float32)[..., :1] / 255
    tissue = (255 * np.concatenate([stain**0.6, stain**1.6, stain**0.4], axis=2)).astype(np.uint8)
    grey = np.repeat(tissue.mean(axis=2).astype(np.uint8)[..., None], 3, axis=2)
    assert relation(tissue, grey) == Relation.SAME_IMAGE


def test_a_copied_blot_is_the_same_blot() -> None:
    assert relation(cells(1), cells(1), "blot") == Relation.SAME_BLOT
