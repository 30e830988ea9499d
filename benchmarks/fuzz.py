"""Thousands of broken PDFs through the code that the assets call: what becomes of each.

    python -m benchmarks.fuzz [--inputs 10000] [--seed 1] [--jobs 2] [--pipeline 100] [--keep DIR]

Each input is a mutation (``benchmarks.faults.mutations``) of a sound file
(``benchmarks.faults.specimens``). It is opened, its pages are read, rendered and searched for
panels, each picture is cut out and classified: with the worker process, limits and functions that
the assets use. Every hundredth also goes through ``quire run``, Dagster and Postgres included.

What must hold, or the command exits with 1:

- **No unexplained death.** The worker may die, run into its time limit or its memory wall: that is
  an `InputError` or a `BudgetError` in words. Any other exception is a violation, and so is a
  reason that reads like a slip of our own.
- **No silent empty.** The sound file has panels. Where the mutation has none, either something is
  said (refused, failed, degraded), or the page must really look empty. That is checked twice: no
  panel of the sound page may still be visible in its place, and where ``pdftoppm`` (poppler) is
  installed, which shares no code with MuPDF, it must not draw a page with clearly more on it.
- **No hang.** An input ends within the sum of its requests' limits.
- **No leak.** After each input no child process is left and as many files are open as before it; at
  the end the temporary folder is empty, and the process holds no more memory than early on.
- **The pipeline agrees.** ``quire run`` ends with 0 or 3, lists every document, and calls none
  ``ok`` of which the direct way had something to say.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks.faults.mutations import KINDS, mutate
from benchmarks.faults.specimens import Specimen, specimens
from core.errors import BudgetError, InputError
from core.geometry import Image
from core.modality import classify
from core.panels import DetectedPanel, PanelSpec, detect_panels
from resources.pdf import PdfFile

MEMORY_MB = 250
"""What the ``pages`` asset grants."""

TIMEOUT_S = 30.0
"""Half of what the assets allow, so that a slow input costs the benchmark less."""

MOST_PAGES = 4
"""The sound files have one page; a mutation that claims five thousand is looked at this far."""

STILL_VISIBLE = 6.0
"""Mean difference in grey levels up to which a panel counts as still shown in its place."""

MORE_INK = 0.04
"""Share of the page that another renderer must fill beyond ours for a loss: a quarter of what a
panel of the specimens takes."""

SLIP = re.compile(
    r"object has no attribute|NoneType|not subscriptable|index out of range|positional argument"
    r"|unexpected keyword|Traceback|KeyError|values to unpack|: '\w+'\.$|: \.$"
)
"""What a reason must not look like: the message of a Python error, which tells a user nothing."""

OUTCOMES = ("refused", "over budget", "page failed", "degraded", "different", "same")
CHUNK = 25


@dataclass(frozen=True)
class Sound:
    """What a specimen looks like before it is broken."""

    image: Image
    panels: tuple[DetectedPanel, ...]


@dataclass
class Result:
    """What became of one input."""

    index: int
    kind: str
    specimen: str
    outcome: str
    reasons: list[str] = field(default_factory=list[str])
    violations: list[str] = field(default_factory=list[str])
    fewer: bool = False
    empty: bool = False
    seconds: float = 0.0

    @property
    def told(self) -> bool:
        """Whether a user would learn that something is wrong."""
        return self.outcome not in ("different", "same")


@dataclass
class Chunk:
    """Results of some inputs and what their process held afterwards."""

    results: list[Result]
    pid: int
    memory_mb: float
    worker_peak_mb: float


def input_of(index: int, seed: int) -> tuple[str, Specimen, bytes]:
    """Kind of mutation, what is mutated, and the result; the same for the same numbers."""
    rng = np.random.default_rng([seed, index])
    kind = list(KINDS)[index % len(KINDS)]
    a, b = (specimens()[int(rng.integers(len(specimens())))] for _ in range(2))
    return kind, a, mutate(kind, a.data, b.data, rng)


@cache
def sound(specimen: Specimen) -> Sound:
    """The specimen's page as it should be.

    Raises:
        AssertionError: It is not sound, so nothing could be concluded from it.
    """
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(specimen.data)
        file.flush()
        with PdfFile(file.name, memory_mb=MEMORY_MB, timeout_s=TIMEOUT_S) as pdf:
            content, rendered = pdf.content(1), pdf.render(1, PanelSpec().dpi)
    assert not content.complaints, specimen.name
    assert not rendered.complaints, specimen.name
    panels = tuple(detect_panels(rendered.image, rendered.dpi, content))
    assert panels, specimen.name
    return Sound(rendered.image.copy(), panels)


def examine(index: int, seed: int, folder: Path) -> Result:
    """Break a specimen and see what becomes of it."""
    kind, specimen, data = input_of(index, seed)
    result = Result(index, kind, specimen.name, "same")
    path = folder / f"{index:05d}.pdf"
    path.write_bytes(data)
    files, children, started = _open_files(), _children(), time.monotonic()
    requests = 0
    try:
        requests = _read(path, sound(specimen), result)
    except (InputError, BudgetError) as refusal:
        result.outcome = "refused" if isinstance(refusal, InputError) else "over budget"
        result.reasons.append(str(refusal))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        result.violations.append(f"unexplained: {type(error).__name__}: {error}")
    result.seconds = time.monotonic() - started
    if result.seconds > (requests + 1) * (TIMEOUT_S + 5):
        result.violations.append(f"took {result.seconds:.0f} s for {requests} requests")
    result.violations += [f"reads like a slip: {r}" for r in result.reasons if SLIP.search(r)]
    result.violations += ["an empty reason" for r in result.reasons if not r.strip()]
    if _children() - children:
        result.violations.append("a child process is left")
    if _open_files() != files:
        result.violations.append(f"{_open_files() - files} more open files")
    path.unlink()
    return result


def _read(path: Path, expected: Sound, result: Result) -> int:
    """Read the file as the assets do; the number of requests that took."""
    requests, failed, over = 1, False, False
    with PdfFile(path, memory_mb=MEMORY_MB, timeout_s=TIMEOUT_S) as pdf:
        result.reasons += pdf.complaints
        if pdf.is_repaired:
            result.reasons.append("repaired")
        for page in range(1, min(pdf.page_count, MOST_PAGES) + 1):
            requests += 2
            try:
                content = pdf.content(page)
                rendered = pdf.render(page, PanelSpec().dpi)
            except InputError as error:
                failed = True
                result.reasons.append(str(error))
                continue
            except BudgetError as error:
                over = True
                result.reasons.append(str(error))
                continue
            found = detect_panels(rendered.image, rendered.dpi, content)
            for panel in found:
                x0, y0, x1, y1 = panel.box_px
                classify(np.ascontiguousarray(rendered.image[y0:y1, x0:x1]))
            result.reasons += [*content.complaints, *rendered.complaints]
            if rendered.lowered:
                result.reasons.append("lowered")
            if page == 1 and not result.reasons:
                same = np.array_equal(rendered.image, expected.image)
                result.outcome = "same" if same else "different"
                result.fewer = 0 < len(found) < len(expected.panels)
                result.empty = not found
                if not found:
                    result.violations += _lost(path, rendered.image, expected)
    if result.reasons:
        result.outcome = "over budget" if over else "page failed" if failed else "degraded"
    return requests


def _lost(path: Path, image: Image, expected: Sound) -> list[str]:
    """Why a page without panels and without a word is not as empty as it claims to be."""
    if image.shape == expected.image.shape:
        for panel in expected.panels:
            x0, y0, x1, y1 = panel.box_px
            before, now = (each[y0:y1, x0:x1].astype(np.int16) for each in (expected.image, image))
            if float(np.abs(before - now).mean()) < STILL_VISIBLE:
                return ["a panel is still visible and was not found"]
    other = _drawn_by_poppler(path)
    if other is not None and _ink(other) > _ink(image) + MORE_INK:
        return [f"poppler fills {_ink(other):.0%} of a page that we leave at {_ink(image):.0%}"]
    return []


def _ink(image: Image) -> float:
    """Share of the page that is not white."""
    return float((image.min(axis=2) < 250).mean())


def _drawn_by_poppler(path: Path) -> Image | None:
    """The first page by another renderer; None where it is missing or fails, too."""
    program = shutil.which("pdftoppm")
    if program is None:
        return None
    command = [
        program,
        "-f",
        "1",
        "-l",
        "1",
        "-r",
        f"{PanelSpec().dpi:.0f}",
        "-singlefile",
        "-cropbox",
        str(path),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    if not done.stdout:
        return None
    drawn = cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_COLOR)
    return None if drawn is None else np.asarray(drawn, np.uint8)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _open_files() -> int:
    listed = Path("/proc/self/fd")
    return len(list(listed.iterdir())) if listed.exists() else 0


def examine_chunk(indices: Sequence[int], seed: int, folder: Path) -> Chunk:
    """Examine some inputs; what the process then holds tells of leaks."""
    cv2.setNumThreads(1)
    own = folder / str(os.getpid())
    own.mkdir(exist_ok=True)
    tempfile.tempdir = str(own)
    for specimen in specimens():
        sound(specimen)
    results = [examine(index, seed, own) for index in indices]
    if left := [path.name for path in own.iterdir()]:
        results[-1].violations.append(f"temporary files are left: {left}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    memory = psutil.Process().memory_info().rss / 2**20
    return Chunk(results, os.getpid(), memory, peak)


def through_pipeline(results: Sequence[Result], seed: int, folder: Path) -> list[str]:
    """Take inputs through ``quire run``, 25 to a run; what did not hold."""
    home = folder / "home"
    home.mkdir()
    home.chmod(0o755)
    environment = {**os.environ, "QUIRE_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}
    quire = [sys.executable, "-W", "ignore", "-m", "orchestration.cli"]
    problems: list[str] = []
    try:
        for start in range(0, len(results), CHUNK):
            part = results[start : start + CHUNK]
            inbox = folder / f"inbox-{start}"
            inbox.mkdir()
            for result in part:
                (inbox / f"{result.index:05d}.pdf").write_bytes(input_of(result.index, seed)[2])
            done = subprocess.run(
                [*quire, "run", str(inbox), "--out", str(folder / "out")],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode not in (0, 3):
                problems.append(f"quire run ended with {done.returncode}: {done.stderr[-600:]}")
                continue
            problems += _disagreements(part, folder / "out" / "pairs.json")
    finally:
        subprocess.run([*quire, "db", "stop"], env=environment, capture_output=True, check=False)
    return problems


def _disagreements(results: Sequence[Result], report: Path) -> Iterator[str]:
    documents = json.loads(report.read_text())["report"]["documents"]
    named = {document["name"]: document for document in documents}
    for result in results:
        document = named.get(f"{result.index:05d}.pdf")
        if document is None:
            yield f"{result.index}: not in the report"
        elif document["status"] == "ok" and result.told:
            yield f"{result.index}: ok in the report, but {result.reasons}"
        elif document["status"] != "ok" and not (document["reasons"] or document["pages_failed"]):
            yield f"{result.index}: {document['status']} without a reason"


def leaks(chunks: Sequence[Chunk]) -> list[str]:
    """Processes that hold more at the end than when a fifth was done."""
    problems: list[str] = []
    for pid in sorted({chunk.pid for chunk in chunks}):
        held = [chunk.memory_mb for chunk in chunks if chunk.pid == pid]
        early = max(held[: math.ceil(len(held) / 5)])
        if held[-1] > early + 30:
            problems.append(f"process {pid} grew from {early:.0f} to {held[-1]:.0f} MB")
    return problems


def fuzz(
    inputs: int, seed: int, jobs: int, pipeline: int, *, folder: Path
) -> tuple[list[Chunk], list[str]]:
    """Examine so many inputs; the chunks, and what else did not hold."""
    parts = [range(at, min(at + CHUNK, inputs)) for at in range(0, inputs, CHUNK)]
    chunks: list[Chunk] = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        count = len(parts)
        for chunk in pool.map(examine_chunk, parts, [seed] * count, [folder] * count):
            chunks.append(chunk)
            if len(chunks) % 20 == 0:
                print(f"{len(chunks) * CHUNK} of {inputs}", file=sys.stderr, flush=True)
    problems = leaks(chunks)
    if pipeline:
        results = [result for chunk in chunks for result in chunk.results]
        step = max(1, len(results) // pipeline)
        # A step that shares no factor with the number of kinds meets all of them.
        while math.gcd(step, len(KINDS)) > 1:
            step -= 1
        problems += through_pipeline(results[::step][:pipeline], seed, folder)
    return chunks, problems


def table(results: Iterable[Result]) -> str:
    """Outcomes by kind of mutation; in brackets what of *different* has fewer panels or none."""
    counts: Counter[tuple[str, str]] = Counter()
    for result in results:
        for row in (result.kind, "all"):
            counts[row, result.outcome] += 1
            counts[row, "(fewer)"] += result.fewer
            counts[row, "(no panel)"] += result.empty
            counts[row, "violations"] += len(result.violations)
    columns = (*OUTCOMES, "(fewer)", "(no panel)", "violations")
    lines = [f"{'mutation':<16}" + "".join(f"{column:>12}" for column in columns)]
    for kind in (*KINDS, "all"):
        numbers = "".join(f"{counts[kind, column]:>12,}" for column in columns)
        lines.append(f"{kind:<16}" + numbers)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pipeline", type=int, default=None, help="default: one in a hundred")
    parser.add_argument("--keep", type=Path, help="where inputs that violate a rule are left")
    parser.add_argument("--json", type=Path, help="write every result there")
    arguments = parser.parse_args()
    pipeline = arguments.inputs // 100 if arguments.pipeline is None else arguments.pipeline
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="quire-fuzz-") as name:
        Path(name).chmod(0o755)
        chunks, problems = fuzz(
            arguments.inputs, arguments.seed, arguments.jobs, pipeline, folder=Path(name)
        )
    results = [result for chunk in chunks for result in chunk.results]
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(result) for result in results], indent=1))
    reasons = [reason for result in results for reason in result.reasons]
    crashed = Counter(found[1] for r in reasons if (found := re.search(r"parser \((\w+)", r)))
    late = sum("took longer than" in reason for reason in reasons)
    print(table(results))
    print(f"\n{len(results):,} inputs, {time.monotonic() - started:,.0f} s, seed {arguments.seed}")
    print(f"worker processes that died: {dict(crashed) or 'none'}; given up as too slow: {late}")
    print(f"slowest input: {max(result.seconds for result in results):.1f} s")
    print(f"largest worker: {max(chunk.worker_peak_mb for chunk in chunks):.0f} MB resident")
    for pid in sorted({chunk.pid for chunk in chunks}):
        held = [chunk.memory_mb for chunk in chunks if chunk.pid == pid]
        print(f"parent process: {held[0]:.0f} MB at first, {held[-1]:.0f} MB at last")
    print(f"through quire run: {pipeline}")
    for result in results:
        for violation in result.violations:
            print(f"VIOLATION {result.index} ({result.kind} of {result.specimen}): {violation}")
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                data = input_of(result.index, arguments.seed)[2]
                (arguments.keep / f"{result.index:05d}.pdf").write_bytes(data)
    for problem in problems:
        print(f"VIOLATION {problem}")
    sys.exit(1 if problems or any(result.violations for result in results) else 0)


if __name__ == "__main__":
    main()
