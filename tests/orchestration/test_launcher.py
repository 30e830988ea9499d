import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
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
from resources.lifeline import end_with_starter

def work(pipe):
    end_with_starter()
    pipe.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,))
    child.start()
    print(ours.recv(), flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_spawned_ends_with_it(tmp_path: Path) -> None:
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdin is not None
        pid = int(starter.stdout.readline())
        born = birth_of(pid)
        assert born
        starter.stdin.write("\n")
    deadline = time.monotonic() + 60
    while birth_of(pid) == born:
        assert time.monotonic() < deadline
        time.sleep(0.02)
