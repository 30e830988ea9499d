"""What finds and describes items of the gallery in this deployment: a detector and an encoder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from core.card_descriptor import DESCRIPTOR_ID, DIM, describe, search_views
from core.detection import ContourDetector, Detector
from core.encoders import EncoderError, Vectors
from core.geometry import Image
from resources.encoder import Encoder

DESCRIPTOR = "descriptor"
"""What the gallery's own description without weights is called in settings."""


class GalleryTools(dg.ConfigurableResource):
    """The detector and the encoder of the gallery; both are loaded when they are first used."""

    encoder: str = DESCRIPTOR
    """``descriptor`` or an image encoder as ``QUIRE_IMAGE_ENCODER`` names one."""

    detector: str = ""
    """Empty: the detector without a model; else ``path/to/model.onnx#sha256=<64 digits>``."""

    store_url: str = ""
    budget_mb: int = 0
    cores: int = 1

    _encoder: Encoder | None = PrivateAttr(default=None)

    @property
    def encoder_id(self) -> str:
        """Id of the encoder: vectors of two never meet in a search.

        Raises:
            EncoderError: It is not to be had.
        """
        return (
            DESCRIPTOR_ID
            if self.encoder == DESCRIPTOR
            else self._image_encoder().describe().encoder_id
        )

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return DIM if self.encoder == DESCRIPTOR else self._image_encoder().describe().dim

    @property
    def encoder_mb(self) -> float:
        """Memory that the encoder holds, in MB."""
        if self.encoder == DESCRIPTOR:
            return 0.0
        encoder = self._image_encoder()
        trial = encoder.chosen(encoder.find().manifest).trial
        return trial.peak_mb - trial.base_mb if trial else 0.0

    def embed(self, cards: Sequence[Image]) -> Vectors:
        """One unit vector per rectified card, shape (cards, dim)."""
        return describe(cards) if self.encoder == DESCRIPTOR else self._image_encoder().embed(cards)

    def views_of(self, crops: Sequence[Image]) -> list[list[tuple[NDArray[np.float32], bool]]]:
        """Vectors of each crop as it may lie, and whether it was turned by 180 degrees for it."""
        views = [search_views(crop) for crop in crops]
        vectors = iter(self.embed([view for each in views for view, _ in each]) if crops else ())
        return [[(next(vectors), turned) for _, turned in each] for each in views]

    @property
    def detector_id(self) -> str:
        """Id of the detector, told from its setting: nothing is loaded for it.

        Raises:
            EncoderError: The setting cannot be read.
        """
        if not self.detector:
            return ContourDetector().detector_id
        from resources.onnx_detector import ModelSpec, detector_id_of

        _, pin = self._pinned()
        return detector_id_of(pin, ModelSpec(), ContourDetector())

    def find_detector(self) -> Detector:
        """The detector.

        Raises:
            EncoderError: The setting cannot be read.
            DetectorError: The model is not the one that was pinned, or is none.
        """
        if not self.detector:
            return ContourDetector()
        from resources.onnx_detector import OnnxDetector

        path, pin = self._pinned()
        return OnnxDetector(path, pin, cores=self.cores)

    def _pinned(self) -> tuple[Path, str]:
        """The model's file, and the hash that it must have."""
        path, _, pin = self.detector.partition("#sha256=")
        if len(pin) != hashlib.sha256().digest_size * 2:
            raise EncoderError(
                f"QUIRE_DETECTOR is {self.detector!r}: write path/to/model.onnx#sha256= and its 64 "
                "digits, so that no other model is ever loaded in its place"
            )
        return Path(path).expanduser(), pin

    def _image_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = Encoder(
                spec=self.encoder,
                store_url=self.store_url,
                budget_mb=self.budget_mb,
                cores=self.cores,
            )
        return self._encoder
