from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, qsort

from headgate._c.keys cimport hg_key
from headgate._c.xxh64 cimport hg_xxh64

from headgate.hashing._compiled import xxh64
from headgate.placement._members import (
    RaceRules,
    active,
    arranged,
    collected,
    low_bytes,
    proportions,
    rates,
    weighted,
)
from headgate.placement._moves import expected_moves


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
