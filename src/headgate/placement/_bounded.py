"""BoundedLoad in pure Python."""

from __future__ import annotations

from types import GenericAlias

from headgate._base.checks import checked_iterable
from headgate._base.forks import new_lock, renew
from headgate._base.pickling import initialized
from headgate.errors import NoServerError
from headgate.placement._base import _Placement
from headgate.placement._members import checked_bound, name_bytes
from headgate.placement._ring import HashRing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Pick:
    """A pick of BoundedLoad, in flight at `server` until the ``with`` block or `done()` ends it."""

    __slots__ = ("_bounded", "_generation", "_name", "_server")

    def __init__(self, bounded, generation, name, server):
        self._bounded, self._generation, self._name, self._server = bounded, generation, name, server

    @property
    def server(self):
        return self._server

    def done(self):
        """Ends the pick: the server has one request less in flight. Further calls do nothing."""
        bounded = self._bounded
        with bounded._lock:
            name, self._name = self._name, None
            if name is not None and self._generation == bounded._generation:
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
    """The sum by one addition after the other, rounded as in the compiled twin."""
    total = 0.0
    for weight in weights:
        total += weight
    return total


class BoundedLoad:
    """Consistent hashing with bounded loads, over a HashRing, Rendezvous or Maglev.

    A key goes to the first node in its preference order that is below its bound: that has fewer
    requests in flight than ceil(`c` * average * weight / mean weight), the average including this pick.
    So no node has more than `c` times its share, and with c = 1.25 nearly all keys stay on the node that
    `placement` assigns them to.

    Nodes are added, removed and reweighted in `placement` itself; requests in flight at a node that was
    removed or has weight 0 count again if it returns. A pick that is garbage-collected is ended.

    Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016.

    Raises TypeError if `placement` is none of these or `c` is not a number, ValueError unless `c` is
    finite and at least 1.

    Complexity: O(1) more than get_node while the first node is below its bound, else that of preference.

    >>> bounded = BoundedLoad(HashRing(["a", "b"]), c=1.5)
    >>> with bounded.pick("user:1") as pick:
    ...     pick.server, bounded.loads
    ('a', {'a': 1, 'b': 0})
    """

    __slots__ = ("__weakref__", "_active_names", "_c", "_generation", "_initialized", "_loads", "_lock",
                 "_names", "_placement", "_total", "_version", "_weight")

    if TYPE_CHECKING:
        __class_getitem__: Any
        _active_names: frozenset[bytes]
        _c: float
        _generation: int
        _initialized: bool
        _loads: dict[bytes, int]
        _lock: Any
        _names: tuple[bytes, ...] | None
        _placement: Any
        _total: int
        _version: int
        _weight: float

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._placement, self._c, self._lock, self._initialized = HashRing(), 1.25, new_lock(), False
        self._loads = {}
        self._names, self._active_names, self._total, self._weight = None, frozenset(), 0, 0.0
        self._version = self._generation = 0
        renew(self)
        return self

    def __init__(self, placement, c=1.25):
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must be a HashRing, Rendezvous or Maglev, got {placement!r}")
        bound = checked_bound(c)
        with self._lock:
            if self._initialized:
                raise initialized(self)
            self._c, self._placement, self._initialized = bound, placement, True

    def _renew(self):
        """In the child of a fork: nothing is in flight."""
        self._loads, self._total = {}, 0
        self._version += 1
        self._generation += 1

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self):
        raise TypeError(f"cannot copy {type(self).__name__!r} object")

    @property
    def placement(self):
        """The placement whose preference order is used.

        Complexity: O(1).

        >>> BoundedLoad(HashRing(["a"])).placement.nodes
        ('a',)
        """
        return self._placement

    @property
    def c(self):
        """The bound, as a multiple of a node's share.

        Complexity: O(1).

        >>> BoundedLoad(HashRing(["a"])).c
        1.25
        """
        return self._c

    @property
    def loads(self):
        """A dict of node to the number of picks in flight at it, in the order of ``placement.nodes``.

        Complexity: O(n) for n nodes.

        >>> BoundedLoad(HashRing(["a", "b"])).loads
        {'a': 0, 'b': 0}
        """
        view = self._placement._current_view()
        with self._lock:
            counts = self._loads.copy()
        return {node: counts.get(name, 0) for node, name in zip(view.nodes, view.names, strict=True)}

    def pick(self, key, *, exclude=()):
        """Picks the first node in the preference order of `key` that is below its bound.

        Returns a context manager with the attribute `server` and the method `done()`; leaving the block or
        calling `done()` ends the pick. Nodes in `exclude` are skipped and do not count in the average.

        Raises NoServerError if there is no node, or each is excluded or of weight 0, TypeError and
        ValueError for a wrong `key` as get_node does, and for a node in `exclude` that cannot have a name.

        Complexity: that of get_node while the first node is below its bound, else that of preference.

        >>> BoundedLoad(HashRing(["a", "b"])).pick("user:1", exclude=["a"]).server
        'b'
        """
        view = self._placement._current_view()
        key = view.prepare(key)
        names = {name_bytes(node, self._placement._node_key) for node in checked_iterable("exclude", exclude)}
        with self._lock:
            rank, generation = self._count_pick(view, key, names), self._generation
        if rank < 0:
            raise NoServerError("every server is excluded" if view.active else "the placement has no server")
        return _Pick(self, generation, view.names[rank], view.nodes[rank])

    def _count_pick(self, view, key, excluded):
        """Chooses a node, counts a pick at it and returns its rank; -1 if there is none.

        A finalizer may run at a call or an allocation, and end picks: if one ran, the choice is repeated. The
        lines that count have neither.
        """
        while True:
            version = self._version
            rank = self._choose(view, key, excluded)
            if rank < 0:
                return rank
            name = view.names[rank]
            if version == self._version:
                self._loads[name] = self._loads[name] + 1 if name in self._loads else 1
                self._total += 1
                self._version += 1
                return rank

    def _use_view(self, view):
        """Makes the sums of loads and weights those of the nodes of `view`."""
        while self._names is not view.names:
            version = self._version
            active_names = frozenset([view.names[rank] for rank in view.active])
            weight = _sum(view.weights)
            total = sum([self._loads.get(name, 0) for name in active_names])
            if version == self._version:
                self._names, self._active_names = view.names, active_names
                self._total, self._weight = total, weight
                self._version += 1

    def _below_bound(self, view, rank, total, weight):
        """Whether the load of the node is below the bound, and hence below its ceiling."""
        bound = self._c * (total + 1) * view.weights[rank] / weight
        return self._loads.get(view.names[rank], 0) < bound

    def _choose(self, view, key, excluded):
        """The rank of the node to pick, -1 if there is none.

        Nodes without keys come after the preference order, so that one node is always below its bound.
        """
        self._use_view(view)
        total, weight = self._total, self._weight
        rank = view.rank(key)
        if not excluded and (rank < 0 or self._below_bound(view, rank, total, weight)):
            return rank
        if excluded:
            left = [rank for rank in view.active if view.names[rank] not in excluded]
            total = sum([self._loads.get(view.names[rank], 0) for rank in left])
            weight = _sum([view.weights[rank] for rank in left])
        ranks = dict.fromkeys([*view.preference(key, len(view.active)), *view.active])
        order = [rank for rank in ranks if view.names[rank] not in excluded]
        below = (rank for rank in order if self._below_bound(view, rank, total, weight))
        return next(below, order[0] if order else -1)

    def _release(self, name):
        """Decreases the load of a node, a member or not."""
        if self._loads[name] > 1:
            self._loads[name] -= 1
        else:
            del self._loads[name]
        if name in self._active_names:
            self._total -= 1
        self._version += 1

    def __repr__(self):
        picks = sum(self.loads.values())
        return f"<{type(self).__name__} c={self._c!r} picks={picks} of {self._placement!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        assert all(load > 0 for load in self._loads.values())
        assert self._total == sum([self._loads.get(name, 0) for name in self._active_names])
