"""Encoders in the form that runs: a manifest and the files of its runtimes, in a folder or stored.

In the image store a manifest lies under the hash of the checkpoint that was converted, and the
files under the hash of the manifest: converting anew changes what is used at one stroke.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.embedding_search import Background
from core.encoders import EncoderError
from core.runtimes import MANIFEST, Manifest, Runtime
from resources.checkpoints import WEIGHTS_FILES, file_sha256
from resources.image_files import ImageFiles
from resources.stored_files import (
    keep_files,
    keep_manifest,
    manifest_sha256,
    stored_manifest,
    verified,
)

ROOM = "encoders"
"""Where they are in the image store."""

BACKGROUND = "background.bin"
"""Name of the file with the background that some encoders come with."""


@dataclass(frozen=True)
class EncoderFolder:
    """An encoder that runs, in a folder of this machine.

    Attributes:
        path: The folder.
        manifest: What it says of itself.
    """

    path: Path
    manifest: Manifest

    @contextlib.contextmanager
    def opened(self, runtime: Runtime) -> Iterator[Path]:
        """The graph of a runtime, once all its files are found to be what was measured.

        Raises:
            EncoderError: A file is missing, or is another than was measured.
        """
        yield verified(self.path, runtime.files, self.path)

    def background(self, runtime: Runtime) -> Background | None:
        """The background that comes with the encoder; None where none does, as a rule.

        Raises:
            EncoderError: It is damaged, or belongs to another encoder.
        """
        path = self.path / BACKGROUND
        if not path.is_file():
            return None
        wanted = self.manifest.described(runtime).encoder_id
        try:
            found = Background.from_bytes(path.read_bytes())
        except ValueError as error:
            raise EncoderError(f"{path}: {error}; fetch the encoder again") from error
        if found.encoder_id != wanted:
            raise EncoderError(f"{path} belongs to {found.encoder_id}, not to {wanted}")
        return found


@dataclass(frozen=True)
class StoredEncoder:
    """An encoder that runs, in the image store.

    Attributes:
        images: The store.
        manifest: What it says of itself.
        sha256: Of the manifest as it is stored.
    """

    images: ImageFiles
    manifest: Manifest
    sha256: str

    @contextlib.contextmanager
    def opened(self, runtime: Runtime) -> Iterator[Path]:
        """The same; files of a remote store are copied to a temporary folder for as long."""
        names = [file.name for file in runtime.files]
        try:
            with self.images.local_folder(f"{ROOM}/{self.sha256}", names) as folder:
                origin = f"the image store ({ROOM}/{self.sha256})"
                yield verified(folder, runtime.files, origin)
        except FileNotFoundError as error:
            raise EncoderError(
                f"files of encoder {self.manifest.encoder.architecture} are missing in the image "
                "store; make the asset encoders anew with recompute"
            ) from error


def folder_encoder(folder: Path) -> EncoderFolder | None:
    """The encoder in a folder; None where it holds no manifest.

    Raises:
        EncoderError: The manifest is damaged, or belongs to other weights than lie beside it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = Manifest.from_json(path.read_text(encoding="utf-8"), str(path))
    for weights in (folder / name for name in WEIGHTS_FILES):
        if weights.is_file() and file_sha256(weights) != manifest.encoder.weights_sha256:
            raise EncoderError(f"{path} was made from other weights than {weights}; convert again")
    return EncoderFolder(folder, manifest)


def stored_encoder(images: ImageFiles, checkpoint: str) -> StoredEncoder | None:
    """What a checkpoint was converted to; None where it has not been.

    Args:
        images: The store.
        checkpoint: Hash of the checkpoint, as ``core.runtimes.checkpoint_sha256`` gives it.

    Raises:
        EncoderError: The manifest is damaged.
    """
    text = stored_manifest(images, ROOM, checkpoint)
    if text is None:
        return None
    origin = f"{ROOM}/{checkpoint}/{MANIFEST}"
    manifest = Manifest.from_json(text.decode("utf-8", "replace"), origin)
    return StoredEncoder(images, manifest, manifest_sha256(text))


def keep(images: ImageFiles, encoder: EncoderFolder) -> StoredEncoder:
    """Copy an encoder into the image store, the manifest last: until then it is not there.

    Raises:
        EncoderError: A file is missing, or is another than was measured.
    """
    text = encoder.manifest.to_json().encode()
    for runtime in (r for r in encoder.manifest.runtimes if r.files):
        with encoder.opened(runtime):
            keep_files(images, ROOM, text, encoder.path, runtime.files)
    keep_manifest(images, ROOM, encoder.manifest.checkpoint, text)
    return StoredEncoder(images, encoder.manifest, manifest_sha256(text))
