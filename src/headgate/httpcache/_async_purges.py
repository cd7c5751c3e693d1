"""A cache that a task keeps purged as a log says."""

from __future__ import annotations

from time import monotonic

from headgate._base.checks import checked_callable, checked_number
from headgate._base.forks import renew
from headgate.httpcache._follower import PurgeFollower

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import NoReturn, Protocol, TypeVar

    from headgate.httpcache._cache import HTTPCache
    from headgate.httpcache._purge_log import Batch, Position, Record

    Result = TypeVar("Result")

    class Log(Protocol):
        """`PurgeLog`, `AsyncPurgeStream`, or another log; its methods may be coroutine functions."""

        def append(self, url: str | None = None, *, tag: str | None = None, prefix: str | None = None,
                   stale: bool = False) -> Record | Awaitable[Record]:
            """Adds a purge: its number, and what is to be applied."""

        def read(self, position: Position | None, wait: float = 0.0) -> Batch | Awaitable[Batch]:
            """What came after a position; where there is nothing, the log may wait for so many seconds."""


_LEAST_INTERVAL, _MOST_INTERVAL = 0.01, 86400


class AsyncPurges:
    """Keeps `cache` purged as a `log` says that many caches follow, and purges all of them.

    ``run`` follows the log and is for a task, of which there is one; ``purge`` adds to it. The log is a
    `PurgeLog`, an `AsyncPurgeStream` of ``headgate.adapters.redis``, or any object with such methods
    ``append`` and ``read``, which may be coroutine functions. It is read every `every` seconds; one that
    waits for news has them applied at once. `follower` is the `PurgeFollower` with the position and the
    gaps, and `skew` is its.

    While the log cannot be read, the cache serves what it has: `behind` are the seconds since it was read
    last, `failures` how often that failed, and `error` is the exception since when it fails, or None.
    `clock` returns seconds and never steps back.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range.

    >>> import asyncio
    >>> from headgate.httpcache import HTTPCache, PurgeLog
    >>> async def main():
    ...     log = PurgeLog()
    ...     points = [AsyncPurges(log, HTTPCache()) for _ in range(2)]
    ...     tasks = [asyncio.create_task(point.run()) for point in points]
    ...     number, _ = await points[0].purge(tag="news")
    ...     while any(point.follower.position is None for point in points):
    ...         await asyncio.sleep(0)
    ...     for task in tasks:
    ...         task.cancel()
    ...     return number, [point.follower.position[1] for point in points]
    >>> asyncio.run(main())
    (1, [1, 1])
    """

    __slots__ = ("__weakref__", "_clock", "_every", "_is_running", "_read_at", "error", "failures",
                 "follower", "log")

    def __init__(self, log: Log, cache: HTTPCache, *, every: float = 1.0, skew: float = 0.0,
                 clock: Callable[[], float] = monotonic) -> None:
        self._every = float(checked_number("every", every))
        if not _LEAST_INTERVAL <= self._every <= _MOST_INTERVAL:
            wanted = f"from {_LEAST_INTERVAL} to {_MOST_INTERVAL} seconds"
            raise ValueError(f"every must be {wanted}, got {every!r}")
        self.log = log
        self.follower = PurgeFollower(cache, skew=skew)
        self.failures = 0
        self.error: Exception | None = None
        self._clock: Callable[[], float] = checked_callable("clock", clock)
        self._read_at = clock()
        self._is_running = False
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork, where no task follows the log."""
        self._is_running = False

    @property
    def behind(self) -> float:
        """The seconds since the log was read, or this object was made."""
        return max(0.0, self._clock() - self._read_at)

    async def purge(self, url: str | None = None, *, tag: str | None = None, prefix: str | None = None,
                    stale: bool = False) -> Record:
        """Purges all caches that follow the log, by the arguments of ``HTTPCache.purge``: the number of the
        purge, and what is applied, as ``append`` of the log returns them.

        When this returns the own cache is purged, and the others are when they have read the log. Raises what
        ``HTTPCache.purge`` and the log raise; then the cache is as it was, and the log may have the purge.
        """
        number, record = await _result(self.log.append(url, tag=tag, prefix=prefix, stale=stale))
        self.follower.apply(record)  # again when it is read, which changes nothing
        return number, record

    async def run(self) -> NoReturn:
        """Follow the log until cancelled. Exceptions of the log are counted, and it is tried again.

        Raises RuntimeError if that is done already.
        """
        from asyncio import sleep

        if self._is_running:
            raise RuntimeError("run must not be called while it runs")
        self._is_running = True
        try:
            while True:
                await sleep(await self._step())
        finally:
            self._is_running = False

    async def _step(self) -> float:
        """Read the log once; the seconds until that is due again."""
        began = self._clock()
        position = self.follower.position
        try:
            epoch, last, records = await _result(
                self.log.read(position, 0.0 if position is None else self._every))
            await self._receive(epoch, last, records)
            may_have_more = self._has_advanced(position)
        except Exception as error:
            self.failures += 1
            self.error, may_have_more = error, False
        else:
            self.error = None
            self._read_at = self._clock()
        return 0.0 if may_have_more else max(0.0, self._every - (self._clock() - began))

    async def _receive(self, epoch: str, last: int, records: Iterable[Record]) -> None:
        """Apply records one by one, so that the event loop waits for one at most."""
        from asyncio import sleep

        for _ in self.follower._steps(epoch, last, records):
            await sleep(0)

    def _has_advanced(self, before: Position | None) -> bool:
        """Whether records came after a position. In another epoch there may be none that is like the last, as
        where a balancer leads to one of several logs: that is no reason to read it without a pause.
        """
        after = self.follower.position
        return before is None or (after is not None and after[0] == before[0] and after[1] > before[1])

    def __repr__(self) -> str:
        return f"<AsyncPurges, {self.follower!r}, behind by {self.behind:.1f} s>"


async def _result(found: Result | Awaitable[Result]) -> Result:
    """What a function or coroutine function returned."""
    from inspect import isawaitable

    return await found if isawaitable(found) else found
