"""A trial: a fresh process that embeds pictures with one runtime, and says what that took.

Started as ``python -m resources.trial``, with what it is to do as JSON on its input. Nothing else
that could hold memory is in the process.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from core.encoders import EncoderError, EncoderSpec, Preprocessing
from core.geometry import Image
from core.parity import Measured, edited, witness_image
from core.runtimes import Trial
from resources.onnx_encoder import OnnxEncoder
from resources.process_tree import HAS_PROC, own, status_kb

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def pictures_in(folder: Path, most: int) -> list[Path]:
    """Pictures in a folder and below it, by name; evenly chosen where there are more."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if len(found) <= most:
        return found
    return [found[int(place)] for place in np.linspace(0, len(found) - 1, most)]


def read(path: Path) -> Image:
    """A picture as RGB, shape (height, width, 3)."""
    with PIL.Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def in_batches(
    paths: Sequence[Path], batch: int, *, planted: bool = False
) -> Iterator[list[Image]]:
    """Pictures, or an edited copy of each, a batch at a time: no more is held."""
    for start in range(0, len(paths), batch):
        numbered = enumerate(paths[start : start + batch], start)
        yield [edited(read(path), n) if planted else read(path) for n, path in numbered]


def run_trial(
    spec: EncoderSpec, graph: Path, pictures: Sequence[Path], *, cores: int, batch: int
) -> tuple[Measured, Trial, tuple[float, ...]]:
    """Embed pictures, their edited copies and the witness in a process of its own.

    Raises:
        EncoderError: The process failed.
    """
    vectors = graph.with_suffix(".npz")
    wanted = {
        "spec": asdict(spec),
        "graph": str(graph),
        "pictures": [str(path) for path in pictures],
        "cores": cores,
        "batch": batch,
        "vectors": str(vectors),
    }
    done = subprocess.run(
        [sys.executable, "-m", "resources.trial"],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    if done.returncode:
        raise EncoderError(f"the trial of {spec.runtime} failed: {done.stderr.strip()[-800:]}")
    with np.load(vectors) as loaded:
        measured = Measured(loaded["images"], loaded["edited"])
        witness = tuple(round(float(value), 6) for value in loaded["witness"])
    vectors.unlink()
    return measured, Trial(**json.loads(done.stdout.splitlines()[-1])), witness


def _held_mb(highest: bool = False) -> float:
    if HAS_PROC:
        return status_kb("VmHWM")["VmHWM"] / 1024 if highest else own().resident
    import resource  # elsewhere the mark is inherited from whoever started the process

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)


def _measure(wanted: dict[str, Any]) -> Trial:
    how = wanted["spec"].pop("preprocessing")
    spec = EncoderSpec(**wanted["spec"], preprocessing=Preprocessing(**how))
    pictures = [Path(path) for path in wanted["pictures"]]
    cores, batch = wanted["cores"], wanted["batch"]
    base_mb = _held_mb()
    encoder = OnnxEncoder(spec, Path(wanted["graph"]), cores=cores, batch=batch)
    encoder.embed([read(pictures[0])] * batch)  # the first run takes memory that stays
    started = time.perf_counter()
    images = [encoder.embed(part) for part in in_batches(pictures, batch)]
    seconds = time.perf_counter() - started
    copies = [encoder.embed(part) for part in in_batches(pictures, batch, planted=True)]
    np.savez(
        wanted["vectors"],
        images=np.concatenate(images),
        edited=np.concatenate(copies),
        witness=encoder.embed([witness_image()])[0],
    )
    return Trial(
        images_per_s=round(len(pictures) / seconds, 1),
        base_mb=round(base_mb, 1),
        peak_mb=round(_held_mb(highest=True), 1),
        batch=batch,
        cores=cores,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measure(json.loads(sys.stdin.read())))) + "\n")
