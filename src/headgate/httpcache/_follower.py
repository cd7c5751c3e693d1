"""Purges that are made elsewhere: applied in the order of a log, and what is missing noticed."""

from __future__ import annotations

from time import time

from headgate._base.checks import checked_number
from headgate.cache._listeners import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from headgate.httpcache._cache import HTTPCache

_MOST_SKEW = 86400
_MOST_TIME = 2**33 - 2 * _MOST_SKEW
_NO_PURGE = KeyError, TypeError, ValueError


class PurgeFollower:
    """Applies the purges of a log to `cache`, as they are read from it by whatever means.

    The log numbers its records from 1 on without gaps, keeps the latest of them, and has an `epoch` that
    changes when it has lost its numbers. Each record is a mapping of the arguments of ``HTTPCache.purge``,
    with the time `at` by the clock of the log. Where records are missing, all responses that were generated
    before the first one after them, or until now if there is none, become stale: `gaps` counts that.

    `skew` are the seconds by which the clocks of the log, of the cache and of other caches may differ: purges
    concern what was generated until so long after them. `clock` returns seconds since 1970. Not for several
    threads.

    Raises ValueError or TypeError if `skew` is no number from 0 to 86,400.

    >>> from headgate.httpcache import HTTPCache
    >>> follower = PurgeFollower(HTTPCache())
    >>> follower.receive("a", 1, [(1, {"tag": "news", "at": 1_700_000_000.0})])
    1
    >>> follower.position, follower.gaps                    # the next one to read is 2
    (('a', 1), 0)
    >>> follower.receive("a", 4, [(4, {"url": "http://a/", "at": 1_700_000_002.5})])
    1
    >>> follower.position, follower.gaps                    # 2 and 3 are lost
    (('a', 4), 1)
    """

    __slots__ = ("_clock", "_skew", "cache", "gaps", "position")

    def __init__(self, cache: HTTPCache, *, skew: float = 0.0, clock: Callable[[], float] = time) -> None:
        self._skew = checked_number("skew", skew)
        if not 0 <= self._skew <= _MOST_SKEW:
            raise ValueError(f"skew must be from 0 to {_MOST_SKEW} seconds, got {skew!r}")
        self.cache = cache
        self.gaps = 0
        self.position: tuple[str, int] | None = None
        self._clock = clock

    def __repr__(self) -> str:
        return f"<PurgeFollower at {self.position}, {self.gaps} gaps>"

    def receive(self, epoch: str, last: int, records: Iterable[tuple[int, Mapping[str, Any]]]) -> int:
        """Apply what was read after the `position`, or from the first record on while it is None or of
        another epoch; how many records were applied. `last` is the number of the latest one in the log.

        A record that was applied before is passed over, and one that is no purge counts as missing; so does
        one for which the cache's `key` raises, whose exception goes to ``sys.unraisablehook``.
        """
        return sum(self._steps(epoch, last, records))

    def _steps(
        self, epoch: str, last: int, records: Iterable[tuple[int, Mapping[str, Any]]]
    ) -> Iterator[bool]:
        """What ``receive`` does, record by record: whether each was applied."""
        is_known = self.position is None  # whether what may be missing before is no new gap
        if self.position is None or self.position[0] != epoch:
            if not is_known:
                self._miss(None, False)
                is_known = True
            self.position = epoch, 0
        for number, record in records:
            expected = self.position[1] + 1
            if number < expected:
                continue
            if number > expected:
                self._miss(record, is_known)
            was_applied = self._try(record)
            is_known = False
            self.position = epoch, number
            yield was_applied
        if last != self.position[1]:
            self._miss(None, is_known)
            self.position = epoch, last

    def _try(self, record: Mapping[str, Any]) -> bool:
        """Apply a record, which counts as missing if that cannot be done."""
        try:
            self.apply(record)
            return True
        except _NO_PURGE:
            pass
        except Exception as error:  # from the user's function
            report(error)
        self._miss(None, False)
        return False

    def apply(self, record: Mapping[str, Any]) -> None:
        """Apply one record, wherever in the log it is; the position stays.

        Raises KeyError, TypeError or ValueError if it is no purge, and what the `key` of the cache raises.
        """
        self.cache.purge(**{**record, "at": _time_of(record) + self._skew})

    def _miss(self, record: Mapping[str, Any] | None, is_known: bool) -> None:
        """Records before this one, or until now, are missing: a gap, unless that is known."""
        self.gaps += not is_known
        try:
            at = self._clock() if record is None else _time_of(record)
        except _NO_PURGE:
            at = self._clock()
        self.cache.purge(prefix="/", stale=True, at=at + self._skew)


def _time_of(record: Mapping[str, Any]) -> float:
    """The time of a record. Raises KeyError, TypeError or ValueError if it has none."""
    at: float = record["at"]
    if not 0 <= at < _MOST_TIME:
        raise ValueError(f"at must be seconds since 1970, got {at!r}")
    return at
