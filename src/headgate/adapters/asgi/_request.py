"""The view of a request that extractors are called with under ASGI."""

from __future__ import annotations

from functools import lru_cache

from headgate.adapters._cookies import last_cookie
from headgate.adapters.keys import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEFAULT_METHOD = "GET"


@lru_cache(maxsize=256)
def _field(name: str) -> bytes:
    """A header name as in a scope."""
    return name.lower().encode("latin-1", "replace")


def _effective(scope: Any) -> Any:
    """The matched route; in recent versions of FastAPI the path of one does not begin with the prefixes of
    the routers that include its own, which are kept beside it.
    """
    route = scope.get("route")
    context = scope.get("fastapi", {}).get("effective_route_context")
    return context if getattr(context, "original_route", None) is route else route


class ASGIRequest:
    """A `headgate.adapters.keys.Request` over a scope; nothing is read before it is asked for.

    The method of a WebSocket handshake is GET. `route` is the template that Starlette or FastAPI has matched,
    with the path that the application is mounted at, and `user` that of Starlette's AuthenticationMiddleware
    or of Channels.

    >>> request = ASGIRequest({"type": "http", "method": "POST", "path": "/a", "query_string": b"b=1",
    ...     "client": ("192.0.2.1", 5), "headers": [(b"host", b"example.com"), (b"te", b"a"), (b"te", b"b")]})
    >>> request.method, request.path, request.query, request.client, request.host, request.header("TE")
    ('POST', '/a', 'b=1', '192.0.2.1', 'example.com', 'a')
    """

    __slots__ = ("raw",)

    def __init__(self, scope: Any) -> None:
        self.raw: Any = scope

    @property
    def method(self) -> str:
        return str(self.raw.get("method", _DEFAULT_METHOD))

    @property
    def path(self) -> str:
        return str(self.raw.get("path", ""))

    @property
    def query(self) -> str:
        return str(self.raw.get("query_string", b""), "latin-1")

    @property
    def client(self) -> str | None:
        peer = self.raw.get("client")
        return peer[0] or None if peer else None

    @property
    def scheme(self) -> str:
        return str(self.raw.get("scheme", "http"))

    @property
    def host(self) -> str:
        return self.header("host") or ""

    @property
    def route(self) -> str | None:
        template = getattr(_effective(self.raw), "path", None)
        return None if template is None else f"{self.raw.get('root_path', '')}{template}"

    @property
    def user(self) -> str | None:
        return identity(self.raw.get("user"))

    def header(self, name: str) -> str | None:
        """The value of a header, the first of several lines; None if there is none. Cookie is never more than
        one, as HTTP/2 splits it.
        """
        wanted = _field(name)
        if wanted == b"cookie":
            return self.lines(name)
        for field, value in self.raw.get("headers", ()):
            if field == wanted:
                return str(value, "latin-1")
        return None

    def lines(self, name: str) -> str | None:
        """The value of a header, several lines as one; None if there is none."""
        wanted, found = _field(name), None
        for field, value in self.raw.get("headers", ()):
            if field == wanted:
                if found is not None:
                    return self._joined(wanted)
                found = value
        return None if found is None else str(found, "latin-1")

    def _joined(self, wanted: bytes) -> str:
        values = [value for field, value in self.raw["headers"] if field == wanted]
        return str((b"; " if wanted == b"cookie" else b", ").join(values), "latin-1")

    def cookie(self, name: str) -> str | None:
        """The value of a cookie, the last of several; None if there is none."""
        return last_cookie(self.lines("cookie") or "", name)
