"""RedisRateLimits: several levels for one request, all or nothing, for all hosts; for threads."""

from __future__ import annotations

from contextlib import suppress

from headgate.adapters.redis._acquiring import acquire
from headgate.adapters.redis._amounts import time_of
from headgate.adapters.redis._leveled import Leveled, summary, unlimited
from headgate.adapters.redis._stores import Store
from headgate.errors import StoreError
from headgate.limit.reservation import Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self, SupportsFloat

    from headgate.adapters.redis._leveled import Applied
    from headgate.limit import RateLimits
    from headgate.limit._decision import Decision
    from headgate.limit._rate import Rates

    Key = str | bytes | int


class RedisRateLimits(Leveled):
    """Limits on several levels that all processes on all hosts share, in Redis or Valkey, all or nothing.

    Each level is given by keyword, or in a mapping, as a rate: ``user="100/min; 1000/h"``. Methods and what
    they return are those of `RateLimits`; `client`, `prefix`, `on_error` and `timeout` those of
    `RedisRateLimiter`, but a local limit for `on_error` is a `RateLimits` with the same levels.

    A request is one call, which charges all its levels or none. In a cluster that needs a `prefix` with a
    hash tag, such as ``"{api}"``, which puts them on one server; otherwise the levels are checked, then
    charged, then those charged are refunded if one denies: two or three calls, and of two simultaneous
    requests both may be denied where one could be allowed.

    Raises ValueError or TypeError if a level or an argument is out of range or of a wrong type.

    Complexity: O(levels x tiers) for a decision.

    >>> import redis
    >>> limits = RedisRateLimits(redis.Redis(port=1), ip="10/s", user="100/min; 1000/h", on_error="deny")
    >>> decision = limits.decide(ip="192.0.2.1", user="ann")
    >>> decision.allowed, decision.degraded, decision.policy
    (False, True, 'ip: 10/s')
    """

    __slots__ = ("__weakref__", "_store")

    blocking = True

    def __init__(
        self,
        client: Any,
        levels: Mapping[str, Rates] | None = None,
        /,
        *,
        prefix: str = "headgate",
        on_error: str | RateLimits = "raise",
        timeout: SupportsFloat = 0.25,
        **more: Rates,
    ) -> None:
        self._store = Store(client, timeout)
        super().__init__(self._store, levels, more, prefix, on_error)

    def allow(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> bool:
        """Take `cost` at all levels that `keys` names if all allow it; True if so. A level that is not named,
        or whose key is None, does not apply.

        Raises ValueError if there is no such level, TypeError if none is named; for a key and a cost what
        ``RedisRateLimiter.allow`` raises. Nothing is taken then.
        """
        return self.decide(cost=cost, **keys).allowed

    def decide(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """As ``allow``, but return a `Decision`: that of the level that denies for longest, or else of the
        one with the least remaining. If no level applies, limit and remaining are infinite.

        Raises what ``allow`` raises.
        """
        applied = self._applied(keys)
        if not applied.keys:
            return unlimited(cost)
        amount = self._checked_cost(applied, cost)
        try:
            return self._charge(applied, amount)[0]
        except StoreError as error:
            return self._failed(error, applied, "decide", cost, keys)

    def _charge(self, applied: Applied, amount: float) -> tuple[Decision, int]:
        """Charge all levels or none: the decision, and the server's time in microseconds."""
        deadline = self._store.deadline()
        if self._is_joint:
            reply = self._call(applied, amount, b"all", deadline)
            return summary(applied.decisions(reply, amount)), time_of(reply)
        reply = self._call(applied, amount, b"peek", deadline)
        decisions = applied.decisions(reply, amount)
        if all(decision.allowed for _, decision in decisions):
            reply = self._call(applied, amount, b"each", deadline)
            decisions = applied.decisions(reply, amount)
            if not all(decision.allowed for _, decision in decisions):
                with suppress(StoreError):  # it is denied in any case
                    self._all(self._undone(applied, decisions, amount), deadline)
        return summary(decisions), time_of(reply)

    def _call(self, applied: Applied, amount: float, mode: bytes, deadline: float | None = None) -> bytes:
        return self._checked(self._store.call_all(self._takes(applied, amount, mode), deadline))

    def _all(self, calls: Any, deadline: float | None = None) -> None:
        """Make calls that have no result."""
        for reply in self._store.call_all(calls, deadline) if calls else ():
            if isinstance(reply, StoreError):
                raise reply

    def peek(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """What ``decide`` would return, but without taking anything.

        Raises what ``allow`` raises.
        """
        applied = self._applied(keys)
        if not applied.keys:
            return unlimited(cost)
        amount = self._checked_cost(applied, cost)
        try:
            return summary(applied.decisions(self._call(applied, amount, b"peek"), amount))
        except StoreError as error:
            return self._failed(error, applied, "peek", cost, keys)

    def reserve(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Reservation:
        """Take `cost` at all levels that `keys` names if all allow it, as a `Reservation`, which is false if
        one denies. Its ``settle`` takes what is used in the end, and ``cancel`` gives all back.

        Raises what ``allow`` raises.
        """
        applied = self._applied(keys)
        if not applied.keys:
            return Reservation(self._checked_cost(applied, cost), [], None, unlimited(cost))
        amount = self._checked_cost(applied, cost)
        try:
            decision, microseconds = self._charge(applied, amount)
        except StoreError as error:
            local: Reservation | None = self._on_error.reserve(cost=cost, **keys)
            if local is not None:
                return local
            return Reservation(amount, [], None, self._failed(error, applied, "decide", cost, keys))
        return Reservation(amount, [(self, (applied, keys), microseconds * 1000)], None, decision)

    def refund(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> None:
        """Refund `cost` at each level, for example because a request failed.

        Raises what ``allow`` raises, but a cost may be above the burst.
        """
        applied = self._applied(keys)
        amount = self._checked_refund(cost)
        try:
            self._all(self._refunds(applied, amount) if applied.keys else [])
        except StoreError as error:
            self._on_error.ignore(error, "refund", cost=cost, **keys)
        self._woken(keys)

    def reset(self, **keys: Key | None) -> None:
        """Forget what the keys owe.

        Raises what ``allow`` raises.
        """
        try:
            self._all(self._deletions(self._applied(keys)))
        except StoreError as error:
            self._on_error.ignore(error, "reset", **keys)
        self._woken(keys)

    def acquire(self, *, cost: SupportsFloat = 1, timeout: float | None = None, **keys: Key | None) -> bool:
        """Wait until `cost` can be taken at all levels that `keys` names; False if that is not within
        `timeout` seconds, None for any time.

        Waiters of this process that name the same keys are served first come, first served. The thread
        sleeps. A `timeout` of 0 never waits.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.
        """
        self._checked_cost(self._applied(keys), cost)
        return acquire(lambda: self.decide(cost=cost, **keys), self._queue(keys), timeout)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _settle(self, key: Any, cost: float, actual: float, reserved_at: int) -> None:
        """Settle `cost`, taken at the time `reserved_at`, as if `actual` had been taken."""
        applied, keys = key
        if actual == cost:
            return
        try:
            self._all(self._settlements(applied, cost, actual, reserved_at))
        except StoreError as error:
            self._on_error.ignore(error, "")
        self._woken(keys)
