"""The rules for an injected clock."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_NANOSECONDS = 2**62


def checked_clock(clock: Callable[[], int] | None) -> Callable[[], int] | None:
    """`clock`, if it is a callable or None."""
    if clock is not None and not callable(clock):
        raise TypeError(f"clock must be callable or None, got {clock!r}")
    return clock


def checked_now(now: int) -> int:
    """The time that a clock returned, if it is integer nanoseconds."""
    if not isinstance(now, int):
        raise TypeError(f"clock must return an int, got {now!r}")
    if not -_MOST_NANOSECONDS < now < _MOST_NANOSECONDS:
        raise ValueError(f"clock must return nanoseconds within 2**62 of zero, got {now!r}")
    return now
