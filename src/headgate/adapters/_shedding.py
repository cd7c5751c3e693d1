"""What the shedding middleware of all hosts share: admission by priority, counters and outcomes."""

from __future__ import annotations

import json
from typing import NamedTuple

from headgate._base.checks import checked_int
from headgate._base.words import Words
from headgate.adapters._exempt import exempting
from headgate.adapters.keys import checked_extractor
from headgate.limit import ConcurrencyLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, TypeAlias

    from headgate.adapters._exempt import Exempt
    from headgate.adapters.keys import Extractor
    from headgate.limit import Permit

    Fields: TypeAlias = list[tuple[bytes, bytes]]

HEALTH_CHECKS = frozenset({"/health", "/healthz", "/livez", "/ping", "/readyz"})
"""The paths that are always exempt: an orchestrator stops a service whose health checks fail."""
STATUS = 503
PROBLEM = json.dumps({
    "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
    "title": "Service Unavailable",
    "status": STATUS,
    "detail": "The service is overloaded; repeat the request later.",
}).encode()
"""The body of a refusal; its type is registered by the draft of the RateLimit header fields."""
OVERLOADED = 503, 504
"""The statuses of responses that count as dropped."""
_MOST_RETRY_AFTER = 10**9
_WORD = 8


class ShedStats(NamedTuple):
    """What a ShedMiddleware has counted in this process, and the state of its limiter.

    `admitted` and `shed` map each priority to a number of requests, or None to that of all if the limiter
    has no priorities; requests that are exempt are not counted. `inflight` and `limit` are the limiter's:
    with a ``path``, those of all processes.

    >>> ShedStats({"user": 90, "batch": 2}, {"user": 0, "batch": 8}, inflight=4, limit=20).shed["batch"]
    8
    """

    admitted: dict[str | None, int]
    shed: dict[str | None, int]
    inflight: int
    limit: int


class Shedding:
    """Admits requests to a limiter, and counts them by priority.

    A priority that the limiter does not have, as a client may send, is its lowest one.

    >>> shedding = Shedding(ConcurrencyLimiter(1, priorities={"user": 1, "batch": 0.5}), lambda _: "user")
    >>> [bool(permit) for permit in map(shedding.admit, ("junk", "user"))]
    [True, False]
    """

    __slots__ = ("_acquire", "_counts", "_limiter", "_lowest", "_places", "_retry_after", "exempt",
                 "priority")

    def __init__(self, limiter: ConcurrencyLimiter, priority: Extractor | None, exempt: Exempt = (),
                 retry_after: int = 1) -> None:
        if not isinstance(limiter, ConcurrencyLimiter):
            raise TypeError(f"limiter must be a ConcurrencyLimiter, got {limiter!r}")
        self.priority: Callable[[Any], Any] | None = checked_extractor("priority", priority)
        shares = limiter.priorities
        if priority is None and shares is not None:
            raise ValueError("priority must be given for a limiter with priorities, got None")
        if priority is not None and shares is None:
            raise ValueError(f"priority must be None for a limiter without priorities, got {priority!r}")
        self.exempt = exempting(exempt)
        seconds = checked_int("retry_after", retry_after)
        if not 0 <= seconds <= _MOST_RETRY_AFTER:
            raise ValueError(f"retry_after must be in [0, {_MOST_RETRY_AFTER}], got {retry_after!r}")
        self._retry_after = b"%d" % seconds
        names: list[str | None] = [None] if shares is None else list(shares)
        self._limiter, self._acquire = limiter, limiter.acquire
        self._lowest = None if shares is None else min(shares, key=shares.__getitem__)
        self._places = {name: 2 * at for at, name in enumerate(names)}
        self._counts = Words(bytearray(2 * _WORD * len(names)))

    def admit(self, name: str | None) -> Permit:
        """A permit for a request of the priority `name`, denied or not.

        Raises TypeError if `name` cannot be a name at all.
        """
        try:
            known = name in self._places
        except TypeError:
            raise TypeError(f"priority must return a str or None, got {name!r}") from None
        if not known:
            name = self._lowest
        permit = self._acquire(name)
        self._counts.add(self._places[name] + (not permit), 1)
        return permit

    def fields(self) -> Fields:
        """The header fields of a refusal."""
        return [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(PROBLEM)),
            (b"retry-after", self._retry_after),
        ]

    def stats(self) -> ShedStats:
        counts = [self._counts.load(at) for at in range(2 * len(self._places))]
        admitted = dict(zip(self._places, counts[::2], strict=True))
        shed = dict(zip(self._places, counts[1::2], strict=True))
        return ShedStats(admitted, shed, self._limiter.inflight, self._limiter.limit)


def outcome_of_error(error: BaseException) -> Literal["dropped", "ignored"]:
    """What an exception of the application, or the cancellation of a request, says about the load."""
    return "dropped" if isinstance(error, TimeoutError) else "ignored"
