"""The image store: pixels and files, under keys, in a folder or an object store.

Nothing here knows Dagster, so the service that answers searches can use it, too; OpenCV is imported
where pictures are made or read.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from core.errors import InputError
from core.geometry import Image
from resources import scratch

_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)*")


_PARTIAL = ".partial"
"""Folder below the store's own where files are written before they take their place."""


class ImageFiles:
    """Bytes by key below one URL: ``file:///var/lib/quire/store``, ``s3://bucket/prefix``.

    Keys are lower-case, made by Quire from hashes, and never from a file's name. A write appears
    whole or not at all. The base of two classes that say where it is: ``StoredFiles`` below, and
    the resource ``resources.images.ImageStore``, which Dagster configures.
    """

    url: str

    def _path(self, key: str) -> UPath:
        if not _KEY.fullmatch(key) or ".." in key:
            raise ValueError(f"not a key of the image store: {key!r}")
        root = UPath(self.url)
        if self.url.startswith("file:"):
            root = UPath(unquote(root.path))  # UPath leaves %20 and the like as they are
        return root / key

    def _local(self, key: str) -> Path | None:
        path = self._path(key)
        return Path(path.path) if path.protocol in ("", "file", "local") else None

    def exists(self, key: str) -> bool:
        """Whether something is stored under the key."""
        return self._path(key).exists()

    def read_bytes(self, key: str) -> bytes:
        """What is stored under the key; FileNotFoundError where there is nothing."""
        return self._path(key).read_bytes()

    def remove(self, key: str) -> None:
        """Delete what is stored under the key, if anything is."""
        self._path(key).unlink(missing_ok=True)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Store bytes under the key, replacing what was there."""
        with self.writing(key) as file:
            file.write(data)

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """A file to write to; it takes the key's place when the block ends without an error."""
        local = self._local(key)
        if local is None:
            with (
                tempfile.TemporaryFile() as buffer,
                contextlib.ExitStack() as stack,
            ):
                yield cast(BinaryIO, buffer)
                buffer.seek(0)
                target = stack.enter_context(self._path(key).open("wb"))
                shutil.copyfileobj(buffer, target)
            return
        place = Path(UPath(self.url).path) / _PARTIAL
        with scratch.partial_file(place, local) as file:
            yield file

    @contextlib.contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """The stored file as a local path, copied to a temporary one where the store is remote."""
        local = self._local(key)
        if local is not None:
            yield local
            return
        with tempfile.NamedTemporaryFile(suffix=Path(key).suffix) as copy:
            with self._path(key).open("rb") as source:
                shutil.copyfileobj(source, copy)
            copy.flush()
            yield Path(copy.name)

    @contextlib.contextmanager
    def local_folder(self, prefix: str, names: Sequence[str]) -> Iterator[Path]:
        """Stored files that belong together, by their names in one local folder.

        They are copied to a temporary one where the store is remote.

        Raises:
            FileNotFoundError: One of them is not there.
        """
        local = self._local(f"{prefix}/{names[0]}")
        if local is not None:
            yield local.parent
            return
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                with (
                    self._path(f"{prefix}/{name}").open("rb") as source,
                    (Path(folder) / name).open("wb") as copy,
                ):
                    shutil.copyfileobj(source, copy)
            yield Path(folder)

    def write_image(self, key: str, image: Image) -> None:
        """Store an RGB image as PNG: nothing of its pixels is lost."""
        import cv2

        fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        made, encoded = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]), fast)
        if not made:
            raise RuntimeError(f"a picture of {image.shape} could not be written as PNG")
        self.write_bytes(key, encoded.tobytes())

    def read_image(self, key: str) -> Image:
        """An RGB image, shape (height, width, 3).

        Raises:
            InputError: It is not there, or cannot be decoded; whoever needs it goes on without.
            FileNotFoundError: Neither is the store, so nothing that is missing means anything.
        """
        import cv2

        return cast(Image, self._decoded(key, cv2.IMREAD_COLOR_RGB))

    def read_quarter(self, key: str) -> NDArray[np.uint8]:
        """An image in grey at a quarter of its size; of a JPEG no more than that is decoded.

        Raises:
            As ``read_image``.
        """
        import cv2

        return self._decoded(key, cv2.IMREAD_REDUCED_GRAYSCALE_4)

    def _decoded(self, key: str, how: int) -> NDArray[np.uint8]:
        import cv2

        try:
            encoded = np.frombuffer(self.read_bytes(key), np.uint8)
        except FileNotFoundError as error:
            if not UPath(self.url).exists():
                raise
            raise InputError(
                "its stored picture is missing; make it anew with --recompute"
            ) from error
        image = cv2.imdecode(encoded, how) if len(encoded) else None
        if image is None:
            raise InputError("its stored picture is damaged; make it anew with --recompute")
        return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class StoredFiles(ImageFiles):
    """The image store of a process that has nothing to do with Dagster; see ``ImageFiles``."""

    url: str
