# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Consistent-hash placement: which node a key belongs to.

    HashRing
      _members  name bytes -> [(node, weight)]      the truth; a change touches only this ...
      _core     points | buckets | ranks            ... the arrays follow at the next lookup
      _view     _core + (node, node, ...)           what a lookup reads; None after a change

    2**64 - 1 \\  / 0        every node owns points on a circle of 64-bit positions; a key belongs
          o----p0---o        to the owner of the first point at or after its own, found by the
         /  key->   p1       top bits: see ring.h for the arrays. Owners are ranks: node i of
        p5          |        `nodes`. A hash of 32 bits stands in the upper half of a position,
         \\         p2       and the lower half of such points is all ones.
          p4-------p3

Invariants. Points are sorted, equal ones by owner; a table never changes once it is built, so a
lookup that holds a view needs no lock. A change merges: the points of nodes that stay are copied
in one pass with their new ranks, those of new nodes are sorted alone. Any number of changes
between two lookups costs one merge.

Foreign code is `node_key`, a hash function of the user's, the iterators and mappings given, the
`__repr__` of a wrong argument and a warning's hook: all of it runs before anything changes. Nodes
are never hashed or compared, but in the dicts handed out. A collector run or the hash function may
re-enter while a table is built: the version number tells, and the build starts over. References to
nodes are dropped last.
"""
cimport cython
from cpython.array cimport array, clone
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from headgate._c.keys cimport hg_key, hg_key_of
from headgate._c.xxh64 cimport hg_splitmix64, hg_xxh64

from array import array as new_array
from collections import Counter
from collections.abc import Iterable
from types import GenericAlias

from headgate.hashing._compiled import splitmix64, xxh64
from headgate._base.forks import renew
from headgate.placement._members import (
    MaglevRules,
    RaceRules,
    RingRules,
    active,
    admitted,
    arranged,
    checked_bound,
    collected,
    join,
    low_bytes,
    member,
    name_bytes,
    proportions,
    rates,
    weighted,
)
from headgate._base.checks import checked_int, checked_iterable
from headgate.placement._moves import expected_moves
from headgate._base.pickling import carried, carry, initialized, name_class, restore
from headgate.errors import NoServerError


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


cdef extern from "race.h" nogil:
    ctypedef struct hg_racer:
        uint64_t score
        uint32_t rank

    enum:
        HG_LANES

    ctypedef struct hg_prefixes:
        uint32_t *rank
        uint32_t rest_size

    int hg_compare_racers(const void *a, const void *b)
    uint64_t hg_draw(uint64_t base, uint64_t key)
    double hg_time(uint64_t draw, double weight)
    uint64_t hg_score_of_time(double time)
    size_t hg_best_of_equals(const uint64_t *bases, size_t count, uint64_t key)
    size_t hg_best_of_weighted(const uint64_t *bases, const double *weights, size_t count, uint64_t key)
    void hg_murmur_begin(hg_prefixes *all, size_t lane, uint32_t rank, const unsigned char *data, size_t size,
                         uint32_t seed)
    void hg_scores_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *data, size_t size,
                               uint32_t *mixed, hg_racer *racers)
    size_t hg_best_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *data, size_t size,
                               uint32_t *mixed)
    size_t hg_low_bytes(const unsigned char *data, size_t size, unsigned char *out)


cdef extern from "maglev.h" nogil:
    ctypedef struct hg_host:
        uint64_t at
        uint64_t skip
        double weight
        double target

    void hg_maglev(hg_host *hosts, size_t count, double heaviest, uint32_t *table, uint64_t size)


cdef extern from "jump.h" nogil:
    int64_t hg_jump(uint64_t key, int64_t buckets)
    unsigned hg_redis_slot(const unsigned char *data, size_t size)


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


cdef void *_allocate(size_t count, size_t size) except NULL:
    cdef void *memory = malloc((count or 1) * size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef class _View:
    """The nodes after one change and whatever finds them: all that a lookup needs, never changed."""

    cdef tuple nodes
    cdef tuple names
    cdef list weights    # proportions
    cdef list active     # the ranks of the nodes that own something

    cdef int begin(self, hg_key *key) except -1:
        """Does what foreign code is needed for to find a key; a lookup does so if it has not been done."""
        return 0

    cdef int make(self, core, list items, rules) except -1:
        """Derives what lookups need from `items`, pairs (name, (node, weight)), and the core of before."""
        return 0

    cdef object core(self):
        """What the next view may be made from; it holds no node."""
        return None

    cdef Py_ssize_t rank(self, hg_key *key) except -2:
        """The index of a key's node, or -1."""
        return -1

    cdef Py_ssize_t order(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
        """Writes the ranks of the first nodes of a key, returns how many; makes no object once begun."""
        return 0

    cdef list prefer(self, hg_key *key, Py_ssize_t limit):
        """The first nodes of a key."""
        cdef uint32_t *ranks = <uint32_t *>_allocate(limit, sizeof(uint32_t))
        cdef Py_ssize_t i
        try:
            return [self.nodes[ranks[i]] for i in range(self.order(key, limit, ranks))]
        finally:
            free(ranks)

    cdef inline object owner(self, hg_key *key):
        cdef Py_ssize_t rank = self.rank(key)
        return self.nodes[rank] if rank >= 0 else None


cdef class _Placement:
    """Members, and the view of them that lookups read.

    A subclass has a `_rules_class`, and makes the view; `_core` is what one view leaves for the next.
    """

    cdef dict _members
    cdef object _node_key
    cdef object _rules
    cdef object _core
    cdef bint _made
    cdef uint64_t _version
    cdef _View _view
    cdef object __weakref__

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._members = {}
        self._rules = self._rules_class()

    @cython.final
    cdef _fill(self, dict members, rules, node_key, core=None):
        """Take on the first membership; what was there is dropped last."""
        with cython.critical_section(self):
            if self._made:
                raise initialized(self)
            self._made = True
            _dropped = self._members, self._rules, self._node_key, self._core, self._view
            self._members, self._rules, self._node_key, self._core = members, rules, node_key, core
            self._view = None
            self._version += 1

    @cython.final
    cdef _View _changed(self):
        """Called once a change is made; answers the stale view, for the caller to drop last."""
        view = self._view
        self._view = None
        self._version += 1
        return view

    @cython.final
    cdef inline _View _current(self):
        """What lookups read: the view of the members as they are now."""
        cdef _View view
        with cython.critical_section(self):
            view = self._view
        return self._settled() if view is None else view

    @cython.final
    cdef list _arranged(self):
        """The members as pairs (name, (node, weight)) in the order of `nodes`, between two changes."""
        cdef uint64_t version
        while True:
            with cython.critical_section(self):
                version, members, rules = self._version, self._members, self._rules
            items = arranged(members, rules)
            with cython.critical_section(self):
                if self._version == version:
                    return items

    @cython.final
    cdef dict _present(self):
        """The dict of members, which another thread may exchange."""
        with cython.critical_section(self):
            return self._members

    @cython.final
    cdef _View _settled(self):
        cdef _View view
        cdef uint64_t version
        while True:
            with cython.critical_section(self):
                version, rules, core = self._version, self._rules, self._core
                members = self._members
            items = arranged(members, rules)
            view = self._new_view()
            view.nodes = tuple([node for _, (node, _) in items])
            view.names = tuple([name for name, _ in items])
            view.weights = proportions(items)
            view.active = active(items)
            view.make(core, items, rules)
            core = view.core()
            with cython.critical_section(self):
                if self._version == version:
                    self._core, self._view = core, view
                    return view

    cdef _View _new_view(self):
        """A view to be made."""
        return _View()

    def add_node(self, node, weight=1):
        """Adds `node`, which takes its share from the others in proportion to `weight`.

        One of weight 0 is a member that owns nothing. The placement is rebuilt at the next lookup, so a
        loop of changes costs one rebuild.

        Raises ValueError if a node of this name is a member or `weight` is negative or not
        finite, TypeError if the node's name is neither str, bytes nor int.

        Complexity: O(1).

        >>> ring = HashRing(["a"])
        >>> ring.add_node("b", weight=0.5)
        >>> ring.weights
        {'a': 1, 'b': 0.5}
        """
        name, entry = admitted(node, weight, self._node_key, self._rules)
        self._rules.warn(self._present(), {name: entry})
        with cython.critical_section(self):
            join(self._members, name, entry)
            _dropped = self._changed()

    def remove_node(self, node):
        """Removes `node`; its keys fall to the others.

        Raises KeyError if it is no member, TypeError if its name is neither str, bytes nor int.

        Complexity: O(1); the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.remove_node("a")
        >>> ring.nodes
        ('b',)
        """
        name = name_bytes(node, self._node_key)
        with cython.critical_section(self):
            entry = self._members.pop(name, None)
            if entry is not None:
                _dropped = self._changed()
        if entry is None:
            raise KeyError(f"node must be a member, got {node!r}")

    def set_weight(self, node, weight):
        """Gives `node` another weight; 0 leaves it a member that owns nothing, which drains it.

        It is one change: no lookup sees the placement without the node, and but for Maglev only keys that
        the node gains or loses move.

        Raises KeyError if it is no member, ValueError if `weight` is negative or not finite, TypeError if
        it is neither int nor float or the node's name is neither str, bytes nor int.

        Complexity: O(1); the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.set_weight("a", 0)
        >>> ring.weights, ring.get_node("user:1")
        ({'a': 0, 'b': 1}, 'b')
        """
        name, changed = admitted(node, weight, self._node_key, self._rules)
        self._rules.warn(self._present(), {name: changed})
        with cython.critical_section(self):
            entry = member(self._members, name, node)
            entry[0] = entry[0][0], changed[0][1]
            _dropped = self._changed()

    def replace_nodes(self, nodes):
        """Makes `nodes`, an iterable of nodes or a mapping of node to weight, all that there are.

        It is one change: every lookup sees the nodes of before or these. Keys move as they would between
        two placements, so that nodes that stay keep what is theirs.

        Raises ValueError or TypeError as the constructor does, and leaves everything as it was.

        Complexity: O(n) for n nodes; the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.replace_nodes({"b": 1, "c": 2})
        >>> ring.weights
        {'b': 1, 'c': 2}
        """
        members = collected(weighted(nodes), self._node_key, self._rules)
        with cython.critical_section(self):
            _dropped = self._members, self._changed()
            self._members = members

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

    def get_nodes(self, key, n, /):
        """The first `n` distinct nodes in the order in which `key` prefers them, or all that own something.

        The first is ``get_node(key)``. In a HashRing and in Rendezvous each next one is where the
        key falls when those before it leave.

        Raises ValueError if `n` is negative, TypeError if it is no int, and for a wrong `key`
        as get_node does.

        Complexity: O(n log n) expected for equal weights.

        >>> HashRing(["a", "b", "c"]).get_nodes("user:1", 2)
        ['a', 'c']
        """
        cdef hg_key plain
        n = checked_int("n", n)
        if n < 0:
            raise ValueError(f"n must not be negative, got {n!r}")
        hg_key_of(key, b"key", &plain)
        view = self._current()
        return view.prefer(&plain, min(n, len(view.active)))

    def preference(self, key, /):
        """All nodes that own something in the order in which `key` prefers them: get_nodes without a bound.

        Raises TypeError and ValueError for a wrong `key` as get_node does.

        Complexity: O(n log n) expected for n nodes of equal weight.

        >>> HashRing(["a", "b", "c"]).preference("user:1")
        ['a', 'c', 'b']
        """
        cdef hg_key plain
        hg_key_of(key, b"key", &plain)
        view = self._current()
        return view.prefer(&plain, len(view.active))

    def get_many(self, keys, /):
        """The list of the nodes that `keys` belong to, all from one state of the membership.

        Raises TypeError if `keys` is no iterable of keys, and for a wrong key as get_node does.

        Complexity: as get_node for each key.

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

    @property
    def nodes(self):
        """The nodes as a tuple, sorted by their names' bytes; in the order of arrival under a foreign scheme.

        Complexity: O(1), or that of a rebuild after a change.

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
        return {node: weight for _, (node, weight) in self._arranged()}

    def __len__(self):
        return len(self._present())

    def __contains__(self, node):
        name = name_bytes(node, self._node_key)
        return name in self._present()

    def __iter__(self):
        return iter(self.nodes)

    @cython.final
    cdef tuple _identity(self):
        """What makes two placements equal."""
        names = [(name, weight) for name, (_, weight) in self._arranged()]
        return type(self._rules), self._rules.identity(), names

    def __eq__(self, other):
        if not isinstance(other, _Placement):
            return NotImplemented
        return self._identity() == (<_Placement>other)._identity()

    def __copy__(self):
        cdef _Placement other = type(self).__new__(type(self))
        members = {name: [pair] for name, pair in self._arranged()}
        with cython.critical_section(self):
            other._fill(members, self._rules, self._node_key, self._core)
        carry(other, carried(self))
        return other

    def __reduce__(self):
        pairs = tuple([entry for _, entry in self._arranged()])
        state = 1, pairs, *self._rules.arguments, self._node_key
        return restore, (name_class(self), state), carried(self)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, pairs, *arguments, node_key = state
        cdef _Placement self = cls.__new__(cls)
        rules = cls._rules_class(*arguments)
        self._fill(collected(pairs, node_key, rules), rules, node_key)
        return self


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


cdef class _RaceView(_View):
    """What each active node draws with: a base and maybe a rate, or in pymemcache's form a prefix."""

    cdef uint32_t *places    # the ranks of the active nodes
    cdef uint64_t *bases
    cdef double *rates
    cdef hg_prefixes *prefixes
    cdef Py_ssize_t lots
    cdef Py_ssize_t count
    cdef uint64_t seed

    def __dealloc__(self):
        free(self.places)
        free(self.bases)
        free(self.rates)
        free(self.prefixes)

    cdef int make(self, core, list items, rules) except -1:
        cdef Py_ssize_t i
        self.seed, self.count = rules.seed, len(self.active)
        self.places = <uint32_t *>_allocate(self.count, sizeof(uint32_t))
        for i in range(self.count):
            self.places[i] = self.active[i]
        if rules.murmur:
            return self.fill_prefixes(rules.seed)
        self.bases = <uint64_t *>_allocate(self.count, sizeof(uint64_t))
        for i in range(self.count):
            self.bases[i] = xxh64(self.names[self.active[i]])
        if len({items[rank][1][1] for rank in self.active}) > 1:
            self.rates = <double *>_allocate(self.count, sizeof(double))
            for i in range(self.count):
                self.rates[i] = self.weights[self.active[i]]
        return 0

    cdef int fill_prefixes(self, uint32_t seed) except -1:
        """Prefixes that leave as many bytes over fill lots; the last of them fills the lanes that remain."""
        cdef Py_ssize_t at, lane
        cdef list own
        alike = [[], [], [], []]
        for place, rank in enumerate(self.active):
            prefix = low_bytes(self.names[rank]) + b"-"
            alike[len(prefix) % 4].append((place, prefix))
        lots = [own[first:first + HG_LANES] for own in alike for first in range(0, len(own), HG_LANES)]
        self.prefixes = <hg_prefixes *>_allocate(len(lots), sizeof(hg_prefixes))
        self.lots = len(lots)
        for at in range(self.lots):
            own = lots[at]
            for lane in range(HG_LANES):
                place, prefix = own[min(lane, len(own) - 1)]
                hg_murmur_begin(&self.prefixes[at], lane, place,
                                <const unsigned char *>PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix),
                                seed)
        return 0

    cdef Py_ssize_t rank(self, hg_key *key) except -2:
        cdef uint64_t hash
        if self.count == 0:
            return -1
        if self.prefixes != NULL:
            return self.prefix_rank(key)
        hash = hg_xxh64(key.data, key.size, self.seed)
        if self.rates == NULL:
            return self.places[hg_best_of_equals(self.bases, self.count, hash)]
        return self.places[hg_best_of_weighted(self.bases, self.rates, self.count, hash)]

    cdef Py_ssize_t prefix_rank(self, const hg_key *key) except -2:
        cdef uint32_t *mixed = <uint32_t *>_allocate(2 * key.size + 1, 1)
        cdef unsigned char *low = <unsigned char *>&mixed[key.size // 4]
        cdef Py_ssize_t rank = hg_best_of_prefixes(
            self.prefixes, self.lots, low, hg_low_bytes(key.data, key.size, low), mixed)
        free(mixed)
        return self.places[rank]

    cdef int score_prefixes(self, const hg_key *key, hg_racer *racers) except -1:
        cdef uint32_t *mixed = <uint32_t *>_allocate(2 * key.size + 1, 1)
        cdef unsigned char *low = <unsigned char *>&mixed[key.size // 4]
        hg_scores_of_prefixes(
            self.prefixes, self.lots, low, hg_low_bytes(key.data, key.size, low), mixed, racers)
        free(mixed)
        return 0

    cdef int score(self, const hg_key *key, hg_racer *racers) except -1:
        """The score of every active node."""
        cdef uint64_t hash
        cdef Py_ssize_t i
        for i in range(self.count):
            racers[i].rank = self.places[i]
        if self.prefixes != NULL:
            return self.score_prefixes(key, racers)
        hash = hg_xxh64(key.data, key.size, self.seed)
        for i in range(self.count):
            if self.rates != NULL:
                racers[i].score = hg_score_of_time(hg_time(hg_draw(self.bases[i], hash), self.rates[i]))
            else:
                racers[i].score = hg_draw(self.bases[i], hash)
        return 0

    cdef Py_ssize_t order(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
        cdef hg_racer *racers = <hg_racer *>_allocate(self.count, sizeof(hg_racer))
        cdef Py_ssize_t i
        try:
            self.score(key, racers)
            qsort(racers, self.count, sizeof(hg_racer), hg_compare_racers)
            for i in range(limit):
                out[i] = racers[i].rank
            return limit
        finally:
            free(racers)


cdef class Rendezvous(_Placement):
    """Rendezvous(nodes=(), *, scheme="headgate", seed=0, node_key=None)\n--\n
    Rendezvous hashing: every node draws for each key, and the best draw has it.

    `nodes` is an iterable of nodes, or a mapping of node to weight; names and keys are as in HashRing.
    The shares of keys are exactly those of the weights, and a node that joins, leaves or changes its
    weight moves only the keys that it gains or loses. That costs a look at every node for each key.

    The draw of a node is u = splitmix64(XXH64(name) xor XXH64(key, `seed`)) / 2**64, its time
    -ln(u) / weight; the first has the key. `scheme` ``"pymemcache"`` agrees with RendezvousHash of
    that package: murmur3 of ``name-key`` with `seed`, the highest wins, weights are 1. A code point
    counts by its low byte there, and ``bytes`` are read as UTF-8, so that both forms of a key agree.

    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998;
    weights after Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.

    Raises TypeError or ValueError if an argument is of a wrong type or range, ValueError if two
    nodes have one name.

    Complexity: O(n) for n nodes a lookup.

    >>> Rendezvous({"a": 1, "b": 3}).get_node("user:1")
    'b'
    """

    _rules_class = RaceRules

    def __init__(self, nodes=(), *, scheme="headgate", seed=0, node_key=None):
        rules = RaceRules(scheme, seed)
        self._fill(collected(weighted(nodes), node_key, rules), rules, node_key)

    cdef _View _new_view(self):
        return _RaceView()

    @property
    def scheme(self):
        """How nodes draw: ``"headgate"`` or ``"pymemcache"``.

        Complexity: O(1).

        >>> Rendezvous().scheme
        'headgate'
        """
        return self._rules.scheme

    @property
    def seed(self):
        """What the hash of a key starts from.

        Complexity: O(1).

        >>> Rendezvous(seed=7).seed
        7
        """
        return self._rules.seed

    def ownership(self):
        """A dict of node to the share of all keys that it has: its part of the weights.

        Complexity: O(n) for n nodes.

        >>> Rendezvous({"a": 1, "b": 3}).ownership()
        {'a': 0.25, 'b': 0.75}
        """
        items = self._arranged()
        weights = proportions(items)
        total = sum(weights) or 1
        return {node: weight / total for (_, (node, _)), weight in zip(items, weights, strict=True)}

    def diff(self, other, /):
        """How placement moves from here to `other`: {(old node, new node): share of all keys}.

        Shares are expected values in closed form. A node of the same name in both has not moved;
        the node of an empty placement is None.

        Raises TypeError if `other` is no Rendezvous, ValueError if its scheme or seed differs.

        Complexity: O(n * m) for the nodes of both.

        >>> Rendezvous(["a"]).diff(Rendezvous(["a", "b"]))
        {('a', 'b'): 0.5}
        """
        if not isinstance(other, Rendezvous):
            raise TypeError(f"other must be a Rendezvous, got {other!r}")
        if self._rules.arguments != (<Rendezvous>other)._rules.arguments:
            raise ValueError(f"other must hash keys as this placement does, got {other!r}")
        olds, news = self._arranged(), (<Rendezvous>other)._arranged()
        old, new, moves = dict(olds), dict(news), expected_moves(rates(olds), rates(news))
        return {(old[was][0] if was is not None else None, new[now][0] if now is not None else None): share
                for (was, now), share in moves.items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} scheme={self.scheme!r} seed={self.seed!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = <_RaceView>self._current()
        items = arranged(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert view.active == active(items)
        assert view.count == len(view.active)
        assert (view.prefixes != NULL) == self._rules.murmur
        assert [view.places[at] for at in range(view.count)] == view.active
        places = {view.prefixes[at].rank[lane] for at in range(view.lots) for lane in range(HG_LANES)}
        assert places == (set(range(view.count)) if self._rules.murmur else set())
        assert (view.rates != NULL) == (len({weight for _, (_, weight) in items if weight}) > 1)


cdef class _MaglevView(_View):
    """Envoy's table: the rank of the node of each slot."""

    cdef uint32_t *table
    cdef uint64_t size

    def __dealloc__(self):
        free(self.table)

    cdef int make(self, core, list items, rules) except -1:
        cdef hg_host *hosts = NULL
        cdef Py_ssize_t i, rank
        cdef uint64_t size = rules.size, slot
        self.size = size
        if not self.active:
            return 0
        total = sum(self.weights)
        try:
            hosts = <hg_host *>_allocate(len(self.active), sizeof(hg_host))
            for i, rank in enumerate(self.active):
                hosts[i].at = <uint64_t>xxh64(self.names[rank]) % size
                hosts[i].skip = <uint64_t>xxh64(self.names[rank], 1) % (size - 1) + 1
                hosts[i].weight = self.weights[rank] / total
                hosts[i].target = 0
            self.table = <uint32_t *>_allocate(size, sizeof(uint32_t))
            hg_maglev(hosts, len(self.active), max(self.weights) / total, self.table, size)
            for slot in range(size):
                self.table[slot] = self.active[self.table[slot]]
            return 0
        finally:
            free(hosts)

    cdef Py_ssize_t rank(self, hg_key *key) except -2:
        return self.table[hg_xxh64(key.data, key.size, 0) % self.size] if self.table != NULL else -1

    cdef Py_ssize_t order(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
        cdef uint64_t slot = hg_xxh64(key.data, key.size, 0) % self.size, at
        cdef uint32_t rank
        cdef Py_ssize_t found = 0
        cdef char *seen = <char *>_allocate(len(self.nodes), 1)
        memset(seen, 0, len(self.nodes))
        for at in range(slot, slot + self.size):
            if found == limit:
                break
            rank = self.table[at if at < self.size else at - self.size]
            if not seen[rank]:
                seen[rank] = 1
                out[found] = rank
                found += 1
        free(seen)
        return found

    cdef list slots(self):
        """The rank of each slot; one of -1 where there is no node."""
        cdef uint64_t i
        if self.table == NULL:
            return [-1] * <Py_ssize_t>self.size
        return [self.table[i] for i in range(self.size)]


cdef class Maglev(_Placement):
    """Maglev(nodes=(), size=65537, *, node_key=None)\n--\n
    Maglev hashing: a table of `size` slots, each a node's; a key has the slot XXH64(key) % size.

    `nodes` is an iterable of nodes, or a mapping of node to weight; names and keys are as in HashRing.
    The table is Envoy's: nodes are sorted by name and claim, in turns, the next free slot of a
    permutation of their own, those of smaller weight in fewer turns. Shares are even within a slot,
    and lookups are the cheapest; but a change of nodes also moves some keys between those that stay.

    `size` is a prime, well above the number of nodes.

    Source: Eisenbud et al., "Maglev: a fast and reliable software network load balancer", 2016;
    maglev_lb.cc of Envoy 1.40.

    Raises TypeError or ValueError if an argument is of a wrong type or range, ValueError if two
    nodes have one name.

    Complexity: O(1) a lookup; O(size) and more for the table after any number of changes.

    >>> Maglev(["a", "b", "c"]).get_node("user:1")
    'a'
    """

    _rules_class = MaglevRules

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

    def __init__(self, nodes=(), size=65537, *, node_key=None):
        rules = MaglevRules(size)
        self._fill(collected(weighted(nodes), node_key, rules), rules, node_key)

    cdef _View _new_view(self):
        return _MaglevView()

    @property
    def size(self):
        """How many slots the table has.

        Complexity: O(1).

        >>> Maglev().size
        65537
        """
        return self._rules.size

    def ownership(self):
        """A dict of node to the share of the slots that it has.

        Complexity: O(size).

        >>> Maglev(["a", "b"], 5).ownership()
        {'a': 0.6, 'b': 0.4}
        """
        view = <_MaglevView>self._current()
        slots = Counter(view.slots())
        return {node: slots[rank] / self.size for rank, node in enumerate(view.nodes)}

    def diff(self, other, /):
        """How placement moves from here to `other`: {(old node, new node): share of the slots}.

        A node of the same name in both has not moved; the node of an empty placement is None.

        Raises TypeError if `other` is no Maglev, ValueError if its size differs.

        Complexity: O(size).

        >>> Maglev(["a"]).diff(Maglev(["b"]))
        {('a', 'b'): 1.0}
        """
        cdef _MaglevView old, new
        if not isinstance(other, Maglev):
            raise TypeError(f"other must be a Maglev, got {other!r}")
        if self.size != other.size:
            raise ValueError(f"other must have {self.size} slots too, got {other!r}")
        old, new = <_MaglevView>self._current(), <_MaglevView>(<Maglev>other)._current()
        names, new_names = (*old.names, None), (*new.names, None)
        nodes, new_nodes = (*old.nodes, None), (*new.nodes, None)
        return {(nodes[was], new_nodes[now]): slots / self.size
                for (was, now), slots in Counter(zip(old.slots(), new.slots(), strict=True)).items()
                if names[was] != new_names[now]}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} size={self.size}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = <_MaglevView>self._current()
        items = arranged(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        slots = Counter(view.slots())
        assert len(view.slots()) == self.size
        assert view.active == active(items)
        assert set(slots) <= set(view.active or [-1])
        if len({weight for _, (_, weight) in items if weight}) == 1:
            shares = [slots[rank] for rank in view.active]
            assert max(shares) - min(shares) <= 1


def jump_hash(key, buckets, /):
    """The bucket, in [0, buckets), that jump consistent hashing gives `key`.

    From n to n + 1 buckets 1 / (n + 1) of the keys move, all to the new one; buckets leave only at
    the end. An ``int`` in [-2**63, 2**64) is the hash itself, modulo 2**64; a ``str`` or ``bytes`` is
    hashed by XXH64.

    Source: Lamping and Veach, "A fast, minimal memory, consistent hash algorithm", 2014.

    Raises TypeError if `key` is neither str, bytes nor int or `buckets` is no int, ValueError if
    they are out of range; `buckets` is in [1, 2**31].

    Complexity: O(log buckets).

    >>> jump_hash(256, 1024)
    520
    """
    cdef hg_key plain
    cdef uint64_t hash
    if isinstance(key, int):
        if not -2**63 <= int.__pos__(key) < 2**64:
            raise ValueError(f"key must be in [-2**63, 2**64), got {key!r}")
        hash = PyLong_AsUnsignedLongLongMask(key)
    else:
        hg_key_of(key, b"key", &plain)
        hash = hg_xxh64(plain.data, plain.size, 0)
    buckets = checked_int("buckets", buckets)
    if not 1 <= buckets <= 2**31:
        raise ValueError(f"buckets must be in [1, 2**31], got {buckets!r}")
    return hg_jump(hash, buckets)


def redis_slot(key, /):
    """The slot, in [0, 16384), of `key` in a Redis or Valkey cluster.

    What stands between the first ``{`` and the next ``}`` is hashed alone, unless it is empty: keys
    with one such tag share a slot. The hash is CRC-16/XMODEM.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

    Raises TypeError if `key` is neither str, bytes nor int, ValueError for an int outside
    [-2**63, 2**63).

    Complexity: O(len(key)).

    >>> redis_slot("{user1000}.following") == redis_slot("{user1000}.followers")
    True
    """
    cdef hg_key plain
    hg_key_of(key, b"key", &plain)
    return hg_redis_slot(plain.data, plain.size)


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
