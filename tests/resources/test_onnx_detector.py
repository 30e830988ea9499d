"""Detectors are replaced by graphs that answer with constants."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from core.detection import Detector, DetectorError
from core.encoders import EncoderError
from resources.checkpoints import file_sha256
from resources.gallery_tools import GalleryTools
from resources.onnx_detector import OnnxDetector

SIDE = 320
BOX = (80.0, 70.0, 80.0 + 126.0, 70.0 + 176.0)


def model(
    folder: Path,
    answer: NDArray[np.float32],
    declared: list[int | str] | None = None,
    takes: tuple[int | str, ...] = (1, 3, SIDE, SIDE),
) -> Path:
    """A graph that gives ``answer`` plus zero times its input."""
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    constant = numpy_helper.from_array(answer.astype(np.float32), "constant")
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["constant", "nothing"], ["cards"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(takes))],
        [
            helper.make_tensor_value_info(
                "cards", TensorProto.FLOAT, list(answer.shape) if declared is None else declared
            )
        ],
        [zero, constant],
    )
    path = folder / "cards.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def opened(path: Path) -> OnnxDetector:
    return OnnxDetector(path, file_sha256(path))


def scan() -> NDArray[np.uint8]:
    """A card at ``BOX`` of the model's input, on a table twice that size and half as high."""
    image = np.full((SIDE * 2, SIDE * 2, 3), (60, 90, 130), np.uint8)
    x0, y0, x1, y1 = (round(2 * side) for side in BOX)
    image[y0:y1, x0:x1] = (240, 215, 90)
    image[y0 + 14 : y1 - 14, x0 + 14 : x1 - 14] = (90, 160, 120)
    cv2.circle(image, ((x0 + x1) // 2, (y0 + y1) // 2), 60, (200, 30, 40), -1)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1) + noise, 0, 255).astype(np.uint8)


def wanted() -> NDArray[np.float32]:
    x0, y0, x1, y1 = (2 * side - 0.5 for side in BOX)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def test_quads_come_back_in_pixels_of_the_scan(tmp_path: Path) -> None:
    x0, y0, x1, y1 = (side - 0.5 for side in BOX)
    rows = np.array([[x1, y1, x0, y1, x0, y0, x1, y0, 0.9]], np.float32)
    detector: Detector = opened(model(tmp_path, rows))
    (found,) = detector.detect(scan())
    np.testing.assert_allclose(found.quad, wanted(), atol=0.1)
    assert (found.how, round(found.score, 3), found.complaints) == ("model", 0.9, ())


def test_boxes_are_refined_to_the_corners_of_the_card(tmp_path: Path) -> None:
    x0, y0, x1, y1 = BOX
    loose = np.array([[[x0 - 6, y0 - 4, x1 + 3, y1 + 7, 0.8, 0.0]]], np.float32)
    (found,) = opened(model(tmp_path, loose)).detect(scan())
    np.testing.assert_allclose(found.quad, wanted(), atol=3.0)
    assert found.complaints == ()


def test_a_box_around_nothing_keeps_its_sides_and_says_so(tmp_path: Path) -> None:
    rows = np.array([[20.0, 20.0, 83.0, 108.0, 0.8, 0.0]], np.float32)
    (found,) = opened(model(tmp_path, rows)).detect(np.full((SIDE, SIDE, 3), 90, np.uint8))
    np.testing.assert_allclose(found.quad, [[20, 20], [83, 20], [83, 108], [20, 108]], atol=0.1)
    assert "only a box" in found.complaints[0]


def test_a_grid_gives_each_card_once(tmp_path: Path) -> None:
    x0, y0, x1, y1 = BOX
    centre = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    columns = np.array(
        [
            [*centre, 0.1, 0.7],
            [centre[0] + 3, *centre[1:], 0.9, 0.0],
            [40.0, 40.0, 20.0, 30.0, 0.2, 0.1],
        ],
        np.float32,
    )
    (found,) = opened(model(tmp_path, columns.T[None])).detect(scan())
    assert round(found.score, 3) == 0.9
    np.testing.assert_allclose(found.quad, wanted(), atol=3.0)


def test_a_scan_of_other_proportions_is_padded(tmp_path: Path) -> None:
    rows = np.array([[20, 120, 83, 120, 83, 208, 20, 208, 0.9]], np.float32)
    (found,) = opened(model(tmp_path, rows)).detect(np.zeros((80, 160, 3), np.uint8))
    # The scan is enlarged twofold and lies in the middle of the input, 80 px below its top.
    expected = (np.array([[20, 120], [83, 120], [83, 208], [20, 208]]) - (0, 80) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found.quad, expected, atol=1e-3)


def test_an_input_of_open_size_is_asked_at_the_usual_one(tmp_path: Path) -> None:
    rows = np.zeros((1, 9), np.float32)
    detector = opened(model(tmp_path, rows, takes=("batch", 3, "height", "width")))
    assert detector.detect(scan()) == []


def test_another_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = model(tmp_path, np.zeros((1, 9), np.float32))
    with pytest.raises(DetectorError) as refused:
        OnnxDetector(path, "ab" * 32)
    assert file_sha256(path) in str(refused.value)
    assert "ab" * 32 in str(refused.value)


@pytest.mark.parametrize("shape", [(1, 7), (2, 3, 9), (1, 4, 10), (5,)])
def test_an_output_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DetectorError, match="expected one float32 of shape"):
        opened(model(tmp_path, np.zeros(shape, np.float32)))


@pytest.mark.parametrize("takes", [(1, 1, SIDE, SIDE), (4, 3, SIDE, SIDE), (3, SIDE, SIDE)])
def test_an_input_of_another_shape_is_refused(tmp_path: Path, takes: tuple[int, ...]) -> None:
    with pytest.raises(DetectorError, match="expected float32 of shape"):
        opened(model(tmp_path, np.zeros((1, 9), np.float32), takes=takes))


def test_what_is_no_graph_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cards.onnx"
    with pytest.raises(DetectorError, match=r"no detector at cards\.onnx"):
        OnnxDetector(path, "0" * 64)
    path.write_bytes(b"no graph")
    with pytest.raises(DetectorError, match="cannot be loaded"):
        opened(path)


def test_numbers_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    detector = opened(model(tmp_path, np.full((1, 9), np.nan, np.float32)))
    with pytest.raises(DetectorError, match="not finite"):
        detector.detect(scan())


def test_the_id_tells_files_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = opened(model(tmp_path, np.zeros((1, 9), np.float32)))
    other = opened(model(tmp_path / "other", np.ones((1, 9), np.float32)))
    assert one.detector_id != other.detector_id
    assert one.detector_id.startswith("onnx-detector-1-")


def test_a_deployment_knows_the_id_of_its_detector_without_loading_it(tmp_path: Path) -> None:
    path = model(tmp_path, np.zeros((1, 9), np.float32))
    tools = GalleryTools(detector=f"{path}#sha256={file_sha256(path)}")
    assert tools.detector_id == tools.find_detector().detector_id
    path.unlink()
    assert tools.detector_id == GalleryTools(detector=tools.detector).detector_id
    assert GalleryTools().detector_id == GalleryTools().find_detector().detector_id
    with pytest.raises(EncoderError, match="so that no other model is ever loaded"):
        _ = GalleryTools(detector=str(path)).detector_id
