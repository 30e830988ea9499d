"""Kill runs at random moments, many times over, and see whether anything is lost, left or doubled.

    python -m benchmarks.kills [--gallery] [--kills 200] [--seed 1] [--keep FOLDER]
    python -m benchmarks.kills [--gallery] --scenarios [NAME ...] [--keep FOLDER]

Two small papers that share pictures are searched once in peace. Then, again and again from nothing:
a run is started, a part of it is killed with signal 9 at a moment drawn uniformly from the time a
whole run takes (and again, where the run goes on), and the next run takes up what is there; once
one comes to its end, it is compared with the one left in peace. ``faults/kills.py`` says what is
killed and looked for. With ``--gallery`` a run takes in the sample cards and identifies those on a
photograph instead. With ``--scenarios`` it is ``faults/scenarios.py`` instead: full disks, a
database that goes away for a minute, connections that are taken, two runs at once, a clock that
jumps, and backfills of the UI that are cancelled and killed, its daemon included.

Prints how often each part was killed, at which stage, what came of the run, and every violation;
the exit code is 1 where there was one.
"""

import argparse
import contextlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults import scenarios
from benchmarks.faults.kills import (
    CHECKOUT,
    FATAL,
    KINDS,
    OF_THE_UI,
    Audit,
    GalleryInstallation,
    Installation,
    Run,
    adopted_orphans,
    stages_at,
    strike,
)
from tests.hostile import small_paper

RUNS_PER_CHAIN = 12
"""Broken runs before one is let finish: a restart meets what several of them left."""

SCENARIOS: dict[str, Callable[[Installation, Installation], list[str]]] = {
    "two runs at once": scenarios.two_runs,
    "two runs at once, which write slowly": lambda ours, reference: scenarios.two_runs(
        ours, reference, slowly=True
    ),
    "store and results full": scenarios.store_full,
    "database disk full": scenarios.database_disk_full,
    "database away for a minute": lambda ours, reference: scenarios.database_away(
        ours, reference, away_s=60
    ),
    "connections taken": scenarios.connections_taken,
    "clock jumps": scenarios.clock_jumps,
    "backfills": lambda ours, reference: scenarios.backfills(ours, reference, list(OF_THE_UI)),
}

OF_THE_GALLERY = (
    "store and results full",
    "database disk full",
    "database away for a minute",
    "connections taken",
    "clock jumps",
)
"""Scenarios that are the same whatever a run is for; the others know papers alone."""


@dataclass
class Tally:
    """What was done and what was found."""

    kills: Counter[str] = field(default_factory=Counter[str])
    stages: Counter[str] = field(default_factory=Counter[str])
    ends: Counter[str] = field(default_factory=Counter[str])
    chains: int = 0
    violations: list[str] = field(default_factory=list)
    durations_s: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Kills so far."""
        return sum(self.kills.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work there and leave it in place")
    parser.add_argument("--scenarios", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--gallery", action="store_true", help="of cards instead of copy search")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    arguments = parser.parse_args()
    names = arguments.scenarios or list(OF_THE_GALLERY if arguments.gallery else SCENARIOS)
    if arguments.gallery and (others := set(names).difference(OF_THE_GALLERY)):
        parser.error(f"not of a gallery: {', '.join(sorted(others))}")
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="quire-kills-"))
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o711)
    tally = Tally()
    choice = random.Random(arguments.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with adopted_orphans():
            papers = inputs(root, arguments.seed, gallery=arguments.gallery)
            reference = in_peace(
                root, papers, GalleryInstallation if arguments.gallery else Installation, tally
            )
            try:
                if arguments.scenarios is None:
                    kill(root, papers, reference, arguments.kills, arguments.kinds, choice, tally)
                else:
                    go_through(root, papers, reference, names, tally)
            finally:
                reference.remove()
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)
    if tally.kills:
        show(tally)
    sys.exit(1 if tally.violations else 0)


def inputs(root: Path, seed: int, *, gallery: bool) -> Path:
    """The folder with what runs take in."""
    if gallery:
        return CHECKOUT / "samples" / "cards"
    papers = root / "papers"
    papers.mkdir()
    small_paper(papers / "first.pdf", seed=seed, panels=6)
    small_paper(papers / "second.pdf", seed=seed, panels=4)
    return papers


def in_peace(root: Path, papers: Path, kind: type[Installation], tally: Tally) -> Installation:
    """An installation that came to its end undisturbed."""
    reference = kind(root / "r")
    reference.prepare(papers)
    started = time.monotonic()
    run = reference.begin()
    if (code := run.wait()) != 0:
        sys.exit(f"the undisturbed run ended with {code}: {run.said()}")
    tally.durations_s.append(time.monotonic() - started)
    return reference


def kill(
    root: Path,
    papers: Path,
    reference: Installation,
    kills: int,
    kinds: list[str],
    choice: random.Random,
    tally: Tally,
) -> None:
    """Chains of kills until there were as many as asked for."""
    while tally.total < kills:
        chain(root / f"c{tally.chains}", papers, reference, tally, choice, kinds)
        tally.chains += 1
        print(f"{tally.total} kills, {len(tally.violations)} violations", flush=True)


def go_through(
    root: Path, papers: Path, reference: Installation, names: list[str], tally: Tally
) -> None:
    """The scenarios with these names."""
    for place, name in enumerate(names):
        installation = type(reference)(root / f"s{place}")
        installation.prepare(papers)
        started = time.monotonic()
        try:
            found = SCENARIOS[name](installation, reference)
            tally.violations += found
            end = "\n".join(found) or "as it should"
        except scenarios.CannotError as reason:
            end = f"not tried: {reason}"
        finally:
            installation.remove()
        print(f"{name:<30} {time.monotonic() - started:6.0f} s  {end}", flush=True)


def chain(
    root: Path,
    papers: Path,
    reference: Installation,
    tally: Tally,
    choice: random.Random,
    kinds: list[str],
) -> None:
    """From nothing to a finished, compared result, with kills on the way."""
    installation = type(reference)(root)
    installation.prepare(papers)
    audit = Audit(installation)
    struck: list[tuple[float, float]] = []
    finished = False
    try:
        for place in range(RUNS_PER_CHAIN):
            run = installation.begin()
            killed = False
            while run.process.poll() is None:
                kind = choice.choice(kinds)
                whole_s = min(tally.durations_s[-5:])
                _sleep(run, choice.uniform(0, whole_s / 3 if killed else whole_s))
                audit.remember()
                if not strike(kind, installation, run, choice):
                    break
                tally.kills[kind] += 1
                struck.append((run.since, time.time()))
                killed = True
                if kind in FATAL:
                    break
            code = run.wait()
            if killed:
                tally.ends["succeeds" if code == 0 else "fails or is killed"] += 1
            elif place == 0:
                tally.durations_s.append(time.time() - run.since)
            if "Traceback" in run.said():
                audit.violations.append(f"a traceback instead of a line\n{run.said()[-2000:]}")
            if code != 0 and not killed:
                audit.violations.append(f"left in peace, it ended with {code}\n{run.said()}")
            audit.after_a_kill()
            if finished := code == 0:
                break
        if not finished:
            run = installation.begin()
            if run.wait() != 0:
                audit.violations.append(f"the last run fails\n{run.said()[-2000:]}")
        audit.after_the_end(reference)
        for since, at in struck:
            tally.stages[stages_at(installation, since, at)] += 1
    finally:
        for violation in audit.violations:
            print(f"chain {tally.chains}: {violation}", flush=True)
        tally.violations += audit.violations
        installation.remove()


def _sleep(run: Run, seconds: float) -> None:
    """Wait, but no longer than the run takes."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(seconds)


def show(tally: Tally) -> None:
    """Print the tables."""
    print(f"\n{tally.total} kills in {tally.chains} chains, {len(tally.violations)} violations")
    print(f"a whole run: {statistics.median(tally.durations_s):.1f} s (median)\n")
    print(f"{'killed':<50}{'times':>6}")
    for kind, times in tally.kills.most_common():
        print(f"{kind:<50}{times:>6}")
    print(f"\n{'a run that was struck':<50}{'times':>6}")
    for end, times in tally.ends.most_common():
        print(f"{end:<50}{times:>6}")
    print(f"\n{'at':<50}{'times':>6}")
    for stage, times in tally.stages.most_common():
        print(f"{stage:<50}{times:>6}")


if __name__ == "__main__":
    main()
