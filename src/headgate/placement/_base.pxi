cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from headgate._c.keys cimport hg_key, hg_key_of

from collections.abc import Iterable
from types import GenericAlias

from headgate._base.checks import checked_int
from headgate._base.pickling import carried, carry, initialized, name_class, restore
from headgate.placement._members import (
    active,
    admitted,
    arranged,
    collected,
    join,
    member,
    name_bytes,
    proportions,
    weighted,
)


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
