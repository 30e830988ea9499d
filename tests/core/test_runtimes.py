from dataclasses import replace

import pytest

from core.encoders import OPEN_CLIP_PREPROCESSING, EncoderError, EncoderSpec
from core.errors import BudgetError
from core.runtimes import (
    CONVERSION,
    Manifest,
    Runtime,
    RuntimeFile,
    Trial,
    checkpoint_sha256,
)

ENCODER = EncoderSpec("ViT-B-32", "a" * 64, "b" * 64, "gelu", 512, OPEN_CLIP_PREPROCESSING)


def runtime(name: str, images_per_s: float, peak_mb: float, passed: bool = True) -> Runtime:
    trial = Trial(images_per_s, base_mb=60.0, peak_mb=peak_mb, batch=4, cores=2)
    return Runtime(name, passed, "" if passed else "worst", (), None, trial)


def manifest(*runtimes: Runtime) -> Manifest:
    return Manifest(ENCODER, "1", 200, "c" * 64, runtimes)


F32, W8, INT8 = (
    runtime("onnx-f32", 40, 430),
    runtime("onnx-w8", 43, 260),
    runtime("onnx-int8", 150, 180),
)


@pytest.mark.parametrize(
    ("runtimes", "budget_mb", "chosen"),
    [
        ((F32, W8, INT8), float("inf"), "onnx-int8"),
        ((INT8, W8, F32), float("inf"), "onnx-int8"),
        ((F32, W8), float("inf"), "onnx-f32"),  # 43 is not 1.1 times 40
        ((F32, W8), 400, "onnx-w8"),
        ((F32, runtime("onnx-int8", 150, 180, passed=False)), float("inf"), "onnx-f32"),
        ((F32, INT8), 230, "onnx-int8"),
    ],
)
def test_the_fastest_that_passed_and_fits_is_chosen_the_precise_one_at_equal_speed(
    runtimes: tuple[Runtime, ...], budget_mb: float, chosen: str
) -> None:
    assert manifest(*runtimes).choose(budget_mb).name == chosen


def test_a_budget_that_is_too_small_is_told_what_would_do() -> None:
    with pytest.raises(BudgetError, match="fits 229 MB; 230 MB would do") as refused:
        manifest(F32, W8, INT8).choose(229)
    assert refused.value.needed_mb == 230


def test_where_nothing_passed_nothing_is_used() -> None:
    with pytest.raises(EncoderError, match="no runtime of ViT-B-32 passed its gate: onnx-f32: wor"):
        manifest(replace(F32, passed=False, reason="worst")).choose(float("inf"))


def test_runtimes_are_encoders_of_their_own() -> None:
    made = manifest(F32, INT8)
    assert made.described(F32).encoder_id != made.described(INT8).encoder_id


def test_a_manifest_is_read_as_it_was_written() -> None:
    files = (RuntimeFile("visual.onnx-f32.onnx", "d" * 64, 9),)
    made = manifest(replace(F32, files=files, witness=(0.5, -0.5)), Runtime("onnx-w8", False, "no"))
    assert Manifest.from_json(made.to_json(), "here") == made
    with pytest.raises(EncoderError, match="here is not the manifest of an encoder"):
        Manifest.from_json(made.to_json().replace("gelu", "relu"), "here")


def test_a_checkpoint_is_more_than_its_weights_and_less_than_its_runtime() -> None:
    other = replace(ENCODER, activation="quick_gelu")
    assert checkpoint_sha256(ENCODER) != checkpoint_sha256(other)
    assert checkpoint_sha256(ENCODER) == checkpoint_sha256(replace(ENCODER, runtime="onnx-int8"))
    assert checkpoint_sha256(ENCODER) == checkpoint_sha256(replace(ENCODER, architecture="mine"))


def test_the_larger_a_tower_the_fewer_images_at_a_time() -> None:
    sizes = [CONVERSION.batch(mb * 1_000_000) for mb in (350, 1_220)]
    assert sizes == [4, 2]
