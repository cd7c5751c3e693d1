"""How large the tables of a rate limiter are, and in which units they count; shared by both twins."""

from __future__ import annotations

from operator import index

from headgate._units import scale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate._rate import Rate

_MOST_KEYS = 2**32
_KEYS_A_LINE = 4
_BURST_BITS = 32
_PASS_BITS = 38
_MOST_STRIDE = 32
_ON_FULL = {"evict": True, "deny": False}


def count_lines(max_keys: int) -> int:
    """How many lines of eight cells `max_keys` take, so that half of the cells are left free."""
    try:
        count = index(max_keys)
    except TypeError:
        raise TypeError(f"max_keys must be an int, got {max_keys!r}") from None
    if not 1 <= count <= _MOST_KEYS:
        raise ValueError(f"max_keys must be in [1, 2**32], got {max_keys!r}")
    return -(-count // _KEYS_A_LINE)


def checked_overflow(on_full: str) -> bool:
    """Whether the smallest debt gives way when all cells of a key are in use."""
    if not isinstance(on_full, str) or on_full not in _ON_FULL:
        raise ValueError(f"on_full must be 'evict' or 'deny', got {on_full!r}")
    return _ON_FULL[on_full]


def scale_of(rate: Rate) -> tuple[int, int, int, int]:
    """What `headgate._units.scale` says of a rate whose debts fit into a cell."""
    from fractions import Fraction

    return scale(rate.burst, Fraction(rate.limit) / Fraction(rate.period), _BURST_BITS)


def stride_of(lines: int) -> int:
    """The binary logarithm of the units after which the next line is swept: all of them within 2**38."""
    return min(_MOST_STRIDE, _PASS_BITS - (lines - 1).bit_length())
