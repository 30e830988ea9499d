"""Runtimes of an encoder: the files that compute its vectors, what was measured, which one is used.

A manifest is what a conversion says of its results. It lies beside the files and names each by its
hash, so that whatever is run is what was measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.encoders import Activation, EncoderError, EncoderSpec, Preprocessing, canonical_sha256
from core.errors import BudgetError
from core.parity import Parity

MANIFEST = "manifest.json"
"""Its name; a folder that holds one is an encoder that runs as it is."""

FORMAT = 1
"""Raised when a manifest is written differently."""

CONVERTER = "1"
"""Raised when the conversion gives other files for the same weights."""

PRECISE_FIRST = ("onnx-f32", "onnx-w8", "onnx-int8")
"""All runtimes: full precision; 8 bits with a scale for every few weights and inputs; 8 bits with a
scale for every output and for all inputs together."""

EXACT = PRECISE_FIRST[0]

FASTER = 1.1
"""A less precise runtime is used only where it is so many times faster than a more precise one that
fits too: what is measured in a second or two varies by some percent."""

STEP_MB = 110.0
"""What the process of an op holds before its model: Dagster, the database driver and OpenCV, where
the measured process had started with nothing but numpy and Pillow."""


@dataclass(frozen=True)
class Conversion:
    """How a checkpoint is converted."""

    most_images: int = 256
    """Images that the gate compares on, evenly chosen where there are more. A tower of 300 million
    parameters takes a second for each in full precision."""

    batches: tuple[tuple[int, int], ...] = ((500_000_000, 4),)
    """Images at a time, in measuring and in use, for towers with weights of fewer bytes than these,
    in full precision. The larger a tower, the fewer images keep all cores busy, and the more each
    of them takes."""

    large_batch: int = 2
    """The same for larger ones."""

    base_mb: float = 550.0
    """What conversion takes whatever the weights: torch, open_clip and the exporter."""

    per_weight: float = 0.8
    """What it takes for each byte of the file; a half to a third of it may be the text tower, which
    is not read."""

    def batch(self, weights_bytes: int) -> int:
        """Images at a time that suit a tower with weights of so many bytes."""
        return next(
            (size for least, size in self.batches if weights_bytes < least), self.large_batch
        )


CONVERSION = Conversion()


@dataclass(frozen=True)
class RuntimeFile:
    """A file of a runtime, by its name within the folder."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Trial:
    """What a fresh process took that decoded images and embedded them.

    Attributes:
        images_per_s: Images decoded, prepared and embedded.
        base_mb: What the process held before it loaded the model.
        peak_mb: The most it held.
        batch: Images at a time.
        cores: Threads of computation.
    """

    images_per_s: float
    base_mb: float
    peak_mb: float
    batch: int
    cores: int


@dataclass(frozen=True)
class Runtime:
    """One way to compute an encoder's vectors, and whether it may be used.

    Attributes:
        name: One of ``PRECISE_FIRST``.
        passed: Whether the gate let it pass.
        reason: Why not; empty where it did.
        files: The graph first, then what it refers to; empty where it was not made.
        parity: How its vectors compare with the reference; None where it was not made.
        trial: What it takes; None where it was not made.
        witness: The vector of ``core.parity.witness_image``, where it was measured.
    """

    name: str
    passed: bool
    reason: str = ""
    files: tuple[RuntimeFile, ...] = ()
    parity: Parity | None = None
    trial: Trial | None = None
    witness: tuple[float, ...] = ()

    @property
    def step_mb(self) -> float:
        """The least budget of an op that embeds with it."""
        return STEP_MB + self.trial.peak_mb - self.trial.base_mb if self.trial else float("inf")


@dataclass(frozen=True)
class Manifest:
    """An encoder in the form that runs: what it is, its files, what was measured on which images.

    Attributes:
        encoder: What it is, with the runtime left at its default; ``described`` names one.
        converter: Version of the conversion.
        images: Real images that the gate compared on.
        images_sha256: Of their bytes, in order.
        runtimes: All that were tried, the precise ones first.
    """

    encoder: EncoderSpec
    converter: str
    images: int
    images_sha256: str
    runtimes: tuple[Runtime, ...]

    @property
    def checkpoint(self) -> str:
        """Hash of what was converted."""
        return checkpoint_sha256(self.encoder)

    def described(self, runtime: Runtime) -> EncoderSpec:
        """The encoder that runs with this runtime; vectors of another one are another encoder's."""
        return replace(self.encoder, runtime=runtime.name)

    def choose(self, budget_mb: float) -> Runtime:
        """The fastest runtime that passed and fits.

        Args:
            budget_mb: Of the op that embeds; infinite for no limit.

        Raises:
            EncoderError: None passed.
            BudgetError: None fits, with the budget that would do.
        """
        passed = [r for name in PRECISE_FIRST for r in self.runtimes if r.name == name and r.passed]
        if not passed:
            why = "; ".join(f"{r.name}: {r.reason}" for r in self.runtimes)
            raise EncoderError(f"no runtime of {self.encoder.architecture} passed its gate: {why}")
        fitting = [runtime for runtime in passed if runtime.step_mb <= budget_mb]
        if not fitting:
            needed_mb = min(runtime.step_mb for runtime in passed)
            raise BudgetError(
                f"no runtime of encoder {self.encoder.architecture} fits {budget_mb:.0f} MB; "
                f"{needed_mb:.0f} MB would do",
                budget_mb=budget_mb,
                needed_mb=needed_mb,
            )
        chosen, *others = fitting
        for other in others:
            if _speed(other) >= FASTER * _speed(chosen):
                chosen = other
        return chosen

    def to_json(self) -> str:
        """As a file; the same text for the same manifest."""
        fields = asdict(self)
        encoder = fields["encoder"]
        del encoder["runtime"]
        return json.dumps({"format": FORMAT, **fields}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> "Manifest":
        """Read what ``to_json`` wrote.

        Args:
            text: The file.
            origin: Where it is from, for the error.

        Raises:
            EncoderError: It is damaged, or of another format.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError("it is of another format")
            return cls(**{**fields, **_parts(fields)})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{origin} is not the manifest of an encoder ({error!r}); convert it again"
            ) from error


def checkpoint_sha256(encoder: EncoderSpec) -> str:
    """Hash of everything that decides an encoder's vectors but its runtime.

    The weights alone do not: the same file read with another activation is another encoder.
    """
    fields = asdict(encoder)
    for name in ("architecture", "runtime"):
        del fields[name]
    return canonical_sha256(fields)


def _speed(runtime: Runtime) -> float:
    return runtime.trial.images_per_s if runtime.trial else 0.0


def _parts(fields: Mapping[str, Any]) -> dict[str, Any]:
    encoder = dict(fields["encoder"])
    activations: tuple[Activation, ...] = ("gelu", "quick_gelu", "architecture")
    if encoder["activation"] not in activations:
        raise ValueError(f"activation {encoder['activation']!r}")
    how: dict[str, Any] = dict(encoder["preprocessing"])
    how["mean"], how["std"] = tuple(how["mean"]), tuple(how["std"])
    encoder["preprocessing"] = Preprocessing(**how)
    return {
        "encoder": EncoderSpec(**encoder),
        "runtimes": tuple(_runtime(entry) for entry in fields["runtimes"]),
    }


def _runtime(entry: Mapping[str, Any]) -> Runtime:
    files: Sequence[Mapping[str, Any]] = entry["files"]
    return Runtime(
        name=entry["name"],
        passed=entry["passed"],
        reason=entry["reason"],
        files=tuple(RuntimeFile(**file) for file in files),
        parity=Parity(**entry["parity"]) if entry["parity"] else None,
        trial=Trial(**entry["trial"]) if entry["trial"] else None,
        witness=tuple(entry["witness"]),
    )
