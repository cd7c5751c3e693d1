"""Decisions in Redis on one connection, compared with peers: one by one, a hundred at once, from a lease.

It starts a redis-server of its own. Compare the rows of a group, never those of two runs.
"""

import shutil

import pytest
import redis
from redis_server import redis_server

from headgate.adapters.redis import RedisRateLimiter

RATE = 10**6
HUNDRED = [(f"user:{number}", 1) for number in range(100)]


@pytest.fixture(scope="module")
def port():
    with redis_server(shutil.which("redis-server")) as number:
        yield number


def headgate(port, **options):
    return RedisRateLimiter(redis.Redis(port=port), f"{RATE}/s", timeout=10, **options)


def allow(port):
    return headgate(port).allow


def decide(port):
    return headgate(port).decide


def strict(port):
    """No interval of a second has more than the limit, as in `limits` and `pyrate`."""
    return RedisRateLimiter(
        redis.Redis(port=port), "10000/s", strict=True, prefix="strict", timeout=10
    ).decide


def throttled(port):
    """The same algorithm."""
    peer = pytest.importorskip("throttled")
    store = peer.store.RedisStore(server=f"redis://127.0.0.1:{port}/0")
    quota = peer.rate_limiter.per_sec(RATE, burst=RATE)
    return peer.Throttled(using="gcra", quota=quota, store=store).limit


def limits(port, name="FixedWindowRateLimiter"):
    """Its cheapest strategy, a fixed window: twice the limit may pass in a second."""
    peer = pytest.importorskip("limits")
    storage = peer.storage.RedisStorage(f"redis://127.0.0.1:{port}/0")
    strategy, item = getattr(peer.strategies, name)(storage), peer.RateLimitItemPerSecond(RATE)
    return lambda key: strategy.hit(item, key)


def limits_sliding(port):
    """An estimate of a sliding window."""
    return limits(port, "SlidingWindowCounterRateLimiter")


def pyrate(port):
    """The same algorithm, for one key."""
    peer = pytest.importorskip("pyrate_limiter")
    store = peer.RedisStateStore(redis.Redis(port=port), "pyrate")
    limiter = peer.Limiter(peer.StateBucket([peer.Rate(RATE, 1000)], peer.GCRA(), store))
    return lambda key: limiter.try_acquire(key, blocking=False)


@pytest.mark.parametrize(
    "make", [allow, decide, throttled, limits, limits_sliding, strict, pyrate], ids=lambda make: make.__name__
)
@pytest.mark.benchmark(group="one decision")
def test_one(benchmark, port, make):
    benchmark(make(port), "user:1")


def one_by_one(call):
    for key, _ in HUNDRED:
        call(key)


@pytest.mark.parametrize("make", [allow, throttled, limits], ids=lambda make: make.__name__)
@pytest.mark.benchmark(group="a hundred decisions")
def test_hundred_one_by_one(benchmark, port, make):
    benchmark(one_by_one, make(port))


@pytest.mark.benchmark(group="a hundred decisions")
def test_hundred_by_decide_many(benchmark, port):
    benchmark(headgate(port).decide_many, HUNDRED)


@pytest.mark.benchmark(group="a hundred decisions")
def test_hundred_of_one_key_from_a_lease(benchmark, port):
    limiter = headgate(port, lease=100, prefix="lease")

    def call():
        for _ in range(100):
            limiter.allow("user:1")

    benchmark(call)
