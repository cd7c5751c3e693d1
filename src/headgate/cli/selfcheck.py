"""A few checks whose results must be equal in both twins."""

from collections.abc import Callable
from functools import partial
from typing import Any

from headgate.cli.twins import twin_module

_KEYS = [f"user:{number}" for number in range(200)]
_SECOND = 1_000_000_000


def disagreements() -> list[str]:
    """A sentence for each check in which the twins differ."""
    return [
        f"the twins disagree in {check.__name__.strip('_')}: {compiled!r} compiled, {pure!r} pure"
        for check in _CHECKS
        if (compiled := check(_twin("compiled"))) != (pure := check(_twin("pure")))
    ]


def _twin(name: str) -> Callable[[str], Any]:
    return partial(twin_module, name)


def _hashes(load: Callable[[str], Any]) -> object:
    hashing = load("hashing")
    return [hashing.xxh64(key * 9, seed) for seed, key in enumerate(_KEYS)]


def _lru(load: Callable[[str], Any]) -> object:
    cache = load("cache").LRUCache(50)
    for at, key in enumerate(_KEYS):
        cache[key] = at
        cache.get(_KEYS[at * at % len(_KEYS)])
    return list(cache.items()), cache.hits, cache.misses, cache.evictions


def _ring(load: Callable[[str], Any]) -> object:
    ring = load("placement").HashRing({"a": 1, "b": 2, "c": 1})
    ring.add_node("d")
    ring.remove_node("a")
    return [ring.get_nodes(key, 2) for key in _KEYS]


def _bucket(load: Callable[[str], Any]) -> object:
    now = _SECOND
    bucket = load("bucket").TokenBucket(5, 2, clock=lambda: now)
    decisions = []
    for _ in range(40):
        decisions.append(bucket.consume(1.5))
        now += _SECOND // 4
    return decisions


_CHECKS = (_hashes, _lru, _ring, _bucket)
