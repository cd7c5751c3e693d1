"""Refusing requests that are ambiguous or go in circles, in front of an ASGI application."""

from __future__ import annotations

import json
from http.client import responses

from headgate.adapters.asgi._refusal import refuse as send_refusal
from headgate.adapters.proxy._fields import Refusal, refusal_of
from headgate.adapters.proxy._hop import Hop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.adapters.asgi._types import App, Receive, Scope, Send
    from headgate.adapters.proxy._fields import Fields

CLOSE = (b"connection", b"close")
_POLICY_VIOLATION = 1008
_LOOP = Refusal(508, "The request has been here before.")
_NO_TARGET = Refusal(400, "The target of the request must be a path.")
_WEB_SOCKET_SCHEMES = {"http": "ws", "https": "wss"}


def refusal_of_scope(scope: Scope, hop: Hop) -> Refusal | None:
    """Why a request or a handshake is not passed on by a hop, or None."""
    if not (scope.get("raw_path") or b"/").startswith(b"/"):
        return _NO_TARGET
    fields = scope["headers"]
    refusal = refusal_of(scope.get("method", "GET"), scope["path"], fields)
    return _LOOP if refusal is None and hop.is_loop(fields) else refusal


async def refuse(
    scope: Scope, receive: Receive, send: Send, refusal: Refusal, *more: tuple[bytes, bytes]
) -> None:
    """Refuse a request or a WebSocket handshake, with problem+json, which no cache may keep.

    `more` are further fields of the response. A handshake is closed with 1008 if the server cannot respond to
    it otherwise, and then gets a 403 of the server.

    >>> import asyncio
    >>> async def send(message):
    ...     print(message.get("status") or message["body"].decode())
    >>> asyncio.run(refuse({"type": "http"}, None, send, Refusal(421, "There is no route.")))
    421
    {"title": "Misdirected Request", "status": 421, "detail": "There is no route."}
    """
    title = responses.get(refusal.status, "Refused")
    body = json.dumps({"title": title, "status": refusal.status, "detail": refusal.reason}).encode()
    fields: Fields = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await send_refusal(scope, receive, send, refusal.status, fields, body, _POLICY_VIOLATION)


def scheme_of(scope: Scope, hop: Hop) -> str:
    """The scheme, of HTTP, that the client has used."""
    said: str = scope["scheme"]
    scheme = {"ws": "http", "wss": "https"}.get(said, said)
    return hop.scheme(scope["headers"], peer_of(scope), scheme)


def peer_of(scope: Scope) -> str | None:
    """The address of the peer, None for a Unix socket."""
    peer = scope.get("client")
    return peer[0] or None if peer else None


class StrictMiddleware:
    """ASGI middleware that refuses requests which two programs could read differently, and those that go in
    circles: the outermost one of a proxy, before its limits and its cache.

    What `refusal_of` refuses gets its status, 400 or 501, and a request that has been at `hop` before 508,
    each with problem+json; WebSocket handshakes are refused likewise. 400 and 501 end the connection. The
    application gets the fields that `Hop.received` returns, and the scheme that the client has used
    (`Hop.scheme`). Other scopes, such as ``lifespan``, pass unchanged. `ReverseProxy` refuses the same by
    itself; this is for what stands between.

    Raises TypeError if `hop` is no `Hop`. Complexity: O(fields).

    >>> import asyncio
    >>> async def send(message):
    ...     print(message.get("status") or message["body"].decode())
    >>> app = StrictMiddleware(None, Hop("paris"))
    >>> asyncio.run(app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send))
    400
    {"title": "Bad Request", "status": 400, "detail": "There must be one Host, and it must be valid."}
    """

    __slots__ = ("_app", "_hop")

    def __init__(self, app: App, hop: Hop) -> None:
        self._app, self._hop = app, checked_hop(hop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = refusal_of_scope(scope, self._hop)
        if refusal is not None:
            await refuse(scope, receive, send, refusal, *([CLOSE] if refusal is not _LOOP else []))
            return
        scheme = scheme_of(scope, self._hop)
        if scope["type"] == "websocket":
            scheme = _WEB_SOCKET_SCHEMES.get(scheme, scheme)
        fields = self._hop.received(scope["headers"])
        await self._app({**scope, "scheme": scheme, "headers": fields}, receive, send)


def checked_hop(hop: Hop) -> Hop:
    """`hop`, if it is one."""
    if not isinstance(hop, Hop):
        raise TypeError(f"hop must be a Hop, got {hop!r}")
    return hop
