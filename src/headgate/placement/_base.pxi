# What the placements share: members, changes and the view that lookups read.
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from headgate._c.keys cimport hg_key, hg_key_of

from collections.abc import Iterable
from types import GenericAlias

from headgate._base.checks import checked_int
from headgate._base.pickling import carried, carry, initialized, name_class, restore
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


cdef void *_allocate(size_t count, size_t size) except NULL:
    cdef void *memory = malloc((count or 1) * size)
    if memory == NULL:
        raise MemoryError
    return memory


cdef class _View:
    """An immutable snapshot of the nodes, with the data structure that lookups search."""

    cdef tuple nodes
    cdef tuple names
    cdef list weights    # normalized
    cdef list active     # the ranks of the nodes of a weight above 0

    cdef int prepare(self, hg_key *key) except -1:
        """Runs the foreign code that a lookup of the key needs; without this call the lookup runs it."""
        return 0

    cdef int build(self, core, list items, rules) except -1:
        """Builds the structure for `items`, pairs (name, (node, weight)), from the previous view's core."""
        return 0

    cdef object core(self):
        """What the next view may be built from, without references to nodes."""
        return None

    cdef Py_ssize_t rank(self, hg_key *key) except -2:
        """The rank of a key's node, its index in `nodes`; -1 if there is none."""
        return -1

    cdef Py_ssize_t preference(self, hg_key *key, Py_ssize_t limit, uint32_t *out) except -1:
        """Writes the ranks of a key's first nodes, returns how many; creates no object if prepared."""
        return 0

    cdef list preferred_nodes(self, hg_key *key, Py_ssize_t limit):
        """A key's first nodes."""
        cdef uint32_t *ranks = <uint32_t *>_allocate(limit, sizeof(uint32_t))
        cdef Py_ssize_t i
        try:
            return [self.nodes[ranks[i]] for i in range(self.preference(key, limit, ranks))]
        finally:
            free(ranks)

    cdef inline object owner(self, hg_key *key):
        cdef Py_ssize_t rank = self.rank(key)
        return self.nodes[rank] if rank >= 0 else None


cdef class _Placement:
    """Members, and the view of them that lookups read.

    A subclass has a `_rules_class` and creates the view; `_core` is the core of the last view.
    """

    cdef dict _members
    cdef object _node_key
    cdef object _rules
    cdef object _core
    cdef bint _initialized
    cdef uint64_t _version
    cdef _View _view
    cdef object __weakref__

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._members = {}
        self._rules = self._rules_class()

    @cython.final
    cdef _initialize(self, dict members, rules, node_key, core=None):
        """Sets the first members; old references are dropped last."""
        with cython.critical_section(self):
            if self._initialized:
                raise initialized(self)
            self._initialized = True
            _dropped = self._members, self._rules, self._node_key, self._core, self._view
            self._members, self._rules, self._node_key, self._core = members, rules, node_key, core
            self._view = None
            self._version += 1

    @cython.final
    cdef _View _invalidate(self):
        """Called after each change; returns the stale view, for the caller to drop last."""
        view = self._view
        self._view = None
        self._version += 1
        return view

    @cython.final
    cdef inline _View _current_view(self):
        """The view of the current members."""
        cdef _View view
        with cython.critical_section(self):
            view = self._view
        return self._rebuild() if view is None else view

    @cython.final
    cdef list _ordered_members(self):
        """A consistent list of the members, pairs (name, (node, weight)) in the order of `nodes`."""
        cdef uint64_t version
        while True:
            with cython.critical_section(self):
                version, members, rules = self._version, self._members, self._rules
            items = ordered_members(members, rules)
            with cython.critical_section(self):
                if self._version == version:
                    return items

    @cython.final
    cdef dict _current_members(self):
        """The dict of members, which another thread may replace."""
        with cython.critical_section(self):
            return self._members

    @cython.final
    cdef _View _rebuild(self):
        cdef _View view
        cdef uint64_t version
        while True:
            with cython.critical_section(self):
                version, rules, core = self._version, self._rules, self._core
                members = self._members
            items = ordered_members(members, rules)
            view = self._new_view()
            view.nodes = tuple([node for _, (node, _) in items])
            view.names = tuple([name for name, _ in items])
            view.weights = normalized_weights(items)
            view.active = active_ranks(items)
            view.build(core, items, rules)
            core = view.core()
            with cython.critical_section(self):
                if self._version == version:
                    self._core, self._view = core, view
                    return view

    cdef _View _new_view(self):
        """A view to be built."""
        return _View()

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
        self._rules.warn(self._current_members(), {name: entry})
        with cython.critical_section(self):
            add_member(self._members, name, entry)
            _dropped = self._invalidate()

    def remove_node(self, node):
        """Removes `node`; its keys move to the others.

        Raises KeyError if it is not a member, TypeError if its name is neither str, bytes nor int.

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
                _dropped = self._invalidate()
        if entry is None:
            raise KeyError(f"node must be a member, got {node!r}")

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
        self._rules.warn(self._current_members(), {name: changed})
        with cython.critical_section(self):
            entry = find_member(self._members, name, node)
            entry[0] = entry[0][0], changed[0][1]
            _dropped = self._invalidate()

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
        members = make_members(weighted_nodes(nodes), self._node_key, self._rules)
        with cython.critical_section(self):
            _dropped = self._members, self._invalidate()
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
        return self._current_view().owner(&plain)

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
        cdef hg_key plain
        if type(n) is not int:
            n = checked_int("n", n)
        if n < 0:
            raise ValueError(f"n must not be negative, got {n!r}")
        hg_key_of(key, b"key", &plain)
        view = self._current_view()
        if zones is not None:
            return self._spread(view, &plain, n, zone_lookup(zones))
        return view.preferred_nodes(&plain, min(n, len(view.active)))

    @cython.final
    cdef list _spread(self, _View view, hg_key *key, n, lookup):
        """The first `n` nodes in the preference order of `key`, in distinct zones if possible."""
        cdef Py_ssize_t most = len(view.active)
        view.prepare(key)
        limit = min(candidates(n), most)
        found = spread(view.preferred_nodes(key, limit), n, lookup, n)
        if found is None:
            zones = min(n, count_zones([view.nodes[rank] for rank in view.active], lookup))
        while found is None:
            found = spread(view.preferred_nodes(key, limit), n, lookup, zones)
            zones = zones if limit < most else 0
            limit = min(candidates(limit), most)
        return found

    def preference(self, key, /):
        """All nodes that own keys, in the preference order of `key`: get_nodes without a bound.

        Raises TypeError and ValueError for a wrong `key` as get_node does.

        Complexity: O(n log n) expected for n nodes of equal weight.

        >>> HashRing(["a", "b", "c"]).preference("user:1")
        ['a', 'c', 'b']
        """
        cdef hg_key plain
        hg_key_of(key, b"key", &plain)
        view = self._current_view()
        return view.preferred_nodes(&plain, len(view.active))

    def get_many(self, keys, /):
        """The list of the nodes that `keys` belong to, all from one state of the membership.

        Raises TypeError if `keys` is not an iterable of keys, and for a wrong key as get_node does.

        Complexity: as get_node for each key.

        >>> HashRing(["a", "b"]).get_many(["user:3", "user:4"])
        ['a', 'b']
        """
        cdef hg_key plain
        cdef _View view
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise TypeError(f"keys must be an iterable of keys, got {keys!r}")
        keys = tuple(keys)
        view = self._current_view()
        result = []
        for key in <tuple>keys:
            hg_key_of(key, b"key", &plain)
            result.append(view.owner(&plain))
        return result

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
        return {node: weight for _, (node, weight) in self._ordered_members()}

    def __len__(self):
        return len(self._current_members())

    def __contains__(self, node):
        name = name_bytes(node, self._node_key)
        return name in self._current_members()

    def __iter__(self):
        return iter(self.nodes)

    @cython.final
    cdef tuple _identity(self):
        """What makes two placements equal."""
        names = [(name, weight) for name, (_, weight) in self._ordered_members()]
        return type(self._rules), self._rules.identity(), names

    def __eq__(self, other):
        if not isinstance(other, _Placement):
            return NotImplemented
        return self._identity() == (<_Placement>other)._identity()

    def __copy__(self):
        cdef _Placement other = type(self).__new__(type(self))
        members = {name: [pair] for name, pair in self._ordered_members()}
        with cython.critical_section(self):
            other._initialize(members, self._rules, self._node_key, self._core)
        carry(other, carried(self))
        return other

    def __reduce__(self):
        pairs = tuple([entry for _, entry in self._ordered_members()])
        state = 1, pairs, *self._rules.arguments, self._node_key
        return restore, (name_class(self), state), carried(self)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, pairs, *arguments, node_key = state
        cdef _Placement self = cls.__new__(cls)
        rules = cls._rules_class(*arguments)
        self._initialize(make_members(pairs, node_key, rules), rules, node_key)
        return self
