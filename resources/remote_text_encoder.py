"""Text encoders on other machines, off unless a setting names one and its host is allowed.

Hugging Face's inference service is asked through ``huggingface_hub``, any service that speaks
OpenAI's protocol directly; both through ``resources.guarded_http``. Prefixes, the window and the
scaling to unit length are done here, as for encoders of this machine, so that one description gives
the same vectors wherever it is computed.
"""

import contextlib
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from core.addresses import host_and_port
from core.encoders import EncoderError
from core.text_encoders import (
    REMOTE,
    Encoded,
    Kind,
    RemoteSpec,
    TextEncoderChoice,
    TextEncoderSpec,
    checked_vectors,
    prefixes_of,
)
from resources.text_checkpoints import known_here
from resources.text_tokens import EstimatedTokens, TextTokens


@dataclass(frozen=True)
class RemoteAccess:
    """What may leave this machine.

    Attributes:
        hosts: The allow-list, as ``QUIRE_REMOTE_HOSTS`` has it: hosts, perhaps with ports, between
            commas or blanks; empty: nothing.
        api_key: ``QUIRE_TEXT_API_KEY``; empty for none. It is in no message, log or ``repr``.
        limits: How long, how large, how often.
    """

    hosts: str = ""
    api_key: str = field(default="", repr=False)
    limits: RemoteSpec = REMOTE

    def allowed(self) -> list[tuple[str, int]]:
        """Hosts and ports of the allow-list.

        Raises:
            EncoderError: It cannot be read.
        """
        try:
            return [host_and_port(host) for host in self.hosts.replace(",", " ").split()]
        except ValueError as error:
            raise EncoderError(f"QUIRE_REMOTE_HOSTS: {error}") from error


@dataclass
class Sent:
    """What has left this machine, for whoever pays for it or answers for it."""

    requests: int = 0
    texts: int = 0
    size_bytes: int = 0


def remote_spec(choice: TextEncoderChoice, limits: RemoteSpec = REMOTE) -> TextEncoderSpec:
    """What an encoder on another machine is taken to be, without asking it.

    Where the same model is on this machine, too, its tokens and its window are known.
    """
    here = known_here(choice.name)
    prefixes = choice.prefixes or prefixes_of(choice.name)
    return TextEncoderSpec(
        name=choice.name,
        revision="",
        weights_sha256=hashlib.sha256(f"{choice.url}#{choice.name}".encode()).hexdigest(),
        config_sha256="",
        tokenizer_sha256=here.spec.tokenizer_sha256 if here else "",
        dim=choice.dim,
        max_tokens=choice.window or (here.spec.max_tokens if here else limits.window),
        query_prefix=prefixes.query,
        passage_prefix=prefixes.passage,
        lowercase=here.spec.lowercase if here else False,
        runtime="remote",
    )


def remote_tokens(
    choice: TextEncoderChoice, spec: TextEncoderSpec, limits: RemoteSpec = REMOTE
) -> TextTokens | EstimatedTokens:
    """The tokens of an encoder on another machine: its own, where they are known, or estimated."""
    here = known_here(choice.name)
    if here is None:
        return EstimatedTokens(spec, limits.bytes_per_token)
    return TextTokens(here.tokenizer.read_text(encoding="utf-8"), spec)


class RemoteTextEncoder:
    """A text encoder on another machine.

    Attributes:
        spec: What it is taken to be.
        sent: What has left this machine through it.
    """

    def __init__(
        self,
        choice: TextEncoderChoice,
        access: RemoteAccess,
        *,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make sure that it may be asked; nothing is sent yet.

        Args:
            choice: Which one, and where.
            access: What is allowed.
            wait: Called with the seconds between two requests for the same texts.

        Raises:
            EncoderError: Its host is not allowed, or the address is not one of https.
        """
        import httpx2

        from resources.guarded_http import GuardedTransport

        place = urlsplit(choice.url)
        host = (place.hostname or "").lower()
        port = place.port or (443 if place.scheme == "https" else 80)
        if (host, port) not in access.allowed():
            named = host if port == 443 else f"{host}:{port}"
            raise EncoderError(
                f"{choice} would send texts to {named}, which is not allowed: "
                f"QUIRE_REMOTE_HOSTS={named} allows it"
            )
        self._limits = access.limits
        headers = {"Authorization": f"Bearer {access.api_key}"} if access.api_key else {}
        transport = GuardedTransport(host, port, self._limits, headers)
        transport.require_allowed(httpx2.URL(choice.url))
        self.spec = remote_spec(choice, self._limits)
        self._tokens = remote_tokens(choice, self.spec, self._limits)
        service = HuggingFace if choice.source == "hf" else OpenAi
        self._service = service(choice, transport)
        self._breaker = Breaker(self._limits, host)
        self._wait = wait
        self.sent = Sent()

    def count(self, text: str, kind: Kind) -> int:
        """Tokens of a text, special ones and the prefix included; estimated where not known."""
        return self._tokens.count(text, kind)

    def encode(self, texts: Sequence[str], kind: Kind) -> Encoded:
        """One unit vector a text.

        Args:
            texts: Without prefixes, which are put before them here.
            kind: What they are to a search.

        Raises:
            EncoderError: The service cannot be reached, refuses, or gives something else.
        """
        fitting = [self._tokens.fitting(text, kind) for text in texts]
        parts = [np.empty((0, self.spec.dim), np.float32)]
        for start in range(0, len(texts), self._limits.texts):
            said = [one.said for one in fitting[start : start + self._limits.texts]]
            values = self._ask(said)
            parts.append(checked_vectors(values, len(said), self.spec))
        return Encoded(
            vectors=np.concatenate(parts),
            tokens=tuple(one.tokens for one in fitting),
            cut=tuple(one.cut for one in fitting),
            unknown=(0,) * len(texts),
        )

    def _ask(self, said: Sequence[str]) -> NDArray[np.float32]:
        """What the service gives for some texts, asked again where that may help."""
        from resources.guarded_http import RemoteError

        self._breaker.require_closed()
        for attempt in range(1, self._limits.attempts + 1):
            self.sent.requests += 1
            self.sent.texts += len(said)
            self.sent.size_bytes += sum(len(text.encode()) for text in said)
            try:
                values = self._service.ask(said)
            except RemoteError as error:
                wait_s = self._pause_s(error, attempt)
                if wait_s is None:
                    self._breaker.failed()
                    raise
                self._wait(wait_s)
            else:
                self._breaker.succeeded()
                return values
        raise AssertionError("the last attempt returns or raises")

    def _pause_s(self, error: Any, attempt: int) -> float | None:
        """How long to wait before the next attempt; None where there is none."""
        limits = self._limits
        if not error.worth_trying_again or attempt == limits.attempts:
            return None
        if error.after_s is not None:
            return error.after_s if error.after_s <= limits.longest_wait_s else None
        longest = min(limits.longest_wait_s, limits.first_wait_s * 2 ** (attempt - 1))
        return random.uniform(longest / 2, longest)


class Breaker:
    """Leaves a service alone for a while that has failed several times in a row."""

    def __init__(
        self, limits: RemoteSpec, host: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._host = host
        self._now = now
        self._failures = 0
        self._until = 0.0
        self._lock = threading.Lock()

    def require_closed(self) -> None:
        """Pass, or refuse at once; after the while one request is let through to see.

        Raises:
            EncoderError: The service is left alone.
        """
        with self._lock:
            left_s = self._until - self._now()
            if self._failures < self._limits.failures:
                return
            if left_s > 0:
                raise EncoderError(
                    f"{self._host} failed {self._failures} times in a row and is not asked for "
                    f"another {left_s:.0f} s"
                )
            self._until = self._now() + self._limits.rest_s

    def failed(self) -> None:
        """Count a failure."""
        with self._lock:
            self._failures += 1
            self._until = self._now() + self._limits.rest_s

    def succeeded(self) -> None:
        """Forget the failures."""
        with self._lock:
            self._failures = 0


class OpenAi:
    """A service that speaks OpenAI's protocol."""

    def __init__(self, choice: TextEncoderChoice, transport: Any) -> None:
        import httpx2

        self._url = f"{choice.url}/embeddings"
        self._model = choice.name
        self._client = httpx2.Client(transport=transport, trust_env=False)

    def ask(self, said: Sequence[str]) -> NDArray[np.float32]:
        """What it gives for some texts, as it is.

        Raises:
            RemoteError: It gives no list of vectors.
        """
        wanted = {"model": self._model, "input": list(said), "encoding_format": "float"}
        answer = self._client.post(self._url, json=wanted)
        with _reading(self._model):
            rows = json.loads(answer.content)["data"]
            found = {int(row["index"]): row["embedding"] for row in rows}
            if sorted(found) != list(range(len(said))) or len(rows) != len(said):
                raise ValueError("it has other entries than were asked for")
            return _numbers([found[place] for place in range(len(said))])


class HuggingFace:
    """Hugging Face's inference service, through its own client."""

    def __init__(self, choice: TextEncoderChoice, transport: Any) -> None:
        from huggingface_hub import InferenceClient

        self._model = choice.name
        self._transport = transport
        # By its address: for a name the client would ask another host what it is. The key is put in
        # by the transport; the one here keeps the client from looking for another.
        url = f"{choice.url}/feature-extraction"
        self._client = InferenceClient(model=url, provider="hf-inference", api_key="unused")

    def ask(self, said: Sequence[str]) -> NDArray[np.float32]:
        """What it gives for some texts, as it is.

        Raises:
            RemoteError: It gives no list of vectors.
        """
        _lend_to_hub(self._transport)
        with _reading(self._model):
            return _numbers(self._client.feature_extraction(list(said)))


_lent: list[Any] = []
_lending = threading.Lock()


def _lend_to_hub(transport: Any) -> None:
    """Have ``huggingface_hub`` send all that this process asks of it through a transport."""
    import httpx2
    from huggingface_hub import set_client_factory

    with _lending:
        if _lent != [transport]:
            set_client_factory(lambda: httpx2.Client(transport=transport, trust_env=False))
            _lent[:] = [transport]


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with the form of an answer into one sentence without its words."""
    from resources.guarded_http import RemoteError

    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, IndexError):
        raise RemoteError(f"{name} answered with something that is no list of vectors") from None


def _numbers(values: Any) -> NDArray[np.float32]:
    found = np.asarray(values)
    if found.dtype.kind not in "fiu":
        raise ValueError("these are no numbers")
    return found.astype(np.float32)
