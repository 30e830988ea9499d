"""What ``quire ui`` runs: the code server, the webserver and the daemon, for as long as it runs.

    python -m orchestration.services HOST PORT FOLDER

It does what ``dagster dev`` does, in a process that has not imported Dagster: that one and the
server of code servers that it starts beside the three hold 165 MB (``benchmarks/containers.py``).
A service that ends is started again, with a line that says so; one that cannot be started ends all.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

from resources.lifeline import end_with_parent

LOCATION = "quire"
MODULE = "orchestration.definitions"


@dataclass(frozen=True)
class Patience:
    """How long is waited for, in seconds."""

    start_s: float = 180.0
    """For the code server to listen: it imports all of Dagster, on a machine that is busy."""

    settled_s: float = 30.0
    """A service that ends sooner after its start would do so again."""

    end_s: float = 20.0
    """For services and runs to end when they are asked to; then they are killed."""

    look_s: float = 0.5
    """Between two looks at the services."""


PATIENCE = Patience()


@dataclass
class Service:
    """One of the processes.

    Attributes:
        name: What messages call it.
        command: What starts it.
        ready: Whether it can be used.
        process: The running process.
        since_s: When it was started, on the monotonic clock.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool] = lambda: True
    process: subprocess.Popen[bytes] | None = None
    since_s: float = field(default=0.0)

    def start(self) -> None:
        """Start it and wait until it can be used.

        Raises:
            ServiceError: It ended before, or was not ready in time.
        """
        parent = os.getpid()
        self.since_s = time.monotonic()
        self.process = subprocess.Popen(self.command, preexec_fn=lambda: end_with_parent(parent))
        while not self.ready():
            if self.ended() is not None:
                raise ServiceError(f"the {self.name} ended before it was ready, see above")
            if time.monotonic() - self.since_s > PATIENCE.start_s:
                raise ServiceError(f"the {self.name} was not ready in {PATIENCE.start_s:.0f} s")
            time.sleep(PATIENCE.look_s)

    def ended(self) -> int | None:
        """How it ended: an exit code, or minus a signal; None while it runs."""
        return self.process.poll() if self.process is not None else None


class ServiceError(Exception):
    """A service does not start, in one sentence."""


def services(host: str, port: int, folder: Path) -> list[Service]:
    """The three, in the order in which they are started; ``folder`` holds socket and workspace."""
    python = sys.executable
    listening = folder / "code.sock"
    workspace = folder / "workspace.yaml"
    # JSON is YAML.
    server = {"socket": str(listening), "host": "localhost", "location_name": LOCATION}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    code = [python, "-m", "dagster", "api", "grpc", "-m", MODULE, "--socket", str(listening)]
    code += ["--location-name", LOCATION, "--use-python-environment-entry-point"]
    web = [python, "-m", "dagster_webserver", "-h", host, "-p", str(port), "-w", str(workspace)]
    daemon = [python, "-m", "dagster._daemon", "run", "-w", str(workspace)]
    return [
        Service("code server", code, lambda: _listens(listening)),
        Service("webserver", web),
        Service("daemon", daemon),
    ]


def keep_running(all_services: Sequence[Service], say: Callable[[str], None]) -> NoReturn:
    """Start the services and start again whichever ends; returns only by an exception.

    Raises:
        ServiceError: One does not start, or ends as soon as it has.
    """
    for service in all_services:
        service.start()
    while True:
        time.sleep(PATIENCE.look_s)
        for service in all_services:
            code = service.ended()
            if code is None:
                continue
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            if time.monotonic() - service.since_s < PATIENCE.settled_s:
                raise ServiceError(f"the {service.name} ended at once ({how}), see above")
            say(f"the {service.name} ended ({how}) and is started again")
            service.start()


def end(all_services: Sequence[Service]) -> None:
    """Ask services and the runs they started to end, and kill what does not."""
    living = [s.process for s in reversed(all_services) if s.process and s.process.poll() is None]
    tree: list[psutil.Process] = []
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            known = psutil.Process(process.pid)
            # The database is nobody's part: it goes on until it is stopped.
            tree += [known, *(p for p in known.children(recursive=True) if not _postgres(p))]
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(tree, timeout=PATIENCE.end_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=PATIENCE.end_s)


def _postgres(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() == "postgres"
    return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _say(text: str) -> None:
    sys.stderr.write(f"quire: {text}\n")
    sys.stderr.flush()


def main() -> int:
    """The command."""
    host, port, folder = sys.argv[1:]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    running = services(host, int(port), Path(folder))
    try:
        keep_running(running, _say)
    except KeyboardInterrupt:
        return 0
    except ServiceError as error:
        _say(str(error))
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # once is enough
        end(running)


if __name__ == "__main__":
    sys.exit(main())
