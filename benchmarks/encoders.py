"""Image encoders side by side: memory, speed and agreement, each in a process of its own.

    python -m benchmarks.encoders --architecture ViT-B-32 --images FOLDER
    python -m benchmarks.encoders --checkpoint open_clip:ViT-B-32/laion2b_s34b_b79k --images FOLDER
    python -m benchmarks.encoders --folder FOLDER --images FOLDER

The first line of each table is open_clip as it is used everywhere: the whole model, its own
transform, a loop over files. Below it are the runtimes that Quire makes of the same weights, and
what runs as it is (``--folder``). An architecture alone gets random weights: memory and speed are
those of any weights, and parity is only indicative. Every process decodes the same files; ratios to
the first line carry over to other machines, images per second do not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.encoders import EncoderChoice, parse_encoder
from core.parity import GATE
from core.runtimes import CONVERSION, Manifest, Runtime, Trial
from resources.checkpoints import find_checkpoint, folder_of
from resources.conversion import convert
from resources.encoder_folder import EncoderFolder, folder_encoder
from resources.trial import pictures_in, run_trial

RANDOM = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from resources.visual_tower import import_open_clip
open_clip = import_open_clip()
name, folder = sys.argv[1], Path(sys.argv[2])
torch.manual_seed(0)
model = open_clip.create_model(name, pretrained=None)
state = {key: value.contiguous() for key, value in model.state_dict().items()}
save_file(state, folder / "open_clip_model.safetensors")
config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
(folder / "open_clip_config.json").write_text(json.dumps(config))
"""

PLAIN = """
import json, sys, time
import PIL.Image
import torch
from resources.visual_tower import import_open_clip
open_clip = import_open_clip()
model, cores, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
arguments = json.loads(model)
torch.set_num_threads(cores)
files = json.loads(sys.stdin.read())
model, _, transform = open_clip.create_model_and_transforms(**arguments)
model.eval()
def embed(part):
    with torch.inference_mode():
        batch = torch.stack([transform(PIL.Image.open(file).convert("RGB")) for file in part])
        return model.encode_image(batch, normalize=True)
embed(files[:batch])
started = time.perf_counter()
for start in range(0, len(files), batch):
    embed(files[start : start + batch])
seconds = time.perf_counter() - started
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([len(files) / seconds, int(peak.split()[1]) / 1024]))
"""


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    what: str
    images_per_s: float
    peak_mb: float
    runtime: Runtime | None = None


def in_process(code: str, *arguments: object, stdin: str = "") -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout


def plain(choice: EncoderChoice, pictures: Sequence[Path], cores: int) -> Line:
    """open_clip's own loop over the files."""
    folder = folder_of(choice)
    if folder is not None:
        arguments = {"model_name": f"local-dir:{folder.resolve()}"}
    elif choice.source == "hub":
        arguments = {"model_name": f"hf-hub:{choice.location}"}
    else:
        arguments = {"model_name": choice.architecture, "pretrained": choice.location}
    files = json.dumps([str(path) for path in pictures])
    said = in_process(PLAIN, json.dumps(arguments), cores, 8, stdin=files)
    images_per_s, peak_mb = json.loads(said.splitlines()[-1])
    return Line("open_clip, everything", images_per_s, peak_mb)


def tried(folder: EncoderFolder, runtime: Runtime, pictures: Sequence[Path], cores: int) -> Trial:
    """What a runtime takes now, on these pictures."""
    assert runtime.trial is not None
    spec = folder.manifest.described(runtime)
    with folder.opened(runtime) as graph, tempfile.TemporaryDirectory() as scratch:
        linked = Path(scratch)  # the vectors are written beside the graph
        for file in runtime.files:
            (linked / file.name).symlink_to((folder.path / file.name).resolve())
        graph = linked / graph.name
        _, trial, _ = run_trial(spec, graph, pictures, cores=cores, batch=runtime.trial.batch)
    return trial


def lines(folder: EncoderFolder, pictures: Sequence[Path], cores: int) -> list[Line]:
    """Every runtime that passed as it runs now, and every other as it was measured."""
    found: list[Line] = []
    for runtime in folder.manifest.runtimes:
        trial = tried(folder, runtime, pictures, cores) if runtime.files else runtime.trial
        if trial is not None:
            found.append(Line(runtime.name, trial.images_per_s, trial.peak_mb, runtime))
    return found


def table(title: str, manifest: Manifest, rows: Sequence[Line]) -> str:
    """A table in Markdown; ratios are to the first row."""
    first = rows[0]
    text = [
        f"\n{title}: {manifest.encoder.dim}-d, parity on {manifest.images} images\n",
        "| | peak MB | of first | images/s | to first | 10 images, s | worst cosine | median "
        "| nearest | ten nearest | finds edited | gate |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.what,
            f"{row.peak_mb:,.0f}",
            f"{row.peak_mb / first.peak_mb:.2f}",
            f"{row.images_per_s:.1f}",
            f"{row.images_per_s / first.images_per_s:.1f} x",
            f"{10 / row.images_per_s:.2f}",
        ]
        parity = row.runtime.parity if row.runtime else None
        if parity is None:
            cells += ["", "", "", "", "", ""]
        else:
            cells += [
                f"{parity.worst:.5f}",
                f"{parity.median:.5f}",
                f"{parity.top_1:.1%}",
                f"{parity.top_10:.1%}",
                f"{parity.recall:.1%} of {parity.reference_recall:.1%}",
                (row.runtime.reason or "passed") if row.runtime else "",
            ]
        text.append("| " + " | ".join(cells) + " |")
    for runtime in manifest.runtimes:
        if runtime.trial is None:
            text.append(f"\n{runtime.name}: {runtime.reason}")
    return "\n".join(text)


def compared(
    title: str, choice: EncoderChoice, judged: Sequence[Path], timed: Sequence[Path], cores: int
) -> None:
    """Convert a checkpoint, measure everything, print the table."""
    checkpoint_mb = find_checkpoint(choice).path.stat().st_size / 1e6
    print(f"{title}: converting weights of {checkpoint_mb:,.0f} MB", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        gate = replace(GATE, images=min(GATE.images, len(judged)))
        convert(choice, judged, Path(scratch) / "made", cores=cores, gate=gate)
        folder = folder_encoder(Path(scratch) / "made")
        assert folder is not None
        rows = [plain(choice, timed, cores), *lines(folder, timed, cores)]
        print(table(title, folder.manifest, rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help=f"{GATE.images} or more")
    parser.add_argument("--architecture", action="append", default=[], help="with random weights")
    parser.add_argument("--checkpoint", action="append", default=[])
    parser.add_argument("--folder", action="append", default=[], type=Path)
    parser.add_argument(
        "--judged",
        type=int,
        default=CONVERSION.most_images,
        help=f"images for parity; fewer than {GATE.images} are judged here all the same",
    )
    parser.add_argument("--timed", type=int, default=48, help="images that speed is measured on")
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    judged = pictures_in(given.images, given.judged)
    timed = pictures_in(given.images, given.timed)
    for text in given.checkpoint:
        choice = parse_encoder(text)
        assert choice is not None, "--checkpoint names an encoder"
        compared(text, choice, judged, timed, given.cores)
    for name in given.architecture:
        with tempfile.TemporaryDirectory() as scratch:
            in_process(RANDOM, name, scratch)
            choice = EncoderChoice("folder", "", scratch)
            compared(f"{name}, random weights", choice, judged, timed, given.cores)
    for path in given.folder:
        folder = folder_encoder(path)
        if folder is None:
            sys.exit(f"{path} holds no manifest.json")
        rows = lines(folder, timed, given.cores)
        print(table(folder.manifest.encoder.architecture, folder.manifest, rows), flush=True)


if __name__ == "__main__":
    main()
