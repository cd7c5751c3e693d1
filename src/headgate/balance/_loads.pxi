# Balancers that compare loads.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from headgate._c.clock cimport hg_monotonic_ns

from bisect import insort


cdef class LeastLoaded(_Balancer):
    """LeastLoaded(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

    Those that have not been picked yet come in random order, with a `seed` in their own. What failed counts
    as in flight for some time. Where weights differ, a server drawn by weight takes the pick unless it
    carries more for its weight than the least loaded one: so shares are those of the weights in an idle
    fleet too.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(log n) a pick for n servers.

    >>> balancer = LeastLoaded(["a", "b"], seed=0)
    >>> pick = balancer.pick()
    >>> pick.server, balancer.get_server(), balancer.get_server()
    ('a', 'b', 'b')
    """

    cdef list _heap
    cdef list _warming

    def __cinit__(self, *args, **kwargs):
        self._heap, self._warming = [], []

    cdef object _arrange(self, list active):
        cdef _Record record
        cdef Py_ssize_t at
        cdef list heap
        for record in self._heap:
            record.place = -1
        if self._scatters():
            for record in active:
                record.turn = -<int64_t>(self._draw() >> 2)
        self._weigh(active)
        warming = [record for record in active if (<_Record>record).warm]
        heap = [record for record in active if not (<_Record>record).warm]
        for at in range(len(heap)):
            record = heap[at]
            record.place = at
        self._heap, self._warming = heap, warming
        for at in reversed(range(len(heap) // 2)):
            self._sink(heap[at])

    cdef object _check_order(self):
        cdef _Record record
        cdef Py_ssize_t at
        assert len(self._heap) + len(self._warming) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.place == at
            assert not self._before(record, self._heap[max(at - 1, 0) // 2])

    cdef bint _before(self, _Record a, _Record b) noexcept:
        """Whether `a` has less in flight for its weight than `b`, or was picked longer ago."""
        cdef double left = <double>(a.in_flight + a.penalty + 1) * b.weight
        cdef double right = <double>(b.in_flight + b.penalty + 1) * a.weight
        return left < right or (left == right and a.turn < b.turn)

    cdef void _swap(self, _Record a, _Record b) noexcept:
        self._heap[a.place], self._heap[b.place] = b, a
        a.place, b.place = b.place, a.place

    cdef void _sink(self, _Record record) noexcept:
        cdef Py_ssize_t at
        cdef _Record child
        while 2 * record.place + 1 < len(self._heap):
            at = 2 * record.place + 1
            child = self._heap[at]
            if at + 1 < len(self._heap) and self._before(self._heap[at + 1], child):
                child = self._heap[at + 1]
            if not self._before(child, record):
                break
            self._swap(record, child)

    cdef void _moved(self, _Record record) noexcept:
        cdef _Record parent
        if self._busy:
            self._stale = True
            return
        if self._heap is None:  # as a pick may go after its balancer, where both go in a cycle
            return
        if not 0 <= record.place < len(self._heap) or self._heap[record.place] is not record:
            return
        while record.place > 0:
            parent = self._heap[(record.place - 1) // 2]
            if not self._before(record, parent):
                break
            self._swap(record, parent)
        self._sink(record)

    cdef bint _warms(self) noexcept:
        return False

    cdef _Record _choose(self, key, list skip, int64_t now):
        if not self._panicking and self._sums == NULL and not self._warming:
            return self._first(0, skip)
        return self._chosen_by_weight(skip, now)

    cdef _Record _chosen_by_weight(self, list skip, int64_t now):
        """The choice in panic, or where weights differ, be it by a slow start."""
        cdef list out = self._seats(skip)
        cdef _Record best
        cdef _Record drawn
        cdef double total
        if self._panicking:
            return self._drawn(out)
        if not skip and not self._warming:
            best, drawn = self._heap[0], self._active[self._drawn_place(-1)]
            if drawn is best:
                return best
            total = self._sums[len(self._active) - 1]
            return self._preferred(drawn, drawn.weight, best, best.weight, total, now)
        best = self._least(self._first(0, skip), skip, now)
        total = <double>(len(self._active) - len(out)) * best.weight
        if self._sums != NULL:
            total = self._total(out)
        drawn = self._drawn(out)
        while drawn.warm and self._unit() * self._slow_start >= self._warmth(drawn, now):
            insort(out, drawn.seat)
            if len(out) == len(self._active):
                return best
            drawn = self._drawn(out)
        if drawn is best:
            return best
        return self._preferred(drawn, self._share(drawn, now), best, self._share(best, now), total, now)

    cdef double _share(self, _Record record, int64_t now) noexcept:
        """The weight of a server, less in a slow start."""
        if not record.warm:
            return record.weight
        return record.weight * (self._warmth(record, now) / self._slow_start)

    cdef _Record _least(self, _Record best, list skip, int64_t now):
        """The least loaded of `best` and the servers in a slow start that are not in `skip`."""
        cdef _Record record
        for record in self._warming:
            if record not in skip and (best is None or (
                    <double>(record.in_flight + record.penalty + 1) * self._share(best, now)
                    < <double>(best.in_flight + best.penalty + 1) * self._share(record, now))):
                best = record
        return best

    cdef _Record _first(self, Py_ssize_t at, list skip):
        """The first in order of the subtree at `at` that is not in `skip`, or None."""
        cdef _Record record
        cdef _Record left
        cdef _Record right
        if at >= len(self._heap):
            return None
        record = self._heap[at]
        if not skip or record not in skip:
            return record
        left, right = self._first(2 * at + 1, skip), self._first(2 * at + 2, skip)
        if left is None or (right is not None and self._before(right, left)):
            return right
        return left


cdef class PowerOfTwo(_Balancer):
    """PowerOfTwo(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The less loaded of two distinct servers drawn by weight; of equals, the one that was drawn first.

    Load is the picks in flight for the weight; what failed counts as in flight for some time. Shares are
    those of the weights, in an idle fleet and under load. Where what is picked has failed of late, a third
    server is looked at.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PowerOfTwo(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

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
        cdef _Record record
        cdef _Pick pick
        if exclude is _NONE and self._clock is None and not self._timed:
            pick = _Pick.__new__(_Pick)
            with cython.critical_section(self):
                if self._wake == NEVER and not self._stale and not self._busy and self._active:
                    record = PowerOfTwo._choose(self, key, NOBODY, 0)
                    self._count(record, pick, hg_monotonic_ns())  # a reading waits for all before it
                    return pick
        return self._picked(key, exclude)

    cdef object _arrange(self, list active):
        self._weigh(active)

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef list active = self._active
        cdef size_t count = len(active)
        cdef size_t at
        cdef size_t other
        cdef double total = 0.0
        cdef _Record best
        if skip or self._panicking or count == 1:
            return self._chosen_by_weight(skip, now)
        if self._sums != NULL:
            at = self._drawn_place(-1)
            other = self._drawn_place(at)
            total = self._sums[count - 1]
            best = self._preferred(active[at], (<_Record>active[at]).weight, active[other],
                                   (<_Record>active[other]).weight, total, now)
        else:
            at, other = self._below(count), self._below(count - 1)
            other += other >= at
            best = <_Record>self._better(PyList_GET_ITEM(active, at), PyList_GET_ITEM(active, other), now)
        if best.penalty and count > 2:
            return self._third(best, sorted([at, other]), total, now)
        return best

    @cython.final
    cdef inline PyObject *_better(self, PyObject *a, PyObject *b, int64_t now) noexcept:
        """What `_preferred` returns for equal weights."""
        cdef double left = (<_Record>a).in_flight + (<_Record>a).penalty
        cdef double right = (<_Record>b).in_flight + (<_Record>b).penalty
        cdef double margin
        if not self._timed:
            return b if right < left else a
        margin = _margin(left, right)
        return b if self._load(<_Record>b, right, now) * margin < self._load(<_Record>a, left, now) else a

    @cython.final
    cdef _Record _chosen_by_weight(self, list skip, int64_t now):
        """The choice in panic, or where some servers are out."""
        cdef list out = self._seats(skip)
        cdef _Record a = self._drawn(out)
        cdef _Record b
        cdef _Record best
        cdef double total
        if self._panicking or len(self._active) - len(out) == 1:
            return a
        total = self._total(out) if self._sums != NULL else 0.0
        insort(out, a.seat)
        b = self._drawn(out)
        best = self._preferred(a, a.weight, b, b.weight, total, now)
        insort(out, b.seat)
        if not best.penalty or len(out) == len(self._active):
            return best
        return self._third(best, out, total, now)

    @cython.final
    cdef _Record _third(self, _Record best, list out, double total, int64_t now):
        """`best` of two, or a third server: both may have failed of late."""
        cdef _Record other = self._drawn(out)
        return self._preferred(best, best.weight, other, other.weight, total, now)


cdef class PeakEWMA(PowerOfTwo):
    """PeakEWMA(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The one of two distinct servers drawn by weight whose latency times load is less.

    The latency is a moving average over 10 seconds that a slower sample replaces at once; a server
    without a sample but with picks in flight is avoided. A failure is no faster than successes mostly are.
    Of two that carry the same for their weights the one drawn first is taken, unless its latency is more than
    twice that of the other, both lengthened by a millisecond.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Finagle, PeakEwma.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PeakEWMA(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    def __cinit__(self, *args, **kwargs):
        self._timed = True
