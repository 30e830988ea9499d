"""Runtimes of a text encoder: the files that compute its vectors, and which one is used.

As ``core.runtimes`` has it for images: a manifest is what a conversion says of its results. It lies
beside the files and names each by its hash, so that whatever is run is what was compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from core.encoders import EncoderError, Vectors, canonical_sha256
from core.runtimes import RuntimeFile
from core.text_encoders import AGREEMENT, TextEncoderSpec

FORMAT = 1
"""Raised when a manifest is written differently."""

TEXT_CONVERTER = "1"
"""Raised when the conversion gives other files for the same weights."""

RUNTIMES = ("onnx-f32", "onnx-int8")
"""All that are tried: full precision; 8 bits with a scale for every output of a layer, and one for
all of its inputs together."""

EXACT = RUNTIMES[0]

ALONE = RUNTIMES[1]
"""The runtime whose inputs share a scale: texts are read one by one, so that none depends on its
neighbours."""

TOKENIZER = "tokenizer.json"
"""The tokenizer's file, beside the graphs."""


@dataclass(frozen=True)
class TextConversion:
    """How a text encoder is converted, and what has to come of it."""

    cosine: float = AGREEMENT
    """The worst cosine to the reference, over the sample texts, of reduced precision."""

    exact_cosine: float = 0.99999
    """The same for full precision: only the order of additions may differ."""

    worth_it: float = 0.3
    """Least share of the weights in matrix products for which reduced precision is tried. A small
    sentence encoder has half of its weights in the table of its words, which stays as it is and in
    its file, of which only the words that occur are read."""

    base_mb: float = 150.0
    """What conversion takes whatever the weights, without torch: a process with ONNX Runtime that
    reads a passage."""

    per_weight: float = 0.8
    """What it takes for each byte of the file, beyond that: the weights in the form that computes,
    and those of them that occur in the samples."""

    recorded_mb: float = 70.0
    """What it takes where only the graph is to be written, and is known by its hash."""

    torch_mb: float = 700.0
    """What torch, transformers and the exporter take in addition, where an encoder needs them."""


TEXT_CONVERSION = TextConversion()


@dataclass(frozen=True)
class TextBatch:
    """How many texts are computed at a time."""

    texts: int = 16
    """At most."""

    tokens: int = 512
    """Of all of them together, filled up to the longest: two passages as long as the window of the
    default encoder. More at a time are no faster on two cores, and each passage of 256 tokens takes
    10 MB for what its layers compute."""


TEXT_BATCH = TextBatch()


@dataclass(frozen=True)
class TextRuntime:
    """One way to compute an encoder's vectors, and whether it may be used.

    Attributes:
        name: One of ``RUNTIMES``.
        passed: Whether it agrees with the reference.
        reason: Why not; empty where it does.
        worst_cosine: The least cosine of a sample's two vectors; None where it was not made.
        files: The graph first, then what it refers to.
    """

    name: str
    passed: bool
    reason: str = ""
    worst_cosine: float | None = None
    files: tuple[RuntimeFile, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class TextManifest:
    """A text encoder in the form that runs: what it is, its files, what was compared.

    Attributes:
        encoder: What it is, with the runtime left at its default; ``described`` names one.
        converter: Version of the conversion.
        reference: What it was compared with: ``torch``, or vectors that torch once gave.
        samples: Texts that were compared.
        tokenizer: The tokenizer's file.
        pad_id: The token that fills up a batch.
        unknown_id: The token that stands for what the encoder has no entry for; -1 for none.
        runtimes: All that were tried.
    """

    encoder: TextEncoderSpec
    converter: str
    reference: str
    samples: int
    tokenizer: RuntimeFile
    pad_id: int
    unknown_id: int
    runtimes: tuple[TextRuntime, ...]

    @property
    def checkpoint(self) -> str:
        """Hash of what was converted."""
        return text_checkpoint_sha256(self.encoder)

    def described(self, runtime: TextRuntime) -> TextEncoderSpec:
        """The encoder that runs with this runtime; vectors of another one are another encoder's."""
        return replace(self.encoder, runtime=runtime.name)

    def chosen(self) -> TextRuntime:
        """The smallest runtime that passed.

        Raises:
            EncoderError: None did.
        """
        passed = [runtime for runtime in self.runtimes if runtime.passed]
        if not passed:
            why = "; ".join(f"{r.name}: {r.reason}" for r in self.runtimes)
            raise EncoderError(f"no runtime of {self.encoder.name} agrees with it: {why}")
        return min(passed, key=lambda runtime: runtime.size_bytes)

    def files(self, runtime: TextRuntime) -> tuple[RuntimeFile, ...]:
        """What has to be there to run it: the graph first, the tokenizer last."""
        return (*runtime.files, self.tokenizer)

    def to_json(self) -> str:
        """As a file; the same text for the same manifest."""
        fields = asdict(self)
        del fields["encoder"]["runtime"]
        return json.dumps({"format": FORMAT, "kind": "text", **fields}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> "TextManifest":
        """Read what ``to_json`` wrote.

        Args:
            text: The file.
            origin: Where it is from, for the error.

        Raises:
            EncoderError: It is damaged, or of another format.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT or fields.pop("kind") != "text":
                raise ValueError("it is of another format")
            parts: dict[str, Any] = {
                "encoder": TextEncoderSpec(**fields["encoder"]),
                "tokenizer": RuntimeFile(**fields["tokenizer"]),
                "runtimes": tuple(_runtime(entry) for entry in fields["runtimes"]),
            }
            return cls(**{**fields, **parts})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{origin} is not the manifest of a text encoder ({error!r}); convert it again"
            ) from error


def _runtime(entry: Mapping[str, Any]) -> TextRuntime:
    listed: Sequence[Mapping[str, Any]] = entry["files"]
    return TextRuntime(
        name=entry["name"],
        passed=entry["passed"],
        reason=entry["reason"],
        worst_cosine=entry["worst_cosine"],
        files=tuple(RuntimeFile(**file) for file in listed),
    )


def text_checkpoint_sha256(encoder: TextEncoderSpec) -> str:
    """Hash of everything that decides an encoder's vectors but its runtime."""
    fields = asdict(encoder)
    for name in ("name", "revision", "runtime"):
        del fields[name]
    return canonical_sha256(fields)


def worst_cosine(reference: Vectors, found: Vectors) -> float:
    """The least cosine between two rows of unit vectors of the same texts."""
    if reference.shape != found.shape or not len(reference):
        raise ValueError(f"{reference.shape} compared with {found.shape}")
    pairs = reference.astype(np.float64) * found.astype(np.float64)
    return float(pairs.sum(axis=1).min())


def text_refusal(worst: float, *, exact: bool, how: TextConversion = TEXT_CONVERSION) -> str:
    """Why a runtime may not be used; empty where it may."""
    least = how.exact_cosine if exact else how.cosine
    return (
        "" if worst >= least else f"a vector has cosine {worst:.5f} to the reference, not {least}"
    )


@cache
def sample_texts() -> tuple[str, ...]:
    """Texts on which runtimes are compared: words, sentences and passages, in several languages."""
    text = files("core").joinpath("data", "text_samples.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def recorded_reference(checkpoint: str) -> Vectors | None:
    """What torch gave for the samples when Quire was made, for the encoder that comes with it.

    Args:
        checkpoint: As ``text_checkpoint_sha256`` gives it; another one has no record.

    Returns:
        Unit vectors, shape (samples, dim), as passages.
    """
    path = files("core").joinpath("data", "text_reference.npz")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as record:
        if str(record["checkpoint"]) != checkpoint:
            return None
        values = record["vectors"].astype(np.float32)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def recorded_manifest(checkpoint: str) -> TextManifest | None:
    """What a conversion of the encoder that comes with Quire said when Quire was made.

    Args:
        checkpoint: As ``text_checkpoint_sha256`` gives it; another one has no record.
    """
    path = files("core").joinpath("data", "text_manifest.json")
    manifest = TextManifest.from_json(path.read_text(encoding="utf-8"), "text_manifest.json")
    return manifest if manifest.checkpoint == checkpoint else None
