"""Panels with planted reuse, made from a folder of pictures: what scores are calibrated on.

Every panel is drawn as a figure shows it: cropped, resized, lettered, with a scale bar, compressed.
Copies go through the edits that are met in papers. Panels cut from other parts of one picture and
neighbouring fields of one slide are the honest hard negatives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Crop = tuple[int, int, int, int]


@dataclass(frozen=True)
class PlantedPanel:
    """A panel and where it came from.

    Attributes:
        image: RGB, uint8.
        source: Picture it was cut from; a stem of file names names the slide or plate.
        area: The part of the source it shows, as a mask of 32 x 32 cells.
        edit: What was done to it, "" for an original.
        modality: "blot" for drawn blots, else "other".
    """

    image: Picture
    source: str
    area: NDArray[np.bool_]
    edit: str
    modality: str = "other"


EDITS = (
    "exact",
    "recompress",
    "resize",
    "photometric",
    "rot90",
    "flip",
    "rot_arb",
    "crop_wide",
    "crop_narrow",
    "gray",
    "combo",
)


def load_pictures(folder: Path, most: int, rng: np.random.Generator) -> dict[str, Picture]:
    """A seeded choice of the folder's pictures by file name, RGB."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".png", ".jpg", ".tif"})
    chosen = sorted(rng.choice(len(paths), min(most, len(paths)), replace=False).tolist())
    found: dict[str, Picture] = {}
    for i in chosen:
        image = cv2.imread(str(paths[i]), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= 120:
            found[paths[i].stem] = np.asarray(image[..., ::-1]).copy()
    return found


def plant(
    pictures: dict[str, Picture], rng: np.random.Generator, blots: int = 24
) -> list[PlantedPanel]:
    """Originals, one edited copy of most of them, other parts of some, and blots."""
    panels: list[PlantedPanel] = []
    for i, (name, picture) in enumerate(pictures.items()):
        box = _crop_box(picture.shape, rng, 0.7, 1.0)
        panels.append(_panel(picture, name, box, "", rng))
        if i % 4 != 3:
            panels.append(_edited(picture, name, box, EDITS[i % len(EDITS)], rng))
        else:
            height, width = picture.shape[:2]
            left = (0, 0, width // 2 - 4, height)
            right = (width // 2 + 4, 0, width, height)
            panels[-1] = _panel(picture, name, left, "", rng)
            panels.append(_panel(picture, name, right, "", rng))
    for i in range(blots):
        layout = np.random.default_rng(1000 + i)
        lanes, rows = int(layout.integers(4, 9)), int(layout.integers(1, 3))
        first = draw_blot(lanes, rows, np.random.default_rng([2000 + i, 1]))
        whole = (0, 0, first.shape[1], first.shape[0])
        panels.append(_panel(first, f"blot{i}", whole, "", rng, "blot"))
        if i % 2:
            edit = ("exact", "photometric", "flip", "resize", "recompress")[i // 2 % 5]
            panels.append(_edited(first, f"blot{i}", whole, edit, rng, "blot"))
        else:
            similar = draw_blot(lanes, rows, np.random.default_rng([2000 + i, 2]))
            panels.append(_panel(similar, f"blot{i}x", whole, "", rng, "blot"))
    return panels


def draw_blot(lanes: int, rows: int, rng: np.random.Generator) -> Picture:
    """Bands of random strength on a noisy light ground, smiling a little as gels do."""
    width, height = 70 * lanes, 70 * rows + 20
    ground = 225 + 12 * cv2.resize(rng.normal(size=(4, 6)).astype(np.float32), (width, height))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for row in range(rows):
        for lane in range(lanes):
            strength = rng.choice([0.15, 0.4, 0.7, 1.0]) * rng.uniform(0.7, 1.1)
            cx = 70 * lane + 35 + rng.normal(0, 2.5)
            cy = 70 * row + 45 + rng.normal(0, 2.0)
            curve = cy + rng.normal(0, 0.004) * (x - cx) ** 2
            across = np.exp(-(np.abs((x - cx) / rng.uniform(20, 27)) ** 4))
            along = np.exp(-(((y - curve) / rng.uniform(6, 11)) ** 2))
            ground -= 190 * strength * across * along
    ground += cv2.GaussianBlur(rng.normal(0, 6, ground.shape).astype(np.float32), (0, 0), 0.9)
    for _ in range(int(rng.integers(0, 5))):
        at = int(rng.integers(0, width)), int(rng.integers(0, height))
        cv2.circle(ground, at, int(rng.integers(1, 3)), float(rng.integers(30, 140)), -1)
    grey = np.clip(ground, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def plant_copy_move(
    picture: Picture, rng: np.random.Generator
) -> tuple[Picture, tuple[Crop, Crop] | None]:
    """Copy a region of 4 to 12 % of the area elsewhere; None where the picture shows nothing.

    Returns:
        The picture, and where the region was taken from and put.
    """
    height, width = picture.shape[:2]
    best: tuple[float, Any] = (-1.0, None)
    for _ in range(40):
        share = rng.uniform(0.04, 0.12)
        aspect = rng.uniform(0.7, 1.4)
        h = min(int((share * height * width * aspect) ** 0.5), height // 2 - 4)
        w = min(int((share * height * width / aspect) ** 0.5), width // 2 - 4)
        y0, y1 = (int(rng.integers(4, height - h - 4)) for _ in range(2))
        x0, x1 = (int(rng.integers(4, width - w - 4)) for _ in range(2))
        if abs(y0 - y1) < h and abs(x0 - x1) < w:
            continue
        contrast = float(picture[y0 : y0 + h, x0 : x0 + w].std())
        if contrast > best[0]:
            best = (contrast, (y0, x0, y1, x1, h, w))
    if best[1] is None or best[0] < 8:
        return picture, None
    y0, x0, y1, x1, h, w = best[1]
    patch = picture[y0 : y0 + h, x0 : x0 + w]
    moved = (patch, patch[:, ::-1], patch[::-1, ::-1])[int(rng.integers(3))]
    result = picture.copy()
    result[y1 : y1 + h, x1 : x1 + w] = moved
    return result, ((x0, y0, x0 + w, y0 + h), (x1, y1, x1 + w, y1 + h))


def show(picture: Picture, rng: np.random.Generator, side: float | None = None) -> Picture:
    """A picture as a figure shows it: resized, lettered, given a scale bar, compressed."""
    side = side or float(rng.uniform(160, 380))
    scale = side / min(picture.shape[:2])
    scale = min(scale, 900 / max(picture.shape[:2]))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)).copy()
    height, width = image.shape[:2]
    ink = (255, 255, 255) if image.mean() < 128 else (0, 0, 0)
    if rng.random() < 0.5:
        letter = "ABCDEF"[int(rng.integers(6))]
        cv2.putText(image, letter, (5, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, ink, 2, cv2.LINE_AA)
    if rng.random() < 0.5 and min(height, width) > 100:
        x, y = width - 70, height - 14
        cv2.rectangle(image, (x, y), (x + 56, y + 4), ink, -1)
        cv2.putText(image, "50 um", (x, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    return compress(image, int(rng.integers(70, 96))) if rng.random() < 0.7 else image


def compress(image: Picture, quality: int) -> Picture:
    """Through JPEG and back."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1].copy()


def _crop_box(shape: Sequence[int], rng: np.random.Generator, least: float, most: float) -> Crop:
    height, width = shape[:2]
    h, w = int(height * rng.uniform(least, most)), int(width * rng.uniform(least, most))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    return x, y, x + w, y + h


def _cells(shape: Sequence[int], box: Crop) -> NDArray[np.bool_]:
    """Which of 32 x 32 cells of a picture a crop shows."""
    height, width = shape[:2]
    mask = np.zeros((32, 32), np.bool_)
    x0, x1 = round(box[0] / width * 32), round(box[2] / width * 32)
    y0, y1 = round(box[1] / height * 32), round(box[3] / height * 32)
    mask[y0:y1, x0:x1] = True
    return mask


def _panel(
    picture: Picture,
    name: str,
    box: Crop,
    edit: str,
    rng: np.random.Generator,
    modality: str = "other",
    change: Callable[[Picture], Picture] | None = None,
) -> PlantedPanel:
    x0, y0, x1, y1 = box
    crop = picture[y0:y1, x0:x1]
    if change is not None:
        crop = np.ascontiguousarray(change(crop))
    return PlantedPanel(show(crop, rng), name, _cells(picture.shape, box), edit, modality)


def _edited(
    picture: Picture,
    name: str,
    box: Crop,
    edit: str,
    rng: np.random.Generator,
    modality: str = "other",
) -> PlantedPanel:
    """A copy of a crop, or of one that overlaps it, after one of ``EDITS``."""

    def tone(image: Picture) -> Picture:
        gamma, contrast = rng.choice([0.6, 0.7, 1.5, 1.8]), rng.uniform(0.8, 1.28)
        value = 255 * (image / 255.0) ** gamma
        return np.clip((value - 128) * contrast + 128 + rng.uniform(-25, 25), 0, 255).astype(
            np.uint8
        )

    def turn(image: Picture) -> Picture:
        angle = float(rng.uniform(3, 20) * rng.choice([-1, 1]))
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.22)
        return np.asarray(cv2.warpAffine(image, matrix, (width, height)))

    def shrink(image: Picture) -> Picture:
        scale = float(rng.uniform(0.42, 0.75))
        return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))

    def grey(image: Picture) -> Picture:
        return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)

    def flip(image: Picture) -> Picture:
        return image[:, ::-1] if rng.random() < 0.5 else image[::-1]

    changes: dict[str, Callable[[Picture], Picture]] = {
        "recompress": lambda image: compress(image, int(rng.integers(35, 60))),
        "resize": shrink,
        "photometric": tone,
        "rot90": lambda image: np.rot90(image, int(rng.integers(1, 4))),
        "flip": flip,
        "rot_arb": turn,
        "gray": grey,
        "combo": lambda image: compress(flip(tone(shrink(image))), 60),
    }
    wanted = {"crop_wide": (0.5, 0.7), "crop_narrow": (0.3, 0.5), "combo": (0.6, 0.78)}.get(edit)
    if wanted is not None:
        box = _overlapping(picture.shape, box, rng.uniform(*wanted), rng)
    return _panel(picture, name, box, edit, rng, modality, changes.get(edit))


def _overlapping(shape: Sequence[int], box: Crop, share: float, rng: np.random.Generator) -> Crop:
    """A crop of the same picture that shares about ``share`` of its area with another."""
    height, width = shape[:2]
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    best, closest = box, 9.0
    for _ in range(300):
        x = int(rng.integers(0, width - w + 1))
        y = int(rng.integers(0, height - h + 1))
        cw, ch = int(w * rng.uniform(0.6, 1)), int(h * rng.uniform(0.6, 1))
        common = max(0, min(x1, x + cw) - max(x0, x)) * max(0, min(y1, y + ch) - max(y0, y))
        error = abs(common / (cw * ch) - share)
        if error < closest:
            best, closest = (x, y, x + cw, y + ch), error
    return best
