"""Replay of a recorded key log through every LRU cache, initially empty, in a separate process."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from headgate.cli.bench import lru
from headgate.cli.bench.benchmark import Benchmark, Result, Scale
from headgate.cli.bench.child import Failures, announce, give_back, output_without_failures
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, Timing, always, compare, empty_loop
from headgate.cli.errors import CommandError
from headgate.cli.keylog import read_keys, rereadable
from headgate.cli.sizes import entries

_TIME_FACTOR = 6


class Replay(NamedTuple):
    """The log, the timings of the caches, and their `hits` by name."""

    log: str
    requests: int
    distinct: int
    maxsize: int
    result: Result
    hits: dict[str, int]


def replay(
    path: Path, form: str, size: str, scale: Scale, step: Callable[[str], None], failures: Failures
) -> Replay:
    """Count the keys of the log, then time the caches on it."""
    step(f"trace: reading {path.name}")
    with rereadable(path) as log:
        requests, distinct = _counted(log, form)
        if not requests:
            raise CommandError(f"{path} has no keys")
        maxsize = entries(size, distinct)
        step(f"trace: {requests:,} requests through caches of {maxsize:,}")
        arguments = str(log), form, maxsize, scale
        code = f"from {__name__} import Scale, run_replay; run_replay(*{arguments!r})"
        timings, hits = json.loads(output_without_failures(code, failures))
    detail = f"{maxsize:,} entries, initially empty"
    benchmark = Benchmark("replay", "a request", detail, lambda: Comparison([]))
    result = Result(benchmark, [Timing(*fields) for fields in timings], "")
    return Replay(path.name, requests, distinct, maxsize, result, hits)


def run_replay(log: str, form: str, maxsize: int, scale: Scale) -> None:
    """Run in the subprocess. Equal keys become one object, to bound memory."""
    seen: dict[Any, Any] = {}
    keys = [seen.setdefault(key, key) for key in read_keys(Path(log), form)]
    caches = lru.caches()
    loops = [Loop(cache.read, keys, partial(cache.make, maxsize)) for cache in caches]
    candidates = [
        Candidate(cache.name, cache.kind, always(loop)) for cache, loop in zip(caches, loops, strict=True)
    ]
    timings = compare(
        Comparison(candidates, empty_loop(keys)),
        scale.rounds,
        scale.seconds * _TIME_FACTOR,
        warm_up=False,
        min_rounds=1,
        announce=announce,
    )
    hits = {
        cache.name: len(keys) - (loop.target.cache_info().misses if cache.memoizes else loop.misses)
        for cache, loop in zip(caches, loops, strict=True)
    }
    give_back(json.dumps([[(timing.name, timing.kind, timing.samples) for timing in timings], hits]))


def _counted(log: Path, form: str) -> tuple[int, int]:
    """How many requests there are, and how many distinct keys."""
    seen: set[Any] = set()
    requests = 0
    for key in read_keys(log, form):
        seen.add(key)
        requests += 1
    return requests, len(seen)
