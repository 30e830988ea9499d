"""What this process and its descendants hold, from the kernel's own accounting.

Memory is counted as proportional set size (PSS): pages that are shared count by share, so that a
tree can be added up. Shared memory that is held by an open file alone (a memfd, a file in
``/dev/shm``) belongs to no process's size, although nothing but the holder can free it; it is
counted here. On systems without ``/proc`` the resident size stands in for all of it.
"""

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MB = 1024 * 1024
HAS_PROC = Path("/proc/self/smaps_rollup").exists()

_PF_FORKNOEXEC = 0x40
"""Flag of a process that was forked and has not started a program of its own."""

_IN_MEMORY = ("/memfd:", "/dev/shm/")


@dataclass(frozen=True)
class Child:
    """A descendant and the memory it holds."""

    pid: int
    mb: float


@dataclass(frozen=True)
class Own:
    """What this process holds, in MB, in figures that are cheap to ask for.

    Attributes:
        resident: Everything of it that is in memory, the part it shares with others included.
        shared: Shared memory that is mapped, a part of ``resident``.
    """

    resident: float
    shared: float


def tree_mb() -> float:
    """Memory that this process and its descendants hold now."""
    if not HAS_PROC:
        return psutil.Process().memory_info().rss / MB + sum(c.mb for c in children())
    found = children()
    return own_mb() + sum(child.mb for child in found) + unmapped_mb([c.pid for c in found])


def own_mb() -> float:
    """Memory of this process, pages that it shares with others by its share."""
    return _pss_mb("self") if HAS_PROC else psutil.Process().memory_info().rss / MB


def own() -> Own:
    """What this process holds now."""
    if not HAS_PROC:
        return Own(psutil.Process().memory_info().rss / MB, 0.0)
    kb = status_kb("VmRSS", "RssShmem")
    return Own(kb["VmRSS"] / 1024, kb["RssShmem"] / 1024)


def status_kb(*names: str) -> dict[str, int]:
    """Numbers of ``/proc/self/status`` by name; 0 for one that is not there."""
    found = dict.fromkeys(names, 0)
    for line in _read("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0])
    return found


def children() -> list[Child]:
    """All descendants that hold anything, the largest first."""
    found: list[Child] = []
    if HAS_PROC:
        found = [Child(pid, _pss_mb(pid)) for pid in _descendants(os.getpid())]
    else:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(Child(child.pid, child.memory_info().rss / MB))
    return sorted((c for c in found if c.mb), key=lambda child: -child.mb)


def at_most() -> tuple[float, list[int]]:
    """What this process and its descendants hold at most, and the descendants.

    Pages that are shared are counted by each who has them. Asked of the kernel's counters, which
    takes a tenth of the time that adding up shares does.
    """
    pids = list(_descendants(os.getpid()))
    sizes = (_words(f"/proc/{pid}/statm") for pid in (os.getpid(), *pids))
    pages = sum(int(words[1]) for words in sizes if words)
    return pages * resource.getpagesize() / MB, pids


def unmapped_mb(pids: list[int]) -> float:
    """Shared memory that this process and these hold by open files and have not mapped."""
    files: dict[tuple[int, int], int] = {}
    mapped = 0.0
    for pid in ("self", *pids):
        here = dict(_files_in_memory(pid))
        if here:
            mapped += _pss_mb(pid, "Pss_Shmem")
        files |= here
    return max(0.0, sum(files.values()) / MB - mapped)


def _files_in_memory(pid: int | str) -> Iterator[tuple[tuple[int, int], int]]:
    """Device and inode, and bytes, of each open file whose content is nowhere but in memory."""
    folder = f"/proc/{pid}/fd"
    for number in _listed(folder):
        with contextlib.suppress(OSError):
            link = f"{folder}/{number}"
            if os.readlink(link).startswith(_IN_MEMORY):
                file = os.stat(link)
                yield (file.st_dev, file.st_ino), file.st_blocks * 512


def _pss_mb(pid: int | str, name: str = "Pss") -> float:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def _descendants(pid: int) -> Iterator[int]:
    """All descendants, from the kernel's own lists.

    Looking through every process of the machine for its parent costs 20 ms, which ten times a
    second is a fifth of a core.
    """
    for task in _listed(f"/proc/{pid}/task"):
        for child in _words(f"/proc/{pid}/task/{task}/children"):
            if not _is_about_to_start(int(child), pid):
                yield int(child)
                yield from _descendants(int(child))


def _is_about_to_start(pid: int, parent: int) -> bool:
    """Whether a child still runs in its parent's memory (``vfork``), which would count twice.

    Such a child has not started its program yet, and has its parent's very size.
    """
    stat = _words(f"/proc/{pid}/stat", after=")")
    if len(stat) < 7 or not int(stat[6]) & _PF_FORKNOEXEC:
        return False
    return _words(f"/proc/{pid}/statm")[:1] == _words(f"/proc/{parent}/statm")[:1]


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # it ended


def _words(file: str, after: str = "") -> list[str]:
    text = _read(file)
    return text[text.rfind(after) + 1 :].split() if after else text.split()


def _read(file: str) -> str:
    """A small file of the kernel's; empty where what it is about has ended.

    By the system's own calls: memory is looked at many times a second, and ``pathlib`` and text
    files take several times as long.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(handle, 1 << 16).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(handle)
