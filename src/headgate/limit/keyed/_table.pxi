# The table of a tier: for each key a cell with its debt.
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.math cimport ldexp
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_get_double
from headgate._c.keys cimport hg_key, hg_key_of
from headgate._c.mulshift cimport hg_units_at, hg_wait
from headgate._c.siphash cimport hg_siphash13
from headgate._c.xxh64 cimport hg_splitmix64
from headgate.limit._amounts cimport MOST_DEBT, Amount, to_units

from headgate._base.clock import checked_now
from headgate.limit._rate import text_of
from headgate.limit._tables import no_memory, scale_of
from headgate.limit._units import to_units as units_of
from headgate.limit._units import units_at, unused, wait


cdef extern from "cells.h" nogil:
    enum: HG_CELLS, HG_SWEPT, HG_EVICTIONS, HG_REWINDS, HG_OTHER_SWEPT, HG_SINCE, HG_CEILING, HG_CONTROL
    enum: HG_GENERATION, HG_SETTLED, HG_MOST_DEBT
    const uint64_t HG_UNSET
    enum hg_verdict: HG_DENIED, HG_ALLOWED, HG_FULL, HG_AHEAD, HG_STALE
    ctypedef struct hg_scale:
        uint64_t multiplier
        int64_t burst
        unsigned bits
        unsigned shift
    ctypedef struct hg_before:
        unsigned bits
        uint64_t since_before
        uint64_t since
    ctypedef struct hg_entries:
        uint64_t *times
        uint64_t length
        uint64_t longest
    ctypedef struct hg_tier:
        uint64_t *control
        uint64_t *cells
        uint64_t *mark
        uint64_t lines
        unsigned stride
        hg_scale scale
        int64_t epoch
        int64_t ceiling
        uint64_t *switches
        uint64_t generation
        uint64_t parity
        bint unsettled
        hg_before before
        hg_entries entries
    ctypedef struct hg_hashed:
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
        uint64_t stamp
        int64_t rest
    int64_t hg_gap(uint64_t word, uint64_t now)
    void hg_decide(hg_tier *tier, const hg_hashed *hashed, bint evict, bint take, hg_charge *charge)
    void hg_take(hg_tier *tier, const hg_hashed *hashed, bint evict, hg_charge *charge)
    void hg_clamp(hg_tier *tier, const hg_hashed *hashed, uint64_t seen, uint64_t now)
    bint hg_refund(hg_tier *tier, const hg_hashed *hashed, uint64_t now, int64_t back)
    void hg_undo(hg_tier *tier, const hg_hashed *hashed, int64_t now_ns, int64_t then, hg_charge *charge)
    bint hg_sweep(hg_tier *tier, uint64_t now, bint certain)
    void hg_rescale(hg_tier *tier, hg_scale scale, int64_t now_ns)
    bint hg_settle_lines(const hg_tier *tier, uint64_t first, uint64_t end, uint64_t now)
    void hg_prepare(const hg_tier *tier, int64_t ceiling)
    int64_t hg_since(const hg_tier *tier, int64_t now_ns)
    int64_t hg_next_ceiling(const hg_tier *tier, const hg_scale *scale, uint64_t now)

cdef enum:
    MOST_TIERS = 8

cdef uint64_t SPREAD = 0x9E3779B97F4A7C15


cdef hg_scale _scale(object rate) except *:
    cdef hg_scale scale
    scale.bits, scale.multiplier, scale.shift, scale.burst = scale_of(rate)
    return scale


cdef size_t _words(uint64_t lines, uint64_t length) noexcept:
    """The words of a table with a log of that length for every cell."""
    return HG_CONTROL + lines * HG_CELLS * (1 + length)


cdef void *_memory(uint64_t lines, uint64_t length) except NULL:
    """The memory of a table, which the system provides as it is used, before alignment."""
    cdef void *memory = PyMem_RawCalloc(_words(lines, length) + HG_CELLS, sizeof(uint64_t))
    if memory is NULL:
        raise no_memory()
    return memory


cdef void *_aligned(void *memory) noexcept:
    return <void *>((<uintptr_t>memory + 63) & ~<uintptr_t>63)


cdef object _wait(hg_charge *charge, int64_t units):
    """The nanoseconds in which `units` are refilled."""
    cdef int64_t nanoseconds = hg_wait(charge.elapsed, units, charge.scale.multiplier, charge.scale.shift)
    if nanoseconds >= 0:
        return nanoseconds
    return wait(charge.elapsed, units, charge.scale.multiplier, charge.scale.shift)


cdef double _seconds(hg_charge *charge, int64_t units) except? -1:
    """The seconds in which `units` are refilled."""
    cdef int64_t nanoseconds = hg_wait(charge.elapsed, units, charge.scale.multiplier, charge.scale.shift)
    return <double>nanoseconds / 1e9 if nanoseconds >= 0 else _wait(charge, units) / 1e9


cdef double _left(hg_charge *charge, int64_t debt) noexcept:
    """The tokens that are left to a key that owes `debt`."""
    return ldexp(<double>max(0, charge.scale.burst - debt), -<int>charge.scale.bits)


cdef class _Decider:
    cdef int64_t _now(self) except? -1:
        raise NotImplementedError

    cdef bint _allows(self, object key, object cost, bint take) except -1:
        raise NotImplementedError

    cdef object _decide(self, object key, object cost, object name, double least):
        raise NotImplementedError


cdef class _Tables(_Decider):
    """The tables of a limiter, one per tier of its rate: their memory, and decisions on all of them."""

    cdef object clock
    cdef tuple terms
    cdef tuple plain  # the rates and their texts, and the texts with the name of a level
    cdef tuple named
    cdef double largest
    cdef uint64_t[2] secret
    cdef bint evict
    cdef int count
    cdef hg_tier[MOST_TIERS] tiers
    cdef void* memory[MOST_TIERS]

    def __dealloc__(self):
        cdef int i
        for i in range(MOST_TIERS):
            PyMem_RawFree(self.memory[i])

    cdef int _allocate(self, int which, uint64_t lines, uint64_t length, unsigned stride, hg_scale scale,
                       int64_t now) except -1:
        """An empty table for a tier, in memory of its own."""
        cdef void *memory = _memory(lines, length)
        PyMem_RawFree(self.memory[which])
        self.memory[which] = memory
        self._lay_out(which, _aligned(memory), lines, stride, scale, now)
        return 0

    cdef void _lay_out(self, int which, void *memory, uint64_t lines, unsigned stride, hg_scale scale,
                       int64_t epoch) noexcept:
        cdef hg_tier *tier = &self.tiers[which]
        tier.control = <uint64_t *>memory
        tier.cells = tier.control + HG_CONTROL
        tier.mark = &tier.control[HG_SWEPT]
        tier.lines = lines
        tier.stride = stride
        tier.scale = scale
        tier.epoch = epoch
        tier.ceiling = scale.burst
        tier.switches = NULL
        tier.generation = tier.parity = 0
        tier.unsettled = False
        tier.entries.times = NULL

    cdef int _check_cost(self, object cost, Amount amount) except -1:
        """Raise if a cost is above the smallest burst."""
        if max(<double>amount.whole, amount.part) > hg_get_double(&self.largest):
            least = min([rate.burst for rate in self.terms])
            raise ValueError(f"cost must be at most the burst {least!r}, got {cost!r}")
        return 0

    cdef int _renew(self) except -1:
        """Load the rate that is in force, if processes share it and have switched it."""
        return 0

    cdef tuple _policies(self, tuple rates, object name):
        """The texts of the tiers, kept as long as they and the name of the level are the same."""
        with cython.critical_section(self):
            known = self.plain if name is None else self.named
        if known is not None and <object>PyTuple_GET_ITEM(known, 0) is rates \
                and <object>PyTuple_GET_ITEM(known, 1) is name:
            return <tuple>PyTuple_GET_ITEM(known, 2)
        texts = tuple([text_of(rate) if name is None else f"{name}: {text_of(rate)}" for rate in rates])
        known = rates, name, texts
        with cython.critical_section(self):
            if name is None:
                self.plain = known
            else:
                self.named = known
        return texts

    cdef int64_t _now(self) except? -1:
        if self.clock is None:
            return hg_monotonic_ns()
        return checked_now(self.clock())

    cdef int64_t _sweep_now(self) except? -1:
        """Sweep the lines that are due and return now; a time far back is accepted if it is read twice."""
        cdef int64_t now = self._now()
        if self._sweep(now, False):
            return now
        now = self._now()
        self._sweep(now, True)
        return now

    cdef bint _sweep(self, int64_t now, bint certain):
        cdef int i
        cdef bint done = True
        with cython.critical_section(self):
            for i in range(self.count):
                done &= hg_sweep(&self.tiers[i], self._units(i, now), certain)
        return done

    cdef uint64_t _units(self, int which, int64_t now) noexcept nogil:
        cdef hg_tier *tier = &self.tiers[which]
        return hg_units_at(now - tier.epoch, tier.scale.multiplier, tier.scale.shift)

    cpdef uint64_t _hash(self, key) except? 0:
        """The keyed hash of a key, different for a str, bytes and an int."""
        cdef hg_key data
        hg_key_of(key, b"key", &data)
        return hg_siphash13(self.secret, data.data, data.size) ^ <uint64_t>data.kind * SPREAD

    cdef int _locate(self, object key, hg_hashed *hashed) except -1:
        cdef uint64_t bits = self._hash(key)
        hashed.tag = (bits >> 42 or 1) << 2 | 1
        hashed.first = <uint32_t>bits
        hashed.second = <uint32_t>(hg_splitmix64(bits) >> 32)
        return 0

    cdef hg_verdict _decide_tiers(self, const hg_hashed *hashed, int64_t now, Amount cost, bint take,
                                  hg_charge *charges) noexcept nogil:
        """Decide for every tier; with `take`, charge them in turn, until one denies after all."""
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
                hg_decide(&self.tiers[i], hashed, self.evict, take, &charges[i])
                if charges[i].verdict != HG_ALLOWED and verdict != HG_AHEAD:
                    verdict = charges[i].verdict
        if not take or verdict != HG_ALLOWED:
            return verdict
        for i in range(self.count):
            hg_take(&self.tiers[i], hashed, self.evict, &charges[i])
            if charges[i].verdict != HG_ALLOWED:
                return charges[i].verdict
        return HG_ALLOWED

    cdef int _undo(self, const hg_hashed *hashed, int64_t then, hg_charge *charges, int count) except -1:
        """Undo the charges of the first tiers, made at the time `then`, as another denied."""
        cdef int i
        cdef int64_t now
        for i in range(count):
            while charges[i].taken:
                self._renew()
                now = self._now()
                with cython.critical_section(self):
                    hg_undo(&self.tiers[i], hashed, now, then, &charges[i])
        return 0

    cdef void _clamp(self, const hg_hashed *hashed, int64_t now, const hg_charge *charges, int count):
        """Clamp the times that are too far ahead of the clock, which was read after them."""
        cdef int i
        with cython.critical_section(self):
            for i in range(min(count, self.count)):
                if charges[i].verdict == HG_AHEAD:
                    hg_clamp(&self.tiers[i], hashed, charges[i].seen, self._units(i, now))

    cdef int _tiers(self) noexcept:
        """How many tables there are, while other threads may be changing that."""
        cdef int count
        with cython.critical_section(self):
            count = self.count
        return count

    cdef int _refund_from(self, int which, const hg_hashed *hashed, int64_t now, Amount amount) except -1:
        """Refund at this tier and those after it, up to one for which the clock must be read again, or the
        rate loaded.
        """
        cdef int i
        cdef hg_tier *tier
        with cython.critical_section(self):
            for i in range(which, self.count):
                tier = &self.tiers[i]
                if not hg_refund(tier, hashed, self._units(i, now), to_units(amount, tier.scale.bits)):
                    return i
            return self.count

    cdef int _settle_from(self, int which, const hg_hashed *hashed, int64_t now, object cost, object actual,
                          object reserved_at) except -1:
        """Settle at this tier and those after it, up to one for which the clock must be read again, or the
        rate loaded.
        """
        cdef int i
        cdef int64_t units
        with cython.critical_section(self):
            for i in range(which, self.count):
                units = self._unused(i, now, cost, actual, reserved_at)
                if units >= 0:
                    if not hg_refund(&self.tiers[i], hashed, self._units(i, now), units):
                        return i
                elif not self._charge_up_to(i, hashed, now, -units):
                    return i
            return self.count

    cdef int64_t _unused(self, int which, object now, object cost, object actual,
                         object reserved_at) except? -1:
        """The units to refund at a tier; negative if more were used than reserved."""
        cdef hg_tier *tier = &self.tiers[which]
        bits, scaled, epoch = tier.scale.bits, (tier.scale.multiplier, tier.scale.shift), tier.epoch
        if actual > cost:
            return -min(units_of(actual - cost, bits), <object>MOST_DEBT)
        refilled = units_at(now - epoch, *scaled) - units_at(reserved_at - epoch, *scaled)
        return min(unused(units_of(cost, bits), units_of(actual, bits), refilled), <object>MOST_DEBT)

    cdef bint _charge_up_to(self, int which, const hg_hashed *hashed, int64_t now,
                            int64_t units) noexcept nogil:
        """Charge so many units, or as many as a key may owe; False if the clock must be read again, or the
        rate loaded.
        """
        cdef hg_tier *tier = &self.tiers[which]
        cdef hg_charge charge
        charge.scale = tier.scale
        charge.elapsed = now - tier.epoch
        charge.now = self._units(which, now)
        charge.verdict = HG_DENIED
        while charge.verdict == HG_DENIED:
            charge.cost = 0
            hg_decide(tier, hashed, self.evict, True, &charge)
            if charge.verdict == HG_ALLOWED:
                charge.cost = min(units, tier.scale.burst - charge.debt)
                if charge.cost <= 0:
                    return True
                hg_take(tier, hashed, self.evict, &charge)
        return charge.verdict != HG_AHEAD and charge.verdict != HG_STALE
