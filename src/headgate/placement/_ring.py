"""HashRing in pure Python."""

from array import array
from bisect import bisect_left
from itertools import compress

from headgate._base.keys import key_bytes
from headgate.hashing._pure import _MASK, _xxh64_bytes, splitmix64
from headgate.placement._base import _key_hash, _Placement, _View
from headgate.placement._members import RingRules, active_ranks, make_members, ordered_members, weighted_nodes

_LOW = 0xFFFF_FFFF


class _Table:
    """The sorted points of a ring, with the rank of the owner of each; immutable.

    Hashes of 32 bits are in the upper half of a position; the lower half of such a point is all ones.
    """

    __slots__ = ("nearest", "owners", "points", "ranks")

    def __init__(self, points, owners, ranks, nearest):
        self.points = points
        self.owners = owners
        self.ranks = ranks
        self.nearest = nearest

    def find(self, position):
        """The index of the first point at or after `position`, or of the nearer point if `nearest` is set."""
        points = self.points
        at = bisect_left(points, position)
        if self.nearest and self._before_is_nearer(position, at):
            at += len(points) - 1
        return at % len(points)

    def _before_is_nearer(self, position, at, before=None):
        """Whether the point before `position` is no farther than the one at or after it."""
        points, count = self.points, len(self.points)
        before = at - 1 if before is None else before
        behind = (position | _LOW) - points[before % count] & _MASK
        return behind <= points[at % count] - (position | _LOW) & _MASK

    def walk(self, position, limit):
        """The ranks of the first `limit` distinct owners from `position` on."""
        owners, count = self.owners, len(self.owners)
        seen: dict = {}
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


def _own_points(base, count):
    """The points of one node under headgate's own scheme."""
    return [splitmix64(base + i) for i in range(count)]


def _points_of(added, rules):
    """The points of each of `added`, pairs (name, weight) of nodes of a weight above 0."""
    if rules.program is None:
        hash = _xxh64_bytes if rules.own is None else rules.own.hash
        return [_own_points(hash(name), rules.count(weight)) for name, weight in added]
    names, weights = [name for name, _ in added], [weight for _, weight in added]
    points = rules.program.points(names, weights)
    return points if rules.program.wide else [[point << 32 | _LOW for point in own] for own in points]


def _merge(points, owners, pairs):
    """Merges sorted points and their owners with sorted `pairs`, integers point << 32 | owner."""
    if not points:
        return array("Q", [pair >> 32 for pair in pairs]), array("I", [pair & _LOW for pair in pairs])
    new_points, new_owners = array("Q"), array("I")
    at = 0
    for pair in pairs:
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


def _rebuild_table(old, items, rules):
    """The table for `items`, pairs (name, (node, weight)) by rank, made from the previous table.

    The points of a node are kept if its weight and its order among the other nodes kept are the same.
    """
    if old is None or (rules.program is not None and not rules.program.points_per_weight):
        old = _Table(array("Q"), array("I"), {}, False)
    new_ranks: list = [None] * len(old.ranks)
    ranks, added = {}, {}
    last = -1
    for rank, (name, (_, weight)) in enumerate(items):
        ranks[name] = rank, weight
        old_rank, old_weight = old.ranks.get(name, (-1, None))
        if old_rank > last and old_weight == weight:
            last = old_rank
            new_ranks[last] = rank
        elif weight:
            added[rank] = name, weight
    points_by_rank = zip(added, _points_of(added.values(), rules), strict=True)
    added_points = sorted([point << 32 | rank for rank, own in points_by_rank for point in own])
    points, owners = old.points, old.owners
    if None in new_ranks:
        kept = [new_ranks[owner] is not None for owner in owners]
        points, owners = array("Q", compress(points, kept)), array("I", compress(owners, kept))
    points, owners = _merge(points, array("I", map(new_ranks.__getitem__, owners)), added_points)
    return _Table(points, owners, ranks, rules.program is not None and rules.program.nearest)


def _shares(table, nodes):
    """How many of the 2**64 positions the node of each rank owns; `nodes` is the number of nodes."""
    shares = [0] * nodes
    before = -1
    for last, owner in table.arcs() if table.owners else ():
        shares[owner] += last - before
        before = last
    return shares


def _moved_positions(old, new):
    """{(old rank or -1, new rank or -1): how many positions}, where the owners' names differ."""
    moved: dict = {}
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


def _checked_hashes(hashes):
    """A memoryview of `hashes`, checked to be contiguous and of unsigned 64-bit integers."""
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
        """The position on the ring of a hash of the scheme."""
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

    def preference(self, key, limit):
        return self.table.walk(self.position(key), limit)


class _Position(int):
    """The position of a key, which `prepare` returns in place of the key."""


class _OwnHashView(_RingView):
    """A ring under another hash function than XXH64."""

    __slots__ = ("hash",)

    def __init__(self, change, items, table, hash):
        super().__init__(change, items, table, None)
        self.hash = hash

    def prepare(self, key):
        return _Position(self.hash(key_bytes(key, "key")))

    def position(self, key):
        return key if type(key) is _Position else self.hash(key_bytes(key, "key"))


class HashRing(_Placement):
    """Consistent hashing: which node each key belongs to.

    `nodes` is an iterable of nodes, or a mapping of node to weight. A node of weight 1 owns
    `replicas` points on a circle of 64-bit hashes, one of weight w ``max(1, round(w * replicas))``;
    a key belongs to the owner of the first point at or after its hash. More points per node balance
    better: of 100 nodes the most loaded has 1.22 times the mean at 150 points, 1.11 at 500.

    A node is a ``str``, ``bytes`` or ``int``, or any object for which `node_key` returns one of
    these; its points depend on that name only. A node of weight 0 owns no keys. Placement depends
    on the membership, not on insertion order, process or platform. Adding or removing a node moves
    only the keys that it gains or loses.

    `scheme` determines how points are placed and keys are hashed: ``"headgate"`` uses XXH64 of the
    name as base, splitmix64(base + i) as point i, and XXH64 of the key. ``"libmemcached"``,
    ``"uhashring"``, ``"twemproxy"``, ``"nginx"``, ``"envoy"`` and ``"haproxy"`` place keys as these
    programs do; weights are then ints and `replicas` is not used. See headgate.schemes for their
    options, and for ``headgate(hash=...)``, which replaces XXH64 by another hash function.

    Keys are ``str`` (hashed as UTF-8), ``bytes``, or ``int`` in [-2**63, 2**63), hashed as 8 bytes
    of little-endian two's complement. Lookups in any thread continue while nodes change.

    Source: Karger et al., "Consistent hashing and random trees", 1997.

    Raises TypeError or ValueError if an argument has a wrong type or is out of range, ValueError if
    two nodes have the same name.

    Complexity: O(p) for p points in total, at the first lookup and at the first after any number of
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
        self._initialize(make_members(weighted_nodes(nodes), node_key, rules), rules, node_key)

    def _make_view(self, change, items):
        rules = self._rules
        table = self._core = _rebuild_table(self._core, items, rules)
        if rules.own is not None:
            return _OwnHashView(change, items, table, rules.own.hash)
        return _RingView(change, items, table, rules.program)

    def locate(self, hashes, /):
        """Returns an ``array("i")``: for each hash of a buffer, the index of its owner in `nodes`.

        `hashes` is a contiguous buffer of unsigned 64-bit integers, such as ``array("Q")`` or a
        numpy array: hashes of keys under the scheme, which is XXH64 for headgate's own, taken modulo
        2**32 if the scheme has 32 bits. In an empty ring every index is -1. The compiled twin releases
        the GIL.

        Raises TypeError if `hashes` is not a buffer, ValueError if it has other items or is not
        one-dimensional and contiguous.

        Complexity: O(1) expected per hash.

        >>> ring = HashRing(["a", "b"])
        >>> ring.locate(memoryview(bytes(16)).cast("Q"))
        array('i', [0, 0])
        """
        view = self._current_view()
        hashes, table = _checked_hashes(hashes), view.table
        if not table.owners:
            return array("i", [-1]) * len(hashes)
        return array("i", [table.owners[table.find(view.at(hash))] for hash in hashes])

    @property
    def replicas(self):
        """The number of points of a node of weight 1 under headgate's own scheme.

        Complexity: O(1).

        >>> HashRing().replicas
        150
        """
        return self._rules.replicas

    @property
    def scheme(self):
        """The scheme by which points are placed and keys are hashed, as given to the constructor.

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
        view = self._current_view()
        shares = _shares(view.table, len(view.nodes))
        return {node: share / 2**64 for node, share in zip(view.nodes, shares, strict=True)}

    def diff(self, other, /):
        """How placement moves from this ring to `other`: {(old node, new node): share moved}.

        Shares are exact, of all hashes; a node of the same name in both rings has not moved.
        The node of an empty ring is None.

        Raises TypeError if `other` is not a HashRing, ValueError if it hashes keys differently.

        Complexity: O(p) for the points of both.

        >>> HashRing(["a"]).diff(HashRing(["b"]))
        {('a', 'b'): 1.0}
        """
        if not isinstance(other, HashRing):
            raise TypeError(f"other must be a HashRing, got {other!r}")
        if self._rules.hashing() != other._rules.hashing():
            raise ValueError(f"other must hash keys as this ring does, got {other!r}")
        old, new = self._current_view(), other._current_view()
        olds, news = (*old.nodes, None), (*new.nodes, None)
        return {(olds[was], news[now]): share / 2**64
                for (was, now), share in _moved_positions(old.table, new.table).items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} replicas={self.replicas} scheme={self.scheme!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current_view()
        table, items = view.table, ordered_members(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert view.active == active_ranks(items)
        assert table.ranks == {name: (rank, weight) for rank, (name, (_, weight)) in enumerate(items)}
        placed = _points_of([(name, weight) for name, (_, weight) in items if weight], self._rules)
        placed = zip(view.active, placed, strict=True)
        expected = sorted([(point, rank) for rank, own in placed for point in own])
        assert expected == list(zip(table.points, table.owners, strict=True))
