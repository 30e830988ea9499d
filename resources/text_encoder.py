"""Text encoders that run: ONNX Runtime on the CPU, without torch, transformers or Dagster.

A checkpoint has to be converted first, which the asset ``text_encoders`` does (or
``python -m resources.text_conversion``); what came of it is in the image store, or in a folder.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.encoders import EncoderError
from core.errors import is_out_of_memory
from core.runtimes import MANIFEST
from core.text_encoders import (
    Encoded,
    Kind,
    NotConvertedError,
    TextEncoder,
    TextEncoderChoice,
    TextEncoderSpec,
    Tokens,
    checked_vectors,
    parse_text_encoder,
)
from core.text_runtimes import (
    ALONE,
    TEXT_BATCH,
    TextBatch,
    TextManifest,
    TextRuntime,
    text_checkpoint_sha256,
)
from resources.image_files import ImageFiles
from resources.mapped_files import MappedFiles
from resources.onnx_session import open_session
from resources.remote_text_encoder import (
    RemoteAccess,
    RemoteTextEncoder,
    remote_spec,
    remote_tokens,
)
from resources.stored_files import (
    keep_files,
    keep_manifest,
    manifest_sha256,
    stored_manifest,
    verified,
)
from resources.text_checkpoints import find_text_checkpoint
from resources.text_tokens import TextTokens

ROOM = "text-encoders"
"""Where they are in the image store."""

IDS, MASK, OUTPUT = "ids", "mask", "features"
"""Names within every text encoder's graph."""

WEIGHTS = ".onnx.data"
"""How the names of mapped weights end; see ``resources.mapped_files``."""

FORWARDED_BETWEEN = 4
"""Batches, or queries, between two times that pages of weights are let go, which takes half a
millisecond; some 20 MB come together."""


@dataclass(frozen=True)
class TextFolder:
    """A text encoder that runs, in a folder of this machine.

    Attributes:
        path: The folder.
        manifest: What it says of itself.
    """

    path: Path
    manifest: TextManifest

    @contextlib.contextmanager
    def opened(self, runtime: TextRuntime) -> Iterator[Path]:
        """The graph of a runtime, once all its files are found to be what was compared.

        Raises:
            EncoderError: A file is missing, or is another than was compared.
        """
        yield verified(self.path, self.manifest.files(runtime), self.path)


@dataclass(frozen=True)
class StoredText:
    """A text encoder that runs, in the image store.

    Attributes:
        images: The store.
        manifest: What it says of itself.
        sha256: Of the manifest as it is stored.
    """

    images: ImageFiles
    manifest: TextManifest
    sha256: str

    @contextlib.contextmanager
    def opened(self, runtime: TextRuntime) -> Iterator[Path]:
        """The same; files of a remote store are copied to a temporary folder for as long."""
        files = self.manifest.files(runtime)
        place = f"{ROOM}/{self.sha256}"
        try:
            with self.images.local_folder(place, [file.name for file in files]) as folder:
                yield verified(folder, files, f"the image store ({place})")
        except FileNotFoundError as error:
            raise EncoderError(
                f"files of encoder {self.manifest.encoder.name} are missing in the image store; "
                "make the asset text_encoders anew with recompute"
            ) from error


def text_folder(folder: Path) -> TextFolder | None:
    """The encoder in a folder; None where it holds no manifest.

    Raises:
        EncoderError: The manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    return TextFolder(folder, TextManifest.from_json(path.read_text(encoding="utf-8"), str(path)))


def stored_text(images: ImageFiles, checkpoint: str) -> StoredText | None:
    """What a checkpoint was converted to; None where it has not been.

    Raises:
        EncoderError: The manifest is damaged.
    """
    text = stored_manifest(images, ROOM, checkpoint)
    if text is None:
        return None
    manifest = TextManifest.from_json(text.decode("utf-8", "replace"), f"{ROOM}/{checkpoint}")
    return StoredText(images, manifest, manifest_sha256(text))


def keep_text(images: ImageFiles, encoder: TextFolder) -> StoredText:
    """Copy an encoder into the image store, the manifest last: until then it is not there.

    Raises:
        EncoderError: A file is missing, or is another than was compared.
    """
    text = encoder.manifest.to_json().encode()
    for runtime in (r for r in encoder.manifest.runtimes if r.files):
        with encoder.opened(runtime):
            files = encoder.manifest.files(runtime)
            keep_files(images, ROOM, text, encoder.path, files)
    keep_manifest(images, ROOM, encoder.manifest.checkpoint, text)
    return StoredText(images, encoder.manifest, manifest_sha256(text))


def find_text_encoder(
    choice: TextEncoderChoice, images: ImageFiles | None
) -> TextFolder | StoredText:
    """The encoder that a choice means, in the form that runs on this machine.

    Args:
        choice: What the user wrote; nothing remote.
        images: Where conversions are kept; None: only folders that run as they are.

    Raises:
        NotConvertedError: It has to be converted first.
        EncoderError: It cannot be found, or its manifest is damaged.
    """
    if choice.source == "folder" and (found := text_folder(Path(choice.name).expanduser())):
        return found
    checkpoint = find_text_checkpoint(choice).spec
    stored = stored_text(images, text_checkpoint_sha256(checkpoint)) if images else None
    if stored is None:
        raise NotConvertedError(
            f"{choice} has not been converted to a form that runs: quire read PATH does it, or "
            "quire encoders prepare --text where it is the second of two; what takes more memory "
            "than they have is converted with python -m resources.text_conversion, and the folder "
            "that it writes is named instead"
        )
    return stored


def describe_text_encoder(choice: str, images: ImageFiles | None) -> TextEncoderSpec:
    """What an encoder is, without loading it or asking the network.

    Args:
        choice: As ``QUIRE_TEXT_ENCODER`` has it, one encoder.
        images: The image store.

    Raises:
        EncoderError: See ``find_text_encoder``.
    """
    parsed = parse_text_encoder(choice)
    if parsed.remote:
        return remote_spec(parsed)
    manifest = find_text_encoder(parsed, images).manifest
    return manifest.described(manifest.chosen())


def serving_of(choices: Sequence[str], images: ImageFiles | None, switched: str) -> str:
    """Of the encoders that are configured the one that was last switched to, or else the first.

    Args:
        choices: As ``QUIRE_TEXT_ENCODER`` has them, one by one.
        images: The image store.
        switched: Id of the one that was last switched to; empty where nobody ever switched.

    Raises:
        EncoderError: More than two are configured. Or none of those at hand has that id, and one
            is not to be had, so nobody knows: another one must not take its place.
    """
    if len(choices) > 2:
        raise EncoderError(
            f"{len(choices)} text encoders are configured: name the one that serves and the one "
            "that is to take its place"
        )
    unknown: EncoderError | None = None
    for choice in choices if switched and len(choices) == 2 else ():
        try:
            if describe_text_encoder(choice, images).encoder_id == switched:
                return choice
        except NotConvertedError:
            continue  # nobody can have switched to it
        except EncoderError as error:
            unknown = error
    if unknown is not None:
        raise unknown
    return choices[0]


def open_text_encoder(
    choice: str,
    images: ImageFiles | None,
    *,
    cores: int = 1,
    remote: RemoteAccess | None = None,
) -> TextEncoder:
    """A text encoder, ready to encode.

    Args:
        choice: As ``QUIRE_TEXT_ENCODER`` has it, one encoder.
        images: The image store, with what checkpoints were converted to.
        cores: Threads of computation.
        remote: What may leave this machine, and with which key; None: nothing.

    Raises:
        EncoderError: It cannot be found, loaded or reached, or is not allowed to be.
        MemoryError: It does not fit.
    """
    parsed = parse_text_encoder(choice)
    if parsed.remote:
        return RemoteTextEncoder(parsed, remote or RemoteAccess())
    found = find_text_encoder(parsed, images)
    runtime = found.manifest.chosen()
    with found.opened(runtime) as graph:
        return OnnxTextEncoder(found.manifest, runtime, graph, cores=cores)


def open_tokens(choice: str, images: ImageFiles | None) -> Tokens:
    """The tokens of an encoder alone, without its weights, and without asking anybody.

    Raises:
        EncoderError: See ``find_text_encoder``.
    """
    parsed = parse_text_encoder(choice)
    if parsed.remote:
        return remote_tokens(parsed, remote_spec(parsed))
    found = find_text_encoder(parsed, images)
    manifest = found.manifest
    with found.opened(replace(manifest.chosen(), files=())) as file:
        return TextTokens(file.read_text(encoding="utf-8"), manifest.described(manifest.chosen()))


class OnnxTextEncoder:
    """A text encoder in this process.

    Holds the weights, and while it encodes a few hundred tokens and what its layers make of them.

    Attributes:
        spec: What it is.
    """

    def __init__(
        self,
        manifest: TextManifest,
        runtime: TextRuntime,
        graph: Path,
        *,
        cores: int,
        batch: TextBatch = TEXT_BATCH,
    ) -> None:
        """Load the graph and the tokenizer.

        Args:
            manifest: What the encoder is.
            runtime: Which of its runtimes.
            graph: The ``.onnx`` file, with what it refers to and the tokenizer beside it.
            cores: Threads of computation; more than were granted collapse the speed.
            batch: Texts at a time.

        Raises:
            EncoderError: It cannot be loaded.
            MemoryError: It does not fit.
        """
        self.spec = manifest.described(runtime)
        self._forwarded, self._weights = itertools.count(1), MappedFiles(WEIGHTS)
        self._manifest = manifest
        self._batch = TextBatch(1, 1) if runtime.name == ALONE else batch
        try:
            text = (graph.parent / manifest.tokenizer.name).read_text(encoding="utf-8")
            self._tokens = TextTokens(text, self.spec)
            self._session = open_session(graph, cores)
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise EncoderError(
                f"the {self.spec.runtime} runtime of {self.spec.name} cannot be loaded: {error}"
            ) from error

    def count(self, text: str, kind: Kind) -> int:
        """Tokens of a text, special ones and the prefix included; more than the window, perhaps."""
        return self._tokens.count(text, kind)

    def encode(self, texts: Sequence[str], kind: Kind) -> Encoded:
        """One unit vector a text, whatever its neighbours are.

        Args:
            texts: Without prefixes, which are put before them here.
            kind: What they are to a search.

        Returns:
            Vectors of shape (texts, dim), and what of each text was read, cut and not known.

        Raises:
            MemoryError: Not even one text fits the memory granted.
            EncoderError: The weights give vectors that are zero or not finite.
        """
        read = [self._tokens.read(text, kind) for text in texts]
        ids = [one.ids for one in read]
        features = np.empty((len(texts), self.spec.dim), np.float32)
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        start = 0
        while start < len(order):
            part = order[
                start : start + self._fitting([len(ids[place]) for place in order[start:]])
            ]
            try:
                features[part] = self._forward([ids[place] for place in part])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise MemoryError(str(error)) from error
                self._batch = TextBatch(len(part) // 2, self._batch.tokens // 2)
                continue
            start += len(part)
            if next(self._forwarded) % FORWARDED_BETWEEN == 0:
                self._weights.let_go()
        unknown = self._manifest.unknown_id
        return Encoded(
            vectors=checked_vectors(features, len(texts), self.spec),
            tokens=tuple(map(len, ids)),
            cut=tuple(one.cut for one in read),
            unknown=tuple(one.count(unknown) for one in ids),
        )

    def _fitting(self, lengths: Sequence[int]) -> int:
        """How many of some texts, the shortest first, are computed together."""
        count = 1
        for number, length in enumerate(lengths[: self._batch.texts], start=1):
            if number * length > self._batch.tokens:
                break
            count = number
        return count

    def _forward(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        longest = max(map(len, ids))
        filled = np.full((len(ids), longest), self._manifest.pad_id, np.int64)
        mask = np.zeros((len(ids), longest), np.int64)
        for row, own in enumerate(ids):
            filled[row, : len(own)] = own
            mask[row, : len(own)] = 1
        (features,) = self._session.run([OUTPUT], {IDS: filled, MASK: mask})
        return np.asarray(features, np.float32)
