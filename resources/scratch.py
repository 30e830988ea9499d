"""Temporary files and folders that a killed process does not leave behind for good.

Their maker holds a lock on each for as long as it lives. Whoever makes the next one in the same
place removes those whose lock is free. Neither process ids, which are used again, nor clocks, which
are set, are asked.
"""

import contextlib
import fcntl
import multiprocessing
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize
from pathlib import Path
from typing import BinaryIO

_OURS = re.compile(r"\.quire-[0-9a-f]{8}")
"""Names that nothing else in a shared folder has; short, for the sake of sockets further down."""

_swept: set[Path] = set()
"""Places that this process has cleared of what the dead left there."""


@contextlib.contextmanager
def partial_file(place: Path, target: Path | Callable[[], Path]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the target's place when the block ends without an error.

    Args:
        place: Folder to write it in, made when missing, on the target's file system.
        target: Where the file goes, or what says so once it is written; its folder is made when
            missing.

    Raises:
        OSError: It cannot be written, with the name of a file.
    """
    place.mkdir(parents=True, exist_ok=True)
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place)
    while True:
        partial = place / _new_name()
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if claim(handle, partial):
            break
        os.close(handle)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            final = target if isinstance(target, Path) else target()
            final.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(final)
    except OSError as error:
        if error.filename is None:  # a disk that is full says so without saying which
            error.filename = str(target if isinstance(target, Path) else partial)
        raise
    finally:
        partial.unlink(missing_ok=True)


def own_folder() -> Path:
    """A private folder for temporary files, removed when this process ends.

    After what ``multiprocessing`` keeps in it, which that removes by itself (at priority -100).
    """
    folder, _ = claimed_folder()
    # The locks of multiprocessing are files, too, removed by a process that may be killed as well.
    multiprocessing.current_process()._config["semprefix"] = f"/{folder.name[1:]}"  # pyright: ignore
    Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-200)
    return folder


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A private folder for temporary files, removed when the block ends, however it ends."""
    path, handle = claimed_folder()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def claimed_folder() -> tuple[Path, int]:
    """The same without an end: it is kept for as long as the handle is open somewhere.

    Whoever makes the next one removes it then.
    """
    place = lasting_place()
    _sweep(place)
    while True:
        folder = place / _new_name()
        folder.mkdir(mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if claim(handle, folder):
            return folder, handle
        os.close(handle)


def lasting_place() -> Path:
    """The system's folder for temporary files, for what outlives this process."""
    place = Path(tempfile.gettempdir())
    return place.parent if _OURS.fullmatch(place.name) else place


def remove_dead(place: Path, names: re.Pattern[str] = _OURS) -> None:
    """Remove what killed processes left in a folder under names of this kind."""
    for left in [path for path in place.iterdir() if names.fullmatch(path.name)]:
        with contextlib.suppress(OSError):  # somebody else's, or just being removed
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                    _remove_semaphores(left.name)
                else:
                    left.unlink()
            finally:
                os.close(handle)


def claim(handle: int, path: Path) -> bool:
    """Lock what was just made; False where it was taken for a dead process's and removed."""
    with contextlib.suppress(OSError):  # a file system without locks is not swept, either
        fcntl.flock(handle, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _remove_semaphores(owner: str) -> None:
    for left in Path("/dev/shm").glob(f"sem.{owner[1:]}-*"):
        left.unlink(missing_ok=True)


def _new_name() -> str:
    return f".quire-{secrets.token_hex(4)}"


def _sweep(place: Path) -> None:
    """Once per process and place: listing a folder costs little, but not nothing."""
    if place not in _swept:
        _swept.add(place)
        remove_dead(place)
