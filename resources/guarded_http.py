"""HTTP to a few named hosts, and to nothing else, whatever an address or an answer says.

For anything that leaves this machine: https only, hosts of an allow-list, every resolved address
checked and the checked one connected to (so that a name that resolves otherwise a moment later is
of no use), no redirects, no cookies, no proxies, no compression, answers of a bounded size within a
bounded time. Neither bodies nor keys are in what is raised or logged.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import httpcore2
import httpx2

from core.addresses import is_loopback, is_public
from core.encoders import EncoderError
from core.text_encoders import RemoteSpec


class RemoteError(EncoderError):
    """A service could not be asked, or gave no answer that can be used.

    Attributes:
        worth_trying_again: Whether the same request may succeed a little later.
        after_s: How long the service asks to wait; None where it does not say.
    """

    def __init__(
        self, message: str, *, worth_trying_again: bool = False, after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.worth_trying_again = worth_trying_again
        self.after_s = after_s


def resolve(host: str, port: int, *, loopback: bool, timeout_s: float) -> list[str]:
    """The addresses of a host, all of them checked.

    Args:
        host: A name, or an address.
        port: Which port of it.
        loopback: Whether it is to be this machine, and nothing else; else of the public network.
        timeout_s: How long that may take.

    Raises:
        RemoteError: There are none, or one of them is not allowed.
    """
    pool = ThreadPoolExecutor(1)
    try:
        found = pool.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found.result(timeout_s)]
    except (OSError, UnicodeError, FutureTimeoutError) as error:
        raise RemoteError(f"{host} cannot be found", worth_trying_again=True) from error
    finally:
        pool.shutdown(wait=False)
    allowed = is_loopback if loopback else is_public
    if refused := [address for address in addresses if not allowed(address)]:
        raise RemoteError(
            f"{host} is at {refused[0]}, which is not an address of the public network: "
            "nothing is sent there"
        )
    return list(dict.fromkeys(addresses))


class _Deadline(threading.local):
    """When the request of this thread has to be done."""

    until: float = float("inf")

    def left_s(self, most_s: float | None) -> float:
        left_s = self.until - time.monotonic()
        if left_s <= 0:
            raise httpcore2.ReadTimeout("the time for the whole request is over")
        return left_s if most_s is None else min(most_s, left_s)


class _Stream(httpcore2.NetworkStream):
    """A connection that knows when the request has to be done, however slowly it trickles."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left_s(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left_s = self._deadline.left_s(timeout)
        inner = self._stream.start_tls(ssl_context, server_hostname, left_s)
        return _Stream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedBackend(httpcore2.NetworkBackend):
    """Connects to the address that was checked, and to no other."""

    def __init__(self, loopback: bool, deadline: _Deadline) -> None:
        self._loopback = loopback
        self._deadline = deadline
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = resolve(
            host, port, loopback=self._loopback, timeout_s=self._deadline.left_s(timeout)
        )
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._connect(address, port, timeout)
        return self._connect(addresses[-1], port, timeout)

    def _connect(self, address: str, port: int, timeout: float | None) -> httpcore2.NetworkStream:
        left_s = self._deadline.left_s(timeout)
        return _Stream(self._inner.connect_tcp(address, port, left_s), self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        raise RemoteError("a socket in a file is not a service")


class GuardedTransport(httpx2.BaseTransport):
    """What a client of httpx2 sends its requests through.

    Args:
        host: The one host, as the allow-list has it.
        port: Its port.
        limits: How long, how large.
        headers: Put in the place of what a request brings of the same names.
    """

    def __init__(
        self, host: str, port: int, limits: RemoteSpec, headers: Mapping[str, str]
    ) -> None:
        self._host, self._port = host, port
        self._limits = limits
        self._headers = dict(headers)
        self._loopback = host == "localhost" or is_loopback(host)
        self._deadline = _Deadline()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=4,
            keepalive_expiry=limits.keep_s,
            network_backend=_CheckedBackend(self._loopback, self._deadline),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and read the whole answer.

        Raises:
            RemoteError: It may not be sent, or the answer cannot be used.
        """
        self.require_allowed(request.url)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("host", "content-type", "content-length", "accept")
        }
        headers |= {"Accept-Encoding": "identity", "User-Agent": "quire", **self._headers}
        self._deadline.until = time.monotonic() + self._limits.total_s
        try:
            with self._pool.stream(
                method=request.method,
                url=str(request.url),
                headers=list(headers.items()),
                content=request.read(),
                extensions={
                    "timeout": {
                        "connect": self._limits.connect_s,
                        "read": self._limits.read_s,
                        "write": self._limits.read_s,
                        "pool": self._limits.total_s,
                    }
                },
            ) as answer:
                said = {name.decode("latin-1").lower(): value.decode("latin-1")
                        for name, value in answer.headers}  # fmt: skip
                self._require_usable(answer.status, said)
                content = b"".join(self._bounded(answer.iter_stream()))
        except httpcore2.TimeoutException:
            raise RemoteError(f"{self._host} took too long", worth_trying_again=True) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError) as error:
            # What these say is of connections and certificates, never of what was sent.
            raise RemoteError(
                f"the connection to {self._host} failed ({type(error).__name__})",
                worth_trying_again=True,
            ) from None
        finally:
            self._deadline.until = float("inf")
        kind = {"Content-Type": said.get("content-type", "application/json")}
        return httpx2.Response(answer.status, headers=kind, content=content, request=request)

    def close(self) -> None:
        """Nothing: whoever was lent this transport does not end it; idle connections expire."""

    def require_allowed(self, url: httpx2.URL) -> None:
        """Refuse every address but those of the one host.

        Raises:
            RemoteError: It is another one, or not of https.
        """
        port = url.port or (443 if url.scheme == "https" else 80)
        if (url.host, port) != (self._host, self._port):
            raise RemoteError(f"{url.host}:{port} is not what was allowed: nothing is sent there")
        if url.scheme != "https" and not (url.scheme == "http" and self._loopback):
            raise RemoteError(f"{url.host} is not asked without https")

    def _require_usable(self, status: int, headers: Mapping[str, str]) -> None:
        if 300 <= status < 400:
            raise RemoteError(f"{self._host} points elsewhere ({status}), which is not followed")
        if status in self._limits.again:
            raise RemoteError(
                f"{self._host} answered {status}",
                worth_trying_again=True,
                after_s=retry_after_s(headers.get("retry-after", "")),
            )
        if status != 200:
            hint = " (is QUIRE_TEXT_API_KEY right?)" if status in (401, 403) else ""
            raise RemoteError(f"{self._host} answered {status}{hint}")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise RemoteError(f"{self._host} compressed its answer, which was not asked for")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.response_bytes:
            raise self._too_large()

    def _bounded(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        size = 0
        for block in blocks:
            size += len(block)
            if size > self._limits.response_bytes:
                raise self._too_large()
            yield block

    def _too_large(self) -> RemoteError:
        return RemoteError(
            f"{self._host} answered with more than {self._limits.response_bytes} bytes"
        )


def retry_after_s(text: str) -> float | None:
    """What ``Retry-After`` asks for: seconds, or a date; None where it is neither."""
    from email.utils import parsedate_to_datetime

    text = text.strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
