"""What happens to limits in Redis now and then: damaged states, a server that is loading, local limits that
are smaller, other rates while a denial is remembered, one deadline for several calls."""

import asyncio
import gc
import json
import math
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from itertools import repeat
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest
import redis
from near_caches import FORMS as FORMS_OF_CACHES
from near_caches import until_kept
from redis_forms import Synchronous
from redis_servers import Proxy, RedisServer, ServerTime
from servers import Port
from watchdog import in_a_loop, until

from headgate import Rate, RateLimiter, RateLimits
from headgate.adapters.redis import (
    AsyncNearCache,
    AsyncRedisRateLimiter,
    AsyncRedisRateLimits,
    NearCache,
    RedisRateLimiter,
    RedisRateLimits,
    _leases,
)
from headgate.adapters.redis._calls import Command, Unsent
from headgate.adapters.redis._connections import Connection
from headgate.adapters.redis._settings import Settings
from headgate.adapters.redis._streams import opened
from headgate.errors import StoreError

SLOW = Rate(1000, 10**9)
FORMS = {
    "sync": (RedisRateLimiter, RedisRateLimits),
    "async": (lambda *args, **options: Synchronous(AsyncRedisRateLimiter(*args, **options)),
              lambda *args, **options: Synchronous(AsyncRedisRateLimits(*args, **options))),
}


@pytest.fixture(params=FORMS)
def make(request):
    """Makes limits of either form, by level if any is given; they are closed after the test."""
    made = []

    def limiter(client, *rate, **options):
        by_key, by_level = FORMS[request.param]
        made.append(by_key(client, *rate, **options) if rate else by_level(client, **options))
        return made[-1]

    yield limiter
    for each in made:
        each.close()


@pytest.fixture
def absent():
    """A client for a port at which nothing listens."""
    port = Port()
    with redis.Redis(port=port.number) as client:
        yield client
    port.release()


# ---- states that no limiter has written -----------------------------------------------------


def state(at=1e15, interval=1e5, denominator=1.0, end=1e15, rest=0.0):
    return struct.pack("<Bddddd", 1, at, interval, denominator, end, rest)


DAMAGED = {
    "empty": b"", "short": b"\1abc", "long": state() + b"x", "text": b"hello",
    "infinite": state(end=math.inf), "no number": state(at=math.nan), "no end": state(end=math.nan),
    "late": state(at=1e300),
    "negative rest": state(rest=-5e30), "large rest": state(rest=1.0), "no interval": state(interval=0.0),
    "no denominator": state(denominator=0.0), "second tier": state() + struct.pack("<4d", 1, 1, math.inf, 0),
}


@pytest.mark.parametrize("value", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_state_is_an_error_until_it_is_reset(make, redis_server, prefix, value):
    client = redis_server.client()
    limiter = make(client, "10/s", prefix=prefix, timeout=20)
    lenient = make(client, "10/s", prefix=prefix, timeout=20, on_error="allow")
    assert limiter.allow("ann")
    (name,) = client.keys(f"{prefix}*")
    for method in ("decide", "allow", "peek", "reserve", "refund"):
        client.set(name, value)
        with pytest.raises(StoreError, match=r"has another version|is damaged"):
            getattr(limiter, method)("ann")
        assert client.get(name) == value
    assert lenient.decide("ann").degraded
    limiter.reset("ann")
    assert limiter.decide("ann").remaining == 9


@pytest.mark.parametrize("entry", ["x", "inf", "nan", "1e300"])
def test_a_damaged_strict_state_is_an_error_until_it_is_reset(make, redis_server, prefix, entry):
    client = redis_server.client()
    limiter = make(client, "10/s", prefix=prefix, timeout=20, strict=True)
    assert limiter.allow("ann")
    (name,) = client.keys(f"{prefix}*")
    client.rpush(name, entry)
    for method in ("decide", "peek", "refund"):
        with pytest.raises(StoreError, match="is damaged"):
            getattr(limiter, method)("ann")
    assert client.llen(name) == 2
    limiter.reset("ann")
    assert limiter.decide("ann").remaining == 9


def test_a_value_of_another_type_is_an_error_until_it_is_reset(make, redis_server, prefix):
    client = redis_server.client()
    limiter = make(client, "10/s", prefix=prefix, timeout=20)
    assert limiter.allow("ann")
    (name,) = client.keys(f"{prefix}*")
    client.delete(name)
    client.hset(name, "field", "value")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        limiter.allow("ann")
    assert client.hget(name, "field") == b"value"
    limiter.reset("ann")
    assert limiter.allow("ann")


def test_rates_that_change_to_and_fro_forget_no_debt(make, redis_server, prefix):
    """Two versions of a program, by turns."""
    client = redis_server.client()
    first, second = (make(client, rate, prefix=prefix, timeout=20) for rate in ("10/h", "7/h; 30/day"))
    allowed = [each.allow("ann") for _ in range(10) for each in (first, second)]
    assert sum(allowed) <= 10
    assert not first.allow("ann")
    assert not second.allow("ann")


def test_scripts_read_everything_before_they_write(make, redis_server, prefix):
    """One level whose state is damaged leaves the other as it was."""
    client = redis_server.client()
    limits = make(client, first="10/h", second="10/h; 20/day", prefix=prefix, timeout=20)
    keys = {"first": "ann", "second": "bob"}
    assert limits.allow(**keys)
    names = client.keys(f"{prefix}*")
    assert len(names) == 2
    for name in names:
        held = limits.reserve(**keys)
        good = client.get(name)
        client.set(name, b"\2")
        (other,) = set(names) - {name}
        before = client.get(other)
        calls = (limits.decide, keys), (limits.refund, keys), (limits.reserve, keys), (held.cancel, {})
        for call, named in calls:
            with pytest.raises(StoreError):
                call(**named)
            assert (client.get(name), client.get(other)) == (b"\2", before)
        client.set(name, good)


# ---- a server that replies, but does nothing ------------------------------------------------


class Reluctant(StreamRequestHandler):
    """Replies `errors`, one to each command, and then that all is allowed."""

    ALLOWED = struct.pack("<B3d", 1, 1e15, 0, 0)

    def handle(self):
        with suppress(OSError):
            while line := self.rfile.readline():
                for _ in range(int(line[1:])):
                    self.rfile.read(int(self.rfile.readline()[1:]) + 2)
                error = next(self.server.errors, None)
                reply = b"$%d\r\n%b" % (len(self.ALLOWED), self.ALLOWED) if error is None else b"-" + error
                self.wfile.write(reply + b"\r\n")


@contextmanager
def reluctant(errors, handler=Reluctant):
    """A client for a server that replies errors."""
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.errors = True, iter(errors)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        with redis.Redis(port=server.server_address[1]) as client:
            yield client
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("error", [
    "LOADING Redis is loading the dataset in memory", "TRYAGAIN Multiple keys request",
    "MASTERDOWN Link with MASTER is down", "CLUSTERDOWN The cluster is down", "NOSCRIPT No matching script.",
    "READONLY You can't write against a read only replica.",
])
def test_a_charge_is_sent_again_if_nothing_ran(make, error):
    with reluctant([error.encode()]) as client:
        limiter = make(client, "10/s", timeout=20)
        assert limiter.decide("ann").remaining == 10
        assert limiter.counters().resent == 1


@pytest.mark.parametrize("error", [
    "ERR unknown", "OOM command not allowed", "BUSY Redis is busy", "MISCONF Errors writing", "NOPERM no",
    "NOREPLICAS Not enough", "UNKILLABLE x", "WRONGTYPE x", "EXECABORT x", "MOVED 1 127.0.0.1:1",
])
def test_a_charge_is_not_sent_again_otherwise(make, error):
    with reluctant([error.encode()]) as client:
        limiter = make(client, "10/s", timeout=20)
        with pytest.raises(StoreError):
            limiter.decide("ann")
        assert (limiter.counters().resent, limiter.counters().failures) == (0, 1)
        assert limiter.decide("ann")


def test_a_server_that_is_loading_is_left_alone_after_three_calls(make):
    with reluctant(repeat(b"LOADING Redis is loading the dataset in memory")) as client:
        limiter = make(client, "10/s", on_error="deny", timeout=0.1)
        assert all(limiter.decide("ann").degraded for _ in range(3))
        start = time.monotonic()
        assert all(limiter.decide("ann").degraded for _ in range(50))
        assert time.monotonic() - start < 2, "50 calls would wait for 5 s"
        assert limiter.counters().refused >= 40


class SilentAtFirst(Reluctant):
    """Replies nothing on its first connection."""

    def handle(self):
        if next(self.server.errors, None) is None:
            super().handle()
        while self.rfile.read(1):
            pass


def test_a_connection_without_replies_is_left_although_all_calls_are_cancelled():
    """No call waits until its deadline."""

    async def patient(limiter):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                return await limiter.allow("ann")

    async def main(client):
        async with AsyncRedisRateLimiter(client, "10/s", timeout=0.2, on_error="deny") as limiter:
            while not await patient(limiter):
                pass

    with reluctant([b"silence"], SilentAtFirst) as client:
        in_a_loop(main(client))


def test_a_connection_that_was_left_is_closed_with_the_limiter():
    """Although a call on it has some time left."""

    async def main(client):
        async with AsyncRedisRateLimiter(client, "10/s", timeout=0.4, on_error="deny") as limiter:
            first = asyncio.create_task(limiter.allow("ann"))
            await asyncio.sleep(0.2)
            second = asyncio.create_task(limiter.allow("ann"))
            await first
            while not await limiter.allow("ann"):
                pass
            second.cancel()

    with reluctant([b"silence"], SilentAtFirst) as client:
        in_a_loop(main(client))
    gc.collect()


class Full(StreamRequestHandler):
    """Has no room for clients."""

    def handle(self):
        self.wfile.write(b"-ERR max number of clients reached\r\n")


def test_a_server_that_closes_each_connection_is_not_waited_for():
    """Nor is a connection on which nothing was sent one whose call may have run."""

    async def main(client):
        server = Settings(client).servers[0]
        made = await opened(server, time.monotonic() + 3600)
        while made.is_open:
            await asyncio.sleep(0)
        with pytest.raises(Unsent, match="connection closed by the server"):
            await made.send(b"*1\r\n$4\r\nPING\r\n", 1, time.monotonic() + 3600)
        async with AsyncRedisRateLimiter(client, "10/s", timeout=3600) as limiter:
            for _ in range(20):
                with pytest.raises(StoreError):
                    await limiter.allow("ann")

    with reluctant([], Full) as client:
        in_a_loop(main(client))


def test_a_call_that_is_due_before_the_others_on_its_connection_ends_first():
    """It had to be sent again, or is the second one for its request."""

    async def main(client):
        async with AsyncRedisRateLimiter(client, "10/s", timeout=3600) as limiter:
            store = limiter._store
            patient = asyncio.create_task(limiter.allow("ann"))
            await asyncio.sleep(0)  # it is the first to wait for the connection
            with pytest.raises(StoreError, match="timed out"):
                await store.call_all([Command(b"key", b"PING")], store.deadline() - 3599)
            assert not patient.done()
            patient.cancel()

    with reluctant([b"silence"], SilentAtFirst) as client:
        in_a_loop(main(client))


@pytest.mark.parametrize("host", ["a" * 64, "redis..example"])
def test_a_host_that_is_no_name_is_a_failure_of_the_store(make, host):
    with redis.Redis(host=host) as client:
        assert make(client, "10/s", on_error="deny").decide("ann").degraded
        with pytest.raises(StoreError, match="label"):
            make(client, "10/s").decide("ann")


@pytest.mark.parametrize("form", FORMS_OF_CACHES)
def test_a_near_cache_at_a_host_that_is_no_name(form):
    with redis.Redis(host="a" * 64) as client:
        near = FORMS_OF_CACHES[form](client, prefixes=["user:"], heartbeat=0.01)
        assert near.get("user:1", "nothing") == "nothing"
        near.close()


# ---- limits that decide instead -------------------------------------------------------------


def test_a_cost_above_the_burst_of_the_local_limit_is_denied(make, absent):
    local = RateLimiter("20/h")
    limiter = make(absent, "100/min", on_error=local)
    for decision in (limiter.decide("ann", 50), limiter.peek("ann", 50), limiter.reserve("ann", 50).decision):
        assert not decision
        assert decision.degraded
    assert not limiter.allow("ann", 50)
    assert [bool(decision) for decision in limiter.decide_many([("ann", 50), ("ann", 5)])] == [False, True]
    assert limiter.reserve("ann", 5)
    assert local.peek("ann").remaining == pytest.approx(10, abs=0.1)
    assert limiter.counters().degraded == 7


def test_an_amount_that_the_local_limit_cannot_have_taken_is_not_given_back(make, absent):
    local = RateLimiter("20/h", strict=True)
    limiter = make(absent, "100/min", on_error=local)
    assert limiter.allow("ann", 3)
    assert not limiter.allow("ann", 1.5)
    limiter.refund("ann", 1.5)
    assert local.peek("ann").remaining == 17


def test_a_cost_above_the_burst_of_local_levels_is_denied(make, absent):
    local = RateLimits(ip="20/h", user="20/h")
    limits = make(absent, ip="100/min", on_error=local)
    assert not limits.decide(ip="ann", cost=50)
    assert not limits.reserve(ip="ann", cost=50)
    assert limits.reserve(ip="ann", cost=5)
    assert local.peek(ip="ann").remaining == pytest.approx(15, abs=0.1)


def test_local_levels_are_those_of_the_store(make, absent):
    with pytest.raises(ValueError, match="on_error must have the levels ip, user, got RateLimits"):
        make(absent, ip="9/s", user="9/s", on_error=RateLimits(ip="9/s"))


# ---- leases ---------------------------------------------------------------------------------


def test_other_rates_forgive_denials(make, redis_server, prefix):
    limiter = make(redis_server.client(), "2/h", prefix=prefix, timeout=20, lease=10)
    assert [limiter.allow("ann") for _ in range(4)] == [True, True, False, False]
    limiter.reconfigure("1000/s")
    until(lambda: limiter.allow("ann"))


def test_other_rates_end_leases(make, redis_server, prefix):
    """What is left is refunded, and the other rates decide at once."""
    limiter = make(redis_server.client(), SLOW, prefix=prefix, timeout=20, lease=100, lease_ttl=3600)
    assert limiter.decide("ann").remaining == 999
    limiter.reconfigure("5/h")
    assert limiter.peek("ann", 0).remaining == 0, "all of the lease is owed until it is refunded"
    with pytest.raises(ValueError, match="cost must be at most the burst 5"):
        limiter.decide("ann", 50)
    decisions = [limiter.decide("ann") for _ in range(6)]
    assert [bool(decision) for decision in decisions] == [True] * 4 + [False] * 2
    assert {decision.policy for decision in decisions} == {"5/h"}


def test_a_denial_before_a_refund_is_not_remembered(make, redis_server, prefix):
    """The server does not know the script for refunds, which is sent again after the request."""
    redis_server.client().script_flush()
    limiter = make(redis_server.client(), SLOW, prefix=prefix, timeout=20, lease=100, lease_ttl=3600)
    assert limiter.allow("ann")
    limiter.reconfigure("5/h")
    limiter.allow("ann")
    assert limiter.allow("ann")


def test_what_is_left_is_refunded_by_the_rates_of_the_lease(make, redis_server, prefix, monkeypatch):
    """What was refilled by them since is not refunded."""
    now = ServerTime(redis_server.client(), monkeypatch)
    fast, other = [make(redis_server.client(), "100/s", prefix=prefix, timeout=20, lease=lease, lease_ttl=60)
                   for lease in (10, 0)]
    assert other.allow("ann", 50)
    assert fast.allow("ann")
    now.now += 100_000
    assert other.peek("ann").remaining == 50
    fast.reconfigure("100/h")
    assert fast.allow("ann")
    assert fast.peek("ann", 0).remaining == pytest.approx(100 - 50 - 10, abs=0.01)


def test_a_reservation_that_is_given_back_ends_the_denial(make, redis_server, prefix):
    limiter = make(redis_server.client(), SLOW, prefix=prefix, timeout=20, lease=10)
    for finish in (lambda held: held.cancel(), lambda held: held.settle(400)):
        held = limiter.reserve("ann", 1000)
        assert held
        assert not limiter.allow("ann")
        finish(held)
        assert limiter.acquire("ann", timeout=0)
        limiter.reset("ann")


def test_denials_keep_no_other_lease_from_being_returned(make, redis_server, prefix, monkeypatch):
    monkeypatch.setattr(_leases, "_MOST_RETURNS", 4)
    client = redis_server.client()
    limiter = make(client, SLOW, prefix=prefix, timeout=20, lease=100, lease_ttl=0.05)
    plain = make(client, SLOW, prefix=prefix, timeout=20)
    for number in range(10):
        assert plain.allow(number, 1000)
        assert not limiter.allow(number)
    assert limiter.allow("ann")
    assert round(plain.peek("ann").remaining) == 900
    time.sleep(0.06)

    def is_returned():
        limiter.allow("bob", 90)
        return round(plain.peek("ann").remaining) == 999

    until(is_returned)
    calls = limiter.counters().calls
    assert not any(limiter.allow(number) for number in range(10))
    assert limiter.counters().calls == calls


def test_a_denial_for_ever_is_remembered_as_it_was(make, redis_server, prefix):
    limiter = make(redis_server.client(), "0/s", prefix=prefix, timeout=20, lease=10)
    first = limiter.decide("ann")
    assert first.reset_after == first.retry_after == math.inf
    assert limiter.decide("ann") == first
    assert limiter.counters().calls == 1


# ---- time -----------------------------------------------------------------------------------


def test_levels_apart_have_one_deadline(make, redis_server, prefix, monkeypatch):
    """Three calls for one request, each of which would do."""
    with Proxy(redis_server.port) as proxy:
        limits = make(proxy.client(), user="1000/s", team="1000/s", prefix=prefix, timeout=0.5)
        monkeypatch.setattr(type(limits) if isinstance(limits, RedisRateLimits) else AsyncRedisRateLimits,
                            "_is_joint", False)
        assert limits.decide(user="ann", team="x")
        proxy.delay = lambda: 0.4
        start = time.monotonic()
        with pytest.raises(StoreError):
            limits.decide(user="ann", team="x")
        assert time.monotonic() - start < 15


def test_a_long_timeout_of_a_socket_that_was_used_is_exact():
    here, there = socket.socketpair()
    with here, there:
        connection = Connection.__new__(Connection)
        connection._socket, connection._timeout = here, 0.0
        for seconds in (3600, 3599, 3598.9):
            connection._wait_at_most(seconds)
            assert here.gettimeout() - seconds <= 0.01


@pytest.mark.parametrize("by_level", [False, True])
def test_waiting_ends_with_the_call_under_way(make, tmp_path, by_level):
    with RedisServer(tmp_path) as server:
        options = {"on_error": "deny", "timeout": 0.2}
        limits = make(server.client(), user="1/h", **options) if by_level else make(
            server.client(), "1/h", **options)
        named = {"user": "ann"} if by_level else {"key": "ann"}
        assert limits.acquire(**named)
        assert limits.counters().calls == 1
        assert not limits.acquire(**named, timeout=0)
        assert limits.counters().calls == 2
        server.stop()
        start = time.monotonic()
        assert not limits.acquire(**named, timeout=0.05)
        assert time.monotonic() - start < 0.35
        server.resume()


def test_a_reservation_that_cannot_be_settled_keeps_no_other_from_it(redis_server, prefix, absent):
    async def main():
        gone = AsyncRedisRateLimiter(redis_server.client(), SLOW, prefix=prefix, timeout=20)
        kept = AsyncRedisRateLimiter(redis_server.client(), SLOW, prefix=f"{prefix}-kept", timeout=20)
        first, second = await gone.reserve("ann", 5), await kept.reserve("ann", 5)
        assert await first.join(second)
        (name,) = redis_server.client().keys(f"{prefix}:*")
        redis_server.client().set(name, b"damaged")
        with pytest.raises(StoreError):
            await first.cancel()
        assert round((await kept.peek("ann")).remaining) == 1000
        await gone.close()
        await kept.close()

    in_a_loop(main())


# ---- values ---------------------------------------------------------------------------------


def test_a_value_that_is_not_bytes_leaves_no_connection_behind(redis_server):
    with NearCache(redis_server.client(), prefixes=["json:"], dumps=json.dumps, loads=json.loads) as near:
        assert near.get("json:1") is None
        for _ in range(3):
            with pytest.raises(TypeError, match="dumps must return bytes, got '1'"):
                near.set("json:1", 1)


def test_a_large_value_is_read_in_time(redis_server):
    """In a time that is linear in its size."""
    client = redis_server.client()
    client.set("large:1", bytes(24 << 20))
    with NearCache(client, prefixes=["large:"], timeout=3, on_error="raise") as near:
        assert len(near.get("large:1")) == 24 << 20
    client.delete("large:1")


def test_a_large_value_is_read_in_time_by_tasks(redis_server):
    async def main():
        async with AsyncNearCache(client, prefixes=["large:"], timeout=3, on_error="raise") as near:
            return len(await near.get("large:2"))

    client = redis_server.client()
    client.set("large:2", bytes(24 << 20))
    assert in_a_loop(main()) == 24 << 20
    client.delete("large:2")


def test_databases_that_are_swapped_are_seen_within_the_ttl(tmp_path):
    """Nothing announces it."""
    with RedisServer(tmp_path) as server, redis.Redis(port=server.port, db=1) as other:
        client = server.client()
        client.set("user:1", b"old")
        other.set("user:1", b"new")
        with NearCache(client, prefixes=["user:"], ttl=0.5) as near:
            until_kept(near, "user:1")
            client.swapdb(0, 1)
            start = time.monotonic()
            until(lambda: near.get("user:1") == b"new")
            assert time.monotonic() - start < 1


def test_a_limit_that_is_evicted_admits_a_burst_more(make, tmp_path):
    with RedisServer(tmp_path, "--maxmemory-policy", "allkeys-random") as server:
        client = server.client()
        limiter = make(client, "5/h", timeout=5)
        assert sum([limiter.allow("ann") for _ in range(9)]) == 5
        client.config_set("maxmemory", 1)
        with suppress(redis.ResponseError):
            client.set("other", 1)
        client.config_set("maxmemory", 0)
        assert sum([limiter.allow("ann") for _ in range(9)]) == 5
