# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Limits: the token bucket.

    time, in units of the refill ->
    ------|===========debt===========|----------------|--->
         now                        TAT           now + burst
          |<--------- burst: what may be owed ------->|
                                     |<-- remaining ->|

The whole state is one 64-bit word, TAT, the time at which the bucket will be full again (GCRA's
theoretical arrival time). A request of `cost` moves it to max(TAT, now) + cost, if that is at most
now + burst. Time and tokens are counted in the units of `headgate.limit._units`.

Invariants
- TAT - now <= ceiling: the burst, or the largest debt that a reservation or a reconfiguration ever made.
  Beyond it the clock has stepped back, if a second reading agrees, and TAT is clamped to now + ceiling. A
  ceiling below the burst or above MOST_DEBT, as in a damaged file, is taken for the burst.
- The word changes by compare-and-swap only, and a denial writes nothing.
- While the parameters are rewritten the word is BUSY, and afterwards it differs from the one before, so that
  a decision made with the old parameters fails its swap.

Foreign code - the clock, ``__float__`` and ``__index__`` of arguments - runs before the word is read, but for
the clock of a refund, which is read after it: a word that has changed meanwhile fails the swap.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport ldexp
from libc.stdint cimport int64_t, uint64_t

from headgate._c.atomics cimport hg_cas, hg_load, hg_peek, hg_poke, hg_store, hg_swap
from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.mulshift cimport hg_rescaled, hg_units_at
from headgate.limit._amounts cimport MOST_DEBT, Amount, split, to_units

from headgate.limit import _waiting
from headgate._base.clock import checked_clock, checked_now
from headgate.limit._decision import Decision
from headgate._base.pickling import initialized
from headgate.limit.reservation._compiled import Reservation
from headgate.limit._tables import checked_mismatch
from headgate.limit._units import checked_amount, checked_positive, scale, units_at, unused, wait
from headgate.limit._units import to_units as units_of


cdef extern from *:
    """
    #define BUSY UINT64_C(0x8000000000000000)
    """
    const uint64_t BUSY

cdef enum:
    HEADER = 4096

cdef enum Mode:
    TAKE
    PEEK
    RESERVE

cdef enum Verdict:
    DENIED
    ALLOWED
    TOO_MANY
    TOO_FAR
    AHEAD

cdef struct Outcome:
    Verdict verdict
    int64_t now
    int64_t elapsed
    uint64_t units
    uint64_t seen
    int64_t debt
    int64_t cost
    int64_t burst
    uint64_t bits
    uint64_t multiplier
    uint64_t shift


cdef class TokenBucket:
    """TokenBucket(capacity, refill_rate, *, path=None, mode=0o600, on_mismatch="raise", clock=None)\n--\n
    A bucket of `capacity` tokens that refills at `refill_rate` tokens a second; it starts full.

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

    cdef object __weakref__
    cdef object clock
    cdef object queue
    cdef tuple terms
    cdef object table
    cdef Py_buffer view
    cdef uint64_t[2] own
    cdef uint64_t *word
    cdef uint64_t *ceiling
    cdef uint64_t burst
    cdef uint64_t bits
    cdef uint64_t multiplier
    cdef uint64_t shift
    cdef uint64_t epoch

    def __cinit__(self):
        self.word, self.ceiling = &self.own[0], &self.own[1]

    def __init__(self, capacity, refill_rate, *, path=None, mode=0o600, on_mismatch="raise", clock=None):
        size = checked_positive("capacity", capacity)
        rate = checked_positive("refill_rate", refill_rate)
        adopt = checked_mismatch(on_mismatch)
        if self.terms is not None:
            raise initialized(self)
        self.clock = checked_clock(clock)
        self.queue = _waiting.Queue()
        if path is None:
            self._set_parameters(size, rate, self._now(), False)
            return
        from headgate.limit._files import shared_bucket
        table, (size, rate) = shared_bucket(path, mode, "compiled", (size, rate), self._now(), adopt)
        self._attach(size, rate, table)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef int64_t _now(self) except? -1:
        if self.clock is None:
            return hg_monotonic_ns()
        return checked_now(self.clock())

    cdef int _set_parameters(self, object size, object rate, int64_t now, bint keep_debt) except -1:
        """Exchange the parameters; from the time `now` on, the debt is as it was, or none.

        While the word is BUSY nothing of Python runs: another thread may spin on it with the GIL held.
        """
        cdef uint64_t bits, multiplier, shift, burst, lag, old = BUSY, word
        cdef int64_t debt = 0
        bits, multiplier, shift, burst = scale(size, rate)
        lag = min(2**40, wait(0, 1, multiplier, shift))
        with cython.critical_section(self):
            while keep_debt and old == BUSY:
                old = hg_swap(self.word, BUSY)
            if keep_debt:
                debt = <int64_t>(old - self._units_at(now))
                debt = min(max(debt, 0), <int64_t>self.ceiling[0])
                debt = hg_rescaled(debt, <unsigned>self.bits, <unsigned>bits, MOST_DEBT)
            if <uint64_t>debt != old:
                lag = 0
            word = <uint64_t>debt + hg_units_at(<int64_t>lag, multiplier, <unsigned>shift)
            self._write(bits, multiplier, shift, burst, now - <int64_t>lag)
            hg_poke(self.ceiling, max(burst, <uint64_t>debt))
            hg_store(self.word, word)
            self.terms = size, rate
        return 0

    cdef void _write(self, uint64_t bits, uint64_t multiplier, uint64_t shift, uint64_t burst,
                     int64_t epoch) noexcept nogil:
        hg_poke(&self.bits, bits)
        hg_poke(&self.multiplier, multiplier)
        hg_poke(&self.shift, shift)
        hg_poke(&self.burst, burst)
        hg_poke(&self.epoch, <uint64_t>epoch)

    cdef int _attach(self, object size, object rate, object table) except -1:
        """Use the state in a file, whose map is held as long as this object exists."""
        cdef uint64_t bits, multiplier, shift, burst
        cdef int64_t epoch = table.epoch
        mapped = table.map
        bits, multiplier, shift, burst = scale(size, rate)
        with cython.critical_section(self):
            if self.terms is not None:
                raise initialized(self)
            PyObject_GetBuffer(mapped, &self.view, PyBUF_WRITABLE)
            self.table = table
            self._write(bits, multiplier, shift, burst, epoch)
            self.word = <uint64_t *>(self.view.buf + HEADER)
            self.ceiling = self.word + 1
            self._raise_ceiling(<int64_t>burst)
            self.terms = size, rate
        return 0

    cdef uint64_t _units_at(self, int64_t now) noexcept nogil:
        return hg_units_at(now - <int64_t>hg_peek(&self.epoch), hg_peek(&self.multiplier),
                           <unsigned>hg_peek(&self.shift))

    cdef Outcome _charge(self, int64_t now, Amount tokens, Mode mode) noexcept nogil:
        cdef Outcome out
        cdef uint64_t word, changed, ceiling
        cdef int64_t debt
        out.now = now
        while True:
            word = hg_load(self.word)
            if word == BUSY and self.word == &self.own[0]:
                continue
            out.seen = word
            out.bits = hg_peek(&self.bits)
            out.multiplier = hg_peek(&self.multiplier)
            out.shift = hg_peek(&self.shift)
            out.burst = <int64_t>hg_peek(&self.burst)
            out.elapsed = now - <int64_t>hg_peek(&self.epoch)
            out.units = hg_units_at(out.elapsed, out.multiplier, <unsigned>out.shift)
            ceiling = self._largest_debt()
            debt = <int64_t>(word - out.units)
            out.debt = min(max(debt, 0), <int64_t>ceiling)
            changed = word
            out.cost = to_units(tokens, out.bits)
            out.verdict = ALLOWED
            if out.cost > out.burst:
                out.verdict = TOO_MANY
            elif mode != PEEK and debt > <int64_t>ceiling:
                out.verdict = AHEAD
            elif mode == RESERVE and out.debt + out.cost > MOST_DEBT:
                out.verdict = TOO_FAR
            elif mode != RESERVE and out.cost > out.burst - out.debt and out.cost > 0:
                out.verdict = DENIED
            elif out.cost > 0:
                changed = out.units + out.debt + out.cost
                if mode == RESERVE:
                    self._raise_ceiling(out.debt + out.cost)
            if mode == PEEK or changed == word:
                if hg_load(self.word) == word:
                    return out
                continue
            if changed == BUSY:
                changed += 1
            if hg_cas(self.word, word, changed):
                return out

    cdef Outcome _retry(self, Amount tokens, Mode mode, uint64_t seen) except *:
        """Decide after a TAT beyond the ceiling was seen: others have moved it since the clock was read, or
        else the clock has stepped back, and it is clamped."""
        cdef int64_t now = self._now()
        cdef uint64_t units = self._units_at(now), ceiling = self._largest_debt(), cut
        if <int64_t>(seen - units) > <int64_t>ceiling:
            cut = units + ceiling
            hg_cas(self.word, seen, cut + 1 if cut == BUSY else cut)
        return self._charge(now, tokens, mode)

    cdef uint64_t _largest_debt(self) noexcept nogil:
        """The ceiling, or the burst if the word there is not a possible debt."""
        cdef uint64_t ceiling = hg_peek(self.ceiling), burst = hg_peek(&self.burst)
        return ceiling if burst <= ceiling <= <uint64_t>MOST_DEBT else burst

    cdef void _raise_ceiling(self, int64_t debt) noexcept nogil:
        cdef uint64_t ceiling = hg_peek(self.ceiling), most = MOST_DEBT
        while not <uint64_t>debt <= ceiling <= most and not hg_cas(self.ceiling, ceiling, debt):
            ceiling = hg_peek(self.ceiling)

    cdef tuple _terms(self):
        """Capacity and refill rate as they were given."""
        with cython.critical_section(self):
            terms = self.terms
        return terms

    cdef int _refuse(self, object tokens, Verdict verdict) except -1:
        if verdict == TOO_FAR:
            raise ValueError(f"tokens cannot be reserved that far ahead, got {tokens!r}")
        raise ValueError(f"tokens must be at most the capacity {self._terms()[0]!r}, got {tokens!r}")

    cdef Outcome _request(self, object tokens, Mode mode) except *:
        return self._request_number(checked_amount("tokens", tokens), tokens, mode)

    cdef Outcome _request_number(self, object number, object tokens, Mode mode) except *:
        """Request a number, which errors report as the `tokens` that were given."""
        cdef Amount read = split(number)
        cdef Outcome out = self._charge(self._now(), read, mode)
        while out.verdict == AHEAD:
            out = self._retry(read, mode, out.seen)
        if out.verdict >= TOO_MANY:
            self._refuse(tokens, out.verdict)
        return out

    cdef object _decision(self, Outcome out, bint taken):
        cdef int64_t debt = out.debt
        if taken and out.verdict == ALLOWED:
            debt += out.cost
        size, rate = self._terms()
        missing = 0 if out.verdict == ALLOWED else out.debt + out.cost - out.burst
        return Decision(
            out.verdict == ALLOWED,
            size,
            ldexp(<double>max(0, out.burst - debt), -<int>out.bits),
            wait(out.elapsed, missing, out.multiplier, out.shift) / 1e9,
            wait(out.elapsed, debt, out.multiplier, out.shift) / 1e9,
            f"{rate:g}/s, burst {size:g}",
        )

    @cython.binding(False)
    def consume(self, tokens=1):
        """Take `tokens` if they are available; True if so.

        Raises ValueError if `tokens` is negative, not finite or above the capacity. Complexity: O(1).

        >>> bucket = TokenBucket(1, 1, clock=lambda: 0)
        >>> bucket.consume(0.5), bucket.consume(0.75), bucket.consume(0.5)
        (True, False, True)
        """
        cdef Amount read
        cdef Outcome out
        if type(tokens) is int and 0 <= <object>tokens < 2**30:
            read.whole = tokens
            read.part = 0.0
        else:
            read = split(checked_amount("tokens", tokens))
        out = self._charge(self._now(), read, TAKE)
        while out.verdict == AHEAD:
            out = self._retry(read, TAKE, out.seen)
        if out.verdict >= TOO_MANY:
            self._refuse(tokens, out.verdict)
        return out.verdict == ALLOWED

    def decide(self, tokens=1):
        """Take `tokens` if they are available, and return a `Decision`.

        Raises what ``consume`` raises. Complexity: O(1).

        >>> bucket = TokenBucket(1, 10, clock=lambda: 0)
        >>> bucket.decide().remaining
        0.0
        >>> bucket.decide().retry_after
        0.1
        """
        return self._decision(self._request(tokens, TAKE), True)

    def peek(self, tokens=1):
        """What ``decide`` would return for `tokens`, but without taking any.

        Raises what ``consume`` raises. Complexity: O(1).

        >>> bucket = TokenBucket(1, 1, clock=lambda: 0)
        >>> bucket.peek().allowed, bucket.peek().remaining
        (True, 1.0)
        """
        return self._decision(self._request(tokens, PEEK), False)

    def reserve(self, tokens=1):
        """Take `tokens` now even if they are not available yet, as a `Reservation` with a delay.

        Raises what ``consume`` raises. Complexity: O(1).

        >>> bucket = TokenBucket(1, 10, clock=lambda: 0)
        >>> bucket.reserve().delay, bucket.reserve().delay
        (0.0, 0.1)
        """
        number = checked_amount("tokens", tokens)
        cdef Outcome out = self._request_number(number, tokens, RESERVE)
        delay = wait(out.elapsed, out.debt + out.cost - out.burst, out.multiplier, out.shift)
        return Reservation(number, [(self, None, out.now)], out.now + delay)

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
        return _waiting.acquire(self, self.queue, tokens, timeout)

    def acquire_async(self, tokens=1, timeout=None):
        """``acquire`` for coroutines, on any event loop of asyncio; a cancelled call leaves the queue.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(TokenBucket(2, 1000).acquire_async(2))
        True
        """
        return _waiting.acquire_async(self, self.queue, tokens, timeout)

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
        size, rate = self._terms()
        size = size if capacity is None else checked_positive("capacity", capacity)
        rate = rate if refill_rate is None else checked_positive("refill_rate", refill_rate)
        if self.table is not None:
            raise ValueError(self.table.refusal)
        self._set_parameters(size, rate, self._now(), True)
        self.queue.notify()

    @property
    def capacity(self):
        """The largest burst, in tokens.

        >>> TokenBucket(10, 1).capacity
        10
        """
        return self._terms()[0]

    @property
    def refill_rate(self):
        """Tokens a second.

        >>> TokenBucket(10, 1).refill_rate
        1
        """
        return self._terms()[1]

    @property
    def available(self):
        """The tokens that can be taken now.

        >>> TokenBucket(10, 1).available
        10.0
        """
        return self.peek(0).remaining

    def _now_ns(self):
        return self._now()

    def _check_settle(self, actual):
        """A reservation may be settled with any number of tokens."""

    def _settle(self, _, tokens, actual, reserved_at):
        """Settle `tokens`, taken at the time `reserved_at`, as if `actual` had been taken.

        The clock is read after the word: others may have been charged when the debt was over.
        """
        cdef uint64_t word, units, changed
        cdef int64_t now, back
        if actual > tokens:
            self._charge_used(actual - tokens)
        while actual < tokens:
            word = hg_load(self.word)
            if word == BUSY and self.word == &self.own[0]:
                continue
            now = self._now()
            units = self._units_at(now)
            back = self._unused(tokens, actual, now, reserved_at)
            back = min(back, <int64_t>(word - units))
            changed = word - max(0, back)
            if changed == BUSY:
                changed += 1
            if hg_cas(self.word, word, changed):
                break
        self.queue.notify()

    def _charge_used(self, tokens):
        """Take tokens that were used already, at most the capacity."""
        try:
            self.reserve(min(tokens, self.capacity))
        except ValueError:  # no tokens can be reserved that far ahead
            pass

    cdef int64_t _unused(self, object tokens, object actual, object now, object reserved_at) except? -1:
        """The units of `tokens` to refund, however long ago they were taken."""
        epoch, scaled = <int64_t>hg_peek(&self.epoch), (hg_peek(&self.multiplier), hg_peek(&self.shift))
        refilled = units_at(now - epoch, *scaled) - units_at(reserved_at - epoch, *scaled)
        bits = hg_peek(&self.bits)
        return min(<object>MOST_DEBT, unused(units_of(tokens, bits), units_of(actual, bits), refilled))

    def __repr__(self):
        size, rate = self._terms()
        return f"{type(self).__name__}(capacity={size!r}, refill_rate={rate!r})"

    def __reduce__(self):
        raise TypeError("a TokenBucket cannot be copied or pickled: its state belongs to one clock")

    def _check(self):
        cdef Outcome out = self._request(0, PEEK)
        assert 0 <= out.debt <= <int64_t>self._largest_debt() <= MOST_DEBT
        assert 0 < out.burst <= <int64_t>self._largest_debt()
        assert (out.bits, out.multiplier, out.shift, out.burst) == scale(*self._terms())
