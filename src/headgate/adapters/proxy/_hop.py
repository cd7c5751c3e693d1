"""A proxy on the way of messages: which fields it adds, and what it believes of other proxies."""

from __future__ import annotations

from headgate._base.checks import checked_int, checked_iterable
from headgate.adapters.proxy._fields import (
    TOKEN,
    end_to_end,
    members_of,
    values_of,
    without_connection_options,
    without_final_dot,
)
from headgate.limit._networks import UNIX, address_of, trusted_networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.adapters.proxy._fields import AnyFields, Fields

_OF_PROXIES = frozenset((b"host", b"forwarded", b"via", b"cdn-loop"))
_NOT_PASSED = _OF_PROXIES | {b"expect", b"proxy"}
"""Expect is met by the server that received the request (RFC 9110 10.1.1); CGI programs take Proxy for their
own proxy."""
_UNKNOWN = "unknown"
_SCHEMES = frozenset((b"http", b"https"))


class Hop:
    """This proxy as one hop of those between a client and an origin: the fields that it removes and adds.

    `name` is its pseudonym in Via (RFC 9110 7.6.3) and CDN-Loop (RFC 8586), the same for all processes of a
    point of presence and of no other one.

    `trusted` are the proxies whose word about their clients is believed, as for `client_address`: addresses
    and networks, and ``"unix"``. Their X-Forwarded-For and X-Forwarded-Proto are passed on; what
    others say in these is dropped. Forwarded (RFC 7239) is always made of X-Forwarded-For, since a proxy that
    knows only one of the two passes on the other one as its client sent it.

    `internal` are beginnings of names of fields that only the proxy itself sets, between its middlewares:
    they are removed from what comes in and from what goes out. So is every field with an underscore in its
    name, which CGI and WSGI cannot tell from one with a hyphen. A request that has passed more than
    `max_hops` proxies is taken for a loop.

    Raises TypeError or ValueError if an argument has the wrong type or is out of range. It cannot be changed,
    and is safe to share.

    >>> hop = Hop("paris", ["10.0.0.0/8"])
    >>> request = [(b"host", b"a.example"), (b"x-forwarded-for", b"6.6.6.6")]
    >>> for name, value in hop.request_fields(request, "192.0.2.1", "https", "1.1"):
    ...     print(f"{name.decode()}: {value.decode()}")
    host: a.example
    via: 1.1 paris
    forwarded: for=192.0.2.1;host=a.example;proto=https
    x-forwarded-for: 192.0.2.1
    x-forwarded-host: a.example
    x-forwarded-proto: https
    cdn-loop: paris
    """

    __slots__ = ("_internal", "_max_hops", "_pseudonym", "_trusts", "name")

    def __init__(self, name: str, trusted: Iterable[object] = (), *, internal: Iterable[str] = (),
                 max_hops: int = 8) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {name!r}")
        if not name.isascii() or not TOKEN.fullmatch(name.encode()):
            raise ValueError(f"name must be a token, of letters, digits and hyphens, got {name!r}")
        if checked_int("max_hops", max_hops) < 1:
            raise ValueError(f"max_hops must be positive, got {max_hops!r}")
        self.name = name
        self._pseudonym = name.encode()
        self._trusts = trusted_networks(tuple(checked_iterable("trusted", trusted)))
        self._internal = tuple([_checked_beginning(each) for each in checked_iterable("internal", internal)])
        self._max_hops = max_hops

    def __repr__(self) -> str:
        return f"Hop({self.name!r})"

    def trusts(self, peer: str | None) -> bool:
        """Whether a peer is a trusted proxy; None is one at a Unix socket. Complexity: O(networks).

        >>> hop = Hop("paris", ["10.0.0.0/8"])
        >>> hop.trusts("10.1.2.3"), hop.trusts("::ffff:10.1.2.3"), hop.trusts("192.0.2.1"), hop.trusts(None)
        (True, True, False, False)
        """
        return self._trusts(peer or UNIX)

    def scheme(self, fields: AnyFields, peer: str | None, scheme: str) -> str:
        """The scheme that the client has used: what a trusted peer says in X-Forwarded-Proto, else `scheme`,
        that of the connection.

        >>> hop, fields = Hop("paris", ["10.0.0.1"]), [(b"x-forwarded-proto", b"https")]
        >>> hop.scheme(fields, "10.0.0.1", "http"), hop.scheme(fields, "192.0.2.1", "http")
        ('https', 'http')
        """
        said = values_of(fields, b"x-forwarded-proto").lower()
        return said.decode() if said in _SCHEMES and self.trusts(peer) else scheme

    def is_loop(self, fields: AnyFields) -> bool:
        """Whether a request has been here, by CDN-Loop (RFC 8586 2) or Via (RFC 9110 7.6.3), or has passed
        more than `max_hops` proxies.

        >>> hop = Hop("paris")
        >>> hop.is_loop([(b"cdn-loop", b"other; a=b, Paris")]), hop.is_loop([(b"via", b"1.1 paris.example")])
        (True, False)
        """
        own, hops = self._pseudonym.lower(), members_of(fields, b"via")
        return (
            len(hops) > self._max_hops
            or any(own in hop.lower().split()[1:2] for hop in hops)
            or any(own == loop.partition(b";")[0].strip().lower() for loop in members_of(fields, b"cdn-loop"))
        )

    def received(self, fields: AnyFields) -> Fields:
        """The fields of a request for the proxy's own middlewares: none that is `internal`, has an underscore
        or is named by Connection, and a Host without a final dot.

        The origin does not see these: a cache that did would store a response for others by them. Nginx takes
        ``a.example.`` for ``a.example``, so a route, a limit or a purge of the one concerns the other.

        >>> hop = Hop("paris", internal=["x-edge-"])
        >>> hop.received([(b"x-edge-region", b"moon"), (b"x_a", b"b"), (b"x", b"y")])
        [(b'x', b'y')]
        """
        passed = [field for field in without_connection_options(fields) if not self._is_refused(field[0])]
        return without_final_dot(passed)

    def request_fields(self, fields: AnyFields, peer: str | None, scheme: str, version: str) -> Fields:
        """The fields that a request is passed on with.

        `peer` is the address that it came from, None for a Unix socket, `scheme` the client's, and `version`
        that of HTTP. Host is the first one. Several Cookie fields, as HTTP/2 has them, become one: RFC 9113
        8.2.3. Complexity: O(fields).

        >>> fields = [(b"x-forwarded-for", b"192.0.2.7"), (b"via", b"2 front"), (b"x-user", b"ann")]
        >>> dict(Hop("paris", ["::1"]).request_fields(fields, "::1", "http", "1.1"))[b"forwarded"]
        b'for=192.0.2.7, for="[::1]";proto=http'
        """
        fields = list(fields)
        host = values_of(fields, b"host")
        before = members_of(fields, b"x-forwarded-for") if self.trusts(peer) else []
        nodes = [node.decode("latin-1") for node in before]
        address = address_of(peer) if peer else None
        loops = [*members_of(fields, b"cdn-loop"), self._pseudonym]
        passed: Fields = [(b"host", host)] if host else []
        passed += _with_one_cookie([field for field in end_to_end(fields) if not self._is_ours(field[0])])
        clients = [*nodes, *([address] if address else [])] or [_UNKNOWN]
        passed += [
            self._via(fields, version),
            (b"forwarded", _forwarded(nodes, address, host, scheme)),
            (b"x-forwarded-for", ", ".join(clients).encode("latin-1")),
        ]
        if host:
            passed.append((b"x-forwarded-host", host))
        return [*passed, (b"x-forwarded-proto", scheme.encode()), (b"cdn-loop", b", ".join(loops))]

    def response_fields(self, fields: AnyFields, version: str) -> Fields:
        """The fields that a response is passed on with; `version` is that of HTTP.

        >>> Hop("paris").response_fields([(b"connection", b"close"), (b"etag", b'"1"')], "1.1")
        [(b'etag', b'"1"'), (b'via', b'1.1 paris')]
        """
        fields = list(fields)
        return [*(field for field in end_to_end(fields) if field[0] != b"via"), self._via(fields, version)]

    def _via(self, fields: Fields, version: str) -> tuple[bytes, bytes]:
        own = b"%b %b" % (version.encode(), self._pseudonym)
        return b"via", b", ".join([*members_of(fields, b"via"), own])

    def _is_refused(self, name: bytes) -> bool:
        return b"_" in name or name.startswith(self._internal)

    def _is_ours(self, name: bytes) -> bool:
        """Whether a field of a request is dropped, or made anew."""
        return name in _NOT_PASSED or name.startswith(b"x-forwarded-") or self._is_refused(name)


def _checked_beginning(text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"internal must be beginnings of names, got {text!r}")
    if not text.isascii() or not TOKEN.fullmatch(text.encode()):
        raise ValueError(f"internal must be beginnings of names, got {text!r}")
    return text.lower().encode()


def _with_one_cookie(fields: Fields) -> Fields:
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return fields
    return [*(field for field in fields if field[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]


def _forwarded(nodes: list[str], address: str | None, host: bytes, scheme: str) -> bytes:
    """The value of Forwarded: RFC 7239 4. Of earlier proxies only their clients are known."""
    own = [f"for={_node(address)}", *([f"host={_token_or_quoted(host)}"] if host else []), f"proto={scheme}"]
    return ", ".join([*(f"for={_node(address_of(node))}" for node in nodes), ";".join(own)]).encode("latin-1")


def _node(address: str | None) -> str:
    """A node of RFC 7239 6: addresses of IPv6 are in brackets and quotes."""
    if address is None:
        return _UNKNOWN
    return f'"[{address}]"' if ":" in address else address


def _token_or_quoted(value: bytes) -> str:
    text = value.decode("latin-1")
    if TOKEN.fullmatch(value):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))
