"""Replay of requests through caches of every policy and size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from operator import index
from types import FunctionType
from typing import Any, NamedTuple

from headgate import cache
from headgate.cli.bench.interleave import clock
from headgate.cli.errors import CommandError
from headgate.cli.simulate import belady
from headgate.cli.simulate.records import Chunk

_SUFFIX = "Cache"


class Point(NamedTuple):
    """The result of one cache; without weights every request weighs 1. `ns_per_request` is None for Belady's
    algorithm, which is not a cache."""

    policy: str
    maxsize: int
    requests: int
    hits: int
    weight: int
    hit_weight: int
    ns_per_request: float | None

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.requests

    @property
    def weight_hit_ratio(self) -> float:
        return self.hit_weight / self.weight if self.weight else 0.0


def policies() -> dict[str, Callable[..., Any]]:
    """The caches of headgate.cache that can be made with only a size, by name in lower case."""
    named = {name: getattr(cache, name) for name in cache.__all__ if name.endswith(_SUFFIX)}
    return {name.removesuffix(_SUFFIX).lower(): cls for name, cls in named.items() if _needs_only_a_size(cls)}


def _needs_only_a_size(cls: Callable[..., Any]) -> bool:
    try:
        cls(1)
    except TypeError:
        return False
    return True


def run(
    chunks: Iterable[Chunk],
    names: Sequence[str],
    sizes: Sequence[int],
    step: Callable[[str], None],
    ttl: float | None = None,
) -> list[Point]:
    """Replay the log through all caches in one pass. Points are ordered by policy and size, Belady's last."""
    known = policies()
    runs = [_Run(name, known[name], size, ttl) for name in names if name != belady.NAME for size in sizes]
    optimum = belady.Belady(ttl) if belady.NAME in names else None
    requests = weight = 0
    for chunk in chunks if optimum is None else optimum.record(chunks):
        for each in runs:
            each.feed(chunk)
        requests += len(chunk.keys)
        weight += len(chunk.keys) if chunk.weights is None else sum(chunk.weights)
        step(f"{requests:,} requests")
    points = [each.point(requests, weight) for each in runs] if requests else []
    if optimum is not None and requests:
        for size in sizes:
            step(f"{belady.NAME} with {size:,}")
            hits, hit_weight = optimum.hits(size)
            points.append(Point(belady.NAME, size, requests, hits, weight, hit_weight, None))
    return points


def distinct_weight(chunks: Iterable[Chunk]) -> int:
    """The number of distinct keys, or the sum of their weights when first seen."""
    seen: dict[Any, int] = {}
    for keys, weights, _ in chunks:
        pairs: Iterator[tuple[Any, int]] = (
            ((key, 1) for key in keys) if weights is None else zip(keys, weights, strict=True)
        )
        for key, weight in pairs:
            seen.setdefault(key, weight)
    return sum(seen.values())


class _Run:
    """One cache and its counters."""

    def __init__(self, policy: str, cls: Callable[..., Any], maxsize: int, ttl: float | None) -> None:
        self._policy = policy
        self._maxsize = maxsize
        self._cls = cls
        self._ttl = ttl
        self._now = 0
        self._cache: Any = None
        self._misses = 0
        self._missed_weight = 0
        self._elapsed = 0
        self._feed_keys = _own_copy(_feed_keys)
        self._feed_weights = _own_copy(_feed_weights)

    def feed(self, chunk: Chunk) -> None:
        if self._cache is None:
            sizer = None if chunk.weights is None else index
            timed = {} if self._ttl is None else {"ttl": self._ttl, "clock": lambda: self._now}
            try:
                self._cache = self._cls(self._maxsize, sizer, **timed)
            except (ValueError, MemoryError) as error:
                raise CommandError(f"no {self._policy} cache of size {self._maxsize:,}: {error}") from error
        start = clock()
        self._feed(chunk)
        self._elapsed += clock() - start

    def _feed(self, chunk: Chunk) -> None:
        keys, weights, times = chunk
        if times is None and weights is None:
            misses = missed_weight = self._feed_keys(self._cache, keys)
        else:
            requests: Iterable[tuple[Any, int]] = zip(keys, weights or repeat(1, len(keys)), strict=True)
            requests = requests if times is None else self._in_time(times, requests)
            misses, missed_weight = self._feed_weights(self._cache, self._maxsize, requests)
        self._misses += misses
        self._missed_weight += missed_weight

    def _in_time(self, times: list[int], requests: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
        """Yield the requests, and set the clock of the cache to the time of each."""
        for self._now, request in zip(times, requests, strict=True):
            yield request

    def point(self, requests: int, weight: int) -> Point:
        hits, hit_weight = requests - self._misses, weight - self._missed_weight
        return Point(
            self._policy, self._maxsize, requests, hits, weight, hit_weight, self._elapsed / requests
        )


def _own_copy(function: Any) -> Any:
    """A copy with its own code object, as the interpreter specialises bytecode per code object."""
    return FunctionType(function.__code__.replace(), function.__globals__)


def _feed_keys(cache: Any, keys: list[Any]) -> int:
    misses = 0
    for key in keys:
        if cache.get(key) is None:
            cache[key] = True
            misses += 1
    return misses


def _feed_weights(cache: Any, maxsize: int, requests: Iterable[tuple[Any, int]]) -> tuple[int, int]:
    """An entry heavier than the whole cache is a miss, and is not stored."""
    misses = missed_weight = 0
    for key, weight in requests:
        if cache.get(key) is None:
            misses += 1
            missed_weight += weight
            if weight <= maxsize:
                cache[key] = weight
    return misses, missed_weight
