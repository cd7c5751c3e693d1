"""AsyncRedisRateLimiter: one limit by key for all hosts, for event loops."""

from __future__ import annotations

from headgate._base.keys import key_name
from headgate.adapters.redis._acquiring import acquire_async
from headgate.adapters.redis._amounts import time_of
from headgate.adapters.redis._keyed import Keyed
from headgate.adapters.redis._leases import checked_leases
from headgate.adapters.redis._reservations import AsyncReservation
from headgate.adapters.redis._stores import AsyncStore
from headgate.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self, SupportsFloat

    from headgate.adapters.redis._keyed import Key
    from headgate.limit import RateLimiter
    from headgate.limit._decision import Decision
    from headgate.limit._rate import Rates


class AsyncRedisRateLimiter(Keyed):
    """`RedisRateLimiter` for coroutines on asyncio's event loops; arguments, results and errors are the same.

    All decisions of one loop share a connection to each server, and those that tasks ask for in one turn of
    the loop are sent together. A call that is cancelled may have been charged.

    >>> import asyncio, redis.asyncio
    >>> async def main():
    ...     client = redis.asyncio.Redis(port=1)
    ...     async with AsyncRedisRateLimiter(client, "9/min", on_error="deny") as limiter:
    ...         return await limiter.decide("ann")
    >>> decision = asyncio.run(main())
    >>> decision.allowed, decision.degraded
    (False, True)
    """

    __slots__ = ("__weakref__", "_store")

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
        self._store = AsyncStore(client, timeout)
        leases = checked_leases(lease, lease_ttl, strict)
        super().__init__(self._store, rate, burst, prefix, strict, on_error, leases)

    async def allow(self, key: Key, cost: SupportsFloat = 1) -> bool:
        """``RedisRateLimiter.allow``."""
        if self._leases is not None:
            granted = self._leases.allow(key, cost)
            return (await self._leased(key, cost)).allowed if granted is None else granted
        plan = self._plan
        amount = plan.checked_cost(cost)
        try:
            return plan.allowed(await self._store.call(self._take(plan, key, amount, b"each")))
        except StoreError as error:
            return self._failed(error, "decide", key, cost).allowed

    async def decide(self, key: Key, cost: SupportsFloat = 1) -> Decision:
        """``RedisRateLimiter.decide``."""
        if self._leases is not None:
            held = self._leases.decide(key, cost)
            return await self._leased(key, cost) if held is None else held
        return await self._decide(key, cost, "decide", b"each")

    async def peek(self, key: Key, cost: SupportsFloat = 1) -> Decision:
        """``RedisRateLimiter.peek``."""
        held = None if self._leases is None else self._leases.decide(key, cost, taken=False)
        return await self._decide(key, cost, "peek", b"peek") if held is None else held

    async def _decide(self, key: Key, cost: SupportsFloat, method: str, mode: bytes) -> Decision:
        plan = self._plan
        amount = plan.checked_cost(cost)
        try:
            return self._decided(plan, await self._store.call(self._take(plan, key, amount, mode)), amount)
        except StoreError as error:
            return self._failed(error, method, key, cost)

    async def _leased(self, key: Key, cost: SupportsFloat) -> Decision:
        """Take a lease for a key, and `cost` of it."""
        assert self._leases is not None
        plan = self._plan
        amount = plan.checked_cost(cost)
        flight = self._leases.start(self, plan, key, amount)
        if flight is None:
            return await self._decide(key, cost, "decide", b"each")
        try:
            return flight.finish(await self._store.call_all(flight.calls))
        except StoreError as error:
            return self._failed(error, "decide", key, cost)
        finally:
            flight.end()

    async def decide_many(self, requests: Iterable[tuple[Key, SupportsFloat]]) -> list[Decision]:
        """``RedisRateLimiter.decide_many``."""
        plan = self._plan
        wanted = self._requests(requests, plan)
        parts = self._parts(wanted, plan)
        if not parts:
            return []
        try:
            replies = await self._store.call_all([call for _, call in parts])
        except StoreError as error:
            return [self._failed(error, "decide", *request) for request in wanted]
        return self._decisions(plan, wanted, parts, replies)

    async def reserve(self, key: Key, cost: SupportsFloat = 1) -> AsyncReservation:
        """``RedisRateLimiter.reserve``; ``settle`` and ``cancel`` of the reservation are awaited too."""
        plan = self._plan
        amount = plan.checked_cost(cost)
        try:
            reply = await self._store.call(self._take(plan, key, amount, b"each"))
        except StoreError as error:
            local = self._on_error.reserve(key, cost)
            if local is not None:
                return AsyncReservation(amount, local.decision, [], local)
            return AsyncReservation(amount, self._failed(error, "decide", key, cost), [])
        decision = self._decided(plan, reply, amount)
        return AsyncReservation(amount, decision, [(self, key, time_of(reply) * 1000)])

    async def refund(self, key: Key, cost: SupportsFloat = 1) -> None:
        """``RedisRateLimiter.refund``."""
        try:
            await self._store.call(self._refund(key, cost))
        except StoreError as error:
            self._on_error.ignore(error, "refund", key, cost)
        self._woken(key)

    async def reset(self, key: Key) -> None:
        """``RedisRateLimiter.reset``."""
        try:
            await self._store.call(self._forget(key))
        except StoreError as error:
            self._on_error.ignore(error, "reset", key)
        self._woken(key, is_reset=True)

    async def acquire(self, key: Key, cost: SupportsFloat = 1, timeout: float | None = None) -> bool:
        """``RedisRateLimiter.acquire``; a call that is cancelled leaves the queue."""
        self._plan.checked_cost(cost)
        return await acquire_async(lambda: self.decide(key, cost), self._waiting.of(key_name(key)), timeout)

    async def close(self) -> None:
        """Give leases back and close the connections of the running loop; a later call opens others."""
        calls = [] if self._leases is None else self._leases.returned(self)
        try:
            if calls:
                await self._store.call_all(calls)
        except StoreError as error:
            self._on_error.ignore(error, "")
        finally:
            await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    async def _settle(self, key: Key, cost: float, actual: float, reserved_at: int) -> None:
        """Settle `cost`, taken at the time `reserved_at`, as if `actual` had been taken."""
        if actual == cost:
            return
        try:
            await self._store.call(self._settlement(self._plan, key, cost, actual, reserved_at))
        except StoreError as error:
            self._on_error.ignore(error, "")
        self._woken(key)
