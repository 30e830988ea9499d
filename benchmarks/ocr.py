"""Pages to text through Dagster: errors, pages per second, memory, the share that is tesseract's.

    python benchmarks/ocr.py PDF [TRUTH --evaluator SCRIPT] [--pages 1-44] [--old-pages 1-4]

Reads the document on a fresh home with a warm database server, the assets ``documents``, ``pages``
and ``ocr_pages`` in a run of the pipeline's own processes. Beside it, in the same run of this
command, the tesseract command line page by page: at 150 dpi with one thread, and, over
``--old-pages``, in the configuration that was used before, 75 dpi and tesseract's own threads.

With a truth file (``[{"page": n, "text": ...}, ...]``) the evaluator is asked about each of the
three; it is called with a truth file and a file of predictions (``{"1": "text", ...}``).

CPU seconds are those of everything that was started, the database server apart. Tesseract's own are
taken by a script that stands in its place and calls it.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymupdf

ROOT = Path(__file__).resolve().parent.parent
QUIRE = [sys.executable, "-m", "orchestration.cli"]
BEFORE = ("documents", "pages")
READING = ("ocr_pages",)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pdf", type=Path)
    parser.add_argument("truth", nargs="?", type=Path)
    parser.add_argument("--evaluator", type=Path, help="script that compares with the truth")
    parser.add_argument("--pages", default="", help="first and last, such as 1-8; else all")
    parser.add_argument("--old-pages", default="1-4", help="pages for the old configuration")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder that keeps the predictions")
    parser.add_argument("--make", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        print(json.dumps(made_here(arguments.pdf, arguments.make)))
        return
    if sys.platform.startswith("linux"):  # orphans become ours, so that their CPU time is counted
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    with tempfile.TemporaryDirectory(prefix="quire-ocr-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        pages, old = (chosen(arguments.pdf, p) for p in (arguments.pages, arguments.old_pages))
        part = folder / "pages.pdf"
        with pymupdf.open(arguments.pdf) as doc:
            doc.select([page - 1 for page in pages])
            doc.save(part)
        results = {
            "quire": through_dagster(part, pages, arguments.workers, folder),
            "tesseract, page by page, 150 dpi": command_line(part, pages, pages, 150, 1),
            "as before: 75 dpi, its own threads": command_line(part, pages, old, 75, 0),
        }
        for (label, result), wanted in zip(results.items(), (pages, pages, old), strict=True):
            texts = result.pop("texts")
            if arguments.truth and arguments.evaluator:
                result["quality"] = evaluated(arguments, wanted, texts, folder)
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                slug = "-".join(label.replace(",", "").replace(":", "").split())
                (arguments.out / f"{slug}.json").write_text(json.dumps(texts))
    ours, before = (list(results.values())[i]["seconds_per_page"] for i in (0, 2))
    print(json.dumps({**results, "times as fast as before": round(before / ours, 2)}, indent=1))


def chosen(pdf: Path, pages: str) -> list[int]:
    """The pages that a range names, those that there are."""
    with pymupdf.open(pdf) as doc:
        count = doc.page_count
    first, _, last = (pages or f"1-{count}").partition("-")
    return [page for page in range(int(first), int(last or first) + 1) if page <= count]


def through_dagster(part: Path, pages: list[int], workers: int, folder: Path) -> dict[str, Any]:
    """Read the document in the pipeline; what it took and what it says."""
    home, log = folder / "home", folder / "cpu"
    home.mkdir(mode=0o755)
    stand_in(folder / "bin" / "tesseract", log)
    noted: list[str] = []
    threading.Thread(target=listen, args=(log, noted), daemon=True).start()
    environment = {
        **os.environ,
        "QUIRE_HOME": str(home),
        "QUIRE_THREADS": str(workers),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }
    try:
        run([*QUIRE, "db", "start"], environment)
        run([*QUIRE, "status"], environment)
        make = [sys.executable, str(Path(__file__).resolve()), str(part), "--make"]
        _, before_cpu, _ = run([*make, *BEFORE], environment)
        seconds, cpu, said = run([*make, *READING], environment)
        own = tesseract_cpu(noted)
        _, idle_cpu, _ = run([*make, *READING], environment)
    finally:
        run([*QUIRE, "db", "stop"], environment)
    facts = json.loads(said.splitlines()[-1])
    op = facts["op"]
    return {
        "pages": len(pages),
        "wall_s": seconds,
        "seconds_per_page": round(op["seconds"] / len(pages), 2),
        "cpu_s": cpu,
        "tesseract_cpu_s": round(own, 1),
        "cpu_s of the same run with nothing to do": idle_cpu,
        "cpu_s of documents and pages before": before_cpu,
        "tesseract's share of what reading takes": round(own / (cpu - idle_cpu), 3),
        "tesseract's share of everything": round(own / (cpu + before_cpu), 3),
        "pages per second and core, of CPU time": round(len(pages) / cpu, 3),
        "peak_mb of the op, tesseract included": op["peak_mb"],
        "predicted_peak_mb": op["predicted_peak_mb"],
        "budget_mb": op["budget_mb"],
        "pages at a time": min(op["batch"], workers),
        "kinds": facts["kinds"],
        "reasons": facts["reasons"],
        "texts": {str(pages[int(number) - 1]): text for number, text in facts["texts"].items()},
    }


def made_here(pdf: Path, ops: list[str]) -> dict[str, Any]:
    """In a process with a home of its own: run some ops, and say what came of it."""
    from functools import partial

    import dagster as dg
    from upath import UPath

    from core.batches import runs_of_neighbours
    from orchestration import settings as environment
    from orchestration.definitions import resources_of
    from orchestration.headless import prepare
    from orchestration.ingest import receive, register_partitions
    from orchestration.reading import read_documents_job
    from orchestration.requests import chunks, range_tags
    from store import page_batches

    settings = environment.from_environment()
    postgres = prepare(settings)
    images: Any = resources_of(settings)["images"]
    run_job = partial(dg.execute_job, dg.reconstructable(read_documents_job))
    op: dict[str, Any] = {}
    with dg.DagsterInstance.get() as instance, postgres.connect() as db:
        receive(db, images, UPath(pdf))
        register_partitions(db, instance)
        keys = page_batches.keys(db)
        for part in chunks(runs_of_neighbours(keys, keys)):
            result = run_job(instance=instance, tags=range_tags(part), op_selection=ops)
            said = [
                event.materialization.metadata
                for event in result.get_asset_materialization_events()
                if event.asset_key == dg.AssetKey(ops[-1])
            ]
            numbers = {name: value.value for name, value in said[-1].items()}
            op = numbers | {"seconds": op.get("seconds", 0.0) + numbers["seconds"]}
        rows = db.execute("SELECT page, kind, text FROM ocr_pages ORDER BY page").fetchall()
        reasons = db.execute("SELECT reason FROM work WHERE reason <> ''").fetchall()
    kinds = [kind for _, kind, _ in rows]
    return {
        "op": {
            name: op[name]
            for name in ("seconds", "peak_mb", "predicted_peak_mb", "budget_mb", "batch")
        },
        "texts": {str(page): text for page, _, text in rows},
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "reasons": [reason for (reason,) in reasons],
    }


def command_line(
    part: Path, pages: list[int], wanted: Sequence[int], dpi: int, threads: int
) -> dict[str, Any]:
    """Tesseract's command line over rendered pages, one after the other."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    if threads:
        environment["OMP_THREAD_LIMIT"] = str(threads)
    texts: dict[str, str] = {}
    before, started = children_cpu(), time.monotonic()
    with pymupdf.open(part) as doc, tempfile.TemporaryDirectory() as name:
        for page in wanted:
            picture = Path(name) / "page.pgm"
            doc[pages.index(page)].get_pixmap(dpi=dpi, colorspace=pymupdf.csGRAY).save(picture)
            command = ["tesseract", str(picture), "stdout", "--psm", "3", "--oem", "1"]
            done = subprocess.run(
                [*command, "-l", "eng", "--dpi", str(dpi)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            texts[str(page)] = done.stdout
    seconds, cpu = time.monotonic() - started, children_cpu() - before
    return {
        "pages": len(wanted),
        "wall_s": round(seconds, 1),
        "seconds_per_page": round(seconds / len(wanted), 2),
        "tesseract_cpu_s": round(cpu, 1),
        "texts": texts,
    }


def evaluated(
    arguments: argparse.Namespace, pages: Sequence[int], texts: dict[str, str], folder: Path
) -> Any:
    """What the evaluator says of these pages."""
    truth = json.loads(arguments.truth.read_text())
    truth = [page for page in truth if page["page"] in pages]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "predictions.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [
            *(sys.executable, str(arguments.evaluator)),
            *(str(folder / "truth.json"), str(folder / "predictions.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"the evaluator failed: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout)


def stand_in(path: Path, log: Path) -> None:
    """A script in tesseract's place that calls it and tells the CPU time it took.

    Through a pipe: where it runs, no file may be written.
    """
    program = shutil.which("tesseract")
    if program is None:
        sys.exit("tesseract is not installed:  sudo apt-get install tesseract-ocr")
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\n{program} "$@"\ncode=$?\ntimes > {log}\nexit $code\n')
    path.chmod(0o755)
    os.mkfifo(log)


def listen(log: Path, noted: list[str]) -> None:
    """Collect what stand-ins tell."""
    with os.fdopen(os.open(log, os.O_RDWR)) as told:  # for writing as well, so that it never ends
        for line in told:
            noted.append(line)


def tesseract_cpu(noted: Sequence[str]) -> float:
    """CPU seconds that stand-ins told: of every second line, which is their children's."""
    total = 0.0
    for line in noted[1::2]:
        for part in line.split():
            minutes, _, seconds = part.rstrip("s").partition("m")
            total += 60 * float(minutes) + float(seconds)
    return total


def children_cpu() -> float:
    """CPU seconds of all processes that were started from here and have ended."""
    for _ in range(20):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Wall and CPU seconds of a command, and what it printed."""
    before, started = children_cpu(), time.monotonic()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    wall, cpu = time.monotonic() - started, children_cpu() - before
    with contextlib.suppress(ValueError):
        if done.returncode != 0:
            sys.exit(f"{' '.join(command[2:])}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return round(wall, 1), round(cpu, 1), done.stdout


if __name__ == "__main__":
    main()
