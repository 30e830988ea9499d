"""The memory contract: a declared budget per op, planned for, walled, watched, and stopped.

The wall makes an allocation fail that would not fit. What gets past it, children and shared memory,
is seen by a sampler, which ends the child or interrupts the op while it happens.

The peak is that of the whole process tree. For this process it comes from the kernel's own
high-water mark, for children from their proportional set size (PSS), sampled. On systems without
``/proc`` the resident size is sampled instead and there is no wall; the metadata says so.
"""

import contextlib
import ctypes
import math
import multiprocessing
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import dagster as dg
import numpy as np

from core.errors import BudgetError
from resources.process_tree import (
    HAS_PROC,
    at_most,
    children,
    own,
    own_mb,
    status_kb,
    tree_mb,
    unmapped_mb,
)

MB = 1024 * 1024
LEAST_HEADROOM_MB = 24
"""Below this not even one small page fits: an op says so at once instead of failing every item."""

BLAS_CALLERS = 4
"""As many threads as an op uses at most; see ``QUIRE_THREADS``."""

STACK_BYTES = 2 << 20
"""Stack of a thread. It counts as private memory when it is mapped, though little of it is touched,
so the usual 8 MB each would be taken from the budget; the deepest recursion here is OpenCV's."""

STACKS_MB = 10
"""Address space of the stacks of the workers that an op starts behind the wall."""

MOST_KEPT_MB = 32.0
"""An op may keep so much between its units that it has not planned: caches of libraries."""

STOP_SHARE = 1.05
"""An op is stopped where it holds so much of its budget. What a plan predicts may be off by a
little: that is told, and harms nobody; a pod's limit lies at 1.2."""

LAST_RESORT_S = 5.0
LAST_RESORT_SHARE = 1.2
INTERRUPT_S = 0.2
"""An op that was interrupted and still holds more than its budget after five seconds, or as much as
a pod's limit after a fifth of one, does not listen: it is ended with its process."""

_SAMPLE_S = 0.1
_CLOSEST_SAMPLE_S = 0.02
_FILLED_MB_PER_S = 1500.0
"""How fast a process can fill new memory, on one core. The next look comes before what is left of
the budget can be gone."""


def memory_budget(mb: int) -> dict[str, Any]:
    """Tags that declare an op's budget, for enforcement here and for a pod's limit.

    The pod's limit is a little above, so that the op's own wall is met first and the run says
    "out of memory" instead of ending on signal 9.
    """
    limit = f"{math.ceil(mb * 1.2)}Mi"
    return {
        "quire/memory_mb": str(mb),
        "dagster-k8s/config": {
            "container_config": {
                "resources": {"requests": {"memory": f"{mb}Mi"}, "limits": {"memory": limit}}
            }
        },
    }


def declared_budget_mb(context: dg.AssetExecutionContext) -> int:
    """The budget that the op of this context declares."""
    return int(context.op_def.tags["quire/memory_mb"])


def give_back() -> None:
    """Give the system what is free in this process: glibc keeps as much as it last had use for."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class StoppedError(MemoryError):
    """The op holds more than its budget, past the wall, and was interrupted or lost a child."""


@dataclass
class Watch:
    """What a watched op has held so far.

    Attributes:
        op: Its name.
        budget_mb: What it may hold.
        base_mb: What the tree held when the watch began.
        predicted_mb: The plan's prediction; raised by the op as it plans.
        peak_mb: The most that the tree has held.
        walled: Whether an allocation beyond the budget fails inside the op.
        stopped: What was done about memory beyond the budget, a sentence each time.
    """

    op: str
    budget_mb: int
    base_mb: float
    predicted_mb: float = 0.0
    peak_mb: float = 0.0
    walled: bool = False
    stopped: list[str] = field(default_factory=list)
    _mapped_mb: float = 0.0
    _told: int = 0

    @property
    def over(self) -> bool:
        """Whether the tree held more than its budget."""
        return self.peak_mb > self.budget_mb

    def stop(self) -> StoppedError | None:
        """The error that stands for what was stopped since this was last asked."""
        told, self._told = self._told, len(self.stopped)
        return StoppedError(self.stopped[-1]) if self._told > told else None

    def needed_mb(self, error: BaseException) -> float:
        """The least budget under which the allocation that failed would have been possible.

        To be asked while the error is handled: what was held when it was raised still is.
        """
        held_mb = tree_mb()
        if self.walled:
            mapped_mb = status_kb("VmData")["VmData"] / 1024 - self._mapped_mb
            held_mb = max(held_mb, self.base_mb + mapped_mb)
        return max(held_mb, self.base_mb) + _asked_mb(error)

    def require_released(self, resting_mb: float) -> None:
        """Make sure that an op whose work did not fit has let go of it.

        Args:
            resting_mb: What the op should hold between its units, by its own plan.

        Raises:
            BudgetError: It holds more than its budget still, or keeps so much that its next units
                would be blamed for it.
        """
        give_back()  # what is free and still here is nobody's
        held_mb = tree_mb()
        kept_mb = held_mb - resting_mb
        most_mb = max(MOST_KEPT_MB, (self.budget_mb - resting_mb) / 2)
        if held_mb <= STOP_SHARE * self.budget_mb and kept_mb <= most_mb:
            return
        raise BudgetError(
            f"the op {self.op} ignores its budget of {self.budget_mb} MB and was stopped: it holds "
            f"{held_mb:.0f} MB between its units, {kept_mb:.0f} MB more than it should",
            budget_mb=self.budget_mb,
            needed_mb=held_mb,
        )


class MemoryContract(dg.ConfigurableResource):
    """Grants each op its budget and holds it to that.

    Attributes:
        limit_mb: Upper bound for every budget; 0 leaves the declared ones as they are.
        whole: How the memory of everything together is shared out, for the log.
    """

    limit_mb: int = 0
    whole: str = ""

    def granted_mb(self, context: dg.AssetExecutionContext) -> int:
        """The budget of this op: what it declares, or less where a limit is set."""
        declared = declared_budget_mb(context)
        return min(declared, self.limit_mb) if self.limit_mb > 0 else declared

    @contextlib.contextmanager
    def watch(
        self, budget_mb: int, op: str = "op", tell: Callable[[str], None] = lambda text: None
    ) -> Iterator[Watch]:
        """Arm the wall, watch the tree, stop what gets past the wall, and put all back as it was.

        The wall bounds private writable memory (``RLIMIT_DATA``): what the process has mapped now,
        plus what is left of the budget. Beyond it numpy and torch raise MemoryError, which the op
        answers with a smaller batch.

        Memory that the wall does not count (children, shared mappings) is looked at ten times a
        second, and more often the less of the budget is left. Where the tree holds more than
        ``STOP_SHARE`` of it, a child that the op has started is killed if it holds the most of it
        and that is enough; else `StoppedError` is raised in the middle of whatever the op does.

        Args:
            budget_mb: What the tree may hold.
            op: Name of the op, for what is said of it.
            tell: Called from another thread with a sentence when something is stopped.

        Raises:
            BudgetError: The process alone leaves nothing of the budget.
        """
        _warm_up()
        base_mb = tree_mb()
        if budget_mb - base_mb < LEAST_HEADROOM_MB:
            needed = math.ceil((base_mb + LEAST_HEADROOM_MB) / 10) * 10
            raise BudgetError(
                f"the process holds {base_mb:.0f} MB before its first item, which leaves too "
                f"little of a budget of {budget_mb} MB; grant at least {needed} MB",
                budget_mb=budget_mb,
                needed_mb=needed,
            )
        watch = Watch(op, budget_mb, base_mb, predicted_mb=base_mb, peak_mb=base_mb)
        before = resource.getrlimit(resource.RLIMIT_DATA)
        stack_before = threading.stack_size(STACK_BYTES)
        sampler = _Sampler(watch, tell)
        try:
            with sampler:
                if HAS_PROC:
                    watch._mapped_mb = status_kb("VmData")["VmData"] / 1024
                    wall = int((watch._mapped_mb + budget_mb - base_mb + STACKS_MB) * MB)
                    if before[1] == resource.RLIM_INFINITY or wall <= before[1]:
                        resource.setrlimit(resource.RLIMIT_DATA, (wall, before[1]))
                        watch.walled = True
                yield watch
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
            threading.stack_size(stack_before)


class _Sampler:
    """Looks at what the tree holds, from a thread of its own, and stops what is beyond its budget.

    The kernel remembers this process's own peak; what children and shared memory add is sampled.
    """

    def __init__(self, watch: Watch, tell: Callable[[str], None]) -> None:
        self._watch = watch
        self._tell = tell
        self._op_thread = threading.current_thread()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)
        self._end = threading.Event()
        self._handler: Any = None
        self._beyond_since = 0.0
        self._interrupted_at = 0.0
        self._looked_at, self._shared_mb = 0.0, 0.0
        self._seen: list[int] = []
        if HAS_PROC:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        self._own_mb, self._before = own_mb(), own()
        self._older = {child.pid for child in children()}

    def __enter__(self) -> None:
        if self._op_thread is threading.main_thread():
            self._handler = signal.signal(signal.SIGUSR1, self._interrupt_here)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._handler is not None:
            signal.signal(signal.SIGUSR1, self._handler)
        watch = self._watch
        watch.peak_mb = max(watch.peak_mb, tree_mb())
        if HAS_PROC:
            highest = status_kb("VmHWM")["VmHWM"] / 1024
            watch.peak_mb = max(watch.peak_mb, self._own_mb + highest - self._before.resident)

    def _interrupt_here(self, _number: int, _frame: FrameType | None) -> None:
        if not self._end.is_set():
            raise StoppedError(self._watch.stopped[-1])

    def _run(self) -> None:
        wait_s = _CLOSEST_SAMPLE_S
        while not self._end.wait(wait_s):
            held_mb = self._glance()
            left_mb = STOP_SHARE * self._watch.budget_mb - held_mb
            wait_s = min(_SAMPLE_S, max(_CLOSEST_SAMPLE_S, left_mb / _FILLED_MB_PER_S))

    def _glance(self) -> float:
        """What the tree holds now; adding up shares of pages only where that may be too much.

        Shares are added up ten times a second. In between, and near its budget an op is looked at
        more often, the kernel's counters do: less what processes were seen to share with others,
        as long as these are the processes.
        """
        if HAS_PROC and time.monotonic() - self._looked_at < _SAMPLE_S:
            most_mb, pids = at_most()
            held_mb = most_mb + unmapped_mb(pids)
            if pids == self._seen:
                held_mb -= self._shared_mb
            if held_mb <= STOP_SHARE * self._watch.budget_mb:
                return held_mb
        self._looked_at = time.monotonic()
        return self._look()

    def _look(self) -> float:
        """What the tree holds now; something is done about it where it is too much."""
        watch, found = self._watch, children()
        mine_mb = self._own_mb + own().resident - self._before.resident
        if HAS_PROC:
            mine_mb += unmapped_mb([child.pid for child in found])
        held_mb = mine_mb + sum(child.mb for child in found)
        if HAS_PROC:
            most_mb, self._seen = at_most()
            self._shared_mb = most_mb - held_mb
        watch.peak_mb = max(watch.peak_mb, held_mb)
        excess_mb = held_mb - STOP_SHARE * watch.budget_mb
        largest = next((child for child in found if child.pid not in self._older), None)
        if excess_mb <= 0:
            self._beyond_since = 0.0
        elif largest and largest.mb > max(excess_mb, mine_mb - self._own_mb):
            self._note(held_mb, f"its child process {largest.pid}, which held {largest.mb:.0f} MB,")
            with contextlib.suppress(ProcessLookupError):
                os.kill(largest.pid, signal.SIGKILL)
            self._tell(watch.stopped[-1])
            return held_mb - largest.mb
        else:
            self._interrupt(held_mb)
        return held_mb

    def _interrupt(self, held_mb: float) -> None:
        now = time.monotonic()
        self._beyond_since = self._beyond_since or now
        far = held_mb > LAST_RESORT_SHARE * self._watch.budget_mb
        patience_s = INTERRUPT_S if far else LAST_RESORT_S
        if multiprocessing.parent_process() and now - self._beyond_since > patience_s:
            self._note(held_mb, "it went on when it was interrupted, and its process")
            self._tell(self._watch.stopped[-1])
            os._exit(1)
        if now - self._interrupted_at < 1.0:
            return
        self._interrupted_at = now
        self._note(held_mb, "it")
        if self._op_thread is threading.main_thread():
            signal.pthread_kill(self._op_thread.ident or 0, signal.SIGUSR1)
        else:
            raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raise_in(ctypes.c_ulong(self._op_thread.ident or 0), ctypes.py_object(StoppedError))
        self._tell(self._watch.stopped[-1])

    def _note(self, held_mb: float, what: str) -> None:
        watch = self._watch
        watch.stopped.append(
            f"the op {watch.op} held {held_mb:.0f} MB, its budget is {watch.budget_mb} MB; "
            f"{what} was stopped"
        )


def _warm_up() -> None:
    """Have the BLAS library take its buffers now, one per thread that may call it at a time.

    It maps 32 MB for each on first use, and under the wall it would abort instead of raising.
    """
    square = np.ones((256, 256), np.float32)
    ready = threading.Barrier(BLAS_CALLERS)

    def multiply(_: int) -> None:
        ready.wait()
        for _ in range(4):
            np.dot(square, square)

    with ThreadPoolExecutor(BLAS_CALLERS) as pool:
        list(pool.map(multiply, range(BLAS_CALLERS)))


_ASKED = (
    re.compile(r"unable to allocate ([\d.]+) (bytes|[kmgtp]ib)"),  # numpy
    re.compile(r"failed to allocate (\d+) (bytes)"),  # OpenCV
    re.compile(r"tried to allocate (\d+) (bytes)"),  # torch
)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50}


def _asked_mb(error: BaseException) -> float:
    """How much was asked for by the allocation that failed, as far as the error says."""
    for pattern in _ASKED:
        if found := pattern.search(str(error).lower()):
            return float(found[1]) * _UNITS[found[2]] / MB
    return 0.0
