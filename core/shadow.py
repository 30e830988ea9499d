"""Shadow recall: what another encoder would propose, beside what the serving one does.

Both answer the same questions over the same panels; nothing is stored and no result changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.embedding_search import TileVectors, as_stored
from core.encoders import require_same_encoder

Nearest = Mapping[str, Sequence[str]]
"""For each panel or passage that was asked for, what is nearest to it, the nearest first."""


def nearest_panels(
    asked: TileVectors, stored: Iterable[TileVectors], count: int
) -> dict[str, list[str]]:
    """The panels nearest to each of some panels, by the closest pair of their tiles, exactly.

    Holds the vectors asked for, one block, and the products of one panel with that block.

    Args:
        asked: Tiles of the panels asked for.
        stored: Blocks of all tiles of the same encoder, the asked ones included or not; all tiles
            of a panel in one block.
        count: How many panels for each.

    Raises:
        EncoderError: A block is of another encoder.
    """
    own = as_stored(asked.vectors, np.float32)
    rows = {str(name): own[asked.panel_ids == name] for name in np.unique(asked.panel_ids)}
    best: dict[str, list[tuple[float, str]]] = {name: [] for name in rows}
    for block in stored:
        require_same_encoder(asked.encoder_id, block.encoder_id)
        if not len(block):
            continue
        names, panels = np.unique(np.asarray(block.panel_ids, dtype=np.str_), return_inverse=True)
        order = np.argsort(panels, kind="stable")
        starts = np.searchsorted(panels[order], np.arange(len(names)))
        columns = as_stored(block.vectors[order], np.float32).T
        for name, vectors in rows.items():
            closest = np.maximum.reduceat((vectors @ columns).max(axis=0), starts)
            closest[names == name] = -2.0
            held = best[name]
            for place in np.argsort(-closest, kind="stable")[:count]:
                if closest[place] > -2.0:
                    held.append((-round(float(closest[place]), 6), str(names[place])))
            held.sort()
            del held[count:]
    return {name: [panel for _, panel in held] for name, held in best.items()}


@dataclass(frozen=True)
class ShadowRecall:
    """Two encoders over the same questions.

    Attributes:
        count: How many nearest panels counted as found.
        confirmed: Confirmed pairs that were asked for.
        serving_found: How many of them the serving encoder brings together, either way round.
        next_found: How many of them the other one does.
        panels: Panels whose neighbours were compared.
        agreement: Mean share of the serving encoder's nearest panels that the other one names too.
    """

    count: int
    confirmed: int
    serving_found: int
    next_found: int
    panels: int
    agreement: float


def shadow_recall(
    serving: Nearest, other: Nearest, confirmed: Sequence[tuple[str, str]], count: int
) -> ShadowRecall:
    """Compare what two encoders found.

    Args:
        serving: Of the encoder that serves, `count` panels for each.
        other: Of the other one, for the same panels.
        confirmed: Pairs of panels that are known to share a picture.
        count: How many nearest panels count.

    Raises:
        ValueError: They were asked different questions, or none that has an answer.
    """
    shares = shared_neighbours(serving, other, count)
    return ShadowRecall(
        count=count,
        confirmed=len(confirmed),
        serving_found=sum(_together(serving, pair, count) for pair in confirmed),
        next_found=sum(_together(other, pair, count) for pair in confirmed),
        panels=len(shares),
        agreement=float(np.mean(shares)),
    )


def shared_neighbours(serving: Nearest, other: Nearest, count: int) -> list[float]:
    """Of the nearest that one encoder names, the share that another one names too.

    Args:
        serving: Of the encoder that serves, `count` for each that was asked for.
        other: Of the other one, for the same.
        count: How many nearest count.

    Returns:
        One share for each that has neighbours, from 0 to 1.

    Raises:
        ValueError: They were asked different questions, or none that has an answer.
    """
    if set(serving) != set(other):
        raise ValueError("both encoders are to be asked the same")
    shares = [
        len(set(own[:count]) & set(other[asked][:count])) / min(count, len(own))
        for asked, own in serving.items()
        if own
    ]
    if not shares:
        raise ValueError("nothing has a neighbour, so there is nothing to compare")
    return shares


def _together(nearest: Nearest, pair: tuple[str, str], count: int) -> bool:
    a, b = pair
    return b in nearest.get(a, ())[:count] or a in nearest.get(b, ())[:count]
