"""Pictures that resemble what papers show, drawn from a seed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.geometry import Image
from core.opencv import cv2


def cells(seed: int, height: int = 260, width: int = 320) -> Image:
    """Bright, textured cells on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    canvas = np.full((height, width), 14.0, np.float32)
    for _ in range(45):
        cell = np.zeros_like(canvas)
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        axes = int(rng.integers(7, 15)), int(rng.integers(6, 12))
        level = float(rng.uniform(70, 190))
        cv2.ellipse(cell, centre, axes, float(rng.uniform(0, 180)), 0, 360, level, -1)
        canvas = np.maximum(canvas, cv2.GaussianBlur(cell, (0, 0), 1.2))
    grain = cv2.GaussianBlur(rng.normal(0, 1, canvas.shape).astype(np.float32), (0, 0), 1.3)
    canvas = canvas * (1 + 0.35 * grain) + rng.normal(0, 1.5, canvas.shape)
    return grey_picture(canvas)


def grey_picture(values: NDArray[Any]) -> Image:
    """Grey levels as an RGB picture."""
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def lettered(image: Image, text: str = "A", scale_bar: bool = True) -> Image:
    """With a panel letter and a scale bar, white."""
    shown = image.copy()
    cv2.putText(
        shown, text, (6, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA
    )
    if scale_bar:
        height, width = image.shape[:2]
        cv2.rectangle(
            shown, (width - 80, height - 16), (width - 20, height - 11), (255, 255, 255), -1
        )
    return shown


def turned(image: Image, degrees: float, scale: float = 1.0) -> Image:
    """Turned counter-clockwise about its middle, same size."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height)))
