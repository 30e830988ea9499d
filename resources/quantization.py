"""Quantization: the graphs of reduced precision, made from the one in full precision."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

WORTH_IT = 0.5
"""Least share of the weights that are in matrix products. The others stay as they are, and a tower
of convolutions would be no smaller and no faster."""

BLOCK = 32
"""Weights that share a scale where they alone have 8 bits."""


def quantize(exact: Path, target: Path, name: str) -> str:
    """Write the graph of one runtime.

    Args:
        exact: The graph in full precision.
        target: Where the other one goes.
        name: ``onnx-w8`` or ``onnx-int8``.

    Returns:
        Why it was not made; empty where it was.
    """
    import onnx

    share = _share_in_products(exact)
    if share < WORTH_IT:
        return f"nothing to gain: {1 - share:.0%} of the weights are not in matrix products"
    if name == "onnx-w8":
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        logging.getLogger("onnxruntime").setLevel(logging.ERROR)
        model = onnx.load(exact)
        quantizer = MatMulNBitsQuantizer(model, bits=8, block_size=BLOCK, is_symmetric=True)
        quantizer.process()
        made: Any = quantizer.model
        made.save_model_to_file(str(target), use_external_data_format=True)
        return ""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        exact,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],
        use_external_data_format=True,
    )
    return ""


def _share_in_products(path: Path) -> float:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    sizes = {weight.name: int(np.prod(weight.dims, dtype=np.int64)) for weight in graph.initializer}
    multiplied = {
        name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        for name in node.input
        if name in sizes
    }
    return sum(sizes[name] for name in multiplied) / max(1, sum(sizes.values()))
