"""What a request allows of a stored response: RFC 9111 5.2.1, RFC 9110 9."""

from __future__ import annotations

from headgate.httpcache._fields import parse_cache_control, parse_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._fields import Directives
    from headgate.httpcache._messages import Request
    from headgate.httpcache._stored import Stored

SECOND = 1_000_000_000
SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY", "PRI"))


def is_unrestricted(fields: dict[bytes, bytes]) -> bool:
    """Whether no field of a request can keep a fresh response from being used; quick."""
    return not (
        b"cache-control" in fields or b"content-length" in fields or b"if-match" in fields
        or b"if-unmodified-since" in fields or b"transfer-encoding" in fields or b"pragma" in fields)


def directives_of(request: Request) -> Directives:
    """The Cache-Control directives of a request; an old ``Pragma: no-cache`` counts where there are none.

    >>> from headgate.httpcache import Request
    >>> directives_of(Request("GET", "http", b"/", [(b"pragma", b"no-cache")]))
    {b'no-cache': None}
    """
    value = request.fields.get(b"cache-control")
    if value is not None:
        return parse_cache_control(value)
    return {b"no-cache": None} if b"no-cache" in request.fields.get(b"pragma", b"").lower() else {}


def is_for_origin(request: Request) -> bool:
    """Whether a request has a body, preconditions that only its origin can evaluate, or opens a WebSocket, as
    it does where WSGI servers have them."""
    fields = request.fields
    if b"if-match" in fields or b"if-unmodified-since" in fields or b"transfer-encoding" in fields:
        return True
    if b"websocket" in fields.get(b"upgrade", b"").lower():
        return True
    return fields.get(b"content-length", b"0").strip() != b"0"


def accepts(directives: Directives, stored: Stored, now: int) -> bool:
    """Whether the client of a private cache takes a stored response without validation.

    A reload with ``max-age=0`` takes an immutable one: RFC 8246.
    """
    if b"no-cache" in directives:
        return False
    age, left = now - stored.born, stored.fresh_until - now
    max_age = parse_seconds(directives.get(b"max-age"))
    if max_age is not None and age > max_age * SECOND and not (stored.immutable and left > 0):
        return False
    min_fresh = parse_seconds(directives.get(b"min-fresh"))
    if min_fresh is not None and left < min_fresh * SECOND:
        return False
    if left > 0:
        return True
    if b"max-stale" not in directives or stored.error_until == stored.born:
        return False
    limit = parse_seconds(directives[b"max-stale"])
    return directives[b"max-stale"] is None or (limit is not None and -left <= limit * SECOND)
