"""Consistent-hash placement in pure Python; the picture stands in docs/internals/placement.md."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import compress
from math import isfinite
from types import GenericAlias

from headgate._pickling import name_class, restore
from headgate._pure.hashing import _MASK, _integer, _key_bytes, _xxh64_bytes, splitmix64

_MAX_POINTS = 2**24


@lru_cache(maxsize=4096)
def _short_hash(key):
    """XXH64 of a short str: services ask for the same keys again and again."""
    return _xxh64_bytes(key.encode())


def _key_hash(key):
    if type(key) is str and len(key) <= 64:
        return _short_hash(key)
    return _xxh64_bytes(_key_bytes(key, "key"))


def _checked_weight(weight):
    """The weight as an exact int or float, so that arithmetic on it is no foreign code."""
    if isinstance(weight, int):
        weight = int.__pos__(weight)
    elif isinstance(weight, float):
        weight = float.__pos__(weight)
    else:
        raise TypeError(f"weight must be an int or a float, got {weight!r}")
    if not weight > 0 or not isfinite(weight):
        raise ValueError(f"weight must be positive and finite, got {weight!r}")
    return weight


def _name_bytes(node, node_key):
    if node_key is None:
        return _key_bytes(node, "node")
    return _key_bytes(node_key(node), "node_key(node)")


def _weighted(nodes):
    """The pairs (node, weight) of the constructor's argument."""
    if isinstance(nodes, Mapping):
        return list(nodes.items())
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes must be an iterable of nodes or a mapping of node to weight, got {nodes!r}")
    return [(node, 1) for node in nodes]


def _join(members, node, name, weight):
    if members.setdefault(name, entry := (node, weight)) is not entry:
        raise ValueError(f"node must not be in the ring already, got {node!r}")


def _weight_of(weight, replicas):
    """The checked weight, which gives no more than the greatest number of points."""
    weight = _checked_weight(weight)
    if weight * replicas > _MAX_POINTS:
        raise ValueError(f"weight must give at most {_MAX_POINTS} points, got {weight!r}")
    return weight


def _point_count(weight, replicas):
    return max(1, round(weight * replicas))


class _Table:
    """The arrays of a ring for one membership, never changed."""

    __slots__ = ("owners", "points", "ranks")

    def __init__(self, points, owners, ranks):
        self.points = points
        self.owners = owners
        self.ranks = ranks

    def find(self, hash):
        """The index of the first point at or after `hash`."""
        at = bisect_left(self.points, hash)
        return at if at < len(self.points) else 0

    def arcs(self):
        """(last hash, owner or -1) of each arc, from hash 0 on."""
        first = self.owners[0] if self.owners else -1
        return [*zip(self.points, self.owners, strict=True), (_MASK, first)]


class _View:
    """A table with its nodes, and the change that it follows: all that a lookup needs."""

    __slots__ = ("change", "nodes", "table")

    def __init__(self, change, table, nodes):
        self.change = change
        self.table = table
        self.nodes = nodes

    def owner(self, hash):
        table = self.table
        return self.nodes[table.owners[table.find(hash)]] if self.nodes else None


_EMPTY = _Table(array("Q"), array("I"), {})
_STALE = _View(None, _EMPTY, ())


def _spread(name, rank, count):
    """The points of the own scheme for one node."""
    base = _xxh64_bytes(name)
    return [splitmix64(base + i) << 32 | rank for i in range(count)]


def _merged(points, owners, fresh):
    """Sorted points and their owners with `fresh`, sorted integers point << 32 | owner, put between."""
    if not points:
        return array("Q", [pair >> 32 for pair in fresh]), array("I", [pair & 0xFFFF_FFFF for pair in fresh])
    new_points, new_owners = array("Q"), array("I")
    at = 0
    for pair in fresh:
        point, owner = pair >> 32, pair & 0xFFFF_FFFF
        stop = bisect_left(points, point, at)
        while stop < len(points) and points[stop] == point and owners[stop] < owner:
            stop += 1
        new_points += points[at:stop]
        new_owners += owners[at:stop]
        new_points.append(point)
        new_owners.append(owner)
        at = stop
    return new_points + points[at:], new_owners + owners[at:]


def _rebuilt(old, items, replicas):
    """The table for `items`, pairs (name, (node, weight)) in rank order, made from the one before."""
    moves = [None] * len(old.ranks)
    ranks = {}
    fresh = []
    for rank, (name, (_, weight)) in enumerate(items):
        ranks[name] = rank, weight
        known = old.ranks.get(name)
        if known is not None and known[1] == weight:
            moves[known[0]] = rank
        else:
            fresh += _spread(name, rank, _point_count(weight, replicas))
    points, owners = old.points, old.owners
    if None in moves:
        stays = [moves[owner] is not None for owner in owners]
        points, owners = array("Q", compress(points, stays)), array("I", compress(owners, stays))
    owners = array("I", map(moves.__getitem__, owners))
    return _Table(*_merged(points, owners, sorted(fresh)), ranks)


def _walk(view, hash, limit):
    """The first `limit` distinct nodes clockwise from `hash`."""
    owners, nodes = view.table.owners, view.nodes
    start, seen = view.table.find(hash), {}
    for step in range(start - len(owners), start):
        if len(seen) == limit:
            break
        seen[owners[step]] = None
    return [nodes[owner] for owner in seen]


def _shares(view):
    """How many of the 2**64 hashes each rank owns."""
    shares = [0] * len(view.nodes)
    before = -1
    for last, owner in view.table.arcs() if view.nodes else ():
        shares[owner] += last - before
        before = last
    return shares


def _moved(old, new):
    """{(old rank or -1, new rank or -1): how many hashes}, where the owners' names differ."""
    moved = {}
    same = [new.table.ranks.get(name, (-2,))[0] for name in old.table.ranks]
    olds, news = iter(old.table.arcs()), iter(new.table.arcs())
    (old_last, was), (new_last, now) = next(olds), next(news)
    before = -1
    while True:
        last = min(old_last, new_last)
        if (same[was] if was >= 0 else -1) != now and last > before:
            moved[was, now] = moved.get((was, now), 0) + last - before
        if last == _MASK:
            return moved
        while old_last == last:
            old_last, was = next(olds)
        while new_last == last:
            new_last, now = next(news)
        before = last


def _hashes_view(hashes):
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


class HashRing:
    """Consistent hashing: which node each key belongs to.

    `nodes` is an iterable of nodes, or a mapping of node to weight. A node of weight 1 owns
    `replicas` points on a circle of 64-bit hashes, one of weight w ``max(1, round(w * replicas))``;
    a key belongs to the owner of the first point at or after its hash. More points a node
    balance better: with 100 nodes the fullest holds 1.22 times the mean at 150, 1.11 at 500.

    A node is a ``str``, ``bytes`` or ``int``, or anything for which `node_key` answers one of
    these; that name alone decides where it stands. Placement depends on the membership, not on
    the order of insertion, the process or the platform. A node that joins or leaves moves only
    the keys that it gains or loses.

    `scheme` says how points are placed and keys hashed: ``"headgate"`` takes XXH64 of the name
    as base and splitmix64(base + i) as point i, and XXH64 of the key.

    Keys are ``str`` (hashed as UTF-8), ``bytes``, or ``int`` in [-2**63, 2**63), hashed as 8 bytes
    of little-endian two's complement. Lookups from any thread go on while nodes change.

    Source: Karger et al., "Consistent hashing and random trees", 1997.

    Raises TypeError or ValueError if an argument is of a wrong type or range, ValueError if two
    nodes have one name.

    Complexity: O(p log p) for p points in all, at the first lookup; O(p) for the first lookup
    after any number of changes.

    >>> ring = HashRing(["a", "b", "c"])
    >>> ring.get_node("user:1")
    'a'
    >>> ring.add_node("d", weight=2)
    >>> len(ring.get_nodes("user:1", 2))
    2
    """

    __slots__ = ("__weakref__", "_change", "_members", "_node_key", "_replicas", "_scheme", "_table", "_view")

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._members = {}
        self._replicas, self._scheme, self._node_key = 150, "headgate", None
        self._table = _EMPTY
        self._changed()
        return self

    def __init__(self, nodes=(), replicas=150, *, scheme="headgate", node_key=None):
        replicas = _integer("replicas", replicas)
        if not 1 <= replicas <= _MAX_POINTS:
            raise ValueError(f"replicas must be in [1, {_MAX_POINTS}], got {replicas!r}")
        if scheme != "headgate":
            raise ValueError(f"scheme must be 'headgate', got {scheme!r}")
        if node_key is not None and not callable(node_key):
            raise TypeError(f"node_key must be callable or None, got {node_key!r}")
        self._fill(_weighted(nodes), replicas, scheme, node_key)

    def _fill(self, pairs, replicas, scheme, node_key):
        """Takes on a whole new membership."""
        members = {}
        for node, weight in pairs:
            _join(members, node, _name_bytes(node, node_key), _weight_of(weight, replicas))
        self._members = dict(sorted(members.items()))
        self._replicas, self._scheme, self._node_key = replicas, scheme, node_key
        self._table = _EMPTY
        self._changed()

    def _changed(self):
        """Called once a change is made: the view is stale, and holds no node any more."""
        self._change = object()
        self._view = _STALE

    def _current(self):
        """What lookups read: the view of the membership as it is now."""
        view = self._view
        return view if view.change is self._change else self._settled()

    def _settled(self):
        change = self._change
        items = sorted(self._members.copy().items())
        table = _rebuilt(self._table, items, self._replicas)
        view = _View(change, table, tuple([entry[0] for _, entry in items]))
        self._table, self._view = table, view
        return view

    def add_node(self, node, weight=1):
        """Adds `node`, which takes its share from the others in proportion to `weight`.

        The ring is merged at the next lookup, so a loop of changes costs one merge.

        Raises ValueError if a node of this name is in the ring or `weight` is not positive and
        finite, TypeError if the node's name is neither str, bytes nor int.

        Complexity: O(1).

        >>> ring = HashRing(["a"])
        >>> ring.add_node("b", weight=0.5)
        >>> ring.weights
        {'a': 1, 'b': 0.5}
        """
        name = _name_bytes(node, self._node_key)
        weight = _weight_of(weight, self._replicas)
        _join(self._members, node, name, weight)
        self._changed()

    def remove_node(self, node):
        """Removes `node`; its keys fall to their next nodes, all others stay.

        Raises KeyError if it is not in the ring, TypeError if its name is neither str, bytes
        nor int.

        Complexity: O(1); the next lookup merges.

        >>> ring = HashRing(["a", "b"])
        >>> ring.remove_node("a")
        >>> ring.nodes
        ('b',)
        """
        name = _name_bytes(node, self._node_key)
        if self._members.pop(name, None) is None:
            raise KeyError(f"node must be in the ring, got {node!r}")
        self._changed()

    def get_node(self, key, /):
        """The node that `key` belongs to, or None in an empty ring.

        Raises TypeError if `key` is neither str, bytes nor int, ValueError for an int outside
        [-2**63, 2**63).

        Complexity: O(1) expected.

        >>> HashRing(["a", "b"]).get_node("user:1")
        'a'
        >>> HashRing().get_node("user:1") is None
        True
        """
        hash = _key_hash(key)
        view = self._view
        if view.change is not self._change:
            view = self._settled()
        return view.owner(hash)

    def get_nodes(self, key, n, /):
        """The first `n` distinct nodes clockwise from `key`, all of them if there are fewer.

        The first is ``get_node(key)``; each next one is where the key falls when those before
        it leave.

        Raises ValueError if `n` is negative, TypeError if it is no int, and for a wrong `key`
        as get_node does.

        Complexity: O(n log n) expected for equal weights.

        >>> HashRing(["a", "b", "c"]).get_nodes("user:1", 2)
        ['a', 'c']
        """
        hash = _key_hash(key)
        n = _integer("n", n)
        if n < 0:
            raise ValueError(f"n must not be negative, got {n!r}")
        return _walk(self._current(), hash, n)

    def preference(self, key, /):
        """All nodes in the order in which `key` prefers them: get_nodes without a bound.

        Raises TypeError and ValueError for a wrong `key` as get_node does.

        Complexity: O(n log n) expected for n nodes of equal weight.

        >>> HashRing(["a", "b", "c"]).preference("user:1")
        ['a', 'c', 'b']
        """
        hash = _key_hash(key)
        view = self._current()
        return _walk(view, hash, len(view.nodes))

    def get_many(self, keys, /):
        """The list of the nodes that `keys` belong to, all from one state of the ring.

        Raises TypeError if `keys` is no iterable of keys, and for a wrong key as get_node does.

        Complexity: O(1) expected a key.

        >>> HashRing(["a", "b"]).get_many(["user:3", "user:4"])
        ['a', 'b']
        """
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise TypeError(f"keys must be an iterable of keys, got {keys!r}")
        keys = tuple(keys)
        view = self._current()
        return [view.owner(_key_hash(key)) for key in keys]

    def locate(self, hashes, /):
        """For each hash of a buffer, the index in `nodes` of its owner; -1 in an empty ring.

        `hashes` is a contiguous buffer of unsigned 64-bit integers, such as ``array("Q")`` or a
        numpy array; XXH64 of a key is its hash. Answers an ``array("i")``. Other threads run
        meanwhile on the compiled twin.

        Raises TypeError if `hashes` is no buffer, ValueError if it holds other items or is not
        one-dimensional and contiguous.

        Complexity: O(1) expected a hash.

        >>> ring = HashRing(["a", "b"])
        >>> ring.locate(memoryview(bytes(16)).cast("Q"))
        array('i', [0, 0])
        """
        table = self._current().table
        hashes = _hashes_view(hashes)
        if not table.owners:
            return array("i", [-1]) * len(hashes)
        return array("i", [table.owners[table.find(hash)] for hash in hashes])

    @property
    def nodes(self):
        """The nodes as a tuple, sorted by their names' bytes.

        Complexity: O(1), or that of a merge after a change.

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
        return dict(self._pairs())

    @property
    def replicas(self):
        """How many points a node of weight 1 owns.

        Complexity: O(1).

        >>> HashRing().replicas
        150
        """
        return self._replicas

    @property
    def scheme(self):
        """How points are placed and keys are hashed.

        Complexity: O(1).

        >>> HashRing().scheme
        'headgate'
        """
        return self._scheme

    def ownership(self):
        """A dict of node to the share of all hashes that it owns; the shares sum to 1.

        Complexity: O(p) for p points.

        >>> HashRing(["a"]).ownership()
        {'a': 1.0}
        """
        view = self._current()
        return {node: share / 2**64 for node, share in zip(view.nodes, _shares(view), strict=True)}

    def diff(self, other, /):
        """How placement moves from this ring to `other`: {(old node, new node): share moved}.

        Shares are exact, of all hashes; a node of the same name in both rings has not moved.
        The node of an empty ring is None.

        Raises TypeError if `other` is no ring of this kind.

        Complexity: O(p) for the points of both.

        >>> HashRing(["a"]).diff(HashRing(["b"]))
        {('a', 'b'): 1.0}
        """
        if not isinstance(other, HashRing):
            raise TypeError(f"other must be a HashRing, got {other!r}")
        old, new = self._current(), other._current()
        return {(old.nodes[was] if was >= 0 else None, new.nodes[now] if now >= 0 else None): share / 2**64
                for (was, now), share in _moved(old, new).items()}

    def _pairs(self):
        """(node, weight) in the order of `nodes`."""
        return [entry for _, entry in sorted(self._members.copy().items())]

    def _identity(self):
        """What makes two rings equal."""
        weights = {name: entry[1] for name, entry in self._members.copy().items()}
        return weights, self._replicas, self._scheme

    def __len__(self):
        return len(self._members)

    def __contains__(self, node):
        name = _name_bytes(node, self._node_key)
        return name in self._members

    def __iter__(self):
        return iter(self.nodes)

    def __eq__(self, other):
        if not isinstance(other, HashRing):
            return NotImplemented
        return self._identity() == other._identity()

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} replicas={self._replicas} scheme={self._scheme!r}>"

    def __copy__(self):
        ring = HashRing.__new__(type(self))
        ring._replicas, ring._scheme, ring._node_key = self._replicas, self._scheme, self._node_key
        ring._table = self._table
        ring._members = self._members.copy()
        return ring

    def __reduce__(self):
        state = 1, tuple(self._pairs()), self._replicas, self._scheme, self._node_key
        return restore, (name_class(self), state)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 1:
            raise ValueError(f"state must be of version 1, got {state[0]!r}")
        _, pairs, replicas, scheme, node_key = state
        ring = HashRing.__new__(cls)
        ring._fill(pairs, replicas, scheme, node_key)
        return ring

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current()
        table, items = view.table, sorted(self._members.items())
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert table.ranks == {name: (rank, weight) for rank, (name, (_, weight)) in enumerate(items)}
        expected = sorted(
            pair
            for name, (rank, weight) in table.ranks.items()
            for pair in _spread(name, rank, _point_count(weight, self._replicas))
        )
        assert expected == [at << 32 | owner for at, owner in zip(table.points, table.owners, strict=True)]
