"""Egress: commands run with the network cut off, or watched for every address that they name.

``cut_off`` runs a command and all it starts in a network namespace of their own, in which not even
the loopback is up; the kernel counts what tried to leave it, so nothing short-lived is missed.
``watched`` runs one beside the network and has ``strace`` report each address that is connected to,
bound or sent to. Linux only; ``why_not_cut_off`` and ``why_not_watched`` say what is in the way
elsewhere.
"""

import ipaddress
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_COUNTED = """"$@"; code=$?; cat /proc/net/snmp /proc/net/snmp6 > "$COUNTS"; exit $code"""
_ADDRESS = re.compile(r'inet_addr\("([^"]*)"\)|inet_pton\(AF_INET6, "([^"]*)"')
_CALLS = "connect,bind,sendto,sendmsg,sendmmsg"


@dataclass(frozen=True)
class Outcome:
    """How a command went, and what it tried.

    Attributes:
        returncode: Its exit status.
        stdout: What it printed.
        stderr: What it complained about.
        attempts: How often something tried to leave the machine.
        addresses: The addresses named, where they are known, without those of the loopback.
    """

    returncode: int
    stdout: str
    stderr: str
    attempts: int
    addresses: tuple[str, ...] = ()


@lru_cache
def why_not_cut_off() -> str:
    """Why no network namespace can be made here; empty where one can."""
    if shutil.which("unshare") is None:
        return "there is no unshare on this machine"
    made = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    return "" if made.returncode == 0 else f"no network namespace here: {made.stderr.strip()}"


@lru_cache
def why_not_watched() -> str:
    """Why no process can be traced here; empty where one can."""
    if shutil.which("strace") is None:
        return "there is no strace on this machine"
    traced = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect", "-o", "/dev/null", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if traced.returncode == 0 else f"no tracing here: {traced.stderr.strip()}"


def _unshare() -> list[str]:
    """Root keeps its rights; others need a user namespace, in which they remain who they are."""
    return ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-current-user"]), "--net"]


def cut_off(
    command: Sequence[str], environment: Mapping[str, str], cwd: Path, timeout_s: float
) -> Outcome:
    """Run a command without any network, the loopback included."""
    with tempfile.NamedTemporaryFile("r") as counts:
        done = subprocess.run(
            [*_unshare(), "sh", "-c", _COUNTED, "sh", *command],
            env={**environment, "COUNTS": counts.name},
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr, _without_route(counts.read()))


def _without_route(counts: str) -> int:
    """What the kernel found no way for, of both versions of the protocol."""
    names, values = (line.split()[1:] for line in counts.splitlines() if line.startswith("Ip:"))
    six = re.search(r"^Ip6OutNoRoutes\s+(\d+)", counts, re.MULTILINE)
    return int(values[names.index("OutNoRoutes")]) + (int(six[1]) if six else 0)


def watching(command: Sequence[str], log: Path) -> list[str]:
    """The command that runs this command and writes what it names into ``log``.

    It ends with the last process that was started by it.
    """
    return [
        *("strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={_CALLS}"),
        *("-e", "signal=none", "-o", str(log), "--", *command),
    ]


def watched(
    command: Sequence[str], environment: Mapping[str, str], cwd: Path, timeout_s: float
) -> Outcome:
    """Run a command and note every address outside the loopback."""
    with tempfile.NamedTemporaryFile("r") as log:
        done = subprocess.run(
            watching(command, Path(log.name)),
            env=dict(environment),
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
        )
        found = addresses(log.read())
    return Outcome(done.returncode, done.stdout, done.stderr, len(found), found)


def addresses(trace: str) -> tuple[str, ...]:
    """The addresses outside the loopback that a trace names; "any address" is outside."""
    named = (four or six for four, six in _ADDRESS.findall(trace))
    return tuple(text for text in named if not ipaddress.ip_address(text).is_loopback)
