"""The report as tables and as JSON."""

from decimal import Decimal
from math import isfinite
from typing import Any

from headgate._base.durations import DAY, HOUR, MINUTE, written_duration
from headgate.cli.slo.analysis import Analysis, Level
from headgate.cli.tables import Printer, Row, Table

SCHEMA = "headgate.slo"
SCHEMA_VERSION = 1
_UNITS = (("days", DAY), ("h", HOUR), ("min", MINUTE), ("s", 1), ("ms", 1e-3))
_DAYS_FROM = 5
_LEVEL = ("availability", "nines", "down a year")
_DIGITS = 12


def show(found: Analysis, to: Printer) -> None:
    """The tables that were asked for."""
    if found.level is not None:
        to.table(_downtimes(found))
    if found.thresholds:
        to.table(_alerts(found))
    if found.enough:
        to.table(_enough(found))
    if found.needed:
        to.table(_needed(found))
    for note in _notes(found):
        to.gap()
        to.text(note)


def _notes(found: Analysis) -> list[str]:
    notes = [found.no_alerts] if found.no_alerts else []
    if found.enough or found.needed:
        notes.append(
            "Redundancy is computed for failures that are independent. What replicas share - a"
            " deployment, a database, a network, a zone - is in series with all of them."
        )
    return notes


def _downtimes(found: Analysis) -> Table:
    title = f"Downtime of {written_percent((found.target or 0) / 100)} ({_nines(found.level)} nines)"
    rows = [Row((name, written_time(seconds))) for name, seconds in found.downtimes.items()]
    return Table(title, ("period", "downtime"), rows)


def _alerts(found: Analysis) -> Table:
    """The alerts by severity: the error rate above which each fires, and what is spent by then."""
    rows = [
        Row((
            rule.severity, written_duration(rule.long), written_duration(rule.short), f"{rule.burn:g}",
            written_percent(error_rate), written_percent(budget),
        ))
        for rule, error_rate, budget in found.thresholds
    ]
    columns = ("alert", "long", "short", "burn", "error rate\nabove", "budget\nspent")
    return Table(f"Alerts of an objective over {written_duration(found.window)}", columns, rows)


def _enough(found: Analysis) -> Table:
    rows = [
        Row((written_percent(each), str(count), *_level(level))) for each, count, level in found.enough
    ]
    return Table("Replicas that reach it, if any one suffices", ("each", "replicas", *_LEVEL), rows)


def _needed(found: Analysis) -> Table:
    assert found.redundancy is not None
    rows = [
        Row((f"{needed} of {count}", *_level(level), *_mark(reaches)), bool(reaches))
        for needed, count, level, reaches in found.needed
    ]
    title = f"{found.redundancy.replicas} replicas of {written_percent(found.redundancy.each / 100)} each"
    reached = () if found.target is None else (f"reaches\n{written_percent(found.target / 100)}",)
    return Table(title, ("needed", *_LEVEL, *reached), rows)


def _mark(reaches: bool | None) -> tuple[str, ...]:
    return () if reaches is None else ("yes" if reaches else "no",)


def _level(level: Level) -> tuple[str, str, str]:
    return written_percent(level.availability), _nines(level), written_time(level.downtime)


def _nines(level: Level | None) -> str:
    return "" if level is None else f"{level.nines:.3g}"


def written_percent(fraction: float) -> str:
    """A fraction in percent, with all digits that matter.

    >>> written_percent(0.9995), written_percent(0.0144), written_percent(0.999999875)
    ('99.95%', '1.44%', '99.9999875%')
    >>> written_percent(6e-7), written_percent(0)
    ('0.00006%', '0%')
    """
    return f"{Decimal(f'{fraction * 100:.{_DIGITS}g}'):f}%"


def written_time(seconds: float) -> str:
    """A downtime in the unit in which it is read.

    >>> written_time(315_576), written_time(31_557.6), written_time(3155.76), written_time(315.576)
    ('87.7 h', '8.8 h', '52.6 min', '5.3 min')
    >>> written_time(40 * 86400), written_time(0), written_time(0.0004)
    ('40.0 days', '0 s', '0.4 ms')
    """
    if not seconds:
        return "0 s"
    unit, size = next(
        ((unit, size) for unit, size in _UNITS if seconds >= size * (_DAYS_FROM if unit == "days" else 1)),
        _UNITS[-1],
    )
    number = seconds / size
    return f"{number:.1f} {unit}" if number >= 1 or unit != "ms" else f"{number:.2g} {unit}"


def as_json(found: Analysis) -> dict[str, Any]:
    """The same as JSON; an infinite number of nines is null."""
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "target_percent": found.target,
        "window_seconds": found.window,
        "nines": None if found.level is None else _finite(found.level.nines),
        "downtime_seconds": found.downtimes,
        "alerts": [
            rule._asdict() | {"error_rate": error_rate, "budget": budget}
            for rule, error_rate, budget in found.thresholds
        ],
        "enough": [
            {"each": each, "replicas": count} | _level_json(level) for each, count, level in found.enough
        ],
        "replicas": [
            {"needed": needed, "replicas": count, "reaches": reaches} | _level_json(level)
            for needed, count, level, reaches in found.needed
        ],
    }


def _level_json(level: Level) -> dict[str, Any]:
    return {
        "availability": level.availability,
        "nines": _finite(level.nines),
        "downtime_seconds": level.downtime,
    }


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None
