"""The dashboard for ASGI."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from time import monotonic

from headgate.adapters.asgi._refusal import refuse
from headgate.adapters.asgi._request import ASGIRequest
from headgate.adapters.dashboard._access import checked_allow
from headgate.adapters.dashboard._feed import event
from headgate.adapters.dashboard._pages import (
    COMMENT,
    DATA,
    EVENTS,
    LONGEST,
    PATIENCE,
    Pages,
    busy,
    forbidden,
    relative,
    stream_fields,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from headgate.adapters.asgi._types import Receive, Scope, Send
    from headgate.adapters.dashboard._access import Allow
    from headgate.adapters.dashboard._masking import Mask
    from headgate.adapters.dashboard._pages import Response

_STALLED = 30.0
"""After how many seconds a client that takes nothing is cut."""


class ASGIDashboard:
    """The dashboard as an ASGI application: see ``headgate.adapters.dashboard.asgi``."""

    __slots__ = ("_allow", "_pages")

    def __init__(self, source: Any, *, allow: Allow, trusted: Iterable[object] | int, mask: Mask,
                 every: float, viewers: int) -> None:
        self._allow = checked_allow(allow, trusted, True)
        self._pages = Pages(source, mask, every, viewers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        allowed = self._allow(ASGIRequest(scope))
        if not (await allowed if isawaitable(allowed) else allowed) or scope["type"] != "http":
            await refuse(scope, receive, send, *forbidden())
            return
        method, mount = scope["method"], scope.get("root_path", "")
        path = relative(scope["path"], mount)
        if path == EVENTS and method == "GET":
            await self._stream(receive, send)
        elif path == DATA:
            await _send(scope, send, await asyncio.to_thread(self._pages.respond, method, path, mount))
        else:
            await _send(scope, send, self._pages.respond(method, path, mount))

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Send documents until the client has left, takes nothing for long, or has had its time."""
        feed = self._pages.feed
        if not feed.enter():
            await _send({}, send, busy())
            return
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": stream_fields()})
            await self._follow(gone, send)
        finally:
            feed.leave()
            gone.cancel()

    async def _follow(self, gone: asyncio.Task[None], send: Send) -> None:
        feed, end = self._pages.feed, monotonic() + LONGEST
        part = await asyncio.to_thread(self._pages.opening)
        seen = feed.changes.number
        while not gone.done() and monotonic() < end:
            try:
                async with asyncio.timeout(_STALLED):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except TimeoutError:
                return
            changed = await feed.changes.wait_async(seen, PATIENCE)
            seen = feed.changes.number
            part = event(feed.latest()) if changed else COMMENT
        if not gone.done():
            await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(scope: Scope, send: Send, response: Response) -> None:
    body = b"" if scope.get("method") == "HEAD" else response.body
    await send({"type": "http.response.start", "status": response.status, "headers": response.fields})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    """The events of a server at which this is the only application."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
