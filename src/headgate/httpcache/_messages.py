"""Requests as the cache sees them, without I/O and whatever the host."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    Headers = list[tuple[bytes, bytes]]

_PREFIXES = {"http": b"http://", "https": b"https://"}
_PORTS = {"http": b":80", "https": b":443"}
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PERCENT, _COLON, _SLASH = b"%:/"
_LONGEST = 16 * 1024


class Request:
    """A request: method, scheme, target, and header fields with names in lower case.

    The `target` is the path as it was sent, escapes included, and the query after a ``?``. The authority is
    the field ``host``. `url` is the normalised URL, or None for a target that is no path, or a host that has
    one; `fields` are all by name, combined.

    Complexity: O(number of fields).

    >>> request = Request("GET", "https", b"/a%7eb?q=1", [(b"host", b"Example.com:443")])
    >>> request.url
    b'https://example.com/a~b?q=1'
    >>> request.path, request.query, request.header("accept")
    ('/a%7eb', 'q=1', None)
    """

    __slots__ = ("fields", "headers", "method", "scheme", "target", "url")

    def __init__(self, method: str, scheme: str, target: bytes, headers: Headers) -> None:
        self.method = method
        self.scheme = scheme
        self.target = target
        self.headers = headers
        fields = dict(headers)
        if len(fields) != len(headers):
            fields = combined(headers)
        self.fields = fields
        prefix = _PREFIXES.get(scheme)
        host = fields.get(b"host", b"")
        self.url: bytes | None
        if prefix is None or _PERCENT in target or _COLON in host or _SLASH in host or (
                not target.startswith(b"/") or len(target) > _LONGEST):
            self.url = _normalised_url(scheme, host.lower(), target)
        else:
            self.url = prefix + host.lower() + target

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.scheme!r}, {self.target!r}, {self.headers!r})"

    @property
    def host(self) -> str:
        """The authority, in lower case."""
        return self.fields.get(b"host", b"").lower().decode("latin-1")

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def query(self) -> str:
        """The query as it was sent, without the question mark."""
        return self.target.partition(b"?")[2].decode("latin-1")

    def header(self, name: str) -> str | None:
        """The combined value of a field, None where there is none."""
        value = self.fields.get(name.lower().encode("latin-1", "replace"))
        return None if value is None else value.decode("latin-1")


def _normalised_url(scheme: str, host: bytes, target: bytes) -> bytes | None:
    """The URL with the escapes of its path normalised, and without a default port; the query is as it was
    sent."""
    if target[:1] != b"/" or len(target) > _LONGEST or _SLASH in host:
        return None
    if scheme not in _PREFIXES:
        return scheme.encode("latin-1", "replace") + b"://" + host + normalised_path(target)
    return _PREFIXES[scheme] + host.removesuffix(_PORTS[scheme]) + normalised_path(target)


def normalised_path(target: bytes) -> bytes:
    """A target with the escapes of its path in upper case, and unreserved characters not escaped.

    >>> normalised_path(b"/%7ea%2fb?%7e")
    b'/~a%2Fb?%7e'
    """
    path, mark, query = target.partition(b"?")
    return _ESCAPE.sub(_normalised_escape, path) + mark + query


def _normalised_escape(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    return bytes((code,)) if code in _UNRESERVED else match[0].upper()


def combined(headers: Headers) -> dict[bytes, bytes]:
    """All fields by name; several of one name are joined by commas (RFC 9110 5.2), cookies by semicolons.

    >>> combined([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    {b'a': b'1, 3', b'b': b'2'}
    """
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in fields:
            value = fields[name] + (b"; " if name == b"cookie" else b", ") + value
        fields[name] = value
    return fields
