# Rendezvous hashing.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, qsort

from headgate._c.keys cimport hg_key
from headgate._c.xxh64 cimport hg_xxh64

from headgate.hashing._compiled import xxh64
from headgate.placement._members import (
    RendezvousRules,
    active_ranks,
    active_weights,
    low_bytes,
    make_members,
    normalized_weights,
    ordered_members,
    weighted_nodes,
)
from headgate.placement._moves import expected_moves


cdef extern from "rendezvous.h" nogil:
    ctypedef struct hg_candidate:
        uint64_t score
        uint32_t rank

    enum:
        HG_LANES

    ctypedef struct hg_prefixes:
        uint32_t *rank
        uint32_t rest_size

    int hg_compare_candidates(const void *a, const void *b)
    uint64_t hg_draw(uint64_t name_hash, uint64_t key_hash)
    double hg_distance(uint64_t draw, double weight)
    uint64_t hg_score_of_distance(double distance)
    size_t hg_best_of_equals(const uint64_t *name_hashes, size_t count, uint64_t key_hash)
    size_t hg_best_of_weighted(const uint64_t *name_hashes, const double *weights, size_t count,
                               uint64_t key_hash)
    void hg_murmur_begin(hg_prefixes *all, size_t lane, uint32_t rank, const unsigned char *data, size_t size,
                         uint32_t seed)
    void hg_scores_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *data, size_t size,
                               uint32_t *mixed, hg_candidate *candidates)
    size_t hg_best_of_prefixes(const hg_prefixes *all, size_t count, const unsigned char *data, size_t size,
                               uint32_t *mixed)
    size_t hg_low_bytes(const unsigned char *data, size_t size, unsigned char *out)


cdef class _RendezvousView(_View):
    """Per active node the hash of its name and, if weights differ, its weight; or pymemcache's prefix."""

    cdef uint32_t *ranks    # of the active nodes
    cdef uint64_t *name_hashes
    cdef double *active_weights
    cdef hg_prefixes *prefixes
    cdef Py_ssize_t groups    # of prefixes
    cdef Py_ssize_t count     # of active nodes
    cdef uint64_t seed

    def __dealloc__(self):
        free(self.ranks)
        free(self.name_hashes)
        free(self.active_weights)
        free(self.prefixes)

    cdef int build(self, core, list items, rules) except -1:
        cdef Py_ssize_t i
        self.seed, self.count = rules.seed, len(self.active)
        self.ranks = <uint32_t *>_allocate(self.count, sizeof(uint32_t))
        for i in range(self.count):
            self.ranks[i] = self.active[i]
        if rules.murmur:
            return self.fill_prefixes(rules.seed)
        self.name_hashes = <uint64_t *>_allocate(self.count, sizeof(uint64_t))
        for i in range(self.count):
            self.name_hashes[i] = xxh64(self.names[self.active[i]])
        if len({items[rank][1][1] for rank in self.active}) > 1:
            self.active_weights = <double *>_allocate(self.count, sizeof(double))
            for i in range(self.count):
                self.active_weights[i] = self.weights[self.active[i]]
        return 0

    cdef int fill_prefixes(self, uint32_t seed) except -1:
        """Groups prefixes of equal length modulo 4; the last prefix of a group fills the unused lanes."""
        cdef Py_ssize_t at, lane
        cdef list group
        by_remainder = [[], [], [], []]
        for index, rank in enumerate(self.active):
            prefix = low_bytes(self.names[rank]) + b"-"
            by_remainder[len(prefix) % 4].append((index, prefix))
        groups = [alike[first:first + HG_LANES] for alike in by_remainder
                  for first in range(0, len(alike), HG_LANES)]
        self.prefixes = <hg_prefixes *>_allocate(len(groups), sizeof(hg_prefixes))
        self.groups = len(groups)
        for at in range(self.groups):
            group = groups[at]
            for lane in range(HG_LANES):
                index, prefix = group[min(lane, len(group) - 1)]
                hg_murmur_begin(&self.prefixes[at], lane, index,
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
        if self.active_weights == NULL:
            return self.ranks[hg_best_of_equals(self.name_hashes, self.count, hash)]
        return self.ranks[hg_best_of_weighted(self.name_hashes, self.active_weights, self.count, hash)]

    cdef Py_ssize_t prefix_rank(self, const hg_key *key) except -2:
        cdef uint32_t *mixed = <uint32_t *>_allocate(2 * key.size + 1, 1)
        cdef unsigned char *low = <unsigned char *>&mixed[key.size // 4]
        cdef Py_ssize_t rank = hg_best_of_prefixes(
            self.prefixes, self.groups, low, hg_low_bytes(key.data, key.size, low), mixed)
        free(mixed)
        return self.ranks[rank]

    cdef int score_prefixes(self, const hg_key *key, hg_candidate *candidates) except -1:
        cdef uint32_t *mixed = <uint32_t *>_allocate(2 * key.size + 1, 1)
        cdef unsigned char *low = <unsigned char *>&mixed[key.size // 4]
        hg_scores_of_prefixes(
            self.prefixes, self.groups, low, hg_low_bytes(key.data, key.size, low), mixed, candidates)
        free(mixed)
        return 0

    cdef int score(self, const hg_key *key, hg_candidate *candidates) except -1:
        """The score of every active node."""
        cdef uint64_t hash, score
        cdef Py_ssize_t i
        for i in range(self.count):
            candidates[i].rank = self.ranks[i]
        if self.prefixes != NULL:
            return self.score_prefixes(key, candidates)
        hash = hg_xxh64(key.data, key.size, self.seed)
        for i in range(self.count):
            score = hg_draw(self.name_hashes[i], hash)
            if self.active_weights != NULL:
                score = hg_score_of_distance(hg_distance(score, self.active_weights[i]))
            candidates[i].score = score
        return 0

    cdef Py_ssize_t preference(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
        cdef hg_candidate *candidates = <hg_candidate *>_allocate(self.count, sizeof(hg_candidate))
        cdef Py_ssize_t i
        try:
            self.score(key, candidates)
            qsort(candidates, self.count, sizeof(hg_candidate), hg_compare_candidates)
            for i in range(limit):
                out[i] = candidates[i].rank
            return limit
        finally:
            free(candidates)


cdef class Rendezvous(_Placement):
    """Rendezvous(nodes=(), *, scheme="headgate", seed=0, node_key=None)\n--\n
    Rendezvous hashing: every node has a score for each key, and the highest score owns the key.

    `nodes` is an iterable of nodes, or a mapping of node to weight; names and keys are as in HashRing.
    Keys are shared exactly in proportion to the weights, and adding, removing or reweighting a node
    moves only the keys that it gains or loses. In return, a lookup computes the score of every node.

    With u = splitmix64(XXH64(name) xor XXH64(key, `seed`)) / 2**64, the score of a node is
    ln(u) / weight. `scheme` ``"pymemcache"`` places keys as RendezvousHash of that package does: the
    score is murmur3 of ``name-key`` with `seed`, and weights are 1. Only the low byte of each code
    point is hashed there, and ``bytes`` are decoded as UTF-8, so that both forms of a key agree.

    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998;
    weights after Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.

    Raises TypeError or ValueError if an argument has a wrong type or is out of range, ValueError if
    two nodes have the same name.

    Complexity: O(n) per lookup for n nodes.

    >>> Rendezvous({"a": 1, "b": 3}).get_node("user:1")
    'b'
    """

    _rules_class = RendezvousRules

    def __init__(self, nodes=(), *, scheme="headgate", seed=0, node_key=None):
        rules = RendezvousRules(scheme, seed)
        self._initialize(make_members(weighted_nodes(nodes), node_key, rules), rules, node_key)

    cdef _View _new_view(self):
        return _RendezvousView()

    @property
    def scheme(self):
        """The scheme by which scores are computed: ``"headgate"`` or ``"pymemcache"``.

        Complexity: O(1).

        >>> Rendezvous().scheme
        'headgate'
        """
        return self._rules.scheme

    @property
    def seed(self):
        """The seed of the hash of a key.

        Complexity: O(1).

        >>> Rendezvous(seed=7).seed
        7
        """
        return self._rules.seed

    def ownership(self):
        """A dict of node to the share of all keys that it owns: its weight over the sum of all weights.

        Complexity: O(n) for n nodes.

        >>> Rendezvous({"a": 1, "b": 3}).ownership()
        {'a': 0.25, 'b': 0.75}
        """
        items = self._ordered_members()
        weights = normalized_weights(items)
        total = sum(weights) or 1
        return {node: weight / total for (_, (node, _)), weight in zip(items, weights, strict=True)}

    def diff(self, other, /):
        """How placement moves from this one to `other`: {(old node, new node): share of all keys}.

        Shares are expected values in closed form. A node of the same name in both has not moved;
        the node of an empty placement is None.

        Raises TypeError if `other` is not a Rendezvous, ValueError if its scheme or seed differs.

        Complexity: O(n * m) for the nodes of both.

        >>> Rendezvous(["a"]).diff(Rendezvous(["a", "b"]))
        {('a', 'b'): 0.5}
        """
        if not isinstance(other, Rendezvous):
            raise TypeError(f"other must be a Rendezvous, got {other!r}")
        if self._rules.arguments != (<Rendezvous>other)._rules.arguments:
            raise ValueError(f"other must hash keys as this placement does, got {other!r}")
        olds, news = self._ordered_members(), (<Rendezvous>other)._ordered_members()
        old, new, moves = dict(olds), dict(news), expected_moves(active_weights(olds), active_weights(news))
        return {(old[was][0] if was is not None else None, new[now][0] if now is not None else None): share
                for (was, now), share in moves.items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} scheme={self.scheme!r} seed={self.seed!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = <_RendezvousView>self._current_view()
        items = ordered_members(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert view.active == active_ranks(items)
        assert view.count == len(view.active)
        assert (view.prefixes != NULL) == self._rules.murmur
        assert [view.ranks[at] for at in range(view.count)] == view.active
        indices = {view.prefixes[at].rank[lane] for at in range(view.groups) for lane in range(HG_LANES)}
        assert indices == (set(range(view.count)) if self._rules.murmur else set())
        assert (view.active_weights != NULL) == (len({weight for _, (_, weight) in items if weight}) > 1)
