"""Waiting for tokens: one line per bucket or key, first come first served, for threads and event loops alike.

Only the head of the line sleeps until its tokens are due; the others wait for their turn and ask for
nothing, so that nobody overtakes a large request and all move up when one gives up. The head takes its
tokens once they have come, so that one that is cancelled or killed before takes none with it. No lock is held
while anybody sleeps.

The head is always one that can run. A task whose event loop has stopped or is closed is passed over, and
goes to the end of the line if its loop goes on; what waits in one line with tasks of other loops looks now
and then for such a head. Whatever brings tokens sooner wakes the head, which also looks now and then for what
it is not woken for, such as the refund of another process.
"""

from __future__ import annotations

import time
import weakref
from _thread import allocate_lock
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from weakref import WeakValueDictionary

from headgate._base.forks import new_lock, renew
from headgate._base.keys import key_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any, SupportsFloat

_LONGEST = 10**9
_LOOK = 1.0


class Waiter:
    """One that waits in a line.

    The line keeps a weak reference, its place, and so knows when the call that waits is gone without having
    left, as an exception out of a signal handler may have it.
    """

    __slots__ = ("__weakref__", "home", "line", "place")

    def __init__(self, line: Line, home: AbstractEventLoop | None) -> None:
        self.line = line
        self.place = weakref.ref(self, line.lose)
        hash(self.place)  # kept, for when the waiter is gone
        self.home = home

    def can_run(self) -> bool:
        """Whether it can take its tokens."""
        return self.home is None or self.home.is_running()

    def wake(self) -> None:
        """End its pause, or the next one if it makes none."""
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """A thread that waits, at a lock written in C: an exception out of a signal handler cannot break it."""

    __slots__ = ("_gate",)

    def __init__(self, line: Line) -> None:
        self._gate = allocate_lock()
        self._gate.acquire()
        super().__init__(line, None)

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self._gate.release()

    def pause(self, seconds: float | None) -> None:
        """Sleep for `seconds`, or until it is woken."""
        self._gate.acquire(True, -1 if seconds is None else max(0.0, seconds))


class TaskWaiter(Waiter):
    """A task that waits on an event loop."""

    __slots__ = ("_loop", "_turn")

    def __init__(self, line: Line, loop: AbstractEventLoop) -> None:
        from asyncio import Event

        self._loop, self._turn = loop, Event()
        super().__init__(line, loop)

    def wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._turn.set)

    async def pause(self, seconds: float | None) -> None:
        """Sleep for `seconds`, or until it is woken."""
        timer = None if seconds is None else self._loop.call_later(seconds, self._turn.set)
        try:
            await self._turn.wait()
        finally:
            self._turn.clear()
            if timer is not None:
                timer.cancel()


class Line:
    """Those that wait for one bucket, in the order in which they came.

    A finalizer may end a coroutine that waits, and so leave the line, amid any other step of the same thread.
    """

    __slots__ = ("__weakref__", "_last", "_lock", "_waiters", "is_mixed")

    def __init__(self) -> None:
        self._lock = new_lock()
        self._waiters: OrderedDict[weakref.ref[Waiter], None] = OrderedDict()
        self._last: AbstractEventLoop | None = None
        self.is_mixed = False
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: those that wait are the parent's, but for tasks of loops that may go on."""
        waiters = [place() for place in self._waiters]
        self._waiters.clear()
        for waiter in waiters:
            if waiter is not None and not waiter.can_run():
                waiter.wake()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiters)

    def join(self, waiter: Waiter) -> None:
        """Go to the end of the line, unless it is in the line already."""
        place, home = waiter.place, waiter.home
        with self._lock:
            if place not in self._waiters:
                self.is_mixed = bool(self._waiters) and (self.is_mixed or home is not self._last)
                self._waiters[place] = None
                self._last = home

    def leave(self, waiter: Waiter) -> None:
        """Go; if it was the head, the next one is woken."""
        if self._drop(waiter.place):
            self.nudge()
        del waiter.place

    def lose(self, place: weakref.ref[Waiter]) -> None:
        """Drop one that is gone without having left."""
        self._drop(place)
        self.nudge()

    def is_turn(self, waiter: Waiter) -> bool:
        """Whether it is the head; it joins the line if it is not in it, as one that was passed over."""
        self.join(waiter)
        return self.head() is waiter

    def head(self) -> Waiter | None:
        """The first one, after those that cannot run are passed over."""
        while (place := self._first()) is not None:
            waiter = place()
            if waiter is not None and waiter.can_run():
                return waiter
            self._drop(place)
            if waiter is not None:
                waiter.wake()
        return None

    def nudge(self) -> None:
        """Wake the head, as tokens may have come sooner."""
        head = self.head()
        if head is not None:
            head.wake()

    def _first(self) -> weakref.ref[Waiter] | None:
        with self._lock:
            while True:
                with suppress(RuntimeError):  # a finalizer has changed the line meanwhile
                    return next(iter(self._waiters), None)

    def _drop(self, place: weakref.ref[Waiter]) -> bool:
        """Whether it was the first."""
        with self._lock:
            was_first = self._first() is place
            self._waiters.pop(place, None)
        return was_first


def _checked(timeout: float | None) -> float | None:
    """None if there is none, or one of more than thirty years, which not every clock can count."""
    if timeout is None:
        return None
    if isinstance(timeout, int | float) and timeout >= 0:
        return timeout if timeout <= _LONGEST else None
    error = ValueError if isinstance(timeout, int | float) else TypeError
    raise error(f"timeout must be a non-negative number or None, got {timeout!r}")


def _at_once(bucket: Any, line: Line, tokens: SupportsFloat, timeout: float | None) -> bool | None:
    """True if the tokens were there and no other waits, False if they were not and there is no time to wait,
    None if one has to wait.
    """
    if bucket.peek(tokens).allowed and line.head() is None and bucket.consume(tokens):
        return True
    return False if timeout == 0 else None


def _step(
    bucket: Any, waiter: Waiter, tokens: SupportsFloat, left: float | None
) -> tuple[bool | None, float | None]:
    """What `_at_once` returns, for one in the line with so many seconds left, and how long it sleeps."""
    pauses = [] if left is None else [left]
    if waiter.line.is_turn(waiter):
        decision = bucket.decide(tokens)
        if decision:
            return True, None
        pauses += [decision.retry_after, _LOOK]
    elif waiter.line.is_mixed:
        pauses.append(_LOOK)
    if left is not None and left <= 0:
        return False, None
    return None, min(pauses, default=None)


def acquire(bucket: Any, line: Line, tokens: SupportsFloat, timeout: float | None) -> bool:
    """Wait in the calling thread; False if the tokens cannot be taken within `timeout` seconds."""
    timeout = _checked(timeout)
    outcome = _at_once(bucket, line, tokens, timeout)
    if outcome is not None:
        return outcome
    end = None if timeout is None else time.monotonic() + timeout
    waiter = ThreadWaiter(line)
    try:
        while True:
            outcome, pause = _step(bucket, waiter, tokens, None if end is None else end - time.monotonic())
            if outcome is not None:
                return outcome
            waiter.pause(pause)
    finally:
        line.leave(waiter)


async def acquire_async(bucket: Any, line: Line, tokens: SupportsFloat, timeout: float | None) -> bool:
    """Wait in the running event loop; False if the tokens cannot be taken within `timeout` seconds."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("acquire_async needs a running event loop of asyncio; trio has none") from None
    timeout = _checked(timeout)
    outcome = _at_once(bucket, line, tokens, timeout)
    if outcome is not None:
        return outcome
    end = None if timeout is None else loop.time() + timeout
    waiter = TaskWaiter(line, loop)
    try:
        while True:
            outcome, pause = _step(bucket, waiter, tokens, None if end is None else end - loop.time())
            if outcome is not None:
                return outcome
            await waiter.pause(pause)
    finally:
        line.leave(waiter)


_making = new_lock()


class Lines:
    """The lines for the keys of one limiter or of several, each kept as long as it is in use.

    There may be many limiters of which few are ever waited for, so that little is made before the first line.
    """

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: WeakValueDictionary[Any, Line] | None = None

    def __len__(self) -> int:
        return len(self._lines or ())

    def of(self, name: bytes | tuple[tuple[str, bytes], ...]) -> Line:
        with _making:
            if self._lines is None:
                self._lines = WeakValueDictionary()
            return self._lines.setdefault(name, Line())

    def nudge(self, key: Any) -> None:
        """Wake the head of the line for a key, as tokens may have come sooner."""
        line = self._lines.get(key_name(key)) if self._lines else None
        if line is not None:
            line.nudge()

    def nudge_some(self, parts: list[tuple[str, bytes]]) -> None:
        """Wake the heads of the lines whose names have one of these parts."""
        for name, line in self._all():
            if not set(parts).isdisjoint(name):
                line.nudge()

    def nudge_all(self) -> None:
        """Wake the heads of all lines."""
        for _, line in self._all():
            line.nudge()

    def _all(self) -> list[tuple[Any, Line]]:
        """All lines with their names, as they are at one moment, whatever other threads do."""
        places: list[Any] = self._lines.valuerefs() if self._lines else []
        found = [(place.key, place()) for place in places]
        return [(name, line) for name, line in found if line is not None]


class _Key:
    """One key of a limiter, as a bucket."""

    __slots__ = ("consume", "decide", "peek")

    def __init__(self, limiter: Any, key: Any) -> None:
        self.consume = partial(limiter.allow, key)
        self.decide = partial(limiter.decide, key)
        self.peek = partial(limiter.peek, key)


def acquire_key(limiter: Any, lines: Lines, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire`` for one key."""
    return acquire(_Key(limiter, key), lines.of(key_name(key)), cost, timeout)


async def acquire_key_async(limiter: Any, lines: Lines, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire_async`` for one key."""
    return await acquire_async(_Key(limiter, key), lines.of(key_name(key)), cost, timeout)
