"""How large the tables of a rate limiter are, and in which units they count; shared by both twins."""

from __future__ import annotations

from math import inf

from headgate._base.checks import checked_int
from headgate.limit._rate import Rate
from headgate.limit._units import scale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Window = tuple[int, int]

_MOST_KEYS = 2**32
_KEYS_A_LINE = 4
_BURST_BITS = 32
_CIRCLE_BITS = 36
_MOST_STRIDE = 32
_MOST_ENTRIES = 2**20
_MOST_PERIOD = 2**31
_NANOSECONDS = 10**9
_ON_FULL = {"evict": True, "deny": False}
_ON_MISMATCH = {"raise": False, "adopt": True}


def count_lines(max_keys: int) -> int:
    """How many lines of eight cells `max_keys` take, so that half of the cells stay free."""
    count = checked_int("max_keys", max_keys)
    if not 1 <= count <= _MOST_KEYS:
        raise ValueError(f"max_keys must be in [1, 2**32], got {max_keys!r}")
    return -(-count // _KEYS_A_LINE)


def no_memory() -> MemoryError:
    """The error of a table that is too large."""
    return MemoryError("max_keys and the limits need more memory than there is")


def checked_overflow(on_full: str) -> bool:
    """Whether the smallest debt is evicted when all cells of a key are in use."""
    if not isinstance(on_full, str) or on_full not in _ON_FULL:
        raise ValueError(f"on_full must be 'evict' or 'deny', got {on_full!r}")
    return _ON_FULL[on_full]


def checked_mismatch(on_mismatch: str) -> bool:
    """Whether the rate of an existing file takes the place of the one that was given."""
    if not isinstance(on_mismatch, str) or on_mismatch not in _ON_MISMATCH:
        raise ValueError(f"on_mismatch must be 'raise' or 'adopt', got {on_mismatch!r}")
    return _ON_MISMATCH[on_mismatch]


def checked_windows(rates: Sequence[Rate]) -> tuple[Window, ...]:
    """The limit of each tier of a strict limiter, and its period in nanoseconds."""
    return tuple(map(_checked_window, rates))


def _checked_window(rate: Rate) -> Window:
    if rate.limit != int(rate.limit):
        raise ValueError(f"rate must have a whole limit with strict=True, got {str(rate)!r}")
    if rate.limit > _MOST_ENTRIES:
        raise ValueError(
            f"rate must have a limit of at most {_MOST_ENTRIES} with strict=True, got {str(rate)!r}"
        )
    if rate.burst != rate.limit:
        raise ValueError(f"burst must be the limit with strict=True, got {str(rate)!r}")
    if rate.period > _MOST_PERIOD:
        raise ValueError(
            f"rate must have a period of at most {_MOST_PERIOD} s with strict=True, got {str(rate)!r}"
        )
    return int(rate.limit), max(1, round(rate.period * _NANOSECONDS))


def longest_log(windows: Sequence[Window]) -> int:
    """How many entries a log has: one log serves all tiers, and has one at least."""
    return max(1, *[limit for limit, _ in windows])


def tables_of(rates: tuple[Rate, ...], windows: Sequence[Window]) -> tuple[Rate, ...]:
    """The rates of the tables of a limiter: one for each tier, or where there are windows a single one whose
    tokens are the seconds until the newest request has left the longest.
    """
    if not windows:
        return rates
    longest = max([period for _, period in windows]) / _NANOSECONDS
    return (Rate(longest, longest),)


def scale_of(rate: Rate) -> tuple[int, int, int, int]:
    """What `headgate.limit._units.scale` returns for a rate whose debts fit into a cell; a limit of 0 has no
    burst, and what is owed under it is refilled as if it were one a second.
    """
    from fractions import Fraction

    if not rate.limit:
        return *scale(1, 1, _BURST_BITS)[:3], 0
    return scale(rate.burst, Fraction(rate.limit) / Fraction(rate.period), _BURST_BITS)


def largest_cost(rates: Sequence[Rate]) -> float:
    """The largest possible cost: the smallest burst, or any where a limit of 0 denies all."""
    return min([rate.burst for rate in rates]) or inf


def stride_of(lines: int) -> int:
    """The binary logarithm of the units after which the next line is swept: all of them within 2**36."""
    return min(_MOST_STRIDE, _CIRCLE_BITS - (lines - 1).bit_length())
