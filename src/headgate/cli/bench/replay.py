"""A recorded key log through every LRU cache, from cold."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from headgate.cli.bench import lru
from headgate.cli.bench.race import Contestant, Field, Loop, empty_loop, race
from headgate.cli.bench.work import Result, Scale, Work
from headgate.cli.errors import CommandError
from headgate.cli.keylog import read_keys
from headgate.cli.sizes import entries

_PATIENCE = 6


class Replay(NamedTuple):
    """What the log was, how the caches fared, and the `hits` of each by name."""

    log: str
    requests: int
    distinct: int
    maxsize: int
    result: Result
    hits: dict[str, int]


def replay(path: Path, form: str, size: str, scale: Scale, step: Callable[[str], None]) -> Replay:
    """Read the log and race the caches over it; equal keys become one object, to bound memory."""
    step(f"trace: reading {path.name}")
    seen: dict[Any, Any] = {}
    keys = [seen.setdefault(key, key) for key in read_keys(path, form)]
    if not keys:
        raise CommandError(f"{path} has no keys")
    maxsize = entries(size, len(seen))
    step(f"trace: {len(keys):,} requests through caches of {maxsize:,}")
    caches = lru.caches()
    loops = [Loop(cache.read, keys, partial(cache.make, maxsize)) for cache in caches]
    contestants = [
        Contestant(cache.name, cache.kind, loop) for cache, loop in zip(caches, loops, strict=True)
    ]
    field = Field(contestants, empty_loop(keys))
    timings = race(field, scale.rounds, scale.seconds * _PATIENCE, warm_up=False, min_rounds=1)
    hits = {
        cache.name: len(keys) - (loop.target.cache_info().misses if cache.memoizes else loop.misses)
        for cache, loop in zip(caches, loops, strict=True)
    }
    work = Work("replay", "a request", f"{maxsize:,} entries, from cold", lambda: field)
    return Replay(path.name, len(keys), len(seen), maxsize, Result(work, timings, field.note), hits)
