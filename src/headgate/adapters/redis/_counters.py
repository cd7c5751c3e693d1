"""What the calls of a limiter came to."""

from __future__ import annotations

from collections import namedtuple

from headgate.limit._rules import Tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Counts(NamedTuple):
        calls: int
        failures: int
        refused: int
        degraded: int
        resent: int
        reloads: int
else:
    _Counts = namedtuple("_Counts", "calls failures refused degraded resent reloads")


class StoreCounts(_Counts):
    """How many calls were made to the store and how many of them failed; how many of these were refused at
    once, as the breaker of their server was open; how many decisions were `degraded`; how many commands were
    sent again, as nothing had run; and how often a server did not know a script.

    >>> StoreCounts(calls=9, failures=1, refused=0, degraded=1, resent=0, reloads=0).degraded
    1
    """

    __slots__ = ()


class Counts:
    """The counters behind `StoreCounts`; any number of threads may add to them."""

    __slots__ = ("_calls", "_degraded", "_failures", "_refused", "_reloads", "_resent", "called", "degraded",
                 "failed", "refused", "reloaded")

    def __init__(self) -> None:
        self._calls, self._failures, self._refused = Tally(), Tally(), Tally()
        self._degraded, self._resent, self._reloads = Tally(), Tally(), Tally()
        self.called = self._calls.add
        self.failed = self._failures.add
        self.refused = self._refused.add
        self.degraded = self._degraded.add
        self.reloaded = self._reloads.add

    def resent(self, count: int) -> None:
        for _ in range(count):
            self._resent.add()

    def read(self) -> StoreCounts:
        return StoreCounts(*map(int, (
            self._calls, self._failures, self._refused, self._degraded, self._resent, self._reloads
        )))
