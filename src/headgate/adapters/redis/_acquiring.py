"""Waiting for tokens of a store in an event loop: the queues of local limits, with awaited decisions."""

from __future__ import annotations

import asyncio

from headgate.limit._waiting import TaskWaiter, checked_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.limit._decision import Decision
    from headgate.limit._waiting import Queue

_POLL = 1.0


async def acquire(decide: Callable[[], Awaitable[Decision]], queue: Queue, timeout: float | None) -> bool:
    """Wait until `decide` allows; False if that is not within `timeout` seconds, None for any time.

    Only the head of the queue asks the store: when its tokens are due, and once a second.
    """
    loop = asyncio.get_running_loop()
    seconds = checked_timeout(timeout)
    if queue.head() is None and await decide():
        return True
    if seconds == 0:
        return False
    end = None if seconds is None else loop.time() + seconds
    waiter = TaskWaiter(queue, loop)
    try:
        while True:
            pauses = [_POLL]
            if queue.is_head(waiter):
                decision = await decide()
                if decision:
                    return True
                pauses.append(decision.retry_after)
            if end is not None:
                if loop.time() >= end:
                    return False
                pauses.append(end - loop.time())
            await waiter.pause(min(pauses))
    finally:
        queue.leave(waiter)
