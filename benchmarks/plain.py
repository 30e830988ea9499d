"""Copy search as a plain script: the same functions in one process, without Dagster or Postgres.

What ``benchmarks/copy_search.py`` compares the pipeline with, so that the price of orchestration is
a ratio. Everything is held in memory at once, nothing is stored, nothing can be resumed.

    python benchmarks/plain.py PDF... --threads 2
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from core.features import extract_features
from core.judgement import judge_pair
from core.local_search import search_local
from core.modality import classify
from core.panels import detect_panels
from core.presets import copy_search_spec
from core.verification import PanelView
from resources.pdf import PdfFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdfs", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    spec = copy_search_spec()
    seconds: dict[str, float] = {}

    def timed(name: str, since: float) -> float:
        now = time.monotonic()
        seconds[name] = round(now - since, 2)
        return now

    started = clock = time.monotonic()
    images: dict[str, tuple[np.ndarray, tuple, str]] = {}
    for path in arguments.pdfs:
        with PdfFile(path) as pdf:
            for page in range(1, pdf.page_count + 1):
                rendered = pdf.render(page, spec.panels.dpi)
                panels = detect_panels(rendered.image, rendered.dpi, pdf.content(page), spec.panels)
                for number, panel in enumerate(panels):
                    x0, y0, x1, y1 = panel.box_px
                    crop = np.ascontiguousarray(rendered.image[y0:y1, x0:x1])
                    kind = classify(crop)
                    if not kind.is_drawing:
                        name = f"{path.name}/{page:04d}/{number:03d}"
                        images[name] = (crop, panel.ignore_boxes_px, kind.modality.value)
    clock = timed("panels", clock)

    def view(name: str) -> PanelView:
        image, ignored, modality = images[name]
        return PanelView(image, extract_features(image, ignored, spec.features), ignored, modality)

    views = dict(zip(images, _each(view, list(images), arguments.threads), strict=True))
    clock = timed("features", clock)
    features = {name: view.features for name, view in views.items()}
    found = search_local(features, [features], spec.local_search)
    clock = timed("search", clock)
    pairs = [(c.a, c.b) for c in found.candidates] + [(name, name) for name in views]

    def verify(pair: tuple[str, str]) -> int:
        a, b = pair
        return len(judge_pair(views[a], None if a == b else views[b], spec.judgement))

    findings = sum(_each(verify, pairs, arguments.threads))
    timed("verification", clock)
    json.dump(
        {
            "panels": len(views),
            "candidates": len(found.candidates),
            "findings": findings,
            "wall_s": round(time.monotonic() - started, 2),
            "seconds": seconds,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        },
        sys.stdout,
    )


Item = TypeVar("Item")
Result = TypeVar("Result")


def _each(compute: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(compute, items))


if __name__ == "__main__":
    main()
