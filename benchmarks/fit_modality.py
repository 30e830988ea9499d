"""Fit the coefficients of ``core.modality`` and write ``core/data/modality.json``.

    python benchmarks/fit_modality.py --truth A/groundtruth.json B/groundtruth.json \
        --held-out C/groundtruth.json [--images FOLDER] [--write core/data/modality.json]

The labelled panels of the development documents, optionally a folder of microscopy images, and
what both are poor in is drawn here: charts of many kinds, schematics, text, logos, blots and gels.
Every picture is also seen recompressed, with other brightness, in grey and, where that happens in
papers, in false colours. Prints the confusion on the held-out documents.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from core.geometry import Image, scale_box
from core.modality import FEATURES, Modality, expand, features
from resources.pdf import PdfFile

KINDS = (
    Modality.BLOT,
    Modality.FLUORESCENCE,
    Modality.HISTOLOGY,
    Modality.ELECTRON,
    Modality.BRIGHT_FIELD,
    Modality.CHART,
)


@dataclass(frozen=True)
class FitSpec:
    """How the sample is made and how far the fit is held back."""

    dpi: float = 150.0
    """What panels are rendered at in use."""
    views: int = 3
    """Variants per picture besides the picture itself; more changed nothing."""
    drawn: int = 150
    """Drawings per kind of drawing and blots per kind of blot."""
    ridge: float = 2e-3
    """Penalty on squared coefficients: features are correlated, and some kinds have few sources."""
    seed: int = 7


Sample = tuple[Image, Modality]
Rng = np.random.Generator


def modality_of(panel: dict[str, Any], image: Image) -> Modality | None:
    """The kind that a panel of the truth file is, None where the file does not say.

    Groups that hold fluorescence and bright field alike are told apart by their background, and a
    few sources that are filed under a neighbor by their name.
    """
    source, stated = str(panel["source"]).lower(), str(panel["modality"])
    if panel["kind"] != "image":
        return Modality.CHART
    if "em_fly_eye" in source or stated == "em":
        return Modality.ELECTRON
    if stated in ("blot", "gel"):
        return Modality.BLOT
    if stated in ("histology", "brightfield"):
        return Modality.HISTOLOGY if stated == "histology" else Modality.BRIGHT_FIELD
    if stated.startswith("fluorescence"):
        gray = image.mean(axis=2)
        light_ground = np.median(gray) > 110 and np.quantile(gray, 0.05) > 20
        grey = (image.max(axis=2).astype(int) - image.min(axis=2)).mean() < 40
        return Modality.BRIGHT_FIELD if light_ground and grey else Modality.FLUORESCENCE
    if "histo.jpg" in source:
        return Modality.HISTOLOGY
    if "img2d" in source:
        return Modality.FLUORESCENCE
    return Modality.BRIGHT_FIELD if "diatom" in source else None


def panels_of(truth: Path, dpi: float) -> Iterator[tuple[Image, Modality, str]]:
    """Labelled panels of the documents beside a truth file, and their page logos as drawings."""
    for doc in json.loads(truth.read_text())["docs"]:
        with PdfFile(truth.parent / doc["file"]) as pdf:
            for page in doc["pages"]:
                rendered = pdf.render(page["page"], dpi)
                boxes = [(panel["bbox"], panel) for panel in page["panels"]]
                placed = pdf.content(page["page"]).images
                logo = {"kind": "logo", "source": "logo", "modality": ""}
                boxes += [(image.box_pt, logo) for image in placed if image.box_pt[3] < 45]
                for box, panel in boxes:
                    x0, y0, x1, y1 = (round(v) for v in scale_box(tuple(box), rendered.dpi / 72))
                    crop = rendered.image[max(y0, 0) : y1, max(x0, 0) : x1]
                    if min(crop.shape[:2]) >= 16 and (kind := modality_of(panel, crop)):
                        yield crop, kind, panel["source"]


def images_in(folder: Path) -> Iterator[Sample]:
    """Microscopy images of a folder: coloured on a light ground is stained, grey on dark shines."""
    for path in sorted(folder.glob("*.png")):
        stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if stored is None:
            continue
        image: Image = np.ascontiguousarray(stored[..., ::-1])
        light = np.median(image) > 110
        grey = (image.max(axis=2).astype(int) - image.min(axis=2)).mean() < 12
        if light:
            yield image, Modality.BRIGHT_FIELD if grey else Modality.HISTOLOGY
        else:
            yield image, Modality.FLUORESCENCE


def views(image: Image, kind: Modality, rng: Rng, count: int) -> Iterator[Image]:
    """The picture and variants of it as papers show them."""
    yield image
    for _ in range(count):
        view = image
        height, width = view.shape[:2]
        if rng.random() < 0.6 and min(height, width) > 60:
            h, w = (int(side * rng.uniform(0.5, 1.0)) for side in (height, width))
            y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            view = view[y : y + h, x : x + w]
        if rng.random() < 0.4:
            scale = rng.uniform(0.45, 1.5)
            view = cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if kind is Modality.FLUORESCENCE and rng.random() < 0.45:
            view = false_colour(view, rng)
        elif kind is Modality.HISTOLOGY and rng.random() < 0.35:
            view = restain(view, rng)
        elif kind is Modality.BLOT and rng.random() < 0.2:
            view = 255 - view
        if rng.random() < 0.5:
            gamma, gain = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.15)
            if kind is Modality.CHART:
                gamma, gain = 1.0, 1.0
            view = (((view / 255.0) ** gamma * gain).clip(0, 1) * 255).astype(np.uint8)
        if kind is not Modality.CHART and rng.random() < 0.5:
            view = annotated(view, rng)
        if rng.random() < 0.5:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 95))]
            stored = cv2.imdecode(cv2.imencode(".jpg", view, quality)[1], cv2.IMREAD_COLOR)
            if stored is not None:
                view = stored
        yield np.ascontiguousarray(view)


def annotated(image: Image, rng: Rng) -> Image:
    """With what authors put on pictures: a scale bar, its length, a letter, a rim of paper."""
    image = image.copy()
    height, width = image.shape[:2]
    ink = (255, 255, 255) if np.median(image) < 128 else (0, 0, 0)
    size = min(height, width) / 200
    if rng.random() < 0.7:
        length, thick = int(width * rng.uniform(0.15, 0.4)), max(1, int(5 * size))
        right, low = width - int(8 * size) - 1, height - int(8 * size) - 1
        cv2.rectangle(image, (right - length, low - thick), (right, low), ink, -1)
        if rng.random() < 0.5:
            at = (max(0, right - length), max(0, low - 2 * thick - 2))
            cv2.putText(image, "50 um", at, 0, 0.5 * max(size, 0.6), ink, 1, cv2.LINE_AA)
    if rng.random() < 0.5:
        side = int(24 * max(size, 0.6))
        if rng.random() < 0.5:
            cv2.rectangle(image, (2, 2), (side, side), (255, 255, 255), -1)
            ink = (0, 0, 0)
        letter = str(rng.choice(list("ABCDEFGH")))
        cv2.putText(image, letter, (4, side - 3), 0, 0.9 * max(size, 0.6), ink, 2, cv2.LINE_AA)
    if rng.random() < 0.4:
        top, bottom, left, right = (int(n) for n in rng.integers(0, 4, 4))
        image = cv2.copyMakeBorder(
            image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
    return np.asarray(image, np.uint8)


def false_colour(image: Image, rng: Rng) -> Image:
    """One channel in a colour, or two views of the picture as channels of a merge."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    tints = ((0, 1, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 0), (0.2, 0.4, 1))
    tint = np.array(tints[int(rng.integers(len(tints)))], np.float32)
    result = gray[..., None] * tint
    if rng.random() < 0.5:
        other = np.array(tints[int(rng.integers(len(tints)))], np.float32)
        result = result + np.flip(gray, axis=int(rng.integers(2)))[..., None] * other
    return (result.clip(0, 1) * 255).astype(np.uint8)


def restain(image: Image, rng: Rng) -> Image:
    """Another stain: the hue turned towards pink (H&E) or brown (DAB)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    turn = int(rng.choice([8, 14, 20, 34, 40]))
    hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def blot(rng: Rng) -> Image:
    """Bands on a ground that may be light, clean or dark, with lanes, smear and dust."""
    height, width = int(rng.integers(40, 320)), int(rng.integers(120, 700))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ink = np.zeros((height, width), np.float32)
    lanes = int(rng.integers(3, 13))
    for row in np.linspace(0, 1, int(rng.integers(1, 5)) + 2)[1:-1]:
        for lane in range(lanes):
            if rng.random() < 0.12:
                continue
            cx, cy = (lane + 0.5) * width / lanes, row * height + rng.normal(0, 2)
            sx, sy = width / lanes * rng.uniform(0.2, 0.36), rng.uniform(2, max(2.5, height / 22))
            band = np.exp(-(((x - cx) / sx) ** 4) - ((y - cy - 0.004 * (x - cx) ** 2) / sy) ** 2)
            ink += band * rng.uniform(0.15, 1.0)
    ink += cv2.GaussianBlur(rng.random((height, width), np.float32), (0, 0), 20) * rng.uniform(
        0, 0.3
    )
    ground, noise = rng.uniform(0.72, 0.98), rng.choice([0.0, 0.004, 0.015])
    level = ground - 0.85 * ink.clip(0, 1) + noise * rng.standard_normal((height, width))
    if rng.random() < 0.25:
        level = 1 - level
    gray = (level.clip(0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def sparse_fluorescence(rng: Rng) -> Image:
    """A nearly black field with a few spots or cells: flat, and yet no drawing."""
    side_y, side_x = int(rng.integers(80, 360)), int(rng.integers(80, 360))
    gray = np.full((side_y, side_x), rng.uniform(0, 0.06), np.float32)
    for _ in range(int(rng.integers(1, 40))):
        centre = (int(rng.integers(side_x)), int(rng.integers(side_y)))
        axes = (int(rng.integers(2, 14)), int(rng.integers(2, 14)))
        spot = np.zeros_like(gray)
        cv2.ellipse(spot, centre, axes, float(rng.uniform(0, 180)), 0, 360, rng.uniform(0.2, 1), -1)
        gray += cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.8, 3))
    gray += rng.choice([0.0, 0.005, 0.02]) * rng.standard_normal(gray.shape)
    image = cv2.cvtColor((gray.clip(0, 1) * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    return false_colour(image, rng) if rng.random() < 0.5 else image


PALETTE = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (90, 90, 90),
    (0, 0, 0), (200, 200, 200), (66, 103, 210), (230, 230, 250), (255, 229, 204), (120, 180, 240),
)  # fmt: skip


def drawing(rng: Rng) -> Image:
    """A chart, schematic, table, text or logo, on paper."""
    height, width = int(rng.integers(90, 420)), int(rng.integers(90, 520))
    canvas = np.full((height, width, 3), 255, np.uint8)
    kind = int(rng.integers(12))
    if kind == 10:
        canvas[:] = rng.choice([(0, 0, 0), (245, 245, 245), (225, 235, 245)])
    colour = lambda: tuple(int(c) for c in PALETTE[int(rng.integers(len(PALETTE)))])  # noqa: E731
    place = lambda: (int(rng.integers(width)), int(rng.integers(height)))  # noqa: E731
    left, base = int(width * 0.14), int(height * 0.86)
    if kind <= 5:
        cv2.line(canvas, (left, 6), (left, base), (0, 0, 0), int(rng.integers(1, 3)))
        cv2.line(canvas, (left, base), (width - 4, base), (0, 0, 0), int(rng.integers(1, 3)))
        for tick in np.linspace(8, base, 6).astype(int):
            cv2.line(canvas, (left - 4, int(tick)), (left, int(tick)), (0, 0, 0), 1)
            write(canvas, (2, int(tick) + 4), rng, 0.3)
    if kind in (0, 1):
        bars = int(rng.integers(2, 9))
        for k in range(bars):
            x0 = left + int((k + 0.2) * (width - left) / bars)
            x1 = left + int((k + 0.8) * (width - left) / bars)
            top = int(rng.uniform(10, base - 4))
            cv2.rectangle(canvas, (x0, top), (x1, base), colour(), -1)
            cv2.rectangle(canvas, (x0, top), (x1, base), (0, 0, 0), 1)
            cv2.line(canvas, ((x0 + x1) // 2, max(0, top - 8)), ((x0 + x1) // 2, top), (0, 0, 0), 1)
    elif kind == 2:
        for _ in range(int(rng.integers(1, 5))):
            x = np.linspace(left, width - 5, 30)
            y = base - (base - 10) * (
                0.5 + 0.4 * np.sin(x / width * rng.uniform(2, 9) + rng.random())
            )
            points = np.stack([x, y + rng.normal(0, 3, 30)], axis=1).astype(np.int32)
            cv2.polylines(canvas, [points], False, colour(), int(rng.integers(1, 4)), cv2.LINE_AA)
    elif kind in (3, 4):
        count = int(rng.integers(20, 4000 if kind == 4 else 200))
        xs = rng.normal(width * 0.5, width * 0.14, count).clip(left + 2, width - 3).astype(int)
        ys = rng.normal(height * 0.5, height * 0.14, count).clip(3, base - 2).astype(int)
        tint, radius = colour(), 1 if kind == 4 else int(rng.integers(1, 4))
        for x, y in zip(xs, ys, strict=True):
            cv2.circle(canvas, (int(x), int(y)), radius, tint, -1, cv2.LINE_AA)
    elif kind == 5:
        for k in range(int(rng.integers(3, 8))):
            x = left + 14 + k * (width - left) // 8
            y0, y1 = sorted(int(v) for v in rng.uniform(12, base - 6, 2))
            cv2.rectangle(canvas, (x, y0), (x + 14, y1 + 4), colour(), -1)
            cv2.line(canvas, (x + 7, max(0, y0 - 15)), (x + 7, min(base, y1 + 15)), (0, 0, 0), 1)
    elif kind == 6:
        cells = rng.random((int(rng.integers(4, 24)), int(rng.integers(3, 16))))
        mapped = cv2.applyColorMap(
            (cells * 255).astype(np.uint8), int(rng.choice([2, 4, 11, 16, 20]))
        )
        canvas = cv2.resize(mapped, (width, height), interpolation=cv2.INTER_NEAREST)
        if rng.random() < 0.6:
            canvas = cv2.copyMakeBorder(
                canvas, 4, 30, 50, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)
            )
            for y in range(10, height, 14):
                write(canvas, (2, y), rng, 0.3)
    elif kind in (7, 10):
        for _ in range(int(rng.integers(3, 10))):
            x, y = place()
            size = (int(rng.integers(20, 90)), int(rng.integers(14, 60)))
            if rng.random() < 0.5:
                cv2.rectangle(canvas, (x, y), (x + size[0], y + size[1]), colour(), -1)
                cv2.rectangle(canvas, (x, y), (x + size[0], y + size[1]), (0, 0, 0), 1)
            else:
                cv2.ellipse(canvas, (x, y), size, 0, 0, 360, colour(), -1, cv2.LINE_AA)
                cv2.ellipse(canvas, (x, y), size, 0, 0, 360, (0, 0, 0), 1, cv2.LINE_AA)
            write(canvas, (x + 3, y + 12), rng, 0.4)
            cv2.arrowedLine(canvas, place(), place(), (0, 0, 0), 1, cv2.LINE_AA)
    elif kind == 8:
        for y in range(12, height, int(rng.integers(11, 20))):
            write(canvas, (4, y), rng, float(rng.uniform(0.3, 0.5)), words=12)
    elif kind == 9:
        centre = (width // 4, height // 2)
        cv2.circle(canvas, centre, min(centre) * 3 // 4, colour(), -1, cv2.LINE_AA)
        write(canvas, (width // 2 - 10, height // 2 + 8), rng, float(rng.uniform(0.7, 1.2)))
    else:
        y = height // 2
        cv2.line(canvas, (8, y), (width - 8, y), (0, 0, 0), 2)
        for _ in range(int(rng.integers(2, 7))):
            x = int(rng.integers(8, max(9, width - 40)))
            end = (x + int(rng.integers(10, 60)), y + 8)
            cv2.rectangle(canvas, (x, y - 8), end, colour(), -1)
            write(canvas, (x, y - 14), rng, 0.35)
    return canvas


def write(canvas: Image, at: tuple[int, int], rng: Rng, size: float, words: int = 1) -> None:
    """Some letters, as labels have them."""
    letters = "ABCDEFGHIJKLMNOPRSTUVabcdefghiklmnoprstu0123456789"
    text = " ".join(
        "".join(rng.choice(list(letters), int(rng.integers(1, 8)))) for _ in range(words)
    )
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)


def fit_softmax(terms: NDArray[Any], truth: NDArray[Any], kinds: int, ridge: float) -> NDArray[Any]:
    """Coefficients of a softmax regression in which every kind weighs the same; (kinds, terms)."""
    count = np.bincount(truth, minlength=kinds)
    weight = (1.0 / (kinds * np.maximum(count, 1)))[truth]
    wanted = np.eye(kinds)[truth]

    def loss(flat: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        w = flat.reshape(kinds, -1)
        scores = terms @ w.T
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        odds /= odds.sum(axis=1, keepdims=True)
        value = -(weight * np.log(odds[np.arange(len(truth)), truth] + 1e-12)).sum()
        slope = ((odds - wanted) * weight[:, None]).T @ terms
        penalty = w.copy()
        penalty[:, -1] = 0
        return value + ridge * (penalty**2).sum() / 2, (slope + ridge * penalty).ravel()

    start = np.zeros(kinds * terms.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 250}).x.reshape(
        kinds, -1
    )


def main() -> None:
    """Fit, print the confusion, and write the coefficients where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth", type=Path, nargs="+", required=True)
    parser.add_argument("--held-out", type=Path, nargs="*", default=[])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    spec = FitSpec()
    rng = np.random.default_rng(spec.seed)
    cv2.setNumThreads(1)

    samples: list[Sample] = []
    for truth in arguments.truth:
        samples += [(crop.copy(), kind) for crop, kind, _ in panels_of(truth, spec.dpi)]
    if arguments.images:
        samples += list(images_in(arguments.images))
    samples += [(blot(rng), Modality.BLOT) for _ in range(spec.drawn)]
    samples += [(sparse_fluorescence(rng), Modality.FLUORESCENCE) for _ in range(spec.drawn)]
    samples += [(drawing(rng), Modality.CHART) for _ in range(8 * spec.drawn)]
    rows, labels = [], []
    for image, kind in samples:
        for view in views(image, kind, rng, spec.views):
            if min(view.shape[:2]) >= 12:
                rows.append(features(view))
                labels.append(KINDS.index(kind))
    table, truth = np.array(rows), np.array(labels)
    mean, scale = table.mean(axis=0), table.std(axis=0) + 1e-6
    terms = expand(((table - mean) / scale).clip(-4, 4))
    weights = fit_softmax(terms, truth, len(KINDS), spec.ridge)
    drawn = fit_softmax(terms, (truth == KINDS.index(Modality.CHART)).astype(int), 2, spec.ridge)
    model = {
        "provenance": "fitted by benchmarks/fit_modality.py",
        "sample": {kind.value: int((truth == k).sum()) for k, kind in enumerate(KINDS)},
        "pictures": len(samples),
        "seed": spec.seed,
        "ridge": spec.ridge,
        "features": list(FEATURES),
        "kinds": [kind.value for kind in KINDS],
        "mean": [float(f"{v:.6g}") for v in mean],
        "scale": [float(f"{v:.6g}") for v in scale],
        "weights": [[float(f"{v:.5g}") for v in row] for row in weights],
        "drawing_weights": [float(f"{v:.5g}") for v in drawn[1] - drawn[0]],
    }
    if arguments.write:
        arguments.write.write_text(json.dumps(model) + "\n")
    w, d = np.array(model["weights"]), np.array(model["drawing_weights"])
    for held_out in arguments.held_out:
        confusion = np.zeros((len(KINDS), len(KINDS)), int)
        for crop, kind, source in panels_of(held_out, spec.dpi):
            own = expand(((features(crop) - mean) / scale).clip(-4, 4))
            guess = int((w @ own).argmax())
            if d @ own > 0:
                guess = KINDS.index(Modality.CHART)
            elif guess == KINDS.index(Modality.CHART):
                guess = int((w @ own)[:-1].argmax())
            confusion[KINDS.index(kind), guess] += 1
            if KINDS[guess] is not kind:
                print(f"  {kind.value} taken for {KINDS[guess].value}: {source}")
        print(held_out, f"{np.trace(confusion) / confusion.sum():.3f} right")
        print(f"{'':14s}" + " ".join(f"{kind.value[:8]:>8s}" for kind in KINDS))
        for kind, row in zip(KINDS, confusion, strict=True):
            print(f"{kind.value:14s}" + " ".join(f"{n:8d}" for n in row))


if __name__ == "__main__":
    main()
