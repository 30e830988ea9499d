"""The graph of a BERT encoder, written straight from its weights file, without torch.

Nearly all small sentence encoders are BERTs (MiniLM, E5, BGE, GTE, and their multilingual kin). For
these, a hundred lines do what torch and its exporter need 700 MB and half a minute for, so that the
default encoder is made within the budget of an ordinary op. ``tests/resources`` holds the two
against each other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.encoders import EncoderError
from resources.checkpoints import safetensors_header
from resources.quantization import ALIGNED
from resources.text_checkpoints import TextCheckpoint
from resources.text_encoder import IDS, MASK, OUTPUT

if TYPE_CHECKING:
    import onnx

_OPSET, _IR = 20, 10
_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
_BLOCK = 1 << 20
"""Bytes copied at a time; the table of words is half of a small encoder."""


def is_plain_bert(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a BERT that the graph below computes."""
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


def write_bert_graph(checkpoint: TextCheckpoint, path: Path) -> None:
    """Write the graph, and its weights to ``<path>.data``, one tensor in memory at a time.

    Args:
        checkpoint: Of a plain BERT.
        path: Where the graph goes.

    Raises:
        EncoderError: The weights do not belong to the configuration.
    """
    import onnx
    from onnx import TensorProto, helper

    with _Writer(checkpoint.weights, path) as writer:
        nodes = _Bert(checkpoint, writer).nodes()
    tokens: list[int | str] = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "sentence_encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in (IDS, MASK)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", checkpoint.spec.dim])],
        writer.tensors,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=_IR), path)


class _Writer:
    """Tensors of a safetensors file on their way into the file beside a graph."""

    def __init__(self, weights: Path, graph: Path) -> None:
        self._path = weights
        self._header = safetensors_header(weights)
        self._start = self._header.pop("__start__")
        self._prefix = "bert." if any(name.startswith("bert.") for name in self._header) else ""
        self._graph = graph
        self.tensors: list[onnx.TensorProto] = []

    def __enter__(self) -> "_Writer":
        self._source = self._path.open("rb")
        self._target = self._graph.with_name(f"{self._graph.name}.data").open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._target.close()

    def weight(self, name: str, *, transposed: bool = False, half: bool = False) -> str:
        """A tensor of the checkpoint, kept in the file beside the graph; its name there.

        Args:
            name: In the checkpoint.
            transposed: Whether rows become columns.
            half: Whether it is kept in half precision.
        """
        entry = self._header.get(self._prefix + name)
        if entry is None or entry["dtype"] not in _DTYPES:
            raise EncoderError(f"{self._path} holds no {name} that can be read")
        dims: list[int] = entry["shape"]
        begin, end = entry["data_offsets"]
        stored = np.dtype(_DTYPES[entry["dtype"]])
        if end - begin != stored.itemsize * np.prod(dims, dtype=np.int64):
            raise EncoderError(f"{name} in {self._path} does not fit the file")
        offset = -(-self._target.tell() // ALIGNED) * ALIGNED
        self._target.seek(offset)
        self._source.seek(self._start + begin)
        if transposed:
            values = np.frombuffer(self._read(end - begin), stored).reshape(dims)
            self._target.write(np.ascontiguousarray(values.T, np.float32).tobytes())
            dims = dims[::-1]
        else:
            for start in range(begin, end, _BLOCK):
                block = self._read(min(_BLOCK, end - start))
                values = np.frombuffer(block, stored)
                self._target.write(values.astype(np.float16 if half else np.float32).tobytes())
        self.tensors.append(self._external(name, dims, offset, half))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A small tensor, kept in the graph itself; its name."""
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) != size:
            raise EncoderError(f"{self._path} is cut off")
        return data

    def _external(
        self, name: str, dims: Sequence[int], offset: int, half: bool
    ) -> "onnx.TensorProto":
        from onnx import TensorProto

        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        tensor = TensorProto(name=name, dims=dims, data_type=kind)
        tensor.data_location = TensorProto.EXTERNAL
        entries = {
            "location": f"{self._graph.name}.data",
            "offset": str(offset),
            "length": str(self._target.tell() - offset),
        }
        for key, value in entries.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        return tensor


class _Bert:
    """The computation, node by node."""

    def __init__(self, checkpoint: TextCheckpoint, writer: _Writer) -> None:
        self._config = checkpoint.config
        self._pooling = checkpoint.spec.pooling
        self._writer = writer
        self._nodes: list[onnx.NodeProto] = []
        self._width = int(self._config["hidden_size"])
        self._heads = int(self._config["num_attention_heads"])

    def nodes(self) -> "list[onnx.NodeProto]":
        """All of them, in order."""
        whole = self._op("Cast", MASK, to=1)
        hidden = self._embedded()
        # What is masked is so far below everything else that it weighs nothing.
        least = self._constant("least", np.float32(np.finfo(np.float32).min / 2))
        away = self._op("Mul", self._op("Sub", self._constant("one", np.float32(1)), whole), least)
        away = self._op("Unsqueeze", away, self._constant("inner", np.array([1, 2])))
        for layer in range(int(self._config["num_hidden_layers"])):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, away)
        self._pooled(hidden, whole)
        return self._nodes

    def _embedded(self) -> str:
        weight = self._writer.weight
        # Half of a small encoder is the table of its words. Rounding them turns a vector by less
        # than the order of additions does, and a process that encodes holds 24 MB less.
        words = self._op("Gather", weight("embeddings.word_embeddings.weight", half=True), IDS)
        words = self._op("Cast", words, to=1)
        length = self._op("Shape", IDS, start=1, end=2)
        places = self._op(
            "Slice",
            weight("embeddings.position_embeddings.weight"),
            self._constant("begin", np.array([0])),
            length,
            self._constant("first_axis", np.array([0])),
        )
        kinds = self._op(
            "Gather",
            weight("embeddings.token_type_embeddings.weight"),
            self._constant("first_kind", np.int64(0)),
        )
        found = self._op("Add", words, self._op("Add", places, kinds))
        return self._normed("embeddings.LayerNorm", found)

    def _layer(self, name: str, hidden: str, away: str) -> str:
        attention = f"{name}.attention"
        query, key, value = (
            self._linear(f"{attention}.self.{part}", hidden) for part in ("query", "key", "value")
        )
        each = self._width // self._heads
        split = self._constant(f"{name}.split", np.array([0, 0, self._heads, each]))
        query, value = (
            self._op("Transpose", self._op("Reshape", part, split), perm=[0, 2, 1, 3])
            for part in (query, value)
        )
        key = self._op("Transpose", self._op("Reshape", key, split), perm=[0, 2, 3, 1])
        scale = self._constant(f"{name}.scale", np.float32(each**-0.5))
        scores = self._op("Mul", self._op("MatMul", query, key), scale)
        shares = self._op("Softmax", self._op("Add", scores, away), axis=-1)
        mixed = self._op("Transpose", self._op("MatMul", shares, value), perm=[0, 2, 1, 3])
        joined = self._constant(f"{name}.joined", np.array([0, 0, self._width]))
        mixed = self._op("Reshape", mixed, joined)
        mixed = self._linear(f"{attention}.output.dense", mixed)
        hidden = self._normed(f"{attention}.output.LayerNorm", self._op("Add", mixed, hidden))
        inner = self._op("Gelu", self._linear(f"{name}.intermediate.dense", hidden))
        outer = self._linear(f"{name}.output.dense", inner)
        return self._normed(f"{name}.output.LayerNorm", self._op("Add", outer, hidden))

    def _pooled(self, hidden: str, whole: str) -> None:
        tokens = self._constant("tokens_axis", np.array([1]))
        if self._pooling == "cls":
            first = self._constant("first_token", np.int64(0))
            self._op("Gather", hidden, first, axis=1, named=OUTPUT)
            return
        weights = self._op("Unsqueeze", whole, self._constant("last_axis", np.array([2])))
        total = self._op("ReduceSum", self._op("Mul", hidden, weights), tokens, keepdims=0)
        self._op("Div", total, self._op("ReduceSum", weights, tokens, keepdims=0), named=OUTPUT)

    def _linear(self, name: str, given: str) -> str:
        weight = self._writer.weight(f"{name}.weight", transposed=True)
        product = self._op("MatMul", given, weight)
        return self._op("Add", product, self._writer.weight(f"{name}.bias"))

    def _normed(self, name: str, given: str) -> str:
        scale, shift = (self._writer.weight(f"{name}.{part}") for part in ("weight", "bias"))
        epsilon = float(self._config["layer_norm_eps"])
        return self._op("LayerNormalization", given, scale, shift, axis=-1, epsilon=epsilon)

    def _constant(self, name: str, values: Any) -> str:
        return self._writer.constant(name, np.asarray(values))

    def _op(self, kind: str, *given: str, named: str = "", **options: Any) -> str:
        from onnx import helper

        output = named or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(given), [output], **options))
        return output
