# What all balancers share: the draws, picks in flight, and the outcomes by which servers are ejected.
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.math cimport exp
from libc.stdint cimport int64_t, uint64_t

from headgate._c.fields cimport hg_get_time
from headgate._c.mulshift cimport hg_mulshift
from headgate._c.xxh64 cimport hg_splitmix64

from bisect import bisect_right
from itertools import accumulate

from headgate._base.checks import checked_iterable
from headgate.errors import NoServerError


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(list items, Py_ssize_t at)

cdef extern from *:
    """
    #define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
    """
    const uint64_t GOLDEN

cdef double TAU = 10e9
cdef int64_t INTERVAL = 10_000_000_000
cdef int64_t VOLUME = 20
cdef double UNKNOWN = 1e18
cdef double RESOLUTION = 1e6
cdef double MARGIN = 2.0
cdef int64_t SECOND = 1_000_000_000
cdef int64_t MOST_PENALTY = 1023
cdef list NOBODY = []
cdef tuple _NONE = ()


cdef inline double _kept(double passed) noexcept:
    """What a moving average keeps of itself over `passed` nanoseconds; linear where exp would not tell."""
    cdef double share = passed / TAU
    return 1.0 - share if share < 1e-4 else exp(-share)


cdef inline double _whole(double number) noexcept:
    """floor of a number from 0 to 2**63, without a call of the C library."""
    return <double><int64_t>number


cdef inline double _margin(double left, double right) noexcept:
    """How many times its load must be less for a slot to be preferred."""
    return MARGIN if left == right else 1.0


@cython.final
@cython.no_gc_clear  # the record must be there when the last reference goes
@cython.freelist(64)
cdef class _Pick:
    """A server picked: `server`, in flight until the ``with`` block or `done(ok)` ends it."""

    cdef readonly object server
    cdef _Balancer _balancer
    cdef _Record _record
    cdef int64_t _start
    cdef int64_t _era

    @cython.binding(False)
    def done(self, ok=True, *, overloaded=False):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        A server that was `overloaded`, and refused the request as by 429 or 503, has not been fast: it gets
        fewer picks for a while, as after a failure. If `ok`, this counts neither for nor against ejection.
        A pick that is dropped unended leaves the flight without an outcome.
        """
        self._balancer._finish(self, bool(ok), bool(overloaded))

    cdef int _leave(self, kind) except -1:
        """The end of a block; a cancellation and the like are no outcome."""
        if kind is None or issubclass(kind, Exception):
            self.done(kind is None)
        else:
            self._balancer._drop(self)
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._leave(kind)

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        self._leave(kind)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __dealloc__(self):
        if self._record is not None and self._era == self._balancer._era:
            self._balancer._abandon(self._record)


cdef class _Balancer(_Members):
    """What all balancers share: members, health, picks in flight, and the draws."""

    cdef double *_sums       # of the weights up to each place in `_active`, NULL where all are equal
    cdef double _typical
    cdef bint _timed
    cdef int64_t _sequence

    def __dealloc__(self):
        PyMem_Free(self._sums)

    # ---- draws ------------------------------------------------------------------------------

    @cython.final
    cdef inline uint64_t _draw(self) noexcept:
        """The next 64 bits of splitmix64's sequence."""
        cdef uint64_t drawn = hg_splitmix64(self._state)
        self._state = self._state + GOLDEN
        return drawn

    @cython.final
    cdef inline uint64_t _below(self, uint64_t n) noexcept:
        """An unbiased number below `n`: the upper half of n * draw, drawn again where that favours some."""
        cdef uint64_t least
        cdef uint64_t drawn = self._draw()
        if drawn * n < n:
            least = (0 - n) % n
            while drawn * n < least:
                drawn = self._draw()
        return hg_mulshift(drawn, n, 64)

    @cython.final
    cdef inline double _unit(self) noexcept:
        """A number in [0, 1) of 53 bits."""
        return <double>(self._draw() >> 11) * (1.0 / 9007199254740992.0)

    @cython.final
    cdef inline bint _scatters(self) noexcept:
        """Whether the first picks are to begin at a random place."""
        return self._fresh and not self._seeded

    @cython.final
    cdef object _weigh(self, list active):
        """Sum up the weights that `_drawn` draws by; where all are equal it needs none."""
        cdef double *sums = NULL
        cdef double total = 0.0
        cdef Py_ssize_t at
        if len({(<_Record>record).weight for record in active}) > 1:
            sums = <double *>PyMem_Malloc(len(active) * sizeof(double))
            if sums == NULL:
                raise MemoryError
            for at in range(len(active)):
                total += (<_Record>active[at]).weight
                sums[at] = total
        self._sums, sums = sums, self._sums
        PyMem_Free(sums)

    @cython.final
    cdef list _seats(self, list skip):
        """The places in `_active` of the records in `skip`, in order."""
        if not skip:
            return []
        return sorted([(<_Record>record).seat for record in skip if (<_Record>record).seat >= 0])

    @cython.final
    cdef _Record _drawn(self, list out):
        """An active record drawn by weight, none of those at the places `out`, which leave at least one."""
        cdef Py_ssize_t count = len(self._active)
        cdef Py_ssize_t at
        cdef Py_ssize_t place
        cdef double drawn
        if self._sums == NULL:
            at = self._below(count - len(out))
            for place in out:
                at += at >= place
            return self._active[at]
        drawn = self._unit() * self._total(out)
        for place in out:
            if place == 0 or drawn >= self._sums[place - 1]:
                drawn += (<_Record>self._active[place]).weight
        at = min(self._above(drawn), count - 1)
        while at in out:  # which only rounding leads to
            at = at + 1 if at + 1 < count else 0
        return self._active[at]

    @cython.final
    cdef Py_ssize_t _drawn_place(self, Py_ssize_t out) noexcept:
        """The place that `_drawn` draws if weights differ and none is out but that at `out`, or -1."""
        cdef Py_ssize_t count = len(self._active)
        cdef Py_ssize_t at
        cdef double weight = 0.0 if out < 0 else (<_Record>PyList_GET_ITEM(self._active, out)).weight
        cdef double drawn = self._unit() * (self._sums[count - 1] - weight)
        if out == 0 or (out > 0 and drawn >= self._sums[out - 1]):
            drawn += weight
        at = min(self._above(drawn), count - 1)
        if at == out:
            at = at + 1 if at + 1 < count else 0
        return at

    @cython.final
    cdef Py_ssize_t _above(self, double drawn) noexcept:
        """The first place whose sum is above a number: bisect_right."""
        cdef const double *sums = self._sums
        cdef Py_ssize_t left = len(self._active)
        cdef Py_ssize_t half
        while left > 1:  # without a branch on the outcome, which no processor could foresee
            half = left >> 1
            sums += half * (drawn >= sums[half - 1])
            left -= half
        return sums - self._sums + (drawn >= sums[0])

    @cython.final
    cdef double _total(self, list out) except? -1.0:
        """The weight of the active records that are not at the places `out`."""
        cdef double total = self._sums[len(self._active) - 1]
        cdef Py_ssize_t place
        for place in out:
            total -= (<_Record>self._active[place]).weight
        return total

    @cython.final
    cdef _Record _preferred(self, _Record a, double weight, _Record b, double other, double total,
                            int64_t now):
        """The one of `a`, drawn by weight, and `b` whose slot carries less; `a` if they carry about the same.

        A server has a slot for each unit of its weight, the lighter one's being the unit, and its load is
        spread evenly over them. Of the slots that one of `a` could be compared with, some are again of `a`:
        `total` is the weight of all. So shares are those of the weights, in an idle fleet and under load.
        """
        cdef double left = a.in_flight + a.penalty
        cdef double right = b.in_flight + b.penalty
        cdef double drawn
        if weight < other:
            right = _whole(right * (weight / other) + self._unit())
        elif weight > other:
            drawn = self._unit() * (total - other)
            if drawn >= total - weight:
                return a
            left = _whole(left * (other / weight) + drawn / (total - weight))
        return b if self._load(b, right, now) * _margin(left, right) < self._load(a, left, now) else a

    @cython.final
    cdef inline double _load(self, _Record record, double slot, int64_t now) noexcept:
        """What a slot of a server carries, this request counted in; if timed, times its latency."""
        if not self._timed:
            return slot + 1.0
        if record.cost == 0.0 and record.in_flight + record.penalty:
            return UNKNOWN + slot
        return (record.cost * _kept(max(now - record.stamp, 0)) + RESOLUTION) * (slot + 1.0)
    # ---- picks ------------------------------------------------------------------------------

    cdef _Record _choose(self, key, list skip, int64_t now):
        """An active record that is not in `skip`, which leaves at least one."""
        raise NotImplementedError

    @cython.final
    cdef list _left(self, list skip):
        """The active records that are not in `skip`."""
        return [record for record in self._active if record not in skip]

    @cython.final
    cdef _Record _chosen(self, key, list skip, int64_t now):
        """The record that a request goes to; for a finalizer that comes amid an edit, any that is left."""
        cdef _Record record
        cdef bint busy
        self._settle(now)
        busy, self._busy = self._busy, True
        try:
            if not self._active:
                raise NoServerError("there is no server")
            if len(skip) >= len(self._active) and not self._left(skip):
                record = self._resort(key, self._ejected(skip))
            else:
                record = self._left(skip)[0] if busy else self._considered(key, skip, now)
        finally:
            if not busy:  # or else it is cleared by whoever set it, who may have come to the end before
                self._busy = False
            if self._stale:
                self._rebuild(now)
        return record

    @cython.final
    cdef list _ejected(self, list skip):
        """The ejected records that are not in `skip`, where no active one is left."""
        left = [record for record in self._members.values()
                if (<_Record>record).until and not (<_Record>record).draining and record not in skip]
        if not left:
            raise NoServerError("every server is excluded")
        return left

    cdef _Record _resort(self, key, list left):
        """One of the ejected records, by weight alone: better tried than none."""
        sums = list(accumulate([(<_Record>record).weight for record in left]))
        return left[min(bisect_right(sums, self._unit() * sums[-1]), len(left) - 1)]

    @cython.final
    cdef _Record _considered(self, key, list skip, int64_t now):
        """The record of this balancer's choice; a warming one is passed over in part."""
        cdef _Record record = self._choose(key, skip, now)
        if record.warm and self._warms():
            tried = list(skip)
            while record.warm and self._unit() * self._slow_start >= self._warmth(record, now):
                tried.append(record)
                if len(tried) >= len(self._active) and not self._left(tried):
                    break
                record = self._choose(key, tried, now)
        return record

    cdef bint _warms(self) noexcept:
        """Whether a slow start holds picks back."""
        return True

    cdef double _warmth(self, _Record record, int64_t now) noexcept:
        """The nanoseconds since a slow start began, a tenth of it at least."""
        cdef double span = self._slow_start
        return max(span - <double>(record.warm - now), span / 10)

    cdef list _skipped(self, exclude):
        """The records of the servers in `exclude`."""
        members = self._current()
        found = dict.fromkeys([members.get(server) for server in checked_iterable("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    @cython.binding(False)
    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what KeyHash and AddressHash hash; the others ignore it. Those in `exclude` are passed over;
        where all others are ejected, one of these is taken, by its weight or by what the key prefers.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        cdef int64_t now = hg_get_time(&self._seen)
        skip = NOBODY if exclude is _NONE or not exclude else self._skipped(exclude)
        key = self._read_key(key)
        if self._timed or hg_get_time(&self._wake) != NEVER:
            now = self._now()
        with cython.critical_section(self):
            return self._chosen(key, skip, now).server

    cdef object _read_key(self, key):
        """What `_choose` is given of a key."""

    @cython.binding(False)
    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Returns a context manager, for ``with`` and ``async with``, with the attribute `server` and the method
        ``done(ok=True, *, overloaded=False)``. Its end measures the latency and feeds outlier ejection;
        leaving the block by an error is a failure, but a task that is cancelled says nothing of the server.
        `key` and `exclude` are those of get_server.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"], seed=0)
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        return self._picked(key, exclude)

    @cython.final
    cdef _Pick _picked(self, key, exclude):
        cdef _Record record
        cdef _Pick pick = _Pick.__new__(_Pick)
        cdef int64_t now
        skip = NOBODY if exclude is _NONE or not exclude else self._skipped(exclude)
        key = self._read_key(key)
        now = self._now()
        with cython.critical_section(self):
            record = self._chosen(key, skip, now)
            self._count(record, pick, now)
            self._moved(record)
        return pick

    @cython.final
    cdef inline void _count(self, _Record record, _Pick pick, int64_t now) noexcept:
        """Take a pick into the flight."""
        record.in_flight += 1
        self._sequence += 1
        record.turn = self._sequence
        pick.server, pick._balancer, pick._record, pick._start = record.server, self, record, now
        pick._era = self._era

    @cython.final
    cdef int _finish(self, _Pick pick, bint ok, bint overloaded) except -1:
        """Count a pick's outcome, once."""
        cdef int64_t now = self._now()
        cdef bint good = ok and not overloaded
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None and pick._era == self._era:
                record.in_flight -= 1
                self._measure(record, now - pick._start, now, good)
                if not record.until and not record.draining:
                    if not good or record.penalty:
                        self._punish(record, good, now)
                    if good or not ok:
                        self._judge(record, ok, now)
                self._moved(record)
        return 0

    @cython.final
    cdef int _drop(self, _Pick pick) except -1:
        """Take a pick out of the flight without an outcome, once."""
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None and pick._era == self._era:
                record.in_flight -= 1
                self._moved(record)
        return 0

    @cython.final
    cdef int _abandon(self, _Record record) except -1:
        """Take a pick that was dropped out of the flight."""
        with cython.critical_section(self):
            record.in_flight -= 1
            self._moved(record)
        return 0

    @cython.final
    cdef void _measure(self, _Record record, int64_t taken, int64_t now, bint good) noexcept:
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last.

        What failed was no faster than its server mostly is, nor than successes of all servers are.
        """
        cdef double keep
        cdef double sample = max(taken, 0)
        cdef double passed = max(now - record.stamp, 0)
        if not good:
            sample = max(sample, record.cost, self._typical)
        elif self._timed:
            self._typical += (sample - self._typical) / 16.0
        if sample >= record.cost:
            record.cost = sample
        else:
            keep = _kept(passed)
            record.cost = record.cost * keep + sample * (1.0 - keep)
        record.stamp = now

    @cython.final
    cdef int _punish(self, _Record record, bint good, int64_t now) except -1:
        """Count a failure as requests in flight for as many seconds, more with each; a success undoes one."""
        if good:
            if record.penalty:
                record.penalty >>= 1
                if not record.penalty:
                    self._penalized.remove(record)
                    if not self._penalized:
                        self._lapse = NEVER
                        self._wake_at(self._due)
            return 0
        if not record.penalty:
            self._penalized.append(record)
        record.penalty = min(2 * record.penalty + 1, MOST_PENALTY)
        record.lapses = now + min(record.penalty * SECOND, self._ejection_time)
        self._lapse = min(self._lapse, record.lapses)
        self._wake_at(min(self._wake, self._lapse))
        return 0

    @cython.final
    cdef int _judge(self, _Record record, bint ok, int64_t now) except -1:
        """Feed the outcome of a pick to outlier ejection."""
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window < INTERVAL:
            record.window, record.good, record.total = now, 0, 0
        record.total += 1
        record.good += ok
        if self._spare > 0 and (record.failures >= self._max_failures or (
                not ok and record.total >= VOLUME and record.good < self._success_rate * record.total)):
            self._stale = True
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._spare -= 1
            self._rebuild(now)
        return 0
