"""What an image encoder is worth for cards: is the right item among the nearest templates?

    python -m benchmarks.encoder_cards DEV_DIR --encoder CHOICE

``DEV_DIR`` holds ``gallery.json`` with ``gallery/``, and ``truth.json`` with ``scans/``. Every card
of a scan that the gallery holds is cut out along its true outline, as it lies there and upside
down; templates are ranked by cosine, each item by its best template. Beside it: a 256-bit
perceptual hash, which a weight-free gallery would start with.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from core.geometry import Image
from resources.encoder import Encoder

CARD_PX = (300, 420)
"""Width and height of a card that was cut out."""

WITHIN = (1, 10, 50)
HASH_SIDE = 16

Describe = Callable[[Sequence[Image]], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="quire", help="as QUIRE_IMAGE_ENCODER names it")
    given = parser.parse_args()
    gallery = json.loads((given.folder / "gallery.json").read_text())
    templates = [(item["id"], name) for item in gallery for name in item["templates"]]
    pictures = [_read(given.folder / "gallery" / name) for _, name in templates]
    cards = _cards(given.folder)
    print(f"{len(cards)} cards, {len(templates)} templates of {len(gallery)} items")
    print("recall of the item".ljust(34) + "".join(f"@{count}".rjust(8) for count in WITHIN))
    encoder = Encoder(spec=given.encoder, cores=2)
    for name, describe in {given.encoder: encoder.embed, "perceptual hash": _hashes}.items():
        known = describe(pictures)
        for way, turned in (("as it lies", False), ("upside down", True)):
            crops = [crop[::-1, ::-1] if turned else crop for _, crop in cards]
            scores = describe([np.ascontiguousarray(crop) for crop in crops]) @ known.T
            places = [
                _place(row, [item for item, _ in templates], wanted)
                for row, (wanted, _) in zip(scores, cards, strict=True)
            ]
            shares = (np.mean([place <= count for place in places]) for count in WITHIN)
            print(f"{name}, {way}".ljust(34) + "".join(f"{share:.3f}".rjust(8) for share in shares))


def _read(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)


def _cards(folder: Path) -> list[tuple[str, Image]]:
    """Id and picture of each known card, upright."""
    found: list[tuple[str, Image]] = []
    width, height = CARD_PX
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    for scan in json.loads((folder / "truth.json").read_text()):
        image = _read(folder / "scans" / scan["file"])
        for card in scan["cards"]:
            if card["known"]:
                matrix = cv2.getPerspectiveTransform(np.array(card["quad"], np.float32), corners)
                crop = cv2.warpPerspective(image, matrix, CARD_PX, flags=cv2.INTER_AREA)
                found.append((card["card_id"], np.asarray(crop, np.uint8)))
    return found


def _hashes(images: Sequence[Image]) -> NDArray[np.float32]:
    """Signs of the lowest frequencies, scaled so that the inner product falls with distance."""
    rows: list[NDArray[np.float32]] = []
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        side = HASH_SIDE * 4
        small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        low = np.asarray(cv2.dct(small))[:HASH_SIDE, :HASH_SIDE].ravel()
        rows.append(np.where(low > np.median(low), 1.0, -1.0).astype(np.float32) / HASH_SIDE)
    return np.stack(rows)


def _place(scores: NDArray[np.float32], items: Sequence[str], wanted: str) -> int:
    """Place of an item among all, each by its best template; 1 is the first."""
    best: dict[str, float] = {}
    for item, score in zip(items, scores.tolist(), strict=True):
        best[item] = max(best.get(item, -2.0), score)
    return 1 + sum(score > best[wanted] for score in best.values())


if __name__ == "__main__":
    main()
