"""AsyncRedisRateLimits: several levels for one request, all or nothing, for all hosts; for event loops."""

from __future__ import annotations

from contextlib import suppress

from headgate.adapters.redis._acquiring import acquire_async
from headgate.adapters.redis._amounts import time_of
from headgate.adapters.redis._leveled import Leveled, summary, unlimited
from headgate.adapters.redis._reservations import AsyncReservation
from headgate.adapters.redis._stores import AsyncStore
from headgate.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self, SupportsFloat

    from headgate.adapters.redis._leveled import Applied
    from headgate.limit import RateLimits
    from headgate.limit._decision import Decision
    from headgate.limit._rate import Rates

    Key = str | bytes | int


class AsyncRedisRateLimits(Leveled):
    """`RedisRateLimits` for coroutines on asyncio's event loops; arguments, results and errors are the same.

    A call that is cancelled may have been charged.

    >>> import asyncio, redis.asyncio
    >>> limits = AsyncRedisRateLimits(redis.asyncio.Redis(port=1), user="9/min", on_error="allow")
    >>> asyncio.run(limits.decide(user="ann")).degraded
    True
    """

    __slots__ = ("__weakref__", "_store")

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
        self._store = AsyncStore(client, timeout)
        super().__init__(self._store, levels, more, prefix, on_error)

    async def allow(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> bool:
        """``RedisRateLimits.allow``."""
        return (await self.decide(cost=cost, **keys)).allowed

    async def decide(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """``RedisRateLimits.decide``."""
        applied = self._applied(keys)
        if not applied.keys:
            return unlimited(cost)
        amount = self._checked_cost(applied, cost)
        try:
            return (await self._charge(applied, amount))[0]
        except StoreError as error:
            return self._failed(error, applied, "decide", cost, keys)

    async def _charge(self, applied: Applied, amount: float) -> tuple[Decision, int]:
        """Charge all levels or none: the decision, and the server's time in microseconds."""
        deadline = self._store.deadline()
        if self._is_joint:
            reply = await self._call(applied, amount, b"all", deadline)
            return summary(applied.decisions(reply, amount)), time_of(reply)
        reply = await self._call(applied, amount, b"peek", deadline)
        decisions = applied.decisions(reply, amount)
        if all(decision.allowed for _, decision in decisions):
            reply = await self._call(applied, amount, b"each", deadline)
            decisions = applied.decisions(reply, amount)
            if not all(decision.allowed for _, decision in decisions):
                with suppress(StoreError):  # it is denied in any case
                    await self._all(self._undone(applied, decisions, amount), deadline)
        return summary(decisions), time_of(reply)

    async def _call(
        self, applied: Applied, amount: float, mode: bytes, deadline: float | None = None
    ) -> bytes:
        return self._checked(await self._store.call_all(self._takes(applied, amount, mode), deadline))

    async def _all(self, calls: Any, deadline: float | None = None) -> None:
        """Make calls that have no result."""
        for reply in await self._store.call_all(calls, deadline) if calls else ():
            if isinstance(reply, StoreError):
                raise reply

    async def peek(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """``RedisRateLimits.peek``."""
        applied = self._applied(keys)
        if not applied.keys:
            return unlimited(cost)
        amount = self._checked_cost(applied, cost)
        try:
            return summary(applied.decisions(await self._call(applied, amount, b"peek"), amount))
        except StoreError as error:
            return self._failed(error, applied, "peek", cost, keys)

    async def reserve(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> AsyncReservation:
        """``RedisRateLimits.reserve``; ``settle`` and ``cancel`` of the reservation are awaited too."""
        applied = self._applied(keys)
        if not applied.keys:
            return AsyncReservation(self._checked_cost(applied, cost), unlimited(cost), [])
        amount = self._checked_cost(applied, cost)
        try:
            decision, microseconds = await self._charge(applied, amount)
        except StoreError as error:
            local = self._on_error.reserve(cost=cost, **keys)
            if local is not None:
                return AsyncReservation(amount, local.decision, [], local)
            return AsyncReservation(amount, self._failed(error, applied, "decide", cost, keys), [])
        return AsyncReservation(amount, decision, [(self, (applied, keys), microseconds * 1000)])

    async def refund(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> None:
        """``RedisRateLimits.refund``."""
        applied = self._applied(keys)
        amount = self._checked_refund(cost)
        try:
            await self._all(self._refunds(applied, amount) if applied.keys else [])
        except StoreError as error:
            self._on_error.ignore(error, "refund", cost=cost, **keys)
        self._woken(keys)

    async def reset(self, **keys: Key | None) -> None:
        """``RedisRateLimits.reset``."""
        try:
            await self._all(self._deletions(self._applied(keys)))
        except StoreError as error:
            self._on_error.ignore(error, "reset", **keys)
        self._woken(keys)

    async def acquire(
        self, *, cost: SupportsFloat = 1, timeout: float | None = None, **keys: Key | None
    ) -> bool:
        """``RedisRateLimits.acquire``; a call that is cancelled leaves the queue."""
        self._checked_cost(self._applied(keys), cost)
        return await acquire_async(lambda: self.decide(cost=cost, **keys), self._queue(keys), timeout)

    async def close(self) -> None:
        """Close the connections of the running loop; a later call opens others."""
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    async def _settle(self, key: Any, cost: float, actual: float, reserved_at: int) -> None:
        """Settle `cost`, taken at the time `reserved_at`, as if `actual` had been taken."""
        applied, keys = key
        if actual == cost:
            return
        try:
            await self._all(self._settlements(applied, cost, actual, reserved_at))
        except StoreError as error:
            self._on_error.ignore(error, "")
        self._woken(keys)
