"""Make the background that comes with an encoder.

    python -m training.background --images FOLDER --encoder FOLDER

How close two tiles count as being is measured by how near they come to a sample of unrelated
ones (``core.embedding_search``). For an encoder that is trained here the sample can come along: the
first paper is then searched as the thousandth is. ``--encoder`` names the folder with the form that
runs; the sample is one window each of as many pictures as a background has, of every look in turn.
"""

import argparse
from collections import defaultdict
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from core.embedding_search import Background, BackgroundSpec, TileVectors, fit_background
from core.geometry import Image
from resources.encoder import Encoder
from resources.encoder_folder import BACKGROUND
from training.recipe import Recipe
from training.sources import Rng, Source, drawn_pictures, real_pictures
from training.views import ViewSpec

NOT_COMPARED = ("card", "chart")
"""Drawings of these kinds are no panels that copy search compares."""

LEVELS = (1, 2, 3)
"""Sides of windows, as parts of a picture's short side: those of tiles."""


def main() -> None:
    """Read the command line, then write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    given = parser.parse_args()
    recipe = Recipe()
    sources = real_pictures(given.images) + drawn_pictures(recipe.drawn // 4, recipe.seed + 1)
    encoder = Encoder(spec=f"open_clip:{given.encoder.resolve()}", cores=2)
    background = sampled(sources, encoder, BackgroundSpec(), np.random.default_rng(recipe.seed))
    (given.encoder / BACKGROUND).write_bytes(background.to_bytes())
    print(f"{len(background.vectors)} windows, {background.background_id}")


def sampled(sources: list[Source], encoder: Encoder, spec: BackgroundSpec, rng: Rng) -> Background:
    """A background of windows of pictures.

    Args:
        sources: The pictures; half of the windows come from drawn ones where there are enough.
        encoder: What embeds them.
        spec: How many.
        rng: Chooses the windows.

    Raises:
        ValueError: There are too few pictures.
    """
    real = _in_turn([s for s in sources if s.kind == "real"])
    drawn = _in_turn([s for s in sources if s.kind not in ("real", *NOT_COMPARED)])
    chosen = real[: spec.panels // 2]
    chosen += drawn[: spec.panels - len(chosen)]
    windows = [_window(source, rng) for source in chosen]
    names = np.array([source.name for source in chosen])
    tiles = TileVectors(
        encoder.describe().encoder_id, names, np.zeros(len(names), int), encoder.embed(windows)
    )
    background = fit_background([tiles], spec)
    if background is None:
        raise ValueError(f"{len(chosen)} pictures, needs {spec.fewest_panels}")
    return background


def _in_turn(sources: list[Source]) -> list[Source]:
    """One picture of each group, then the second of each."""
    groups: defaultdict[str, list[Source]] = defaultdict(list)
    for source in sources:
        groups[source.group].append(source)
    return [s for s in chain(*zip_longest(*groups.values())) if s is not None]


def _window(source: Source, rng: Rng) -> Image:
    """A window that is not blank, if a few tries find one."""
    height, width = source.image.shape[:2]
    window = source.image
    for _ in range(8):
        side = min(height, width) // int(rng.choice(LEVELS))
        x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        window = np.ascontiguousarray(source.image[y : y + side, x : x + side])
        if window.std() >= ViewSpec().least_contrast:
            break
    return window


if __name__ == "__main__":
    main()
