"""What every placement knows of its nodes, in one copy for both twins: names, weights, rules.

Nothing here is on the path of a lookup. A node's name is bytes, made from the node or from what
`node_key` answers; members are a dict from name to (node, weight), in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt
from operator import index, itemgetter
from sys import float_info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from headgate.schemes import Scheme

    Members = dict[bytes, tuple[Any, float]]
    NodeKey = Callable[[Any], str | bytes | int] | None

MAX_POINTS = 2**24


def integer(name: str, value: Any) -> int:
    """The int that `value` is, or a TypeError that names it."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None


def key_bytes(key: Any, name: str) -> bytes:
    """The bytes of a key: UTF-8 of a str, bytes, 8 little-endian bytes of an int; as an exact type."""
    if isinstance(key, str):
        return str.encode(key)
    if isinstance(key, bytes):
        return bytes.join(b"", (key,))
    if not isinstance(key, int):
        raise TypeError(f"{name} must be str, bytes or int, got {key!r}")
    try:
        return int.to_bytes(key, 8, "little", signed=True)
    except OverflowError:
        raise ValueError(f"{name} must be in [-2**63, 2**63), got {key!r}") from None


def checked_weight(weight: Any) -> float:
    """The weight as an exact int or float, so that arithmetic on it is no foreign code."""
    if not isinstance(weight, (int, float)):
        raise TypeError(f"weight must be an int or a float, got {weight!r}")
    exact = int.__pos__(weight) if isinstance(weight, int) else float.__pos__(weight)
    if not 0 < exact <= float_info.max:
        raise ValueError(f"weight must be positive and finite, got {weight!r}")
    return exact


def checked_bound(c: Any) -> float:
    """How many times its share a server may take."""
    if not isinstance(c, (int, float)):
        raise TypeError(f"c must be an int or a float, got {c!r}")
    exact = int.__pos__(c) if isinstance(c, int) else float.__pos__(c)
    if not 1 <= exact <= float_info.max:
        raise ValueError(f"c must be finite and at least 1, got {c!r}")
    return float(exact)


def checked_several(name: str, value: Any) -> Iterable[Any]:
    """`value`, if it is an iterable and no single name."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an iterable, got {value!r}")
    return value


def weighted(nodes: Any) -> list[tuple[Any, Any]]:
    """The pairs (node, weight) of a constructor's argument."""
    if isinstance(nodes, Mapping):
        return list(nodes.items())
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes must be an iterable of nodes or a mapping of node to weight, got {nodes!r}")
    return [(node, 1) for node in nodes]


def resolved(scheme: Any) -> Scheme | None:
    """The foreign scheme that an argument names, None for our own."""
    if isinstance(scheme, str) and scheme == "headgate":
        return None
    from headgate.schemes import find

    return find(scheme)


class Rules:
    """What the constructor of a placement fixed besides its nodes; `arguments` are what it was given.

    `ordered` says whether the order of arrival is part of the membership; else nodes are sorted by name.
    """

    __slots__ = ("arguments", "ordered")

    def __init__(self, *arguments: Any, ordered: bool = False) -> None:
        self.arguments = arguments
        self.ordered = ordered

    def admit(self, node: Any, number: int | None, weight: float) -> None:
        """Raises ValueError for a node that has no place here; `number` is its name if that is an int."""

    def warn(self, members: Members, *joining: tuple[Any, float]) -> None:
        """Warns of weights, those of the members and of entries that join, that leave a node without keys."""

    def identity(self) -> tuple[Any, ...]:
        """What makes two sets of rules equal."""
        return self.arguments


class RingRules(Rules):
    """A ring's `replicas` and `scheme`; `program` is the foreign Scheme, or None."""

    __slots__ = ("program", "replicas")

    def __init__(self, replicas: Any = 150, scheme: Any = "headgate") -> None:
        self.replicas = integer("replicas", replicas)
        if not 1 <= self.replicas <= MAX_POINTS:
            raise ValueError(f"replicas must be in [1, {MAX_POINTS}], got {replicas!r}")
        self.program = resolved(scheme)
        super().__init__(self.replicas, scheme, ordered=self.program is not None)

    def count(self, weight: float) -> int:
        """How many points of our own scheme a node of this weight has."""
        return max(1, round(weight * self.replicas))

    def hashing(self) -> tuple[Any, ...]:
        """How keys are hashed: shares of the circle compare only where this is the same."""
        if self.program is None:
            return "xxh64", False
        return self.program.key_hash, self.program.exclusive

    def admit(self, node: Any, number: int | None, weight: float) -> None:
        if self.program is not None:
            self.program.check(node, number, weight)
        if weight * (self.program.points_per_weight if self.program else self.replicas) > MAX_POINTS:
            raise ValueError(f"weight must give at most {MAX_POINTS} points, got {weight!r}")

    def warn(self, members: Members, *joining: tuple[Any, float]) -> None:
        if self.program is not None and self.program.may_starve:
            weights: list[Any] = [weight for _, weight in (*members.copy().values(), *joining)]
            self.program.warn(weights)

    def identity(self) -> tuple[Any, ...]:
        return self.replicas, self.program


class RaceRules(Rules):
    """Rendezvous: the `scheme` by which nodes draw, and its `seed`; `murmur` is pymemcache's."""

    __slots__ = ("murmur", "scheme", "seed")

    def __init__(self, scheme: Any = "headgate", seed: Any = 0) -> None:
        if scheme not in ("headgate", "pymemcache"):
            raise ValueError(f"scheme must be one of headgate, pymemcache, got {scheme!r}")
        self.scheme, self.seed = scheme, integer("seed", seed)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {seed!r}")
        self.murmur = scheme == "pymemcache"
        super().__init__(scheme, self.seed)

    def admit(self, node: Any, number: int | None, weight: float) -> None:
        if self.murmur and weight != 1:
            raise ValueError(f"weight must be 1 under the scheme pymemcache, got {weight!r}")


class MaglevRules(Rules):
    """Maglev: the `size` of its table."""

    __slots__ = ("size",)

    def __init__(self, size: Any = 65537) -> None:
        self.size = integer("size", size)
        if not 2 <= self.size < 2**24 or not all(self.size % i for i in range(2, isqrt(self.size) + 1)):
            raise ValueError(f"size must be a prime below 2**24, got {size!r}")
        super().__init__(self.size)


def low_bytes(text: bytes) -> bytes:
    """The low byte of each code point of UTF-8; bytes that are none stay."""
    return bytes([ord(char) & 0xFF for char in text.decode("utf-8", "surrogateescape")])


def name_bytes(node: Any, node_key: NodeKey) -> bytes:
    """What decides where a node stands."""
    return key_bytes(node, "node") if node_key is None else key_bytes(node_key(node), "node_key(node)")


def admitted(node: Any, weight: Any, node_key: NodeKey, rules: Rules) -> tuple[bytes, tuple[Any, float]]:
    """The name and the entry of a node that may join."""
    key = node if node_key is None else node_key(node)
    name = key_bytes(key, "node" if node_key is None else "node_key(node)")
    weight = checked_weight(weight)
    number = int.from_bytes(name, "little", signed=True) if isinstance(key, int) else None
    rules.admit(node, number, weight)
    return name, (node, weight)


def join(members: Members, name: bytes, entry: tuple[Any, float]) -> None:
    """Adds a member in one step that no other thread can divide."""
    if members.setdefault(name, entry) is not entry:
        raise ValueError(f"node must not be a member already, got {entry[0]!r}")


def collected(pairs: Any, node_key: Any, rules: Rules) -> Members:
    """The members that a constructor is given."""
    if node_key is not None and not callable(node_key):
        raise TypeError(f"node_key must be callable or None, got {node_key!r}")
    members: Members = {}
    for node, weight in pairs:
        join(members, *admitted(node, weight, node_key, rules))
    rules.warn(members)
    return dict(arranged(members, rules))


def arranged(members: Members, rules: Rules) -> list[tuple[bytes, tuple[Any, float]]]:
    """The members in the order of `nodes`, as they are at one moment."""
    items = members.copy().items()
    return list(items) if rules.ordered else sorted(items, key=itemgetter(0))
