import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from resources import scratch

KILLED = """
import os, signal, sys
from pathlib import Path
from resources import scratch
place = Path(sys.argv[1])
with scratch.partial_file(place, place / "whole") as file:
    file.write(b"half")
    file.flush()
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.readline()
"""

WITH_A_FOLDER = """
import multiprocessing.util, os, signal, sys
from multiprocessing import resource_tracker
from orchestration.settings import keep_temporary_files_in
from resources import scratch
folder = scratch.own_folder()
keep_temporary_files_in(folder)
(folder / "copy.pdf").touch()
multiprocessing.util.get_temp_dir()
lock = multiprocessing.get_context("spawn").Lock()
if sys.argv[1] == "die":
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_swept", set[Path]())


def start(place: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, place, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with scratch.partial_file(tmp_path / ".partial", target) as file:
        file.write(b"all of it")
        assert not target.exists()
    assert target.read_bytes() == b"all of it"
    with pytest.raises(IsADirectoryError), scratch.partial_file(tmp_path, target) as file:
        file.write(tmp_path.read_bytes())
    assert target.read_bytes() == b"all of it"
    assert list((tmp_path / ".partial").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / ".quire-notes").write_text("a user's own")
    start(tmp_path, "die").wait(60)
    with start(tmp_path, "live") as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 2, "the killed one's is gone, the live one's here"
        with scratch.partial_file(tmp_path, tmp_path / "other"):
            pass
        writer.stdin.write("\n")
    assert writer.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {".quire-notes", "whole", "other"}


def run_with_a_folder(place: Path, end: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_FOLDER, end],
        env={**os.environ, "TMPDIR": str(place)},  # noqa: TID251 - of a child
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_a_folder_goes_with_its_process_or_if_that_was_killed_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_with_a_folder(tmp_path, "in peace") == ""
    assert list(tmp_path.iterdir()) == []
    run_with_a_folder(tmp_path, "die")
    (left,) = tmp_path.iterdir()
    assert "copy.pdf" in [path.name for path in left.iterdir()]
    semaphores = f"sem.{left.name[1:]}-*"
    assert sys.platform != "linux" or list(Path("/dev/shm").glob(semaphores))
    monkeypatch.setattr(tempfile, "tempdir", str(left))
    assert scratch.lasting_place() == tmp_path
    assert run_with_a_folder(tmp_path, "in peace") == ""
    assert list(tmp_path.iterdir()) == []
    assert not list(Path("/dev/shm").glob(semaphores))
