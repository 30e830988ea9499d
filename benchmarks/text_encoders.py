"""A text encoder: how it is made, how near it is to torch, how fast it is and what it holds.

    python -m benchmarks.text_encoders
    python -m benchmarks.text_encoders --encoder sentence-transformers:ORG/NAME --cores 2

The last line of the table is the same model in torch and transformers, one passage at a time, as it
is used everywhere; ratios to it carry over to other machines. Speeds are by processor time, which
neighbours do not change. Each process starts fresh; peaks are what the kernel has counted for it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core.text_encoders import parse_text_encoder
from resources.text_conversion import convert_text_in_child

ROOT = Path(__file__).parents[1]

OPENED = """
from resources.text_encoder import open_text_encoder
encoder = open_text_encoder(sys.argv[1], None, cores=int(sys.argv[2]))
passages, query = (lambda t: encoder.encode(t, "passage")), (lambda t: encoder.encode(t, "query"))
"""

PLAIN = """
from core.text_encoders import parse_text_encoder
from resources.text_checkpoints import find_text_checkpoint
from resources.text_tower import TextTower
tower = TextTower(find_text_checkpoint(parse_text_encoder(sys.argv[1])), cores=int(sys.argv[2]))
passages = query = tower.embed
"""

MEASURED = """
texts = [text for text in sample_texts() if len(text) > 600] * 8
passages(["warm"])
found = {"loaded": held()}
started = time.process_time()
passages(texts)
found["passages_s"] = len(texts) / (time.process_time() - started)
started = time.process_time()
for number in range(30):
    query([f"what does the tenant pay in month {number}?"])
found["query_ms"] = (time.process_time() - started) / 30 * 1000
print(json.dumps(found | {"peak": held()}))
"""

BEFORE = """
import json, sys, time
from benchmarks.text_encoders import held
from core.text_runtimes import sample_texts
"""


def held() -> float:
    """The most that this process has held, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measured(opened: str, encoder: str, cores: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + opened + MEASURED, encoder, str(cores)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: dict[str, float], plain: dict[str, float]) -> str:
    ratio = found["passages_s"] / plain["passages_s"]
    return (
        f"| {name} | {found['passages_s']:.1f} ({ratio:.1f}x) | {found['query_ms']:.1f} "
        f"| {found['loaded']:.0f} | {found['peak']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_encoders")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--cores", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        choice = parse_text_encoder(given.encoder)
        folder = convert_text_in_child(choice, Path(scratch) / "made", cores=given.cores)
        seconds = time.perf_counter() - started
        print(f"made in {seconds:.1f} s, compared with {folder.manifest.reference}")
        for runtime in folder.manifest.runtimes:
            verdict = "passed" if runtime.passed else runtime.reason
            print(f"{runtime.name}: {runtime.size_bytes / 1e6:.1f} MB kept, {verdict}")
        print("\n| | passages per core-second | CPU ms a query | MB loaded | MB at most |")
        print("|---|---|---|---|---|")
        plain = measured(PLAIN, given.encoder, given.cores)
        runs = measured(OPENED, f"sentence-transformers:{folder.path}", given.cores)
        print(row(f"Quire, {folder.manifest.chosen().name}", runs, plain))
        print(row("torch and transformers", plain, plain))


if __name__ == "__main__":
    main()
