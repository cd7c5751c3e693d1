cimport cython
from cpython.array cimport array, clone
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from headgate._c.keys cimport hg_key, hg_key_of
from headgate._c.xxh64 cimport hg_splitmix64

from array import array as new_array

from headgate.hashing._compiled import splitmix64, xxh64
from headgate.placement._members import RingRules, active, arranged, collected, weighted


cdef extern from "keyhash.h" nogil:
    int HG_XXH64, HG_WORD, HG_MD5, HG_MD5_TOP, HG_CRC32, HG_CRC32_15, HG_ONE_AT_A_TIME, HG_FNV1A_64
    int HG_SDBM, HG_DJB2, HG_WT6, HG_AVALANCHE
    uint64_t hg_hash_key(int kind, const unsigned char *data, size_t size)


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

    cdef _Table close(self, Py_ssize_t count):
        """Sets the sentinel, once the points are in place."""
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
        """The first point at or after `position`, maybe the sentinel."""
        return hg_find(self.points, self.buckets, self.shift, position)

    cdef inline const hg_point *wrap(self, const hg_point *point) noexcept nogil:
        """The point itself, on the circle: past the last comes the first, before the first the last."""
        if point < self.points:
            return self.points + self.count - 1
        return <const hg_point *>self.points if point == self.points + self.count else point


cdef int _spread(hg_point *out, uint64_t base, uint32_t owner, Py_ssize_t count) except -1:
    """The points of our own scheme for one node."""
    cdef Py_ssize_t i
    for i in range(count):
        out[i].at = hg_splitmix64(base + <uint64_t>i)
        out[i].owner = owner
    return 0


cdef int _copy_points(hg_point *out, points, uint32_t owner, bint wide) except -1:
    """The points of a foreign scheme for one node; those of 32 bits go to the upper half."""
    cdef uint64_t point
    cdef Py_ssize_t i = 0
    for point in points:
        out[i].at = point if wide else point << 32 | UINT32_MAX
        out[i].owner = owner
        i += 1
    return 0


cdef _Table _merged(_Table old, const uint32_t *ranks, dict added, rules, dict new_ranks):
    """The table of what `ranks` keeps of the old one, and the points of `added`, rank -> (name, weight)."""
    cdef bint own = rules.program is None
    hash = xxh64 if rules.own is None else rules.own.hash
    cdef Py_ssize_t total = 0, at = 0
    cdef hg_point *fresh = NULL
    cdef hg_point *spare = NULL
    cdef _Table table
    if own:
        placed = [rules.count(weight) for _, weight in added.values()]
        sizes = placed
    else:
        names, weights = [name for name, _ in added.values()], [weight for _, weight in added.values()]
        placed = rules.program.points(names, weights)
        sizes = [len(points) for points in placed]
    for size in sizes:
        total += size
    if total >= UINT32_MAX - old.count:
        raise MemoryError
    try:
        fresh = <hg_point *>_allocate(total, sizeof(hg_point))
        spare = <hg_point *>_allocate(total, sizeof(hg_point))
        for (rank, (name, _)), points, size in zip(added.items(), placed, sizes, strict=True):
            if own:
                _spread(fresh + at, hash(name), rank, size)
            else:
                _copy_points(fresh + at, points, rank, rules.program.wide)
            at += size
        table = _Table(old.count + total, new_ranks)
        at = hg_merge_points(old.points, old.count, ranks,
                             hg_sort_points(fresh, spare, total), total, table.points)
        return table.close(at).index()
    finally:
        free(fresh)
        free(spare)


cdef _Table _rebuilt(_Table old, list items, rules):
    """The table for `items`, pairs (name, (node, weight)) in rank order, made from the one before.

    Points of nodes that stay are kept, as long as they stay in the order of before.
    """
    if old is None or (rules.program is not None and not rules.program.points_per_weight):
        old = _Table(0, {}).close(0)
    cdef Py_ssize_t last = -1, known, rank
    cdef dict new_ranks = {}, added = {}
    cdef uint32_t *ranks = <uint32_t *>_allocate(len(old.ranks), sizeof(uint32_t))
    memset(ranks, 0xFF, len(old.ranks) * sizeof(uint32_t))
    try:
        for rank in range(len(items)):
            name, (_, weight) = items[rank]
            new_ranks[name] = rank, weight
            known, known_weight = old.ranks.get(name, (-1, None))
            if known > last and known_weight == weight:
                last = known
                ranks[last] = rank
            elif weight:
                added[rank] = name, weight
        return _merged(old, ranks, added, rules, new_ranks)
    finally:
        free(ranks)


cdef class _RingView(_View):
    cdef _Table table
    cdef int hash_kind
    cdef int shift
    cdef bint exclusive
    cdef bint nearest
    cdef object hash    # the user's, if `hash_kind` is that of a word

    cdef int make(self, core, list items, rules) except -1:
        self.table = _rebuilt(core, items, rules)
        if rules.program is not None:
            self.hash_kind = _KEY_HASHES[rules.program.key_hash]
            self.shift = 0 if rules.program.wide else 32
            self.exclusive = rules.program.exclusive
            self.nearest = rules.program.nearest
        elif rules.own is not None:
            self.hash_kind, self.hash = HG_WORD, rules.own.hash
        return 0

    cdef int begin(self, hg_key *key) except -1:
        """Puts the user's hash of a key in its place, marked by the lack of data."""
        cdef uint64_t hash
        if self.hash_kind == HG_WORD and key.data != NULL:
            hash = self.hash(PyBytes_FromStringAndSize(<const char *>key.data, key.size))
            memcpy(key.word, &hash, sizeof(hash))
            key.data = NULL
        return 0

    cdef inline uint64_t position(self, hg_key *key) except? 0:
        cdef uint64_t hash
        if self.hash_kind != HG_WORD:
            return self.at(hg_hash_key(self.hash_kind, key.data, key.size))
        self.begin(key)
        memcpy(&hash, key.word, sizeof(hash))
        return hash

    cdef inline uint64_t at(self, uint64_t hash) noexcept nogil:
        """The position on the circle of a hash of the scheme."""
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

    cdef Py_ssize_t order(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
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
        """A table whose points are the last positions of the arcs that their owners have."""
        if not self.nearest:
            return self.table
        cdef _Table table = _Table(self.table.count, self.table.ranks)
        hg_midpoints(self.table.points, self.table.count, table.points)
        return table.close(self.table.count)


cdef list _shares(_RingView view):
    """How many of the 2**64 positions each rank owns."""
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


cdef dict _moved(_RingView old, _RingView new):
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


cdef class HashRing(_Placement):
    """HashRing(nodes=(), replicas=150, *, scheme="headgate", node_key=None)\n--\n
    Consistent hashing: which node each key belongs to.

    `nodes` is an iterable of nodes, or a mapping of node to weight. A node of weight 1 owns
    `replicas` points on a circle of 64-bit hashes, one of weight w ``max(1, round(w * replicas))``;
    a key belongs to the owner of the first point at or after its hash. More points a node
    balance better: with 100 nodes the fullest holds 1.22 times the mean at 150, 1.11 at 500.

    A node is a ``str``, ``bytes`` or ``int``, or anything for which `node_key` returns one of
    these; that name alone decides where it stands. A node of weight 0 owns nothing. Placement depends
    on the membership, not on the order of insertion, the process or the platform. A node that joins
    or leaves moves only the keys that it gains or loses.

    `scheme` says how points are placed and keys hashed: ``"headgate"`` takes XXH64 of the name
    as base and splitmix64(base + i) as point i, and XXH64 of the key. ``"libmemcached"``,
    ``"uhashring"``, ``"twemproxy"``, ``"nginx"``, ``"envoy"`` and ``"haproxy"`` agree with these
    programs, weights being ints then and `replicas` unused; see headgate.schemes for their options,
    and for ``headgate(hash=...)``, which takes another hash function than XXH64.

    Keys are ``str`` (hashed as UTF-8), ``bytes``, or ``int`` in [-2**63, 2**63), hashed as 8 bytes
    of little-endian two's complement. Lookups from any thread go on while nodes change.

    Source: Karger et al., "Consistent hashing and random trees", 1997.

    Raises TypeError or ValueError if an argument is of a wrong type or range, ValueError if two
    nodes have one name.

    Complexity: O(p) for p points in all, at the first lookup and the first after any number of
    changes.

    >>> ring = HashRing(["a", "b", "c"])
    >>> ring.get_node("user:1")
    'a'
    >>> ring.add_node("d", weight=2)
    >>> len(ring.get_nodes("user:1", 2))
    2
    """

    _rules_class = RingRules

    # Not inherited: CPython 3.11 specialises a call only for the class that defines the method.
    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.embedsignature.format("clinic")
    def get_node(self, key, /):
        """The node that `key` belongs to, or None if there is none.

        Raises TypeError if `key` is neither str, bytes nor int, ValueError for an int outside
        [-2**63, 2**63).

        Complexity: O(1) expected; O(n) for n nodes in Rendezvous.

        >>> HashRing(["a", "b"]).get_node("user:1")
        'a'
        >>> HashRing().get_node("user:1") is None
        True
        """
        cdef hg_key plain
        hg_key_of(key, b"key", &plain)
        return self._current().owner(&plain)

    def __init__(self, nodes=(), replicas=150, *, scheme="headgate", node_key=None):
        rules = RingRules(replicas, scheme)
        self._fill(collected(weighted(nodes), node_key, rules), rules, node_key)

    cdef _View _new_view(self):
        return _RingView()

    def locate(self, hashes, /):
        """For each hash of a buffer, the index in `nodes` of its owner; -1 in an empty ring.

        `hashes` is a contiguous buffer of unsigned 64-bit integers, such as ``array("Q")`` or a
        numpy array: what the scheme hashes keys to, XXH64 for our own, modulo 2**32 where a scheme
        has 32 bits. Answers an ``array("i")``. Other threads run meanwhile on the compiled twin.

        Raises TypeError if `hashes` is no buffer, ValueError if it holds other items or is not
        one-dimensional and contiguous.

        Complexity: O(1) expected a hash.

        >>> ring = HashRing(["a", "b"])
        >>> ring.locate(memoryview(bytes(16)).cast("Q"))
        array('i', [0, 0])
        """
        cdef Py_buffer buffer
        cdef _RingView view = <_RingView>self._current()
        cdef array result
        PyObject_GetBuffer(_hashes_view(hashes), &buffer, PyBUF_SIMPLE)
        try:
            result = clone(_INDICES, buffer.len // 8, False)
            with nogil:
                view.locate(<const uint64_t *>buffer.buf, buffer.len // 8, result.data.as_ints)
            return result
        finally:
            PyBuffer_Release(&buffer)

    @property
    def replicas(self):
        """How many points a node of weight 1 owns under our own scheme.

        Complexity: O(1).

        >>> HashRing().replicas
        150
        """
        return self._rules.replicas

    @property
    def scheme(self):
        """How points are placed and keys are hashed, as it was given.

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
        view = <_RingView>self._current()
        return {node: share / 2**64 for node, share in zip(view.nodes, _shares(view), strict=True)}

    def diff(self, other, /):
        """How placement moves from this ring to `other`: {(old node, new node): share moved}.

        Shares are exact, of all hashes; a node of the same name in both rings has not moved.
        The node of an empty ring is None.

        Raises TypeError if `other` is no HashRing, ValueError if it hashes keys otherwise.

        Complexity: O(p) for the points of both.

        >>> HashRing(["a"]).diff(HashRing(["b"]))
        {('a', 'b'): 1.0}
        """
        cdef _RingView old, new
        if not isinstance(other, HashRing):
            raise TypeError(f"other must be a HashRing, got {other!r}")
        if self._rules.hashing() != (<HashRing>other)._rules.hashing():
            raise ValueError(f"other must hash keys as this ring does, got {other!r}")
        old, new = <_RingView>self._current(), <_RingView>(<HashRing>other)._current()
        return {(old.nodes[was] if was >= 0 else None, new.nodes[now] if now >= 0 else None): share / 2**64
                for (was, now), share in _moved(old, new).items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} replicas={self.replicas} scheme={self.scheme!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = <_RingView>self._current()
        cdef _Table table = view.table
        cdef Py_ssize_t i
        items = arranged(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert table.ranks == {name: (rank, weight) for rank, (name, (_, weight)) in enumerate(items)}
        assert view.active == active(items)
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
