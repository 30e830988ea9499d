"""Text encoders as descriptions: which one is meant, what decides its vectors, what it reads.

Nothing here loads a model or opens a connection; ``resources.text_encoder`` does. Whatever encodes
by the same description gives the same vectors, and the description's id is what they are keyed by,
so that two encoders never meet in one search.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from core.encoders import EncoderError, Vectors, canonical_sha256

Kind = Literal["query", "passage"]
"""What a text is to a search: what is asked, or what may be the answer."""

Pooling = Literal["mean", "cls"]
"""How the tokens' vectors become one: their mean, or that of the first, special one."""

WITNESS = "The committee approved the minutes of its previous meeting without amendment."
"""A sentence by which an encoder is known again."""

AGREEMENT = 0.999
"""The least cosine between what one description gives in two ways: an angle of 2.6 degrees."""

_WRITTEN_AS = (
    "minilm, sentence-transformers:ORGANISATION/NAME, sentence-transformers:/path/to/folder, "
    "hf:ORGANISATION/NAME@DIM or openai:https://host/v1#MODEL@DIM"
)


class NotConvertedError(EncoderError):
    """The encoder is known, and nothing that runs has been made of it yet."""


@dataclass(frozen=True)
class Prefixes:
    """What is put before a text, as the encoder was trained; a part of its description."""

    query: str = ""
    passage: str = ""


NO_PREFIXES = Prefixes()
E5_PREFIXES = Prefixes("query: ", "passage: ")
"""As the model cards of ``intfloat/e5`` and ``intfloat/multilingual-e5`` ask for."""

BGE_PREFIXES = Prefixes("Represent this sentence for searching relevant passages: ", "")
"""As the model cards of the English ``BAAI/bge`` ask for."""

PREFIXES = {"none": NO_PREFIXES, "e5": E5_PREFIXES, "bge": BGE_PREFIXES}
"""By the word that a setting has for them."""

_TRAINED_WITH = (
    (re.compile(r"(^|[/_-])(multilingual-)?e5-(small|base|large)"), E5_PREFIXES),
    (re.compile(r"(^|[/_-])bge-(small|base|large)-en"), BGE_PREFIXES),
)


def prefixes_of(name: str) -> Prefixes:
    """The prefixes that a published model was trained with, by its name."""
    lowered = name.lower()
    return next((p for pattern, p in _TRAINED_WITH if pattern.search(lowered)), NO_PREFIXES)


@dataclass(frozen=True)
class RemoteSpec:
    """What is assumed of an encoder on another machine."""

    window: int = 512
    """Tokens that it reads, where the setting does not say. Most sentence encoders read as many,
    OpenAI's read 8191; passages are far shorter than either."""

    bytes_per_token: int = 3
    """How its tokens are counted where they are not known here: English has four to five bytes to a
    token, other languages two to four, so that a count is more likely too high than too low."""

    texts: int = 32
    """In one request: what the strictest of the known services take."""

    connect_s: float = 5.0
    read_s: float = 30.0
    """Without a byte. A model that is loaded first may take as long."""

    total_s: float = 60.0
    """For one request, however steadily it trickles."""

    keep_s: float = 15.0
    """How long an idle connection is kept for the next request."""

    response_bytes: int = 8_000_000
    """The most that is read of an answer: twice what 32 vectors of 4000 numbers take."""

    again: tuple[int, ...] = (408, 425, 429, 500, 502, 503, 504)
    """Answers after which the same request is sent again."""

    attempts: int = 5
    """Requests in all for the same texts."""

    first_wait_s: float = 0.5
    """Before the second request; twice as long before each further one, and by chance up to all of
    it less, so that many who were turned away do not come back together."""

    longest_wait_s: float = 30.0
    """A service that asks for a longer wait is not waited for: the run fails, and goes on later."""

    failures: int = 3
    """After so many failures in a row nothing is asked for a while."""

    rest_s: float = 60.0
    """That while."""


REMOTE = RemoteSpec()

REMOTE_QUERY = RemoteSpec(read_s=4.0, total_s=6.0, attempts=1)
"""The same while somebody waits for an answer, which words can give alone, and says so."""


@dataclass(frozen=True)
class TextEncoderChoice:
    """What a user wrote: where to find an encoder, before anything about it is known.

    Attributes:
        source: ``package`` (the default encoder, which comes with Quire), ``hub`` (the local
            Hugging Face cache), ``folder`` (of this machine), ``hf`` (Hugging Face's inference
            service) or ``openai`` (any service that speaks OpenAI's protocol).
        name: The model, as its publisher or the service calls it; for a folder its path.
        url: Address of the service; empty where nothing leaves this machine.
        dim: Length of its vectors, where the setting says; else 0.
        window: Tokens that it reads, where the setting says; else 0.
        prefixes: What the setting says of them; None where it says nothing.
    """

    source: Literal["package", "hub", "folder", "hf", "openai"]
    name: str
    url: str = ""
    dim: int = 0
    window: int = 0
    prefixes: Prefixes | None = None

    @property
    def remote(self) -> bool:
        """Whether texts leave this machine."""
        return self.source in ("hf", "openai")

    def __str__(self) -> str:
        """As it is written in a setting, so that it is read as the same choice."""
        match self.source:
            case "package":
                return "minilm"
            case "hub" | "folder":
                place = f"sentence-transformers:{self.name}"
            case "hf":
                place = f"hf:{self.name}@{self.dim}"
            case "openai":
                place = f"openai:{self.url}#{self.name}@{self.dim}"
        words = [f"prefixes={word}" for word, known in PREFIXES.items() if known == self.prefixes]
        words += [f"window={self.window}"] if self.window else []
        return f"{place}?{'&'.join(words)}" if words else place


def parse_text_encoder(text: str) -> TextEncoderChoice:
    """Read a setting such as ``QUIRE_TEXT_ENCODER``.

    =============================================  ================================================
    ``minilm``, or nothing                         the default, which comes with Quire
    ``sentence-transformers:ORG/NAME``             from the local Hugging Face cache
    ``sentence-transformers:/models/my-encoder``   a folder, of a model or of its conversion
    ``hf:ORG/NAME@384``                            Hugging Face's inference service
    ``openai:https://host/v1#model@1536``          any service that speaks OpenAI's protocol
    ``...?prefixes=e5``                            after a model whose name does not say so; or
                                                   ``bge``, ``none``
    ``...?window=8191``                            tokens that a service reads; joined by ``&``
    =============================================  ================================================

    Raises:
        EncoderError: The text is none of these; the message says which are possible.
    """
    text = text.strip()
    if text in ("", "minilm"):
        return TextEncoderChoice("package", "all-MiniLM-L6-v2")
    kind, colon, rest = text.partition(":")
    rest, _, option = rest.partition("?")
    options = _options(text, option)
    if colon and kind == "sentence-transformers":
        if "window" in options:
            raise EncoderError(f"{text!r}: a model on this machine says itself how much it reads")
        prefixes = options.get("prefixes")
        if rest.startswith(("/", "./", "../", "~/")):
            return TextEncoderChoice("folder", rest, prefixes=PREFIXES.get(prefixes or ""))
        if not _is_repository(rest):
            raise EncoderError(f"{text!r} names no model; write {_WRITTEN_AS}")
        return TextEncoderChoice("hub", rest, prefixes=PREFIXES.get(prefixes or ""))
    if colon and kind in ("hf", "openai"):
        return _remote_choice(text, kind, rest, options)
    raise EncoderError(f"no text encoder is called {text!r}; write {_WRITTEN_AS}")


def _remote_choice(text: str, kind: str, rest: str, options: dict[str, str]) -> TextEncoderChoice:
    name, at, dim = rest.rpartition("@")
    if not at or not dim.isdecimal() or not 1 <= int(dim) <= 4000:
        raise EncoderError(
            f"{text!r} does not say how long the vectors are, 1 to 4000: "
            "append it to the model, as in hf:intfloat/multilingual-e5-small@384"
        )
    window = int(options.get("window", "0"))
    prefixes = PREFIXES.get(options.get("prefixes", ""))
    if kind == "hf":
        if not _is_repository(name):
            raise EncoderError(f"{text!r} names no model; write {_WRITTEN_AS}")
        url = f"https://router.huggingface.co/hf-inference/models/{name}/pipeline"
        return TextEncoderChoice("hf", name, url, int(dim), window, prefixes)
    url, _, model = name.partition("#")
    if not model or not is_service_url(url):
        raise EncoderError(
            f"{text!r} names no service; write openai:https://host/v1#MODEL@DIM, without a user, "
            "password or query"
        )
    return TextEncoderChoice("openai", model, url.rstrip("/"), int(dim), window, prefixes)


def is_service_url(url: str) -> bool:
    """Whether an address may be that of a service: a host, and nothing that could be a secret."""
    try:
        parts = urlsplit(url)
        known = parts.hostname, parts.port
    except ValueError:
        return False
    return bool(
        parts.scheme in ("https", "http")
        and known[0]
        and "@" not in parts.netloc
        and not parts.query
        and not parts.fragment
    )


def _is_repository(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and ".." not in text


def _options(text: str, given: str) -> dict[str, str]:
    """What stands after the ``?``."""
    options = dict(parse_qsl(given, keep_blank_values=True)) if given else {}
    window, prefixes = options.get("window", "1"), options.get("prefixes", "none")
    known = set(options) <= {"window", "prefixes"} and bool(options) == bool(given)
    if not known or prefixes not in PREFIXES or not window.isdecimal() or int(window) < 1:
        raise EncoderError(
            f"{text!r}: after the ? write prefixes={'|'.join(PREFIXES)} or window=TOKENS, "
            f"not {given!r}"
        )
    return options


def each_text_encoder(text: str) -> list[str]:
    """The settings of single encoders in one of several, separated by blanks, each once."""
    single = re.split(r"\s+(?=minilm\b|sentence-transformers:|hf:|openai:)", text.strip())
    return list(dict.fromkeys(one for one in single if one)) or ["minilm"]


@dataclass(frozen=True)
class TextEncoderSpec:
    """Everything that a vector of this encoder was computed from, beside its text.

    Attributes:
        name: As its publisher or the service calls it.
        revision: Which one of several, where that is known; for people.
        weights_sha256: Of the weights file; of a service, of its address and the model's name,
            since what runs there is not known.
        config_sha256: Of the model's configuration, in canonical JSON; empty for a service.
        tokenizer_sha256: Of the tokenizer's file; empty where tokens are estimated.
        dim: Length of a vector.
        max_tokens: Tokens that it reads, special ones and the prefix included.
        query_prefix: Put before what is asked.
        passage_prefix: Put before what may be the answer.
        pooling: How the tokens' vectors become one.
        lowercase: Whether texts are lower-cased before they are cut into tokens.
        runtime: What computes, and in which precision; ``remote`` for a service.
        version: Raised whenever Quire changes what the same weights give.
    """

    name: str
    revision: str
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str
    dim: int
    max_tokens: int
    query_prefix: str = ""
    passage_prefix: str = ""
    pooling: Pooling = "mean"
    lowercase: bool = False
    runtime: str = "onnx-f32"
    version: int = 1

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over every field but those for people."""
        fields = asdict(self)
        for name in ("name", "revision"):
            del fields[name]
        return canonical_sha256(fields)[:12]

    @property
    def encoder_id(self) -> str:
        """For example ``all-minilm-l6-v2-0f3a9c21d4e7``: a name to read and the digest."""
        name = re.sub(r"[^a-z0-9_-]+", "-", self.name.rpartition("/")[2].lower()).strip("-")
        return f"{name or 'encoder'}-{self.digest}"

    @property
    def chunk_set(self) -> str:
        """Names what decides how texts are divided: the tokens, and the room there is for them."""
        how = [self.tokenizer_sha256, self.max_tokens, self.passage_prefix, self.lowercase]
        return canonical_sha256(how)[:12]

    def prefix(self, kind: Kind) -> str:
        """What is put before a text of this kind."""
        return self.query_prefix if kind == "query" else self.passage_prefix


@dataclass(frozen=True)
class Encoded:
    """What became of some texts, in their order.

    Attributes:
        vectors: One unit row a text.
        tokens: What was read of each, special tokens and prefix included.
        cut: Tokens of each that were beyond the window and not seen.
        unknown: Tokens of each that the encoder has no entry for; 0 where it does not say.
    """

    vectors: Vectors
    tokens: tuple[int, ...]
    cut: tuple[int, ...]
    unknown: tuple[int, ...]


class Tokens(Protocol):
    """Anything that knows how much an encoder reads."""

    @property
    def spec(self) -> TextEncoderSpec:
        """The encoder."""
        ...

    def count(self, text: str, kind: Kind) -> int:
        """Tokens of a text, special ones and the prefix included; more than the window, perhaps."""
        ...


class TextEncoder(Tokens, Protocol):
    """Anything that turns texts into vectors by a description."""

    def encode(self, texts: Sequence[str], kind: Kind) -> Encoded:
        """One unit vector a text."""
        ...


def checked_vectors(values: NDArray[np.float32], texts: int, spec: TextEncoderSpec) -> Vectors:
    """What an encoder gave, made sure to be one vector a text, and scaled to unit length.

    Raises:
        EncoderError: It is something else, or holds what is no number, or nothing but zeros.
    """
    if values.shape != (texts, spec.dim):
        raise EncoderError(
            f"{spec.name} gave {values.shape} for {texts} texts of {spec.dim} dimensions"
        )
    lengths = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths < 1e-12):
        raise EncoderError(f"{spec.name} gave vectors that are zero or not finite")
    return (values / lengths).astype(np.float32)


def require_agreement(wanted: Sequence[float], seen: Sequence[float], name: str) -> None:
    """Refuse an encoder that has become another one under the same name.

    Args:
        wanted: What it made of ``WITNESS`` when its first vectors were stored.
        seen: What it makes of it now.
        name: Its id, for the message.

    Raises:
        EncoderError: The two are further apart than ``AGREEMENT``.
    """
    a, b = (np.asarray(vector, np.float64) for vector in (wanted, seen))
    cosine = float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
    if cosine < AGREEMENT:
        raise EncoderError(
            f"{name} gives other vectors than it gave when the stored ones were made (cosine "
            f"{cosine:.4f} for the same sentence): another model answers under its name. Name it "
            "otherwise in QUIRE_TEXT_ENCODER, so that everything is embedded anew"
        )
