"""Limits the requests in flight, and adapts the limit to their latencies and outcomes.

    acquire --> in flight < limit x share of the priority? --> Permit --> release(outcome)
                                                                            |
    limit <-- algorithm(limit, latency, in flight at the start, outcome) <--+

The limit and the requests in flight are words that change by compare-and-swap (`headgate._base.words`):
in this process, or in a file that processes share (`headgate.limit._ledger`). No call waits for another, so a
thread or process that is stopped stops no other.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic_ns
from types import MappingProxyType
from warnings import warn

from headgate._base.checks import checked_int, checked_number
from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import renew
from headgate._base.pickling import initialized
from headgate._base.words import Words
from headgate.limit._units import checked_positive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike
    from types import TracebackType
    from typing import Any, Literal, Never, Protocol, Self, SupportsFloat

    Outcome = Literal["success", "dropped", "ignored"]

    class Ledger(Protocol):
        """The permits of all processes, and the state of the algorithm."""

        state: Words
        owner: int

        @property
        def inflight(self) -> int: ...
        def take(self, limit: int, mark: list[bool]) -> int: ...
        def give(self, mark: list[bool]) -> bool: ...
        def reclaim(self, now: int) -> None: ...


_BACKOFF = 0.9
_TOLERANCE = 1.5
_SMOOTHING = 0.2
_LONG_WINDOW = 600
_WARM_UP = 10
_QUEUE = 4
_MOST_LIMIT = 10**6
_OUTCOMES = ("success", "dropped", "ignored")
_ONE_SHARE: dict[Any, float] = {None: 1.0}
_WINDOW = 1_000_000_000
_LEAST_SAMPLES = 10
_WORD, _HALF = 2**64, 2**63
_COUNT_MASK = 2**32 - 1
_ONE = 2**32
_LIMIT, _AVERAGE, _WINDOWS, _END, _COUNT, _SUM, _PEAK, _DROPPED = range(8)
STATE_SIZE = 64
"""The state of an algorithm: the limit, in units of 2**-32; the long average of the latency and over how many
windows; and of the window of time that is under way its end, how many requests, their latencies, the most in
flight and how many were dropped. For AIMD the end is when the limit was cut last."""


class _Bounds:
    """Between which limits a state stays, and how it is read and changed."""

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least * _ONE, most * _ONE

    def word(self, limit: float) -> int:
        """The word of a limit."""
        return min(max(round(limit * _ONE), self.least), self.most)

    def read(self, state: Words) -> float:
        word = state.load(_LIMIT)
        if self.least <= word <= self.most:
            return word / _ONE
        return min(max(word, self.least), self.most) / _ONE

    def change(self, state: Words, changed: Callable[[float], float]) -> None:
        while True:
            seen = state.load(_LIMIT)
            if state.cas(_LIMIT, seen, self.word(changed(seen / _ONE))):
                return


def _since(now: int, then: int) -> int:
    """The nanoseconds from one word of time to another; negative if the clock has stepped back."""
    return (now - then + _HALF) % _WORD - _HALF


def _fixed(state: Words, bounds: _Bounds, now: int, latency: int, inflight: int, dropped: bool) -> None:
    """The limit stays."""


def _aimd(state: Words, bounds: _Bounds, now: int, latency: int, inflight: int, dropped: bool) -> None:
    """Additive increase while the limit is in use, multiplicative decrease once a round trip.

    A request that started before the last decrease says nothing about the limit set by it. Until the first
    cut the limit grows by one with each request, and then by one with each round trip of all.
    """
    cut = state.load(_END)
    if not dropped:
        if 2 * inflight >= bounds.read(state):
            bounds.change(state, (lambda limit: limit + 1 / limit) if cut else (lambda limit: limit + 1))
    elif not (cut and 0 <= _since(now, cut) < latency) and state.cas(_END, cut, now % _WORD or 1):
        bounds.change(state, lambda limit: limit * _BACKOFF)


def _gradient(state: Words, bounds: _Bounds, now: int, latency: int, inflight: int, dropped: bool) -> None:
    """Once a window: less as the latency is above its long average, more while there is no queue."""
    state.add(_SUM, latency if latency > 0 else 0)
    count = state.add(_COUNT, 1)
    peak = state.load(_PEAK)
    if inflight > peak:
        state.cas(_PEAK, peak, inflight)
    if dropped:
        state.add(_DROPPED, 1)
    end = state.load(_END)
    if 0 < _since(end, now) <= _WINDOW and end:
        return
    next_end = (now + _WINDOW) % _WORD or 1
    if not end:
        state.cas(_END, 0, next_end)
    elif count >= _LEAST_SAMPLES and state.cas(_END, end, next_end):
        _close_window(state, bounds)


def _close_window(state: Words, bounds: _Bounds) -> None:
    """By the one that has set the end of the next window; others may have set a limit before it does."""
    seen = state.load(_LIMIT)
    count, total, peak, lost = (state.swap(at, 0) for at in (_COUNT, _SUM, _PEAK, _DROPPED))
    limit = bounds.read(state)
    if lost:
        state.cas(_LIMIT, seen, bounds.word(limit * _BACKOFF))
    elif count and total:
        state.cas(_LIMIT, seen, bounds.word(_graded(state, limit, total / count, peak)))


def _graded(state: Words, limit: float, mean: float, peak: int) -> float:
    """The limit after a window of this mean latency, nanoseconds, and with so many in flight at its peak."""
    seen, windows = state.load(_AVERAGE), state.add(_WINDOWS, 1)
    weight = 1 / windows if windows <= _WARM_UP else 2 / (_LONG_WINDOW + 1)
    average = seen + (mean - seen) * weight
    gradient = max(0.5, min(1.0, _TOLERANCE * average / mean))
    state.cas(_AVERAGE, seen, round(average * 0.95 if average > 2 * mean else average))
    if 2 * peak < limit:
        return limit
    return limit + (limit * gradient + _QUEUE - limit) * _SMOOTHING


_ALGORITHMS = {"fixed": _fixed, "aimd": _aimd, "gradient": _gradient}


class _LocalLedger:
    """The ledger of a limiter of this process alone. In the child of a fork nothing is in flight: what was is
    the parent's.
    """

    __slots__ = ("__weakref__", "_words", "owner", "state")

    def __init__(self, limit: int) -> None:
        self.state = Words(bytearray(STATE_SIZE))
        self.state.swap(_LIMIT, limit)
        self._renew()
        renew(self)

    def _renew(self) -> None:
        self._words = Words(bytearray(16))
        self.owner = os.getpid()

    @property
    def inflight(self) -> int:
        return self._words.load(0) & _COUNT_MASK

    def take(self, limit: int, mark: list[bool]) -> int:
        return self._words.take(1, limit, mark)

    def give(self, mark: list[bool]) -> bool:
        return self._words.give(1, mark)

    def reclaim(self, now: int) -> None:
        """No other process holds permits."""


class Permit:
    """What ``ConcurrencyLimiter.acquire`` returns: truthy if the request may go on. A context manager, also
    for ``async with``, that releases the permit.

    Leaving the block without an error is a success, with a TimeoutError the request counts as dropped, and
    with another error it is ignored. A permit that is deleted without having been released, which is a
    mistake, is reclaimed the next time a request would be denied, with a ResourceWarning.

    >>> limiter = ConcurrencyLimiter(1, algorithm="fixed")
    >>> with limiter.acquire() as permit:
    ...     bool(permit), bool(limiter.acquire())
    (True, False)
    """

    __slots__ = ("__weakref__", "_inflight", "_limiter", "_observed", "_open", "_owner", "_start")

    def __init__(self, limiter: ConcurrencyLimiter, start: int, owner: int) -> None:
        self._limiter = limiter
        self._start = start
        self._owner = owner
        self._inflight = 0
        self._observed = False
        self._open: list[bool] = []

    def __bool__(self) -> bool:
        return self._inflight > 0

    def observe(self, outcome: Outcome = "success") -> None:
        """Adapt the limit to the request now, by its latency so far and `outcome` as in ``release``, which
        then only releases the permit: for a response whose start says how it went, while a long body follows.
        It has an effect once, and before the permit is released.

        Raises ValueError for any other outcome.

        >>> limiter = ConcurrencyLimiter(100, algorithm="aimd", max_latency=1.0)
        >>> with limiter.acquire() as permit:
        ...     permit.observe("dropped")
        ...     limiter.limit, limiter.inflight
        (90, 1)
        """
        if outcome not in _OUTCOMES:
            raise _bad_outcome(outcome)
        limiter = self._limiter
        if self._open and self._owner == limiter._ledger.owner and not self._observed:
            self._observed = True
            limiter._adapt(self, outcome)

    def release(self, outcome: Outcome = "success") -> None:
        """Release the permit, once; a second call does nothing. `outcome` is ``"success"``, ``"dropped"`` if
        the request timed out or was refused for overload, or ``"ignored"`` if it says nothing about the load;
        it has no effect after ``observe``.

        Raises ValueError for any other outcome.

        >>> limiter = ConcurrencyLimiter(100, algorithm="aimd", max_latency=1.0)
        >>> limiter.acquire().release("dropped")
        >>> limiter.limit, limiter.inflight
        (90, 0)
        """
        if outcome not in _OUTCOMES:
            raise _bad_outcome(outcome)
        limiter = self._limiter
        ledger = limiter._ledger
        if self._owner == ledger.owner and ledger.give(self._open) and not self._observed:
            limiter._adapt(self, outcome)

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
        """The permit is released later, since the garbage collector may run during any step."""
        if self._open:
            self._limiter._lost.append((self._owner, self._open))

    def __repr__(self) -> str:
        return f"<Permit {'admitted' if self else 'denied'}>"

    def __reduce__(self) -> Never:
        raise TypeError("a Permit cannot be copied or pickled: it belongs to one limiter")


class ConcurrencyLimiter:
    """Limits how many requests are in flight to what the service can bear; further ones are denied at once,
    and none waits.

    `limit` is where it starts, and it stays within `min_limit` and `max_limit`. `algorithm` is
    ``"gradient"``: once a second less if the mean latency is above 1.5 times its long average or a request
    was dropped, otherwise a little more; ``"aimd"``, which needs a `max_latency`: a tenth less for dropped
    requests, at most once a round trip, and more while at least half of the limit is in use, by one a request
    until the first cut and by one a round trip after it; or ``"fixed"``. A request that took longer than
    `max_latency` seconds counts as dropped.

    `priorities` maps each priority to the share of the limit up to which its requests are admitted: the rest
    is reserved for higher ones. At least one request is always admitted.

    `path` names a file that the processes of this host share: one limit for all of them, and the permits of
    a process that ends are freed. It is created if it is absent, with `mode`, best in /dev/shm. All processes
    must give the same algorithm and bounds, and the same limit if it is ``"fixed"``. `clock` is a
    callable that returns integer nanoseconds, by default the monotonic clock.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type, or if the file is of
    another kind or user or has other settings or permissions; OSError if it cannot be made or opened.

    Source: the limits AIMD and Gradient2 of Netflix's concurrency-limits. Complexity: O(1), and O(processes)
    at most ten times a second when a shared limit denies a request.

    >>> limiter = ConcurrencyLimiter(2, priorities={"user": 1.0, "batch": 0.5})
    >>> batch, another, user = (limiter.acquire(name) for name in ("batch", "batch", "user"))
    >>> bool(batch), bool(another), bool(user)
    (True, False, True)
    >>> for permit in (batch, user):
    ...     permit.release()
    >>> limiter.limit, limiter.inflight
    (2, 0)
    """

    __slots__ = (
        "__weakref__",
        "_algorithm",
        "_bounds",
        "_ledger",
        "_lost",
        "_max_latency",
        "_now_ns",
        "_shares",
        "algorithm",
    )

    def __init__(
        self,
        limit: int = 20,
        *,
        algorithm: Literal["aimd", "gradient", "fixed"] = "gradient",
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
        if algorithm == "aimd" and max_latency is None:
            raise ValueError("max_latency must be given with algorithm='aimd', got None")
        least = _bound("min_limit", min_limit, 1, _MOST_LIMIT)
        most = _bound("max_limit", max_limit, least, _MOST_LIMIT)
        start = _bound("limit", limit, least, most) * _ONE
        self._max_latency = (
            None if max_latency is None else int(checked_positive("max_latency", max_latency) * 1e9)
        )
        self._shares = _checked_shares(priorities)
        self._now_ns = _checked_now_ns(clock)
        self._algorithm, self._bounds = _ALGORITHMS[algorithm], _Bounds(least, most)
        self._lost: deque[tuple[int, list[bool]]] = deque()
        self.algorithm = algorithm
        """The name of the algorithm, as it was given."""
        if path is None:
            self._ledger: Ledger = _LocalLedger(start)
        else:
            from headgate.limit._ledger import SharedLedger

            self._ledger = SharedLedger(path, mode, start, algorithm, least, most)

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
        ledger = self._ledger
        permit = Permit(self, self._now_ns(), ledger.owner)
        limit = int(self._bounds.read(ledger.state) * share) or 1
        permit._inflight = ledger.take(limit, permit._open)
        if not permit._inflight:
            ledger.reclaim(permit._start)
            lost = self._reclaim_lost(ledger)
            permit._inflight = ledger.take(limit, permit._open)
            if lost:
                warn(f"{lost} permits were deleted without release", ResourceWarning, stacklevel=2)
        return permit

    def _reclaim_lost(self, ledger: Ledger) -> int:
        """Release the permits that were deleted without release; how many they were."""
        lost = 0
        while self._lost:
            try:
                owner, mark = self._lost.popleft()
            except IndexError:  # another thread took the last
                break
            lost += owner == ledger.owner and ledger.give(mark)  # otherwise it was taken before a fork
        return lost

    def _adapt(self, permit: Permit, outcome: Outcome) -> None:
        """Change the limit by the request of `permit`."""
        if outcome == "ignored":
            return
        now = self._now_ns()
        latency = now - permit._start
        dropped = outcome == "dropped" or (self._max_latency is not None and latency > self._max_latency)
        self._algorithm(self._ledger.state, self._bounds, now, latency, permit._inflight, dropped)

    @property
    def priorities(self) -> Mapping[str, float] | None:
        """The share of the limit up to which the requests of each priority are admitted; None without any.

        >>> dict(ConcurrencyLimiter(20, priorities={"user": 1.0, "batch": 0.6}).priorities)
        {'user': 1.0, 'batch': 0.6}
        """
        return None if self._shares is _ONE_SHARE else MappingProxyType(self._shares)

    @property
    def limit(self) -> int:
        """How many requests may be in flight at once, as of now.

        >>> ConcurrencyLimiter(20).limit
        20
        """
        return int(self._bounds.read(self._ledger.state))

    @property
    def inflight(self) -> int:
        """How many requests are in flight, in all processes that share the limit.

        >>> ConcurrencyLimiter(20).inflight
        0
        """
        return self._ledger.inflight

    def __repr__(self) -> str:
        return f"<ConcurrencyLimiter limit={self.limit} inflight={self.inflight}>"

    def __del__(self) -> None:
        try:
            self._reclaim_lost(self._ledger)
        except Exception:  # it was not made, or the names of modules are gone, as when an interpreter ends
            return

    def __reduce__(self) -> Never:
        raise TypeError("a ConcurrencyLimiter cannot be copied or pickled: its permits belong to one process")

    def _check(self) -> None:
        state = self._ledger.state
        assert self._bounds.least <= state.load(_LIMIT) <= self._bounds.most
        assert self._ledger.inflight <= _MOST_LIMIT


def _bound(name: str, value: int, least: int, most: int) -> int:
    number = checked_int(name, value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be in [{least}, {most}], got {value!r}")
    return number


def _bad_outcome(outcome: object) -> ValueError:
    return ValueError(f"outcome must be one of {', '.join(_OUTCOMES)}, got {outcome!r}")


def _checked_now_ns(clock: Callable[[], int] | None) -> Callable[[], int]:
    """What reads `clock`, or the monotonic clock."""
    read = checked_clock(clock)
    return monotonic_ns if read is None else lambda: checked_now(read())


def _checked_shares(priorities: Mapping[str, float] | None) -> dict[Any, float]:
    if priorities is None:
        return _ONE_SHARE
    if not hasattr(priorities, "items"):
        raise TypeError(f"priorities must be a mapping from priorities to shares, got {priorities!r}")
    if not priorities:
        raise ValueError(f"priorities must be at least one, got {priorities!r}")
    return {name: _share(share) for name, share in priorities.items()}


def _share(share: Any) -> float:
    number = float(checked_number("priorities", share))
    if not 0 < number <= 1:
        raise ValueError(f"priorities must be shares in (0, 1], got {share!r}")
    return number
