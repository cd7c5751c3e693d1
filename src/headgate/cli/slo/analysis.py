"""What an availability, an objective and replicas amount to."""

from typing import NamedTuple

from headgate._base.durations import DAY, HOUR, YEAR, checked_duration
from headgate.slo import AlertRule, downtime, k_of_n, nines, replicas
from headgate.slo._terms import Terms, checked_terms, exact

PERIODS = {"year": YEAR, "90 d": 90 * DAY, "30 d": 30 * DAY, "week": 7 * DAY, "day": DAY, "hour": HOUR}
_EACH = 90, 95, 99, 99.5, 99.9
_LEAST_OBJECTIVE = 50


class Redundancy(NamedTuple):
    """Equal replicas, each available for so many percent."""

    replicas: int
    each: float


class Level(NamedTuple):
    """An availability as a fraction, as nines, and as seconds of downtime a year."""

    availability: float
    nines: float
    downtime: float


class Needed(NamedTuple):
    """`needed` of `replicas` must be up; whether that reaches the target, None without one."""

    needed: int
    replicas: int
    level: Level
    reaches: bool | None


class Threshold(NamedTuple):
    """A rule, the error rate above which it fires, and the share of the budget spent by then."""

    rule: AlertRule
    error_rate: float
    budget: float


class Enough(NamedTuple):
    """How many replicas of one availability reach the target, and what they have."""

    each: float
    replicas: int
    level: Level


class Analysis(NamedTuple):
    """All that the command shows; what was not asked for is empty."""

    target: float | None
    window: float
    level: Level | None
    downtimes: dict[str, float]
    thresholds: list[Threshold]
    no_alerts: str
    enough: list[Enough]
    redundancy: Redundancy | None
    needed: list[Needed]


def analyse(target: float | None, window: str, redundancy: Redundancy | None) -> Analysis:
    """The analysis of a target in percent, of replicas, or of both."""
    wanted = None if target is None else fraction(target)
    thresholds, problem = _thresholds(target, window)
    return Analysis(
        target,
        checked_duration("window", window),
        None if wanted is None else level_of(wanted),
        {} if wanted is None else {name: downtime(wanted, seconds) for name, seconds in PERIODS.items()},
        thresholds,
        problem,
        [] if wanted is None or redundancy else [_enough(fraction(each), wanted) for each in _EACH],
        redundancy,
        [] if redundancy is None else _needed(redundancy, wanted),
    )


def fraction(percent: float) -> float:
    """A percentage as the fraction that is written so.

    >>> fraction(99.9)
    0.999
    """
    return float(exact(percent) / 100)


def level_of(availability: float) -> Level:
    return Level(availability, nines(availability), downtime(availability))


def _thresholds(target: float | None, window: str) -> tuple[list[Threshold], str]:
    """The alerts of an objective, or why it has none."""
    if target is None or target <= _LEAST_OBJECTIVE:
        return [], ""
    try:
        terms = checked_terms(target, window, None, None, 0)
    except ValueError as error:
        if not str(error).startswith("target"):
            raise
        return [], f"No default alerts: {error}."
    return [_threshold(terms, rule) for rule in terms.rules], ""


def _threshold(terms: Terms, rule: AlertRule) -> Threshold:
    return Threshold(rule, float(exact(rule.burn) * terms.budget), rule.burn * rule.long / terms.window)


def _enough(each: float, target: float) -> Enough:
    count = replicas(each, target)
    return Enough(each, count, level_of(k_of_n(each, 1, count)))


def _needed(redundancy: Redundancy, target: float | None) -> list[Needed]:
    """The availability if one of the replicas suffices, if two are needed, and so on."""
    each, count = fraction(redundancy.each), redundancy.replicas
    rows = []
    for needed in range(1, count + 1):
        level = level_of(k_of_n(each, needed, count))
        rows.append(Needed(needed, count, level, None if target is None else level.availability >= target))
    return rows
