# The ring of points.
cimport cython
from cpython.array cimport array, clone
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from headgate._c.keys cimport hg_key
from headgate._c.xxh64 cimport hg_splitmix64

from array import array as new_array

from headgate.hashing._compiled import splitmix64, xxh64
from headgate.placement._members import (
    RingRules,
    active_ranks,
    make_members,
    ordered_members,
    weighted_nodes,
)


cdef extern from "keyhash.h" nogil:
    int HG_XXH64, HG_GIVEN_HASH, HG_MD5, HG_MD5_TOP, HG_CRC32, HG_CRC32_15, HG_ONE_AT_A_TIME, HG_FNV1A_64
    int HG_SDBM, HG_DJB2, HG_WT6, HG_AVALANCHE
    uint64_t hg_hash_key(int kind, const unsigned char *data, size_t size)


cdef extern from "ring.h" nogil:
    ctypedef struct hg_point:
        uint64_t at
        uint32_t owner

    hg_point *hg_sort_points(hg_point *points, hg_point *spare, size_t count)
    size_t hg_merge_points(const hg_point *old, size_t old_count, const uint32_t *ranks,
                           const hg_point *added, size_t added_count, hg_point *out)
    int hg_bits(size_t count)
    void hg_index(const hg_point *points, size_t count, uint32_t *buckets, int bits)
    const hg_point *hg_find(const hg_point *points, const uint32_t *buckets, int shift, uint64_t hash)
    int hg_before_is_nearer(const hg_point *before, const hg_point *after, uint64_t hash)
    void hg_midpoints(const hg_point *points, size_t count, hg_point *out)


cdef array _INDICES = new_array("i")
cdef dict _KEY_HASHES = {
    "xxh64": HG_XXH64,
    "md5": HG_MD5,
    "md5_top": HG_MD5_TOP,
    "crc32": HG_CRC32,
    "crc32_15": HG_CRC32_15,
    "one_at_a_time": HG_ONE_AT_A_TIME,
    "fnv1a_64": HG_FNV1A_64,
    "sdbm": HG_SDBM,
    "djb2": HG_DJB2,
    "wt6": HG_WT6,
    "sdbm_avalanche": HG_SDBM | HG_AVALANCHE,
    "djb2_avalanche": HG_DJB2 | HG_AVALANCHE,
    "wt6_avalanche": HG_WT6 | HG_AVALANCHE,
    "crc32_avalanche": HG_CRC32 | HG_AVALANCHE,
}


@cython.final
cdef class _Table:
    """The arrays of a ring for one membership; immutable once it is finished and indexed."""

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

    cdef _Table finish(self, Py_ssize_t count):
        """Sets the sentinel behind the points."""
        self.points[count].at = UINT64_MAX
        self.points[count].owner = self.points[0].owner if count else 0
        self.count = count
        return self

    cdef _Table index(self):
        cdef int bits = hg_bits(self.count)
        self.buckets = <uint32_t *>_allocate((<size_t>1 << bits) + 1, sizeof(uint32_t))
        hg_index(self.points, self.count, self.buckets, bits)
        self.shift = 64 - bits
        return self

    cdef int check_index(self) except -1:
        cdef Py_ssize_t bucket, i
        assert self.points[self.count].at == UINT64_MAX
        assert self.points[self.count].owner == (self.points[0].owner if self.count else 0)
        for bucket in range(1 << (64 - self.shift)):
            i = self.buckets[bucket]
            assert i == self.count or self.points[i].at >> self.shift >= <uint64_t>bucket
            assert i == 0 or self.points[i - 1].at >> self.shift < <uint64_t>bucket
        assert self.buckets[<size_t>1 << (64 - self.shift)] == self.count

    cdef inline const hg_point *find(self, uint64_t position) noexcept nogil:
        """The first point at or after `position`, which may be the sentinel."""
        return hg_find(self.points, self.buckets, self.shift, position)

    cdef inline const hg_point *wrap(self, const hg_point *point) noexcept nogil:
        """The point, with the first after the last and the last before the first."""
        if point < self.points:
            return self.points + self.count - 1
        return <const hg_point *>self.points if point == self.points + self.count else point


cdef int _own_points(hg_point *out, uint64_t base, uint32_t owner, Py_ssize_t count) except -1:
    """The points of one node under headgate's own scheme."""
    cdef Py_ssize_t i
    for i in range(count):
        out[i].at = hg_splitmix64(base + <uint64_t>i)
        out[i].owner = owner
    return 0


cdef int _copy_points(hg_point *out, points, uint32_t owner, bint wide) except -1:
    """The points of one node under a foreign scheme; points of 32 bits are shifted to the upper half."""
    cdef uint64_t point
    cdef Py_ssize_t i = 0
    for point in points:
        out[i].at = point if wide else point << 32 | UINT32_MAX
        out[i].owner = owner
        i += 1
    return 0


cdef _Table _merge(_Table old, const uint32_t *ranks, dict added, rules, dict new_ranks):
    """The table of the old points, with owners mapped by `ranks`, and of the points of `added`.

    `added` is rank -> (name, weight).
    """
    cdef bint own = rules.program is None
    hash = xxh64 if rules.own is None else rules.own.hash
    cdef Py_ssize_t total = 0, at = 0
    cdef hg_point *new_points = NULL
    cdef hg_point *spare = NULL
    cdef _Table table
    if own:
        points_of_nodes = counts = [rules.count(weight) for _, weight in added.values()]
    else:
        names, weights = [name for name, _ in added.values()], [weight for _, weight in added.values()]
        points_of_nodes = rules.program.points(names, weights)
        counts = [len(points) for points in points_of_nodes]
    for count in counts:
        total += count
    if total >= UINT32_MAX - old.count:
        raise MemoryError
    try:
        new_points = <hg_point *>_allocate(total, sizeof(hg_point))
        spare = <hg_point *>_allocate(total, sizeof(hg_point))
        for (rank, (name, _)), points, count in zip(added.items(), points_of_nodes, counts, strict=True):
            if own:
                _own_points(new_points + at, hash(name), rank, count)
            else:
                _copy_points(new_points + at, points, rank, rules.program.wide)
            at += count
        table = _Table(old.count + total, new_ranks)
        at = hg_merge_points(old.points, old.count, ranks,
                             hg_sort_points(new_points, spare, total), total, table.points)
        return table.finish(at).index()
    finally:
        free(new_points)
        free(spare)


cdef _Table _rebuild_table(_Table old, list items, rules):
    """The table for `items`, pairs (name, (node, weight)) by rank, made from the previous table.

    The points of a node are kept if its weight and its order among the other nodes kept are the same.
    """
    if old is None or (rules.program is not None and not rules.program.points_per_weight):
        old = _Table(0, {}).finish(0)
    cdef Py_ssize_t last = -1, old_rank, rank
    cdef dict new_ranks = {}, added = {}
    cdef uint32_t *ranks = <uint32_t *>_allocate(len(old.ranks), sizeof(uint32_t))
    memset(ranks, 0xFF, len(old.ranks) * sizeof(uint32_t))  # HG_REMOVED
    try:
        for rank in range(len(items)):
            name, (_, weight) = items[rank]
            new_ranks[name] = rank, weight
            old_rank, old_weight = old.ranks.get(name, (-1, None))
            if old_rank > last and old_weight == weight:
                last = old_rank
                ranks[last] = rank
            elif weight:
                added[rank] = name, weight
        return _merge(old, ranks, added, rules, new_ranks)
    finally:
        free(ranks)


cdef class _RingView(_View):
    cdef _Table table
    cdef int hash_kind
    cdef int shift
    cdef bint exclusive
    cdef bint nearest
    cdef object hash    # the user's function, if `hash_kind` is HG_GIVEN_HASH

    cdef int build(self, core, list items, rules) except -1:
        self.table = _rebuild_table(core, items, rules)
        if rules.program is not None:
            self.hash_kind = _KEY_HASHES[rules.program.key_hash]
            self.shift = 0 if rules.program.wide else 32
            self.exclusive = rules.program.exclusive
            self.nearest = rules.program.nearest
        elif rules.own is not None:
            self.hash_kind, self.hash = HG_GIVEN_HASH, rules.own.hash
        return 0

    cdef int prepare(self, hg_key *key) except -1:
        """Stores the hash of a key by the user's function in the key, marked by NULL as data."""
        cdef uint64_t hash
        if self.hash_kind == HG_GIVEN_HASH and key.data != NULL:
            hash = self.hash(PyBytes_FromStringAndSize(<const char *>key.data, key.size))
            memcpy(key.word, &hash, sizeof(hash))
            key.data = NULL
        return 0

    cdef inline uint64_t position(self, hg_key *key) except? 0:
        cdef uint64_t hash
        if self.hash_kind != HG_GIVEN_HASH:
            return self.at(hg_hash_key(self.hash_kind, key.data, key.size))
        self.prepare(key)
        memcpy(&hash, key.word, sizeof(hash))
        return hash

    cdef inline uint64_t at(self, uint64_t hash) noexcept nogil:
        """The position on the ring of a hash of the scheme."""
        return (hash + self.exclusive) << self.shift

    cdef inline const hg_point *find(self, uint64_t position) noexcept nogil:
        cdef const hg_point *point = self.table.find(position)
        cdef const hg_point *before
        if self.nearest:
            before = self.table.wrap(point - 1)
            if hg_before_is_nearer(before, self.table.wrap(point), position):
                return before
        return point

    cdef object core(self):
        return self.table

    cdef Py_ssize_t rank(self, hg_key *key) except -2:
        return self.find(self.position(key)).owner if self.table.count else -1

    cdef Py_ssize_t preference(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
        cdef _Table table = self.table
        cdef uint64_t position = self.position(key)
        cdef const hg_point *after = table.wrap(table.find(position))
        cdef const hg_point *before = table.wrap(after - 1)
        cdef const hg_point *point
        cdef Py_ssize_t _step, found = 0
        cdef char *seen = <char *>_allocate(len(self.nodes), 1)
        memset(seen, 0, len(self.nodes))
        for _step in range(table.count):
            if found == limit:
                break
            if self.nearest and hg_before_is_nearer(before, after, position):
                point = before
                before = table.wrap(before - 1)
            else:
                point = after
                after = table.wrap(after + 1)
            if not seen[point.owner]:
                seen[point.owner] = 1
                out[found] = point.owner
                found += 1
        free(seen)
        return found

    cdef int locate(self, const uint64_t *hashes, Py_ssize_t count, int *out) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(count):
            out[i] = <int>self.find(self.at(hashes[i])).owner if self.table.count else -1
        return 0

    cdef _Table arcs(self):
        """A table whose points are the last positions of the arcs of their owners."""
        if not self.nearest:
            return self.table
        cdef _Table table = _Table(self.table.count, self.table.ranks)
        hg_midpoints(self.table.points, self.table.count, table.points)
        return table.finish(self.table.count)


cdef list _shares(_RingView view):
    """How many of the 2**64 positions the node of each rank owns."""
    cdef _Table table = view.arcs()
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
        return [(<object>high[i] << 64) + low[i] if table.count else 0 for i in range(nodes)]
    finally:
        free(low)


cdef dict _moved_positions(_RingView old, _RingView new):
    """{(old rank or -1, new rank or -1): how many positions}, where the owners' names differ."""
    cdef _Table a = old.arcs(), b = new.arcs()
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


cdef object _checked_hashes(object hashes):
    """A memoryview of `hashes`, checked to be contiguous and of unsigned 64-bit integers."""
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


cdef class HashRing(_Placement):
    """HashRing(nodes=(), replicas=150, *, scheme="headgate", node_key=None)\n--\n
    Consistent hashing: which node each key belongs to.

    `nodes` is an iterable of nodes, or a mapping of node to weight. A node of weight 1 owns
    `replicas` points on a circle of 64-bit hashes, one of weight w ``max(1, round(w * replicas))``;
    a key belongs to the owner of the first point at or after its hash. More points per node balance
    better: of 100 nodes the most loaded has 1.22 times the mean at 150 points, 1.11 at 500.

    A node is a ``str``, ``bytes`` or ``int``, or any object for which `node_key` returns one of
    these; its points depend on that name only. A node of weight 0 owns no keys. Placement depends
    on the membership, not on insertion order, process or platform. Adding or removing a node moves
    only the keys that it gains or loses.

    `scheme` determines how points are placed and keys are hashed: ``"headgate"`` uses XXH64 of the
    name as base, splitmix64(base + i) as point i, and XXH64 of the key. ``"libmemcached"``,
    ``"uhashring"``, ``"twemproxy"``, ``"nginx"``, ``"envoy"`` and ``"haproxy"`` place keys as these
    programs do; weights are then ints and `replicas` is not used. See headgate.schemes for their
    options, and for ``headgate(hash=...)``, which replaces XXH64 by another hash function.

    Keys are ``str`` (hashed as UTF-8), ``bytes``, or ``int`` in [-2**63, 2**63), hashed as 8 bytes
    of little-endian two's complement. Lookups in any thread continue while nodes change.

    Source: Karger et al., "Consistent hashing and random trees", 1997.

    Raises TypeError or ValueError if an argument has a wrong type or is out of range, ValueError if
    two nodes have the same name.

    Complexity: O(p) for p points in total, at the first lookup and at the first after any number of
    changes.

    >>> ring = HashRing(["a", "b", "c"])
    >>> ring.get_node("user:1")
    'a'
    >>> ring.add_node("d", weight=2)
    >>> len(ring.get_nodes("user:1", 2))
    2
    """

    _rules_class = RingRules

    def __init__(self, nodes=(), replicas=150, *, scheme="headgate", node_key=None):
        rules = RingRules(replicas, scheme)
        self._initialize(make_members(weighted_nodes(nodes), node_key, rules), rules, node_key)

    cdef _View _new_view(self):
        return _RingView()

    def locate(self, hashes, /):
        """Returns an ``array("i")``: for each hash of a buffer, the index of its owner in `nodes`.

        `hashes` is a contiguous buffer of unsigned 64-bit integers, such as ``array("Q")`` or a
        numpy array: hashes of keys under the scheme, which is XXH64 for headgate's own, taken modulo
        2**32 if the scheme has 32 bits. In an empty ring every index is -1. The compiled twin releases
        the GIL.

        Raises TypeError if `hashes` is not a buffer, ValueError if it has other items or is not
        one-dimensional and contiguous.

        Complexity: O(1) expected per hash.

        >>> ring = HashRing(["a", "b"])
        >>> ring.locate(memoryview(bytes(16)).cast("Q"))
        array('i', [0, 0])
        """
        cdef Py_buffer buffer
        cdef _RingView view = <_RingView>self._current_view()
        cdef array result
        PyObject_GetBuffer(_checked_hashes(hashes), &buffer, PyBUF_SIMPLE)
        try:
            result = clone(_INDICES, buffer.len // 8, False)
            with nogil:
                view.locate(<const uint64_t *>buffer.buf, buffer.len // 8, result.data.as_ints)
            return result
        finally:
            PyBuffer_Release(&buffer)

    @property
    def replicas(self):
        """The number of points of a node of weight 1 under headgate's own scheme.

        Complexity: O(1).

        >>> HashRing().replicas
        150
        """
        return self._rules.replicas

    @property
    def scheme(self):
        """The scheme by which points are placed and keys are hashed, as given to the constructor.

        Complexity: O(1).

        >>> HashRing().scheme
        'headgate'
        """
        return self._rules.arguments[1]

    def ownership(self):
        """A dict of node to the share of all hashes that it owns; the shares sum to 1.

        Complexity: O(p) for p points.

        >>> HashRing(["a"]).ownership()
        {'a': 1.0}
        """
        view = <_RingView>self._current_view()
        return {node: share / 2**64 for node, share in zip(view.nodes, _shares(view), strict=True)}

    def diff(self, other, /):
        """How placement moves from this ring to `other`: {(old node, new node): share moved}.

        Shares are exact, of all hashes; a node of the same name in both rings has not moved.
        The node of an empty ring is None.

        Raises TypeError if `other` is not a HashRing, ValueError if it hashes keys differently.

        Complexity: O(p) for the points of both.

        >>> HashRing(["a"]).diff(HashRing(["b"]))
        {('a', 'b'): 1.0}
        """
        cdef _RingView old, new
        if not isinstance(other, HashRing):
            raise TypeError(f"other must be a HashRing, got {other!r}")
        if self._rules.hashing() != (<HashRing>other)._rules.hashing():
            raise ValueError(f"other must hash keys as this ring does, got {other!r}")
        old, new = <_RingView>self._current_view(), <_RingView>(<HashRing>other)._current_view()
        return {(old.nodes[was] if was >= 0 else None, new.nodes[now] if now >= 0 else None): share / 2**64
                for (was, now), share in _moved_positions(old, new).items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} replicas={self.replicas} scheme={self.scheme!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = <_RingView>self._current_view()
        cdef _Table table = view.table
        cdef Py_ssize_t i
        items = ordered_members(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert table.ranks == {name: (rank, weight) for rank, (name, (_, weight)) in enumerate(items)}
        assert view.active == active_ranks(items)
        program, own_hash = self._rules.program, self._rules.own
        hash = xxh64 if own_hash is None else own_hash.hash
        names, weights = [view.names[i] for i in view.active], [items[i][1][1] for i in view.active]
        if program is None:
            placed = [[splitmix64(hash(name) + i) for i in range(self._rules.count(weight))]
                      for name, weight in zip(names, weights, strict=True)]
        else:
            placed = program.points(names, weights)
        placed = zip(view.active, placed, strict=True)
        expected = sorted([(point, rank) for rank, own in placed for point in own])
        narrow = 32 if program is not None and not program.wide else 0
        assert expected == [(table.points[i].at >> narrow, table.points[i].owner) for i in range(table.count)]
        table.check_index()
