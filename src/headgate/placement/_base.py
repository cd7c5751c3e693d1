"""What the placements of the pure twin share: members, changes and the view that lookups read."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from types import GenericAlias

from headgate._base.checks import checked_int
from headgate._base.keys import key_bytes
from headgate._base.pickling import carried, carry, initialized, name_class, restore
from headgate.hashing._pure import _xxh64_bytes
from headgate.placement._members import (
    active_ranks,
    add_member,
    checked_node,
    find_member,
    make_members,
    name_bytes,
    normalized_weights,
    ordered_members,
    weighted_nodes,
)
from headgate.placement._zones import candidates, count_zones, spread, zone_lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@lru_cache(maxsize=4096)
def _short_hash(key):
    """XXH64 of a short str, cached because services look up the same keys repeatedly."""
    return _xxh64_bytes(key.encode())


def _key_hash(key):
    if type(key) is str and len(key) <= 64:
        return _short_hash(key)
    return _xxh64_bytes(key_bytes(key, "key"))


class _View:
    """An immutable snapshot of the nodes, with the data structure that lookups search.

    `weights` are normalized, `active` has the ranks of the nodes of a weight above 0, and `change` is the
    token of the last change before it. A subclass has `rank(key)`, the rank of a key's node, its index in
    `nodes`, or -1 if there is none, and `preference(key, limit)`, the ranks of a key's first nodes.
    """

    __slots__ = ("active", "change", "names", "nodes", "weights")

    if TYPE_CHECKING:
        preference: Any
        rank: Any

    def __init__(self, change, items):
        """`items` are pairs (name, (node, weight)) in the order of `nodes`."""
        self.change = change
        self.names = tuple([name for name, _ in items])
        self.weights = normalized_weights(items)
        self.active = active_ranks(items)
        self.nodes = tuple([node for _, (node, _) in items])

    def prepare(self, key):
        """The checked key, in a form whose lookup runs no foreign code."""
        key_bytes(key, "key")
        return key


_STALE = _View(None, ())


class _Placement:
    """Members, and the view of them that lookups read.

    A subclass has a `_rules_class` and `_make_view(change, items)`; in `_core` it keeps what the next view
    is built from. There is no lock: each change of the members is one step, and an edit of a dict of members
    that is being replaced happened before the replacement.
    """

    __slots__ = ("__weakref__", "_change", "_core", "_initialized", "_members", "_node_key", "_rules",
                 "_view")

    if TYPE_CHECKING:
        __class_getitem__: Any
        _initialized: bool
        _make_view: Any
        _rules_class: Any

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._assign({}, cls._rules_class(), None)
        self._initialized = False
        return self

    def _initialize(self, members, rules, node_key, core=None):
        """Sets the first members."""
        if self._initialized:
            raise initialized(self)
        self._initialized = True
        self._assign(members, rules, node_key, core)

    def _assign(self, members, rules, node_key, core=None):
        """Replaces the members and all that belongs to them."""
        self._members, self._rules, self._node_key, self._core = members, rules, node_key, core
        self._invalidate()

    def _invalidate(self):
        """Called after each change: drops the view, which is stale, and with it its references to nodes."""
        self._change = object()
        self._view = _STALE

    def _current_view(self):
        """The view of the current members."""
        view = self._view
        return view if view.change is self._change else self._rebuild()

    def _ordered_members(self):
        """The token of the last change, and a consistent list of the members in the order of `nodes`."""
        while True:
            change = self._change
            items = ordered_members(self._members, self._rules)
            if change is self._change:
                return change, items

    def _rebuild(self):
        view = self._view = self._make_view(*self._ordered_members())
        return view

    def add_node(self, node, weight=1):
        """Adds `node`, which takes its share from the others in proportion to `weight`.

        A node of weight 0 is a member that owns no keys. The placement is rebuilt at the next lookup, so
        any number of changes in a row costs one rebuild.

        Raises ValueError if a node of this name is already a member or `weight` is negative or not
        finite, TypeError if the node's name is neither str, bytes nor int.

        Complexity: O(1).

        >>> ring = HashRing(["a"])
        >>> ring.add_node("b", weight=0.5)
        >>> ring.weights
        {'a': 1, 'b': 0.5}
        """
        name, entry = checked_node(node, weight, self._node_key, self._rules)
        self._rules.warn(self._members, {name: entry})
        add_member(self._members, name, entry)
        self._invalidate()

    def remove_node(self, node):
        """Removes `node`; its keys move to the others.

        Raises KeyError if it is not a member, TypeError if its name is neither str, bytes nor int.

        Complexity: O(1); the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.remove_node("a")
        >>> ring.nodes
        ('b',)
        """
        if self._members.pop(name_bytes(node, self._node_key), None) is None:
            raise KeyError(f"node must be a member, got {node!r}")
        self._invalidate()

    def set_weight(self, node, weight):
        """Changes the weight of `node`; with 0 it remains a member that owns no keys, which drains it.

        This is one change: no lookup sees the placement without the node, and except in Maglev only keys
        that the node gains or loses move.

        Raises KeyError if it is not a member, ValueError if `weight` is negative or not finite, TypeError if
        it is neither int nor float or the node's name is neither str, bytes nor int.

        Complexity: O(1); the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.set_weight("a", 0)
        >>> ring.weights, ring.get_node("user:1")
        ({'a': 0, 'b': 1}, 'b')
        """
        name, changed = checked_node(node, weight, self._node_key, self._rules)
        entry = find_member(self._members, name, node)
        self._rules.warn(self._members, {name: changed})
        entry[0] = entry[0][0], changed[0][1]
        self._invalidate()

    def replace_nodes(self, nodes):
        """Replaces all nodes by `nodes`, an iterable of nodes or a mapping of node to weight.

        This is one change: every lookup sees either the old nodes or the new ones. Only the keys move that
        the two placements assign to different nodes.

        Raises ValueError or TypeError as the constructor does, and then changes nothing.

        Complexity: O(n) for n nodes; the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.replace_nodes({"b": 1, "c": 2})
        >>> ring.weights
        {'b': 1, 'c': 2}
        """
        self._members = make_members(weighted_nodes(nodes), self._node_key, self._rules)
        self._invalidate()

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
        view = self._view
        if view.change is not self._change:
            view = self._rebuild()
        rank = view.rank(key)
        return view.nodes[rank] if rank >= 0 else None

    def get_nodes(self, key, n, /, *, zones=None):
        """The first `n` distinct nodes in the preference order of `key`, or all that own keys if fewer.

        The first is ``get_node(key)``. In HashRing and Rendezvous each further one is the node that the
        key moves to when those before it are removed.

        With `zones`, a mapping of node to zone or a callable that returns it, the first node of each zone
        comes before all others: no two of the `n` are in one zone while there is a zone without any, so that
        replicas survive the loss of racks or data centers. Adding or removing a node replaces at most one of
        a key's `n` nodes then too, in HashRing and Rendezvous. A zone is any hashable object but None.

        Raises ValueError if `n` is negative or a node has no zone, TypeError if `n` is not an int or `zones`
        is neither, what a callable raises, and for a wrong `key` as get_node does. Only the zones of nodes
        that are considered are looked up.

        Complexity: O(n log n) expected for equal weights; the same with `zones` if there are more than `n`,
        else up to that of preference.

        Source: the replicas over racks are those of Cassandra's NetworkTopologyStrategy in one data center.

        >>> ring = HashRing(["a", "b", "c"])
        >>> ring.get_nodes("user:1", 2)
        ['a', 'c']
        >>> ring.get_nodes("user:1", 2, zones={"a": "east", "b": "west", "c": "east"})
        ['a', 'b']
        """
        n = checked_int("n", n)
        if n < 0:
            raise ValueError(f"n must not be negative, got {n!r}")
        view = self._current_view()
        if zones is not None:
            return self._spread(view, key, n, zone_lookup(zones))
        return [view.nodes[rank] for rank in view.preference(key, min(n, len(view.active)))]

    def _spread(self, view, key, n, lookup):
        """The first `n` nodes in the preference order of `key`, in distinct zones if possible."""
        key = view.prepare(key)
        nodes, active = view.nodes, view.active
        limit = min(candidates(n), len(active))
        found = spread([nodes[rank] for rank in view.preference(key, limit)], n, lookup, n)
        if found is None:
            zones = min(n, count_zones([nodes[rank] for rank in active], lookup))
        while found is None:
            found = spread([nodes[rank] for rank in view.preference(key, limit)], n, lookup, zones)
            zones = zones if limit < len(active) else 0
            limit = min(candidates(limit), len(active))
        return found

    def preference(self, key, /):
        """All nodes that own keys, in the preference order of `key`: get_nodes without a bound.

        Raises TypeError and ValueError for a wrong `key` as get_node does.

        Complexity: O(n log n) expected for n nodes of equal weight.

        >>> HashRing(["a", "b", "c"]).preference("user:1")
        ['a', 'c', 'b']
        """
        view = self._current_view()
        return [view.nodes[rank] for rank in view.preference(key, len(view.active))]

    def get_many(self, keys, /):
        """The list of the nodes that `keys` belong to, all from one state of the membership.

        Raises TypeError if `keys` is not an iterable of keys, and for a wrong key as get_node does.

        Complexity: as get_node for each key.

        >>> HashRing(["a", "b"]).get_many(["user:3", "user:4"])
        ['a', 'b']
        """
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise TypeError(f"keys must be an iterable of keys, got {keys!r}")
        keys = tuple(keys)
        view = self._current_view()
        nodes = (*view.nodes, None)
        return [nodes[view.rank(key)] for key in keys]

    @property
    def nodes(self):
        """The nodes as a tuple, sorted by their names as bytes; in insertion order under a foreign scheme.

        Complexity: O(1), or that of a rebuild after a change.

        >>> HashRing(["b", "a"]).nodes
        ('a', 'b')
        """
        return self._current_view().nodes

    @property
    def weights(self):
        """A dict of node to weight, in the order of `nodes`.

        Complexity: O(n log n) for n nodes.

        >>> HashRing({"a": 1, "b": 2.5}).weights
        {'a': 1, 'b': 2.5}
        """
        _, items = self._ordered_members()
        return {node: weight for _, (node, weight) in items}

    def __len__(self):
        return len(self._members)

    def __contains__(self, node):
        return name_bytes(node, self._node_key) in self._members

    def __iter__(self):
        return iter(self.nodes)

    def _identity(self):
        """What makes two placements equal."""
        _, items = self._ordered_members()
        return type(self._rules), self._rules.identity(), [(name, weight) for name, (_, weight) in items]

    def __eq__(self, other):
        if not isinstance(other, _Placement):
            return NotImplemented
        return self._identity() == other._identity()

    def __copy__(self):
        _, items = self._ordered_members()
        other = type(self).__new__(type(self))
        members = {name: [pair] for name, pair in items}
        other._initialize(members, self._rules, self._node_key, self._core)
        carry(other, carried(self))
        return other

    def __reduce__(self):
        _, items = self._ordered_members()
        pairs = tuple([entry for _, entry in items])
        state = 1, pairs, *self._rules.arguments, self._node_key
        return restore, (name_class(self), state), carried(self)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, pairs, *arguments, node_key = state
        self = cls.__new__(cls)
        rules = cls._rules_class(*arguments)
        self._initialize(make_members(pairs, node_key, rules), rules, node_key)
        return self
