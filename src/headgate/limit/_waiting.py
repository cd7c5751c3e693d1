"""Waiting for tokens: a queue per bucket or key, first come first served, for threads and event loops.

Only the head of the queue sleeps until its tokens are due; the others wait to become the head, so that none
overtakes a large request and all move up when one gives up. The head takes its tokens when they are
available, so that a waiter that is cancelled or killed before takes none. No lock is held while a waiter
sleeps.

The head is always one that can run. A task whose event loop has stopped or is closed is skipped, and goes to
the end of the queue if its loop goes on; waiters that share a queue with tasks of other loops poll for such a
head. Whatever brings tokens sooner wakes the head, which also polls for what it is not woken for, such as the
refund of another process.
"""

from __future__ import annotations

import time
import weakref
from _thread import allocate_lock
from collections import OrderedDict
from functools import partial
from weakref import WeakValueDictionary

from headgate._base.forks import new_lock, renew
from headgate._base.keys import key_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any, SupportsFloat

_LONGEST = 10**9
_POLL = 1.0


class Waiter:
    """A call that waits in a queue.

    The queue keeps a weak reference to it, and so learns when the call has ended without leaving the queue,
    as after an exception out of a signal handler.
    """

    __slots__ = ("__weakref__", "loop", "queue", "ref")

    def __init__(self, queue: Queue, loop: AbstractEventLoop | None) -> None:
        self.queue = queue
        self.ref = weakref.ref(self, queue.discard)
        hash(self.ref)  # cached, for when the waiter is gone
        self.loop = loop

    def can_run(self) -> bool:
        """Whether it can take its tokens."""
        return self.loop is None or self.loop.is_running()

    def wake(self) -> None:
        """End its pause, or the next one if it makes none."""
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """A thread that waits, at a lock written in C: an exception out of a signal handler cannot break it."""

    __slots__ = ("_sleep",)

    def __init__(self, queue: Queue) -> None:
        self._sleep = allocate_lock()
        self._sleep.acquire()
        super().__init__(queue, None)

    def wake(self) -> None:
        try:
            self._sleep.release()
        except RuntimeError:  # it is awake
            pass

    def pause(self, seconds: float | None) -> None:
        """Sleep for `seconds`, or until it is woken."""
        self._sleep.acquire(True, -1 if seconds is None else max(0.0, seconds))


class TaskWaiter(Waiter):
    """A task that waits on an event loop."""

    __slots__ = ("_loop", "_woken")

    def __init__(self, queue: Queue, loop: AbstractEventLoop) -> None:
        from asyncio import Event

        self._loop, self._woken = loop, Event()
        super().__init__(queue, loop)

    def wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:  # the loop is closed
            pass

    async def pause(self, seconds: float | None) -> None:
        """Sleep for `seconds`, or until it is woken."""
        timer = None if seconds is None else self._loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            self._woken.clear()
            if timer is not None:
                timer.cancel()


class Queue:
    """The waiters for one bucket, in the order in which they came.

    A finalizer may end a coroutine that waits, which so leaves the queue, during any step of the same thread.
    """

    __slots__ = ("__weakref__", "_last", "_lock", "_waiters", "is_mixed")

    def __init__(self) -> None:
        self._lock = new_lock()
        self._waiters: OrderedDict[weakref.ref[Waiter], None] = OrderedDict()
        self._last: AbstractEventLoop | None = None
        self.is_mixed = False
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: the waiters are the parent's, except for tasks of loops that may go on."""
        waiters = [ref() for ref in self._waiters]
        self._waiters.clear()
        for waiter in waiters:
            if waiter is not None and not waiter.can_run():
                waiter.wake()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiters)

    def join(self, waiter: Waiter) -> None:
        """Go to the end of the queue, unless it is in the queue already."""
        ref, loop = waiter.ref, waiter.loop
        with self._lock:
            if ref not in self._waiters:
                self.is_mixed = bool(self._waiters) and (self.is_mixed or loop is not self._last)
                self._waiters[ref] = None
                self._last = loop

    def leave(self, waiter: Waiter) -> None:
        """Leave the queue; if it was the head, the next one is woken."""
        if self._drop(waiter.ref):
            self.notify()
        del waiter.ref

    def discard(self, ref: weakref.ref[Waiter]) -> None:
        """Drop a waiter that is gone without having left."""
        self._drop(ref)
        self.notify()

    def is_head(self, waiter: Waiter) -> bool:
        """Whether it is the head; it joins the queue if it is not in it, because it was skipped."""
        self.join(waiter)
        return self.head() is waiter

    def head(self) -> Waiter | None:
        """The first waiter that can run; those before it are dropped."""
        while (ref := self._first()) is not None:
            waiter = ref()
            if waiter is not None and waiter.can_run():
                return waiter
            self._drop(ref)
            if waiter is not None:
                waiter.wake()
        return None

    def notify(self) -> None:
        """Wake the head, as tokens may have come sooner."""
        head = self.head()
        if head is not None:
            head.wake()

    def _first(self) -> weakref.ref[Waiter] | None:
        with self._lock:
            while True:
                try:
                    return next(iter(self._waiters), None)
                except RuntimeError:  # a finalizer has changed the queue meanwhile
                    pass

    def _drop(self, ref: weakref.ref[Waiter]) -> bool:
        """Whether it was the first."""
        with self._lock:
            was_first = self._first() is ref
            self._waiters.pop(ref, None)
        return was_first


def checked_timeout(timeout: float | None) -> float | None:
    """None if there is none, or one of more than thirty years, which not every clock can count."""
    if timeout is None:
        return None
    if isinstance(timeout, int | float) and timeout >= 0:
        return timeout if timeout <= _LONGEST else None
    error = ValueError if isinstance(timeout, int | float) else TypeError
    raise error(f"timeout must be a non-negative number or None, got {timeout!r}")


def _at_once(bucket: Any, queue: Queue, tokens: SupportsFloat, timeout: float | None) -> bool | None:
    """True if the tokens were available and no other waits, False if they were not and the timeout is 0, None
    if the call has to wait.
    """
    if bucket.peek(tokens).allowed and queue.head() is None and bucket.consume(tokens):
        return True
    return False if timeout == 0 else None


def _step(
    bucket: Any, waiter: Waiter, tokens: SupportsFloat, left: float | None
) -> tuple[bool | None, float | None]:
    """What `_at_once` returns, for a waiter with so many seconds left, and how long it sleeps."""
    pauses = [] if left is None else [left]
    if waiter.queue.is_head(waiter):
        decision = bucket.decide(tokens)
        if decision:
            return True, None
        pauses += [decision.retry_after, _POLL]
    elif waiter.queue.is_mixed:
        pauses.append(_POLL)
    if left is not None and left <= 0:
        return False, None
    return None, min(pauses, default=None)


def acquire(bucket: Any, queue: Queue, tokens: SupportsFloat, timeout: float | None) -> bool:
    """Wait in the calling thread; False if the tokens cannot be taken within `timeout` seconds."""
    timeout = checked_timeout(timeout)
    outcome = _at_once(bucket, queue, tokens, timeout)
    if outcome is not None:
        return outcome
    end = None if timeout is None else time.monotonic() + timeout
    waiter = ThreadWaiter(queue)
    try:
        while True:
            outcome, pause = _step(bucket, waiter, tokens, None if end is None else end - time.monotonic())
            if outcome is not None:
                return outcome
            waiter.pause(pause)
    finally:
        queue.leave(waiter)


async def acquire_async(bucket: Any, queue: Queue, tokens: SupportsFloat, timeout: float | None) -> bool:
    """Wait in the running event loop; False if the tokens cannot be taken within `timeout` seconds."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("acquire_async needs a running event loop of asyncio; trio has none") from None
    timeout = checked_timeout(timeout)
    outcome = _at_once(bucket, queue, tokens, timeout)
    if outcome is not None:
        return outcome
    end = None if timeout is None else loop.time() + timeout
    waiter = TaskWaiter(queue, loop)
    try:
        while True:
            outcome, pause = _step(bucket, waiter, tokens, None if end is None else end - loop.time())
            if outcome is not None:
                return outcome
            await waiter.pause(pause)
    finally:
        queue.leave(waiter)


_making = new_lock()


class Queues:
    """The queues for the keys of one limiter or of several, each kept as long as it is in use.

    There may be many limiters of which few ever have a waiter, so that little is created before the first.
    """

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: WeakValueDictionary[Any, Queue] | None = None

    def __len__(self) -> int:
        return len(self._queues or ())

    def of(self, name: bytes | tuple[tuple[str, bytes], ...]) -> Queue:
        with _making:
            if self._queues is None:
                self._queues = WeakValueDictionary()
            return self._queues.setdefault(name, Queue())

    def notify(self, key: Any) -> None:
        """Wake the head of the queue for a key, as tokens may have come sooner."""
        queue = self._queues.get(key_name(key)) if self._queues else None
        if queue is not None:
            queue.notify()

    def notify_matching(self, parts: list[tuple[str, bytes]]) -> None:
        """Wake the heads of the queues whose names have one of these parts."""
        for name, queue in self._all():
            if not set(parts).isdisjoint(name):
                queue.notify()

    def notify_all(self) -> None:
        """Wake the heads of all queues."""
        for _, queue in self._all():
            queue.notify()

    def _all(self) -> list[tuple[Any, Queue]]:
        """A snapshot of all queues with their names."""
        refs: list[Any] = self._queues.valuerefs() if self._queues else []
        found = [(ref.key, ref()) for ref in refs]
        return [(name, queue) for name, queue in found if queue is not None]


class _Key:
    """One key of a limiter, with the methods of a bucket."""

    __slots__ = ("consume", "decide", "peek")

    def __init__(self, limiter: Any, key: Any) -> None:
        self.consume = partial(limiter.allow, key)
        self.decide = partial(limiter.decide, key)
        self.peek = partial(limiter.peek, key)


def acquire_key(limiter: Any, queues: Queues, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire`` for one key."""
    return acquire(_Key(limiter, key), queues.of(key_name(key)), cost, timeout)


async def acquire_key_async(
    limiter: Any, queues: Queues, key: Any, cost: float, timeout: float | None
) -> bool:
    """``acquire_async`` for one key."""
    return await acquire_async(_Key(limiter, key), queues.of(key_name(key)), cost, timeout)
