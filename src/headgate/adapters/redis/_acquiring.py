"""Waiting for tokens of a store: the queues of local limits, with fewer calls.

Only the head of a queue asks the store: at once, when its tokens are due, and once a second.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic

from headgate.limit._waiting import TaskWaiter, ThreadWaiter, checked_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.limit._decision import Decision
    from headgate.limit._waiting import Queue

_POLL = 1.0


def acquire(decide: Callable[[], Decision], queue: Queue, timeout: float | None) -> bool:
    """Wait in the calling thread until `decide` allows; False if that is not within `timeout` seconds, None
    for any time.
    """
    end = _end(timeout)
    waiter = ThreadWaiter(queue)
    try:
        while True:
            decision = decide() if queue.is_head(waiter) else None
            if decision:
                return True
            pause = _pause(decision, end)
            if pause <= 0:
                return False
            waiter.pause(pause)
    finally:
        queue.leave(waiter)


async def acquire_async(
    decide: Callable[[], Awaitable[Decision]], queue: Queue, timeout: float | None
) -> bool:
    """``acquire`` in the running event loop."""
    end = _end(timeout)
    waiter = TaskWaiter(queue, asyncio.get_running_loop())
    try:
        while True:
            decision = await decide() if queue.is_head(waiter) else None
            if decision:
                return True
            pause = _pause(decision, end)
            if pause <= 0:
                return False
            await waiter.pause(pause)
    finally:
        queue.leave(waiter)


def _end(timeout: float | None) -> float:
    seconds = checked_timeout(timeout)
    return inf if seconds is None else monotonic() + seconds


def _pause(decision: Decision | None, end: float) -> float:
    """The seconds until the store is to be asked again, 0 or less if the time is over."""
    wait = _POLL if decision is None else min(_POLL, decision.retry_after)
    return min(max(wait, 0.001), end - monotonic())
