"""Leases: what they cost, what they admit, and what a process that is killed leaves behind."""

import asyncio
import mmap
import multiprocessing
import random
import sys
import time
from contextlib import ExitStack

import pytest
import redis
from redis_servers import HOSTS
from watchdog import PATIENCE, in_a_loop, in_threads, until

from headgate import Rate
from headgate.adapters.redis import AsyncRedisRateLimiter, RedisRateLimiter, _leases

SLOW = Rate(1000, 10**9)
TTL = 0.3


def work(port, prefix, rate, lease, requests, seconds, at_once, path, index):
    """Make requests until all are made or the time is over; what was allowed is counted in a file.

    They are made one by one, or so many `at_once`, of as many keys. Each second process is on another host.
    """
    host = HOSTS[index % 2] if HOSTS else "127.0.0.1"
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as counted:
        words = memoryview(counted).cast("Q")
        with redis.Redis(host=host, port=port) as client, RedisRateLimiter(
            client, rate, prefix=prefix, timeout=60, lease=lease, lease_ttl=TTL
        ) as limiter:
            end = time.monotonic() + seconds
            for _ in range(requests // at_once):
                if at_once > 1:
                    words[index] += sum(map(bool, limiter.decide_many([(key, 1) for key in range(at_once)])))
                else:
                    words[index] += limiter.allow(0)
                if time.monotonic() > end:
                    break
        words.release()


class Workers:
    """Processes that make requests, and the count of what each was allowed."""

    def __init__(self, port, prefix, rate, lease, requests, seconds, folder, count, at_once=1):
        self._path = folder / "counts"
        self._path.write_bytes(bytes(8 * count))
        options = port, prefix, rate, lease, requests, seconds, at_once, self._path
        context = multiprocessing.get_context("fork")
        self._processes = [context.Process(target=work, args=(*options, index)) for index in range(count)]
        for process in self._processes:
            process.start()

    def kill(self, index):
        self._processes[index].kill()

    def counts(self):
        data = self._path.read_bytes()
        return [int.from_bytes(data[at : at + 8], sys.byteorder) for at in range(0, len(data), 8)]

    def wait(self):
        for process in self._processes:
            process.join(PATIENCE * 10)
        return [process.exitcode for process in self._processes]


@pytest.fixture
def plain(redis_server, prefix):
    """A limiter without leases, which sees what the store has."""
    with RedisRateLimiter(redis_server.client(), SLOW, prefix=prefix, timeout=20) as limiter:
        yield limiter


@pytest.fixture
def make(redis_server, prefix):
    with ExitStack() as stack:
        yield lambda rate=SLOW, **options: stack.enter_context(
            RedisRateLimiter(redis_server.client(), rate, prefix=prefix, timeout=20, **options)
        )


def left(limiter, key="ann"):
    return round(limiter.peek(key).remaining)


def test_a_grant_is_a_quarter_of_what_remains(make, plain):
    """min(n, max(cost, remaining // 4))."""
    limiter, remaining = make(lease=100), 1000
    while remaining:
        assert limiter.allow("ann")
        granted = min(100, max(1, remaining // 4))
        remaining -= granted
        assert left(plain) == remaining
        calls = limiter.counters().calls
        assert all(limiter.allow("ann") for _ in range(granted - 1))
        assert limiter.counters().calls == calls
    assert not limiter.allow("ann")


def test_a_cost_above_the_quarter_is_granted_alone(make, plain):
    limiter = make(lease=100)
    assert plain.allow("ann", 900)
    assert limiter.allow("ann", 70)
    assert left(plain) == 30
    assert not limiter.allow("ann", 31)
    assert limiter.allow("ann", 30)


def test_grants_respect_all_tiers(make, redis_server, prefix):
    limiter = make("1000/day, burst 1000; 40/h")
    leased = make("1000/day, burst 1000; 40/h", lease=100)
    assert leased.allow("ann")
    assert left(limiter) == 30
    assert sum([leased.allow("ann") for _ in range(100)]) == 39


def test_decisions_of_a_lease(make):
    limiter = make(lease=100)
    first, second = limiter.decide("ann"), limiter.decide("ann", 2)
    assert (first.allowed, round(first.remaining), round(second.remaining)) == (True, 999, 997)
    assert second.policy == "1000/1000000000s"
    assert round(limiter.peek("ann").remaining) == 997
    assert limiter.counters().calls == 1


def test_costs_that_no_lease_is_for(make, plain):
    """Fractions and costs above the lease are charged one by one."""
    limiter = make(lease=10)
    assert limiter.allow("ann", 0.5)
    assert limiter.allow("ann", 100)
    assert limiter.allow("ann", 0)
    assert plain.peek("ann").remaining == pytest.approx(899.5, abs=0.01)


def test_the_rest_of_a_lease_that_has_ended_is_refunded_with_the_next_call(make, plain):
    limiter = make(lease=100, lease_ttl=0.03)
    assert limiter.allow("ann")
    assert left(plain) == 900
    time.sleep(0.04)
    assert limiter.allow("bob")
    assert left(plain) == 999
    time.sleep(0.04)
    assert limiter.allow("bob")
    assert left(plain, "bob") == 1000 - 1 - 100


def test_what_was_refilled_meanwhile_is_not_refunded(make):
    """The rule of cancel: 500 of 1,000 tokens come back in half a second."""
    limiter, other = make("1000/s", lease=100, lease_ttl=0.03), make("1000/s")
    assert limiter.allow("ann")
    time.sleep(0.5)
    assert limiter.allow("bob")
    assert other.peek("ann").remaining == 1000


def test_closing_returns_leases(make, plain):
    limiter = make(lease=100)
    assert all(limiter.allow(key) for key in ("ann", "bob"))
    limiter.close()
    assert (left(plain), left(plain, "bob")) == (999, 999)
    assert limiter.allow("ann")


def test_a_denied_flood_costs_no_round_trip(make):
    limiter = make(Rate(2, 10**6), lease=1)
    assert [limiter.allow("ann") for _ in range(3)] == [True, True, False]
    calls = limiter.counters().calls
    assert not any(limiter.allow("ann") for _ in range(1000))
    decision = limiter.decide("ann")
    assert not decision
    assert decision.retry_after == pytest.approx(500_000, abs=30)
    assert limiter.counters().calls == calls


def test_a_denial_is_remembered_until_its_tokens_are_due(make):
    limiter = make("4/s, burst 1", lease=1)
    assert limiter.allow("ann")
    denial = limiter.decide("ann")
    assert 0 < denial.retry_after <= 0.25
    until(lambda: limiter.allow("ann"))
    limiter.refund("ann")
    assert limiter.allow("ann")


def test_a_cheaper_request_is_not_denied_by_a_dearer_one(make):
    limiter = make(Rate(10, 10**6), lease=1)
    assert limiter.allow("ann", 6)
    assert not limiter.allow("ann", 5)
    assert limiter.allow("ann", 4)


def test_refund_and_reset_end_the_denial(make, plain):
    limiter = make(Rate(2, 10**6), lease=2)
    assert limiter.allow("ann", 2)
    assert not limiter.allow("ann")
    limiter.reset("ann")
    assert limiter.allow("ann", 2)
    assert not limiter.allow("ann")
    limiter.refund("ann")
    assert limiter.allow("ann")


def test_a_refund_keeps_the_lease(make, plain):
    limiter = make(lease=100)
    assert limiter.allow("ann")
    limiter.refund("ann")
    calls = limiter.counters().calls
    assert all(limiter.allow("ann") for _ in range(99))
    assert limiter.counters().calls == calls
    assert left(plain) == 901


def test_the_table_is_bounded(make, monkeypatch, plain):
    monkeypatch.setattr(_leases, "_MOST_KEYS", 50)
    limiter = make(lease=4)
    for number in range(120):
        assert limiter.allow(number)
        assert len(limiter._leases) <= 50
    assert left(plain, 0) == 999
    assert left(plain, 119) == 996


def test_threads_share_a_lease(make, plain):
    limiter = make(lease=50)
    assert sum(in_threads(lambda: sum([limiter.allow("ann") for _ in range(200)]), 8)) == 1000
    assert not limiter.allow("ann")


def test_tasks_share_a_lease(redis_server, prefix):
    async def main():
        options = {"prefix": prefix, "timeout": 20, "lease": 50}
        async with AsyncRedisRateLimiter(redis_server.client(), SLOW, **options) as limiter:
            allowed = sum(await asyncio.gather(*[limiter.allow("ann") for _ in range(1200)]))
            while await limiter.allow("ann"):
                allowed += 1
            return allowed

    assert in_a_loop(main()) == 1000


def test_a_request_that_fails_leaves_no_lease(redis_server, prefix):
    """Another one can be asked for after a task that waited for one was cancelled."""

    async def main():
        options = {"prefix": prefix, "timeout": 20, "lease": 50}
        async with AsyncRedisRateLimiter(redis_server.client(), SLOW, **options) as limiter:
            task = asyncio.create_task(limiter.allow("ann"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert await limiter.allow("ann")
            calls = limiter.counters().calls
            assert await limiter.allow("ann")
            assert limiter.counters().calls == calls

    in_a_loop(main())


CAN_FORK = "fork" in multiprocessing.get_all_start_methods()
FORKS = pytest.mark.skipif(not CAN_FORK, reason="there is no fork here")


@FORKS
@pytest.mark.parametrize(("lease", "at_once"), [(0, 100), (100, 1), (0, 1)])
def test_eight_processes_on_two_hosts_admit_exactly_the_burst(
    redis_server, prefix, tmp_path, lease, at_once, exhaustive
):
    """Over 200,000 requests; 4,000 where each of them is a round trip, unless it is exhaustive."""
    requests = 25_000 if exhaustive or lease or at_once > 1 else 500
    burst = requests * 8 // at_once // 2
    rate = Rate(burst, 10**9)
    workers = Workers(redis_server.port, prefix, rate, lease, requests, 600, tmp_path, 8, at_once)
    assert workers.wait() == [0] * 8
    admitted = sum(workers.counts())
    with RedisRateLimiter(redis_server.client(), rate, prefix=prefix, timeout=20) as limiter:
        returned = sum([limiter.allow(0) for _ in range(8 * lease + 1)])
    assert admitted + returned == burst * at_once
    assert returned <= 8 * lease, "what is given back last may find nobody who asks"


@FORKS
def test_processes_that_are_killed_stay_within_the_bound(redis_server, prefix, tmp_path, exhaustive):
    """In t seconds at most burst + rate * (t + lease_ttl) pass, and each kill strands at most a lease."""
    count, seconds, lease = (50, 20, 20) if exhaustive else (6, 1, 20)
    rate, chance = Rate(400, 1), random.Random(5)
    victims = chance.sample(range(count), count // 2)
    start = time.monotonic()
    workers = Workers(redis_server.port, prefix, rate, lease, 10**9, seconds, tmp_path, count)
    for victim in victims:
        time.sleep(chance.random() * seconds / count)
        workers.kill(victim)
    codes = workers.wait()
    elapsed = time.monotonic() - start
    admitted = sum(workers.counts())
    assert [codes[index] for index in range(count) if index not in victims] == [0] * (count - len(victims))
    assert admitted <= rate.burst + rate.limit * (elapsed + TTL)
    assert admitted >= rate.burst - len(victims) * (lease + 1)
