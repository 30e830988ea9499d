"""Text encoders with random weights and few words: as they are published, and as they run."""

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np

from core.runtimes import MANIFEST, RuntimeFile
from core.text_encoders import parse_text_encoder
from core.text_runtimes import TEXT_CONVERTER, TextManifest, TextRuntime
from resources.bert_graph import write_bert_graph
from resources.checkpoints import file_sha256
from resources.text_checkpoints import find_text_checkpoint

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ":", ".", ",", "-"]
WORDS += ["the", "tenant", "rent", "lease", "of", "and", "cells", "query", "passage"]
WORDS += [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
WIDTH, INNER, LAYERS, HEADS, PLACES = 24, 48, 2, 3, 64


def tiny_checkpoint(folder: Path, *, seed: int = 0, window: int = 32, **beside: Any) -> Path:
    """A BERT of two layers, as sentence-transformers would publish it.

    Args:
        folder: Made if missing.
        seed: Another one is another encoder.
        window: Tokens that it reads.
        **beside: Contents of further files, such as ``pooling={...}``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": PLACES,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": len(WORDS),
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
        for part in (*parts, "attention.output.dense"):
            shapes |= {f"{name}.{part}.weight": (WIDTH, WIDTH), f"{name}.{part}.bias": (WIDTH,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{name}.{part}.weight": (WIDTH,), f"{name}.{part}.bias": (WIDTH,)}
        shapes |= {f"{name}.intermediate.dense.weight": (INNER, WIDTH)}
        shapes |= {f"{name}.intermediate.dense.bias": (INNER,)}
        shapes |= {f"{name}.output.dense.weight": (WIDTH, INNER)}
        shapes |= {f"{name}.output.dense.bias": (WIDTH,)}
    rng = np.random.default_rng(seed)
    _write_weights(
        folder / "model.safetensors",
        {name: rng.normal(size=shape, scale=0.5) for name, shape in shapes.items()},
    )
    write_tokenizer(folder / "tokenizer.json")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": window}))
    for name, content in beside.items():
        path = folder / {"pooling": "1_Pooling/config.json", "modules": "modules.json"}[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def tiny_text_encoder(folder: Path, *, seed: int = 0, window: int = 32) -> str:
    """The same in the form that runs, compared with nothing, as a setting names it."""
    checkpoint = find_text_checkpoint(
        parse_text_encoder(
            f"sentence-transformers:{tiny_checkpoint(folder / 'from', seed=seed, window=window)}"
        )
    )
    made = folder / "tiny"
    made.mkdir()
    graph = made / "text.onnx-f32.onnx"
    write_bert_graph(checkpoint, graph)
    write_tokenizer(made / "tokenizer.json")
    graph_file, weights, tokenizer = (
        RuntimeFile(path.name, file_sha256(path), path.stat().st_size)
        for path in (graph, graph.with_name(f"{graph.name}.data"), made / "tokenizer.json")
    )
    runtime = TextRuntime("onnx-f32", True, "", 1.0, (graph_file, weights))
    manifest = TextManifest(
        checkpoint.spec, TEXT_CONVERTER, "torch", 24, tokenizer, 0, 1, (runtime,)
    )
    (made / MANIFEST).write_text(manifest.to_json())
    return f"sentence-transformers:{made}"


def distilbert_checkpoint(folder: Path) -> Path:
    """A model of another architecture, which torch exports."""
    import torch
    import transformers
    from safetensors.torch import save_file

    from resources.visual_tower import import_torchvision_for

    import_torchvision_for("transformers")
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=len(WORDS), dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=INNER,
        max_position_embeddings=PLACES, initializer_range=0.6, architectures=["DistilBertModel"],
    )  # fmt: skip
    model = transformers.DistilBertModel(config)
    (folder / "config.json").write_text(config.to_json_string())
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder / "tokenizer.json")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32}))
    return folder


def _write_weights(path: Path, weights: dict[str, np.ndarray]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in weights.items():
        written = values.astype(np.float32).tobytes()
        places = [len(data), len(data) + len(written)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": places}
        data += written
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_tokenizer(path: Path) -> None:
    """With the special tokens of a BERT, cutting far too early, as published files do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(max_length=8)
    tokenizer.save(str(path))
