"""Limits in a cluster and behind sentinels: slots that move, masters that die."""

import asyncio
import time
from functools import partial

import pytest
import redis
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.cluster import key_slot
from redis.sentinel import Sentinel
from redis_clusters import SLOTS, Sentinels, behind_proxies, port_of_bus
from redis_forms import Synchronous
from redis_servers import RedisServer, with_ports
from watchdog import PATIENCE, in_a_loop, until

from headgate import Rate
from headgate.adapters.redis import AsyncRedisRateLimiter, RedisRateLimiter, _calls
from headgate.adapters.redis._calls import slot_of
from headgate.adapters.redis._keys import Prefix
from headgate.errors import StoreError

SLOW = Rate(10, 10**6)


@pytest.fixture
def limiter(redis_cluster, prefix):
    client = redis_cluster.client()
    with RedisRateLimiter(client, SLOW, prefix=prefix, timeout=30) as limiter:
        yield limiter
    client.close()


def synchronous(*args, **options):
    return Synchronous(AsyncRedisRateLimiter(*args, **options))


def slot(limiter, key):
    return slot_of(limiter._prefix.key(b"s" + key.encode()))


@pytest.mark.parametrize("key", [b"user", b"{user}:1", b"a{b}c{d}", b"{}x", b"a{", b"}a{b}", b"\xff\x00"])
def test_slots_are_those_of_the_server(key):
    assert slot_of(key) == key_slot(key)


def test_decisions_in_a_cluster(limiter, redis_cluster):
    keys = [f"user-{number}" for number in range(60)]
    assert {redis_cluster.owner(slot(limiter, key)) for key in keys} == {0, 1, 2}
    for key in keys:
        assert limiter.decide(key, 4).remaining == 6
    decisions = limiter.decide_many([(key, cost) for key in keys for cost in (5, 2, 1)])
    assert [bool(decision) for decision in decisions] == [True, False, True] * len(keys)
    reservation = limiter.reserve("settled", 5)
    reservation.cancel()
    limiter.reset(keys[0])
    assert limiter.peek(keys[0]).remaining == 10
    assert limiter.counters().failures == 0


def test_a_prefix_with_a_hash_tag_is_on_one_server(redis_cluster):
    client = redis_cluster.client()
    with RedisRateLimiter(client, SLOW, prefix="{one}", timeout=5) as limiter:
        assert all(limiter.decide_many([(number, 1) for number in range(50)]))
        owner = redis_cluster.servers[redis_cluster.owner(key_slot(b"one"))].client()
        assert len(owner.keys("{one}:*")) == 50
    client.close()


def times_asked(server):
    """How often a server was asked for the slots; before 7.0 subcommands are counted together."""
    stats = server.client().info("commandstats")
    found = stats.get("cmdstat_cluster|slots") or stats.get("cmdstat_cluster") or {"calls": 0}
    return found["calls"]


def test_tasks_in_a_cluster(redis_cluster, prefix, monkeypatch):
    monkeypatch.setattr(_calls, "_LONGEST_TURN", PATIENCE)  # on a busy machine the one that asks is slow

    async def main():
        before = times_asked(redis_cluster.servers[0])
        client = AsyncRedisCluster(host="127.0.0.1", port=redis_cluster.servers[0].port)
        async with AsyncRedisRateLimiter(client, SLOW, prefix=prefix, timeout=5) as limiter:
            allowed = await asyncio.gather(*[limiter.allow(number % 50) for number in range(1000)])
            assert sum(allowed) == 500
            assert not any(await limiter.decide_many([(number, 1) for number in range(50)]))
            assert times_asked(redis_cluster.servers[0]) - before == 1, "one task asks for all"

    in_a_loop(main())


@pytest.mark.parametrize("form", [RedisRateLimiter, synchronous])
def test_many_are_decided_at_once_although_a_master_does_not_respond(redis_cluster, prefix, form):
    """Each master takes 0.6 s to reply; the requests of one that does not are decided as was chosen."""
    requests = [(f"user-{number}", 1) for number in range(60)]
    with behind_proxies(redis_cluster) as (client, proxies):
        limiter = form(client, SLOW, prefix=prefix, timeout=1.7, on_error="deny")
        assert all(limiter.decide_many(requests))
        gone = redis_cluster.owner(slot(limiter, "user-0"))
        for proxy in proxies:
            proxy.delay = lambda: 0.6
        start = time.monotonic()
        decisions = limiter.decide_many(requests)
        assert time.monotonic() - start < 1.7, "one by one they take 1.8 s"
        assert not any(decision.degraded for decision in decisions)
        for proxy in proxies:
            proxy.delay = lambda: 0
        proxies[gone].delay = lambda: 60
        for decision, (key, _) in zip(limiter.decide_many(requests), requests, strict=True):
            is_lost = redis_cluster.owner(slot(limiter, key)) == gone
            assert (decision.degraded, bool(decision)) == (is_lost, not is_lost)
        counters = limiter.counters()
        assert (counters.calls, counters.failures) == (3, 1)
        limiter.close()


def test_a_lease_is_granted_although_the_master_of_another_one_does_not_respond(redis_cluster, prefix):
    """What is left of the other is not refunded."""
    with behind_proxies(redis_cluster) as (client, proxies), RedisRateLimiter(
        client, Rate(1000, 10**9), prefix=prefix, timeout=1, lease=10, lease_ttl=0.01
    ) as limiter:
        users = [f"user-{number}" for number in range(60)]
        keys = {redis_cluster.owner(slot(limiter, key)): key for key in users}
        for key in keys.values():
            assert limiter.allow(key)
        proxies[0].delay = lambda: 60
        time.sleep(0.02)
        assert limiter.allow(keys[1])
        assert limiter.counters().failures == 1


def test_a_slot_that_migrates(limiter, redis_cluster):
    """ASK while it moves, MOVED after it; every decision is made once."""
    key = "mover"
    number = slot(limiter, key)
    source = redis_cluster.owner(number)
    target = (source + 1) % 3
    old, new = redis_cluster.servers[source].client(), redis_cluster.servers[target].client()
    assert limiter.decide(key).remaining == 9
    new.execute_command("CLUSTER SETSLOT", number, "IMPORTING", redis_cluster.ids[source])
    old.execute_command("CLUSTER SETSLOT", number, "MIGRATING", redis_cluster.ids[target])
    assert limiter.decide(key).remaining == pytest.approx(8, abs=0.01)
    (name,) = old.execute_command("CLUSTER GETKEYSINSLOT", number, 10)
    old.execute_command("MIGRATE", "127.0.0.1", redis_cluster.servers[target].port, name, 0, 5000)
    assert limiter.decide(key).remaining == pytest.approx(7, abs=0.01)
    for client in (new, old):
        client.execute_command("CLUSTER SETSLOT", number, "NODE", redis_cluster.ids[target])
    assert limiter.decide(key).remaining == pytest.approx(6, abs=0.01)
    assert all(limiter.decide_many([(key, 1), (key, 1)]))
    counters = limiter.counters()
    assert counters.failures == 0
    assert counters.resent >= 2
    before = counters.resent
    assert limiter.decide(key).remaining == pytest.approx(3, abs=0.01)
    assert limiter.counters().resent == before, "where it has moved to is known"


@pytest.mark.parametrize("form", [RedisRateLimiter, synchronous])
def test_a_reply_of_a_master_that_is_lost_costs_one_charge(redis_cluster, prefix, form):
    """Its servers are asked again where the slots are, but the charge may have run: it is not sent again."""
    with behind_proxies(redis_cluster) as (client, proxies):
        limiter = form(client, SLOW, prefix=prefix, timeout=5)
        assert limiter.allow("ann")
        proxy = proxies[redis_cluster.owner(slot(limiter, "ann"))]
        for lost in (lambda: limiter.decide_many([("ann", 1)]), lambda: limiter.allow("ann")):
            proxy.swallow = True
            with pytest.raises(StoreError):
                lost()
            proxy.swallow = False
            assert limiter.peek("bob").remaining == 10
        assert limiter.peek("ann").remaining == pytest.approx(7, abs=0.01)
        limiter.close()


@pytest.mark.parametrize("form", [RedisRateLimiter, synchronous])
def test_a_slot_that_had_no_master_is_asked_for_again(form, prefix, tmp_path):
    options = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]
    server, (bus,) = with_ports(partial(RedisServer, tmp_path, *options), port_of_bus)
    with server, server.client() as client:
        missing = slot_of(Prefix(prefix).key(b"sann"))
        client.execute_command("CLUSTER ADDSLOTS", *[each for each in range(SLOTS) if each != missing])
        until(lambda: client.cluster("info")["cluster_state"] == "ok")
        with redis.RedisCluster(host="127.0.0.1", port=server.port, require_full_coverage=False) as whole:
            limiter = form(whole, SLOW, prefix=prefix, timeout=20)
        assert limiter.allow("bob")
        with pytest.raises(StoreError, match=f"no server of the cluster has slot {missing}"):
            limiter.allow("ann")
        assert limiter.allow("bob")
        client.execute_command("CLUSTER ADDSLOTS", missing)
        until(lambda: works(limiter, "ann"))
        assert limiter.allow("ann")
        limiter.close()
    bus.release()


def test_a_replica_of_a_cluster_that_is_promoted(limiter, redis_cluster):
    """MOVED tells that the master is another one; nothing is lost, nothing fails."""
    keys = [f"user-{number}" for number in range(12)]
    moved = [key for key in keys if redis_cluster.owner(slot(limiter, key)) == 2]
    assert moved
    assert all(limiter.decide(key, 6) for key in keys)
    replica = redis_cluster.servers[5].client()
    replica.execute_command("CLUSTER FAILOVER")
    until(lambda: replica.execute_command("ROLE")[0] == b"master")
    assert not any(limiter.decide(key, 6) for key in keys)
    assert all(limiter.decide(key, 3) for key in keys)
    assert limiter.counters().failures == 0


def test_a_master_of_a_cluster_that_dies(failing_cluster, prefix, exhaustive):
    """Keys of the others go on; its own do when its replica has taken over, which takes seconds."""
    cluster = failing_cluster
    cluster.until_whole()
    client = cluster.client()
    with RedisRateLimiter(client, SLOW, prefix=prefix) as limiter:
        keys = [f"user-{number}" for number in range(12)]
        lost = [key for key in keys if cluster.owner(slot(limiter, key)) == 2]
        assert lost
        assert all(limiter.decide(key, 6) for key in keys)
        cluster.servers[2].client().wait(1, 5000)
        cluster.servers[2].kill()
        outcomes = {key: works(limiter, key) for key in keys}
        assert all(outcomes[key] or key in lost for key in keys)
        if exhaustive:
            until(lambda: works(limiter, lost[0]))
            assert not any(limiter.decide(key, 6) for key in keys)
    client.close()


def works(limiter, key):
    try:
        limiter.peek(key)
    except StoreError:
        return False
    return True


def test_sentinels_name_the_master(tmp_path, prefix):
    """After a failover the limit goes on at the new master."""
    with Sentinels(tmp_path) as sentinels, asyncio.Runner() as runner:
        addresses = [("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels]
        names = Sentinel([("127.0.0.1", 1), *addresses])
        with RedisRateLimiter(names.master_for("main"), SLOW, prefix=prefix) as limiter:
            tasks = AsyncRedisRateLimiter(names.master_for("main"), SLOW, prefix=prefix, on_error="deny")
            assert runner.run(tasks.allow("bob", 6))
            failover(sentinels, limiter.decide, limiter.counters)
            assert not runner.run(tasks.allow("bob", 6))
            until(lambda: not runner.run(tasks.decide("bob", 6)).degraded)
            assert runner.run(tasks.peek("bob")).remaining == pytest.approx(4, abs=0.01)
            runner.run(tasks.close())
        with pytest.raises(ValueError, match="client must be one of the master"):
            RedisRateLimiter(names.slave_for("main"), SLOW)
        unknown = RedisRateLimiter(Sentinel(addresses).master_for("other"), SLOW)
        with unknown, pytest.raises(StoreError, match="no sentinel knows a master called 'other'"):
            unknown.allow("ann")


def failover(sentinels, decide, counters):
    assert decide("ann", 6)
    sentinels.master.client().wait(1, 5000)
    sentinels.master.kill()
    start = time.monotonic()
    slowest, decision = 0.0, None
    while decision is None and time.monotonic() - start < 30:
        begun = time.monotonic()
        try:
            decision = decide("ann", 6)
        except StoreError:
            time.sleep(0.01)
        slowest = max(slowest, time.monotonic() - begun)
    assert decision is not None, "no new master"
    assert not decision, "what was owed was replicated"
    assert slowest < 1
    assert decide("ann", 2).remaining == pytest.approx(2, abs=0.01)
    assert counters().failures >= 1
