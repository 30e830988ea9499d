"""Where the points, windows and outlines of a pair are drawn."""

from dataclasses import dataclass

import numpy as np

from core.geometry import Box, area, bounding_box, intersection
from core.report import Crop, Polygon, ReportPair, Transform


@dataclass(frozen=True)
class DrawingSpec:
    """What decides how a pair is drawn."""

    markers: int = 4
    """Numbered points shown in both pictures: four corners fix mirroring, turn and scale."""
    marker_depths: tuple[float, ...] = (0.9, 0.75, 0.6, 0.45, 0.3)
    """Where on the way from the region's centre to a corner a point is tried, outermost first: on
    the outline itself it would hide the corner, and a corner may lie outside B's picture."""
    zoom_below: float = 0.55
    """Share of the panel below which the comparison shows only the region and its surroundings."""
    zoom_margin: float = 0.2
    """Surroundings shown, in shares of the region's longer side."""
    skip_hidden_above: int = 40
    """Pairs above which the browser leaves out what is off screen: a report of 500 pairs then opens
    in 3 s instead of 10 on a slow machine, and a short one stays whole for anything that copies the
    screen."""


SPEC = DrawingSpec()


@dataclass(frozen=True)
class Mark:
    """One point of the scene, in A's and in B's frame."""

    number: int
    a: tuple[float, float]
    b: tuple[float, float]


def corresponding_marks(pair: ReportPair) -> tuple[Mark, ...]:
    """Points of A's region with the points of B they land on.

    A reader sees a mirrored or turned region at once when the same numbered points are in both
    pictures. The points lie towards the corners of the region, as far out as all of them are
    inside both pictures.
    """
    corners = _spread(pair.a.region_px, SPEC.markers)
    centre = np.mean(corners, axis=0)
    marks: tuple[Mark, ...] = ()
    for depth in SPEC.marker_depths:
        points = [(float(x), float(y)) for x, y in centre + depth * (np.array(corners) - centre)]
        landed = [_mapped(pair.transform, point) for point in points]
        both = list(zip(points, landed, strict=True))
        inside = [
            _within(point, pair.a.crop) and _within(image, pair.b.crop) for point, image in both
        ]
        if sum(inside) > len(marks) or not marks:
            marks = tuple(
                Mark(position, point, image)
                for position, ((point, image), seen) in enumerate(
                    zip(both, inside, strict=True), start=1
                )
                if seen
            )
        if all(inside):
            break
    return marks


def _spread(corners: Polygon, count: int) -> Polygon:
    """At most ``count`` of the corners, evenly along the outline."""
    if len(corners) <= count:
        return corners
    return tuple(corners[step * len(corners) // count] for step in range(count))


def _mapped(transform: Transform, point: tuple[float, float]) -> tuple[float, float]:
    (a, b, c), (d, e, f) = transform
    x, y = point
    return (a * x + b * y + c, d * x + e * y + f)


def _within(point: tuple[float, float], crop: Crop) -> bool:
    return 0 <= point[0] <= crop.width_px and 0 <= point[1] <= crop.height_px


def shown_part(pair: ReportPair) -> Box:
    """The part of A's frame that the comparison shows: ``(x, y, width, height)``."""
    crop = pair.a.crop
    whole = (0.0, 0.0, float(crop.width_px), float(crop.height_px))
    region = intersection(bounding_box(np.array(pair.a.region_px)), whole)
    if not 0 < area(region) < SPEC.zoom_below * area(whole):
        return whole
    x0, y0, x1, y1 = region
    margin = SPEC.zoom_margin * max(x1 - x0, y1 - y0)
    x0, y0, x1, y1 = intersection((x0 - margin, y0 - margin, x1 + margin, y1 + margin), whole)
    return (x0, y0, x1 - x0, y1 - y0)


def footprint(pair: ReportPair) -> Polygon:
    """B's picture brought into A's frame: outside it, an aligned picture shows nothing of B."""
    linear = np.array([row[:2] for row in pair.transform])
    shift = np.array([row[2] for row in pair.transform])
    width, height = pair.b.crop.width_px, pair.b.crop.height_px
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    back = np.linalg.solve(linear, (corners - shift).T).T
    return tuple((float(x), float(y)) for x, y in back)
