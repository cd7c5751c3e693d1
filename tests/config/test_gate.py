"""Gate: the objects of a document, what cannot be made, and what is released."""

import asyncio
import gc
import os
import weakref
from random import Random
from types import MappingProxyType

import pytest
from config_documents import FULL, damaged

import headgate.config
from headgate.config import ConfigError
from headgate.config._building import check, weight_of
from headgate.config._nodes import plain
from headgate.config._yaml import parse_yaml

EVERYTHING = """
caches:
  sessions: {policy: lru, maxsize: 10000, ttl: 15 min}
  pages: {policy: tinylfu, maxsize: 1 MiB, weigh: bytes}
near: {users: {store: shared, prefixes: "user:"}}
limits:
  api: {rate: "10/s; 100/min", max_keys: 1000}
  networks: {kind: address, rate: 5/s, v4: {"24": 2, "32": 1}}
  fleet: {rate: 1000/min, store: shared}
  exact: {rate: 5/min, strict: true, max_keys: 10}
levels:
  public: {ip: api, user: "100/min; 1000/h", shadow: user, deny: {ip: 192.0.2.0/24}, exempt: {ip: 192.0.2.1}}
  hosts: {user: 100/min, store: shared}
buckets: {mail: {capacity: 5, refill_rate: 1}}
throttles: {upstream: {k: 1.5}}
placements:
  shards: {kind: ring, scheme: libmemcached, nodes: {a: 1, b: 2}}
  servers: {scheme: haproxy, nodes: [1, 2]}
  bounded: {kind: bounded, placement: shards}
  table: {kind: maglev, nodes: [a, b], size: 31}
balancers:
  orders: {kind: peak_ewma, servers: [http://a, http://b], slow_start: 30 s, draining: http://a}
  keyed: {kind: key_hash, servers: [a, b], placement: rendezvous}
retry_budgets: {upstream: {share: 0.1}}
concurrency: {workers: {algorithm: gradient, priorities: {user: 1, batch: 0.5}}}
objectives: {checkout: {target: 99.9, window: 30 d, latency: 250 ms}}
hotkeys: {users: {k: 5}}
http_caches: {client: {shared: false}}
stores:
  shared: {url: "redis://127.0.0.1:1/0", on_error: local, fallback: api}
  cluster: {kind: cluster, url: "redis://127.0.0.1:1"}
  sentinels: {kind: sentinel, url: "rediss://:secret@main/1", sentinels: "127.0.0.1:1"}
http:
  {limit: public, keys: {ip: client, user: header x-user}, shed: workers, priority: header x-class, cache: {}}
"""
SECTIONS = (
    "caches", "near", "limits", "levels", "buckets", "throttles", "placements", "balancers", "retry_budgets",
    "concurrency", "objectives", "hotkeys", "http_caches", "stores",
)


def test_an_object_that_needs_more_memory_than_there_is(load, monkeypatch):
    def no_memory(*args, **options):
        raise MemoryError("max_keys and the limits need more memory than there is")

    gate = load({})
    monkeypatch.setattr("headgate.config._building.RateLimiter", no_memory)
    text = "limits: {api: {rate: 10/s, max_keys: 4294967296}}"
    expected = "line 1:38: $.limits.api.max_keys: max_keys and the limits need more memory than there is"
    for use in (load, gate.apply, lambda text: gate.apply(headgate.config.read(text))):
        with pytest.raises(ConfigError) as found:
            use(text)
        assert str(found.value) == expected
    assert not gate.limits


def test_everything_has_its_name(load, twin):
    with load(EVERYTHING) as gate:
        for section in SECTIONS:
            objects = getattr(gate, section)
            assert objects.keys() == gate.document.sections[section].keys() != set()
            assert isinstance(objects, MappingProxyType)
        assert type(gate.caches["sessions"]) is twin.cache.LRUCache and gate.caches["sessions"].ttl == 900
        assert type(gate.limits["api"]) is twin.keyed.RateLimiter
        assert type(gate.objectives["checkout"]) is twin.slo.SLO
        assert [record.health for record in gate.balancers["orders"].records] == ["draining", "healthy"]
        assert gate.placements["bounded"].placement is gate.placements["shards"]
        assert gate.levels["public"].allow(ip="192.0.2.1") and not gate.levels["public"].allow(ip="192.0.2.2")
        assert gate.http.limit is gate.http.async_limit is gate.levels["public"]
        assert gate.http.shed is gate.concurrency["workers"] and gate.http.keys.keys() == {"ip", "user"}
        assert repr(gate).startswith("<Gate of <Document: caches: sessions, pages;")


def test_limits_of_a_store_have_two_forms(load):
    with load(EVERYTHING) as gate:
        names = [type(each["fleet"]).__name__ for each in (gate.limits, gate.async_limits)]
        assert names == ["RedisRateLimiter", "AsyncRedisRateLimiter"]
        names = [type(each["hosts"]).__name__ for each in (gate.levels, gate.async_levels)]
        assert names == ["RedisRateLimits", "AsyncRedisRateLimits"]
        assert gate.limits["api"] is gate.async_limits["api"]
        assert type(gate.async_near["users"]).__name__ == "AsyncNearCache"
        assert gate.limits["fleet"].allow("ann"), "the fallback decides, as there is no server"
        assert gate.limits["api"].peek("ann").remaining < 10


def test_no_secret_is_shown(load):
    with load(EVERYTHING) as gate:
        assert "secret" not in repr(gate) + repr(gate.stores["sentinels"])


def test_clients_of_stores(load):
    with load(EVERYTHING) as gate:
        shared = gate.stores["shared"]
        assert shared.client is shared.client
        assert type(shared.async_client).__module__.startswith("redis.asyncio")
        assert shared.client.connection_pool.connection_kwargs["port"] == 1
        master = gate.stores["sentinels"].client.connection_pool
        assert (master.service_name, master.connection_kwargs["password"]) == ("main", "secret")
        assert gate.stores["cluster"].settings.nodes_manager.startup_nodes


def test_all_that_cannot_be_made_is_named(load, tmp_path):
    document = {
        "limits": {
            "api": {"rate": "10/s", "path": str(tmp_path / "absent" / "api")},
            "exact": {"rate": "10.5/s", "strict": True},
        },
        "levels": {"public": {"ip": "api"}},
        "placements": {"table": {"kind": "maglev", "nodes": ["a"], "size": 32}},
        "objectives": {"checkout": {"target": 90}},
    }
    with pytest.raises(ConfigError) as caught:
        load(document)
    places = {problem.place for problem in caught.value.errors}
    assert places == {
        "$.limits.api", "$.limits.exact.rate", "$.placements.table.size", "$.objectives.checkout.target"}
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_check_opens_nothing(tmp_path):
    document = headgate.config.read({
        "limits": {
            "api": {"rate": "10/s", "path": str(tmp_path / "api")},
            "fleet": {"rate": "1/s", "store": "s"},
            "exact": {"rate": "10.5/s", "strict": True},
        },
        "levels": {"hosts": {"user": "100/min", "store": "s", "shadow": "user"}},
        "concurrency": {"workers": {"path": str(tmp_path / "workers")}},
        "http_caches": {"pages": {"path": str(tmp_path / "pages")}},
        "near": {"users": {"store": "s", "prefixes": "user:"}},
        "stores": {"s": {"url": "redis://10.0.0.1?socket_timeout=no", "package": "redis"}},
    })
    assert [problem.place for problem in check(document)] == ["$.limits.exact.rate", "$.levels.hosts.shadow"]
    assert list(tmp_path.iterdir()) == []


def test_a_check_of_everything_and_of_damaged_documents():
    assert check(headgate.config.read(FULL, env={})) == []
    tree, random, checked = plain(parse_yaml(FULL, None, [])), Random(1), 0
    for _ in range(150):
        try:
            document = headgate.config.read(damaged(tree, random), env={})
        except ConfigError:
            continue
        checked += 1
        assert all(problem.place.startswith("$.") for problem in check(document))
    assert checked > 5


@pytest.mark.parametrize(("wanted", "extra"), [(None, "redis"), ("redis", "redis"), ("valkey", "valkey")])
def test_a_package_that_is_missing_is_named_once_with_its_extra(load, monkeypatch, wanted, extra):
    monkeypatch.setattr("headgate.config._stores.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        load({"limits": {"fleet": {"rate": "1/s", "store": "s"}},
              "stores": {"s": {"url": "redis://10.0.0.1", "package": wanted}}})
    package = wanted or "redis or valkey"
    assert [str(problem) for problem in caught.value.errors] == [
        f"$.stores.s: needs the package {package}: pip install 'headgate[{extra}]'"]


def test_an_empty_document_has_nothing(load):
    gate = load({})
    assert not any(getattr(gate, section) for section in SECTIONS)
    assert gate.http.limit is gate.http.shed is gate.http.cache is None


def test_overlays_and_variables(load):
    more = {"caches": {"b": {"maxsize": 5}}}
    gate = load({"caches": {"a": {"maxsize": "${SIZE}"}}}, more, env={"SIZE": "7"})
    assert (gate.caches["a"].maxsize, gate.caches["b"].maxsize) == (7, 5)
    assert not gate.reload()


def test_a_clock_is_that_of_all_objects(load, clock):
    gate = load({"limits": {"api": {"rate": "1/s"}}, "caches": {"a": {"maxsize": 5, "ttl": 1}}}, clock=clock)
    gate.caches["a"]["x"] = 1
    assert gate.limits["api"].allow("ann") and not gate.limits["api"].allow("ann")
    clock.advance(1)
    assert gate.limits["api"].allow("ann") and "x" not in gate.caches["a"]


def test_weights_in_bytes(load):
    pages = load({"caches": {"pages": {"maxsize": 5, "weigh": "bytes"}}}).caches["pages"]
    pages["a"] = "äö"
    pages["b"] = memoryview(b"1")
    assert pages.currsize == 5 and weight_of("\ud800") == 3
    with pytest.raises(TypeError, match=r"^value must be bytes or a str in a cache .*, got 5$"):
        pages["c"] = 5


def test_a_gate_closes_what_it_opened(load):
    async def use():
        async with load(EVERYTHING) as gate:
            assert await gate.async_limits["fleet"].allow("ann")
            return gate

    gate = asyncio.run(use())
    assert gate.caches["sessions"].maxsize == 10000, "what waits for nothing goes on"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list open files")
def test_files_and_memory_are_released(load, tmp_path):
    def opened():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    document = {
        "limits": {
            name: {"rate": "10/s", "max_keys": 100, "path": str(tmp_path / name)} for name in ("a", "b", "c")
        },
        "objectives": {"o": {"target": 99, "path": str(tmp_path / "o")}},
    }
    broken = {
        **document, "placements": {"p": {"kind": "maglev", "size": 4, "nodes": ["a"]}},
        "buckets": {"b": {"capacity": 1, "refill_rate": 1, "path": str(tmp_path / "bucket")}},
    }
    load(document)
    before = opened()
    for _ in range(5):
        with load(document) as gate:
            assert opened() > before
            with pytest.raises(ConfigError):
                gate.apply(broken)
        reference = weakref.ref(gate)
        del gate
        assert opened() == before and reference() is None


def test_what_follows_http_is_changed_with_it(load):
    gate = load({"http": {"retry_after": 1}})
    followed, other = gate.follow(lambda http: http.retry_after), gate.follow(lambda http: http)
    assert followed.current == 1 and other.current is gate.http
    gate.apply({"http": {"retry_after": 2}, "caches": {"a": {"maxsize": 5}}})
    assert followed.current == 2 and other.current is gate.http
    held = gate.http
    gate.apply({"http": {"retry_after": 2}})
    assert other.current is held, "only what concerns it is made anew"


def test_what_follows_http_can_refuse(load):
    gate = load({"http": {"retry_after": 1}})

    def build(http):
        if http.retry_after > 1:
            raise ValueError("retry_after must be 1 here, got more")
        return http.retry_after

    followed = gate.follow(build)
    with pytest.raises(ConfigError, match=r"^\$.http.retry_after: retry_after must be 1 here, got more$"):
        gate.apply({"http": {"retry_after": 2}})
    assert followed.current == gate.http.retry_after == 1
    del followed, build
    gc.collect()
    gate.apply({"http": {"retry_after": 2}})
    with pytest.raises(ConfigError, match=r"^\$.http.cost: cost must be 2, got 1$"):
        gate.follow(_refuse)


def _refuse(http):
    raise TypeError(f"cost must be 2, got {http.cost}")
