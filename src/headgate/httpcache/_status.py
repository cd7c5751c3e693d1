"""Cache-Status: RFC 9211."""

from __future__ import annotations

import re

FIELD = b"cache-status"
_GENERATED = re.compile(rb"; *generated=(\d{1,12})\.(\d{3})[ \t]*(?:;|\Z)")
MILLISECOND = 1_000_000


def hit(name: bytes, ttl: int, generated: int = 0) -> tuple[bytes, bytes]:
    """The field of a stored response; `ttl` in seconds is negative for a stale one. `generated` is when it
    was, in nanoseconds since 1970, 0 to not say so: a parameter of ours, in seconds.

    >>> hit(b"headgate", 7), hit(b"a", 7, 1_796_000_000_123_456_789)[1]
    ((b'cache-status', b'headgate; hit; ttl=7'), b'a; hit; ttl=7; generated=1796000000.123')
    """
    return FIELD, b"%b; hit; ttl=%d%b" % (name, ttl, _generated(generated))


def _generated(time: int) -> bytes:
    return b"; generated=%d.%03d" % divmod(time // MILLISECOND, 1000) if time else b""


def generated_of(value: bytes) -> int | None:
    """When the nearest cache says that a response was generated, in nanoseconds since 1970, rounded down.

    >>> generated_of(b"a; hit; generated=1.5, b; hit; generated=1.250; ttl=7"), generated_of(b"a; hit; ttl=7")
    (1250000000, None)
    """
    match = _GENERATED.search(value.rpartition(b",")[2])
    return None if match is None else (int(match[1]) * 1000 + int(match[2])) * MILLISECOND


def forwarded(
    name: bytes, reason: bytes, status: int | None = None, *, stored: bool = False, collapsed: bool = False,
    detail: bytes | None = None, generated: int = 0,
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
    return FIELD, value + _generated(generated)
