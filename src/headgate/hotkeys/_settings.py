"""The records that `HotKeys` returns, and checks of its arguments, shared by both twins."""

from __future__ import annotations

from collections import namedtuple
from operator import itemgetter

from headgate._base.checks import checked_int, checked_int_or_none, checked_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, NamedTuple, TypeVar

    _Key = TypeVar("_Key")

    class _Fields(NamedTuple, Generic[_Key]):
        key: _Key
        count: Any  # an int; a tuple has a method of this name
        error: int
else:
    _Fields = namedtuple("_Fields", "key count error")

_MAX_KEYS = 2**26
_MAX_NANOSECONDS = 2**62
_MAX_TOTAL = 2**63 - 1


class HotKey(_Fields["_Key"]):
    """A key of `HotKeys`, added at least ``count - error`` and at most `count` times.

    >>> HotKey("user:1", 10, 2).count
    10
    """

    __slots__ = ()


def checked_k(k: int) -> int:
    """The maximum number of keys."""
    number = checked_int("k", k)
    if not 1 <= number <= _MAX_KEYS:
        raise ValueError(f"k must be from 1 to {_MAX_KEYS}, got {k!r}")
    return number


def checked_half_life(half_life: float | None) -> int:
    """The nanoseconds of `half_life`, 0 for None."""
    if half_life is None:
        return 0
    seconds = checked_number("half_life", half_life)
    if not 1e-9 <= seconds < _MAX_NANOSECONDS / 1e9:
        raise ValueError(f"half_life must be from a nanosecond to 2**62 of them, got {half_life!r}")
    return round(seconds * 1e9)


def checked_count(n: int) -> int:
    """The number to add."""
    number = checked_int("n", n)
    if number < 1:
        raise ValueError(f"n must be positive, got {n!r}")
    if number > _MAX_TOTAL:
        raise ValueError(f"n must leave the total below 2**63, got {n!r}")
    return number


def checked_limit(n: int | None) -> int:
    """The maximum number of records that `top` returns."""
    number = checked_int_or_none("n", n)
    if number is None:
        return _MAX_KEYS
    if number < 0:
        raise ValueError(f"n must not be negative, got {n!r}")
    return min(number, _MAX_KEYS)


def rising(rows: list[tuple[Any, int, int]]) -> tuple[tuple[Any, int, int], ...]:
    """Rows of key, count and error as a pickle has them: the least count first, equal counts in order."""
    return tuple(sorted(rows, key=itemgetter(1)))


def bad_row(key: object) -> ValueError:
    return ValueError(f"state must hold at most k distinct keys by rising counts, got {key!r}")
