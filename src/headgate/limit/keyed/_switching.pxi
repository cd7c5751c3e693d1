# The rate of a limiter, which may be in a file, where each of the processes that share it may switch it.
from libc.stdint cimport int64_t, uint64_t

from headgate._c.atomics cimport hg_cas, hg_load
from headgate._c.fields cimport hg_set_double

from headgate.limit._generations import epoch_of
from headgate.limit._tables import checked_windows, largest_cost, tables_of

cdef enum:
    AT_SWITCHES = 4032


cdef class _Switching(_Logs):
    """The rate that is loaded, for all tables."""

    cdef bint strict
    cdef object table
    cdef Py_buffer view

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef int _map(self, object table) except -1:
        """Hold the map of a file as long as its cells may be used."""
        self.table = table
        PyBuffer_Release(&self.view)
        if table is not None:
            PyObject_GetBuffer(table.map, &self.view, PyBUF_WRITABLE)
        return 0

    cdef int _publish(self, tuple rates) except -1:
        self.count = 1 if self.strict else len(rates)
        self.terms = rates
        hg_set_double(&self.largest, largest_cost(rates))
        return 0

    cdef int _renew(self) except -1:
        """Load the rate that is in force, if processes share it and have switched it."""
        cdef uint64_t generation
        if self.table is None:
            return 0
        with cython.critical_section(self):
            generation = self.tiers[0].generation
        if hg_load(&self.tiers[0].switches[HG_GENERATION]) != generation:
            self._load_rate()
        return 0

    cdef int _share(self, int count) except -1:
        """Let the tables, which have been laid out, be those of a file."""
        cdef int i
        for i in range(count):
            self.tiers[i].switches = <uint64_t *>(<char *>self.view.buf + AT_SWITCHES)
            if self.strict:
                self.tiers[i].entries.times = self.log.times
                self.tiers[i].entries.length = self.log.length
        return self._load_rate()

    cdef int _load_rate(self) except -1:
        """Load the rate that is in force; the one before it too, as long as there are cells of that."""
        cdef hg_tier[MOST_TIERS] tiers
        cdef uint64_t generation, settled
        cdef uint64_t *switches = self.tiers[0].switches
        while True:
            generation, settled = hg_load(&switches[HG_GENERATION]), hg_load(&switches[HG_SETTLED])
            rates = self.table.rates_of(generation)
            before = rates if settled == generation else self.table.rates_of(generation - 1)
            if rates is not None and before is not None:
                self._tiers_at(generation, settled == generation, rates, before, self._now(), tiers)
            if hg_load(&switches[HG_GENERATION]) != generation or hg_load(&switches[HG_SETTLED]) != settled:
                continue
            if rates is None or before is None:
                raise self.table.damage
            return self._install(rates, tiers)

    cdef int _install(self, tuple rates, const hg_tier *tiers) except -1:
        cdef int i
        cdef hg_log log
        log = _log(checked_windows(rates) if self.strict else ())
        with cython.critical_section(self):
            for i in range(1 if self.strict else len(rates)):
                self.tiers[i] = tiers[i]
            log.times, log.length = self.log.times, self.log.length
            self.log = log
            self._publish(rates)
        return 0

    cdef int _tiers_at(self, uint64_t generation, bint settled, tuple rates, tuple before, int64_t now,
                       hg_tier *tiers) except -1:
        """The tables at the rate of a generation, and at the one `before`, at a time read after the count."""
        cdef int i
        cdef hg_tier *tier
        cdef int64_t since
        cdef hg_scale old
        cdef uint64_t half = generation & 1
        windows = checked_windows(rates) if self.strict else ()
        old_tables = tables_of(before, checked_windows(before) if self.strict else ())
        for i, rate in enumerate(tables_of(rates, windows)):
            tiers[i] = self.tiers[i]
            tier = &tiers[i]
            tier.generation, tier.parity, tier.unsettled = generation, half << 1, not settled
            tier.mark = &tier.control[HG_OTHER_SWEPT if half else HG_SWEPT]
            tier.scale = _scale(rate)
            tier.epoch = epoch_of(self.table.epoch, generation, self.strict)
            tier.ceiling = min(max(tier.scale.burst, <int64_t>hg_load(&tier.control[HG_CEILING + half])),
                               max(tier.scale.burst, <int64_t>HG_MOST_DEBT))
            if self.strict:
                tier.ceiling = tier.scale.burst + (<int64_t>1 << 32)
                tier.entries.longest = max([period for _, period in windows])
            old = _scale(old_tables[i])
            since = hg_since(tier, now) if generation else 0
            tier.before.bits = old.bits
            tier.before.since_before = hg_units_at(
                since - <int64_t>epoch_of(self.table.epoch, generation - 1 if generation else 0, self.strict),
                old.multiplier, old.shift)
            tier.before.since = hg_units_at(since - tier.epoch, tier.scale.multiplier, tier.scale.shift)
            hg_cas(tier.mark, HG_UNSET, tier.before.since)
        return 0

    cdef int _settle_cells(self) except -1:
        """Convert all cells that are of the generation before."""
        cdef hg_tier[MOST_TIERS] tiers
        cdef int i, count
        cdef bint done = True
        with cython.critical_section(self):
            count = self.count
            for i in range(count):
                tiers[i] = self.tiers[i]
        if hg_load(&tiers[0].switches[HG_SETTLED]) == tiers[0].generation:
            return 0
        now = self._now()
        for i in range(count):
            done = done and self._settle_table(&tiers[i], now)
        if done:
            hg_cas(&tiers[0].switches[HG_SETTLED], tiers[0].generation - 1, tiers[0].generation)
        return 0

    cdef bint _settle_table(self, const hg_tier *tier, int64_t now) noexcept:
        """Convert the cells of a table; False if the rate has been switched again."""
        cdef uint64_t units = hg_units_at(now - tier.epoch, tier.scale.multiplier, tier.scale.shift)
        with nogil:
            return hg_settle_lines(tier, 0, tier.lines, units)

    def _switch(self, rates):
        """Let another rate be in force, of this generation plus one; False if a switch is not complete, or if
        a finalizer or signal handler has switched or forked meanwhile. The file is locked.
        """
        cdef hg_tier[MOST_TIERS] tiers
        cdef hg_scale[MOST_TIERS] scales
        cdef int i, count
        cdef uint64_t generation, units
        cdef int64_t ceiling
        edit, is_free = self.table.edits
        if is_free:
            return False
        self._load_rate()
        now = self._now()
        with cython.critical_section(self):
            generation, count = self.tiers[0].generation, self.count
            for i in range(count):
                tiers[i] = self.tiers[i]
        if hg_load(&tiers[0].switches[HG_SETTLED]) != generation:
            return False
        if self.terms == rates:
            return True
        self.table.check_switch(self.terms, rates)
        for i, rate in enumerate(tables_of(rates, checked_windows(rates) if self.strict else ())):
            scales[i] = _scale(rate)
        self.table.write(generation + 1, rates, edit)
        if self.table.edits[0] != edit or hg_load(&tiers[0].switches[HG_GENERATION]) != generation:
            return False
        for i in range(count):
            units = hg_units_at(now - tiers[i].epoch, tiers[i].scale.multiplier, tiers[i].scale.shift)
            ceiling = scales[i].burst if self.strict else hg_next_ceiling(&tiers[i], &scales[i], units)
            hg_prepare(&tiers[i], ceiling)
        hg_cas(&tiers[0].switches[HG_GENERATION], generation, generation + 1)
        self._load_rate()
        return True
