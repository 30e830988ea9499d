"""Work in a process of its own, which takes its memory with it and ends with who asked for it."""

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from core.encoders import EncoderError
from core.errors import is_out_of_memory
from resources.lifeline import end_with_parent, end_with_starter

Result = TypeVar("Result")


def in_own_process(work: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a fresh process.

    Raises:
        MemoryError: The process was ended from outside.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_starter) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise MemoryError("the process that converts was ended from outside") from error


def run_child(command: Sequence[str]) -> None:
    """Run a module of Quire that converts, as ``python -m``; it is told by ``--parent`` for whom.

    Args:
        command: The module and its arguments.

    Raises:
        EncoderError: It failed, with its last line.
        MemoryError: It ran out of memory, or was ended for it.
    """
    done = subprocess.run(
        [sys.executable, "-m", *command, "--parent", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    if done.returncode:
        error = EncoderError((done.stderr.strip().splitlines() or ["conversion was ended"])[-1])
        if done.returncode < 0 or is_out_of_memory(error):
            raise MemoryError(str(error))
        raise error


def work_for(parent: int) -> None:
    """In such a child: end with the process that asked, and do without its wall.

    The wall of the op that asks bounds each process by itself; its sampler sees all of them.
    """
    end_with_parent(parent)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
