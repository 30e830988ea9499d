from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file

from core.encoders import parse_encoder
from resources.checkpoints import find_checkpoint
from training.data import Views, split, validation_views
from training.model import Learner, build
from training.recipe import Recipe
from training.sources import DRAWINGS, drawn_pictures
from training.train import Training
from training.views import ViewSpec


def test_what_is_frozen_stays_and_the_rest_learns() -> None:
    torch.manual_seed(0)
    tower = build()
    learner = Learner(tower, 3).train()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    learner(torch.randn(4, 3, 160, 160)).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in tower.state_dict().items() if not value.equal(before[name])}
    assert any(name.startswith("trunk.blocks.6") for name in moved)
    assert "head.proj.weight" in moved
    first = ("trunk.conv_stem", "trunk.bn1", *(f"trunk.blocks.{stage}." for stage in range(3)))
    assert not [name for name in moved if name.startswith(first)]
    pixels = torch.randn(2, 3, 160, 160)
    assert torch.allclose(learner.eval()(pixels), tower.eval()(pixels))


def test_training_goes_on_where_it_was_stopped_and_ends_in_an_encoder(tmp_path: Path) -> None:
    recipe = Recipe(pairs=4, drawn=4 * len(DRAWINGS))
    learn, aside = split(drawn_pictures(recipe.drawn, 1, workers=1), 4)
    assert not {source.group for source in learn} & {source.group for source in aside}
    assert aside
    views, kinds = validation_views(aside[:3], ViewSpec())
    batches = iter(Views(learn, recipe, ViewSpec(), 0))
    training = Training(recipe, None, tmp_path, "cpu")
    training.learn(next(batches), 3600)
    training.keep_state()
    again = Training(recipe, None, tmp_path, "cpu")
    assert (again.step, again.spent_s) == (1, training.spent_s)
    pixels = next(batches)
    for one in (training, again):
        one.learn(pixels, 3600)
    assert training.validate(views, kinds) == again.validate(views, kinds)
    again.keep(views, kinds, ViewSpec(), pictures=len(learn))

    choice = parse_encoder(f"open_clip:{tmp_path}")
    assert choice is not None
    spec = find_checkpoint(choice).spec
    assert (spec.dim, spec.preprocessing.height_px) == (256, 160)
    weights = tmp_path / "open_clip_model.safetensors"
    assert weights.stat().st_size < 12_000_000
    further, kept = build(weights).state_dict(), load_file(weights)
    for name, value in kept.items():
        assert further[name.removeprefix("visual.")].float().allclose(value.float())
    from resources.visual_tower import VisualTower

    vectors = VisualTower(find_checkpoint(choice), cores=1).embed(
        [np.asarray(view) for view in views[:4].numpy()]
    )
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
