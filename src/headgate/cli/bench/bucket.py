"""Token buckets side by side: one bucket, one caller."""

import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from headgate.cli.bench import textbook
from headgate.cli.bench.benchmark import Benchmark, Scale, twins
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, always, empty_loop
from headgate.cli.bench.peers import available, load
from headgate.cli.twins import twin_module

BASELINE = "time.monotonic_ns()"
_PLENTY = 10**9
_DAY = 86_400


class Limiter(NamedTuple):
    """How to make a limiter of `limit` a second or, if `limit` is 1, of one a day; and a decision."""

    name: str
    kind: str
    make: Callable[[int], Any]
    decide: str = "target.consume()"


def limiters() -> list[Limiter]:
    found = [
        Limiter(f"headgate {twin}", twin, partial(_bucket, twin_module(twin, "bucket").TokenBucket))
        for twin in twins()
    ]
    if available("limits"):
        found.append(Limiter("limits", "peer", _limits, "target()"))
    if available("throttled-py"):
        found.append(Limiter("throttled-py", "peer", _throttled, "target.limit()"))
    found.append(Limiter("text float bucket", "text", partial(_bucket, textbook.TokenBucket)))
    return found


def benchmarks(scale: Scale) -> list[Benchmark]:
    return [
        Benchmark("bucket.allow", "consume, allowed", "one bucket", partial(_consume, scale, _PLENTY)),
        Benchmark("bucket.deny", "consume, denied", "one bucket", partial(_consume, scale, 1)),
    ]


def _bucket(cls: Callable[[float, float], Any], limit: int) -> Any:
    return cls(limit, limit if limit > 1 else 1 / _DAY)


def _limits(limit: int) -> Any:
    """A fixed window: the cheapest strategy of this peer."""
    limits = load("limits")
    rate = limits.RateLimitItemPerSecond(limit) if limit > 1 else limits.RateLimitItemPerDay(1)
    return partial(
        limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage()).hit, rate, "user:1"
    )


def _throttled(limit: int) -> Any:
    throttled = load("throttled-py")
    quota = throttled.per_sec(limit) if limit > 1 else throttled.per_day(1)
    return throttled.Throttled(key="user:1", using="token_bucket", quota=quota, store=throttled.MemoryStore())


def _consume(scale: Scale, limit: int) -> Comparison:
    calls = list(repeat(None, scale.hot))
    candidates = [
        Candidate(
            limiter.name,
            limiter.kind,
            partial(Loop, limiter.decide, calls, partial(limiter.make, limit), scale.trial_ns),
        )
        for limiter in limiters()
    ]
    baseline = partial(Loop, "target.monotonic_ns()", calls, always(time), scale.trial_ns)
    return Comparison(
        [*candidates, Candidate(BASELINE, "baseline", baseline)], empty_loop(calls, scale.trial_ns)
    )
