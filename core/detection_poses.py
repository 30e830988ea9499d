"""Cards as rigid rectangles on a known plane, from corners that straight edges make.

Two pieces of edge at a right angle on the plane are the corner of at most two cards, one upright
and one lying. So two visible sides are enough to find a card, whatever hides the others.
"""

import numpy as np
from numpy.typing import NDArray

from core.detection_plane import FOLLOWING, Plane, Poses, Quads
from core.detection_spec import DetectionSpec
from core.opencv import cv2

Segments = NDArray[np.float64]
"""Shape (n, 2, 2): both ends, in pixels of the reduced picture."""

_BINS = 12
_PROBES = 16


class EdgeMaps:
    """Where the reduced picture has edges of which direction, for looking up many outlines."""

    def __init__(self, lab: NDArray[np.uint8], spec: DetectionSpec) -> None:
        """Prepare the lookup.

        Args:
            lab: The reduced picture, shape (height, width, 3).
            spec: What an edge is.
        """
        smooth = cv2.GaussianBlur(lab, (0, 0), 1.0)
        across = cv2.Sobel(smooth, cv2.CV_16S, 1, 0)
        down = cv2.Sobel(smooth, cv2.CV_16S, 0, 1)
        size = np.abs(across).astype(np.int32) + np.abs(down)
        strongest = size.argmax(axis=2)[..., None]
        dx = np.ascontiguousarray(np.take_along_axis(across, strongest, 2)[..., 0])
        dy = np.ascontiguousarray(np.take_along_axis(down, strongest, 2)[..., 0])
        level = spec.edge_level * 4.0
        self.edges: NDArray[np.uint8] = cv2.Canny(dx, dy, 0.7 * level, 1.5 * level, L2gradient=True)
        y, x = np.nonzero(self.edges)
        # The direction of an edge is a quarter turn from its gradient.
        angle = np.arctan2(dx[y, x], -dy[y, x].astype(np.float32)) / np.pi * _BINS
        near = np.floor(angle).astype(int)
        maps = np.zeros((_BINS, *self.edges.shape), np.uint8)
        maps[near % _BINS, y, x] = 1
        other = near + np.where(angle - near < 0.5, -1, 1)
        maps[other % _BINS, y, x] = 1
        ring = np.ones((3, 3), np.uint8)
        self._maps: NDArray[np.uint8] = np.array([cv2.dilate(each, ring) for each in maps])

    def support(self, quads: Quads) -> NDArray[np.float32]:
        """Share of each side that has an edge along it, shape (n, 4); 0 outside the picture."""
        height, width = self.edges.shape
        t = np.linspace(0.06, 0.94, _PROBES, dtype=np.float32)
        corners = quads.astype(np.float32)
        sides = corners[:, FOLLOWING] - corners
        angle = np.arctan2(sides[..., 1], sides[..., 0]) / np.pi * _BINS
        bins = np.floor(angle).astype(np.int32) % _BINS
        x = np.rint(corners[:, :, None, 0] + sides[:, :, None, 0] * t).astype(np.int32)
        y = np.rint(corners[:, :, None, 1] + sides[:, :, None, 1] * t).astype(np.int32)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        place = (bins[..., None] * height + np.clip(y, 0, height - 1)) * width
        hit = self._maps.reshape(-1)[place + np.clip(x, 0, width - 1)]
        return (hit * inside).mean(axis=-1, dtype=np.float32)


def find_segments(lab: NDArray[np.uint8]) -> Segments:
    """Straight pieces of edge in the reduced picture, longest first.

    Source:
        Grompone von Gioi et al., "LSD: a Line Segment Detector", IPOL 2012.
    """
    finder = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD, 0.8)
    found: list[Segments] = []
    for channel in _telling_channels(lab):
        lines = finder.detect(channel)[0]
        if lines is not None:
            found.append(np.asarray(lines, np.float64).reshape(-1, 2, 2))
    if not found:
        return np.zeros((0, 2, 2))
    segments = np.concatenate(found)
    length = np.hypot(*(segments[:, 1] - segments[:, 0]).T)
    return segments[np.argsort(-length, kind="stable")]


def _telling_channels(lab: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Lightness, and colour where there is enough of it to part what lightness does not."""
    channels = [np.ascontiguousarray(lab[..., 0])]
    colour = lab[..., 1:].astype(np.float32)
    spread = colour[::4, ::4].reshape(-1, 2).std(axis=0)
    if spread.max() > 6.0:
        mixed = colour[..., 0] if spread[0] >= spread[1] else colour[..., 1]
        low, high = np.percentile(mixed[::4, ::4], (1, 99))
        stretched = np.clip((mixed - low) * (255.0 / max(high - low, 40.0)), 0, 255)
        channels.append(stretched.astype(np.uint8))
    return channels


def corner_poses(
    segments: Segments, plane: Plane, spec: DetectionSpec
) -> tuple[Poses, tuple[str, ...]]:
    """Every card that has a corner where two pieces of edge meet.

    Args:
        segments: In the plane's pixels, longest first.
        plane: Where the cards lie.
        spec: Tolerances and bounds.

    Returns:
        The poses, and what was left out because it was too much.
    """
    complaints: list[str] = []
    flat = plane.to_plane(segments)
    way = flat[:, 1] - flat[:, 0]
    length = np.hypot(way[:, 0], way[:, 1])
    long_enough = length > spec.min_segment
    high = 1.0 / plane.aspect
    long_enough &= length < 1.3 * high + 0.5
    flat, length = flat[long_enough], length[long_enough]
    if len(flat) > spec.max_segments:
        complaints.append(f"only the {spec.max_segments} longest of {len(flat)} edges were tried")
        flat, length = flat[: spec.max_segments], length[: spec.max_segments]
    if len(flat) < 2:
        return np.zeros((0, 3)), tuple(complaints)
    way = (flat[:, 1] - flat[:, 0]) / length[:, None]
    middle = flat.mean(axis=1)
    dot = way @ way.T
    first, second = np.nonzero(np.triu(np.abs(dot) < np.sin(np.radians(spec.corner_angle_deg)), 1))
    apart = middle[second] - middle[first]
    near = np.hypot(apart[:, 0], apart[:, 1]) < np.hypot(1.0, high) / 2 + 0.25
    first, second, apart = first[near], second[near], apart[near]
    # The corner, as a distance from each middle along its own direction.
    u, v = way[first], way[second]
    cross = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    to_corner_u = (apart[:, 0] * v[:, 1] - apart[:, 1] * v[:, 0]) / cross
    to_corner_v = (apart[:, 0] * u[:, 1] - apart[:, 1] * u[:, 0]) / cross
    half_u, half_v = length[first] / 2, length[second] / 2
    gap_u, gap_v = np.abs(to_corner_u) - half_u, np.abs(to_corner_v) - half_v
    good = (gap_u > -0.07) & (gap_v > -0.07) & (gap_u < spec.corner_gap) & (gap_v < spec.corner_gap)
    first, second, u, v = first[good], second[good], u[good], v[good]
    half_u, half_v = half_u[good], half_v[good]
    to_corner_u, to_corner_v = to_corner_u[good], to_corner_v[good]
    corner = middle[first] + u * to_corner_u[:, None]
    u = u * -np.sign(to_corner_u)[:, None]
    v = v * -np.sign(to_corner_v)[:, None]
    reach_u = np.abs(to_corner_u) + half_u
    reach_v = np.abs(to_corner_v) + half_v
    # Both are measured: the longer of the two tells the direction better.
    weight = (half_u / (half_u + half_v))[:, None]
    turned_v = np.where(
        (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] > 0)[:, None],
        np.stack([v[:, 1], -v[:, 0]], -1),
        np.stack([-v[:, 1], v[:, 0]], -1),
    )
    along = u * weight + turned_v * (1 - weight)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None]
    side = np.sign(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    beside = np.stack([-along[:, 1], along[:, 0]], -1) * side[:, None]
    poses: list[Poses] = []
    weights: list[NDArray[np.float64]] = []
    for along_u, along_v in ((1.0, high), (high, 1.0)):
        fits = (reach_u < along_u + 0.06) & (reach_v < along_v + 0.06)
        centre = corner + along * (along_u / 2) + beside * (along_v / 2)
        short = along if along_u == 1.0 else beside
        angle = np.arctan2(short[:, 1], short[:, 0])
        poses.append(np.concatenate([centre, angle[:, None]], axis=1)[fits])
        weights.append((half_u + half_v)[fits])
    every, weight_of = np.concatenate(poses), np.concatenate(weights)
    if len(every) > spec.max_hypotheses:
        complaints.append(f"only {spec.max_hypotheses} of {len(every)} corners were tried")
        strongest = np.argsort(-weight_of, kind="stable")[: spec.max_hypotheses]
        every = every[strongest]
    return every, tuple(complaints)


def distinct_poses(
    poses: Poses, scores: NDArray[np.float32], most: int, near: float = 0.035
) -> NDArray[np.intp]:
    """The best poses, one of those that are nearly the same.

    Args:
        poses: Shape (n, 3).
        scores: Higher is better, shape (n,).
        most: How many at most.
        near: Distance below which two are the same, in card widths (and half turns are the same).

    Returns:
        Indices, best first.
    """
    order = np.argsort(-scores, kind="stable")
    turn = np.stack([np.cos(2 * poses[:, 2]), np.sin(2 * poses[:, 2])], -1)
    places = np.concatenate([poses[:, :2] / near, turn / 0.07], axis=1)[order]
    kept: list[int] = []
    centres = np.zeros((most, 4))
    for index, place in enumerate(places):
        known = centres[: len(kept)]
        if len(kept) == 0 or ((known - place) ** 2).sum(axis=1).min() > 1.0:
            centres[len(kept)] = place
            kept.append(index)
            if len(kept) == most:
                break
    return order[np.array(kept, np.intp)] if kept else np.zeros(0, np.intp)
