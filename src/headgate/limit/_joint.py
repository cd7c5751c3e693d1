"""One decision of several limits for one request: all or nothing.

All limits but the first are peeked at, then each is charged, and those charged get a refund if a later one
denies because another request was faster. So a denied request takes nothing, and at worst two simultaneous
requests deny each other.
"""

from __future__ import annotations

from math import inf
from operator import attrgetter

from headgate.limit._decision import Decision, with_details
from headgate.limit._reservation import Reservation
from headgate.limit._units import checked_amount
from headgate.limit.keyed import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol, SupportsFloat

    from headgate.limit._rate import Rate, Rates

    class Limiter(Protocol):
        """What a level may be."""

        def allow(self, key: Any, cost: SupportsFloat = 1) -> bool: ...
        def decide(self, key: Any, cost: SupportsFloat = 1) -> Decision: ...
        def peek(self, key: Any, cost: SupportsFloat = 1) -> Decision: ...
        def refund(self, key: Any, cost: SupportsFloat = 1) -> None: ...
        def reset(self, key: Any) -> None: ...
        def reconfigure(self, rate: Rates) -> None: ...
        @property
        def rates(self) -> tuple[Rate, ...]: ...
        def _check(self) -> None: ...

    Applied = Sequence[tuple[str, Any, Any]]

_retry_after, _remaining = attrgetter("retry_after"), attrgetter("remaining")
_UNLIMITED = Decision(True, inf, inf, 0.0, 0.0, "")


def allow_all(applied: Applied, cost: SupportsFloat) -> bool:
    """Take `cost` from all limits or from none; True if all allow it."""
    return first_denial(applied, cost) is None


def first_denial(applied: Applied, cost: SupportsFloat) -> str | None:
    """Take `cost` from all limits or from none; the name of the limit that denies, None if all allow it."""
    for name, limiter, key in applied[1:]:
        if not (limiter._has(key, cost) if type(limiter) is RateLimiter else limiter.peek(key, cost).allowed):
            return name
    taken = 0
    try:
        for name, limiter, key in applied:
            if not limiter.allow(key, cost):
                return name
            taken += 1
    finally:
        if 0 < taken < len(applied):
            refund_all(applied[:taken], cost)
    return None


def decide_all(applied: Applied, cost: SupportsFloat) -> Decision:
    """As ``allow_all``, but return a decision."""
    seen = _peeks(applied[1:], cost)
    if not all(decision.allowed for _, decision in seen):
        return _summary(_peeks(applied[:1], cost) + seen)
    taken: list[tuple[str, Decision]] = []
    try:
        for name, limiter, key in applied:
            decision = limiter.decide(key, cost)
            if not decision.allowed:
                return _named(name, decision)
            taken.append((name, decision))
    finally:
        if len(taken) < len(applied):
            refund_all(applied[: len(taken)], cost)
    return _summary(taken)


def peek_all(applied: Applied, cost: SupportsFloat) -> Decision:
    """What ``decide_all`` would return, but without taking anything."""
    return _summary(_peeks(applied, cost))


def _peeks(applied: Applied, cost: SupportsFloat) -> list[tuple[str, Decision]]:
    return [(name, limiter.peek(key, cost)) for name, limiter, key in applied]


def refund_all(applied: Applied, cost: SupportsFloat) -> None:
    for _, limiter, key in applied:
        limiter.refund(key, cost)


def reset_all(applied: Applied) -> None:
    for _, limiter, key in applied:
        limiter.reset(key)


def _summary(decisions: list[tuple[str, Decision]]) -> Decision:
    """The decision of the limit that denies for longest, or else of the one with the least remaining."""
    if not decisions:
        return _UNLIMITED
    named = [_named(*each) for each in decisions]
    denials = [decision for decision in named if not decision.allowed]
    if not denials:
        return min(named, key=_remaining)
    worst = max(denials, key=_retry_after)
    violated = tuple([policy for denial in denials for policy in denial.violated])
    return with_details(worst, violated)


def _named(name: str, decision: Decision) -> Decision:
    """The decision of a limit, with its name before each policy."""
    named = Decision(*decision[:5], f"{name}: {decision.policy}")
    return with_details(named, tuple([f"{name}: {each}" for each in decision.violated]), decision._more_after)


class _Plain:
    """A limiter of the user's own class, as a part of a reservation."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def _check_settle(self, actual: float) -> None:
        """A reservation may be settled with any number of tokens."""

    def _settle(self, key: Any, cost: float, actual: float, _: int) -> None:
        if actual < cost:
            self._limiter.refund(key, cost - actual)
        elif actual > cost:
            self._limiter.allow(key, actual - cost)


def reserve_all(applied: Applied, cost: SupportsFloat) -> Reservation:
    """As ``decide_all``, but return a reservation."""
    parts = parts_of(applied)
    return Reservation(checked_amount("cost", cost), parts, None, decide_all(applied, cost))


def parts_of(applied: Applied) -> list[tuple[Any, Any, int]]:
    """The limits that a reservation has to be settled at, with the key and the time of each."""
    return [
        (limiter, key, limiter._now_ns()) if hasattr(limiter, "_settle") else (_Plain(limiter), key, 0)
        for _, limiter, key in applied
    ]
