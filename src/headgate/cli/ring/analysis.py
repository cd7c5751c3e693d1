"""The distribution of load over a placement, and the keys that a change of it moves."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from headgate.cli.bench.workload import user_id
from headgate.cli.ring.placements import Placement

_CHUNK = 50_000


class Load(NamedTuple):
    """One node: its shares of the hash space (`ideal` by weight, `owned` by placement) and of requests."""

    node: str
    weight: float
    ideal: float
    owned: float
    requests: int
    share: float

    @property
    def relative_load(self) -> float:
        """The load divided by the ideal load."""
        return self.share / self.ideal


class Change(NamedTuple):
    """A change of placement: `moves` are the shares of all keys by (old node, new node).

    They are exact, unless the two placements hash keys differently: then they are estimated from the sample.
    """

    placement: Placement
    exact: bool
    old_loads: list[Load]
    loads: list[Load]
    moves: dict[tuple[str, str], float]
    moved_requests: int

    @property
    def moved(self) -> float:
        return sum(self.moves.values())

    @property
    def minimum(self) -> float:
        """The share of keys that must move between ideal shares: what nodes with a smaller one lose."""
        reached = {load.node: load.ideal for load in self.loads}
        return sum(max(0.0, load.ideal - reached.get(load.node, 0.0)) for load in self.old_loads)

    @property
    def gainers(self) -> list[str]:
        """The nodes that keys move to."""
        return sorted({now for _, now in self.moves})

    def kept(self) -> dict[str, float]:
        """The shares of all keys that stay with each node that loses keys."""
        owned = {load.node: load.owned for load in self.old_loads}
        for (was, _), share in self.moves.items():
            owned[was] -= share
        losers = {was for was, _ in self.moves}
        return {node: max(0.0, share) for node, share in owned.items() if node in losers}


class Analysis(NamedTuple):
    """The loads of a placement under `requests` requests, and of the changed placement if there is one."""

    placement: Placement
    requests: int
    loads: list[Load]
    change: Change | None

    @property
    def final_placement(self) -> Placement:
        return self.placement if self.change is None else self.change.placement

    @property
    def final_loads(self) -> list[Load]:
        return self.loads if self.change is None else self.change.loads


def sample_keys(count: int) -> Iterator[str]:
    """Distinct user ids."""
    return map(user_id, range(count))


def analyse(ring: Placement, changed: Placement | None, keys: Iterable[Any]) -> Analysis:
    """Look up `keys` in the placement, and in the changed one if there is one."""
    before: Counter[Hashable] = Counter()
    after: Counter[Hashable] = Counter()
    moved: Counter[tuple[Any, Any]] = Counter()
    for chunk in _chunks(keys):
        old = ring.get_many(chunk)
        before.update(old)
        if changed is not None:
            new = changed.get_many(chunk)
            after.update(new)
            moved.update((was, now) for was, now in zip(old, new, strict=True) if was != now)
    requests, loads = before.total(), _loads(ring, before)
    if changed is None:
        return Analysis(ring, requests, loads, None)
    moves = _exact_moves(ring, changed)
    exact = moves is not None
    if moves is None:
        moves = {move: count / (requests or 1) for move, count in moved.items()}
    change = Change(changed, exact, loads, _loads(changed, after), moves, moved.total())
    return Analysis(ring, requests, loads, change)


def _exact_moves(ring: Any, changed: Placement) -> dict[tuple[str, str], float] | None:
    """The exact moves, or None if the two placements hash keys differently."""
    try:
        moves = ring.diff(changed)
    except (TypeError, ValueError):
        return None
    return {(str(was), str(now)): share for (was, now), share in moves.items()}


def largest_relative_ownership(ring: Placement) -> float:
    """The largest owned share of a node, divided by its ideal share."""
    return max(load.owned / load.ideal for load in _loads(ring, Counter()))


def _chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    stream = iter(keys)
    while chunk := list(islice(stream, _CHUNK)):
        yield chunk


def _loads(ring: Placement, counts: Mapping[Hashable, int]) -> list[Load]:
    weights = ring.weights
    total_weight = sum(weights.values())
    total = sum(counts.values()) or 1
    owned = ring.ownership()
    return [
        Load(node, weight, weight / total_weight, owned[node], counts[node], counts[node] / total)
        for node, weight in weights.items()
    ]
