"""How a concurrency limit adapts to the requests that it admits."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from headgate._base.words import Words

_BACKOFF = 0.9
_TOLERANCE = 1.5
_SMOOTHING = 0.2
_LONG_WINDOW = 600
_WARM_UP = 10
_QUEUE = 4
_WINDOW = 1_000_000_000
_LEAST_SAMPLES = 10
_WORD, _HALF = 2**64, 2**63
ONE = 2**32
LIMIT, AVERAGE, _WINDOWS, _END, _COUNT, _SUM, _PEAK, _DROPPED = range(8)
STATE_SIZE = 64
"""The state of an algorithm: the limit, in units of 2**-32; the long average of the latency and over how many
windows; and of the window of time that is under way its end, how many requests, their latencies, the most in
flight and how many were dropped. For AIMD the end is when the limit was cut last."""


class Bounds:
    """Between which limits a state stays, and how it is read and changed."""

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least * ONE, most * ONE

    def word(self, limit: float) -> int:
        """The word of a limit."""
        return min(max(round(limit * ONE), self.least), self.most)

    def read(self, state: Words) -> float:
        word = state.load(LIMIT)
        if self.least <= word <= self.most:
            return word / ONE
        return min(max(word, self.least), self.most) / ONE

    def change(self, state: Words, changed: Callable[[float], float]) -> None:
        while True:
            seen = state.load(LIMIT)
            if state.cas(LIMIT, seen, self.word(changed(seen / ONE))):
                return


def _since(now: int, then: int) -> int:
    """The nanoseconds from one word of time to another; negative if the clock has stepped back."""
    return (now - then + _HALF) % _WORD - _HALF


def _fixed(state: Words, bounds: Bounds, now: int, latency: int, inflight: int, dropped: bool) -> None:
    """The limit stays."""


def _aimd(state: Words, bounds: Bounds, now: int, latency: int, inflight: int, dropped: bool) -> None:
    """Additive increase while the limit is in use, multiplicative decrease once a round trip.

    A request that started before the last decrease says nothing about the limit set by it. Until the first
    cut the limit grows by one with each request, and then by one with each round trip of all.
    """
    cut = state.load(_END)
    if not dropped:
        if 2 * inflight >= bounds.read(state):
            bounds.change(state, (lambda limit: limit + 1 / limit) if cut else (lambda limit: limit + 1))
    elif not (cut and 0 <= _since(now, cut) < latency) and state.cas(_END, cut, now % _WORD or 1):
        bounds.change(state, lambda limit: limit * _BACKOFF)


def _gradient(state: Words, bounds: Bounds, now: int, latency: int, inflight: int, dropped: bool) -> None:
    """Once a window: less as the latency is above its long average, more while there is no queue."""
    state.add(_SUM, latency if latency > 0 else 0)
    count = state.add(_COUNT, 1)
    peak = state.load(_PEAK)
    if inflight > peak:
        state.cas(_PEAK, peak, inflight)
    if dropped:
        state.add(_DROPPED, 1)
    end = state.load(_END)
    if 0 < _since(end, now) <= _WINDOW and end:
        return
    next_end = (now + _WINDOW) % _WORD or 1
    if not end:
        state.cas(_END, 0, next_end)
    elif count >= _LEAST_SAMPLES and state.cas(_END, end, next_end):
        close_window(state, bounds)


def close_window(state: Words, bounds: Bounds) -> None:
    """By the one that has set the end of the next window; others may have set a limit before it does."""
    seen = state.load(LIMIT)
    count, total, peak, lost = (state.swap(at, 0) for at in (_COUNT, _SUM, _PEAK, _DROPPED))
    limit = bounds.read(state)
    if lost:
        state.cas(LIMIT, seen, bounds.word(limit * _BACKOFF))
    elif count and total:
        state.cas(LIMIT, seen, bounds.word(_graded(state, limit, total / count, peak)))


def _graded(state: Words, limit: float, mean: float, peak: int) -> float:
    """The limit after a window of this mean latency, nanoseconds, and with so many in flight at its peak."""
    seen, windows = state.load(AVERAGE), state.add(_WINDOWS, 1)
    weight = 1 / windows if windows <= _WARM_UP else 2 / (_LONG_WINDOW + 1)
    average = seen + (mean - seen) * weight
    gradient = max(0.5, min(1.0, _TOLERANCE * average / mean))
    state.cas(AVERAGE, seen, round(average * 0.95 if average > 2 * mean else average))
    if 2 * peak < limit:
        return limit
    return limit + (limit * gradient + _QUEUE - limit) * _SMOOTHING


ALGORITHMS = {"fixed": _fixed, "aimd": _aimd, "gradient": _gradient}
