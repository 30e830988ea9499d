import hashlib
import json
import time
import zlib
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymupdf
import pytest
from numpy.typing import NDArray

from samples import make
from samples.typeset import FOOTER
from tests.hostile import HOSTILE, ODD_NAMES, Expectation, Maker, deflated_zeros, small_paper

SAMPLES = Path(make.__file__).parent
TRUTH: dict[str, Any] = json.loads((SAMPLES / "truth.json").read_text())
PANELS = [
    {"doc": doc["file"], "page": page["page"]} | panel
    for doc in TRUTH["docs"]
    for page in doc["pages"]
    for panel in page["panels"]
]
DPI = 150
SAME_PIXELS = 0.6
# Normalized correlation over the common region. Copies of these samples reach .64 to 1.0 after
# JPEG, scanning and resampling; neighbouring fields of one slide stay below .3.

Pixels = NDArray[np.uint8]


class Pages:
    """Pages of a folder of PDFs, rendered once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rendered: dict[tuple[str, int], Pixels] = {}

    def page(self, file: str, number: int) -> Pixels:
        if (file, number) not in self.rendered:
            with pymupdf.open(self.folder / file) as doc:
                pixmap = doc[number - 1].get_pixmap(dpi=DPI)
            shape = (pixmap.height, pixmap.width, 3)
            self.rendered[file, number] = np.frombuffer(pixmap.samples, np.uint8).reshape(shape)
        return self.rendered[file, number]


@pytest.fixture(scope="module")
def committed() -> Pages:
    return Pages(SAMPLES)


@pytest.fixture(scope="module")
def made_again(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("samples")
    return folder, make.make(folder)


def alike(pages: Pages, a: dict[str, Any], b: dict[str, Any], a_to_b: Any) -> float:
    """Best correlation of a, moved onto b, over b's region: grey, or channel by channel."""
    scale = DPI / 72
    matrix = np.array(a_to_b, np.float64)
    matrix[:, 2] *= scale
    image_a, image_b = pages.page(a["doc"], a["page"]), pages.page(b["doc"], b["page"])
    moved = cv2.warpAffine(image_a, matrix, (image_b.shape[1], image_b.shape[0]))
    x0, y0, x1, y1 = (round(v * scale) for v in b["region"])
    inset_x, inset_y = round((x1 - x0) * 0.06) + 1, round((y1 - y0) * 0.06) + 1
    window = (slice(y0 + inset_y, y1 - inset_y), slice(x0 + inset_x, x1 - inset_x))
    part_a = np.asarray(moved, np.float32)[window]
    part_b = image_b.astype(np.float32)[window]
    pairs = [(part_a.mean(axis=2), part_b.mean(axis=2))]
    pairs += [(part_a[..., k], part_b[..., k]) for k in range(3)]
    return max(
        float(np.corrcoef(x.ravel(), y.ravel())[0, 1]) for x, y in pairs if x.std() * y.std()
    )


def name_of(pair: dict[str, Any]) -> str:
    return f"{pair['cls']}-{pair['a']['panel']}-{pair['b']['panel']}"


@pytest.mark.parametrize("pair", TRUTH["pairs"], ids=name_of)
def test_a_planted_pair_shows_the_same_pixels_where_the_truth_says(
    pair: dict[str, Any], committed: Pages
) -> None:
    assert alike(committed, pair["a"], pair["b"], pair["a_to_b"]) > SAME_PIXELS


@pytest.mark.parametrize("pair", TRUTH["pairs"], ids=name_of)
def test_a_shift_of_one_percent_of_the_page_loses_the_pair(
    pair: dict[str, Any], committed: Pages
) -> None:
    right = alike(committed, pair["a"], pair["b"], pair["a_to_b"])
    shifted = np.add(pair["a_to_b"], [[0, 0, 6], [0, 0, 8]])
    assert alike(committed, pair["a"], pair["b"], shifted) < right - 0.1


@pytest.mark.parametrize(
    "pair",
    [pair for pair in TRUTH["hard_negatives"] if pair["type"] in ("adjacent_field", "same_camera")],
    ids=lambda pair: f"{pair['a']['panel']}-{pair['b']['panel']}",
)
def test_neighbouring_fields_share_no_pixels(pair: dict[str, Any], committed: Pages) -> None:
    a, b = pair["a"]["bbox"], pair["b"]["bbox"]
    scale_x, scale_y = (b[2] - b[0]) / (a[2] - a[0]), (b[3] - b[1]) / (a[3] - a[1])
    a_to_b = [[scale_x, 0, b[0] - scale_x * a[0]], [0, scale_y, b[1] - scale_y * a[1]]]
    assert alike(committed, pair["a"], pair["b"] | {"region": b}, a_to_b) < SAME_PIXELS / 2


def test_every_two_panels_of_one_source_are_a_pair_or_a_known_look_alike() -> None:
    declared = {
        frozenset((pair["a"]["panel"], pair["b"]["panel"]))
        for pair in [*TRUTH["pairs"], *TRUTH["hard_negatives"]]
    }
    # The two channels of one field share the field but no signal: neither reuse nor a look-alike.
    declared.add(frozenset(("paper-1_1B", "paper-1_1C")))
    images = [panel for panel in PANELS if panel["kind"] == "image"]
    related = {
        frozenset((a["id"], b["id"]))
        for a, b in combinations(images, 2)
        if a["source"] == b["source"]
    }
    assert related - declared == set()


def test_the_clean_paper_has_look_alikes_and_no_pair() -> None:
    sides = [side["doc"] for pair in TRUTH["pairs"] for side in (pair["a"], pair["b"])]
    assert "paper-3.pdf" not in sides
    assert any(pair["a"]["doc"] == "paper-3.pdf" for pair in TRUTH["hard_negatives"])


def test_every_kind_of_reuse_is_planted() -> None:
    assert {pair["relation"] for pair in TRUTH["pairs"]} == {
        "same_image",
        "other_channel",
        "overlapping_fields",
        "copy_move",
        "same_blot",
    }
    assert {pair["scope"] for pair in TRUTH["pairs"]} == {
        "same_page",
        "cross_page",
        "cross_doc",
        "intra",
    }


def test_boxes_and_regions_lie_on_their_pages() -> None:
    sizes = {
        (doc["file"], page["page"]): (page["width"], page["height"])
        for doc in TRUTH["docs"]
        for page in doc["pages"]
    }
    boxes = [(panel["doc"], panel["page"], panel["bbox"]) for panel in PANELS]
    boxes += [
        (side["doc"], side["page"], side["region"])
        for pair in TRUTH["pairs"]
        for side in (pair["a"], pair["b"])
    ]
    for file, number, (x0, y0, x1, y1) in boxes:
        width, height = sizes[file, number]
        assert 0 <= x0 < x1 <= width, (file, number)
        assert 0 <= y0 < y1 <= height, (file, number)


def test_the_samples_stay_small_enough_for_a_first_run() -> None:
    assert sum((SAMPLES / doc["file"]).stat().st_size for doc in TRUTH["docs"]) <= 5_000_000
    assert sum(panel["kind"] == "image" for panel in PANELS) <= 70


@pytest.mark.parametrize("doc", TRUTH["docs"], ids=lambda doc: doc["file"])
def test_a_committed_paper_is_the_one_the_truth_describes(doc: dict[str, Any]) -> None:
    assert hashlib.sha256((SAMPLES / doc["file"]).read_bytes()).hexdigest() == doc["sha256"]
    with pymupdf.open(SAMPLES / doc["file"]) as pdf:
        assert [(page["width"], page["height"]) for page in doc["pages"]] == [
            (page.rect.width, page.rect.height) for page in pdf
        ]
        assert [page["rotation"] for page in doc["pages"]] == [page.rotation for page in pdf]
        for number, truth in enumerate(doc["pages"]):
            page = pdf[number]
            assert truth.get("scanned") or FOOTER in page.get_text()


def test_making_the_samples_again_gives_the_same_truth(
    made_again: tuple[Path, dict[str, Any]],
) -> None:
    def without_versions(truth: dict[str, Any]) -> dict[str, Any]:
        docs = [{k: v for k, v in doc.items() if k != "sha256"} for doc in truth["docs"]]
        return {k: v for k, v in truth.items() if k != "made_with"} | {"docs": docs}

    again = json.loads(json.dumps(made_again[1]))
    assert without_versions(again) == without_versions(TRUTH)


def test_making_the_samples_again_draws_the_same_pages(
    made_again: tuple[Path, dict[str, Any]], committed: Pages
) -> None:
    # Bytes may differ between releases of the libraries, and between processors in the last bit.
    fresh = Pages(made_again[0])
    for doc in TRUTH["docs"]:
        for page in doc["pages"]:
            old = committed.page(doc["file"], page["page"]).astype(np.float32)
            new = fresh.page(doc["file"], page["page"])
            assert np.abs(old - new).mean() < 2, (doc["file"], page["page"])


def test_the_same_libraries_write_the_same_bytes(
    made_again: tuple[Path, dict[str, Any]],
) -> None:
    if made_again[1]["made_with"] != TRUTH["made_with"]:
        pytest.skip(f"the committed samples were made with {TRUTH['made_with']}")
    assert [doc["sha256"] for doc in made_again[1]["docs"]] == [
        doc["sha256"] for doc in TRUTH["docs"]
    ]


def test_a_small_paper_takes_less_than_a_second_and_depends_on_its_seed_only(
    tmp_path: Path,
) -> None:
    start = time.process_time()
    small_paper(tmp_path / "a.pdf", seed=1)
    assert time.process_time() - start < 1.0
    small_paper(tmp_path / "b.pdf", seed=1)
    small_paper(tmp_path / "c.pdf", seed=2)
    first, again, other = ((tmp_path / f"{name}.pdf").read_bytes() for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize(("panels", "planted", "pairs"), [(6, 1, 2), (8, 2, 4), (5, 0, 0)])
def test_a_small_paper_has_its_copies_where_its_truth_says(
    tmp_path: Path, panels: int, planted: int, pairs: int
) -> None:
    truth = small_paper(tmp_path / "small.pdf", seed=3, panels=panels, planted=planted)
    assert sum(len(page["panels"]) for page in truth["docs"][0]["pages"]) == panels
    assert len(truth["pairs"]) == pairs
    pages = Pages(tmp_path)
    for pair in truth["pairs"]:
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = pair["a"]["bbox"], pair["b"]["bbox"]
        if pair["cls"] == "exact":
            a_to_b = [[1, 0, bx0 - ax0], [0, 1, by0 - ay0]]
        else:  # A quarter turn counter-clockwise: right becomes up.
            across, down = (bx1 - bx0) / (ay1 - ay0), (by1 - by0) / (ax1 - ax0)
            a_to_b = [[0, across, bx0 - across * ay0], [-down, 0, by1 + down * ax0]]
        assert alike(pages, pair["a"], pair["b"], a_to_b) > 0.85


def test_a_small_paper_refuses_more_copies_than_originals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="6 panels do not hold 2 exact and 2 turned copies"):
        small_paper(tmp_path / "small.pdf", seed=1, panels=6, planted=2)


def test_repeated_blocks_unpack_to_zeros() -> None:
    assert zlib.decompress(deflated_zeros(3_333_333)) == bytes(3_333_333)


@pytest.mark.parametrize(
    ("make_file", "expectation"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_a_hostile_file_is_small_and_alone_in_its_folder(
    make_file: Maker, expectation: Expectation, tmp_path: Path
) -> None:
    path = make_file(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size < 4_000_000
    assert expectation in ("ok", "degraded", "failed")


def test_odd_names_are_names_and_not_paths() -> None:
    for _, name in ODD_NAMES:
        assert "/" not in name
        assert "\0" not in name
        assert len(name.encode("utf-8", "surrogateescape")) <= 255
