import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from orchestration.launcher import PROCESS_TAG, WatchedRunLauncher, is_abandoned, this_process
from resources.lifeline import birth_of


def run_with(**tags: str) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="copy_search", status=dg.DagsterRunStatus.STARTED, tags={**tags})


def headless(tag: str) -> dg.DagsterRun:
    return run_with(**{PROCESS_TAG: tag})


def test_a_headless_run_is_abandoned_once_its_process_is_gone() -> None:
    ours = this_process()
    host, pid, birth = ours.split("/")
    assert not is_abandoned(headless(ours))
    assert is_abandoned(headless(f"{host}/{pid}/{birth}0")), "another process with that number"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        born = birth_of(ended.pid)
    assert born
    assert birth_of(ended.pid) != born
    assert is_abandoned(headless(f"{host}/{ended.pid}/{born}"))
    assert not is_abandoned(headless(f"elsewhere/{ended.pid}/{born}")), "cannot be told from here"
    assert not is_abandoned(run_with())


def test_a_run_is_abandoned_once_nobody_listens_where_its_code_server_did(tmp_path: Path) -> None:
    path = tmp_path / "code.sock"
    run = run_with(**{GRPC_INFO_TAG: json.dumps({"host": "localhost", "socket": str(path)})})
    assert is_abandoned(run)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert is_abandoned(run), "the file of a socket outlives its server"
    launcher = WatchedRunLauncher()
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
    assert launcher.check_run_worker_health(run_with()).status == WorkerStatus.RUNNING


STARTER = """
import multiprocessing, os, sys, time

def work(pipe):
    if sys.argv[1] == "spawn":
        from resources.lifeline import end_with_starter
        end_with_starter()
    pipe.send((os.getpid(), os.getppid()))
    time.sleep(600)

if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[1] == "forkserver":
        context.set_forkserver_preload(["orchestration.preload"])
    context.Process(target=work, args=(theirs,)).start()
    print(*ours.recv(), flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_a_killed_process_had_started_ends_with_it(tmp_path: Path, method: str) -> None:
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", script, method],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "QUIRE_HOME": str(tmp_path / "home")},
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdin is not None
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        alive = {pid: birth_of(pid) for pid in pids if pid != starter.pid}
        assert len(alive) == (1 if method == "spawn" else 2)
        starter.stdin.write("\n")
    deadline = time.monotonic() + 60
    while any(birth_of(pid) == birth for pid, birth in alive.items()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
