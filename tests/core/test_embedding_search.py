import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.embedding_search import (
    Background,
    BackgroundSpec,
    EmbeddingSearchSpec,
    PanelPair,
    TileVectors,
    as_stored,
    fit_background,
    search,
)
from core.encoders import EncoderError

ENCODER = "small-0123456789ab"
SPEC = EmbeddingSearchSpec(ENCODER, cosine=0.6)


def tiles(panels: list[str], vectors: np.ndarray, encoder: str = ENCODER) -> TileVectors:
    seen: dict[str, int] = {}
    ordinals = [seen.setdefault(p, -1) for p in panels]
    for row, panel in enumerate(panels):
        seen[panel] += 1
        ordinals[row] = seen[panel]
    return TileVectors(encoder, np.array(panels, dtype=np.str_), np.array(ordinals), vectors)


def random_tiles(seed: int, panels: int, per_panel: int, dim: int = 6) -> TileVectors:
    rng = np.random.default_rng(seed)
    names = [f"p{i:03d}" for i in range(panels) for _ in range(per_panel)]
    vectors = rng.normal(size=(len(names), dim)).astype(np.float32)
    return tiles(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def take(of: TileVectors, rows: np.ndarray) -> TileVectors:
    return TileVectors(of.encoder_id, of.panel_ids[rows], of.ordinals[rows], of.vectors[rows])


def brute_force(
    everything: TileVectors, new: set[str], threshold: float, background: Background | None = None
) -> dict[tuple[str, str], tuple[float, int]]:
    """Best score and number of matches per pair, one pair of tiles at a time."""
    vectors = as_stored(everything.vectors, np.float64)
    near = np.zeros(len(vectors)) if background is None else background.nearness(vectors)
    apart = np.sqrt(1 - near)
    pairs: dict[tuple[str, str], tuple[float, int]] = {}
    for i, j in itertools.combinations(range(len(vectors)), 2):
        a, b = sorted((str(everything.panel_ids[i]), str(everything.panel_ids[j])))
        if a == b or not new & {a, b}:
            continue
        score = sum(float(x) * float(y) for x, y in zip(vectors[i], vectors[j], strict=True))
        if background is not None:
            score = 1 - (1 - score) / (apart[i] * apart[j])
        if round(score, 6) >= threshold:
            best, matches = pairs.get((a, b), (-np.inf, 0))
            pairs[a, b] = (max(best, round(score, 6)), matches + 1)
    return pairs


def as_dict(pairs: tuple[PanelPair, ...]) -> dict[tuple[str, str], tuple[float, int]]:
    return {(p.panel_a, p.panel_b): (p.score, p.tile_matches) for p in pairs}


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    block=st.integers(1, 40),
    fresh=st.integers(0, 12),
    order=st.randoms(use_true_random=False),
    discounted=st.booleans(),
)
def test_every_order_and_blocking_finds_what_brute_force_finds(
    seed: int, block: int, fresh: int, order: object, discounted: bool
) -> None:
    everything = random_tiles(seed, panels=12, per_panel=3)
    background = None
    spec = EmbeddingSearchSpec(ENCODER, cosine=0.6, likeness=0.4)
    if discounted:
        background = fit_background([everything], BackgroundSpec(share=0.8, fewest_panels=4))
        assert background is not None
    rows = np.arange(len(everything))
    order.shuffle(rows)  # type: ignore[attr-defined]
    new = take(
        everything, rows[np.isin(everything.panel_ids[rows], [f"p{i:03d}" for i in range(fresh)])]
    )
    blocks = [take(everything, rows[i : i + block]) for i in range(0, len(rows), block)]

    result = search(new, blocks, spec, background)

    threshold = spec.cosine if background is None else spec.likeness
    expected = brute_force(everything, set(new.panel_ids.tolist()), threshold, background)
    found = as_dict(result.pairs)
    assert found.keys() == expected.keys()
    for pair, (score, matches) in expected.items():
        assert found[pair] == (pytest.approx(score, abs=1e-5), matches)
    assert result.capped == ()


def test_a_pair_is_the_same_whichever_side_was_stored_first() -> None:
    everything = random_tiles(3, panels=8, per_panel=4)
    first = take(everything, np.flatnonzero(everything.panel_ids < "p004"))
    second = take(everything, np.flatnonzero(everything.panel_ids >= "p004"))
    stored = [
        TileVectors(t.encoder_id, t.panel_ids, t.ordinals, t.vectors.astype(np.float16))
        for t in (first, second)
    ]
    across = [
        {p for p in search(new, stored, SPEC).pairs if p.panel_a < "p004" <= p.panel_b}
        for new in (first, second)
    ]
    assert across[0] == across[1] != set()


def test_the_best_tiles_and_the_number_of_matches_are_told() -> None:
    east, north, mix = [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]
    everything = tiles(["a", "a", "b", "b"], np.array([east, north, mix, east], dtype=np.float32))
    (pair,) = search(everything, [everything], SPEC).pairs
    assert pair == PanelPair("a", "b", score=1.0, cosine=1.0, tile_a=0, tile_b=1, tile_matches=3)


def test_a_panel_is_never_compared_with_itself() -> None:
    everything = tiles(["a"] * 5, np.ones((5, 3), dtype=np.float32) / np.sqrt(np.float32(3)))
    assert search(everything, [everything], SPEC).pairs == ()


def test_beyond_the_cap_the_best_are_kept_and_the_panel_is_named() -> None:
    angles = np.linspace(0, 0.5, 21)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    everything = tiles([f"p{i:02d}" for i in range(21)], vectors)
    spec = EmbeddingSearchSpec(ENCODER, cosine=0.6, pairs_per_panel=4)
    new = take(everything, np.array([0]))
    results = [
        search(new, [take(everything, np.array([i])) for i in order], spec)
        for order in (range(21), reversed(range(21)))
    ]
    assert results[0] == results[1]
    assert [pair.panel_b for pair in results[0].pairs] == ["p01", "p02", "p03", "p04"]
    assert results[0].capped == ("p00",)


def test_what_passes_in_an_encoder_that_finds_everything_alike_is_what_stands_out() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(64, 32)) * 0.2 + 3
    vectors[40] = vectors[7] + rng.normal(size=32) * 0.02
    spec = EmbeddingSearchSpec(ENCODER, cosine=0.6, pairs_per_panel=64)
    everything = tiles(
        [f"p{i:02d}" for i in range(64)], vectors / np.linalg.norm(vectors, axis=1)[:, None]
    )
    everything = TileVectors(
        ENCODER, everything.panel_ids, everything.ordinals, everything.vectors.astype(np.float32)
    )
    background = fit_background([everything], BackgroundSpec())

    assert len(search(everything, [everything], spec).pairs) == 64 * 63 // 2
    (pair,) = search(everything, [everything], spec, background).pairs
    assert (pair.panel_a, pair.panel_b) == ("p07", "p40")


@given(seed=st.integers(0, 1000), block=st.integers(1, 60))
@settings(deadline=None, max_examples=25)
def test_a_background_is_the_same_in_whatever_order_it_is_read(seed: int, block: int) -> None:
    everything = random_tiles(seed, panels=20, per_panel=3)
    spec = BackgroundSpec(panels=10, fewest_panels=5)
    rows = np.random.default_rng(seed).permutation(len(everything))
    blocks = [take(everything, rows[i : i + block]) for i in range(0, len(rows), block)]
    one, other = fit_background([everything], spec), fit_background(blocks, spec)
    assert one is not None
    assert other is not None
    assert one.background_id == other.background_id
    assert len(one.vectors) == 10


def test_a_stored_background_reads_back_the_same() -> None:
    background = fit_background([random_tiles(1, 70, 2)], BackgroundSpec())
    assert background is not None
    again = Background.from_bytes(background.to_bytes())
    assert again.background_id == background.background_id
    np.testing.assert_array_equal(again.vectors, background.vectors)
    with pytest.raises(ValueError, match="cut off"):
        Background.from_bytes(background.to_bytes()[:-1])


def test_too_few_panels_give_no_background() -> None:
    assert fit_background([random_tiles(1, 63, 5)], BackgroundSpec()) is None


def test_vectors_of_another_encoder_are_refused() -> None:
    ours, theirs = random_tiles(1, 3, 1), random_tiles(2, 3, 1)
    theirs = TileVectors("other-0", theirs.panel_ids, theirs.ordinals, theirs.vectors)
    with pytest.raises(EncoderError, match="embed the tiles with small-0123456789ab first"):
        search(ours, [theirs], SPEC)
    with pytest.raises(EncoderError):
        search(theirs, [ours], SPEC)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_that_means_nothing_is_an_error(value: float) -> None:
    bad = tiles(["a"], np.full((1, 4), value, dtype=np.float32))
    with pytest.raises(ValueError, match="zero or not finite"):
        search(bad, [bad], SPEC)
