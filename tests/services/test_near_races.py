"""Reads and writes through near caches race with those of others, through a proxy that delays each packet."""

import asyncio

import pytest
import redis.asyncio
from near_races import BATCH, KINDS, Races, Threads, delays
from redis_servers import Proxy, RedisServer

from headgate.adapters.redis import AsyncNearCache, NearCache


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path) as started:
        yield started


async def raced(form, server, proxy, batches):
    """The keys that are stale, by kind of race, and the statistics of the cache."""
    foreign = redis.asyncio.Redis(port=server.port)
    near = form(proxy.client(), prefixes=["user:"], timeout=10)
    races = Races(Threads(near) if form is NearCache else near, foreign, proxy.cut, 1)
    await races.run(batches)
    stats = near.stats()
    closed = near.close()
    if closed is not None:
        await closed
    await foreign.aclose()
    return races.stale, stats


@pytest.mark.parametrize("form", [NearCache, AsyncNearCache])
def test_no_race_leaves_a_stale_value(form, server, exhaustive):
    batches = 10_000 // BATCH // len(KINDS) if exhaustive else 2
    with Proxy(server.port) as proxy:
        proxy.delay = delays(1)
        stale, stats = asyncio.run(raced(form, server, proxy, batches))
    assert stale == dict.fromkeys(KINDS, 0)
    assert stats.overtaken > 0
    assert stats.stored > 0
