"""Reservations that are settled by calls to the store, which are awaited."""

from __future__ import annotations

from headgate.errors import StoreError
from headgate.limit._units import checked_amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Never, SupportsFloat

    from headgate.limit._decision import Decision
    from headgate.limit.reservation import Reservation

    Part = tuple[Any, Any, int]


class AsyncReservation:
    """Tokens taken ahead of time, made by the ``reserve`` of an asynchronous limit. It is false if they were
    denied. What it took stays taken if it is neither settled nor cancelled.

    >>> import asyncio, redis.asyncio
    >>> from headgate.adapters.redis import AsyncRedisRateLimiter
    >>> limiter = AsyncRedisRateLimiter(redis.asyncio.Redis(port=1), "9/min", on_error="allow")
    >>> async def main():
    ...     reservation = await limiter.reserve("ann", 5)
    ...     await reservation.settle(3)
    ...     return reservation
    >>> asyncio.run(main())
    AsyncReservation(tokens=5)
    """

    __slots__ = ("_decision", "_joined", "_local", "_open", "_parts", "_tokens")

    def __init__(
        self, tokens: float, decision: Decision, parts: list[Part], local: Reservation | None = None
    ) -> None:
        self._tokens = tokens
        self._decision = decision
        self._parts = parts
        self._local = local
        self._joined: list[AsyncReservation] = []
        self._open = decision.allowed

    def __bool__(self) -> bool:
        return self._decision.allowed

    @property
    def tokens(self) -> float:
        """How many tokens were requested."""
        return self._tokens

    @property
    def decision(self) -> Decision:
        """What the limit decided."""
        return self._decision

    @property
    def delay(self) -> float:
        """0.0, or the seconds after which to try again if the tokens were denied."""
        return self._decision.retry_after

    async def settle(self, actual: SupportsFloat) -> None:
        """Settle for `actual` tokens instead of those that were reserved; once: ``Reservation.settle``."""
        used = checked_amount("actual", actual)
        together = self._together()
        for each in together:
            for limit, _, _ in each._parts if each._open else ():
                limit._check_settle(used)
        failure: Exception | None = None
        for each in together:
            try:
                await each._settle(used)
            except StoreError as error:  # it keeps no other from being settled
                failure = failure or error
        if failure is not None:
            raise failure

    def _together(self) -> list[AsyncReservation]:
        """This one, and those that joined it."""
        return [self, *[each for joined in self._joined for each in joined._together()]]

    async def _settle(self, used: float) -> None:
        was_open, self._open = self._open, False
        if not was_open:
            return
        if self._local is not None:
            self._local.settle(used)
        for limit, key, reserved_at in self._parts:
            await limit._settle(key, self._tokens, used, reserved_at)

    async def cancel(self) -> None:
        """Refund the tokens, minus those that have been refilled since; once."""
        await self.settle(0)

    async def join(self, other: AsyncReservation) -> bool:
        """Let `other`, made for the same request, be settled and cancelled with this one; False if it was
        denied: then this one is cancelled, so that the request takes nothing anywhere.

        Raises TypeError if `other` is no asynchronous reservation, ValueError if it is this one.
        """
        if not isinstance(other, AsyncReservation):
            raise TypeError(f"other must be an AsyncReservation, got {other!r}")
        if self in other._together():
            raise ValueError(f"other must be another reservation, got {other!r}")
        if not other:
            await self.cancel()
            return False
        self._joined.append(other)
        return True

    def __repr__(self) -> str:
        return f"AsyncReservation(tokens={self._tokens!r})"

    def __reduce__(self) -> Never:
        raise TypeError("an AsyncReservation cannot be copied or pickled: it belongs to one limit")
