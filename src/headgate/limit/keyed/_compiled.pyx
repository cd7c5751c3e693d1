# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Rate limits by key: a table of fixed size for each tier of the rate.

    key --SipHash--> tag, two lines

    line  | cell | cell | cell | cell | cell | cell | cell | cell |        one cache line
    cell  | tag: 24 bits | time at which nothing is owed any more: 40 bits |

A decision is made by ``_charge`` here, ``_decide_tiers`` in _table.pxi and ``hg_take`` in cells.h, which
explains the protocol of the cells. Times and tokens are in the units of `headgate.limit._units`. No key is
stored, so memory does not grow with the number of keys.

A strict limiter has one table, whose cells are the heads of logs (log.h) of the times, in nanoseconds, of the
last requests of each key:

    log   | time | time | ... |         one per token of the largest limit, for all tiers together

Invariants
- A committed tag is in a line at most once; a pending one has a lowest bit of 0.
- The time of a cell is at most `ceiling` ahead: the burst, or a larger debt from before a reconfiguration.
- The head of a log is not free before all of its entries have left the longest window.
- Cells change by compare-and-swap only; the parameters of the tiers change in a critical section, where
  all decisions are made.

Foreign code - the clock, ``__float__`` and ``__index__`` of a cost - runs before a cell is read.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_get_double
from headgate.limit._amounts cimport Amount, split
from headgate.limit._decided cimport decided
from headgate.limit.reservation._compiled cimport Reservation

from functools import partial
from os import urandom

from headgate.limit import _waiting
from headgate._base.clock import checked_clock, checked_now
from headgate.limit._decision import Decision, with_details
from headgate._base.pickling import initialized
from headgate.limit._rate import checked_rates
from headgate.limit._tables import (
    checked_mismatch,
    checked_overflow,
    checked_windows,
    count_lines,
    longest_log,
    scale_of,
    stride_of,
    tables_of,
)
from headgate.limit._units import checked_amount

include "_table.pxi"
include "_log.pxi"
include "_switching.pxi"

cdef enum:
    HEADER = 4096
    LIMIT = 0  # the fields of a `Rate`
    BURST = 2


def _size(uint64_t lines, bint strict, tuple rates, uint64_t entries):
    """The bytes of the tables of a limiter, with logs of so many `entries`."""
    return _words(lines, entries) * sizeof(uint64_t) * (1 if strict else len(rates))


cdef type DECISION = Decision


cdef class RateLimiter(_Switching):
    """RateLimiter(rate, *, burst=None, max_keys=1_000_000, path=None, mode=0o600, on_full="evict", \
    strict=False, on_mismatch="raise", clock=None)\n--\n
    A rate limit for each key, in memory of fixed size.

    `rate` is a rate or several tiers of them, each of which must allow a request: ``"10/s"``,
    ``"5 per 10 seconds"``, ``"1/s; 5/10s; 10/min"``, `Rate` objects. A request takes its cost at every tier
    or at none; a denied one changes nothing. `burst` is how many may come at once, if that is not the limit
    of a single rate. Over any interval of t seconds a key is allowed at most
    ``burst + t * limit / period``, so up to twice the limit within one period.

    With `strict` a key is never allowed more than the limit in any interval as long as the period: the times
    of its last requests are kept, exact to the nanosecond, in 16 bytes for each of the limit and each of
    `max_keys`, once for all tiers. Limits and costs are then whole numbers, and no burst is given.

    Keys are str, bytes or int; a str and its bytes are different keys. They are not stored: a keyed hash of
    22 bits finds a cell among sixteen, and two keys may share one, with a probability of four in a million.
    `max_keys` keys may owe something at once, in 16 bytes per key and tier, reserved from the start. When all
    sixteen cells are in use, a new key evicts the one that owes least (`on_full` is ``"evict"``): it is
    allowed but takes over that debt; or else it is denied (``"deny"``). `clock` is a callable that returns
    integer nanoseconds, by default the monotonic clock.

    `path` names a file, best in /dev/shm, through which all processes of a host share one limit; it is
    created with the permissions `mode`. All must give the same settings, but with ``on_mismatch="adopt"`` the
    rate of an existing file takes the place of `rate`. A process that is killed loses at most what it was
    about to take. The limit outlives the processes, but not the system: after a restart nothing is owed.

    Raises ValueError if `rate` is not a rate, or not one that can be `strict`, if `burst` is given with
    several tiers, if `max_keys` or `on_full` is unknown or out of range, or if `path` is a file of another
    kind, with other settings, of the other twin or with another mode; TypeError if an argument has a wrong
    type; OSError if the file cannot be opened or there is no space for it.

    Source: the generic cell rate algorithm of ITU-T I.371, as virtual scheduling.

    Complexity: O(tiers) for a decision, O(tiers * limit) if it is strict.

    >>> limiter = RateLimiter("2/s", clock=lambda: 0)
    >>> limiter.allow("ann"), limiter.allow("ann"), limiter.allow("ann"), limiter.allow("bob")
    (True, True, False, True)
    >>> limiter
    RateLimiter('2/s')
    >>> minute = RateLimiter("100/min", strict=True, max_keys=10, clock=lambda: 0)
    >>> minute.allow("ann", 100), minute.decide("ann").retry_after
    (True, 60.0)
    """

    cdef object __weakref__
    cdef object waiting
    cdef object key_count

    def __init__(self, rate, *, burst=None, max_keys=1_000_000, path=None, mode=0o600, on_full="evict",
                 strict=False, on_mismatch="raise", clock=None):
        cdef hg_scale[MOST_TIERS] scales
        cdef int i
        rates = checked_rates(rate, burst)
        adopt = checked_mismatch(on_mismatch)
        windows = checked_windows(rates) if strict else ()
        cdef uint64_t lines = count_lines(max_keys)
        cdef unsigned stride = stride_of(lines)
        evict, clock = checked_overflow(on_full), checked_clock(clock)
        if self.count:
            raise initialized(self)
        cdef int64_t now = hg_monotonic_ns() if clock is None else checked_now(clock())
        table = None
        if path is not None:
            from headgate.limit._files import shared_limiter
            size_of = partial(_size, lines, bool(strict))
            table = shared_limiter(path, mode, "compiled", rates, max_keys, on_full, bool(strict), size_of,
                                   now, adopt)
            rates, now = table.rates, table.epoch
            windows = checked_windows(rates) if strict else ()
        tables = tables_of(rates, windows)
        for i in range(len(tables)):
            scales[i] = _scale(tables[i])
        cdef hg_log log = _log(windows)
        if table is not None:
            log.length = table.entries
        cdef size_t size = _words(lines, log.length) * sizeof(uint64_t)
        secret = urandom(16) if table is None else table.secret
        cdef uint64_t first = int.from_bytes(secret[:8], "little")
        cdef uint64_t second = int.from_bytes(secret[8:], "little")
        waiting = _waiting.Queues()
        with cython.critical_section(self):
            if self.count:
                raise initialized(self)
            self.clock, self.waiting, self.evict, self.key_count = clock, waiting, evict, max_keys
            self.strict = bool(strict)
            self.secret[0], self.secret[1] = first, second
            self._map(table)
            self.log = log
            for i in range(len(tables)):
                if table is None:
                    self._allocate(i, lines, log.length, stride, scales[i], now)
                else:
                    self._lay_out(i, self.view.buf + HEADER + i * size, lines, stride, scales[i], now)
            if windows:
                self._lay_out_log()
            if table is None:
                self._publish(rates)
            else:
                self._share(len(tables))
        if table is not None:
            self._settle_cells()

    cdef tuple _charge(self, object key, object cost, bint take, hg_charge *charges, hg_verdict *verdict):
        """Decide; the rates in force at that time."""
        cdef hg_hashed hashed
        cdef Amount amount
        cdef int64_t now
        if type(cost) is int and 0 <= <object>cost < 2**30:
            amount.whole = cost
            amount.part = 0.0
        else:
            amount = split(checked_amount("cost", cost))
        if max(<double>amount.whole, amount.part) > hg_get_double(&self.largest):
            self._renew()
            self._check_cost(cost, amount)
        self._locate(key, &hashed)
        if self.strict:
            return self._charge_log(&hashed, cost, amount, take, charges, verdict)
        now = self._sweep_now()
        while True:
            with cython.critical_section(self):
                verdict[0] = self._decide_tiers(&hashed, now, amount, take, charges)
                rates = self.terms
            if verdict[0] == HG_ALLOWED:
                return rates
            self._undo(&hashed, now, charges, len(rates))
            if verdict[0] != HG_AHEAD and verdict[0] != HG_STALE:
                return rates
            self._renew()
            self._check_cost(cost, amount)
            now = self._sweep_now()
            self._clamp(&hashed, now, charges, len(rates))

    @cython.binding(False)
    def allow(self, key, cost=1):
        """Take `cost` for `key` if every tier allows it; True if so.

        Raises TypeError or ValueError if `key` is not a valid key, ValueError if `cost` is negative, not
        finite, above the smallest burst, or not whole where the limiter is strict. A cost of 0 is always
        allowed. Complexity: O(tiers).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.allow("ann", 3), limiter.allow("ann", 2)
        (True, False, True)
        """
        return self._allows(key, cost, True)

    cdef bint _allows(self, object key, object cost, bint take) except -1:
        """Whether every tier allows it; then with `take` it is taken."""
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        self._charge(key, cost, take, charges, &verdict)
        return verdict == HG_ALLOWED

    cdef object _decision(self, tuple rates, hg_verdict verdict, hg_charge *charges, bint taken, object name,
                          double least):
        """That of the tier that denies for longest, or else of the one with the least remaining; None if no
        less than `least` remains. Policies begin with the `name` of a level, if there is one.
        """
        if verdict == HG_ALLOWED:
            return self._allowed(rates, charges, taken, name, least)
        return self._denied(rates, charges, name)

    cdef object _allowed(self, tuple rates, hg_charge *charges, bint taken, object name, double least):
        cdef int i, tightest = 0
        cdef double left, remaining = INFINITY
        cdef int64_t debt
        for i in range(len(rates)):
            left = _left(&charges[i], charges[i].debt + taken * charges[i].cost)
            if left < remaining:
                tightest, remaining = i, left
        if remaining >= least:
            return None
        rate, charge = rates[tightest], &charges[tightest]
        debt = charge.rest if self.strict else charge.debt + taken * charge.cost
        reset = _seconds(charge, debt) if <object>PyTuple_GET_ITEM(rate, LIMIT) else 0.0
        burst = <object>PyTuple_GET_ITEM(rate, BURST)
        return decided(DECISION, True, burst, remaining, 0.0, reset, self._policies(rates, name)[tightest])

    cdef object _denied(self, tuple rates, hg_charge *charges, object name):
        cdef int i, worst = 0
        waits = [0] * len(rates)
        violated = []
        policies = self._policies(rates, name)
        for i in range(len(rates)):
            if charges[i].verdict != HG_ALLOWED:
                waits[i] = _wait(&charges[i], charges[i].missing) if rates[i].limit else INFINITY
                violated.append(policies[i])
            if waits[i] > waits[worst]:
                worst = i
        rate, charge = rates[worst], &charges[worst]
        pause = waits[worst] / 1e9
        reset = _seconds(charge, charge.rest if self.strict else charge.debt) if rate.limit else pause
        left = _left(charge, charge.debt)
        decision = decided(DECISION, False, rate.burst, left, pause, reset, policies[worst])
        return decision if len(violated) < 2 else with_details(decision, tuple(violated))

    cdef object _with_more(self, object key, object decision):
        """With the time until one more token is available, which for a strict limit only the log gives."""
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        if not self.strict or decision is None or decision.remaining >= 1:
            return decision
        rates = self._charge(key, 1, False, charges, &verdict)
        later = self._decision(rates, verdict, charges, False, None, INFINITY)
        return with_details(decision, (), later.retry_after)

    def decide(self, key, cost=1):
        """Take `cost` for `key` if every tier allows it, and return a `Decision`.

        It is that of the tier that denies for longest, or else of the one with the least remaining.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s; 10/min", clock=lambda: 0)
        >>> limiter.decide("ann").policy
        '2/s'
        >>> limiter.decide("ann").remaining
        0.0
        >>> limiter.decide("ann").retry_after
        0.5
        """
        return self._decide(key, cost, None, INFINITY)

    cdef object _decide(self, object key, object cost, object name, double least):
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        rates = self._charge(key, cost, True, charges, &verdict)
        return self._with_more(key, self._decision(rates, verdict, charges, True, name, least))

    def peek(self, key, cost=1):
        """What ``decide`` would return, but without taking anything.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.peek("ann").remaining, limiter.peek("ann").remaining
        (2.0, 2.0)
        """
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        rates = self._charge(key, cost, False, charges, &verdict)
        return self._with_more(key, self._decision(rates, verdict, charges, False, None, INFINITY))

    def reserve(self, key, cost=1):
        """Take `cost` for `key` if every tier allows it, as a `Reservation`, which is false if one denies.
        Its ``settle`` takes what is used in the end, and ``cancel`` gives all back.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("1000/min", clock=lambda: 0)
        >>> reservation = limiter.reserve("ann", cost=800)
        >>> limiter.peek("ann").remaining, reservation.settle(300), limiter.peek("ann").remaining
        (200.0, None, 700.0)
        """
        reserved_at = self._now()
        decision = self._decide(key, cost, None, INFINITY)
        amount = cost if type(cost) is int else checked_amount("cost", cost)
        return Reservation.__new__(Reservation, amount, [(self, key, reserved_at)], None, decision)

    def refund(self, key, cost=1):
        """Refund `cost` of what `key` owes, at every tier, for example because a request failed.

        No more than is owed is refunded. A refunded request does not count, so if the refund is late, more
        than the rate may have been allowed meanwhile. A strict limiter drops the oldest entries, so that no
        interval has too many, whichever request is refunded.

        Raises what ``allow`` raises, but a cost may be above the burst. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.refund("ann"), limiter.peek("ann").remaining
        (True, None, 1.0)
        """
        cdef Amount amount = split(checked_amount("cost", cost))
        if self.strict:
            _entries(cost, amount)
        self._give_back(key, amount)

    def reset(self, key):
        """Forget what `key` owes.

        Raises TypeError or ValueError if `key` is not a valid key. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.reset("ann"), limiter.allow("ann", 2)
        (True, None, True)
        """
        cdef Amount everything
        everything.whole = 2**62
        everything.part = 0.0
        self._give_back(key, everything)

    cdef int _give_back(self, object key, Amount amount) except -1:
        cdef hg_hashed hashed
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        cdef int given = 0
        self._charge(key, 0, True, charges, &verdict)  # clamps a time that is too far ahead
        self._locate(key, &hashed)
        while given < self._tiers():
            self._renew()
            if self.strict:
                given = self._refund_log(&hashed, self._sweep_now(), amount)
            else:
                given = self._refund_from(given, &hashed, self._sweep_now(), amount)
        self.waiting.notify(key)
        return 0

    def _now_ns(self):
        return self._now()

    def _check_settle(self, actual):
        """Raise if a reservation cannot be settled with so many tokens."""
        if self.strict and actual % 1:
            raise ValueError(f"actual must be whole with strict=True, got {actual!r}")

    def _settle(self, key, cost, actual, reserved_at):
        """Settle `cost`, taken at the time `reserved_at`, as if `actual` had been taken."""
        cdef hg_hashed hashed
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        cdef int done = 0
        self._charge(key, 0, True, charges, &verdict)  # clamps a time that is too far ahead
        self._locate(key, &hashed)
        while done < self._tiers():
            self._renew()
            if self.strict:
                done = self._settle_log(&hashed, self._sweep_now(), cost, actual, reserved_at)
            else:
                done = self._settle_from(done, &hashed, self._sweep_now(), cost, actual, reserved_at)
        self.waiting.notify(key)

    def acquire(self, key, cost=1, timeout=None):
        """Wait until `cost` can be taken for `key`; False if that is not within `timeout` seconds, None for
        any time.

        The waiters of one key are served first come, first served, within this process. The thread sleeps;
        other threads and event loops go on. The call returns early only if it succeeds, since ``refund``,
        ``reset`` or ``reconfigure`` may bring tokens sooner; a `timeout` of 0 never waits. ``allow`` does not
        queue and may take tokens in between.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.

        >>> limiter = RateLimiter("2/h")
        >>> limiter.acquire("ann", 2), limiter.acquire("ann", timeout=0.01)
        (True, False)
        """
        return _waiting.acquire_key(self, self.waiting, key, cost, timeout)

    def acquire_async(self, key, cost=1, timeout=None):
        """``acquire`` for coroutines, on any event loop of asyncio; a cancelled call leaves the queue.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimiter("2/s").acquire_async("ann"))
        True
        """
        return _waiting.acquire_key_async(self, self.waiting, key, cost, timeout)

    def reconfigure(self, rate, *, burst=None):
        """Set another rate; the debts of a tier become those of the new tier in its place, up to 32 bursts.

        A strict limiter keeps as many of the last entries of each key as the largest limit. With `path` the
        rate is set for all processes: each decides by it from its next decision on, at the latest when the
        call returns. The number of tiers is kept, and no limit of a strict one is above the largest that the
        file was made for. If the process is killed, the rate has been set or not.

        Raises what the constructor raises, ValueError if a shared limit cannot have that rate, HeadgateError
        if another process holds the lock of the file and is stopped. Complexity: O(max_keys).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.reconfigure("20/s"), limiter.peek("ann").remaining
        (True, None, 12.0)
        """
        cdef hg_scale[MOST_TIERS] scales
        cdef int i
        rates = self._changed_rates(rate, burst)
        if self.table is not None:
            self._switch_to(rates)
            return
        windows = checked_windows(rates) if self.strict else ()
        tables = tables_of(rates, windows)
        for i in range(len(tables)):
            scales[i] = _scale(tables[i])
        if windows:
            self._replace_log(rates, _log(windows), scales[0])
        else:
            self._rescale(rates, scales, self._sweep_now())
        self.waiting.notify_all()

    cdef int _switch_to(self, tuple rates) except -1:
        """Let another rate be in force for all processes."""
        while not self.table.locked(self._switch, rates):
            self._settle_cells()
        self._settle_cells()
        self.waiting.notify_all()
        return 0

    cdef int _rescale(self, tuple rates, const hg_scale *scales, int64_t now) except -1:
        """Let the tables, and those that are new, be in the units of other rates."""
        cdef int i
        with cython.critical_section(self):
            for i in range(self.count, len(rates)):
                self._allocate(i, self.tiers[0].lines, 0, self.tiers[0].stride, scales[i], now)
            for i in range(min(self.count, len(rates))):
                hg_rescale(&self.tiers[i], scales[i], now)
            self._publish(rates)
        return 0

    def _changed_rates(self, rate, burst=None):
        """The tiers that ``reconfigure`` would set."""
        rates = checked_rates(rate, burst)
        if self.strict:
            checked_windows(rates)
        if self.table is not None:
            self.table.check_switch(self.rates, rates)
        return rates

    cdef int _replace_log(self, tuple rates, hg_log log, hg_scale scale) except -1:
        """Carry the logs of all keys over to a table for other windows."""
        cdef hg_tier before
        cdef int64_t now
        cdef uint64_t seen
        cdef hg_log old
        cdef void *memory
        cdef uint64_t lines
        with cython.critical_section(self):
            lines = self.tiers[0].lines
            seen = hg_newest(&self.tiers[0], &self.log)
        memory = _memory(lines, log.length)
        now = self._sweep_now()
        with cython.critical_section(self):
            before, old = self.tiers[0], self.log
            self.log = log
            memory, self.memory[0] = self.memory[0], memory
            self._lay_out(0, _aligned(self.memory[0]), before.lines, before.stride, scale, before.epoch)
            self._lay_out_log()
            hg_log_carry(&before, &old, &self.tiers[0], &self.log, now, seen)
            self._publish(rates)
        PyMem_RawFree(memory)
        return 0

    @property
    def rates(self):
        """The tiers, a tuple of `Rate`.

        >>> RateLimiter("1/s; 10/min").rates
        (Rate(limit=1, period=1, burst=1), Rate(limit=10, period=60, burst=10))
        """
        self._renew()
        with cython.critical_section(self):
            rates = self.terms
        return rates

    @property
    def max_keys(self):
        """How many keys may owe something at once.

        >>> RateLimiter("1/s").max_keys
        1000000
        """
        return self.key_count

    @property
    def evictions(self):
        """How often a key that owed something was evicted by another.

        >>> RateLimiter("1/s").evictions
        0
        """
        cdef int i
        total = 0
        with cython.critical_section(self):
            for i in range(self.count):
                total += self.tiers[i].control[HG_EVICTIONS]
        return total

    def __sizeof__(self):
        cdef int i
        size = object.__sizeof__(self)
        with cython.critical_section(self):
            for i in range(self.count):
                size += (_words(self.tiers[i].lines, self.log.length) + HG_CELLS) * sizeof(uint64_t)
        return size

    def __repr__(self):
        return f"{type(self).__name__}({'; '.join(map(str, self.rates))!r})"

    def __reduce__(self):
        raise TypeError("a RateLimiter cannot be copied or pickled: its state belongs to one clock")

    def _check(self):
        cdef int i, j
        cdef hg_tier *tier
        cdef uint64_t line
        self._renew()
        self._sweep_now()
        tables = tables_of(self.terms, checked_windows(self.terms) if self.strict else ())
        assert self.count == len(tables)
        for i in range(self.count):
            tier = &self.tiers[i]
            assert (tier.scale.bits, tier.scale.multiplier, tier.scale.shift, tier.scale.burst) == scale_of(
                tables[i])
            assert 0 <= tier.scale.burst <= tier.ceiling
            assert tier.lines == count_lines(self.key_count)
            for line in range(tier.lines):
                tags = [tier.cells[line * HG_CELLS + j] >> 40 for j in range(HG_CELLS)]
                whole = [tag for tag in tags if tag & 1]
                assert len(set(whole)) == len(whole)
        if self.strict:
            self._check_logs()
