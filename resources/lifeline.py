"""Processes that end when the one they work for is gone, however it ended."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process once its parent has ended; does nothing but on Linux.

    Args:
        parent_pid: Who the parent is to be: it may have ended before the kernel was told.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:
            os.kill(os.getpid(), signal.SIGKILL)


def have_steps_end_with_their_run() -> None:
    """In a fork server: have what it forks end with it, and with the process that asked for it.

    The first alone is not enough: a fork server lives for as long as one of its forks does.
    """
    parents = [os.getpid()]

    def before() -> None:
        parents[0] = os.getpid()

    def after_in_child() -> None:
        end_with_parent(parents[0])
        threading.Thread(target=_wait_for_starter, name="lifeline", daemon=True).start()

    os.register_at_fork(before=before, after_in_child=after_in_child)


def end_with_starter() -> None:
    """Have this process end once the Python process that spawned it has; nothing where none did."""
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_wait_for_starter, name="lifeline", daemon=True).start()


def _wait_for_starter() -> None:
    """End this process with the one that had it started, which it learns soon after its fork."""
    while (starter := multiprocessing.parent_process()) is None:
        time.sleep(0.05)
    starter.join()
    os.kill(os.getpid(), signal.SIGKILL)


def birth_of(pid: int) -> str:
    """When a process was started, as nothing but a process and its number together can say.

    Counted from the start of the machine where that is known: the time of day may be set. Empty
    where there is no such process.
    """
    with contextlib.suppress(OSError):
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return "" if facts[0] in "ZX" else f"{boot}:{facts[19]}"
    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.0f}"
    return ""
