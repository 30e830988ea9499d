"""Quire in small containers: does it complete, with the same result, and who holds the memory.

    python -m benchmarks.containers PDF... [--headless-mb 512] [--ui-mb 1024] [--repeats 1]
        [--only headless|reading|ui]
    python -m benchmarks.containers --sizes

Every run begins with an empty home, in a container of its own (``faults/container.py``):

- headless: ``quire run``, which starts the embedded Postgres inside;
- reading: ``quire read``, likewise, with tesseract, passages and their vectors;
- UI: ``quire ui`` (webserver, daemon, code server, database), and the documents made by a backfill
  that is launched through the webserver's GraphQL.

Each is done without a limit and within one. Prints the peak of the whole and per process, the
wall time and its ratio to the run without a limit, and whether ``pairs.tsv`` and ``pairs.json``, or
the texts and ``pages.json``, are those of the first such run, byte for byte. The exit code is 1
where a run failed or a result differs.

``--sizes`` runs nothing and prints what container is needed for what, from the table of budgets.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.container import Container
from benchmarks.faults.webserver import (
    backfill_ended,
    free_port,
    launch_backfill,
    wait_until_loaded,
)

ROOT = Path(__file__).resolve().parent.parent
QUIRE = [sys.executable, "-m", "orchestration.cli"]
RESULTS = ("pairs.tsv", "pairs.json", "pages.json", "*.txt")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pdfs", nargs="*", type=Path)
    parser.add_argument("--sizes", action="store_true", help="print the table of sizes")
    parser.add_argument("--headless-mb", type=int, default=512)
    parser.add_argument("--ui-mb", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("headless", "reading", "ui"))
    parser.add_argument("--take-in", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    pdfs = [str(path.absolute()) for path in arguments.pdfs]
    if arguments.sizes:
        print(sizes())
        return
    if not pdfs:
        parser.error("name the PDFs to measure with")
    if arguments.take_in:
        take_in(pdfs)
        return
    kinds = {
        "headless": (headless, arguments.headless_mb),
        "reading": (reading, arguments.headless_mb),
        "ui": (with_ui, arguments.ui_mb),
    }
    found: dict[bool, dict[str, bytes]] = {}
    sound = True
    for name, (measure, limit_mb) in kinds.items():
        if arguments.only not in (None, name):
            continue
        walls: dict[int | None, list[float]] = {None: [], limit_mb: []}
        for repeat in range(arguments.repeats):
            for limit in walls:
                facts, results = measure(pdfs, limit)
                facts["same results"] = results == found.setdefault(name == "reading", results)
                sound &= facts["completed"] and facts["same results"]
                walls[limit].append(facts["wall_s"])
                print(
                    json.dumps({"run": name, "repeat": repeat + 1, **facts}, indent=1), flush=True
                )
        free, bound = (statistics.median(seconds) for seconds in walls.values())
        print(f"{name}: wall time within {limit_mb} MB / without a limit: {bound / free:.2f}")
    sys.exit(0 if sound else 1)


def reading(pdfs: list[str], limit_mb: int | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """``quire read`` with a cold database inside the container."""
    return headless(pdfs, limit_mb, "read")


def headless(
    pdfs: list[str], limit_mb: int | None, command: str = "run"
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """``quire run`` with a cold database inside the container."""
    with _home() as (home, environment):
        started = time.monotonic()
        with Container(limit_mb) as container:
            done = container.run(
                [*QUIRE, command, *pdfs, "--out", str(home / "out")],
                env=environment | _told(container, limit_mb),
                cwd=ROOT,
            )
            wall_s = time.monotonic() - started
        facts = {
            "completed": done.returncode in (0, 3) and container.usage.within,
            "exit code": done.returncode,
            "said": done.stderr.splitlines()[-5:],
            "wall_s": round(wall_s, 1),
            **container.usage.as_dict(),
        }
        return facts, _results(home / "out")


def with_ui(pdfs: list[str], limit_mb: int | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """``quire ui``, and a backfill launched through its GraphQL over the documents taken in."""
    with _home() as (home, environment), Container(limit_mb) as container:
        environment |= _told(container, limit_mb)
        taken = container.run(
            [sys.executable, "-m", "benchmarks.containers", *pdfs, "--take-in"],
            env=environment,
            cwd=ROOT,
        )
        if taken.returncode:
            return {"completed": False, "said": taken.stderr.splitlines()[-5:], "wall_s": 0.0}, {}
        wanted = json.loads(taken.stdout)
        port = free_port()
        with (home / "ui.log").open("w") as log:
            container.start(
                [*QUIRE, "ui", "--port", str(port)],
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        wait_until_loaded(port)
        started = time.monotonic()
        backfill_id = launch_backfill(port, wanted["assets"], wanted["keys"])
        status = backfill_ended(port, backfill_id)
        wall_s = time.monotonic() - started
        exported = subprocess.run(
            [*QUIRE, "run", *pdfs, "--out", str(home / "out")],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        facts = {
            "completed": status == "COMPLETED_SUCCESS" and container.usage.within,
            "backfill": status,
            "exported": exported.returncode in (0, 3),
            "wall_s": round(wall_s, 1),
            **container.usage.as_dict(),
        }
        return facts, _results(home / "out")


def sizes() -> str:
    """Which container is needed for what, as a table in Markdown."""
    from orchestration.budgets import SHARING, enough_mb, set_aside_mb

    run, ui = (set_aside_mb(beside, embedded_postgres=True) for beside in ("nothing", "ui"))
    least, each = SHARING.least_mb, SHARING.each_mb
    lines = ["| | `quire run`, MB | `quire ui`, MB |", "|---|---|---|"]
    for what, mb in (
        ("set aside for what is no op", 0),
        (f"the least that is accepted: one op at a time, {least} MB", least),
        (f"one op at a time, {each} MB", each),
        (f"{SHARING.ops_at_a_time} ops at a time, {each} MB each", SHARING.ops_at_a_time * each),
    ):
        lines.append(f"| {what} | {run + mb:,} | {ui + mb:,} |")
    all_of_it = (enough_mb(beside, embedded_postgres=True) for beside in ("nothing", "ui"))
    lines.append("| every op as it declares | " + " | ".join(f"{mb:,}" for mb in all_of_it) + " |")
    return "\n".join(lines)


def take_in(pdfs: list[str]) -> None:
    """Receive the documents and print the assets and the partitions that are to be made."""
    import dagster as dg
    from upath import UPath

    import store.page_batches
    from assets.partitions import page_batches
    from orchestration.budgets import budgets
    from orchestration.headless import prepare
    from orchestration.ingest import receive, register_partitions
    from orchestration.settings import from_environment
    from resources.images import ImageStore

    settings = from_environment()
    postgres = prepare(settings)
    images = ImageStore(url=settings.store_url)
    with dg.DagsterInstance.get() as instance, postgres.connect() as db:
        for path in pdfs:
            receive(db, images, UPath(path))
        register_partitions(db, instance)
        keys = store.page_batches.keys(db)
        print(json.dumps({"assets": list(budgets(page_batches)), "keys": keys}))


def _told(container: Container, limit_mb: int | None) -> dict[str, str]:
    """Quire finds the limit of a cgroup by itself; where there is none, it is told."""
    if container.enforced or limit_mb is None:
        return {}
    return {"QUIRE_MEMORY_MB": str(limit_mb)}


@contextlib.contextmanager
def _home() -> Iterator[tuple[Path, dict[str, str]]]:
    home = Path(tempfile.mkdtemp(prefix="quire-container-"))
    home.chmod(0o755)
    try:
        yield home, {**os.environ, "QUIRE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _results(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for name in RESULTS for file in sorted(out.glob(name))}


if __name__ == "__main__":
    main()
