"""Waiting for tokens: one line per bucket or key, first come first served, for threads and event loops alike.

Only the head of the line sleeps until its tokens are due; the others wait for their turn and ask for
nothing, so that nobody overtakes a large request and all move up when one gives up. The head at a bucket
books its tokens. The head at a key takes them once they have come, so that a waiter who is killed leaves no
debt behind. No lock is held while anybody sleeps.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from headgate._membership import key_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Waiter:
    __slots__ = ("tokens", "wake")

    def __init__(self, tokens: float, wake: Callable[[], object]) -> None:
        self.tokens = tokens
        self.wake = wake


class Line:
    """Those who wait for one bucket, in the order in which they came."""

    __slots__ = ("_lock", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: deque[_Waiter] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, waiter: _Waiter) -> None:
        """Go to the end of the line; the first is woken at once."""
        with self._lock:
            self._waiters.append(waiter)
            first = len(self._waiters) == 1
        if first:
            waiter.wake()

    def leave(self, waiter: _Waiter) -> None:
        """Go; who then stands first is woken."""
        with self._lock:
            was_first = self._waiters[0] is waiter
            self._waiters.remove(waiter)
            head = self._waiters[0] if was_first and self._waiters else None
        if head is None:
            return
        try:
            head.wake()
        except RuntimeError:  # the event loop of that waiter is closed
            self.leave(head)

    def tokens_ahead(self) -> float:
        """What those wait for who have not booked yet."""
        with self._lock:
            return sum([waiter.tokens for waiter in self._waiters][1:])


def _checked(timeout: float | None) -> float | None:
    if timeout is None or (isinstance(timeout, int | float) and timeout >= 0):
        return timeout
    error = ValueError if isinstance(timeout, int | float) else TypeError
    raise error(f"timeout must be a non-negative number or None, got {timeout!r}")


def _now_or_never(bucket: Any, line: Line, tokens: float, timeout: float | None) -> bool | None:
    """True if the tokens were there, False if they cannot come in time, None if one has to wait."""
    if not bucket.peek(tokens).allowed or len(line):
        late = timeout is not None and bucket._delay(line.tokens_ahead() + tokens) > timeout
        return False if late or timeout == 0 else None
    return bucket.consume(tokens) or None


def acquire(bucket: Any, line: Line, tokens: float, timeout: float | None) -> bool:
    """Wait in the calling thread; False if `timeout` seconds are too few."""
    timeout = _checked(timeout)
    answer = _now_or_never(bucket, line, tokens, timeout)
    if answer is not None:
        return answer
    end = None if timeout is None else time.monotonic() + timeout
    turn = threading.Event()
    waiter = _Waiter(tokens, turn.set)
    line.join(waiter)
    try:
        if not turn.wait(None if end is None else max(0.0, end - time.monotonic())):
            return False
        booking = bucket.reserve(tokens)
        try:
            while (delay := booking.delay) > 0:
                if end is not None and delay > end - time.monotonic():
                    booking.cancel()
                    return False
                time.sleep(delay)
        except BaseException:
            booking.cancel()
            raise
        return True
    finally:
        line.leave(waiter)


async def acquire_async(bucket: Any, line: Line, tokens: float, timeout: float | None) -> bool:
    """Wait in the running event loop; False if `timeout` seconds are too few."""
    import asyncio

    timeout = _checked(timeout)
    answer = _now_or_never(bucket, line, tokens, timeout)
    if answer is not None:
        return answer
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    turn = asyncio.Event()
    waiter = _Waiter(tokens, lambda: loop.call_soon_threadsafe(turn.set))
    line.join(waiter)
    try:
        try:
            await asyncio.wait_for(turn.wait(), None if end is None else end - loop.time())
        except TimeoutError:
            return False
        booking = bucket.reserve(tokens)
        try:
            while (delay := booking.delay) > 0:
                if end is not None and delay > end - loop.time():
                    booking.cancel()
                    return False
                await asyncio.sleep(delay)
        except BaseException:
            booking.cancel()
            raise
        return True
    finally:
        line.leave(waiter)


class Lines:
    """The lines for the keys of one limiter, each kept as long as anybody has use for it."""

    __slots__ = ("_lines", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[bytes, tuple[Line, int]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def enter(self, name: bytes) -> Line:
        with self._lock:
            line, users = self._lines.get(name) or (Line(), 0)
            self._lines[name] = line, users + 1
        return line

    def leave(self, name: bytes) -> None:
        with self._lock:
            line, users = self._lines.pop(name)
            if users > 1:
                self._lines[name] = line, users - 1


class _Attempt:
    """What a `Reservation` is to a bucket: the delay is 0 once the cost is taken."""

    __slots__ = ("_cost", "_key", "_limiter")

    def __init__(self, limiter: Any, key: Any, cost: float) -> None:
        self._limiter = limiter
        self._key = key
        self._cost = cost

    @property
    def delay(self) -> float:
        return float(self._limiter.decide(self._key, self._cost).retry_after)

    def cancel(self) -> None:
        """Nothing is taken as long as there is a delay."""


class _Key:
    """One key of a limiter, as a bucket."""

    __slots__ = ("_key", "_limiter")

    def __init__(self, limiter: Any, key: Any) -> None:
        self._limiter = limiter
        self._key = key

    def peek(self, cost: float) -> Any:
        return self._limiter.peek(self._key, cost)

    def consume(self, cost: float) -> Any:
        return self._limiter.allow(self._key, cost)

    def reserve(self, cost: float) -> _Attempt:
        return _Attempt(self._limiter, self._key, cost)

    def _delay(self, cost: float) -> Any:
        return self._limiter._delay(self._key, cost)


def acquire_key(limiter: Any, lines: Lines, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire`` for one key."""
    name = key_bytes(key, "key")
    line = lines.enter(name)
    try:
        return acquire(_Key(limiter, key), line, cost, timeout)
    finally:
        lines.leave(name)


async def acquire_key_async(limiter: Any, lines: Lines, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire_async`` for one key."""
    name = key_bytes(key, "key")
    line = lines.enter(name)
    try:
        return await acquire_async(_Key(limiter, key), line, cost, timeout)
    finally:
        lines.leave(name)
