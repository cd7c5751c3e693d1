"""Fields of messages on their way through a proxy, as ASGI has them: pairs of bytes, names in lower case."""

from __future__ import annotations

import re
from typing import NamedTuple

from headgate._base.addresses import packed_address
from headgate.httpcache._storing import HOP_BY_HOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Fields = list[tuple[bytes, bytes]]
    AnyFields = Iterable[tuple[bytes, bytes]]

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(rb"([A-Za-z0-9][A-Za-z0-9._-]*|\[([0-9A-Fa-f]*:[0-9A-Fa-f:.]*)\])(?::[0-9]{1,5})?")
_FINAL_DOT = re.compile(rb"\.(?=(?::[0-9]*)?\Z)")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_UNPLAIN = re.compile(r"[\x00-\x1f\x7f]|(?:^|[/\\])\.\.?(?:$|[/\\;])")
_OF_ONE_CONNECTION = frozenset(("CONNECT", "TRACE"))
_FOR_ALL = frozenset((
    b"host", b"content-length", b"transfer-encoding", b"content-encoding", b"content-range", b"cache-control",
    b"vary", b"age", b"via", b"cdn-loop", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto",
))
"""Fields that Connection may not name: without them the message would mean something else, or loop."""


class Refusal(NamedTuple):
    """Why a request is not passed on: the status of the response, and what is wrong."""

    status: int
    reason: str


_NO_HOST = Refusal(400, "There must be one Host, and it must be valid.")
_NO_PATH = Refusal(400, "The path must begin with / and have no dot segments and no control characters.")
_NO_LENGTH = Refusal(400, "A field is malformed, or the length of the body is ambiguous.")
_NO_METHOD = Refusal(501, "The method is for one connection, or not in upper case.")


def values_of(fields: AnyFields, name: bytes) -> bytes:
    """All values of a field as one list, empty where there is none: RFC 9110 5.3.

    >>> values_of([(b"via", b"1.1 a"), (b"te", b"trailers"), (b"via", b"1.1 b")], b"via")
    b'1.1 a, 1.1 b'
    """
    return b", ".join([value for field, value in fields if field == name])


def members_of(fields: AnyFields, name: bytes) -> list[bytes]:
    """The members of a field that is a list, without empty ones, which senders may add: RFC 9110 5.6.1."""
    return [member for part in values_of(fields, name).split(b",") if (member := part.strip(b" \t"))]


def forwards_of(fields: AnyFields) -> int | None:
    """How often a request may still be forwarded by Max-Forwards, None without a valid one.

    It counts for OPTIONS and TRACE, and at 0 the proxy itself responds: RFC 9110 7.6.2. Complexity:
    O(fields).

    >>> forwards_of([(b"max-forwards", b"3")]), forwards_of([(b"max-forwards", b"-1")]), forwards_of([])
    (3, None, None)
    """
    value = values_of(fields, b"max-forwards")
    return int(value) if _LENGTH.fullmatch(value) else None


def forwarded_once(fields: AnyFields) -> Fields:
    """The fields with one less in Max-Forwards, if it is valid: see `forwards_of`. Complexity: O(fields).

    >>> forwarded_once([(b"max-forwards", b"3"), (b"x", b"y")])
    [(b'x', b'y'), (b'max-forwards', b'2')]
    """
    fields = list(fields)
    left = forwards_of(fields)
    if left is None:
        return fields
    others = [field for field in fields if field[0] != b"max-forwards"]
    return [*others, (b"max-forwards", b"%d" % (left - 1))]


def host_of(fields: AnyFields) -> str | None:
    """The host of a request in lower case, without its port and a final dot; None unless there is one Host
    that is valid.

    Programs disagree about which of several hosts counts, and about one with a user, a path or a comma: RFC
    9112 3.2 has such requests refused. Complexity: O(fields).

    >>> host_of([(b"host", b"Example.com.:8080")]), host_of([(b"host", b"[2001:DB8::1]:80")])
    ('example.com', '[2001:db8::1]')
    >>> host_of([(b"host", b"a"), (b"host", b"a")]), host_of([(b"host", b"me@a")]), host_of([])
    (None, None, None)
    """
    hosts = [value for field, value in fields if field == b"host"]
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None:
        return None
    if match[2] is not None:
        try:
            packed_address(match[2].decode())
        except ValueError:
            return None
    return match[1].decode().lower().removesuffix(".")


def without_final_dot(fields: AnyFields) -> Fields:
    """The fields with a Host that is not absolute, by which programs know a host.

    >>> without_final_dot([(b"host", b"a.example.:80"), (b"x", b"y.")])
    [(b'host', b'a.example:80'), (b'x', b'y.')]
    """
    return [(name, _FINAL_DOT.sub(b"", value, 1) if name == b"host" else value) for name, value in fields]


def is_plain_path(path: str) -> bool:
    """Whether no server takes a decoded path for another one, which another route, limit or purge is for.

    It begins with a slash and has neither control characters nor dot segments (RFC 3986 5.2.4), also such as
    end with a backslash or, for servlet containers, with a semicolon. Complexity: O(length).

    >>> [is_plain_path(path) for path in ("/a/..b/c.", "/a/../b", "/a/.", "/..;/a", "/a\\\\..\\\\b", "*")]
    [True, False, False, False, False, False]
    """
    return path.startswith("/") and not _UNPLAIN.search(path)


def is_unambiguous(fields: AnyFields) -> bool:
    """Whether no two programs disagree about the fields of a message, or about where it ends.

    Its body has one length, or chunks and no length (RFC 9112 6.3, which lets a proxy refuse others; with
    another coding than chunked an end could not be told). Names are tokens, and values have no control
    characters but tabs: RFC 9110 5.5. Complexity: O(fields).

    >>> is_unambiguous([(b"content-length", b"5")]), is_unambiguous([(b"transfer-encoding", b"chunked")])
    (True, True)
    >>> is_unambiguous([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")])
    False
    >>> is_unambiguous([(b"content-length", b"5, 5")]), is_unambiguous([(b"x", b"a\\rb")])
    (False, False)
    """
    lengths, codings = [], []
    for name, value in fields:
        if not TOKEN.fullmatch(name) or _CONTROLS.search(value):
            return False
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if codings:
        return codings == [b"chunked"] and not lengths
    return not lengths or (len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) is not None)


def refusal_of(method: str, path: str, fields: AnyFields) -> Refusal | None:
    """Why a request is not to be passed on, or None.

    It needs one valid Host, a plain path, fields and a length that are unambiguous, and another method than
    CONNECT and TRACE: see `host_of`, `is_plain_path` and `is_unambiguous`. The method is in upper case, as
    clients of HTTP write every method so, and ``delete`` would pass a rule against DELETE. Complexity:
    O(fields).

    >>> refusal_of("GET", "/", [(b"host", b"a")])
    >>> refusal_of("GET", "/", [])
    Refusal(status=400, reason='There must be one Host, and it must be valid.')
    """
    fields = list(fields)
    if host_of(fields) is None:
        return _NO_HOST
    if not is_plain_path(path):
        return _NO_PATH
    if not is_unambiguous(fields):
        return _NO_LENGTH
    return _NO_METHOD if method in _OF_ONE_CONNECTION or method != method.upper() else None


def without_connection_options(fields: AnyFields) -> Fields:
    """The fields without those that Connection names as being for one connection: RFC 9110 7.6.1.

    Those that are for all recipients stay although they are named: Host, Content-Length, Cache-Control,
    Vary, Via and their like. Otherwise a client could remove what proxies or a cache rely on. Complexity:
    O(fields).

    >>> fields = [(b"connection", b"close, X-Hop, Via"), (b"x-hop", b"1"), (b"via", b"1.1 a")]
    >>> without_connection_options(fields)
    [(b'connection', b'close, X-Hop, Via'), (b'via', b'1.1 a')]
    """
    fields = list(fields)
    named = {name.lower() for name in members_of(fields, b"connection")} - _FOR_ALL
    return [field for field in fields if field[0] not in named]


def end_to_end(fields: AnyFields) -> Fields:
    """The fields that a proxy passes on: without those of one connection.

    These are Connection and the ones that it names, Keep-Alive, Proxy-Authenticate, Proxy-Authorization,
    Proxy-Connection, TE, Trailer, Transfer-Encoding and Upgrade: RFC 9110 7.6.1 and 11.7. Complexity:
    O(fields).

    >>> end_to_end([(b"connection", b"x-hop"), (b"x-hop", b"1"), (b"te", b"trailers"), (b"x-end", b"2")])
    [(b'x-end', b'2')]
    """
    return [field for field in without_connection_options(fields) if field[0] not in HOP_BY_HOP]
