"""Limits the requests in flight, and adapts the limit to their latencies and outcomes.

`headgate.limit.permits` grants permits, and `headgate.limit._algorithms` adapts the limit. The limit and the
requests in flight are words that change by compare-and-swap (`headgate._base.words`): in this process, or in
a file that processes share (`headgate.limit._ledger`). No call waits for another, so a thread or process that
is stopped stops no other.
"""

from __future__ import annotations

import os
from time import monotonic_ns
from types import MappingProxyType

from headgate._base.checks import checked_int, checked_number
from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import renew
from headgate._base.pickling import initialized
from headgate._base.words import Words
from headgate.limit._algorithms import ALGORITHMS, AVERAGE, LIMIT, ONE, STATE_SIZE, Bounds
from headgate.limit._rules import Tally
from headgate.limit._units import checked_positive
from headgate.limit.permits import Admission, Permit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike
    from typing import Any, Literal, Never, Protocol, SupportsFloat

    class Ledger(Protocol):
        """The permits of all processes, and the state of the algorithm."""

        permits: Words
        state: Words
        slot: int
        owner: int

        @property
        def inflight(self) -> int: ...
        def claim(self) -> int: ...
        def reclaim(self, now: int) -> None: ...


_MOST_LIMIT = 10**6
_MOST_NANOSECONDS = 2**63 - 1
_COUNT_MASK = 2**32 - 1
_ONE_SHARE: dict[Any, float] = {None: 1.0}


class LocalLedger:
    """The ledger of a limiter of this process alone. In the child of a fork nothing is in flight: what was is
    the parent's.
    """

    __slots__ = ("__weakref__", "owner", "permits", "slot", "state")

    def __init__(self, limit: int) -> None:
        self.state = Words(bytearray(STATE_SIZE))
        self.state.swap(LIMIT, limit)
        self.slot = 1
        self._renew()
        renew(self)

    def _renew(self) -> None:
        self.permits = Words(bytearray(16))
        self.owner = os.getpid()

    @property
    def inflight(self) -> int:
        return self.permits.load(0) & _COUNT_MASK

    def claim(self) -> int:
        return self.slot

    def reclaim(self, now: int) -> None:
        """No other process holds permits."""


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
        "__weakref__", "_admission", "_bounds", "_clock", "_denied", "_ledger", "_shares", "algorithm"
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
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
        if hasattr(self, "_ledger"):
            raise initialized(self)
        if algorithm == "aimd" and max_latency is None:
            raise ValueError("max_latency must be given with algorithm='aimd', got None")
        least = _bound("min_limit", min_limit, 1, _MOST_LIMIT)
        most = _bound("max_limit", max_limit, least, _MOST_LIMIT)
        start = _bound("limit", limit, least, most) * ONE
        latest = None if max_latency is None else checked_positive("max_latency", max_latency) * 1e9
        late = None if latest is None else min(int(latest), _MOST_NANOSECONDS)
        self._shares = _checked_shares(priorities)
        self._clock = checked_clock(clock)
        self._bounds = Bounds(least, most)
        self.algorithm = algorithm
        """The name of the algorithm, as it was given."""
        if path is None:
            self._ledger: Ledger = LocalLedger(start)
        else:
            from headgate.limit._ledger import SharedLedger

            self._ledger = SharedLedger(path, mode, start, algorithm, least, most)
        self._denied = Tally()
        self._admission = Admission(self._ledger, self._shares, self._bounds, algorithm, late, clock)

    def acquire(self, priority: str | None = None) -> Permit:
        """A permit for one request, at once: truthy if the request may go on.

        Raises ValueError if `priority` is not one of `priorities`; it must be None if there are none.

        >>> with ConcurrencyLimiter(10).acquire() as permit:
        ...     bool(permit)
        True
        """
        permit = self._admission.acquire(priority)
        if permit:
            return permit
        self._ledger.reclaim(monotonic_ns() if self._clock is None else checked_now(self._clock()))
        lost = self._admission.recover()
        permit = self._admission.acquire(priority)
        if not permit:
            self._denied.add()
        if lost:
            from warnings import warn

            warn(f"{lost} permits were deleted without release", ResourceWarning, stacklevel=2)
        return permit

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

    @property
    def denied(self) -> int:
        """How many requests this object has denied, in this process.

        >>> limiter = ConcurrencyLimiter(1)
        >>> with limiter.acquire(), limiter.acquire() as second:
        ...     bool(second), limiter.denied
        (False, 1)
        """
        return int(self._denied)

    @property
    def latency(self) -> float:
        """The long average of the latency in seconds, by which ``"gradient"`` judges, in all processes that
        share the limit; 0.0 before the first and for other algorithms.

        >>> ConcurrencyLimiter(20).latency
        0.0
        """
        return self._ledger.state.load(AVERAGE) / 1e9

    def __repr__(self) -> str:
        return f"<ConcurrencyLimiter limit={self.limit} inflight={self.inflight}>"

    def __reduce__(self) -> Never:
        raise TypeError("a ConcurrencyLimiter cannot be copied or pickled: its permits belong to one process")

    def _check(self) -> None:
        state = self._ledger.state
        assert self._bounds.least <= state.load(LIMIT) <= self._bounds.most
        assert self._ledger.inflight <= _MOST_LIMIT


def _bound(name: str, value: int, least: int, most: int) -> int:
    number = checked_int(name, value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be in [{least}, {most}], got {value!r}")
    return number


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
