from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.work import plan_batch, spec_id

SIZES = st.lists(st.floats(0.1, 50), min_size=1, max_size=40)


@dataclass(frozen=True)
class Numbers:
    dpi: int = 150


def test_as_many_items_as_fit_are_planned_together() -> None:
    plan = plan_batch([10.0] * 8, budget_mb=150, base_mb=100, most=8, parallel=8)
    assert plan.batch == 5
    assert plan.predicted_peak_mb == 150


def test_items_done_one_after_the_other_need_the_memory_of_the_largest() -> None:
    plan = plan_batch([10.0, 30.0, 10.0], budget_mb=140, base_mb=100, most=8, parallel=1)
    assert plan.batch == 3
    assert plan.predicted_peak_mb == 130


def test_a_single_item_is_planned_even_if_it_will_not_fit() -> None:
    plan = plan_batch([500.0, 1.0], budget_mb=150, base_mb=100, most=8)
    assert plan.batch == 1
    assert plan.predicted_peak_mb == 600


@given(sizes=SIZES, budget=st.floats(50, 400), parallel=st.integers(1, 4))
def test_a_plan_exceeds_the_budget_only_for_a_single_item(
    sizes: list[float], budget: float, parallel: int
) -> None:
    plan = plan_batch(sizes, budget_mb=budget, base_mb=40, most=16, parallel=parallel)
    assert 1 <= plan.batch <= min(16, len(sizes))
    assert plan.batch == 1 or plan.predicted_peak_mb <= budget + 1e-6


@given(sizes=SIZES, parallel=st.integers(1, 4))
def test_more_budget_never_plans_less(sizes: list[float], parallel: int) -> None:
    small = plan_batch(sizes, budget_mb=120, base_mb=40, most=16, parallel=parallel)
    large = plan_batch(sizes, budget_mb=240, base_mb=40, most=16, parallel=parallel)
    assert large.batch >= small.batch


def test_a_spec_id_changes_with_every_number_and_every_version() -> None:
    ids = {
        spec_id("panels", 1, Numbers()),
        spec_id("panels", 2, Numbers()),
        spec_id("panels", 1, Numbers(dpi=200)),
        spec_id("pages", 1, Numbers()),
    }
    assert len(ids) == 4
    assert spec_id("panels", 1, Numbers()) == spec_id("panels", 1, Numbers(dpi=150))


@pytest.mark.parametrize("parts", [("a", "b"), ("ab",)])
def test_parts_of_a_spec_do_not_run_together(parts: tuple[str, ...]) -> None:
    assert spec_id("x", 1, *parts) != spec_id("x", 1, "".join(parts), "")
