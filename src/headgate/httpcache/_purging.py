"""Purges as records of a log: which stored responses each one concerns."""

from __future__ import annotations

from urllib.parse import quote, urljoin, urlsplit

from headgate.httpcache._messages import Request, combined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._messages import Headers

KEY, URL, PATH, PREFIX, PATH_PREFIX, TAG = b"k", b"u", b"p", b"x", b"y", b"t"
_HARD, _SOFT = b"!", b"~"
_HEAD = 10
_SAFE = "%/:?#[]@!$&'()*+,;=~"


class Purge:
    """One purge: its `kind`, the `value` to compare with, whether it only makes responses stale, and the time
    up to which it concerns them, in nanoseconds since 1970, 0 for all.

    >>> Purge.decode(Purge(TAG, b"user-7", soft=True).encode()).matches(b"", b"http://a/", (b"user-7",))
    True
    """

    __slots__ = ("at", "kind", "soft", "value")

    def __init__(self, kind: bytes, value: bytes, soft: bool = False, at: int = 0) -> None:
        self.kind = kind
        self.value = value
        self.soft = soft
        self.at = at

    def encode(self) -> bytes:
        """The record of this purge."""
        return self.kind + (_SOFT if self.soft else _HARD) + self.at.to_bytes(8, "little") + self.value

    @classmethod
    def decode(cls, record: bytes) -> Purge:
        """The purge of a record."""
        at = int.from_bytes(record[2:_HEAD], "little")
        return cls(record[:1], record[_HEAD:], record[1:2] == _SOFT, at)

    def reaches(self, generated: int) -> bool:
        """Whether it concerns a response that was generated at that time or later.

        >>> Purge(TAG, b"a", at=5).reaches(4), Purge(TAG, b"a", at=5).reaches(5), Purge(TAG, b"a").reaches(9)
        (True, False, True)
        """
        return not self.at or generated < self.at

    def matches(self, key: bytes, url: bytes, tags: tuple[bytes, ...]) -> bool:
        """Whether it concerns a response with this primary key, URL and tags."""
        kind, value = self.kind, self.value
        if kind == URL:
            return url == value
        if kind == KEY:
            return key == value
        if kind == TAG:
            return value in tags
        if kind == PREFIX:
            return url.startswith(value)
        path = path_of(url)
        return path == value if kind == PATH else path.startswith(value)


def path_of(url: bytes) -> bytes:
    """Path and query of a normalised URL.

    >>> path_of(b"http://a/b?c")
    b'/b?c'
    """
    rest = url.partition(b"://")[2]
    return rest[rest.find(b"/"):]


def url_purge(name: str, url: str, *, prefix: bool, soft: bool, at: int = 0) -> Purge:
    """The purge of an absolute URL, or of a path for all hosts, or of what starts with it.

    Raises TypeError or ValueError, which name the argument, for anything else.

    >>> url_purge("url", "HTTP://Example.com:80/%7ea", prefix=False, soft=False).value
    b'http://example.com/~a'
    """
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a str, got {url!r}")
    if url.startswith("/"):
        request = Request("GET", "http", _ascii(url), [])
        value = path_of(request.url or b"")
        kind = PATH_PREFIX if prefix else PATH
    else:
        value = _absolute(url) or b""
        kind = PREFIX if prefix else URL
    if not value:
        raise ValueError(f"{name} must be an absolute URL, or a path, got {url!r}")
    return Purge(kind, value, soft, at)


def purge_of(url: str | None, tag: str | None, prefix: str | None, stale: bool, at: int) -> Purge:
    """The purge of a URL, a tag or a prefix. Raises TypeError unless exactly one is given, and what
    ``url_purge`` raises.

    >>> purge_of(None, "news", None, False, 0).value
    b'news'
    """
    if (url is None) + (tag is None) + (prefix is None) != 2:
        raise TypeError(f"one of url, tag and prefix must be given, got {url!r}, {tag!r} and {prefix!r}")
    if tag is not None:
        if not isinstance(tag, str):
            raise TypeError(f"tag must be a str, got {tag!r}")
        return Purge(TAG, tag.encode("utf-8", "surrogatepass"), stale, at)
    if prefix is not None:
        return url_purge("prefix", prefix, prefix=True, soft=stale, at=at)
    assert url is not None
    return url_purge("url", url, prefix=False, soft=stale, at=at)


def url_tag(url: bytes) -> bytes:
    """The tag by which the responses for a URL are found where keys are no URLs; no field can give it.

    >>> url_tag(b"http://a/")
    b'\\x00http://a/'
    """
    return b"\0" + url


def request_of(url: bytes) -> Request:
    """A request for a normalised URL, to compute a key from."""
    scheme, _, rest = url.partition(b"://")
    slash = rest.find(b"/")
    return Request("GET", scheme.decode("latin-1"), rest[slash:], [(b"host", rest[:slash])])


def _ascii(url: str) -> bytes:
    return quote(url.partition("#")[0], safe=_SAFE).encode()


def _absolute(url: str) -> bytes | None:
    """The normalised form of an absolute URL, None for anything else."""
    try:
        parts = urlsplit(url)
        authority = parts.netloc.rpartition("@")[2]
        host = authority.encode("ascii" if authority.isascii() else "idna")
    except ValueError:
        return None
    if not parts.scheme or not host:
        return None
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    return Request("GET", parts.scheme, _ascii(target), [(b"host", host)]).url


def invalidated_urls(url: bytes, headers: Headers) -> list[bytes]:
    """The URLs that a successful unsafe request invalidates: its own, and those of the same origin that its
    response names in Location and Content-Location (RFC 9111 4.4).

    >>> invalidated_urls(b"http://a/b", [(b"location", b"/c"), (b"content-location", b"http://x/")])
    [b'http://a/b', b'http://a/c']
    """
    urls = [url]
    origin = url[: len(url) - len(path_of(url))]
    fields = combined(headers)
    for name in (b"location", b"content-location"):
        value = fields.get(name)
        other = value and named_url(url, value)
        if other and other not in urls and other[: len(other) - len(path_of(other))] == origin:
            urls.append(other)
    return urls


def named_url(url: bytes, reference: bytes) -> bytes | None:
    """The normalised URL that a reference in a response for `url` names, None if it is none.

    >>> named_url(b"http://a/b", b"c")
    b'http://a/c'
    """
    try:
        return _absolute(urljoin(url.decode("latin-1"), reference.decode("latin-1").strip()))
    except ValueError:
        return None
