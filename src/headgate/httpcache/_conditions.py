"""Conditional requests, received and sent: RFC 9110 13, RFC 9111 4.3."""

from __future__ import annotations

import re

from headgate.httpcache._fields import parse_date

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._messages import Headers

_OPAQUE = re.compile(rb'"[^"]*"')
_CONDITIONS = frozenset((
    b"if-none-match", b"if-modified-since", b"if-range", b"range", b"if-match", b"if-unmodified-since"))
_NOT_IN_304 = frozenset((
    b"content-length", b"content-type", b"content-encoding", b"content-language", b"content-range",
    b"content-md5"))


def matches_weakly(condition: bytes, etag: bytes | None) -> bool:
    """Whether a list of entity-tags, or ``*``, has one equal to `etag` by weak comparison: RFC 9110 8.8.3.2.

    >>> matches_weakly(b'"a", W/"b"', b'"b"'), matches_weakly(b"*", None), matches_weakly(b'"a"', b'"b"')
    (True, True, False)
    """
    condition = condition.strip()
    if condition == b"*":
        return True
    if etag is None:
        return False
    return condition == etag or etag.removeprefix(b"W/") in _OPAQUE.findall(condition)


def is_not_modified(
    fields: dict[bytes, bytes], etag: bytes | None, last_modified: bytes | None, date: float
) -> bool:
    """Whether a request's preconditions make a stored response a 304: RFC 9111 4.3.2.

    If-None-Match has precedence over If-Modified-Since. `date` is when the response was made, which counts
    where it has no `last_modified`.

    >>> since = {b"if-modified-since": b"Thu, 01 Jan 1970 00:01:00 GMT"}
    >>> is_not_modified(since, None, None, 59.0), is_not_modified(since, None, None, 61.0)
    (True, False)
    """
    if (condition := fields.get(b"if-none-match")) is not None:
        return matches_weakly(condition, etag)
    condition = fields.get(b"if-modified-since")
    if condition is None:
        return False
    if condition == last_modified:
        return True
    since = parse_date(condition, date)
    if since is None:
        return False
    modified = parse_date(last_modified, date)
    return (date if modified is None else modified) <= since


def is_same_for_range(
    condition: bytes | None, etag: bytes | None, last_modified: bytes | None, date: float
) -> bool:
    """Whether If-Range lets a range of the stored response be sent, by strong comparison: RFC 9110 13.1.5.

    >>> is_same_for_range(b'"a"', b'"a"', None, 0.0), is_same_for_range(b'W/"a"', b'W/"a"', None, 0.0)
    (True, False)
    """
    if condition is None:
        return True
    condition = condition.strip()
    if condition.endswith(b'"'):
        return condition == etag and condition.startswith(b'"')
    modified = parse_date(last_modified, date)
    return condition == last_modified and modified is not None and modified < date


def without_conditions(headers: Headers) -> Headers:
    """The fields of a request that is sent for a whole response."""
    return [field for field in headers if field[0] not in _CONDITIONS]


def validating_headers(headers: Headers, etag: bytes | None, last_modified: bytes | None) -> Headers:
    """The fields of a request that validates a stored response: RFC 9111 4.3.1.

    >>> validating_headers([(b"range", b"bytes=0-1"), (b"host", b"a")], b'"x"', None)
    [(b'host', b'a'), (b'if-none-match', b'"x"')]
    """
    forwarded = without_conditions(headers)
    if etag is not None:
        forwarded.append((b"if-none-match", etag))
    if last_modified is not None:
        forwarded.append((b"if-modified-since", last_modified))
    return forwarded


def not_modified_headers(headers: Headers) -> Headers:
    """The fields of a stored response that a 304 has: RFC 9110 15.4.5."""
    return [field for field in headers if field[0] not in _NOT_IN_304]
