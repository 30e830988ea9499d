"""Conversion: a text encoder's checkpoint becomes graphs that run without torch, and are compared.

    python -m resources.text_conversion CHOICE --out FOLDER

writes the folder, named by ``QUIRE_TEXT_ENCODER=sentence-transformers:FOLDER`` from then on. Every
step is a process of its own, so that none holds what another needed. The default encoder needs no
torch: its graph is written from its weights, and was compared with torch when Quire was made;
it is known by its hash. A graph that comes out otherwise, by another onnx, say, is compared
again with the vectors that torch gave.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from core.encoders import EncoderError, Vectors
from core.errors import InputError
from core.runtimes import MANIFEST, RuntimeFile
from core.text_encoders import TextEncoderChoice, parse_text_encoder
from core.text_runtimes import (
    EXACT,
    RUNTIMES,
    TEXT_CONVERSION,
    TEXT_CONVERTER,
    TOKENIZER,
    TextManifest,
    TextRuntime,
    recorded_manifest,
    recorded_reference,
    sample_texts,
    text_checkpoint_sha256,
    text_refusal,
    worst_cosine,
)
from resources import bert_graph, text_tower
from resources.checkpoints import file_sha256
from resources.own_process import in_own_process, run_child, work_for
from resources.quantization import quantize
from resources.text_checkpoints import TextCheckpoint, find_text_checkpoint
from resources.text_encoder import OnnxTextEncoder, TextFolder, text_folder
from resources.text_tokens import TextTokens


def convert_text(
    choice: TextEncoderChoice,
    out: Path,
    *,
    cores: int,
    compare: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> TextManifest:
    """Make the runtimes of a checkpoint, compare them, and write them as a folder, whole or not.

    Args:
        choice: The checkpoint.
        out: The folder, which is not there yet.
        cores: Threads of computation.
        compare: Compare it anew, even if it comes out as it is on record.
        tell: Called with a line for each step.

    Raises:
        EncoderError: The checkpoint cannot be found or read, what conversion needs is not
            installed, or not even full precision agrees with the reference.
        InputError: The folder is there.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already; name a folder that is not")
    checkpoint = find_text_checkpoint(choice)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".conversion-", dir=out.parent) as made:
        work = Path(made) / "encoder"
        work.mkdir()
        copyfile(checkpoint.tokenizer, work / TOKENIZER)
        tell(f"writing the graph of {checkpoint.spec.name}")
        if not compare and (manifest := _known(checkpoint, work)):
            tell("it is the one that was compared when Quire was made")
            return _kept(manifest, work, out)
        origin, reference = _exported(checkpoint, work / _graph_name(EXACT), cores)
        manifest = _described(checkpoint, work, origin)
        for name in RUNTIMES:
            runtime = _judged(name, manifest, reference, work, cores)
            tell(_in_a_line(runtime))
            manifest = replace(manifest, runtimes=(*manifest.runtimes, runtime))
            if name == EXACT and not runtime.passed:
                raise EncoderError(
                    f"the graph of {checkpoint.spec.name} is not what torch computes: "
                    f"{runtime.reason}"
                )
        return _kept(manifest, work, out)


def _known(checkpoint: TextCheckpoint, work: Path) -> TextManifest | None:
    """The record of a conversion, if writing the graph gives the very files that it names."""
    record = recorded_manifest(text_checkpoint_sha256(checkpoint.spec))
    if record is None:
        return None
    bert_graph.write_bert_graph(checkpoint, work / _graph_name(EXACT))
    named = [file for runtime in record.runtimes for file in runtime.files]
    made = all((work / file.name).exists() and _file(work / file.name) == file for file in named)
    return record if made else None


def _kept(manifest: TextManifest, work: Path, out: Path) -> TextManifest:
    (work / MANIFEST).write_text(manifest.to_json())
    work.chmod(0o755)
    work.replace(out)
    return manifest


def convert_text_in_child(choice: TextEncoderChoice, out: Path, *, cores: int) -> TextFolder:
    """The same in a process of its own, which takes all its memory with it.

    Raises:
        EncoderError: As ``convert_text``.
        MemoryError: The process ran out of memory, or was ended for it.
    """
    command = ["resources.text_conversion", str(choice), "--out", str(out)]
    run_child([*command, "--cores", str(cores)])
    made = text_folder(out)
    assert made is not None
    return made


def needs_torch(checkpoint: TextCheckpoint) -> bool:
    """Whether conversion takes torch, for the graph or for the reference."""
    known = recorded_reference(text_checkpoint_sha256(checkpoint.spec)) is not None
    return not (known and bert_graph.is_plain_bert(checkpoint.config))


def _exported(checkpoint: TextCheckpoint, graph: Path, cores: int) -> tuple[str, Vectors]:
    """Write the graph in full precision; what it is to be compared with, and where that is from."""
    samples = sample_texts()
    if not bert_graph.is_plain_bert(checkpoint.config):
        return "torch", in_own_process(text_tower.export, checkpoint, graph, samples, cores)
    in_own_process(bert_graph.write_bert_graph, checkpoint, graph)
    recorded = recorded_reference(text_checkpoint_sha256(checkpoint.spec))
    if recorded is not None:
        return "recorded", recorded
    return "torch", in_own_process(text_tower.reference, checkpoint, samples, cores)


def _described(checkpoint: TextCheckpoint, work: Path, origin: str) -> TextManifest:
    tokens = TextTokens(checkpoint.tokenizer.read_text(encoding="utf-8"), checkpoint.spec)
    return TextManifest(
        encoder=checkpoint.spec,
        converter=TEXT_CONVERTER,
        reference=origin,
        samples=len(sample_texts()),
        tokenizer=_file(work / TOKENIZER),
        pad_id=int(checkpoint.config.get("pad_token_id") or 0),
        unknown_id=max(tokens.id_of("[UNK]"), tokens.id_of("<unk>")),
        runtimes=(),
    )


def _judged(
    name: str, manifest: TextManifest, reference: Vectors, work: Path, cores: int
) -> TextRuntime:
    """Make one runtime, compare it, and keep its files if it passes."""
    graph = work / _graph_name(name)
    if name != EXACT:
        exact = work / _graph_name(EXACT)
        if why := in_own_process(quantize, exact, graph, name, TEXT_CONVERSION.worth_it):
            return TextRuntime(name, False, why)
    found = in_own_process(_encoded, manifest, TextRuntime(name, True), graph, cores)
    worst = worst_cosine(reference, found)
    why = text_refusal(worst, exact=name == EXACT)
    files = sorted(work.glob(f"{graph.name}*"), key=lambda path: len(path.name))
    if why:
        for path in files:
            path.unlink()
        return TextRuntime(name, False, why, round(worst, 6))
    return TextRuntime(name, True, "", round(worst, 6), tuple(map(_file, files)))


def _encoded(manifest: TextManifest, runtime: TextRuntime, graph: Path, cores: int) -> Vectors:
    encoder = OnnxTextEncoder(manifest, runtime, graph, cores=cores)
    return encoder.encode(sample_texts(), "passage").vectors


def _file(path: Path) -> RuntimeFile:
    return RuntimeFile(path.name, file_sha256(path), path.stat().st_size)


def _graph_name(runtime: str) -> str:
    return f"text.{runtime}.onnx"


def _in_a_line(runtime: TextRuntime) -> str:
    verdict = "passed" if runtime.passed else f"not used: {runtime.reason}"
    if runtime.worst_cosine is None:
        return f"{runtime.name}: {verdict}"
    return f"{runtime.name}: worst cosine {runtime.worst_cosine:.6f}: {verdict}"


def main(arguments: Sequence[str]) -> int:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m resources.text_conversion")
    parser.add_argument("choice", help="sentence-transformers:ORGANISATION/NAME and the like")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--cores", type=int, default=2, help="threads of computation")
    parser.add_argument("--compare", action="store_true", help="anew, even what is on record")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.parent:
        work_for(given.parent)
    try:
        choice = parse_text_encoder(given.choice)
        if choice.source == "folder" and text_folder(Path(choice.name).expanduser()):
            raise EncoderError(f"{choice} runs as it is")
        convert_text(choice, given.out, cores=given.cores, compare=given.compare, tell=_say)
    except (EncoderError, InputError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
