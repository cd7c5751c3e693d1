# Balancers that go by weights alone: in turn, or at random.
cimport cython
from libc.stdint cimport int64_t

from headgate.balance._settings import first_steps


cdef extern from "smooth.h" nogil:
    ctypedef struct hg_seat:
        double weight

    ctypedef struct hg_match:
        int64_t until
        int64_t winner

    ctypedef struct hg_smooth:
        hg_seat *seats
        hg_match *matches
        int64_t count
        int64_t step
        double total

    double hg_stand(const hg_smooth *all, int64_t at)
    void hg_pay(hg_smooth *all, int64_t at, double price)
    void hg_play_all(hg_smooth *all)
    void hg_climb(hg_smooth *all, int64_t at)
    void hg_advance(hg_smooth *all)
    bint hg_beats(const hg_smooth *all, int64_t at, int64_t other)
    int64_t hg_smooth_next(hg_smooth *all)
    int hg_smooth_begin(hg_smooth *all, int64_t count)
    void hg_smooth_free(hg_smooth *all)

cdef int DRAWS = 64


cdef class RoundRobin(_Balancer):
    """RoundRobin(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Servers in turn, from a random one on; from the first with a `seed`.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"], seed=0)
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    cdef size_t _cursor
    cdef list _line

    def __cinit__(self, *args, **kwargs):
        self._line = []

    cdef object _arrange(self, list active):
        cdef _Record record
        line = [(<_Record>one).server for one in active]
        coming = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = 0
        for record in coming:
            if record.seat >= 0:
                self._cursor = record.seat
                break
        if active and self._scatters():
            self._cursor = self._below(len(active))
        self._line = line

    cdef object _check_order(self):
        assert self._line == [(<_Record>record).server for record in self._active]

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
        if exclude is _NONE:
            with cython.critical_section(self):
                if self._wake == NEVER and self._line:
                    return self._line[self._next(len(self._line))]
        return _Balancer.get_server(self, key, exclude=exclude)

    @cython.final
    cdef inline size_t _next(self, size_t count) noexcept:
        """The place whose turn it is, of `count`."""
        cdef size_t at = self._cursor if self._cursor < count else 0
        self._cursor = at + 1
        return at

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef _Record record = self._active[self._next(len(self._active))]
        while skip and record in skip:
            record = self._active[self._next(len(self._active))]
        return record


cdef class WeightedRoundRobin(_Balancer):
    """WeightedRoundRobin(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Servers in turn by weight: nginx's smooth weighted round robin, pick for pick.

    With a `seed` the sequence begins where nginx's does, else anywhere in it.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1}, seed=0)
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    cdef hg_smooth _smooth

    def __dealloc__(self):
        hg_smooth_free(&self._smooth)

    cdef object _arrange(self, list active):
        """Begins the sequence anew, with all servers at 0, at its first step or without a seed at any."""
        cdef _Record record
        cdef Py_ssize_t at
        cdef int64_t steps
        weights = [(<_Record>one).weight for one in active]
        steps = self._below(first_steps(weights)) if active and not self._seeded else 0
        if hg_smooth_begin(&self._smooth, len(active)):
            raise MemoryError
        for at in range(len(active)):
            record = active[at]
            self._smooth.seats[at].weight = record.weight
            self._smooth.total += record.weight
        hg_play_all(&self._smooth)
        for _ in range(steps):
            hg_smooth_next(&self._smooth)

    cdef _Record _choose(self, key, list skip, int64_t now):
        if skip:
            return self._choose_left(skip)
        return self._active[hg_smooth_next(&self._smooth)]

    cdef _Record _choose_left(self, list skip):
        """nginx's step without some servers: these stand still, and nobody pays for them."""
        cdef double total = self._smooth.total
        cdef int64_t best
        cdef int64_t seat
        hg_advance(&self._smooth)
        best = self._ahead(1, skip)
        for seat in self._seats(skip):
            hg_pay(&self._smooth, seat, self._smooth.seats[seat].weight)
            hg_climb(&self._smooth, seat)
            total -= self._smooth.seats[seat].weight
        hg_pay(&self._smooth, best, total)
        hg_climb(&self._smooth, best)
        return self._active[best]

    cdef int64_t _ahead(self, int64_t node, list skip):
        """Who is ahead below `node` and not in `skip`, or -1."""
        cdef int64_t at
        cdef int64_t other
        at = node - self._smooth.count
        if at < 0:
            at = self._smooth.matches[node].winner
        if self._active[at] not in skip:
            return at
        if node >= self._smooth.count:
            return -1
        at, other = self._ahead(2 * node, skip), self._ahead(2 * node + 1, skip)
        if at < 0 or (other >= 0 and hg_beats(&self._smooth, other, at)):
            return other
        return at

    cdef object _check_order(self):
        cdef Py_ssize_t at
        cdef Py_ssize_t node
        cdef Py_ssize_t count = len(self._active)
        assert self._smooth.count == count
        for at in range(count):
            assert self._smooth.seats[at].weight == (<_Record>self._active[at]).weight
        for node in range(1, count):
            if self._smooth.matches[node].until > self._smooth.step:
                below = [(hg_stand(&self._smooth, at), -at) for at in range(count)
                         if (at + count) >> ((at + count).bit_length() - node.bit_length()) == node]
                first, winner = -max(below)[1], self._smooth.matches[node].winner
                lead = hg_stand(&self._smooth, first) - hg_stand(&self._smooth, winner)
                assert first == winner or lead <= 1e-9 * self._smooth.total


cdef class RandomChoice(_Balancer):
    """RandomChoice(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    A server at random, in proportion to the weights.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.

    Complexity: O(1) a pick.

    >>> balancer = RandomChoice({"a": 9, "b": 1}, seed=1)
    >>> sum(balancer.get_server() == "a" for _ in range(1000)) > 850
    True
    """

    cdef list _chances
    cdef list _aliases

    cdef object _arrange(self, list active):
        """Vose's alias table: each slot holds its own record up to its chance, above it the alias."""
        cdef _Record record
        total = 0.0
        for record in active:
            total += record.weight
        self._chances = [record.weight * len(active) / total for record in active]
        self._aliases = list(range(len(active)))
        small = [at for at, chance in enumerate(self._chances) if chance < 1.0]
        large = [at for at, chance in enumerate(self._chances) if chance >= 1.0]
        while small and large:
            low, high = small.pop(), large[-1]
            self._aliases[low] = high
            self._chances[high] -= 1.0 - self._chances[low]
            if self._chances[high] < 1.0:
                small.append(large.pop())
        for at in small + large:
            self._chances[at] = 1.0

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef Py_ssize_t at
        cdef int _try
        for _try in range(DRAWS):
            at = self._below(len(self._active))
            if self._unit() >= self._chances[at]:
                at = self._aliases[at]
            if not skip or self._active[at] not in skip:
                return self._active[at]
        return self._choose_left(self._left(skip))

    cdef _Record _choose_left(self, list left):
        """A weighted draw from a few."""
        cdef _Record record
        cdef double total = 0.0
        cdef double drawn
        for record in left:
            total += record.weight
        drawn = self._unit() * total
        for record in left:
            drawn -= record.weight
            if drawn < 0.0:
                return record
        return left[-1]
