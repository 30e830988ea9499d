"""The grid of a binder page: where its pockets are, told by the cards that were found."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.detection_plane import Plane, Poses


@dataclass(frozen=True)
class Pockets:
    """Places of the grid where no card was found yet.

    Attributes:
        poses: Where a card would lie, shape (n, 3).
        within: Whether there are cards on both sides of it or it completes a row and a column;
            a place beyond the outermost cards is only a guess. Shape (n,).
    """

    poses: Poses
    within: NDArray[np.bool_]


_NONE = Pockets(np.zeros((0, 3)), np.zeros(0, np.bool_))


def empty_places(poses: Poses, plane: Plane) -> Pockets:
    """The places that complete the grid of cards, and those one row or column beyond.

    Args:
        poses: Of the cards found, on the plane.
        plane: Where they lie.

    Returns:
        None unless at least three cards lie in a grid with one direction.
    """
    if len(poses) < 3:
        return _NONE
    group, direction = _one_direction(poses[:, 2])
    cos, sin = np.cos(direction), np.sin(direction)
    turn = np.array([[cos, -sin], [sin, cos]])
    centres = poses[:, :2] @ turn
    cells = _indices(centres, group, 1.0 / plane.aspect)
    if len(cells) < 3:
        return _NONE
    members = np.array(sorted(cells), np.intp)
    index = np.array([cells[member] for member in members.tolist()], np.float64)
    terms = _terms(index, len(members) >= 6 and bool(np.ptp(index, axis=0).min() >= 1))
    fit = np.linalg.lstsq(terms, centres[members], rcond=None)[0]
    low, high = index.min(axis=0).astype(int), index.max(axis=0).astype(int)
    taken = {tuple(cell) for cell in index.astype(int).tolist()}
    places = [
        (column, row)
        for row in range(low[1] - 1, high[1] + 2)
        for column in range(low[0] - 1, high[0] + 2)
        if (column, row) not in taken
    ]
    wanted = np.array(places, np.float64)
    predicted = _terms(wanted, terms.shape[1] == 4) @ fit
    # A row that was one card long does not tell how far the next column is.
    apart = np.hypot(*(predicted[:, None] - centres[None]).transpose(2, 0, 1)).min(axis=1)
    clear = apart > 0.8
    within = ((wanted >= low) & (wanted <= high)).all(axis=1)
    found = np.concatenate([predicted @ turn.T, np.full((len(predicted), 1), direction)], axis=1)
    return Pockets(found[clear], within[clear])


def _one_direction(angles: NDArray[np.float64]) -> tuple[NDArray[np.intp], float]:
    """The largest group of cards that lie the same way or upside down, and the way."""
    apart = np.abs((angles[:, None] - angles[None] + np.pi / 2) % np.pi - np.pi / 2)
    near = apart < np.radians(5.0)
    leader = int(near.sum(axis=1).argmax())
    group = np.flatnonzero(near[leader])
    doubled = np.exp(2j * angles[group]).mean()
    return group, float(np.angle(doubled) / 2)


def _indices(
    centres: NDArray[np.float64], group: NDArray[np.intp], high: float
) -> dict[int, tuple[int, int]]:
    """Column and row of the cards of the largest part that hangs together."""
    known: dict[int, tuple[int, int]] = {}
    largest: dict[int, tuple[int, int]] = {}
    members = group.tolist()
    for start in members:
        if start in known:
            continue
        part = {start: (0, 0)}
        queue = [start]
        while queue:
            here = queue.pop()
            for there in members:
                if there in part:
                    continue
                right, down = (centres[there] - centres[here]).tolist()
                step = None
                if 0.97 < abs(right) < 1.45 and abs(down) < 0.25:
                    step = (1 if right > 0 else -1, 0)
                elif 0.98 * high < abs(down) < 1.35 * high and abs(right) < 0.25:
                    step = (0, 1 if down > 0 else -1)
                if step is not None:
                    part[there] = (part[here][0] + step[0], part[here][1] + step[1])
                    queue.append(there)
        known |= part
        if len(part) > len(largest):
            largest = part
    return largest


def _terms(index: NDArray[np.float64], bent: bool) -> NDArray[np.float64]:
    """What a centre is a sum of: steps along both axes, and a twist where enough cards tell it."""
    column, row = index[:, 0], index[:, 1]
    terms = [np.ones(len(index)), column, row]
    return np.stack([*terms, column * row] if bent else terms, axis=1)
