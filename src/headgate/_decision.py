"""What a limit answers, and how it is told to a client over HTTP."""

from __future__ import annotations

from collections import namedtuple
from functools import lru_cache
from math import ceil

from headgate._rate import Rate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple

    class _Fields(NamedTuple):
        allowed: bool
        limit: float
        remaining: float
        retry_after: float
        reset_after: float
        policy: str
else:
    _Fields = namedtuple("_Fields", "allowed limit remaining retry_after reset_after policy")

_MOST_INTEGER = 10**15 - 1


class Decision(_Fields):
    """The answer of a limit; truthy when the request is allowed.

    `limit` is the largest burst and `remaining` what is left of it, in tokens. `retry_after` is how
    many seconds later the same request can be allowed at the earliest, 0.0 if it is allowed now;
    `reset_after` is how many seconds later the limit is as good as new. `policy` names the limit
    that decided, after the level where there are several: ``"10/s"``, ``"user: 100/min"``; it is empty if
    none had a say.

    >>> bool(Decision(False, 10, 0.0, 0.5, 5.0, "2/s, burst 10"))
    False
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return self.allowed

    def headers(
        self,
        name: str | None = None,
        *,
        policies: str | Rate | Iterable[object] = (),
        x_headers: bool = False,
    ) -> dict[str, str]:
        """The fields of a response, whole numbers in all of them: RateLimit and RateLimit-Policy of
        draft-ietf-httpapi-ratelimit-headers-10, and Retry-After if the request is denied.

        The quota of the policy is the burst, and its window the seconds in which all of it comes back,
        rounded up. A client that waits as long as it is told is never early. `name` is what the policy is
        called instead of what it says; `policies` are others that RateLimit-Policy tells besides, such as the
        `rates` of the limiter; `x_headers` adds X-RateLimit-Limit, -Remaining and -Reset, the last in seconds
        from now. Without a policy there are no fields.

        Raises ValueError if the name is not printable ASCII or a policy is no rate, TypeError if they are of
        another type.

        >>> for field in RateLimiter("2/min", clock=lambda: 0).decide("ann").headers().items():
        ...     print(*field, sep=": ")
        RateLimit-Policy: "2/min";q=2;w=60
        RateLimit: "2/min";r=1;t=30
        >>> tiers = RateLimiter("2/s; 9/min", clock=lambda: 0)
        >>> tiers.decide("ann").headers(policies=tiers.rates)["RateLimit-Policy"]
        '"2/s";q=2;w=1, "9/min";q=9;w=60'
        >>> Decision(False, 10, 0.2, 0.4, 5.0, "user: 2/s, burst 10").headers("user")["Retry-After"]
        '1'
        """
        if not self.policy:
            return {}
        named, quota = _policy_of(self.policy, self._called(name))
        reset = _whole(self.reset_after)
        pause = reset if self.allowed else self._pause()
        if policies:
            quota = self._quotas(quota, policies)
        fields = {"RateLimit-Policy": quota, "RateLimit": f"{named};r={int(self.remaining)};t={pause}"}
        if not self.allowed:
            fields["Retry-After"] = str(pause)
        if x_headers:
            fields["X-RateLimit-Limit"] = str(int(self.limit))
            fields["X-RateLimit-Remaining"] = str(int(self.remaining))
            fields["X-RateLimit-Reset"] = str(reset)
        return fields

    def _called(self, name: str | None) -> str:
        """The name of the policy, or what it says."""
        if name is None:
            return self.policy
        if not isinstance(name, str):
            raise TypeError(f"name must be a str or None, got {name!r}")
        return name

    def _quotas(self, quota: str, policies: str | Rate | Iterable[object]) -> str:
        """The field that tells all policies, each once, of which ours has this `quota`."""
        if isinstance(policies, str | Rate):
            policies = (policies,)
        if not hasattr(policies, "__iter__"):
            raise TypeError(f"policies must be rates or their texts, got {policies!r}")
        quotas = {policy: _policy_of(policy, policy)[1] for policy in map(str, policies)}
        quotas[self.policy] = quota
        return ", ".join(quotas.values())

    def problem(self, name: str | None = None) -> dict[str, Any]:
        """The members of an application/problem+json body (RFC 9457) for a denied request, status 429: the
        problem type quota-exceeded of the same draft. Members of your own may be added.

        Raises ValueError if the request is allowed, TypeError if the name is no str.

        >>> Decision(False, 10, 0.2, 0.4, 5.0, "user: 2/s, burst 10").problem("user")["violated-policies"]
        ['user']
        """
        if self.allowed:
            raise ValueError(f"decision must be a denial, got {self!r}")
        pause = self._pause()
        return {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Request cannot be satisfied as assigned quota has been exceeded",
            "status": 429,
            "detail": f"Try again in {pause} second{'s' * (pause > 1)}.",
            "violated-policies": [self._called(name)],
        }

    def _pause(self) -> int:
        return max(1, _whole(self.retry_after))


def _whole(seconds: float) -> int:
    """Rounded up, within the Integers of RFC 9651."""
    return ceil(min(seconds, _MOST_INTEGER))


@lru_cache(maxsize=256)
def _policy_of(policy: str, name: str) -> tuple[str, str]:
    """The name as a String of RFC 9651, and the field that tells the quota of a policy."""
    if not (name.isascii() and name.isprintable()):
        raise ValueError(f"name must be printable ASCII, got {name!r}")
    rate = Rate.parse(policy.rpartition(": ")[2])
    quoted = '"{}"'.format(name.replace("\\", r"\\").replace('"', r"\""))
    window = max(1, _whole(rate.burst * rate.period / rate.limit))
    return quoted, f"{quoted};q={int(rate.burst)};w={window}"
