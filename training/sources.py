"""Pictures that the encoder learns from: real ones of a folder, and drawn ones.

A picture belongs to a group: fields of one slide, blots of one drawing. Two pictures of a group
look alike without being copies, which makes them the negatives worth learning from.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samples import micrographs

Picture = NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""
Rng = np.random.Generator

LEAST_SIDE_PX = 120
"""Smaller pictures hold no two windows that differ."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})


@dataclass(frozen=True)
class Source:
    """One picture.

    Attributes:
        name: File name, or kind and number of a drawing.
        group: Pictures of one group look alike.
        kind: ``real`` or the kind of drawing; what is reported by kind.
        image: RGB.
    """

    name: str
    group: str
    kind: str
    image: Picture


def real_pictures(folder: Path, groups: int = 24) -> list[Source]:
    """All pictures below a folder, grouped by the origin in their name and by how they look.

    Args:
        folder: Images whose names start with their origin and an underscore (``bbbc038_...``).
        groups: Groups to divide the pictures of one origin into, at most.

    Raises:
        ValueError: The folder holds no picture.
    """
    found: list[tuple[str, Picture]] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= LEAST_SIDE_PX:
            found.append((path.name, np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)))
    if not found:
        raise ValueError(f"{folder} holds no picture of {LEAST_SIDE_PX} px or more a side")
    sources: list[Source] = []
    origins = sorted({name.partition("_")[0] for name, _ in found})
    for origin in origins:
        members = [(name, image) for name, image in found if name.partition("_")[0] == origin]
        labels = _alike([image for _, image in members], groups)
        sources += [
            Source(name, f"{origin}-{label}", "real", image)
            for (name, image), label in zip(members, labels, strict=True)
        ]
    return sources


def _alike(images: list[Picture], groups: int) -> list[int]:
    """Group pictures by colour and coarseness."""
    count = min(groups, len(images) // 6)
    if count < 2:
        return [0] * len(images)
    features = np.stack([_look(image) for image in images]).astype(np.float32)
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_COUNT, 50, 0.0)
    _, labels, _ = cv2.kmeans(features, count, None, stop, 4, cv2.KMEANS_PP_CENTERS)  # pyright: ignore
    return [int(label) for label in labels.ravel()]


def _look(image: Picture) -> NDArray[np.float64]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2)
    coarse = cv2.GaussianBlur(grey, (0, 0), 4) - cv2.GaussianBlur(grey, (0, 0), 16)
    means = image.reshape(-1, 3).mean(0)
    return np.array([*means, grey.std(), fine.std(), coarse.std()])


def drawn_pictures(count: int, seed: int, workers: int = 2) -> list[Source]:
    """Drawn pictures of every kind in turn, the same for the same seed.

    Args:
        count: How many.
        seed: Of all randomness.
        workers: Processes that draw.
    """
    numbers = range(count)
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_drawn, numbers, [seed] * count, chunksize=8))


def _drawn(number: int, seed: int) -> Source:
    turn, place = divmod(number, len(CYCLE))
    kind = CYCLE[place]
    slide = turn // 4  # four fields of one slide follow each other
    style = np.random.default_rng([seed, slide, place])
    rng = np.random.default_rng([seed, number])
    group = f"{kind}-{place}-{slide}"
    return Source(f"{kind}-{number:05d}", group, kind, DRAWINGS[kind](style, rng))


def _size(style: Rng) -> tuple[int, int]:
    return int(style.integers(300, 560)), int(style.integers(300, 560))


def _shown(style: Rng, field: NDArray[np.float32]) -> Picture:
    """A channel as it is shown: grey, or in the colour of its dye."""
    if style.random() < 0.5:
        return micrographs.gray(field)
    red, green, blue = style.uniform(0, 1, 3) ** 2
    most = max(red, green, blue, 1e-3)
    return micrographs.tint(field, (red / most, green / most, blue / most))


def _nuclei(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    return _shown(style, micrographs.nuclei(rng, height, width, float(style.uniform(28, 90))))


def _fibres(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    return _shown(style, micrographs.fibres(rng, height, width, float(style.uniform(70, 150))))


def _puncta(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    return _shown(style, micrographs.puncta(rng, height, width, float(style.uniform(40, 110))))


def _merge(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    spacing = float(style.uniform(60, 130))
    places = micrographs.scattered(rng, height, width, spacing)
    channels = [
        (micrographs.nuclei(rng, height, width, spacing, places), (0.18, 0.38, 1.0)),
        (micrographs.fibres(rng, height, width, spacing, places), (0.15, 1.0, 0.3)),
        (micrographs.puncta(rng, height, width, spacing, places), (1.0, 0.2, 0.2)),
    ]
    kept = channels if style.random() < 0.5 else channels[:2]
    return micrographs.merge(*(micrographs.tint(field, colour) for field, colour in kept))


def _tissue(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    brown = float(style.uniform(0, 0.4)) if style.random() < 0.4 else 0.0
    return micrographs.histology(rng, height, width, float(style.uniform(20, 50)), brown)


def _electron(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    return micrographs.electron(rng, height, width, float(style.uniform(70, 150)))


def _phase(style: Rng, rng: Rng) -> Picture:
    height, width = _size(style)
    return micrographs.phase(rng, height, width, float(style.uniform(40, 100)))


def _rows(style: Rng, rng: Rng) -> tuple[int, list[list[float]]]:
    """Strengths of bands: proteins differ between lanes as treatments do, loading hardly."""
    lanes = int(style.integers(3, 13))
    rows: list[list[float]] = []
    for _ in range(int(style.integers(1, 6))):
        level = style.uniform(0.25, 1.0)
        spread = style.choice([0.08, 0.3, 0.6])
        strengths = np.clip(level + rng.normal(0, spread, lanes), 0, 1)
        strengths[strengths < 0.12] = 0.0
        rows.append([float(s) for s in strengths])
    return lanes, rows


def _blot(style: Rng, rng: Rng) -> Picture:
    lanes, rows = _rows(style, rng)
    height = int(len(rows) * style.uniform(60, 130))
    width = int(lanes * style.uniform(38, 80))
    strip = micrographs.blot(rng, max(130, height), max(200, width), lanes, rows)
    return np.asarray(255 - strip, np.uint8) if style.random() < 0.15 else strip


def _gel(style: Rng, rng: Rng) -> Picture:
    lanes, rows = _rows(style, rng)
    height = int(style.uniform(220, 420))
    return micrographs.gel(rng, height, max(220, int(lanes * style.uniform(34, 60))), lanes, rows)


def _texture(style: Rng, rng: Rng) -> Picture:
    """Noise of several scales, stretched and folded: everything that has no name."""
    height, width = _size(style)
    layers = [
        float(style.uniform(0.2, 1)) * micrographs.cloud(rng, height, width, float(sigma))
        for sigma in style.uniform(1.5, 30, int(style.integers(1, 4)))
    ]
    field = np.sum(layers, axis=0)
    field = np.abs(field) if style.random() < 0.4 else field
    field = (field - field.min()) / (np.ptp(field) + 1e-6)
    if style.random() < 0.5:
        return _shown(style, field.astype(np.float32))
    low, high = style.uniform(0, 255, (2, 3))
    return (low + (high - low) * field[:, :, None]).astype(np.uint8)


def _chart(style: Rng, rng: Rng) -> Picture:
    """Axes with bars, points or lines."""
    height, width = _size(style)
    image = np.full((height, width, 3), 255, np.uint8)
    inks = [tuple(int(v) for v in style.integers(0, 200, 3)) for _ in range(3)]
    left, bottom = int(width * 0.14), int(height * 0.86)
    cv2.line(image, (left, 12), (left, bottom), (0, 0, 0), 2)
    cv2.line(image, (left, bottom), (width - 10, bottom), (0, 0, 0), 2)
    kind = int(style.integers(3))
    count = int(style.integers(3, 9)) if kind == 0 else int(style.integers(12, 90))
    xs = np.linspace(left + 14, width - 24, count)
    for series in range(int(style.integers(1, 4))):
        ys = bottom - rng.uniform(0.05, 0.95, count) * (bottom - 20)
        if kind == 2:
            ys = bottom - (np.cumsum(rng.normal(0, 0.05, count)) + 0.5) * (bottom - 20)
        points = np.stack([xs + series * 5, ys], axis=1).astype(np.int32)
        ink = inks[series]
        if kind == 2:
            cv2.polylines(image, [points], False, ink, 2, cv2.LINE_AA)
            continue
        for x, y in points.tolist():
            if kind == 0:
                cv2.rectangle(image, (x, y), (x + 12, bottom), ink, -1)
            else:
                cv2.circle(image, (x, y), 3, ink, -1, cv2.LINE_AA)
    _write(image, rng, (left, 10, width - 20, 30), 0.45)
    _write(image, rng, (left, bottom + 6, width - 20, height - 4), 0.45)
    return image


def _card(style: Rng, rng: Rng) -> Picture:
    """A trading card: frame, title, artwork, text, symbol and number."""
    width = int(style.integers(300, 400))
    height = int(width * 1.4)
    frame = tuple(int(v) for v in style.integers(20, 236, 3))
    image = np.full((height, width, 3), frame, np.uint8)
    paper = tuple(int(v) for v in style.integers(190, 250, 3))
    margin = int(width * 0.05)
    cv2.rectangle(image, (margin, margin), (width - margin, height - margin), paper, -1)
    x0, x1 = int(width * 0.1), int(width * 0.9)
    y0, y1 = int(height * 0.14), int(height * 0.55)
    art = ARTWORK[int(rng.integers(len(ARTWORK)))](rng, rng)
    image[y0:y1, x0:x1] = cv2.resize(art, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    for _ in range(int(rng.integers(1, 6))):
        centre = int(rng.integers(x0, x1)), int(rng.integers(y0, y1))
        ink = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(8, 50)), ink, -1, cv2.LINE_AA)
    _write(image, rng, (x0, int(height * 0.05), x1, int(height * 0.13)), 0.8)
    for line in range(5):
        top = int(height * (0.59 + 0.06 * line))
        _write(image, rng, (x0, top, x1, top + 20), 0.5)
    _write(image, rng, (int(width * 0.7), int(height * 0.91), x1, int(height * 0.95)), 0.45)
    return image


def _write(image: Picture, rng: Rng, box: tuple[int, int, int, int], size: float) -> None:
    """Random words inside a box."""
    x0, y0, x1, y1 = box
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789  "
    count = int((x1 - x0) / (18 * size))
    text = "".join(letters[int(i)] for i in rng.integers(0, len(letters), max(1, count)))
    at = (x0, min(y1, y0 + int(26 * size)))
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (10, 10, 10), 1, cv2.LINE_AA)


ARTWORK: tuple[Callable[[Rng, Rng], Picture], ...] = (_texture, _tissue, _merge, _texture)

DRAWINGS: dict[str, Callable[[Rng, Rng], Picture]] = {
    "nuclei": _nuclei,
    "blot": _blot,
    "fibres": _fibres,
    "tissue": _tissue,
    "gel": _gel,
    "puncta": _puncta,
    "electron": _electron,
    "texture": _texture,
    "phase": _phase,
    "card": _card,
    "merge": _merge,
    "chart": _chart,
}
"""Kinds of drawing, each from the style of its group and its own randomness."""

CYCLE = (*DRAWINGS, "blot", "blot", "gel")
"""The order of drawings. Blots come three times: local features are weakest on them."""
