"""Balancers that compare the loads of servers."""

from __future__ import annotations

from bisect import insort

from headgate.balance._balancer import LATENCY_UNIT, UNSAMPLED_LOAD, _Balancer, _decay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LeastLoaded(_Balancer):
    """Picks the server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

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

    if TYPE_CHECKING:
        _heap: Any

    _heap = ()

    def _build(self, active):
        for record in self._heap:
            record.heap_index = -1
        if self._begins_anywhere():
            for record in active:
                record.last_pick = -(self._draw() >> 2)
        self._sum_weights(active)
        self._slow_starting = [record for record in active if record.slow_until]
        heap = [record for record in active if not record.slow_until]
        for at, record in enumerate(heap):
            record.heap_index = at
        self._heap = heap
        for at in reversed(range(len(heap) // 2)):
            self._sift_down(heap[at])

    def _check_order(self):
        assert len(self._heap) + len(self._slow_starting) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.heap_index == at
            assert not self._precedes(record, self._heap[max(at - 1, 0) // 2])

    def _precedes(self, a, b):
        """Whether `a` has less load for its weight than `b`, or as much and was picked longer ago."""
        left = (a.in_flight + a.penalty + 1) * b.weight
        right = (b.in_flight + b.penalty + 1) * a.weight
        return left < right or (left == right and a.last_pick < b.last_pick)

    def _swap(self, a, b):
        self._heap[a.heap_index], self._heap[b.heap_index] = b, a
        a.heap_index, b.heap_index = b.heap_index, a.heap_index

    def _sift_down(self, record):
        while 2 * record.heap_index + 1 < len(self._heap):
            at = 2 * record.heap_index + 1
            child = self._heap[at]
            if at + 1 < len(self._heap) and self._precedes(self._heap[at + 1], child):
                child = self._heap[at + 1]
            if not self._precedes(child, record):
                break
            self._swap(record, child)

    def _load_changed(self, record):
        if self._busy:
            self._stale = True
            return
        self._busy = True
        try:
            self._reposition(record)
        finally:
            self._busy = False
        if self._stale:
            self._rebuild(self._rebuilt_at)

    def _reposition(self, record):
        """Move a record to where it belongs in the heap."""
        if not 0 <= record.heap_index < len(self._heap) or self._heap[record.heap_index] is not record:
            return
        while record.heap_index > 0:
            parent = self._heap[(record.heap_index - 1) // 2]
            if not self._precedes(record, parent):
                break
            self._swap(record, parent)
        self._sift_down(record)

    def _redraws(self):
        return False

    def _choose(self, key, skip, now):
        if self._in_panic:
            return self._draw_record(self._indexes(skip))
        first = self._first_in_heap(0, skip)
        if not self._sums and not self._slow_starting:
            return first
        best = self._least_loaded(first, skip, now)
        excluded = self._indexes(skip)
        total = (len(self._active) - len(excluded)) * best.weight
        if self._sums:
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

    def _effective_weight(self, record, now):
        """The weight of a server, reduced in a slow start."""
        if not record.slow_until:
            return record.weight
        return record.weight * (self._slow_start_elapsed(record, now) / self._slow_start)

    def _least_loaded(self, best, skip, now):
        """The least loaded of `best` and the servers in a slow start that are not in `skip`."""
        for record in self._slow_starting:
            if record not in skip and (best is None or (
                    (record.in_flight + record.penalty + 1) * self._effective_weight(best, now)
                    < (best.in_flight + best.penalty + 1) * self._effective_weight(record, now))):
                best = record
        return best

    def _first_in_heap(self, at, skip):
        """The least record of the heap's subtree at `at` that is not in `skip`, or None."""
        if at >= len(self._heap):
            return None
        record = self._heap[at]
        if not skip or record not in skip:
            return record
        left, right = self._first_in_heap(2 * at + 1, skip), self._first_in_heap(2 * at + 2, skip)
        if left is None or (right is not None and self._precedes(right, left)):
            return right
        return left


class PowerOfTwo(_Balancer):
    """Picks the less loaded of two distinct servers drawn by weight; of equals, the one drawn first.

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

    def _build(self, active):
        self._sum_weights(active)

    def _choose(self, key, skip, now):
        excluded = self._indexes(skip)
        a = self._draw_record(excluded)
        if self._in_panic or len(self._active) - len(excluded) == 1:
            return a
        total = self._weight_without(excluded) if self._sums else 0.0
        insort(excluded, a.index)
        b = self._draw_record(excluded)
        best = self._less_loaded(a, a.weight, b, b.weight, total, now)
        insort(excluded, b.index)
        if not best.penalty or len(excluded) == len(self._active):
            return best
        return self._compare_third(best, excluded, total, now)

    def _compare_third(self, best, excluded, total, now):
        """`best` of two servers, or a third one: both of the two may have failed recently."""
        other = self._draw_record(excluded)
        return self._less_loaded(best, best.weight, other, other.weight, total, now)


class PeakEWMA(PowerOfTwo):
    """Picks the one of two distinct servers drawn by weight whose latency times load is less.

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

    _by_latency = True

    def _load(self, record, slot, now):
        if record.latency == 0.0 and record.in_flight + record.penalty:
            return UNSAMPLED_LOAD + slot
        passed = max(now - record.sampled_at, 0)
        return (record.latency * _decay(passed) + LATENCY_UNIT) * (slot + 1.0)
