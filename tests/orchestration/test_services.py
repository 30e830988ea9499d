import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from orchestration import services
from orchestration.services import Patience, Service, ServiceError, end, keep_running

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience(start_s=60, settled_s=0.5, end_s=2, look_s=0.05)
    monkeypatch.setattr(services, "PATIENCE", patience)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_service_that_is_killed_is_started_again_and_told() -> None:
    daemon = Service("daemon", SLEEP)
    said: list[str] = []

    def kill() -> None:
        time.sleep(1)  # longer than it takes to be settled
        assert daemon.process is not None
        first = daemon.process
        first.kill()
        while daemon.process is first:
            time.sleep(0.02)

    def kill_three_times() -> None:
        kill()
        kill()
        daemon.command = [sys.executable, "-c", "raise SystemExit(7)"]
        kill()

    killer = threading.Thread(target=kill_three_times)
    killer.start()
    try:
        with pytest.raises(ServiceError, match="the daemon ended at once"):
            keep_running([daemon], said.append)
    finally:
        killer.join()
        end([daemon])
    assert said == ["the daemon ended (signal 9) and is started again"] * 3


def test_a_service_that_does_not_come_up_ends_all_with_a_sentence() -> None:
    broken = [sys.executable, "-c", "raise SystemExit(3)"]
    never = Service("code server", broken, ready=lambda: False)
    with pytest.raises(ServiceError, match="the code server ended before it was ready"):
        keep_running([never], lambda text: None)


def test_the_end_takes_along_what_services_started_and_what_does_not_listen(
    tmp_path: Path,
) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    script = (
        "import pathlib, subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn + 'time.sleep(60)'!r}]); "
        "time.sleep(0.5); pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(60)"
    )
    told = tmp_path / "pid"
    service = Service("code server", [sys.executable, "-c", script, str(told)], told.exists)
    service.start()
    while not (child := told.read_text()):
        time.sleep(0.02)
    assert service.process is not None
    assert lives(int(child))
    end([service])
    assert not lives(service.process.pid)
    assert not lives(int(child))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel is told on Linux only")
def test_services_end_with_the_process_that_keeps_them_however_it_ends(tmp_path: Path) -> None:
    script = (
        "import sys, time; from orchestration.services import Service; "
        f"s = Service('daemon', {SLEEP!r}); s.start(); print(s.process.pid, flush=True); "
        "time.sleep(60)"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert keeper.stdout is not None
    daemon = int(keeper.stdout.readline())
    assert lives(daemon)
    keeper.kill()
    keeper.wait()
    deadline = time.monotonic() + 20
    while lives(daemon) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(daemon)


def test_keeping_services_takes_no_dagster() -> None:
    script = "import orchestration.services, sys; assert 'dagster' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
