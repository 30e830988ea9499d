"""Runs whose process is gone: found by run monitoring, and by the next headless run.

Dagster's own launcher cannot tell whether the process that executes a run is alive. A run whose
process was killed together with its code server would be called running for ever, and with one run
at a time nothing after it would start.
"""

import json
import os
import socket
from pathlib import Path

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

from resources.lifeline import birth_of

PROCESS_TAG = "quire/process"
"""Tag of a headless run: host, process id and birth of the process that executes it."""


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, and an answer to whether a run is still being executed."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Makes run monitoring ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Failed only where that is certain: what cannot be told from here is left alone."""
        if is_abandoned(run):
            return CheckRunHealthResult(
                WorkerStatus.FAILED, "the process that executed the run is gone"
            )
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def this_process() -> str:
    """The value of ``PROCESS_TAG`` for this process."""
    return f"{socket.gethostname()}/{os.getpid()}/{birth_of(os.getpid())}"


def is_abandoned(run: DagsterRun) -> bool:
    """Whether it is certain that nobody executes a started run."""
    if PROCESS_TAG in run.tags:
        host, pid, birth = [*run.tags[PROCESS_TAG].split("/"), "", "", ""][:3]
        return host == socket.gethostname() and pid.isdigit() and birth_of(int(pid)) != birth
    if GRPC_INFO_TAG in run.tags:
        return _is_unknown_to_its_server(run.run_id, json.loads(run.tags[GRPC_INFO_TAG]))
    return False


def _is_unknown_to_its_server(run_id: str, server: dict[str, str]) -> bool:
    """Whether the code server that was to execute a run is gone, or knows nothing of it.

    The processes that execute runs end with their code server (``orchestration.executor``).
    """
    path = server.get("socket")
    if path and not _listens(Path(path)):
        return True
    client = DagsterGrpcClient(
        port=int(server["port"]) if "port" in server else None,
        socket=path,
        host=server.get("host", "localhost"),
        use_ssl=bool(server.get("use_ssl", False)),
    )
    try:
        reply = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=10)
    except DagsterUserCodeUnreachableError:
        return False  # just restarting, perhaps
    return not deserialize_value(reply, CanCancelExecutionResult).can_cancel


def _listens(path: Path) -> bool:
    """Whether somebody listens on a socket of this machine."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True
