"""Identify the photographs of the cards bench, from the manifest to the evaluator.

    python -m benchmarks.cards DEV_DIR [--evaluator evaluate.py] [--home FOLDER] [--out FILE]

DEV_DIR holds ``gallery.json``, ``gallery/``, ``scans/`` and ``truth.json`` as the bench's generator
writes them. A gallery is built and every photograph identified, through Dagster as ``quire gallery
add`` and ``quire identify`` do. It prints what the evaluator says and what each op took and held.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg


def manifest_of(folder: Path, target: Path) -> None:
    """The bench's list of cards as a manifest."""
    rows = json.loads((folder / "gallery.json").read_text())
    with target.open("w") as file:
        for row in rows:
            named = {
                "id": row["id"],
                "set": f"set-{row['set']}",
                "number": f"{row['num']:03d}",
                "images": row["templates"],
            }
            file.write(json.dumps(named) + "\n")


def quire(arguments: list[str], home: Path) -> str:
    """Run the command line in a home of its own; it may say that something is missing."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments],
        env={**os.environ, "QUIRE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"quire {arguments[0]}: {done.stderr or done.stdout}")
    return done.stdout


def predictions_of(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """As the bench's evaluator reads them."""
    return {
        scan["scan"]: [
            {
                "quad": item["quad"],
                "candidates": [each["item_id"] for each in item["candidates"]],
                "score": item["score"] or 0.0,
                "decision": item["decision"],
            }
            for item in scan["items"]
        ]
        for scan in results["scans"]
    }


def ops_of(home: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak of each asset's op, over all runs in a home."""
    from orchestration.headless import prepare
    from orchestration.settings import from_environment

    os.environ["QUIRE_HOME"] = str(home)
    prepare(from_environment())
    found: dict[str, dict[str, float]] = {}
    with dg.DagsterInstance.get() as instance:
        for key in instance.all_asset_keys():
            records = instance.fetch_materializations(key, limit=1000).records
            metadata = [
                record.asset_materialization.metadata
                for record in records
                if record.asset_materialization is not None
            ]
            ops = [each for each in metadata if "peak_mb" in each]
            seen = {
                (each["seconds"].value, each["peak_mb"].value) for each in ops if "seconds" in each
            }
            if seen:
                found[key.to_user_string()] = {
                    "seconds": round(sum(float(seconds) for seconds, _ in seen), 2),
                    "peak_mb": max(float(peak) for _, peak in seen),
                    "budget_mb": max(float(each["budget_mb"].value) for each in ops),
                }
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dev", type=Path)
    parser.add_argument("--evaluator", type=Path, help="evaluate.py, if not beside DEV_DIR")
    parser.add_argument("--home", type=Path, help="folder to work in; by default a temporary one")
    parser.add_argument("--out", type=Path, help="where predictions.json and the overlays go")
    arguments = parser.parse_args()
    evaluator = arguments.evaluator or arguments.dev.parent / "evaluate.py"

    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.home or Path(temporary) / "home"
        out = arguments.out or Path(temporary) / "out"
        out.mkdir(parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o755)
        Path(temporary).chmod(0o755)
        manifest = out / "gallery.jsonl"
        manifest_of(arguments.dev, manifest)
        started = time.monotonic()
        quire(["gallery", "add", str(manifest), "--images", str(arguments.dev / "gallery")], home)
        built = time.monotonic()
        quire(["identify", str(arguments.dev / "scans"), "--out", str(out)], home)
        done = time.monotonic()
        results = json.loads((out / "identifications.json").read_text())
        predictions = out / "predictions.json"
        predictions.write_text(json.dumps(predictions_of(results)))
        truth = arguments.dev / "truth.json"
        said = subprocess.run(
            [sys.executable, str(evaluator), str(truth), str(predictions)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        ops = ops_of(home)
        scans = len(results["scans"])
        worked = sum(
            ops[name]["seconds"]
            for name in ("scans", "detections", "candidates", "identifications")
            if name in ops
        )
        print(
            json.dumps(
                {
                    "quality": json.loads(said),
                    "status": results["status"],
                    "troubles": results["troubles"],
                    "gallery_s": round(built - started, 1),
                    "identify_s": round(done - built, 1),
                    "scans": scans,
                    "seconds a scan, the ops' own work": round(worked / max(1, scans), 2),
                    "largest op, MB": max((op["peak_mb"] for op in ops.values()), default=0),
                    "ops": ops,
                },
                indent=1,
            )
        )
        subprocess.run(
            [sys.executable, "-m", "orchestration.cli", "db", "stop"],
            env={**os.environ, "QUIRE_HOME": str(home)},
            check=False,
            capture_output=True,
        )


if __name__ == "__main__":
    main()
