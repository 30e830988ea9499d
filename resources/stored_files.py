"""Files that were measured and must stay what they were: checked by hash, kept in the image store.

What several kinds of encoders have in common. A manifest lies in the store under the hash of what
was converted, and the files under the hash of the manifest: converting anew changes what is used at
one stroke.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from core.encoders import EncoderError
from core.runtimes import MANIFEST, RuntimeFile
from resources.checkpoints import file_sha256
from resources.image_files import ImageFiles


def verified(folder: Path, files: Sequence[RuntimeFile], origin: object) -> Path:
    """The first of some files, once all of them are found to be what was measured.

    Args:
        folder: Where they are.
        files: What they are to be.
        origin: Where they are, for people.

    Raises:
        EncoderError: A file is missing, or is another than was measured.
    """
    for file in files:
        path = folder / file.name
        if not path.is_file():
            raise EncoderError(f"{file.name} is missing in {origin}; convert the encoder again")
        if file_sha256(path) != file.sha256:
            raise EncoderError(
                f"{file.name} in {origin} is not the file that was measured (its SHA-256 differs); "
                "convert the encoder again"
            )
    return folder / files[0].name


def manifest_sha256(text: bytes) -> str:
    """What the files of a manifest are stored under."""
    return hashlib.sha256(text).hexdigest()


def keep_files(
    images: ImageFiles, room: str, manifest: bytes, folder: Path, files: Sequence[RuntimeFile]
) -> None:
    """Copy the files of a manifest into the store; the manifest itself is to follow.

    Args:
        images: The store.
        room: The part of it that is theirs, such as ``encoders``.
        manifest: As it is stored.
        folder: Where the files are.
        files: Which of them.
    """
    place = f"{room}/{manifest_sha256(manifest)}"
    for file in files:
        with (
            (folder / file.name).open("rb") as source,
            images.writing(f"{place}/{file.name}") as target,
        ):
            while block := source.read(1 << 20):
                target.write(block)


def keep_manifest(images: ImageFiles, room: str, checkpoint: str, manifest: bytes) -> None:
    """Store a manifest once its files are: from now on the encoder is there."""
    images.write_bytes(f"{room}/{checkpoint}/{MANIFEST}", manifest)


def stored_manifest(images: ImageFiles, room: str, checkpoint: str) -> bytes | None:
    """The manifest of what a checkpoint was converted to; None where it has not been."""
    key = f"{room}/{checkpoint}/{MANIFEST}"
    return images.read_bytes(key) if images.exists(key) else None
