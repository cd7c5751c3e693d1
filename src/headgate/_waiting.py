"""Waiting for tokens: one line per bucket or key, first come first served, for threads and event loops alike.

Only the head of the line sleeps until its tokens are due; the others wait for their turn and ask for
nothing, so that nobody overtakes a large request and all move up when one gives up. The head takes its
tokens once they have come, so that one who is cancelled or killed before takes none with it. No lock is held
while anybody sleeps.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from functools import partial
from weakref import WeakValueDictionary

from headgate._forks import new_lock, renew
from headgate._membership import key_bytes
from headgate._units import as_number, to_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, SupportsFloat

    Wake = Callable[[], object]

_BITS = 32
_LONGEST = 10**9


class Line:
    """Those who wait for one bucket, in the order in which they came: how to wake each, and what it wants.

    A finalizer may end a coroutine that waits, and so leave the line, amid any other step of the same thread.
    """

    __slots__ = ("__weakref__", "_lock", "_units", "_waiters")

    def __init__(self) -> None:
        self._lock = new_lock()
        self._waiters: OrderedDict[Wake, int] = OrderedDict()
        self._units = 0
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: those who wait are the parent's."""
        self._waiters.clear()
        self._units = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, wake: Wake, tokens: SupportsFloat) -> None:
        """Go to the end of the line; the first is woken at once."""
        units = to_units(as_number("tokens", tokens), _BITS)
        with self._lock:
            self._waiters[wake] = units
            self._units += units
            first = self._first() is wake
        if first:
            wake()

    def leave(self, wake: Wake) -> None:
        """Go, if not gone already; who then stands first is woken."""
        head = self._remove(wake)
        while head is not None and not _woken(head):
            head = self._remove(head)

    def _remove(self, wake: Wake) -> Wake | None:
        """Who stands first now, if another did before."""
        with self._lock:
            before = self._first()
            units = self._waiters.pop(wake, 0)
            self._units -= units
            head = self._first()
        return None if head is before else head

    def _first(self) -> Wake | None:
        return next(iter(self._waiters), None)

    def tokens_ahead(self) -> float:
        """What all of them want."""
        return float(self._units / 2**_BITS)


def _woken(wake: Wake) -> bool:
    try:
        wake()
    except RuntimeError:  # the event loop of that waiter is closed
        return False
    return True


def _checked(timeout: float | None) -> float | None:
    """None if there is none, or one of more than thirty years, which not every clock can count."""
    if timeout is None:
        return None
    if isinstance(timeout, int | float) and timeout >= 0:
        return timeout if timeout <= _LONGEST else None
    error = ValueError if isinstance(timeout, int | float) else TypeError
    raise error(f"timeout must be a non-negative number or None, got {timeout!r}")


def _now_or_never(bucket: Any, line: Line, tokens: SupportsFloat, timeout: float | None) -> bool | None:
    """True if the tokens were there, False if they cannot come in time, None if one has to wait."""
    if not bucket.peek(tokens).allowed or len(line):
        wanted = line.tokens_ahead() + as_number("tokens", tokens)
        late = timeout is not None and bucket._delay(wanted) > timeout
        return False if late or timeout == 0 else None
    return bucket.consume(tokens) or None


def _pause(decision: Any, left: float | None) -> float | None:
    """How long the head sleeps, None if it has more to wait than is left."""
    delay: float = decision.retry_after
    return min(delay, _LONGEST) if left is None or delay <= left else None


def acquire(bucket: Any, line: Line, tokens: SupportsFloat, timeout: float | None) -> bool:
    """Wait in the calling thread; False if `timeout` seconds are too few."""
    timeout = _checked(timeout)
    answer = _now_or_never(bucket, line, tokens, timeout)
    if answer is not None:
        return answer
    end = None if timeout is None else time.monotonic() + timeout
    turn = threading.Event()
    wake = turn.set
    line.join(wake, tokens)
    try:
        if not turn.wait(None if end is None else max(0.0, end - time.monotonic())):
            return False
        while not (decision := bucket.decide(tokens)):
            pause = _pause(decision, None if end is None else end - time.monotonic())
            if pause is None:
                return False
            time.sleep(pause)
        return True
    finally:
        line.leave(wake)


async def acquire_async(bucket: Any, line: Line, tokens: SupportsFloat, timeout: float | None) -> bool:
    """Wait in the running event loop; False if `timeout` seconds are too few."""
    import asyncio

    timeout = _checked(timeout)
    answer = _now_or_never(bucket, line, tokens, timeout)
    if answer is not None:
        return answer
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    turn = asyncio.Event()
    wake = partial(loop.call_soon_threadsafe, turn.set)
    line.join(wake, tokens)
    try:
        try:
            async with asyncio.timeout_at(end):
                await turn.wait()
        except TimeoutError:
            return False
        while not (decision := bucket.decide(tokens)):
            pause = _pause(decision, None if end is None else end - loop.time())
            if pause is None:
                return False
            await asyncio.sleep(pause)
        return True
    finally:
        line.leave(wake)


class Lines:
    """The lines for the keys of one limiter or of several, each kept as long as anybody has use for it."""

    __slots__ = ("_lines", "_lock")

    def __init__(self) -> None:
        self._lock = new_lock()
        self._lines: WeakValueDictionary[Hashable, Line] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._lines)

    def of(self, name: Hashable) -> Line:
        with self._lock:
            return self._lines.setdefault(name, Line())


class _Key:
    """One key of a limiter, as a bucket."""

    __slots__ = ("_delay", "consume", "decide", "peek")

    def __init__(self, limiter: Any, key: Any) -> None:
        self.consume = partial(limiter.allow, key)
        self.decide = partial(limiter.decide, key)
        self.peek = partial(limiter.peek, key)
        self._delay = partial(limiter._delay, key)


def acquire_key(limiter: Any, lines: Lines, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire`` for one key."""
    return acquire(_Key(limiter, key), lines.of(key_bytes(key, "key")), cost, timeout)


async def acquire_key_async(limiter: Any, lines: Lines, key: Any, cost: float, timeout: float | None) -> bool:
    """``acquire_async`` for one key."""
    return await acquire_async(_Key(limiter, key), lines.of(key_bytes(key, "key")), cost, timeout)
