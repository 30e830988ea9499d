"""Checkpoints of encoders on this machine: where their weights are, and what is known of them.

Nothing here needs torch or open_clip in memory (importing them takes 365 MB); open_clip's tables of
architectures and published weights are read as files.
"""

import hashlib
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from core.encoders import (
    OPEN_CLIP_PREPROCESSING,
    Activation,
    EncoderChoice,
    EncoderError,
    EncoderSpec,
    Preprocessing,
    canonical_sha256,
)

INSTALL = "install what conversion needs: pip install 'quire[conversion]'"
OWN_FOLDER = Path(__file__).with_name("quire-copy-1")
"""The encoder that comes with Quire: weights, configuration and a form that runs."""

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
_LARGEST_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found, and what is known of it before it is loaded.

    Attributes:
        spec: The encoder it makes.
        path: Its weights.
        vision_config: open_clip's ``vision_cfg`` of the tower.
        document: All that describes it, as open_clip writes it beside weights.
    """

    spec: EncoderSpec
    path: Path
    vision_config: Mapping[str, Any]
    document: Mapping[str, Any]


def folder_of(choice: EncoderChoice) -> Path | None:
    """The folder that a choice means; None where it means no folder."""
    if choice.source == "own":
        return OWN_FOLDER
    return Path(choice.location).expanduser() if choice.source == "folder" else None


def find_checkpoint(choice: EncoderChoice) -> Checkpoint:
    """Find an encoder's weights on this machine and describe it, without loading anything.

    Reads the weights file once, for its hash (about a second per GB).

    Raises:
        EncoderError: There is no such architecture, tag or file, it has not been downloaded, or
            what is known of it does not determine its vectors. The message says what to do.
    """
    match choice.source:
        case "tag":
            config = _architecture(choice.architecture)
            entry = published(choice.architecture, choice.location)
            path = _downloaded(choice, entry)
            activation = "quick_gelu" if entry.get("quick_gelu") else "gelu"
            return _checkpoint(choice.architecture, config, entry, path, activation)
        case "file":
            config = _architecture(choice.architecture)
            path = Path(choice.location).expanduser()
            if not path.is_file():
                raise EncoderError(f"there is no weights file {path}")
            if choice.like_tag:
                how = published(choice.architecture, choice.like_tag)
                activation = "quick_gelu" if how.get("quick_gelu") else "gelu"
            else:
                how = _common_preprocessing(choice.architecture)
                activation = _stated_activation(choice, config, path)
            return _checkpoint(choice.architecture, config, how, path, activation)
        case "own" | "folder":
            folder = folder_of(choice)
            assert folder is not None
            config_path = folder / CONFIG_FILE
            if not config_path.is_file():
                raise EncoderError(f"there is no {CONFIG_FILE} in {folder}")
            found = [folder / name for name in WEIGHTS_FILES if (folder / name).is_file()]
            if not found:
                raise EncoderError(f"none of {', '.join(WEIGHTS_FILES)} is in {folder}")
            return _described_checkpoint(folder.resolve().name, config_path, found[0])
        case "hub":
            config_path = _in_hub_cache(choice.location, CONFIG_FILE)
            found = [p for name in WEIGHTS_FILES if (p := _in_hub_cache(choice.location, name))]
            if config_path is None or not found:
                raise EncoderError(_not_here(choice))
            return _described_checkpoint(choice.location.split("/")[1], config_path, found[0])


def _described_checkpoint(name: str, config_path: Path, path: Path) -> Checkpoint:
    """A checkpoint whose configuration lies beside it; what that leaves out is open_clip's default.

    That holds for the activation too: a published configuration without ``quick_gelu`` means GELU.
    """
    try:
        document = json.loads(config_path.read_text(encoding="utf-8"))
        config = document["model_cfg"]
        activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
        how = document.get("preprocess_cfg", {})
        return _checkpoint(name, config, how, path, activation)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncoderError(
            f"{config_path} does not describe an encoder "
            f"(model_cfg with embed_dim and vision_cfg, preprocess_cfg): {error!r}"
        ) from error


def _checkpoint(
    name: str,
    config: Mapping[str, Any],
    how: Mapping[str, Any],
    path: Path,
    activation: Activation,
) -> Checkpoint:
    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    default = OPEN_CLIP_PREPROCESSING
    size = how.get("size") or vision.get("image_size", 224)
    height_px, width_px = (size, size) if isinstance(size, int) else size[-2:]
    spec = EncoderSpec(
        architecture=name,
        config_sha256=canonical_sha256({"embed_dim": config["embed_dim"], "vision_cfg": vision}),
        weights_sha256=file_sha256(path),
        activation="architecture" if _has_own_activation(vision) else activation,
        dim=int(config["embed_dim"]),
        preprocessing=Preprocessing(
            height_px=int(height_px),
            width_px=int(width_px),
            mean=_triple(how.get("mean") or default.mean),
            std=_triple(how.get("std") or default.std),
            interpolation="bilinear" if how.get("interpolation") == "bilinear" else "bicubic",
            resize_mode=how.get("resize_mode") or default.resize_mode,
            fill=int(how.get("fill_color") or 0),
        ),
    )
    document = {"model_cfg": dict(config), "preprocess_cfg": dict(how)}
    return Checkpoint(spec, path, vision, document)


def _triple(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, Sequence) else (value,) * 3
    return float(red), float(green), float(blue)


def _has_own_activation(vision: Mapping[str, Any]) -> bool:
    """Towers from timm and ResNets (``layers`` per stage) have no GELU to choose."""
    return bool(vision.get("timm_model_name")) or isinstance(vision.get("layers"), list)


def file_sha256(path: Path) -> str:
    """Hash of a file; hashed again only once its size or time of change differs."""
    return _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _sha256(path: Path, size_bytes: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_clip_folder() -> Path:
    """Where open_clip is installed, without importing it."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise EncoderError(f"open_clip is not installed; {INSTALL}")
    return Path(found.submodule_search_locations[0])


def _architecture(name: str) -> dict[str, Any]:
    """open_clip's configuration of an architecture."""
    folder = _open_clip_folder() / "model_configs"
    path = folder / f"{name}.json"
    if not path.is_file():
        known = sorted(path.stem for path in folder.glob("*.json"))
        raise EncoderError(f"open_clip has no architecture {name!r}; it has {', '.join(known)}")
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def _published_table() -> dict[str, dict[str, dict[str, Any]]]:
    """open_clip's table of published checkpoints, by architecture and tag.

    The module that holds it is read under a package of another name, so that the package's own
    ``__init__``, which imports torch, does not run.
    """
    folder = _open_clip_folder()
    package = types.ModuleType("_quire_open_clip_tables")
    package.__path__ = [str(folder)]
    unwanted = {"safetensors.torch": None, "huggingface_hub": None}
    with mock.patch.dict(sys.modules, {package.__name__: package, **unwanted}):
        module = importlib.import_module(f"{package.__name__}.pretrained")
    return module._PRETRAINED  # pyright: ignore[reportPrivateUsage]


def published(architecture: str, tag: str) -> dict[str, Any]:
    """open_clip's entry of a published checkpoint."""
    tags = _published_table().get(architecture, {})
    entry = tags.get(tag.lower().replace("-", "_"))
    if entry is None:
        raise EncoderError(
            f"open_clip publishes no {tag!r} for {architecture}; "
            f"it has {', '.join(sorted(tags)) or 'no tags for it'}"
        )
    return entry


def _common_preprocessing(architecture: str) -> dict[str, Any]:
    """The preprocessing that all published checkpoints of an architecture share.

    A weights file does not say how its images were normalised. Where the published ones differ, a
    guess would give vectors that look right and are not.
    """
    keys = ("mean", "std", "interpolation", "resize_mode", "size", "fill_color")
    entries = _published_table().get(architecture, {}).values()
    ways = [{key: entry[key] for key in keys if key in entry} for entry in entries]
    if any(way != ways[0] for way in ways):
        raise EncoderError(
            f"published checkpoints of {architecture} differ in preprocessing, so a weights file "
            "alone does not say enough: append ?tag=TAG with the one it is or was trained from, or "
            f"put it into a folder with its {CONFIG_FILE} and name the folder"
        )
    return ways[0] if ways else {}


def _stated_activation(choice: EncoderChoice, config: Mapping[str, Any], path: Path) -> Activation:
    """The activation of a weights file, from whoever states it: its metadata, name, or the user."""
    if _has_own_activation(config["vision_cfg"]):
        return "architecture"
    stated: list[Activation] = [choice.activation] if choice.activation else []
    if path.suffix == ".safetensors":
        said = safetensors_header(path).get("__metadata__", {}).get("activation")
        if said in ("gelu", "quick_gelu"):
            stated.append(said)
    if config.get("quick_gelu"):
        stated.append("quick_gelu")
    if len(set(stated)) == 1:
        return stated[0]
    if stated:
        raise EncoderError(f"{choice} is said to be both {' and '.join(sorted(set(stated)))}")
    raise EncoderError(
        f"{path} does not say which activation it was trained with, and the wrong one changes "
        "every vector without an error: append ?activation=quick_gelu (OpenAI, MetaCLIP, DFN and "
        "LAION-400M ViT-B-32 checkpoints), ?activation=gelu (most others), or ?tag=TAG, the "
        "published one that it is or was trained from, to the setting"
    )


def _in_hub_cache(repository: str, name: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise EncoderError(f"huggingface_hub is not installed; {INSTALL}") from error
    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _downloaded(choice: EncoderChoice, entry: Mapping[str, Any]) -> Path:
    """The tag's weights in open_clip's own caches; safetensors first."""
    repository, _, name = str(entry.get("hf_hub", "")).rpartition("/")
    if repository:
        name = name or "open_clip_pytorch_model.bin"
        safe = str(Path(name).with_suffix(".safetensors"))
        if name == "open_clip_pytorch_model.bin":
            safe = "open_clip_model.safetensors"
        for candidate in (safe, name):
            if path := _in_hub_cache(repository, candidate):
                return path
    if url := str(entry.get("url", "")):
        path = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
        if path.is_file():
            return path
    raise EncoderError(_not_here(choice))


def _not_here(choice: EncoderChoice) -> str:
    return (
        f"the weights of {choice} are not on this machine; where there is a network, get them "
        f"with: python -m resources.conversion --fetch {choice}"
    )


def safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON at the head of a safetensors file: dtype, shape and place of every tensor."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError("a header that is no object")
            return {**header, "__start__": 8 + length}
    except ValueError as error:
        raise EncoderError(f"{path} is not a safetensors file, or is cut off: {error}") from error
