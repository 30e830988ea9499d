"""Makes the sample papers and their truth: ``python -m samples.make [folder]``.

Four papers of fictional work, drawn from one seed. Papers 1 and 2 carry planted reuse of every kind
that copy search tells apart, paper 3 carries none but everything that looks like it, and paper 4 is
hard to read. ``truth.json`` says where every panel and every pair is, in the shape that the bench's
evaluator reads.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymupdf
from numpy.typing import NDArray

from samples import micrographs
from samples.papers import PAPERS, SEED, Planted, rng_for
from samples.typeset import FOOTER, Manuscript, View, add_truth, draw_figure, jpeg, set_paper

SAVE = {"garbage": 4, "deflate": True, "no_new_id": True}
METADATA = {
    "author": "Quire samples",
    "subject": "Synthetic sample, not a real paper (CC0)",
    "creationDate": "D:20260101000000Z",
    "modDate": "D:20260101000000Z",
}

SCANNED_PAGE, LANDSCAPE_PAGE = 2, 3
SCAN_DPI, SCAN_TILT_DEGREES, SCAN_QUALITY = 170, 0.6, 62


def scan_page(doc: Any, number: int, truth: dict[str, Any]) -> NDArray[np.float64]:
    """Replace a page by a scan of its print: one tilted, grainy JPEG without text.

    Returns:
        The map, shape (3, 3), from points of the printed page to points of the scanned one.
    """
    page = doc[number - 1]
    width, height = page.rect.width, page.rect.height
    pixmap = page.get_pixmap(dpi=SCAN_DPI)
    image = np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, 3)
    level = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    rng = rng_for("p4/scan")
    middle = (pixmap.width / 2, pixmap.height / 2)
    tilt = cv2.getRotationMatrix2D(middle, SCAN_TILT_DEGREES, 1.0)
    tilted = cv2.warpAffine(level, tilt, (pixmap.width, pixmap.height), borderValue=244)
    paper = np.asarray(tilted, np.float32) * 0.88 + 14
    paper += 3.2 * micrographs.cloud(rng, pixmap.height, pixmap.width, 180)
    paper += rng.normal(0, 4.5, paper.shape).astype(np.float32)
    paper[:, :9] *= np.linspace(0.25, 1, 9, dtype=np.float32)
    grey = np.clip(micrographs.blur(paper, 0.6), 0, 255).astype(np.uint8)
    scan = np.repeat(grey[:, :, None], 3, axis=2)
    doc.delete_page(number - 1)
    page = doc.new_page(number - 1, width=width, height=height)
    page.insert_image(page.rect, stream=jpeg(scan, SCAN_QUALITY), keep_proportion=False)
    scale = SCAN_DPI / 72
    to_scan = np.vstack([tilt, [0, 0, 1]])
    to_points = np.diag([1 / scale, 1 / scale, 1]) @ to_scan @ np.diag([scale, scale, 1])
    for panel in truth["panels"]:
        x0, y0, x1, y1 = panel["bbox"]
        corners = np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]])
        moved = (corners @ to_points.T)[:, :2]
        low, high = moved.min(axis=0), moved.max(axis=0)
        panel["bbox"] = [round(float(v), 2) for v in (*low, *high)]
    truth["scanned"] = True
    return to_points


def lay_on_side(doc: Any, number: int, story: Manuscript) -> dict[str, Any]:
    """Replace a page by a landscape one that is stored upright and turned by ``/Rotate 90``.

    Returns:
        The page's truth, in the frame in which it is read: rotation applied.
    """
    figure = story.sideways
    assert figure is not None
    width, height = story.journal.height_pt, story.journal.width_pt
    sheet = pymupdf.open()
    page = sheet.new_page(width=width, height=height)
    left, top, inner = 52.0, 74.0, width - 104
    draw_figure(page, figure, left, top, inner)
    boxes = {
        "page": number,
        "width": width,
        "height": height,
        "rotation": 90,
        "figures": [],
        "panels": [],
    }
    add_truth(boxes, figure, story.file, left, top, inner)
    bottom = max(panel["bbox"][3] for panel in boxes["panels"])
    caption = f"Figure {figure.number}. {figure.caption}"
    page.insert_textbox(
        (left, bottom + 8, left + inner, bottom + 60), caption, fontname="helv", fontsize=7.5
    )
    page.insert_text((left, 40), story.journal.name, fontname="tibi", fontsize=11)
    page.insert_text((left, height - 28), FOOTER, fontname="heit", fontsize=7)
    target = doc.new_page(number - 1, width=height, height=width)
    target.show_pdf_page(target.rect, sheet, 0, rotate=90)
    target.set_rotation(90)
    doc.delete_page(number)
    return boxes


@dataclass(frozen=True)
class Place:
    """Where a panel's view is on paper.

    Attributes:
        side: Document, page, box and panel id, as in the truth.
        view: What it shows.
        to_page: Affine map, shape (3, 3), from pixels of the view to points of the page as read.
        modality: Of the panel.
    """

    side: dict[str, Any]
    view: View
    to_page: NDArray[np.float64]
    modality: str


def places(story: Manuscript, doc: dict[str, Any]) -> dict[tuple[str, str], Place]:
    """Every image panel of a paper, by file and name."""
    entries = {
        panel["id"]: (page["page"], panel) for page in doc["pages"] for panel in page["panels"]
    }
    found: dict[tuple[str, str], Place] = {}
    figures = [figure for page in story.pages for figure in page or ()]
    figures += [story.sideways] if story.sideways else []
    for panel in (panel for figure in figures for row in figure.rows for panel in row):
        number, entry = entries[f"{story.file.removesuffix('.pdf')}_{panel.name}"]
        if panel.view is None:
            continue
        x0, y0, x1, y1 = entry["bbox"]
        width, height = panel.view.size
        to_page = np.array(
            [[(x1 - x0) / width, 0, x0], [0, (y1 - y0) / height, y0], [0, 0, 1]], np.float64
        )
        side = {"doc": story.file, "page": number, "bbox": entry["bbox"], "panel": entry["id"]}
        found[story.file, panel.name] = Place(side, panel.view, to_page, panel.modality)
    return found


def rectangle(size: tuple[int, int]) -> NDArray[np.float64]:
    """The corners of an image of that width and height, shape (4, 2)."""
    return np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float64)


def mapped(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of shape (n, 2) through an affine map of shape (3, 3)."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def common(a: View, b: View) -> NDArray[np.float64]:
    """What two views of one master both show: a polygon in the master's pixels, maybe empty."""
    outlines = [mapped(view.to_master, rectangle(view.size)).astype(np.float32) for view in (a, b)]
    area, polygon = cv2.intersectConvexConvex(outlines[0], outlines[1])
    return np.asarray(polygon, np.float64).reshape(-1, 2) if area > 1 else np.zeros((0, 2))


def boxed(points: NDArray[np.float64]) -> list[float]:
    """The box around points, to a hundredth of a point."""
    return [round(float(v), 2) for v in (*points.min(axis=0), *points.max(axis=0))]


def scope(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Where the two sides of a pair lie relative to each other."""
    if a["doc"] != b["doc"]:
        return "cross_doc"
    if a["page"] != b["page"]:
        return "cross_page"
    return "intra" if a["panel"] == b["panel"] else "same_page"


def pair_truth(number: int, planted: Planted, a: Place, b: Place) -> dict[str, Any]:
    """A planted pair as the evaluator reads it, with the map from points of a to points of b."""
    if planted.boxes:
        first, second, flipped = planted.boxes
        width = first[2] - first[0]
        mirror = [[-1, 0, second[0] + first[0] + width], [0, 1, second[1] - first[1]], [0, 0, 1]]
        shift = [[1, 0, second[0] - first[0]], [0, 1, second[1] - first[1]], [0, 0, 1]]
        between = np.array(mirror if flipped else shift, np.float64)
        corners = np.array([first[:2], first[2:]], np.float64)
        region_a = mapped(a.to_page, corners)
        region_b = mapped(a.to_page, np.array([second[:2], second[2:]], np.float64))
    else:
        between = np.linalg.inv(b.view.to_master) @ a.view.to_master
        overlap = common(a.view, b.view)
        region_a = mapped(a.to_page @ np.linalg.inv(a.view.to_master), overlap)
        region_b = mapped(b.to_page @ np.linalg.inv(b.view.to_master), overlap)
    a_to_b = b.to_page @ between @ np.linalg.inv(a.to_page)
    return {
        "id": number,
        "cls": planted.cls,
        "relation": planted.relation,
        "scope": scope(a.side, b.side),
        "transform": planted.transform,
        "modality": a.modality,
        "a_to_b": [[round(float(v), 6) for v in row] for row in a_to_b[:2]],
        "a": a.side | {"region": boxed(region_a)},
        "b": b.side | {"region": boxed(region_b)},
    }


def make(folder: Path) -> dict[str, Any]:
    """Write the four papers and ``truth.json`` into the folder; returns the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    docs: list[dict[str, Any]] = []
    where: dict[tuple[str, str], Place] = {}
    planted: list[Planted] = []
    negatives: list[dict[str, Any]] = []
    for paper in PAPERS:
        story, own_pairs, own_negatives = paper()
        doc, truth = set_paper(story)
        if story.file == "paper-4.pdf":
            side = lay_on_side(doc, LANDSCAPE_PAGE, story)
            truth["pages"][LANDSCAPE_PAGE - 1] = side
        found = places(story, truth)
        if story.file == "paper-4.pdf":
            scanned = truth["pages"][SCANNED_PAGE - 1]
            to_scan = scan_page(doc, SCANNED_PAGE, scanned)
            moved = {panel["id"]: panel["bbox"] for panel in scanned["panels"]}
            for key, place in found.items():
                if place.side["panel"] in moved:
                    side = place.side | {"bbox": moved[place.side["panel"]]}
                    found[key] = replace(place, side=side, to_page=to_scan @ place.to_page)
        doc.set_metadata(METADATA | {"title": story.title})
        path = folder / story.file
        doc.save(path, **SAVE)
        doc.close()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        docs.append({"file": story.file, "sha256": digest, "pages": truth["pages"]})
        where |= found
        planted += own_pairs
        for kind, a, b in own_negatives:
            sides = (where[story.file, a].side, where[story.file, b].side)
            negatives.append({"type": kind, "a": sides[0], "b": sides[1]})
    truth = {
        "pool": "samples",
        "seed": SEED,
        "license": "CC0-1.0",
        "frame": "PDF points, origin top left, page as read (rotation applied), pages from 1",
        "made_with": {
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "pymupdf": pymupdf.__version__,
        },
        "docs": docs,
        "pairs": [
            pair_truth(number, pair, where[pair.a], where[pair.b])
            for number, pair in enumerate(planted)
        ],
        "hard_negatives": negatives,
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    return truth


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    made = make(target)
    images = [
        p for d in made["docs"] for g in d["pages"] for p in g["panels"] if p["kind"] == "image"
    ]
    total = sum((target / d["file"]).stat().st_size for d in made["docs"])
    sys.stdout.write(
        f"{len(made['docs'])} papers, {len(images)} image panels, {len(made['pairs'])} pairs, "
        f"{total / 1e6:.1f} MB in {target}\n"
    )
