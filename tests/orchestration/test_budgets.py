import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.containers import sizes
from benchmarks.faults.container import Container, cgroup_available
from orchestration.budgets import (
    SERVICES,
    SET_ASIDE,
    SHARING,
    Share,
    budgets,
    enough_mb,
    set_aside_mb,
    share_of,
    share_out,
)
from orchestration.definitions import executor_of
from orchestration.settings import Beside, Settings, from_environment

DECLARED = [200, 250, 300, 300, 1000]


def test_the_table_has_the_budget_that_each_op_declares() -> None:
    from assets.panels import panels

    assert budgets()["panels"] == int(panels.op.tags["quire/memory_mb"])
    assert list(budgets()) == sorted(budgets())
    assert min(budgets().values()) >= SHARING.least_mb


def test_without_a_limit_ops_get_what_they_declare() -> None:
    share = share_out(None, 300, DECLARED)
    assert share == Share(None, 0, SHARING.ops_at_a_time, 0)
    assert "no limit" in str(share)


def test_a_small_limit_leaves_one_op_all_that_is_left() -> None:
    share = share_out(512, 300, DECLARED)
    assert (share.ops_at_a_time, share.op_mb) == (1, 212)
    assert str(share) == (
        "512 MB for everything, 300 of them for processes that are no ops; 1 op at a time, "
        "each within what it declares and 212 MB"
    )


def test_a_larger_limit_lets_the_smaller_op_keep_its_budget_and_the_larger_have_the_rest() -> None:
    share = share_out(1400, 300, DECLARED)
    assert (share.ops_at_a_time, share.op_mb) == (2, 800)  # 800 beside 300


def test_a_limit_that_is_enough_cuts_nothing() -> None:
    assert share_out(1600, 300, DECLARED).op_mb == 1000
    enough = enough_mb("ui", embedded_postgres=True)
    aside = set_aside_mb("ui", embedded_postgres=True)
    share = share_out(enough, aside, list(budgets().values()))
    assert share.op_mb == max(budgets().values())
    assert share.ops_at_a_time == SHARING.ops_at_a_time


@given(
    limit=st.integers(1, 4000),
    aside=st.integers(0, 1000),
    declared=st.lists(st.integers(100, 1500), min_size=2, max_size=9),
)
def test_ops_at_a_time_never_exceed_the_limit_together(
    limit: int, aside: int, declared: list[int]
) -> None:
    try:
        share = share_out(limit, aside, declared)
    except ValueError:
        assert limit - aside < SHARING.least_mb
        return
    granted = sorted((min(budget, share.op_mb) for budget in declared), reverse=True)
    assert aside + sum(granted[: share.ops_at_a_time]) <= limit


def test_a_limit_that_is_too_small_names_the_one_that_would_do() -> None:
    with pytest.raises(ValueError, match="400 MB of memory are too little") as refusal:
        share_out(400, 300, DECLARED)
    assert f"grant at least {300 + SHARING.least_mb} MB" in str(refusal.value)
    assert share_out(300 + SHARING.least_mb, 300, DECLARED).op_mb == SHARING.least_mb


@pytest.mark.parametrize("beside", list(SERVICES))
def test_what_runs_beside_a_run_is_set_aside_and_the_database_only_where_it_is_ours(
    beside: Beside,
) -> None:
    own = set_aside_mb(beside, embedded_postgres=True)
    assert own - set_aside_mb(beside, embedded_postgres=False) == SET_ASIDE.postgres
    others = sum(getattr(SET_ASIDE, name) for name in SERVICES[beside])
    assert own - others == set_aside_mb("nothing", embedded_postgres=True)


def test_ops_in_pods_of_their_own_get_what_they_declare(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, memory_mb=256, executor="pods")
    assert share_of(settings) == Share()
    with pytest.raises(ValueError, match="too little"):
        share_of(replace(settings, executor="processes"))


def test_the_executor_takes_as_many_ops_at_a_time_as_there_is_memory_for(tmp_path: Path) -> None:
    def at_a_time(mb: int) -> int:
        settings = Settings(home=tmp_path, memory_mb=mb, beside="nothing")
        config = executor_of(settings, share_of(settings)).apply_config_mapping({"config": {}})
        assert config.value is not None
        return config.value["config"]["max_concurrent"]

    assert at_a_time(512) == 1
    assert at_a_time(4096) == 2


def test_a_wrong_word_for_what_is_beside_names_the_variable() -> None:
    with pytest.raises(ValueError, match="QUIRE_BESIDE is one of code_server, nothing, ui"):
        from_environment({"QUIRE_BESIDE": "everything", "HOME": "/tmp"})


@pytest.mark.skipif(not cgroup_available(), reason="no memory cgroup may be made here")
def test_the_containers_own_limit_is_found_and_a_smaller_one_that_is_given_counts() -> None:
    script = (
        "from dataclasses import replace; from orchestration.budgets import share_of; "
        "from orchestration.settings import from_environment; s = from_environment({}); "
        "s = replace(s, memory_mb=0, beside='nothing'); "
        "print(share_of(s).limit_mb, share_of(replace(s, memory_mb=600)).limit_mb, "
        "share_of(replace(s, memory_mb=6000)).limit_mb)"
    )
    with Container(limit_mb=700) as container:
        done = container.run([sys.executable, "-W", "ignore", "-c", script])
    assert done.stdout.split() == ["700", "600", "700"], done.stderr


def test_the_docs_have_the_sizes_that_follow_from_the_budgets() -> None:
    docs = Path(__file__).parent.parent.parent / "docs" / "operations.md"
    assert sizes() in docs.read_text(encoding="utf-8")
