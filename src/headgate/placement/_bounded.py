"""BoundedLoad in pure Python."""

from types import GenericAlias

from headgate._base.checks import checked_iterable
from headgate._base.forks import new_lock, renew
from headgate._base.pickling import initialized
from headgate.errors import NoServerError
from headgate.placement._base import _Placement
from headgate.placement._members import checked_bound, name_bytes
from headgate.placement._ring import HashRing


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
