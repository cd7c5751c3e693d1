"""Replicas in distinct zones, for both twins: which of a key's nodes they are.

    preference   a1  a2  b1  a3  c1  b2      two of the zones a, b and c fail, and one replica is left
    n = 3        a1  b1  c1                  the first node of each zone
    n = 5        a1  b1  c1  a2  a3          then the others
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def candidates(n: int) -> int:
    """How many nodes are looked at if `n` were too few: for n replicas that suffices for most keys."""
    return 4 * n


def zone_lookup(zones: Any) -> Callable[[Any], Any]:
    """The function from a node to its zone of the argument `zones`."""
    if type(zones) is dict:
        return zones.get
    if isinstance(zones, Mapping):
        return partial(_zone_in, zones)
    if not callable(zones):
        raise TypeError(f"zones must be a mapping of node to zone or a callable, got {zones!r}")
    return zones  # type: ignore[no-any-return]


def _zone_in(zones: Mapping[Any, Any], node: Any) -> Any:
    try:
        return zones[node]  # which may have a default
    except KeyError:
        return None


def zone_of(node: Any, lookup: Callable[[Any], Any]) -> Any:
    zone = lookup(node)
    if zone is None:
        raise ValueError(f"zones must have a zone for each node, got none for {node!r}")
    if type(zone).__hash__ is None:
        raise TypeError(f"zones must be hashable, got {zone!r} for {node!r}")
    return zone


def count_zones(nodes: Iterable[Any], lookup: Callable[[Any], Any]) -> int:
    """How many zones there are."""
    return len({zone_of(node, lookup) for node in nodes})


def spread(nodes: list[Any], n: int, lookup: Callable[[Any], Any], zones: int) -> list[Any] | None:
    """The first node of each zone, then the others, `n` in all; `nodes` are a key's first in its order.

    None if they are of fewer than so many `zones`.
    """
    first: list[Any] = []
    others: list[Any] = []
    seen: set[Any] = set()
    for node in nodes:
        if len(first) == zones and len(first) + len(others) >= n:
            break
        zone = zone_of(node, lookup)
        if zone in seen:
            others.append(node)
        else:
            seen.add(zone)
            first.append(node)
    return (first + others)[:n] if len(first) >= zones else None
