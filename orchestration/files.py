"""Files from outside: which ones a folder holds, and reading one that may be anything.

A folder that a stranger packed may hold links to what is not theirs, pipes that never end, folders
that cannot be read. Nothing is followed that leads elsewhere, and nothing is left out unsaid.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from upath import UPath

from core.errors import InputError
from core.text import NO_CREDENTIALS, holds_credentials, legible, without_secrets

_BLOCK = 1 << 20
LOCAL = ("", "file", "local")
"""What the protocol of a path on this machine is called."""


_CHANGED = "it changed while it was read; add it again once it is complete"


class NotNowError(InputError):
    """The file cannot be read at this time; later it may be."""


@dataclass(frozen=True)
class Refusal:
    """Something in a folder that is not taken in.

    Attributes:
        path: Where it is.
        reason: Why, and what would help.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Refused:
    """What is said of something in a folder that is not taken in: its name there, and why."""

    name: str
    reason: str


def files_below(folder: Path, is_meant: Callable[[str], bool]) -> Iterator[Path | Refusal]:
    """Everything in a folder and its folders whose name is of the kind meant, in a fixed order.

    Links are not followed, because they may lead to what was not handed over, or round in a circle;
    folders that cannot be read are told. Whatever else is called so is for `read_blocks` to judge.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            yield Refusal(here, f"a folder that cannot be read: {in_words(error)}")
            continue
        folders: list[Path] = []
        for entry in entries:
            path = here / entry.name
            is_one = is_meant(path.name)
            if entry.is_symlink():
                if is_one or path.is_dir():
                    yield Refusal(path, "a link, which is not followed; add what it leads to")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif is_one:
                yield path
        waiting += reversed(folders)


def find(paths: Iterable[str], is_meant: Callable[[str], bool]) -> Iterator[UPath | Refused]:
    """The files that paths mean: files themselves, those meant below folders, URLs of a store.

    Args:
        paths: What a user wrote.
        is_meant: Whether a file in a folder is of the kind that is sought, by its name.

    Yields:
        Files; and what in a folder is called so and is not taken in.

    Raises:
        InputError: A path leads nowhere, or is a URL that holds credentials.
    """
    for text in paths:
        if holds_credentials(text):
            raise InputError(f"{without_secrets(text)}: {NO_CREDENTIALS}")
        path = UPath(text)
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except OSError as error:
            raise InputError(f"{without_secrets(text)}: {in_words(error)}") from error
        if is_folder:
            yield from found_in(path, is_meant)
        elif is_there:
            yield path
        else:
            raise InputError(f"{without_secrets(text)}: there is no such file or folder")


def found_in(folder: UPath, is_meant: Callable[[str], bool]) -> Iterator[UPath | Refused]:
    """The files of a folder, here or in a store, in a fixed order; see ``find``."""
    if folder.protocol not in LOCAL:
        yield from sorted((child for child in folder.rglob("*") if is_meant(child.name)), key=str)
        return
    here = Path(folder.path)
    for found in files_below(here, is_meant):
        yield refused(found, here) if isinstance(found, Refusal) else UPath(found)


def refused(refusal: Refusal, folder: Path) -> Refused:
    """What is said of something in a folder that is not taken in."""
    name = legible(str(refusal.path.relative_to(folder.parent)))
    return Refused(name, f"{name}: {refusal.reason}")


def copy_of(path: UPath, target: BinaryIO, most_bytes: int) -> tuple[str, int]:
    """Copy a file from outside; the SHA-256 of its content, and its size.

    Raises:
        InputError: As ``read_blocks`` does.
    """
    digest, size = hashlib.sha256(), 0
    for block in read_blocks(path, most_bytes):
        size += len(block)
        digest.update(block)
        target.write(block)
    return digest.hexdigest(), size


def is_pdf(name: str) -> bool:
    """Whether a file is called PDF."""
    return name.lower().endswith(".pdf")


def read_blocks(path: UPath, most_bytes: int) -> Iterator[bytes]:
    """The content of a regular file, 1 MiB at a time.

    Raises:
        NotNowError: It cannot be read, or it changed while it was read: half of it is old and half
            is new.
        InputError: It is a pipe, a device, a socket or a folder, or larger than ``most_bytes``.
    """
    size = 0
    try:
        with _open_regular(path) as source:
            before = _stamp(path, source)
            while block := source.read(_BLOCK):
                size += len(block)
                if size > most_bytes:
                    raise InputError(
                        f"larger than {most_bytes // _BLOCK} MB; split it, or raise the limit"
                    )
                if before is not None and size > before[0]:
                    raise NotNowError(_CHANGED)  # or a file that keeps growing would never end
                yield block
            after = _stamp(path, source)
    except OSError as error:
        raise NotNowError(in_words(error)) from error
    if before != after or (after is not None and after[0] != size):
        raise NotNowError(_CHANGED)


def in_words(error: OSError) -> str:
    """What the system says is wrong, without the path."""
    return error.strerror.lower() if error.strerror else str(error)


def _open_regular(path: UPath) -> BinaryIO:
    """Open a file for reading, but no pipe, device, socket or folder: those may never end."""
    if path.protocol not in LOCAL:
        return cast(BinaryIO, path.open("rb"))
    _require_regular(path.stat().st_mode)
    # Opening must not wait for a writer, nor make a terminal ours, should it be replaced just now.
    descriptor = os.open(path.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _require_regular(os.fstat(descriptor).st_mode)
    except InputError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError("not a regular file; copy its content to a file and add that")


def _stamp(path: UPath, source: BinaryIO) -> tuple[int, int, int] | None:
    """What changes with a local file's content; None where the file is remote."""
    if path.protocol not in LOCAL:
        return None
    facts = os.fstat(source.fileno())
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
