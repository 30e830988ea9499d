import subprocess
import sys

import numpy as np
import pytest

from core.errors import BudgetError
from resources.memory import MemoryContract, is_out_of_memory, memory_budget, tree_mb

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="walls need /proc")


def test_a_pods_limit_lies_a_little_above_the_declared_budget() -> None:
    tags = memory_budget(mb=300)
    resources = tags["dagster-k8s/config"]["container_config"]["resources"]
    assert tags["quire/memory_mb"] == "300"
    assert resources["limits"]["memory"] == "360Mi"


@linux
def test_an_allocation_beyond_the_budget_fails_and_the_next_small_one_does_not() -> None:
    budget = int(tree_mb()) + 100
    with MemoryContract().watch(budget) as watch:
        assert watch.walled
        with pytest.raises(MemoryError) as failure:
            np.ones((400, 1 << 20), np.uint8)
        assert is_out_of_memory(failure.value)
        assert np.ones((8, 1 << 20), np.uint8).sum() == 8 << 20
    assert np.ones((400, 1 << 20), np.uint8).sum() == 400 << 20  # the wall is down again


@linux
def test_a_peak_between_two_samples_is_seen() -> None:
    budget = int(tree_mb()) + 400
    with MemoryContract().watch(budget) as watch:
        np.ones((200, 1 << 20), np.uint8).sum()
    assert 190 < watch.peak_mb - watch.base_mb < 260
    assert not watch.over


@linux
def test_the_memory_of_a_child_counts() -> None:
    script = "import time; data = bytearray(150 << 20); time.sleep(0.6)"
    with MemoryContract().watch(int(tree_mb()) + 60) as watch:
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import resource as r; r.setrlimit(r.RLIMIT_DATA, (-1, -1));" + script,
            ],
            check=True,
        )
    assert watch.peak_mb - watch.base_mb > 140
    assert watch.over


def test_a_budget_that_the_process_alone_exhausts_is_refused_with_the_one_that_would_do() -> None:
    with pytest.raises(BudgetError, match="grant at least") as refusal, MemoryContract().watch(20):
        pass
    assert refusal.value.needed_mb > tree_mb() - 5
