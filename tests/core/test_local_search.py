import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.features import LocalFeatures, extract_features
from core.local_search import LocalSearchSpec, search_local
from tests.core.pictures import cells, turned

PANELS = {f"p{seed}": extract_features(cells(seed)) for seed in range(6)}
COPIES = {
    "turned": extract_features(turned(cells(0), 12)),
    "mirrored": extract_features(np.ascontiguousarray(cells(1)[:, ::-1])),
    "part": extract_features(cells(2)[90:, 110:]),
}
SPEC = LocalSearchSpec()


def found(new: dict[str, LocalFeatures], stored: list[dict[str, LocalFeatures]]) -> set[tuple]:
    result = search_local(new, stored, SPEC)
    return {(c.a, c.b, c.score, c.mirrored) for c in result.candidates}


def test_turned_mirrored_and_cropped_copies_are_candidates() -> None:
    pairs = {(a, b): m for a, b, _, m in found(COPIES, [PANELS])}
    assert pairs[("p0", "turned")] is False
    assert pairs[("mirrored", "p1")] is True
    assert pairs[("p2", "part")] is False


def test_panels_of_other_pictures_score_below_copies() -> None:
    everything = PANELS | COPIES
    best = search_local(everything, [everything], SPEC).candidates[:3]
    copies = {("p0", "turned"), ("mirrored", "p1"), ("p2", "part")}
    assert {(c.a, c.b) for c in best} == copies


def test_blocks_do_not_change_what_is_found() -> None:
    names = sorted(PANELS)
    blocks = [{name: PANELS[name] for name in names[i : i + 2]} for i in range(0, 6, 2)]
    assert found(COPIES, blocks) == found(COPIES, [PANELS])


def test_one_block_of_stored_panels_is_in_memory_at_a_time() -> None:
    earlier: list[weakref.ref[Any]] = []

    def blocks() -> Iterator[dict[str, LocalFeatures]]:
        for name, panel in PANELS.items():
            assert not any(block() is not None for block in earlier)
            mine = LocalFeatures(panel.points.copy(), panel.descriptors.copy(), panel.words)
            earlier.append(weakref.ref(mine.points))
            block = {name: mine}
            del mine
            yield block
            del block

    assert search_local(COPIES, blocks(), SPEC).candidates
    assert len(earlier) == len(PANELS)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_arrival_does_not_change_what_is_found(seed: int) -> None:
    everything = PANELS | COPIES
    together = found(everything, [everything])
    order = np.random.default_rng(seed).permutation(sorted(everything)).tolist()
    stored: dict[str, LocalFeatures] = {}
    one_by_one: set[tuple] = set()
    for name in order:
        stored[name] = everything[name]
        one_by_one |= found({name: everything[name]}, [stored])
    assert one_by_one == together


def test_a_panel_is_not_compared_with_itself() -> None:
    one = {"p0": PANELS["p0"]}
    assert search_local(one, [one], SPEC).compared == 0


def test_hitting_the_cap_is_reported() -> None:
    same = {f"s{i}": PANELS["p0"] for i in range(5)}
    result = search_local(same, [same], replace(SPEC, max_pairs_per_panel=1))
    assert result.capped
    assert len(result.candidates) < 10
    assert not search_local(same, [same], SPEC).capped


def test_panels_without_features_are_no_candidates() -> None:
    blank = {"blank": extract_features(np.zeros((99, 99, 3), np.uint8))}
    assert not search_local(blank, [PANELS | blank], SPEC).candidates


def test_the_cap_keeps_the_same_pairs_whether_it_is_applied_early_or_once() -> None:
    many = {f"{name}{copy}": f for copy in range(9) for name, f in (PANELS | COPIES).items()}
    new = {name: many[name] for name in ("p00", "turned0", "part0")}
    capped = replace(SPEC, max_pairs_per_panel=2)
    names = sorted(many)
    blocks = [{name: many[name] for name in names[i : i + 9]} for i in range(0, len(names), 9)]
    early, once = search_local(new, blocks, capped), search_local(new, [many], capped)
    assert early == once
    assert set(once.capped) == set(new)
