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

KILLED_WITH_A_FOLDER = """
import os, signal
from resources import scratch
with scratch.own_folder() as folder:
    (folder / "copy.pdf").touch()
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


def test_a_folder_of_a_killed_process_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    subprocess.run(
        [sys.executable, "-c", KILLED_WITH_A_FOLDER],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # noqa: TID251 - of a child
        check=False,
    )
    (left,) = tmp_path.iterdir()
    assert [path.name for path in left.iterdir()] == ["copy.pdf"]
    with scratch.own_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert scratch.lasting_place() == tmp_path
    assert list(tmp_path.iterdir()) == []
