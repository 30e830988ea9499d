"""The memory limit of the container that this process lives in, if it lives in one."""

from collections.abc import Iterator
from pathlib import Path

import psutil

MB = 1 << 20


def container_limit_mb(root: Path = Path("/")) -> int | None:
    """The cgroup's memory limit, version 1 or 2, the narrowest of those that enclose it.

    Args:
        root: Where ``proc`` and ``sys`` are found.

    Returns:
        None where there is no limit below the machine's own memory, or no cgroup at all.
    """
    limits = [*_version_2(root), *_version_1(root)]
    narrowest = min(limits, default=None)
    if narrowest is None or narrowest >= psutil.virtual_memory().total:
        return None
    return narrowest // MB


def _version_2(root: Path) -> Iterator[int]:
    """The limits of this cgroup and of every one above it that can be seen."""
    for mount in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
        for folder in _upwards(mount, _own_path(root, "")):
            text = _text(folder / "memory.max").strip()
            if text.isdecimal():
                yield int(text)


def _version_1(root: Path) -> Iterator[int]:
    """The limit that the kernel found when it looked upwards itself."""
    mount = root / "sys/fs/cgroup/memory"
    for folder in _upwards(mount, _own_path(root, "memory")):
        for line in _text(folder / "memory.stat").splitlines():
            if line.startswith("hierarchical_memory_limit "):
                yield int(line.split()[1])


def _own_path(root: Path, controller: str) -> str:
    """The path of this process in a hierarchy; ``/`` where it is not told."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A cgroup's folder and those above it; a container may see the last of them only."""
    folder = mount / path.lstrip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
