"""RedisRateLimiter: one limit by key for all hosts, for threads."""

from __future__ import annotations

from headgate._base.keys import key_name
from headgate.adapters.redis._acquiring import acquire
from headgate.adapters.redis._amounts import time_of
from headgate.adapters.redis._calls import Command
from headgate.adapters.redis._keyed import Keyed
from headgate.adapters.redis._leases import checked_leases
from headgate.adapters.redis._stores import Store
from headgate.errors import StoreError
from headgate.limit.reservation import Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self, SupportsFloat

    from headgate.adapters.redis._keyed import Key
    from headgate.limit import RateLimiter
    from headgate.limit._decision import Decision
    from headgate.limit._rate import Rates


class RedisRateLimiter(Keyed):
    """A rate limit for each key that all processes on all hosts share, in Redis or Valkey.

    `client` is one of redis-py or valkey-py, synchronous or not: for one server, for the master that
    sentinels name, or for a cluster. Its settings are taken from it, nothing else; the limiter opens its own
    connections. `rate` and `burst` are those of `RateLimiter`, as are the methods and what they return.
    `prefix` names the limit: limiters with one prefix are one limit.

    A call takes at most `timeout` seconds, connecting included. If it fails, `on_error` says what happens:
    ``"raise"`` raises `StoreError`, ``"allow"`` and ``"deny"`` decide so, and a local `RateLimiter` decides
    instead; such decisions are `degraded`. A request that may have been charged is never sent again. A server
    that has failed three times in a row is left alone for half a second at a time.

    With `strict` a key is never allowed more than the limit, of at most 10,000, in any interval as long as
    the period. With `lease` up to so many tokens of a key are taken at once, and used within `lease_ttl`
    seconds without another call: in t seconds at most ``burst + rate * (t + lease_ttl)`` pass.

    All times are the server's. Raises ValueError or TypeError if an argument is out of range or of a wrong
    type, ValueError if a rate cannot be counted in microseconds below 2**53.

    Complexity: one round trip a decision, O(tiers).

    >>> import redis
    >>> limiter = RedisRateLimiter(redis.Redis(port=1), "100/min", on_error="allow")
    >>> decision = limiter.decide("ann")
    >>> decision.allowed, decision.degraded
    (True, True)
    """

    __slots__ = ("__weakref__", "_store")

    blocking = True

    def __init__(
        self,
        client: Any,
        rate: Rates,
        *,
        burst: SupportsFloat | None = None,
        prefix: str = "headgate",
        strict: bool = False,
        on_error: str | RateLimiter = "raise",
        timeout: SupportsFloat = 0.25,
        lease: int = 0,
        lease_ttl: SupportsFloat = 1.0,
    ) -> None:
        self._store = Store(client, timeout)
        leases = checked_leases(lease, lease_ttl, strict)
        super().__init__(self._store, rate, burst, prefix, strict, on_error, leases)

    def allow(self, key: Key, cost: SupportsFloat = 1) -> bool:
        """Take `cost` for `key` if every tier allows it; True if so.

        Raises TypeError or ValueError if `key` is not a valid key, ValueError if `cost` is negative, not
        finite, above the smallest burst, or not whole where the limiter is strict; StoreError if the store
        fails and `on_error` is ``"raise"``. Complexity: O(tiers).
        """
        if self._leases is not None:
            granted = self._leases.allow(key, cost)
            return self._leased(key, cost).allowed if granted is None else granted
        plan = self._plan
        amount = plan.checked_cost(cost)
        try:
            return plan.allowed(self._store.call(self._take(plan, key, amount, b"each")))
        except StoreError as error:
            return self._failed(error, "decide", key, cost).allowed

    def decide(self, key: Key, cost: SupportsFloat = 1) -> Decision:
        """Take `cost` for `key` if every tier allows it, and return a `Decision`: that of the tier that
        denies for longest, or else of the one with the least remaining.

        Raises what ``allow`` raises. Complexity: O(tiers).
        """
        if self._leases is not None:
            held = self._leases.decide(key, cost)
            return self._leased(key, cost) if held is None else held
        return self._decide(key, cost, "decide", b"each")

    def peek(self, key: Key, cost: SupportsFloat = 1) -> Decision:
        """What ``decide`` would return, but without taking anything.

        Raises what ``allow`` raises. Complexity: O(tiers).
        """
        held = None if self._leases is None else self._leases.decide(key, cost, taken=False)
        return self._decide(key, cost, "peek", b"peek") if held is None else held

    def _decide(self, key: Key, cost: SupportsFloat, method: str, mode: bytes) -> Decision:
        plan = self._plan
        amount = plan.checked_cost(cost)
        try:
            return self._decided(plan, self._store.call(self._take(plan, key, amount, mode)), amount)
        except StoreError as error:
            return self._failed(error, method, key, cost)

    def _leased(self, key: Key, cost: SupportsFloat) -> Decision:
        """Take a lease for a key, and `cost` of it."""
        assert self._leases is not None
        plan = self._plan
        amount = plan.checked_cost(cost)
        flight = self._leases.start(self, plan, key, amount)
        if flight is None:
            return self._decide(key, cost, "decide", b"each")
        try:
            return flight.finish(self._store.call_all(flight.calls))
        except StoreError as error:
            return self._failed(error, "decide", key, cost)
        finally:
            flight.end()

    def decide_many(self, requests: Iterable[tuple[Key, SupportsFloat]]) -> list[Decision]:
        """A decision for each pair of a key and a cost, in their order; each is charged whole or not at all.

        All go out at once: in one script for at most 128 keys, or for those of one slot in a cluster.

        Raises what ``allow`` raises, before anything is taken. Complexity: O(requests x tiers).
        """
        plan = self._plan
        wanted = self._requests(requests, plan)
        parts = self._parts(wanted, plan)
        if not parts:
            return []
        try:
            replies = self._store.call_all([call for _, call in parts])
        except StoreError as error:
            return [self._failed(error, "decide", *request) for request in wanted]
        return self._decisions(plan, wanted, parts, replies)

    def reserve(self, key: Key, cost: SupportsFloat = 1) -> Reservation:
        """Take `cost` for `key` if every tier allows it, as a `Reservation`, which is false if one denies.
        Its ``settle`` takes what is used in the end, and ``cancel`` gives all back; each is a call too.

        Raises what ``allow`` raises. Complexity: O(tiers).
        """
        plan = self._plan
        amount = plan.checked_cost(cost)
        try:
            reply = self._store.call(self._take(plan, key, amount, b"each"))
        except StoreError as error:
            local: Reservation | None = self._on_error.reserve(key, cost)
            if local is not None:
                return local
            return Reservation(amount, [], None, self._failed(error, "decide", key, cost))
        decision = self._decided(plan, reply, amount)
        return Reservation(amount, [(self, key, time_of(reply) * 1000)], None, decision)

    def refund(self, key: Key, cost: SupportsFloat = 1) -> None:
        """Refund `cost` of what `key` owes, at every tier, for example because a request failed.

        No more than is owed is refunded. A strict limiter drops the oldest entries.

        Raises what ``allow`` raises, but a cost may be above the burst. Complexity: O(tiers).
        """
        try:
            self._store.call(self._refund(key, cost))
        except StoreError as error:
            self._on_error.ignore(error, "refund", key, cost)
        self._woken(key)

    def reset(self, key: Key) -> None:
        """Forget what `key` owes.

        Raises TypeError or ValueError if `key` is not a valid key; StoreError as ``allow``.
        """
        try:
            self._store.call(self._forget(key))
        except StoreError as error:
            self._on_error.ignore(error, "reset", key)
        self._woken(key, is_reset=True)

    def acquire(self, key: Key, cost: SupportsFloat = 1, timeout: float | None = None) -> bool:
        """Wait until `cost` can be taken for `key`; False if that is not within `timeout` seconds, None for
        any time.

        The waiters of one key are served first come, first served, within this process; the first one asks
        the store when its tokens are due, and once a second. The thread sleeps. A `timeout` of 0 never waits.
        A call to the store that is under way at the end of `timeout` is waited for.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.
        """
        self._plan.checked_cost(cost)
        return acquire(lambda: self.decide(key, cost), self._waiting.of(key_name(key)), timeout)

    def close(self) -> None:
        """Give leases back and close the connections; a later call opens others.

        >>> import redis
        >>> with RedisRateLimiter(redis.Redis(), "10/s") as limiter:
        ...     limiter.rates
        (Rate(limit=10, period=1, burst=10),)
        """
        calls = [] if self._leases is None else self._leases.returned(self)
        try:
            if calls:
                self._store.call_all(calls)
        except StoreError as error:
            self._on_error.ignore(error, "")
        finally:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _has(self, key: Key, cost: SupportsFloat) -> bool:
        """Whether ``peek`` would allow it."""
        return self.peek(key, cost).allowed

    def _now_ns(self) -> int:
        """The server's time, or somewhat before it."""
        if not self._clock.is_known:
            try:
                seconds, microseconds = self._store.call(Command(b"", b"TIME"))
            except StoreError as error:
                self._on_error.ignore(error, "")
                return 0
            self._clock.learn(int(seconds) * 10**6 + int(microseconds))
        return self._clock.now()

    def _settle(self, key: Key, cost: float, actual: float, reserved_at: int) -> None:
        """Settle `cost`, taken at the time `reserved_at`, as if `actual` had been taken."""
        if actual == cost:
            return
        try:
            self._store.call(self._settlement(self._plan, key, cost, actual, reserved_at))
        except StoreError as error:
            self._on_error.ignore(error, "")
        self._woken(key)
