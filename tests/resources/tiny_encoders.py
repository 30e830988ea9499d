"""Encoders that run, made in milliseconds and without torch: two layers of random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from core.encoders import EncoderSpec, Preprocessing, canonical_sha256
from core.parity import Parity, witness_image
from core.runtimes import CONVERTER, MANIFEST, Manifest, Runtime, RuntimeFile, Trial
from resources.checkpoints import file_sha256
from resources.onnx_encoder import INPUT, OUTPUT, OnnxEncoder

SIDE_PX, DIM = 32, 16

PARITY = Parity(200, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0)
TRIAL = Trial(images_per_s=1000.0, base_mb=60.0, peak_mb=80.0, batch=8, cores=1)


def tiny_encoder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A folder with one graph and its manifest.

    Args:
        folder: Made if missing.
        seed: Another one is another encoder.
        **changes: Fields of the runtime in the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    graph = folder / "visual.onnx-f32.onnx"
    weights = {
        "kernel": rng.normal(size=(12, 3, 8, 8)).astype(np.float32),
        "mix": rng.normal(size=(12 * (SIDE_PX // 8) ** 2, DIM)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", [INPUT, "kernel"], ["patches"], strides=[8, 8]),
        helper.make_node("Relu", ["patches"], ["lit"]),
        helper.make_node("Flatten", ["lit"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mix"], [OUTPUT]),
    ]
    shape: list[int | str] = ["batch", 3, SIDE_PX, SIDE_PX]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), graph
    )
    sha256 = file_sha256(graph)
    opened = write_manifest(folder, sha256, (Runtime("onnx-f32", True),))
    (runtime,) = opened.runtimes
    unmeasured = opened.described(runtime)
    encoder = OnnxEncoder(unmeasured, graph, cores=1, batch=1)
    fields: dict[str, Any] = {
        "name": "onnx-f32",
        "passed": True,
        "files": (RuntimeFile(graph.name, sha256, graph.stat().st_size),),
        "parity": PARITY,
        "trial": TRIAL,
        "witness": tuple(map(float, encoder.embed([witness_image()])[0])),
    }
    write_manifest(folder, sha256, (Runtime(**(fields | changes)),))
    return folder


def write_manifest(folder: Path, weights_sha256: str, runtimes: tuple[Runtime, ...]) -> Manifest:
    """Describe a folder as the conversion would."""
    half = (0.5, 0.5, 0.5)
    encoder = EncoderSpec(
        architecture="tiny",
        config_sha256=canonical_sha256("tiny"),
        weights_sha256=weights_sha256,
        activation="architecture",
        dim=DIM,
        preprocessing=Preprocessing(SIDE_PX, SIDE_PX, half, half),
    )
    manifest = Manifest(encoder, CONVERTER, 200, "0" * 64, runtimes)
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest
