"""How load spreads over a ring, and what a change of its nodes moves."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from headgate.cli.bench.workload import user_id
from headgate.placement import HashRing

_CHUNK = 50_000


class Load(NamedTuple):
    """One node: shares of all hashes (`ideal` by weight, `owned` by its points) and of all requests."""

    node: str
    weight: float
    ideal: float
    owned: float
    requests: int
    share: float

    @property
    def fullness(self) -> float:
        """The load over the ideal one."""
        return self.share / self.ideal


class Change(NamedTuple):
    """From one ring to another: `moves` are the shares of all hashes by (old node, new node)."""

    old_loads: list[Load]
    loads: list[Load]
    moves: dict[tuple[str, str], float]
    moved_requests: int

    @property
    def moved(self) -> float:
        return sum(self.moves.values())

    @property
    def minimum(self) -> float:
        """What must move for every node to reach its ideal share: the sum of what shrinking nodes lose."""
        reached = {load.node: load.ideal for load in self.loads}
        return sum(max(0.0, load.ideal - reached.get(load.node, 0.0)) for load in self.old_loads)

    @property
    def gainers(self) -> list[str]:
        """The nodes that keys move to."""
        return sorted({now for _, now in self.moves})

    def kept(self) -> dict[str, float]:
        """What stays with each node that loses keys, in shares of all."""
        owned = {load.node: load.owned for load in self.old_loads}
        for (was, _), share in self.moves.items():
            owned[was] -= share
        losers = {was for was, _ in self.moves}
        return {node: max(0.0, share) for node, share in owned.items() if node in losers}


class Analysis(NamedTuple):
    """A ring under `requests` requests, and under the same after a change if one was asked for."""

    requests: int
    loads: list[Load]
    change: Change | None

    @property
    def final_loads(self) -> list[Load]:
        return self.loads if self.change is None else self.change.loads


def sample_keys(count: int) -> Iterator[str]:
    """Distinct user ids."""
    return map(user_id, range(count))


def analyse(ring: HashRing[str], changed: HashRing[str] | None, keys: Iterable[Any]) -> Analysis:
    """Send the requests for `keys` to the ring, and to the changed one beside it."""
    before: Counter[Hashable] = Counter()
    after: Counter[Hashable] = Counter()
    moved = 0
    for chunk in _chunks(keys):
        old = ring.get_many(chunk)
        before.update(old)
        if changed is not None:
            new = changed.get_many(chunk)
            after.update(new)
            moved += sum(was != now for was, now in zip(old, new, strict=True))
    loads = _loads(ring, before)
    if changed is None:
        return Analysis(before.total(), loads, None)
    moves = {(str(was), str(now)): share for (was, now), share in ring.diff(changed).items()}
    return Analysis(before.total(), loads, Change(loads, _loads(changed, after), moves, moved))


def fullest_owner(ring: HashRing[str]) -> float:
    """The most that a node owns, over its ideal share."""
    return max(load.owned / load.ideal for load in _loads(ring, Counter()))


def _chunks(keys: Iterable[Any]) -> Iterator[list[Any]]:
    stream = iter(keys)
    while chunk := list(islice(stream, _CHUNK)):
        yield chunk


def _loads(ring: HashRing[str], counts: Mapping[Hashable, int]) -> list[Load]:
    weights = ring.weights
    total_weight = sum(weights.values())
    total = sum(counts.values()) or 1
    owned = ring.ownership()
    return [
        Load(node, weight, weight / total_weight, owned[node], counts[node], counts[node] / total)
        for node, weight in weights.items()
    ]
