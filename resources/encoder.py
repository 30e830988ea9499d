"""The image encoder of this deployment: what it is, and images into vectors.

It runs without torch and open_clip. A checkpoint has to be converted first, which the asset
``encoders`` does (or ``python -m resources.conversion``); what came of it is in the image store. A
folder with a manifest runs as it is.
"""

from collections.abc import Sequence

import dagster as dg
import numpy as np
from pydantic import PrivateAttr

from core.embedding_search import Background
from core.encoders import (
    EncoderChoice,
    EncoderError,
    EncoderSpec,
    Vectors,
    each_encoder,
    parse_encoder,
)
from core.geometry import Image
from core.parity import is_same, witness_image
from core.runtimes import Manifest, Runtime, checkpoint_sha256
from resources.checkpoints import find_checkpoint, folder_of
from resources.encoder_folder import EncoderFolder, StoredEncoder, folder_encoder, stored_encoder
from resources.images import ImageStore
from resources.onnx_encoder import OnnxEncoder


class NotConvertedError(EncoderError):
    """The encoder is known, and nothing that runs has been made of it yet."""


def find_encoder(choice: EncoderChoice, images: ImageStore | None) -> EncoderFolder | StoredEncoder:
    """The encoder that a choice means, in the form that runs.

    Args:
        choice: What the user wrote.
        images: Where conversions are kept; None: only folders that run as they are.

    Raises:
        NotConvertedError: It has to be converted first.
        EncoderError: It cannot be found, or its manifest is damaged.
    """
    folder = folder_of(choice)
    if folder is not None and (found := folder_encoder(folder)):
        return found
    checkpoint = find_checkpoint(choice).spec
    stored = stored_encoder(images, checkpoint_sha256(checkpoint)) if images else None
    if stored is None:
        raise NotConvertedError(
            f"{choice} has not been converted to a form that runs: materialize the asset encoders, "
            "or convert it with python -m resources.conversion and name the folder that it writes"
        )
    return stored


class Encoder(dg.ConfigurableResource):
    """The image encoder of this deployment, or none.

    The model is loaded when the first image is embedded, in the process that does it.
    """

    spec: str = ""
    """As ``core.encoders.parse_encoder`` reads it; empty for none."""

    store_url: str = ""
    """The image store with what checkpoints were converted to; empty: folders alone."""

    budget_mb: int = 0
    """What the op that embeds may hold; it picks among the runtimes. The same for every op and
    process, since what was picked is a part of the encoder's id. 0: no limit."""

    cores: int = 1
    """Threads of computation."""

    _loaded: OnnxEncoder | None = PrivateAttr(default=None)

    @property
    def configured(self) -> bool:
        """Whether there is an encoder at all; if not, copy search runs on local features alone."""
        return bool(self.spec.strip())

    def each(self) -> "tuple[Encoder, ...]":
        """The encoders that the setting names, one by one."""
        kept = self.model_dump(include={"store_url", "budget_mb", "cores"})
        return tuple(Encoder(spec=one, **kept) for one in each_encoder(self.spec))

    def choice(self) -> EncoderChoice:
        """What the user wrote.

        Raises:
            EncoderError: Nothing, or nothing that can be read.
        """
        choice = parse_encoder(self.spec)
        if choice is None:
            raise EncoderError("no image encoder is configured (QUIRE_IMAGE_ENCODER is empty)")
        return choice

    def find(self) -> EncoderFolder | StoredEncoder:
        """The encoder in the form that runs; see ``find_encoder``."""
        images = ImageStore(url=self.store_url) if self.store_url else None
        return find_encoder(self.choice(), images)

    def describe(self) -> EncoderSpec:
        """What the configured encoder is, runtime included, without loading it.

        Raises:
            EncoderError: None is configured, or it cannot be found; the message says what to do.
            BudgetError: None of its runtimes fits.
        """
        manifest = self.find().manifest
        return manifest.described(self.chosen(manifest))

    def chosen(self, manifest: Manifest) -> Runtime:
        """The runtime that the budget picks.

        Raises:
            BudgetError: None fits.
        """
        return manifest.choose(self.budget_mb or float("inf"))

    def background(self) -> Background | None:
        """The background that comes with the encoder; see ``EncoderFolder.background``."""
        found = self.find()
        if not isinstance(found, EncoderFolder):
            return None
        return found.background(self.chosen(found.manifest))

    def embed(self, images: Sequence[Image]) -> Vectors:
        """One unit vector per image; see ``OnnxEncoder.embed``."""
        return self.load().embed(images)

    def load(self) -> OnnxEncoder:
        """The model, loaded once in this process."""
        if self._loaded is None:
            found = self.find()
            runtime = self.chosen(found.manifest)
            assert runtime.trial is not None
            with found.opened(runtime) as graph:
                loaded = OnnxEncoder(
                    found.manifest.described(runtime),
                    graph,
                    cores=self.cores,
                    batch=runtime.trial.batch,
                )
            (seen,) = loaded.embed([witness_image()])
            if not is_same(np.asarray(runtime.witness), seen):
                raise EncoderError(
                    f"this machine computes the {runtime.name} runtime of "
                    f"{found.manifest.encoder.architecture} otherwise than where it was measured; "
                    "convert the encoder on a machine like this one"
                )
            self._loaded = loaded
        return self._loaded
