"""What the encoder channel adds: candidate recall and final quality, with each channel and both.

    python benchmarks/encoder_ablation.py PDF... --encoder CHOICE --truth TRUTH --evaluator SCRIPT

Runs ``quire run`` once with both channels on a fresh home. Verification does not depend on the
channel that proposed a pair, so what one channel alone would have given is what is left of the
candidates and of the confirmed pairs that it proposed. Prints, for local features only, the encoder
only and both:

* candidates, and the share of planted pairs of different panels that are among them;
* recall@10: planted pairs of which one side is among the ten best of the other, by class and by
  modality;
* what the evaluator says of the confirmed pairs (average precision, recall at 95 % precision, false
  alarms).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEAREST = 10
CHANNELS = {"local": ("local",), "encoder": ("encoder",), "both": ("local", "encoder")}
OVERLAP = 0.5
"""Intersection over union at which a found panel is a planted one, as the evaluator has it."""

COLUMNS = (
    *("doc_a", "page_a", "ax0", "ay0", "ax1", "ay1"),
    *("doc_b", "page_b", "bx0", "by0", "bx1", "by1"),
    *("score", "tier"),
)
"""Of the evaluator's table."""

Box = Sequence[float]


@dataclass(frozen=True)
class Found:
    """What the run left.

    Attributes:
        panels: Document, page and box in points, by panel id.
        candidates: Panels a and b, channel and score.
        nearest: By panel, the ten nearest panels of the encoder.
    """

    panels: dict[str, tuple[str, int, Box]]
    candidates: list[tuple[str, str, str, float]]
    nearest: dict[str, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdfs", nargs="*", type=Path)
    parser.add_argument("--encoder", help="as QUIRE_IMAGE_ENCODER names it")
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--evaluator", type=Path)
    parser.add_argument("--collect", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.collect:
        _collect(arguments.collect)
        return
    pdfs = [
        p for given in arguments.pdfs for p in (given.rglob("*.pdf") if given.is_dir() else [given])
    ]
    with tempfile.TemporaryDirectory(prefix="quire-bench-") as scratch:
        Path(scratch).chmod(0o755)
        found = _run(sorted(map(str, pdfs)), arguments.encoder, Path(scratch))
        truth = json.loads(arguments.truth.read_text())
        _candidates(found, truth)
        for name, kinds in CHANNELS.items():
            _evaluate(name, kinds, arguments, Path(scratch), pdfs)


def _run(pdfs: list[str], encoder: str, scratch: Path) -> Found:
    environment = {
        **os.environ,
        "QUIRE_HOME": str(scratch / "home"),
        "QUIRE_IMAGE_ENCODER": encoder,
        "PYTHONPATH": str(ROOT),
    }
    quire = [sys.executable, "-m", "orchestration.cli"]
    collected = scratch / "found.json"
    try:
        done = subprocess.run(
            [*quire, "run", *pdfs, "--out", str(scratch / "out")],
            env=environment, cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode not in (0, 3):
            sys.exit(done.stderr[-2000:])
        collect = [sys.executable, __file__, "--collect", str(collected)]
        subprocess.run(collect, env=environment, cwd=ROOT, check=True)
    finally:
        subprocess.run([*quire, "db", "stop"], env=environment, cwd=ROOT, capture_output=True)
    made = json.loads(collected.read_text())
    print(f"{len(made['panels'])} panels, {len(made['nearest'])} of them embedded")
    return Found(**made)


def _collect(out: Path) -> None:
    """Runs in the environment of the run: what its database holds, as JSON."""
    import store.encoders
    import store.tile_embeddings
    from core.embedding_search import TileVectors
    from core.shadow import nearest_panels
    from orchestration.headless import prepare
    from orchestration.settings import from_environment

    with prepare(from_environment()).connect() as db:
        panels = {
            panel_id: (name, page, box)
            for panel_id, name, page, box in db.execute(
                "SELECT panel_id, name, page, box_pt FROM panels JOIN documents USING (document_id)"
            )
        }
        candidates = [
            (a, b, channel.partition(":")[0], score)
            for a, b, channel, score in db.execute(
                "SELECT panel_a, panel_b, channel, score FROM candidate_pairs"
            )
        ]
        ((encoder_id, table),) = store.encoders.tables(db).items()
        rows = store.tile_embeddings.of_panels(db, table, list(panels))
    tiles = TileVectors(encoder_id, rows.panel_ids, rows.ordinals, rows.vectors)
    made = {
        "panels": panels,
        "candidates": candidates,
        "nearest": nearest_panels(tiles, [tiles], NEAREST),
    }
    out.write_text(json.dumps(made))


def _planted(found: Found, truth: dict[str, Any]) -> Iterable[tuple[dict[str, Any], str, str]]:
    """Planted pairs of two panels that were both found."""
    for pair in truth["pairs"]:
        if pair["cls"] == "copy_move":
            continue
        sides = [_panel(found, pair[side]) for side in ("a", "b")]
        if all(sides) and sides[0] != sides[1]:
            yield pair, sides[0], sides[1]


def _panel(found: Found, side: dict[str, Any]) -> str:
    best, name = OVERLAP, ""
    for panel_id, (document, page, box) in found.panels.items():
        if (document, page) == (side["doc"], side["page"]):
            share = _overlap(box, side["bbox"])
            if share > best:
                best, name = share, panel_id
    return name


def _overlap(a: Box, b: Box) -> float:
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return across * down / (both - across * down)


def _candidates(found: Found, truth: dict[str, Any]) -> None:
    proposed: dict[str, set[frozenset[str]]] = defaultdict(set)
    ranked: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for a, b, channel, score in found.candidates:
        proposed[channel].add(frozenset((a, b)))
        if channel == "local":
            ranked[a].append((-score, b))
            ranked[b].append((-score, a))
    best = {
        "local": {
            panel: [b for _, b in sorted(others)[:NEAREST]] for panel, others in ranked.items()
        },
        "encoder": found.nearest,
    }
    planted = list(_planted(found, truth))
    all_pairs = len(found.panels) * (len(found.panels) - 1) / 2
    print(f"{len(planted)} planted pairs of two panels that were found")
    table: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in CHANNELS}
    for name, kinds in CHANNELS.items():
        pairs = set().union(*(proposed[kind] for kind in kinds))
        hits = sum(frozenset((a, b)) in pairs for _, a, b in planted)
        share = len(pairs) / all_pairs
        print(f"{name}: {hits} among {len(pairs)} candidates, {share:.1%} of all pairs")
        for pair, a, b in planted:
            hit = any(b in best[k].get(a, ()) or a in best[k].get(b, ()) for k in kinds)
            for key in ("all", pair["cls"], pair["modality"]):
                table[name][key].append(hit)
    print(f"recall@{NEAREST}".ljust(16) + "".join(name.rjust(12) for name in CHANNELS))
    for key in table["both"]:
        cells = (f"{sum(table[name][key])}/{len(table[name][key])}" for name in CHANNELS)
        print(key.ljust(16) + "".join(cell.rjust(12) for cell in cells))


def _evaluate(
    name: str,
    kinds: Sequence[str],
    arguments: argparse.Namespace,
    scratch: Path,
    pdfs: Sequence[Path],
) -> None:
    report = json.loads((scratch / "out" / "pairs.json").read_text())
    lines: list[list[Any]] = [[*COLUMNS]]
    for pair in report["pairs"]:
        proposed = {channel.partition(":")[0] for channel in pair["channels"]}
        if proposed.isdisjoint((*kinds, "copy_move")):
            continue
        line: list[Any] = []
        for side in (pair["a"], pair["b"]):
            xs, ys = zip(*side["region_pt"], strict=True)
            line += [side["name"], side["page"], min(xs), min(ys), max(xs), max(ys)]
        lines.append([*line, pair["probability"], pair["tier"]])
    tsv = scratch / f"{name}.tsv"
    tsv.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    result = scratch / f"{name}.json"
    command = [sys.executable, str(arguments.evaluator), str(arguments.truth), "--pairs", str(tsv)]
    command += ["--json", str(result), "--docs", *sorted({path.name for path in pdfs})]
    subprocess.run(command, check=True, capture_output=True)
    print(f"{name}: {json.dumps(json.loads(result.read_text())['pairs'])[:400]}")


if __name__ == "__main__":
    main()
