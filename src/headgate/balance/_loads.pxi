# Balancers that compare the loads of servers.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from headgate._c.clock cimport hg_monotonic_ns

from bisect import insort


cdef class LeastLoaded(_Balancer):
    """LeastLoaded(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Picks the server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

    Servers that have not been picked yet come in random order, with a `seed` in the order given. A failure
    counts as picks in flight for some time. Where weights differ, a server drawn by weight is picked unless
    its load for its weight exceeds that of the least loaded one, so shares are in proportion to the weights
    in an idle fleet too.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Complexity: O(log n) a pick for n servers.

    >>> balancer = LeastLoaded(["a", "b"], seed=0)
    >>> pick = balancer.pick()
    >>> pick.server, balancer.get_server(), balancer.get_server()
    ('a', 'b', 'b')
    """

    cdef list _heap
    cdef list _slow_starting

    def __cinit__(self, *args, **kwargs):
        self._heap, self._slow_starting = [], []

    cdef object _build(self, list active):
        cdef _Record record
        cdef Py_ssize_t at
        cdef list heap
        for record in self._heap:
            record.heap_index = -1
        if self._begins_anywhere():
            for record in active:
                record.last_pick = -<int64_t>(self._draw() >> 2)
        self._sum_weights(active)
        slow_starting = [record for record in active if (<_Record>record).slow_until]
        heap = [record for record in active if not (<_Record>record).slow_until]
        for at in range(len(heap)):
            record = heap[at]
            record.heap_index = at
        self._heap, self._slow_starting = heap, slow_starting
        for at in reversed(range(len(heap) // 2)):
            self._sift_down(heap[at])

    cdef object _check_order(self):
        cdef _Record record
        cdef Py_ssize_t at
        assert len(self._heap) + len(self._slow_starting) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.heap_index == at
            assert not self._precedes(record, self._heap[max(at - 1, 0) // 2])

    cdef bint _precedes(self, _Record a, _Record b) noexcept:
        """Whether `a` has less load for its weight than `b`, or as much and was picked longer ago."""
        cdef double left = <double>(a.in_flight + a.penalty + 1) * b.weight
        cdef double right = <double>(b.in_flight + b.penalty + 1) * a.weight
        return left < right or (left == right and a.last_pick < b.last_pick)

    cdef void _swap(self, _Record a, _Record b) noexcept:
        self._heap[a.heap_index], self._heap[b.heap_index] = b, a
        a.heap_index, b.heap_index = b.heap_index, a.heap_index

    cdef void _sift_down(self, _Record record) noexcept:
        cdef Py_ssize_t at
        cdef _Record child
        while 2 * record.heap_index + 1 < len(self._heap):
            at = 2 * record.heap_index + 1
            child = self._heap[at]
            if at + 1 < len(self._heap) and self._precedes(self._heap[at + 1], child):
                child = self._heap[at + 1]
            if not self._precedes(child, record):
                break
            self._swap(record, child)

    cdef void _load_changed(self, _Record record) noexcept:
        cdef _Record parent
        if self._busy:
            self._stale = True
            return
        if self._heap is None:  # a pick may be deallocated after its balancer has been cleared, in a cycle
            return
        if not 0 <= record.heap_index < len(self._heap) or self._heap[record.heap_index] is not record:
            return
        while record.heap_index > 0:
            parent = self._heap[(record.heap_index - 1) // 2]
            if not self._precedes(record, parent):
                break
            self._swap(record, parent)
        self._sift_down(record)

    cdef bint _redraws(self) noexcept:
        return False

    cdef _Record _choose(self, key, list skip, int64_t now):
        if not self._in_panic and self._sums == NULL and not self._slow_starting:
            return self._first_in_heap(0, skip)
        return self._choose_by_weight(skip, now)

    cdef _Record _choose_by_weight(self, list skip, int64_t now):
        """The choice in panic, or where weights differ, also by a slow start."""
        cdef list excluded = self._indexes(skip)
        cdef _Record best
        cdef _Record drawn
        cdef double total
        if self._in_panic:
            return self._draw_record(excluded)
        if not skip and not self._slow_starting:
            best, drawn = self._heap[0], self._active[self._draw_index(-1)]
            if drawn is best:
                return best
            total = self._sums[len(self._active) - 1]
            return self._less_loaded(drawn, drawn.weight, best, best.weight, total, now)
        best = self._least_loaded(self._first_in_heap(0, skip), skip, now)
        total = <double>(len(self._active) - len(excluded)) * best.weight
        if self._sums != NULL:
            total = self._weight_without(excluded)
        drawn = self._draw_record(excluded)
        while drawn.slow_until and self._unit() * self._slow_start >= self._slow_start_elapsed(drawn, now):
            insort(excluded, drawn.index)
            if len(excluded) == len(self._active):
                return best
            drawn = self._draw_record(excluded)
        if drawn is best:
            return best
        return self._less_loaded(drawn, self._effective_weight(drawn, now),
                                 best, self._effective_weight(best, now), total, now)

    cdef double _effective_weight(self, _Record record, int64_t now) noexcept:
        """The weight of a server, reduced in a slow start."""
        if not record.slow_until:
            return record.weight
        return record.weight * (self._slow_start_elapsed(record, now) / self._slow_start)

    cdef _Record _least_loaded(self, _Record best, list skip, int64_t now):
        """The least loaded of `best` and the servers in a slow start that are not in `skip`."""
        cdef _Record record
        for record in self._slow_starting:
            if record not in skip and (best is None or (
                    <double>(record.in_flight + record.penalty + 1) * self._effective_weight(best, now)
                    < <double>(best.in_flight + best.penalty + 1) * self._effective_weight(record, now))):
                best = record
        return best

    cdef _Record _first_in_heap(self, Py_ssize_t at, list skip):
        """The least record of the heap's subtree at `at` that is not in `skip`, or None."""
        cdef _Record record
        cdef _Record left
        cdef _Record right
        if at >= len(self._heap):
            return None
        record = self._heap[at]
        if not skip or record not in skip:
            return record
        left, right = self._first_in_heap(2 * at + 1, skip), self._first_in_heap(2 * at + 2, skip)
        if left is None or (right is not None and self._precedes(right, left)):
            return right
        return left


cdef class PowerOfTwo(_Balancer):
    """PowerOfTwo(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Picks the less loaded of two distinct servers drawn by weight; of equals, the one drawn first.

    Load is the number of picks in flight for the weight; a failure counts as picks in flight for some time.
    Shares are in proportion to the weights, in an idle fleet and under load. If the less loaded server has
    failed recently, it is compared with a third one.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

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
        cdef _Record record
        cdef _Pick pick
        if exclude is EMPTY and self._clock is None and not self._by_latency:
            pick = _Pick.__new__(_Pick)
            with cython.critical_section(self):
                if self._next_event == NEVER and not self._stale and not self._busy and self._active:
                    record = PowerOfTwo._choose(self, key, NO_RECORDS, 0)
                    self._count_pick(record, pick, hg_monotonic_ns())  # last: it waits for all before it
                    return pick
        return self._begin_pick(key, exclude)

    cdef object _build(self, list active):
        self._sum_weights(active)

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef list active = self._active
        cdef size_t count = len(active)
        cdef size_t at
        cdef size_t other
        cdef double total = 0.0
        cdef _Record best
        if skip or self._in_panic or count == 1:
            return self._choose_by_weight(skip, now)
        if self._sums != NULL:
            at = self._draw_index(-1)
            other = self._draw_index(at)
            total = self._sums[count - 1]
            best = self._less_loaded(active[at], (<_Record>active[at]).weight, active[other],
                                     (<_Record>active[other]).weight, total, now)
        else:
            at, other = self._below(count), self._below(count - 1)
            other += other >= at
            best = <_Record>self._less_loaded_equal(
                PyList_GET_ITEM(active, at), PyList_GET_ITEM(active, other), now)
        if best.penalty and count > 2:
            return self._compare_third(best, sorted([at, other]), total, now)
        return best

    @cython.final
    cdef inline PyObject *_less_loaded_equal(self, PyObject *a, PyObject *b, int64_t now) noexcept:
        """`_less_loaded` for equal weights."""
        cdef double left = (<_Record>a).in_flight + (<_Record>a).penalty
        cdef double right = (<_Record>b).in_flight + (<_Record>b).penalty
        cdef double margin
        if not self._by_latency:
            return b if right < left else a
        margin = _margin(left, right)
        return b if self._load(<_Record>b, right, now) * margin < self._load(<_Record>a, left, now) else a

    @cython.final
    cdef _Record _choose_by_weight(self, list skip, int64_t now):
        """The choice in panic, or where some servers are excluded."""
        cdef list excluded = self._indexes(skip)
        cdef _Record a = self._draw_record(excluded)
        cdef _Record b
        cdef _Record best
        cdef double total
        if self._in_panic or len(self._active) - len(excluded) == 1:
            return a
        total = self._weight_without(excluded) if self._sums != NULL else 0.0
        insort(excluded, a.index)
        b = self._draw_record(excluded)
        best = self._less_loaded(a, a.weight, b, b.weight, total, now)
        insort(excluded, b.index)
        if not best.penalty or len(excluded) == len(self._active):
            return best
        return self._compare_third(best, excluded, total, now)

    @cython.final
    cdef _Record _compare_third(self, _Record best, list excluded, double total, int64_t now):
        """`best` of two servers, or a third one: both of the two may have failed recently."""
        cdef _Record other = self._draw_record(excluded)
        return self._less_loaded(best, best.weight, other, other.weight, total, now)


cdef class PeakEWMA(PowerOfTwo):
    """PeakEWMA(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Picks the one of two distinct servers drawn by weight whose latency times load is less.

    The latency is a moving average over 10 seconds that a slower sample replaces at once; a server without
    a sample but with picks in flight is avoided. A failure counts as at least as slow as the server's average
    and as the mean of all successes. Of two servers with the same load for their weights, the one drawn first
    is picked unless its latency is more than twice that of the other, with a millisecond added to both.

    `servers` is an iterable of hashable servers, or a mapping of server to weight. A server is ejected after
    `max_failures` consecutive failures, or when less than the fraction `success_rate` of at least 20 picks
    within 10 seconds succeeded, for `ejection_time` seconds times the number of its ejections (at most 10).
    At most the fraction `max_ejected` of the servers, rounded up, is ejected at once, and never the last one.
    If fewer than the fraction `panic_threshold` of the servers, rounded down, would be left, ejections are
    ignored, and so is load. A server that is added, or returns from an ejection, gets a share of the picks
    that grows over `slow_start` seconds. `clock` returns integer nanoseconds and defaults to the monotonic
    clock. All random draws follow from `seed`; without one they differ between balancers. Every method is
    atomic among threads.

    Raises ValueError or TypeError if an argument is out of range or of the wrong type.

    Source: Finagle, PeakEwma.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PeakEWMA(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    def __cinit__(self, *args, **kwargs):
        self._by_latency = True
