"""Thousands of broken photographs through the code that the assets call: what becomes of each.

    python -m benchmarks.fuzz_photographs [--inputs 2000] [--seed 1] [--keep DIR]

Each input is a mutation (``benchmarks.faults.pictures``) of a sound JPEG, PNG, TIFF, WebP or HEIC.
A process of its own reads its header and decodes it, behind the memory wall and under the budget of
the op ``scans``. What must hold, or the command exits with 1:

- **A picture or a reason.** ``InputError`` with a sentence, or ``MemoryError``, which the op
  answers with a budget that would do. Any other exception is a violation, and so is a process
  that dies.
- **No hang.** An input takes no more than 10 s of a processor.
- **Within the budget.** The process holds no more than the op may.
- **The file is not blamed for memory.** One that claims many pixels and is called damaged is called
  so with four times the budget, too.
"""

import argparse
import contextlib
import multiprocessing
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from assets.scans import BUDGET_MB
from benchmarks.faults.pictures import KINDS, Picture, mutate, pictures
from core.errors import InputError
from core.scans import SCANS
from resources.memory import MemoryContract
from resources.photographs import read_header, read_photograph

TIMEOUT_S = 10.0
"""Of a processor, so that a machine that does other things calls nothing a hang."""

PATIENCE_S = 300.0
"""By the clock: a process that waits for something works on nothing."""

MANY_MB = 50.0
"""Decoding that takes more by its header is tried once more with more memory."""

OUTCOMES = ("picture", "refused", "damaged", "memory", "violation")


@dataclass(frozen=True)
class Reading:
    """What became of a file in one reading.

    Attributes:
        outcome: One of ``OUTCOMES``.
        said: The reason, or the exception.
        claimed_mb: Memory of decoding by its header; 0 where that cannot be read.
        peak_mb: What the process held at most.
        seconds: How long a processor was at it.
    """

    outcome: str
    said: str = ""
    claimed_mb: float = 0.0
    peak_mb: float = 0.0
    seconds: float = 0.0


def read(path: Path, budget_mb: int) -> Reading:
    """Read a file as the asset does."""
    claimed_mb, started = 0.0, time.process_time()
    with MemoryContract().watch(budget_mb, "scans") as watch:
        try:
            claimed_mb = read_header(path).megabytes(SCANS.most_px)
            found = read_photograph(
                path, most_px=SCANS.most_px, most_megapixels=SCANS.most_megapixels
            )
            height, width, channels = found.image.shape
            sound = channels == 3 and found.image.dtype == np.uint8 and height * width > 0
            outcome = "picture" if sound and max(height, width) <= SCANS.most_px else "violation"
            said = f"{width} x {height} x {channels} of {found.image.dtype}"
        except InputError as error:
            outcome = "damaged" if "is damaged" in str(error) else "refused"
            said = str(error)
        except MemoryError as error:
            outcome, said = "memory", str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            outcome, said = "violation", f"{type(error).__name__}: {error}"
    return Reading(outcome, said, claimed_mb, watch.peak_mb, time.process_time() - started)


def _serve(pipe: Connection) -> None:
    """Read files until there are no more."""
    warnings.simplefilter("ignore")
    read(Path(__file__), 4 * BUDGET_MB)  # what is loaded when it is first needed is no input's
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        pipe.send(read(Path(asked[0]), asked[1]))


class Reader:
    """A process that reads files, and another one after it where it dies or hangs."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._begin()

    def _begin(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it has imported what it is for

    def ask(self, path: Path, budget_mb: int) -> Reading:
        """What becomes of a file; a violation where the process does not live to tell."""
        self._pipe.send((str(path), budget_mb))
        said = f"no answer within {TIMEOUT_S:.0f} s"
        since, deadline = self._worked_s(), time.monotonic() + PATIENCE_S
        try:
            while self._worked_s() - since < TIMEOUT_S and time.monotonic() < deadline:
                if self._pipe.poll(0.5):
                    return self._pipe.recv()
            self._process.kill()
        except (EOFError, ConnectionError):
            self._process.join()
            said = f"the process died: {self._process.exitcode}"
        self._process.join()
        self._begin()
        return Reading("violation", said)

    def _worked_s(self) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(self._process.pid).cpu_times()
            return times.user + times.system
        return 0.0

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(10)


def input_of(index: int, seed: int) -> tuple[str, Picture, bytes]:
    """Kind of mutation, what is mutated, and the result; the same for the same numbers."""
    rng = np.random.default_rng([seed, index])
    kind = list(KINDS)[index % len(KINDS)]
    picture, other = (pictures()[int(rng.integers(len(pictures())))] for _ in range(2))
    return kind, picture, mutate(kind, picture, other, rng)


def violations(reading: Reading, again: Reading | None) -> list[str]:
    """What did not hold of one input."""
    found: list[str] = []
    if reading.outcome == "violation":
        found.append(reading.said)
    if reading.outcome in ("refused", "damaged") and not reading.said.strip():
        found.append("an empty reason")
    if reading.outcome in ("refused", "damaged") and "memory" in reading.said.lower():
        found.append(f"the file is blamed for memory: {reading.said}")
    if reading.peak_mb > BUDGET_MB:
        found.append(f"it held {reading.peak_mb:.0f} MB")
    if reading.seconds > TIMEOUT_S:
        found.append(f"it took {reading.seconds:.1f} s")
    if again is not None and again.outcome != reading.outcome:
        found.append(f"{reading.said}; with more memory: {again.outcome} {again.said}")
    return found


def table(results: Iterable[tuple[str, str]]) -> str:
    """Outcomes by kind of mutation."""
    counts = Counter((row, outcome) for kind, outcome in results for row in (kind, "all"))
    lines = [f"{'mutation':<20}" + "".join(f"{column:>11}" for column in OUTCOMES)]
    for kind in (*KINDS, "all"):
        lines.append(f"{kind:<20}" + "".join(f"{counts[kind, each]:>11,}" for each in OUTCOMES))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where inputs that violate a rule are left")
    arguments = parser.parse_args()
    results: list[tuple[str, str]] = []
    problems = 0
    slowest_s = peak_mb = 0.0
    started = time.monotonic()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # says how far it came
    reader = Reader()
    with (
        contextlib.suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="quire-fuzz-") as name,
    ):
        for sound in pictures():
            path = Path(name) / f"sound.{sound.ending}"
            path.write_bytes(sound.data)
            if (reading := reader.ask(path, BUDGET_MB)).outcome != "picture":
                sys.exit(f"{sound.name} is not sound: {reading.said}")
        for index in range(arguments.inputs):
            kind, picture, data = input_of(index, arguments.seed)
            path = Path(name) / f"{index:05d}.{picture.ending}"
            path.write_bytes(data)
            reading = reader.ask(path, BUDGET_MB)
            again = None
            if reading.outcome == "damaged" and reading.claimed_mb > MANY_MB:
                again = reader.ask(path, 4 * BUDGET_MB)
            found = violations(reading, again)
            slowest_s = max(slowest_s, reading.seconds)
            peak_mb = max(peak_mb, reading.peak_mb)
            results.append((kind, "violation" if found else reading.outcome))
            problems += len(found)
            for each in found:
                print(f"VIOLATION {index} ({kind} of {picture.name}): {each}", flush=True)
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / path.name).write_bytes(data)
            path.unlink()
    with contextlib.suppress(OSError):
        reader.close()
    print(table(results))
    print(f"\n{len(results):,} inputs, {time.monotonic() - started:,.0f} s, seed {arguments.seed}")
    print(f"slowest input: {slowest_s:.1f} s; most held: {peak_mb:.0f} of {BUDGET_MB} MB")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
