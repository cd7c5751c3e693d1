# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Rate limits by key: a table of fixed size for each tier of the rate.

    key --SipHash--> tag, two lines

    line  | cell | cell | cell | cell | cell | cell | cell | cell |        one cache line
    cell  | tag: 24 bits | time at which nothing is owed any more: 40 bits |

The protocol of the cells is in cells.h; times and tokens are in the units of `headgate.limit._units`.
No key is kept, so memory does not grow, whoever asks.

A strict limiter has one table, whose cells are the heads of logs (log.h) of the times, in nanoseconds, of the
last requests of each key:

    log   | time | time | ... |         one for each token of the largest limit, for all tiers together

Invariants
- A whole tag stands once in a line; one that is begun has a lowest bit of 0.
- The time of a cell is at most `ceiling` ahead: the burst, or a larger debt from before a reconfiguration.
- The head of a log is not dead before all of its entries have left the longest window.
- Cells change by compare-and-swap only; the parameters of the tiers change in a critical section, where
  all decisions are made.

Foreign code - the clock, ``__float__`` and ``__index__`` of a cost - runs before a cell is read.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport INFINITY, floor, ldexp
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_get_double, hg_set_double
from headgate._c.keys cimport hg_key, hg_key_of
from headgate._c.mulshift cimport hg_units_at
from headgate._c.siphash cimport hg_siphash13
from headgate._c.xxh64 cimport hg_splitmix64
from headgate.limit._amounts cimport MOST_DEBT, Amount, split, to_units

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
    largest_cost,
    longest_log,
    no_memory,
    scale_of,
    stride_of,
    tables_of,
)
from headgate.limit._reservation import Reservation
from headgate.limit._units import checked_amount, units_at, unused, wait
from headgate.limit._units import to_units as units_of


cdef extern from "cells.h" nogil:
    enum: HG_CELLS, HG_SWEPT, HG_EVICTIONS, HG_TURNS, HG_CONTROL
    enum hg_verdict: HG_DENIED, HG_ALLOWED, HG_FULL, HG_AHEAD
    ctypedef struct hg_scale:
        uint64_t multiplier
        int64_t burst
        unsigned bits
        unsigned shift
    ctypedef struct hg_tier:
        uint64_t *control
        uint64_t *cells
        uint64_t lines
        unsigned stride
        hg_scale scale
        int64_t epoch
        int64_t ceiling
    ctypedef struct hg_place:
        uint64_t tag
        uint32_t first
        uint32_t second
    ctypedef struct hg_charge:
        hg_verdict verdict
        hg_scale scale
        uint64_t now
        uint64_t seen
        int64_t elapsed
        int64_t cost
        int64_t debt
        int64_t missing
        bint taken
        uint64_t moment
        int64_t rest
    int64_t hg_gap(uint64_t word, uint64_t now)
    void hg_look(hg_tier *tier, const hg_place *at, bint evict, bint take, hg_charge *charge)
    void hg_take(hg_tier *tier, const hg_place *at, bint evict, hg_charge *charge)
    void hg_mend(hg_tier *tier, const hg_place *at, uint64_t seen, uint64_t now)
    bint hg_give(hg_tier *tier, const hg_place *at, uint64_t now, int64_t back)
    void hg_undo(hg_tier *tier, const hg_place *at, uint64_t now, hg_charge *charge)
    bint hg_sweep(hg_tier *tier, uint64_t now, bint certain)
    void hg_rescale(hg_tier *tier, hg_scale scale, int64_t now_ns)

cdef extern from "log.h" nogil:
    ctypedef struct hg_window:
        int64_t limit
        uint64_t period
    ctypedef struct hg_log:
        uint64_t *times
        uint64_t length
        uint64_t longest
        int count
        hg_window[8] windows
    ctypedef struct hg_claim:
        pass
    uint64_t hg_moment(int64_t elapsed)
    ctypedef struct hg_span:
        uint64_t newest
    hg_span hg_span_of(const hg_log *log, uint64_t *times)
    void hg_consult(hg_tier *tier, const hg_log *log, const hg_place *at, bint evict, bint take,
                    hg_charge *charges)
    hg_verdict hg_worst(const hg_log *log, const hg_charge *charges)
    hg_verdict hg_log_take(hg_tier *tier, const hg_log *log, const hg_place *at, bint evict,
                           hg_charge *charges, hg_claim *claims)
    void hg_log_mend(hg_tier *tier, const hg_log *log, const hg_place *at, const hg_charge *seen,
                     uint64_t now, int64_t elapsed)
    void hg_log_give(hg_tier *tier, const hg_log *log, const hg_place *at, uint64_t now, int64_t elapsed,
                     int64_t back)
    uint64_t hg_newest(const hg_tier *tier, const hg_log *log)
    void hg_log_carry(const hg_tier *from_tier, const hg_log *from_log, hg_tier *tier, const hg_log *log,
                      int64_t now_ns, uint64_t seen)

cdef enum:
    MOST_TIERS = 8
    FEW_CLAIMS = 16
    HEADER = 4096

cdef uint64_t SPREAD = 0x9E3779B97F4A7C15


cdef hg_scale _scale(object rate) except *:
    cdef hg_scale scale
    scale.bits, scale.multiplier, scale.shift, scale.burst = scale_of(rate)
    return scale


cdef hg_log _log(tuple windows) except *:
    """The log of a strict limiter without its memory; one of no length for other limiters."""
    cdef hg_log log
    cdef int i
    log.times = NULL
    log.length = longest_log(windows) if windows else 0
    log.longest = 0
    log.count = len(windows)
    for i in range(log.count):
        log.windows[i].limit, log.windows[i].period = windows[i]
        log.longest = max(log.longest, log.windows[i].period)
    return log


cdef size_t _words(uint64_t lines, uint64_t length) noexcept:
    """The words of a table with a log of that length for every cell."""
    return HG_CONTROL + lines * HG_CELLS * (1 + length)


def _size(uint64_t lines, bint strict, tuple rates):
    """The bytes of the tables of a limiter."""
    length = longest_log(checked_windows(rates)) if strict else 0
    return _words(lines, length) * sizeof(uint64_t) * (1 if strict else len(rates))


cdef void *_memory(uint64_t lines, uint64_t length) except NULL:
    """The memory of a table, which the system gives as it is used; it must still be aligned."""
    cdef void *memory = PyMem_RawCalloc(_words(lines, length) + HG_CELLS, sizeof(uint64_t))
    if memory is NULL:
        raise no_memory()
    return memory


cdef void *_aligned(void *memory) noexcept:
    return <void *>((<uintptr_t>memory + 63) & ~<uintptr_t>63)


cdef int64_t _entries(object cost, Amount amount) except -1:
    """How many entries of a log a request takes."""
    if amount.part != floor(amount.part):
        raise ValueError(f"cost must be whole with strict=True, got {cost!r}")
    return to_units(amount, 0)


cdef object _wait(hg_charge *charge, object units):
    """The nanoseconds in which so many units come."""
    return wait(charge.elapsed, units, charge.scale.multiplier, charge.scale.shift)


cdef class RateLimiter:
    """RateLimiter(rate, *, burst=None, max_keys=1_000_000, path=None, mode=0o600, on_full="evict", \
    strict=False, on_mismatch="raise", clock=None)\n--\n
    At most so many requests in so long for each key, in memory of fixed size.

    `rate` is a rate or several tiers of them, each of which must allow a request: ``"10/s"``,
    ``"5 per 10 seconds"``, ``"1/s; 5/10s; 10/min"``, `Rate` objects. A request takes its cost at every tier
    or nothing at any; a denied one changes nothing. `burst` is how many may come at once, if it is not the
    limit of a single rate. Over any interval of t seconds a key is allowed at most
    ``burst + t * limit / period``, so up to twice the limit within one period.

    With `strict` a key is never allowed more than the limit in any interval as long as the period: the times
    of its last requests are kept, exact to the nanosecond, in 16 bytes for each of the limit and each of
    `max_keys`, once for all tiers. Limits and costs are whole then, and no burst is given.

    Keys are str, bytes or int, and text is another key than its bytes. They are not kept: a keyed hash of 23
    bits finds a cell among sixteen, and two keys may share one, with odds of two in a million. `max_keys`
    keys may owe something at once, in 16 bytes a key and tier, set aside from the start. When all sixteen
    cells are in use, the key that owes least gives way to a new one (`on_full` is ``"evict"``), which is
    allowed but takes over that debt, or else the new key is denied (``"deny"``). `clock` is a callable that
    returns integer nanoseconds, by default the monotonic clock.

    `path` names a file, best in /dev/shm, through which all processes of a host have one limit; it is made
    with the permissions `mode`. All must give the same settings, but with ``on_mismatch="adopt"`` the rate of
    a file that is there takes the place of `rate`. One that is killed loses what it was about to take, at
    most. The limit outlives the processes, but not the system: after a restart nothing is owed.

    Raises ValueError if `rate` says no rate, or none that can be `strict`, if `burst` is given with several
    tiers, if `max_keys` or `on_full` is unknown or out of range, or if `path` is a file of something else, of
    other settings, of the other twin or with another mode; TypeError if an argument has a wrong type;
    OSError if the file cannot be opened or has no room.

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
    cdef object tick
    cdef object waiting
    cdef tuple terms
    cdef uint64_t[2] secret
    cdef bint evict
    cdef bint strict
    cdef double largest
    cdef object room
    cdef int count
    cdef hg_log log
    cdef hg_tier[MOST_TIERS] tiers
    cdef void* memory[MOST_TIERS]
    cdef object table
    cdef Py_buffer view

    def __init__(self, rate, *, burst=None, max_keys=1_000_000, path=None, mode=0o600, on_full="evict",
                 strict=False, on_mismatch="raise", clock=None):
        cdef hg_scale[MOST_TIERS] scales
        cdef int i
        rates = checked_rates(rate, burst)
        adopt = checked_mismatch(on_mismatch)
        windows = checked_windows(rates) if strict else ()
        cdef uint64_t lines = count_lines(max_keys)
        cdef unsigned stride = stride_of(lines)
        evict, tick = checked_overflow(on_full), checked_clock(clock)
        if self.count:
            raise initialized(self)
        cdef int64_t now = hg_monotonic_ns() if tick is None else checked_now(tick())
        table = None
        if path is not None:
            from headgate.limit._files import shared_limiter
            size_of = partial(_size, lines, bool(strict))
            table, rates = shared_limiter(path, mode, "compiled", rates, max_keys, on_full, bool(strict),
                                          size_of, now, adopt)
            windows = checked_windows(rates) if strict else ()
            now = table.epoch
        tables = tables_of(rates, windows)
        for i in range(len(tables)):
            scales[i] = _scale(tables[i])
        cdef hg_log log = _log(windows)
        cdef size_t size = _words(lines, log.length) * sizeof(uint64_t)
        secret = urandom(16) if table is None else table.secret
        cdef uint64_t first = int.from_bytes(secret[:8], "little")
        cdef uint64_t second = int.from_bytes(secret[8:], "little")
        waiting = _waiting.Lines()
        with cython.critical_section(self):
            if self.count:
                raise initialized(self)
            self.tick, self.waiting, self.evict, self.room = tick, waiting, evict, max_keys
            self.strict = bool(strict)
            self.secret[0], self.secret[1] = first, second
            self._map(table)
            self.log = log
            for i in range(len(tables)):
                if table is None:
                    self._open(i, lines, stride, scales[i], now)
                else:
                    self._begin(i, self.view.buf + HEADER + i * size, lines, stride, scales[i], now)
            self._offer(rates)

    def __dealloc__(self):
        cdef int i
        for i in range(MOST_TIERS):
            PyMem_RawFree(self.memory[i])
        PyBuffer_Release(&self.view)

    cdef int _map(self, object table) except -1:
        """Hold the map of a file for as long as its cells may be used."""
        self.table = table
        PyBuffer_Release(&self.view)
        if table is not None:
            PyObject_GetBuffer(table.map, &self.view, PyBUF_WRITABLE)
        return 0

    cdef int _offer(self, tuple rates) except -1:
        self.count = 1 if self.strict else len(rates)
        self.terms = rates
        hg_set_double(&self.largest, largest_cost(rates))
        return 0

    cdef int _open(self, int which, uint64_t lines, unsigned stride, hg_scale scale, int64_t now) except -1:
        """An empty table for a tier, in memory of its own."""
        cdef void *memory = _memory(lines, self.log.length)
        PyMem_RawFree(self.memory[which])
        self.memory[which] = memory
        self._begin(which, _aligned(memory), lines, stride, scale, now)
        return 0

    cdef void _begin(self, int which, void *memory, uint64_t lines, unsigned stride, hg_scale scale,
                     int64_t epoch) noexcept:
        cdef hg_tier *tier = &self.tiers[which]
        tier.control = <uint64_t *>memory
        tier.cells = tier.control + HG_CONTROL
        tier.lines = lines
        tier.stride = stride
        tier.scale = scale
        tier.epoch = epoch
        tier.ceiling = scale.burst
        if self.strict:
            tier.ceiling += <int64_t>1 << 32  # by one a request, however many come in one nanosecond
            self.log.times = tier.cells + lines * HG_CELLS

    cdef int64_t _now(self) except? -1:
        if self.tick is None:
            return hg_monotonic_ns()
        return checked_now(self.tick())

    cdef int64_t _swept(self) except? -1:
        """Now, when all lines are swept that are due; a time far back is believed when it is read twice."""
        cdef int64_t now = self._now()
        if self._sweep(now, False):
            return now
        now = self._now()
        self._sweep(now, True)
        return now

    cdef bint _sweep(self, int64_t now, bint certain):
        cdef int i
        cdef bint whole = True
        with cython.critical_section(self):
            for i in range(self.count):
                whole &= hg_sweep(&self.tiers[i], self._units(i, now), certain)
        return whole

    cdef uint64_t _units(self, int which, int64_t now) noexcept nogil:
        cdef hg_tier *tier = &self.tiers[which]
        return hg_units_at(now - tier.epoch, tier.scale.multiplier, tier.scale.shift)

    cpdef uint64_t _hash(self, key) except? 0:
        """The keyed hash of a key, another one for text than for bytes or a number."""
        cdef hg_key data
        hg_key_of(key, b"key", &data)
        return hg_siphash13(self.secret, data.data, data.size) ^ <uint64_t>data.kind * SPREAD

    cdef int _locate(self, object key, hg_place *at) except -1:
        cdef uint64_t hashed = self._hash(key)
        at.tag = (hashed >> 41 or 1) << 1 | 1
        at.first = <uint32_t>hashed
        at.second = <uint32_t>(hg_splitmix64(hashed) >> 32)
        return 0

    cdef hg_verdict _settle(self, const hg_place *at, int64_t now, Amount cost, bint take,
                            hg_charge *charges) noexcept nogil:
        """Ask every tier; with `take`, charge them in turn, until one denies after all."""
        cdef int i
        cdef hg_tier *tier
        cdef hg_verdict verdict = HG_ALLOWED
        for i in range(self.count):
            tier = &self.tiers[i]
            charges[i].scale = tier.scale
            charges[i].elapsed = now - tier.epoch
            charges[i].now = self._units(i, now)
            charges[i].cost = to_units(cost, tier.scale.bits)
            charges[i].taken, charges[i].seen = False, 0
        if not take or self.count > 1:
            for i in range(self.count):
                hg_look(&self.tiers[i], at, self.evict, take, &charges[i])
                if charges[i].verdict != HG_ALLOWED and verdict != HG_AHEAD:
                    verdict = charges[i].verdict
        if not take or verdict != HG_ALLOWED:
            return verdict
        for i in range(self.count):
            hg_take(&self.tiers[i], at, self.evict, &charges[i])
            if charges[i].verdict != HG_ALLOWED:
                return charges[i].verdict
        return HG_ALLOWED

    cdef int _undo(self, const hg_place *at, hg_charge *charges, int count) except -1:
        """Give back what the first tiers took before another denied."""
        cdef int i
        cdef int64_t now
        for i in range(count):
            while charges[i].taken:
                now = self._now()
                with cython.critical_section(self):
                    hg_undo(&self.tiers[i], at, self._units(i, now), &charges[i])
        return 0

    cdef tuple _charge(self, object key, object cost, bint take, hg_charge *charges, hg_verdict *verdict):
        """Decide; the rates in force at that time."""
        cdef hg_place at
        cdef Amount amount
        cdef int64_t now
        if type(cost) is int and 0 <= <object>cost < 2**30:
            amount.whole = cost
            amount.part = 0.0
        else:
            amount = split(checked_amount("cost", cost))
        if max(<double>amount.whole, amount.part) > hg_get_double(&self.largest):
            least = min([rate.burst for rate in self.rates])
            raise ValueError(f"cost must be at most the burst {least!r}, got {cost!r}")
        self._locate(key, &at)
        if self.strict:
            return self._charge_log(&at, cost, amount, take, charges, verdict)
        now = self._swept()
        while True:
            with cython.critical_section(self):
                verdict[0] = self._settle(&at, now, amount, take, charges)
                rates = self.terms
            if verdict[0] == HG_ALLOWED:
                return rates
            self._undo(&at, charges, len(rates))
            if verdict[0] != HG_AHEAD:
                return rates
            now = self._swept()
            self._mend(&at, now, charges, len(rates))

    cdef void _mend(self, const hg_place *at, int64_t now, const hg_charge *charges, int count):
        """Cut the times that are too far ahead of the clock, as it was read after they were."""
        cdef int i
        with cython.critical_section(self):
            for i in range(min(count, self.count)):
                if charges[i].verdict == HG_AHEAD:
                    hg_mend(&self.tiers[i], at, charges[i].seen, self._units(i, now))

    cdef tuple _charge_log(self, const hg_place *at, object cost, Amount amount, bint take,
                           hg_charge *charges, hg_verdict *verdict):
        """``_charge`` of a strict limiter."""
        cdef hg_claim[FEW_CLAIMS] few
        cdef hg_claim *claims = few
        cdef int64_t entries = _entries(cost, amount)
        if take and entries > FEW_CLAIMS:
            claims = <hg_claim *>PyMem_RawMalloc(entries * sizeof(hg_claim))
            if claims is NULL:
                raise MemoryError
        try:
            return self._decide_log(at, entries, take, charges, verdict, claims)
        finally:
            if claims is not few:
                PyMem_RawFree(claims)

    cdef tuple _decide_log(self, const hg_place *at, int64_t cost, bint take, hg_charge *charges,
                           hg_verdict *verdict, hg_claim *claims):
        cdef int64_t now = self._swept()
        while True:
            with cython.critical_section(self):
                verdict[0] = self._settle_log(at, now, cost, take, charges, claims)
                rates = self.terms
            if verdict[0] != HG_AHEAD:
                return rates
            now = self._swept()
            with cython.critical_section(self):
                hg_log_mend(&self.tiers[0], &self.log, at, charges, self._units(0, now),
                            now - self.tiers[0].epoch)

    cdef hg_verdict _settle_log(self, const hg_place *at, int64_t now, int64_t cost, bint take,
                                hg_charge *charges, hg_claim *claims) noexcept nogil:
        """Ask every window; with `take`, log the request if all of them have room."""
        cdef int i
        if self.log.count == 0:  # another thread has called __init__ meanwhile
            return HG_DENIED
        for i in range(self.log.count):
            self._ask_window(&charges[i], now, cost)
        if take:
            return hg_log_take(&self.tiers[0], &self.log, at, self.evict, charges, claims)
        hg_consult(&self.tiers[0], &self.log, at, self.evict, False, charges)
        return hg_worst(&self.log, charges)

    cdef void _ask_window(self, hg_charge *charge, int64_t now, int64_t cost) noexcept nogil:
        charge.moment = hg_moment(now - self.tiers[0].epoch)
        charge.now = self._units(0, now)
        charge.cost = cost

    @cython.binding(False)
    def allow(self, key, cost=1):
        """Take `cost` for `key` if every tier has it; True if so.

        Raises TypeError or ValueError if `key` is no key, ValueError if `cost` is negative, not finite or
        above the smallest burst, or not whole where the limiter is strict. A cost of 0 is always allowed.
        Complexity: O(tiers).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.allow("ann", 3), limiter.allow("ann", 2)
        (True, False, True)
        """
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        self._charge(key, cost, True, charges, &verdict)
        return verdict == HG_ALLOWED

    cdef object _decision(self, tuple rates, hg_verdict verdict, hg_charge *charges, bint taken):
        """Of the tiers that deny the one that does so for longest, or the one with the least left."""
        cdef int i, worst = 0
        cdef int64_t debt, rest
        cdef double left, least = 0
        cdef hg_charge *charge
        waits = [0] * len(rates)
        violated = []
        for i in range(len(rates)):
            charge = &charges[i]
            if verdict != HG_ALLOWED:
                if charge.verdict != HG_ALLOWED:
                    waits[i] = _wait(charge, charge.missing) if rates[i].limit else INFINITY
                    violated.append(str(rates[i]))
                if waits[i] > waits[worst]:
                    worst = i
                continue
            left = ldexp(<double>max(0, charge.scale.burst - charge.debt - taken * charge.cost),
                         -<int>charge.scale.bits)
            if i == 0 or left < least:
                worst, least = i, left
        charge = &charges[worst]
        debt = charge.debt
        if taken and verdict == HG_ALLOWED:
            debt += charge.cost
        rest = charge.rest if self.strict else debt
        decision = Decision(
            verdict == HG_ALLOWED,
            rates[worst].burst,
            ldexp(<double>max(0, charge.scale.burst - debt), -<int>charge.scale.bits),
            waits[worst] / 1e9,
            (_wait(charge, rest) if rates[worst].limit else waits[worst]) / 1e9,
            str(rates[worst]),
        )
        return decision if len(violated) < 2 else with_details(decision, tuple(violated))

    cdef object _with_more(self, object key, object decision):
        """With the time at which there is one token more, which only its log tells of a strict limit."""
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        if not self.strict or decision.remaining >= 1:
            return decision
        rates = self._charge(key, 1, False, charges, &verdict)
        return with_details(decision, (), self._decision(rates, verdict, charges, False).retry_after)

    def decide(self, key, cost=1):
        """Take `cost` for `key` if every tier has it, and say how matters stand, as a `Decision`.

        It speaks for the tier that denies for longest, or else for the one with the least remaining.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s; 10/min", clock=lambda: 0)
        >>> limiter.decide("ann").policy
        '2/s'
        >>> limiter.decide("ann").remaining
        0.0
        >>> limiter.decide("ann").retry_after
        0.5
        """
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        rates = self._charge(key, cost, True, charges, &verdict)
        return self._with_more(key, self._decision(rates, verdict, charges, True))

    def peek(self, key, cost=1):
        """What ``decide`` would answer, but without taking anything.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.peek("ann").remaining, limiter.peek("ann").remaining
        (2.0, 2.0)
        """
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        rates = self._charge(key, cost, False, charges, &verdict)
        return self._with_more(key, self._decision(rates, verdict, charges, False))

    def reserve(self, key, cost=1):
        """Take `cost` for `key` if every tier has it, as a `Reservation`: it is false if one denies. What is
        used in the end is told to its ``settle``, and ``cancel`` gives all back.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("1000/min", clock=lambda: 0)
        >>> reservation = limiter.reserve("ann", cost=800)
        >>> limiter.peek("ann").remaining, reservation.settle(300), limiter.peek("ann").remaining
        (200.0, None, 700.0)
        """
        booked = self._now_ns()
        decision = self.decide(key, cost)
        return Reservation(checked_amount("cost", cost), [(self, key, booked)], None, decision)

    def _has(self, key, cost):
        """Whether ``peek`` would allow it."""
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        self._charge(key, cost, False, charges, &verdict)
        return verdict == HG_ALLOWED

    def refund(self, key, cost=1):
        """Give back `cost` of what `key` owes, at every tier, as when a request came to nothing.

        More than is owed is not given. Requests that were refunded late do not count, so more than the rate
        may have been allowed while they were under way. A strict limiter drops the oldest entries, so that
        no interval has too many, whichever request it was.

        Raises what ``allow`` raises, but a cost may be above the burst. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.refund("ann"), limiter.peek("ann").remaining
        (True, None, 1.0)
        """
        cdef Amount amount = split(checked_amount("cost", cost))
        if self.strict:
            _entries(cost, amount)
        self._give(key, amount)

    def reset(self, key):
        """Forget what `key` owes.

        Raises TypeError or ValueError if `key` is no key. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.reset("ann"), limiter.allow("ann", 2)
        (True, None, True)
        """
        cdef Amount everything
        everything.whole = 2**62
        everything.part = 0.0
        self._give(key, everything)

    cdef int _tiers(self) noexcept:
        """How many tables there are, which another thread may be changing."""
        cdef int count
        with cython.critical_section(self):
            count = self.count
        return count

    cdef int _give(self, object key, Amount amount) except -1:
        cdef hg_place at
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        cdef int given = 0
        self._charge(key, 0, True, charges, &verdict)  # mends a time that is too far ahead
        self._locate(key, &at)
        while given < self._tiers():
            given = self._give_from(given, &at, self._swept(), amount)
        self.waiting.nudge(key)
        return 0

    cdef int _give_from(self, int which, const hg_place *at, int64_t now, Amount amount) except -1:
        """Give back at this tier and those after it, up to one for which the clock must be read again."""
        cdef int i
        cdef hg_tier *tier
        with cython.critical_section(self):
            if self.strict:
                hg_log_give(&self.tiers[0], &self.log, at, self._units(0, now), now - self.tiers[0].epoch,
                            to_units(amount, 0))
                return 1
            for i in range(which, self.count):
                tier = &self.tiers[i]
                if not hg_give(tier, at, self._units(i, now), to_units(amount, tier.scale.bits)):
                    return i
            return self.count

    def _now_ns(self):
        return self._now()

    def _check_settled(self, actual):
        """Raise if so many tokens cannot have been used of a reservation."""
        if self.strict and actual % 1:
            raise ValueError(f"actual must be whole with strict=True, got {actual!r}")

    def _settled(self, key, cost, actual, booked):
        """Let only `actual` of the `cost` taken at the time `booked` have been taken, or even more."""
        cdef hg_place at
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict
        cdef int done = 0
        self._charge(key, 0, True, charges, &verdict)  # mends a time that is too far ahead
        self._locate(key, &at)
        while done < self._tiers():
            if self.strict:
                done = self._settle_log_of(&at, self._swept(), cost, actual, booked)
            else:
                done = self._settle_from(done, &at, self._swept(), cost, actual, booked)
        self.waiting.nudge(key)

    cdef bint _settle_log_of(self, const hg_place *at, int64_t now, object cost, object actual,
                             object booked) except -1:
        """``_settled`` of a strict limiter: entries that have left all windows do not come back. False if the
        clock must be read again.
        """
        cdef int64_t back
        if actual > cost:
            return self._owe_entries(at, now, min(actual - cost, self.log.length))
        with cython.critical_section(self):
            back = cost - actual if now - booked < self.log.longest else 0
            hg_log_give(&self.tiers[0], &self.log, at, self._units(0, now), now - self.tiers[0].epoch, back)
        return True

    cdef bint _owe_entries(self, const hg_place *at, int64_t now, int64_t most) except -1:
        """Log so many entries, or as many as have room; False if the clock must be read again."""
        cdef hg_verdict verdict
        cdef hg_claim *claims = <hg_claim *>PyMem_RawMalloc(most * sizeof(hg_claim))
        if claims is NULL:
            raise MemoryError
        with cython.critical_section(self):
            verdict = self._fill_log(at, now, most, claims)
        PyMem_RawFree(claims)
        return verdict != HG_AHEAD

    cdef hg_verdict _fill_log(self, const hg_place *at, int64_t now, int64_t most,
                              hg_claim *claims) noexcept nogil:
        """Log at most so many entries; once more if another process was quicker."""
        cdef int i
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict = HG_DENIED
        cdef int64_t entries
        while verdict == HG_DENIED:
            for i in range(self.log.count):
                self._ask_window(&charges[i], now, 0)
            hg_consult(&self.tiers[0], &self.log, at, self.evict, True, charges)
            if charges[0].verdict == HG_AHEAD:
                return HG_AHEAD
            entries = most
            for i in range(self.log.count):
                entries = min(entries, self.log.windows[i].limit - charges[i].debt)
            if entries <= 0:
                return HG_ALLOWED
            for i in range(self.log.count):
                self._ask_window(&charges[i], now, entries)
            verdict = hg_log_take(&self.tiers[0], &self.log, at, self.evict, charges, claims)
        return verdict

    cdef int _settle_from(self, int which, const hg_place *at, int64_t now, object cost, object actual,
                          object booked) except -1:
        """Settle at this tier and those after it, up to one for which the clock must be read again."""
        cdef int i
        cdef int64_t units
        with cython.critical_section(self):
            for i in range(which, self.count):
                units = self._unused(i, now, cost, actual, booked)
                if units >= 0:
                    if not hg_give(&self.tiers[i], at, self._units(i, now), units):
                        return i
                elif not self._owe(i, at, now, -units):
                    return i
            return self.count

    cdef int64_t _unused(self, int which, object now, object cost, object actual, object booked) except? -1:
        """The units of a tier to give back; negative if more were used than reserved."""
        cdef hg_tier *tier = &self.tiers[which]
        bits, scaled, epoch = tier.scale.bits, (tier.scale.multiplier, tier.scale.shift), tier.epoch
        if actual > cost:
            return -min(units_of(actual - cost, bits), <object>MOST_DEBT)
        came = units_at(now - epoch, *scaled) - units_at(booked - epoch, *scaled)
        return min(unused(units_of(cost, bits), units_of(actual, bits), came), <object>MOST_DEBT)

    cdef bint _owe(self, int which, const hg_place *at, int64_t now, int64_t units) noexcept nogil:
        """Charge so many units, or as many as a key may owe; False if the clock must be read again."""
        cdef hg_tier *tier = &self.tiers[which]
        cdef hg_charge charge
        charge.scale = tier.scale
        charge.elapsed = now - tier.epoch
        charge.now = self._units(which, now)
        charge.verdict = HG_DENIED
        while charge.verdict == HG_DENIED:
            charge.cost = 0
            hg_look(tier, at, self.evict, True, &charge)
            if charge.verdict == HG_ALLOWED:
                charge.cost = min(units, tier.scale.burst - charge.debt)
                if charge.cost <= 0:
                    return True
                hg_take(tier, at, self.evict, &charge)
        return charge.verdict != HG_AHEAD

    def acquire(self, key, cost=1, timeout=None):
        """Wait until `cost` can be taken for `key`; False if that is not within `timeout` seconds, None for
        any time.

        Those that wait for one key are served in the order in which they came, in this process. The thread
        sleeps; other threads and event loops go on. The time is waited to its end, since ``refund``,
        ``reset`` or ``reconfigure`` may bring tokens sooner; a `timeout` of 0 never waits. ``allow`` does not
        queue and may take what comes in between.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.

        >>> limiter = RateLimiter("2/h")
        >>> limiter.acquire("ann", 2), limiter.acquire("ann", timeout=0.01)
        (True, False)
        """
        return _waiting.acquire_key(self, self.waiting, key, cost, timeout)

    def acquire_async(self, key, cost=1, timeout=None):
        """``acquire`` for coroutines, on any event loop; cancelling gives the place back.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimiter("2/s").acquire_async("ann"))
        True
        """
        return _waiting.acquire_key_async(self, self.waiting, key, cost, timeout)

    def reconfigure(self, rate, *, burst=None):
        """Set another rate; what is owed at a tier is owed at the tier in its place, up to 32 bursts.

        A strict limiter keeps as many of the last entries of each key as the largest limit.

        Raises what the constructor raises, ValueError if processes share the limit. Complexity: O(max_keys).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.reconfigure("20/s"), limiter.peek("ann").remaining
        (True, None, 12.0)
        """
        cdef hg_scale[MOST_TIERS] scales
        cdef int i
        rates = self._changed_rates(rate, burst)
        windows = checked_windows(rates) if self.strict else ()
        tables = tables_of(rates, windows)
        for i in range(len(tables)):
            scales[i] = _scale(tables[i])
        if windows:
            self._reopen(rates, _log(windows), scales[0])
        else:
            self._rescale(rates, scales, self._swept())
        self.waiting.nudge_all()

    cdef int _rescale(self, tuple rates, const hg_scale *scales, int64_t now) except -1:
        """Let the tables, and those that are new, be in the units of other rates."""
        cdef int i
        with cython.critical_section(self):
            for i in range(self.count, len(rates)):
                self._open(i, self.tiers[0].lines, self.tiers[0].stride, scales[i], now)
            for i in range(min(self.count, len(rates))):
                hg_rescale(&self.tiers[i], scales[i], now)
            self._offer(rates)
        return 0

    def _changed_rates(self, rate, burst=None):
        """The tiers that ``reconfigure`` would set."""
        rates = checked_rates(rate, burst)
        if self.table is not None:
            raise ValueError(self.table.refusal)
        if self.strict:
            checked_windows(rates)
        return rates

    cdef int _reopen(self, tuple rates, hg_log log, hg_scale scale) except -1:
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
        now = self._swept()
        with cython.critical_section(self):
            before, old = self.tiers[0], self.log
            self.log = log
            memory, self.memory[0] = self.memory[0], memory
            self._begin(0, _aligned(self.memory[0]), before.lines, before.stride, scale, before.epoch)
            hg_log_carry(&before, &old, &self.tiers[0], &self.log, now, seen)
            self._offer(rates)
        PyMem_RawFree(memory)
        return 0

    @property
    def rates(self):
        """The tiers, a tuple of `Rate`.

        >>> RateLimiter("1/s; 10/min").rates
        (Rate(limit=1, period=1, burst=1), Rate(limit=10, period=60, burst=10))
        """
        with cython.critical_section(self):
            rates = self.terms
        return rates

    @property
    def max_keys(self):
        """How many keys that owe something have room.

        >>> RateLimiter("1/s").max_keys
        1000000
        """
        return self.room

    @property
    def evictions(self):
        """How often a key that owed something gave way to another.

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
        self._swept()
        tables = tables_of(self.terms, checked_windows(self.terms) if self.strict else ())
        assert self.count == len(tables)
        for i in range(self.count):
            tier = &self.tiers[i]
            assert (tier.scale.bits, tier.scale.multiplier, tier.scale.shift, tier.scale.burst) == scale_of(
                tables[i])
            assert 0 <= tier.scale.burst <= tier.ceiling
            assert tier.lines == count_lines(self.room)
            for line in range(tier.lines):
                tags = [tier.cells[line * HG_CELLS + j] >> 40 for j in range(HG_CELLS)]
                whole = [tag for tag in tags if tag & 1]
                assert len(set(whole)) == len(whole)
        if self.strict:
            self._check_logs()

    cdef int _check_logs(self) except -1:
        """Where an entry counts that is not ahead of the clock, the head is not dead; but if the clock has
        been far back, heads count from then on, and entries from before may come to count again."""
        cdef int64_t now = self._now()
        cdef hg_tier *tier = &self.tiers[0]
        cdef uint64_t at, moment = hg_moment(now - tier.epoch), newest
        assert self.log.length == longest_log(checked_windows(self.terms))
        for at in range(tier.lines * HG_CELLS):
            newest = hg_span_of(&self.log, &self.log.times[at * self.log.length]).newest
            if newest + self.log.longest > moment and newest <= moment and not tier.control[HG_TURNS]:
                assert hg_gap(tier.cells[at], self._units(0, now)) > 0
        return 0
