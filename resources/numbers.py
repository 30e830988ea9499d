"""Numbers printed on items, read by tesseract where the photograph shows them well enough."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from core.geometry import Image
from core.reading import parse_tsv
from resources.tesseract import Tesseract, TesseractError, open_tesseract


@dataclass(frozen=True)
class NumberSpec:
    """When a number is read, and what of it counts.

    Attributes:
        least_px: Width of an item on the photograph from which on its number is read: a number of
            1.5 mm on a card of 63 mm is then 12 px high, the least that tesseract reads well.
        dpi: What tesseract is told; the strip is enlarged to letters of some 30 px.
        least_confidence: Words of less are not counted: a wrong number does more harm than none.
        timeout_s: For one strip.
        memory_mb: Of one process.
    """

    least_px: float = 500.0
    dpi: float = 300.0
    least_confidence: float = 60.0
    timeout_s: float = 5.0
    memory_mb: int = 120


NUMBERS = NumberSpec()

IN_PIXELS = np.eye(2, 3)
"""Words are left where they are in the picture: only what they say matters here."""


class NumberReader:
    """Reads strips, or nothing where tesseract is not installed: numbers only add to pixels."""

    @cached_property
    def _engine(self) -> Tesseract | None:
        try:
            return open_tesseract(["eng"], timeout_s=NUMBERS.timeout_s, memory_mb=NUMBERS.memory_mb)
        except TesseractError:
            return None

    @property
    def reads(self) -> bool:
        """Whether there is something to read with."""
        return self._engine is not None

    def read(self, strip: Image) -> str:
        """The words of a strip that are read with confidence.

        Raises:
            InputError: Tesseract took too long over it, or crashed.
            BudgetError: It was ended for want of memory.
        """
        if self._engine is None:
            return ""
        grey = np.asarray(cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY), np.uint8)
        said = parse_tsv(self._engine.read(grey, NUMBERS.dpi, one_block=True), IN_PIXELS)
        return " ".join(word.text for word in said if word.confidence >= NUMBERS.least_confidence)
