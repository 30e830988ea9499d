"""The image encoder: finds a checkpoint, builds its visual tower and nothing else, embeds images.

Describing an encoder needs neither torch nor open_clip in memory (importing them takes 365 MB),
so an op that only has to know which vectors to read stays small. Embedding imports them inside the
op's own process.
"""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import mmap
import pickle
import resource
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import dagster as dg
import numpy as np
from pydantic import PrivateAttr

from core.encoders import (
    OPEN_CLIP_PREPROCESSING,
    Activation,
    EncoderChoice,
    EncoderError,
    EncoderSpec,
    Preprocessing,
    Vectors,
    canonical_sha256,
    parse_encoder,
    preprocess,
    unit_vectors,
)
from core.errors import BudgetError
from core.geometry import Image

if TYPE_CHECKING:
    import torch

_INSTALL = "install what encoders need: pip install 'quire[encoders]'"
_CONFIG_FILE = "open_clip_config.json"
_WEIGHTS_FILES = (
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
    """

    spec: EncoderSpec
    path: Path
    vision_config: Mapping[str, Any]


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
            published = _published(choice.architecture, choice.location)
            path = _downloaded(choice, published)
            activation = "quick_gelu" if published.get("quick_gelu") else "gelu"
            return _checkpoint(choice.architecture, config, published, path, activation)
        case "file":
            config = _architecture(choice.architecture)
            path = Path(choice.location).expanduser()
            if not path.is_file():
                raise EncoderError(f"there is no weights file {path}")
            if choice.like_tag:
                how = _published(choice.architecture, choice.like_tag)
                activation = "quick_gelu" if how.get("quick_gelu") else "gelu"
            else:
                how = _common_preprocessing(choice.architecture)
                activation = _stated_activation(choice, config, path)
            return _checkpoint(choice.architecture, config, how, path, activation)
        case "folder":
            folder = Path(choice.location).expanduser()
            config_path = folder / _CONFIG_FILE
            if not config_path.is_file():
                raise EncoderError(f"there is no {_CONFIG_FILE} in {folder}")
            found = [folder / name for name in _WEIGHTS_FILES if (folder / name).is_file()]
            if not found:
                raise EncoderError(f"none of {', '.join(_WEIGHTS_FILES)} is in {folder}")
            return _described_checkpoint(folder.resolve().name, config_path, found[0])
        case "hub":
            config_path = _in_hub_cache(choice.location, _CONFIG_FILE)
            found = [p for name in _WEIGHTS_FILES if (p := _in_hub_cache(choice.location, name))]
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
        weights_sha256=_sha256(path, path.stat().st_size, path.stat().st_mtime_ns),
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
    return Checkpoint(spec, path, vision)


def _triple(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, Sequence) else (value,) * 3
    return float(red), float(green), float(blue)


def _has_own_activation(vision: Mapping[str, Any]) -> bool:
    """Towers from timm and ResNets (``layers`` per stage) have no GELU to choose."""
    return bool(vision.get("timm_model_name")) or isinstance(vision.get("layers"), list)


@cache
def _sha256(path: Path, size_bytes: int, changed_ns: int) -> str:
    """Hash of a file; hashed again only once its size or time of change differs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_clip_folder() -> Path:
    """Where open_clip is installed, without importing it."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise EncoderError(f"open_clip is not installed; {_INSTALL}")
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


def _published(architecture: str, tag: str) -> dict[str, Any]:
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
            f"put it into a folder with its {_CONFIG_FILE} and name the folder"
        )
    return ways[0] if ways else {}


def _stated_activation(choice: EncoderChoice, config: Mapping[str, Any], path: Path) -> Activation:
    """The activation of a weights file, from whoever states it: its metadata, name, or the user."""
    if _has_own_activation(config["vision_cfg"]):
        return "architecture"
    stated: list[Activation] = [choice.activation] if choice.activation else []
    if path.suffix == ".safetensors":
        said = _safetensors_header(path).get("__metadata__", {}).get("activation")
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
        raise EncoderError(f"huggingface_hub is not installed; {_INSTALL}") from error
    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _downloaded(choice: EncoderChoice, published: Mapping[str, Any]) -> Path:
    """The tag's weights in open_clip's own caches; safetensors first."""
    repository, _, name = str(published.get("hf_hub", "")).rpartition("/")
    if repository:
        name = name or "open_clip_pytorch_model.bin"
        safe = str(Path(name).with_suffix(".safetensors"))
        if name == "open_clip_pytorch_model.bin":
            safe = "open_clip_model.safetensors"
        for candidate in (safe, name):
            if path := _in_hub_cache(repository, candidate):
                return path
    if url := str(published.get("url", "")):
        path = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
        if path.is_file():
            return path
    raise EncoderError(_not_here(choice))


def _not_here(choice: EncoderChoice) -> str:
    return (
        f"the weights of {choice} are not on this machine; where there is a network, get them "
        f"with: python -m resources.encoder {choice}"
    )


def download(choice: EncoderChoice) -> Path:
    """Fetch an encoder's weights over the network into open_clip's caches; the path of the weights.

    Only ever called when a person asks for it: runs do not download.
    """
    open_clip = _import_open_clip()
    if choice.source == "tag":
        entry = _published(choice.architecture, choice.location)
        return Path(open_clip.pretrained.download_pretrained(entry))
    if choice.source == "hub":
        open_clip.pretrained.download_pretrained_from_hf(choice.location, _CONFIG_FILE)
        return Path(open_clip.pretrained.download_pretrained_from_hf(choice.location))
    return find_checkpoint(choice).path


def _import_open_clip() -> Any:
    """Import open_clip, which imports torchvision, whether or not that one's compiled part loads.

    Beside a torch of another build torchvision stops with "operator torchvision::nms does not
    exist" while it only wants to describe the operator. Declaring the two operators lets the import
    pass; open_clip uses neither. Where torchvision is healthy nothing is declared.
    """
    for name in ("torch", "torchvision", "open_clip"):
        if importlib.util.find_spec(name) is None:
            raise EncoderError(f"{name} is not installed; {_INSTALL}")
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_torchvision_operators()
        importlib.import_module("torchvision")
    return importlib.import_module("open_clip")


@cache
def _declare_torchvision_operators() -> "torch.library.Library":
    """The declarations last as long as the returned object, which the cache keeps."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _safetensors_header(path: Path) -> dict[str, Any]:
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


def _map_safetensors(path: Path, wanted: Sequence[str]) -> "dict[str, torch.Tensor]":
    """Tensors of a safetensors file that live in the file, mapped read-only and shared.

    ``safetensors.load_file`` maps privately and writable, which counts against the op's memory
    limit as if it were allocated; these pages do not, and the kernel may drop them at any time.

    Args:
        path: The file.
        wanted: Prefixes of the tensors to map; an empty one means all.
    """
    import torch

    dtypes = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
        "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    header = _safetensors_header(path)
    start = header.pop("__start__")
    header.pop("__metadata__", None)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tensors: dict[str, torch.Tensor] = {}
    try:
        for name, entry in header.items():
            if not name.startswith(tuple(wanted)):
                continue
            dtype, shape = dtypes[entry["dtype"]], entry["shape"]
            begin, end = entry["data_offsets"]
            count = int(np.prod(shape, dtype=np.int64))
            if (
                end - begin != count * dtype.itemsize
                or not 0 <= begin <= end <= len(mapped) - start
            ):
                raise ValueError(f"{name} does not fit the file")
            if count == 0:
                tensors[name] = torch.empty(shape, dtype=dtype)
                continue
            with warnings.catch_warnings():
                # torch would like to be able to write; nothing here does.
                warnings.filterwarnings("ignore", message="The given buffer is not writable")
                flat = torch.frombuffer(mapped, dtype=dtype, count=count, offset=start + begin)
            tensors[name] = flat.reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{path} is damaged: {error!r}") from error
    return tensors


def _unpickle(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a torch file, read without running any code it may carry."""
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise EncoderError(
            f"{path} was refused: it holds more than tensors, and a pickle can run any code "
            "(or it is damaged). Use the safetensors file of this checkpoint, or convert it on a "
            f"machine where you trust it. ({str(error).splitlines()[0]})"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise EncoderError(f"{path} holds no state_dict of tensors")
    return state


def _visual_state(path: Path) -> "dict[str, torch.Tensor]":
    """The visual tower's weights by their names within the tower, float32 where they are floats."""
    if path.suffix == ".safetensors":
        # A file of a whole model, of one trained in parallel, or of a tower alone.
        state = _map_safetensors(path, ("visual.", "module.visual.")) or _map_safetensors(
            path, ("",)
        )
    else:
        state = _unpickle(path)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    visual = {
        name.removeprefix("visual."): tensor
        for name, tensor in state.items()
        if name.startswith("visual.")
    }
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in (visual or state).items()
    }


class TorchEncoder:
    """A visual tower in this process, on the CPU, in float32.

    Holds the tower (its weights stay in the file where that is safetensors in float32) and, while
    it embeds, one batch of input and its activations.

    Attributes:
        spec: What it is.
        batch: Images at a time; halved, for good, when memory runs out.
    """

    def __init__(self, checkpoint: Checkpoint, *, cores: int, batch: int) -> None:
        """Build the tower.

        Args:
            checkpoint: Where the weights are and what they need.
            cores: Threads of computation; more than were granted collapse the speed.
            batch: Images at a time.

        Raises:
            EncoderError: torch or open_clip is not installed, or the weights are damaged, refused,
                or do not belong to the architecture.
        """
        _import_open_clip()
        import torch

        torch.set_num_threads(cores)
        self.spec = checkpoint.spec
        self.batch = batch
        state = _visual_state(checkpoint.path)
        try:
            self._tower = _assemble(checkpoint, state)
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise
            raise EncoderError(
                f"{checkpoint.path} does not hold a visual tower of {self.spec.architecture}: "
                f"{' '.join(str(error).split())[:500]}"
            ) from error

    def embed(self, images: Sequence[Image]) -> Vectors:
        """One unit vector per image.

        A batch that does not fit the memory granted is halved and tried again at the same image,
        down to one.

        Args:
            images: RGB, each of shape (height, width, 3); sizes may differ.

        Returns:
            Shape (images, dim), in order.

        Raises:
            BudgetError: Not even one image fits.
            EncoderError: The weights give vectors that are zero or not finite.
        """
        vectors = np.empty((len(images), self.spec.dim), dtype=np.float32)
        start = 0
        while start < len(images):
            chunk = images[start : start + self.batch]
            try:
                features = self._forward(chunk)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(chunk) == 1:
                    raise _beyond_budget(self.spec, error) from error
                self.batch = len(chunk) // 2
                continue
            vectors[start : start + len(chunk)] = unit_vectors(features)
            start += len(chunk)
        return vectors

    def _forward(self, images: Sequence[Image]) -> Vectors:
        import torch

        with torch.inference_mode():
            output = self._tower(torch.from_numpy(preprocess(images, self.spec.preprocessing)))
            features: Vectors = (output[0] if isinstance(output, tuple) else output).numpy()
        if features.shape != (len(images), self.spec.dim):
            raise EncoderError(
                f"{self.spec.architecture} gave {features.shape} for {len(images)} images of "
                f"{self.spec.dim} dimensions: its vision_cfg does not end in one vector an image"
            )
        return features


def _assemble(checkpoint: Checkpoint, state: "dict[str, torch.Tensor]") -> "torch.nn.Module":
    """The visual tower with these weights; the text tower is never built.

    Built without memory of its own (the meta device), then given the weights as they lie in the
    file. Towers that compute constants when they are built, which no checkpoint holds, are built
    once more with memory.
    """
    import torch
    from open_clip.model import _build_vision_tower  # pyright: ignore[reportPrivateUsage]

    def build() -> torch.nn.Module:
        return _build_vision_tower(
            checkpoint.spec.dim,
            deepcopy(dict(checkpoint.vision_config)),  # pyright: ignore[reportArgumentType]
            quick_gelu=checkpoint.spec.activation == "quick_gelu",
        )

    with torch.device("meta"):
        tower = build()
    tower.load_state_dict(state, strict=True, assign=True)
    if any(tensor.is_meta for tensor in [*tower.buffers(), *tower.parameters()]):
        tower = build()
        tower.load_state_dict(state, strict=True, assign=True)
    return tower.eval().requires_grad_(False)


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a memory",
    "could not create a primitive",
)
"""How torch's allocator, C++ and oneDNN say it; numpy raises MemoryError."""


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def _beyond_budget(spec: EncoderSpec, error: BaseException) -> BudgetError:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    budget_mb = float("inf") if limit == resource.RLIM_INFINITY else limit / 1e6
    return BudgetError(
        f"encoder {spec.encoder_id} does not fit: a single image runs out of memory ({error})",
        budget_mb=budget_mb,
        needed_mb=budget_mb * 2,
    )


class Encoder(dg.ConfigurableResource):
    """The image encoder of this deployment, or none.

    The model is loaded when the first image is embedded, in the process that does it.
    """

    spec: str = ""
    """As ``core.encoders.parse_encoder`` reads it; empty for none."""

    cores: int = 1
    """Threads of computation."""

    batch: int = 8
    """Images at a time. Larger batches are no faster on a CPU, and hold more."""

    _loaded: TorchEncoder | None = PrivateAttr(default=None)

    @property
    def configured(self) -> bool:
        """Whether there is an encoder at all; if not, copy search runs on local features alone."""
        return bool(self.spec.strip())

    def describe(self) -> EncoderSpec:
        """What the configured encoder is, without loading it.

        Raises:
            EncoderError: None is configured, or it cannot be found; the message says what to do.
        """
        return self._checkpoint().spec

    def embed(self, images: Sequence[Image]) -> Vectors:
        """One unit vector per image; see ``TorchEncoder.embed``."""
        return self.load().embed(images)

    def load(self) -> TorchEncoder:
        """The model, loaded once in this process."""
        if self._loaded is None:
            self._loaded = TorchEncoder(self._checkpoint(), cores=self.cores, batch=self.batch)
        return self._loaded

    def _checkpoint(self) -> Checkpoint:
        choice = parse_encoder(self.spec)
        if choice is None:
            raise EncoderError("no image encoder is configured (QUIRE_IMAGE_ENCODER is empty)")
        return find_checkpoint(choice)


if __name__ == "__main__":
    wanted = parse_encoder(" ".join(sys.argv[1:]))
    if wanted is None:
        sys.exit("usage: python -m resources.encoder open_clip:ARCHITECTURE/TAG")
    download(wanted)
    sys.stdout.write(f"{find_checkpoint(wanted).spec.encoder_id}\n")
