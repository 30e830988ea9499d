"""Text encoders in torch: the reference of their runtimes, and the export of those that need it.

Imports torch and transformers, inside its functions.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.encoders import EncoderError, Vectors
from core.text_encoders import checked_vectors
from resources.text_checkpoints import INSTALL, TextCheckpoint
from resources.text_encoder import IDS, MASK, OUTPUT
from resources.text_tokens import TextTokens
from resources.visual_tower import import_torchvision_for

if TYPE_CHECKING:
    import torch


class TextTower:
    """A sentence encoder in this process, on the CPU, in float32."""

    def __init__(self, checkpoint: TextCheckpoint, *, cores: int) -> None:
        """Load it; no code that comes with a model is ever run.

        Raises:
            EncoderError: torch or transformers is not installed, or the model is not known to it.
        """
        try:
            import_torchvision_for("transformers")
            import torch
            import transformers
        except ImportError as error:
            raise EncoderError(f"{error.name} is not installed; {INSTALL}") from error
        torch.set_num_threads(cores)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.spec = checkpoint.spec
        self._tokens = TextTokens(checkpoint.tokenizer.read_text(encoding="utf-8"), self.spec)
        try:
            model = transformers.AutoModel.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",  # what others compute is the same, and not exportable
                dtype=torch.float32,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncoderError(
                f"transformers cannot load {self.spec.name}: {' '.join(str(error).split())[:500]}"
            ) from error
        self.module = _pooled(model, self.spec.pooling).eval().requires_grad_(False)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a passage, one passage at a time."""
        ids = [np.asarray([self._tokens.read(text, "passage").ids]) for text in texts]
        return checked_vectors(np.concatenate(list(map(self.run, ids))), len(texts), self.spec)

    def run(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """What comes of tokens, shape (texts, tokens), all of which are read."""
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(ids)
            return self.module(given, torch.ones_like(given)).numpy()

    def export(self, path: Path) -> None:
        """Write the graph in full precision, its weights beside it."""
        import torch

        # Two tensors: one that is given twice would be taken for one input.
        ids, mask = (torch.full((2, 7), value, dtype=torch.int64) for value in (4, 1))
        sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about the exporter's own workings
            torch.onnx.export(
                self.module,
                (ids, mask),
                str(path),
                dynamo=True,
                input_names=[IDS, MASK],
                output_names=[OUTPUT],
                dynamic_shapes=(sizes, sizes),
                external_data=True,
                verbose=False,
            )


def _pooled(model: Any, pooling: str) -> "torch.nn.Module":
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            if pooling == "cls":
                return hidden[:, 0]
            whole = mask.to(hidden.dtype).unsqueeze(-1)
            return (hidden * whole).sum(1) / whole.sum(1)

    return Pooled()


def reference(checkpoint: TextCheckpoint, texts: Sequence[str], cores: int) -> Vectors:
    """What torch itself makes of some passages."""
    return TextTower(checkpoint, cores=cores).embed(texts)


def export(checkpoint: TextCheckpoint, path: Path, texts: Sequence[str], cores: int) -> Vectors:
    """Write the graph, and return what torch itself makes of some passages."""
    tower = TextTower(checkpoint, cores=cores)
    vectors = tower.embed(texts)
    tower.export(path)
    return vectors
