"""Limits in pure Python: the token bucket.

    time, in units of the refill ->
    ------|===========debt===========|----------------|--->
         now                        TAT           now + burst

The picture and the arithmetic are those of the compiled twin: TAT, counted modulo 2**64 in the units of
`headgate.limit._units`, is the whole state. A lock takes the place of the compare-and-swap; the clock and the
conversions of arguments, which are foreign code, run before it is taken. A finalizer or a signal handler may
use the bucket wherever Python calls or returns, even during a write. So the lock is re-entrant, and a call
that writes first checks that the state is still the one it has seen, with no call between the two.
"""

from __future__ import annotations

from math import ldexp
from time import monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, under
from headgate._base.pickling import initialized
from headgate.limit import _waiting
from headgate.limit._decision import Decision
from headgate.limit._tables import checked_mismatch
from headgate.limit._units import (
    checked_amount,
    checked_positive,
    scale,
    to_units,
    units_at,
    unused,
    wait,
)
from headgate.limit.reservation._pure import Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HALF = 2**63
_WORD = 2**64
_MOST_DEBT = 2**62
_TAT, _CEILING = 0, 1


class TokenBucket:
    """A bucket of `capacity` tokens that refills at `refill_rate` tokens a second; it starts full.

    A request takes its tokens at once or not at all; a denied one changes nothing. Over any interval
    of t seconds at most ``capacity + refill_rate * t`` tokens are taken. Tokens may be fractions.
    `clock` is a callable that returns integer nanoseconds, by default the monotonic clock; when it steps
    back, nothing is over-admitted, and the debt is at most that of an empty bucket. Decisions of any
    number of threads are made by one compare-and-swap on one 64-bit word.

    `path` names a file, best in /dev/shm, through which all processes of a host share one bucket; it is
    created with the permissions `mode`. All must give the same settings, but with ``on_mismatch="adopt"``
    those of an existing file take their place. A process that is killed loses what it was about to take, or
    had reserved.
    The state outlives the processes, but not the system: after a restart the bucket is full.

    Raises ValueError if `capacity` or `refill_rate` is not positive, not finite or above 2**61, or if `path`
    is a file of another kind, with other settings, of the other twin or with another mode; TypeError if an
    argument has a wrong type or ``__init__`` is called again; OSError if the file cannot be opened or there
    is no space for it.

    Source: the generic cell rate algorithm of ITU-T I.371, as virtual scheduling.

    Complexity: O(1).

    >>> bucket = TokenBucket(2, 10, clock=lambda: 0)
    >>> bucket.consume(), bucket.consume(), bucket.consume()
    (True, True, False)
    >>> bucket
    TokenBucket(capacity=2, refill_rate=10)
    """
    __slots__ = (
        "__weakref__",
        "_bits",
        "_burst",
        "_clock",
        "_epoch",
        "_locked",
        "_multiplier",
        "_queue",
        "_shift",
        "_state",
        "_table",
        "_terms",
    )

    if TYPE_CHECKING:
        _state: Any

    def __init__(self, capacity, refill_rate, *, path=None, mode=0o600, on_mismatch="raise", clock=None):
        size = checked_positive("capacity", capacity)
        rate = checked_positive("refill_rate", refill_rate)
        adopt = checked_mismatch(on_mismatch)
        if hasattr(self, "_terms"):
            raise initialized(self)
        self._clock = checked_clock(clock)
        self._queue = _waiting.Queue()
        self._table = None
        scaled = scale(size, rate)
        now = self._now_ns()
        if path is None:
            self._locked = under(new_lock())
            self._state = [0, 0]
            self._set_parameters(size, rate, scaled, now, 0, None)
            return
        from headgate.limit._files import HEADER, shared_bucket

        table, (size, rate) = shared_bucket(path, mode, "pure", (size, rate), now, adopt)
        self._table, self._locked = table, table.locked
        self._state = memoryview(table.map)[HEADER:].cast("Q")
        self._write(size, rate, scale(size, rate), table.epoch)
        table.locked(self._raise_ceiling)

    def _raise_ceiling(self):
        self._state[_CEILING] = max(self._burst, self._state[_CEILING])

    def _now_ns(self):
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _set_parameters(self, size, rate, scaled, now, debt, old):
        """Write the parameters, with `debt` from the time `now` on, if the state is still the `old` one."""
        _, multiplier, shift, burst = scaled
        lag = min(2**40, wait(0, 1, multiplier, shift)) if debt == old else 0
        tat, ceiling = debt + units_at(lag, multiplier, shift), max(burst, debt)
        if old is not None and self._state[_TAT] != old:
            return False
        self._bits, self._multiplier, self._shift, self._burst = scaled
        self._epoch, self._terms = now - lag, (size, rate)
        self._state[_TAT], self._state[_CEILING] = tat, ceiling
        return True

    def _write(self, size, rate, scaled, epoch):
        self._bits, self._multiplier, self._shift, self._burst = scaled
        self._epoch = epoch
        self._terms = size, rate

    def _debt(self, elapsed):
        """The debt after `elapsed` nanoseconds, cut at the ceiling, the units of that time, and TAT if it is
        beyond the ceiling.
        """
        if elapsed >= 0:
            units = elapsed * self._multiplier >> self._shift
        else:
            units = units_at(elapsed, self._multiplier, self._shift)
        tat, ceiling = self._state[_TAT], self._largest_debt()
        debt = (tat - units + _HALF) % _WORD - _HALF
        if debt > ceiling:
            return ceiling, units, tat
        return (debt if debt > 0 else 0), units, None

    def _largest_debt(self):
        """The ceiling, or the burst if the word there is not a possible debt."""
        ceiling = self._state[_CEILING]
        return ceiling if self._burst <= ceiling <= _MOST_DEBT else self._burst

    def _clamp_tat(self, seen):
        """The clock, read after a TAT beyond the ceiling was seen: others have moved it since the clock was
        read, or else the clock has stepped back, and it is clamped.
        """
        now = self._now_ns()
        self._locked(self._cut, now, seen)
        return now

    def _cut(self, now, seen):
        debt, units, ahead = self._debt(now - self._epoch)
        if ahead is not None and ahead == seen == self._state[_TAT]:
            self._state[_TAT] = (units + debt) % _WORD

    def _cost(self, number):
        return to_units(number, self._bits) if number < _MOST_DEBT else _MOST_DEBT

    def _too_many(self, tokens):
        return ValueError(f"tokens must be at most the capacity {self._terms[0]!r}, got {tokens!r}")

    def _too_far(self, tokens):
        return ValueError(f"tokens cannot be reserved that far ahead, got {tokens!r}")

    def _charge(self, tokens, take):
        """Whether the tokens are there, and the cost, debt and elapsed time; with `take`, take them."""
        number = tokens if type(tokens) is int and tokens >= 0 else checked_amount("tokens", tokens)
        now = monotonic_ns() if self._clock is None else self._now_ns()
        while True:
            outcome, ahead = self._locked(self._attempt, number, now, take)
            if ahead is None:
                break
            now = self._clamp_tat(ahead)
        if outcome is None:
            raise self._too_many(tokens)
        return outcome

    def _attempt(self, number, now, take):
        """What ``_charge`` returns, None if it is too much, and TAT if that must be clamped first."""
        while True:
            terms, seen, elapsed = self._terms, self._state[_TAT], now - self._epoch
            cost = number << self._bits if type(number) is int else self._cost(number)
            if cost > self._burst:
                return None, None
            debt, units, ahead = self._debt(elapsed)
            allowed = cost <= self._burst - debt or cost == 0
            if self._state[_TAT] != seen or self._terms is not terms:
                continue
            if ahead is not None and take:
                return None, ahead
            if take and allowed and cost > 0:
                self._state[_TAT] = (units + debt + cost) % _WORD
            return (allowed, cost, debt, elapsed), None

    def _decision(self, taken, allowed, cost, debt, elapsed):
        size, rate = self._terms
        missing = 0 if allowed else debt + cost - self._burst
        if taken and allowed:
            debt += cost
        return Decision(
            allowed,
            size,
            ldexp(max(0, self._burst - debt), -self._bits),
            wait(elapsed, missing, self._multiplier, self._shift) / 1e9,
            wait(elapsed, debt, self._multiplier, self._shift) / 1e9,
            f"{rate:g}/s, burst {size:g}",
        )

    def consume(self, tokens=1):
        """Take `tokens` if they are available; True if so.

        Raises ValueError if `tokens` is negative, not finite or above the capacity. Complexity: O(1).

        >>> bucket = TokenBucket(1, 1, clock=lambda: 0)
        >>> bucket.consume(0.5), bucket.consume(0.75), bucket.consume(0.5)
        (True, False, True)
        """
        return self._charge(tokens, True)[0]

    def decide(self, tokens=1):
        """Take `tokens` if they are available, and return a `Decision`.

        Raises what ``consume`` raises. Complexity: O(1).

        >>> bucket = TokenBucket(1, 10, clock=lambda: 0)
        >>> bucket.decide().remaining
        0.0
        >>> bucket.decide().retry_after
        0.1
        """
        return self._decision(True, *self._charge(tokens, True))

    def peek(self, tokens=1):
        """What ``decide`` would return for `tokens`, but without taking any.

        Raises what ``consume`` raises. Complexity: O(1).

        >>> bucket = TokenBucket(1, 1, clock=lambda: 0)
        >>> bucket.peek().allowed, bucket.peek().remaining
        (True, 1.0)
        """
        return self._decision(False, *self._charge(tokens, False))

    def reserve(self, tokens=1):
        """Take `tokens` now even if they are not available yet, as a `Reservation` with a delay.

        Raises what ``consume`` raises. Complexity: O(1).

        >>> bucket = TokenBucket(1, 10, clock=lambda: 0)
        >>> bucket.reserve().delay, bucket.reserve().delay
        (0.0, 0.1)
        """
        number = checked_amount("tokens", tokens)
        now = self._now_ns()
        while True:
            delay, error, ahead = self._locked(self._reserve, number, now)
            if ahead is None:
                break
            now = self._clamp_tat(ahead)
        if error is not None:
            raise error(tokens)
        return Reservation(number, [(self, None, now)], now + delay)

    def _reserve(self, number, now):
        """The delay of a reservation, what makes an error of it, and TAT if that must be clamped first."""
        while True:
            terms, seen, elapsed = self._terms, self._state[_TAT], now - self._epoch
            cost = self._cost(number)
            if cost > self._burst:
                return None, self._too_many, None
            debt, units, ahead = self._debt(elapsed)
            if ahead is not None:
                return None, None, ahead
            owed = debt + cost
            if owed > _MOST_DEBT:
                return None, self._too_far, None
            ceiling = max(self._largest_debt(), owed)
            delay = wait(elapsed, owed - self._burst, self._multiplier, self._shift)
            if self._state[_TAT] != seen or self._terms is not terms:
                continue
            if cost > 0:
                self._state[_TAT], self._state[_CEILING] = (units + owed) % _WORD, ceiling
            return delay, None, None

    def acquire(self, tokens=1, timeout=None):
        """Wait until `tokens` can be taken, first come first served; False if that is not within `timeout`
        seconds, None for any time.

        The thread sleeps; other threads and event loops go on. The call returns early only if it succeeds,
        since a cancelled reservation or ``reconfigure`` may bring tokens sooner; a `timeout` of 0 never
        waits. ``consume`` does not queue and may take tokens in between.

        Raises what ``consume`` raises, ValueError if `timeout` is negative.

        >>> bucket = TokenBucket(2, 0.001)
        >>> bucket.acquire(2), bucket.acquire(1, timeout=0.01)
        (True, False)
        """
        return _waiting.acquire(self, self._queue, tokens, timeout)

    def acquire_async(self, tokens=1, timeout=None):
        """``acquire`` for coroutines, on any event loop of asyncio; a cancelled call leaves the queue.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(TokenBucket(2, 1000).acquire_async(2))
        True
        """
        return _waiting.acquire_async(self, self._queue, tokens, timeout)

    def reconfigure(self, capacity=None, refill_rate=None):
        """Set another capacity, another rate or both; the tokens that were taken stay taken.

        Raises what the constructor raises, ValueError if processes share the bucket. Complexity: O(1).

        >>> bucket = TokenBucket(10, 1, clock=lambda: 0)
        >>> bucket.consume(8)
        True
        >>> bucket.reconfigure(capacity=20)
        >>> bucket.available
        12.0
        """
        size, rate = self._terms
        size = size if capacity is None else checked_positive("capacity", capacity)
        rate = rate if refill_rate is None else checked_positive("refill_rate", refill_rate)
        if self._table is not None:
            raise ValueError(self._table.refusal)
        scaled = scale(size, rate)
        self._locked(self._change, size, rate, scaled, self._now_ns())
        self._queue.notify()

    def _change(self, size, rate, scaled, now):
        settled = False
        while not settled:
            seen = self._state[_TAT]
            debt, _, _ = self._debt(now - self._epoch)
            debt = min(_MOST_DEBT, -(-(debt << scaled[0]) >> self._bits))
            settled = self._set_parameters(size, rate, scaled, now, debt, seen)

    @property
    def capacity(self):
        """The largest burst, in tokens.

        >>> TokenBucket(10, 1).capacity
        10
        """
        return self._terms[0]

    @property
    def refill_rate(self):
        """Tokens a second.

        >>> TokenBucket(10, 1).refill_rate
        1
        """
        return self._terms[1]

    @property
    def available(self):
        """The tokens that can be taken now.

        >>> TokenBucket(10, 1).available
        10.0
        """
        return self.peek(0).remaining

    def _check_settle(self, actual):
        """A reservation may be settled with any number of tokens."""

    def _settle(self, _, tokens, actual, reserved_at):
        """Settle `tokens`, taken at the time `reserved_at`, as if `actual` had been taken.

        The clock is read after the word: others may have been charged when the debt was over.
        """
        done = actual >= tokens
        if actual > tokens:
            self._charge_used(actual - tokens)
        while not done:
            seen = self._locked(self._state.__getitem__, _TAT)
            done = self._locked(self._refund, tokens, actual, self._now_ns(), reserved_at, seen)
        self._queue.notify()

    def _charge_used(self, tokens):
        """Take tokens that were used already, at most the capacity."""
        try:
            self.reserve(min(tokens, self.capacity))
        except ValueError:  # no tokens can be reserved that far ahead
            pass

    def _refund(self, tokens, actual, now, reserved_at, seen):
        """False if the state is not the one that was seen."""
        terms = self._terms
        units = units_at(now - self._epoch, self._multiplier, self._shift)
        then = units_at(reserved_at - self._epoch, self._multiplier, self._shift)
        back = unused(to_units(tokens, self._bits), to_units(actual, self._bits), units - then)
        debt = (seen - units + _HALF) % _WORD - _HALF
        back = max(0, min(back, debt))
        if self._state[_TAT] != seen or self._terms is not terms:
            return False
        self._state[_TAT] = (seen - back) % _WORD
        return True

    def __repr__(self):
        size, rate = self._terms
        return f"{type(self).__name__}(capacity={size!r}, refill_rate={rate!r})"

    def __reduce__(self):
        raise TypeError("a TokenBucket cannot be copied or pickled: its state belongs to one clock")

    def _check(self):
        _, _, debt, _ = self._charge(0, False)
        assert 0 <= debt <= self._largest_debt() <= _MOST_DEBT
        assert 0 < self._burst <= self._largest_debt()
        assert (self._bits, self._multiplier, self._shift, self._burst) == scale(*self._terms)
