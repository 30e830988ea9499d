"""Conversion: a checkpoint becomes an encoder that runs without torch, and is measured.

    python -m resources.conversion CHOICE --images FOLDER --out FOLDER
    python -m resources.conversion CHOICE --fetch

The first writes the folder, named by ``QUIRE_IMAGE_ENCODER=open_clip:FOLDER`` from then on. Every
step is a process of its own, so that none holds what another needed; only the first one, which
exports, loads torch. The second downloads the weights of a tag or a repository.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image

from core.encoders import EncoderChoice, EncoderError, parse_encoder
from core.errors import InputError
from core.parity import GATE, Gate, Measured, compare, refusal
from core.runtimes import (
    CONVERSION,
    CONVERTER,
    EXACT,
    MANIFEST,
    PRECISE_FIRST,
    Manifest,
    Runtime,
    RuntimeFile,
    checkpoint_sha256,
)
from resources import quantization, visual_tower
from resources.checkpoints import (
    CONFIG_FILE,
    Checkpoint,
    file_sha256,
    find_checkpoint,
    folder_of,
)
from resources.encoder_folder import EncoderFolder, folder_encoder
from resources.own_process import in_own_process, run_child, work_for
from resources.trial import pictures_in, run_trial


def convert(
    choice: EncoderChoice,
    pictures: Sequence[Path],
    out: Path,
    *,
    cores: int,
    gate: Gate = GATE,
    tell: Callable[[str], None] = lambda text: None,
) -> Manifest:
    """Make the runtimes of a checkpoint, measure them, and write them as a folder, whole or not.

    Args:
        choice: The checkpoint.
        pictures: Real images for the gate. Where there are none, full precision is compared on
            drawn ones, and nothing else is made.
        out: The folder, which is not there yet.
        cores: Threads of computation.
        gate: What runtimes have to reach.
        tell: Called with a line for each step.

    Raises:
        EncoderError: The checkpoint cannot be found or read, what conversion needs is not
            installed, or not even full precision agrees with the reference.
        InputError: The folder is there.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already; name a folder that is not")
    checkpoint = find_checkpoint(choice)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".conversion-", dir=out.parent) as made:
        work = Path(made) / "encoder"
        work.mkdir()
        tell(f"exporting {checkpoint.spec.architecture}, with {len(pictures)} images as reference")
        compared = pictures or _drawn(Path(made))
        batch = in_own_process(visual_tower.export, checkpoint, compared, work, cores)
        with np.load(work / visual_tower.REFERENCE) as loaded:
            reference = Measured(loaded["images"], loaded["edited"])
        (work / visual_tower.REFERENCE).unlink()
        runtimes: list[Runtime] = []
        for name in PRECISE_FIRST:
            if name != EXACT and len(pictures) < gate.images:
                why = f"needs {gate.images} real images, had {len(pictures)}"
                runtime = Runtime(name, False, why)
            else:
                runtime = _judged(name, checkpoint, compared, reference, work, cores, batch, gate)
            tell(_in_a_line(runtime))
            runtimes.append(runtime)
            if name == EXACT and not runtime.passed:
                raise EncoderError(
                    f"the export of {checkpoint.spec.architecture} is not what torch computes: "
                    f"{runtime.reason}"
                )
        manifest = Manifest(
            encoder=checkpoint.spec,
            converter=CONVERTER,
            images=len(pictures),
            images_sha256=_sha256_of(pictures),
            runtimes=tuple(runtimes),
        )
        (work / CONFIG_FILE).write_text(json.dumps(checkpoint.document, indent=1) + "\n")
        (work / MANIFEST).write_text(manifest.to_json())
        work.chmod(0o755)
        work.replace(out)
    return manifest


def convert_in_child(
    choice: EncoderChoice, pictures: Path, out: Path, *, cores: int
) -> EncoderFolder:
    """The same in a process of its own, which takes torch and all its memory with it.

    Args:
        choice: The checkpoint.
        pictures: A folder of real images.
        out: The folder to write.
        cores: Threads of computation.

    Raises:
        EncoderError: As ``convert``.
        MemoryError: The process ran out of memory, or was ended for it.
    """
    command = ["resources.conversion", str(choice), "--images", str(pictures)]
    command += ["--out", str(out), "--cores", str(cores)]
    run_child(command)
    made = folder_encoder(out)
    assert made is not None
    return made


def _judged(
    name: str,
    checkpoint: Checkpoint,
    pictures: Sequence[Path],
    reference: Measured,
    work: Path,
    cores: int,
    batch: int,
    gate: Gate = GATE,
) -> Runtime:
    """Make one runtime, try it, and keep its files if it passes."""
    graph = work / visual_tower.graph_name(name)
    if name != EXACT:
        exact = work / visual_tower.graph_name(EXACT)
        if why := in_own_process(quantization.quantize, exact, graph, name):
            return Runtime(name, False, why)
    spec = replace(checkpoint.spec, runtime=name)
    found, trial, witness = run_trial(spec, graph, pictures, cores=cores, batch=batch)
    parity = compare(reference, found, gate)
    why = refusal(parity, exact=name == EXACT, gate=gate)
    files = sorted(work.glob(f"{graph.name}*"), key=lambda path: len(path.name))
    if why:
        for path in files:
            path.unlink()
        return Runtime(name, False, why, (), parity, trial)
    described = tuple(RuntimeFile(p.name, file_sha256(p), p.stat().st_size) for p in files)
    return Runtime(name, True, "", described, parity, trial, witness)


def _drawn(folder: Path) -> list[Path]:
    """Eight pictures of noise at several scales."""
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for number in range(8):
        coarse = rng.integers(0, 256, (2 << number % 4, 3 << number % 4, 3), dtype=np.uint8)
        paths.append(folder / f"drawn-{number}.png")
        PIL.Image.fromarray(coarse).resize((240, 160)).save(paths[-1])
    return paths


def _in_a_line(runtime: Runtime) -> str:
    verdict = "passed" if runtime.passed else f"not used: {runtime.reason}"
    if runtime.parity is None or runtime.trial is None:
        return f"{runtime.name}: {verdict}"
    parity, trial = runtime.parity, runtime.trial
    return (
        f"{runtime.name}: {trial.images_per_s:.0f} images/s, peak {trial.peak_mb:.0f} MB; centred "
        f"cosine worst {parity.worst:.5f}, median {parity.median:.5f}; nearest agree in "
        f"{parity.top_1:.1%}, ten nearest in {parity.top_10:.1%}; finds {parity.recall:.1%} of "
        f"edited images (reference {parity.reference_recall:.1%}): {verdict}"
    )


def _sha256_of(pictures: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in pictures:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main(arguments: Sequence[str]) -> int:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m resources.conversion")
    parser.add_argument("choice", help="open_clip:ARCHITECTURE/TAG and the like")
    parser.add_argument("--images", type=Path, help=f"real images, {GATE.images} or more")
    parser.add_argument("--out", type=Path, help="folder to write")
    parser.add_argument("--fetch", action="store_true", help="download the weights, and no more")
    parser.add_argument("--cores", type=int, default=2, help="threads of computation")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.parent:
        work_for(given.parent)
    try:
        choice = parse_encoder(given.choice)
        if choice is None or not (given.fetch or (given.images and given.out)):
            parser.error("name an encoder, and --images with --out, or --fetch")
        if given.fetch:
            visual_tower.download(choice)
            print(checkpoint_sha256(find_checkpoint(choice).spec))  # noqa: T201
            return 0
        folder = folder_of(choice)
        if folder is not None and folder_encoder(folder):
            raise EncoderError(f"{choice} runs as it is")
        pictures = pictures_in(given.images, CONVERSION.most_images)
        convert(choice, pictures, given.out, cores=given.cores, tell=_say)
    except (EncoderError, InputError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
