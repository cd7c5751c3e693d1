"""An ASGI application within the middlewares of a gate."""

from __future__ import annotations

from headgate.adapters._stack import Stack, followed
from headgate.adapters.asgi._cache import CacheMiddleware
from headgate.adapters.asgi._limits import RateLimitMiddleware
from headgate.adapters.asgi._shed import ShedMiddleware

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from headgate.adapters._stack import Gate, GateStats
    from headgate.adapters.asgi._types import App, Receive, Scope, Send

_MIDDLEWARES = RateLimitMiddleware, CacheMiddleware, ShedMiddleware


class GateMiddleware:
    """An application behind what the section http of a gate names; made by `from_gate`."""

    __slots__ = ("_followed", "app")

    def __init__(self, app: App, gate: Gate) -> None:
        self.app = app
        self._followed = followed(gate, lambda http: Stack(
            app, http, http.async_limit, _MIDDLEWARES, {"websockets": http.websockets}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._followed.current.app(scope, receive, send)

    def stats(self) -> GateStats:
        """What the middlewares have counted."""
        stats: GateStats = self._followed.current.stats()
        return stats


def from_gate(app: App, gate: Any) -> GateMiddleware:
    """An ASGI application within the limits, the cache and the shedding of the section http of a gate.

    Requests pass a `RateLimitMiddleware`, a `CacheMiddleware` and a `ShedMiddleware`, as far as the document
    has them, in this order. When it changes, so do they, at once: a request that has begun ends with those
    with which it began. Responses that are cached stay, unless the cache's `policy` or `path` changes.

    Raises TypeError if `gate` is no Gate, ConfigError if the document cannot be applied here, as with a
    limiter that would block the event loop; from then on it refuses such a document.

    >>> from headgate.config import load
    >>> gate = load({"limits": {"api": {"rate": "1/min"}}, "http": {"limit": "api", "keys": "client"}})
    >>> app = from_gate(None, gate)
    >>> app.stats().limit
    {'default': LevelCounts(allowed=0, denied=0, policies={})}
    """
    return GateMiddleware(app, gate)
