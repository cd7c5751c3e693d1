# The table of a strict limiter: for each cell a log of the times of the last requests.
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport floor
from libc.stdint cimport int64_t, uint64_t

from headgate.limit._amounts cimport Amount, to_units

from headgate.limit._tables import longest_log


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
    uint64_t hg_stamp(int64_t elapsed)
    ctypedef struct hg_span:
        uint64_t newest
    hg_span hg_span_of(const hg_log *log, uint64_t *times)
    void hg_log_decide(hg_tier *tier, const hg_log *log, const hg_hashed *hashed, bint evict, bint take,
                       hg_charge *charges)
    hg_verdict hg_log_verdict(const hg_log *log, const hg_charge *charges)
    hg_verdict hg_log_take(hg_tier *tier, const hg_log *log, const hg_hashed *hashed, bint evict,
                           hg_charge *charges, hg_claim *claims)
    void hg_log_clamp(hg_tier *tier, const hg_log *log, const hg_hashed *hashed, const hg_charge *seen,
                      uint64_t now, int64_t elapsed)
    bint hg_log_refund(hg_tier *tier, const hg_log *log, const hg_hashed *hashed, uint64_t now,
                       int64_t elapsed, int64_t back)
    uint64_t hg_newest(const hg_tier *tier, const hg_log *log)
    void hg_log_carry(const hg_tier *from_tier, const hg_log *from_log, hg_tier *tier, const hg_log *log,
                      int64_t now_ns, uint64_t seen)

cdef enum:
    FEW_CLAIMS = 16


cdef hg_log _log(tuple windows) except *:
    """The log of a strict limiter without its memory, of length 0 for other limiters."""
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


cdef int64_t _entries(object cost, Amount amount) except -1:
    """How many entries of a log a request takes."""
    if amount.part != floor(amount.part):
        raise ValueError(f"cost must be whole with strict=True, got {cost!r}")
    return to_units(amount, 0)


cdef class _Logs(_Tables):
    """The logs of a strict limiter, and decisions on them; other limiters have logs of length 0."""

    cdef hg_log log

    cdef void _lay_out_log(self) noexcept:
        """Place the logs behind the cells of the table."""
        cdef hg_tier *tier = &self.tiers[0]
        tier.ceiling += <int64_t>1 << 32  # each request adds one, however many come in one nanosecond
        self.log.times = tier.cells + tier.lines * HG_CELLS

    cdef tuple _charge_log(self, const hg_hashed *hashed, object cost, Amount amount, bint take,
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
            return self._charge_windows(hashed, cost, amount, entries, take, charges, verdict, claims)
        finally:
            if claims is not few:
                PyMem_RawFree(claims)

    cdef tuple _charge_windows(self, const hg_hashed *hashed, object cost, Amount amount, int64_t entries,
                               bint take, hg_charge *charges, hg_verdict *verdict, hg_claim *claims):
        cdef int64_t now = self._sweep_now()
        while True:
            with cython.critical_section(self):
                verdict[0] = self._decide_windows(hashed, now, entries, take, charges, claims)
                rates = self.terms
            if verdict[0] != HG_AHEAD and verdict[0] != HG_STALE:
                return rates
            self._renew()
            self._check_cost(cost, amount)
            now = self._sweep_now()
            with cython.critical_section(self):
                if verdict[0] == HG_STALE:
                    continue
                hg_log_clamp(&self.tiers[0], &self.log, hashed, charges, self._units(0, now),
                             now - self.tiers[0].epoch)

    cdef hg_verdict _decide_windows(self, const hg_hashed *hashed, int64_t now, int64_t cost, bint take,
                                    hg_charge *charges, hg_claim *claims) noexcept nogil:
        """Decide for every window; with `take`, log the request if all of them allow it."""
        cdef int i
        if self.log.count == 0:  # another thread has called __init__ meanwhile
            return HG_DENIED
        for i in range(self.log.count):
            self._prepare(&charges[i], now, cost)
        if take:
            return hg_log_take(&self.tiers[0], &self.log, hashed, self.evict, charges, claims)
        hg_log_decide(&self.tiers[0], &self.log, hashed, self.evict, False, charges)
        return hg_log_verdict(&self.log, charges)

    cdef void _prepare(self, hg_charge *charge, int64_t now, int64_t cost) noexcept nogil:
        charge.stamp = hg_stamp(now - self.tiers[0].epoch)
        charge.now = self._units(0, now)
        charge.cost = cost

    cdef bint _refund_log(self, const hg_hashed *hashed, int64_t now, Amount amount) except -1:
        """Drop entries of a key; False if the rate must be loaded first."""
        with cython.critical_section(self):
            return hg_log_refund(&self.tiers[0], &self.log, hashed, self._units(0, now),
                                 now - self.tiers[0].epoch, to_units(amount, 0))

    cdef bint _settle_log(self, const hg_hashed *hashed, int64_t now, object cost, object actual,
                          object reserved_at) except -1:
        """``_settle`` of a strict limiter: entries that have left all windows are not refunded. False if
        the clock must be read again, or the rate loaded.
        """
        cdef int64_t back
        if actual > cost:
            return self._log_up_to(hashed, now, min(actual - cost, self.log.length))
        with cython.critical_section(self):
            back = cost - actual if now - reserved_at < self.log.longest else 0
            return hg_log_refund(&self.tiers[0], &self.log, hashed, self._units(0, now),
                                 now - self.tiers[0].epoch, back)

    cdef bint _log_up_to(self, const hg_hashed *hashed, int64_t now, int64_t most) except -1:
        """Log at most so many entries, as the windows allow; False if the clock must be read again, or the
        rate loaded.
        """
        cdef hg_verdict verdict
        cdef hg_claim *claims = <hg_claim *>PyMem_RawMalloc(most * sizeof(hg_claim))
        if claims is NULL:
            raise MemoryError
        with cython.critical_section(self):
            verdict = self._fill_log(hashed, now, most, claims)
        PyMem_RawFree(claims)
        return verdict != HG_AHEAD and verdict != HG_STALE

    cdef hg_verdict _fill_log(self, const hg_hashed *hashed, int64_t now, int64_t most,
                              hg_claim *claims) noexcept nogil:
        """Log at most so many entries, and try again if another process was faster."""
        cdef int i
        cdef hg_charge[MOST_TIERS] charges
        cdef hg_verdict verdict = HG_DENIED
        cdef int64_t entries
        while verdict == HG_DENIED:
            for i in range(self.log.count):
                self._prepare(&charges[i], now, 0)
            hg_log_decide(&self.tiers[0], &self.log, hashed, self.evict, True, charges)
            if charges[0].verdict == HG_AHEAD or charges[0].verdict == HG_STALE:
                return charges[0].verdict
            entries = most
            for i in range(self.log.count):
                entries = min(entries, self.log.windows[i].limit - charges[i].debt)
            if entries <= 0:
                return HG_ALLOWED
            for i in range(self.log.count):
                self._prepare(&charges[i], now, entries)
            verdict = hg_log_take(&self.tiers[0], &self.log, hashed, self.evict, charges, claims)
        return verdict

    cdef int _check_logs(self) except -1:
        """Where an entry counts that is not ahead of the clock, the head is not free; but if the clock has
        been far back, heads count from then on, and earlier entries may count again."""
        cdef int64_t now = self._now()
        cdef hg_tier *tier = &self.tiers[0]
        cdef uint64_t at, stamp = hg_stamp(now - tier.epoch), newest
        assert self.log.length >= longest_log(checked_windows(self.terms))
        for at in range(tier.lines * HG_CELLS):
            newest = hg_span_of(&self.log, &self.log.times[at * self.log.length]).newest
            if newest + self.log.longest > stamp and newest <= stamp and not tier.control[HG_REWINDS]:
                assert hg_gap(tier.cells[at], self._units(0, now)) > 0
        return 0
