"""Processes that end when the one they work for is gone, however it ended."""

import contextlib
import ctypes
import os
import signal
import sys

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


def have_forks_end_with_this_process() -> None:
    """Have every process that is forked from this one, and those forked from them, do so."""
    parents = [os.getpid()]

    def before() -> None:
        parents[0] = os.getpid()

    os.register_at_fork(before=before, after_in_child=lambda: end_with_parent(parents[0]))
