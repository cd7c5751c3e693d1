cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from headgate._c.keys cimport hg_key, hg_key_of

from types import GenericAlias

from headgate._base.checks import checked_iterable
from headgate._base.forks import renew
from headgate._base.pickling import initialized
from headgate.errors import NoServerError
from headgate.placement._members import checked_bound, name_bytes


cdef class _Pick:
    """A node picked by BoundedLoad: `server`, in flight until the ``with`` block or `done()` ends it."""

    cdef readonly object server
    cdef BoundedLoad _bounded
    cdef bytes _name
    cdef uint64_t _era

    def done(self):
        """Ends the pick: the server has one less in flight. Once ended, nothing happens."""
        with cython.critical_section(self):
            name, self._name = self._name, None
        if name is not None:
            self._bounded._release(name, self._era)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.done()

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __del__(self):
        self.done()


cdef void _append_others(uint32_t *order, Py_ssize_t found, Py_ssize_t count) noexcept:
    """Completes the first `found` of `count` ranks; there is space for as many marks behind them."""
    cdef uint32_t *listed = order + count
    cdef Py_ssize_t i
    if found == count:
        return
    memset(listed, 0, count * sizeof(uint32_t))
    for i in range(found):
        listed[order[i]] = 1
    for i in range(count):
        if not listed[i]:
            order[found] = <uint32_t>i
            found += 1


cdef class BoundedLoad:
    """BoundedLoad(placement, c=1.25)\n--\n
    Consistent hashing with bounded loads, over a HashRing, Rendezvous or Maglev.

    A key goes to the first node of its preference that has room: fewer in flight than
    ceil(`c` * average * weight / mean weight), this pick counted in. So no server takes more than
    `c` times its share, and with c = 1.25 nearly all keys stay where the placement has them.

    Nodes are added, removed and given weights in `placement` itself; what is in flight at a node that left
    or has weight 0 counts again should it return. A pick that is dropped unended ends itself.

    Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016.

    Raises TypeError if `placement` is none of these or `c` is no number, ValueError unless `c` is
    finite and at least 1.

    Complexity: O(1) more than a lookup while the first node has room; else as a preference.

    >>> bounded = BoundedLoad(HashRing(["a", "b"]), c=1.5)
    >>> with bounded.pick("user:1") as pick:
    ...     pick.server, bounded.loads
    ('a', {'a': 1, 'b': 0})
    """

    cdef _Placement _placement
    cdef double _c
    cdef bint _made
    cdef tuple _names        # of those whose picks `_loads` counts; all others' are in `_departed`
    cdef dict _ranks
    cdef dict _departed      # never edited, only exchanged: an edit of a dict can let other threads in
    cdef Py_ssize_t *_loads
    cdef double *_weights
    cdef Py_ssize_t _total
    cdef double _weight
    cdef uint64_t _changes
    cdef uint64_t _era
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._placement = HashRing()
        self._c = 1.25
        self._names, self._ranks, self._departed = (), {}, {}
        self._loads = <Py_ssize_t *>_allocate(0, sizeof(Py_ssize_t))
        renew(self)

    def __init__(self, placement, c=1.25):
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must be a HashRing, Rendezvous or Maglev, got {placement!r}")
        cdef double bound = checked_bound(c)
        with cython.critical_section(self):
            if self._made:
                raise initialized(self)
            self._made = True
            self._c = bound
            self._placement, placement = placement, self._placement

    def _renew(self):
        """In the child of a fork: nothing is in flight."""
        memset(self._loads, 0, len(self._names) * sizeof(Py_ssize_t))
        self._departed, self._total = {}, 0
        self._changes += 1
        self._era += 1

    def __dealloc__(self):
        free(self._loads)
        free(self._weights)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self):
        raise TypeError(f"cannot copy {type(self).__name__!r} object")

    @property
    def placement(self):
        """What keys prefer nodes by.

        Complexity: O(1).

        >>> BoundedLoad(HashRing(["a"])).placement.nodes
        ('a',)
        """
        return self._placement

    @property
    def c(self):
        """How many times its share a server may take.

        Complexity: O(1).

        >>> BoundedLoad(HashRing(["a"])).c
        1.25
        """
        return self._c

    @property
    def loads(self):
        """A dict of node to how many picks are in flight at it, in the order of the nodes.

        Complexity: O(n) for n nodes.

        >>> BoundedLoad(HashRing(["a", "b"])).loads
        {'a': 0, 'b': 0}
        """
        view = self._placement._current()
        counts, _ = self._counted()
        return {node: counts.get(name, 0) for node, name in zip(view.nodes, view.names, strict=True)}

    def pick(self, key, *, exclude=()):
        """Picks the first node in the preference of `key` that has room, and counts it in flight.

        Returns a context manager with the attribute `server` and the method `done()`; leaving the block or
        calling it ends the pick. Nodes in `exclude` are passed over, and the average is that of the others.

        Raises NoServerError if there is no node, or every one is excluded or of weight 0, TypeError and
        ValueError for a wrong `key` as get_node does, and for a node in `exclude` that can have no name.

        Complexity: that of get_node while the first node has room, else of preference.

        >>> BoundedLoad(HashRing(["a", "b"])).pick("user:1", exclude=["a"]).server
        'b'
        """
        cdef hg_key plain
        cdef Py_ssize_t rank = -1
        cdef _View view
        cdef bytes barred = None
        cdef bint counted = False
        cdef _Pick pick = _Pick.__new__(_Pick)
        hg_key_of(key, b"key", &plain)
        view = self._placement._current()
        view.begin(&plain)
        names = {name_bytes(node, self._placement._node_key) for node in checked_iterable("exclude", exclude)}
        if names:
            barred = bytes([name in names for name in view.names])
        while not counted:
            self._follow(view)
            with cython.critical_section(self):
                counted = self._names is view.names
                if counted:
                    rank = self._choose(view, &plain, barred)
                if rank >= 0:
                    self._loads[rank] += 1
                    self._total += 1
                    self._changes += 1
                    pick._era = self._era
        if rank < 0:
            raise NoServerError("every server is excluded" if view.active else "the placement has no server")
        pick._bounded, pick._name, pick.server = self, view.names[rank], view.nodes[rank]
        return pick

    @cython.final
    cdef tuple _counted(self):
        """Every pick in flight, {name: how many}, and the number of the last change."""
        cdef Py_ssize_t *loads
        cdef Py_ssize_t i
        with cython.critical_section(self):
            names, departed, changes = self._names, self._departed, self._changes
            loads = <Py_ssize_t *>_allocate(len(names), sizeof(Py_ssize_t))
            memcpy(loads, self._loads, len(names) * sizeof(Py_ssize_t))
        try:
            departed = departed.copy()
            departed.update([(names[i], loads[i]) for i in range(len(names)) if loads[i]])
            return departed, changes
        finally:
            free(loads)

    @cython.final
    cdef bint _counts_by(self, _View view) noexcept:
        """Whether picks are counted by the nodes of `view`."""
        cdef bint same
        with cython.critical_section(self):
            same = self._names is view.names
        return same

    @cython.final
    cdef int _follow(self, _View view) except -1:
        """Counts by the nodes of `view` from now on."""
        cdef Py_ssize_t *loads
        cdef double *weights
        cdef Py_ssize_t i, count = len(view.names)
        while not self._counts_by(view):
            departed, changes = self._counted()
            ranks = {name: i for i, name in enumerate(view.names)}
            loads = <Py_ssize_t *>_allocate(count, sizeof(Py_ssize_t))
            weights = <double *>_allocate(count, sizeof(double))
            for i in range(count):
                loads[i] = departed.pop(view.names[i], 0)
                weights[i] = view.weights[i]
            with cython.critical_section(self):
                if self._changes == <uint64_t>changes:
                    _dropped = self._names, self._ranks, self._departed
                    self._names, self._ranks, self._departed = view.names, ranks, departed
                    self._loads, loads = loads, self._loads
                    self._weights, weights = weights, self._weights
                    self._changes += 1
                    self._total, self._weight = 0, 0
                    for i in range(count):
                        self._total += self._loads[i] if self._weights[i] else 0
                        self._weight += self._weights[i]
            free(loads)
            free(weights)
        return 0

    @cython.final
    cdef bint _has_room(self, Py_ssize_t rank, Py_ssize_t total, double weight) noexcept:
        """Whether what is in flight is below the bound, and so below its ceiling."""
        return self._loads[rank] < self._c * (total + 1) * self._weights[rank] / weight

    @cython.final
    cdef Py_ssize_t _choose(self, _View view, hg_key *key, bytes barred) except -2:
        """The rank of the node to take, -1 if there is none; makes no object.

        Nodes that own nothing stand behind all that the key prefers, so that there always is room.
        """
        cdef Py_ssize_t i, found, count = len(view.names), total = self._total
        cdef double weight = self._weight
        cdef const char *out = PyBytes_AS_STRING(barred) if barred is not None else NULL
        cdef Py_ssize_t rank = view.rank(key)
        cdef uint32_t *order
        if out == NULL and (rank < 0 or self._has_room(rank, total, weight)):
            return rank
        if out != NULL:
            total, weight = 0, 0
            for i in range(count):
                if not out[i] and self._weights[i]:
                    total += self._loads[i]
                    weight += self._weights[i]
        order = <uint32_t *>_allocate(2 * count, sizeof(uint32_t))
        found = view.order(key, len(view.active), order)
        _append_others(order, found, count)
        rank = -1
        for i in range(count):
            if self._weights[order[i]] == 0 or (out != NULL and out[order[i]]):
                continue
            if self._has_room(order[i], total, weight):
                rank = order[i]
                break
            if rank < 0:
                rank = order[i]
        free(order)
        return rank

    @cython.final
    cdef int _release(self, bytes name, uint64_t era) except -1:
        """Takes one from what is in flight at a node, a member or not, unless that was before a fork."""
        cdef Py_ssize_t rank
        cdef bint released = False
        while not released and era == self._era:
            with cython.critical_section(self):
                ranks, old = self._ranks, self._departed
            departed = old
            rank = ranks.get(name, -1)
            if rank < 0:
                departed = {other: load - (other == name) for other, load in old.items()
                            if load > 1 or other != name}
            with cython.critical_section(self):
                released = self._ranks is ranks and self._departed is old
                if released:
                    self._departed = departed
                    self._changes += 1
                    if rank >= 0:
                        self._loads[rank] -= 1
                        self._total -= 1 if self._weights[rank] else 0
        return 0

    def __repr__(self):
        picks = sum(self.loads.values())
        return f"<{type(self).__name__} c={self._c!r} picks={picks} of {self._placement!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        counts, _ = self._counted()
        assert all(load > 0 for load in counts.values())
        assert self._ranks == {name: i for i, name in enumerate(self._names)}
        assert self._total == sum([counts.get(name, 0) for i, name in enumerate(self._names)
                                   if self._weights[i]])
        assert not self._departed.keys() & self._ranks.keys()
