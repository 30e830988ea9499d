"""A gallery of tens of thousands: its backfill, a kill in the middle, and how it answers.

    python -m benchmarks.gallery FOLDER [--home HOME] [--queries 200] [--no-kill] [--no-build]

FOLDER is what ``benchmarks/gallery_files.py`` wrote. The manifest is taken in, Dagster's webserver
and daemon are started, and a backfill over every batch is launched through GraphQL, as the UI does.
In the middle the run's processes are killed (SIGKILL), and the backfill is launched again over what
is left. It prints:

- seconds and the largest peak of each asset's op, and that no template is missing or twice;
- for queries that are worn views of stored templates (moved, blurred, lit otherwise): how long an
  exact search and one by the index take, and how often the item is among 50, and the first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import store.batches
import store.gallery_items
import store.gallery_templates
import store.template_embeddings
from benchmarks.cards import ops_of, quire
from benchmarks.faults.webserver import free_port, launch_backfill, wait_until_loaded
from core.card_descriptor import DESCRIPTOR_ID, describe
from core.recall import RECALL, Hit, best_items
from orchestration.definitions import resources_of
from orchestration.headless import prepare
from orchestration.settings import from_environment
from resources.images import ImageStore
from resources.postgres import Postgres
from store.template_embeddings import EVERYTHING

ASSETS = (
    "gallery_items",
    "learned_templates",
    "gallery_templates",
    "template_embeddings",
    "confusion_pairs",
)


def worn(card: NDArray[np.uint8], chance: np.random.Generator) -> NDArray[np.uint8]:
    """A template as a phone sees it through a sleeve, its outline off by a hundredth."""
    height, width = card.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = (corners + chance.normal(0, 0.01 * width, (4, 2))).astype(np.float32)
    view = cv2.getPerspectiveTransform(moved, corners)
    seen = cv2.warpPerspective(card, view, (width, height), borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.GaussianBlur(seen, (0, 0), float(chance.uniform(0.6, 1.6))).astype(np.float32)
    light = cv2.resize(chance.uniform(0.75, 1.2, (3, 3)).astype(np.float32), (width, height))
    glare = np.zeros((height, width), np.float32)
    middle = (int(chance.uniform(0, width)), int(chance.uniform(0, height)))
    cv2.circle(glare, middle, int(width * 0.15), float(chance.uniform(0, 110)), -1)
    seen = seen * light[:, :, None] + cv2.GaussianBlur(glare, (0, 0), 20)[:, :, None]
    seen = seen * chance.uniform(0.93, 1.07, 3) + chance.normal(0, 4, seen.shape)
    return np.clip(seen, 0, 255).astype(np.uint8)


def finished(postgres: Postgres, batches: int) -> bool:
    """Whether every asset has done every batch."""
    with postgres.connect() as db:
        rows = db.execute(
            """
            SELECT count(*) FROM finished JOIN batches USING (batch_key)
            WHERE kind = 'gallery' AND asset = ANY(%(assets)s)
            """,
            {"assets": list(ASSETS)},
        ).fetchone()
    return rows is not None and rows[0] == batches * len(ASSETS)


def backfill(home: Path, keys: list[str], postgres: Postgres, *, kill_after: int) -> dict[str, Any]:
    """Launch it through the webserver; kill the run once so many templates are embedded."""
    port = free_port()
    services = subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "ui", "--port", str(port)],
        env={**os.environ, "QUIRE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told: dict[str, Any] = {}
    try:
        wait_until_loaded(port)
        started = time.monotonic()
        launch_backfill(port, ASSETS, keys)
        while not finished(postgres, len(keys)):
            time.sleep(2)
            done = embedded(postgres)
            if kill_after and done >= kill_after:
                told["killed at, templates"] = done
                told["killed processes"] = kill_runs(home)
                kill_after = 0
                time.sleep(5)
                launch_backfill(port, ASSETS, keys)
            if time.monotonic() - started > 4 * 3600:
                raise RuntimeError("the backfill did not end within four hours")
        told["wall_s"] = round(time.monotonic() - started, 1)
    finally:
        services.terminate()
        services.wait(timeout=60)
    return told


def embedded(postgres: Postgres) -> int:
    """How many templates have a vector."""
    with postgres.connect() as db:
        table = store.template_embeddings.known_table(db, DESCRIPTOR_ID)
        return store.template_embeddings.count(db, table) if table else 0


def kill_runs(home: Path) -> int:
    """SIGKILL for every process of a run in this home; how many there were."""
    import psutil

    killed = 0
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "multiprocessing" not in words:  # how the code server starts runs, and runs their ops
            continue
        try:
            if process.environ().get("QUIRE_HOME") != str(home):
                continue
            for child in [*process.children(recursive=True), process]:
                child.kill()
                killed += 1
        except psutil.Error:
            continue
    return killed


def answers(postgres: Postgres, images: ImageStore, queries: int) -> dict[str, Any]:
    """How queries are answered, exactly and by the index."""
    chance = np.random.default_rng(7)
    with postgres.connect() as db:
        table = store.template_embeddings.known_table(db, DESCRIPTOR_ID)
        assert table is not None
        rows = db.execute(
            "SELECT template_id FROM gallery_templates ORDER BY md5(template_id) LIMIT %(n)s",
            {"n": queries},
        ).fetchall()
        templates = store.gallery_templates.get(db, [each for (each,) in rows])
        asked = [
            (each.item_id, describe([worn(images.read_image(each.image_key), chance)])[0])
            for each in templates.values()
        ]
        ways = {
            "exact": lambda vector: store.template_embeddings.nearest_exact(
                db, table, vector, EVERYTHING, RECALL.rows
            ),
            "index": lambda vector: store.template_embeddings.nearest_indexed(
                db, table, vector, EVERYTHING, RECALL.rows, RECALL.ef_search
            ),
        }
        told: dict[str, Any] = {"templates": store.template_embeddings.count(db, table)}
        for name, search in ways.items():
            search(asked[0][1])
            taken: list[float] = []
            within = first = 0
            for item_id, vector in asked:
                started = time.perf_counter()
                found = search(vector)
                taken.append(1000 * (time.perf_counter() - started))
                hits = [Hit(n.template_id, n.item_id, n.similarity, False) for n in found]
                items = [hit.item_id for hit in best_items(hits, RECALL.items)]
                within += item_id in items
                first += bool(items) and items[0] == item_id
            told[name] = {
                "p50_ms": round(float(np.median(taken)), 1),
                "p95_ms": round(float(np.percentile(taken, 95)), 1),
                "recall@50": round(within / len(asked), 4),
                "hit@1": round(first / len(asked), 4),
            }
        vectors = np.stack([vector for _, vector in asked])
        everything = _all_vectors(db, table)
        started = time.perf_counter()
        for vector in vectors:
            np.argpartition(-(everything @ vector), RECALL.rows)
        told["numpy, all vectors in memory, ms"] = round(
            1000 * (time.perf_counter() - started) / len(vectors), 1
        )
    return told


def _all_vectors(db: Any, table: str) -> NDArray[np.float32]:
    ids = [each for (each,) in db.execute("SELECT template_id FROM gallery_templates").fetchall()]
    return np.stack(list(store.template_embeddings.vectors_of(db, table, ids).values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--no-build", action="store_true", help="the home holds the gallery")
    arguments = parser.parse_args()
    home = arguments.home or Path(tempfile.mkdtemp(prefix="quire-gallery-"))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)
    os.environ["QUIRE_HOME"] = str(home)
    settings = from_environment()
    postgres = prepare(settings)
    images = resources_of(settings)["images"]
    assert isinstance(images, ImageStore)
    told: dict[str, Any] = {}
    if not arguments.no_build:
        started = time.monotonic()
        quire(["gallery", "add", str(arguments.folder), "--only-register"], home)
        told["taking in, s"] = round(time.monotonic() - started, 1)
        with postgres.connect() as db:
            keys = store.batches.keys(db, "gallery")
            items = store.gallery_items.contents(db).items
        told["items"], told["batches"] = items, len(keys)
        kill_after = 0 if arguments.no_kill else items // 2
        told["backfill"] = backfill(home, keys, postgres, kill_after=kill_after)
        told["ops"] = {name: op for name, op in ops_of(home).items() if name in ASSETS}
    with postgres.connect() as db:
        contents = store.gallery_items.contents(db)
    told["gallery"] = {
        "items": contents.items,
        "templates": contents.templates,
        "without": contents.without,
        "vectors": embedded(postgres),
    }
    told["queries"] = answers(postgres, images, arguments.queries)
    print(json.dumps(told, indent=1))
    quire(["db", "stop"], home)


if __name__ == "__main__":
    main()
