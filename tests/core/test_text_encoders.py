from dataclasses import replace

import numpy as np
import pytest

from core.addresses import host_and_port, is_public
from core.encoders import EncoderError
from core.runtimes import RuntimeFile
from core.text_encoders import (
    E5_PREFIXES,
    NO_PREFIXES,
    TextEncoderChoice,
    TextEncoderSpec,
    checked_vectors,
    each_text_encoder,
    parse_text_encoder,
    prefixes_of,
    require_agreement,
)
from core.text_runtimes import (
    TextManifest,
    TextRuntime,
    recorded_reference,
    sample_texts,
    text_checkpoint_sha256,
    text_refusal,
    worst_cosine,
)

SPEC = TextEncoderSpec("org/some-model", "r1", "w" * 64, "c" * 64, "t" * 64, dim=4, max_tokens=32)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("", TextEncoderChoice("package", "all-MiniLM-L6-v2")),
        (" minilm ", TextEncoderChoice("package", "all-MiniLM-L6-v2")),
        (
            "sentence-transformers:intfloat/multilingual-e5-small",
            TextEncoderChoice("hub", "intfloat/multilingual-e5-small"),
        ),
        (
            "sentence-transformers:/models/mine?prefixes=e5",
            TextEncoderChoice("folder", "/models/mine", prefixes=E5_PREFIXES),
        ),
        (
            "hf:org/name@384",
            TextEncoderChoice(
                "hf",
                "org/name",
                "https://router.huggingface.co/hf-inference/models/org/name/pipeline",
                384,
            ),
        ),
        (
            "openai:https://host:8443/v1/#a/b@c@1536?window=8191&prefixes=none",
            TextEncoderChoice("openai", "a/b@c", "https://host:8443/v1", 1536, 8191, NO_PREFIXES),
        ),
    ],
)
def test_a_setting_names_an_encoder_and_is_written_as_it_is_read(
    text: str, choice: TextEncoderChoice
) -> None:
    assert parse_text_encoder(text) == choice
    assert parse_text_encoder(str(choice)) == choice


@pytest.mark.parametrize(
    "text",
    [
        "bert",
        "sentence-transformers:name",
        "sentence-transformers:org/name?window=4",
        "sentence-transformers:org/name?prefixes=mine",
        "hf:org/name",
        "hf:org/name@0",
        "hf:../name@3",
        "openai:https://host/v1@3",
        "openai:https://user:secret@host/v1#m@3",
        "openai:ftp://host/v1#m@3",
        "openai:https://#m@3",
        "openai:https://host/v1#m@9999",
    ],
)
def test_what_names_no_encoder_is_an_error_that_says_what_does(text: str) -> None:
    with pytest.raises(EncoderError, match=r"write|append|says"):
        parse_text_encoder(text)


def test_two_settings_stand_beside_each_other() -> None:
    both = "minilm  sentence-transformers:/my models/e5 minilm hf:a/b@3"
    assert each_text_encoder(both) == ["minilm", "sentence-transformers:/my models/e5", "hf:a/b@3"]
    assert each_text_encoder(" ") == ["minilm"]


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("intfloat/multilingual-e5-small", "query: "),
        ("intfloat/e5-base-v2", "query: "),
        ("sentence-transformers/all-MiniLM-L6-v2", ""),
        ("someone/love5-small", ""),
    ],
)
def test_published_models_bring_their_prefixes(name: str, query: str) -> None:
    assert prefixes_of(name).query == query


def test_whatever_changes_vectors_changes_the_id_and_names_do_not() -> None:
    assert replace(SPEC, name="elsewhere/some-model", revision="r2").encoder_id == SPEC.encoder_id
    for change in (
        {"weights_sha256": "x" * 64},
        {"passage_prefix": "passage: "},
        {"max_tokens": 16},
        {"pooling": "cls"},
        {"runtime": "onnx-int8"},
    ):
        assert replace(SPEC, **change).digest != SPEC.digest, change
    assert replace(SPEC, runtime="onnx-int8").chunk_set == SPEC.chunk_set
    assert replace(SPEC, max_tokens=16).chunk_set != SPEC.chunk_set


@pytest.mark.parametrize(
    "values",
    [np.ones((2, 3)), np.ones(4), np.full((2, 4), np.nan), np.zeros((2, 4)), np.ones((1, 2, 4))],
)
def test_what_is_not_one_vector_a_text_is_refused(values: np.ndarray) -> None:
    with pytest.raises(EncoderError, match="some-model gave"):
        checked_vectors(values.astype(np.float32), 2, SPEC)


def test_an_encoder_that_became_another_one_is_refused() -> None:
    require_agreement([3.0, 4.0], [3.0, 4.01], "e")
    with pytest.raises(EncoderError, match=r"cosine 0\.96"):
        require_agreement([3.0, 4.0], [4.0, 3.0], "e")


def test_the_smallest_runtime_that_agrees_is_used_and_manifests_are_read_as_written() -> None:
    files = (RuntimeFile("a.onnx", "0" * 64, 10), RuntimeFile("a.onnx.data", "1" * 64, 90))
    exact = TextRuntime("onnx-f32", True, "", 1.0, files)
    small = TextRuntime("onnx-int8", True, "", 0.9995, files[:1])
    tokenizer = RuntimeFile("tokenizer.json", "2" * 64, 5)
    manifest = TextManifest(SPEC, "1", "torch", 24, tokenizer, 0, 100, (exact, small))
    assert TextManifest.from_json(manifest.to_json(), "here") == manifest
    assert manifest.chosen() == small
    assert replace(manifest, runtimes=(exact, replace(small, passed=False))).chosen() == exact
    assert manifest.files(small) == (files[0], tokenizer)
    with pytest.raises(EncoderError, match="is not the manifest of a text encoder"):
        TextManifest.from_json(manifest.to_json().replace('"text"', '"image"'), "here")


def test_the_gate_looks_at_the_worst_text() -> None:
    unit = np.eye(3, 4, dtype=np.float32)
    turned = unit.copy()
    turned[1] = [0.1, np.sqrt(0.99), 0, 0]
    worst = worst_cosine(unit, turned)
    assert worst == pytest.approx(np.sqrt(0.99))
    assert text_refusal(worst, exact=False)
    assert not text_refusal(0.9991, exact=False)
    assert text_refusal(0.9991, exact=True)


def test_the_record_belongs_to_one_checkpoint_and_to_the_samples() -> None:
    assert recorded_reference(text_checkpoint_sha256(SPEC)) is None
    assert len(sample_texts()) == 24


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "host",
    ],
)
def test_addresses_behind_the_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_addresses_of_the_network_are(address: str) -> None:
    assert is_public(address)


def test_hosts_of_an_allow_list_have_a_port() -> None:
    assert host_and_port("API.example.org") == ("api.example.org", 443)
    assert host_and_port("localhost:8080") == ("localhost", 8080)
    assert host_and_port("[::1]:80") == ("::1", 80)
    for wrong in ("https://host", "host:", "a b", "user@host", "*", "host/v1"):
        with pytest.raises(ValueError, match="no host"):
            host_and_port(wrong)
