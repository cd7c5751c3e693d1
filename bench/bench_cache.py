"""Caches: LRU compared with its peers, then every policy and lifetimes; 1,000 hot str keys."""

import sys
from importlib import import_module

import pytest

SIZE = 1000
HOT = [f"user:{i}" for i in range(SIZE)]
CHURN = [f"session:{i}" for i in range(4 * SIZE)]
COLD = [f"session:{i}" for i in range(200 * SIZE)]


def compiled():
    return import_module("headgate.cache._compiled").LRUCache(SIZE)


def pure():
    return import_module("headgate.cache._pure").LRUCache(SIZE)


def cachebox():
    return pytest.importorskip("cachebox").LRUCache(SIZE)


def cachetools():
    return pytest.importorskip("cachetools").LRUCache(SIZE)


def lru_dict():
    return pytest.importorskip("lru").LRU(SIZE)


CACHES = [dict, compiled, pure, cachebox, cachetools, lru_dict]


@pytest.mark.parametrize("make", CACHES, ids=lambda make: make.__name__)
def test_get_hit(benchmark, make):
    cache = make()
    for key in HOT:
        cache[key] = key

    def get_all(get=cache.get, keys=HOT):
        for key in keys:
            get(key)

    benchmark(get_all)


@pytest.mark.parametrize("keys", [CHURN, COLD[: 20 * SIZE], COLD], ids=["4000", "20000", "200000"])
@pytest.mark.parametrize("make", CACHES[1:], ids=lambda make: make.__name__)
def test_put_that_evicts(benchmark, make, keys):
    cache = make()

    def put_all(cache=cache, keys=keys):
        for key in keys:
            cache[key] = key

    put_all()
    benchmark(put_all)


@pytest.mark.parametrize("make", CACHES[1:3], ids=lambda make: make.__name__)
def test_bytes_an_entry(benchmark, make):
    """The size of the slab itself; `headgate bench` measures the process."""
    cache = type(make())(100_000)

    def fill():
        for i in range(100_000):
            cache[i] = None

    benchmark.pedantic(fill, rounds=1)
    benchmark.extra_info["bytes an entry"] = sys.getsizeof(cache) / 100_000


POLICIES = ["FIFOCache", "LFUCache", "RRCache", "S3FIFOCache", "SieveCache", "TinyLFUCache"]
TWINS = ["compiled", "pure"]


def hit_all(cache):
    for key in HOT:
        cache[key] = key

    def get_all(get=cache.get, keys=HOT):
        for key in keys:
            get(key)

    return get_all


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("twin", TWINS)
def test_get_hit_by_policy(benchmark, twin, policy):
    benchmark(hit_all(getattr(import_module(f"headgate.cache._{twin}"), policy)(SIZE)))


@pytest.mark.parametrize("twin", TWINS)
def test_get_hit_of_what_has_a_lifetime(benchmark, twin):
    benchmark(hit_all(import_module(f"headgate.cache._{twin}").TTLCache(SIZE, 3600)))


def test_get_hit_of_what_has_a_lifetime_in_cachebox(benchmark):
    benchmark(hit_all(pytest.importorskip("cachebox").TTLCache(SIZE, 3600)))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("twin", TWINS)
def test_read_through_by_policy(benchmark, twin, policy):
    cache = getattr(import_module(f"headgate.cache._{twin}"), policy)(SIZE)

    def read_all(get=cache.get, put=cache.put, keys=CHURN):
        for key in keys:
            if get(key) is None:
                put(key, key)

    read_all()
    benchmark(read_all)
