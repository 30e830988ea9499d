"""How well panels are found and named, and what that costs.

    python benchmarks/panels.py PDF... [--truth groundtruth.json] [--dpi 150] [--write panels.tsv]

With a truth file: recall and precision at an overlap of one half, how tight the boxes are, and the
confusion of modalities. A panel counts as found if its box and a true one share half of their
union, once; what is called a chart counts as neither right nor wrong where it lies on a chart, and
as a missed picture where it lies on a picture. The peak counts this process and the PDF worker.
"""

import argparse
import json
import resource
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from core.geometry import Box, Image, iou, share_inside
from core.modality import ModalityResult, classify
from core.panels import DetectedPanel, detect_panels
from resources.pdf import PdfFile

MATCH = 0.5
"""Overlap from which a box is a panel's: that of the figure-separation literature."""


@dataclass
class Tally:
    """Counts over all pages."""

    true: int = 0
    found: int = 0
    wrong: int = 0
    on_charts: int = 0
    called_charts: int = 0
    overlaps: list[float] = field(default_factory=list)
    confusion: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(
        self, panels: list[tuple[DetectedPanel, ModalityResult]], truth: list[dict[str, Any]]
    ) -> None:
        """Count one page: the primary panels against the true ones."""
        self.true += sum(each["kind"] == "image" for each in truth)
        taken: set[int] = set()
        for panel, guess in panels:
            overlap, best = max(
                ((iou(panel.box_pt, as_box(each)), k) for k, each in enumerate(truth)),
                default=(0.0, -1),
            )
            if overlap >= MATCH:
                self.confusion[truth[best]["modality"]][guess.modality] += 1
            if guess.is_drawing:
                self.called_charts += 1
            elif overlap >= MATCH and truth[best]["kind"] == "image" and best not in taken:
                taken.add(best)
                self.found += 1
                self.overlaps.append(overlap)
            elif any(
                each["kind"] != "image" and share_inside(panel.box_pt, as_box(each)) > 0.7
                for each in truth
            ):
                self.on_charts += 1
            else:
                self.wrong += 1

    def report(self) -> str:
        """The measures, one line each, and the table of modalities."""
        tight = sorted(self.overlaps)
        lines = [
            f"panels      {self.true} true, {self.found} found, {self.wrong} wrong, "
            f"{self.on_charts} on charts, {self.called_charts} called charts",
            f"recall      {self.found / max(self.true, 1):.3f}",
            f"precision   {self.found / max(self.found + self.wrong, 1):.3f}",
            f"tightness   median IoU {tight[len(tight) // 2]:.3f}, "
            f"5th percentile {tight[len(tight) // 20]:.3f}",
        ]
        kinds = sorted({kind for row in self.confusion.values() for kind in row})
        lines.append(f"{'modality: true, then called':28s}" + "".join(f"{k:>14s}" for k in kinds))
        lines += [
            f"  {stated:26s}" + "".join(f"{row[kind]:14d}" for kind in kinds)
            for stated, row in sorted(self.confusion.items())
        ]
        return "\n".join(lines)


def as_box(panel: dict[str, Any]) -> Box:
    """The box of a true panel."""
    x0, y0, x1, y1 = panel["bbox"]
    return (x0, y0, x1, y1)


def crop(image: Image, panel: DetectedPanel) -> Image:
    """The pixels of a panel."""
    x0, y0, x1, y1 = panel.box_px
    return image[y0:y1, x0:x1]


def cpu_s() -> float:
    """CPU time of this process and its ended children."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def peak_mb(pid: int | str) -> float:
    """The most memory a process has held at once; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Run on each file, print what was found, and write the panels where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdfs", type=Path, nargs="+", metavar="PDF")
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--dpi", type=float, default=150.0)
    parser.add_argument("--write", type=Path, help="tab-separated: doc page x0 y0 x1 y1 ...")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    truth: dict[tuple[str, int], list[dict[str, Any]]] = {}
    if arguments.truth:
        for doc in json.loads(arguments.truth.read_text())["docs"]:
            truth |= {(doc["file"], page["page"]): page["panels"] for page in doc["pages"]}
    tally = Tally()
    rows = ["doc\tpage\tx0\ty0\tx1\ty1\tmethod\tmodality\tconfidence\n"]
    for path in arguments.pdfs:
        started, cpu, pictures, readings = time.perf_counter(), cpu_s(), 0, 0
        finding, naming = 0.0, 0.0
        with PdfFile(path) as pdf:
            for page in range(1, pdf.page_count + 1):
                rendered = pdf.render(page, arguments.dpi)
                content = pdf.content(page)
                before = time.process_time()
                panels = detect_panels(rendered.image, rendered.dpi, content)
                found = time.process_time()
                named = [(panel, classify(crop(rendered.image, panel))) for panel in panels]
                naming += time.process_time() - found
                finding += found - before
                primary = [pair for pair in named if pair[0].alternative_of is None]
                readings += len(named) - len(primary)
                tally.add(primary, truth.get((path.name, page), []))
                for panel, guess in primary:
                    if not guess.is_drawing:
                        pictures += 1
                        box = "\t".join(f"{value:.2f}" for value in panel.box_pt)
                        rows.append(
                            f"{path.name}\t{page}\t{box}\t{panel.method}\t{guess.modality}\t"
                            f"{guess.confidence:.3f}\n"
                        )
            worker = peak_mb(pdf.pid or 0)
        print(
            f"{path.name}: {pdf.page_count} pages, {pictures} pictures, {readings} more readings; "
            f"{cpu_s() - cpu:.2f} CPU-s (finding {finding:.2f}, naming {naming:.2f}), "
            f"{time.perf_counter() - started:.2f} s; "
            f"peak {peak_mb('self') + worker:.0f} MB, of it the PDF worker {worker:.0f}"
        )
    if arguments.truth:
        print(tally.report())
    if arguments.write:
        arguments.write.write_text("".join(rows))


if __name__ == "__main__":
    main()
