"""The view of a request that extractors are called with under WSGI."""

from __future__ import annotations

from functools import lru_cache

from headgate.adapters._cookies import first_cookie

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WITHOUT_PREFIX = frozenset(("CONTENT_LENGTH", "CONTENT_TYPE"))


@lru_cache(maxsize=256)
def variable(name: str) -> str:
    """The name of a header in an environ.

    >>> variable("X-Forwarded-For"), variable("content-type")
    ('HTTP_X_FORWARDED_FOR', 'CONTENT_TYPE')
    """
    found = name.upper().replace("-", "_")
    return found if found in _WITHOUT_PREFIX else f"HTTP_{found}"


def decoded(text: str) -> str:
    """A path of an environ, where each character stands for a byte, decoded as UTF-8."""
    return text if text.isascii() else text.encode("latin-1", "replace").decode("utf-8", "replace")


class WSGIRequest:
    """A `headgate.adapters.keys.Request` over an environ; nothing is read before it is asked for.

    `path` begins with that at which the application is mounted. `user` is REMOTE_USER, and there is no
    `route`: WSGI has no place for it. Servers may pass on ``X_Forwarded_For`` as ``X-Forwarded-For``, since
    an environ cannot tell them apart; gunicorn drops the former.

    >>> request = WSGIRequest({"REQUEST_METHOD": "POST", "SCRIPT_NAME": "/shop", "PATH_INFO": "/a",
    ...     "QUERY_STRING": "b=1", "REMOTE_ADDR": "192.0.2.1", "HTTP_HOST": "example.com", "HTTP_TE": "a, b"})
    >>> request.method, request.path, request.query, request.client, request.host, request.header("TE")
    ('POST', '/shop/a', 'b=1', '192.0.2.1', 'example.com', 'a, b')
    """

    __slots__ = ("raw",)

    def __init__(self, environ: Any) -> None:
        self.raw: Any = environ

    @property
    def method(self) -> str:
        return str(self.raw.get("REQUEST_METHOD", "GET"))

    @property
    def path(self) -> str:
        return decoded(self.raw.get("SCRIPT_NAME", "") + self.raw.get("PATH_INFO", ""))

    @property
    def query(self) -> str:
        return str(self.raw.get("QUERY_STRING", ""))

    @property
    def client(self) -> str | None:
        return self.raw.get("REMOTE_ADDR") or None

    @property
    def scheme(self) -> str:
        return str(self.raw.get("wsgi.url_scheme", "http"))

    @property
    def host(self) -> str:
        return str(self.raw.get("HTTP_HOST", ""))

    @property
    def route(self) -> str | None:
        return None

    @property
    def user(self) -> str | None:
        return self.raw.get("REMOTE_USER") or None

    def header(self, name: str) -> str | None:
        """The value of a header, several lines as the server has joined them; None if there is none."""
        return self.raw.get(variable(name))  # type: ignore[no-any-return]

    def lines(self, name: str) -> str | None:
        """The same as ``header``."""
        return self.header(name)

    def cookie(self, name: str) -> str | None:
        """The value of a cookie, the first of several; None if there is none."""
        return first_cookie(self.raw.get("HTTP_COOKIE", ""), name)
