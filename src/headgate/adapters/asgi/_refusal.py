"""Responses to requests and WebSocket handshakes that do not reach the application."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable

    from headgate.adapters.asgi._types import Fields, Message, Receive, Scope, Send

HANDSHAKE = "websocket.http.response"
TRY_AGAIN_LATER = 1013


async def responding(
    scope: Scope, receive: Receive, send: Send, code: int = TRY_AGAIN_LATER
) -> Send | None:
    """`send` for a response of HTTP to a request or a handshake.

    Returns None for a handshake where the server has no extension for that: then it has been closed with
    `code`, which servers turn into a 403.
    """
    if scope["type"] != "websocket":
        return send
    await receive()  # websocket.connect, before which nothing may be sent
    if HANDSHAKE not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": code})
        return None

    def sending(message: Message) -> Awaitable[None]:
        if message["type"].startswith("http.response."):
            message = {**message, "type": f"websocket.{message['type']}"}
        return send(message)

    return sending


async def refuse(
    scope: Scope, receive: Receive, send: Send, status: int, fields: Fields, body: bytes,
    code: int = TRY_AGAIN_LATER,
) -> None:
    """Respond to a request or a handshake with a status, header fields and a body; a handshake is closed with
    `code` where the server cannot respond to it."""
    respond = await responding(scope, receive, send, code)
    if respond is not None:
        await respond({"type": "http.response.start", "status": status, "headers": fields})
        await respond({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
