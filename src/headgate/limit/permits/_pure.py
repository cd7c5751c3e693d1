"""Permits of a concurrency limit, and what grants them.

    acquire --> in flight < limit x share of the priority? --> Permit --> observe, release
                                                                            |
    limit <-- algorithm(limit, latency, in flight at the start, outcome) <--+

A permit is held as long as its mark, a list, has its element, which goes by the step that lowers the words.
"""

from collections import deque
from time import monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate.limit._algorithms import ALGORITHMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OUTCOMES = ("success", "dropped", "ignored")


def _check_outcome(outcome):
    if outcome not in _OUTCOMES:
        raise ValueError(f"outcome must be one of {', '.join(_OUTCOMES)}, got {outcome!r}")


class Permit:
    """What ``ConcurrencyLimiter.acquire`` returns: truthy if the request may go on. A context manager, also
    for ``async with``, that releases the permit.

    Leaving the block without an error is a success, with a TimeoutError the request counts as dropped, and
    with another error it is ignored. A permit that is deleted without having been released, which is a
    mistake, is reclaimed the next time a request would be denied, with a ResourceWarning. A permit that no
    limiter made is a denied one.

    >>> from headgate import ConcurrencyLimiter
    >>> limiter = ConcurrencyLimiter(1, algorithm="fixed")
    >>> with limiter.acquire() as permit:
    ...     bool(permit), bool(limiter.acquire())
    (True, False)
    """

    __slots__ = ("__weakref__", "_admission", "_inflight", "_mark", "_owner", "_start", "_unobserved")

    def __init__(self):
        self._admission: Any = None
        self._owner = self._start = self._inflight = 0
        self._mark, self._unobserved = [], [True]

    def __bool__(self):
        return self._inflight > 0

    def _is_held(self):
        """False if it was denied, has been released, or is the parent's."""
        return bool(self._mark) and self._owner == self._admission._ledger.owner

    def _is_first(self):
        """Whether the limit has not been adapted by this request before."""
        try:
            return self._unobserved.pop()
        except IndexError:
            return False

    def observe(self, outcome="success"):
        """Adapt the limit to the request now, by its latency so far and `outcome` as in ``release``, which
        then only releases the permit: for a response whose start says how it went, while a long body follows.
        It has an effect once, and before the permit is released.

        Raises ValueError for any other outcome.

        >>> from headgate import ConcurrencyLimiter
        >>> limiter = ConcurrencyLimiter(100, algorithm="aimd", max_latency=1.0)
        >>> with limiter.acquire() as permit:
        ...     permit.observe("dropped")
        ...     limiter.limit, limiter.inflight
        (90, 1)
        """
        _check_outcome(outcome)
        if self._is_held() and self._is_first():
            self._admission._adapt(self, outcome)

    def release(self, outcome="success"):
        """Release the permit, once; a second call does nothing. `outcome` is ``"success"``, ``"dropped"`` if
        the request timed out or was refused for overload, or ``"ignored"`` if it says nothing about the load;
        it has no effect after ``observe``.

        Raises ValueError for any other outcome.

        >>> from headgate import ConcurrencyLimiter
        >>> limiter = ConcurrencyLimiter(100, algorithm="aimd", max_latency=1.0)
        >>> limiter.acquire().release("dropped")
        >>> limiter.limit, limiter.inflight
        (90, 0)
        """
        _check_outcome(outcome)
        if self._is_held() and self._admission._give(self._mark) and self._is_first():
            self._admission._adapt(self, outcome)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.release()
        else:
            self.release("dropped" if issubclass(kind, TimeoutError) else "ignored")

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, trace):
        self.__exit__(kind, error, trace)

    def __del__(self):
        """The permit is released later, since the garbage collector may run during any step."""
        if getattr(self, "_mark", None):  # otherwise it was not made, or is not held
            self._admission._lost.append((self._owner, self._mark))

    def __repr__(self):
        return f"<Permit {'admitted' if self else 'denied'}>"

    def __reduce__(self):
        raise TypeError("a Permit cannot be copied or pickled: it belongs to one limiter")


class Admission:
    """Grants permits of `ledger` up to a share of the limit, and adapts the limit to their requests.

    `shares` maps priorities to shares, `bounds` are those of the limit, `algorithm` is the name of one, and
    `max_latency` nanoseconds or None. Complexity: O(1).

    >>> from headgate.limit._algorithms import Bounds
    >>> from headgate.limit._concurrency import LocalLedger
    >>> admission = Admission(LocalLedger(2**32), {None: 1.0}, Bounds(1, 9), "fixed", None, None)
    >>> with admission.acquire(None) as permit:
    ...     bool(permit), bool(admission.acquire(None))
    (True, False)
    """

    __slots__ = (
        "__weakref__", "_algorithm", "_bounds", "_ledger", "_lost", "_max_latency", "_now", "_shares",
    )

    def __init__(self, ledger, shares, bounds, algorithm, max_latency, clock):
        read = checked_clock(clock)
        self._now = monotonic_ns if read is None else lambda: checked_now(read())
        self._ledger, self._shares, self._bounds = ledger, shares, bounds
        self._algorithm, self._max_latency = ALGORITHMS[algorithm], max_latency
        self._lost: deque[Any] = deque()

    def acquire(self, priority):
        """A permit for one request of a priority, denied or not.

        Raises ValueError if the priority is unknown.
        """
        try:
            share = self._shares[priority]
        except (KeyError, TypeError):
            names = ", ".join(map(repr, self._shares))
            raise ValueError(f"priority must be one of {names}, got {priority!r}") from None
        ledger, permit = self._ledger, Permit()
        permit._admission, permit._owner, permit._start = self, ledger.owner, self._now()
        limit = int(self._bounds.read(ledger.state) * share) or 1
        permit._inflight = ledger.permits.take(ledger.slot or ledger.claim(), limit, permit._mark)
        return permit

    def recover(self):
        """Release the permits that were deleted without release; how many they were."""
        recovered = 0
        while self._lost:
            try:
                owner, mark = self._lost.popleft()
            except IndexError:  # another thread took the last
                break
            recovered += owner == self._ledger.owner and self._give(mark)  # otherwise taken before a fork
        return recovered

    def _give(self, mark):
        ledger = self._ledger
        return ledger.permits.give(ledger.slot or ledger.claim(), mark)

    def _adapt(self, permit, outcome):
        """Change the limit by the request of a permit."""
        if outcome == "ignored":
            return
        now = self._now()
        latency = now - permit._start
        dropped = outcome == "dropped" or (self._max_latency is not None and latency > self._max_latency)
        self._algorithm(self._ledger.state, self._bounds, now, latency, permit._inflight, dropped)

    def __del__(self):
        try:
            self.recover()
        except Exception:  # it was not made, or the names of modules are gone, as when an interpreter ends
            return
