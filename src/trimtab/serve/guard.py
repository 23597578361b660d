"""What every request passes first: who asks, from where, how much; and what every answer says to browsers."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.serve.limits import ApiError, Limits, late

if TYPE_CHECKING:
    from trimtab.serve.metrics import Metrics

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOCAL = ("localhost", "127.0.0.1", "[::1]")
_OPEN = ("/health", "/")
_PAGE = "/page/"  # the page itself is no secret; it asks for the key


class Guard:
    """An ASGI layer around the whole server.

    `key`: what a client must show (None: nothing). `hosts`: names by which a browser may call the server, None for
    any; on loopback this is what keeps a web page from reaching it by rebinding its own name. `origins`: of pages that
    may call it besides its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        hosts: Collection[str] | None,
        origins: Collection[str],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.app, self.hosts, self.origins = app, hosts, frozenset(origins)
        self.key = None if key is None else key.encode()
        self.body_bytes, self.seconds, self.metrics = limits.body_bytes, limits.seconds, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers = time.monotonic(), Headers(scope=scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mine = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    mine.setdefault(name, value)
                self._allow(headers.get("origin"), mine)
                self.metrics.first.labels(_path(scope)).observe(time.monotonic() - began)
            await send(message)

        try:
            self._check(scope, headers)
            if scope["method"] == "OPTIONS" and "origin" in headers:
                await _send(answer, 204, b"", {})
                return
            await self.app(scope, self._counted(receive), answer)
        except ApiError as error:
            if not status:
                await _send(answer, error.status, json.dumps(error.body()).encode(), error.more_headers())
        finally:
            path = _path(scope)
            self.metrics.requests.labels(path, str(status or 499)).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - began)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.hosts is not None and name not in self.hosts:
            raise ApiError(403, "This server is not known by the name in the Host header.", code="host")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and origin.partition("://")[2] != host:
            raise ApiError(403, "Pages of this origin may not use this server (see --allow-origin).", code="origin")
        preflight = scope["method"] == "OPTIONS" and origin is not None
        shown = scope["path"] in _OPEN or scope["path"].startswith(_PAGE)
        if self.key is not None and not shown and not preflight:
            self._check_key(headers)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self.body_bytes:
            raise self._too_large()
        if scope["method"] in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "The body must be JSON, with Content-Type: application/json.", code="content_type")

    def _check_key(self, headers: Headers) -> None:
        """Constant-time, whatever is given."""
        assert self.key is not None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-secret-key", "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.key):
            raise ApiError(
                401, "The API key is missing or wrong: send Authorization: Bearer KEY.", code="invalid_api_key"
            )

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is larger than {self.body_bytes} bytes, this server's limit.", code="too_large")

    def _counted(self, receive: Receive) -> Receive:
        seen, whole = 0, False

        async def counted() -> Message:
            nonlocal seen, whole
            try:
                async with asyncio.timeout(None if whole else self.seconds):
                    message = await receive()
            except TimeoutError:
                raise late(self.seconds) from None
            whole = whole or not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self.body_bytes:
                raise self._too_large()
            return message

        return counted

    def _allow(self, origin: str | None, headers: MutableHeaders) -> None:
        if origin is not None and origin in self.origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            headers["Access-Control-Allow-Headers"] = "authorization, content-type, x-secret-key"
            headers["Vary"] = "Origin"


def _path(scope: Scope) -> str:
    """The route, not the address: an address may hold anything, and would make as many counters."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


async def _send(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    pairs = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    pairs += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
