"""Make a gallery of drawn cards for ``benchmarks/gallery.py``; begun again, it goes on.

    python -m benchmarks.gallery_files GENERATOR OUT [--items 46512] [--seed 5] [--workers 2]

GENERATOR is the script of the cards bench that draws them. OUT receives ``gallery.jsonl`` and one
picture of 300 x 420 px for each item.
"""

import argparse
import importlib.util
import json
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import cv2

JPEG_QUALITY = 72


@cache
def generator(path: str) -> Any:
    """The script that draws cards, as a module."""
    found = importlib.util.spec_from_file_location("card_generator", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def draw(script: str, seed: int, card: dict[str, Any], target: Path) -> None:
    """Draw one card, unless it is there."""
    if target.exists():
        return
    cards = generator(script)
    picture = cv2.resize(cards.render(seed, card), (300, 420), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    partial = target.with_suffix(".partial")
    partial.write_bytes(encoded.tobytes())
    partial.rename(target)


def _draw_all(job: tuple[str, int, list[tuple[dict[str, Any], Path]]]) -> int:
    script, seed, cards = job
    cv2.setNumThreads(1)
    for card, target in cards:
        draw(script, seed, card, target)
    return len(cards)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("generator", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--items", type=int, default=46_512)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    script = str(arguments.generator.resolve())
    (arguments.out / "images").mkdir(parents=True, exist_ok=True)
    catalogue = generator(script).catalogue(arguments.seed, arguments.items)
    work = [(card, arguments.out / "images" / f"{card['id']}.jpg") for card in catalogue]
    with (arguments.out / "gallery.jsonl").open("w") as file:
        for card, target in work:
            row = {
                "id": card["id"],
                "set": f"set-{card['set']}",
                "number": f"{card['num']:03d}",
                "language": "de" if card["lang"] else "en",
                "images": [f"images/{target.name}"],
                "art": card["art"],
                "kind": card["kind"],
            }
            file.write(json.dumps(row) + "\n")
    jobs = [(script, arguments.seed, work[i : i + 200]) for i in range(0, len(work), 200)]
    done = 0
    with ProcessPoolExecutor(arguments.workers) as pool:
        for count in pool.map(_draw_all, jobs):
            done += count
            print(f"{done:,} of {len(work):,}", flush=True)


if __name__ == "__main__":
    main()
