"""RedisRateLimits and its asynchronous form against a real server and a cluster."""

import asyncio
import random
import threading
from math import inf

import pytest
import redis
import redis.asyncio
from redis_forms import Synchronous
from redis_servers import ServerTime
from servers import Port
from watchdog import in_a_loop, in_threads

from headgate import Rate, RateLimiter, RateLimits
from headgate.adapters.redis import AsyncRedisRateLimits, RedisRateLimits
from headgate.errors import StoreError


def synchronous(*args, **options):
    return Synchronous(AsyncRedisRateLimits(*args, **options))


FORMS = {"sync": RedisRateLimits, "async": synchronous}


@pytest.fixture(params=FORMS)
def make(request, redis_server, prefix):
    """Makes limits of either form on the shared server; they are closed after the test."""
    made = []

    def limits(client=None, **options):
        options = {"timeout": 20, "prefix": prefix, **options}
        made.append(FORMS[request.param](client or redis_server.client(), **options))
        return made[-1]

    yield limits
    for each in made:
        each.close()


@pytest.fixture(params=["server", "cluster", "cluster with a tag"])
def limits(request, make, prefix):
    """Limits in a server, and in a cluster with and without a hash tag."""
    rates = {"user": "5/h; 100/day", "team": "8/h"}
    if request.param == "server":
        yield make(**rates)
        return
    client = request.getfixturevalue("redis_cluster").client()
    yield make(client, prefix=prefix if request.param == "cluster" else f"{{{prefix}}}", **rates)
    client.close()


def test_all_or_nothing(limits):
    assert limits.allow(user="ann", team="a", cost=5)
    assert limits.allow(user="bob", team="a", cost=2)
    denial = limits.decide(user="bob", team="a", cost=2)
    assert denial.policy == "team: 8/h"
    assert denial.violated == ("team: 8/h",)
    assert limits.peek(user="bob").remaining == pytest.approx(3, abs=0.1)
    both = limits.decide(user="ann", team="a", cost=2)
    assert set(both.violated) == {"user: 5/h", "team: 8/h"}
    assert limits.decide(team="a").policy == "team: 8/h"
    assert limits.counters().failures == 0


def test_refund_reset_and_reservations(limits):
    assert limits.allow(user="ann", team="a", cost=5)
    limits.refund(user="ann", team="a", cost=2)
    assert limits.peek(user="ann").remaining == pytest.approx(2, abs=0.1)
    limits.reset(user="ann")
    assert limits.peek(user="ann").remaining == 5
    assert limits.peek(team="a").remaining == pytest.approx(5, abs=0.1)
    reservation = limits.reserve(user="ann", team="a", cost=4)
    assert reservation.decision.policy == "user: 5/h" or reservation.decision.policy == "team: 8/h"
    reservation.settle(1)
    reservation.settle(4)
    assert limits.peek(user="ann").remaining == pytest.approx(4, abs=0.1)
    assert limits.peek(team="a").remaining == pytest.approx(4, abs=0.1)
    limits.reserve(user="ann", cost=1).settle(3)
    assert limits.peek(user="ann").remaining == pytest.approx(1, abs=0.1)
    assert not limits.reserve(user="ann", team="a", cost=3)


def test_same_decisions_as_local_limits(make, redis_server, monkeypatch):
    time = ServerTime(redis_server.client(), monkeypatch)
    rates, chance = {"ip": "4/s", "user": "10/s, burst 6; 30/min"}, random.Random(4)
    shared, local = make(**rates), RateLimits(**rates, clock=lambda: time.now * 1000)
    for _ in range(300):
        time.now += chance.choice([0, 1, chance.randrange(10**6), 250_000])
        keys = {level: key for level in rates if (key := chance.choice(["a", "b", None])) is not None}
        if not keys:
            continue
        cost, method = chance.choice([1, 1, 2, 4, 0]), chance.choice(["decide", "decide", "peek", "refund"])
        here, there = [getattr(limits, method)(cost=cost, **keys) for limits in (local, shared)]
        if method == "refund":
            continue
        assert there.allowed is here.allowed
        assert there.policy == here.policy
        assert set(there.violated) == set(here.violated)
        assert there.remaining == pytest.approx(here.remaining, abs=1e-6)
        assert there.retry_after == pytest.approx(here.retry_after, abs=1.1e-6)


def test_one_call_a_request(make):
    limits = make(ip="10/s", user="100/min")
    assert all(limits.allow(ip="::1", user="ann") for _ in range(5))
    assert limits.counters().calls == 5


def test_levels_that_do_not_apply(make):
    limits = make(ip="1/h", user="1/h")
    assert limits.decide(user=None).remaining == inf
    assert limits.reserve(user=None)
    assert limits.refund(user=None) is None
    assert limits.counters().calls == 0
    assert limits.allow(ip="::1", user=None)
    assert not limits.allow(ip="::1", user="ann")
    assert limits.peek(user="ann").remaining == 1


@pytest.mark.parametrize(("levels", "error", "match"), [
    ({}, ValueError, "levels must be at least one, got none"),
    ({"cost": "1/s"}, ValueError, "level must be printable ASCII and none of"),
    ({"user": "x"}, ValueError, "rate must be like"),
    ({"user": "1/s", "on_error": None}, TypeError, "on_error must be one of .*, got None"),
    ({"user": "1/s", "on_error": RateLimiter("1/s")}, TypeError, "or a local RateLimits, got RateLimiter"),
])
def test_bad_arguments(redis_server, levels, error, match):
    on_error = {name: levels[name] for name in ("on_error",) if name in levels}
    rates = {name: rate for name, rate in levels.items() if name not in on_error}
    for form in (RedisRateLimits, AsyncRedisRateLimits):
        with pytest.raises(error, match=match):
            form(redis_server.client(), rates, **on_error)
    with pytest.raises(TypeError, match="levels must be a mapping of names to rates, got 7"):
        RedisRateLimits(redis_server.client(), 7)


def test_bad_requests(make):
    limits = make(user="5/s")
    for call in (limits.allow, limits.decide, limits.peek, limits.reserve, limits.refund, limits.acquire):
        with pytest.raises(TypeError, match="the key of at least one level must be given"):
            call()
        with pytest.raises(ValueError, match="level must be one of user, got 'ip'"):
            call(ip="::1")
        with pytest.raises(ValueError, match="cost must be finite and non-negative, got -1"):
            call(user="ann", cost=-1)
    with pytest.raises(ValueError, match="cost must be at most the burst 5, got 6"):
        limits.allow(user="ann", cost=6)
    assert limits.peek(user="ann").remaining == 5


def test_reconfigure(make):
    limits = make(ip="10/s", user="10/h")
    assert limits.allow(user="ann", cost=4)
    with pytest.raises(ValueError, match="level must be one of ip, user, got 'team'"):
        limits.reconfigure(ip="3/s", team="3/s")
    with pytest.raises(ValueError, match="rate must be like"):
        limits.reconfigure(ip="3/s", user="x")
    assert limits.rates["ip"] == (Rate(10, 1),)
    limits.reconfigure(user="20/h")
    assert limits.policies == ("ip: 10/s", "user: 20/h")
    assert limits.peek(user="ann").remaining == pytest.approx(16, abs=0.1)


def test_acquire(make):
    limits = make(ip="20/s, burst 1", user="2/h")
    assert [limits.acquire(ip="::1", user="ann") for _ in range(2)] == [True, True]
    assert not limits.acquire(ip="::1", user="ann", timeout=0.02)
    assert not limits.acquire(user="ann", timeout=0)


def test_a_refund_wakes_who_waits(redis_server, prefix):
    with RedisRateLimits(redis_server.client(), user="1/h", prefix=prefix, timeout=20) as limits:
        assert limits.allow(user="ann")
        timer = threading.Timer(0.05, limits.refund, kwargs={"user": "ann"})
        timer.start()
        assert limits.acquire(user="ann", timeout=30)
        timer.join()


@pytest.mark.parametrize("tagged", [True, False])
def test_threads_admit_no_more_than_each_level(redis_cluster, prefix, tagged):
    """Without a hash tag simultaneous requests may deny each other, but then nothing is taken."""
    client = redis_cluster.client()
    options = {"prefix": f"{{{prefix}}}" if tagged else prefix, "timeout": 20}
    with RedisRateLimits(client, user=Rate(30, 10**6), team=Rate(40, 10**6), **options) as limits:

        def work():
            return [user for user in "ab" * 20 if limits.allow(user=user, team="t")]

        admitted = [user for found in in_threads(work, 4) for user in found]
        while limits.allow(user="a", team="t") or limits.allow(user="b", team="t"):
            admitted.append("?")
        assert len(admitted) == 40
        assert max(admitted.count("a"), admitted.count("b")) <= 30
    client.close()


def test_tasks_share_a_connection(redis_server, prefix):
    async def main():
        client = redis.asyncio.Redis(port=redis_server.port)
        async with AsyncRedisRateLimits(client, user=Rate(100, 10**6), prefix=prefix, timeout=20) as limits:
            return sum(await asyncio.gather(*[limits.allow(user="ann") for _ in range(500)]))

    assert in_a_loop(main()) == 100


def test_policies_without_a_store(make):
    port = Port()
    absent = redis.Redis(port=port.number)
    rates = {"ip": "10/s", "user": "3/h"}
    with pytest.raises(StoreError):
        make(absent, **rates).allow(ip="::1")
    allow, deny = make(absent, on_error="allow", **rates), make(absent, on_error="deny", **rates)
    assert allow.decide(ip="::1", user="ann") == (True, 3, 3.0, 0.0, 0.0, "user: 3/h")
    assert deny.decide(ip="::1", user="ann").retry_after == 0.5
    local = make(absent, on_error=RateLimits(ip="10/s", user="2/h"), **rates)
    reservation = local.reserve(ip="::1", user="ann", cost=2)
    assert reservation.decision.degraded
    assert reservation.decision.policy == "user: 2/h"
    reservation.settle(1)
    assert local.allow(user="ann")
    assert not local.peek(user="ann")
    local.refund(user="ann")
    assert local.allow(user="ann")
    local.reset(user="ann")
    assert local.acquire(user="ann", cost=2, timeout=0)
    assert allow.reserve(user="ann").settle(0) is None
    port.release()


def test_repr_and_copies(redis_server):
    for form in (RedisRateLimits, AsyncRedisRateLimits):
        limits = form(redis_server.client(), {"ip": "10/s"}, user="5/s; 100/min", prefix="api")
        assert repr(limits) == f"{form.__name__}(ip='10/s', user='5/s; 100/min', prefix='api')"
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            limits.__reduce__()
