"""The fixed-point units in which a bucket counts, shared by both twins.

A token is 2**bits units. Time is counted in units too: what the refill brings up to that time. So the
rate, not the cost of a request, is rounded, upwards and by less than 2**-50 of itself, and a token that is
due at a whole nanosecond is there at that nanosecond.
"""

from __future__ import annotations

from math import frexp, inf, ldexp

from headgate._base.checks import checked_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fractions import Fraction
    from typing import SupportsFloat

_NANOSECONDS = 10**9
_MOST_BITS = 60
_MOST_RATE_BITS = 33
_MOST_BURST_BITS = 61
_MOST = 2**_MOST_BURST_BITS


def scale(
    capacity: float, refill_rate: float | Fraction, burst_bits: int = _MOST_BURST_BITS
) -> tuple[int, int, int, int]:
    """The `bits` of a token, the refill a nanosecond as ``multiplier / 2**shift``, and the burst in units.

    The burst is at most ``2**burst_bits`` units, where the capacity itself is no more.
    """
    free = min(_MOST_RATE_BITS - frexp(refill_rate)[1], burst_bits - frexp(capacity)[1])
    bits = max(0, min(_MOST_BITS, free))
    numerator, denominator = refill_rate.as_integer_ratio()
    numerator <<= bits
    denominator *= _NANOSECONDS
    shift = max(0, min(127, 62 - numerator.bit_length() + denominator.bit_length()))
    multiplier = -(-(numerator << shift) // denominator)
    return bits, multiplier + (multiplier >> 51), shift, max(1, to_units(capacity, bits))


def to_units(tokens: float, bits: int) -> int:
    """`tokens` in units: exact for an int, rounded down for a fraction, but not to nothing."""
    if isinstance(tokens, int):
        return tokens << bits
    return max(1, int(ldexp(tokens, bits))) if tokens else 0


def units_at(elapsed: int, multiplier: int, shift: int) -> int:
    """What the refill brings in `elapsed` nanoseconds, which may be negative."""
    if elapsed >= 0:
        return elapsed * multiplier >> shift
    return -(-elapsed * multiplier >> shift) - 1


def wait(elapsed: int, units: int, multiplier: int, shift: int) -> int:
    """The nanoseconds, counted from `elapsed`, after which the refill has brought `units` more."""
    if units <= 0:
        return 0
    target = units_at(elapsed, multiplier, shift) + units
    if target >= 0:
        return -(-(target << shift) // multiplier) - elapsed
    return -(((-target << shift) - 1) // multiplier) - elapsed


def unused(reserved: int, used: int, came: int) -> int:
    """The units to give back of those that were reserved, if so many are used and so many have come."""
    return min(reserved - used, max(0, reserved - max(0, came)))


def checked_amount(name: str, value: SupportsFloat) -> float:
    """`value` as an int or a float, if it is finite and not negative."""
    number = checked_number(name, value)
    if not 0 <= number < inf:
        raise ValueError(f"{name} must be finite and non-negative, got {value!r}")
    return number


def checked_positive(name: str, value: SupportsFloat) -> float:
    """`value` as an int or a float, if it is positive and no capacity or rate too large to count."""
    number = checked_number(name, value)
    if not 0 < number < inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if number > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}, got {value!r}")
    return number
