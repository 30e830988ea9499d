import multiprocessing
import os
import pwd
import resource
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from resources import embedded_postgres, postgres_programs
from resources.embedded_postgres import (
    DatabaseUnavailableError,
    EmbeddedPostgres,
    ServerSettings,
)
from resources.postgres_programs import Account, Binaries

AS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not AS_ROOT, reason="takes root")

START = """
import sys
from pathlib import Path
from resources.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.status().pid)
"""


@pytest.fixture(scope="module")
def home(server_home: Path) -> Path:
    directory = server_home / "lifecycle"
    directory.mkdir(mode=0o711)
    return directory


@pytest.fixture(scope="module")
def pristine(home: Path, forgetful_settings: ServerSettings) -> Path:
    """A stopped server's data directory, to be copied."""
    server = EmbeddedPostgres(home / "pristine", settings=forgetful_settings)
    server.start()
    server.stop()
    return server.data_dir


@pytest.fixture
def data_dir(home: Path, pristine: Path) -> Iterator[Path]:
    """A data directory of its own for each test."""
    data_dir = home / "server"
    subprocess.run(["cp", "-a", pristine, data_dir], check=True)
    yield data_dir
    EmbeddedPostgres(data_dir).stop()
    shutil.rmtree(data_dir)


@pytest.fixture
def server(data_dir: Path, forgetful_settings: ServerSettings) -> EmbeddedPostgres:
    """A server, stopped so far."""
    return EmbeddedPostgres(data_dir, settings=forgetful_settings)


@pytest.fixture
def durable_server(data_dir: Path) -> EmbeddedPostgres:
    """The same as users have it."""
    return EmbeddedPostgres(data_dir)


def pid_of(server: EmbeddedPostgres) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def kill_everything(server: EmbeddedPostgres) -> None:
    postmaster = psutil.Process(pid_of(server))
    for process in [postmaster, *postmaster.children(recursive=True)]:
        process.kill()


def as_user(name: str, work: Callable[[], object]) -> str:
    """What a function returns, or the error it ends with, when another user calls it."""
    entry = pwd.getpwnam(name)
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def call() -> None:
        if AS_ROOT:
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        try:
            sender.send(str(work()))
        except DatabaseUnavailableError as error:
            sender.send(str(error))

    child = fork.Process(target=call)
    child.start()
    child.join(60)
    assert receiver.poll(), "the other user's process ended without an answer"
    return str(receiver.recv())


def as_owner(server: EmbeddedPostgres, work: Callable[[], object]) -> str:
    """What a function returns for the server's own user, who alone may look at its process."""
    return as_user(pwd.getpwuid(server.cluster_dir.stat().st_uid).pw_name, work)


def opened_by(pid: int) -> list[str]:
    return [str(handle.readlink()) for handle in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_started_server_answers_until_it_is_stopped(server: EmbeddedPostgres) -> None:
    url = server.start()
    with psycopg.connect(url) as db:
        assert db.execute("SELECT lower('ÄÖÜ')").fetchone() == ("äöü",)
    status = server.status()
    assert status.running
    assert status.version.startswith("18.")
    assert status.size_bytes > 20e6

    assert server.stop()
    assert not server.status().running
    assert not server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_starting_a_running_server_changes_nothing(server: EmbeddedPostgres) -> None:
    server.start()
    pid = pid_of(server)
    server.start()
    assert pid_of(server) == pid


def test_the_measured_settings_are_in_force(durable_server: EmbeddedPostgres) -> None:
    with psycopg.connect(durable_server.start()) as db:
        for name, value in vars(ServerSettings()).items():
            assert db.execute("SELECT current_setting(%s)", [name]).fetchone() == (str(value),)


def test_settings_of_the_user_win_and_survive_a_restart(server: EmbeddedPostgres) -> None:
    with (server.cluster_dir / "postgresql.conf").open("a") as conf:
        conf.write("work_mem = '9MB'\n")
    for _ in range(2):
        with psycopg.connect(server.start()) as db:
            assert db.execute("SHOW work_mem").fetchone() == ("9MB",)
        server.stop()


def test_the_server_outlives_its_starter_and_inherits_neither_files_nor_limits(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    secret = (tmp_path / "open-in-the-starter").open("w")
    os.set_inheritable(secret.fileno(), True)
    wall = 4 * 2**30
    starter = subprocess.run(
        [sys.executable, "-c", START, server.data_dir],
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_DATA, (wall, resource.getrlimit(resource.RLIMIT_DATA)[1])
        ),
    )
    secret.close()

    pid = int(starter.stdout)
    assert pid_of(server) == pid
    with psycopg.connect(server.url) as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
    assert os.getsid(pid) != os.getsid(0)
    if sys.platform == "linux":
        limits = Path(f"/proc/{pid}/limits").read_text()
        soft, hard = limits.partition("Max data size")[2].split()[:2]
        assert soft == hard
        handles = as_owner(server, lambda: opened_by(pid))
        assert str(server.data_dir / "alive.lock") in handles
        assert str(server.data_dir / "start.lock") not in handles
        assert secret.name not in handles


def test_four_starters_at_once_give_one_server(home: Path) -> None:
    server = EmbeddedPostgres(home / "contested")
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", START, server.data_dir], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    answers = [starter.communicate()[0].strip() for starter in starters]
    try:
        assert answers == [str(pid_of(server))] * 4
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)


def test_whoever_starts_a_server_may_be_killed_while_its_files_are_written(home: Path) -> None:
    server = EmbeddedPostgres(home / "begun")
    with subprocess.Popen([sys.executable, "-c", START, server.data_dir]) as starter:
        while not list(server.data_dir.glob("cluster-*/global")):
            time.sleep(0.01)
        starter.kill()
    try:
        with psycopg.connect(server.start()) as db:
            assert db.execute("SELECT 1").fetchone() == (1,)
        assert list(server.data_dir.glob("cluster-*")) == []
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)


def test_a_kill_in_the_middle_of_a_copy_loses_nothing_acknowledged_and_leaves_no_half_batch(
    durable_server: EmbeddedPostgres,
) -> None:
    server = durable_server
    batch_rows = 5_000
    server.start()
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute("CREATE TABLE rows (batch integer, row integer)")

    def write(db: psycopg.Connection, batch: int, rows: range) -> None:
        with db.cursor().copy("COPY rows FROM STDIN") as copy:
            for row in rows:
                copy.write_row((batch, row))

    for round_ in range(2):
        acknowledged: list[int] = []
        halfway = threading.Event()

        def work(round_: int, acknowledged: list[int], halfway: threading.Event) -> None:
            with psycopg.connect(server.url) as db:
                for batch in range(5):
                    write(db, 10 * round_ + batch, range(batch_rows))
                    db.commit()
                    acknowledged.append(10 * round_ + batch)
                write(db, 10 * round_ + 5, range(batch_rows))
                with db.cursor().copy("COPY rows FROM STDIN") as copy:
                    while True:
                        copy.write_row((10 * round_ + 6, 0))
                        halfway.set()

        def survive(round_: int, acknowledged: list[int], halfway: threading.Event) -> None:
            with pytest.raises(psycopg.OperationalError):
                work(round_, acknowledged, halfway)

        writer = threading.Thread(target=survive, args=(round_, acknowledged, halfway))
        writer.start()
        assert halfway.wait(30)
        kill_everything(server)
        writer.join(30)
        assert not writer.is_alive()

        server.start()
        with psycopg.connect(server.url) as db:
            kept = db.execute(
                """
                SELECT batch, count(*), count(DISTINCT row) FROM rows
                WHERE batch >= %(first)s GROUP BY batch ORDER BY batch
                """,
                {"first": 10 * round_},
            ).fetchall()
        assert len(acknowledged) == 5
        assert kept == [(batch, batch_rows, batch_rows) for batch in acknowledged]


def test_a_start_after_a_killed_postmaster_waits_for_its_orphans(server: EmbeddedPostgres) -> None:
    server.start()
    killed = pid_of(server)
    with psycopg.connect(server.url):
        postmaster = psutil.Process(killed)
        postmaster.kill()
        postmaster.wait(10)
        server.start()
    assert pid_of(server) != killed


def test_a_stranger_with_the_number_of_a_killed_server_is_left_alone(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    server.start()
    kill_everything(server)
    namesake = tmp_path / "postgres"
    shutil.copy("/bin/sleep", namesake)
    stranger = subprocess.Popen([namesake, "60"], cwd="/")
    try:
        stale = server.cluster_dir / "postmaster.pid"
        lines = stale.read_text().splitlines()
        stale.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")

        assert not server.is_running()
        assert not server.stop()
        server.start()
        assert pid_of(server) != stranger.pid
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_whose_socket_is_gone_is_started_anew(server: EmbeddedPostgres) -> None:
    server.start()
    first = pid_of(server)
    (socket_file,) = (server.data_dir / "socket").glob(".s.PGSQL.*[0-9]")
    socket_file.unlink()
    assert not server.is_running()
    with psycopg.connect(server.start()) as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
    assert pid_of(server) != first


def test_a_half_written_process_file_gives_the_url_it_will_have(server: EmbeddedPostgres) -> None:
    expected = server.start()
    server.stop()
    (server.cluster_dir / "postmaster.pid").write_text(
        f"1\n{server.cluster_dir}\n1700000000\n5432\n"
    )
    assert server.url == expected
    assert server.start() == expected


def test_a_server_started_by_hand_is_found_and_not_overrun(server: EmbeddedPostgres) -> None:
    server.start()
    by_hand = pid_of(server)
    (server.data_dir / "alive.lock").unlink()  # as if nobody had ever taken it
    server.start()
    assert pid_of(server) == by_hand
    assert server.stop()


def test_a_data_directory_too_deep_for_a_socket_gets_one_elsewhere(
    home: Path, pristine: Path
) -> None:
    deep = home / ("deep-" + "x" * 120) / "with 'quotes', \"more\" and $HOME"
    deep.mkdir(parents=True)
    subprocess.run(["cp", "-a", f"{pristine}/.", deep], check=True)
    server = EmbeddedPostgres(deep)
    with psycopg.connect(server.start()) as db:
        socket_dir = Path(db.info.host)
    try:
        assert len(str(socket_dir)) < 90
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert socket_dir.stat().st_uid == server.cluster_dir.stat().st_uid
    finally:
        server.stop()
        socket_dir.rmdir()


def test_a_socket_directory_that_others_may_have_made_is_not_used(
    server: EmbeddedPostgres, home: Path
) -> None:
    sockets = server.data_dir / "socket"
    shutil.rmtree(sockets)
    sockets.symlink_to(home)
    with psycopg.connect(server.start()) as db:
        used = Path(db.info.host)
    assert used != sockets
    server.stop()
    used.rmdir()


def test_without_any_place_for_a_socket_the_error_says_so(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_socket_dirs", lambda: [server.data_dir / ("x" * 100)])
    with pytest.raises(DatabaseUnavailableError, match="no place for the socket"):
        server.start()


def test_on_request_the_server_listens_on_loopback_and_asks_for_its_password(
    server: EmbeddedPostgres, forgetful_settings: ServerSettings
) -> None:
    listening = EmbeddedPostgres(server.data_dir, tcp_port=0, settings=forgetful_settings)
    listening.start()
    with psycopg.connect(listening.tcp_url) as db:
        assert db.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        password = db.info.password
    assert len(password) >= 32
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(listening.tcp_url.replace(password, "guessed"))
    assert stat.S_IMODE((server.data_dir / "password").stat().st_mode) == 0o600


def test_a_server_without_tcp_says_so_rather_than_ignore_the_wish(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    with pytest.raises(DatabaseUnavailableError, match="already runs without TCP"):
        EmbeddedPostgres(server.data_dir, tcp_port=0).start()
    with pytest.raises(DatabaseUnavailableError, match="does not listen on TCP"):
        _ = server.tcp_url


def test_a_port_that_is_taken_is_named_as_the_reason(server: EmbeddedPostgres) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DatabaseUnavailableError, match=r"port .* is taken"):
            EmbeddedPostgres(server.data_dir, tcp_port=taken.getsockname()[1]).start()


def test_files_of_another_major_version_are_refused_with_both_versions(
    server: EmbeddedPostgres,
) -> None:
    (server.cluster_dir / "PG_VERSION").write_text("13\n")
    with pytest.raises(DatabaseUnavailableError, match=r"written by Postgres 13.*brings.*18\."):
        server.start()


def test_a_broken_data_directory_is_an_error_with_the_servers_own_reason(
    server: EmbeddedPostgres,
) -> None:
    (server.cluster_dir / "global" / "pg_control").unlink()
    with pytest.raises(DatabaseUnavailableError, match=r"did not start: .*server\.log"):
        server.start()


def test_a_platform_without_binaries_is_told_about_a_server_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "PACKAGE", "no_such_package")
    server = EmbeddedPostgres(home / "nowhere")
    with pytest.raises(DatabaseUnavailableError, match="set QUIRE_DATABASE_URL"):
        server.start()
    assert server.status().version == ""


def test_binaries_that_do_not_run_here_are_an_error_with_the_reason(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "postgres"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho 'libz.so.1: cannot open shared object file' >&2; exit 127\n"
    )
    program.chmod(0o755)
    with pytest.raises(DatabaseUnavailableError, match=r"libz\.so\.1"):
        postgres_programs.identify(tmp_path)


@pytest.fixture
def tiny_disk(home: Path) -> Iterator[Path]:
    disk = home / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0711", "tmpfs", disk],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system of its own to fill: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@as_root
def test_a_full_disk_is_told_before_and_while_a_database_is_written(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(tiny_disk / "postgres")
    with pytest.raises(DatabaseUnavailableError, match=r"no space left.*24 MB are free, 128 MB"):
        server.start()

    brave = embedded_postgres.Limits(fresh_cluster_bytes=0)
    monkeypatch.setattr(embedded_postgres, "LIMITS", brave)
    with pytest.raises(DatabaseUnavailableError, match="no space left for the database"):
        server.start()
    assert not list(server.data_dir.glob("cluster*"))


def test_a_data_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailableError, match=r"cannot be made: .*file is a file"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").start()


@as_root
def test_under_root_the_server_runs_as_another_user(server: EmbeddedPostgres) -> None:
    server.start()
    assert psutil.Process(pid_of(server)).uids().real != 0
    assert server.cluster_dir.stat().st_uid != 0


@as_root
def test_under_root_files_of_roots_are_refused_with_what_to_do(server: EmbeddedPostgres) -> None:
    os.chown(server.cluster_dir, 0, 0)
    with pytest.raises(DatabaseUnavailableError, match=r"belongs to root.*chown"):
        server.start()


@as_root
def test_under_root_a_closed_directory_gets_its_files_where_the_server_can_reach_them(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = home / "var"
    monkeypatch.setattr(postgres_programs, "RELOCATED", elsewhere)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres")
    with psycopg.connect(server.start()) as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
        socket_dir = Path(db.info.host)
    try:
        assert elsewhere in server.cluster_dir.parents
        assert server.status().size_bytes > 20e6
    finally:
        server.stop()
        socket_dir.rmdir()

    shutil.rmtree(elsewhere)
    with pytest.raises(DatabaseUnavailableError, match="the files of the database are gone"):
        server.start()


@as_root
def test_under_root_binaries_in_a_closed_directory_are_copied_to_an_open_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_programs, "RELOCATED", home / "var")
    original = postgres_programs.installed()[-1]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = closed / original.home.parent.name
    package.symlink_to(original.home.parent)
    (closed / f"{package.name}.libs").symlink_to(f"{original.home.parent}.libs")
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_uid, entry.pw_gid, "nobody")

    unreachable = Binaries(package / original.home.name, original.version)
    copy = postgres_programs.reachable(unreachable, account)
    assert home in copy.home.parents
    for program in ("postgres", "initdb"):
        done = postgres_programs.run([copy.program(program), "--version"], account)
        assert original.version in done.stdout
    assert postgres_programs.reachable(unreachable, account) == copy


@as_root
def test_an_ordinary_user_runs_a_server_of_their_own(home: Path) -> None:
    directory = home / "theirs"
    directory.mkdir()
    entry = pwd.getpwnam("nobody")
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    server = EmbeddedPostgres(directory / "postgres")

    def start_ask_stop() -> object:
        with psycopg.connect(server.start()) as db:
            answer = db.execute("SELECT current_setting('data_directory')").fetchone()
        assert server.stop()
        return answer

    if not os.access(postgres_programs.installed()[-1].program("postgres"), os.X_OK):
        pytest.skip("the environment is closed to other users")
    assert str(directory) in as_user("nobody", start_ask_stop)


@as_root
@pytest.mark.parametrize("action", ["start", "stop", "status"])
def test_another_users_database_is_refused_in_one_sentence(
    server: EmbeddedPostgres, action: str
) -> None:
    server.start()
    owner = psutil.Process(pid_of(server)).username()
    other = next(name for name in ("nobody", "daemon") if name != owner)
    assert "belongs to another user" in as_user(other, getattr(server, action))
    assert server.is_running()
