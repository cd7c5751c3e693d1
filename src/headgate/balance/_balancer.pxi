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

cdef double DECAY_TIME = 10e9
cdef int64_t RATE_INTERVAL = 10_000_000_000
cdef int64_t MIN_OUTCOMES = 20
cdef double UNSAMPLED_LOAD = 1e18
cdef double LATENCY_UNIT = 1e6
cdef double MARGIN = 2.0
cdef int64_t SECOND = 1_000_000_000
cdef int64_t MAX_PENALTY = 1023
cdef list NO_RECORDS = []
cdef tuple EMPTY = ()


cdef inline double _decay(double passed) noexcept:
    """The weight that a moving average keeps after `passed` nanoseconds; linear where exp adds nothing."""
    cdef double share = passed / DECAY_TIME
    return 1.0 - share if share < 1e-4 else exp(-share)


cdef inline double _floor(double number) noexcept:
    """The floor of a number from 0 to 2**63, without a call of the C library."""
    return <double><int64_t>number


cdef inline double _margin(double left, double right) noexcept:
    """How many times less the right load must be to win."""
    return MARGIN if left == right else 1.0


@cython.final
@cython.no_gc_clear  # __dealloc__ needs the record
@cython.freelist(64)
cdef class _Pick:
    """A pick of `server`, in flight until the ``with`` block or `done` ends it."""

    cdef readonly object server
    cdef _Balancer _balancer
    cdef _Record _record
    cdef int64_t _start
    cdef int64_t _generation

    @cython.binding(False)
    def done(self, ok=True, *, overloaded=False):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        After a refusal because the server was `overloaded`, such as 429 or 503, the server gets fewer picks
        for a while, as after a failure, and its latency does not fall; if `ok`, the refusal counts neither
        for nor against ejection. A pick that is dropped is no longer in flight and has no outcome.
        """
        self._balancer._finish(self, bool(ok), bool(overloaded))

    cdef int _exit(self, kind) except -1:
        """The end of a block; a BaseException such as a cancellation is no outcome."""
        if kind is None or issubclass(kind, Exception):
            self.done(kind is None)
        else:
            self._balancer._cancel(self)
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._exit(kind)

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        self._exit(kind)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __dealloc__(self):
        if self._record is not None and self._generation == self._balancer._generation:
            self._balancer._abandon(self._record)


cdef class _Balancer(_Members):
    """The base of all balancers: random draws, picks and their outcomes."""

    cdef double *_sums       # of the weights up to each index in `_active`, NULL where all are equal
    cdef double _mean_latency
    cdef bint _by_latency
    cdef int64_t _sequence

    def __dealloc__(self):
        PyMem_Free(self._sums)

    # ---- draws ------------------------------------------------------------------------------

    @cython.final
    cdef inline uint64_t _draw(self) noexcept:
        """The next 64 bits of splitmix64's sequence."""
        cdef uint64_t drawn = hg_splitmix64(self._random_state)
        self._random_state = self._random_state + GOLDEN
        return drawn

    @cython.final
    cdef inline uint64_t _below(self, uint64_t n) noexcept:
        """An unbiased number below `n`: the upper half of n * draw, drawn again where that is biased."""
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
    cdef inline bint _begins_anywhere(self) noexcept:
        """Whether the first pick is of a random server."""
        return self._fresh and not self._seeded

    @cython.final
    cdef object _sum_weights(self, list active):
        """Sum up the weights for `_draw_record`, which needs no sums if all are equal."""
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
    cdef list _indexes(self, list skip):
        """The indexes in `_active` of the records in `skip`, sorted."""
        if not skip:
            return []
        return sorted([(<_Record>record).index for record in skip if (<_Record>record).index >= 0])

    @cython.final
    cdef _Record _draw_record(self, list excluded):
        """An active record drawn by weight, except those at the indexes `excluded`, which are not all."""
        cdef Py_ssize_t count = len(self._active)
        cdef Py_ssize_t at
        cdef Py_ssize_t index
        cdef double drawn
        if self._sums == NULL:
            at = self._below(count - len(excluded))
            for index in excluded:
                at += at >= index
            return self._active[at]
        drawn = self._unit() * self._weight_without(excluded)
        for index in excluded:
            if index == 0 or drawn >= self._sums[index - 1]:
                drawn += (<_Record>self._active[index]).weight
        at = min(self._index_of(drawn), count - 1)
        while at in excluded:  # only after rounding
            at = at + 1 if at + 1 < count else 0
        return self._active[at]

    @cython.final
    cdef Py_ssize_t _draw_index(self, Py_ssize_t excluded) noexcept:
        """What `_draw_record` draws, as an index, if weights differ; `excluded` is one index, or -1."""
        cdef Py_ssize_t count = len(self._active)
        cdef Py_ssize_t at
        cdef double weight = 0.0
        cdef double drawn
        if excluded >= 0:
            weight = (<_Record>PyList_GET_ITEM(self._active, excluded)).weight
        drawn = self._unit() * (self._sums[count - 1] - weight)
        if excluded == 0 or (excluded > 0 and drawn >= self._sums[excluded - 1]):
            drawn += weight
        at = min(self._index_of(drawn), count - 1)
        if at == excluded:
            at = at + 1 if at + 1 < count else 0
        return at

    @cython.final
    cdef Py_ssize_t _index_of(self, double drawn) noexcept:
        """The first index whose sum is above a number, as in bisect_right."""
        cdef const double *sums = self._sums
        cdef Py_ssize_t left = len(self._active)
        cdef Py_ssize_t half
        while left > 1:  # without a branch on the outcome, which is unpredictable
            half = left >> 1
            sums += half * (drawn >= sums[half - 1])
            left -= half
        return sums - self._sums + (drawn >= sums[0])

    @cython.final
    cdef double _weight_without(self, list excluded) except? -1.0:
        """The weight of the active records except those at the indexes `excluded`."""
        cdef double total = self._sums[len(self._active) - 1]
        cdef Py_ssize_t index
        for index in excluded:
            total -= (<_Record>self._active[index]).weight
        return total

    @cython.final
    cdef _Record _less_loaded(self, _Record a, double weight, _Record b, double other, double total,
                              int64_t now):
        """The one of `a`, drawn by weight, and `b` with less load on a slot; `a` if it is about the same.

        The lighter weight is the unit; a server has a slot for each unit of its weight, and its load is
        spread evenly over them. Of the slots that one of `a` may be compared with, some belong to `a` itself;
        `total` is the weight of all servers. So shares are in proportion to the weights at any load.
        """
        cdef double left = a.in_flight + a.penalty
        cdef double right = b.in_flight + b.penalty
        cdef double drawn
        if weight < other:
            right = _floor(right * (weight / other) + self._unit())
        elif weight > other:
            drawn = self._unit() * (total - other)
            if drawn >= total - weight:
                return a
            left = _floor(left * (other / weight) + drawn / (total - weight))
        return b if self._load(b, right, now) * _margin(left, right) < self._load(a, left, now) else a

    @cython.final
    cdef inline double _load(self, _Record record, double slot, int64_t now) noexcept:
        """The load of a slot of a server, with this request; times the latency for PeakEWMA."""
        if not self._by_latency:
            return slot + 1.0
        if record.latency == 0.0 and record.in_flight + record.penalty:
            return UNSAMPLED_LOAD + slot
        return (record.latency * _decay(max(now - record.sampled_at, 0)) + LATENCY_UNIT) * (slot + 1.0)

    # ---- picks ------------------------------------------------------------------------------

    cdef _Record _choose(self, key, list skip, int64_t now):
        """An active record that is not in `skip`, which leaves at least one."""
        raise NotImplementedError

    @cython.final
    cdef list _remaining(self, list skip):
        """The active records that are not in `skip`."""
        return [record for record in self._active if record not in skip]

    @cython.final
    cdef _Record _select(self, key, list skip, int64_t now):
        """The record that a pick goes to; any remaining one if a finalizer picks during an edit."""
        cdef _Record record
        cdef bint busy
        self._apply_due(now)
        busy, self._busy = self._busy, True
        try:
            if not self._active:
                raise NoServerError("there is no server")
            if len(skip) >= len(self._active) and not self._remaining(skip):
                record = self._choose_ejected(key, self._ejected_candidates(skip))
            else:
                record = self._remaining(skip)[0] if busy else self._choose_in_slow_start(key, skip, now)
        finally:
            if not busy:  # otherwise the call that set it clears it, perhaps before this one ends
                self._busy = False
            if self._stale:
                self._rebuild(now)
        return record

    @cython.final
    cdef list _ejected_candidates(self, list skip):
        """The ejected records that are not in `skip`, for when no active one is left."""
        left = [record for record in self._members.values()
                if (<_Record>record).ejected_until and not (<_Record>record).draining and record not in skip]
        if not left:
            raise NoServerError("every server is excluded")
        return left

    cdef _Record _choose_ejected(self, key, list left):
        """One of the ejected records, drawn by weight: better than none."""
        return self._draw_from(left)

    @cython.final
    cdef _Record _draw_from(self, list records):
        """One of a list of records, drawn by weight."""
        sums = list(accumulate([(<_Record>record).weight for record in records]))
        return records[min(bisect_right(sums, self._unit() * sums[-1]), len(records) - 1)]

    @cython.final
    cdef _Record _choose_in_slow_start(self, key, list skip, int64_t now):
        """The record that this balancer chooses; some picks pass over one in a slow start."""
        cdef _Record record = self._choose(key, skip, now)
        if record.slow_until and self._redraws():
            tried = list(skip)
            while record.slow_until and (
                    self._unit() * self._slow_start >= self._slow_start_elapsed(record, now)):
                tried.append(record)
                if len(tried) >= len(self._active) and not self._remaining(tried):
                    break
                record = self._choose(key, tried, now)
        return record

    cdef bint _redraws(self) noexcept:
        """Whether some picks of a server in a slow start are chosen again."""
        return True

    cdef double _slow_start_elapsed(self, _Record record, int64_t now) noexcept:
        """The nanoseconds since a slow start began, at least a tenth of its length."""
        cdef double span = self._slow_start
        return max(span - <double>(record.slow_until - now), span / 10)

    cdef list _excluded(self, exclude):
        """The records of the servers in `exclude`."""
        members = self._current_members()
        found = dict.fromkeys([members.get(server) for server in checked_iterable("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    @cython.binding(False)
    def get_server(self, key=None, *, exclude=()):
        """Returns the next server, without counting a request in flight.

        `key` is what KeyHash and AddressHash hash; other balancers ignore it. Servers in `exclude` are passed
        over; if all others are ejected, one of those is returned, by weight or in the key's order of
        preference.

        Raises NoServerError if there is no server or every one is excluded, down or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        cdef int64_t now = hg_get_time(&self._rebuilt_at)
        skip = NO_RECORDS if exclude is EMPTY or not exclude else self._excluded(exclude)
        key = self._read_key(key, False)
        if self._by_latency or hg_get_time(&self._next_event) != NEVER:
            now = self._now()
        with cython.critical_section(self):
            return self._select(key, skip, now).server

    cdef object _read_key(self, key, bint picked):
        """What `_choose` needs of a key, for a pick or for `get_server`."""

    @cython.binding(False)
    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Returns a context manager, for ``with`` and ``async with``, with the attribute `server` and the method
        ``done(ok=True, *, overloaded=False)``. Its end records the latency and the outcome, which may eject
        the server; leaving the block by an error is a failure, but a task's cancellation is no outcome.
        `key` and `exclude` are those of get_server.

        Raises NoServerError if there is no server or every one is excluded, down or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"], seed=0)
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        return self._begin_pick(key, exclude)

    @cython.final
    cdef _Pick _begin_pick(self, key, exclude):
        cdef _Record record
        cdef _Pick pick = _Pick.__new__(_Pick)
        cdef int64_t now
        skip = NO_RECORDS if exclude is EMPTY or not exclude else self._excluded(exclude)
        key = self._read_key(key, True)
        now = self._now()
        with cython.critical_section(self):
            record = self._select(key, skip, now)
            self._count_pick(record, pick, now)
            self._load_changed(record)
        return pick

    @cython.final
    cdef inline void _count_pick(self, _Record record, _Pick pick, int64_t now) noexcept:
        """Count a pick in flight."""
        record.in_flight += 1
        self._sequence += 1
        record.last_pick = self._sequence
        pick.server, pick._balancer, pick._record, pick._start = record.server, self, record, now
        pick._generation = self._generation

    @cython.final
    cdef int _finish(self, _Pick pick, bint ok, bint overloaded) except -1:
        """End a pick with its outcome, once."""
        cdef int64_t now = self._now()
        cdef bint good = ok and not overloaded
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None and pick._generation == self._generation:
                record.in_flight -= 1
                self._add_sample(record, now - pick._start, now, good)
                if not record.ejected_until and not record.down and not record.draining:
                    if not good or record.penalty:
                        self._update_penalty(record, good, now)
                    if good or not ok:
                        self._add_outcome(record, ok, now)
                self._load_changed(record)
        return 0

    @cython.final
    cdef int _cancel(self, _Pick pick) except -1:
        """End a pick without an outcome, once."""
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None and pick._generation == self._generation:
                record.in_flight -= 1
                self._load_changed(record)
        return 0

    @cython.final
    cdef int _abandon(self, _Record record) except -1:
        """End a pick that was dropped."""
        with cython.critical_section(self):
            record.in_flight -= 1
            self._load_changed(record)
        return 0

    @cython.final
    cdef void _add_sample(self, _Record record, int64_t taken, int64_t now, bint good) noexcept:
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last.

        A failure counts as at least as slow as the server's average and as the mean of all successes.
        """
        cdef double keep
        cdef double sample = max(taken, 0)
        cdef double passed = max(now - record.sampled_at, 0)
        if not good:
            sample = max(sample, record.latency, self._mean_latency)
        elif self._by_latency:
            self._mean_latency += (sample - self._mean_latency) / 16.0
        if sample >= record.latency:
            record.latency = sample
        else:
            keep = _decay(passed)
            record.latency = record.latency * keep + sample * (1.0 - keep)
        record.sampled_at = now

    @cython.final
    cdef int _update_penalty(self, _Record record, bint good, int64_t now) except -1:
        """Count a failure as picks in flight for as many seconds, more with each; a success halves them."""
        if good:
            if record.penalty:
                record.penalty >>= 1
                if not record.penalty:
                    self._penalized.remove(record)
                    if not self._penalized:
                        self._next_penalty_end = NEVER
                        self._set_next_event(self._next_return)
            return 0
        if not record.penalty:
            self._penalized.append(record)
        record.penalty = min(2 * record.penalty + 1, MAX_PENALTY)
        record.penalty_until = now + min(record.penalty * SECOND, self._ejection_time)
        self._next_penalty_end = min(self._next_penalty_end, record.penalty_until)
        self._set_next_event(min(self._next_event, self._next_penalty_end))
        return 0

    @cython.final
    cdef int _add_outcome(self, _Record record, bint ok, int64_t now) except -1:
        """Count the outcome of a pick, and eject its server if it is an outlier."""
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window_start < RATE_INTERVAL:
            record.window_start, record.successes, record.outcomes = now, 0, 0
        record.outcomes += 1
        record.successes += ok
        if self._ejectable > 0 and (record.failures >= self._max_failures or (
                not ok and record.outcomes >= MIN_OUTCOMES
                and record.successes < self._success_rate * record.outcomes)):
            self._stale = True
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.ejected_until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._ejectable -= 1
            self._rebuild(now)
        return 0
