"""Times in logs: numbers since the epoch, ISO 8601, or the common log format."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_COMMON_LOG = "%d/%b/%Y:%H:%M:%S %z"
_EPOCH = datetime.fromtimestamp(0, UTC)
_MOST = 2**62
_FIRST_DATE = 10**17


def nanoseconds(time: Any, unit: str = "s") -> int:
    """`time` in nanoseconds since the epoch: a number is in `unit`; a date without a zone is UTC.

    >>> nanoseconds("1.5"), nanoseconds(1500, "ms"), nanoseconds("1970-01-01T00:00:01.5Z")
    (1500000000, 1500000000, 1500000000)
    >>> nanoseconds("[01/Jan/1970:01:00:01 +0100]")
    1000000000
    """
    text = str(time).strip().strip("[]")
    try:
        number = Decimal(text) * UNITS[unit]
        moment = int(number) if abs(number) < _MOST else _MOST
    except ArithmeticError:  # not a number, or NaN
        moment = _of_date(text)
    if not -_MOST < moment < _MOST:
        raise ValueError(f"a time is within 140 years of 1970, got {time!r}")
    return moment


@lru_cache(maxsize=1024)
def _of_date(text: str) -> int:
    """Cached, as all lines of a second have the same text."""
    for parse in (datetime.fromisoformat, _common_log):
        try:
            date = parse(text)
        except ValueError:
            continue
        since = (date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
    raise ValueError(f"a time is a number, ISO 8601 or like 31/Dec/2026:23:59:59 +0000, got {text!r}")


def _common_log(text: str) -> datetime:
    return datetime.strptime(text, _COMMON_LOG)


def is_date(moment: int) -> bool:
    """Whether a number is large enough to be a date."""
    return moment >= _FIRST_DATE


def written(moment: int) -> str:
    """A time as text: a date in UTC, or seconds if the number is too small for a date.

    >>> written(86_400 * 10**9 * 20_000), written(1_500_000_000)
    ('2024-10-04 00:00:00', '1.5 s')
    """
    if not is_date(moment):
        return f"{moment / 1e9:g} s"
    return str(datetime.fromtimestamp(moment // 10**9, UTC).replace(tzinfo=None))


def written_span(seconds: float) -> str:
    """A duration as text, in the largest unit of which it has at least two.

    >>> written_span(90), written_span(7200), written_span(0.5)
    ('90 s', '2 h', '0.5 s')
    """
    unit, size = next(
        ((unit, size) for unit, size in (("days", 86400), ("h", 3600), ("min", 60)) if seconds >= 2 * size),
        ("s", 1),
    )
    return f"{seconds / size:.3g} {unit}"
