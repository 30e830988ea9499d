"""Encoders are real but tiny: open_clip architectures with random weights, made on the spot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from core.geometry import Image
from resources.encoder import Encoder, _import_open_clip

VIT: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
CONVNEXT: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "test_convnext",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 48,
    },
    "text_cfg": VIT["text_cfg"],
    "custom_text": True,
}


def write_model(folder: Path, config: dict[str, Any], seed: int = 0) -> Any:
    """A whole model, text tower included, as open_clip itself builds and publishes it."""
    open_clip = _import_open_clip()
    import torch
    from open_clip.model import CLIP, CustomTextCLIP
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    arguments = json.loads(json.dumps(config))
    kind = CustomTextCLIP if arguments.pop("custom_text", False) else CLIP
    model = kind(**arguments).eval()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    assert open_clip
    return model


def pictures(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (int(h), int(w), 3), dtype=np.uint8)
        for h, w in rng.integers(20, 90, (count, 2))
    ]


@pytest.mark.parametrize("config", [VIT, VIT | {"quick_gelu": True}, CONVNEXT])
def test_vectors_are_those_of_the_whole_model_in_open_clip(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    import torch
    from torch.nn.functional import normalize

    write_model(tmp_path / "model", config)
    open_clip = _import_open_clip()
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")
    images = pictures(5)
    import PIL.Image

    with torch.inference_mode():
        batch = torch.stack([transform(PIL.Image.fromarray(image)) for image in images])
        expected = normalize(model.eval().encode_image(batch), dim=-1).numpy()

    encoder = Encoder(spec=f"open_clip:{tmp_path / 'model'}", batch=5)
    vectors = encoder.embed(images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, encoder.describe().dim)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
