"""The encoders here are real but tiny: open_clip architectures with random weights."""

import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import PIL.Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from core.encoders import EncoderError, parse_encoder  # noqa: E402
from core.geometry import Image  # noqa: E402
from resources import checkpoints  # noqa: E402
from resources.checkpoints import Checkpoint, find_checkpoint  # noqa: E402
from resources.visual_tower import VisualTower, import_open_clip  # noqa: E402

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


def write_model(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """A whole model, text tower included, laid out as open_clip publishes it."""
    model_kinds = import_open_clip().model
    torch.manual_seed(seed)
    arguments = json.loads(json.dumps(config))
    custom = arguments.pop("custom_text", False)
    model = (model_kinds.CustomTextCLIP if custom else model_kinds.CLIP)(**arguments)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return folder


def pictures(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (int(h), int(w), 3), dtype=np.uint8)
        for h, w in rng.integers(20, 90, (count, 2))
    ]


def found(text: str) -> Checkpoint:
    choice = parse_encoder(text)
    assert choice is not None
    return find_checkpoint(choice)


def load(text: str) -> VisualTower:
    return VisualTower(found(text), cores=1)


def run(code: str, *arguments: object) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("vit"), VIT)


@pytest.mark.parametrize("config", [VIT, VIT | {"quick_gelu": True}, CONVNEXT])
def test_vectors_are_those_of_the_whole_model_in_open_clip(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    write_model(tmp_path, config)
    model, _, transform = import_open_clip().create_model_and_transforms(f"local-dir:{tmp_path}")
    images = pictures(5)
    with torch.inference_mode():
        batch = torch.stack([transform(PIL.Image.fromarray(image)) for image in images])
        expected = torch.nn.functional.normalize(model.eval().encode_image(batch), dim=-1).numpy()

    tower = load(f"open_clip:{tmp_path}")
    vectors = tower.embed(images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, tower.spec.dim)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_only_the_visual_tower_is_built_and_its_weights_stay_in_the_file(vit: Path) -> None:
    encoder = load(f"open_clip:{vit}")
    named = dict(encoder.module.named_parameters())
    whole = load_file(vit / "open_clip_model.safetensors")
    assert set(named) == {n.removeprefix("visual.") for n in whole if n.startswith("visual.")}
    places = open("/proc/self/maps").read().splitlines()  # noqa: PTH123, SIM115
    ranges = [
        tuple(int(edge, 16) for edge in line.split()[0].split("-"))
        for line in places
        if str(vit) in line and line.split()[1] == "r--s"
    ]
    assert all(any(a <= p.data_ptr() < b for a, b in ranges) for p in named.values())


def test_the_whole_model_a_parallel_one_and_the_tower_alone_give_the_same(
    vit: Path, tmp_path: Path
) -> None:
    state = load_file(vit / "open_clip_model.safetensors")
    variants = {
        "parallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "tower": {
            n.removeprefix("visual."): t for n, t in state.items() if n.startswith("visual.")
        },
    }
    expected = load(f"open_clip:{vit}").embed(pictures(3))
    config = (vit / "open_clip_config.json").read_text()
    for name, variant in variants.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "open_clip_config.json").write_text(config)
        save_file(variant, tmp_path / name / "model.safetensors")
        vectors = load(f"open_clip:{tmp_path / name}").embed(pictures(3))
        np.testing.assert_array_equal(vectors, expected)


def test_half_precision_weights_are_computed_with_in_full(vit: Path, tmp_path: Path) -> None:
    state = load_file(vit / "open_clip_model.safetensors")
    save_file({n: t.half() for n, t in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text((vit / "open_clip_config.json").read_text())
    vectors = load(f"open_clip:{tmp_path}").embed(pictures(3))
    expected = load(f"open_clip:{vit}").embed(pictures(3))
    assert np.sum(vectors * expected, axis=1).min() > 0.9999


def test_a_torch_file_of_tensors_is_read(vit: Path, tmp_path: Path) -> None:
    state = load_file(vit / "open_clip_model.safetensors")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text((vit / "open_clip_config.json").read_text())
    expected = load(f"open_clip:{vit}").embed(pictures(3))
    np.testing.assert_array_equal(load(f"open_clip:{tmp_path}").embed(pictures(3)), expected)


class Malice:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("wrap", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, 2))])
def test_a_malicious_pickle_is_refused_and_does_nothing(
    vit: Path, tmp_path: Path, wrap: Any
) -> None:
    mark = tmp_path / "owned"
    wrap({"state_dict": {"visual.proj": Malice(mark)}}, tmp_path / "pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text((vit / "open_clip_config.json").read_text())
    with pytest.raises(EncoderError, match="was refused: it holds more than tensors"):
        load(f"open_clip:{tmp_path}")
    assert not mark.exists()


def b32_visual(path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({"visual.proj": torch.zeros(2, 2)}, path, metadata)
    return path


def test_a_file_that_does_not_say_its_activation_is_refused_with_what_to_do(
    tmp_path: Path,
) -> None:
    path = b32_visual(tmp_path / "b32.safetensors")
    with pytest.raises(EncoderError, match=r"append \?activation=quick_gelu .* or \?tag=TAG"):
        found(f"open_clip:ViT-B-32/{path}")


def test_the_activation_follows_whoever_states_it(tmp_path: Path) -> None:
    silent = b32_visual(tmp_path / "silent.safetensors")
    says = b32_visual(tmp_path / "says.safetensors", {"activation": "quick_gelu"})
    stated = {
        f"open_clip:ViT-B-32/{silent}?activation=gelu": "gelu",
        f"open_clip:ViT-B-32/{silent}?activation=quick_gelu": "quick_gelu",
        f"open_clip:ViT-B-32/{silent}?tag=openai": "quick_gelu",
        f"open_clip:ViT-B-32/{silent}?tag=laion2b_s34b_b79k": "gelu",
        f"open_clip:ViT-B-32-quickgelu/{silent}": "quick_gelu",
        f"open_clip:ViT-B-32/{says}": "quick_gelu",
        f"open_clip:RN50/{silent}": "architecture",
        f"open_clip:convnext_base/{silent}": "architecture",
    }
    for text, activation in stated.items():
        assert found(text).spec.activation == activation, text
    with pytest.raises(EncoderError, match="both gelu and quick_gelu"):
        found(f"open_clip:ViT-B-32/{says}?activation=gelu")


def test_the_two_activations_are_two_encoders_with_different_vectors(
    vit: Path, tmp_path: Path
) -> None:
    write_model(tmp_path, VIT | {"quick_gelu": True})
    plain, quick = load(f"open_clip:{vit}"), load(f"open_clip:{tmp_path}")
    assert plain.spec.weights_sha256 == quick.spec.weights_sha256
    assert plain.spec.encoder_id != quick.spec.encoder_id
    assert np.abs(plain.embed(pictures(3)) - quick.embed(pictures(3))).max() > 1e-4


def test_a_file_whose_architecture_is_published_with_two_preprocessings_needs_a_tag(
    tmp_path: Path,
) -> None:
    path = b32_visual(tmp_path / "l14.safetensors")
    with pytest.raises(EncoderError, match=r"differ in preprocessing.*append \?tag=TAG"):
        found(f"open_clip:ViT-L-14/{path}?activation=gelu")
    spec = found(f"open_clip:ViT-L-14/{path}?tag=laion2b_s32b_b82k").spec
    assert spec.preprocessing.mean == (0.5, 0.5, 0.5)


def test_a_published_model_is_described_as_open_clip_does() -> None:
    tables = checkpoints._published_table()
    for name, tag in import_open_clip().list_pretrained():
        assert tables[name][tag] == import_open_clip().get_pretrained_cfg(name, tag)


def test_a_model_that_is_not_here_is_an_error_with_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.checkpoints._in_hub_cache", lambda *_: None)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    for text in ("open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:hf-hub:some/model"):
        with pytest.raises(EncoderError, match=f"python -m resources.conversion --fetch {text}$"):
            found(text)


def test_a_tag_is_taken_from_the_cache_and_has_the_id_of_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = b32_visual(tmp_path / "open_clip_model.safetensors")
    monkeypatch.setattr(
        "resources.checkpoints._in_hub_cache",
        lambda repository, name: (
            path
            if (repository, name) == ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", path.name)
            else None
        ),
    )
    by_tag = found("open_clip:ViT-B-32/laion2b_s34b_b79k").spec
    assert by_tag == found(f"open_clip:ViT-B-32/{path}?activation=gelu").spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("open_clip:ViT-B-33/openai", "no architecture 'ViT-B-33'; it has .*ViT-B-32,"),
        ("open_clip:ViT-B-32/openal", "publishes no 'openal' for ViT-B-32; it has .*openai"),
        ("open_clip:ViT-B-32//no/such.safetensors", "there is no weights file /no/such"),
        ("open_clip:/no/such", "there is no open_clip_config.json in /no/such"),
    ],
)
def test_what_does_not_exist_is_named_together_with_what_does(text: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        found(text)


@pytest.mark.parametrize("missing", ["open_clip", "torch"])
def test_without_the_extra_the_error_says_how_to_install_it(
    vit: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        EncoderError, match=r"is not installed; .*pip install 'quire\[conversion\]'"
    ):
        load(f"open_clip:{vit}")


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_a_cut_off_file_is_an_error(vit: Path, tmp_path: Path, size: int) -> None:
    whole = (vit / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:size])
    (tmp_path / "open_clip_config.json").write_text((vit / "open_clip_config.json").read_text())
    with pytest.raises(EncoderError, match=r"is not a safetensors file|is damaged"):
        load(f"open_clip:{tmp_path}")


def test_weights_of_another_architecture_are_an_error(vit: Path, tmp_path: Path) -> None:
    deeper = json.loads(json.dumps(VIT))
    deeper["vision_cfg"]["layers"] = 3
    write_model(tmp_path, deeper)
    weights = (vit / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(weights)
    with pytest.raises(EncoderError, match=r"does not hold a visual tower of .*Missing key"):
        load(f"open_clip:{tmp_path}")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_weights_that_give_nothing_are_an_error_and_never_zeros(
    vit: Path, tmp_path: Path, value: float
) -> None:
    state = load_file(vit / "open_clip_model.safetensors")
    state["visual.proj"] = torch.full_like(state["visual.proj"], value)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "open_clip_config.json").write_text((vit / "open_clip_config.json").read_text())
    with pytest.raises(EncoderError, match="3 of 3 vectors that are zero or not finite"):
        load(f"open_clip:{tmp_path}").embed(pictures(3))


def test_finding_a_checkpoint_imports_neither_torch_nor_open_clip(vit: Path) -> None:
    printed = run(
        """
        import sys
        from core.encoders import parse_encoder
        from resources.checkpoints import find_checkpoint, published
        print(find_checkpoint(parse_encoder(f"open_clip:{sys.argv[1]}")).spec.encoder_id)
        assert published("ViT-B-32", "openai")["quick_gelu"]
        print("torch" in sys.modules, "open_clip" in sys.modules)
        """,
        vit,
    )
    assert printed.splitlines() == [found(f"open_clip:{vit}").spec.encoder_id, "False False"]


def test_nothing_is_declared_where_torchvision_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    import_open_clip()  # by now torchvision imports, by itself or with the declarations

    def unexpected() -> None:
        raise AssertionError

    monkeypatch.setattr("resources.visual_tower._declare_torchvision_operators", unexpected)
    assert import_open_clip().__name__ == "open_clip"


def test_a_torchvision_without_its_compiled_part_still_imports(tmp_path: Path) -> None:
    # Stands for a torchvision whose operators did not load: it wants to describe one of them.
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "@torch.library.register_fake('torchvision::nms')\n"
        "def nms(dets, scores, iou_threshold):\n"
        "    return dets\n"
    )
    (tmp_path / "open_clip.py").write_text("import torchvision\n")
    printed = run(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        from resources.visual_tower import import_open_clip
        print(import_open_clip().__file__)
        import torch
        print(torch.ops.torchvision.nms)
        """,
        tmp_path,
    )
    assert printed.splitlines() == [str(tmp_path / "open_clip.py"), "torchvision.nms"]
