"""Visual towers in torch: checkpoints are read and exported here, and give the reference.

The only module beside training that imports torch and open_clip, inside its functions.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import mmap
import pickle
import sys
import warnings
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.encoders import (
    EncoderChoice,
    EncoderError,
    Vectors,
    checked_shape,
    preprocess,
    unit_vectors,
)
from core.errors import is_out_of_memory
from core.geometry import Image
from core.runtimes import CONVERSION, EXACT
from resources.checkpoints import (
    CONFIG_FILE,
    INSTALL,
    Checkpoint,
    find_checkpoint,
    published,
    safetensors_header,
)
from resources.onnx_encoder import INPUT, OUTPUT
from resources.trial import in_batches

if TYPE_CHECKING:
    import torch

REFERENCE = "reference.npz"
"""What torch makes of the gate's images, until they have been compared."""


def import_open_clip() -> Any:
    """Import open_clip, which imports torchvision, whether or not that one's compiled part loads.

    Beside a torch of another build torchvision stops with "operator torchvision::nms does not
    exist" while it only wants to describe the operator. Declaring the two operators lets the import
    pass; open_clip uses neither. Where torchvision is healthy nothing is declared.
    """
    import_torchvision_for("open_clip")
    return importlib.import_module("open_clip")


def import_torchvision_for(package: str) -> None:
    """Import torchvision before a package that does, which needs torch as well.

    Raises:
        EncoderError: One of them is not installed.
    """
    for name in ("torch", "torchvision", package):
        if importlib.util.find_spec(name) is None:
            raise EncoderError(f"{name} is not installed; {INSTALL}")
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare_torchvision_operators()
        importlib.import_module("torchvision")


@cache
def _declare_torchvision_operators() -> "torch.library.Library":
    """The declarations last as long as the returned object, which the cache keeps."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


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
    header = safetensors_header(path)
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


class VisualTower:
    """A visual tower in this process, on the CPU, in float32: the reference of its runtimes.

    Its weights stay in the file where that is safetensors in float32.
    """

    def __init__(self, checkpoint: Checkpoint, *, cores: int) -> None:
        """Build the tower.

        Args:
            checkpoint: Where the weights are and what they need.
            cores: Threads of computation; more than were granted collapse the speed.

        Raises:
            EncoderError: torch or open_clip is not installed, or the weights are damaged, refused,
                or do not belong to the architecture.
        """
        import_open_clip()
        import torch

        torch.set_num_threads(cores)
        # The fused attention has no counterpart in ONNX; what it computes is the same.
        torch.backends.mha.set_fastpath_enabled(False)
        self.spec = checkpoint.spec
        state = _visual_state(checkpoint.path)
        try:
            self.module = _assemble(checkpoint, state)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise EncoderError(
                f"{checkpoint.path} does not hold a visual tower of {self.spec.architecture}: "
                f"{' '.join(str(error).split())[:500]}"
            ) from error

    def embed(self, images: Sequence[Image]) -> Vectors:
        """One unit vector per image, all images in one batch.

        Raises:
            EncoderError: The weights give vectors that are zero or not finite.
        """
        import torch

        with torch.inference_mode():
            output = self.module(torch.from_numpy(preprocess(images, self.spec.preprocessing)))
            features: Vectors = (output[0] if isinstance(output, tuple) else output).numpy()
        return unit_vectors(checked_shape(features, len(images), self.spec))


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


def graph_name(runtime: str) -> str:
    """Name of a runtime's graph within its folder."""
    return f"visual.{runtime}.onnx"


def export(checkpoint: Checkpoint, pictures: Sequence[Path], folder: Path, cores: int) -> int:
    """Write a tower as a graph in full precision, and what torch itself makes of some pictures.

    Args:
        checkpoint: The tower.
        pictures: Images, each embedded as it is and as an edited copy.
        folder: Where the graph and ``REFERENCE`` go.
        cores: Threads of computation.

    Returns:
        Images at a time that suit the tower.

    Raises:
        EncoderError: As ``VisualTower``, or the graph cannot be written.
    """
    tower = VisualTower(checkpoint, cores=cores)
    weights = sum(p.numel() * p.element_size() for p in tower.module.parameters())
    batch = CONVERSION.batch(weights)
    images, edited = (
        np.concatenate([tower.embed(part) for part in in_batches(pictures, batch, planted=planted)])
        for planted in (False, True)
    )
    np.savez(folder / REFERENCE, images=images, edited=edited)
    _write_graph(tower, folder / graph_name(EXACT))
    return batch


def _write_graph(tower: VisualTower, path: Path) -> None:
    import torch

    how = tower.spec.preprocessing
    example = torch.zeros(2, 3, how.height_px, how.width_px)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # about the exporter's own workings
        torch.onnx.export(
            tower.module,
            (example,),
            str(path),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=True,
            verbose=False,
        )


def download(choice: EncoderChoice) -> Path:
    """Fetch an encoder's weights over the network into open_clip's caches; the path of the weights.

    Only ever called when a person asks for it: runs do not download.
    """
    open_clip = import_open_clip()
    if choice.source == "tag":
        entry = published(choice.architecture, choice.location)
        return Path(open_clip.pretrained.download_pretrained(entry))
    if choice.source == "hub":
        open_clip.pretrained.download_pretrained_from_hf(choice.location, CONFIG_FILE)
        return Path(open_clip.pretrained.download_pretrained_from_hf(choice.location))
    return find_checkpoint(choice).path
