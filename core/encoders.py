"""Image encoders as descriptions: which one is meant, what decides its vectors, how pixels enter.

Nothing here loads a model; ``resources.encoder`` does. Whatever turns tiles into vectors by the
same description gives the same vectors, and the description's id is what rows are keyed by, so that
two encoders never meet in one search.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from core.geometry import Image

Vectors = NDArray[np.float32]
"""Unit vectors, shape (n, dim), comparable by inner product."""

Activation = Literal["gelu", "quick_gelu", "architecture"]
"""``architecture``: the tower has no such choice (ResNets, everything from timm)."""

OWN = "quire"
"""What the encoder that comes with Quire is called."""

_WRITTEN_AS = (
    "quire, open_clip:ARCHITECTURE/TAG, open_clip:ARCHITECTURE//path/to/weights.safetensors, "
    "open_clip:/path/to/folder or open_clip:hf-hub:ORGANISATION/REPOSITORY"
)


class EncoderError(Exception):
    """The configured encoder cannot be used as it is; the message says what to do about it.

    It is never answered with another encoder or with zeros: the run fails.
    """


@dataclass(frozen=True)
class EncoderChoice:
    """What a user wrote: where to find an encoder, before anything about it is known.

    Attributes:
        source: ``own`` (the one that comes with Quire), ``tag`` (published weights of a known
            architecture), ``file`` (weights in a file, of a known architecture), ``folder``
            (weights beside their ``open_clip_config.json``) or ``hub`` (such a folder, in the local
            Hugging Face cache).
        architecture: open_clip's name for it, such as ``ViT-B-32``; empty for the others.
        location: The tag, file, folder or ``organisation/repository``.
        activation: What the user says of a file; None where nothing was said.
        like_tag: The published tag whose activation and preprocessing a file shares, as the user
            says; empty where nothing was said.
    """

    source: Literal["own", "tag", "file", "folder", "hub"]
    architecture: str = ""
    location: str = ""
    activation: Literal["gelu", "quick_gelu"] | None = None
    like_tag: str = ""

    def __str__(self) -> str:
        option = f"?activation={self.activation}" if self.activation else ""
        option = f"?tag={self.like_tag}" if self.like_tag else option
        match self.source:
            case "own":
                return OWN
            case "hub":
                return f"open_clip:hf-hub:{self.location}"
            case "folder":
                return f"open_clip:{self.location}"
            case _:
                return f"open_clip:{self.architecture}/{self.location}{option}"


def parse_encoder(text: str) -> EncoderChoice | None:
    """Read a setting such as ``QUIRE_IMAGE_ENCODER``.

    ========================================  ======================================================
    ``quire``                                 the encoder that comes with Quire
    ``open_clip:ViT-B-32/laion2b_s34b_b79k``  a tag that open_clip publishes
    ``open_clip:ViT-B-32//models/my.pt``      a weights file; relative ones start with ``./``
    ``...?activation=quick_gelu``             after a file that does not say it itself; or ``=gelu``
    ``...?tag=laion2b_s34b_b79k``             after a file that is, or was trained from, this tag
    ``open_clip:/models/my-encoder``          a folder with weights and ``open_clip_config.json``
    ``open_clip:hf-hub:organisation/name``    such a folder, downloaded before
    ========================================  ======================================================

    Args:
        text: The setting; surrounding blanks do not count.

    Returns:
        The choice, or None for an empty setting: no encoder.

    Raises:
        EncoderError: The text is none of these; the message says which are possible.
    """
    text = text.strip()
    if not text:
        return None
    if text == OWN:
        return EncoderChoice("own")
    kind, colon, rest = text.partition(":")
    if not colon or kind != "open_clip":
        raise EncoderError(
            f"no encoder is called {text!r}; write {_WRITTEN_AS}, or nothing for none"
        )

    if rest.startswith("hf-hub:"):
        repository = rest.removeprefix("hf-hub:")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise EncoderError(
                f"{text!r} names no repository; write open_clip:hf-hub:ORG/REPOSITORY"
            )
        return EncoderChoice("hub", "", repository)

    rest = rest.removeprefix("local-dir:")
    if _is_path(rest):
        return EncoderChoice("folder", "", rest)

    architecture, slash, location = rest.partition("/")
    location, question, option = location.partition("?")
    if not re.fullmatch(r"[\w.-]+", architecture) or not slash or not location:
        raise EncoderError(f"{text!r} is incomplete; write {_WRITTEN_AS}")
    if _is_path(location):
        activation, like_tag = _file_option(text, option) if question else (None, "")
        return EncoderChoice("file", architecture, location, activation, like_tag)
    if not re.fullmatch(r"[\w-]+", location):
        raise EncoderError(
            f"{location!r} in {text!r} is neither a tag nor a path: "
            "paths start with /, ./, ../ or ~/ (open_clip:ViT-B-32/./weights.safetensors)"
        )
    if question:
        raise EncoderError(f"{text!r}: a tag knows all about itself; leave ?{option} out")
    return EncoderChoice("tag", architecture, location)


def each_encoder(text: str) -> list[str]:
    """The settings of single encoders in one of several, separated by blanks, each once.

    A blank within a path separates nothing: every setting begins with its kind.
    """
    begins = rf"\s+(?=open_clip:|{OWN}(?:\s|$))"
    return list(dict.fromkeys(one for one in re.split(begins, text.strip()) if one))


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~/"))


def _file_option(text: str, option: str) -> tuple[Literal["gelu", "quick_gelu"] | None, str]:
    """What stands after the ``?``: an activation or a tag."""
    match option.partition("="):
        case "activation", _, "gelu":
            return "gelu", ""
        case "activation", _, "quick_gelu" | "quickgelu":
            return "quick_gelu", ""
        case "tag", _, tag if re.fullmatch(r"[\w-]+", tag):
            return None, tag
        case _:
            raise EncoderError(
                f"{text!r}: after the ? write activation=gelu, activation=quick_gelu or tag=TAG, "
                f"not {option!r}"
            )


@dataclass(frozen=True)
class Preprocessing:
    """How an RGB image becomes an encoder's input; the checkpoint's own, as it was trained.

    Attributes:
        height_px: Input height.
        width_px: Input width.
        mean: Per channel, of values 0 to 1.
        std: Per channel, of values 0 to 1.
        interpolation: Pillow's filter.
        resize_mode: ``shortest`` scales the short side and crops the centre, ``longest`` scales the
            long side and pads, ``squash`` scales both.
        fill: Grey value of the padding, 0 to 255.
    """

    height_px: int
    width_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill: int = 0


OPEN_CLIP_PREPROCESSING = Preprocessing(
    height_px=224,
    width_px=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""What open_clip assumes where a checkpoint says nothing else; OpenAI's CLIP set the values."""


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that a vector of this encoder was computed from, beside its image.

    Where the weights were found is not part of it: the same weights by tag and from a file give the
    same vectors and have the same id. A changed byte of weights, another activation or input size,
    or another runtime is another encoder.

    Attributes:
        architecture: open_clip's name, or the folder's or repository's.
        config_sha256: Of the architecture's visual configuration, in canonical JSON.
        weights_sha256: Of the weights file.
        activation: Which GELU the weights were trained with.
        dim: Length of a vector.
        preprocessing: How an image enters.
        metric: How vectors compare.
        runtime: What computes, and in which precision.
        version: Raised whenever this module or the resource changes what the same weights give.
    """

    architecture: str
    config_sha256: str
    weights_sha256: str
    activation: Activation
    dim: int
    preprocessing: Preprocessing
    metric: Literal["cosine"] = "cosine"
    runtime: str = "onnx-f32"
    version: int = 1

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over every field but the name."""
        fields = asdict(self)
        del fields["architecture"]
        return canonical_sha256(fields)[:12]

    @property
    def encoder_id(self) -> str:
        """For example ``vit-b-32-0f3a9c21d4e7``: a name to read and the digest, ``[a-z0-9_-]``."""
        name = re.sub(r"[^a-z0-9_-]+", "-", self.architecture.lower()).strip("-")
        return f"{name or 'encoder'}-{self.digest}"


def canonical_sha256(value: object) -> str:
    """Hash of a JSON value, the same whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def require_same_encoder(wanted: str, found: str) -> None:
    """Refuse to compare vectors of two encoders.

    Raises:
        EncoderError: The ids differ. Cosines between two spaces are numbers without a meaning.
    """
    if wanted != found:
        raise EncoderError(
            f"vectors of encoder {found} cannot be searched with {wanted}: "
            f"embed the tiles with {wanted} first, or search with {found}"
        )


def preprocess(images: Sequence[Image], how: Preprocessing) -> NDArray[np.float32]:
    """Encoder input for a batch of images, bit for bit what open_clip's own transform gives.

    Pillow resizes (OpenCV's bicubic differs enough to cost more accuracy than 8-bit weights do),
    and a table of 256 values per channel takes the place of the arithmetic on every pixel.

    Args:
        images: RGB, each of shape (height, width, 3); sizes may differ.
        how: Size, normalisation and cropping.

    Returns:
        Shape (images, 3, height_px, width_px).

    Raises:
        ValueError: An image is not RGB ``uint8``, or is empty.
    """
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    table = np.stack(
        [
            (levels - np.float32(mean)) / np.float32(std)
            for mean, std in zip(how.mean, how.std, strict=True)
        ]
    )
    batch = np.empty((len(images), 3, how.height_px, how.width_px), dtype=np.float32)
    for row, image in zip(batch, images, strict=True):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"an image is RGB uint8 (height, width, 3), not {image.dtype} {image.shape}"
            )
        pixels = np.asarray(_fit(PIL.Image.fromarray(image), how))
        for channel in range(3):
            np.take(table[channel], pixels[:, :, channel], out=row[channel], mode="clip")
    return batch


def _fit(picture: PIL.Image.Image, how: Preprocessing) -> PIL.Image.Image:
    """Scale and crop, pad or squash to the input size, with open_clip's rounding."""
    width, height = picture.size
    to_width, to_height = how.width_px, how.height_px
    if how.resize_mode == "squash":
        scaled = to_width, to_height
    elif how.resize_mode == "shortest" and to_width == to_height:
        # torchvision truncates the long side where open_clip's own resizing, below, rounds it.
        short = min(width, height)
        scaled = (int(to_width * width / short), int(to_width * height / short))
    else:
        ratios = (width / to_width, height / to_height)
        ratio = max(ratios) if how.resize_mode == "longest" else min(ratios)
        scaled = (round(width / ratio), round(height / ratio))

    # open_clip forgets to hand the filter on for oblong inputs, so those are always bicubic.
    oblong = how.resize_mode == "shortest" and to_width != to_height
    bilinear = how.interpolation == "bilinear" and not oblong
    kind = PIL.Image.Resampling.BILINEAR if bilinear else PIL.Image.Resampling.BICUBIC
    if scaled != picture.size:
        picture = picture.resize(scaled, kind)
    if scaled == (to_width, to_height):
        return picture
    return _centre(picture, to_width, to_height, how.fill)


def _centre(picture: PIL.Image.Image, to_width: int, to_height: int, fill: int) -> PIL.Image.Image:
    """Crop the middle, padding first where the picture is too small."""
    width, height = picture.size
    if width < to_width or height < to_height:
        padded = PIL.Image.new("RGB", (max(width, to_width), max(height, to_height)), (fill,) * 3)
        padded.paste(picture, (max(0, to_width - width) // 2, max(0, to_height - height) // 2))
        picture = padded
        width, height = picture.size
    left, top = round((width - to_width) / 2), round((height - to_height) / 2)
    return picture.crop((left, top, left + to_width, top + to_height))


def checked_shape(
    features: NDArray[np.float32], images: int, encoder: EncoderSpec
) -> NDArray[np.float32]:
    """What an encoder gave, made sure to be one vector an image.

    Raises:
        EncoderError: It is something else.
    """
    if features.shape != (images, encoder.dim):
        raise EncoderError(
            f"{encoder.architecture} gave {features.shape} for {images} images of {encoder.dim} "
            "dimensions: its vision_cfg does not end in one vector an image"
        )
    return features


def unit_vectors(features: NDArray[np.float32]) -> Vectors:
    """Scale features to unit length.

    Args:
        features: An encoder's output, shape (n, dim).

    Raises:
        EncoderError: A feature is zero or not finite. Such a vector would be equally close to
            everything, or to nothing, and look like an answer.
    """
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths < 1e-12):
        bad = int(np.sum(~np.isfinite(lengths) | (lengths < 1e-12)))
        raise EncoderError(
            f"the encoder gave {bad} of {len(features)} vectors that are zero or not finite; "
            "its weights are damaged or do not belong to this architecture"
        )
    return (features / lengths).astype(np.float32)
