"""What exact all-pairs search costs, beside the matrix product that it cannot do without.

    python benchmarks/all_pairs.py --new 1000 --stored 100000 --dim 512

Prints three things measured in the same run on this machine: that the search finds exactly what
brute force finds (on the first ``--check`` stored tiles), its time as a ratio of the plain numpy
product of the same blocks, and the memory it adds. The vectors are random around common directions,
as those of images are, and one stored tile in 64 is a slightly altered copy of a new one. On a busy
machine set OPENBLAS_NUM_THREADS=1: threads that wait for a core count as busy.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.embedding_search import (
    Background,
    BackgroundSpec,
    EmbeddingSearchSpec,
    TileVectors,
    as_stored,
    fit_background,
    search,
)

ENCODER = "benchmark-000000000000"
TILES_PER_PANEL = 35
BLOCK = 4096


def directions(dim: int) -> NDArray[np.float32]:
    """Common directions: what a collection of images has to say, most of it in a few."""
    scale = 1 / np.sqrt(1 + np.arange(dim))
    return (np.random.default_rng(1).normal(size=(dim, dim)) * scale[:, None]).astype(np.float32)


def tiles(first: int, count: int, basis: NDArray[np.float32], name: str) -> TileVectors:
    """Tiles number ``first`` onwards, the same whenever they are asked for."""
    rng = np.random.default_rng([first, count])
    vectors = rng.normal(size=(count, len(basis))).astype(np.float32) @ basis
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(first, first + count)
    panels = np.char.add(name, np.char.zfill((numbers // TILES_PER_PANEL).astype(np.str_), 8))
    return TileVectors(ENCODER, panels, numbers % TILES_PER_PANEL, vectors.astype(np.float16))


class Stream:
    """Stored tiles in blocks, as a database sends them; keeps the time that making them takes."""

    def __init__(self, count: int, basis: NDArray[np.float32], copies: TileVectors) -> None:
        self.count, self.basis, self.copies = count, basis, copies
        self.seconds = 0.0

    def __iter__(self) -> Iterator[TileVectors]:
        for first in range(0, self.count, BLOCK):
            start = time.process_time()
            block = tiles(first, min(BLOCK, self.count - first), self.basis, "s")
            for row in range(0, len(block), 64):
                noise = np.random.default_rng(first + row).normal(size=block.vectors.shape[1])
                copy = self.copies.vectors[(first + row) % len(self.copies)]
                block.vectors[row] = copy + 0.3 * noise / np.sqrt(len(noise))
            self.seconds += time.process_time() - start
            yield block


def peak_mb() -> float:
    """Most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def brute_force(
    new: TileVectors, stored: list[TileVectors], least: float, background: Background | None
) -> dict[tuple[str, str], tuple[float, int]]:
    """The best score and number of matches of every pair of panels, from one whole product."""
    panels = np.concatenate([block.panel_ids for block in stored])
    columns = as_stored(np.concatenate([block.vectors for block in stored]), np.float64)
    rows = as_stored(new.vectors, np.float64)
    scores = rows @ columns.T
    if background is not None:
        apart = np.outer(1 - background.nearness(rows), 1 - background.nearness(columns))
        scores = 1 - (1 - scores) / np.sqrt(apart)
    found: dict[tuple[str, str], tuple[float, int]] = {}
    for i, j in np.argwhere(scores.round(6) >= least):
        key = (str(new.panel_ids[i]), str(panels[j]))
        best, matches = found.get(key, (-np.inf, 0))
        found[key] = (max(best, float(scores[i, j].round(6))), matches + 1)
    return found


def main() -> None:
    """Measure, print, and fail if the search and brute force differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--new", type=int, default=1000, help="new tiles")
    parser.add_argument("--stored", type=int, default=100_000, help="stored tiles")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--check", type=int, default=8192, help="stored tiles for brute force")
    parser.add_argument("--plain", action="store_true", help="plain cosines, no background")
    arguments = parser.parse_args()

    basis = directions(arguments.dim)
    new = tiles(10**7, arguments.new, basis, "n")
    background = None
    if not arguments.plain:
        background = fit_background(Stream(20_000, basis, new), BackgroundSpec())
    spec = EmbeddingSearchSpec(ENCODER, pairs_per_panel=10**6)
    before_mb = peak_mb()

    stream = Stream(arguments.stored, basis, new)
    start = time.process_time()
    result = search(new, stream, spec, background)
    searched = time.process_time() - start - stream.seconds
    added_mb = peak_mb() - before_mb

    stream = Stream(arguments.stored, basis, new)
    rows = as_stored(new.vectors, np.float32)
    multiplied = 0.0
    for block in stream:
        columns = block.vectors.astype(np.float32)
        start = time.process_time()
        np.matmul(rows, columns.T)
        multiplied += time.process_time() - start

    some = list(Stream(arguments.check, basis, new))
    least = spec.cosine if background is None else spec.likeness
    found = {
        (pair.panel_a, pair.panel_b): (pair.score, pair.tile_matches)
        for pair in search(new, some, spec, background).pairs
    }
    expected = brute_force(new, some, least, background)
    same = found.keys() == expected.keys() and all(
        matches == expected[pair][1] and abs(score - expected[pair][0]) < 1e-5
        for pair, (score, matches) in found.items()
    )

    flops = 2 * arguments.new * arguments.stored * arguments.dim
    print(f"{arguments.new:,} new x {arguments.stored:,} stored tiles, {arguments.dim} d")
    print(f"pairs of panels found        {len(result.pairs):,}")
    print(f"equal to brute force         {'yes' if same else 'NO'} ({len(expected):,} pairs)")
    print(f"search                       {searched:.2f} CPU-s")
    speed = flops / multiplied / 1e9
    print(f"numpy product alone          {multiplied:.2f} CPU-s, {speed:.0f} GFLOP/s")
    print(f"ratio                        {searched / multiplied:.2f}")
    print(f"memory added by the search   {added_mb:.0f} MB (peak {peak_mb():.0f} MB in all)")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
