"""The plane that cards lie on, as one photograph shows it.

Cards of one picture lie on one table or page and have one size. Once the plane's perspective is
known, each of them is a rigid rectangle with three numbers (where, and turned how far), which is
what makes hidden sides, borders as dark as the page and overlapping cards tractable.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.detection_spec import DetectionSpec

Points = NDArray[np.float64]
"""Shape (..., 2)."""
Quads = NDArray[np.float64]
"""Shape (n, 4, 2): corners clockwise in the image, the first side a short one."""
Poses = NDArray[np.float64]
"""Shape (n, 3): centre in card widths, and the direction of the first side in radians."""

FOLLOWING, PRECEDING = np.array([1, 2, 3, 0]), np.array([3, 0, 1, 2])
"""For each corner or side of a quad the next, and the one before."""


@dataclass(frozen=True)
class Plane:
    """Maps pixels to a plane on which every card is 1 wide and ``1 / aspect`` high.

    Attributes:
        matrix: Homography from pixels to the plane, shape (3, 3); keeps orientation.
        aspect: Width over height of a card.
    """

    matrix: NDArray[np.float64]
    aspect: float

    def to_plane(self, points: Points) -> Points:
        """Pixels to the plane, any shape (..., 2)."""
        return _project(self.matrix, points)

    def to_image(self, points: Points) -> Points:
        """The plane to pixels, any shape (..., 2)."""
        return _project(np.asarray(np.linalg.inv(self.matrix), np.float64), points)

    def outlines(self, poses: Poses) -> Quads:
        """The corners of cards on the plane, shape (n, 4, 2)."""
        corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
        corners = corners * [1.0, 1.0 / self.aspect]
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
        return corners @ turn + poses[:, None, :2]

    def quads(self, poses: Poses) -> Quads:
        """The corners of cards in pixels, shape (n, 4, 2)."""
        return self.to_image(self.outlines(poses))

    def poses(self, quads: Quads) -> Poses:
        """The rigid cards nearest to quads in pixels."""
        flat = self.to_plane(quads)
        across = flat[:, 1] - flat[:, 0] + flat[:, 2] - flat[:, 3]
        down = flat[:, 3] - flat[:, 0] + flat[:, 2] - flat[:, 1]
        way = across + np.stack([down[:, 1], -down[:, 0]], -1)
        return np.concatenate(
            [flat.mean(axis=1), np.arctan2(way[:, 1], way[:, 0])[:, None]], axis=1
        )

    def misfit(self, quads: Quads) -> NDArray[np.float64]:
        """How far sides and diagonals are from a card's, as logarithms of ratios, shape (n, 6)."""
        return _log_lengths(self.to_plane(quads)) - _target(self.aspect)


def fit_plane(
    quads: Quads, weights: NDArray[np.float64], shape: tuple[int, ...], spec: DetectionSpec
) -> Plane:
    """The plane on which quads are most nearly cards of one size.

    Five numbers are fitted: scale, stretch along two axes, and the two of the vanishing line. A
    single quad determines them all, but not well; the tilt that hand-held photographs have is the
    prior, so that one card does not bend the far side of the page.

    Args:
        quads: In pixels, shape (n, 4, 2), at least one.
        weights: Of each quad, shape (n,); 1 for one that is measured to 1 %.
        shape: Height and width of the picture.
        spec: Aspect and prior.
    """
    centre = np.array([shape[1], shape[0]]) / 2.0
    unit = max(shape[:2]) / 2.0
    normal = (quads - centre) / unit
    target = _target(spec.card_aspect)
    prior = np.array([1e3, spec.tilt_prior, spec.tilt_prior, spec.tilt_prior, spec.tilt_prior])
    pull = np.sqrt(weights)[:, None]

    def residuals(tries: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = np.array([_project(_matrix(numbers), normal) for numbers in tries])
        off = (_log_lengths(flat) - target) / 0.01
        # Beyond 3 % a quad is probably no card of this size: it pulls no harder than that.
        size = np.sqrt((off**2).mean(axis=2, keepdims=True))
        off = off * np.sqrt(3.0 / np.maximum(size, 3.0)) * pull
        return np.concatenate([off.reshape(len(tries), -1), tries / prior], axis=1)

    numbers = np.zeros(5)
    numbers[0] = -(_log_lengths(normal) - target).mean(axis=1)[np.argmax(weights)]
    steps = np.vstack([np.zeros(5), np.eye(5) * 1e-4])
    for _ in range(7):
        tried = residuals(numbers + steps)
        slopes = np.stack([(each - tried[0]) / 1e-4 for each in tried[1:]], axis=1)
        change = np.asarray(np.linalg.lstsq(slopes, -tried[0], rcond=None)[0], np.float64)
        numbers = numbers + np.clip(change, -0.3, 0.3)
        numbers[3:] = np.clip(numbers[3:], -0.55, 0.55)
        if np.abs(change).max() < 1e-4:
            break
    to_normal = np.array(
        [[1 / unit, 0, -centre[0] / unit], [0, 1 / unit, -centre[1] / unit], [0, 0, 1]]
    )
    return Plane(_matrix(numbers) @ to_normal, spec.card_aspect)


def _matrix(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale, stretches, vanishing line as a homography without rotation or shift."""
    scale, along, aslant, across, down = numbers.tolist()
    stretch = np.array(
        [
            [np.exp(scale + along), np.exp(scale) * aslant, 0.0],
            [np.exp(scale) * aslant, np.exp(scale - along), 0.0],
            [0.0, 0.0, 1.0],
        ]
    )
    return stretch @ np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [across, down, 1.0]])


def _project(matrix: NDArray[np.float64], points: Points) -> Points:
    """Apply a homography; what is beyond its horizon lands far away, not on this side of it."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return moved[..., :2] / np.maximum(moved[..., 2:], 1e-3)


def _log_lengths(quads: Quads) -> NDArray[np.float64]:
    """Logarithms of the four sides and the two diagonals, shape (..., 6)."""
    sides = quads[..., FOLLOWING, :] - quads
    diagonals = quads[..., 2:, :] - quads[..., :2, :]
    both = np.concatenate([sides, diagonals], axis=-2)
    return np.log(np.maximum(np.hypot(both[..., 0], both[..., 1]), 1e-9))


def _target(aspect: float) -> NDArray[np.float64]:
    high = 1.0 / aspect
    return np.log(np.array([1.0, high, 1.0, high, np.hypot(1, high), np.hypot(1, high)]))
