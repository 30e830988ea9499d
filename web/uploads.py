"""Uploads: streamed to a file beside the inbox, hashed on the way, dropped in under the hash.

What a client calls its file is shown to people and is never a path.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool

from core.text import inert, legible
from resources import scratch
from web.limits import LIMITS

_BLOCK = 1 << 20
_HEAD = 1024
"""Bytes within which a PDF says that it is one."""

PARTIAL = ".partial"
"""Folder of the inbox in which files are written; nothing in it is called PDF."""

NAME_LETTERS = 200


class UploadError(Exception):
    """The upload is refused: a status, a reason, and when it may be tried again (0: not said)."""

    def __init__(self, status: int, reason: str, retry_s: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = {"Retry-After": str(retry_s)} if retry_s else None


@dataclass(frozen=True)
class Uploaded:
    """A file that lies in the inbox."""

    document_id: str
    size_bytes: int


def shown_name(given: str) -> str:
    """What a client calls its file, as a name to show; empty where it is none."""
    name = PureWindowsPath(inert(legible(given))).name.strip(" .")
    return name[-NAME_LETTERS:]


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that may not be there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_room(inbox: Path, size_bytes: int) -> None:
    """Refuse what would leave too little room.

    Raises:
        UploadError: It would.
    """
    if free_bytes(inbox) - size_bytes < LIMITS.free_bytes:
        raise UploadError(507, "there is too little room left on the disk")


async def take(body: AsyncIterator[bytes], inbox: Path) -> Uploaded:
    """Write an upload into the inbox; half of one leaves nothing behind.

    The same file once more takes the place of itself.

    Args:
        body: As it comes in.
        inbox: The folder, made when missing.

    Raises:
        UploadError: It is no PDF, too large, too slow, or there is no room for it.
    """
    uploaded = Uploaded("", 0)

    def target() -> Path:
        return inbox / f"{uploaded.document_id}.pdf"

    with scratch.partial_file(inbox / PARTIAL, target) as file:
        try:
            async with asyncio.timeout(LIMITS.upload_s):
                uploaded = await _written(body, file, inbox)
        except TimeoutError:
            raise UploadError(408, "the upload took too long") from None
    return uploaded


async def _written(body: AsyncIterator[bytes], file: BinaryIO, inbox: Path) -> Uploaded:
    """Copy a body to a file that is safe on the disk at the end."""
    digest, size, head, waiting = hashlib.sha256(), 0, b"", bytearray()

    def write(data: bytes) -> None:
        file.write(data)
        digest.update(data)

    def settle() -> None:
        file.flush()
        os.fsync(file.fileno())

    iterator = aiter(body)
    while True:
        try:
            chunk = await asyncio.wait_for(anext(iterator), LIMITS.upload_silence_s)
        except StopAsyncIteration:
            break
        size += len(chunk)
        if size > LIMITS.upload_bytes:
            raise UploadError(413, f"a file may have {LIMITS.upload_bytes:,} bytes")
        if len(head) < _HEAD:
            head += chunk[: _HEAD - len(head)]
            if len(head) == _HEAD:
                _require_pdf(head)
        waiting += chunk
        if len(waiting) >= _BLOCK:
            require_room(inbox, len(waiting))
            await run_in_threadpool(write, bytes(waiting))
            waiting.clear()
    _require_pdf(head)
    await run_in_threadpool(write, bytes(waiting))
    await run_in_threadpool(settle)
    return Uploaded(digest.hexdigest(), size)


def _require_pdf(head: bytes) -> None:
    if b"%PDF-" not in head:
        raise UploadError(415, "not a PDF; send the file itself as the body, as curl -T does")
