"""Shadow recall against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.embedding_search import TileVectors, as_stored
from core.encoders import EncoderError
from core.shadow import nearest_panels, shadow_recall


def tiles(rng: np.random.Generator, panels: int, encoder: str = "e-1") -> TileVectors:
    counts = rng.integers(1, 5, panels)
    names = np.repeat([f"p{number:02d}" for number in range(panels)], counts)
    vectors = rng.normal(size=(len(names), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ordinals = np.concatenate([np.arange(count) for count in counts])
    return TileVectors(encoder, names, ordinals, vectors.astype(np.float32))


def part(all_tiles: TileVectors, names: list[str]) -> TileVectors:
    rows = np.isin(all_tiles.panel_ids, names)
    return TileVectors(
        all_tiles.encoder_id,
        all_tiles.panel_ids[rows],
        all_tiles.ordinals[rows],
        all_tiles.vectors[rows],
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 4), st.integers(1, 5))
def test_the_nearest_panels_are_those_of_brute_force(
    seed: int, panels: int, per_block: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    everything = tiles(rng, panels)
    names = sorted(set(everything.panel_ids.tolist()))
    asked = names[: max(1, panels // 2)]
    blocks = [
        part(everything, names[start : start + per_block])
        for start in range(0, len(names), per_block)
    ]
    found = nearest_panels(part(everything, asked), blocks, count)
    units = as_stored(everything.vectors, np.float32)
    for name in asked:
        own = units[everything.panel_ids == name]
        scores = {
            other: float((own @ units[everything.panel_ids == other].T).max())
            for other in names
            if other != name
        }
        expected = sorted(scores, key=lambda other: -scores[other])[:count]
        assert found[name] == expected


def test_vectors_of_another_encoder_are_an_error() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(EncoderError, match="cannot be searched"):
        nearest_panels(tiles(rng, 3), [tiles(rng, 3, "e-2")], 5)


def test_known_copies_and_common_neighbours_are_counted() -> None:
    serving = {"a": ["b", "c"], "b": ["a", "d"], "c": ["a"]}
    other = {"a": ["c", "d"], "b": ["d", "c"], "c": ["a"]}
    recall = shadow_recall(serving, other, [("a", "b"), ("a", "c")], 2)
    assert (recall.confirmed, recall.serving_found, recall.next_found) == (2, 2, 1)
    assert recall.panels == 3
    assert recall.agreement == pytest.approx((0.5 + 0.5 + 1) / 3)
    with pytest.raises(ValueError, match="asked the same"):
        shadow_recall(serving, {"a": []}, [], 2)
    with pytest.raises(ValueError, match="nothing to compare"):
        shadow_recall({"a": []}, {"a": []}, [], 2)
