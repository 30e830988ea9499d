"""A backfill as the Dagster UI launches it: what orchestration costs per asset and partition.

    python benchmarks/backfill.py [--batches 50] [--keep HOME]

Makes that many one-page papers, takes them in, starts the webserver and the daemon, launches an
asset backfill over every page batch through GraphQL, waits for it, and prints the time from the
start of the first run to the end of the last, less what the ops themselves worked, per asset and
partition. ``--keep`` leaves the home in place, to be looked at with ``QUIRE_HOME=HOME quire ui``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import pymupdf
from faults.webserver import free_port, launch_backfill, wait_until_loaded
from upath import UPath

import store.page_batches
from orchestration.headless import prepare
from orchestration.ingest import receive, register_partitions
from orchestration.settings import from_environment
from resources.images import ImageStore

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    home = arguments.keep or Path(tempfile.mkdtemp(prefix="quire-backfill-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    os.environ["QUIRE_HOME"] = str(home)
    settings = from_environment()
    postgres = prepare(settings)
    port = free_port()
    ui = subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "ui", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=(home / "ui.log").open("w"),
        start_new_session=True,
    )
    try:
        with dg.DagsterInstance.get() as instance, postgres.connect() as db:
            images = ImageStore(url=settings.store_url)
            for number in range(arguments.batches):
                paper = home / f"paper-{number:03d}.pdf"
                _paper(paper, number)
                receive(db, images, UPath(paper))
            register_partitions(db, instance)
            keys = store.page_batches.keys(db)
            wait_until_loaded(port)
            launched = time.time()
            backfill_id = launch_backfill(port, ASSETS, keys)
            print(json.dumps(_follow(instance, backfill_id, launched, len(keys)), indent=1))
    finally:
        os.killpg(ui.pid, 15)
        ui.wait()
        if not arguments.keep:
            subprocess.run([sys.executable, "-m", "orchestration.cli", "db", "stop"], check=False)
            shutil.rmtree(home, ignore_errors=True)


def _follow(
    instance: dg.DagsterInstance, backfill_id: str, launched: float, batches: int
) -> dict[str, Any]:
    while True:
        backfill = instance.get_backfill(backfill_id)
        assert backfill is not None
        if backfill.status.value.startswith(("COMPLETED", "FAILED", "CANCELED")):
            break
        time.sleep(1)
    records = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    start = min(record.start_time for record in records if record.start_time)
    end = max(record.end_time for record in records if record.end_time)
    work: dict[tuple[str, str], float] = {}
    peak = 0.0
    for name in ASSETS:
        events = instance.fetch_materializations(dg.AssetKey(name), limit=5000).records
        for event in events:
            materialization = event.asset_materialization
            assert materialization is not None
            numbers = {k: v.value for k, v in materialization.metadata.items()}
            work[event.run_id, name] = numbers.get("seconds", 0.0)
            peak = max(peak, numbers.get("peak_mb", 0.0))
    count = len(ASSETS) * batches
    worked = sum(work.values())
    return {
        "status": backfill.status.value,
        "runs": len(records),
        "batches": batches,
        "assets x partitions": count,
        "s until the first run starts": round(start - launched, 1),
        "s from the first run's start to the last one's end": round(end - start, 1),
        "s of these in the ops' own work": round(worked, 1),
        "overhead in s per asset and partition": round((end - start - worked) / count, 3),
        "peak_mb of any op": peak,
    }


def _paper(path: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    noise = cv2.GaussianBlur(rng.normal(0, 60, (300, 300)), (0, 0), 3) * 6 + 110
    picture = np.clip(noise + rng.normal(0, 4, noise.shape), 0, 255).astype(np.uint8)
    _, png = cv2.imencode(".png", picture)
    with pymupdf.open() as document:
        page = document.new_page()
        page.insert_image(pymupdf.Rect(72, 72, 272, 272), stream=png.tobytes())
        document.save(path)


if __name__ == "__main__":
    main()
