"""Rate limiters by key side by side: with a few hot keys, and with many keys."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from headgate.cli.bench.benchmark import Benchmark, Scale, twins
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, always, empty_loop
from headgate.cli.bench.peers import available, load
from headgate.cli.bench.workload import user_id
from headgate.cli.twins import twin_module

BASELINE = "one TokenBucket"
SHARED = "headgate by path="
_PLENTY = 10**9
_RATE = f"{_PLENTY}/day"
MEMORY = Path("/dev/shm")
_SEED = 20240229


class Limiter(NamedTuple):
    """How to make a limiter for `max_keys` keys, and a decision; all allow 10**9 requests a day."""

    name: str
    kind: str
    make: Callable[[int], Any]
    decide: str = "target.allow(key)"


def limiters() -> list[Limiter]:
    found = [
        Limiter(f"headgate {twin}", twin, partial(_private, twin_module(twin, "keyed").RateLimiter))
        for twin in twins()
    ]
    if os.name == "posix":
        twin = twins()[0]
        found.append(Limiter(SHARED, twin, partial(_shared, twin_module(twin, "keyed").RateLimiter)))
    if available("limits"):
        found.append(Limiter("limits", "peer", _limits, "target(key)"))
    if available("throttled-py"):
        found.append(Limiter("throttled-py", "peer", _throttled, "target.limit(key)"))
    return found


def benchmarks(scale: Scale) -> list[Benchmark]:
    return [
        Benchmark("limiter.allow_hot", "allow", f"{scale.hot:,} hot keys", partial(_allow_hot, scale)),
        Benchmark("limiter.allow_many", "allow", f"any of {scale.keys:,}", partial(_allow_many, scale)),
    ]


def filled(limiter: Limiter, max_keys: int, keys: Sequence[str]) -> Any:
    """A limiter for `max_keys` keys that has allowed a request of each of `keys`."""
    fill = Loop(limiter.decide, keys, partial(limiter.make, max_keys))
    fill()
    return fill.target


def fillers() -> dict[str, Callable[[int, Sequence[str]], Any]]:
    """``filled`` for each limiter by name."""
    return {limiter.name: partial(filled, limiter) for limiter in limiters()}


def _private(cls: Callable[..., Any], max_keys: int) -> Any:
    return cls(_RATE, max_keys=max_keys)


def _shared(cls: Callable[..., Any], max_keys: int) -> Any:
    """Over a file that is removed once it is mapped."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        return cls(_RATE, max_keys=max_keys, path=Path(folder, "limit"))


def _limits(_: int) -> Any:
    """A fixed window: the cheapest strategy of this peer."""
    limits = load("limits")
    strategy = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    return partial(strategy.hit, limits.RateLimitItemPerDay(_PLENTY))


def _throttled(max_keys: int) -> Any:
    throttled = load("throttled-py")
    store = throttled.MemoryStore(options={"MAX_SIZE": max_keys})
    return throttled.Throttled(using="gcra", quota=throttled.per_day(_PLENTY, burst=_PLENTY), store=store)


def _allow_hot(scale: Scale) -> Comparison:
    keys = [user_id(number) for number in range(scale.hot)]
    candidates = [
        Candidate(limiter.name, limiter.kind, partial(_hot_loop, limiter, keys, scale))
        for limiter in limiters()
    ]
    bucket = twin_module(twins()[0], "bucket").TokenBucket(_PLENTY, _PLENTY)
    baseline = partial(Loop, "target.consume()", keys, always(bucket), scale.trial_ns)
    return Comparison(
        [*candidates, Candidate(BASELINE, "baseline", baseline)], empty_loop(keys, scale.trial_ns)
    )


def _allow_many(scale: Scale) -> Comparison:
    """Requests of known keys in random order: most miss the CPU caches."""
    keys = [user_id(number) for number in range(scale.keys)]
    requests = Random(_SEED).choices(keys, k=scale.requests)
    candidates = [
        Candidate(limiter.name, limiter.kind, partial(_filled_loop, limiter, keys, requests, scale))
        for limiter in limiters()
    ]
    return Comparison(candidates, empty_loop(requests, scale.trial_ns))


def _hot_loop(limiter: Limiter, keys: Sequence[str], scale: Scale) -> Loop:
    """A new limiter for each trial."""
    return Loop(limiter.decide, keys, partial(filled, limiter, 10 * scale.hot, keys), scale.trial_ns)


def _filled_loop(limiter: Limiter, keys: Sequence[str], requests: Sequence[str], scale: Scale) -> Loop:
    return Loop(limiter.decide, requests, always(filled(limiter, len(keys), keys)), scale.trial_ns)
