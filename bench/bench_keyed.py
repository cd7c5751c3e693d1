"""Decisions of a rate limiter, compared with peers: a few hot keys, many keys, several tiers, shared."""

import time
from importlib import import_module

import pytest

FEW = [f"user:{number}" for number in range(1_000)]
MANY = [f"user:{number}" for number in range(100_000)]
RATE = "1000000/s"
TIERS = "1000000/s; 10000000/min; 100000000/h"


def limiter(twin, rate, max_keys, **options):
    return import_module(f"headgate.limit.keyed._{twin}").RateLimiter(rate, max_keys=max_keys, **options)


def compiled(max_keys, rate=RATE):
    return limiter("compiled", rate, max_keys).allow


def pure(max_keys, rate=RATE):
    return limiter("pure", rate, max_keys).allow


def bucket(max_keys):
    consume = import_module("headgate.limit.bucket._compiled").TokenBucket(10**9, 10**9).consume
    return lambda key: consume()


def limits(max_keys):
    peer = pytest.importorskip("limits")
    strategy = peer.strategies.MovingWindowRateLimiter(peer.storage.MemoryStorage())
    item = peer.RateLimitItemPerSecond(10**6)
    return lambda key: strategy.hit(item, key)


def throttled(max_keys):
    peer = pytest.importorskip("throttled")
    quota = peer.rate_limiter.per_sec(10**6, burst=10**6)
    store = peer.store.MemoryStore(options={"MAX_SIZE": max_keys})
    return peer.Throttled(using="gcra", quota=quota, store=store).limit


CANDIDATES = [bucket, compiled, pure, limits, throttled]


def call_all(call, keys):
    for key in keys:
        call(key)


@pytest.mark.parametrize("make", CANDIDATES, ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="allowed, a thousand keys")
def test_few_keys(benchmark, make):
    benchmark(call_all, make(10_000), FEW)


@pytest.mark.parametrize("make", CANDIDATES[1:], ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="allowed, a hundred thousand keys")
def test_many_keys(benchmark, make):
    call = make(100_000)
    benchmark.pedantic(call_all, (call, MANY), warmup_rounds=1, rounds=5)


@pytest.mark.parametrize("rate", [RATE, TIERS], ids=["one tier", "three tiers"])
@pytest.mark.parametrize("make", [compiled, pure], ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="allowed, by the number of tiers")
def test_tiers(benchmark, make, rate):
    benchmark(call_all, make(10_000, rate), FEW)


@pytest.mark.parametrize("make", [compiled, pure], ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="denied, a thousand keys")
def test_denied(benchmark, make):
    call = make(10_000, "1/h")
    call_all(call, FEW)
    benchmark(call_all, call, FEW)


@pytest.mark.parametrize("rate", [RATE, TIERS], ids=["one tier", "three tiers"])
@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
@pytest.mark.parametrize("twin", ["compiled", "pure"])
@pytest.mark.benchmark(group="allowed, private and shared")
def test_shared(benchmark, twin, shared, rate, tmp_path):
    path = tmp_path / "limit" if shared else None
    benchmark(call_all, limiter(twin, rate, 10_000, path=path).allow, FEW)


def strict_limits(limit):
    peer = pytest.importorskip("limits")
    strategy = peer.strategies.MovingWindowRateLimiter(peer.storage.MemoryStorage())
    item = peer.RateLimitItemPerSecond(limit)
    return lambda key: strategy.hit(item, key)


def strict_compiled(limit):
    return limiter("compiled", f"{limit}/s", 10, strict=True).allow


def strict_pure(limit):
    return limiter("pure", f"{limit}/s", 10, strict=True).allow


STRICT = [strict_compiled, strict_pure, strict_limits]


@pytest.mark.parametrize("limit", [10, 100, 1000])
@pytest.mark.parametrize("make", STRICT, ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="strict limits by size, mostly denied")
def test_strict(benchmark, make, limit):
    benchmark(call_all, make(limit), ["user"] * 100)


@pytest.mark.parametrize("max_keys", [1_000, 1_000_000])
@pytest.mark.benchmark(group="opening a file that other processes have")
def test_opening(benchmark, max_keys, tmp_path):
    def open_it():
        return limiter("compiled", RATE, max_keys, path=tmp_path / "limit")

    first = open_it()
    benchmark(open_it)
    assert first.allow("user")


@pytest.mark.benchmark(group="after an idle day, a million keys")
def test_the_sweep_of_a_whole_table(benchmark):
    now = [time.monotonic_ns()]
    allow = import_module("headgate.limit.keyed._compiled").RateLimiter("10/s", clock=lambda: now[0]).allow
    call_all(allow, MANY)

    def a_day_later():
        now[0] += 86400 * 10**9
        allow("user")

    benchmark.pedantic(a_day_later, rounds=5)
