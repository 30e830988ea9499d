"""Candidate pairs by embedding: every new tile against every stored one, exactly and bounded.

Stored tiles stream past in blocks, and what is close enough is gathered per pair of panels. What is
found for a pair depends on the vectors of its two panels, the spec and the stored background alone:
not on what else is stored, in which order it comes, or which of the two came first.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.encoders import require_same_encoder

_Float = TypeVar("_Float", np.float32, np.float64)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MAGIC = b"QBG1"
_LEAST_APART = 1e-6
"""A tile that the background holds itself, many times over, is this far from it, in 1 - cosine:
half precision tells no less."""


@dataclass(frozen=True)
class EmbeddingSearchSpec:
    """What counts as close for one encoder, and how much is held at a time."""

    encoder_id: str
    """The encoder that the thresholds belong to; vectors of another are refused."""

    likeness: float = 0.6
    """With a background: the least score. 1 is identical, 0 is as unlike as the nearest twentieth
    of unrelated tiles, so 0.6 is a squared distance of at most 0.4 of theirs. A ratio of distances
    means much the same for every encoder, as it does for local features; of five ways to make
    cosines comparable it let through the most copies at equal false candidates (decision 0003)."""

    cosine: float = 0.9
    """Without a background (too few panels are known to fit one): a plain cosine. Low on purpose:
    with so few panels a needless candidate costs verification a few milliseconds. 0.96, the older
    default for CLIP, was set for tiles at identical places and misses shifted ones."""

    pairs_per_panel: int = 50
    """Safety cap. A new panel keeps its best so many pairs, and those that are among the best of
    another new panel; the result names every panel that lost one."""

    product_mb: int = 16
    """Size of the score matrix computed at a time, 1,000 x 4,096 scores. With 4 MB the search takes
    16 % longer, with 1 MB 80 %: the same columns are rearranged more often for the product."""

    version: int = 1
    """Counts changes of the functions in this module that change their result."""


@dataclass(frozen=True)
class BackgroundSpec:
    """How the background of an encoder is sampled."""

    panels: int = 256
    """Most panels that give a tile. Thirteen of 256 are a stable twentieth, and comparing every
    tile with 256 more costs a quarter of comparing it with 1,000 new ones."""

    fewest_panels: int = 64
    """With fewer, the nearest twentieth is a tile or two, which may be copies."""

    share: float = 0.95
    """How near a tile comes to the background is this quantile of its cosines to it. A mean of the
    very nearest would be raised by the tile's own copies, should the sample hold some; they would
    have to be a twentieth of it to move this."""

    version: int = 1
    """Counts changes of the functions in this module that change their result."""


@dataclass(frozen=True)
class TileVectors:
    """Embedded tiles, a batch or a block of the stored ones. Blank tiles have no vector.

    Attributes:
        encoder_id: What made the vectors.
        panel_ids: Panel of each tile, shape (n,), strings.
        ordinals: Place of each tile within its panel, shape (n,).
        vectors: Shape (n, dim), float32 or float16.
    """

    encoder_id: str
    panel_ids: NDArray[np.str_]
    ordinals: NDArray[np.integer[Any]]
    vectors: NDArray[np.floating[Any]] = field(repr=False)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not len(self.panel_ids) == len(self.ordinals) == len(self):
            raise ValueError(
                f"{len(self.panel_ids)} panel ids, {len(self.ordinals)} ordinals and vectors of "
                f"shape {self.vectors.shape} do not go together"
            )

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Background:
    """How close an encoder's tiles come to each other when neither is a copy of the other.

    Encoders differ: unrelated micrographs meet at cosine 0.1 in one and at 0.8 in the next. And
    within one encoder a plain texture is near to many tiles where a rare structure is near to none.
    A sample of tiles, one per panel, tells both: how far a tile is from the nearest of them is the
    unit in which its distance to any other tile counts.

    It is fitted once per encoder and stored. Its id is part of what a search result was computed
    from, so nothing shifts silently when the collection grows.

    Attributes:
        encoder_id: The encoder it belongs to.
        vectors: The sample in half precision, shape (n, dim).
        share: See ``BackgroundSpec``.
    """

    encoder_id: str
    vectors: NDArray[np.float16] = field(repr=False)
    share: float

    @property
    def background_id(self) -> str:
        """Twelve hexadecimal digits over all of it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:12]

    @cached_property
    def _units(self) -> tuple[NDArray[np.float32], Floats]:
        return as_stored(self.vectors, np.float32), as_stored(self.vectors, np.float64)

    def nearness(self, units: NDArray[_Float]) -> NDArray[_Float]:
        """How near each unit vector comes to the sample, shape (n,), in the precision given.

        This is the part of its likeness that is particular to no pair.
        """
        single, double = self._units
        cosines = units @ (single if units.dtype == np.float32 else double).T
        place = int(self.share * (len(self.vectors) - 1))
        return np.partition(cosines, place, axis=1)[:, place].astype(units.dtype, copy=False)

    def to_bytes(self) -> bytes:
        """The background as a database keeps it, without pickle."""
        name = self.encoder_id.encode()
        head = struct.pack("<4sHdII", _MAGIC, len(name), self.share, *self.vectors.shape)
        return head + name + self.vectors.astype("<f2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            ValueError: It is something else, or cut off.
        """
        layout = struct.Struct("<4sHdII")
        if len(data) < layout.size or not data.startswith(_MAGIC):
            raise ValueError("not a stored background")
        _, length, share, rows, dim = layout.unpack_from(data)
        start = layout.size + length
        if len(data) != start + 2 * rows * dim:
            raise ValueError("a stored background is cut off")
        vectors = np.frombuffer(data, dtype="<f2", offset=start).reshape(rows, dim)
        name = data[layout.size : start].decode()
        return cls(name, vectors.astype(np.float16), share)


@dataclass(frozen=True)
class PanelPair:
    """Two panels of which at least one pair of tiles is close.

    Attributes:
        panel_a: The smaller id.
        panel_b: The larger id.
        score: Of the best tile pair, at most 1: its likeness beyond the background, or its cosine
            where there is no background.
        cosine: Of the same tile pair.
        tile_a: That tile's place within panel a.
        tile_b: That tile's place within panel b.
        tile_matches: How many tile pairs are close. A lower bound for panels named in ``capped``.
    """

    panel_a: str
    panel_b: str
    score: float
    cosine: float
    tile_a: int
    tile_b: int
    tile_matches: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        pairs: By panel ids.
        capped: New panels that lost pairs to the safety cap; empty as a rule.
        compared: Tile pairs compared, for the op's metadata.
    """

    pairs: tuple[PanelPair, ...]
    capped: tuple[str, ...]
    compared: int


def as_stored(vectors: NDArray[np.floating[Any]], precision: type[_Float]) -> NDArray[_Float]:
    """Unit vectors as every later search will see them: rounded to half precision, then rescaled.

    The database keeps half precision. Comparing fresh vectors in full would make a pair's score
    depend on which of the two was stored first.

    Args:
        vectors: Unit vectors, as they come from an encoder or from the database.
        precision: Of the result, ``np.float32`` or ``np.float64``.

    Raises:
        ValueError: A vector is zero or not finite.
    """
    units = vectors.astype(np.float16, copy=False).astype(precision)
    lengths = np.sqrt(np.einsum("ij,ij->i", units, units))
    if not np.all(np.isfinite(lengths)) or np.any(lengths < 0.5):
        raise ValueError("a vector that is zero or not finite cannot be compared with anything")
    units /= lengths[:, None]
    return units


def fit_background(tiles: Iterable[TileVectors], spec: BackgroundSpec) -> Background | None:
    """Sample one tile of each of up to ``spec.panels`` panels.

    Which tiles are taken follows from their ids alone, so the same collection gives the same
    background in whatever order it is read. One pass; holds ``spec.panels`` vectors and one block.

    Args:
        tiles: Blocks of embedded tiles of one encoder; each tile once.
        spec: How many.

    Returns:
        The background, or None where there are fewer than ``spec.fewest_panels`` panels.

    Raises:
        EncoderError: The blocks are of more than one encoder.
    """
    encoder_id = ""
    sample: dict[str, tuple[bytes, bytes, NDArray[np.float16]]] = {}
    for block in tiles:
        encoder_id = encoder_id or block.encoder_id
        require_same_encoder(encoder_id, block.encoder_id)
        for row, (panel_id, ordinal) in enumerate(
            zip(block.panel_ids, block.ordinals, strict=True)
        ):
            panel, rank = str(panel_id), _lot(f"{panel_id}/{ordinal}")
            if panel in sample:
                panel_rank, held_rank, _ = sample[panel]
                if held_rank <= rank:
                    continue
            else:
                panel_rank = _lot(panel)
            sample[panel] = (panel_rank, rank, block.vectors[row].astype(np.float16))
        drawn = sorted((lot, panel) for panel, (lot, _, _) in sample.items())[: spec.panels]
        sample = {panel: sample[panel] for _, panel in drawn}
    if len(sample) < spec.fewest_panels:
        return None

    halves = np.stack([vector for _, _, vector in sample.values()])
    return Background(encoder_id, halves, spec.share)


def _lot(name: str) -> bytes:
    """A place in an order that has nothing to do with the name's meaning."""
    return hashlib.sha256(name.encode()).digest()[:8]


def search(
    new: TileVectors,
    stored: Iterable[TileVectors],
    spec: EmbeddingSearchSpec,
    background: Background | None = None,
) -> SearchResult:
    """All pairs of panels with a pair of tiles at or above the threshold, one of them new.

    Nothing is approximated: a float32 product only sorts out what is below the threshold by more
    than its own rounding error, and every survivor is computed again in float64.

    Beside the new vectors, one block and ``spec.product_mb`` (about twice), this holds the pairs
    found, at most 50,000 or ``4 * spec.pairs_per_panel`` per new panel.

    Args:
        new: Tiles of panels whose pairs are wanted.
        stored: Blocks of stored tiles, read once, each tile once, the new ones included or not. The
            tiles of one panel may lie in several blocks. Pairs of a panel with itself are left out,
            and a pair of two new panels counts once.
        spec: Thresholds and sizes.
        background: Of the same encoder; without one, ``spec.cosine`` decides.

    Returns:
        Pairs by panel ids, what was capped, and the number of comparisons.

    Raises:
        EncoderError: Vectors or background are of another encoder than the spec's.
        ValueError: A vector is zero or not finite, or of another length.
    """
    require_same_encoder(spec.encoder_id, new.encoder_id)
    if background is not None:
        require_same_encoder(spec.encoder_id, background.encoder_id)
    names, panels = _codes(new.panel_ids)
    queries = _Comparable(new.vectors, background, spec)
    found = _Found(names, spec.pairs_per_panel)
    compared = 0
    for block in stored:
        require_same_encoder(spec.encoder_id, block.encoder_id)
        if not len(block) or not len(new):
            continue
        if block.vectors.shape[1] != new.vectors.shape[1]:
            raise ValueError(f"vectors of {new.vectors.shape[1]} and {block.vectors.shape[1]}")
        block_names, block_panels = _codes(block.panel_ids)
        # Of two new panels the pair is taken where the smaller id is the query; of a panel with
        # itself nowhere. Other stored panels have no place among the new ones and always count.
        places = _places(block_names, names)
        columns = _Comparable(block.vectors, background, spec)
        for rows, hits in queries.above(columns, spec):
            first, second = panels[rows], block_panels[hits]
            counts = (places[second] < 0) | (first < places[second])
            rows, hits = rows[counts], hits[counts]
            if not len(rows):
                continue
            cosines, scores = queries.exact(columns, rows, hits)
            close = scores >= (spec.cosine if background is None else spec.likeness)
            found.add(
                (names, panels[rows[close]], new.ordinals[rows[close]]),
                (block_names, block_panels[hits[close]], block.ordinals[hits[close]]),
                scores[close],
                cosines[close],
            )
        compared += len(new) * len(block)
    return found.result(compared)


def _codes(panel_ids: NDArray[np.str_]) -> tuple[NDArray[np.str_], Integers]:
    """Distinct panel ids in order, and each row's place among them."""
    names, codes = np.unique(np.asarray(panel_ids, dtype=np.str_), return_inverse=True)
    return names, codes.astype(np.int64)


def _places(names: NDArray[np.str_], among: NDArray[np.str_]) -> Integers:
    """Place of each name among sorted others; -1 where it is not one of them."""
    if not len(among):
        return np.full(len(names), -1, dtype=np.int64)
    places = np.searchsorted(among, names).clip(max=len(among) - 1)
    return np.where(among[places] == names, places, -1).astype(np.int64)


class _Comparable:
    """Vectors laid out so that one matrix product tells which pairs reach the threshold.

    With ``u`` the distance of a tile from the background, the score of a pair is
    ``1 - (1 - cosine) / (u_a * u_b)``, and it reaches ``least`` exactly where the rows
    ``(v, sqrt(1 - least) * u)`` of the two have a product of at least 1.
    """

    def __init__(
        self,
        vectors: NDArray[np.floating[Any]],
        background: Background | None,
        spec: EmbeddingSearchSpec,
    ) -> None:
        self._halves = vectors.astype(np.float16, copy=False)
        self._background = background
        count, dim = vectors.shape
        self.rows = np.zeros((count, dim + 1), dtype=np.float32)
        units = as_stored(self._halves, np.float32)
        self.rows[:, :dim] = units
        if background is not None:
            # Never below the exact value, so that rounding lets pairs in and keeps none out.
            apart = (
                np.maximum(1 - background.nearness(units), 0) + (dim + 8) * 2.0**-23 + _LEAST_APART
            )
            self.rows[:, dim] = np.sqrt((1 - spec.likeness) * apart)

    def above(
        self, stored: "_Comparable", spec: EmbeddingSearchSpec
    ) -> Iterator[tuple[Integers, Integers]]:
        """Rows of this and of the stored ones that may reach the threshold, 4096 at a time."""
        least = spec.cosine if self._background is None else 1.0
        # A sum of n products that add up to at most 3 in size is off by at most 3 * n * 2**-24.
        floor = np.float32(least - self.rows.shape[1] * 2.0**-22)
        wide = min(len(stored.rows), 4096)
        tall = max(1, min(len(self.rows), spec.product_mb * 262_144 // wide))
        whole = np.empty((tall, wide), dtype=np.float32)
        for left in range(0, len(stored.rows), wide):
            columns = stored.rows[left : left + wide].T
            for top in range(0, len(self.rows), tall):
                rows = self.rows[top : top + tall]
                full = len(rows) == tall and columns.shape[1] == wide
                products = np.matmul(rows, columns, out=whole) if full else rows @ columns
                hits = np.flatnonzero(products >= floor)
                for start in range(0, len(hits), 4096):
                    down, across = np.divmod(hits[start : start + 4096], columns.shape[1])
                    yield down + top, across + left

    def exact(
        self, stored: "_Comparable", rows: Integers, columns: Integers
    ) -> tuple[Floats, Floats]:
        """Cosines and scores of single pairs, rounded so that no order of summation shows."""
        first, apart_first = self._exactly(rows)
        second, apart_second = stored._exactly(columns)
        cosines = np.einsum("ij,ij->i", first, second)
        scores = cosines
        if self._background is not None:
            scores = 1 - (1 - cosines) / np.sqrt(apart_first * apart_second)
        return cosines.round(6), scores.round(6)

    def _exactly(self, rows: Integers) -> tuple[Floats, Floats]:
        """Unit vectors of some rows, and their squared distance from the background, in float64."""
        distinct, places = np.unique(rows, return_inverse=True)
        units = as_stored(self._halves[distinct], np.float64)
        if self._background is None:
            return units[places], np.ones(len(rows))
        apart = np.maximum(1 - self._background.nearness(units), _LEAST_APART)
        return units[places], apart[places]


_Tiles = tuple[NDArray[np.str_], Integers, NDArray[np.integer[Any]]]
"""Panel names, which of them each row belongs to, and its ordinal."""


class _Found:
    """Pairs of panels as they come up, kept within the cap."""

    def __init__(self, new_panels: NDArray[np.str_], cap: int) -> None:
        self._new = {str(name) for name in new_panels}
        self._cap = cap
        self._most = max(50_000, 4 * cap * len(self._new))
        self._pairs: dict[tuple[str, str], PanelPair] = {}
        self._capped: set[str] = set()

    def add(self, first: _Tiles, second: _Tiles, scores: Floats, cosines: Floats) -> None:
        """Take in tile pairs, row by row of the two sides."""
        (names, panels, ordinals), (others, other_panels, other_ordinals) = first, second
        keys = panels * len(others) + other_panels
        order = np.lexsort((other_ordinals, ordinals, -scores, keys))
        keys = keys[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else order
        counts = np.diff(np.r_[starts, len(keys)])
        for row, count in zip(order[starts], counts, strict=True):
            a, b = str(names[panels[row]]), str(others[other_panels[row]])
            tile_a, tile_b = int(ordinals[row]), int(other_ordinals[row])
            if b < a:
                a, b, tile_a, tile_b = b, a, tile_b, tile_a
            pair = PanelPair(
                a, b, float(scores[row]), float(cosines[row]), tile_a, tile_b, int(count)
            )
            self._merge(pair)
        if len(self._pairs) > self._most:
            self._prune()

    def _merge(self, pair: PanelPair) -> None:
        key = (pair.panel_a, pair.panel_b)
        if (held := self._pairs.get(key)) is not None:
            best = min(held, pair, key=lambda p: (-p.score, p.tile_a, p.tile_b))
            matches = held.tile_matches + pair.tile_matches
            pair = PanelPair(*key, best.score, best.cosine, best.tile_a, best.tile_b, matches)
        self._pairs[key] = pair

    def _prune(self) -> None:
        """Keep the best of every new panel; which those are does not depend on when this runs.

        A pair that is dropped was worse than ``cap`` others of its panel, which only get better; if
        it comes up again it is with what it is worth by then.
        """
        best_first = sorted(self._pairs.items(), key=lambda item: (-item[1].score, item[0]))
        kept: dict[tuple[str, str], PanelPair] = {}
        held = dict.fromkeys(self._new, 0)
        for key, pair in best_first:
            sides = [panel for panel in key if panel in self._new]
            if any(held[panel] < self._cap for panel in sides):
                kept[key] = pair
            else:
                self._capped.update(sides)
            for panel in sides:
                held[panel] += 1
        self._pairs = kept

    def result(self, compared: int) -> SearchResult:
        """What is left, by panel ids."""
        self._prune()
        pairs = tuple(self._pairs[key] for key in sorted(self._pairs))
        return SearchResult(pairs, tuple(sorted(self._capped)), compared)
