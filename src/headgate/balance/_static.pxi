# Balancers that ignore load: in turn, or at random, by weight.
cimport cython
from libc.stdint cimport int64_t

from headgate.balance._settings import first_steps


cdef extern from "smooth.h" nogil:
    ctypedef struct hg_smooth_server:
        double weight

    ctypedef struct hg_smooth_node:
        int64_t expiry
        int64_t winner

    ctypedef struct hg_smooth:
        hg_smooth_server *servers
        hg_smooth_node *nodes
        int64_t count
        int64_t step
        double total

    double hg_smooth_current(const hg_smooth *all, int64_t at)
    void hg_smooth_subtract(hg_smooth *all, int64_t at, double price)
    void hg_smooth_build(hg_smooth *all)
    void hg_smooth_update_path(hg_smooth *all, int64_t at)
    void hg_smooth_advance(hg_smooth *all)
    bint hg_smooth_is_ahead(const hg_smooth *all, int64_t at, int64_t other)
    int64_t hg_smooth_next(hg_smooth *all)
    int hg_smooth_init(hg_smooth *all, int64_t count)
    void hg_smooth_free(hg_smooth *all)

cdef int MAX_DRAWS = 64


cdef class RoundRobin(_Balancer):
    """RoundRobin(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Picks the servers in turn, from a random one on, or from the first if there is a `seed`.

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

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"], seed=0)
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    cdef size_t _cursor
    cdef list _servers

    def __cinit__(self, *args, **kwargs):
        self._servers = []

    cdef object _build(self, list active):
        cdef _Record record
        servers = [(<_Record>one).server for one in active]
        following = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = 0
        for record in following:
            if record.index >= 0:
                self._cursor = record.index
                break
        if active and self._begins_anywhere():
            self._cursor = self._below(len(active))
        self._servers = servers

    cdef object _check_order(self):
        assert self._servers == [(<_Record>record).server for record in self._active]

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
        if exclude is EMPTY:
            with cython.critical_section(self):
                if self._next_event == NEVER and self._servers:
                    return self._servers[self._next(len(self._servers))]
        return _Balancer.get_server(self, key, exclude=exclude)

    @cython.final
    cdef inline size_t _next(self, size_t count) noexcept:
        """The index of the next of `count` servers."""
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
    Picks the servers in turn by weight: the sequence of nginx's smooth weighted round robin.

    With a `seed` the sequence begins where nginx's does, otherwise at a random step of it.

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

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1}, seed=0)
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    cdef hg_smooth _smooth

    def __dealloc__(self):
        hg_smooth_free(&self._smooth)

    cdef object _build(self, list active):
        """Restart the sequence, all current weights being 0; without a seed, at a random step."""
        cdef _Record record
        cdef Py_ssize_t at
        cdef int64_t steps
        weights = [(<_Record>one).weight for one in active]
        steps = self._below(first_steps(weights)) if active and not self._seeded else 0
        if hg_smooth_init(&self._smooth, len(active)):
            raise MemoryError
        for at in range(len(active)):
            record = active[at]
            self._smooth.servers[at].weight = record.weight
            self._smooth.total += record.weight
        hg_smooth_build(&self._smooth)
        for _ in range(steps):
            hg_smooth_next(&self._smooth)

    cdef _Record _choose(self, key, list skip, int64_t now):
        if skip:
            return self._choose_remaining(skip)
        return self._active[hg_smooth_next(&self._smooth)]

    cdef _Record _choose_remaining(self, list skip):
        """nginx's step without some servers: their current weights stay, and their weights do not count."""
        cdef double total = self._smooth.total
        cdef int64_t best
        cdef int64_t index
        hg_smooth_advance(&self._smooth)
        best = self._best(1, skip)
        for index in self._indexes(skip):
            hg_smooth_subtract(&self._smooth, index, self._smooth.servers[index].weight)
            hg_smooth_update_path(&self._smooth, index)
            total -= self._smooth.servers[index].weight
        hg_smooth_subtract(&self._smooth, best, total)
        hg_smooth_update_path(&self._smooth, best)
        return self._active[best]

    cdef int64_t _best(self, int64_t node, list skip):
        """The best server below `node` that is not in `skip`, or -1."""
        cdef int64_t at
        cdef int64_t other
        at = node - self._smooth.count
        if at < 0:
            at = self._smooth.nodes[node].winner
        if self._active[at] not in skip:
            return at
        if node >= self._smooth.count:
            return -1
        at, other = self._best(2 * node, skip), self._best(2 * node + 1, skip)
        if at < 0 or (other >= 0 and hg_smooth_is_ahead(&self._smooth, other, at)):
            return other
        return at

    cdef object _check_order(self):
        cdef Py_ssize_t at
        cdef Py_ssize_t node
        cdef Py_ssize_t count = len(self._active)
        assert self._smooth.count == count
        for at in range(count):
            assert self._smooth.servers[at].weight == (<_Record>self._active[at]).weight
        for node in range(1, count):
            if self._smooth.nodes[node].expiry > self._smooth.step:
                below = [(hg_smooth_current(&self._smooth, at), -at) for at in range(count)
                         if (at + count) >> ((at + count).bit_length() - node.bit_length()) == node]
                first, winner = -max(below)[1], self._smooth.nodes[node].winner
                lead = hg_smooth_current(&self._smooth, first) - hg_smooth_current(&self._smooth, winner)
                assert first == winner or lead <= 1e-9 * self._smooth.total


cdef class RandomChoice(_Balancer):
    """RandomChoice(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Picks a server at random, in proportion to the weights.

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

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.

    Complexity: O(1) a pick.

    >>> balancer = RandomChoice({"a": 9, "b": 1}, seed=1)
    >>> sum(balancer.get_server() == "a" for _ in range(1000)) > 850
    True
    """

    cdef list _chances
    cdef list _aliases

    cdef object _build(self, list active):
        """Build Vose's alias table: a slot yields its own record with its chance, otherwise the alias."""
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
        for _try in range(MAX_DRAWS):
            at = self._below(len(self._active))
            if self._unit() >= self._chances[at]:
                at = self._aliases[at]
            if not skip or self._active[at] not in skip:
                return self._active[at]
        return self._choose_remaining(self._remaining(skip))

    cdef _Record _choose_remaining(self, list left):
        """A draw by weight from the records of a list."""
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
