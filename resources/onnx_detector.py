"""A detector that a user trained: one graph in ONNX Runtime, pinned by the hash of its file.

What a model gives is taken as it is usual: quads, boxes, or the raw grid of the YOLO family. A box
says roughly where a card is; its corners are then sought by the detector that needs no model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from core.detection import ContourDetector, Detection, DetectorError, Quad, reading_order
from core.detection_choice import overlap
from core.detection_quads import short_side_first
from core.geometry import Image
from core.work import spec_id
from resources.checkpoints import file_sha256
from resources.onnx_session import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float32]
Layout = Literal["quads", "boxes", "grid"]


@dataclass(frozen=True)
class ModelSpec:
    """How a model is asked, and what of its answer counts."""

    side_px: int = 640
    """Height and width of the input where the model leaves them open: what the YOLO family is
    trained at."""
    min_score: float = 0.35
    """Least score of a detection: usual for detectors of one class, where a miss costs more than a
    look at what is no card."""
    max_overlap: float = 0.55
    """Two detections that share more of the smaller one's area are one card seen twice."""
    margin: float = 0.12
    """How much of its sides a box is widened by before corners are sought in it."""
    max_detections: int = 200
    """Most detections of a scan, best first."""


def detector_id_of(sha256: str, spec: ModelSpec, refine: ContourDetector) -> str:
    """Names a model file, how it is asked, and what seeks corners in its boxes."""
    return spec_id("onnx-detector", 1, sha256.lower(), spec, refine.detector_id)


class OnnxDetector:
    """A user's model behind the protocol of ``core.detection.Detector``.

    The graph takes one RGB image, float32, 0 to 1, shape (1, 3, height, width); the scan is reduced
    to fit, and the rest of the input is grey. It returns one of

    * quads: (n, 9) or (1, n, 9), four corners x, y and a score;
    * boxes: (n, 6) or (1, n, 6), x0, y0, x1, y1, score, class;
    * a grid: (1, 4 + classes, n), centre x, y, width, height and a score for each class;

    in pixels of the input. Any class is a card.

    Attributes:
        spec: How the model is asked.
        sha256: Of its file.
    """

    def __init__(
        self,
        graph: Path,
        sha256: str,
        *,
        spec: ModelSpec | None = None,
        refine: ContourDetector | None = None,
        cores: int = 1,
    ) -> None:
        """Load the graph and check that it can be asked.

        Args:
            graph: The ``.onnx`` file.
            sha256: What its hash must be, in hexadecimal.
            spec: How the model is asked.
            refine: What seeks corners in boxes.
            cores: Threads of computation.

        Raises:
            DetectorError: The file is missing, is not the one that was named, cannot be loaded, or
                has inputs or outputs of another shape.
        """
        self.spec = spec or ModelSpec()
        self._refine = refine or ContourDetector()
        if not graph.is_file():
            raise DetectorError(f"there is no detector at {graph.name}")
        self.sha256 = file_sha256(graph)
        if self.sha256 != sha256.lower():
            raise DetectorError(
                f"{graph.name} is not the detector that was named: "
                f"its SHA-256 is {self.sha256}, expected {sha256.lower()}"
            )
        try:
            self._session: InferenceSession = open_session(graph, cores)
        except Exception as error:
            raise DetectorError(f"the detector {graph.name} cannot be loaded: {error}") from error
        self._input, self._height, self._width = self._checked_input()
        self._output, self._layout = self._checked_output()

    @property
    def detector_id(self) -> str:
        """See ``detector_id_of``."""
        return detector_id_of(self.sha256, self.spec, self._refine)

    def detect(self, image: Image) -> list[Detection]:
        """The cards of a scan.

        Args:
            image: RGB, uint8, shape (height, width, 3).

        Returns:
            In reading order, at most ``spec.max_detections``, with ``how`` of ``model``.

        Raises:
            DetectorError: The model gives numbers that are not finite, or of another shape than it
                declares.
        """
        if min(image.shape[:2]) < 2:
            return []
        pixels, factor, left, top = self._letterbox(image)
        (answer,) = self._session.run([self._output], {self._input: pixels})
        quads, scores = self._read(np.asarray(answer, np.float32))
        quads = ((quads - (left, top) + 0.5) / factor - 0.5).astype(np.float32)
        kept = self._best(quads, scores)
        found: list[Detection] = []
        for index in kept:
            quad = quads[index].astype(np.float64)
            complaints: tuple[str, ...] = ()
            if self._layout != "quads":
                refined = self._refined(image, quad)
                if refined is None:
                    complaints = ("only a box: the corners of this card were not found",)
                else:
                    quad = refined
            found.append(
                Detection(
                    quad=short_side_first(quad).astype(np.float32),
                    score=float(np.clip(scores[index], 0.0, 1.0)),
                    how="model",
                    complaints=complaints,
                )
            )
        return reading_order(found)

    def _checked_input(self) -> tuple[str, int, int]:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise DetectorError(f"the detector has {len(inputs)} inputs, expected 1")
        shape = list(inputs[0].shape)
        fits = len(shape) == 4 and shape[1] == 3 and (shape[0] == 1 or _is_open(shape[0]))
        if not fits or inputs[0].type != "tensor(float)":
            raise DetectorError(
                f"the detector's input is {inputs[0].type} of shape {shape}, "
                "expected float32 of shape (1, 3, height, width)"
            )
        sides = [side if isinstance(side, int) else self.spec.side_px for side in shape[2:]]
        if min(sides) < 32:
            raise DetectorError(f"the detector's input of {sides} pixels is too small")
        return inputs[0].name, sides[0], sides[1]

    def _checked_output(self) -> tuple[str, Layout]:
        outputs = self._session.get_outputs()
        first = outputs[0]
        layout = _layout(list(first.shape))
        if len(outputs) != 1 or first.type != "tensor(float)" or layout is None:
            shapes = ", ".join(f"{each.type} {list(each.shape)}" for each in outputs)
            raise DetectorError(
                f"the detector's output is {shapes}; expected one float32 of shape (n, 9), "
                "(1, n, 9), (n, 6), (1, n, 6) or (1, 4 + classes, n)"
            )
        return first.name, layout

    def _letterbox(self, image: Image) -> tuple[Floats, float, int, int]:
        """The input, the factor the scan was scaled by, and where it begins."""
        height, width = image.shape[:2]
        factor = min(self._height / height, self._width / width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = cv2.resize(np.ascontiguousarray(image), size, interpolation=how)
        left, top = (self._width - size[0]) // 2, (self._height - size[1]) // 2
        pixels = np.full((1, 3, self._height, self._width), 114 / 255, np.float32)
        pixels[0, :, top : top + size[1], left : left + size[0]] = (
            small.transpose(2, 0, 1).astype(np.float32) / 255.0
        )
        return pixels, factor, left, top

    def _read(self, answer: Floats) -> tuple[Floats, Floats]:
        """Quads in pixels of the input, shape (n, 4, 2), and their scores."""
        if _layout(list(answer.shape)) != self._layout and answer.size:
            raise DetectorError(f"the detector answered with shape {answer.shape}")
        if not np.isfinite(answer).all():
            raise DetectorError("the detector answered with numbers that are not finite")
        if self._layout == "grid":
            rows = answer[0].T
            scores = rows[:, 4:].max(axis=1)
            x, y, half_w, half_h = rows[:, 0], rows[:, 1], rows[:, 2] / 2, rows[:, 3] / 2
            return _corners(x - half_w, y - half_h, x + half_w, y + half_h), scores
        rows = answer.reshape(-1, 9 if self._layout == "quads" else 6)
        if self._layout == "quads":
            return rows[:, :8].reshape(-1, 4, 2), rows[:, 8]
        return _corners(*rows[:, :4].T), rows[:, 4]

    def _best(self, quads: Floats, scores: Floats) -> list[int]:
        """Indices of what counts, best first, each card once."""
        kept: list[int] = []
        for index in np.argsort(-scores, kind="stable").tolist():
            if scores[index] < self.spec.min_score or len(kept) == self.spec.max_detections:
                break
            quad = quads[index].astype(np.float64)
            if abs(float(cv2.contourArea(quads[index]))) < 16.0:
                continue
            if all(
                overlap(quad, quads[other].astype(np.float64)) <= self.spec.max_overlap
                for other in kept
            ):
                kept.append(index)
        return kept

    def _refined(self, image: Image, box: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The corners of the one card that fills a box, or None."""
        low, high = box.min(axis=0), box.max(axis=0)
        grow = (high - low) * self.spec.margin
        x0, y0 = np.floor(np.maximum(low - grow, 0)).astype(int).tolist()
        x1, y1 = np.ceil(np.minimum(high + grow, image.shape[1::-1])).astype(int).tolist()
        if x1 - x0 < 2 or y1 - y0 < 2:
            return None
        best: NDArray[np.float64] | None = None
        closest = 0.6
        for found in self._refine.detect(image[y0:y1, x0:x1]):
            quad: Quad = found.quad + np.array([x0, y0], np.float32)
            around = np.array([quad.min(axis=0), quad.max(axis=0)], np.float64)
            agreement = _box_iou(around, np.array([low, high]))
            if agreement > closest:
                best, closest = quad.astype(np.float64), agreement
        return best


def _is_open(side: object) -> bool:
    """Whether the model leaves a dimension open."""
    return not isinstance(side, int)


def _layout(shape: list[object]) -> Layout | None:
    """What an output of this shape holds; open dimensions are names or None."""
    if len(shape) == 3 and not (shape[0] == 1 or _is_open(shape[0])):
        return None
    if len(shape) not in (2, 3):
        return None
    if shape[-1] == 9:
        return "quads"
    if shape[-1] == 6:
        return "boxes"
    rows = shape[1]
    return "grid" if len(shape) == 3 and isinstance(rows, int) and rows >= 5 else None


def _corners(x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> Floats:
    """Boxes as quads, clockwise from the top left, shape (n, 4, 2)."""
    return np.stack(
        [np.stack(pair, -1) for pair in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], axis=1
    ).astype(np.float32)


def _box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of boxes given by two corners, shape (2, 2)."""
    sides = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
    common = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(a[1] - a[0]) + np.prod(b[1] - b[0])) - common
    return common / union if union > 0 else 0.0
