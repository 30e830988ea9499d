"""What the last run of ``quire`` left in this home: units, seconds and peaks per op, and panels.

QUIRE_HOME=... python benchmarks/facts.py FOLDER      # writes evaluator-panels.tsv there
"""

import csv
import json
import sys
from pathlib import Path

import dagster as dg

from orchestration.headless import prepare
from orchestration.settings import from_environment


def main() -> None:
    postgres = prepare(from_environment())
    with dg.DagsterInstance.get() as instance:
        ops: dict[str, dict[str, float]] = {}
        for key in sorted(instance.get_asset_keys()):
            for event in instance.fetch_materializations(key, limit=500).records:
                materialization = event.asset_materialization
                assert materialization is not None
                numbers = {name: value.value for name, value in materialization.metadata.items()}
                if not numbers.get("items") or "peak_mb" not in numbers:
                    continue
                op = ops.setdefault(key.to_user_string(), {"peak_mb": 0.0, "seconds": 0.0})
                if numbers["peak_mb"] > op["peak_mb"]:
                    op["peak_mb"] = numbers["peak_mb"]
                    op["predicted_peak_mb"] = numbers["predicted_peak_mb"]
                op["budget_mb"] = numbers["budget_mb"]
                op["seconds"] = max(op["seconds"], numbers["seconds"])
    with postgres.connect() as db:
        pages = db.execute("SELECT count(*) FROM pages").fetchone()
        panels = db.execute(
            """
            SELECT name, page, box_pt FROM panels JOIN documents USING (document_id)
            WHERE alternative_of IS NULL AND NOT drawing ORDER BY name, page, panel_id
            """
        ).fetchall()
    with (Path(sys.argv[1]) / "evaluator-panels.tsv").open("w", newline="") as file:
        table = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        table.writerow(["doc", "page", "x0", "y0", "x1", "y1"])
        table.writerows([name, page, *box] for name, page, box in panels)
    assert pages is not None
    json.dump({"pages": pages[0], "panels": len(panels), "ops": ops}, sys.stdout)


if __name__ == "__main__":
    main()
