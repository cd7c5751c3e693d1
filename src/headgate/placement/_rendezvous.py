"""Rendezvous in pure Python."""

from math import log
from struct import unpack_from

from headgate._base.keys import key_bytes
from headgate.hashing._pure import _xxh64_bytes, splitmix64
from headgate.placement._base import _Placement, _View
from headgate.placement._members import (
    RaceRules,
    active,
    arranged,
    collected,
    low_bytes,
    proportions,
    rates,
    weighted,
)
from headgate.placement._moves import expected_moves

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
