"""How many requests may be under way at once, learnt from how they fare.

    acquire --> in flight < limit x share of the priority? --> Permit --> release(outcome)
                                                                            |
    limit <-- algorithm(limit, latency, in flight at the start, outcome) <--+

The limit and the requests in flight stand in a ledger: in this process, or in a file that many processes
share (`headgate._leases`). Its lock is held for some arithmetic only; the clock is read before it is taken.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic_ns
from warnings import warn

from headgate._clock import checked_clock, checked_now
from headgate._forks import new_lock, renew
from headgate._membership import integer
from headgate._pickling import initialized
from headgate._units import as_number, checked_positive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike
    from types import TracebackType
    from typing import Any, Literal, Never, Protocol, Self, SupportsFloat

    Outcome = Literal["success", "dropped", "ignored"]

    class Ledger(Protocol):
        """What an algorithm knows, and the requests in flight; used under its lock."""

        state: Any
        owner: int

        def __enter__(self) -> Self: ...
        def __exit__(self, *error: object) -> None: ...
        @property
        def inflight(self) -> int: ...
        def take(self, count: int) -> None: ...
        def reclaim(self, now: int) -> None: ...


_BACKOFF = 0.9
_TOLERANCE = 1.5
_SMOOTHING = 0.2
_LONG_WINDOW = 600
_WARM_UP = 10
_QUEUE = 4
_MOST_LIMIT = 10**6
_OUTCOMES = ("success", "dropped", "ignored")
_WINDOW = 1_000_000_000
_LEAST_SAMPLES = 10
_LIMIT, _AVERAGE, _WINDOWS, _END, _COUNT, _SUM, _PEAK, _DROPPED = range(8)
"""The state of an algorithm: the limit; the long average of the latency and over how many windows; and of
the window of time that is under way its end, how many requests, their latencies, the most in flight and how
many were dropped."""


def _fixed(state: Any, now: int, latency: int, inflight: int, dropped: bool) -> float:
    """The limit stays."""
    limit: float = state[_LIMIT]
    return limit


def _aimd(state: Any, now: int, latency: int, inflight: int, dropped: bool) -> float:
    """Additive increase while the limit is in use, multiplicative decrease."""
    limit: float = state[_LIMIT]
    if dropped:
        return limit * _BACKOFF
    return limit + 1 if 2 * inflight >= limit else limit


def _gradient(state: Any, now: int, latency: int, inflight: int, dropped: bool) -> float:
    """Once a window: less as the latency is above its long average, more while there is no queue."""
    limit: float = state[_LIMIT]
    spent = max(0, latency)
    state[_COUNT] += 1
    state[_SUM] += spent
    if inflight > state[_PEAK]:
        state[_PEAK] = inflight
    state[_DROPPED] += dropped
    if not state[_END]:
        state[_END] = now + _WINDOW
    if now < state[_END] <= now + _WINDOW or state[_COUNT] < _LEAST_SAMPLES:
        return limit
    mean, peak, lost = state[_SUM] / state[_COUNT], state[_PEAK], state[_DROPPED]
    state[_COUNT] = state[_SUM] = state[_PEAK] = state[_DROPPED] = 0
    state[_END] = now + _WINDOW
    if lost:
        return limit * _BACKOFF
    return _graded(state, limit, mean, peak)


def _graded(state: Any, limit: float, mean: float, peak: float) -> float:
    """The limit after a window of this mean latency, nanoseconds, and with so many in flight at its peak."""
    if not mean:
        return limit
    state[_WINDOWS] += 1
    weight = 1 / state[_WINDOWS] if state[_WINDOWS] <= _WARM_UP else 2 / (_LONG_WINDOW + 1)
    state[_AVERAGE] += (mean - state[_AVERAGE]) * weight
    gradient: float = max(0.5, min(1.0, _TOLERANCE * state[_AVERAGE] / mean))
    if state[_AVERAGE] > 2 * mean:
        state[_AVERAGE] *= 0.95
    if 2 * peak < limit:
        return limit
    return limit + (limit * gradient + _QUEUE - limit) * _SMOOTHING


_ALGORITHMS = {"fixed": _fixed, "aimd": _aimd, "gradient": _gradient}


class _LocalLedger:
    """The ledger of a limiter of this process alone. Its lock is re-entrant: a finalizer or a signal handler
    may use the limiter wherever Python calls or returns, amid an edit too. In the child of a fork nothing is
    in flight: what was is the parent's.
    """

    __slots__ = ("__weakref__", "_lock", "inflight", "owner", "state")

    def __init__(self, limit: float) -> None:
        self._lock = new_lock()
        self.state = [limit, *[0.0] * _DROPPED]
        self._renew()
        renew(self)

    def _renew(self) -> None:
        self.inflight = 0
        self.owner = os.getpid()

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def take(self, count: int) -> None:
        self.inflight += count

    def reclaim(self, now: int) -> None:
        """Nobody else takes anything."""


class Permit:
    """What ``ConcurrencyLimiter.acquire`` answers: truthy if the request may go on. A context manager, for
    ``async with`` too, that gives the permit back.

    Leaving the block without an error is a success, with a TimeoutError the request counts as dropped, and
    with another error it says nothing of the load. One that is deleted without having been released, which
    is a mistake, comes back when a request would be turned away the next time, with a ResourceWarning.

    >>> limiter = ConcurrencyLimiter(1, algorithm="fixed")
    >>> with limiter.acquire() as permit:
    ...     bool(permit), bool(limiter.acquire())
    (True, False)
    """

    __slots__ = ("__weakref__", "_inflight", "_limiter", "_open", "_owner", "_start")

    def __init__(self, limiter: ConcurrencyLimiter, start: int, inflight: int, owner: int) -> None:
        self._limiter = limiter
        self._start = start
        self._inflight = inflight
        self._owner = owner
        self._open = [True] if inflight else []

    def __bool__(self) -> bool:
        return self._inflight > 0

    def release(self, outcome: Outcome = "success") -> None:
        """Give the permit back, once; a second time does nothing. `outcome` is ``"success"``, ``"dropped"``
        if the request timed out or was refused for overload, or ``"ignored"`` if it says nothing of the load.

        Raises ValueError for any other outcome.

        >>> limiter = ConcurrencyLimiter(100)
        >>> limiter.acquire().release("dropped")
        >>> limiter.limit, limiter.inflight
        (90, 0)
        """
        if outcome not in _OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(_OUTCOMES)}, got {outcome!r}")
        now = self._limiter._now_ns()
        try:
            self._open.pop()
        except IndexError:
            return
        self._limiter._release(self._owner, now, now - self._start, self._inflight, outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.release("dropped" if issubclass(kind, TimeoutError) else "ignored")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __del__(self) -> None:
        """Without the lock, which whoever is interrupted by the garbage collector may hold."""
        if self._open:
            self._limiter._lost.append(self._owner)

    def __repr__(self) -> str:
        return f"<Permit {'admitted' if self else 'denied'}>"

    def __reduce__(self) -> Never:
        raise TypeError("a Permit cannot be copied or pickled: it belongs to one limiter")


class ConcurrencyLimiter:
    """So many requests under way at once as the service can bear; whoever comes above that is turned away at
    once, and nobody waits.

    `limit` is where it starts, and it stays within `min_limit` and `max_limit`. `algorithm` is ``"aimd"``:
    one more after each success while at least half of the limit is in use, a tenth less after each dropped
    request; ``"gradient"``: once a second less if the mean latency is above 1.5 times its long average or a
    request was dropped, else a little more; or ``"fixed"``. A request that took longer than `max_latency`
    seconds counts as dropped.

    `priorities` maps each priority to the share of the limit up to which its requests are admitted: what lies
    above is reserved for higher ones. At least one request is always admitted.

    `path` names a file that the processes of this host share: one limit for all of them, and the permits of
    a process that dies come back. It is made if it is absent, with `mode`; ``/dev/shm`` is a good place. All
    processes must give the same algorithm and bounds, and the same limit if it is ``"fixed"``. `clock` is a
    callable that answers integer nanoseconds, by default the monotonic clock.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type, or if the file is of
    another kind or user or has other settings or permissions; OSError if it cannot be made or opened.

    Source: the limits AIMD and Gradient2 of Netflix's concurrency-limits. Complexity: O(1), and O(processes)
    at most ten times a second when a request is turned away from a shared limit.

    >>> limiter = ConcurrencyLimiter(2, priorities={"user": 1.0, "batch": 0.5})
    >>> batch, another, user = (limiter.acquire(name) for name in ("batch", "batch", "user"))
    >>> bool(batch), bool(another), bool(user)
    (True, False, True)
    >>> for permit in (batch, user):
    ...     permit.release()
    >>> limiter.limit, limiter.inflight
    (4, 0)
    """

    __slots__ = (
        "__weakref__",
        "_algorithm",
        "_clock",
        "_ledger",
        "_lost",
        "_max_latency",
        "_max_limit",
        "_min_limit",
        "_shares",
    )

    def __init__(
        self,
        limit: int = 20,
        *,
        algorithm: Literal["aimd", "gradient", "fixed"] = "aimd",
        min_limit: int = 1,
        max_limit: int = 1000,
        max_latency: SupportsFloat | None = None,
        priorities: Mapping[str, float] | None = None,
        path: str | PathLike[str] | None = None,
        mode: int = 0o600,
        clock: Callable[[], int] | None = None,
    ) -> None:
        if algorithm not in _ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(_ALGORITHMS)}, got {algorithm!r}")
        if hasattr(self, "_ledger"):
            raise initialized(self)
        self._algorithm = _ALGORITHMS[algorithm]
        self._min_limit = _bound("min_limit", min_limit, 1, _MOST_LIMIT)
        self._max_limit = _bound("max_limit", max_limit, self._min_limit, _MOST_LIMIT)
        start = float(_bound("limit", limit, self._min_limit, self._max_limit))
        self._max_latency = (
            None if max_latency is None else int(checked_positive("max_latency", max_latency) * 1e9)
        )
        self._shares = _checked_shares(priorities)
        self._lost: deque[int] = deque()
        self._clock = checked_clock(clock)
        self._ledger: Ledger = _LocalLedger(start)
        if path is not None:
            from headgate._leases import SharedLedger

            self._ledger = SharedLedger(path, mode, start, algorithm, self._min_limit, self._max_limit)

    def _now_ns(self) -> int:
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def acquire(self, priority: str | None = None) -> Permit:
        """A permit for one request, at once: truthy if the request may go on.

        Raises ValueError if `priority` is not one of `priorities`; it must be None if there are none.

        >>> with ConcurrencyLimiter(10).acquire() as permit:
        ...     bool(permit)
        True
        """
        try:
            share = self._shares[priority]
        except (KeyError, TypeError):
            names = ", ".join(map(repr, self._shares))
            raise ValueError(f"priority must be one of {names}, got {priority!r}") from None
        now, lost, inflight = self._now_ns(), 0, 0
        with self._ledger as ledger:
            room = max(1, int(ledger.state[_LIMIT] * share))
            if ledger.inflight >= room:
                ledger.reclaim(now)
                lost = self._take_back(ledger)
            if ledger.inflight < room:
                ledger.take(1)
                inflight = ledger.inflight
            if inflight > room:  # a finalizer was quicker
                ledger.take(-1)
                inflight = 0
        permit = Permit(self, now, inflight, ledger.owner)
        if lost:
            warn(f"{lost} permits were deleted without release", ResourceWarning, stacklevel=2)
        return permit

    def _take_back(self, ledger: Ledger) -> int:
        """Give back the permits that were deleted without release; how many they were."""
        lost = 0
        while self._lost:
            if self._lost.popleft() == ledger.owner:  # or else taken before a fork
                ledger.take(-1)
                lost += 1
        return lost

    def _release(self, owner: int, now: int, latency: int, inflight: int, outcome: Outcome) -> None:
        dropped = outcome == "dropped" or (
            self._max_latency is not None and outcome == "success" and latency > self._max_latency
        )
        with self._ledger as ledger:
            if owner != ledger.owner:  # taken before a fork: it is the parent's
                return
            ledger.take(-1)
            if outcome != "ignored":
                limit = self._algorithm(ledger.state, now, latency, inflight, dropped)
                ledger.state[_LIMIT] = min(max(limit, self._min_limit), self._max_limit)

    @property
    def limit(self) -> int:
        """How many requests may be under way at once, as of now.

        >>> ConcurrencyLimiter(20).limit
        20
        """
        with self._ledger as ledger:
            return int(ledger.state[_LIMIT])

    @property
    def inflight(self) -> int:
        """How many requests are under way, in all processes that share the limit.

        >>> ConcurrencyLimiter(20).inflight
        0
        """
        with self._ledger as ledger:
            return ledger.inflight

    def __repr__(self) -> str:
        return f"<ConcurrencyLimiter limit={self.limit} inflight={self.inflight}>"

    def __reduce__(self) -> Never:
        raise TypeError("a ConcurrencyLimiter cannot be copied or pickled: its permits belong to one process")

    def _check(self) -> None:
        with self._ledger as ledger:
            assert self._min_limit <= ledger.state[_LIMIT] <= self._max_limit
            assert ledger.inflight >= 0
            assert min(ledger.state[_AVERAGE:_END]) >= 0 <= min(ledger.state[_COUNT:])


def _bound(name: str, value: int, least: int, most: int) -> int:
    number = integer(name, value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be in [{least}, {most}], got {value!r}")
    return number


def _checked_shares(priorities: Mapping[str, float] | None) -> dict[str | None, float]:
    if priorities is None:
        return {None: 1.0}
    if not hasattr(priorities, "items"):
        raise TypeError(f"priorities must be a mapping from priorities to shares, got {priorities!r}")
    if not priorities:
        raise ValueError(f"priorities must be at least one, got {priorities!r}")
    return {name: _share(share) for name, share in priorities.items()}


def _share(share: Any) -> float:
    number = float(as_number("priorities", share))
    if not 0 < number <= 1:
        raise ValueError(f"priorities must be shares in (0, 1], got {share!r}")
    return number
