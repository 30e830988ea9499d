import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from core.errors import InputError
from orchestration.files import NotNowError, Refusal, files_below, is_pdf, read_blocks

MOST = 1 << 24
NOBODY = 65534


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are for one alone."""
    folder = Path(tempfile.mkdtemp(prefix="quire-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def found_in(folder: Path) -> dict[str, str]:
    """What is found, by path in the folder, with the reason of what is refused."""
    return {
        str((each.path if isinstance(each, Refusal) else each).relative_to(folder)): (
            each.reason if isinstance(each, Refusal) else ""
        )
        for each in files_below(folder, is_pdf)
    }


def test_links_are_told_and_not_followed(tmp_path: Path) -> None:
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    elsewhere.mkdir()
    (elsewhere / "private.pdf").write_bytes(b"%PDF-")
    (inbox / "real.pdf").write_bytes(b"%PDF-")
    (inbox / "link.pdf").symlink_to(elsewhere / "private.pdf")
    (inbox / "dangling.pdf").symlink_to(tmp_path / "nowhere")
    (inbox / "itself.pdf").symlink_to(inbox / "itself.pdf")
    (inbox / "folder").symlink_to(elsewhere)
    (inbox / "up").symlink_to(tmp_path)
    (inbox / "notes").symlink_to(inbox / "real.pdf")
    link = "a link, which is not followed; add what it leads to"
    assert found_in(inbox) == {
        "dangling.pdf": link,
        "folder": link,
        "itself.pdf": link,
        "link.pdf": link,
        "real.pdf": "",
        "up": link,
    }


def test_folders_are_searched_whatever_they_are_called_and_however_deep(tmp_path: Path) -> None:
    (tmp_path / "folder.pdf").mkdir()
    (tmp_path / "folder.pdf" / "inner.pdf").write_bytes(b"%PDF-")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):  # by steps, because a path may not be as long as all of them together
        os.mkdir("d" * 100, dir_fd=here)
        deeper = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    found = found_in(tmp_path)
    assert found.pop("folder.pdf/inner.pdf") == ""
    (reason,) = found.values()
    assert reason == "a folder that cannot be read: file name too long"


def test_a_folder_that_may_not_be_read_is_told(public: Path) -> None:
    closed = public / "closed"
    closed.mkdir()
    (closed / "paper.pdf").write_bytes(b"%PDF-")
    closed.chmod(0)
    said = _as_somebody_else(
        "from pathlib import Path; from orchestration.files import files_below, is_pdf;"
        f"print([each.reason for each in files_below(Path({str(public)!r}), is_pdf)])",
    )
    closed.chmod(0o755)
    assert said == "['a folder that cannot be read: permission denied']"


def test_a_file_that_may_not_be_read_may_be_tried_again(public: Path) -> None:
    path = public / "paper.pdf"
    path.write_bytes(b"%PDF-")
    path.chmod(0)
    said = _as_somebody_else(
        "from upath import UPath; from orchestration.files import NotNowError, read_blocks\n"
        f"try: list(read_blocks(UPath({str(path)!r}), 99))\n"
        "except NotNowError as error: print(error)",
    )
    assert said == "permission denied"


def _as_somebody_else(program: str) -> str:
    """Run a program as a user whom file permissions bind, which they do not do with root."""
    if os.getuid() == 0:
        program = (
            f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n{program}"
        )
        imports = "import orchestration.files, upath.implementations.local\n"
        program = imports + program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    # A socket's path may have 107 bytes: it is made under a short one and moved.
    short = Path(f"/tmp/quire-{os.getpid()}-{time.monotonic_ns()}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short))
    short.rename(path)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("devices can be made by root only")


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device, make_folder])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    path = tmp_path / "odd.pdf"
    assert callable(make)
    make(path)
    with pytest.raises(InputError, match=r"^not a regular file; copy its content") as refused:
        next(read_blocks(UPath(path), MOST))
    assert not isinstance(refused.value, NotNowError)


def reading(path: Path) -> Iterator[bytes]:
    """A file of 3 MiB whose first block has been read."""
    path.write_bytes(b"%PDF-" + bytes(3 << 20))
    blocks = read_blocks(UPath(path), MOST)
    next(blocks)
    return blocks


def test_a_file_that_grows_while_it_is_read_is_not_taken_in_half(tmp_path: Path) -> None:
    blocks = reading(tmp_path / "paper.pdf")
    with (tmp_path / "paper.pdf").open("ab") as file:
        file.write(b"more")
    with pytest.raises(NotNowError, match="changed while it was read"):
        list(blocks)


def test_a_file_that_is_cut_while_it_is_read_is_not_taken_in_half(tmp_path: Path) -> None:
    blocks = reading(tmp_path / "paper.pdf")
    os.truncate(tmp_path / "paper.pdf", 1 << 20)
    with pytest.raises(NotNowError, match="changed while it was read"):
        list(blocks)


def test_a_file_rewritten_with_its_old_date_is_not_taken_in_half(tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    blocks = reading(path)
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"other")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(NotNowError, match="changed while it was read"):
        list(blocks)


def test_a_file_that_is_replaced_while_it_is_read_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    blocks = reading(path)
    path.rename(tmp_path / "aside")
    path.write_bytes(b"another")
    with pytest.raises(NotNowError):
        list(blocks)
    assert b"".join(read_blocks(UPath(path), MOST)) == b"another"


def test_a_quiet_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert b"".join(read_blocks(UPath(path), MOST)) == path.read_bytes()
    with pytest.raises(InputError, match="larger than 1 MB"):
        list(read_blocks(UPath(path), 1 << 20))
