"""What a card looks like in 512 numbers, without learned weights: the gallery's default encoder.

The vector only has to bring the right item among the nearest fifty; which of them it is, geometry
and pixels decide (``core.identification``). It therefore says what survives a phone camera, a
sleeve and an outline that is off by a hundredth of the card: in which directions edges run in each
part of the card, where it is lighter and darker than around, and of which hue its parts are against
the mean hue of the card. Nothing of it is fitted to any series of cards, and no place of a card is
expected to hold the artwork.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.encoders import Vectors
from core.features import normalise_contrast
from core.geometry import Image
from core.opencv import cv2

DESCRIPTOR_ID = "card-hog-colour-v1"
"""Part of the key of stored vectors; another number anywhere in this module is another id."""

WIDTH_PX, HEIGHT_PX = 96, 128
"""What a card is reduced to: type is gone, the lines of the artwork are not."""
COLUMNS, ROWS = 6, 8
"""Parts of a card, 16 px each way: ten times as wide as the outline is off."""
DIRECTIONS = 8
LIGHT_COLUMNS, LIGHT_ROWS = 4, 8

EDGE_SHARE, COLOUR_SHARE, LIGHT_SHARE = 0.62, 0.25, 0.13
"""What each kind contributes to an inner product. Edges differ most between artworks, and lighting
changes them least; hue tells frames apart; light and dark are what glare and shadow change."""

RIM = 0.06
"""Share of a crop's width that is cut off on all sides for a second look: outlines that follow the
sleeve are off by 0.06 to 0.09 of the card's width."""

EDGE_NUMBERS = COLUMNS * ROWS * DIRECTIONS
COLOUR_NUMBERS = COLUMNS * ROWS * 2
LIGHT_NUMBERS = LIGHT_COLUMNS * LIGHT_ROWS
DIM = EDGE_NUMBERS + COLOUR_NUMBERS + LIGHT_NUMBERS

_SURROUNDINGS_PX = 12.0
"""Width of the neighbourhood whose mean and contrast are divided out before edges are taken."""
_CONTRAST_FLOOR = 4.0
"""Grey levels below which a neighbourhood is flat: the noise of a phone, reduced to this size."""
_SPREAD_PX = 5.0
"""How far an edge counts into the next part: a third of it, more than an outline is off."""
_FLAT = 1e-3
"""Weight of the one direction that all cards share; only a card without content consists of it."""

Grey = NDArray[np.float32]


def describe(cards: Sequence[Image]) -> Vectors:
    """One unit vector per card, comparable by inner product.

    Args:
        cards: Rectified cards in portrait, RGB, uint8, each of shape (height, width, 3) and any
            size from about 64 x 90 px; one that lies upside down has another vector.

    Returns:
        Shape (cards, ``DIM``), float32. Two views of a card come to 0.7 and more, two cards of the
        same frame mostly stay below 0.5; a card without any content is near no other.

    Raises:
        ValueError: A card has no pixels, or is not RGB.

    Source:
        Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005, on
        locally normalised contrast, with signed directions and square roots.
    """
    return (
        np.stack([_describe(card) for card in cards]) if cards else np.empty((0, DIM), np.float32)
    )


def search_views(card: Image) -> tuple[tuple[Image, bool], ...]:
    """What to describe of a crop in order to search the gallery for it.

    Nobody knows which way up a card lies, and a detector takes the rim of a sleeve or the edge of a
    pocket for the card's outline now and then: then the card is the inner part of the crop. An item
    is as similar as its best template to the best of these views.

    Args:
        card: A rectified crop in portrait, RGB, uint8, shape (height, width, 3).

    Returns:
        Four views, each with whether it is turned by 180 degrees: the whole, and the inner part,
        both ways up.
    """
    height, width = card.shape[:2]
    rim = round(width * RIM)
    inner = card[rim : height - rim, rim : width - rim]
    views = [(np.ascontiguousarray(view), False) for view in (card, inner)]
    views += [(np.ascontiguousarray(view[::-1, ::-1]), True) for view in (card, inner)]
    return tuple(views)


def _describe(card: Image) -> NDArray[np.float32]:
    if card.ndim != 3 or card.shape[2] != 3 or min(card.shape[:2]) < 1:
        raise ValueError(f"a card is RGB of shape (height, width, 3), got {card.shape}")
    small = _reduced(card)
    parts = (
        (EDGE_SHARE, _edges(small)),
        (COLOUR_SHARE, _colours(small)),
        (LIGHT_SHARE, _light(small)),
    )
    vector = np.concatenate([np.sqrt(share) * _unit(part) for share, part in parts])
    vector[-1] += _FLAT
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _reduced(card: Image) -> Grey:
    """Shape (HEIGHT_PX, WIDTH_PX, 3), 0 to 255."""
    size = (WIDTH_PX, HEIGHT_PX)
    larger = card.shape[0] > HEIGHT_PX and card.shape[1] > WIDTH_PX
    flags = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(card, size, interpolation=flags)).astype(np.float32)


def _unit(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit length; what is flat stays zero."""
    length = float(np.linalg.norm(part))
    return part / np.float32(length) if length > 1e-4 else np.zeros_like(part)


def _edges(small: Grey) -> NDArray[np.float32]:
    """How strongly edges run in each of 8 directions in each part, less the part's mean."""
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    flat = np.clip(normalise_contrast(grey, _SURROUNDINGS_PX, _CONTRAST_FLOOR), -3, 3)
    across, down = cv2.Sobel(flat, cv2.CV_32F, 1, 0), cv2.Sobel(flat, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(across, down)
    position = angle * np.float32(DIRECTIONS / (2 * np.pi))
    maps = np.empty((HEIGHT_PX, WIDTH_PX, DIRECTIONS), np.float32)
    for direction in range(DIRECTIONS):
        gap = np.abs((position - direction + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2)
        maps[:, :, direction] = strength * np.maximum(0, 1 - gap)
    maps = cv2.GaussianBlur(maps, (0, 0), _SPREAD_PX)
    cells = np.sqrt(cv2.resize(maps, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA))
    return (cells - cells.mean(axis=2, keepdims=True)).reshape(-1)


def _colours(small: Grey) -> NDArray[np.float32]:
    """Red against green and blue against yellow in each part, less those of the whole card."""
    red, green, blue = cv2.split(small)
    total = red + green + blue + np.float32(48.0)  # dark pixels have no reliable hue
    hue = cv2.merge([(red - green) / total, (2 * blue - red - green) / total])
    cells = cv2.resize(hue, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    cells = cells - np.median(cells, axis=(0, 1), keepdims=True)
    return (np.sign(cells) * np.sqrt(np.abs(cells))).reshape(-1)


def _light(small: Grey) -> NDArray[np.float32]:
    """Lightness of each part, less a plane: what falls off evenly is the lamp, not the card."""
    grey = np.log(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) + np.float32(24.0))
    cells = cv2.resize(grey, (LIGHT_COLUMNS, LIGHT_ROWS), interpolation=cv2.INTER_AREA)
    return np.asarray(_LEVEL @ cells.reshape(-1), np.float32)


def _plane_removal() -> NDArray[np.float32]:
    """The matrix that takes the best plane out of the parts' values."""
    down, across = np.mgrid[0:LIGHT_ROWS, 0:LIGHT_COLUMNS]
    design = np.column_stack([np.ones(LIGHT_NUMBERS), across.reshape(-1), down.reshape(-1)])
    return (np.eye(LIGHT_NUMBERS) - design @ np.linalg.pinv(design)).astype(np.float32)


_LEVEL = _plane_removal()
