"""Reads and writes through near caches race with those of others, through a proxy that delays each packet."""

import asyncio
import threading
import time

import pytest
import redis.asyncio
from near_caches import FORMS
from near_races import BATCH, KINDS, Races, Threads, delays
from own_time import Stopwatch
from redis_servers import Proxy, RedisServer, one_in_a_hundred
from watchdog import until

from headgate.adapters.redis import AsyncNearCache, NearCache

LATE = 0.05


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
    batches = 10_000 // BATCH // len(KINDS) if exhaustive else 1
    with Proxy(server.port) as proxy:
        proxy.delay = delays(1)
        stale, stats = asyncio.run(raced(form, server, proxy, batches))
    assert stale == dict.fromkeys(KINDS, 0)
    assert stats.overtaken > 0
    assert stats.stored > 0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_value_outlives_its_bound_and_no_call_its_timeout(form, server, exhaustive):
    """A counter is read all the time while packets are late, connections are cut and the server stops."""
    max_stale, timeout, replaced = 0.5, 0.25, {}
    done, seen, slowest = threading.Event(), set(), 0.0

    def write():
        with server.client(socket_timeout=30) as client:
            number = 0
            while not done.wait(0.002):
                number += 1
                client.set("user:1", number)
                replaced[number - 1] = time.monotonic()

    def disturb():
        try:
            for turn in range(10 if exhaustive else 1):
                until_hits_of_two_more_values()
                proxy.cut()
                done.wait(0.3)
                server.stop()
                done.wait(0.4 if turn % 2 else 0.8)
                server.resume()
            until_hits_of_two_more_values()
        finally:
            done.set()

    def until_hits_of_two_more_values():
        hits, values = near.stats().hits, len(seen)
        until(lambda: near.stats().hits > hits + 100 and len(seen) > values + 1)

    with Proxy(server.port) as proxy:
        proxy.delay = one_in_a_hundred(0.3, 1)
        near = form(proxy.client(), prefixes=["user:"], timeout=timeout, max_stale=max_stale, heartbeat=0.05)
        threads = [threading.Thread(target=work) for work in (write, disturb)]
        for thread in threads:
            thread.start()
        while not done.is_set():
            watch, begun = Stopwatch(), time.monotonic()
            value = near.get("user:1")
            if time.monotonic() - begun > timeout:
                slowest = max(slowest, watch.seconds())
            if value is not None:
                seen.add(int(value))
                ended = replaced.get(int(value), begun)
                assert begun - ended < max_stale, f"{value} was replaced {begun - ended} s before"
        for thread in threads:
            thread.join(30)
        hits = near.stats().hits
        near.close()
    assert slowest < timeout + LATE
    assert len(seen) > 3
    assert hits > 200
