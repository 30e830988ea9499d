"""A container: a command and everything it starts, under one memory limit.

A cgroup (version 2 or 1) where one may be made: the kernel enforces the limit, counts what it had
to kill, and no process leaves, daemons included. Elsewhere the proportional set sizes of the tree
are sampled and added up: nothing is enforced, and whether the limit held is for the caller to
assert.

What is counted is what cannot be reclaimed: anonymous memory and shared memory, tmpfs included.
The page cache is not: under pressure the kernel drops it before it kills. Version 2 adds the
kernel's own page tables, stacks and unreclaimable slabs; version 1 does not tell those apart from
reclaimable ones, so there ``kernel_mb`` has all of it, beside the peak. The limit covers all of it.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

MB = 2**20
SAMPLE_S = 0.02
"""A batch of the ops holds its memory for a tenth of a second and more."""

CLOSER_LOOK = 1.02
"""Processes are looked at one by one when the whole is this much above the last time."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Held:
    """Memory of one process.

    Attributes:
        pid: Its process id.
        role: What it is: ``op``, ``postgres``, ``webserver``...
        mb: Its share of anonymous and shared memory.
        file_mb: Its share of mapped files: libraries, which are page cache.
    """

    pid: int
    role: str
    mb: float
    file_mb: float


@dataclass
class Usage:
    """What a container has held.

    Attributes:
        kind: ``cgroup v2``, ``cgroup v1`` or ``sampled``.
        limit_mb: The limit; None where there was none.
        peak_mb: The most that everything together held and that could not be reclaimed.
        kernel_mb: The kernel's own memory at that moment, where it is counted apart.
        oom_kills: Processes that the kernel killed for the limit.
        processes: Who held it at the peak, the largest first.
        most: The most that one process of each role was seen to hold, in MB.
    """

    kind: str
    limit_mb: int | None
    peak_mb: float = 0.0
    kernel_mb: float = 0.0
    oom_kills: int = 0
    processes: tuple[Held, ...] = ()
    most: dict[str, float] = field(default_factory=dict)

    @property
    def within(self) -> bool:
        """Whether the limit was kept and nothing was killed for it."""
        kept = self.limit_mb is None or self.peak_mb <= self.limit_mb
        return kept and self.oom_kills == 0

    def as_dict(self) -> dict[str, Any]:
        """For printing: MB in whole numbers, processes of a role together."""
        at_peak: dict[str, float] = {}
        for process in self.processes:
            at_peak[process.role] = at_peak.get(process.role, 0.0) + process.mb
        return {
            "counted by": self.kind,
            "limit_mb": self.limit_mb,
            "peak_mb": round(self.peak_mb),
            "kernel_mb": round(self.kernel_mb),
            "oom kills": self.oom_kills,
            "at the peak, MB": {role: round(mb) for role, mb in at_peak.items()},
            "most of one process, MB": {role: round(mb) for role, mb in sorted(self.most.items())},
        }


class _Group(Protocol):
    """Where the processes are kept together."""

    kind: str

    def wrap(self, command: Sequence[str]) -> list[str]: ...
    def adopt(self, pid: int) -> None: ...
    def pids(self) -> list[int]: ...
    def held_mb(self) -> tuple[float, float]: ...
    def oom_kills(self) -> int: ...
    def remove(self) -> None: ...


class Container:
    """Processes under one memory limit.

        with Container(limit_mb=512) as container:
            done = container.run(["quire", "run", "paper.pdf"])
        print(container.usage.as_dict())

    Args:
        limit_mb: For everything together; None to measure only.
        cgroup: False to sample even where a cgroup may be made.
    """

    def __init__(self, limit_mb: int | None = None, *, cgroup: bool = True) -> None:
        self._group = _group(limit_mb, cgroup)
        self.usage = Usage(self._group.kind, limit_mb)
        self._stop = threading.Event()
        self._looked_at_mb = 0.0
        self._watcher = threading.Thread(target=self._watch, name="container", daemon=True)

    @property
    def enforced(self) -> bool:
        """Whether the kernel holds the processes to the limit."""
        return self._group.kind != "sampled"

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left inside and remove the group."""
        self._stop.set()
        self._watcher.join()
        self.usage.oom_kills = self._group.oom_kills()
        self._kill()
        self._group.remove()

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command inside; it is killed at the end unless it has ended."""
        process = subprocess.Popen(
            self._group.wrap(command),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self._group.adopt(process.pid)
        return process

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 900,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and wait for it; what it left running goes on.

        Raises:
            subprocess.TimeoutExpired: It took too long; everything inside has been killed.
        """
        # Files, not pipes: the end of a pipe comes only when what was left running ends, too.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self.start(command, env=env, cwd=cwd, stdout=out, stderr=err)
            try:
                code = process.wait(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                self._kill()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(command), code, out.read(), err.read())

    def pids(self) -> list[int]:
        """Every process inside, at this moment."""
        return self._group.pids()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._sample()
        self._sample()

    def _sample(self) -> None:
        held_mb, kernel_mb = self._group.held_mb()
        if held_mb > self.usage.peak_mb:
            self.usage.peak_mb, self.usage.kernel_mb = held_mb, kernel_mb
        if held_mb <= self._looked_at_mb * CLOSER_LOOK:
            return
        self._looked_at_mb = held_mb
        processes = [held for pid in self._group.pids() if (held := _held(pid)) is not None]
        self.usage.processes = tuple(sorted(processes, key=lambda held: -held.mb))
        for held in processes:
            self.usage.most[held.role] = max(self.usage.most.get(held.role, 0.0), held.mb)

    def _kill(self) -> None:
        for _ in range(200):
            pids = self._group.pids()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        raise RuntimeError(f"processes {self._group.pids()} do not end")


def cgroup_available() -> bool:
    """Whether a memory cgroup may be made here."""
    group = _group(64, cgroup=True)
    group.remove()
    return group.kind != "sampled"


def _group(limit_mb: int | None, cgroup: bool) -> _Group:
    if cgroup:
        for kind in (_Cgroup2, _Cgroup1):
            with contextlib.suppress(OSError):
                return kind(limit_mb)
    return _Tree()


class _Cgroup:
    """What both versions share: a folder with ``cgroup.procs``."""

    kind = ""

    def __init__(self, parent: Path) -> None:
        self.folder = parent / f"quire-{os.getpid()}-{next(_numbers)}"
        self.folder.mkdir()

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Join before the command's first instruction, so that nothing escapes."""
        join = 'echo $$ > "$0" && exec "$@"'
        return ["/bin/sh", "-c", join, str(self.folder / "cgroup.procs"), *command]

    def adopt(self, pid: int) -> None:
        """Nothing to do: the process has joined by itself."""

    def pids(self) -> list[int]:
        try:
            return [int(pid) for pid in (self.folder / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def remove(self) -> None:
        for _ in range(100):
            try:
                self.folder.rmdir()
                return
            except OSError:
                time.sleep(0.05)  # the last process is on its way out

    def _numbers_of(self, name: str) -> dict[str, int]:
        lines = (self.folder / name).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}


class _Cgroup2(_Cgroup):
    kind = "cgroup v2"

    def __init__(self, limit_mb: int | None) -> None:
        root = Path("/sys/fs/cgroup")
        if "memory" not in (root / "cgroup.subtree_control").read_text().split():
            raise OSError("the memory controller is not handed down")
        super().__init__(root)
        if limit_mb is not None:
            (self.folder / "memory.max").write_text(str(limit_mb * MB))
            with contextlib.suppress(OSError):
                (self.folder / "memory.swap.max").write_text("0")

    def held_mb(self) -> tuple[float, float]:
        stat = self._numbers_of("memory.stat")
        kernel = sum(
            stat.get(name, 0) for name in ("kernel_stack", "pagetables", "slab_unreclaimable")
        )
        return (stat["anon"] + stat["shmem"] + kernel) / MB, kernel / MB

    def oom_kills(self) -> int:
        return self._numbers_of("memory.events")["oom_kill"]


class _Cgroup1(_Cgroup):
    kind = "cgroup v1"

    def __init__(self, limit_mb: int | None) -> None:
        super().__init__(Path("/sys/fs/cgroup/memory"))
        if limit_mb is not None:
            (self.folder / "memory.limit_in_bytes").write_text(str(limit_mb * MB))
            with contextlib.suppress(OSError):
                (self.folder / "memory.memsw.limit_in_bytes").write_text(str(limit_mb * MB))

    def held_mb(self) -> tuple[float, float]:
        stat = self._numbers_of("memory.stat")
        try:
            kernel = int((self.folder / "memory.kmem.usage_in_bytes").read_text())
        except OSError:
            kernel = 0
        return (stat["total_rss"] + stat["total_shmem"]) / MB, kernel / MB

    def oom_kills(self) -> int:
        return self._numbers_of("memory.oom_control").get("oom_kill", 0)


class _Tree:
    """The descendants of the commands, from the kernel's lists of children.

    A process that was seen once stays counted when its parent ends, and so do its children: a
    server takes longer to detach itself than two samples are apart.
    """

    kind = "sampled"

    def __init__(self) -> None:
        self._members: dict[int, str] = {}  # process id: when it was started

    def wrap(self, command: Sequence[str]) -> list[str]:
        return list(command)

    def adopt(self, pid: int) -> None:
        self._members[pid] = _started(pid)

    def pids(self) -> list[int]:
        members = {p: at for p, at in list(self._members.items()) if at and _started(p) == at}
        waiting = list(members)
        while waiting:
            for child in _children(waiting.pop()):
                if child not in members:
                    members[child] = _started(child)
                    waiting.append(child)
        self._members = members
        return list(members)

    def held_mb(self) -> tuple[float, float]:
        return sum(held.mb for pid in self.pids() if (held := _held(pid)) is not None), 0.0

    def oom_kills(self) -> int:
        return 0

    def remove(self) -> None:
        """Nothing was made."""


def _started(pid: int) -> str:
    """When a process was started, so that a number that is used again is not taken for it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from (int(child) for child in (task / "children").read_text().split())


def _held(pid: int) -> Held | None:
    """What a process holds; None when it has ended."""
    sizes: dict[str, int] = {}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            sizes[name.rstrip(":")] = int(value)
        role = _role(pid)
    except (OSError, ValueError):
        return None
    mb = (sizes["Pss_Anon"] + sizes["Pss_Shmem"]) / 1024
    return Held(pid, role, mb, sizes["Pss_File"] / 1024)


_ROLES = (
    ("pdf_worker.py", "pdf worker"),
    ("resource_tracker", "resource tracker"),
    ("forkserver", "fork server"),
    ("spawn_main", "run"),
    ("dagster_webserver", "webserver"),
    ("dagster-webserver", "webserver"),
    ("dagster._daemon", "daemon"),
    ("dagster-daemon", "daemon"),
    ("code-server", "code server's proxy"),
    ("api grpc", "code server"),
    ("dagster dev", "dagster dev"),
    ("orchestration.services", "ui"),
    ("watch_orphans", "log capture"),
    ("tail -F", "log capture"),
    ("orchestration.cli", "quire"),
    ("bin/quire", "quire"),
)
"""What a command line says about a process; the first that fits."""


def _role(pid: int) -> str:
    words = _words(pid)
    if Path(f"/proc/{pid}/comm").read_text().strip() == "postgres":
        return "postgres"
    for sign, role in _ROLES:
        if sign not in words:
            continue
        if role == "fork server" and "forkserver" in _words(_parent(pid)):
            return "op"  # a step keeps the command line of the server it was forked from
        return role
    return Path(words.split(" ")[0]).name or "?"


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    return ""


def _parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])
