"""Quantization: the graphs of reduced precision, made from the one in full precision."""

import logging
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from resources.onnx_session import import_onnxruntime

if TYPE_CHECKING:
    import onnx

WORTH_IT = 0.5
"""Least share of the weights that are in matrix products. The others stay as they are, and a tower
of convolutions would be no smaller and no faster."""

BLOCK = 64
"""Weights that share a scale in ``onnx-w8``, and inputs that they are multiplied with."""

BYTES_IN_BYTES_OUT = 4
"""ONNX Runtime's ``accuracy_level`` at which blocks of inputs are rounded to bytes, too. To compute
with weights of bytes in full takes longer than full precision throughout."""

ALIGNED = 4096
"""Weights begin at pages of their file, so that they can be mapped."""


def quantize(exact: Path, target: Path, name: str, worth_it: float = WORTH_IT) -> str:
    """Write the graph of one runtime.

    Args:
        exact: The graph in full precision, its weights in ``<name>.data`` beside it.
        target: Where the other one goes, likewise.
        name: ``onnx-w8`` or ``onnx-int8``.
        worth_it: Least share of the weights in matrix products for which it is made.

    Returns:
        Why it was not made; empty where it was.
    """
    import onnx

    model = onnx.load(exact, load_external_data=False)
    share = _share_in_products(model.graph)
    if share < worth_it:
        return f"nothing to gain: {1 - share:.0%} of the weights are not in matrix products"
    if name == "onnx-w8":
        _weights_in_blocks(exact, target)
    else:
        _weights_and_activations(model, exact, target)
    return ""


def _share_in_products(graph: "onnx.GraphProto") -> float:
    sizes = {weight.name: int(np.prod(weight.dims, dtype=np.int64)) for weight in graph.initializer}
    multiplied = {
        name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        for name in node.input
        if name in sizes
    }
    return sum(sizes[name] for name in multiplied) / max(1, sum(sizes.values()))


def _weights_in_blocks(exact: Path, target: Path) -> None:
    import onnx

    import_onnxruntime()
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.getLogger("onnxruntime").setLevel(logging.ERROR)
    quantizer = MatMulNBitsQuantizer(
        onnx.load(exact), bits=8, block_size=BLOCK, accuracy_level=BYTES_IN_BYTES_OUT
    )
    quantizer.process()
    made: Any = quantizer.model
    made.save_model_to_file(str(target), use_external_data_format=True)


def _weights_and_activations(model: "onnx.ModelProto", exact: Path, target: Path) -> None:
    """Quantize every product with constant weights, one tensor in memory at a time.

    Weights have a scale per output, activations one per tensor, found as they come.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {weight.name: weight for weight in graph.initializer}
    weights_of = {
        node.input[1]: _is_transposed(node)
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants
    }
    added: list[onnx.TensorProto] = []
    with _Weights(exact) as source, _beside(target).open("wb") as file:
        for weight in graph.initializer:
            if weight.name not in weights_of:
                if weight.external_data:
                    _write(file, weight, source.bytes_of(weight), target)
                continue
            values = source.floats_of(weight)
            levels, scales = _levels(values.T if weights_of[weight.name] else values)
            added.append(numpy_helper.from_array(scales, f"{weight.name}.scales"))
            middle = np.zeros(len(scales), np.int8)
            added.append(numpy_helper.from_array(middle, f"{weight.name}.middle"))
            weight.dims[:] = levels.shape
            weight.data_type = helper.np_dtype_to_tensor_dtype(levels.dtype)
            weight.ClearField("raw_data")
            _write(file, weight, levels.tobytes(), target)
    graph.initializer.extend(added)
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        nodes += _quantized(node, nodes) if set(node.input[1:2]) & set(weights_of) else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    target.write_bytes(model.SerializeToString())


def _quantized(node: "onnx.NodeProto", before: list[Any]) -> list[Any]:
    """The nodes that take a product's place; its input is quantized once for all that use it."""
    from onnx import TensorProto, helper

    given, weight = node.input[0], node.input[1]
    parts = [f"{given}.levels", f"{given}.scale", f"{given}.middle"]
    made: list[Any] = []
    if not any(parts[0] in earlier.output for earlier in before):
        made.append(helper.make_node("DynamicQuantizeLinear", [given], parts))
    out = node.output[0]
    product = f"{out}.product" if len(node.input) > 2 else out
    made += [
        helper.make_node(
            "MatMulInteger", [parts[0], weight, parts[2], f"{weight}.middle"], [f"{out}.sums"]
        ),
        helper.make_node("Cast", [f"{out}.sums"], [f"{out}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [parts[1], f"{weight}.scales"], [f"{out}.scales"]),
        helper.make_node("Mul", [f"{out}.float", f"{out}.scales"], [product]),
    ]
    if len(node.input) > 2:
        made.append(helper.make_node("Add", [product, node.input[2]], [out]))
    return made


def _is_transposed(node: "onnx.NodeProto") -> bool:
    """Whether a product takes its weights transposed.

    Raises:
        ValueError: It is of a form that exporters do not write for a layer.
    """
    given = {attribute.name: attribute for attribute in node.attribute}
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0.0}
    for name, value in plain.items():
        if name in given and float(given[name].f or given[name].i) != value:
            raise ValueError(f"{node.op_type} with {name} is not a layer")
    return "transB" in given and given["transB"].i == 1


def _levels(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Bytes and scales of weights of shape (inputs, outputs); a scale for each output.

    Signed bytes are what processors have their fastest instructions for. Those without VNNI add
    products in 16 bits and cut off what does not fit; a runtime that computes otherwise than where
    it was measured is refused when it is loaded.
    """
    scales = np.abs(values).max(axis=0) / np.float32(127)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    return np.ascontiguousarray(np.rint(values / scales).astype(np.int8)), scales


def _write(file: BinaryIO, weight: "onnx.TensorProto", data: bytes, target: Path) -> None:
    from onnx import TensorProto

    offset = -(-file.tell() // ALIGNED) * ALIGNED
    file.seek(offset)
    file.write(data)
    entries = {"location": _beside(target).name, "offset": str(offset), "length": str(len(data))}
    del weight.external_data[:]
    for key, value in entries.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    weight.data_location = TensorProto.EXTERNAL


def _beside(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.data")


class _Weights:
    """Weights of a graph, read from the file beside it as they are asked for."""

    def __init__(self, graph: Path) -> None:
        with _beside(graph).open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> "_Weights":
        return self

    def __exit__(self, *_: object) -> None:
        self._mapped.close()

    def bytes_of(self, weight: "onnx.TensorProto") -> bytes:
        place = {entry.key: entry.value for entry in weight.external_data}
        offset, length = int(place.get("offset", "0")), int(place["length"])
        return self._mapped[offset : offset + length]

    def floats_of(self, weight: "onnx.TensorProto") -> NDArray[np.float32]:
        from onnx import numpy_helper

        if not weight.external_data:
            return numpy_helper.to_array(weight)
        flat = np.frombuffer(self.bytes_of(weight), np.float32)
        return flat.reshape(tuple(weight.dims))
