"""The body of a request on its way, and the client that may leave at any time."""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headgate.adapters.asgi._types import Message, Receive, Scope


class ClientLeft(Exception):
    """The client has closed its connection amid its request."""


class RequestBody:
    """The body of a request, which is read once. `left` says whether its client has left before the response
    was complete, or sent nothing for `idle` seconds; `ended` is set when the response is complete."""

    __slots__ = ("_first", "_idle", "_read", "_receive", "_scope", "ended", "left")

    def __init__(self, scope: Scope, receive: Receive, idle: float) -> None:
        self._scope, self._receive, self._idle = scope, receive, idle
        self._first: Message | None = None
        self._read = asyncio.Event()
        self.left = self.ended = False

    async def is_present(self) -> bool:
        """Whether there is one. HTTP/1.1 says so in the head (RFC 9112 6), HTTP/2 with the first part. Raises
        ClientLeft."""
        if self._scope["http_version"].startswith("1"):
            fields = dict(self._scope["headers"])
            found = b"transfer-encoding" in fields or fields.get(b"content-length", b"").strip(b"0") != b""
        else:
            self._first = message = await self._next()
            found = bool(message.get("body") or message.get("more_body"))
        if not found:
            self._read.set()
        return found

    async def _next(self) -> Message:
        first, self._first = self._first, None
        try:
            async with asyncio.timeout(self._idle):
                message = first or await self._receive()
        except TimeoutError:
            message = {"type": "http.disconnect"}
        if message["type"] == "http.disconnect":
            self.left = True
            raise ClientLeft
        return message

    async def parts(self) -> AsyncIterator[bytes]:
        """The parts as they come. Raises ClientLeft."""
        more = True
        while more:
            message = await self._next()
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]
        self._read.set()

    async def watch(self, exchange: asyncio.Timeout) -> None:
        """Cancel the exchange if the client leaves after its request, before the response has ended."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            await asyncio.sleep(0)  # some drivers repeat the end of the body at once
        if not self.ended:
            self.left = True
            exchange.reschedule(0.0)
