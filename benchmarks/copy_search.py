"""Copy search end to end through Dagster: quality, time, peaks, the price of orchestration.

    python benchmarks/copy_search.py PDF... [--truth TRUTH --evaluator SCRIPT] [--repeats 3]

Runs ``quire run`` on a fresh home with a warm database server, and the plain script of the same
algorithm (``benchmarks/plain.py``) beside it, alternating, ``--repeats`` times; prints medians and
their ratio. With a truth file it writes pairs and panels in the evaluator's columns and prints what
the evaluator finds. ``--out`` keeps every file that was made.
"""

import argparse
import contextlib
import csv
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUIRE = [sys.executable, "-m", "orchestration.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdfs", nargs="+", type=Path)
    parser.add_argument("--truth", type=Path, help="ground truth; needs --evaluator")
    parser.add_argument("--evaluator", type=Path, help="script that compares with the truth")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder that keeps pairs.tsv, panels.tsv, ...")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain script out")
    arguments = parser.parse_args()
    pdfs = [str(path) for given in arguments.pdfs for path in _pdfs(given)]
    _adopt_orphans()
    keep = arguments.out or Path(tempfile.mkdtemp(prefix="quire-bench-"))
    keep.mkdir(parents=True, exist_ok=True)
    through, plain = [], []
    for _ in range(arguments.repeats):
        through.append(_through_dagster(pdfs, keep))
        if not arguments.no_plain:
            plain.append(_plain(pdfs))
    print(json.dumps(_summary(through, plain), indent=1))
    if arguments.truth and arguments.evaluator:
        _evaluate(arguments, keep)


def _pdfs(given: Path) -> list[Path]:
    return sorted(given.rglob("*.pdf")) if given.is_dir() else [given]


def _through_dagster(pdfs: list[str], keep: Path) -> dict[str, Any]:
    home = Path(tempfile.mkdtemp(prefix="quire-home-"))
    home.chmod(0o755)
    environment = {**os.environ, "QUIRE_HOME": str(home)}
    try:
        # Warm: the server runs and the tables are there, as on a machine that is in use.
        _run([*QUIRE, "db", "start"], environment)
        _run([*QUIRE, "status"], environment)
        seconds, cpu = _run([*QUIRE, "run", *pdfs, "--out", str(keep)], environment)
        again, _ = _run([*QUIRE, "run", *pdfs, "--out", str(keep)], environment)
        facts = json.loads(
            subprocess.run(
                [sys.executable, str(ROOT / "benchmarks" / "facts.py"), str(keep)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
    finally:
        _run([*QUIRE, "db", "stop"], environment)
        shutil.rmtree(home, ignore_errors=True)
    return {"wall_s": seconds, "cpu_s": cpu, "again_wall_s": again, **facts}


def _plain(pdfs: list[str]) -> dict[str, Any]:
    before = _children_cpu()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "plain.py"), *pdfs],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )
    wall = time.monotonic() - started
    facts = json.loads(done.stdout)
    return {**facts, "wall_s": round(wall, 2), "cpu_s": round(_children_cpu() - before, 2)}


def _adopt_orphans() -> None:
    """Let processes whose parent ends become ours (Linux), so that their CPU time is counted."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _children_cpu() -> float:
    """CPU seconds of all processes that were started and have ended."""
    for _ in range(20):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    before, started = _children_cpu(), time.monotonic()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    wall, cpu = time.monotonic() - started, _children_cpu() - before
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command[2:5])}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return round(wall, 2), round(cpu, 2)


def _summary(through: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    def middle(runs: list[dict[str, Any]], name: str) -> float:
        return round(statistics.median(run[name] for run in runs), 2)

    last = through[-1]
    summary: dict[str, Any] = {
        "repeats": len(through),
        "pages": last["pages"],
        "panels": last["panels"],
        "wall_s": middle(through, "wall_s"),
        "cpu_s (database server apart)": middle(through, "cpu_s"),
        "second run, nothing to do, wall_s": middle(through, "again_wall_s"),
        "ops": last["ops"],
        "peak_mb of any op": max(op["peak_mb"] for op in last["ops"].values()),
    }
    if plain:
        summary["plain script"] = {
            "wall_s": middle(plain, "wall_s"),
            "cpu_s": middle(plain, "cpu_s"),
            "seconds": plain[-1]["seconds"],
            "panels": plain[-1]["panels"],
        }
        summary["ratio of wall time, Dagster to plain"] = round(
            summary["wall_s"] / summary["plain script"]["wall_s"], 2
        )
        summary["ratio of CPU time, Dagster to plain"] = round(
            middle(through, "cpu_s") / summary["plain script"]["cpu_s"], 2
        )
    return summary


def _evaluate(arguments: argparse.Namespace, keep: Path) -> None:
    rows = list(csv.DictReader((keep / "pairs.tsv").open(), dialect="excel-tab"))
    report = json.loads((keep / "pairs.json").read_text())
    with (keep / "evaluator-pairs.tsv").open("w", newline="") as file:
        table = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        sides = [f"{side}{corner}" for side in "ab" for corner in ("x0", "y0", "x1", "y1")]
        table.writerow(
            ["doc_a", "page_a", *sides[:4], "doc_b", "page_b", *sides[4:], "score", "tier"]
        )
        for pair in report["pairs"]:
            line: list[Any] = []
            for side in (pair["a"], pair["b"]):
                line += [side["name"], side["page"], *_bounds(side["region_pt"])]
            table.writerow([*line, pair["probability"], pair["tier"]])
    names = {Path(path).name for given in arguments.pdfs for path in _pdfs(given)}
    command = [
        sys.executable,
        str(arguments.evaluator),
        str(arguments.truth),
        "--pairs",
        str(keep / "evaluator-pairs.tsv"),
        "--panels",
        str(keep / "evaluator-panels.tsv"),
        "--docs",
        *sorted(names),
    ]
    print(f"{len(rows)} rows in pairs.tsv; evaluator:")
    subprocess.run(command, check=True)


def _bounds(polygon: list[list[float]]) -> list[float]:
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return [min(xs), min(ys), max(xs), max(ys)]


if __name__ == "__main__":
    main()
