"""A WSGI application within the middlewares of a gate."""

from __future__ import annotations

from headgate.adapters._stack import Stack, followed
from headgate.adapters.wsgi._cache import CacheMiddleware
from headgate.adapters.wsgi._limits import RateLimitMiddleware
from headgate.adapters.wsgi._shed import ShedMiddleware

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from headgate.adapters._stack import Gate, GateStats

_MIDDLEWARES = RateLimitMiddleware, CacheMiddleware, ShedMiddleware


class GateMiddleware:
    """An application behind what the section http of a gate names; made by `from_gate`."""

    __slots__ = ("_followed", "app")

    def __init__(self, app: WSGIApplication, gate: Gate) -> None:
        self.app = app
        self._followed = followed(gate, lambda http: Stack(app, http, http.limit, _MIDDLEWARES, {}))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response: Iterable[bytes] = self._followed.current.app(environ, start_response)
        return response

    def stats(self) -> GateStats:
        """What the middlewares have counted."""
        stats: GateStats = self._followed.current.stats()
        return stats


def from_gate(app: WSGIApplication, gate: Any) -> GateMiddleware:
    """A WSGI application within the limits, the cache and the shedding of the section http of a gate.

    Requests pass a `RateLimitMiddleware`, a `CacheMiddleware` and a `ShedMiddleware`, as far as the document
    has them, in this order. When it changes, so do they, at once: a request that has begun ends with those
    with which it began. Responses that are cached stay, unless the cache's `policy` or `path` changes.

    Raises TypeError if `gate` is no Gate, ConfigError if the document cannot be applied here; from then on it
    refuses such a document.

    >>> from headgate.config import load
    >>> gate = load({"limits": {"api": {"rate": "1/min"}}, "http": {"limit": "api", "keys": "client"}})
    >>> app = from_gate(None, gate)
    >>> app.stats().limit
    {'default': LevelCounts(allowed=0, denied=0, policies={})}
    """
    return GateMiddleware(app, gate)
