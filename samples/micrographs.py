"""Procedural micrographs, blots and gels that stand in for real ones in the sample papers.

Every function draws from the generator it is given, so one seed makes one image. Each image carries
its own shot noise: a true copy shares it, a similar image does not, and that difference is what
copy search has to see. Nothing here is traced from a photograph.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Field = NDArray[np.floating[Any]]
"""One channel as signal, shape (height, width), about 0 to 1 before noise."""
Image = NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""
Points = NDArray[np.float64]
"""Places in a field, shape (n, 2), as (x, y) in pixels."""
Rng = np.random.Generator

HEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.07, 0.99, 0.11], np.float32)
DAB = np.array([0.27, 0.57, 0.78], np.float32)
# Absorbance of the stains in red, green and blue: Ruifrok & Johnston, "Quantification of
# histochemical staining by color deconvolution", Anal Quant Cytol Histol 23 (2001).


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur with reflected edges."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def cloud(rng: Rng, height: int, width: int, sigma: float) -> Field:
    """Smooth noise of zero mean and unit spread, with features of about ``sigma`` pixels."""
    step = max(1.0, sigma / 2.5)
    small = (int(height / step) + 9, int(width / step) + 9)
    noise = blur(rng.standard_normal(small, dtype=np.float32), sigma / step)
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return ((noise - noise.mean()) / (noise.std() + 1e-6)).astype(np.float32)


def scattered(rng: Rng, height: int, width: int, spacing: float) -> Points:
    """Points (x, y) on a jittered grid reaching past the edges: spread out, never regular."""
    rows = np.arange(-spacing, height + spacing, spacing * 0.9, dtype=float)
    columns = np.arange(-spacing, width + spacing, spacing, dtype=float)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points + rng.uniform(-0.42, 0.42, points.shape) * spacing


def outline(rng: Rng, x: float, y: float, a: float, b: float, angle: float) -> NDArray[np.int32]:
    """A slightly irregular ellipse as a polygon in 1/16 pixel, ready for ``fill``."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 1 + sum(
        rng.normal(0, 0.07 / k) * np.cos(k * t + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)
    )
    u, v = a * radius * np.cos(t), b * radius * np.sin(t)
    points = np.stack(
        [x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], 1
    )
    return np.round(points * 16).astype(np.int32)


def fill(field: Field, polygon: NDArray[np.int32], value: float) -> None:
    """Paint a polygon of 1/16 pixel coordinates into the field, in place, with smooth edges."""
    cv2.fillPoly(field, [polygon], value, lineType=cv2.LINE_AA, shift=4)


def stroke(field: Field, polygon: NDArray[np.int32], value: float, width: int = 1) -> None:
    """Draw a closed line of 1/16 pixel coordinates into the field, in place."""
    cv2.polylines(field, [polygon], True, value, width, cv2.LINE_AA, shift=4)


def cell_map(
    rng: Rng, points: Points, height: int, width: int, bend_px: float = 3.5
) -> tuple[NDArray[np.int32], Field]:
    """Nearest point of each pixel, and the distance in pixels to the border between two cells.

    Borders are bent by about ``bend_px``, since cells are not polygons.
    """
    y, x = np.mgrid[0:height:2, 0:width:2].astype(np.float64)
    rows, columns = x.shape
    x += bend_px * cloud(rng, rows, columns, 9)
    y += bend_px * cloud(rng, rows, columns, 9)
    distance, index = KDTree(points).query(np.stack([x.ravel(), y.ravel()], 1), k=2)
    border = (distance[:, 1] - distance[:, 0]).reshape(x.shape).astype(np.float32) / 2
    nearest = np.asarray(index)[:, 0].reshape(x.shape).astype(np.int32)
    size = (width, height)
    return (
        cv2.resize(nearest.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(
            np.int32
        ),
        cv2.resize(border, size, interpolation=cv2.INTER_LINEAR),
    )


def shot(rng: Rng, field: Field, photons: float, read: float = 0.01) -> Field:
    """The field as a camera counts it: Poisson noise at ``photons`` per unit, plus read noise."""
    counted = rng.poisson(np.clip(field, 0, None) * photons).astype(np.float32) / photons
    return counted + rng.normal(0, read, field.shape).astype(np.float32)


def gray(field: Field) -> Image:
    """A field as a grey RGB image, 0 black and 1 white."""
    level = (np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.repeat(level[:, :, None], 3, axis=2)


def tint(field: Field, color: tuple[float, float, float]) -> Image:
    """A field shown in one pseudo-colour, as fluorescence channels are."""
    rgb = np.clip(field, 0, 1)[:, :, None] * np.array(color, np.float32)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def merge(*channels: Image) -> Image:
    """The channels of one field laid over each other, as microscopes export a merge."""
    total = np.zeros(channels[0].shape, np.uint16)
    for channel in channels:
        total += channel
    return np.minimum(total, 255).astype(np.uint8)


def nuclei(
    rng: Rng, height: int, width: int, spacing: float = 62, centers: Points | None = None
) -> Field:
    """Stained nuclei (DAPI-like): textured ellipses of uneven brightness on a faint haze.

    Args:
        rng: Source of all randomness.
        height: Rows.
        width: Columns.
        spacing: Mean distance between nuclei in pixels; a nucleus is about half as wide.
        centers: Where the cells are, shape (n, 2) as (x, y), to draw another channel of the same
            field; by default new ones.

    Returns:
        The noisy signal, shape (height, width).
    """
    if centers is None:
        points = scattered(rng, height, width, spacing)
        points = points[rng.random(len(points)) < 0.78]
    else:
        points = centers
    signal = np.zeros((height, width), np.float32)
    grain = 1 + 0.16 * cloud(rng, height, width, 2.2) + 0.12 * cloud(rng, height, width, 5)
    for x, y in points:
        a = spacing * rng.uniform(0.23, 0.34)
        b = a * rng.uniform(0.62, 0.95)
        angle = rng.uniform(0, np.pi)
        level = float(rng.choice([0.38, 0.5, 0.62, 0.78], p=[0.25, 0.35, 0.3, 0.1]))
        level *= rng.uniform(0.85, 1.1)
        if rng.random() < 0.05:
            a, b, level = a * 0.6, b * 0.35, 1.1
        layer = np.zeros_like(signal[:1, :1])
        reach = int(a * 1.6) + 3
        x0, y0 = max(0, int(x) - reach), max(0, int(y) - reach)
        x1, y1 = min(width, int(x) + reach), min(height, int(y) + reach)
        if x1 - x0 < 3 or y1 - y0 < 3:
            continue
        layer = np.zeros((y1 - y0, x1 - x0), np.float32)
        fill(layer, outline(rng, x - x0, y - y0, a, b, angle), level)
        for _ in range(int(rng.integers(1, 4))):
            cx, cy = x - x0 + rng.normal(0, a * 0.3), y - y0 + rng.normal(0, b * 0.3)
            spot = np.zeros_like(layer)
            fill(spot, outline(rng, cx, cy, a * 0.16, a * 0.13, 0), 1)
            layer *= 1 - float(rng.uniform(0.25, 0.5)) * blur(spot, 1.2)
        layer = blur(layer, 0.8 + float(rng.exponential(0.5)))
        signal[y0:y1, x0:x1] = np.maximum(signal[y0:y1, x0:x1], layer)
    signal *= grain
    haze = 0.035 + 0.10 * blur(signal, spacing * 0.6)
    shade = 1 + 0.08 * cloud(rng, height, width, max(height, width) / 3)
    return shot(rng, (signal + haze) * shade, photons=160, read=0.012)


def fibres(
    rng: Rng, height: int, width: int, spacing: float = 110, centers: Points | None = None
) -> Field:
    """Stress fibres and cortex (actin-like): each cell has its own direction of bundles."""
    points = scattered(rng, height, width, spacing) if centers is None else centers
    bend = cloud(rng, height, width, spacing / 2.2)[..., None]
    cell, border = cell_map(rng, points, height, width)
    turns = rng.uniform(0, np.pi, len(points))
    lead = rng.uniform(0, np.pi)
    turns = lead + (turns - np.pi / 2) * 0.62
    angle = (turns[cell] + 0.22 * bend[..., 0]) % np.pi
    bins = 12
    noise = (rng.random((height, width)) < 0.028).astype(np.float32) * rng.uniform(
        0.3, 1.6, (height, width)
    ).astype(np.float32)
    signal = np.zeros((height, width), np.float32)
    for k in range(bins):
        theta = np.pi * k / bins
        length = 51
        kernel = np.zeros((length, length), np.float32)
        dx, dy = np.cos(theta) * length / 2, np.sin(theta) * length / 2
        middle = length / 2
        ends = [(middle - dx, middle - dy), (middle + dx, middle + dy)]
        pts = [tuple(round(v * 16) for v in end) for end in ends]
        cv2.line(kernel, pts[0], pts[1], 1.0, 1, cv2.LINE_AA, shift=4)
        kernel *= blur(np.outer(*[np.hanning(length)] * 2).astype(np.float32), 1) + 0.05
        kernel /= kernel.sum()
        lines = cv2.filter2D(noise, -1, kernel)
        apart = np.abs((angle - theta + np.pi / 2) % np.pi - np.pi / 2)
        signal += lines * np.clip(1 - apart / (np.pi / bins), 0, 1)
    signal = np.clip(signal / np.percentile(signal, 99), 0, 1.6) ** 1.15
    brightness = rng.uniform(0.35, 1.0, len(points)).astype(np.float32)[cell]
    rim = np.exp(-((border / 2.6) ** 2)) * (0.5 + 0.25 * cloud(rng, height, width, 9))
    body = 0.10 * blur((border > 3).astype(np.float32), 4) * brightness
    signal = signal * blur(brightness, 1.5) * 0.85 + np.clip(rim, 0, 1) * 0.55 + body
    return shot(rng, blur(signal, 0.9) + 0.02, photons=110, read=0.012)


def puncta(
    rng: Rng, height: int, width: int, spacing: float = 70, centers: Points | None = None
) -> Field:
    """Vesicle-like spots gathered around the cells of a field."""
    points = scattered(rng, height, width, spacing) if centers is None else centers
    signal = np.zeros((height, width), np.float32)
    for x, y in points:
        for _ in range(int(rng.integers(10, 46))):
            r = spacing * (0.2 + abs(rng.normal(0, 0.16)))
            t = rng.uniform(0, 2 * np.pi)
            px, py = int(x + r * np.cos(t)), int(y + r * np.sin(t))
            if 1 <= px < width - 1 and 1 <= py < height - 1:
                signal[py, px] += rng.uniform(2, 11)
    signal = blur(signal, 1.3) + 0.5 * blur(signal, 9)
    return shot(rng, np.clip(signal, 0, 1.2) + 0.025, photons=120, read=0.012)


def stained(rng: Rng, layers: list[tuple[Field, NDArray[np.float32]]]) -> Image:
    """Transmitted light through stain layers (Beer-Lambert), with camera noise."""
    height, width = layers[0][0].shape
    absorbed = np.zeros((height, width, 3), np.float32)
    for layer, stain in layers:
        absorbed += np.clip(layer, 0, None)[:, :, None] * stain
    light = np.array([0.955, 0.945, 0.96], np.float32) * np.exp(-absorbed)
    light += rng.normal(0, 0.014, light.shape).astype(np.float32)
    light += rng.normal(0, 0.016, (height, width, 1)).astype(np.float32)
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)


def histology(rng: Rng, height: int, width: int, spacing: float = 34, brown: float = 0) -> Image:
    """A tissue section: nuclei, cell borders, fibrous ground and open spaces (H&E-like).

    ``brown`` is the share of cells that carry a brown cytoplasmic stain as in immunohistochemistry.
    """
    points = scattered(rng, height, width, spacing)
    cell, border = cell_map(rng, points, height, width)
    space = cloud(rng, height, width, spacing * 1.5) + 0.5 * cloud(rng, height, width, spacing / 2)
    limit = np.percentile(space, 86)
    lumen = 1 / (1 + np.exp(np.clip((limit - space) * 14, -30, 30)))
    open_space = lumen.astype(np.float32)
    ground = 0.30 + 0.075 * cloud(rng, height, width, 2) + 0.06 * cloud(rng, height, width, 7)
    ground += 0.10 * cloud(rng, height, width, spacing * 3)
    depth = rng.normal(1, 0.16, len(points)).astype(np.float32)[cell]
    eosin = ground * depth
    eosin += 0.16 * np.exp(-((border / 1.5) ** 2))
    eosin += 0.22 * np.exp(-(((space - limit) / 0.22) ** 2))
    eosin *= 1 - 0.95 * open_space
    blue = np.zeros((height, width), np.float32)
    for x, y in points:
        column, row = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        if rng.random() < 0.13 or lumen[row, column] > 0.5:
            continue
        a = spacing * rng.uniform(0.17, 0.25)
        b = a * rng.uniform(0.55, 0.95)
        polygon = outline(rng, x, y, a, b, rng.uniform(0, np.pi))
        level = float(rng.uniform(0.55, 1.15))
        fill(blue, polygon, level)
        stroke(blue, polygon, level * 1.25)
        if rng.random() < 0.6:
            spot = outline(rng, x + rng.normal(0, a / 3), y + rng.normal(0, b / 3), a / 5, a / 5, 0)
            fill(blue, spot, level * 1.5)
    blue = blur(blue, 0.8) * (1 + 0.22 * cloud(rng, height, width, 1.6))
    blue += 0.05 + 0.03 * cloud(rng, height, width, 12)
    layers = [(eosin.astype(np.float32), EOSIN), (blue, HEMATOXYLIN)]
    if brown:
        marked = (rng.random(len(points)) < brown).astype(np.float32)[cell]
        coat = blur(marked * (1 - lumen).astype(np.float32), 2) * 0.55
        coat *= 1 + 0.35 * cloud(rng, height, width, 2.5)
        layers = [(eosin * 0.25, EOSIN), (blue * 0.8, HEMATOXYLIN), (coat, DAB)]
    return stained(rng, layers)


def electron(rng: Rng, height: int, width: int, spacing: float = 105) -> Image:
    """A thin section in the electron microscope: mitochondria, vesicles, membranes, ribosomes."""
    field = 0.63 + 0.035 * cloud(rng, height, width, spacing / 2)
    field += 0.05 * cloud(rng, height, width, 1.3)
    speckle = (rng.random((height, width)) < 0.02).astype(np.float32)
    field -= 0.9 * blur(speckle, 0.9)
    sheets = cloud(rng, height, width, spacing * 0.55)
    for level in (-0.55, -0.40, 0.9, 1.06):
        near = np.abs(sheets - level)
        field -= 0.30 * np.exp(-((near / 0.028) ** 2))
    for x, y in scattered(rng, height, width, spacing):
        kind = rng.random()
        if kind < 0.55:
            a, b = spacing * rng.uniform(0.26, 0.46), spacing * rng.uniform(0.15, 0.22)
            angle = rng.uniform(0, np.pi)
            _mitochondrion(rng, field, x, y, a, b, angle)
        elif kind < 0.9:
            for _ in range(int(rng.integers(3, 9))):
                r = rng.uniform(0.035, 0.09) * spacing
                px, py = x + rng.normal(0, spacing * 0.2), y + rng.normal(0, spacing * 0.2)
                ring = outline(rng, px, py, r, r, 0)
                fill(field, ring, float(rng.choice([0.72, 0.36, 0.22], p=[0.6, 0.2, 0.2])))
                stroke(field, ring, 0.25, 1)
        else:
            r = spacing * rng.uniform(0.16, 0.24)
            fill(field, outline(rng, x, y, r, r, 0), float(rng.uniform(0.2, 0.32)))
    field = blur(field.astype(np.float32), 0.8)
    field += 0.02 * cloud(rng, height, width, max(height, width) / 3)
    return gray(shot(rng, field, photons=180, read=0.028))


def _mitochondrion(
    rng: Rng, field: Field, x: float, y: float, a: float, b: float, angle: float
) -> None:
    """Draw an oval with two membranes and folds across it into the field, in place."""
    height, width = field.shape
    reach = int(a * 1.5) + 4
    x0, x1 = max(0, int(x) - reach), min(width, int(x) + reach)
    y0, y1 = max(0, int(y) - reach), min(height, int(y) + reach)
    if x1 - x0 < 12 or y1 - y0 < 12:
        return
    part = field[y0:y1, x0:x1].copy()
    polygon = outline(rng, x - x0, y - y0, a, b, angle)
    inside = np.zeros(part.shape, np.float32)
    fill(inside, polygon, 1)
    rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    rows_px, columns_px = part.shape
    wave = cloud(rng, rows_px, columns_px, 14)
    folds = np.sin(along / a * rng.uniform(15, 21) + 1.3 * wave)
    matrix = (
        0.44 - 0.15 * np.clip(folds * 2.2 - 0.7, 0, 1) + 0.05 * cloud(rng, rows_px, columns_px, 2)
    )
    part += inside * (matrix.astype(np.float32) - part)
    stroke(part, polygon, 0.2, 2)
    stroke(part, outline(rng, x - x0, y - y0, a - 4, b - 4, angle), 0.3, 1)
    field[y0:y1, x0:x1] = part


def phase(rng: Rng, height: int, width: int, spacing: float = 66, stretch: float = 2.6) -> Image:
    """Living cells in phase contrast: grey ground, dark granular bodies, bright halos."""
    body = np.zeros((height, width), np.float32)
    nucleus = np.zeros((height, width), np.float32)
    lead = rng.uniform(0, np.pi)
    for x, y in scattered(rng, height, width, spacing):
        if rng.random() < 0.2:
            continue
        if rng.random() < 0.09:
            r = spacing * rng.uniform(0.15, 0.2)
            fill(body, outline(rng, x, y, r, r, 0), 2.4)
            continue
        b = spacing * rng.uniform(0.15, 0.24)
        a = b * rng.uniform(1.4, stretch)
        angle = lead + rng.normal(0, 0.6)
        fill(body, outline(rng, x, y, a, b, angle), float(rng.uniform(0.7, 1.2)))
        fill(nucleus, outline(rng, x, y, b * 0.6, b * 0.5, angle), 1)
    thick = blur(body, 1.6)
    grain = cloud(rng, height, width, 1.4) * np.clip(thick, 0, 1)
    halo = blur(body, 6) - thick
    field = 0.55 + 0.42 * halo + 0.045 * grain - 0.07 * (blur(nucleus, 1) - blur(nucleus, 3))
    field += 0.22 * np.clip(blur(body, 1.0) - 1.4, 0, 1)
    edge = cv2.Laplacian(blur(body, 1.1), cv2.CV_32F)
    field += 0.24 * edge
    field += 0.025 * cloud(rng, height, width, max(height, width) / 4)
    return gray(shot(rng, blur(field.astype(np.float32), 0.6), photons=420, read=0.018))


def blot(rng: Rng, height: int, width: int, lanes: int, rows: list[list[float]]) -> Image:
    """A western blot strip: dark bands on a light, uneven film.

    ``rows`` holds, for each row of bands from top to bottom, one strength from 0 to 1 per lane.
    """
    return gray(shot(rng, 0.86 - _bands(rng, height, width, lanes, rows), photons=900, read=0.016))


def gel(rng: Rng, height: int, width: int, lanes: int, rows: list[list[float]]) -> Image:
    """A stained gel under ultraviolet light: bright bands and a ladder on a dark ground."""
    signal = 0.11 + _bands(rng, height, width, lanes, rows, thick=0.008, smear=0.35)
    lane = width / lanes
    ladder = np.zeros((height, width), np.float32)
    for k in range(9):
        y = int(height * (0.14 + 0.78 * (k / 8) ** 0.8))
        x0, x1 = int(lane * 0.2), int(lane * 0.82)
        ladder[y : y + 3, x0:x1] = 0.75 - 0.05 * k + (0.25 if k == 3 else 0)
    signal += blur(ladder, 1.5)
    wells = np.zeros((height, width), np.float32)
    for k in range(lanes):
        x0, x1 = int(lane * (k + 0.16)), int(lane * (k + 0.84))
        cv2.rectangle(wells, (x0, int(height * 0.03)), (x1, int(height * 0.055)), 0.22, -1)
    return gray(shot(rng, signal + blur(wells, 1.2), photons=240, read=0.02))


def _bands(
    rng: Rng,
    height: int,
    width: int,
    lanes: int,
    rows: list[list[float]],
    thick: float = 0.07,
    smear: float = 0.12,
) -> Field:
    """Absorbance of all bands plus the film's uneven ground, shape (height, width)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ground = 0.03 * cloud(rng, height, width, width / 5) + 0.014 * cloud(rng, height, width, 3)
    ground += 0.03 * (x / width - 0.5) * rng.normal()
    total = ground.astype(np.float32)
    lane_width = width / lanes
    scale = max(2.0, thick * height / max(1, len(rows)) * 1.6)
    for r, strengths in enumerate(rows):
        base = height * (r + 0.5) / len(rows) + rng.normal(0, height * 0.012)
        tilt = rng.normal(0, 0.006)
        for k, strength in enumerate(strengths):
            if strength <= 0:
                continue
            middle = lane_width * (k + 0.5) + rng.normal(0, lane_width * 0.02)
            half = lane_width * rng.uniform(0.33, 0.41) * (0.72 + 0.28 * strength)
            u = (x - middle) / half
            line = base + tilt * (x - width / 2) + rng.normal(0, height * 0.006)
            line = line + rng.normal(0.8, 0.5) * scale * 0.35 * u**2
            sides = np.exp(-(np.abs(u) ** rng.uniform(4, 7)))
            sigma = scale * rng.uniform(0.75, 1.15) * (0.65 + 0.45 * strength)
            v = (y - line) / sigma
            profile = np.where(v < 0, np.exp(-(v**2)), np.exp(-(np.abs(v) ** 1.7)))
            band = strength * sides * profile
            band += strength * smear * 0.3 * sides * np.exp(-np.clip(-v, 0, None) / 9) * (v < 0)
            band *= 1 + 0.10 * cloud(rng, height, width, 4)
            total += 0.78 * np.clip(band, 0, 1).astype(np.float32)
    dust = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(2, 7))):
        px, py = rng.uniform(0, width), rng.uniform(0, height)
        fill(dust, outline(rng, px, py, rng.uniform(0.8, 2), rng.uniform(0.8, 1.6), 0), 0.3)
    return np.clip(total + blur(dust, 0.7), -0.12, 0.82)
