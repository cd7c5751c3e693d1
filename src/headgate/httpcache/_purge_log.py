"""A log of purges for many caches: records with numbers, in memory."""

from __future__ import annotations

import secrets
from collections import deque
from itertools import islice
from time import time

from headgate._base.checks import checked_callable, checked_int
from headgate._base.forks import new_lock, renew
from headgate.httpcache._purging import purge_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Record: TypeAlias = tuple[int, dict[str, Any]]
    Position: TypeAlias = tuple[str, int]
    Batch: TypeAlias = tuple[str, int, list[Record]]

MOST_RECORDS = 1_000_000


def checked_maxlen(maxlen: int) -> int:
    """How many records a log keeps."""
    checked = checked_int("maxlen", maxlen)
    if not 1 <= checked <= MOST_RECORDS:
        raise ValueError(f"maxlen must be from 1 to {MOST_RECORDS}, got {maxlen!r}")
    return checked


def purge_record(url: str | None, tag: str | None, prefix: str | None, stale: bool) -> dict[str, Any]:
    """The arguments of ``HTTPCache.purge`` that are given, without a time. Raises what that one raises.

    >>> purge_record(None, "news", None, False)
    {'tag': 'news'}
    """
    if not isinstance(stale, bool):
        raise TypeError(f"stale must be a bool, got {stale!r}")
    purge_of(url, tag, prefix, stale, 0)
    given = {"url": url, "tag": tag, "prefix": prefix, "stale": stale or None}
    return {name: value for name, value in given.items() if value is not None}


class PurgeLog:
    """A log of purges in the memory of one process: the latest `maxlen`, numbered from 1 on.

    `AsyncPurges` and `PurgeFollower` read it; other processes do by whatever its owner serves it with. It has
    a random epoch, another one after each start. `clock` returns seconds since 1970. Safe for threads; in
    the child of a fork it begins anew.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range.

    >>> log = PurgeLog(clock=lambda: 1_796_000_000.0)
    >>> log.append(tag="news")
    (1, {'tag': 'news', 'at': 1796000000.0})
    >>> epoch, last, records = log.read(None)
    >>> last, records, log.read((epoch, last))[2]
    (1, [(1, {'tag': 'news', 'at': 1796000000.0})], [])
    """

    __slots__ = ("__weakref__", "_clock", "_epoch", "_last", "_lock", "_records")

    def __init__(self, maxlen: int = 10_000, *, clock: Callable[[], float] = time) -> None:
        self._records: deque[Record] = deque(maxlen=checked_maxlen(maxlen))
        self._clock = checked_callable("clock", clock)
        self._lock = new_lock()
        self._renew()
        renew(self)

    def _renew(self) -> None:
        self._epoch, self._last = secrets.token_hex(8), 0
        self._records.clear()

    def append(self, url: str | None = None, *, tag: str | None = None, prefix: str | None = None,
               stale: bool = False) -> Record:
        """Adds a purge, by the arguments of ``HTTPCache.purge``: its number, and what is to be applied.

        Raises what ``HTTPCache.purge`` raises. Complexity: O(1).
        """
        record = purge_record(url, tag, prefix, stale)
        with self._lock:
            record["at"] = self._clock()
            self._last += 1
            self._records.append((self._last, record))
            return self._last, record.copy()

    def read(self, position: Position | None, wait: float = 0.0) -> Batch:
        """What came after a position, the epoch and number of a record; all for None and other epochs.

        Returns the epoch, the number of the latest record and the records, as ``PurgeFollower.receive``
        takes them. It never waits. Complexity: O(records after the position).
        """
        with self._lock:
            after = position[1] if position is not None and position[0] == self._epoch else 0
            count = min(max(0, self._last - after), len(self._records))
            newest = list(islice(reversed(self._records), count))
            return self._epoch, self._last, newest[::-1]

    def __repr__(self) -> str:
        return f"<PurgeLog of {self._last} purges>"
