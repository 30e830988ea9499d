import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from benchmarks.faults.container import Container, cgroup_available

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
by_the_kernel = pytest.mark.skipif(
    not cgroup_available(), reason="no memory cgroup may be made here: nothing enforces a limit"
)
either_way = pytest.mark.parametrize(
    "cgroup", [pytest.param(True, marks=by_the_kernel, id="cgroup"), pytest.param(False, id="pss")]
)

HOLD = "import time; held = b'x' * ({mb} << 20); time.sleep({s})"


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@either_way
def test_the_peak_is_that_of_all_processes_together(cgroup: bool) -> None:
    hold = HOLD.format(mb=60, s=1)
    script = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {hold!r}]); "
    with Container(cgroup=cgroup) as container:
        done = container.run(python(script + hold + "; c.wait()"))
    assert done.returncode == 0
    assert 120 < container.usage.peak_mb < 160
    assert sum(held.mb > 55 for held in container.usage.processes) == 2


@either_way
def test_a_server_that_detaches_itself_is_counted_and_ended(cgroup: bool) -> None:
    hold = HOLD.format(mb=50, s=60)
    detach = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {hold!r}], start_new_session=True); "
        "time.sleep(0.3)"
    )
    with Container(cgroup=cgroup) as container:
        assert container.run(python(detach)).returncode == 0
        later = container.run(python(HOLD.format(mb=1, s=1)))
        assert later.returncode == 0
        (server,) = container.pids()
        assert lives(server)
    assert container.usage.peak_mb > 50
    assert not lives(server)


@by_the_kernel
def test_what_goes_beyond_the_limit_is_killed_and_counted_and_its_neighbour_is_not() -> None:
    with Container(limit_mb=80) as container:
        assert container.enforced
        neighbour = container.start(python(HOLD.format(mb=10, s=60)))
        assert container.run(python(HOLD.format(mb=120, s=0))).returncode == -9
        assert neighbour.poll() is None
    assert container.usage.oom_kills == 1
    assert container.usage.peak_mb <= 80
    assert not container.usage.within


def test_where_nothing_enforces_the_limit_its_breach_is_told() -> None:
    with Container(limit_mb=40, cgroup=False) as container:
        assert not container.enforced
        assert container.run(python(HOLD.format(mb=60, s=0.5))).returncode == 0
    assert container.usage.peak_mb > 60
    assert not container.usage.within


@by_the_kernel
def test_files_in_memory_count_and_the_page_cache_does_not(tmp_path: Path) -> None:
    write = (
        "import sys; f = open(sys.argv[1], 'wb'); f.write(b'x' * (1 << 20)); "
        "[f.write(b'x' * (1 << 20)) for _ in range(99)]; f.close(); "
        "import time; time.sleep(0.2)"
    )
    with Container() as container:
        assert container.run(python(write, str(tmp_path / "cached"))).returncode == 0
    on_disk_mb = container.usage.peak_mb
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file, Container() as container:
        assert container.run(python(write, file.name)).returncode == 0
    assert on_disk_mb < 40
    assert container.usage.peak_mb > 100
