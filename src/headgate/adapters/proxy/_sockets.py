"""WebSockets on their way through a proxy."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import WSMsgType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientWebSocketResponse

    from headgate.adapters.asgi._types import Receive, Send
    from headgate.adapters.proxy._fields import Fields

BAD_GATEWAY = 1014
_NORMAL, _GOING_AWAY, _INTERNAL_ERROR = 1000, 1001, 1011
_NO_STATUS = 1005
_RESERVED = frozenset((1004, _NO_STATUS, 1006, 1015))
"""Codes that no endpoint may send: RFC 6455 7.4.1."""


def without_handshake(fields: Fields) -> Fields:
    """The fields of a handshake without those that each connection makes itself: RFC 6455 11.3."""
    return [field for field in fields if not field[0].startswith(b"sec-websocket-")]


async def pump(quiet: float, receive: Receive, send: Send, socket: ClientWebSocketResponse) -> None:
    """Pass messages on both ways until one side ends, or says nothing for `quiet` seconds."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(quiet) as limit:

            def moved() -> None:
                if not limit.expired():
                    limit.reschedule(loop.time() + quiet)

            ways = [
                asyncio.create_task(_pump_up(receive, socket, moved)),
                asyncio.create_task(_pump_down(socket, send, moved)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
    except TimeoutError:
        await send({"type": "websocket.close", "code": _GOING_AWAY})


async def _pump_up(receive: Receive, socket: ClientWebSocketResponse, moved: Callable[[], None]) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        moved()
        if message.get("text") is not None:
            await socket.send_str(message["text"])
        else:
            await socket.send_bytes(message["bytes"])
    code = message.get("code") or _NO_STATUS
    await socket.close(code=_sendable(code, _GOING_AWAY), message=(message.get("reason") or "").encode())


async def _pump_down(socket: ClientWebSocketResponse, send: Send, moved: Callable[[], None]) -> None:
    async for message in socket:
        moved()
        if message.type is WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        else:  # an error, such as a message that is too long
            break
    with suppress(Exception):  # the client may be gone
        await send({"type": "websocket.close", "code": _sendable(socket.close_code or 1006, _INTERNAL_ERROR)})


def _sendable(code: int, otherwise: int) -> int:
    """A close code that may be sent, for one that was received, or in place of none."""
    if code == _NO_STATUS:
        return _NORMAL
    return otherwise if code in _RESERVED else code
