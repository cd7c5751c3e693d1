"""What may be stored, and which fields of it: RFC 9111 3."""

from __future__ import annotations

from headgate.httpcache._fields import parse_names
from headgate.httpcache._selecting import selecting_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._fields import Directives
    from headgate.httpcache._messages import Headers
    from headgate.httpcache._settings import Settings

MOST_TAGS = 128
"""A response with more tags is not stored."""

UNDERSTOOD = frozenset((
    200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 412,
    413, 414, 415, 417, 421, 422, 426, 500, 501, 502, 503, 504, 505,
))
"""Final statuses whose caching requirements are met: for ``must-understand``."""

_NEVER = frozenset((206, 304, 416, 429))
HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authentication-info",
    b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
))
"""Fields of one connection: RFC 9110 7.6.1, and those that older programs take for such."""
_OF_ONE_ANSWER = frozenset((
    b"age", b"ratelimit", b"ratelimit-policy", b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset",
    b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset", b"x-ratelimit-used",
))
_NOT_STORED = HOP_BY_HOP | _OF_ONE_ANSWER
_NOT_UPDATED = frozenset((b"content-length", b"content-encoding", b"content-range", b"content-md5"))


def is_storable(
    status: int,
    fields: dict[bytes, bytes],
    directives: Directives,
    settings: Settings,
    *,
    authorized: bool,
) -> bool:
    """Whether a response to a GET may be stored, its freshness apart: RFC 9111 3, 3.5, 5.2.2.

    `authorized` is whether its request had the field Authorization.
    """
    if not 200 <= status <= 599 or status in _NEVER or b"trailer" in fields:
        return False
    if fields.get(b"content-type", b"").lstrip().lower().startswith(b"text/event-stream"):
        return False
    if not _is_permitted(status, directives, settings.shared):
        return False
    if settings.shared and authorized and not _is_for_all(directives, b"must-revalidate"):
        return False
    if b"set-cookie" in fields and not stores_cookies(directives, settings):
        return False
    return selecting_names(fields.get(b"vary")) is not None


def _is_permitted(status: int, directives: Directives, shared: bool) -> bool:
    if b"must-understand" in directives:
        if status not in UNDERSTOOD:
            return False
    elif b"no-store" in directives:
        return False
    return not (shared and b"private" in directives and directives[b"private"] is None)


def _is_for_all(directives: Directives, *more: bytes) -> bool:
    return any(name in directives for name in (b"public", b"s-maxage", *more))


def stores_cookies(directives: Directives, settings: Settings) -> bool:
    """Whether a response with these directives is stored with its Set-Cookie."""
    if settings.set_cookie == "explicit":
        return not settings.shared or _is_for_all(directives)
    return settings.set_cookie == "store"


def stored_headers(
    headers: Headers, fields: dict[bytes, bytes], directives: Directives, shared: bool
) -> Headers:
    """The fields that are stored: RFC 9111 3.1, and without those listed by no-cache and private.

    >>> stored_headers([(b"connection", b"a"), (b"a", b"1"), (b"b", b"2")], {b"connection": b"a"}, {}, True)
    [(b'b', b'2')]
    """
    dropped = set(parse_names(fields.get(b"connection")))
    dropped.update(parse_names(directives.get(b"no-cache")))
    if shared:
        dropped.update(parse_names(directives.get(b"private")))
    return [field for field in headers if field[0] not in _NOT_STORED and field[0] not in dropped]


def updated_headers(stored: Headers, fresh: Headers) -> Headers:
    """The fields of a stored response after a 304 with the fields `fresh`: RFC 9111 3.2.

    >>> updated_headers([(b"a", b"1"), (b"b", b"2"), (b"content-length", b"9")],
    ...                 [(b"b", b"3"), (b"content-length", b"0")])
    [(b'a', b'1'), (b'content-length', b'9'), (b'b', b'3')]
    """
    added = [field for field in fresh if field[0] not in _NOT_UPDATED]
    replaced = {name for name, _ in added}
    return [field for field in stored if field[0] not in replaced] + added


def tags_of(fields: dict[bytes, bytes], names: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    """The tags of a response, separated by commas or spaces, each once; None if there are too many.

    >>> tags_of({b"cache-tag": b"a, b", b"surrogate-key": b"b c"}, (b"cache-tag", b"surrogate-key"))
    (b'a', b'b', b'c')
    """
    tags: dict[bytes, None] = {}
    for name in names:
        if name in fields:
            for tag in fields[name].replace(b",", b" ").split():
                tags[tag] = None
                if len(tags) > MOST_TAGS:
                    return None
    return tuple(tags)
