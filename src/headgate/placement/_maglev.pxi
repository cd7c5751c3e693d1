# Maglev.
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from headgate._c.keys cimport hg_key
from headgate._c.xxh64 cimport hg_xxh64

from collections import Counter

from headgate.hashing._compiled import xxh64
from headgate.placement._members import (
    MaglevRules,
    active_ranks,
    make_members,
    ordered_members,
    weighted_nodes,
)


cdef extern from "maglev.h" nogil:
    ctypedef struct hg_maglev_node:
        uint64_t next
        uint64_t skip
        double weight
        double target

    void hg_maglev(hg_maglev_node *nodes, size_t count, double heaviest, uint32_t *table, uint64_t size)


cdef class _MaglevView(_View):
    """The rank of the owner of each slot."""

    cdef uint32_t *table
    cdef uint64_t size

    def __dealloc__(self):
        free(self.table)

    cdef int build(self, core, list items, rules) except -1:
        cdef hg_maglev_node *nodes = NULL
        cdef Py_ssize_t i, rank
        cdef uint64_t size = rules.size, slot
        self.size = size
        if not self.active:
            return 0
        total = sum(self.weights)
        try:
            nodes = <hg_maglev_node *>_allocate(len(self.active), sizeof(hg_maglev_node))
            for i, rank in enumerate(self.active):
                nodes[i].next = <uint64_t>xxh64(self.names[rank]) % size
                nodes[i].skip = <uint64_t>xxh64(self.names[rank], 1) % (size - 1) + 1
                nodes[i].weight = self.weights[rank] / total
                nodes[i].target = 0
            self.table = <uint32_t *>_allocate(size, sizeof(uint32_t))
            hg_maglev(nodes, len(self.active), max(self.weights) / total, self.table, size)
            for slot in range(size):
                self.table[slot] = self.active[self.table[slot]]
            return 0
        finally:
            free(nodes)

    cdef Py_ssize_t rank(self, hg_key *key) except -2:
        return self.table[hg_xxh64(key.data, key.size, 0) % self.size] if self.table != NULL else -1

    cdef Py_ssize_t preference(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
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
        """The rank of the owner of each slot; -1 if there are no nodes."""
        cdef uint64_t i
        if self.table == NULL:
            return [-1] * <Py_ssize_t>self.size
        return [self.table[i] for i in range(self.size)]


cdef class Maglev(_Placement):
    """Maglev(nodes=(), size=65537, *, node_key=None)\n--\n
    Maglev hashing: a table of `size` slots, each owned by a node; a key is in slot XXH64(key) % size.

    `nodes` is an iterable of nodes, or a mapping of node to weight; names and keys are as in HashRing.
    The table is the same as Envoy's: nodes are sorted by name and take turns to claim the next free
    slot of their own permutation, nodes of smaller weight in fewer turns. The shares of equal nodes
    differ by at most one slot, and lookups are the cheapest; but a change of nodes also moves some
    keys between the nodes that stay.

    `size` is a prime, well above the number of nodes.

    Source: Eisenbud et al., "Maglev: a fast and reliable software network load balancer", 2016;
    maglev_lb.cc of Envoy 1.40.

    Raises TypeError or ValueError if an argument has a wrong type or is out of range, ValueError if
    two nodes have the same name.

    Complexity: O(1) per lookup; at least O(size) for the first after any number of changes.

    >>> Maglev(["a", "b", "c"]).get_node("user:1")
    'a'
    """

    _rules_class = MaglevRules

    def __init__(self, nodes=(), size=65537, *, node_key=None):
        rules = MaglevRules(size)
        self._initialize(make_members(weighted_nodes(nodes), node_key, rules), rules, node_key)

    cdef _View _new_view(self):
        return _MaglevView()

    @property
    def size(self):
        """The number of slots of the table.

        Complexity: O(1).

        >>> Maglev().size
        65537
        """
        return self._rules.size

    def ownership(self):
        """A dict of node to the share of the slots that it owns.

        Complexity: O(size).

        >>> Maglev(["a", "b"], 5).ownership()
        {'a': 0.6, 'b': 0.4}
        """
        view = <_MaglevView>self._current_view()
        slots = Counter(view.slots())
        return {node: slots[rank] / self.size for rank, node in enumerate(view.nodes)}

    def diff(self, other, /):
        """How placement moves from this one to `other`: {(old node, new node): share of the slots}.

        A node of the same name in both has not moved; the node of an empty placement is None.

        Raises TypeError if `other` is not a Maglev, ValueError if its size differs.

        Complexity: O(size).

        >>> Maglev(["a"]).diff(Maglev(["b"]))
        {('a', 'b'): 1.0}
        """
        cdef _MaglevView old, new
        if not isinstance(other, Maglev):
            raise TypeError(f"other must be a Maglev, got {other!r}")
        if self.size != other.size:
            raise ValueError(f"other must have {self.size} slots too, got {other!r}")
        old, new = <_MaglevView>self._current_view(), <_MaglevView>(<Maglev>other)._current_view()
        names, new_names = (*old.names, None), (*new.names, None)
        nodes, new_nodes = (*old.nodes, None), (*new.nodes, None)
        return {(nodes[was], new_nodes[now]): slots / self.size
                for (was, now), slots in Counter(zip(old.slots(), new.slots(), strict=True)).items()
                if names[was] != new_names[now]}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} size={self.size}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = <_MaglevView>self._current_view()
        items = ordered_members(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        slots = Counter(view.slots())
        assert len(view.slots()) == self.size
        assert view.active == active_ranks(items)
        assert set(slots) <= set(view.active or [-1])
        if len({weight for _, (_, weight) in items if weight}) == 1:
            shares = [slots[rank] for rank in view.active]
            assert max(shares) - min(shares) <= 1
