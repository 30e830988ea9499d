"""Memory of the ops: what each one holds, what it predicted, and whether size changes it.

    python benchmarks/memory.py table PDF...
    python benchmarks/memory.py flat [--pages 2000] [--papers 25] [--times 10] [--repeats 3]
        [--only pages]

``table`` makes the documents on an empty home and prints, per op, its budget, its predicted and its
measured peak and their ratio, of the materialization that held the most.

``flat`` makes a document of a tenth of the pages, one of all of them, a corpus of some papers and
one of ten times as many, each on an empty home, and prints the ratio of each op's peaks. Small work
is done several times, so that the largest of several runs stands on either side. Documents
are made for it: small pages with lines of text, every second one of a long document and every one
of a paper with a panel; every twentieth panel is a copy of an earlier one, so that searching,
verifying and reporting have work to do.

The exit code is 1 where a prediction is off by more than 20 %, a peak grew by more than 5 %, or an
op held more than its budget.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pymupdf

ROOT = Path(__file__).resolve().parent.parent
QUIRE = [sys.executable, "-m", "orchestration.cli"]

ASSETS = (
    "documents",
    "pages",
    "panels",
    "panel_features",
    "tiles",
    "encoders",
    "tile_embeddings",
    "candidate_pairs",
    "verified_pairs",
    "duplicate_reports",
)
"""In the order of the pipeline."""

COPY_EVERY = 20
"""Of so many panels one is a copy of an earlier one."""

PREDICTED_WITHIN = 0.20
FLAT_WITHIN = 0.05


@dataclass(frozen=True)
class Peak:
    """The materialization of one op that held the most.

    Attributes:
        budget_mb: What it might hold.
        predicted_mb: What its plan said it would hold.
        peak_mb: What it held.
        runs: How many materializations there were with something to do.
    """

    budget_mb: float
    predicted_mb: float
    peak_mb: float
    runs: int

    @property
    def predicted_share(self) -> float:
        """Predicted / measured."""
        return self.predicted_mb / self.peak_mb


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table", help="peaks and predictions over given documents")
    table.add_argument("pdfs", nargs="+", type=Path)
    flat = commands.add_parser("flat", help="peaks of small and large work")
    flat.add_argument("--pages", type=int, default=2000)
    flat.add_argument("--papers", type=int, default=25)
    flat.add_argument("--times", type=int, default=10)
    flat.add_argument("--repeats", type=int, default=3)
    flat.add_argument("--only", choices=("pages", "papers"))
    commands.add_parser("peaks", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.command == "peaks":
        print(json.dumps(recorded()))
    elif arguments.command == "table":
        sys.exit(0 if show_table(arguments.pdfs) else 1)
    else:
        sys.exit(0 if show_flat(arguments) else 1)


def show_table(pdfs: Sequence[Path]) -> bool:
    """Print the table of the docs; whether every op kept its budget and its prediction."""
    peaks = made(pdfs)
    print("| op | budget MB | predicted MB | measured MB | predicted / measured |")
    print("|---|---:|---:|---:|---:|")
    sound = True
    for op, peak in peaks.items():
        print(
            f"| `{op}` | {peak.budget_mb:.0f} | {peak.predicted_mb:.0f} | {peak.peak_mb:.0f} "
            f"| {peak.predicted_share:.2f} |"
        )
        sound &= abs(peak.predicted_share - 1) <= PREDICTED_WITHIN
        sound &= peak.peak_mb <= peak.budget_mb
    return sound


def show_flat(arguments: argparse.Namespace) -> bool:
    """Print how the peaks change with the size of a document and of the corpus."""
    sound = True
    with tempfile.TemporaryDirectory(prefix="quire-memory-") as name:
        folder = Path(name)
        times = arguments.times
        if arguments.only != "papers":
            few, many = arguments.pages // times, arguments.pages
            small, large = (document(folder / f"{n}.pdf", n, seed=1, every=2) for n in (few, many))
            print(f"\na document of {few} pages and one of {many}\n")
            sound &= compare(largest([small], arguments.repeats), made([large]))
        if arguments.only != "pages":
            few, many = arguments.papers, arguments.papers * times
            papers = [document(folder / f"paper-{n}.pdf", 4, seed=100 + n) for n in range(many)]
            print(f"\n{few} papers of 4 pages and {many}\n")
            sound &= compare(largest(papers[:few], arguments.repeats), made(papers))
    return sound


def compare(small: dict[str, Peak], large: dict[str, Peak]) -> bool:
    """Print both and their ratio; whether no peak grew."""
    sound = True
    print("| op | peak MB | peak MB | ratio | predicted / measured | runs |")
    print("|---|---:|---:|---:|---:|---:|")
    for op, peak in large.items():
        before = small[op]
        ratio = peak.peak_mb / before.peak_mb
        print(
            f"| `{op}` | {before.peak_mb:.0f} | {peak.peak_mb:.0f} | {ratio:.3f} "
            f"| {before.predicted_share:.2f}, {peak.predicted_share:.2f} "
            f"| {before.runs}, {peak.runs} |",
            flush=True,
        )
        sound &= ratio <= 1 + FLAT_WITHIN and peak.peak_mb <= peak.budget_mb
    return sound


def largest(pdfs: Sequence[Path], repeats: int) -> dict[str, Peak]:
    """What each op held at most when the same documents were made several times."""
    times = [made(pdfs) for _ in range(repeats)]
    return {
        op: replace(
            max((peaks[op] for peaks in times), key=lambda peak: peak.peak_mb),
            runs=sum(peaks[op].runs for peaks in times),
        )
        for op in times[0]
    }


def made(pdfs: Sequence[Path]) -> dict[str, Peak]:
    """Make documents on an empty home, and say what each op held."""
    home = Path(tempfile.mkdtemp(prefix="quire-memory-"))
    home.chmod(0o755)  # under root the database server is another user, who has to pass
    environment = {**os.environ, "QUIRE_HOME": str(home)}
    started = time.monotonic()
    try:
        run = [*QUIRE, "run", *map(str, pdfs), "--out", str(home / "out")]
        done = subprocess.run(run, env=environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            sys.exit(f"quire run: exit code {done.returncode}\n{done.stderr[-2000:]}")
        print(f"{len(pdfs)} documents: {time.monotonic() - started:.0f} s", file=sys.stderr)
        told = subprocess.run(
            [sys.executable, __file__, "peaks"],
            env=environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return {op: Peak(**peak) for op, peak in json.loads(told.stdout).items()}
    finally:
        subprocess.run([*QUIRE, "db", "stop"], env=environment, cwd=ROOT, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def recorded() -> dict[str, dict[str, float]]:
    """What the ops of this home recorded in their metadata, in the order of the pipeline."""
    import dagster as dg

    from orchestration.headless import prepare
    from orchestration.settings import from_environment

    prepare(from_environment())
    peaks: dict[str, dict[str, float]] = {}
    with dg.DagsterInstance.get() as instance:
        for key in instance.get_asset_keys():
            seen: dict[str, dict[str, float]] = {}
            for record in instance.fetch_materializations(key, limit=10_000).records:
                materialization = record.asset_materialization
                assert materialization is not None
                numbers: dict[str, Any] = {
                    name: value.value for name, value in materialization.metadata.items()
                }
                if numbers.get("items"):
                    seen[record.run_id] = numbers
            if seen:
                most = max(seen.values(), key=lambda numbers: numbers["peak_mb"])
                peaks[key.to_user_string()] = {
                    "budget_mb": most["budget_mb"],
                    "predicted_mb": most["predicted_peak_mb"],
                    "peak_mb": most["peak_mb"],
                    "runs": len(seen),
                }
    return {op: peaks[op] for op in ASSETS if op in peaks}


def document(path: Path, pages: int, seed: int, every: int = 1) -> Path:
    """A document of small pages, each with lines of text, and one panel ``every`` so many."""
    with pymupdf.open() as pdf:
        for number in range(pages):
            page = pdf.new_page(width=300, height=400)
            for line in range(6):
                words = f"Page {number + 1}, line {line}."
                page.insert_text((36, 48 + 14 * line), words, fontsize=9)
            place, beside = divmod(number, every)
            if beside:
                continue
            again = place % COPY_EVERY == COPY_EVERY - 1
            picture = panel(seed, place - COPY_EVERY // 2 if again else place)
            page.insert_image(pymupdf.Rect(90, 190, 210, 310), stream=picture)
        pdf.save(path)
    return path


def panel(seed: int, number: int) -> bytes:
    """A picture of blobs of its own, 250 x 250 px, as JPEG."""
    rng = np.random.default_rng([seed, number])
    blobs = cv2.GaussianBlur(rng.normal(0, 60, (250, 250)), (0, 0), 4) * 7 + 120
    picture = np.clip(blobs + rng.normal(0, 4, blobs.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


if __name__ == "__main__":
    main()
