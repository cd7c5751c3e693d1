"""Rendezvous in pure Python."""

from __future__ import annotations

from math import log
from struct import unpack_from

from headgate._base.keys import key_bytes
from headgate.hashing._pure import _xxh64_bytes, splitmix64
from headgate.placement._base import _Placement, _View
from headgate.placement._members import (
    RendezvousRules,
    active_ranks,
    active_weights,
    low_bytes,
    make_members,
    normalized_weights,
    ordered_members,
    weighted_nodes,
)
from headgate.placement._moves import expected_moves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    """MurmurHash3 of 32 bits of a prefix, given as its state, remaining bytes and size, and `data`."""
    h, rest, size = prefix
    size += len(data)
    data = rest + data
    whole = len(data) & ~3
    h = _murmur_blocks(h, data) ^ _murmur_mix(int.from_bytes(data[whole:], "little")) ^ size
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK32
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK32
    return h ^ h >> 16


class _RendezvousView(_View):
    """Per active node the hash of its name and, if weights differ, its weight; or pymemcache's prefix."""

    __slots__ = ("active_weights", "name_hashes", "prefixes", "seed")

    if TYPE_CHECKING:
        name_hashes: Any

    def __init__(self, change, items, rules):
        super().__init__(change, items)
        self.seed = rules.seed
        self.name_hashes = self.active_weights = self.prefixes = None
        names = [self.names[rank] for rank in self.active]
        if rules.murmur:
            self.prefixes = [self._hash_prefix(low_bytes(name) + b"-") for name in names]
            return
        self.name_hashes = [_xxh64_bytes(name) for name in names]
        if len({items[rank][1][1] for rank in self.active}) > 1:
            self.active_weights = [self.weights[rank] for rank in self.active]

    def _hash_prefix(self, prefix):
        """The state of MurmurHash3 after the prefix, its remaining bytes and its size."""
        whole = len(prefix) & ~3
        return _murmur_blocks(self.seed, prefix), prefix[whole:], len(prefix)

    def scores(self, key):
        """The score of every active node; the highest owns the key, the later of equal scores."""
        data = key_bytes(key, "key")
        if self.prefixes is not None:
            data = low_bytes(data)
            return [_murmur_end(prefix, data) for prefix in self.prefixes]
        hash = _xxh64_bytes(data, self.seed)
        draws = [splitmix64(name_hash ^ hash) for name_hash in self.name_hashes]
        if self.active_weights is None:
            return draws
        return [log(((draw >> 12) + 0.5) * 2.0**-52) / weight
                for draw, weight in zip(draws, self.active_weights, strict=True)]

    def rank(self, key):
        return max(zip(self.scores(key), self.active, strict=True), default=(0, -1))[1]

    def preference(self, key, limit):
        order = sorted(zip(self.scores(key), self.active, strict=True), reverse=True)
        return [rank for _, rank in order[:limit]]


class Rendezvous(_Placement):
    """Rendezvous hashing: every node has a score for each key, and the highest score owns the key.

    `nodes` is an iterable of nodes, or a mapping of node to weight; names and keys are as in HashRing.
    Keys are shared exactly in proportion to the weights, and adding, removing or reweighting a node
    moves only the keys that it gains or loses. In return, a lookup computes the score of every node.

    With u = splitmix64(XXH64(name) xor XXH64(key, `seed`)) / 2**64, the score of a node is
    ln(u) / weight. `scheme` ``"pymemcache"`` places keys as RendezvousHash of that package does: the
    score is murmur3 of ``name-key`` with `seed`, and weights are 1. Only the low byte of each code
    point is hashed there, and ``bytes`` are decoded as UTF-8, so that both forms of a key agree.

    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998;
    weights after Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.

    Raises TypeError or ValueError if an argument has a wrong type or is out of range, ValueError if
    two nodes have the same name.

    Complexity: O(n) per lookup for n nodes.

    >>> Rendezvous({"a": 1, "b": 3}).get_node("user:1")
    'b'
    """

    __slots__ = ()

    _rules_class = RendezvousRules

    def __init__(self, nodes=(), *, scheme="headgate", seed=0, node_key=None):
        rules = RendezvousRules(scheme, seed)
        self._initialize(make_members(weighted_nodes(nodes), node_key, rules), rules, node_key)

    def _make_view(self, change, items):
        return _RendezvousView(change, items, self._rules)

    @property
    def scheme(self):
        """The scheme by which scores are computed: ``"headgate"`` or ``"pymemcache"``.

        Complexity: O(1).

        >>> Rendezvous().scheme
        'headgate'
        """
        return self._rules.scheme

    @property
    def seed(self):
        """The seed of the hash of a key.

        Complexity: O(1).

        >>> Rendezvous(seed=7).seed
        7
        """
        return self._rules.seed

    def ownership(self):
        """A dict of node to the share of all keys that it owns: its weight over the sum of all weights.

        Complexity: O(n) for n nodes.

        >>> Rendezvous({"a": 1, "b": 3}).ownership()
        {'a': 0.25, 'b': 0.75}
        """
        _, items = self._ordered_members()
        weights = normalized_weights(items)
        total = sum(weights) or 1
        return {node: weight / total for (_, (node, _)), weight in zip(items, weights, strict=True)}

    def diff(self, other, /):
        """How placement moves from this one to `other`: {(old node, new node): share of all keys}.

        Shares are expected values in closed form. A node of the same name in both has not moved;
        the node of an empty placement is None.

        Raises TypeError if `other` is not a Rendezvous, ValueError if its scheme or seed differs.

        Complexity: O(n * m) for the nodes of both.

        >>> Rendezvous(["a"]).diff(Rendezvous(["a", "b"]))
        {('a', 'b'): 0.5}
        """
        if not isinstance(other, Rendezvous):
            raise TypeError(f"other must be a Rendezvous, got {other!r}")
        if self._rules.arguments != other._rules.arguments:
            raise ValueError(f"other must hash keys as this placement does, got {other!r}")
        (_, olds), (_, news) = self._ordered_members(), other._ordered_members()
        old, new, moves = dict(olds), dict(news), expected_moves(active_weights(olds), active_weights(news))
        return {(old[was][0] if was is not None else None, new[now][0] if now is not None else None): share
                for (was, now), share in moves.items()}

    def __repr__(self):
        return f"<{type(self).__name__} nodes={len(self)} scheme={self.scheme!r} seed={self.seed!r}>"

    def _check(self):
        """Asserts every invariant of the structure."""
        view = self._current_view()
        items = ordered_members(self._members, self._rules)
        assert view.nodes == tuple([node for _, (node, _) in items])
        assert view.active == active_ranks(items)
        assert len(view.name_hashes if view.prefixes is None else view.prefixes) == len(view.active)
        assert (view.prefixes is not None) == self._rules.murmur
        assert (view.active_weights is not None) == (len({weight for _, (_, weight) in items if weight}) > 1)
