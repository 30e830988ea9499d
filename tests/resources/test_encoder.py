import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

import resources.encoder
from core.encoders import EncoderError, Vectors
from core.errors import BudgetError
from core.geometry import Image
from core.runtimes import MANIFEST, Manifest, checkpoint_sha256
from resources.encoder import Encoder, NotConvertedError
from resources.encoder_folder import EncoderFolder, folder_encoder, keep, stored_encoder
from resources.images import ImageStore
from resources.onnx_encoder import OnnxEncoder
from tests.resources.tiny_encoders import DIM, TRIAL, tiny_encoder, write_manifest


def pictures(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (int(h), int(w), 3), dtype=np.uint8)
        for h, w in rng.integers(20, 90, (count, 2))
    ]


def named(folder: Path, budget_mb: int = 0) -> Encoder:
    return Encoder(spec=f"open_clip:{folder}", budget_mb=budget_mb)


def opened(folder: Path) -> EncoderFolder:
    found = folder_encoder(folder)
    assert found is not None
    return found


def run(code: str, *arguments: object) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


def test_images_become_unit_vectors_whatever_the_batch(tiny: Path) -> None:
    encoder = named(tiny)
    vectors = encoder.embed(pictures(19))
    assert vectors.dtype == np.float32
    assert vectors.shape == (19, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    one_by_one = np.concatenate([encoder.embed([image]) for image in pictures(19)])
    np.testing.assert_allclose(vectors, one_by_one, atol=1e-6)
    assert encoder.embed([]).shape == (0, DIM)


def test_embedding_imports_neither_torch_nor_open_clip(tiny: Path) -> None:
    printed = run(
        """
        import sys
        import numpy as np
        from resources.encoder import Encoder
        encoder = Encoder(spec=f"open_clip:{sys.argv[1]}")
        print(encoder.embed([np.full((9, 9, 3), 200, np.uint8)]).shape)
        print({"torch", "torchvision", "open_clip", "timm", "onnx"} & set(sys.modules))
        """,
        tiny,
    )
    assert printed.splitlines() == [f"(1, {DIM})", "set()"]


def test_the_runtime_is_part_of_the_id(tiny: Path) -> None:
    manifest = opened(tiny).manifest
    (exact,) = manifest.runtimes
    ids = {manifest.described(replace(exact, name=n)).encoder_id for n in ("onnx-f32", "onnx-w8")}
    assert len(ids) == 2
    assert named(tiny).describe().encoder_id in ids


def test_the_budget_picks_among_runtimes_and_says_what_would_do(tmp_path: Path) -> None:
    large = tiny_encoder(tmp_path / "f32", trial=replace(TRIAL, peak_mb=360.0))
    (exact,) = opened(large).manifest.runtimes
    small = replace(exact, name="onnx-w8", trial=replace(TRIAL, images_per_s=500.0, peak_mb=160.0))
    write_manifest(large, "0" * 64, (exact, small))
    assert named(large).describe().runtime == "onnx-f32"
    assert named(large, budget_mb=410).describe().runtime == "onnx-f32"
    assert named(large, budget_mb=409).describe().runtime == "onnx-w8"
    with pytest.raises(BudgetError, match="fits 209 MB; 210 MB would do") as refused:
        named(large, budget_mb=209).describe()
    assert refused.value.needed_mb == 210


@pytest.mark.parametrize("damage", ["another byte", "cut off", "gone"])
def test_a_file_that_is_not_what_was_measured_is_refused(tmp_path: Path, damage: str) -> None:
    graph = tiny_encoder(tmp_path) / "visual.onnx-f32.onnx"
    content = graph.read_bytes()
    match damage:
        case "another byte":
            graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut off":
            graph.write_bytes(content[:-1])
        case _:
            graph.unlink()
    with pytest.raises(EncoderError, match=r"SHA-256 differs|is missing in"):
        named(tmp_path).embed(pictures(1))


def test_a_machine_that_computes_otherwise_is_refused(tmp_path: Path) -> None:
    (exact,) = opened(tiny_encoder(tmp_path)).manifest.runtimes
    elsewhere = tuple(np.roll(exact.witness, 1))
    write_manifest(tmp_path, exact.files[0].sha256, (replace(exact, witness=elsewhere),))
    with pytest.raises(EncoderError, match="otherwise than where it was measured"):
        named(tmp_path).embed(pictures(1))


def test_weights_beside_a_manifest_are_those_it_was_made_from(tmp_path: Path) -> None:
    tiny_encoder(tmp_path)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"others")
    with pytest.raises(EncoderError, match="was made from other weights"):
        named(tmp_path).describe()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "encoder": 3}'])
def test_a_damaged_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(EncoderError, match="is not the manifest of an encoder"):
        named(tmp_path).describe()


def test_a_manifest_is_read_as_it_was_written(tiny: Path) -> None:
    manifest = opened(tiny).manifest
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


def test_without_an_encoder_and_without_a_folder_the_error_says_so() -> None:
    with pytest.raises(EncoderError, match="no image encoder is configured"):
        Encoder(spec=" ").describe()
    with pytest.raises(EncoderError, match=r"there is no open_clip_config.json in /no/such"):
        Encoder(spec="open_clip:/no/such").describe()


@pytest.mark.parametrize("url", ["file", "memory"])
def test_a_kept_encoder_runs_from_the_store_and_gives_the_same(
    tiny: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageStore(
        url=(tmp_path / "store").as_uri() if url == "file" else f"memory://{tmp_path.name}"
    )
    folder = opened(tiny)
    checkpoint = folder.manifest.encoder
    assert stored_encoder(images, checkpoint_sha256(checkpoint)) is None
    stored = keep(images, folder)
    assert stored == stored_encoder(images, checkpoint_sha256(checkpoint))

    monkeypatch.setattr(resources.encoder, "find_encoder", lambda choice, images: stored)
    encoder = Encoder(spec="open_clip:/somewhere", store_url=images.url)
    np.testing.assert_array_equal(encoder.embed(pictures(3)), named(tiny).embed(pictures(3)))
    assert encoder.describe() == named(tiny).describe()

    graph = f"encoders/{stored.sha256}/visual.onnx-f32.onnx"
    images.write_bytes(graph, images.read_bytes(graph)[:-9] + b"something")
    encoder = Encoder(spec="open_clip:/somewhere", store_url=images.url)
    with pytest.raises(EncoderError, match="SHA-256 differs"):
        encoder.embed(pictures(1))


def test_several_encoders_are_taken_apart_each_with_its_own_model(
    tiny: Path, tmp_path: Path
) -> None:
    other = tiny_encoder(tmp_path, seed=1)
    both = Encoder(spec=f"open_clip:{tiny} open_clip:{other}", budget_mb=300, cores=2)
    first, second = both.each()
    assert (first.budget_mb, first.cores) == (300, 2)
    assert first.describe().encoder_id != second.describe().encoder_id
    assert np.abs(first.embed(pictures(2)) - second.embed(pictures(2))).max() > 0.01


class Cramped(OnnxEncoder):
    """Runs out of memory above so many images, as the real allocators say it."""

    room = 3
    complaint: Exception = MemoryError()

    def _forward(self, images: Sequence[Image]) -> Vectors:
        if len(images) > self.room:
            raise self.complaint
        return super()._forward(images)


def cramped(folder: Path) -> Cramped:
    found = opened(folder)
    (runtime,) = found.manifest.runtimes
    with found.opened(runtime) as graph:
        return Cramped(found.manifest.described(runtime), graph, cores=1, batch=16)


@pytest.mark.parametrize(
    "complaint",
    [
        MemoryError(),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... std::bad_alloc"),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested ..."),
    ],
)
def test_out_of_memory_halves_the_batch_and_resumes_at_the_same_image(
    tiny: Path, complaint: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(17)
    expected = named(tiny).embed(images)
    encoder = cramped(tiny)
    monkeypatch.setattr(Cramped, "complaint", complaint)
    np.testing.assert_allclose(encoder.embed(images), expected, atol=1e-6)
    assert encoder.batch == 2

    monkeypatch.setattr(Cramped, "room", 0)
    with pytest.raises(BudgetError, match="a single image runs out of memory"):
        encoder.embed(images)


def test_any_other_error_is_not_taken_for_a_lack_of_memory(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cramped, "complaint", RuntimeError("mat1 and mat2 do not fit"))
    with pytest.raises(RuntimeError, match="do not fit"):
        cramped(tiny).embed(pictures(17))


def test_a_real_memory_limit_halves_the_batch_then_gives_a_budget_error(tiny: Path) -> None:
    printed = run(
        """
        import resource, sys
        import numpy as np
        from core.errors import BudgetError
        from resources.encoder import Encoder

        images = [np.full((32, 32, 3), i % 255, np.uint8) for i in range(8192)]
        wide = np.full((2000, 2000, 3), 9, np.uint8)  # 16 MB within Pillow
        encoder = Encoder(spec=f"open_clip:{sys.argv[1]}")
        expected = encoder.embed(images)
        encoder.load().batch = 8192  # 100 MB of input

        def limit(more_mb):
            (line,) = (s for s in open("/proc/self/status") if s.startswith("VmData"))
            held = int(line.split()[1]) * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (held + more_mb * 1_000_000, -1))

        limit(60)
        vectors = encoder.embed(images)
        print(np.abs(vectors - expected).max() < 1e-5, 1 < encoder.load().batch < 8192)
        encoder.load().batch = 1
        hoard = []
        try:
            while True:
                hoard.append(bytearray(300_000))
        except MemoryError:
            pass
        try:
            encoder.embed([wide])
        except BudgetError as error:
            hoard.clear()
            print(error.budget_mb > 60, error.needed_mb > error.budget_mb)
        """,
        tiny,
    )
    assert printed.splitlines() == ["True True", "True True"]


def test_an_asset_embeds_with_the_resource_and_runs_without_one(tiny: Path) -> None:
    @dg.asset
    def embeddings(encoder: Encoder) -> dg.MaterializeResult:
        if not encoder.configured:
            return dg.MaterializeResult(metadata={"shape": "none"})
        vectors = encoder.embed(pictures(3))
        return dg.MaterializeResult(metadata={"shape": str(vectors.shape)})

    for spec, shape in ((f"open_clip:{tiny}", f"(3, {DIM})"), ("", "none"), ("  ", "none")):
        result = dg.materialize([embeddings], resources={"encoder": Encoder(spec=spec)})
        (event,) = result.get_asset_materialization_events()
        assert event.materialization.metadata["shape"].value == shape


def test_a_checkpoint_has_to_be_converted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open_clip_config.json").write_text(
        '{"model_cfg": {"embed_dim": 4, "vision_cfg": {"layers": 1}}, "preprocess_cfg": {}}'
    )
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(NotConvertedError, match="materialize the asset encoders"):
        named(tmp_path).describe()
