"""Members of a placement, one copy for both twins: names, weights and the rules of each placement.

Nothing here is called by a lookup. The name of a node is the bytes of the node or of what `node_key`
returns. Members are a dict of name to entry, the list [(node, weight)], in insertion order. A member of
weight 0 owns no keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import frexp, isqrt, ldexp
from operator import itemgetter
from sys import float_info

from headgate._base.checks import checked_callable, checked_int
from headgate._base.keys import key_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from headgate.schemes import Program, Scheme

    Members = dict[bytes, list[Any]]
    Item = tuple[bytes, tuple[Any, float]]
    NodeKey = Callable[[Any], str | bytes | int] | None

MAX_POINTS = 2**24
_LEAST_WEIGHT = 2.0**-300


def _exact(name: str, value: Any) -> float:
    """The value as an exact int or float, so that arithmetic on it runs no foreign code."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be an int or a float, got {value!r}")
    return int.__pos__(value) if isinstance(value, int) else float.__pos__(value)


def checked_weight(weight: Any) -> float:
    """The weight of a balancer's server, as an exact type."""
    exact = _exact("weight", weight)
    if not 0 < exact <= float_info.max:
        raise ValueError(f"weight must be positive and finite, got {weight!r}")
    return exact


def _checked_node_weight(weight: Any) -> float:
    """The weight of a placement's node, which may be 0, as an exact type."""
    exact = _exact("weight", weight)
    if not 0 <= exact <= float_info.max:
        raise ValueError(f"weight must be finite and not negative, got {weight!r}")
    return exact


def checked_bound(c: Any) -> float:
    """The bound of BoundedLoad."""
    exact = _exact("c", c)
    if not 1 <= exact <= float_info.max:
        raise ValueError(f"c must be finite and at least 1, got {c!r}")
    return float(exact)


def weighted_nodes(nodes: Any) -> list[tuple[Any, Any]]:
    """The pairs (node, weight) of a constructor's argument."""
    if isinstance(nodes, Mapping):
        return list(nodes.items())
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes must be an iterable of nodes or a mapping of node to weight, got {nodes!r}")
    return [(node, 1) for node in nodes]


def resolve_scheme(scheme: Any) -> tuple[Program | None, Scheme | None]:
    """The program that the argument `scheme` names, or headgate's own scheme if it does not hash by XXH64."""
    if isinstance(scheme, str) and scheme == "headgate":
        return None, None
    from headgate.schemes import Program, find, headgate

    found = find(scheme)
    if isinstance(found, Program):
        return found, None
    return None, None if found == headgate() else found


class Rules:
    """What the constructor of a placement sets besides its nodes; `arguments` are those of the constructor.

    `ordered` is whether nodes keep their insertion order; otherwise they are sorted by name.
    """

    __slots__ = ("arguments", "ordered")

    def __init__(self, *arguments: Any, ordered: bool = False) -> None:
        self.arguments = arguments
        self.ordered = ordered

    def check(self, name: bytes, node: Any, number: int | None, weight: float) -> None:
        """Raises ValueError for a node that cannot be a member; `number` is its name if that is an int."""

    def warn(self, members: Members, change: Members) -> None:
        """Warns if a node would have no keys because of its weight, once `change` is applied to `members`."""

    def identity(self) -> tuple[Any, ...]:
        """What two equal placements have in common besides the members."""
        return self.arguments


class RingRules(Rules):
    """A ring's `replicas` and `scheme`.

    `program` is the scheme of another program or None, `own` is headgate's own scheme if it hashes by another
    function than XXH64, else None.
    """

    __slots__ = ("own", "program", "replicas")

    def __init__(self, replicas: Any = 150, scheme: Any = "headgate") -> None:
        self.replicas = checked_int("replicas", replicas)
        if not 1 <= self.replicas <= MAX_POINTS:
            raise ValueError(f"replicas must be in [1, {MAX_POINTS}], got {replicas!r}")
        self.program, self.own = resolve_scheme(scheme)
        super().__init__(self.replicas, scheme, ordered=self.program is not None)

    def count(self, weight: float) -> int:
        """The number of points of a node of this weight under headgate's own scheme."""
        return max(1, round(weight * self.replicas)) if weight else 0

    def hashing(self) -> tuple[Any, ...]:
        """How keys are hashed: shares of two rings are comparable only if this is the same."""
        if self.program is not None:
            return self.program.key_hash, self.program.exclusive
        return self.own or "xxh64", False

    def check(self, name: bytes, node: Any, number: int | None, weight: float) -> None:
        if self.program is not None:
            self.program.check(node, number, weight)
        if weight * (self.program.points_per_weight if self.program else self.replicas) > MAX_POINTS:
            raise ValueError(f"weight must give at most {MAX_POINTS} points, got {weight!r}")
        if self.own is not None:
            self.own.hash(name)

    def warn(self, members: Members, change: Members) -> None:
        if self.program is not None and self.program.may_starve:
            weights: list[Any] = [weight for ((_, weight),) in {**members, **change}.values() if weight]
            self.program.warn(weights)

    def identity(self) -> tuple[Any, ...]:
        return self.replicas, self.program, self.own


class RendezvousRules(Rules):
    """The `scheme` and `seed` of a Rendezvous; `murmur` is whether it is pymemcache's scheme."""

    __slots__ = ("murmur", "scheme", "seed")

    def __init__(self, scheme: Any = "headgate", seed: Any = 0) -> None:
        if scheme not in ("headgate", "pymemcache"):
            raise ValueError(f"scheme must be one of headgate, pymemcache, got {scheme!r}")
        self.scheme, self.seed = scheme, checked_int("seed", seed)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {seed!r}")
        self.murmur = scheme == "pymemcache"
        super().__init__(scheme, self.seed)

    def check(self, name: bytes, node: Any, number: int | None, weight: float) -> None:
        if self.murmur and weight not in (0, 1):
            raise ValueError(f"weight must be 0 or 1 under the scheme pymemcache, got {weight!r}")


class MaglevRules(Rules):
    """The `size` of the table of a Maglev."""

    __slots__ = ("size",)

    def __init__(self, size: Any = 65537) -> None:
        self.size = checked_int("size", size)
        if not 2 <= self.size < 2**24 or not all(self.size % i for i in range(2, isqrt(self.size) + 1)):
            raise ValueError(f"size must be a prime below 2**24, got {size!r}")
        super().__init__(self.size)


def low_bytes(text: bytes) -> bytes:
    """The low byte of each code point of UTF-8; other bytes are unchanged."""
    return bytes([ord(char) & 0xFF for char in text.decode("utf-8", "surrogateescape")])


def name_bytes(node: Any, node_key: NodeKey) -> bytes:
    """The name of a node, which decides its placement."""
    return key_bytes(node, "node") if node_key is None else key_bytes(node_key(node), "node_key(node)")


def checked_node(node: Any, weight: Any, node_key: NodeKey, rules: Rules) -> tuple[bytes, list[Any]]:
    """The name and the entry of a node, if it may be a member."""
    key = node if node_key is None else node_key(node)
    name = key_bytes(key, "node" if node_key is None else "node_key(node)")
    weight = _checked_node_weight(weight)
    number = int.from_bytes(name, "little", signed=True) if isinstance(key, int) else None
    rules.check(name, node, number, weight)
    return name, [(node, weight)]


def add_member(members: Members, name: bytes, entry: list[Any]) -> None:
    """Adds a member, atomically."""
    if members.setdefault(name, entry) is not entry:
        raise ValueError(f"node must not be a member already, got {entry[0][0]!r}")


def find_member(members: Members, name: bytes, node: Any) -> list[Any]:
    """The entry of a member; storing another pair in it is atomic."""
    entry = members.get(name)
    if entry is None:
        raise KeyError(f"node must be a member, got {node!r}")
    return entry


def make_members(pairs: Any, node_key: Any, rules: Rules) -> Members:
    """The members of a placement from pairs (node, weight)."""
    checked_callable("node_key", node_key)
    members: Members = {}
    for node, weight in pairs:
        add_member(members, *checked_node(node, weight, node_key, rules))
    rules.warn(members, {})
    return {name: [pair] for name, pair in ordered_members(members, rules)}


def ordered_members(members: Members, rules: Rules) -> list[Item]:
    """The members as pairs (name, (node, weight)) in the order of `nodes`."""
    items = [(name, pair) for name, (pair,) in members.copy().items()]
    return items if rules.ordered else sorted(items, key=itemgetter(0))


def active_ranks(items: Sequence[Item]) -> list[int]:
    """The ranks of the nodes of a weight above 0."""
    return [rank for rank, (_, (_, weight)) in enumerate(items) if weight]


def normalized_weights(items: Sequence[Item]) -> list[float]:
    """The weights scaled by a power of two, so that no sum or ratio of them leaves the range of a float.

    That changes no bit of a ratio. The largest is in [0.5, 1); a weight below 2**-300 is raised to that.
    """
    weights = [weight for _, (_, weight) in items]
    distinct = set(weights)  # mostly few
    _, exponent = frexp(max(distinct, default=0))
    scaled = {weight: max(ldexp(weight, -exponent), _LEAST_WEIGHT) if weight else 0.0 for weight in distinct}
    return [scaled[weight] for weight in weights]


def active_weights(items: Sequence[Item]) -> dict[bytes, float]:
    """{name: normalized weight} of the nodes of a weight above 0."""
    weights = normalized_weights(items)
    return {name: weight for (name, _), weight in zip(items, weights, strict=True) if weight}
