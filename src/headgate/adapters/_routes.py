"""What the limits of single routes share, whatever the host: one limiter, keys by route."""

from __future__ import annotations

from inspect import isawaitable

from headgate.adapters._limiting import Limiting
from headgate.adapters.keys import checked_extractor, client, path
from headgate.limit import AddressLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._limiting import Cost, Style
    from headgate.adapters.keys import Extractor, Request

_METHODS = frozenset(("CONNECT", "DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))

_path_of = path()


def _counted_method(method: str) -> str:
    """What a method counts as: clients may invent methods, which would have limits of their own."""
    if method in _METHODS:
        return method
    return "GET" if method == "HEAD" else "other"


def named_key(name: str, key: Any) -> str:
    """A key of a limiter within the limits of a name.

    Raises TypeError if `key` is of another type than those of limiters: the text of an object would often
    be another one for each request.

    >>> named_key("exports", 7)
    'exports\\n7'
    """
    if isinstance(key, bytes):
        key = key.decode("latin-1")
    elif not isinstance(key, (str, int)):
        raise TypeError(f"key must be str, bytes or int, got {key!r}")
    return f"{name}\n{key}"


class RouteKey:
    """An extractor whose keys differ by route and method, or by the name `shared` if there is one. HEAD
    counts as GET, and all methods that HTTP does not define count as one.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> RouteKey(lambda request: "ann", None)(ASGIRequest({"path": "/orders", "method": "GET"}))
    'GET /orders\\nann'
    """

    __slots__ = ("_key", "_shared")

    def __init__(self, key: Extractor, shared: str | None) -> None:
        self._key, self._shared = key, shared

    def __call__(self, request: Request) -> str | Awaitable[str | None] | None:
        key = self._key(request)
        if type(key) is not str and isawaitable(key):
            return self._later(request, key)
        return self._named(request, key)

    async def _later(self, request: Request, key: Awaitable[Any]) -> str | None:
        return self._named(request, await key)

    def _named(self, request: Request, key: Any) -> str | None:
        if key is None:
            return None
        if self._shared is not None:
            return named_key(self._shared, key)
        return named_key(f"{_counted_method(request.method)} {request.route or _path_of(request)}", key)


def route_limiting(limits: Any, *, key: Extractor | None, shared: str | None, cost: Cost, exempt: Exempt,
                   headers: Style, dry_run: bool, asynchronous: bool = False) -> Limiting:
    """The `Limiting` of single routes; `key` is ``client()`` if it is None.

    Raises TypeError if `limits` has levels or takes addresses only, and what `Limiting` raises.

    >>> from headgate.adapters.wsgi import WSGIRequest
    >>> options = {"key": None, "shared": None, "cost": 1, "exempt": (), "headers": None, "dry_run": False}
    >>> limiting = route_limiting("1/min", **options)
    >>> [bool(limiting.charge(WSGIRequest({"PATH_INFO": path, "REMOTE_ADDR": "::1"}))) for path in "aab"]
    [True, False, True]
    """
    if hasattr(getattr(limits, "rates", None), "keys") or isinstance(limits, AddressLimiter):
        raise TypeError(f"limits must be a rate or a limiter by key of any text, got {limits!r}")
    if shared is not None and not isinstance(shared, str):
        raise TypeError(f"shared must be a str or None, got {shared!r}")
    keys = RouteKey(checked_extractor("key", key) or client(), shared)
    return Limiting(limits, keys=keys, cost=cost, exempt=exempt, headers=headers, dry_run=dry_run,
                    asynchronous=asynchronous)
