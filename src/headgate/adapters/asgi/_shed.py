"""Shedding load in front of an ASGI application."""

from __future__ import annotations

from inspect import isawaitable

from headgate.adapters._shedding import (
    HEALTH_CHECKS,
    OVERLOADED,
    PROBLEM,
    STATUS,
    Shedding,
    outcome_of_error,
)
from headgate.adapters.asgi._refusal import refuse
from headgate.adapters.asgi._request import ASGIRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._shedding import ShedStats
    from headgate.adapters.asgi._types import App, Message, Receive, Scope, Send
    from headgate.adapters.keys import Extractor
    from headgate.limit import ConcurrencyLimiter, Permit

_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_ENDS = frozenset({
    "http.response.body", "http.response.pathsend", "http.response.zerocopysend",
    "websocket.close", "websocket.http.response.body",
})
_DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


def _is_health_check(scope: Scope) -> bool:
    """Whether the path is one of a health check; servers put their ``root_path`` before that of a probe."""
    path, root = scope["path"], scope.get("root_path")
    return path in HEALTH_CHECKS or (bool(root) and path.removeprefix(root) in HEALTH_CHECKS)


class _Exchange:
    """A request that was admitted: what its application receives and sends, until the permit is released."""

    __slots__ = ("_open", "_permit", "_receive", "_send")

    def __init__(self, permit: Permit, receive: Receive, send: Send) -> None:
        self._permit, self._receive, self._send = permit, receive, send
        self._open = True

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] in _DISCONNECTS:
            self.end()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in _STARTS:
            self._permit.observe("dropped" if message.get("status") in OVERLOADED else "success")
        try:
            await self._send(message)
        except OSError:  # the client is gone
            self.end()
            raise
        if kind in _ENDS and not message.get("more_body"):
            self.end()

    def end(self, outcome: Literal["dropped", "ignored"] = "ignored") -> None:
        """Release the permit; `outcome` is that of a request without a response."""
        if self._open:
            self._open = False
            self._permit.release(outcome)


class ShedMiddleware:
    """ASGI middleware that passes on as many requests at a time as `limiter` admits, and responds to the
    others at once: 503 Service Unavailable, with Retry-After and problem+json.

    A request is in flight until its last body message is sent, until the application fails or is cancelled,
    or until ``receive`` or ``send`` reports that the client is gone. A connection without a request is not.
    The latency that the limiter adapts to ends with the start of the response. Responses with 503 or 504, and
    TimeoutErrors of the application, count as dropped; its other errors, and requests that end without a
    response, are ignored.

    `priority` is called with each request, as the extractors of `headgate.adapters.keys` are, and returns one
    of the limiter's priorities, or an awaitable; None and names that the limiter does not have are the
    lowest. `exempt` are paths, patterns such as ``"/static/*"``, or a callable, of requests that pass without
    a permit; ``/health``, ``/healthz``, ``/livez``, ``/ping`` and ``/readyz`` always do. `retry_after` is in
    seconds. WebSockets pass without a permit too, unless `websockets` is true: then each holds one until it
    is closed, and is refused during its handshake.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type, or if `limiter` has
    priorities and there is no `priority`, or the reverse. Errors of `priority` and `exempt` are passed on.
    Complexity: O(1); with a limiter with a ``path``, that of its ``acquire``. No call waits for another.

    >>> import asyncio
    >>> from headgate import ConcurrencyLimiter
    >>> async def hello(scope, receive, send):
    ...     await send({"type": "http.response.start", "status": 200, "headers": []})
    ...     await send({"type": "http.response.body", "body": b"hello"})
    >>> async def send(message):
    ...     print(message.get("status") or message["body"])
    >>> app = ShedMiddleware(hello, ConcurrencyLimiter(20))
    >>> asyncio.run(app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send))
    200
    b'hello'
    >>> app.stats()
    ShedStats(admitted={None: 1}, shed={None: 0}, inflight=0, limit=20)
    """

    def __init__(self, app: App, limiter: ConcurrencyLimiter, *, priority: Extractor | None = None,
                 exempt: Exempt = (), retry_after: int = 1, websockets: bool = False) -> None:
        self._app = app
        self._shedding = Shedding(limiter, priority, exempt, retry_after)
        self._kinds = ("http", "websocket") if websockets else ("http",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shedding = self._shedding
        if scope["type"] not in self._kinds or _is_health_check(scope):
            await self._app(scope, receive, send)
            return
        if shedding.exempt is not None:
            exempt = shedding.exempt(ASGIRequest(scope))
            if await exempt if isawaitable(exempt) else exempt:
                await self._app(scope, receive, send)
                return
        name = None
        if shedding.priority is not None:
            name = shedding.priority(ASGIRequest(scope))
            if name.__class__ is not str and isawaitable(name):
                name = await name
        permit = shedding.admit(name)
        if not permit:
            await refuse(scope, receive, send, STATUS, shedding.fields(), PROBLEM)
            return
        exchange = _Exchange(permit, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.end(outcome_of_error(error))
            raise
        exchange.end()

    def stats(self) -> ShedStats:
        """The requests of this process that were admitted and shed, by priority, and the limiter's state.

        >>> from headgate import ConcurrencyLimiter
        >>> ShedMiddleware(None, ConcurrencyLimiter(20)).stats().limit
        20
        """
        return self._shedding.stats()
