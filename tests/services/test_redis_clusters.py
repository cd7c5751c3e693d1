"""Limits in a cluster and behind sentinels: slots that move, masters that die."""

import asyncio
import time

import pytest
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.cluster import key_slot
from redis.sentinel import Sentinel
from redis_clusters import Sentinels
from watchdog import PATIENCE, in_a_loop, until

from headgate import Rate
from headgate.adapters.redis import AsyncRedisRateLimiter, RedisRateLimiter, _calls
from headgate.adapters.redis._calls import slot_of
from headgate.errors import StoreError

SLOW = Rate(10, 10**6)


@pytest.fixture
def limiter(redis_cluster, prefix):
    client = redis_cluster.client()
    with RedisRateLimiter(client, SLOW, prefix=prefix, timeout=5) as limiter:
        yield limiter
    client.close()


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


def test_tasks_in_a_cluster(redis_cluster, prefix, monkeypatch):
    monkeypatch.setattr(_calls, "_LONGEST_TURN", PATIENCE)  # on a busy machine the one that asks is slow

    async def main():
        stats = redis_cluster.servers[0].client().info("commandstats")
        before = stats.get("cmdstat_cluster|slots", {"calls": 0})["calls"]
        client = AsyncRedisCluster(host="127.0.0.1", port=redis_cluster.servers[0].port)
        async with AsyncRedisRateLimiter(client, SLOW, prefix=prefix, timeout=5) as limiter:
            allowed = await asyncio.gather(*[limiter.allow(number % 50) for number in range(1000)])
            assert sum(allowed) == 500
            assert not any(await limiter.decide_many([(number, 1) for number in range(50)]))
            asked = redis_cluster.servers[0].client().info("commandstats")["cmdstat_cluster|slots"]["calls"]
            assert asked - before == 1, "one task asks for all"

    in_a_loop(main())


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
