"""An encoder that runs: one graph in ONNX Runtime, on the CPU.

Neither torch nor open_clip is needed; a process that embeds holds numpy, Pillow and the runtime.
"""

import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.encoders import (
    EncoderError,
    EncoderSpec,
    Vectors,
    checked_shape,
    preprocess,
    unit_vectors,
)
from core.errors import BudgetError, is_out_of_memory
from core.geometry import Image
from resources.onnx_session import open_session

INPUT, OUTPUT = "pixels", "features"
"""Names within the graph."""


class OnnxEncoder:
    """A visual tower in this process.

    Holds the weights, and while it embeds one batch of input and its activations.

    Attributes:
        spec: What it is.
        batch: Images at a time; halved, for good, when memory runs out.
    """

    def __init__(self, spec: EncoderSpec, graph: Path, *, cores: int, batch: int) -> None:
        """Load the graph.

        Args:
            spec: What it is.
            graph: The ``.onnx`` file, with what it refers to beside it.
            cores: Threads of computation; more than were granted collapse the speed.
            batch: Images at a time.

        Raises:
            EncoderError: The graph cannot be loaded.
            BudgetError: It does not fit.
        """
        self.spec = spec
        self.batch = batch
        try:
            self._session = open_session(graph, cores)
        except Exception as error:
            if is_out_of_memory(error):
                raise _beyond_budget(spec, error) from error
            raise EncoderError(
                f"the {spec.runtime} runtime of {spec.architecture} cannot be loaded: {error}"
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
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(chunk) == 1:
                    raise _beyond_budget(self.spec, error) from error
                self.batch = len(chunk) // 2
                continue
            vectors[start : start + len(chunk)] = unit_vectors(features)
            start += len(chunk)
        return vectors

    def _forward(self, images: Sequence[Image]) -> Vectors:
        pixels = preprocess(images, self.spec.preprocessing)
        (features,) = self._session.run([OUTPUT], {INPUT: pixels})
        return checked_shape(np.asarray(features, dtype=np.float32), len(images), self.spec)


def _beyond_budget(spec: EncoderSpec, error: BaseException) -> BudgetError:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    budget_mb = float("inf") if limit == resource.RLIM_INFINITY else limit / 1e6
    return BudgetError(
        f"encoder {spec.encoder_id} does not fit: a single image runs out of memory ({error})",
        budget_mb=budget_mb,
        needed_mb=budget_mb * 2,
    )
