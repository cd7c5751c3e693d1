"""How long a response may be reused: RFC 9111 4.2, RFC 5861, RFC 8246, RFC 9213."""

from __future__ import annotations

from headgate.httpcache._fields import (
    parse_age,
    parse_cache_control,
    parse_date,
    parse_seconds,
    parse_targeted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._fields import Directives
    from headgate.httpcache._settings import Settings

HEURISTIC = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
"""Statuses that may be reused without explicit freshness: RFC 9110 15.1, without 206."""

MOST_GUESSED = 86_400.0
"""The seconds that a response without explicit freshness is fresh at most by heuristics."""


class Freshness:
    """The times of one response, in seconds.

    `lifetime` counts from when the response was made, `age` is what of it had passed when the response was
    received. `explicit` is whether the origin gave the lifetime. `while_revalidate` and `if_error` are for
    how long a stale response may be used.
    """

    __slots__ = ("age", "explicit", "if_error", "lifetime", "while_revalidate")

    def __init__(self, lifetime: float, age: float, explicit: bool, while_revalidate: float, if_error: float
                 ) -> None:
        self.lifetime = lifetime
        self.age = age
        self.explicit = explicit
        self.while_revalidate = while_revalidate
        self.if_error = if_error


def directives_of(fields: dict[bytes, bytes], shared: bool) -> tuple[Directives, bool]:
    """The directives that apply to this cache, and whether a targeted field gave them.

    A valid CDN-Cache-Control takes the place of Cache-Control, and of Expires, in a shared cache.

    >>> directives_of({b"cache-control": b"no-store", b"cdn-cache-control": b"max-age=9"}, True)
    ({b'max-age': b'9'}, True)
    """
    if shared and (value := fields.get(b"cdn-cache-control")) is not None:
        targeted = parse_targeted(value)
        if targeted is not None:
            return targeted, True
    if (value := fields.get(b"cache-control")) is not None:
        return parse_cache_control(value), False
    if b"no-cache" in fields.get(b"pragma", b"").lower():
        return {b"no-cache": None}, False
    return {}, False


def explicit_lifetime(
    directives: Directives, fields: dict[bytes, bytes], date: float, shared: bool, targeted: bool
) -> int | None:
    """The seconds that the origin gave, None where it gave none: RFC 9111 4.2.1. Invalid ones are 0.

    >>> explicit_lifetime({b"max-age": b"60", b"s-maxage": b"5"}, {}, 0.0, True, False)
    5
    >>> explicit_lifetime({}, {b"expires": b"Thu, 01 Jan 1970 00:01:00 GMT"}, 20.0, True, False)
    40
    """
    if shared and b"s-maxage" in directives:
        return parse_seconds(directives[b"s-maxage"]) or 0
    if b"max-age" in directives:
        return parse_seconds(directives[b"max-age"]) or 0
    if targeted or b"expires" not in fields:
        return None
    expires = parse_date(fields[b"expires"], date)
    return 0 if expires is None else max(0, int(expires - date))


def freshness(
    status: int,
    fields: dict[bytes, bytes],
    directives: Directives,
    targeted: bool,
    settings: Settings,
    *,
    received: float,
    delay: float,
) -> Freshness:
    """The times of a response with these combined fields.

    `received` is when it was received, in seconds since 1970, `delay` for how long it was awaited.
    """
    date = parse_date(fields.get(b"date"), received)
    made = received if date is None else float(date)
    age = max(received - made, parse_age(fields.get(b"age")) + delay, 0.0)
    lifetime: float | None = explicit_lifetime(directives, fields, made, settings.shared, targeted)
    explicit = lifetime is not None
    if lifetime is None:
        lifetime = _guessed(status, fields, directives, targeted, settings, made)
    if b"no-cache" in directives and directives[b"no-cache"] is None:
        return Freshness(0.0, age, True, 0.0, 0.0)
    while_revalidate, if_error = _stale_times(directives, settings)
    return Freshness(lifetime, age, explicit, while_revalidate, 0.0 if status >= 500 else if_error)


def _guessed(
    status: int, fields: dict[bytes, bytes], directives: Directives, targeted: bool, settings: Settings,
    made: float,
) -> float:
    """The seconds by heuristics, or by default, of a response without explicit ones: RFC 9111 4.2.2."""
    if status not in HEURISTIC and b"public" not in directives:
        return 0.0
    modified = parse_date(fields.get(b"last-modified"), made)
    if modified is not None and settings.heuristic and not targeted:
        return min(max(0.0, (made - modified) * settings.heuristic), MOST_GUESSED)
    return settings.default_ttl or 0.0


def _stale_times(directives: Directives, settings: Settings) -> tuple[float, float]:
    """For how long a stale response may be used while it is revalidated, and if that fails.

    must-revalidate forbids it; proxy-revalidate and s-maxage forbid it in a shared cache unless the response
    itself gives the time, as many frameworks do beside s-maxage.
    """
    if b"must-revalidate" in directives or (settings.shared and b"proxy-revalidate" in directives):
        return 0.0, 0.0
    implied = settings.shared and b"s-maxage" in directives
    while_revalidate: float | None = parse_seconds(directives.get(b"stale-while-revalidate"))
    if_error: float | None = parse_seconds(directives.get(b"stale-if-error"))
    if while_revalidate is None:
        while_revalidate = 0 if implied else settings.stale_while_revalidate
    if if_error is None:
        if_error = 0 if implied else settings.stale_if_error
    return while_revalidate or 0.0, if_error or 0.0
