"""Lifetimes, tags and the seed, for both twins: checks of arguments, and what pickles contain."""

from __future__ import annotations

from headgate._base.checks import checked_int, checked_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = tuple[Any, Any, int, int, tuple[str, ...]]
    Lifetime = tuple[Any, int, int, tuple[str, ...]]

NEVER = 2**63 - 1
_MOST_SECONDS = NEVER / 1e9 / 2


def checked_lifetime(name: str, seconds: float | None) -> int | None:
    """`seconds` in whole nanoseconds, at least one; `NEVER` beyond 146 years; None as it is."""
    if seconds is None:
        return None
    if not hasattr(seconds, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, got {seconds!r}")
    number = float(seconds)
    if not number > 0:
        raise ValueError(f"{name} must be positive, got {seconds!r}")
    return max(1, round(number * 1e9)) if number < _MOST_SECONDS else NEVER


def checked_fraction(name: str, value: float) -> float:
    """`value` as a float in [0, 1)."""
    number = checked_number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")
    return float(number)


def checked_seed(seed: int) -> int:
    """`seed` as the 64 bits from which all draws follow."""
    return checked_int("seed", seed) % 2**64


def shortened(lifetime: int, jitter: float, drawn: int) -> int:
    """`lifetime` less a random share of it, up to `jitter`, that follows from the 64 bits `drawn`."""
    return max(1, lifetime - int(lifetime * jitter * (drawn / 2**64)))


def checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """`tags` as a tuple of plain strings, each once."""
    if isinstance(tags, str) or not hasattr(tags, "__iter__"):
        raise TypeError(f"tags must be an iterable of str, got {tags!r}")
    plain = tuple(dict.fromkeys(tags))
    for tag in plain:
        if type(tag) is not str:
            raise TypeError(f"tags must be str, got {tag!r}")
    return plain


def lifetimes(rows: list[Row]) -> list[Lifetime]:
    """Key, nanoseconds left in all and by ttl, and tags, of the rows that have any of them."""
    return [(key, left, ttl_left, tags) for key, _, left, ttl_left, tags in rows if left != NEVER or tags]
