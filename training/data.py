"""Batches to learn from, and views kept aside to validate on."""

from collections.abc import Iterator
from hashlib import sha256

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from training.recipe import Recipe
from training.sources import Picture, Source
from training.views import ViewSpec, batch, places, view


class Views(IterableDataset[Tensor]):
    """Endless batches of views, uint8 of shape (2 * pairs, side, side, 3)."""

    def __init__(self, sources: list[Source], recipe: Recipe, spec: ViewSpec, step: int) -> None:
        """Take the pictures.

        Args:
            sources: What to learn from.
            recipe: Size and composition of a batch.
            spec: The edits.
            step: From which training goes on; other steps give other views.
        """
        self._sources, self._recipe, self._spec, self._step = sources, recipe, spec, step

    def __iter__(self) -> Iterator[Tensor]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        rng = np.random.default_rng([self._recipe.seed, self._step, info.id if info else 0])
        groups: dict[bool, dict[str, list[int]]] = {True: {}, False: {}}
        for place, source in enumerate(self._sources):
            groups[source.kind == "real"].setdefault(source.group, []).append(place)
        share = (
            self._recipe.real_share if groups[True] and groups[False] else float(bool(groups[True]))
        )
        real = round(self._recipe.pairs * share)
        while True:
            parts = [
                batch(self._sources, groups[kind], count, self._spec, rng)
                for kind, count in ((True, real), (False, self._recipe.pairs - real))
                if count
            ]
            yield torch.from_numpy(np.concatenate(parts))


def split(sources: list[Source], aside: int) -> tuple[list[Source], list[Source]]:
    """Pictures to learn from and pictures kept aside, by whole groups.

    Args:
        sources: All of them.
        aside: One in so many groups is kept aside, by a hash of its name.
    """
    kept = {s.group for s in sources if sha256(s.group.encode()).digest()[0] % aside == 0}
    learn = [s for s in sources if s.group not in kept]
    return learn, [s for s in sources if s.group in kept]


def validation_views(sources: list[Source], spec: ViewSpec) -> tuple[Tensor, list[str]]:
    """Two views of up to four places of each picture, and the kind of each place."""
    rng = np.random.default_rng(7)
    rows: list[Picture] = []
    kinds: list[str] = []
    for source in sources:
        for first, second in places(source, 4, spec, rng):
            rows += [view(source.image, first, spec, rng), view(source.image, second, spec, rng)]
            kinds.append(source.kind)
    return torch.from_numpy(np.stack(rows)), kinds
