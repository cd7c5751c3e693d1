"""Near caches of a cluster and behind sentinels: every master announces, keys move, masters change."""

import time

import pytest
from near_caches import FORMS, until_kept
from redis.cluster import key_slot
from redis.sentinel import Sentinel
from redis_clusters import Sentinels, behind_proxies
from watchdog import until

from headgate.errors import StoreError

KEYS = [f"near:{number}" for number in range(30)]


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.fixture
def forms(exhaustive):
    """Both forms, or one where servers take seconds to agree."""
    return FORMS.values() if exhaustive else [FORMS["async"]]


@pytest.fixture
def near(form, redis_cluster):
    client = redis_cluster.client()
    near = form(client, prefixes=["near:"], timeout=5, ttl=3600)
    yield near
    near.close()
    client.close()


@pytest.fixture
def foreign(redis_cluster):
    client = redis_cluster.client()
    for key in KEYS:
        client.set(key, "old")
    yield client
    client.close()


def test_every_master_announces_its_keys(near, foreign):
    until_kept(near, *KEYS)
    assert near.stats().fresh == 3
    assert near.get_many(KEYS) == dict.fromkeys(KEYS, b"old")
    for key in KEYS:
        foreign.set(key, "new")
    until(lambda: all(near.peek(key) is None for key in KEYS))
    assert near.get_many(KEYS) == dict.fromkeys(KEYS, b"new")
    assert near.set(KEYS[0], b"own")
    assert near.get(KEYS[0]) == b"own"
    assert near.delete(KEYS[0])
    assert near.get(KEYS[0]) is None


def test_many_in_one_round_trip_to_all_masters(form, redis_cluster, foreign):
    """The masters, each of which takes 0.6 s to reply, are asked at once."""
    with behind_proxies(redis_cluster) as (client, proxies):
        near = form(client, prefixes=["near:"], timeout=10)
        assert near.get_many(KEYS) == dict.fromkeys(KEYS, b"old")
        for proxy in proxies:
            proxy.delay = lambda: 0.6
        start = time.monotonic()
        assert near.get_many([f"{key}:absent" for key in KEYS]) == {}
        assert time.monotonic() - start < 1.7, "one by one they take 1.8 s"
        near.close()


def test_many_are_found_although_a_master_does_not_respond(form, redis_cluster, foreign):
    with behind_proxies(redis_cluster) as (client, proxies):
        near = form(client, prefixes=["near:"], timeout=0.5)
        raising = form(client, prefixes=["near:"], timeout=0.5, on_error="raise")
        for each in (near, raising):
            assert each.get_many(KEYS) == dict.fromkeys(KEYS, b"old")
            for key in KEYS:
                each.drop(key)
        port = foreign.get_node_from_key(KEYS[0]).port
        gone = next(at for at, server in enumerate(redis_cluster.servers) if server.port == port)
        proxies[gone].delay = lambda: 60
        rest = [key for key in KEYS if foreign.get_node_from_key(key).port != port]
        start = time.monotonic()
        assert near.get_many(KEYS) == dict.fromkeys(rest, b"old")
        assert near.stats().errors == 1
        with pytest.raises(StoreError):
            raising.get_many(KEYS)
        assert time.monotonic() - start < 5
        for each in (near, raising):
            each.close()


def test_a_key_that_moves_to_another_master(near, foreign, redis_cluster):
    """While it moves nothing of it is kept; when it has moved everything is dropped, once."""
    key = KEYS[1]
    slot = key_slot(key.encode())
    clients = [server.client() for server in redis_cluster.servers]
    port = foreign.get_node_from_key(key).port
    source = next(number for number, server in enumerate(redis_cluster.servers) if server.port == port)
    target = next(number for number, client in enumerate(clients)
                  if number != source and client.execute_command("ROLE")[0] == b"master")
    until_kept(near, *KEYS)
    clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", redis_cluster.ids[source])
    clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", redis_cluster.ids[target])
    names = clients[source].execute_command("CLUSTER GETKEYSINSLOT", slot, 10)
    clients[source].execute_command(
        "MIGRATE", "127.0.0.1", redis_cluster.servers[target].port, "", 0, 5000, "KEYS", *names)
    until(lambda: near.peek(key) is None)
    for _ in range(3):
        assert near.get(key) == b"old"
    assert near.peek(key) is None, "its server may not be listened to"
    assert near.peek(KEYS[2]) == b"old"
    for client in (clients[target], clients[source]):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", redis_cluster.ids[target])
    assert near.get(key) == b"old"
    assert near.stats().flushes >= 3
    until_kept(near, key)
    clients[target].execute_command("SET", key, "new")
    until(lambda: near.get(key) == b"new")


def test_a_master_of_a_cluster_that_dies(forms, failing_cluster):
    """Its keys are no longer served; those of the others are."""
    cluster = failing_cluster
    cluster.until_whole()
    with cluster.client() as client:
        nears = [form(client, prefixes=["near:"]) for form in forms]
        for key in KEYS:
            client.set(key, "old")
        lost = [key for key in KEYS if cluster.owner(key_slot(key.encode())) == 1]
        kept = [key for key in KEYS if key not in lost]
        for near in nears:
            until_kept(near, *KEYS)
        cluster.servers[1].kill()
        for near in nears:
            until(lambda near=near: all(near.peek(key) is None for key in lost))
            assert [near.peek(key) for key in kept] == [b"old"] * len(kept)
            assert near.get(lost[0], "nothing") == "nothing"
            near.close()


def test_a_new_master_is_listened_to(forms, tmp_path):
    """The old one is dead; what is written to the new one is announced by it."""
    with Sentinels(tmp_path) as sentinels:
        names = Sentinel([("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels])
        nears = [form(names.master_for("main"), prefixes=["near:"]) for form in forms]
        assert nears[0].set("near:1", b"old")
        for near in nears:
            until_kept(near, "near:1")
        sentinels.master.client().wait(1, 5000)
        sentinels.master.kill()
        for near in nears:
            until(lambda near=near: near.peek("near:1") is None)
        until(lambda: nears[0].set("near:1", b"new"))
        for near in nears:
            until(lambda near=near: near.get("near:1") == b"new")
            until_kept(near, "near:1")
        sentinels.replica.client().set("near:1", "newer")
        for near in nears:
            until(lambda near=near: near.get("near:1") == b"newer")
            near.close()
