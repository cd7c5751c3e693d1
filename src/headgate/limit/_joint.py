"""What several limits of one request have in common beside their decisions: refunds, counts, reservations."""

from __future__ import annotations

from math import inf
from operator import attrgetter

from headgate.limit._decision import Decision, as_degraded, new_decision, with_details

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Protocol, SupportsFloat

    from headgate.limit._rate import Rate, Rates
    from headgate.limit._rules import LevelTally

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

_retry_after = attrgetter("retry_after")
UNLIMITED = Decision(True, inf, inf, 0.0, 0.0, "")


def refund_all(applied: Applied, cost: SupportsFloat) -> None:
    for _, limiter, key in applied:
        limiter.refund(key, cost)


def reset_all(applied: Applied) -> None:
    for _, limiter, key in applied:
        limiter.reset(key)


def named(name: str, decision: Decision) -> Decision:
    """The decision of a limit, with its name before each policy."""
    allowed, limit, remaining, retry_after, reset_after, policy = decision
    made: Decision = new_decision((allowed, limit, remaining, retry_after, reset_after, f"{name}: {policy}"))
    violated = tuple([f"{name}: {each}" for each in decision._violated])
    if decision._degraded:
        made = as_degraded(made)
    return with_details(made, violated, decision._more_after)


def is_degraded(decision: Decision) -> bool:
    """Whether a limit, perhaps one of the user's own, decided without its store."""
    return getattr(decision, "degraded", False)


def marked(decision: Decision, degraded: Sequence[str]) -> Decision:
    """A joint decision, degraded if that of any limit is."""
    return as_degraded(decision) if degraded else decision


def worst(decisions: list[tuple[str, Decision]]) -> Decision:
    """Of decisions that deny, the one that does for longest, with the policies of all."""
    denials = [named(name, decision) for name, decision in decisions]
    longest = max(denials, key=_retry_after)
    return with_details(longest, tuple([policy for denial in denials for policy in denial.violated]))


def policies_of(levels: Iterable[str], rates: list[tuple[Rate, ...]]) -> tuple[str, ...]:
    """The tiers of levels as text."""
    return tuple([f"{level}: {rate}" for level, tiers in zip(levels, rates, strict=True) for rate in tiers])


def charge_shadows(tallies: dict[str, LevelTally], shadows: Applied, cost: SupportsFloat) -> Applied:
    """Charge levels that never deny; those that were charged, not without their store."""
    charged: list[tuple[str, Any, Any]] = []
    for level, limiter, key in shadows:
        limiter.peek(key, 0)  # raises if it is no key
        try:
            decision = limiter.decide(key, cost)
        except ValueError:  # more than a burst, at any time
            tallies[level].deny([str(rate) for rate in limiter.rates], key)
            continue
        if decision.allowed:
            tallies[level].add_allowed()
            if not is_degraded(decision):
                charged.append((level, limiter, key))
        else:
            tallies[level].deny(decision.violated, key)
    return charged


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


def part_of(limiter: Any, key: Any) -> tuple[Any, Any, int]:
    """A limit that a reservation has to be settled at, with the key and the time."""
    if hasattr(limiter, "_settle"):
        return limiter, key, limiter._now_ns()
    return _Plain(limiter), key, 0
