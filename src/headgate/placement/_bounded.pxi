# Placements with bounded loads.
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
    """A pick of BoundedLoad, in flight at `server` until the ``with`` block or `done()` ends it."""

    cdef readonly object server
    cdef BoundedLoad _bounded
    cdef bytes _name
    cdef uint64_t _generation

    def done(self):
        """Ends the pick: the server has one request less in flight. Further calls do nothing."""
        with cython.critical_section(self):
            name, self._name = self._name, None
        if name is not None:
            self._bounded._release(name, self._generation)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.done()

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __del__(self):
        self.done()


cdef void _append_others(uint32_t *order, Py_ssize_t found, Py_ssize_t count) noexcept:
    """Appends the missing ranks to the first `found` of `count`; `order` has space for twice as many."""
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

    A key goes to the first node in its preference order that is below its bound: that has fewer
    requests in flight than ceil(`c` * average * weight / mean weight), the average including this pick.
    So no node has more than `c` times its share, and with c = 1.25 nearly all keys stay on the node that
    `placement` assigns them to.

    Nodes are added, removed and reweighted in `placement` itself; requests in flight at a node that was
    removed or has weight 0 count again if it returns. A pick that is garbage-collected is ended.

    Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016.

    Raises TypeError if `placement` is none of these or `c` is not a number, ValueError unless `c` is
    finite and at least 1.

    Complexity: O(1) more than get_node while the first node is below its bound, else that of preference.

    >>> bounded = BoundedLoad(HashRing(["a", "b"]), c=1.5)
    >>> with bounded.pick("user:1") as pick:
    ...     pick.server, bounded.loads
    ('a', {'a': 1, 'b': 0})
    """

    cdef _Placement _placement
    cdef double _c
    cdef bint _initialized
    cdef tuple _names           # of the nodes in `_loads`, by rank
    cdef dict _ranks
    cdef dict _removed_loads    # of other nodes; replaced, never edited: an edit may let other threads run
    cdef Py_ssize_t *_loads
    cdef double *_weights
    cdef Py_ssize_t _total
    cdef double _weight
    cdef uint64_t _version
    cdef uint64_t _generation
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._placement = HashRing()
        self._c = 1.25
        self._names, self._ranks, self._removed_loads = (), {}, {}
        self._loads = <Py_ssize_t *>_allocate(0, sizeof(Py_ssize_t))
        renew(self)

    def __init__(self, placement, c=1.25):
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must be a HashRing, Rendezvous or Maglev, got {placement!r}")
        cdef double bound = checked_bound(c)
        with cython.critical_section(self):
            if self._initialized:
                raise initialized(self)
            self._initialized = True
            self._c = bound
            self._placement, placement = placement, self._placement

    def _renew(self):
        """In the child of a fork: nothing is in flight."""
        memset(self._loads, 0, len(self._names) * sizeof(Py_ssize_t))
        self._removed_loads, self._total = {}, 0
        self._version += 1
        self._generation += 1

    def __dealloc__(self):
        free(self._loads)
        free(self._weights)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self):
        raise TypeError(f"cannot copy {type(self).__name__!r} object")

    @property
    def placement(self):
        """The placement whose preference order is used.

        Complexity: O(1).

        >>> BoundedLoad(HashRing(["a"])).placement.nodes
        ('a',)
        """
        return self._placement

    @property
    def c(self):
        """The bound, as a multiple of a node's share.

        Complexity: O(1).

        >>> BoundedLoad(HashRing(["a"])).c
        1.25
        """
        return self._c

    @property
    def loads(self):
        """A dict of node to the number of picks in flight at it, in the order of ``placement.nodes``.

        Complexity: O(n) for n nodes.

        >>> BoundedLoad(HashRing(["a", "b"])).loads
        {'a': 0, 'b': 0}
        """
        view = self._placement._current_view()
        counts, _ = self._all_loads()
        return {node: counts.get(name, 0) for node, name in zip(view.nodes, view.names, strict=True)}

    def pick(self, key, *, exclude=()):
        """Picks the first node in the preference order of `key` that is below its bound.

        Returns a context manager with the attribute `server` and the method `done()`; leaving the block or
        calling `done()` ends the pick. Nodes in `exclude` are skipped and do not count in the average.

        Raises NoServerError if there is no node, or each is excluded or of weight 0, TypeError and
        ValueError for a wrong `key` as get_node does, and for a node in `exclude` that cannot have a name.

        Complexity: that of get_node while the first node is below its bound, else that of preference.

        >>> BoundedLoad(HashRing(["a", "b"])).pick("user:1", exclude=["a"]).server
        'b'
        """
        cdef hg_key plain
        cdef Py_ssize_t rank = -1
        cdef _View view
        cdef bytes excluded = None
        cdef bint counted = False
        cdef _Pick pick = _Pick.__new__(_Pick)
        hg_key_of(key, b"key", &plain)
        view = self._placement._current_view()
        view.prepare(&plain)
        names = {name_bytes(node, self._placement._node_key) for node in checked_iterable("exclude", exclude)}
        if names:
            excluded = bytes([name in names for name in view.names])
        while not counted:
            self._use_view(view)
            with cython.critical_section(self):
                counted = self._names is view.names
                if counted:
                    rank = self._choose(view, &plain, excluded)
                if rank >= 0:
                    self._loads[rank] += 1
                    self._total += 1
                    self._version += 1
                    pick._generation = self._generation
        if rank < 0:
            raise NoServerError("every server is excluded" if view.active else "the placement has no server")
        pick._bounded, pick._name, pick.server = self, view.names[rank], view.nodes[rank]
        return pick

    @cython.final
    cdef tuple _all_loads(self):
        """The load of every node that has one, {name: picks in flight}, and the version of that."""
        cdef Py_ssize_t *loads
        cdef Py_ssize_t i
        with cython.critical_section(self):
            names, removed_loads, version = self._names, self._removed_loads, self._version
            loads = <Py_ssize_t *>_allocate(len(names), sizeof(Py_ssize_t))
            memcpy(loads, self._loads, len(names) * sizeof(Py_ssize_t))
        try:
            all_loads = removed_loads.copy()
            all_loads.update([(names[i], loads[i]) for i in range(len(names)) if loads[i]])
            return all_loads, version
        finally:
            free(loads)

    @cython.final
    cdef bint _uses(self, _View view) noexcept:
        """Whether `_loads` is for the nodes of `view`."""
        cdef bint same
        with cython.critical_section(self):
            same = self._names is view.names
        return same

    @cython.final
    cdef int _use_view(self, _View view) except -1:
        """Makes `_loads` one for the nodes of `view`."""
        cdef Py_ssize_t *loads
        cdef double *weights
        cdef Py_ssize_t i, count = len(view.names)
        while not self._uses(view):
            removed_loads, version = self._all_loads()
            ranks = {name: i for i, name in enumerate(view.names)}
            loads = <Py_ssize_t *>_allocate(count, sizeof(Py_ssize_t))
            weights = <double *>_allocate(count, sizeof(double))
            for i in range(count):
                loads[i] = removed_loads.pop(view.names[i], 0)
                weights[i] = view.weights[i]
            with cython.critical_section(self):
                if self._version == <uint64_t>version:
                    _dropped = self._names, self._ranks, self._removed_loads
                    self._names, self._ranks, self._removed_loads = view.names, ranks, removed_loads
                    self._loads, loads = loads, self._loads
                    self._weights, weights = weights, self._weights
                    self._version += 1
                    self._total, self._weight = 0, 0
                    for i in range(count):
                        self._total += self._loads[i] if self._weights[i] else 0
                        self._weight += self._weights[i]
            free(loads)
            free(weights)
        return 0

    @cython.final
    cdef bint _below_bound(self, Py_ssize_t rank, Py_ssize_t total, double weight) noexcept:
        """Whether the load of the node is below the bound, and hence below its ceiling."""
        return self._loads[rank] < self._c * (total + 1) * self._weights[rank] / weight

    @cython.final
    cdef Py_ssize_t _choose(self, _View view, hg_key *key, bytes excluded) except -2:
        """The rank of the node to pick, -1 if there is none; creates no object.

        Nodes without keys come after the preference order, so that one node is always below its bound.
        """
        cdef Py_ssize_t i, found, count = len(view.names), total = self._total
        cdef double weight = self._weight
        cdef const char *out = PyBytes_AS_STRING(excluded) if excluded is not None else NULL
        cdef Py_ssize_t rank = view.rank(key)
        cdef uint32_t *order
        if out == NULL and (rank < 0 or self._below_bound(rank, total, weight)):
            return rank
        if out != NULL:
            total, weight = 0, 0
            for i in range(count):
                if not out[i] and self._weights[i]:
                    total += self._loads[i]
                    weight += self._weights[i]
        order = <uint32_t *>_allocate(2 * count, sizeof(uint32_t))
        found = view.preference(key, len(view.active), order)
        _append_others(order, found, count)
        rank = -1
        for i in range(count):
            if self._weights[order[i]] == 0 or (out != NULL and out[order[i]]):
                continue
            if self._below_bound(order[i], total, weight):
                rank = order[i]
                break
            if rank < 0:
                rank = order[i]
        free(order)
        return rank

    @cython.final
    cdef int _release(self, bytes name, uint64_t generation) except -1:
        """Decreases the load of a node, a member or not, unless the pick is from before a fork."""
        cdef Py_ssize_t rank
        cdef bint released = False
        while not released and generation == self._generation:
            with cython.critical_section(self):
                ranks, old = self._ranks, self._removed_loads
            removed_loads = old
            rank = ranks.get(name, -1)
            if rank < 0:
                removed_loads = {other: load - (other == name) for other, load in old.items()
                                 if load > 1 or other != name}
            with cython.critical_section(self):
                released = self._ranks is ranks and self._removed_loads is old
                if released:
                    self._removed_loads = removed_loads
                    self._version += 1
                    if rank >= 0:
                        self._loads[rank] -= 1
                        self._total -= 1 if self._weights[rank] else 0
        return 0

    def __repr__(self):
        picks = sum(self.loads.values())
        return f"<{type(self).__name__} c={self._c!r} picks={picks} of {self._placement!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        counts, _ = self._all_loads()
        assert all(load > 0 for load in counts.values())
        assert self._ranks == {name: i for i, name in enumerate(self._names)}
        assert self._total == sum([counts.get(name, 0) for i, name in enumerate(self._names)
                                   if self._weights[i]])
        assert not self._removed_loads.keys() & self._ranks.keys()
