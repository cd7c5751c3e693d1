"""LRU caches side by side."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from headgate.cli.bench import textbook
from headgate.cli.bench.benchmark import Benchmark, Scale, twins
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, always, empty_loop
from headgate.cli.bench.peers import available, load
from headgate.cli.bench.workload import SHAPES, request_keys, user_id
from headgate.cli.twins import twin_module

BASELINE = "dict"
_PEERS = (("cachebox", "LRUCache"), ("cachetools", "LRUCache"), ("lru-dict", "LRU"))
_CYCLE = 4
_COLD_CYCLES = 20, 200
_CACHED_SHARE = 10


class Cache(NamedTuple):
    """How to make a cache of `maxsize` entries, and the statements that use it."""

    name: str
    kind: str
    make: Callable[[int], Any]
    get: str = "target.get(key)"
    put: str = "target[key] = value"
    evicts: bool = True

    @property
    def memoizes(self) -> bool:
        """Whether one call both gets and puts, as with functools' cache."""
        return self.get == self.put

    @property
    def read(self) -> str:
        """Get; on a miss put, and count it."""
        return self.get if self.memoizes else f"if {self.get} is None: {self.put}; misses += 1"


def memoizer(maxsize: int) -> Any:
    """functools' cache around the cheapest function there is."""
    return lru_cache(maxsize)(callable)


def _peer(distribution: str, cls: str, maxsize: int) -> Any:
    return getattr(load(distribution), cls)(maxsize)


def caches() -> list[Cache]:
    """All installed caches, with dict as the baseline."""
    found = [Cache(f"headgate {twin}", twin, twin_module(twin, "cache").LRUCache) for twin in twins()]
    for name, cls in _PEERS:
        if available(name):
            found.append(Cache(name, "peer", partial(_peer, name, cls)))
    call = "target(key)"
    found.append(Cache("functools", "peer", memoizer, call, call))
    found.append(Cache("text OrderedDict", "text", textbook.LRU, put="target.put(key, value)"))
    found.append(Cache(BASELINE, "baseline", lambda _: {}, evicts=False))
    return found


def benchmarks(scale: Scale) -> list[Benchmark]:
    read_through = [
        Benchmark(f"lru.read_through_{name}", f"read, {name}", "Zipf", partial(_read_through, scale, shape))
        for name, shape in SHAPES.items()
    ]
    return [
        Benchmark("lru.get_hit", "get, hit", f"{scale.hot:,} hot keys", partial(_get_hit, scale)),
        Benchmark(
            "lru.put_evict", "put that evicts", f"{scale.hot:,} entries", partial(_put_evict, scale, _CYCLE)
        ),
        *[
            Benchmark(
                f"lru.put_evict_{cycle}", f"put, {cycle * scale.hot:,} keys", f"{scale.hot:,} entries",
                partial(_put_evict, scale, cycle),
            )
            for cycle in _COLD_CYCLES
        ],
        *read_through,
    ]


def filled(cache: Cache, maxsize: int, keys: Sequence[Any]) -> Any:
    """A cache of `maxsize` entries after a put of each of `keys`."""
    fill = Loop(cache.put, keys, lambda: cache.make(maxsize))
    fill()
    return fill.target


def fillers() -> dict[str, Callable[[int, Sequence[Any]], Any]]:
    """``filled`` for each cache by name."""
    return {cache.name: partial(filled, cache) for cache in caches()}


def _get_hit(scale: Scale) -> Comparison:
    keys = [user_id(number) for number in range(scale.hot)]
    return _hot(scale, keys, [(cache, cache.get) for cache in caches()])


def _put_evict(scale: Scale, cycle: int) -> Comparison:
    """Keys in turn, `cycle` times as many as there are entries: an LRU cache misses every time."""
    keys = [user_id(number) for number in range(scale.hot * cycle)]
    return _hot(scale, keys, [(cache, cache.put) for cache in caches() if cache.evicts])


def _hot(scale: Scale, keys: Sequence[str], statements: Sequence[tuple[Cache, str]]) -> Comparison:
    """A small cache for each, newly filled for every trial."""
    last = keys[-scale.hot :]
    candidates = [
        Candidate(
            cache.name,
            cache.kind,
            partial(Loop, statement, keys, partial(filled, cache, scale.hot, last), scale.trial_ns),
        )
        for cache, statement in statements
    ]
    return Comparison(candidates, empty_loop(keys, scale.trial_ns))


def _read_through(scale: Scale, shape: Callable[[int], str]) -> Comparison:
    """Get, and put after a miss, in caches of a tenth of the keys that stay warm between trials."""
    keys = request_keys(shape, scale.distinct, scale.requests)
    maxsize = max(1, scale.distinct // _CACHED_SHARE)
    candidates = [
        Candidate(cache.name, cache.kind, partial(_warm_loop, cache, keys, maxsize, scale))
        for cache in caches()
    ]
    note = f"{_warm_hit_ratio(keys, maxsize):.0%} hits"
    return Comparison(candidates, empty_loop(keys, scale.trial_ns), note)


def _warm_loop(cache: Cache, keys: Sequence[str], maxsize: int, scale: Scale) -> Loop:
    fill = Loop(cache.read, keys, lambda: cache.make(maxsize))
    fill()
    return Loop(cache.read, keys, always(fill.target), scale.trial_ns)


def _warm_hit_ratio(keys: Sequence[str], maxsize: int) -> float:
    """The hit ratio of an LRU cache in its second pass over the keys."""
    cache = textbook.LRU(maxsize)
    loop = Loop("if target.get(key) is None: target.put(key, key); misses += 1", keys, always(cache))
    loop()
    loop()
    return 1 - loop.misses / len(keys)
