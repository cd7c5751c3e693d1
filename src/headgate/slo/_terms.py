"""What an `SLO` promises, its rules for alerts, and checks of its arguments, shared by both twins."""

from __future__ import annotations

from collections import namedtuple
from math import isfinite

from headgate._base.checks import checked_int, checked_iterable, checked_number
from headgate._base.durations import DAY, HOUR, MINUTE, checked_duration, written_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction
    from typing import Any, NamedTuple

    class _RuleFields(NamedTuple):
        burn: float
        long: float
        short: float
        severity: str
else:
    _RuleFields = namedtuple("_RuleFields", "burn long short severity")

_SLOTS = 43_200
_LONGEST_STEP = 60
_LEAST_WINDOW, _MOST_WINDOW = DAY // 2, 3660 * DAY
_ROUNDING = 1000
_MOST_EVENTS = 2**32
_MONTH = 30 * DAY
_WORKBOOK = (
    (14.4, HOUR, 5 * MINUTE, "page"),
    (6, 6 * HOUR, 30 * MINUTE, "page"),
    (1, 3 * DAY, 6 * HOUR, "ticket"),
)


class AlertRule(_RuleFields):
    """An alert of an `SLO`: fires while the budget burns faster than `burn` in the last `long` and in the
    last `short` seconds, where 1 would spend just the whole budget in the whole window.

    `long` and `short` are seconds or text such as ``"1 h"``. Raises ValueError if `burn` is not positive
    and finite, or `short` is longer than `long`; TypeError if an argument has the wrong type.

    >>> AlertRule(14.4, "1 h", "5 min", "page")
    AlertRule(burn=14.4, long=3600, short=300, severity='page')
    """

    __slots__ = ()

    def __new__(cls, burn: float, long: float | str, short: float | str, severity: str) -> AlertRule:
        rate = checked_number("burn", burn)
        if not (rate > 0 and isfinite(rate)):
            raise ValueError(f"burn must be positive and finite, got {burn!r}")
        spans = checked_duration("long", long), checked_duration("short", short)
        if spans[1] > spans[0]:
            raise ValueError(f"short must not be longer than long, got {short!r} and {long!r}")
        if not isinstance(severity, str):
            raise TypeError(f"severity must be a str, got {severity!r}")
        return super().__new__(cls, rate, *spans, severity)


class Terms:
    """The checked arguments of an `SLO`, the nanoseconds of a slot, and the share that may fail."""

    __slots__ = ("budget", "latency", "min_events", "rules", "target", "unit", "window")

    def __init__(
        self,
        target: float,
        window: float,
        latency: float | None,
        rules: tuple[AlertRule, ...],
        min_events: int,
        budget: Fraction,
    ) -> None:
        self.target = target
        self.window = window
        self.latency = latency
        self.rules = rules
        self.min_events = min_events
        self.unit = -(-round(window * 10**9) // _SLOTS)
        self.budget = budget

    def slots(self, seconds: float) -> int:
        """The number of slots that a duration touches at least."""
        return max(1, -(-(round(seconds * 10**9) - _ROUNDING) // self.unit))

    def __repr__(self) -> str:
        shown = f"{self.target:g}, window={written_duration(self.window)!r}"
        return shown if self.latency is None else f"{shown}, latency={self.latency!r}"


def checked_terms(target: float, window: Any, latency: Any, rules: Any, min_events: int) -> Terms:
    """The terms of an `SLO` from its arguments."""
    percent = checked_number("target", target)
    if 0.5 < percent < 1:
        raise ValueError(f"target must be in percent, as {percent * 100:g}, got {target!r}")
    if not 50 < percent < 100:
        raise ValueError(f"target must be more than 50 and less than 100 percent, got {target!r}")
    seconds = checked_duration("window", window)
    if not _LEAST_WINDOW <= seconds <= _MOST_WINDOW:
        raise ValueError(f'window must be from "12 h" to "3660 d", got {window!r}')
    threshold = None if latency is None else checked_duration("latency", latency)
    events = checked_int("min_events", min_events)
    if events < 0:
        raise ValueError(f"min_events must not be negative, got {min_events!r}")
    budget = 1 - exact(percent) / 100
    known = _scaled(seconds) if rules is None else tuple(map(_checked_rule, checked_iterable("rules", rules)))
    for rule in known:
        if rules is None and exact(rule.burn) * budget >= 1:
            raise ValueError(
                f"target must be more than {100 - 100 / rule.burn:.4g} for a burn of {rule.burn:g},"
                f" unless rules are given, got {target!r}"
            )
        if rule.long > seconds:
            raise ValueError(f"rules must not look back beyond the window, got {rule!r}")
    return Terms(percent, seconds, threshold, known, events, budget)


def first_epoch(now: int, unit: int) -> int:
    """The latest start of a slot of every ring.

    >>> first_epoch(130, 1), first_epoch(-1, 1)
    (120, -60)
    """
    width = unit * _LONGEST_STEP
    return now // width * width


def exact(number: float) -> Fraction:
    """The number that is written: 99.9 is 999/10, and not the nearest binary fraction.

    >>> exact(99.9)
    Fraction(999, 10)
    """
    from fractions import Fraction  # which takes longer to import than the rest

    return Fraction(repr(number))


def _scaled(window: float) -> tuple[AlertRule, ...]:
    """The rules of the workbook, whose times are for 30 days."""
    scale = window / _MONTH
    return tuple(
        AlertRule(burn, long * scale, short * scale, severity) for burn, long, short, severity in _WORKBOOK
    )


def _checked_rule(rule: Iterable[Any]) -> AlertRule:
    """A rule that is one, or has its four fields; checked once more, since what ``_replace`` makes is not."""
    try:
        burn, long, short, severity = rule
    except (TypeError, ValueError):
        raise TypeError(f"rules must be AlertRules or (burn, long, short, severity), got {rule!r}") from None
    return AlertRule(burn, long, short, severity)


def checked_events(n: int) -> int:
    """A number of events."""
    number = checked_int("n", n)
    if not 0 <= number <= _MOST_EVENTS:
        raise ValueError(f"n must be from 0 to {_MOST_EVENTS}, got {n!r}")
    return number


def is_within(seconds: float, latency: float | None) -> bool:
    """Whether a request of so many seconds is as fast as it should be."""
    took = checked_number("seconds", seconds)
    if latency is None:
        raise ValueError(f"seconds must be None without a latency, got {seconds!r}")
    if not took >= 0:
        raise ValueError(f"seconds must not be negative, got {seconds!r}")
    return took <= latency


def checked_span(terms: Terms, seconds: float | str) -> int:
    """The slots of a duration that is not longer than the window."""
    span = checked_duration("seconds", seconds)
    if span > terms.window:
        window = written_duration(terms.window)
        raise ValueError(f"seconds must be at most the window, {window}, got {seconds!r}")
    return terms.slots(span)
