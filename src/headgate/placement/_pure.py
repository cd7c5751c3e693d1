"""Consistent-hash placement in pure Python; the picture stands in docs/internals/placement.md."""

from array import array
from binascii import crc_hqx
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, compress
from math import log
from struct import unpack_from
from types import GenericAlias

from headgate._base.checks import checked_int, checked_iterable
from headgate._base.forks import new_lock, renew
from headgate._base.keys import key_bytes
from headgate._base.pickling import carried, carry, initialized, name_class, restore
from headgate.errors import NoServerError
from headgate.hashing._pure import _MASK, _xxh64_bytes, splitmix64
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
from headgate.placement._moves import expected_moves

_LOW = 0xFFFF_FFFF


@lru_cache(maxsize=4096)
def _short_hash(key):
    """XXH64 of a short str: services ask for the same keys again and again."""
    return _xxh64_bytes(key.encode())


def _key_hash(key):
    if type(key) is str and len(key) <= 64:
        return _short_hash(key)
    return _xxh64_bytes(key_bytes(key, "key"))


class _View:
    """The nodes after one change and whatever finds them: all that a lookup needs, never changed.

    `weights` are proportions, and `active` the ranks of the nodes that own something.
    """

    __slots__ = ("active", "change", "names", "nodes", "weights")

    def __init__(self, change, items):
        """`items` are pairs (name, (node, weight)) in the order of `nodes`."""
        self.change = change
        self.names = tuple([name for name, _ in items])
        self.weights = proportions(items)
        self.active = active(items)
        self.nodes = tuple([node for _, (node, _) in items])

    def begin(self, key):
        """The checked key, as far as foreign code is needed to find it."""
        key_bytes(key, "key")
        return key


_STALE = _View(None, ())


class _Placement:
    """Members, and the view of them that lookups read.

    A subclass has a `_rules_class`, and `_make(change, items)` that returns a view with
    `rank(key)`, the index of a key's node or -1, and `ranks(key, limit)`, those of its first nodes.
    `_core` is what it keeps from one view for the next. There is no lock: each change of the members is
    one step, and one made to a dict of members that is being replaced came before that.
    """

    __slots__ = ("__weakref__", "_change", "_core", "_made", "_members", "_node_key", "_rules", "_view")

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._fill({}, cls._rules_class(), None)
        self._made = False
        return self

    def _begin(self, members, rules, node_key, core=None):
        """Take on the first membership."""
        if self._made:
            raise initialized(self)
        self._made = True
        self._fill(members, rules, node_key, core)

    def _fill(self, members, rules, node_key, core=None):
        """Takes on a whole new membership."""
        self._members, self._rules, self._node_key, self._core = members, rules, node_key, core
        self._changed()

    def _changed(self):
        """Called once a change is made: the view is stale, and holds no node any more."""
        self._change = object()
        self._view = _STALE

    def _current(self):
        """What lookups read: the view of the members as they are now."""
        view = self._view
        return view if view.change is self._change else self._settled()

    def _arranged(self):
        """The members in the order of `nodes`, between two changes, and the token of the first."""
        while True:
            change = self._change
            items = arranged(self._members, self._rules)
            if change is self._change:
                return change, items

    def _settled(self):
        view = self._view = self._make(*self._arranged())
        return view

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
        self._rules.warn(self._members, {name: entry})
        join(self._members, name, entry)
        self._changed()

    def remove_node(self, node):
        """Removes `node`; its keys fall to the others.

        Raises KeyError if it is no member, TypeError if its name is neither str, bytes nor int.

        Complexity: O(1); the next lookup rebuilds.

        >>> ring = HashRing(["a", "b"])
        >>> ring.remove_node("a")
        >>> ring.nodes
        ('b',)
        """
        if self._members.pop(name_bytes(node, self._node_key), None) is None:
            raise KeyError(f"node must be a member, got {node!r}")
        self._changed()

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
        entry = member(self._members, name, node)
        self._rules.warn(self._members, {name: changed})
        entry[0] = entry[0][0], changed[0][1]
        self._changed()

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
        self._members = collected(weighted(nodes), self._node_key, self._rules)
        self._changed()

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
            view = self._settled()
        rank = view.rank(key)
        return view.nodes[rank] if rank >= 0 else None

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
        n = checked_int("n", n)
        if n < 0:
            raise ValueError(f"n must not be negative, got {n!r}")
        view = self._current()
        return [view.nodes[rank] for rank in view.ranks(key, min(n, len(view.active)))]

    def preference(self, key, /):
        """All nodes that own something in the order in which `key` prefers them: get_nodes without a bound.

        Raises TypeError and ValueError for a wrong `key` as get_node does.

        Complexity: O(n log n) expected for n nodes of equal weight.

        >>> HashRing(["a", "b", "c"]).preference("user:1")
        ['a', 'c', 'b']
        """
        view = self._current()
        return [view.nodes[rank] for rank in view.ranks(key, len(view.active))]

    def get_many(self, keys, /):
        """The list of the nodes that `keys` belong to, all from one state of the membership.

        Raises TypeError if `keys` is no iterable of keys, and for a wrong key as get_node does.

        Complexity: as get_node for each key.

        >>> HashRing(["a", "b"]).get_many(["user:3", "user:4"])
        ['a', 'b']
        """
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise TypeError(f"keys must be an iterable of keys, got {keys!r}")
        keys = tuple(keys)
        view = self._current()
        nodes = (*view.nodes, None)
        return [nodes[view.rank(key)] for key in keys]

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
        _, items = self._arranged()
        return {node: weight for _, (node, weight) in items}

    def __len__(self):
        return len(self._members)

    def __contains__(self, node):
        return name_bytes(node, self._node_key) in self._members

    def __iter__(self):
        return iter(self.nodes)

    def _identity(self):
        """What makes two placements equal."""
        _, items = self._arranged()
        return type(self._rules), self._rules.identity(), [(name, weight) for name, (_, weight) in items]

    def __eq__(self, other):
        if not isinstance(other, _Placement):
            return NotImplemented
        return self._identity() == other._identity()

    def __copy__(self):
        _, items = self._arranged()
        other = type(self).__new__(type(self))
        members = {name: [pair] for name, pair in items}
        other._begin(members, self._rules, self._node_key, self._core)
        carry(other, carried(self))
        return other

    def __reduce__(self):
        _, items = self._arranged()
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
        self._begin(collected(pairs, node_key, rules), rules, node_key)
        return self


class _Table:
    """The points of a ring, sorted, with the rank of the owner of each; never changed.

    Hashes of 32 bits stand in the upper half; then the lower half of a point is all ones.
    """

    __slots__ = ("nearest", "owners", "points", "ranks")

    def __init__(self, points, owners, ranks, nearest):
        self.points = points
        self.owners = owners
        self.ranks = ranks
        self.nearest = nearest

    def find(self, position):
        """The index of the first point at or after `position`, or of the nearer neighbour."""
        points = self.points
        at = bisect_left(points, position)
        if self.nearest and self._before_is_nearer(position, at):
            at += len(points) - 1
        return at % len(points)

    def _before_is_nearer(self, position, at, before=None):
        """Whether the point before is no farther than the one at or after `position`."""
        points, count = self.points, len(self.points)
        before = at - 1 if before is None else before
        behind = (position | _LOW) - points[before % count] & _MASK
        return behind <= points[at % count] - (position | _LOW) & _MASK

    def walk(self, position, limit):
        """The ranks of the first `limit` distinct owners from `position` on."""
        owners, count, seen = self.owners, len(self.owners), {}
        at = bisect_left(self.points, position)
        before = at - 1
        for _ in range(count):
            if len(seen) == limit:
                break
            if self.nearest and self._before_is_nearer(position, at, before):
                seen[owners[before % count]] = None
                before -= 1
            else:
                seen[owners[at % count]] = None
                at += 1
        return list(seen)

    def arcs(self):
        """(last position, owner or -1) of each arc, from position 0 on."""
        ends, owners = list(self.points), list(self.owners)
        if not owners:
            return [(_MASK, -1)]
        if self.nearest:
            gaps = [after - at & _MASK for at, after in zip(ends, [*ends[1:], ends[0]], strict=True)]
            ends = [at + (gap >> 33 << 32) for at, gap in zip(ends, gaps, strict=True)]
            if ends[-1] > _MASK:
                ends, owners = [ends[-1] & _MASK, *ends[:-1]], [owners[-1], *owners[:-1]]
        return [*zip(ends, owners, strict=True), (_MASK, owners[0])]


def _spread(base, count):
    """The points of our own scheme for one node."""
    return [splitmix64(base + i) for i in range(count)]


def _placed(added, rules):
    """The points of each of `added`, pairs (name, weight) of nodes that own something."""
    if rules.program is None:
        hash = _xxh64_bytes if rules.own is None else rules.own.hash
        return [_spread(hash(name), rules.count(weight)) for name, weight in added]
    names, weights = [name for name, _ in added], [weight for _, weight in added]
    points = rules.program.points(names, weights)
    return points if rules.program.wide else [[point << 32 | _LOW for point in own] for own in points]


def _merged(points, owners, fresh):
    """Sorted points and their owners with `fresh`, sorted integers point << 32 | owner, put between."""
    if not points:
        return array("Q", [pair >> 32 for pair in fresh]), array("I", [pair & _LOW for pair in fresh])
    new_points, new_owners = array("Q"), array("I")
    at = 0
    for pair in fresh:
        point, owner = pair >> 32, pair & _LOW
        stop = bisect_left(points, point, at)
        while stop < len(points) and points[stop] == point and owners[stop] < owner:
            stop += 1
        new_points += points[at:stop]
        new_owners += owners[at:stop]
        new_points.append(point)
        new_owners.append(owner)
        at = stop
    return new_points + points[at:], new_owners + owners[at:]


def _rebuilt(old, items, rules):
    """The table for `items`, pairs (name, (node, weight)) in rank order, made from the one before.

    Points of nodes that stay are kept, as long as they stay in the order of before.
    """
    if old is None or (rules.program is not None and not rules.program.points_per_weight):
        old = _Table(array("Q"), array("I"), {}, False)
    moves, ranks, added = [None] * len(old.ranks), {}, {}
    last = -1
    for rank, (name, (_, weight)) in enumerate(items):
        ranks[name] = rank, weight
        known = old.ranks.get(name, (-1, None))
        if known[1] == weight and known[0] > last:
            last = known[0]
            moves[last] = rank
        elif weight:
            added[rank] = name, weight
    placed = zip(added, _placed(added.values(), rules), strict=True)
    fresh = sorted([point << 32 | rank for rank, own in placed for point in own])
    points, owners = old.points, old.owners
    if None in moves:
        stays = [moves[owner] is not None for owner in owners]
        points, owners = array("Q", compress(points, stays)), array("I", compress(owners, stays))
    points, owners = _merged(points, array("I", map(moves.__getitem__, owners)), fresh)
    return _Table(points, owners, ranks, rules.program is not None and rules.program.nearest)


def _shares(table, nodes):
    """How many of the 2**64 positions each of so many ranks owns."""
    shares = [0] * nodes
    before = -1
    for last, owner in table.arcs() if table.owners else ():
        shares[owner] += last - before
        before = last
    return shares


def _moved(old, new):
    """{(old rank or -1, new rank or -1): how many positions}, where the owners' names differ."""
    moved = {}
    same = [new.ranks.get(name, (-2,))[0] for name in old.ranks]
    olds, news = iter(old.arcs()), iter(new.arcs())
    (old_last, was), (new_last, now) = next(olds), next(news)
    before = -1
    while True:
        last = min(old_last, new_last)
        if (same[was] if was >= 0 else -1) != now:
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


class _RingView(_View):
    __slots__ = ("program", "table")

    def __init__(self, change, items, table, program):
        super().__init__(change, items)
        self.table = table
        self.program = program

    def at(self, hash):
        """The position on the circle of a hash of the scheme."""
        if self.program is None:
            return hash
        return hash + self.program.exclusive << (0 if self.program.wide else 32) & _MASK

    def position(self, key):
        if self.program is None:
            return _key_hash(key)
        return self.at(self.program.hash(key_bytes(key, "key")))

    def rank(self, key):
        position = self.position(key)
        table = self.table
        return table.owners[table.find(position)] if table.owners else -1

    def ranks(self, key, limit):
        return self.table.walk(self.position(key), limit)


class _Position(int):
    """A position on the circle in the place of a key."""


class _OwnHashView(_RingView):
    """A ring under the user's hash function."""

    __slots__ = ("hash",)

    def __init__(self, change, items, table, hash):
        super().__init__(change, items, table, None)
        self.hash = hash

    def begin(self, key):
        return _Position(self.hash(key_bytes(key, "key")))

    def position(self, key):
        return key if type(key) is _Position else self.hash(key_bytes(key, "key"))


class HashRing(_Placement):
    """Consistent hashing: which node each key belongs to.

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

    __slots__ = ()

    _rules_class = RingRules

    def __init__(self, nodes=(), replicas=150, *, scheme="headgate", node_key=None):
        rules = RingRules(replicas, scheme)
        self._begin(collected(weighted(nodes), node_key, rules), rules, node_key)

    def _make(self, change, items):
        rules = self._rules
        table = self._core = _rebuilt(self._core, items, rules)
        if rules.own is not None:
            return _OwnHashView(change, items, table, rules.own.hash)
        return _RingView(change, items, table, rules.program)

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
        view = self._current()
        hashes, table = _hashes_view(hashes), view.table
        if not table.owners:
            return array("i", [-1]) * len(hashes)
        return array("i", [table.owners[table.find(view.at(hash))] for hash in hashes])

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
        view = self._current()
        shares = _shares(view.table, len(view.nodes))
        return {node: share / 2**64 for node, share in zip(view.nodes, shares, strict=True)}

    def diff(self, other, /):
        """How placement moves from this ring to `other`: {(old node, new node): share moved}.

        Shares are exact, of all hashes; a node of the same name in both rings has not moved.
        The node of an empty ring is None.

        Raises TypeError if `other` is no HashRing, ValueError if it hashes keys otherwise.

        Complexity: O(p) for the points of both.

        >>> HashRing(["a"]).diff(HashRing(["b"]))
        {('a', 'b'): 1.0}
        """
        if not isinstance(other, HashRing):
            raise TypeError(f"other must be a HashRing, got {other!r}")
        if self._rules.hashing() != other._rules.hashing():
            raise ValueError(f"other must hash keys as this ring does, got {other!r}")
        old, new = self._current(), other._current()
        olds, news = (*old.nodes, None), (*new.nodes, None)
        return {(olds[was], news[now]): share / 2**64
                for (was, now), share in _moved(old.table, new.table).items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} replicas={self.replicas} scheme={self.scheme!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current()
        table, items = view.table, arranged(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert view.active == active(items)
        assert table.ranks == {name: (rank, weight) for rank, (name, (_, weight)) in enumerate(items)}
        placed = _placed([(name, weight) for name, (_, weight) in items if weight], self._rules)
        placed = zip(view.active, placed, strict=True)
        expected = sorted([(point, rank) for rank, own in placed for point in own])
        assert expected == list(zip(table.points, table.owners, strict=True))


_MASK32 = 0xFFFF_FFFF


def _murmur_mix(k):
    k = k * 0xCC9E2D51 & _MASK32
    return (k << 15 | k >> 17) * 0x1B873593 & _MASK32


def _murmur_blocks(h, data):
    """The state of MurmurHash3 after the whole blocks of `data`."""
    for k in unpack_from(f"<{len(data) // 4}I", data):
        h ^= _murmur_mix(k)
        h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & _MASK32
    return h


def _murmur_end(prefix, data):
    """MurmurHash3 of 32 bits: the state and rest of a prefix, and its size, then `data`."""
    h, rest, size = prefix
    size += len(data)
    data = rest + data
    whole = len(data) & ~3
    h = _murmur_blocks(h, data) ^ _murmur_mix(int.from_bytes(data[whole:], "little")) ^ size
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK32
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK32
    return h ^ h >> 16


class _RaceView(_View):
    """What each active node draws with: a base and maybe a rate, or in pymemcache's form a prefix."""

    __slots__ = ("bases", "prefixes", "rates", "seed")

    def __init__(self, change, items, rules):
        super().__init__(change, items)
        self.seed = rules.seed
        self.bases = self.rates = self.prefixes = None
        names = [self.names[rank] for rank in self.active]
        if rules.murmur:
            self.prefixes = [self._begin(low_bytes(name) + b"-") for name in names]
            return
        self.bases = [_xxh64_bytes(name) for name in names]
        if len({items[rank][1][1] for rank in self.active}) > 1:
            self.rates = [self.weights[rank] for rank in self.active]

    def _begin(self, prefix):
        """What all keys of a node have in front, hashed."""
        whole = len(prefix) & ~3
        return _murmur_blocks(self.seed, prefix), prefix[whole:], len(prefix)

    def scores(self, key):
        """The score of every active node; the highest wins, on a tie the later node."""
        data = key_bytes(key, "key")
        if self.prefixes is not None:
            data = low_bytes(data)
            return [_murmur_end(prefix, data) for prefix in self.prefixes]
        hash = _xxh64_bytes(data, self.seed)
        draws = [splitmix64(base ^ hash) for base in self.bases]
        if self.rates is None:
            return draws
        return [log(((draw >> 12) + 0.5) * 2.0**-52) / rate
                for draw, rate in zip(draws, self.rates, strict=True)]

    def rank(self, key):
        return max(zip(self.scores(key), self.active, strict=True), default=(0, -1))[1]

    def ranks(self, key, limit):
        drawn = sorted(zip(self.scores(key), self.active, strict=True), reverse=True)
        return [rank for _, rank in drawn[:limit]]


class Rendezvous(_Placement):
    """Rendezvous hashing: every node draws for each key, and the best draw has it.

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

    __slots__ = ()

    _rules_class = RaceRules

    def __init__(self, nodes=(), *, scheme="headgate", seed=0, node_key=None):
        rules = RaceRules(scheme, seed)
        self._begin(collected(weighted(nodes), node_key, rules), rules, node_key)

    def _make(self, change, items):
        return _RaceView(change, items, self._rules)

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
        _, items = self._arranged()
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
        if self._rules.arguments != other._rules.arguments:
            raise ValueError(f"other must hash keys as this placement does, got {other!r}")
        (_, olds), (_, news) = self._arranged(), other._arranged()
        old, new, moves = dict(olds), dict(news), expected_moves(rates(olds), rates(news))
        return {(old[was][0] if was is not None else None, new[now][0] if now is not None else None): share
                for (was, now), share in moves.items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} scheme={self.scheme!r} seed={self.seed!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current()
        items = arranged(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert view.active == active(items)
        assert len(view.bases if view.prefixes is None else view.prefixes) == len(view.active)
        assert (view.prefixes is not None) == self._rules.murmur
        assert (view.rates is not None) == (len({weight for _, (_, weight) in items if weight}) > 1)


def _maglev_table(names, weights, ranks, size):
    """Envoy's table: in turns, each of the hosts at `ranks` claims the next free slot of its permutation."""
    total = sum(weights)
    shares = [weights[rank] / total for rank in ranks]
    at = [_xxh64_bytes(names[rank]) % size for rank in ranks]
    skip = [_xxh64_bytes(names[rank], 1) % (size - 1) + 1 for rank in ranks]
    targets, heaviest = [0.0] * len(ranks), max(shares)
    table, filled, turn = array("i", [-1]) * size, 0, 0
    while True:
        turn += 1
        for host, share in enumerate(shares):
            if turn * share < targets[host]:
                continue
            targets[host] += heaviest
            slot = at[host]
            while table[slot] >= 0:
                slot = (slot + skip[host]) % size
            table[slot] = ranks[host]
            at[host] = (slot + skip[host]) % size
            filled += 1
            if filled == size:
                return table


class _MaglevView(_View):
    """Envoy's table: the rank of the node of each slot, -1 where there is none."""

    __slots__ = ("table",)

    def __init__(self, change, items, size):
        super().__init__(change, items)
        empty = array("i", [-1]) * size
        self.table = _maglev_table(self.names, self.weights, self.active, size) if self.active else empty

    def rank(self, key):
        return self.table[_key_hash(key) % len(self.table)]

    def ranks(self, key, limit):
        slot, seen = _key_hash(key) % len(self.table), {}
        for rank in chain(self.table[slot:], self.table[:slot]):
            if len(seen) == limit:
                break
            seen[rank] = None
        return list(seen)


class Maglev(_Placement):
    """Maglev hashing: a table of `size` slots, each a node's; a key has the slot XXH64(key) % size.

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

    __slots__ = ()

    _rules_class = MaglevRules

    def __init__(self, nodes=(), size=65537, *, node_key=None):
        rules = MaglevRules(size)
        self._begin(collected(weighted(nodes), node_key, rules), rules, node_key)

    def _make(self, change, items):
        return _MaglevView(change, items, self._rules.size)

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
        view = self._current()
        slots = Counter(view.table)
        return {node: slots[rank] / self.size for rank, node in enumerate(view.nodes)}

    def diff(self, other, /):
        """How placement moves from here to `other`: {(old node, new node): share of the slots}.

        A node of the same name in both has not moved; the node of an empty placement is None.

        Raises TypeError if `other` is no Maglev, ValueError if its size differs.

        Complexity: O(size).

        >>> Maglev(["a"]).diff(Maglev(["b"]))
        {('a', 'b'): 1.0}
        """
        if not isinstance(other, Maglev):
            raise TypeError(f"other must be a Maglev, got {other!r}")
        if self.size != other.size:
            raise ValueError(f"other must have {self.size} slots too, got {other!r}")
        old, new = self._current(), other._current()
        names, new_names = (*old.names, None), (*new.names, None)
        nodes, new_nodes = (*old.nodes, None), (*new.nodes, None)
        return {(nodes[was], new_nodes[now]): slots / self.size
                for (was, now), slots in Counter(zip(old.table, new.table, strict=True)).items()
                if names[was] != new_names[now]}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} size={self.size}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current()
        items = arranged(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        slots = Counter(view.table)
        assert len(view.table) == self.size
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
    if isinstance(key, int):
        hash = int.__pos__(key)
        if not -(2**63) <= hash < 2**64:
            raise ValueError(f"key must be in [-2**63, 2**64), got {key!r}")
        hash &= _MASK
    else:
        hash = _key_hash(key)
    buckets = checked_int("buckets", buckets)
    if not 1 <= buckets <= 2**31:
        raise ValueError(f"buckets must be in [1, 2**31], got {buckets!r}")
    bucket = after = 0
    while after < buckets:
        bucket = after
        hash = (hash * 2862933555777941757 + 1) & _MASK
        after = int((bucket + 1) * (2147483648.0 / ((hash >> 33) + 1)))
    return bucket


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
    data = key_bytes(key, "key")
    _, _, after = data.partition(b"{")
    tag, close, _ = after.partition(b"}")
    return crc_hqx(tag if close and tag else data, 0) & 16383


class _Pick:
    """A node picked by BoundedLoad: `server`, in flight until the ``with`` block or `done()` ends it."""

    __slots__ = ("_bounded", "_era", "_name", "_server")

    def __init__(self, bounded, era, name, server):
        self._bounded, self._era, self._name, self._server = bounded, era, name, server

    @property
    def server(self):
        return self._server

    def done(self):
        """Ends the pick: the server has one less in flight. Once ended, nothing happens."""
        bounded = self._bounded
        with bounded._lock:
            name, self._name = self._name, None
            if name is not None and self._era == bounded._era:
                bounded._release(name)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.done()

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __del__(self):
        self.done()


def _sum(weights):
    """One addition after the other, as the compiled twin does."""
    total = 0.0
    for weight in weights:
        total += weight
    return total


class BoundedLoad:
    """Consistent hashing with bounded loads, over a HashRing, Rendezvous or Maglev.

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

    __slots__ = ("__weakref__", "_c", "_counted", "_edits", "_era", "_loads", "_lock", "_made", "_names",
                 "_placement", "_total", "_weight")

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._placement, self._c, self._lock, self._made = HashRing(), 1.25, new_lock(), False
        self._loads = {}
        self._names, self._counted, self._total, self._weight = None, frozenset(), 0, 0.0
        self._edits = self._era = 0
        renew(self)
        return self

    def __init__(self, placement, c=1.25):
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must be a HashRing, Rendezvous or Maglev, got {placement!r}")
        bound = checked_bound(c)
        with self._lock:
            if self._made:
                raise initialized(self)
            self._c, self._placement, self._made = bound, placement, True

    def _renew(self):
        """In the child of a fork: nothing is in flight."""
        self._loads, self._total = {}, 0
        self._edits += 1
        self._era += 1

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
        with self._lock:
            counts = self._loads.copy()
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
        view = self._placement._current()
        key = view.begin(key)
        names = {name_bytes(node, self._placement._node_key) for node in checked_iterable("exclude", exclude)}
        with self._lock:
            rank, era = self._chosen(view, key, names), self._era
        if rank < 0:
            raise NoServerError("every server is excluded" if view.active else "the placement has no server")
        return _Pick(self, era, view.names[rank], view.nodes[rank])

    def _chosen(self, view, key, barred):
        """Counts a pick in at the rank that it answers; chooses again where a finalizer came in between.

        A finalizer comes at a call or an allocation: counting is a straight line without either.
        """
        while True:
            edits = self._edits
            rank = self._choose(view, key, barred)
            if rank < 0:
                return rank
            name = view.names[rank]
            if edits == self._edits:
                self._loads[name] = self._loads[name] + 1 if name in self._loads else 1
                self._total += 1
                self._edits += 1
                return rank

    def _follow(self, view):
        """Sums up by the nodes of `view` from now on."""
        while self._names is not view.names:
            edits = self._edits
            counted, weight = frozenset([view.names[rank] for rank in view.active]), _sum(view.weights)
            total = sum([self._loads.get(name, 0) for name in counted])
            if edits == self._edits:
                self._names, self._counted, self._total, self._weight = view.names, counted, total, weight
                self._edits += 1

    def _has_room(self, view, rank, total, weight):
        """Whether what is in flight is below the bound, and so below its ceiling."""
        bound = self._c * (total + 1) * view.weights[rank] / weight
        return self._loads.get(view.names[rank], 0) < bound

    def _choose(self, view, key, barred):
        """The rank of the node to take, -1 if there is none.

        Nodes that own nothing stand behind all that the key prefers, so that there always is room.
        """
        self._follow(view)
        total, weight = self._total, self._weight
        rank = view.rank(key)
        if not barred and (rank < 0 or self._has_room(view, rank, total, weight)):
            return rank
        if barred:
            able = [rank for rank in view.active if view.names[rank] not in barred]
            total = sum([self._loads.get(view.names[rank], 0) for rank in able])
            weight = _sum([view.weights[rank] for rank in able])
        order = dict.fromkeys([*view.ranks(key, len(view.active)), *view.active])
        order = [rank for rank in order if view.names[rank] not in barred]
        roomy = (rank for rank in order if self._has_room(view, rank, total, weight))
        return next(roomy, order[0] if order else -1)

    def _release(self, name):
        """Takes one from what is in flight at a node, a member or not."""
        if self._loads[name] > 1:
            self._loads[name] -= 1
        else:
            del self._loads[name]
        if name in self._counted:
            self._total -= 1
        self._edits += 1

    def __repr__(self):
        picks = sum(self.loads.values())
        return f"<{type(self).__name__} c={self._c!r} picks={picks} of {self._placement!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        assert all(load > 0 for load in self._loads.values())
        assert self._total == sum([self._loads.get(name, 0) for name in self._counted])
