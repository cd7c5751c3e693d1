"""Memoizing decorators side by side."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from headgate.cli.bench.benchmark import Benchmark, Scale, twins
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, empty_loop
from headgate.cli.bench.peers import available, load
from headgate.cli.bench.workload import user_id
from headgate.cli.twins import twin_module

BASELINE = "functools"


class Memoizer(NamedTuple):
    """How to make a decorator that keeps `maxsize` results."""

    name: str
    kind: str
    make: Callable[[int], Any]


def memoizers() -> list[Memoizer]:
    found = [Memoizer(f"headgate {twin}", twin, twin_module(twin, "memoize").lru_cache) for twin in twins()]
    if available("cachebox"):
        found.append(Memoizer("cachebox", "peer", _cachebox))
    if available("cachetools"):
        found.append(Memoizer("cachetools", "peer", _cachetools))
    found.append(Memoizer(BASELINE, "peer", functools.lru_cache))
    return found


def _cachetools(maxsize: int) -> Any:
    return load("cachetools", ".func").lru_cache(maxsize)


def _cachebox(maxsize: int) -> Any:
    cachebox = load("cachebox")
    return cachebox.cached(cachebox.LRUCache(maxsize))


def benchmarks(scale: Scale) -> list[Benchmark]:
    return [Benchmark("memo.hit", "lru_cache, hit", f"{scale.hot:,} hot keys", partial(_hit, scale))]


def _hit(scale: Scale) -> Comparison:
    """Cached calls of one function with one argument."""
    keys = [user_id(number) for number in range(scale.hot)]
    candidates = [
        Candidate(
            memoizer.name,
            memoizer.kind,
            partial(Loop, "target(key)", keys, partial(_filled, memoizer, keys), scale.trial_ns),
        )
        for memoizer in memoizers()
    ]
    return Comparison(candidates, empty_loop(keys, scale.trial_ns))


def _filled(memoizer: Memoizer, keys: list[str]) -> Any:
    function = memoizer.make(len(keys))(_upper)
    for key in keys:
        function(key)
    return function


def _upper(key: str) -> str:
    return key.upper()
