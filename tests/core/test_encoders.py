import dataclasses
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.encoders import (
    OPEN_CLIP_PREPROCESSING,
    EncoderChoice,
    EncoderError,
    EncoderSpec,
    Preprocessing,
    each_encoder,
    parse_encoder,
    preprocess,
    require_same_encoder,
    unit_vectors,
)

SPEC = EncoderSpec(
    architecture="ViT-B-32",
    config_sha256="a" * 64,
    weights_sha256="b" * 64,
    activation="gelu",
    dim=512,
    preprocessing=OPEN_CLIP_PREPROCESSING,
)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            EncoderChoice("tag", "ViT-B-32", "laion2b_s34b_b79k"),
        ),
        (
            "open_clip:ViT-B-32//models/b32.safetensors",
            EncoderChoice("file", "ViT-B-32", "/models/b32.safetensors"),
        ),
        (
            "open_clip:ViT-B-32/./b32.pt?activation=quick_gelu",
            EncoderChoice("file", "ViT-B-32", "./b32.pt", "quick_gelu"),
        ),
        (
            "open_clip:ViT-L-14/~/l14.safetensors?tag=laion2b_s32b_b82k",
            EncoderChoice("file", "ViT-L-14", "~/l14.safetensors", None, "laion2b_s32b_b82k"),
        ),
        ("quire", EncoderChoice("own")),
        ("open_clip:/models/own", EncoderChoice("folder", "", "/models/own")),
        ("open_clip:local-dir:../own", EncoderChoice("folder", "", "../own")),
        ("open_clip:hf-hub:some/model", EncoderChoice("hub", "", "some/model")),
    ],
)
def test_a_setting_says_where_the_encoder_is(text: str, choice: EncoderChoice) -> None:
    assert parse_encoder(f"  {text}\n") == choice
    assert parse_encoder(str(choice)) == choice


def test_several_settings_are_separated_by_blanks_that_no_path_holds() -> None:
    two = "quire  open_clip:/my models/quire one"
    assert each_encoder(f" {two}\n") == ["quire", "open_clip:/my models/quire one"]
    assert each_encoder("open_clip:/models/mine quire") == ["open_clip:/models/mine", "quire"]
    assert each_encoder("quire quire") == ["quire"]
    assert each_encoder("") == []


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_setting_is_no_encoder(text: str) -> None:
    assert parse_encoder(text) is None


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("ViT-B-32", "write quire, open_clip:ARCHITECTURE/TAG"),
        ("clip:ViT-B-32/openai", "no encoder is called"),
        ("open_clip:ViT-B-32", "incomplete"),
        ("open_clip:ViT-B-32/", "incomplete"),
        ("open_clip:ViT-B-32/weights.safetensors", "paths start with /"),
        ("open_clip:ViT-B-32//w.pt?activation=relu", "write activation=gelu"),
        ("open_clip:ViT-B-32//w.pt?tag=", "or tag=TAG"),
        ("open_clip:ViT-B-32/openai?activation=gelu", "a tag knows all about itself"),
        ("open_clip:hf-hub:nothing", "names no repository"),
    ],
)
def test_a_setting_that_cannot_be_read_says_how_to_write_it(text: str, advice: str) -> None:
    with pytest.raises(EncoderError, match=re.escape(advice)):
        parse_encoder(text)


@given(
    change=st.sampled_from(
        [
            {"config_sha256": "c" * 64},
            {"weights_sha256": "c" * 64},
            {"activation": "quick_gelu"},
            {"dim": 511},
            {"runtime": "onnx-int8"},
            {"version": 2},
            *(
                {"preprocessing": dataclasses.replace(OPEN_CLIP_PREPROCESSING, **change)}
                for change in [
                    {"height_px": 256},
                    {"width_px": 256},
                    {"mean": (0.5, 0.5, 0.5)},
                    {"std": (0.5, 0.5, 0.5)},
                    {"interpolation": "bilinear"},
                    {"resize_mode": "squash"},
                    {"fill": 255},
                ]
            ),
        ]
    )
)
def test_whatever_changes_the_vectors_changes_the_id(change: dict[str, object]) -> None:
    assert dataclasses.replace(SPEC, **change).encoder_id != SPEC.encoder_id


def test_the_id_is_readable_safe_in_names_and_the_same_in_every_process() -> None:
    assert re.fullmatch(r"vit-b-32-[0-9a-f]{12}", SPEC.encoder_id)
    code = (
        "from core.encoders import *; print(EncoderSpec('ViT-B-32','a'*64,'b'*64,'gelu',512,"
        "OPEN_CLIP_PREPROCESSING).encoder_id)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == SPEC.encoder_id


def test_two_encoders_never_meet() -> None:
    require_same_encoder("a-1", "a-1")
    with pytest.raises(EncoderError, match="vectors of encoder b-2 cannot be searched with a-1"):
        require_same_encoder("a-1", "b-2")


PREPROCESSINGS = [
    OPEN_CLIP_PREPROCESSING,
    Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", "squash"),
    Preprocessing(40, 40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", "longest", 127),
    Preprocessing(40, 24, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", "shortest"),
    Preprocessing(24, 40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", "shortest"),
    Preprocessing(24, 40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", "longest", 9),
]
SIZES = [
    (224, 224),
    (1, 1),
    (7, 300),
    (300, 7),
    (33, 64),
    (501, 224),
    (225, 223),
    (31, 47),
    (32, 32),
]


@pytest.mark.parametrize("how", PREPROCESSINGS, ids=lambda how: f"{how.resize_mode}{how.height_px}")
def test_preprocessing_is_bit_for_bit_that_of_open_clip(how: Preprocessing) -> None:
    pytest.importorskip("torch")
    import PIL.Image

    from resources.visual_tower import import_open_clip

    import_open_clip()
    from open_clip.transform import image_transform

    size = (how.height_px, how.width_px)
    transform: Any = image_transform(
        image_size=size if size[0] != size[1] else size[0],
        is_train=False,
        mean=how.mean,
        std=how.std,
        resize_mode=how.resize_mode,
        interpolation=how.interpolation,
        fill_color=how.fill,
    )
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    batch = preprocess(images, how)
    assert batch.shape == (len(images), 3, how.height_px, how.width_px)
    for image, row in zip(images, batch, strict=True):
        expected = np.asarray(transform(PIL.Image.fromarray(image)))
        np.testing.assert_array_equal(row, expected, err_msg=str(image.shape))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_only_rgb_images_enter(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image is RGB uint8"):
        preprocess([image], OPEN_CLIP_PREPROCESSING)


def test_features_become_unit_vectors() -> None:
    np.testing.assert_allclose(
        unit_vectors(np.array([[3, 4], [0, -2]], dtype=np.float32)), [[0.6, 0.8], [0, -1]]
    )


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_zeros_and_not_a_number_are_an_error_and_never_a_vector(value: float) -> None:
    with pytest.raises(EncoderError, match="1 of 2 vectors that are zero or not finite"):
        unit_vectors(np.array([[1, 1], [value, value]], dtype=np.float32))
