"""Durations as people write them."""

from __future__ import annotations

from math import isfinite

from headgate._base.checks import checked_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DAY, HOUR, MINUTE = 86400, 3600, 60
YEAR = 31_557_600
"""The Julian year of 365.25 days."""

UNITS = {
    "ms": 0.001, "millisecond": 0.001,
    "s": 1, "sec": 1, "second": 1,
    "m": MINUTE, "min": MINUTE, "minute": MINUTE,
    "h": HOUR, "hr": HOUR, "hour": HOUR,
    "d": DAY, "day": DAY,
    "w": 7 * DAY, "week": 7 * DAY,
}
_UNITS_AND_YEARS = UNITS | {"year": YEAR}
_WRITTEN = {"d": DAY, "h": HOUR, "min": MINUTE}


def seconds_in(text: str, units: dict[str, float] = UNITS) -> float:
    """The seconds that a text such as ``"5 min"``, ``"30s"`` or ``"day"`` says.

    Raises ValueError if it is not a number, which may be left out, and one of the `units` or its plural.

    >>> seconds_in("5 min"), seconds_in("0.5 days"), seconds_in("h")
    (300, 43200.0, 3600)
    """
    text = text.strip()
    count = text.rstrip("".join(units))
    name = text.removeprefix(count)
    unit = units.get(name) or units.get(name.removesuffix("s"))
    if unit is None:
        raise ValueError(f"no unit of time: {text!r}")
    return (number_in(count) if count else 1) * unit


def refuse_month(text: str) -> None:
    """Raise if the unit is M, which many take for a month though it would be read as a minute.

    >>> refuse_month("5 min")
    """
    if text.rstrip().endswith("M") and not text.rstrip()[-2:-1].isalpha():
        raise ValueError("no unit of time: 'M'")


def number_in(text: str) -> float:
    """The number that a text says, an int if it has digits only.

    >>> number_in(" 5 "), number_in("0.5")
    (5, 0.5)
    """
    text = text.strip()
    return int(text) if text.isdecimal() else float(text)


def checked_duration(name: str, value: Any) -> float:
    """`value` in seconds: a positive finite number, or text such as ``"30 d"``, ``"5 min"`` or ``"year"``.

    Units are ms, s, min, h, d, week and year (365.25 days), their names, and w and m (a minute). Raises
    ValueError if the duration is not positive, not finite or not readable, TypeError if it is neither a
    number nor a str.

    >>> checked_duration("window", "30 d"), checked_duration("window", 0.25)
    (2592000, 0.25)
    """
    if not isinstance(value, str):
        seconds = checked_number(name, value)
    else:
        try:
            refuse_month(value)
            seconds = seconds_in(value.lower(), _UNITS_AND_YEARS)
        except ValueError:
            raise ValueError(f'{name} must be a duration such as "30 d" or "5 min", got {value!r}') from None
    if not (seconds > 0 and isfinite(seconds)):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return seconds


def written_duration(seconds: float) -> str:
    """The text of a duration, in the largest unit of which it is a whole number.

    >>> written_duration(2592000), written_duration(5400), written_duration(0.25)
    ('30 d', '90 min', '0.25 s')
    """
    unit, size = next(((unit, size) for unit, size in _WRITTEN.items() if seconds % size == 0), ("s", 1))
    return f"{seconds / size:g} {unit}"
