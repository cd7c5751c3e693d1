"""Balancers that compare loads."""

from bisect import insort

from headgate.balance._balancer import RESOLUTION, UNKNOWN, _Balancer, _kept


class LeastLoaded(_Balancer):
    """The server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

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

    _heap = ()

    def _arrange(self, active):
        for record in self._heap:
            record.place = -1
        if self._scatters():
            for record in active:
                record.turn = -(self._draw() >> 2)
        self._weigh(active)
        self._warming = [record for record in active if record.warm]
        heap = [record for record in active if not record.warm]
        for at, record in enumerate(heap):
            record.place = at
        self._heap = heap
        for at in reversed(range(len(heap) // 2)):
            self._sink(heap[at])

    def _check_order(self):
        assert len(self._heap) + len(self._warming) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.place == at
            assert not self._before(record, self._heap[max(at - 1, 0) // 2])

    def _before(self, a, b):
        """Whether `a` has less in flight for its weight than `b`, or was picked longer ago."""
        left = (a.in_flight + a.penalty + 1) * b.weight
        right = (b.in_flight + b.penalty + 1) * a.weight
        return left < right or (left == right and a.turn < b.turn)

    def _swap(self, a, b):
        self._heap[a.place], self._heap[b.place] = b, a
        a.place, b.place = b.place, a.place

    def _sink(self, record):
        while 2 * record.place + 1 < len(self._heap):
            at = 2 * record.place + 1
            child = self._heap[at]
            if at + 1 < len(self._heap) and self._before(self._heap[at + 1], child):
                child = self._heap[at + 1]
            if not self._before(child, record):
                break
            self._swap(record, child)

    def _moved(self, record):
        if self._busy:
            self._stale = True
            return
        self._busy = True
        try:
            self._mend(record)
        finally:
            self._busy = False
        if self._stale:
            self._rebuild(self._seen)

    def _mend(self, record):
        """Put a record where its load belongs."""
        if not 0 <= record.place < len(self._heap) or self._heap[record.place] is not record:
            return
        while record.place > 0:
            parent = self._heap[(record.place - 1) // 2]
            if not self._before(record, parent):
                break
            self._swap(record, parent)
        self._sink(record)

    def _warms(self):
        return False

    def _choose(self, key, skip, now):
        if self._panicking:
            return self._drawn(self._seats(skip))
        first = self._first(0, skip)
        if not self._sums and not self._warming:
            return first
        best = self._least(first, skip, now)
        out = self._seats(skip)
        total = self._total(out) if self._sums else (len(self._active) - len(out)) * best.weight
        drawn = self._drawn(out)
        while drawn.warm and self._unit() * self._slow_start >= self._warmth(drawn, now):
            insort(out, drawn.seat)
            if len(out) == len(self._active):
                return best
            drawn = self._drawn(out)
        if drawn is best:
            return best
        return self._preferred(drawn, self._share(drawn, now), best, self._share(best, now), total, now)

    def _share(self, record, now):
        """The weight of a server, less in a slow start."""
        if not record.warm:
            return record.weight
        return record.weight * (self._warmth(record, now) / self._slow_start)

    def _least(self, best, skip, now):
        """The least loaded of `best` and the servers in a slow start that are not in `skip`."""
        for record in self._warming:
            if record not in skip and (best is None or (
                    (record.in_flight + record.penalty + 1) * self._share(best, now)
                    < (best.in_flight + best.penalty + 1) * self._share(record, now))):
                best = record
        return best

    def _first(self, at, skip):
        """The first in order of the subtree at `at` that is not in `skip`, or None."""
        if at >= len(self._heap):
            return None
        record = self._heap[at]
        if not skip or record not in skip:
            return record
        left, right = self._first(2 * at + 1, skip), self._first(2 * at + 2, skip)
        if left is None or (right is not None and self._before(right, left)):
            return right
        return left


class PowerOfTwo(_Balancer):
    """The less loaded of two distinct servers drawn by weight; of equals, the one that was drawn first.

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

    def _arrange(self, active):
        self._weigh(active)

    def _choose(self, key, skip, now):
        out = self._seats(skip)
        a = self._drawn(out)
        if self._panicking or len(self._active) - len(out) == 1:
            return a
        total = self._total(out) if self._sums else 0.0
        insort(out, a.seat)
        b = self._drawn(out)
        best = self._preferred(a, a.weight, b, b.weight, total, now)
        insort(out, b.seat)
        if not best.penalty or len(out) == len(self._active):
            return best
        return self._third(best, out, total, now)

    def _third(self, best, out, total, now):
        """`best` of two, or a third server: both may have failed of late."""
        other = self._drawn(out)
        return self._preferred(best, best.weight, other, other.weight, total, now)


class PeakEWMA(PowerOfTwo):
    """The one of two distinct servers drawn by weight whose latency times load is less.

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

    _timed = True

    def _load(self, record, slot, now):
        if record.cost == 0.0 and record.in_flight + record.penalty:
            return UNKNOWN + slot
        passed = max(now - record.stamp, 0)
        return (record.cost * _kept(passed) + RESOLUTION) * (slot + 1.0)
