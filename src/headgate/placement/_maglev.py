"""Maglev in pure Python."""

from array import array
from collections import Counter
from itertools import chain

from headgate.hashing._pure import _xxh64_bytes
from headgate.placement._base import _key_hash, _Placement, _View
from headgate.placement._members import (
    MaglevRules,
    active_ranks,
    make_members,
    ordered_members,
    weighted_nodes,
)


def _maglev_table(names, weights, ranks, size):
    """Envoy's table: in turns, each of the nodes of `ranks` claims the next free slot of its permutation."""
    total = sum(weights)
    shares = [weights[rank] / total for rank in ranks]
    next_slots = [_xxh64_bytes(names[rank]) % size for rank in ranks]
    skips = [_xxh64_bytes(names[rank], 1) % (size - 1) + 1 for rank in ranks]
    targets, heaviest = [0.0] * len(ranks), max(shares)
    table, filled, turn = array("i", [-1]) * size, 0, 0
    while True:
        turn += 1
        for i, share in enumerate(shares):
            if turn * share < targets[i]:
                continue
            targets[i] += heaviest
            slot = next_slots[i]
            while table[slot] >= 0:
                slot = (slot + skips[i]) % size
            table[slot] = ranks[i]
            next_slots[i] = (slot + skips[i]) % size
            filled += 1
            if filled == size:
                return table


class _MaglevView(_View):
    """The rank of the owner of each slot; -1 if there are no nodes."""

    __slots__ = ("table",)

    def __init__(self, change, items, size):
        super().__init__(change, items)
        empty = array("i", [-1]) * size
        self.table = _maglev_table(self.names, self.weights, self.active, size) if self.active else empty

    def rank(self, key):
        return self.table[_key_hash(key) % len(self.table)]

    def preference(self, key, limit):
        slot = _key_hash(key) % len(self.table)
        seen: dict = {}
        for rank in chain(self.table[slot:], self.table[:slot]):
            if len(seen) == limit:
                break
            seen[rank] = None
        return list(seen)


class Maglev(_Placement):
    """Maglev hashing: a table of `size` slots, each owned by a node; a key is in slot XXH64(key) % size.

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

    __slots__ = ()

    _rules_class = MaglevRules

    def __init__(self, nodes=(), size=65537, *, node_key=None):
        rules = MaglevRules(size)
        self._initialize(make_members(weighted_nodes(nodes), node_key, rules), rules, node_key)

    def _make_view(self, change, items):
        return _MaglevView(change, items, self._rules.size)

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
        view = self._current_view()
        slots = Counter(view.table)
        return {node: slots[rank] / self.size for rank, node in enumerate(view.nodes)}

    def diff(self, other, /):
        """How placement moves from this one to `other`: {(old node, new node): share of the slots}.

        A node of the same name in both has not moved; the node of an empty placement is None.

        Raises TypeError if `other` is not a Maglev, ValueError if its size differs.

        Complexity: O(size).

        >>> Maglev(["a"]).diff(Maglev(["b"]))
        {('a', 'b'): 1.0}
        """
        if not isinstance(other, Maglev):
            raise TypeError(f"other must be a Maglev, got {other!r}")
        if self.size != other.size:
            raise ValueError(f"other must have {self.size} slots too, got {other!r}")
        old, new = self._current_view(), other._current_view()
        names, new_names = (*old.names, None), (*new.names, None)
        nodes, new_nodes = (*old.nodes, None), (*new.nodes, None)
        return {(nodes[was], new_nodes[now]): slots / self.size
                for (was, now), slots in Counter(zip(old.table, new.table, strict=True)).items()
                if names[was] != new_names[now]}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} size={self.size}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current_view()
        items = ordered_members(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        slots = Counter(view.table)
        assert len(view.table) == self.size
        assert view.active == active_ranks(items)
        assert set(slots) <= set(view.active or [-1])
        if len({weight for _, (_, weight) in items if weight}) == 1:
            shares = [slots[rank] for rank in view.active]
            assert max(shares) - min(shares) <= 1
