"""The alerts of an `SLO`, and its figures from counts of events, shared by both twins.

    long window burns:   no          yes           yes          yes or no        no
    short window burns:  -           no            yes          no               no
    state:               inactive    pending       firing       resolved         inactive
"""

from __future__ import annotations

from collections import namedtuple

from headgate._base.checks import checked_callable
from headgate._base.forks import new_lock
from headgate.slo._terms import Terms, exact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, NamedTuple, TypeAlias

    State: TypeAlias = Literal["inactive", "pending", "firing", "resolved"]
    Events: TypeAlias = tuple[int, int]

    class _Fields(NamedTuple):
        burn: float
        long: float
        short: float
        severity: str
        state: State
        firing: bool
else:
    _Fields = namedtuple("_Fields", "burn long short severity state firing")

_LEAST_FAILURES = 5


class Alert(_Fields):
    """A rule of an `SLO` and its `state`: ``"inactive"``; ``"pending"``, as the long window burns faster
    than allowed and the short one does not; ``"firing"``, as both do; or ``"resolved"``, after it fired.

    >>> Alert(14.4, 3600, 300, "page", "firing", True).severity
    'page'
    """

    __slots__ = ()


def availability_of(good: int, bad: int) -> float:
    """The share of good events, 1.0 without any.

    >>> availability_of(3, 1), availability_of(0, 0)
    (0.75, 1.0)
    """
    return good / (good + bad) if good + bad else 1.0


def burn_of(terms: Terms, good: int, bad: int) -> float:
    """How many times as fast as allowed events fail, 0.0 without any."""
    budget = terms.budget
    return bad * budget.denominator / ((good + bad) * budget.numerator) if bad else 0.0


class Alarms:
    """The states of all rules, since the last one decides between what is pending and what is resolved."""

    __slots__ = ("_limits", "_lock", "_states", "_terms")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._limits = [(exact(rule.burn) * terms.budget).as_integer_ratio() for rule in terms.rules]
        self._states: list[State] = ["inactive"] * len(terms.rules)
        self._lock = new_lock()

    def evaluate(
        self, events: Callable[[int], Events], on_change: Callable[[Alert], object] | None
    ) -> list[Alert]:
        """All alerts, by `events`, which returns the good and bad events of a number of slots.

        `on_change` is called with those whose state has changed, when all have theirs. Its first error is
        raised after all calls: these changes are not seen again.
        """
        checked_callable("on_change", on_change)
        burning = self.burning(events)
        with self._lock:
            before, self._states = self._states, list(map(_next_state, self._states, burning))
            after = self._states
        alerts = [
            Alert(*rule, state, state == "firing")
            for rule, state in zip(self._terms.rules, after, strict=True)
        ]
        if on_change is not None:
            changed = [alert for alert, old in zip(alerts, before, strict=True) if alert.state != old]
            _call_with_each(on_change, changed)
        return alerts

    def burning(self, events: Callable[[int], Events]) -> list[tuple[bool, bool]]:
        """Whether the long and the short window of each rule burn now; no state changes by that."""
        return [
            (
                self._burns(limit, *events(self._terms.slots(rule.long)), sure=True),
                self._burns(limit, *events(self._terms.slots(rule.short)), sure=False),
            )
            for rule, limit in zip(self._terms.rules, self._limits, strict=True)
        ]

    def _burns(self, limit: tuple[int, int], good: int, bad: int, sure: bool) -> bool:
        """Whether a greater share than the limit fails; to be `sure`, of enough events."""
        if sure and (good + bad < self._terms.min_events or bad < _LEAST_FAILURES):
            return False
        return bad * limit[1] > limit[0] * (good + bad)


def _call_with_each(on_change: Callable[[Alert], object], changed: list[Alert]) -> None:
    errors = []
    for alert in changed:
        try:
            on_change(alert)
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _next_state(state: State, burning: tuple[bool, bool]) -> State:
    long, short = burning
    if long and short:
        return "firing"
    if state == "firing" or (state == "resolved" and long):
        return "resolved"
    return "pending" if long else "inactive"
