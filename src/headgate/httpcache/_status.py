"""Cache-Status: RFC 9211."""

from __future__ import annotations

FIELD = b"cache-status"


def hit(name: bytes, ttl: int) -> tuple[bytes, bytes]:
    """The field of a stored response; `ttl` in seconds is negative for a stale one.

    >>> hit(b"headgate", 7)
    (b'cache-status', b'headgate; hit; ttl=7')
    """
    return FIELD, b"%b; hit; ttl=%d" % (name, ttl)


def forwarded(
    name: bytes, reason: bytes, status: int | None = None, *, stored: bool = False, collapsed: bool = False,
    detail: bytes | None = None,
) -> tuple[bytes, bytes]:
    """The field of a response to a forwarded request: why it was, what came, and whether it is stored.

    >>> forwarded(b"headgate", b"stale", 304, stored=True)
    (b'cache-status', b'headgate; fwd=stale; fwd-status=304; stored')
    """
    value = b"%b; fwd=%b" % (name, reason)
    if status is not None:
        value += b"; fwd-status=%d" % status
    if stored:
        value += b"; stored"
    if collapsed:
        value += b"; collapsed"
    if detail is not None:
        value += b"; detail=" + detail
    return FIELD, value
