"""Train the copy-detection encoder.

    python -m training.train --images FOLDER --out OUT [--hours 3] [--device cpu|cuda]

``FOLDER`` holds real pictures whose names start with their origin (``training/README.md`` says
which and how to obtain them). ``OUT`` receives ``open_clip_config.json`` and
``open_clip_model.safetensors``, which ``QUIRE_IMAGE_ENCODER=open_clip:OUT`` takes,
``training.json`` with what was done and how validation went, and ``state.pt``, from which an
interrupted training goes on when the same command is given again.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from training.data import Views, split, validation_views
from training.losses import info_nce, koleo
from training.model import CONFIG, Learner, build, normalised, start_file
from training.recipe import Recipe
from training.sources import drawn_pictures, real_pictures
from training.views import ViewSpec

TELL_STEPS = 20
KEEP_STEPS = 200
"""Steps after which the state is kept and validation runs."""

WEIGHTS, CONFIG_FILE = "open_clip_model.safetensors", "open_clip_config.json"


def main() -> None:
    """Read the command line, then train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--start", type=Path, help="weights to start from, .pth or .safetensors")
    parser.add_argument("--workers", type=int, default=1, help="processes that make views")
    parser.add_argument("--pairs", type=int, default=Recipe.pairs, help="places in a batch")
    parser.add_argument("--drawn", type=int, default=Recipe.drawn, help="pictures to draw")
    parser.add_argument("--frozen", type=int, default=Recipe.frozen, help="stages left as they are")
    parser.add_argument("--side-px", type=int, default=ViewSpec.side_px, help="of views")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)  # a pool of threads that exists here would hang the loader's forks
    if given.device == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    recipe = Recipe(
        pairs=given.pairs,
        drawn=given.drawn,
        frozen=given.frozen,
        learning_rate=given.learning_rate,
    )
    spec = ViewSpec(side_px=given.side_px)
    drawers = max(2, given.workers)
    sources = real_pictures(given.images) + drawn_pictures(recipe.drawn, recipe.seed, drawers)
    learn, aside = split(sources, recipe.aside)
    side_px = CONFIG["model_cfg"]["vision_cfg"]["image_size"]
    views, kinds = validation_views(aside, replace(spec, side_px=side_px))
    print(f"{len(learn)} pictures, {len(kinds)} places aside", flush=True)
    training = Training(recipe, given.start or start_file(), given.out, given.device)
    loader = DataLoader(
        Views(learn, recipe, spec, training.step),
        batch_size=None,
        num_workers=given.workers,
        prefetch_factor=4 if given.workers else None,
        pin_memory=given.device != "cpu",
    )
    for pixels in loader:
        training.learn(pixels, given.hours * 3600)
        if training.step % KEEP_STEPS == 0:
            print(json.dumps(training.validate(views, kinds)), flush=True)
            training.keep_state()
        if training.spent_s >= given.hours * 3600:
            break
    found = training.keep(views, kinds, spec, pictures=len(learn))
    print(json.dumps(found))


class Training:
    """The weights on their way.

    Attributes:
        step: Batches learned from.
        spent_s: Seconds spent on them and on waiting for them, validation apart.
    """

    def __init__(self, recipe: Recipe, start: Path | None, out: Path, device: str) -> None:
        """Begin, or go on from what ``out`` holds.

        Args:
            recipe: All numbers.
            start: Weights of the trunk to begin with; None: random ones.
            out: Folder of the state and of the result.
            device: ``cpu`` or ``cuda``.
        """
        torch.manual_seed(recipe.seed)
        self._recipe, self._out, self._device = recipe, out, device
        model = Learner(build(start), recipe.frozen)
        self._model: Learner = model.to(device, memory_format=torch.channels_last)  # pyright: ignore
        self._average = torch.optim.swa_utils.AveragedModel(
            self._model,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average),
            use_buffers=True,
        )
        self._learned = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for p in self._learned if p.ndim > 1],
                    "weight_decay": recipe.weight_decay,
                },
                {"params": [p for p in self._learned if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
        )
        self.step, self.spent_s = 0, 0.0
        self._log: list[dict[str, Any]] = []
        self._told = (0, 0.0)
        self._ended = 0.0
        if self._state_file.exists():
            self._go_on()

    @property
    def _state_file(self) -> Path:
        return self._out / "state.pt"

    def learn(self, pixels: Tensor, seconds: float) -> None:
        """One step; the learning rate falls to nothing as ``seconds`` are spent."""
        began = self._ended or time.monotonic()
        recipe = self._recipe
        done = min(1.0, self.spent_s / seconds)
        warm = min(1.0, (self.step + 1) / recipe.warm_up_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * done))
        self._model.train()
        # On a CPU half precision is slower: convolutions by depth have no fast gradient in it.
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device != "cpu"):
            features = self._model(normalised(pixels.to(self._device, non_blocking=True)))
        vectors = torch.nn.functional.normalize(features.float(), dim=1)
        contrast, spread = info_nce(vectors, recipe.temperature), koleo(vectors)
        self._optimizer.zero_grad(set_to_none=True)
        (contrast + recipe.entropy_weight * spread).backward()
        torch.nn.utils.clip_grad_norm_(self._learned, recipe.largest_gradient)
        self._optimizer.step()
        self._average.update_parameters(self._model)
        self.step += 1
        self._ended = time.monotonic()
        self.spent_s += self._ended - began
        if self.step % TELL_STEPS == 0:
            step, spent_s = self._told
            views = len(pixels) * (self.step - step) / (self.spent_s - spent_s)
            self._told = (self.step, self.spent_s)
            print(
                f"step {self.step} {done:.1%} info_nce {contrast.item():.3f} "
                f"koleo {spread.item():.3f} {views:.0f} views/s",
                flush=True,
            )

    @torch.no_grad()
    def validate(self, views: Tensor, kinds: list[str]) -> dict[str, float]:
        """Share of views whose nearest other view is the same place, over all and by kind."""
        model = self._average.module.eval()
        parts = [model(normalised(part.to(self._device))).float() for part in views.split(128)]
        vectors = torch.nn.functional.normalize(torch.cat(parts), dim=1)
        cosines = vectors @ vectors.T
        cosines.fill_diagonal_(-2)
        partners = torch.arange(len(vectors), device=cosines.device) ^ 1
        hits = (cosines.argmax(1) == partners).float().cpu().reshape(-1, 2).mean(1)
        found = {"all": float(hits.mean())}
        for kind in sorted(set(kinds)):
            found[kind] = float(hits[[k == kind for k in kinds]].mean())
        found = {kind: round(value, 4) for kind, value in found.items()}
        self._ended = 0.0  # the clock stands still
        self._log.append({"step": self.step, "found": found})
        return found

    def keep_state(self) -> None:
        """Keep everything that is needed to go on."""
        state = {
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
            "log": self._log,
        }
        unfinished = self._state_file.with_suffix(".new")
        torch.save(state, unfinished)
        unfinished.replace(self._state_file)

    def _go_on(self) -> None:
        state = torch.load(self._state_file, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent_s, self._log = state["step"], state["spent_s"], state["log"]
        self._told = (self.step, self.spent_s)

    def keep(
        self, views: Tensor, kinds: list[str], spec: ViewSpec, *, pictures: int
    ) -> dict[str, float]:
        """Write the average as an encoder, and what was done; what validation found at the end."""
        found = self.validate(views, kinds)
        tower: Any = self._average.module.tower
        save_file(
            {f"visual.{name}": _kept(value) for name, value in tower.state_dict().items()},
            self._out / WEIGHTS,
        )
        (self._out / CONFIG_FILE).write_text(json.dumps(CONFIG, indent=1) + "\n")
        facts = {
            "recipe": asdict(self._recipe),
            "views": asdict(spec),
            "steps": self.step,
            "hours": round(self.spent_s / 3600, 2),
            "device": self._device,
            "pictures": pictures,
            "places_aside": len(kinds),
            "found_aside": found,
            "log": self._log,
            "weights_sha256": sha256((self._out / WEIGHTS).read_bytes()).hexdigest(),
        }
        (self._out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
        return found


def _kept(value: Tensor) -> Tensor:
    """Matrices in half precision; statistics and biases, which take no room, as they are."""
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() and value.ndim > 1 else value


if __name__ == "__main__":
    main()
