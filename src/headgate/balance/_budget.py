"""A budget for retries, shared by all clients of a fleet."""

from __future__ import annotations

from time import monotonic_ns

from headgate._base.checks import checked_number
from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["RetryBudget"]

_CELLS = 10
_MAX_SECONDS = 86_400


def _number(name: str, value: float, most: float) -> float:
    number = float(checked_number(name, value))
    if not 0 <= number <= most:
        raise ValueError(f"{name} must be from 0 to {most}, got {value!r}")
    return number


class RetryBudget:
    """A limit on retries: a `share` of the requests, and `per_second` more for when requests are few.

    Over the last `window` seconds, counted in tenths, at most ``share * requests + per_second * window``
    retries are allowed. So servers that fail under load are not overloaded further by retries: with the
    defaults, a fleet of which every server fails gets at most 1.2 times the requests, and 10 retries a
    second.
    `clock` returns integer nanoseconds and defaults to the monotonic clock. Every method is atomic among
    threads.

    Source: Finagle, RetryBudget; Linkerd, retry budgets.

    Raises TypeError if an argument has the wrong type, ValueError unless `share` is from 0 to 1, `per_second`
    from 0 to 1,000,000, and `window` from 1 to 86,400.

    >>> budget = RetryBudget(share=0.5, per_second=0, clock=lambda: 0)
    >>> for _ in range(4):
    ...     budget.deposit()
    >>> [budget.withdraw() for _ in range(3)]
    [True, True, False]
    """

    __slots__ = ("_cells", "_clock", "_lock", "_reserve", "_share", "_width")

    def __init__(self, share: float = 0.2, per_second: float = 10, *, window: float = 10,
                 clock: Callable[[], int] | None = None) -> None:
        self._share = _number("share", share, 1)
        seconds = _number("window", window, _MAX_SECONDS)
        if seconds < 1:
            raise ValueError(f"window must be from 1 to {_MAX_SECONDS}, got {window!r}")
        self._reserve = _number("per_second", per_second, 1_000_000) * seconds
        self._width = round(seconds * 1e9 / _CELLS)
        self._clock = checked_clock(clock) or monotonic_ns
        self._cells = [[-_CELLS, 0, 0] for _ in range(_CELLS)]  # number of a tenth, requests, retries
        self._lock = new_lock()

    def _tenth(self) -> int:
        return checked_now(self._clock()) // self._width

    def _cell(self, tenth: int) -> list[int]:
        """The cell of the present tenth, which replaces the oldest one."""
        cell = self._cells[tenth % _CELLS]
        if cell[0] != tenth:
            cell[:] = tenth, 0, 0
        return cell

    def _left(self, tenth: int) -> float:
        cells = [cell for cell in self._cells if cell[0] > tenth - _CELLS]
        return self._reserve + self._share * sum(cell[1] for cell in cells) - sum(cell[2] for cell in cells)

    def deposit(self) -> None:
        """Counts a request that is not a retry.

        Complexity: O(1).

        >>> budget = RetryBudget(share=0.25, per_second=0)
        >>> budget.deposit()
        >>> budget.balance
        0.25
        """
        tenth = self._tenth()
        with self._lock:
            self._cell(tenth)[1] += 1

    def withdraw(self) -> bool:
        """Counts a retry and returns True if one is allowed, else returns False.

        Complexity: O(1).

        >>> RetryBudget(per_second=1).withdraw(), RetryBudget(per_second=0).withdraw()
        (True, False)
        """
        tenth = self._tenth()
        with self._lock:
            allowed = self._left(tenth) >= 1
            self._cell(tenth)[2] += allowed
        return allowed

    @property
    def balance(self) -> float:
        """How many retries are allowed now, not rounded.

        Complexity: O(1).

        >>> RetryBudget(per_second=3, window=10).balance
        30.0
        """
        tenth = self._tenth()
        with self._lock:
            return self._left(tenth)

    def __repr__(self) -> str:
        per_second = self._reserve * 1e9 / (self._width * _CELLS)
        name = type(self).__name__
        return f"<{name} share={self._share!r} per_second={per_second:g} balance={self.balance:g}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self) -> NoReturn:
        raise TypeError(f"cannot copy {type(self).__name__!r} object")
