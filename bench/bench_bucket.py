"""Decisions of a token bucket, compared with reading the clock and with peers."""

import time
from importlib import import_module

import pytest

ROUNDS = range(1000)


def compiled():
    return import_module("headgate.limit.bucket._compiled").TokenBucket(10**9, 10**9).consume


def pure():
    return import_module("headgate.limit.bucket._pure").TokenBucket(10**9, 10**9).consume


def monotonic_ns():
    return time.monotonic_ns


def limits():
    peer = pytest.importorskip("limits")
    limiter = peer.strategies.FixedWindowRateLimiter(peer.storage.MemoryStorage())
    item = peer.RateLimitItemPerSecond(10**9)
    return lambda: limiter.hit(item, "key")


def throttled():
    peer = pytest.importorskip("throttled")
    quota = peer.rate_limiter.per_sec(10**9, burst=10**9)
    return peer.Throttled(key="key", using="token_bucket", quota=quota).limit


CANDIDATES = [monotonic_ns, compiled, pure, limits, throttled]


@pytest.mark.parametrize("make", CANDIDATES, ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="an allowed request, a thousand times")
def test_allowed(benchmark, make):
    call = make()

    def all_rounds():
        for _ in ROUNDS:
            call()

    benchmark(all_rounds)


@pytest.mark.parametrize("twin", ["compiled", "pure"])
@pytest.mark.benchmark(group="an allowed request at a shared bucket, a thousand times")
def test_shared(benchmark, twin, tmp_path):
    module = import_module(f"headgate.limit.bucket._{twin}")
    call = module.TokenBucket(10**9, 10**9, path=tmp_path / "bucket").consume

    def all_rounds():
        for _ in ROUNDS:
            call()

    benchmark(all_rounds)


@pytest.mark.parametrize("twin", ["headgate.limit.bucket._compiled", "headgate.limit.bucket._pure"])
@pytest.mark.benchmark(group="a denied request, a thousand times")
def test_denied(benchmark, twin):
    bucket = import_module(twin).TokenBucket(1, 1e-6)
    bucket.consume()

    def all_rounds(call=bucket.consume):
        for _ in ROUNDS:
            call()

    benchmark(all_rounds)
