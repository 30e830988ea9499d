import contextlib
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import pytest

from core.errors import BudgetError, is_out_of_memory
from resources.memory import MemoryContract, StoppedError, give_back, memory_budget
from resources.process_tree import children, tree_mb

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="walls need /proc")

EATER = (
    "import resource as r, time; r.setrlimit(r.RLIMIT_DATA, (-1, -1)); "
    "held = [b'x' * (1 << 20) for _ in range({mb})]; time.sleep({s})"
)
"""A child that lifts the wall it inherits."""


def _hold(end: Connection, mb: int) -> None:
    held = np.ones((mb, 1 << 20), np.uint8)
    end.send(held.nbytes)
    end.recv()


def _fill_mapping(mb: int) -> None:
    with contextlib.closing(mmap.mmap(-1, mb << 20)) as area:
        for start in range(mb):
            area[start << 20 : (start + 1) << 20] = b"x" * (1 << 20)
            time.sleep(0.001)


def _fill_memfd(mb: int) -> None:
    file = os.memfd_create("test")
    try:
        for _ in range(mb):
            os.write(file, b"x" * (1 << 20))
            time.sleep(0.001)
    finally:
        os.close(file)


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
    base_mb = int(tree_mb())
    with MemoryContract().watch(base_mb + 300) as watch:
        subprocess.run([sys.executable, "-c", EATER.format(mb=150, s=0.6)], check=True)
    assert watch.peak_mb - watch.base_mb > 140
    assert not watch.stopped


@linux
def test_a_child_that_eats_more_than_the_budget_is_killed_while_it_happens() -> None:
    said: list[str] = []
    with MemoryContract().watch(int(tree_mb()) + 60, "things", said.append) as watch:
        ended = subprocess.run([sys.executable, "-c", EATER.format(mb=300, s=60)], check=False)
        assert ended.returncode == -signal.SIGKILL
        stopped = watch.stop()
        assert stopped is not None
        assert watch.stop() is None  # told once
    assert "the op things held" in str(stopped)
    assert said == watch.stopped
    assert watch.over


@linux
@pytest.mark.parametrize("way", [_fill_mapping, _fill_memfd])
def test_shared_memory_that_the_wall_does_not_count_interrupts_the_op(
    way: Callable[[int], None],
) -> None:
    with MemoryContract().watch(int(tree_mb()) + 60, "things") as watch:
        with pytest.raises(StoppedError, match=r"the op things held \d+ MB, its budget is") as stop:
            way(2000)
        assert is_out_of_memory(stop.value)
        watch.require_released(watch.base_mb)
    assert watch.over
    assert watch.peak_mb < watch.budget_mb + 1000


@linux
def test_an_op_is_interrupted_in_whatever_thread_it_runs() -> None:
    caught: list[str] = []

    def work() -> None:
        with (
            contextlib.suppress(StoppedError),
            MemoryContract().watch(int(tree_mb()) + 60, "things") as watch,
        ):
            try:
                _fill_mapping(2000)
            except StoppedError:
                caught.extend(watch.stopped)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught
    assert "the op things held" in caught[0]


@linux
def test_children_that_were_there_before_are_not_the_ones_to_be_stopped() -> None:
    code = "held = bytearray(b'x') * (80 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as older:
        assert older.stdin is not None
        assert older.stdout is not None
        older.stdout.readline()
        with MemoryContract().watch(int(tree_mb()) + 40), pytest.raises(StoppedError):
            _fill_mapping(2000)
        assert older.poll() is None
        older.stdin.close()


@linux
def test_an_op_that_keeps_what_its_units_held_is_named() -> None:
    give_back()  # other tests have left much that is free
    with MemoryContract().watch(int(tree_mb()) + 150, "things") as watch:
        kept = np.ones((110, 1 << 20), np.uint8)
        with pytest.raises(BudgetError, match="the op things ignores its budget") as refusal:
            watch.require_released(watch.base_mb)
        assert refusal.value.needed_mb > watch.base_mb + 100
        del kept
        watch.require_released(watch.base_mb)


@linux
def test_what_a_failed_allocation_asked_for_is_part_of_what_is_needed() -> None:
    with MemoryContract().watch(int(tree_mb()) + 100) as watch:
        held = np.ones((40, 1 << 20), np.uint8)
        with pytest.raises(MemoryError) as failure:
            np.ones((500, 1 << 20), np.uint8)
        needed_mb = watch.needed_mb(failure.value)
        assert held.nbytes == 40 << 20
    assert 535 < needed_mb - watch.base_mb < 580


@linux
def test_a_child_that_still_runs_in_its_parents_memory_is_not_counted_twice() -> None:
    held = np.ones((200, 1 << 20), np.uint8)
    done, most = threading.Event(), [0.0]

    def look() -> None:
        while not done.is_set():
            most[0] = max([most[0], *(child.mb for child in children())])

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(60):
        subprocess.run(["true"], check=True)
    done.set()
    watcher.join()
    assert held.nbytes == 200 << 20
    assert most[0] < 100


@linux
def test_a_forked_child_counts_with_what_is_its_own() -> None:
    ready, held = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=_hold, args=(held, 80))
    child.start()
    ready.recv()
    mb = {c.pid: c.mb for c in children()}
    ready.send("done")
    child.join()
    assert mb[child.pid or 0] > 75


def test_a_budget_that_the_process_alone_exhausts_is_refused_with_the_one_that_would_do() -> None:
    with pytest.raises(BudgetError, match="grant at least") as refusal, MemoryContract().watch(20):
        pass
    assert refusal.value.needed_mb > tree_mb() - 5
