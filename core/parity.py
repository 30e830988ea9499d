"""Parity: whether vectors that were computed in another way may stand in for the reference.

A runtime of reduced precision is let pass only by what it does to real images: to their vectors, to
their neighbours, and to finding them again after they were edited.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.encoders import Vectors
from core.geometry import Image


@dataclass(frozen=True)
class Gate:
    """What a runtime has to reach."""

    images: int = 200
    """Real images at least. The worst of so many is a figure that repeats; below it, reduced
    precision is not used."""

    cosine: float = 0.999
    """The worst centred cosine to the reference: an angle of 2.6 degrees."""

    exact_cosine: float = 0.99999
    """The same for full precision, not centred: only the order of additions may differ."""

    tie: float = 0.01
    """Neighbours whose centred cosines in the reference differ by no more are a tie: either may be
    the nearer one. It is half of what an image at the worst allowed angle may move by chance."""

    neighbours: tuple[int, int] = (1, 10)
    """The lists that must agree."""

    agreement: float = 0.995
    """Share of each list that must agree, ties apart: all but one image's of two hundred."""

    recall_fall: float = 0.01
    """Recall may fall by two images of two hundred where each of them is a tie in the reference;
    one that the reference finds by more than a tie must be found."""


GATE = Gate()


@dataclass(frozen=True)
class Parity:
    """Vectors of one runtime beside the reference, over the same images.

    Attributes:
        images: How many.
        worst: The least centred cosine of an image's two vectors.
        median: The median of it.
        worst_plain: The least cosine as it is, not centred.
        top_1: Share of images whose nearest other one is the reference's, ties counted as agreeing.
        top_10: Share of the reference's ten nearest that are among the runtime's, likewise.
        recall: Share of edited images whose nearest image is the one they were made from.
        reference_recall: The same with the reference's vectors.
        lost: Edited images that the reference finds by more than a tie, and the runtime does not.
    """

    images: int
    worst: float
    median: float
    worst_plain: float
    top_1: float
    top_10: float
    recall: float
    reference_recall: float
    lost: int


@dataclass(frozen=True)
class Measured:
    """Vectors of images, and of an edited copy of each, in the same order."""

    images: Vectors
    edited: Vectors


def compare(reference: Measured, found: Measured, gate: Gate = GATE) -> Parity:
    """Compare what a runtime gives with what the reference gives.

    Cosines are of vectors from which the reference's mean is taken: all images share a part that
    says nothing about any of them, and which would hide what is lost of the rest.

    Args:
        reference: Unit vectors, shape (images, dim) each.
        found: The runtime's, of the same shapes.
        gate: What counts as a tie.

    Raises:
        ValueError: The shapes differ, or there are no images.
    """
    if reference.images.shape != found.images.shape or not len(reference.images):
        raise ValueError(f"{reference.images.shape} compared with {found.images.shape}")
    plain = np.sum(_unit(reference.images) * _unit(found.images), axis=1)
    mean = reference.images.astype(np.float64).mean(axis=0)
    wanted, given = (_unit(part.images - mean) for part in (reference, found))
    cosines = np.sum(wanted * given, axis=1) if len(wanted) > 1 else plain
    first, tenth = (_agreement(wanted, given, count, gate.tie) for count in gate.neighbours)
    lead, true_lead = (
        _lead(originals, _unit(part.edited - mean))
        for originals, part in ((given, found), (wanted, reference))
    )
    return Parity(
        images=len(wanted),
        worst=float(cosines.min()),
        median=float(np.median(cosines)),
        worst_plain=float(plain.min()),
        top_1=first,
        top_10=tenth,
        recall=float(np.mean(lead > 0)),
        reference_recall=float(np.mean(true_lead > 0)),
        lost=int(np.sum((true_lead > gate.tie) & (lead <= 0))),
    )


def refusal(parity: Parity, *, exact: bool, gate: Gate = GATE) -> str:
    """Why a runtime may not be used; empty where it may.

    Args:
        parity: What was measured.
        exact: Whether it computes in full precision, and so has to agree but for rounding; it may
            be judged on fewer images.
        gate: What it has to reach.
    """
    if exact:
        if parity.worst_plain < gate.exact_cosine:
            return f"a vector is {parity.worst_plain:.6f} from the reference's, not 0.99999"
    elif parity.images < gate.images:
        return f"needs {gate.images} real images, had {parity.images}"
    failures = [
        (parity.worst < gate.cosine, f"worst centred cosine {parity.worst:.4f}"),
        (parity.top_1 < gate.agreement, f"nearest neighbours agree in {parity.top_1:.1%}"),
        (parity.top_10 < gate.agreement, f"ten nearest neighbours agree in {parity.top_10:.1%}"),
        (
            parity.lost > 0 or parity.recall < parity.reference_recall - gate.recall_fall,
            f"finds {parity.recall:.1%} of edited images, the reference "
            f"{parity.reference_recall:.1%}",
        ),
    ]
    return "; ".join(text for failed, text in failures if failed)


def witness_image() -> Image:
    """One drawn picture, always the same, by which a runtime is known again: 160 px, RGB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)


def is_same(wanted: NDArray[np.floating], found: NDArray[np.floating], gate: Gate = GATE) -> bool:
    """Whether a runtime gives a vector as near to what it gave before as the gate asks for."""
    return float(np.dot(_unit(wanted[None])[0], _unit(found[None])[0])) >= gate.cosine


def edited(image: Image, number: int) -> Image:
    """A copy as it might be planted: one of six edits, by number, in turn.

    Args:
        image: RGB, shape (height, width, 3).
        number: Which edit; counted on modulo six.
    """
    height, width = image.shape[:2]
    match number % 6:
        case 0:
            copy = image[:, ::-1]
        case 1:
            copy = np.rot90(image)
        case 2:
            copy = image[height // 6 :, width // 6 :]
        case 3:
            copy = _curve(0.7)[image]
        case 4:
            copy = _curve(1.4)[image]
        case _:
            copy = np.repeat(np.repeat(image[::2, ::2], 2, axis=0), 2, axis=1)
    return np.ascontiguousarray(copy)


def _curve(gamma: float) -> NDArray[np.uint8]:
    levels = np.arange(256, dtype=np.float64) / 255
    return np.round(255 * levels**gamma).astype(np.uint8)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _agreement(
    wanted: NDArray[np.float64], given: NDArray[np.float64], count: int, tie: float
) -> float:
    """Share of a runtime's nearest that are the reference's, or as near in the reference."""
    count = min(count, len(wanted) - 1)
    if count < 1:
        return 1.0
    true = wanted @ wanted.T
    seen = given @ given.T
    np.fill_diagonal(true, -2.0)
    np.fill_diagonal(seen, -2.0)
    least = -np.sort(-true, axis=1)[:, count - 1] - tie
    named = np.argsort(-seen, axis=1, kind="stable")[:, :count]
    return float(np.mean(np.take_along_axis(true, named, axis=1) >= least[:, None]))


def _lead(originals: NDArray[np.float64], copies: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much each copy is nearer to its original than to any other image, shape (images,)."""
    similar = copies @ originals.T
    own = np.diagonal(similar).copy()
    np.fill_diagonal(similar, -2.0)
    return own - similar.max(axis=1)
