"""Text encoders on other machines: a server that speaks both protocols and fails in all ways."""

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import psycopg
import pytest

import resources.guarded_http
from core.encoders import EncoderError
from core.search import ChannelName, Query
from core.text_encoders import (
    E5_PREFIXES,
    REMOTE_QUERY,
    RemoteSpec,
    TextEncoderChoice,
    TextEncoderSpec,
    parse_text_encoder,
)
from resources.guarded_http import RemoteError, resolve, retry_after_s
from resources.image_files import StoredFiles
from resources.postgres import Postgres
from resources.remote_text_encoder import Breaker, RemoteAccess, RemoteTextEncoder, remote_spec
from resources.text_encoder import open_text_encoder
from resources.text_search import TextSearch, open_serving
from tests.passages import Said, WordEncoder, keep

KEY = "sk-a-secret-that-nobody-sees"
DIM = 4
QUICK = RemoteSpec(
    texts=3, connect_s=1.0, read_s=0.4, total_s=0.8, attempts=3, first_wait_s=0.01,
    longest_wait_s=5.0, response_bytes=20_000, failures=2, rest_s=30.0,
)  # fmt: skip


@dataclass
class Server:
    """What it was asked, and how it is to answer: in turn, the last way for good."""

    port: int
    ways: list[Callable[["Handler", list[str]], None]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    encode: Callable[[Sequence[str]], np.ndarray] = lambda texts: np.stack(
        [vector(t) for t in texts]
    )

    def way(self) -> Callable[["Handler", list[str]], None]:
        if not self.ways:
            return Handler.well
        return self.ways.pop(0) if len(self.ways) > 1 else self.ways[0]


def vector(text: str) -> np.ndarray:
    """Not of unit length: that is not the server's business."""
    return 3 * np.random.default_rng(len(text)).normal(size=DIM)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def told(self) -> Server:
        return self.server.told  # pyright: ignore[reportAttributeAccessIssue]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = {"path": self.path, "headers": dict(self.headers), "body": body}
        self.told.asked.append(asked)
        texts = body["input"] if "input" in body else body["inputs"]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.told.way()(self, texts)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def rows(self, rows: list[Any]) -> bytes:
        """Vectors in the form of whichever protocol was spoken."""
        if self.path.endswith("/pipeline/feature-extraction"):
            return json.dumps(rows).encode()
        data = [{"index": n, "embedding": row} for n, row in enumerate(rows)]
        return json.dumps({"data": data[::-1], "usage": {"prompt_tokens": 1}}).encode()

    def well(self, texts: list[str]) -> None:
        self.send(200, self.rows(self.told.encode(texts).tolist()))


Way = Callable[[Handler, list[str]], None]


def status(code: int, **headers: str) -> Way:
    return lambda handler, _: handler.send(
        code, f'{{"error": "{KEY} was wrong"}}'.encode(), **headers
    )


def body(make: Callable[[Handler, list[str]], bytes]) -> Way:
    return lambda handler, texts: handler.send(200, make(handler, texts))


def slow(handler: Handler, texts: list[str]) -> None:
    time.sleep(0.6)
    handler.well(texts)


def slower(handler: Handler, texts: list[str]) -> None:
    time.sleep(REMOTE_QUERY.read_s + 1)
    handler.well(texts)


def trickling(handler: Handler, texts: list[str]) -> None:
    """A byte now and then: never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def half(handler: Handler, texts: list[str]) -> None:
    whole = handler.rows(handler.told.encode(texts).tolist())
    handler.send(200, whole[: len(whole) // 2], Content_Length=str(len(whole)))
    handler.close_connection = True


def endless(handler: Handler, texts: list[str]) -> None:
    """No length is stated, and it does not end."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b"1000\r\n" + b" " * 4096 + b"\r\n")


@pytest.fixture
def server() -> Iterator[Server]:
    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.daemon_threads = True
    told = Server(serving.server_address[1])
    serving.told = told  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield told
    serving.shutdown()
    serving.server_close()
    thread.join()


def choice(server: Server, protocol: str = "openai", dim: int = DIM) -> TextEncoderChoice:
    url = f"http://127.0.0.1:{server.port}"
    if protocol == "openai":
        return TextEncoderChoice("openai", "a-model", f"{url}/v1", dim)
    return TextEncoderChoice("hf", "org/a-model", f"{url}/models/org/a-model/pipeline", dim)


def access(server: Server, **changes: Any) -> RemoteAccess:
    limits = replace(QUICK, **changes)
    return RemoteAccess(f"api.example.org, 127.0.0.1:{server.port}", KEY, limits)


def open_remote(
    server: Server, protocol: str = "openai", waits: list[float] | None = None, **changes: Any
) -> RemoteTextEncoder:
    waited = [] if waits is None else waits
    return RemoteTextEncoder(
        choice(server, protocol), access(server, **changes), wait=waited.append
    )


@pytest.mark.parametrize("protocol", ["openai", "hf"])
def test_texts_go_out_in_parts_with_their_prefix_and_come_back_as_unit_vectors(
    server: Server, protocol: str
) -> None:
    chosen = replace(choice(server, protocol), prefixes=E5_PREFIXES)
    encoder = RemoteTextEncoder(chosen, access(server))
    texts = ["a", "bb", "ccc", "dddd"]
    read = encoder.encode(texts, "passage")
    said = [f"passage: {text}" for text in texts]
    sent = [part["body"].get("input") or part["body"]["inputs"] for part in server.asked]
    assert sent == [said[:3], said[3:]]
    expected = np.stack([vector(text) for text in said])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(read.vectors, expected, atol=1e-6)
    assert {part["headers"]["Authorization"] for part in server.asked} == {f"Bearer {KEY}"}
    assert not any("Cookie" in part["headers"] for part in server.asked)
    assert (encoder.sent.requests, encoder.sent.texts) == (2, 4)
    assert encoder.encode([], "query").vectors.shape == (0, DIM)


@pytest.mark.parametrize("protocol", ["openai", "hf"])
def test_one_model_gives_the_same_vectors_here_and_on_another_machine(
    server: Server, protocol: str, minilm: str
) -> None:
    """As a stranger's server would run it: without prefixes, and in its own way of batching."""
    here = open_text_encoder(minilm, None)
    server.encode = lambda texts: np.concatenate(
        [2.5 * here.encode([text], "passage").vectors for text in texts]
    )
    url = choice(server, protocol).url
    name = "sentence-transformers/all-MiniLM-L6-v2"
    chosen = TextEncoderChoice("hf" if protocol == "hf" else "openai", name, url, 384)
    there = RemoteTextEncoder(chosen, access(server, response_bytes=100_000, read_s=20, total_s=20))
    assert there.spec.chunk_set == here.spec.chunk_set  # its tokens are known here
    assert there.spec.encoder_id != here.spec.encoder_id
    texts = ["The tenant pays the rent.", "Cells", "the lease and the tenant " * 100]
    near, far = here.encode(texts, "passage"), there.encode(texts, "passage")
    assert (near.tokens, near.cut) == (far.tokens, far.cut)
    assert far.cut[2] > 0
    assert np.sum(near.vectors * far.vectors, axis=1).min() >= 0.999


def test_what_is_longer_than_the_window_is_counted_and_not_sent(server: Server) -> None:
    chosen = replace(choice(server), window=12)
    encoder = RemoteTextEncoder(chosen, access(server))
    read = encoder.encode(["x" * 60, "ä" * 10], "passage")
    assert server.asked[0]["body"]["input"] == ["x" * 30, "ä" * 10]
    assert (read.tokens, read.cut) == ((12, 9), (10, 0))
    assert encoder.count("x" * 60, "passage") == 22


@pytest.mark.parametrize("protocol", ["openai", "hf"])
@pytest.mark.parametrize("code", [429, 503, 500])
def test_a_service_that_is_busy_is_asked_again(server: Server, protocol: str, code: int) -> None:
    server.ways = [status(code), status(code), Handler.well]
    waits: list[float] = []
    encoder = open_remote(server, protocol, waits)
    assert encoder.encode(["a"], "query").vectors.shape == (1, DIM)
    assert len(server.asked) == 3
    assert 0.005 <= waits[0] <= 0.01 <= 2 * waits[1] <= 0.04


def test_a_wait_that_is_asked_for_is_kept_up_to_a_bound(server: Server) -> None:
    later = formatdate(time.time() + 3, usegmt=True)
    server.ways = [status(429, Retry_After="2"), status(503, Retry_After=later), Handler.well]
    waits: list[float] = []
    open_remote(server, "openai", waits).encode(["a"], "query")
    assert waits[0] == 2.0
    assert 1 <= waits[1] <= 3
    server.ways = [status(429, Retry_After="3600")]
    server.asked.clear()
    with pytest.raises(RemoteError, match="answered 429"):
        open_remote(server, "openai", waits).encode(["a"], "query")
    assert len(server.asked) == 1
    assert retry_after_s("soon") is None


WRONG: dict[str, tuple[Way, str, int]] = {
    "slow": (slow, "took too long", 3),
    "trickling": (trickling, "took too long", 3),
    "half a body": (half, "connection .* failed", 3),
    "endless": (endless, "more than 20000 bytes", 1),
    "oversized": (status(200, Content_Length="99999999"), "more than 20000 bytes", 1),
    "refused": (status(401), r"401 \(is QUIRE_TEXT_API_KEY right", 1),
    "not there": (status(404), "answered 404", 1),
    "elsewhere": (status(302, Location="http://169.254.169.254/latest"), "points elsewhere", 1),
    "compressed": (status(200, Content_Encoding="gzip"), "compressed", 1),
    "no json": (body(lambda h, t: b"<html>"), "no list of vectors", 1),
    "an error": (body(lambda h, t: b'{"error": "x"}'), "no list of vectors", 1),
    "deep": (body(lambda h, t: b"[" * 5000), "no list of vectors", 1),
    "too few": (body(lambda h, t: h.rows([])), r"no list of vectors|gave \(0", 1),
    "ragged": (body(lambda h, t: h.rows([[1.0], [1.0, 2.0]])), "no list of vectors", 1),
    "words": (body(lambda h, t: h.rows([["a"] * DIM] * 2)), "no list of vectors", 1),
    "other dimension": (body(lambda h, t: h.rows([[1.0] * 3] * 2)), r"gave \(2, 3\) for 2", 1),
    "tokens": (body(lambda h, t: h.rows([[[1.0] * DIM]] * 2)), r"gave \(2, 1, 4\) for 2", 1),
    "nan": (body(lambda h, t: h.rows([[float("nan")] * DIM] * 2)), "not finite", 1),
    "zeros": (body(lambda h, t: h.rows([[0.0] * DIM] * 2)), "zero or not finite", 1),
}


@pytest.mark.parametrize("protocol", ["openai", "hf"])
@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_cannot_be_used_is_one_sentence_without_secrets(
    server: Server, protocol: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    way, says, requests = WRONG[name]
    server.ways = [way]
    encoder = open_remote(server, protocol)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(EncoderError, match=says) as raised,
    ):
        encoder.encode(["confidential", "papers"], "passage")
    assert len(server.asked) == requests
    seen: BaseException | None = raised.value
    told = caplog.text
    while seen is not None:
        told += f"{seen!r}{vars(seen)}"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    told += repr(access(server)) + repr(encoder) + str(raised.traceback)
    assert KEY not in told
    assert "confidential" not in told


def test_a_service_that_keeps_failing_is_left_alone_for_a_while(server: Server) -> None:
    server.ways = [status(503)]
    encoder = open_remote(server, attempts=1)
    for _ in range(2):
        with pytest.raises(RemoteError, match="503"):
            encoder.encode(["a"], "query")
    with pytest.raises(EncoderError, match="failed 2 times in a row and is not asked"):
        encoder.encode(["a"], "query")
    assert len(server.asked) == 2

    clock = [0.0]
    breaker = Breaker(QUICK, "host", now=lambda: clock[0])
    breaker.failed()
    breaker.failed()
    with pytest.raises(EncoderError):
        breaker.require_closed()
    clock[0] = 31.0
    breaker.require_closed()  # one is let through to see
    with pytest.raises(EncoderError):
        breaker.require_closed()
    breaker.succeeded()
    breaker.require_closed()


def test_nothing_leaves_for_a_host_that_is_not_allowed(server: Server) -> None:
    for hosts in ("", "api.example.org", f"localhost:{server.port}", "127.0.0.1"):
        with pytest.raises(EncoderError, match=r"QUIRE_REMOTE_HOSTS=127\.0\.0\.1:"):
            RemoteTextEncoder(choice(server), RemoteAccess(hosts))
    with pytest.raises(EncoderError, match=r"QUIRE_REMOTE_HOSTS: .* is no host"):
        RemoteTextEncoder(choice(server), RemoteAccess("https://x"))
    with pytest.raises(EncoderError, match="is not allowed"):
        open_text_encoder("hf:org/name@3", None)
    plain = parse_text_encoder("openai:http://api.example.org/v1#m@3")
    with pytest.raises(EncoderError, match="without https"):
        RemoteTextEncoder(plain, RemoteAccess("api.example.org:80"))
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "fd00::7", "::ffff:192.168.0.1"],
)
def test_a_name_that_leads_behind_the_network_is_not_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if only one of its addresses does: the next look-up may give that one alone."""
    calls: list[str] = []

    def both(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        calls.append(host)
        return [(socket.AF_INET, 1, 6, "", (found, port)) for found in ("8.8.8.8", address)]

    monkeypatch.setattr(resources.guarded_http.socket, "getaddrinfo", both)
    encoder = RemoteTextEncoder(
        parse_text_encoder("openai:https://api.example.org/v1#m@3"),
        RemoteAccess("api.example.org", KEY, replace(QUICK, attempts=1)),
    )
    with pytest.raises(
        RemoteError, match=f"is at {address}, which is not an address of the public"
    ):
        encoder.encode(["a"], "query")
    assert calls == ["api.example.org"]


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is looked up once, and what was found then is used, whatever it would be next."""
    found = iter([["127.0.0.1"], ["10.0.0.7"]])
    asked: list[str] = []

    def rebinding(host: str, port: int, **_: Any) -> list[str]:
        asked.append(host)
        return next(found)

    connected: list[str] = []
    connect = resources.guarded_http.httpcore2.SyncBackend.connect_tcp

    def watched(self: Any, host: str, *rest: Any, **more: Any) -> Any:
        connected.append(host)
        return connect(self, host, *rest, **more)

    monkeypatch.setattr(resources.guarded_http, "resolve", rebinding)
    monkeypatch.setattr(resources.guarded_http.httpcore2.SyncBackend, "connect_tcp", watched)
    named = replace(choice(server), url=f"http://localhost:{server.port}/v1")
    encoder = RemoteTextEncoder(named, RemoteAccess(f"localhost:{server.port}", KEY, QUICK))
    encoder.encode(["a"], "query")
    assert (asked, connected) == (["localhost"], ["127.0.0.1"])


def test_a_loopback_name_that_leads_out_is_refused_and_an_unknown_one_is_told() -> None:
    with pytest.raises(RemoteError, match=r"8\.8\.8\.8"):
        resolve("8.8.8.8", 80, loopback=True, timeout_s=1.0)
    with pytest.raises(RemoteError, match="cannot be found") as raised:
        resolve("no-such-host.invalid", 443, loopback=False, timeout_s=5.0)
    assert raised.value.worth_trying_again


# Searching, while somebody waits.


@dataclass
class Remembered(WordEncoder):
    """What the service gave when the stored vectors were made."""

    described: TextEncoderSpec = field(default_factory=lambda: SPEC)

    @property
    def spec(self) -> TextEncoderSpec:
        return self.described


SPEC = TextEncoderSpec("-", "", "", "", "", 1, 1)
PAGES = [Said("a.pdf", 1, "The cat sat by the river"), Said("a.pdf", 2, "Nothing of interest")]


@pytest.fixture
def afar(
    server: Server, db: psycopg.Connection, postgres: Postgres
) -> Iterator[Callable[[RemoteSpec], TextSearch]]:
    """Searches in what the service embedded, given how long it is waited for."""
    chosen = choice(server, dim=48)
    stored = Remembered(described=remote_spec(chosen))
    keep(db, PAGES, stored)
    server.encode = lambda texts: stored.encode(texts, "query").vectors
    opened: list[TextSearch] = []

    def search(limits: RemoteSpec) -> TextSearch:
        access = RemoteAccess(f"127.0.0.1:{server.port}", KEY, limits)
        no_images = StoredFiles("file:///nowhere")
        opened.append(TextSearch(postgres, open_serving(str(chosen), no_images, remote=access)))
        return opened[-1]

    yield search
    for each in opened:
        each.close()


@pytest.mark.parametrize("way", [slower, trickling], ids=["silent", "trickling"])
def test_a_search_is_answered_by_words_when_a_service_takes_longer_than_somebody_waits(
    server: Server, afar: Callable[[RemoteSpec], TextSearch], way: Way
) -> None:
    server.ways = [way]
    started = time.monotonic()
    answer = afar(REMOTE_QUERY).search(Query("cat", top_k=1))
    assert REMOTE_QUERY.read_s < time.monotonic() - started < REMOTE_QUERY.total_s + 2
    assert [(channel.name, channel.ran) for channel in answer.channels] == [
        (ChannelName.DENSE, False), (ChannelName.WORDS, True),
    ]  # fmt: skip
    assert [hit.page for hit in answer.hits] == [1]
    assert re.match(
        "not searched by meaning: the query was not encoded: .* took too long", answer.degraded[0]
    )
    assert len(server.asked) == 1  # nobody waits for a second attempt


def test_a_service_that_is_slow_again_and_again_is_not_waited_for_and_asked_again_later(
    server: Server, afar: Callable[[RemoteSpec], TextSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    searching = afar(replace(REMOTE_QUERY, read_s=0.3, total_s=0.5, failures=2, rest_s=1.5))
    server.ways = [slow]
    for _ in range(2):
        assert "took too long" in searching.search(Query("cat")).degraded[0]
    started = time.monotonic()
    answer = searching.search(Query("cat"))
    assert time.monotonic() - started < 0.3
    assert [hit.page for hit in answer.hits] == [1]
    assert "failed 2 times in a row and is not asked" in answer.degraded[0]
    assert len(server.asked) == 2
    server.ways = [Handler.well]
    time.sleep(1.5)
    answer = searching.search(Query("cat"))
    assert answer.degraded == ()
    assert all(channel.ran for channel in answer.channels)
