"""RateLimitMiddleware for ASGI."""

from __future__ import annotations

from headgate.adapters._limiting import NAMES, Charge, CountsDenied, Limiting
from headgate.adapters.asgi._refusal import refuse, responding
from headgate.adapters.asgi._request import ASGIRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any, Literal

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._limiting import Cost, Keys, Style
    from headgate.adapters.asgi._types import App, Message, Receive, Scope, Send
    from headgate.limit._rules import LevelCounts

_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))


class RateLimitMiddleware(CountsDenied):
    """Limits the requests and WebSocket handshakes of an ASGI application.

    `limits` is a `RateLimits`, a `RateLimiter`, another limiter with their methods, or a rate; `keys` maps
    each of its levels to an extractor (see `headgate.adapters.keys`), or is a single one. A level whose key
    is None has no say. `cost` is a number or a callable from the request view, `exempt` patterns of paths
    (``*`` is any text) or such a callable; extractors and both callables may return awaitables.

    A denied request gets 429 with Retry-After and an application/problem+json body, or the response of the
    application `on_denied`. A denied handshake gets the same where the server has the extension
    ``websocket.http.response``, elsewhere it is closed, which servers turn into 403. `headers` are the fields
    of all responses: ``"draft"`` for RateLimit and RateLimit-Policy, ``"legacy"`` for X-RateLimit-Limit,
    -Remaining and -Reset, ``"both"`` or None. With `dry_run` every request passes, and denials are only
    counted, and marked as ``would_deny``.

    The charge of a request is ``scope["headgate"]`` and ``request.state.headgate``, a `Charge`. A middleware
    further in, and a route's own limit, join it: the request is charged by all or none, and for the same
    limits and keys only once.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range, TypeError if the limiter
    would block the event loop. Complexity: that of ``limits.reserve``.

    >>> import asyncio
    >>> from headgate.adapters.keys import client
    >>> async def hello(scope, receive, send):
    ...     await send({"type": "http.response.start", "status": 200, "headers": []})
    ...     await send({"type": "http.response.body", "body": b"hello"})
    >>> async def send(message):
    ...     print(message.get("status", message.get("body")))
    >>> app = RateLimitMiddleware(hello, "1/min", keys=client())
    >>> scope = {"type": "http", "client": ("192.0.2.1", 5)}
    >>> asyncio.run(app(dict(scope), None, send))
    200
    b'hello'
    >>> asyncio.run(app(dict(scope), None, send))  # doctest: +ELLIPSIS
    429
    b'{"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", ...
    """

    __slots__ = ("_limiting", "app")

    def __init__(self, app: App, limits: Any, *, keys: Keys, cost: Cost = 1, exempt: Exempt = (),
                 headers: Style = "draft", dry_run: bool = False, on_denied: App | None = None) -> None:
        self.app = app
        self._limiting = Limiting(limits, keys=keys, cost=cost, exempt=exempt, headers=headers,
                                  dry_run=dry_run, on_denied=on_denied, asynchronous=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        limiting = self._limiting
        started = limiting.start(ASGIRequest(scope), scope.get("headgate"))
        charge = started if isinstance(started, Charge) else await started
        style = limiting.style
        if style is not None and not charge.written:
            charge.written = True
            send = _writing(send, charge, style)
        # The scope is changed, not copied: middlewares outside of this one read what the router adds to it.
        scope["headgate"] = charge
        scope.setdefault("state", {})["headgate"] = charge
        if not charge:
            await self._deny(scope, receive, send, charge)
            return
        await self.app(scope, receive, send)

    async def _deny(self, scope: Scope, receive: Receive, send: Send, charge: Charge) -> None:
        if self._limiting.on_denied is None:
            await refuse(scope, receive, send, *charge.denial())
            return
        respond = await responding(scope, receive, send)
        if respond is not None:
            await self._limiting.on_denied(scope, receive, respond)

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests each level allowed and denied, and how often each of its policies denied; the
        level of a limiter without any is ``"default"``. What a route's own limit denies counts as allowed
        here.

        >>> from headgate.adapters.keys import const
        >>> RateLimitMiddleware(None, "1/min", keys=const("all")).stats()
        {'default': LevelCounts(allowed=0, denied=0, policies={})}
        """
        return self._limiting.stats()


def _writing(send: Send, charge: Charge, style: Literal["draft", "legacy", "both"]) -> Send:
    """`send`, with the fields of the charge, as it is then, in the start of the response, in place of those
    of the application."""
    names = NAMES[style]

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS and (fields := charge.fields(style)):
            message = {**message}  # the application may send the same message again
            headers = message.get("headers", ())
            for name, _ in headers:  # most applications have none of these
                if name in names:
                    headers = [field for field in headers if field[0] not in names]
                    break
            message["headers"] = [*headers, *fields]
        return send(message)

    return sending
