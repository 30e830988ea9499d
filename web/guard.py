"""What every request passes: key, size of its body, room; and what every answer carries.

It wraps the whole application, so there is no route that it does not guard.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.text import visible
from web.limits import LIMITS, Access, is_loopback

log = logging.getLogger("quire.web")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Told = Callable[[str, str, int], None]
"""Told of each answer: method, route, status."""


GONE = 499
"""What is counted for a client that went away: it gets no answer."""


class Room:
    """So many at the same time, without waiting; of one event loop."""

    def __init__(self, most: int) -> None:
        self._left = most

    def acquire(self) -> bool:
        """Take a place; False where there is none."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def release(self) -> None:
        """Give it back."""
        self._left += 1


class Guard:
    """The application behind its guard.

    Args:
        app: What answers.
        access: Who may ask.
        told: Told of each answer, for metrics.
    """

    def __init__(self, app: ASGIApp, access: Access, told: Told) -> None:
        self._app = app
        self._access = access
        self._told = told
        self._key = _digest(access.api_key)
        self._room = Room(LIMITS.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        begun = False

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                begun, status = True, message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            refusal = self._refused(scope)
            if refusal is not None:
                await _discard(receive)
                await _reply(answer, *refusal)
            elif not self._room.acquire():
                await _reply(answer, 503, "too many requests at the same time; try again shortly")
            else:
                try:
                    await self._app(scope, _counted(scope, receive), answer)
                finally:
                    self._room.release()
        except ClientDisconnect:
            status = GONE
        except Exception as error:
            number = secrets.token_hex(4)
            log.exception("request %s failed: %s", number, visible(str(error))[:500])
            if not begun:
                reason = f"something went wrong here; the service's log has it under {number}"
                await _reply(answer, 500, reason)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "") or "other"
            self._told(scope["method"], path, status)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if self._access.api_key:
            given = headers.get("x-api-key", "")
            kind, _, token = headers.get("authorization", "").partition(" ")
            if kind.lower() == "bearer":
                given = given or token.strip()
            if not hmac.compare_digest(_digest(given), self._key):
                return 401, "an API key is required: Authorization: Bearer KEY, or X-API-Key: KEY"
        elif not is_loopback(_host(headers.get("host", ""))):
            # A page of a browser here could reach this address under a name of its own.
            return 421, "without a key the service answers to localhost alone"
        elif _is_of_another_page(headers):
            return 403, "without a key the service answers no page of another address"
        length = headers.get("content-length", "0")
        most = LIMITS.upload_bytes if _is_upload(scope) else LIMITS.body_bytes
        if not length.isdecimal():
            return 400, "the length of the body is no number"
        if int(length) > most:
            return 413, _too_large(most)
        return None


def _digest(key: str) -> bytes:
    """Compared instead of the key, whose length would show."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]


def _is_of_another_page(headers: Headers) -> bool:
    """Whether a browser sends this for a page from elsewhere, which may send files unasked."""
    origin = headers.get("origin", "")
    elsewhere = bool(origin) and urlsplit(origin).netloc != headers.get("host", "")
    return elsewhere or headers.get("sec-fetch-site", "") == "cross-site"


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"] == "/documents"


def _too_large(most: int) -> str:
    return f"the body may have {most:,} bytes"


def _counted(scope: Scope, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """The body, up to what it may have: its stated length proves nothing."""
    if _is_upload(scope):
        return receive  # which counts for itself
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LIMITS.body_bytes:
            await _discard(receive)
            raise HTTPException(413, _too_large(LIMITS.body_bytes))
        return message

    return counted


async def _discard(receive: Receive) -> None:
    """Read what a client that is refused is sending, up to a point.

    Were the connection closed on it earlier, it would see that instead of the answer.
    """
    left = LIMITS.discarded_bytes
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LIMITS.discarding_s):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    break


async def _reply(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"reason": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 503:
        headers.append((b"retry-after", b"2"))
    if status in (401, 413, 503):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
