"""What a service takes from strangers, and how it refuses the rest: sizes, numbers, times.

`Guard` is the middleware that counts the bytes of a request while they arrive; `GuardedProtocol` is uvicorn's parser with
the limits that lie before a request exists: the size of its headers, the time they take, the number of connections.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

SECONDS_TO_READ = 2.0
"""How long a sender is listened to after an early answer: a connection closed at once would take the answer with it."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """Raises ValueError for a limit that is not positive."""

    body_bytes: int = 16 * 2**20
    """Of one request."""
    files: int = 16
    """Pictures in one request."""
    pixels: int = 16_000_000
    """Width × height of one picture, as its file claims, before it is decoded."""
    receive_seconds: float = 30.0
    """Until the whole request has arrived."""
    answer_seconds: float = 30.0
    """From then until it is answered."""
    queue: int = 256
    """Pictures that wait for the model."""
    buffer_bytes: int = 96 * 2**20
    """Of all requests together, while they are in memory."""
    connections: int = 1000
    """Open at a time."""
    header_bytes: int = 16 * 2**10
    """Of one request's line and headers."""
    header_seconds: float = 10.0
    """Until they have arrived."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"{limit.name}={getattr(self, limit.name)} must be greater than 0")


class Refusal(Exception):
    """A request that is not answered, with the HTTP status and a sentence for its sender."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {"Retry-After": "1"} if status == 503 and headers is None else headers or {}


class Guard:
    """Counts the bytes of each request's body, and of all together, as they arrive.

    The application learns of too many by a Refusal from `receive`: 413 for one request, 503 for all together. What was
    sent beyond the limit is read and thrown away for a while, so that the sender gets to hear why.
    """

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.buffered = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit, got = self.limits.body_bytes, 0
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        too_large = Refusal(
            413, f"the request is larger than the {limit / 2**20:.3g} MB that one may have", {"Connection": "close"}
        )

        async def counted() -> Message:
            nonlocal got
            if got == 0 and int(announced) > limit:
                await self._throw_away(receive)
                raise too_large
            message = await receive()
            size = len(message.get("body", b""))
            got += size
            self.buffered += size
            if got > limit:
                if message.get("more_body"):
                    await self._throw_away(receive)
                raise too_large
            if self.buffered > self.limits.buffer_bytes:
                raise Refusal(
                    503,
                    "too many large requests at once; try again in a moment",
                    {"Retry-After": "1", "Connection": "close"},
                )
            return message

        try:
            return await self.app(scope, counted, send)
        finally:
            self.buffered -= got

    async def _throw_away(self, receive: Receive) -> None:
        left = 4 * self.limits.body_bytes
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return


def guarded_protocol(limits: Limits) -> type[Any]:
    """uvicorn's HTTP protocol, with limits for what comes before a request: it has none of its own."""
    from httptools import HttpParserError
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

    class GuardedProtocol(HttpToolsProtocol):
        """One connection."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.refused = 400, "this is not an HTTP request"
            self._begin_headers()
            if len(self.connections) > limits.connections:
                self.refused = 503, "too many connections; try again in a moment"
                self.send_400_response("")

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            self._header_bytes += len(data)
            super().data_received(data)
            if not self._complete and self._header_bytes > limits.header_bytes and not self.transport.is_closing():
                self._too_much()

        def on_message_begin(self) -> None:
            if self._complete:
                self._begin_headers()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._complete = True
            self._timer.cancel()
            if len(self.url) + sum(4 + len(name) + len(value) for name, value in self.headers) > limits.header_bytes:
                self.refused = 431, "the request's headers are too large"
                raise HttpParserError("headers too large")
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
                # The answer came before the end of the body. Whoever goes on sending gets a moment to read it, no more.
                self.loop.call_later(SECONDS_TO_READ, self.transport.close)

        def _begin_headers(self) -> None:
            self._complete, self._header_bytes = False, 0
            self._timer = self.loop.call_later(limits.header_seconds, self._too_slow)

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.refused = 408, "the request's headers did not arrive in time"
                self.send_400_response("")

        def _too_much(self) -> None:
            self.refused = 431, "the request's headers are too large"
            self.send_400_response("")

        def send_400_response(self, msg: str) -> None:
            """Answer what never became a request, in the form of every other refusal, and close."""
            status, detail = self.refused
            body = json.dumps({"detail": detail}).encode()
            retry = b"retry-after: 1\r\n" if status == 503 else b""
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n" % (
                len(body),
                retry,
            )
            self.transport.write(STATUS_LINE[status] + head + body)
            self.transport.close()

    return GuardedProtocol
