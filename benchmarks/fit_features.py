"""Fit the tables that core.features ships: the mirror-symmetric basis and the codebook.

    python benchmarks/fit_features.py FOLDER_OF_IMAGES --out core/data/local_features.npz

Deterministic: the same pictures give the same tables. The pictures themselves are not needed again.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from core.features import FeatureSpec, extract_raw, mirror_permutation


def views(image: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """The picture as papers show it: at two sizes between 200 and 480 px, compressed."""
    shown: list[NDArray[np.uint8]] = []
    for side in (rng.integers(200, 300), rng.integers(300, 480)):
        scale = side / min(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        small = small[:900, :900]
        _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 95))])
        shown.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return shown


def fit_basis(raw: NDArray[np.float32], dim: int) -> tuple[NDArray, NDArray, NDArray]:
    """Principal directions of descriptors and their mirror images; each is even or odd."""
    permutation = mirror_permutation()
    even, odd = (raw + raw[:, permutation]) / 2, (raw - raw[:, permutation]) / 2
    mean = even.mean(axis=0)
    directions: list[tuple[float, bool, NDArray]] = []
    for part, is_odd in ((even - mean, False), (odd, True)):
        values, vectors = np.linalg.eigh(part.T @ part / len(part))
        directions += [(v, is_odd, vectors[:, i]) for i, v in enumerate(values)]
    directions.sort(key=lambda d: -d[0])
    kept = directions[:dim]
    print(f"variance kept: {sum(d[0] for d in kept) / sum(d[0] for d in directions):.3f}")
    return mean, np.stack([d[2] for d in kept], axis=1), np.array([d[1] for d in kept])


def fit_codebook(
    vectors: NDArray[np.float32], odd: NDArray[np.bool_], words: int, rounds: int = 10
) -> NDArray[np.float32]:
    """Lloyd's algorithm over a codebook that holds every word and, half its length on, its mirror.

    So the word of a mirrored descriptor is known without a search, and the score of a pair does not
    depend on which of the two is mirrored.
    """
    rng = np.random.default_rng(0)
    half = words // 2
    sign = np.where(odd, -1.0, 1.0).astype(np.float32)
    centres = vectors[rng.choice(len(vectors), half, replace=False)].copy()
    for _ in range(rounds):
        closed = np.concatenate([centres, centres * sign])
        norm = (closed * closed).sum(axis=1) / 2
        label = np.concatenate(
            [(block @ closed.T - norm).argmax(axis=1) for block in np.array_split(vectors, 200)]
        )
        upright = np.where((label >= half)[:, None], vectors * sign, vectors)
        label %= half
        count = np.bincount(label, minlength=half)
        order = label.argsort(kind="stable")
        starts = np.concatenate([[0], np.cumsum(count)[:-1]])
        filled = count > 0
        sums = np.add.reduceat(upright[order], starts[filled], axis=0)
        centres[filled] = sums / count[filled, None]
        centres[~filled] = vectors[rng.choice(len(vectors), int((~filled).sum()))]
    return np.concatenate([centres, centres * sign])


def main() -> None:
    """Fit both tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--per-view", type=int, default=400)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    cv2.setNumThreads(1)
    parts: list[NDArray[np.float32]] = []
    for path in sorted(options.folder.iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            continue
        for view in views(np.asarray(image), rng):
            _, raw = extract_raw(view, (), FeatureSpec())
            parts.append(raw[: options.per_view].astype(np.float16).astype(np.float32))
    raw = np.concatenate(parts)
    raw = np.concatenate([raw, raw[:, mirror_permutation()]])
    print(f"{len(raw)} descriptors, mirror images included")
    mean, basis, odd = fit_basis(raw, options.dim)
    projected = (raw - mean) @ basis
    scale = 127.0 / float(np.quantile(np.abs(projected), 0.9995))
    quantised = np.clip(np.rint(projected * scale), -127, 127).astype(np.float32)
    sample = quantised[rng.permutation(len(quantised))[:200_000]]
    codebook = fit_codebook(sample, odd, options.words)
    np.savez_compressed(
        options.out,
        mean=mean.astype(np.float32),
        basis=basis.astype(np.float32),
        scale=np.float32(scale),
        antisymmetric=odd,
        codebook=np.clip(np.rint(codebook + 128.0), 1, 255).astype(np.uint8),
    )
    print(f"{options.out}: {options.out.stat().st_size} bytes, scale {scale:.1f}")


if __name__ == "__main__":
    main()
