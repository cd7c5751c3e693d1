"""Availability as numbers: nines, downtime, and what redundancy buys.

All take and return fractions, 0.999 for 99.9 %, and compute with the decimals that are written, exactly.
"""

from __future__ import annotations

from math import ceil, inf, log, log1p, log10, prod

from headgate._base.checks import checked_int, checked_number
from headgate._base.durations import checked_duration
from headgate.slo._terms import exact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fractions import Fraction

_MOST_PARTS = 1000


def _checked(name: str, value: float) -> Fraction:
    number = checked_number(name, value)
    if not 0 <= number <= 1:
        hint = f"; {number:g} % is {float(exact(number) / 100)}" if 1 < number <= 100 else ""
        raise ValueError(f"{name} must be from 0 to 1, got {value!r}{hint}")
    return exact(number)


def nines(availability: float) -> float:
    """The number of nines of an availability: 3.0 for 0.999, infinite for 1.

    Raises ValueError if it is not from 0 to 1, TypeError if it is not a number.

    >>> nines(0.999), nines(0.995)
    (3.0, 2.3010299956639813)
    """
    missing = float(1 - _checked("availability", availability))
    return abs(log10(missing)) if missing else inf


def downtime(availability: float, period: float | str = "year") -> float:
    """The seconds of a `period` that an availability leaves for being down.

    `period` is in seconds, or text such as ``"30 d"``; a year has 365.25 days. Raises ValueError if
    `availability` is not from 0 to 1 or `period` is not a duration, TypeError if one has the wrong type.

    >>> downtime(0.999) / 3600, downtime(0.999, "30 d") / 60
    (8.766, 43.2)
    """
    missing = 1 - _checked("availability", availability)
    return float(missing * exact(checked_duration("period", period)))


def series(*availabilities: float) -> float:
    """The availability of parts that are all needed, and fail independently; 1.0 for none.

    Raises ValueError if one is not from 0 to 1, TypeError if it is not a number. Complexity: O(n).

    >>> series(0.999, 0.995)
    0.994005
    """
    return float(prod(_all(availabilities), start=exact(1)))


def parallel(*availabilities: float) -> float:
    """The availability of parts of which any one suffices, and which fail independently; 0.0 for none.

    Raises ValueError if one is not from 0 to 1, TypeError if it is not a number. Complexity: O(n).

    >>> parallel(0.99, 0.9)
    0.999
    """
    return float(1 - prod([1 - part for part in _all(availabilities)], start=exact(1)))


def _all(availabilities: tuple[float, ...]) -> list[Fraction]:
    if len(availabilities) > _MOST_PARTS:
        raise ValueError(f"availabilities must be at most {_MOST_PARTS}, got {len(availabilities)}")
    return [_checked("availability", part) for part in availabilities]


def k_of_n(availability: float, k: int, n: int) -> float:
    """The availability of `n` equal parts of which any `k` are needed, and which fail independently.

    Raises ValueError if `availability` is not from 0 to 1, `n` not from 1 to 1,000 or `k` not from 0 to `n`;
    TypeError if an argument has the wrong type. Complexity: O(n).

    >>> k_of_n(0.99, 2, 3), k_of_n(0.9, 1, 2)
    (0.999702, 0.99)
    """
    each = _checked("availability", availability)
    parts, needed = checked_int("n", n), checked_int("k", k)
    if not 1 <= parts <= _MOST_PARTS:
        raise ValueError(f"n must be from 1 to {_MOST_PARTS}, got {n!r}")
    if not 0 <= needed <= parts:
        raise ValueError(f"k must be from 0 to n = {parts}, got {k!r}")
    up, whole = each.numerator, each.denominator
    ways, ups, downs = 1, 1, (whole - up) ** parts
    total = 0
    for number in range(parts + 1):
        if number >= needed:
            total += ways * ups * downs
        ways = ways * (parts - number) // (number + 1)
        ups *= up
        downs = downs // (whole - up) if whole > up else int(number + 1 == parts)
    return float(total / whole**parts)


def replicas(availability: float, target: float) -> int:
    """How many equal replicas, of which any one suffices, reach the availability `target` if they fail
    independently.

    Raises ValueError if `availability` is not above 0 and at most 1, `target` not from 0 to 1, or 1 while
    `availability` is less; TypeError if one is not a number.

    >>> replicas(0.995, 0.9999), replicas(0.9, 0.999)
    (2, 3)
    """
    each, wanted = _checked("availability", availability), _checked("target", target)
    if not each:
        raise ValueError(f"availability must be above 0, got {availability!r}")
    if wanted <= each:
        return 1
    if wanted == 1:
        raise ValueError(f"target must be less than 1 with an availability of less, got {target!r}")
    estimate = ceil(log(1 - wanted) / log1p(-each))
    if estimate > _MOST_PARTS:
        return estimate
    count = max(1, estimate - 1)
    while (1 - each) ** count > 1 - wanted:
        count += 1
    return count
