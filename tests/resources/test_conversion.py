"""Conversion of a tiny vision transformer with random weights, and the gate, both ways."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest

pytest.importorskip("torch")

from core.encoders import EncoderError, Vectors, parse_encoder
from core.errors import InputError
from core.parity import Measured, compare, refusal
from core.runtimes import EXACT, MANIFEST, Manifest
from resources import conversion
from resources.checkpoints import Checkpoint, find_checkpoint
from resources.encoder import Encoder
from resources.encoder_folder import folder_encoder
from resources.onnx_encoder import OnnxEncoder
from resources.quantization import quantize
from resources.trial import in_batches, pictures_in, run_trial
from resources.visual_tower import VisualTower, graph_name
from tests.resources.test_visual_tower import VIT, write_model

WIDER = VIT | {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 64,
        "head_width": 16,
        "patch_size": 16,
        "pool_type": "avg",
    },
}
IMAGES = 200


def write_wider(folder: Path) -> Path:
    """Random weights as they are trained to be: large enough for activations to bend."""
    from safetensors.torch import load_file, save_file

    path = write_model(folder, WIDER) / "open_clip_model.safetensors"
    state = load_file(path)
    for name, larger in (("conv1", 10.0), ("c_fc.weight", 4.0)):
        for key in [key for key in state if key.startswith("visual.") and name in key]:
            state[key] *= larger
    save_file(state, path)
    return folder


@dataclass(frozen=True)
class Converted:
    checkpoint: Path
    out: Path
    pictures: list[Path]
    manifest: Manifest
    reference: Measured

    @property
    def found(self) -> Checkpoint:
        return found(self.checkpoint)


def found(folder: Path) -> Checkpoint:
    choice = parse_encoder(f"open_clip:{folder}")
    assert choice is not None
    return find_checkpoint(choice)


def drawn(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        side = 2 << int(rng.integers(0, 4))
        coarse = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        PIL.Image.fromarray(coarse).resize((60, 44)).save(folder / f"{number:03d}.png")
    return pictures_in(folder, count)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    folder = tmp_path_factory.mktemp("conversion")
    checkpoint = write_wider(folder / "checkpoint")
    pictures = drawn(folder / "pictures", IMAGES)
    choice = parse_encoder(f"open_clip:{checkpoint}")
    assert choice is not None
    manifest = conversion.convert(choice, pictures, folder / "out", cores=1)
    tower = VisualTower(found(checkpoint), cores=1)
    images, edited = (
        np.concatenate([tower.embed(part) for part in in_batches(pictures, 8, planted=planted)])
        for planted in (False, True)
    )
    return Converted(checkpoint, folder / "out", pictures, manifest, Measured(images, edited))


def vectors(graph: Path, converted: Converted, planted: bool) -> Vectors:
    encoder = OnnxEncoder(converted.found.spec, graph, cores=1, batch=8)
    parts = in_batches(converted.pictures, 8, planted=planted)
    return np.concatenate([encoder.embed(part) for part in parts])


def verdict(graph: Path, converted: Converted, *, exact: bool = False) -> str:
    made = Measured(vectors(graph, converted, False), vectors(graph, converted, True))
    return refusal(compare(converted.reference, made), exact=exact)


def test_a_good_export_passes(converted: Converted) -> None:
    exact, blocks, whole = converted.manifest.runtimes
    assert (exact.name, exact.passed, exact.reason) == ("onnx-f32", True, "")
    assert (blocks.name, blocks.passed, blocks.reason) == ("onnx-w8", True, "")
    assert whole.name == "onnx-int8"  # what it loses depends on the processor
    assert whole.parity is not None
    assert whole.parity.worst > 0.99
    assert whole.passed == (not whole.reason)
    assert whole.passed == bool(whole.files)
    assert converted.manifest.images == IMAGES
    assert {path.name for path in converted.out.iterdir()} == {
        MANIFEST,
        "open_clip_config.json",
        *(file.name for runtime in converted.manifest.runtimes for file in runtime.files),
    }


def test_the_folder_runs_as_it_is_and_gives_what_torch_gives(converted: Converted) -> None:
    encoder = Encoder(spec=f"open_clip:{converted.out}")
    parts = in_batches(converted.pictures[:9], 8)
    made = np.concatenate([encoder.embed(part) for part in parts])
    assert np.sum(made * converted.reference.images[:9], axis=1).min() > 0.999
    described = encoder.describe()
    assert described == replace(converted.found.spec, runtime=described.runtime)


def scaled(graph: Path) -> None:
    """Half the weights of one layer, twice as large."""
    model = onnx.load(graph)
    largest = max(model.graph.initializer, key=lambda weight: np.prod(weight.dims))
    values = onnx.numpy_helper.to_array(largest).copy()
    values[: len(values) // 2] *= 2
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    onnx.save(model, graph)


def other_activation(graph: Path) -> None:
    """What QuickGELU weights computed with GELU look like: x * sigmoid(1.702 x) in its place."""
    model = onnx.load(graph)
    (nodes, helper) = (model.graph.node, onnx.helper)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(1.702, np.float32), "slope")
    )
    replaced: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type != "Gelu":
            replaced.append(node)
            continue
        given, out = node.input[0], node.output[0]
        replaced += [
            helper.make_node("Mul", [given, "slope"], [f"{out}.steep"]),
            helper.make_node("Sigmoid", [f"{out}.steep"], [f"{out}.gate"]),
            helper.make_node("Mul", [given, f"{out}.gate"], [out]),
        ]
    assert len(replaced) > len(nodes)
    del nodes[:]
    nodes.extend(replaced)
    onnx.save(model, graph)


def four_bits(graph: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(graph), bits=4, block_size=32)
    quantizer.process()
    assert quantizer.model is not None
    onnx.save(quantizer.model.model, graph)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("spoil", "exact"),
    [
        (scaled, False),
        (four_bits, False),
        (scaled, True),
        (four_bits, True),
        (other_activation, True),  # with random weights it changes less than 8 bits do
    ],
)
def test_a_broken_export_is_refused(
    converted: Converted, tmp_path: Path, spoil: Callable[[Path], None], exact: bool
) -> None:
    for path in converted.out.glob("visual.onnx-f32*"):
        shutil.copy(path, tmp_path)
    graph = tmp_path / graph_name(EXACT)
    assert verdict(graph, converted, exact=exact) == ""
    spoil(graph)
    assert verdict(graph, converted, exact=exact) != ""


def test_files_that_are_refused_are_not_kept(converted: Converted, tmp_path: Path) -> None:
    for path in converted.out.glob("visual.onnx-f32*"):
        shutil.copy(path, tmp_path)
    scaled(tmp_path / graph_name(EXACT))
    runtime = conversion._judged(
        EXACT, converted.found, converted.pictures, converted.reference, tmp_path, 1, 8
    )
    assert not runtime.passed
    assert runtime.reason
    assert (runtime.files, list(tmp_path.iterdir())) == ((), [])


def test_a_process_takes_no_more_than_the_manifest_says(converted: Converted) -> None:
    for runtime in (runtime for runtime in converted.manifest.runtimes if runtime.passed):
        assert runtime.trial is not None
        spec = converted.manifest.described(runtime)
        graph = converted.out / runtime.files[0].name
        _, trial, witness = run_trial(spec, graph, converted.pictures[:40], cores=1, batch=8)
        assert trial.peak_mb <= 1.2 * runtime.trial.peak_mb
        np.testing.assert_allclose(witness, runtime.witness, atol=1e-4)
        assert not list(converted.out.glob("*.npz"))


def test_too_few_images_leave_full_precision_alone(tmp_path: Path) -> None:
    checkpoint = write_model(tmp_path / "checkpoint", WIDER)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "resources.conversion", f"open_clip:{checkpoint}"]
    empty = tmp_path / "none"
    empty.mkdir()
    command += ["--images", str(empty), "--out", str(out), "--cores", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "onnx-w8: not used: needs 200 real images, had 0" in done.stdout
    made = folder_encoder(out)
    assert made is not None
    assert [runtime.passed for runtime in made.manifest.runtimes] == [True, False, False]
    assert json.loads((out / "open_clip_config.json").read_text())["model_cfg"] == WIDER

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    command[3] = f"open_clip:{out}"
    runs = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "runs as it is" in runs.stderr


def test_a_folder_that_is_there_is_left_alone(converted: Converted) -> None:
    choice = parse_encoder(f"open_clip:{converted.checkpoint}")
    assert choice is not None
    with pytest.raises(InputError, match="is there already"):
        conversion.convert(choice, converted.pictures, converted.out, cores=1)


def test_nothing_is_left_where_conversion_fails(tmp_path: Path) -> None:
    checkpoint = write_model(tmp_path / "checkpoint", WIDER)
    weights = checkpoint / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    choice = parse_encoder(f"open_clip:{checkpoint}")
    assert choice is not None
    with pytest.raises(EncoderError, match=r"safetensors file|damaged"):
        conversion.convert(choice, drawn(tmp_path / "pictures", 2), tmp_path / "out", cores=1)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "pictures"}


def test_a_tower_of_convolutions_gains_nothing_from_smaller_products(tmp_path: Path) -> None:
    from tests.resources.tiny_encoders import tiny_encoder

    graph = tiny_encoder(tmp_path) / "visual.onnx-f32.onnx"
    model = onnx.load(graph)
    wide = np.zeros((400, 3, 8, 8), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(wide, "more"))
    onnx.save(model, graph)
    assert "nothing to gain: 96%" in quantize(graph, tmp_path / "other.onnx", "onnx-int8")
    assert not (tmp_path / "other.onnx").exists()
