"""The keys of a request: what limits, shedding and caches tell requests apart by, whatever the host.

Each function returns an *extractor*, a callable from a `Request` to a key or None. The views of all hosts
have the same attributes, so that an extractor, one of your own too, serves ASGI, WSGI and Django alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol
from weakref import WeakSet

from headgate._base.checks import checked_callable
from headgate.limit import address_prefix
from headgate.limit._networks import Proxies
from headgate.memoize import lru_cache

__all__ = [
    "Extractor", "Request", "client", "const", "cookie", "header", "method", "path", "route", "user"
]

_MOST_CLIENTS = 4096
_LONGEST_CACHED = 256
_USER_NAMES = ("pk", "identity", "username", "id", "display_name")


class Request(Protocol):
    """A request as extractors see it; each host has a small class of this shape.

    `path` is the whole decoded path that the client has sent, `query` the text after the question mark as it
    was sent, `client` the address of the peer, None if it is unknown or a Unix socket, `host` the Host
    header, `route` the template that the host has matched and `user` what identifies the user that the host
    has authenticated, each None if there is none (yet), and `raw` the scope of ASGI, the environ of WSGI or
    the request of Django.
    """

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def client(self) -> str | None: ...
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def route(self) -> str | None: ...
    @property
    def raw(self) -> Any: ...
    def header(self, name: str) -> str | None:
        """The value of a header, whatever the case of its name, None if there is none. Of several lines it is
        what applications of the host get: the first one under ASGI, all as one elsewhere.
        """
    def lines(self, name: str) -> str | None:
        """All lines of a header as one, None if there are none."""
    def cookie(self, name: str) -> str | None:
        """The value of a cookie, None if there is none. Of several it is the one that applications of the
        host get: the last in Starlette, FastAPI, Litestar and Django, the first in Flask and under WSGI.
        """


Extractor = Callable[[Request], Any]

_OF_NETWORKS: WeakSet[object] = WeakSet()


def client(
    trusted: Iterable[object] | int = (), v4: int = 32, v6: int = 64, *, header: str = "X-Forwarded-For"
) -> Extractor:
    """The address of the client, or its network: the first `v4` or `v6` bits of it.

    `trusted` are the proxies, and `header` the one header that they write, as for `client_address`:
    addresses, networks and ``"unix"``, or how many proxies there are. Without any, the peer is the client, as
    it is where the server replaces it already (uvicorn's ``--forwarded-allow-ips``). A whole address is a key
    as it is, a network has its length: by default ``"192.0.2.17"`` and ``"2001:db8::/64"``; an
    `AddressLimiter` needs ``v6=128``. A peer that is no address is a key as it is named, and one without a
    name is ``"unix"``.

    Raises what `client_address` and `address_prefix` raise.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> request = ASGIRequest({"client": ("10.0.0.1", 5), "headers": [(b"x-forwarded-for", b"2001:db8::17")]})
    >>> client()(request), client(trusted=["10.0.0.0/8"])(request)
    ('10.0.0.1', '2001:db8::/64')
    """
    proxies = Proxies(trusted, header)
    address_prefix("unix", v4, v6)

    def network(peer: str) -> str:
        try:
            prefix = address_prefix(peer, v4, v6)
        except ValueError:
            return peer
        whole = f"/{128 if ':' in prefix else 32}"
        return prefix.removesuffix(whole)

    def walk(peer: str | None, value: str) -> str:
        return network(proxies.client(peer, lambda _: value))

    peers = lru_cache(maxsize=_MOST_CLIENTS)(lambda peer: network(peer or "unix"))
    walks = lru_cache(maxsize=_MOST_CLIENTS)(walk)

    def peer_of(request: Request) -> str:
        return peers(request.client)

    def client_of(request: Request) -> str:
        value = request.lines(header)
        if not value:
            return peers(request.client)
        if len(value) > _LONGEST_CACHED:
            return walk(request.client, value)
        return walks(request.client, value)

    extractor = client_of if trusted else peer_of
    if (v4, v6) != (32, 128):
        _OF_NETWORKS.add(extractor)
    return extractor


def is_of_networks(extractor: object) -> bool:
    """Whether it is a ``client`` whose keys are networks, which no `AddressLimiter` or
    `AddressHash` takes.

    >>> is_of_networks(client()), is_of_networks(client(v6=128)), is_of_networks(path())
    (True, False, False)
    """
    return extractor in _OF_NETWORKS


def header(name: str) -> Extractor:
    """The value of a header, as ``Request.header`` returns it; None, no say, if the request has none.

    Raises ValueError if `name` is empty or not ASCII, TypeError if it is no str.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> header("X-Team")(ASGIRequest({"headers": [(b"x-team", b"blue")]}))
    'blue'
    """
    _checked_name(name)

    def value_of(request: Request) -> str | None:
        return request.header(name)

    return value_of


def cookie(name: str) -> Extractor:
    """The value of a cookie, as ``Request.cookie`` returns it; None, no say, if the request has none.

    Raises what ``header`` raises.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> cookie("sid")(ASGIRequest({"headers": [(b"cookie", b'theme=dark; sid="31d4"')]}))
    '31d4'
    """
    _checked_name(name)

    def value_of(request: Request) -> str | None:
        return request.cookie(name)

    return value_of


def path() -> Extractor:
    """The path, as the client has sent it.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> path()(ASGIRequest({"path": "/orders/7"}))
    '/orders/7'
    """
    return _path


def _path(request: Request) -> str:
    """Without the surrogates that some servers decode other bytes than UTF-8 to, which no key may have."""
    found = request.path
    return found if found.isascii() else found.encode("utf-8", "replace").decode()


def method() -> Extractor:
    """The method.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> method()(ASGIRequest({"method": "GET"}))
    'GET'
    """
    return lambda request: request.method


def route() -> Extractor:
    """The template of the route that the host has matched, as ``"/orders/{number}"``; None, no say, where
    it has matched none yet: in a middleware outside of the router, for example.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> route()(ASGIRequest({"path": "/orders/7"})) is None
    True
    """
    return lambda request: request.route


def user() -> Extractor:
    """What identifies the user that the host has authenticated; None, no say, if there is none.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> user()(ASGIRequest({"user": "ann"})), user()(ASGIRequest({})) is None
    ('ann', True)
    """
    return lambda request: request.user


def const(value: str) -> Extractor:
    """The same key for every request: one limit for all of them.

    Raises TypeError if `value` is no str.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> const("all")(ASGIRequest({}))
    'all'
    """
    if not isinstance(value, str):
        raise TypeError(f"value must be a str, got {value!r}")
    return lambda request: value


def checked_extractor(name: str, value: Any) -> Any:
    """`value`, if it is callable or None, and not one of the functions here that return extractors.

    >>> checked_extractor("key", client)
    Traceback (most recent call last):
    TypeError: key must be what client() returns, got the function client itself
    """
    checked_callable(name, value)
    for maker in (client, const, cookie, header, method, path, route, user):
        if value is maker:
            made = maker.__name__
            raise TypeError(f"{name} must be what {made}() returns, got the function {made} itself")
    return value


def _checked_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {name!r}")
    if not (name and name.isascii()):
        raise ValueError(f"name must be ASCII and not empty, got {name!r}")


def identity(user: Any) -> str | None:
    """What identifies a user: its key in Django, its identity or name in Starlette, that column of a row or
    key of a dict, or the text or number itself.

    Raises TypeError if there is nothing of the kind: a limit of users would have no say about this one.
    """
    if user is None or isinstance(user, str):
        return user
    if isinstance(user, int):
        return str(user)
    if not getattr(user, "is_authenticated", True):
        return None
    found = _names_in_row(user) if hasattr(user, "keys") else _names_of(user)
    if not found:
        raise TypeError(f"user must have one of {', '.join(_USER_NAMES)}, got {user!r}")
    return next((str(name) for name in found if name is not None), None)


def _names_in_row(user: Any) -> list[Any]:
    columns = list(user.keys())
    return [user[name] for name in _USER_NAMES if name in columns]


def _names_of(user: Any) -> list[Any]:
    found = []
    for name in _USER_NAMES:
        try:
            found.append(getattr(user, name))
        except (AttributeError, NotImplementedError):  # Starlette's users need not have an identity
            continue
    return found
