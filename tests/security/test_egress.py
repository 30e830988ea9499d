"""Nothing leaves the machine: with the network cut Quire works, and with it there nothing asks."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.faults.egress import addresses, cut_off, watched, why_not_cut_off, why_not_watched
from resources.embedded_postgres import EmbeddedPostgres
from tests.hostile import small_paper
from tests.security.conftest import HostileRun

pytestmark = pytest.mark.timeout(900)  # the fixture is a run of its own

ASK = """
import socket
for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET, "127.0.0.1")):
    try:
        socket.socket(family, socket.SOCK_DGRAM).connect((address, 9))
    except OSError:
        pass
"""

needs_namespace = pytest.mark.skipif(bool(why_not_cut_off()), reason=why_not_cut_off() or "-")
needs_tracing = pytest.mark.skipif(bool(why_not_watched()), reason=why_not_watched() or "-")


@needs_namespace
def test_with_the_network_cut_a_run_takes_in_a_paper_and_writes_its_report(
    server_home: Path, tmp_path: Path
) -> None:
    """The embedded server starts and answers over its socket: not even the loopback is there."""
    home = server_home / "cut-off"
    environment = {**os.environ, "QUIRE_HOME": str(home)}
    quire = [sys.executable, "-W", "ignore", "-m", "orchestration.cli"]
    small_paper(tmp_path / "paper.pdf", seed=61, panels=4)
    command = [*quire, "run", str(tmp_path / "paper.pdf"), "--out", str(tmp_path / "out")]
    try:
        outcome = cut_off(command, environment, Path.cwd(), timeout_s=800)
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stderr == ""
        assert "2 pairs of similar regions" in outcome.stdout
        assert (tmp_path / "out" / "report.html").is_file()
        assert outcome.attempts == 0
        pid = EmbeddedPostgres(home / "postgres").status().pid
        assert pid is not None
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            assert process.net_connections("inet") == []
    finally:
        EmbeddedPostgres(home / "postgres").stop()


@needs_tracing
def test_with_the_network_there_no_process_of_a_run_names_an_address(
    hostile_run: HostileRun,
) -> None:
    assert hostile_run.is_watched
    assert hostile_run.outcome.returncode == 3
    assert hostile_run.outcome.addresses == ()


@needs_namespace
def test_an_attempt_to_leave_is_counted(tmp_path: Path) -> None:
    assert cut_off([sys.executable, "-c", ASK], {}, tmp_path, timeout_s=60).attempts == 2
    assert cut_off([sys.executable, "-c", "raise SystemExit(5)"], {}, tmp_path, 60).returncode == 5


@needs_tracing
def test_an_address_outside_the_machine_is_noticed(tmp_path: Path) -> None:
    assert watched([sys.executable, "-c", ASK], {}, tmp_path, 60).addresses == ("192.0.2.1",)


def test_only_the_loopback_is_left_out_of_what_a_trace_names() -> None:
    trace = """
        1 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.53")}, 16)
        1 bind(3, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("0.0.0.0")}, 16) = 0
        1 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0),
          inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = -1
        1 sendto(3, "x", 1, 0, {sa_family=AF_INET6, inet_pton(AF_INET6, "2001:db8::1", &a)}, 28) = 1
        1 connect(3, {sa_family=AF_UNIX, sun_path="/run/inet_addr"}, 110) = 0
    """
    assert addresses(trace) == ("0.0.0.0", "2001:db8::1")
