"""How load spreads over a placement, and what a change of it moves."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from headgate.cli.bench.workload import user_id
from headgate.cli.ring.placements import Placement

_CHUNK = 50_000


class Load(NamedTuple):
    """One node: shares of all hashes (`ideal` by weight, `owned` by its place) and of all requests."""

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
    """From one placement to another: `moves` are the shares of all keys by (old node, new node).

    They are exact unless the two hash keys in different ways: then they are those of the sample.
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
    """A placement under `requests` requests, and under the same after a change if one was asked for."""

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
    """Send the requests for `keys` to the placement, and to the changed one beside it."""
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
    """What moves of all keys, None where the two placements hash keys in different ways."""
    try:
        moves = ring.diff(changed)
    except (TypeError, ValueError):
        return None
    return {(str(was), str(now)): share for (was, now), share in moves.items()}


def fullest_owner(ring: Placement) -> float:
    """The most that a node owns, over its ideal share."""
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
