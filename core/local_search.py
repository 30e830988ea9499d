"""Candidate pairs by local features: which panels share enough neighbourhoods to be verified.

Two features match when they share a word of the codebook and their descriptors are close. Matches
between two panels vote for a turn and a change of size, direct and mirrored apart; a copy gathers
its votes in one place, chance does not.

The score of a pair depends on the two panels alone, not on what else is stored or which came first,
so the pairs found do not depend on the order of arrival.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.features import LocalFeatures, codebook_size, mirrored, mirrored_words


@dataclass(frozen=True)
class LocalSearchSpec:
    """When two panels become a candidate pair.

    Attributes:
        version: Part of the key of stored pairs.
        index_features: Features per panel that take part, 300.
        max_distance: Largest distance of two descriptors that match, 85 in units of the compact
            descriptor (unrelated ones are about 330 apart). Looser, chance votes grow faster than
            true ones: at 100 three times as many pairs reach a given score, at no gain in copies.
        sparse_features: Panels of at most 120 features are sparse (smooth tissue, blots).
        sparse_distance: Largest distance of a match between two sparse panels, 125: they have
            few chances to agree by accident, and few to agree at all.
        rotation_bin_deg: Width of a bin of turn, 30 degrees: orientations of SIFT agree to 15.
        scale_bin: Width of a bin of the natural logarithm of size, ln 1.5.
        min_score: Least score of a candidate pair, 5 agreeing matches: some 4 % of the pairs of a
            paper full of micrographs.
        max_pairs_per_panel: Safety cap for panels that resemble everything (300); the best are
            kept, and that the cap was hit is reported.
    """

    version: int = 1
    index_features: int = 300
    max_distance: float = 85.0
    sparse_features: int = 120
    sparse_distance: float = 125.0
    rotation_bin_deg: float = 30.0
    scale_bin: float = 0.405
    min_score: float = 5.0
    max_pairs_per_panel: int = 300


@dataclass(frozen=True)
class LocalCandidate:
    """Two panels that local features bring close; nothing is claimed yet.

    Attributes:
        a: Id of one panel; ``a < b``.
        b: Id of the other.
        score: Number of matches that agree on a turn and a change of size.
        mirrored: Whether the better explanation mirrors one of the two.
    """

    a: str
    b: str
    score: float
    mirrored: bool


@dataclass(frozen=True)
class LocalSearchResult:
    """The candidate pairs of a batch of new panels.

    Attributes:
        candidates: Best first, each pair once.
        capped: Ids of new panels with more candidates than the cap, of which the best were kept.
        compared: How many pairs of panels were compared.
    """

    candidates: tuple[LocalCandidate, ...]
    capped: tuple[str, ...]
    compared: int


@dataclass(frozen=True)
class Index:
    """The features of several panels, sorted by word, ready to be joined.

    Attributes:
        words: Shape (m,), sorted; every feature stands under both of its words.
        feature: Shape (m,): row of ``descriptors`` and the other arrays.
        panel: Shape (n,): which panel a feature belongs to.
        points: Shape (n, 4).
        descriptors: Shape (n, 64).
        panels: How many panels there are.
        mirror: Whether the panels were mirrored.
    """

    words: NDArray[np.int64]
    feature: NDArray[np.int64]
    panel: NDArray[np.int64]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    panels: int
    mirror: bool = False


def search_local(
    new: Mapping[str, LocalFeatures],
    stored: Iterable[Mapping[str, LocalFeatures]],
    spec: LocalSearchSpec | None = None,
) -> LocalSearchResult:
    """Compare new panels with all stored ones, block by block.

    The cost is proportional to new x stored; memory is the new panels' index, one block, and twice
    as many candidates as the caps let through, however much is stored.

    Args:
        new: Features of the new panels by panel id.
        stored: Blocks of stored panels by id. The new panels are among them if pairs within the
            batch are wanted; a panel is never compared with itself.
        spec: When a pair is a candidate.

    Returns:
        Every pair whose score reaches ``spec.min_score``, whatever the order of the blocks, up to
        the stated cap per new panel.
    """
    spec = spec or LocalSearchSpec()
    ids = sorted(new)
    queries = [
        build_index([new[i] for i in ids], spec.index_features, mirror=mirror)
        for mirror in (False, True)
    ]
    found: dict[tuple[str, str], LocalCandidate] = {}
    fresh, capped = set(ids), set[str]()
    most = 2 * spec.max_pairs_per_panel * max(1, len(ids))
    compared = 0
    for block in stored:
        others = sorted(block)
        target = build_index([block[i] for i in others], spec.index_features)
        order = _canonical_order(ids, others)
        compared += int((order != 0).sum())
        for mirror, query in zip((False, True), queries, strict=True):
            for row, column, score in _votes(query, target, order, spec):
                pair = tuple(sorted((ids[row], others[column])))
                known = found.get((pair[0], pair[1]))
                if known is None or score > known.score:
                    candidate = LocalCandidate(pair[0], pair[1], score, mirror)
                    found[pair[0], pair[1]] = candidate
        if len(found) > most:
            kept, dropped = _capped(found.values(), fresh, spec)
            found, capped = {(c.a, c.b): c for c in kept}, capped | dropped
        del block, target, order  # the next block is read without this one in memory
    kept, dropped = _capped(found.values(), fresh, spec)
    return LocalSearchResult(tuple(kept), tuple(sorted(capped | dropped)), compared)


def _canonical_order(ids: Sequence[str], others: Sequence[str]) -> NDArray[np.int8]:
    """1 where the new id comes first, -1 where it comes second, 0 where both are one panel."""
    left, right = np.array(ids)[:, None], np.array(others)[None, :]
    return (left < right).astype(np.int8) - (left > right).astype(np.int8)


def _capped(
    candidates: Iterable[LocalCandidate], new: set[str], spec: LocalSearchSpec
) -> tuple[list[LocalCandidate], set[str]]:
    """The best of panels that resemble everything, best first, and which those are.

    What is dropped is worse than the cap's number of others of its panel, so dropping some early
    does not change what is left in the end.
    """
    count: dict[str, int] = dict.fromkeys(new, 0)
    kept: list[LocalCandidate] = []
    capped: set[str] = set()
    for candidate in sorted(candidates, key=lambda c: (-c.score, c.a, c.b)):
        sides = [side for side in (candidate.a, candidate.b) if side in count]
        if all(count[side] >= spec.max_pairs_per_panel for side in sides):
            capped.update(sides)
            continue
        for side in sides:
            count[side] += 1
        kept.append(candidate)
    return kept, capped


def _votes(
    query: Index, target: Index, order: NDArray[np.int8], spec: LocalSearchSpec
) -> list[tuple[int, int, float]]:
    """Row, column and score of the panel pairs whose matches agree on one turn and scale.

    Every match votes in the two nearest bins of turn and the two nearest of scale. A bin counts the
    distinct features of either panel, whichever are fewer: a hundred matches of one spot are one.
    """
    match = matches(query, target, spec)
    rows, columns = query.panel[match[:, 0]], target.panel[match[:, 1]]
    direction = order[rows, columns].astype(np.float64)
    keep = direction != 0
    match, rows, columns, direction = match[keep], rows[keep], columns[keep], direction[keep]
    pair = rows * target.panels + columns
    often = np.bincount(pair, minlength=query.panels * target.panels)[pair] >= spec.min_score
    match, pair, direction = match[often], pair[often], direction[often]
    left, right = query.points[match[:, 0]], target.points[match[:, 1]]
    turn = (right[:, 3] - left[:, 3]).astype(np.float64)
    if not query.mirror:
        turn *= direction
    turns = round(360.0 / spec.rotation_bin_deg)
    turn_bin = np.floor((turn % 360.0) / spec.rotation_bin_deg + 1e-3).astype(np.int64)
    growth = direction * np.log(np.maximum(right[:, 2], 0.1) / np.maximum(left[:, 2], 0.1))
    scale_bin = np.floor(growth / spec.scale_bin + 1e-3).astype(np.int64) + 8
    usable = (scale_bin >= 0) & (scale_bin < 15)
    places = [
        (pair * turns + (turn_bin + i) % turns) * 16 + scale_bin + j for i in (0, 1) for j in (0, 1)
    ]
    place = np.concatenate([p[usable] for p in places])
    ids_left = np.tile(match[usable, 0], 4)
    ids_right = np.tile(match[usable, 1], 4)
    bins, count_left = _distinct_per_bin(place, ids_left)
    _, count_right = _distinct_per_bin(place, ids_right)
    score = np.minimum(count_left, count_right)
    enough = score >= spec.min_score
    best: dict[int, int] = {}
    for key, value in zip(
        (bins[enough] // (turns * 16)).tolist(), score[enough].tolist(), strict=True
    ):
        best[key] = max(best.get(key, 0), value)
    return [(k // target.panels, k % target.panels, float(v)) for k, v in sorted(best.items())]


def _distinct_per_bin(
    place: NDArray[np.int64], feature: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bins that hold anything, ascending, and how many distinct features each holds."""
    order = np.lexsort((feature, place))
    place, feature = place[order], feature[order]
    fresh = np.ones(len(place), np.bool_)
    fresh[1:] = (place[1:] != place[:-1]) | (feature[1:] != feature[:-1])
    return np.unique(place[fresh], return_counts=True)


def build_index(panels: Iterable[LocalFeatures], count: int, *, mirror: bool = False) -> Index:
    """Join the first ``count`` features of each panel into one index, mirrored if asked."""
    heads = [panel.head(count) for panel in panels]
    sizes = [len(head) for head in heads]
    points = np.concatenate([h.points for h in heads] or [np.empty((0, 4), np.float32)])
    descriptors = np.concatenate([h.descriptors for h in heads] or [np.empty((0, 64), np.uint8)])
    words = np.concatenate([h.words for h in heads] or [np.empty((0, 2), np.uint16)])
    if mirror:
        descriptors, words = mirrored(descriptors), mirrored_words(words)
        points = points.copy()
        points[:, 3] = (180.0 - points[:, 3]) % 360.0
    both = words.astype(np.int64).T.reshape(-1)
    order = both.argsort(kind="stable")
    return Index(
        words=both[order],
        feature=np.tile(np.arange(len(points)), 2)[order],
        panel=np.repeat(np.arange(len(heads)), sizes),
        points=points,
        descriptors=descriptors,
        panels=len(heads),
        mirror=mirror,
    )


def matches(new: Index, stored: Index, spec: LocalSearchSpec) -> NDArray[np.int64]:
    """All (new feature, stored feature) that share a word and are close, shape (k, 2), unique."""
    size = codebook_size()
    left_at = np.searchsorted(new.words, np.arange(size + 1))
    right_at = np.searchsorted(stored.words, np.arange(size + 1))
    left_vectors = new.descriptors.astype(np.float32) - 128.0
    right_vectors = stored.descriptors.astype(np.float32) - 128.0
    left_norm = np.einsum("ij,ij->i", left_vectors, left_vectors)
    right_norm = np.einsum("ij,ij->i", right_vectors, right_vectors)
    left_sparse, right_sparse = _sparse(new, spec), _sparse(stored, spec)
    slack = (spec.sparse_distance**2 - spec.max_distance**2) / 2
    keys: list[NDArray[np.int64]] = []
    for word in np.flatnonzero((np.diff(left_at) > 0) & (np.diff(right_at) > 0)):
        left = new.feature[left_at[word] : left_at[word + 1]]
        right = stored.feature[right_at[word] : right_at[word + 1]]
        product = left_vectors[left] @ right_vectors[right].T
        limit = (left_norm[left, None] + right_norm[None, right] - spec.max_distance**2) / 2
        limit -= slack * (left_sparse[left, None] & right_sparse[None, right])
        rows, columns = np.nonzero(product >= limit)
        keys.append(left[rows] * len(stored.points) + right[columns])
    unique = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)
    return np.stack(np.divmod(unique, max(1, len(stored.points))), axis=1)


def _sparse(index: Index, spec: LocalSearchSpec) -> NDArray[np.bool_]:
    """Which features belong to panels that have only few, shape (n,)."""
    count = np.bincount(index.panel, minlength=index.panels)
    return (count <= spec.sparse_features)[index.panel]
