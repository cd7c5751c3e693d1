# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Consistent-hash placement: which node a key belongs to.

    HashRing
      _members  name bytes -> (node, weight)        the truth; a change touches only this ...
      _table    points | owners | buckets           ... the arrays follow at the next lookup
      _view     _table + (node, node, ...)          what a lookup reads; None after a change

    2**64 - 1 \\  / 0        every node owns points on a circle of 64-bit hashes; a key belongs
          o----p0---o        to the owner of the first point at or after its own hash, found
         /  key->   p1       by the top bits of the hash: see ring.h for the three arrays.
        p5          |
         \\         p2       owners are ranks: node i of `nodes`, sorted by name bytes.
          p4-------p3

Invariants. Points are sorted, equal ones by owner; a table never changes once it is built, so a
lookup that holds a view needs no lock. A change merges: the points of nodes that stay are copied
in one pass with their new ranks, those of new nodes are sorted alone. Any number of changes
between two lookups costs one merge.

Foreign code is `node_key`, the iterators and mappings given, and the `__repr__` of a wrong
argument: all of it runs before anything changes. Nodes are never hashed or compared, but in the
dicts handed out. A collector run may re-enter while a table is built: the version number tells,
and the build starts over. References to nodes are dropped last.
"""
cimport cython
from cpython.array cimport array, clone
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from headgate._compiled.hashing cimport hg_splitmix64, hg_xxh64

from array import array as new_array
from collections.abc import Iterable, Mapping
from math import isfinite
from operator import index
from types import GenericAlias

from headgate._compiled.hashing import splitmix64, xxh64
from headgate._pickling import name_class, restore


cdef extern from "keys.h" nogil:
    ctypedef struct hg_key:
        const unsigned char *data
        Py_ssize_t size

    int hg_key_of(object key, const char *name, hg_key *out) except -1 with gil


cdef extern from "ring.h" nogil:
    const uint32_t HG_GONE

    ctypedef struct hg_point:
        uint64_t at
        uint32_t owner

    hg_point *hg_sort_points(hg_point *points, hg_point *spare, size_t count)
    size_t hg_merge_points(const hg_point *old, size_t old_count, const uint32_t *ranks,
                           const hg_point *fresh, size_t fresh_count, hg_point *out)
    int hg_bits(size_t count)
    void hg_index(const hg_point *points, size_t count, uint32_t *buckets, int bits)
    const hg_point *hg_find(const hg_point *points, const uint32_t *buckets, int shift, uint64_t hash)


cdef object _MAX_POINTS = 2**24
cdef array _INDICES = new_array("i")


cdef void *_allocate(size_t count, size_t size) except NULL:
    cdef void *memory = malloc((count or 1) * size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef object _integer(str name, object value):
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None


cdef object _checked_weight(object weight):
    """The weight as an exact int or float, so that arithmetic on it is no foreign code."""
    if isinstance(weight, int):
        weight = int.__pos__(weight)
    elif isinstance(weight, float):
        weight = float.__pos__(weight)
    else:
        raise TypeError(f"weight must be an int or a float, got {weight!r}")
    if not weight > 0 or not isfinite(weight):
        raise ValueError(f"weight must be positive and finite, got {weight!r}")
    return weight


cdef bytes _name_bytes(object node, object node_key):
    cdef hg_key name
    if node_key is None:
        hg_key_of(node, b"node", &name)
    else:
        node = node_key(node)
        hg_key_of(node, b"node_key(node)", &name)
    return PyBytes_FromStringAndSize(<const char *>name.data, name.size)


cdef list _weighted(object nodes):
    """The pairs (node, weight) of the constructor's argument."""
    if isinstance(nodes, Mapping):
        return list(nodes.items())
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes must be an iterable of nodes or a mapping of node to weight, got {nodes!r}")
    return [(node, 1) for node in nodes]


cdef int _join(dict members, object node, bytes name, object weight) except -1:
    if name in members:
        raise ValueError(f"node must not be in the ring already, got {node!r}")
    members[name] = node, weight


cdef object _weight_of(object weight, Py_ssize_t replicas):
    """The checked weight, which gives no more than the greatest number of points."""
    weight = _checked_weight(weight)
    if weight * replicas > _MAX_POINTS:
        raise ValueError(f"weight must give at most {_MAX_POINTS} points, got {weight!r}")
    return weight


cdef Py_ssize_t _point_count(object weight, Py_ssize_t replicas):
    return max(1, round(weight * replicas))


@cython.final
cdef class _Table:
    """The arrays of a ring for one membership."""

    cdef hg_point *points
    cdef uint32_t *buckets
    cdef int shift
    cdef Py_ssize_t count
    cdef dict ranks    # name -> (rank, weight)

    def __cinit__(self, size_t capacity, dict ranks):
        self.ranks = ranks
        self.points = <hg_point *>_allocate(capacity + 1, sizeof(hg_point))

    def __dealloc__(self):
        free(self.points)
        free(self.buckets)

    cdef int seal(self, Py_ssize_t count) except -1:
        """Sets the sentinel and the index, once the points are in place."""
        cdef int bits = hg_bits(count)
        self.buckets = <uint32_t *>_allocate((<size_t>1 << bits) + 1, sizeof(uint32_t))
        self.points[count].at = UINT64_MAX
        self.points[count].owner = self.points[0].owner if count else 0
        hg_index(self.points, count, self.buckets, bits)
        self.shift = 64 - bits
        self.count = count

    cdef int check_index(self) except -1:
        cdef Py_ssize_t bucket, i
        assert self.points[self.count].at == UINT64_MAX
        assert self.points[self.count].owner == (self.points[0].owner if self.count else 0)
        for bucket in range(1 << (64 - self.shift)):
            i = self.buckets[bucket]
            assert i == self.count or self.points[i].at >> self.shift >= <uint64_t>bucket
            assert i == 0 or self.points[i - 1].at >> self.shift < <uint64_t>bucket
        assert self.buckets[<size_t>1 << (64 - self.shift)] == self.count

    cdef inline const hg_point *find(self, uint64_t hash) noexcept nogil:
        return hg_find(self.points, self.buckets, self.shift, hash)


@cython.final
cdef class _View:
    """A table with its nodes: all that a lookup needs, never changed."""

    cdef _Table table
    cdef tuple nodes

    def __cinit__(self, _Table table, tuple nodes):
        self.table = table
        self.nodes = nodes

    cdef inline object owner(self, const hg_key *key):
        if not self.table.count:
            return None
        return self.nodes[self.table.find(hg_xxh64(key.data, key.size, 0)).owner]


cdef int _spread(hg_point *out, bytes name, uint32_t owner, Py_ssize_t count) noexcept:
    """The points of the own scheme for one node."""
    cdef uint64_t base = hg_xxh64(<const unsigned char *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), 0)
    cdef Py_ssize_t i
    for i in range(count):
        out[i].at = hg_splitmix64(base + <uint64_t>i)
        out[i].owner = owner
    return 0


cdef _Table _merged(_Table old, const uint32_t *ranks, hg_point *fresh, size_t fresh_count, dict new_ranks):
    cdef hg_point *spare = <hg_point *>_allocate(fresh_count, sizeof(hg_point))
    cdef _Table table
    try:
        table = _Table(old.count + fresh_count, new_ranks)
        fresh = hg_sort_points(fresh, spare, fresh_count)
        table.seal(hg_merge_points(old.points, old.count, ranks, fresh, fresh_count, table.points))
        return table
    finally:
        free(spare)


cdef _Table _rebuilt(_Table old, list items, Py_ssize_t replicas):
    """The table for `items`, pairs (name, (node, weight)) in rank order, made from the one before."""
    cdef uint32_t *ranks = <uint32_t *>_allocate(len(old.ranks), sizeof(uint32_t))
    cdef hg_point *fresh = NULL
    cdef Py_ssize_t i, total = 0, at = 0
    cdef list added = []
    cdef dict new_ranks = {}
    try:
        for i in range(len(old.ranks)):
            ranks[i] = HG_GONE
        for i in range(len(items)):
            name, (_, weight) = items[i]
            new_ranks[name] = (i, weight)
            known = old.ranks.get(name)
            if known is not None and known[1] == weight:
                ranks[<Py_ssize_t>known[0]] = i
            else:
                count = _point_count(weight, replicas)
                total += count
                added.append((name, i, count))
        if total >= UINT32_MAX - old.count:
            raise MemoryError
        fresh = <hg_point *>_allocate(total, sizeof(hg_point))
        for name, rank, count in added:
            _spread(fresh + at, name, rank, count)
            at += count
        return _merged(old, ranks, fresh, total, new_ranks)
    finally:
        free(ranks)
        free(fresh)


cdef _Table _empty_table():
    cdef _Table table = _Table(0, {})
    table.seal(0)
    return table


cdef list _walk(_View view, const hg_key *key, Py_ssize_t limit):
    """The first `limit` distinct nodes clockwise from the key."""
    cdef _Table table = view.table
    cdef const hg_point *end = table.points + table.count
    cdef const hg_point *point
    cdef Py_ssize_t _step
    cdef list result = []
    cdef char *seen = <char *>_allocate(len(view.nodes), 1)
    memset(seen, 0, len(view.nodes))
    try:
        point = table.find(hg_xxh64(key.data, key.size, 0))
        for _step in range(table.count):
            if len(result) == limit:
                break
            if point == end:
                point = table.points
            if not seen[point.owner]:
                seen[point.owner] = 1
                result.append(view.nodes[point.owner])
            point += 1
        return result
    finally:
        free(seen)


cdef list _shares(_View view):
    """How many of the 2**64 hashes each rank owns."""
    cdef _Table table = view.table
    cdef Py_ssize_t i, nodes = len(view.nodes)
    cdef uint64_t *low = <uint64_t *>_allocate(nodes + 1, 2 * sizeof(uint64_t))
    cdef uint64_t *high = low + nodes + 1
    cdef uint64_t arc, start = 0
    cdef uint32_t owner
    memset(low, 0, (nodes + 1) * 2 * sizeof(uint64_t))
    for i in range(table.count + 1):
        owner = table.points[i].owner
        arc = table.points[i].at - start
        start = table.points[i].at
        low[owner] += arc
        high[owner] += low[owner] < arc
    owner = table.points[0].owner
    low[owner] += 1
    high[owner] += low[owner] == 0
    try:
        return [(<object>high[i] << 64) + low[i] for i in range(nodes)]
    finally:
        free(low)


cdef dict _moved(_View old, _View new):
    """{(old rank or -1, new rank or -1): how many hashes}, where the owners' names differ."""
    cdef _Table a = old.table, b = new.table
    cdef dict moved = {}
    cdef list same = [b.ranks.get(name, (-2,))[0] for name in a.ranks]
    cdef uint64_t end, start = 0
    cdef Py_ssize_t i = 0, j = 0
    while True:
        end = min(a.points[i].at, b.points[j].at)
        was = <Py_ssize_t>a.points[i].owner if a.count else -1
        now = <Py_ssize_t>b.points[j].owner if b.count else -1
        if (same[was] if was >= 0 else -1) != now:
            pair = was, now
            moved[pair] = moved.get(pair, 0) + (end - start) + (i == j == 0)
        if end == UINT64_MAX:
            return moved
        while a.points[i].at == end:
            i += 1
        while b.points[j].at == end:
            j += 1
        start = end


cdef object _hashes_view(object hashes):
    """A memoryview of `hashes`, checked to be words of 64 bits in a row."""
    try:
        view = memoryview(hashes)
    except TypeError:
        raise TypeError(f"hashes must be a buffer of unsigned 64-bit integers, got {hashes!r}") from None
    if view.format.lstrip("@=") not in ("Q", "L") or view.itemsize != 8:
        raise ValueError(f"hashes must hold unsigned 64-bit integers, got format {view.format!r}")
    if view.ndim != 1 or not view.c_contiguous:
        raise ValueError(f"hashes must be one-dimensional and contiguous, got shape {view.shape!r} "
                         f"and strides {view.strides!r}")
    return view


cdef int _locate_all(_Table table, const uint64_t *hashes, Py_ssize_t count, int *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        out[i] = <int>table.find(hashes[i]).owner if table.count else -1
    return 0


cdef class HashRing:
    """Consistent hashing: which node each key belongs to.

    `nodes` is an iterable of nodes, or a mapping of node to weight. A node of weight 1 owns
    `replicas` points on a circle of 64-bit hashes, one of weight w ``max(1, round(w * replicas))``;
    a key belongs to the owner of the first point at or after its hash. More points a node
    balance better: with 100 nodes the fullest holds 1.22 times the mean at 150, 1.11 at 500.

    A node is a ``str``, ``bytes`` or ``int``, or anything for which `node_key` answers one of
    these; that name alone decides where it stands. Placement depends on the membership, not on
    the order of insertion, the process or the platform. A node that joins or leaves moves only
    the keys that it gains or loses.

    `scheme` says how points are placed and keys hashed: ``"headgate"`` takes XXH64 of the name
    as base and splitmix64(base + i) as point i, and XXH64 of the key.

    Keys are ``str`` (hashed as UTF-8), ``bytes``, or ``int`` in [-2**63, 2**63), hashed as 8 bytes
    of little-endian two's complement. Lookups from any thread go on while nodes change.

    Source: Karger et al., "Consistent hashing and random trees", 1997.

    Raises TypeError or ValueError if an argument is of a wrong type or range, ValueError if two
    nodes have one name.

    Complexity: O(p log p) for p points in all, at the first lookup; O(p) for the first lookup
    after any number of changes.

    >>> ring = HashRing(["a", "b", "c"])
    >>> ring.get_node("user:1")
    'a'
    >>> ring.add_node("d", weight=2)
    >>> len(ring.get_nodes("user:1", 2))
    2
    """

    cdef dict _members
    cdef object _node_key
    cdef object _scheme
    cdef Py_ssize_t _replicas
    cdef uint64_t _version
    cdef _Table _table
    cdef _View _view
    cdef object __weakref__

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._members = {}
        self._scheme = "headgate"
        self._replicas = 150
        self._table = _empty_table()

    def __init__(self, nodes=(), replicas=150, *, scheme="headgate", node_key=None):
        replicas = _integer("replicas", replicas)
        if not 1 <= replicas <= _MAX_POINTS:
            raise ValueError(f"replicas must be in [1, {_MAX_POINTS}], got {replicas!r}")
        if scheme != "headgate":
            raise ValueError(f"scheme must be 'headgate', got {scheme!r}")
        if node_key is not None and not callable(node_key):
            raise TypeError(f"node_key must be callable or None, got {node_key!r}")
        self._fill(_weighted(nodes), replicas, scheme, node_key)

    @cython.final
    cdef _fill(self, pairs, replicas, scheme, node_key):
        """Takes on a whole new membership; what was there is dropped last."""
        members = {}
        for node, weight in pairs:
            _join(members, node, _name_bytes(node, node_key), _weight_of(weight, replicas))
        members = dict(sorted(members.items()))
        table = _empty_table()
        with cython.critical_section(self):
            _dropped = self._members, self._view, self._node_key, self._scheme
            self._members, self._node_key, self._scheme = members, node_key, scheme
            self._replicas = replicas
            self._table = table
            self._view = None
            self._version += 1

    @cython.final
    cdef inline _View _current(self):
        """What lookups read: the view of the membership as it is now."""
        cdef _View view
        with cython.critical_section(self):
            view = self._view
        return self._settled() if view is None else view

    @cython.final
    cdef _View _settled(self):
        cdef _View view
        cdef _Table table
        cdef uint64_t version
        while True:
            with cython.critical_section(self):
                version, table = self._version, self._table
                replicas = self._replicas
                items = sorted(self._members.items())
            table = _rebuilt(table, items, replicas)
            view = _View(table, tuple([entry[0] for _, entry in items]))
            with cython.critical_section(self):
                if self._version == version:
                    self._table, self._view = table, view
                    return view

    def add_node(self, node, weight=1):
        """Adds `node`, which takes its share from the others in proportion to `weight`.

        The ring is merged at the next lookup, so a loop of changes costs one merge.

        Raises ValueError if a node of this name is in the ring or `weight` is not positive and
        finite, TypeError if the node's name is neither str, bytes nor int.

        Complexity: O(1).

        >>> ring = HashRing(["a"])
        >>> ring.add_node("b", weight=0.5)
        >>> ring.weights
        {'a': 1, 'b': 0.5}
        """
        name = _name_bytes(node, self._node_key)
        weight = _weight_of(weight, self._replicas)
        with cython.critical_section(self):
            _join(self._members, node, name, weight)
            _dropped = self._changed()

    def remove_node(self, node):
        """Removes `node`; its keys fall to their next nodes, all others stay.

        Raises KeyError if it is not in the ring, TypeError if its name is neither str, bytes
        nor int.

        Complexity: O(1); the next lookup merges.

        >>> ring = HashRing(["a", "b"])
        >>> ring.remove_node("a")
        >>> ring.nodes
        ('b',)
        """
        name = _name_bytes(node, self._node_key)
        with cython.critical_section(self):
            entry = self._members.pop(name, None)
            if entry is not None:
                _dropped = self._changed()
        if entry is None:
            raise KeyError(f"node must be in the ring, got {node!r}")

    @cython.final
    cdef _View _changed(self):
        """Called once a change is made; answers the stale view, for the caller to drop last."""
        view = self._view
        self._view = None
        self._version += 1
        return view

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def get_node(self, key, /):
        """The node that `key` belongs to, or None in an empty ring.

        Raises TypeError if `key` is neither str, bytes nor int, ValueError for an int outside
        [-2**63, 2**63).

        Complexity: O(1) expected.

        >>> HashRing(["a", "b"]).get_node("user:1")
        'a'
        >>> HashRing().get_node("user:1") is None
        True
        """
        cdef hg_key plain
        hg_key_of(key, b"key", &plain)
        view = self._current()
        return view.owner(&plain)

    def get_nodes(self, key, n, /):
        """The first `n` distinct nodes clockwise from `key`, all of them if there are fewer.

        The first is ``get_node(key)``; each next one is where the key falls when those before
        it leave.

        Raises ValueError if `n` is negative, TypeError if it is no int, and for a wrong `key`
        as get_node does.

        Complexity: O(n log n) expected for equal weights.

        >>> HashRing(["a", "b", "c"]).get_nodes("user:1", 2)
        ['a', 'c']
        """
        cdef hg_key plain
        hg_key_of(key, b"key", &plain)
        n = _integer("n", n)
        if n < 0:
            raise ValueError(f"n must not be negative, got {n!r}")
        view = self._current()
        return _walk(view, &plain, min(n, len(view.nodes)))

    def preference(self, key, /):
        """All nodes in the order in which `key` prefers them: get_nodes without a bound.

        Raises TypeError and ValueError for a wrong `key` as get_node does.

        Complexity: O(n log n) expected for n nodes of equal weight.

        >>> HashRing(["a", "b", "c"]).preference("user:1")
        ['a', 'c', 'b']
        """
        cdef hg_key plain
        hg_key_of(key, b"key", &plain)
        view = self._current()
        return _walk(view, &plain, len(view.nodes))

    def get_many(self, keys, /):
        """The list of the nodes that `keys` belong to, all from one state of the ring.

        Raises TypeError if `keys` is no iterable of keys, and for a wrong key as get_node does.

        Complexity: O(1) expected a key.

        >>> HashRing(["a", "b"]).get_many(["user:3", "user:4"])
        ['a', 'b']
        """
        cdef hg_key plain
        cdef _View view
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise TypeError(f"keys must be an iterable of keys, got {keys!r}")
        keys = tuple(keys)
        view = self._current()
        result = []
        for key in <tuple>keys:
            hg_key_of(key, b"key", &plain)
            result.append(view.owner(&plain))
        return result

    def locate(self, hashes, /):
        """For each hash of a buffer, the index in `nodes` of its owner; -1 in an empty ring.

        `hashes` is a contiguous buffer of unsigned 64-bit integers, such as ``array("Q")`` or a
        numpy array; XXH64 of a key is its hash. Answers an ``array("i")``. Other threads run
        meanwhile on the compiled twin.

        Raises TypeError if `hashes` is no buffer, ValueError if it holds other items or is not
        one-dimensional and contiguous.

        Complexity: O(1) expected a hash.

        >>> ring = HashRing(["a", "b"])
        >>> ring.locate(memoryview(bytes(16)).cast("Q"))
        array('i', [0, 0])
        """
        cdef Py_buffer buffer
        cdef _Table table = self._current().table
        cdef array result
        PyObject_GetBuffer(_hashes_view(hashes), &buffer, PyBUF_SIMPLE)
        try:
            result = clone(_INDICES, buffer.len // 8, False)
            with nogil:
                _locate_all(table, <const uint64_t *>buffer.buf, buffer.len // 8, result.data.as_ints)
            return result
        finally:
            PyBuffer_Release(&buffer)

    @property
    def nodes(self):
        """The nodes as a tuple, sorted by their names' bytes.

        Complexity: O(1), or that of a merge after a change.

        >>> HashRing(["b", "a"]).nodes
        ('a', 'b')
        """
        return self._current().nodes

    @property
    def weights(self):
        """A dict of node to weight, in the order of `nodes`.

        Complexity: O(n log n) for n nodes.

        >>> HashRing({"a": 1, "b": 2.5}).weights
        {'a': 1, 'b': 2.5}
        """
        return dict(self._pairs())

    @property
    def replicas(self):
        """How many points a node of weight 1 owns.

        Complexity: O(1).

        >>> HashRing().replicas
        150
        """
        return self._replicas

    @property
    def scheme(self):
        """How points are placed and keys are hashed.

        Complexity: O(1).

        >>> HashRing().scheme
        'headgate'
        """
        return self._scheme

    def ownership(self):
        """A dict of node to the share of all hashes that it owns; the shares sum to 1.

        Complexity: O(p) for p points.

        >>> HashRing(["a"]).ownership()
        {'a': 1.0}
        """
        view = self._current()
        return {node: share / 2**64 for node, share in zip(view.nodes, _shares(view), strict=True)}

    def diff(self, other, /):
        """How placement moves from this ring to `other`: {(old node, new node): share moved}.

        Shares are exact, of all hashes; a node of the same name in both rings has not moved.
        The node of an empty ring is None.

        Raises TypeError if `other` is no ring of this kind.

        Complexity: O(p) for the points of both.

        >>> HashRing(["a"]).diff(HashRing(["b"]))
        {('a', 'b'): 1.0}
        """
        cdef _View old, new
        if not isinstance(other, HashRing):
            raise TypeError(f"other must be a HashRing, got {other!r}")
        old, new = self._current(), (<HashRing>other)._current()
        return {(old.nodes[was] if was >= 0 else None, new.nodes[now] if now >= 0 else None): share / 2**64
                for (was, now), share in _moved(old, new).items()}

    @cython.final
    cdef list _pairs(self):
        """(node, weight) in the order of `nodes`."""
        with cython.critical_section(self):
            return [entry for _, entry in sorted(self._members.items())]

    @cython.final
    cdef tuple _identity(self):
        """What makes two rings equal."""
        with cython.critical_section(self):
            weights = {name: entry[1] for name, entry in self._members.items()}
            return weights, self._replicas, self._scheme

    def __len__(self):
        return len(self._members)

    def __contains__(self, node):
        name = _name_bytes(node, self._node_key)
        return name in self._members

    def __iter__(self):
        return iter(self.nodes)

    def __eq__(self, other):
        if not isinstance(other, HashRing):
            return NotImplemented
        return self._identity() == (<HashRing>other)._identity()

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} replicas={self._replicas} scheme={self._scheme!r}>"

    def __copy__(self):
        cdef HashRing ring = HashRing.__new__(type(self))
        with cython.critical_section(self):
            ring._members = self._members.copy()
            ring._replicas, ring._scheme, ring._node_key = self._replicas, self._scheme, self._node_key
            ring._table, ring._view = self._table, self._view
        return ring

    def __reduce__(self):
        with cython.critical_section(self):
            state = 1, tuple(self._pairs()), self._replicas, self._scheme, self._node_key
        return restore, (name_class(self), state)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, pairs, replicas, scheme, node_key = state
        cdef HashRing ring = HashRing.__new__(cls)
        ring._fill(pairs, replicas, scheme, node_key)
        return ring

    def _check(self):
        """Asserts every invariant of the structure."""
        cdef _View view = self._current()
        cdef _Table table = view.table
        cdef Py_ssize_t i
        items = sorted(self._members.items())
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert table.ranks == {name: (rank, weight) for rank, (name, (_, weight)) in enumerate(items)}
        expected = sorted([
            (splitmix64(xxh64(name) + i), rank)
            for name, (rank, weight) in table.ranks.items()
            for i in range(_point_count(weight, self._replicas))
        ])
        assert expected == [(table.points[i].at, table.points[i].owner) for i in range(table.count)]
        table.check_index()
