"""A handful of questions that both twins must answer alike."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

_KEYS = [f"user:{number}" for number in range(200)]
_SECOND = 1_000_000_000


def disagreements() -> list[str]:
    """A sentence for every question that the twins answer differently."""
    return [
        f"the twins disagree about {question.__name__.strip('_')}: {compiled!r} compiled, {pure!r} pure"
        for question in _QUESTIONS
        if (compiled := question(_twin("compiled"))) != (pure := question(_twin("pure")))
    ]


def _twin(name: str) -> Callable[[str], Any]:
    return lambda room: import_module(f"headgate._{name}.{room}")


def _hashes(room: Callable[[str], Any]) -> object:
    hashing = room("hashing")
    return [hashing.xxh64(key * 9, seed) for seed, key in enumerate(_KEYS)]


def _lru(room: Callable[[str], Any]) -> object:
    cache = room("cache").LRUCache(50)
    for at, key in enumerate(_KEYS):
        cache[key] = at
        cache.get(_KEYS[at * at % len(_KEYS)])
    return list(cache.items()), cache.hits, cache.misses, cache.evictions


def _ring(room: Callable[[str], Any]) -> object:
    ring = room("placement").HashRing({"a": 1, "b": 2, "c": 1})
    ring.add_node("d")
    ring.remove_node("a")
    return [ring.get_nodes(key, 2) for key in _KEYS]


def _bucket(room: Callable[[str], Any]) -> object:
    now = _SECOND
    bucket = room("limit").TokenBucket(5, 2, clock=lambda: now)
    decisions = []
    for _ in range(40):
        decisions.append(bucket.consume(1.5))
        now += _SECOND // 4
    return decisions


_QUESTIONS = (_hashes, _lru, _ring, _bucket)
