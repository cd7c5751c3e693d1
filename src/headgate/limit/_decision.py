"""The decision of a limit, and its fields and bodies for HTTP responses."""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from math import inf

from headgate.limit._policies import checked_name, pause
from headgate.limit.fields import fields_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from headgate.limit._policies import Fields, Policies, Style

    class _Fields(NamedTuple):
        allowed: bool
        limit: float
        remaining: float
        retry_after: float
        reset_after: float
        policy: str
else:
    _Fields = namedtuple("_Fields", "allowed limit remaining retry_after reset_after policy")

_NAMES = {
    name.lower().encode(): name
    for name in (
        "RateLimit-Policy", "RateLimit", "Retry-After",
        "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
    )
}


class Decision(_Fields):
    """The decision of a limit; truthy when the request is allowed.

    `limit` is the largest burst and `remaining` what is left of it, in tokens. `retry_after` is how
    many seconds later the same request can be allowed at the earliest, 0.0 if it is allowed now, and infinite
    if it never can; `reset_after` is how many seconds later nothing is owed any more. `policy` names the
    limit that decided, after the level where there are several: ``"10/s"``, ``"user: 100/min"``; it is empty
    if none applied.

    >>> bool(Decision(False, 10, 0.0, 0.5, 5.0, "2/s, burst 10"))
    False
    """

    _violated: tuple[str, ...] = ()
    _more_after: float | None = None
    _degraded: bool = False
    _is_plain: bool = True
    """Whether it has nothing besides its fields."""

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def violated(self) -> tuple[str, ...]:
        """All policies that deny the request, that of `policy` among them.

        >>> limiter = RateLimiter("1/s; 1/min", clock=lambda: 0)
        >>> limiter.decide("ann").violated, limiter.decide("ann").violated
        ((), ('1/s', '1/min'))
        """
        return self._violated or (() if self.allowed else (self.policy,))

    @property
    def degraded(self) -> bool:
        """Whether a limit decided without its store on another machine, which did not respond.

        >>> RateLimiter("1/s").decide("ann").degraded
        False
        """
        return self._degraded

    def headers(
        self,
        name: str | None = None,
        *,
        policies: Policies = (),
        x_headers: bool = False,
    ) -> dict[str, str]:
        """The fields of a response, whole numbers in all of them: RateLimit and RateLimit-Policy of
        draft-ietf-httpapi-ratelimit-headers-10, and Retry-After if the request is denied.

        The quota of the policy is the burst, and its window the seconds in which all of it is refilled,
        rounded up. ``r`` is what remains. If that is nothing, ``t`` is the seconds until there is one more,
        otherwise those until all is refilled, so that ``r`` in ``t`` seconds is what the rate allows for
        long. A client that waits as long as Retry-After requires is never early. A limit of nothing, as
        ``"0/s"``, has neither ``t`` nor Retry-After. `name` replaces the text of the policy as its name;
        `policies` are others that RateLimit-Policy lists besides, such as the `rates` of the limiter;
        `x_headers` adds X-RateLimit-Limit, -Remaining and -Reset, the last in seconds from now. Without a
        policy there are no fields.

        Raises ValueError if the name is not printable ASCII or a policy is no rate, TypeError if they are of
        another type.

        >>> for field in RateLimiter("2/min", clock=lambda: 0).decide("ann").headers().items():
        ...     print(*field, sep=": ")
        RateLimit-Policy: "2/min";q=2;w=60
        RateLimit: "2/min";r=1;t=30
        >>> tiers = RateLimiter("2/s; 9/min", clock=lambda: 0)
        >>> tiers.decide("ann").headers(policies=tiers.rates)["RateLimit-Policy"]
        '"2/s";q=2;w=1, "9/min";q=9;w=60'
        >>> levels = RateLimits(ip="2/s", user="9/min", clock=lambda: 0)
        >>> levels.decide(user="ann").headers(policies=levels.rates)["RateLimit-Policy"]
        '"ip: 2/s";q=2;w=1, "user: 9/min";q=9;w=60'
        >>> Decision(False, 10, 0.2, 0.4, 5.0, "user: 2/s, burst 10").headers("user")["Retry-After"]
        '1'
        """
        style: Style = "both" if x_headers else "draft"
        fields = self.fields(name, policies=policies, style=style)
        return {_NAMES[field]: value.decode() for field, value in fields}

    def fields(
        self, name: str | None = None, *, policies: Policies = (), style: Style = "draft"
    ) -> Fields:
        """The fields of ``headers`` as ASGI wants them: pairs of bytes, with names in lower case.

        `style` is ``"draft"`` for RateLimit and RateLimit-Policy, ``"legacy"`` for X-RateLimit-Limit,
        -Remaining and -Reset, or ``"both"``. Retry-After is among all of them if the request is denied.

        Raises what ``headers`` raises, ValueError for any other style.

        >>> limiter = RateLimiter("2/min", clock=lambda: 0)
        >>> limiter.decide("ann").fields()
        [(b'ratelimit-policy', b'"2/min";q=2;w=60'), (b'ratelimit', b'"2/min";r=1;t=30')]
        >>> dict(limiter.decide("ann", 2).fields(style="legacy"))[b"retry-after"]
        b'30'
        """
        return fields_of(self, name, policies, style)

    def problem(self, name: str | None = None) -> dict[str, Any]:
        """The members of an application/problem+json body (RFC 9457) for a denied request, status 429: the
        problem type quota-exceeded of the same draft. Members of your own may be added. All policies that
        deny are named; `name` is what the one that denies for longest is called.

        Raises ValueError if the request is allowed, TypeError if the name is no str.

        >>> Decision(False, 10, 0.2, 0.4, 5.0, "user: 2/s, burst 10").problem("user")["violated-policies"]
        ['user']
        """
        if self.allowed:
            raise ValueError(f"decision must be a denial, got {self!r}")
        called = self.policy if name is None else checked_name(name)
        violated = [called if policy == self.policy else policy for policy in self.violated]
        return {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": self._advice(),
            "violated-policies": violated or [called],
        }

    def _advice(self) -> str:
        if self.retry_after == inf:
            return "Such requests are not allowed."
        seconds = pause(self.retry_after)
        return f"Try again in {seconds} second{'s' * (seconds > 1)}."


new_decision = partial(tuple.__new__, Decision)
"""A decision of six fields in a tuple; faster than the constructor of a named tuple."""


def with_details(decision: Decision, violated: tuple[str, ...], more_after: float | None = None) -> Decision:
    """`decision` with all policies that deny, and the seconds until there is a whole token more, None where
    that follows from the policy, as it does for all limits but strict ones.
    """
    if violated:
        decision._violated, decision._is_plain = violated, False
    if more_after is not None:
        decision._more_after, decision._is_plain = more_after, False
    return decision


def as_degraded(decision: Decision) -> Decision:
    """`decision`, made without the store."""
    decision._degraded, decision._is_plain = True, False
    return decision
