"""A counter that threads, and tasks of any number of event loops, wait on."""

from __future__ import annotations

from _thread import allocate_lock
from asyncio import _get_running_loop, get_running_loop

from headgate._base.forks import new_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from typing import Any


def _wake(futures: list[Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Changes:
    """A counter of changes: waiters are woken by the next one.

    A caller reads `number`, looks at what the counter is about, and waits with that number: a change made in
    between ends the wait at once. A change wakes each event loop once, whatever the number of its tasks.

    >>> changes = Changes()
    >>> seen = changes.number
    >>> changes.add()
    >>> changes.wait(seen, 1.0), changes.wait(changes.number, 0.001)
    (True, False)
    """

    __slots__ = ("_lock", "_loops", "_threads", "number")

    def __init__(self) -> None:
        self.number = 0
        self._lock = new_lock()
        self._loops: dict[AbstractEventLoop, list[Future[None]]] = {}
        self._threads: list[Any] = []

    def add(self) -> None:
        """Count a change and wake all that wait. Complexity: O(n) for n threads and loops."""
        with self._lock:
            self.number += 1
            loops, self._loops = self._loops, {}
            threads, self._threads = self._threads, []
        for gate in threads:
            gate.release()
        running = _get_running_loop()
        for loop, futures in loops.items():
            if loop is running:
                _wake(futures)
            else:
                _wake_in(loop, futures)

    def wait(self, seen: int, timeout: float | None = None) -> bool:
        """Block this thread until `number` is not `seen`, for at most `timeout` seconds; whether it is."""
        gate = allocate_lock()
        gate.acquire()
        with self._lock:
            if self.number != seen:
                return True
            self._threads.append(gate)
        gate.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))
        return self.number != seen

    async def wait_async(self, seen: int, timeout: float | None = None) -> bool:
        """`wait` in a task."""
        loop = get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self.number != seen:
                return True
            self._loops.setdefault(loop, []).append(future)
        if timeout is None:
            await future
            return True
        timer = loop.call_later(timeout, _wake, [future])
        try:
            await future
        finally:
            timer.cancel()
        return self.number != seen


def _wake_in(loop: AbstractEventLoop, futures: list[Future[None]]) -> None:
    try:
        loop.call_soon_threadsafe(_wake, futures)
    except RuntimeError:  # the loop is closed: no task waits
        pass
