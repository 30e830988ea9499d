"""The memory contract: a declared budget per op, planned for, watched, and walled.

The peak is that of the whole process tree. For this process it comes from the kernel's own
high-water mark, for children from their proportional set size (PSS), sampled. On systems without
``/proc`` the resident size is sampled instead and there is no wall; the metadata says so.
"""

import contextlib
import math
import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil

from core.errors import BudgetError

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

_SAMPLE_S = 0.1
_HAS_PROC = Path("/proc/self/smaps_rollup").exists()


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


def _status_kb(pid: int | str, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def _pss_mb(pid: int | str) -> float:
    """Proportional set size: shared pages count by share, so that a tree can be summed."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0  # the child ended between listing and reading
    return 0.0


def tree_mb() -> float:
    """Memory that this process and its descendants hold now (PSS; resident without /proc)."""
    own = _pss_mb("self") if _HAS_PROC else psutil.Process().memory_info().rss / MB
    return own + _descendants_mb()


def _descendants_mb() -> float:
    if _HAS_PROC:
        return sum(_pss_mb(pid) for pid in _descendants(os.getpid()))
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += child.memory_info().rss / MB
    return total


def _descendants(pid: int) -> Iterator[int]:
    """All descendants, from the kernel's own lists.

    Looking through every process of the machine for its parent costs 20 ms, which ten times a
    second is a fifth of a core.
    """
    for task in _listed(Path(f"/proc/{pid}/task")):
        for child in _words(task / "children"):
            yield int(child)
            yield from _descendants(int(child))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []  # it ended


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it ended


@dataclass
class Watch:
    """What a watched op has held so far.

    Attributes:
        budget_mb: What it may hold.
        base_mb: What the tree held when the watch began.
        predicted_mb: The plan's prediction; raised by the op as it plans.
        peak_mb: The most that the tree has held.
        walled: Whether an allocation beyond the budget fails inside the op.
    """

    budget_mb: int
    base_mb: float
    predicted_mb: float = 0.0
    peak_mb: float = 0.0
    walled: bool = False

    @property
    def over(self) -> bool:
        """Whether the tree held more than its budget."""
        return self.peak_mb > self.budget_mb


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
    def watch(self, budget_mb: int) -> Iterator[Watch]:
        """Arm the wall, watch the tree's peak, and put the wall back as it was.

        The wall bounds private writable memory (``RLIMIT_DATA``): what the process has mapped now,
        plus what is left of the budget. Beyond it numpy and torch raise MemoryError, which the op
        answers with a smaller batch.

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
        watch = Watch(budget_mb, base_mb, predicted_mb=base_mb, peak_mb=base_mb)
        before = resource.getrlimit(resource.RLIMIT_DATA)
        stack_before = threading.stack_size(STACK_BYTES)
        resident_mb = own_mb = 0.0
        if _HAS_PROC:
            with contextlib.suppress(PermissionError, OSError):
                Path("/proc/self/clear_refs").write_text("5")
            resident_mb = _status_kb("self", "VmHWM") / 1024
            own_mb = _pss_mb("self")
        stop = threading.Event()

        def sample() -> None:
            # The kernel remembers this process's own peak; only children have to be sampled.
            while not stop.wait(_SAMPLE_S):
                children_mb = _descendants_mb()
                if children_mb == 0.0 and _HAS_PROC:
                    continue
                grown = _status_kb("self", "VmRSS") / 1024 - resident_mb
                held_mb = own_mb + grown + children_mb if _HAS_PROC else tree_mb()
                watch.peak_mb = max(watch.peak_mb, held_mb)

        sampler = threading.Thread(target=sample, name="memory-watch", daemon=True)
        sampler.start()
        if _HAS_PROC:
            mapped = _status_kb("self", "VmData") * 1024
            wall = mapped + int((budget_mb - base_mb + STACKS_MB) * MB)
            if before[1] == resource.RLIM_INFINITY or wall <= before[1]:
                resource.setrlimit(resource.RLIMIT_DATA, (wall, before[1]))
                watch.walled = True
        try:
            yield watch
        finally:
            stop.set()
            sampler.join()
            resource.setrlimit(resource.RLIMIT_DATA, before)
            threading.stack_size(stack_before)
            watch.peak_mb = max(watch.peak_mb, tree_mb())
            if _HAS_PROC:
                grown = _status_kb("self", "VmHWM") / 1024 - resident_mb
                watch.peak_mb = max(watch.peak_mb, own_mb + grown)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, in the words of numpy, OpenCV or torch."""
    if isinstance(error, MemoryError):
        return True
    words = str(error).lower()
    return any(
        sign in words
        for sign in (
            "can't allocate memory",
            "insufficient memory",
            "failed to allocate",
            "bad_alloc",
        )
    )
