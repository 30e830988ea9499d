"""The default text encoder for real, and small ones with random weights, beside torch."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import resources.text_conversion
from core.encoders import EncoderError
from core.text_encoders import NotConvertedError, TextEncoder, parse_text_encoder
from core.text_runtimes import (
    EXACT,
    RUNTIMES,
    TextBatch,
    recorded_manifest,
    recorded_reference,
    sample_texts,
    text_checkpoint_sha256,
)
from resources.image_files import StoredFiles
from resources.text_checkpoints import find_text_checkpoint, known_here
from resources.text_conversion import convert_text
from resources.text_encoder import (
    OnnxTextEncoder,
    describe_text_encoder,
    keep_text,
    open_text_encoder,
    open_tokens,
    text_folder,
)
from tests.resources.tiny_text_encoders import distilbert_checkpoint, tiny_checkpoint

ROOT = Path(__file__).parents[2]
LONG = "the tenant and the lease " * 200


@pytest.fixture(scope="session")
def encoder(minilm: str) -> TextEncoder:
    return open_text_encoder(minilm, None)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a.astype(np.float64) * b.astype(np.float64), axis=1)


def test_the_default_encoder_is_made_without_torch_and_agrees_with_the_record(
    minilm: str, encoder: TextEncoder
) -> None:
    folder = text_folder(Path(parse_text_encoder(minilm).name))
    assert folder is not None
    manifest = folder.manifest
    assert manifest.reference == "recorded"
    exact, *others = manifest.runtimes
    assert exact.name == EXACT
    assert exact.passed
    for other in others:  # what does not agree is not kept
        assert other.passed == (not other.reason) == bool(other.files)
    recorded = recorded_reference(manifest.checkpoint)
    assert recorded is not None
    seen = encoder.encode(sample_texts(), "passage")
    assert cosines(recorded, seen.vectors).min() >= 0.999
    np.testing.assert_allclose(np.linalg.norm(seen.vectors, axis=1), 1, atol=1e-5)
    assert encoder.spec.max_tokens == 256


def test_what_is_on_record_is_what_comparing_anew_gives(tmp_path: Path) -> None:
    choice = parse_text_encoder("minilm")
    recorded = recorded_manifest(text_checkpoint_sha256(find_text_checkpoint(choice).spec))
    assert recorded is not None
    said: list[str] = []
    assert convert_text(choice, tmp_path / "known", cores=1, tell=said.append) == recorded
    assert len(said) == 2
    said.clear()
    again = convert_text(choice, tmp_path / "new", cores=1, compare=True, tell=said.append)
    assert [line.partition(":")[0] for line in said[1:]] == [*RUNTIMES]
    assert [(r.name, r.passed, r.files) for r in again.runtimes] == [
        (r.name, r.passed, r.files) for r in recorded.runtimes
    ]


def test_the_record_is_what_torch_computes() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from resources.text_tower import TextTower

    checkpoint = find_text_checkpoint(parse_text_encoder("minilm"))
    texts = sample_texts()[::3]
    tower = TextTower(checkpoint, cores=1)
    recorded = recorded_reference(text_checkpoint_sha256(checkpoint.spec))
    assert recorded is not None
    assert cosines(tower.embed(texts), recorded[::3]).min() >= 0.99999


def test_like_is_near_to_like(encoder: TextEncoder) -> None:
    passages = encoder.encode(
        ["The tenant pays a deposit of two months' rent.", "Cells were stained with DAPI."],
        "passage",
    ).vectors
    (asked,) = encoder.encode(["How much security does the renter have to give?"], "query").vectors
    near, far = passages @ asked
    assert near > far + 0.3


def test_what_is_beyond_the_window_is_counted(encoder: TextEncoder) -> None:
    whole = encoder.count(LONG, "passage")
    read = encoder.encode(["short", LONG], "passage")
    assert read.tokens == (3, 256)
    assert read.cut == (0, whole - 256)
    assert whole == 1002
    assert encoder.encode(["\U0001f984 ok"], "passage").unknown == (1,)


def test_vectors_do_not_depend_on_their_neighbours(minilm: str, encoder: TextEncoder) -> None:
    texts = ["a", LONG, "the rent", "a lease of land", "b " * 60]
    together = encoder.encode(texts, "passage").vectors
    alone = np.concatenate([encoder.encode([text], "passage").vectors for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_a_batch_that_does_not_fit_is_halved_down_to_one_text(
    minilm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = text_folder(Path(parse_text_encoder(minilm).name))
    assert found is not None
    runtime = found.manifest.chosen()
    with found.opened(runtime) as graph:
        small = OnnxTextEncoder(
            found.manifest, runtime, graph, cores=1, batch=TextBatch(texts=8, tokens=512)
        )
    forward, sizes = small._forward, []

    def scarce(ids: Sequence[Sequence[int]]) -> np.ndarray:
        sizes.append(len(ids))
        if len(ids) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer")
        return forward(ids)

    monkeypatch.setattr(small, "_forward", scarce)
    texts = [f"text {number}" for number in range(8)]
    seen = small.encode(texts, "passage").vectors
    assert sizes[:3] == [8, 4, 2]
    assert len(seen) == 8
    monkeypatch.setattr(small, "_forward", lambda ids: scarce([ids[0]] * 3))
    with pytest.raises(MemoryError):
        small.encode(texts, "passage")


def test_a_file_that_is_not_what_was_compared_is_refused(minilm: str, tmp_path: Path) -> None:
    found = text_folder(Path(parse_text_encoder(minilm).name))
    assert found is not None
    images = StoredFiles((tmp_path / "store").as_uri())
    with pytest.raises(NotConvertedError, match="quire read PATH does it"):
        describe_text_encoder("minilm", images)
    stored = keep_text(images, found)
    assert describe_text_encoder("minilm", images) == describe_text_encoder(minilm, None)
    assert open_tokens("minilm", images).count("rent", "query") == 3
    place = tmp_path / "store" / "text-encoders" / stored.sha256
    graph, tokenizer = found.manifest.chosen().files[0].name, "tokenizer.json"
    (place / graph).rename(place / "away")
    with pytest.raises(EncoderError, match=f"{graph} is missing"):
        open_text_encoder("minilm", images)
    (place / "away").rename(place / graph)
    (place / tokenizer).write_text("another tokenizer")
    with pytest.raises(EncoderError, match=r"tokenizer.*SHA-256 differs"):
        open_text_encoder("minilm", images)


def test_what_encodes_needs_neither_torch_nor_transformers_nor_dagster(minilm: str) -> None:
    program = f"""
import sys
from resources.text_encoder import open_text_encoder
vectors = open_text_encoder({minilm!r}, None).encode(["a lease"], "query").vectors
unwanted = {{"torch", "transformers", "dagster", "onnx", "cv2"}}
print(vectors.shape, sorted(unwanted & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "(1, 384) []"


def test_a_bert_is_written_as_torch_computes_it(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from resources.bert_graph import is_plain_bert, write_bert_graph
    from resources.text_tower import TextTower

    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    folder = tiny_checkpoint(tmp_path / "tiny", pooling=pooling)
    checkpoint = find_text_checkpoint(parse_text_encoder(f"sentence-transformers:{folder}"))
    assert checkpoint.spec.pooling == "cls"
    assert is_plain_bert(checkpoint.config)
    write_bert_graph(checkpoint, tmp_path / "text.onnx")
    ids = np.arange(4, 28).reshape(2, 12)
    session = onnxruntime.InferenceSession(str(tmp_path / "text.onnx"))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    found = np.asarray(session.run(["features"], {"ids": ids, "mask": mask})[0])
    tower = TextTower(checkpoint, cores=1)
    # Words are kept in half precision.
    np.testing.assert_allclose(found[0], tower.run(ids[:1])[0], atol=1e-3)
    np.testing.assert_allclose(found[1], tower.run(ids[1:, :5])[0], atol=1e-3)


def test_another_architecture_becomes_what_torch_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from resources.text_tower import TextTower

    folder = distilbert_checkpoint(tmp_path / "e5-small")
    choice = parse_text_encoder(f"sentence-transformers:{folder}")
    # One import of torch for all steps; the default encoder is made by steps that are processes.
    monkeypatch.setattr(resources.text_conversion, "in_own_process", lambda work, *a: work(*a))
    manifest = convert_text(choice, tmp_path / "converted", cores=1)
    assert manifest.reference == "torch"
    encoder = open_text_encoder(f"sentence-transformers:{tmp_path / 'converted'}", None)
    assert (encoder.spec.query_prefix, encoder.spec.pooling) == ("query: ", "mean")
    texts = ["the tenant", "cells and image panel of a blot in the lease, rent.", LONG]
    expected = TextTower(find_text_checkpoint(choice), cores=1).embed(texts)
    seen = encoder.encode(texts, "passage")
    assert cosines(expected, seen.vectors).min() >= 0.999
    assert seen.tokens[-1] == 32
    asked = encoder.encode(texts, "query").vectors
    assert cosines(asked, seen.vectors).max() < 0.9999  # the prefix is read


def test_what_decides_vectors_in_an_unknown_way_is_refused(tmp_path: Path) -> None:

    pooled = tiny_checkpoint(tmp_path / "a", pooling={"pooling_mode_max_tokens": True})
    with pytest.raises(EncoderError, match="mean and cls are known"):
        find_text_checkpoint(parse_text_encoder(f"sentence-transformers:{pooled}"))
    modules = [{"type": "sentence_transformers.models.Dense"}]
    dense = tiny_checkpoint(tmp_path / "b", modules=modules)
    with pytest.raises(EncoderError, match="Dense behind the transformer"):
        find_text_checkpoint(parse_text_encoder(f"sentence-transformers:{dense}"))
    (dense / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model\.safetensors missing"):
        find_text_checkpoint(parse_text_encoder(f"sentence-transformers:{dense}"))
    with pytest.raises(EncoderError, match="hf download nobody/nothing"):
        find_text_checkpoint(parse_text_encoder("sentence-transformers:nobody/nothing"))
    assert known_here("nobody/nothing") is None
