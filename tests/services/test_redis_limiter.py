"""RedisRateLimiter and its asynchronous form against a real server."""

import asyncio
import gc
import random
import subprocess
import sys
import threading
import weakref
from fractions import Fraction
from math import ceil, inf

import pytest
import redis
import redis.asyncio
import valkey
from redis_forms import Synchronous
from redis_servers import RedisServer, ServerTime, server_program
from servers import Port, program
from watchdog import in_a_loop, in_threads, until

from headgate import Rate, RateLimiter, RateLimits
from headgate.adapters.redis import AsyncRedisRateLimiter, RedisRateLimiter, RedisRateLimits
from headgate.errors import StoreError

MICROSECONDS = 10**6


def synchronous(*args, **options):
    return Synchronous(AsyncRedisRateLimiter(*args, **options))


FORMS = {"sync": RedisRateLimiter, "async": synchronous}


@pytest.fixture(params=FORMS)
def make(request, redis_server, prefix):
    """Makes limiters of either form on the shared server; they are closed after the test."""
    made = []

    def limiter(rate, client=None, **options):
        options.setdefault("timeout", 20)
        options.setdefault("prefix", prefix)
        made.append(FORMS[request.param](client or redis_server.client(), rate, **options))
        return made[-1]

    yield limiter
    for each in made:
        each.close()


@pytest.fixture
def time(redis_server, monkeypatch):
    return ServerTime(redis_server.client(), monkeypatch)


class Model:
    """The same limits in exact rational numbers."""

    def __init__(self, rates):
        self.tiers = []
        for limit, period, burst in rates:
            interval = Fraction(str(period)) * MICROSECONDS / Fraction(str(limit))
            self.tiers.append((interval, self.rounded_down(interval, Fraction(str(burst)) * interval)))
        self.states = {}

    @staticmethod
    def rounded_down(interval, time):
        return Fraction(time.numerator * interval.denominator // time.denominator, interval.denominator)

    def costs(self, cost):
        """The cost at each tier, in microseconds, rounded up to what its interval is counted in."""
        return [-self.rounded_down(interval, -Fraction(str(cost)) * interval) for interval, _ in self.tiers]

    def debts(self, key, now):
        at, ends = self.states.get(key, (now, [Fraction(now)] * len(self.tiers)))
        base = max(at, now)
        return [max(Fraction(0), end - base) for end in ends], base

    def store(self, key, now, debts):
        self.states[key] = now, [now + debt for debt in debts]

    def decide(self, key, now, cost, taken=True):
        debts, base = self.debts(key, now)
        costs = self.costs(cost)
        after = [debt + more for debt, more in zip(debts, costs, strict=True)]
        missing = [end - most if cost else 0 for end, (_, most) in zip(after, self.tiers, strict=True)]
        allowed = max(missing) <= 0
        if allowed and taken and cost:
            debts = after
            self.store(key, now, debts)
        elif taken and base > now:
            self.store(key, now, debts)
        tiers = zip(debts, self.tiers, strict=True)
        remaining = [(most - debt) / interval for debt, (interval, most) in tiers]
        if allowed:
            return True, float(max(0, min(remaining))), 0.0
        return False, None, ceil(max(missing)) / MICROSECONDS

    def refund(self, key, now, cost):
        debts, _ = self.debts(key, now)
        if key in self.states:
            both = zip(debts, self.costs(cost), strict=True)
            self.store(key, now, [max(0, debt - back) for debt, back in both])

    def settle(self, key, now, reserved_at, cost, actual):
        debts, _ = self.debts(key, now)
        if actual > cost:
            more = self.costs(actual - cost)
            tiers = zip(debts, more, self.tiers, strict=True)
            self.store(key, now, [max(debt, min(most, debt + part)) for debt, part, (_, most) in tiers])
        elif actual < cost and key in self.states:
            taken, used = self.costs(cost), self.costs(actual)
            elapsed = max(0, now - reserved_at)
            back = [min(a - b, max(0, a - elapsed)) for a, b in zip(taken, used, strict=True)]
            self.store(key, now, [max(0, debt - part) for debt, part in zip(debts, back, strict=True)])


RATES = [
    [Rate(10, 1)],
    [Rate(3, 1), Rate(7, 10)],
    [Rate(1000, 7, burst=11), Rate(999_983, 3600, burst=20)],
    [Rate(0.1, 1, burst=3)],
    [Rate(7, 0.3, burst=2.5)],
    [Rate(10**6, 1), Rate(10**9, 60, burst=2000)],
]


def steps(chance, exhaustive):
    """What a test does, and how far the clock goes before it, in microseconds."""
    for _ in range(2500 if exhaustive else 150):
        jump = chance.choice([0, 0, 1, *[chance.randrange(most) for most in (1000, 10**6, 10**7)]])
        yield jump if chance.random() < 0.97 else -chance.randrange(3_600_000_000)


@pytest.mark.parametrize("rates", RATES, ids=lambda rates: "; ".join(map(str, rates)))
def test_same_decisions_as_exact_rational_arithmetic(make, time, rates, exhaustive):
    chance = random.Random(str(rates))
    limiter, model = make(rates), Model(rates)
    largest = min(rate.burst for rate in rates)
    open_reservations = []
    for jump in steps(chance, exhaustive):
        time.now += jump
        key = chance.choice("ab")
        cost = chance.choice([1, 1, 1, 2, largest, 0, 0.5, largest / 3])
        cost = min(cost, largest)
        action = chance.randrange(12)
        if action < 6:
            compare(limiter.decide(key, cost), model.decide(key, time.now, cost))
        elif action == 6:
            compare(limiter.peek(key, cost), model.decide(key, time.now, cost, taken=False))
        elif action == 7:
            requests = [(chance.choice("ab"), cost) for _ in range(3)]
            for (name, amount), decision in zip(requests, limiter.decide_many(requests), strict=True):
                compare(decision, model.decide(name, time.now, amount))
        elif action == 8:
            limiter.refund(key, cost)
            model.refund(key, time.now, cost)
        elif action == 9:
            reservation = limiter.reserve(key, cost)
            compare(reservation.decision, model.decide(key, time.now, cost))
            if reservation:
                open_reservations.append((reservation, key, time.now, cost))
        elif action == 10 and open_reservations:
            reservation, name, reserved_at, taken = open_reservations.pop(0)
            actual = chance.choice([0, taken, taken / 2, taken * 2])
            reservation.settle(actual)
            if actual != taken:
                model.settle(name, time.now, reserved_at, taken, actual)
        elif action == 11 and chance.random() < 0.2:
            limiter.reset(key)
            model.states.pop(key, None)


def compare(decision, expected):
    allowed, remaining, wait = expected
    assert decision.allowed is allowed
    assert decision.retry_after == wait
    if allowed:
        assert decision.remaining == pytest.approx(remaining, rel=1e-12, abs=1e-9)


def test_same_decisions_as_the_local_limiter(make, time):
    """Where an interval is whole microseconds and the clock does not step back."""
    chance = random.Random(1)
    rates = "8/s; 40/min, burst 9; 1/3s, burst 11"
    shared, local = make(rates), RateLimiter(rates, clock=lambda: time.now * 1000)
    for _ in range(600):
        time.now += chance.choice([0, 1, chance.randrange(10**6), 125_000, 1_500_000])
        key, cost = chance.choice("ab"), chance.choice([1, 1, 2, 8, 0])
        method = chance.choice(["decide", "decide", "peek", "refund"])
        here, there = getattr(local, method)(key, cost), getattr(shared, method)(key, cost)
        if method == "refund":
            continue
        assert there.allowed is here.allowed
        assert there.policy == here.policy
        assert there.violated == here.violated
        assert there.retry_after == pytest.approx(here.retry_after, abs=1.1e-6)
        assert there.remaining == pytest.approx(here.remaining, abs=1e-6)
        assert there.reset_after == pytest.approx(here.reset_after, abs=1.1e-6)


def test_same_decisions_as_the_local_strict_limiter(make, time):
    chance = random.Random(2)
    rates = "5/s; 20/min"
    shared = make(rates, strict=True)
    local = RateLimiter(rates, strict=True, max_keys=100, clock=lambda: time.now * 1000)
    for _ in range(600):
        time.now += chance.choice([0, 1, chance.randrange(10**6), 250_000, 3_000_000])
        key, cost = chance.choice("ab"), chance.choice([1, 1, 2, 5, 0])
        method = chance.choice(["decide", "decide", "decide", "peek", "refund", "settle"])
        if method == "settle":
            both = [limiter.reserve(key, cost) for limiter in (local, shared)]
            time.now += chance.randrange(100_000)
            actual = chance.choice([0, 1, cost, 5])
            for reservation in both:
                if reservation:
                    reservation.settle(actual)
            continue
        here, there = getattr(local, method)(key, cost), getattr(shared, method)(key, cost)
        if method != "refund":
            assert there[::5] == here[::5]
            assert there.remaining == here.remaining
            assert there.retry_after == pytest.approx(here.retry_after, abs=1e-9)
            assert there.reset_after == pytest.approx(here.reset_after, abs=1e-9)
            assert there.violated == here.violated
            assert there.headers() == here.headers()


def test_other_rates_take_over_debts_in_tokens_rounded_up(make, time):
    """The new rate sees as many tokens taken as there were under the old one; at most a microsecond more."""
    chance = random.Random(3)
    for _ in range(60):
        old = Rate(chance.randrange(1, 10**6), chance.randrange(1, 10**4), burst=1000)
        new = Rate(chance.randrange(1, 10**6), chance.randrange(1, 10**4), burst=1000)
        before, after = make(old), make(new)
        key = chance.random().hex()
        taken = chance.randrange(1, 1000)
        assert before.allow(key, taken)
        interval = Fraction(new.period * MICROSECONDS, new.limit)
        left = after.peek(key).remaining
        assert left == pytest.approx(1000 - taken, abs=float(2 / interval) + 1e-9)
        assert left <= 1000 - taken + 1e-9
        assert after.allow(key, 0.001)
        assert before.peek(key).remaining == pytest.approx(1000 - taken, abs=0.01 + float(4 / interval))


@pytest.mark.parametrize("options", [{}, {"lease": 5}], ids=["plain", "lease"])
def test_a_key_without_tokens_is_refilled_at_other_rates_at_once(make, time, options):
    """Its denials under the other rates take over what it owes: no token of the old rate is waited for."""
    limiter = make("10/h", **options)
    assert sum([limiter.allow("ann") for _ in range(12)]) == 10
    limiter.reconfigure("10/s")
    assert limiter.peek("ann").retry_after == 0.100001
    assert not limiter.allow("ann")
    time.now += MICROSECONDS // 10 + 1
    assert make("10/s").allow("ann")
    assert not make("10/s").allow("ann")


def test_levels_without_tokens_are_refilled_at_other_rates_at_once(redis_server, prefix, time):
    with RedisRateLimits(redis_server.client(), ip="10/h", user="9/h", prefix=prefix, timeout=20) as limits:
        assert sum([limits.allow(ip=1, user=2) for _ in range(12)]) == 9
        limits.reconfigure(user="9/9s")
        assert limits.decide(ip=1, user=2).retry_after == 1.000001
        time.now += MICROSECONDS + 1
        assert limits.allow(ip=1, user=2)


def test_processes_with_other_rates_never_forget_a_debt(make, time):
    """While a new version is rolled out, both rates hold, and a tier that only one has is kept."""
    small, large = make("2/s"), make("100/min; 3/h")
    assert [large.allow("ann") for _ in range(4)] == [True, True, True, False]
    time.now += 2 * MICROSECONDS
    assert small.allow("ann")
    assert not large.allow("ann")
    assert large.peek("ann").policy == "3/h"


def test_a_clock_that_steps_back_keeps_debts_to_a_burst(make, time):
    limiter = make("10/s")
    for _ in range(10):
        assert limiter.allow("ann")
    time.now -= 3_600_000_000
    denial = limiter.decide("ann")
    assert not denial
    assert denial.retry_after == 0.1
    time.now += 100_000
    assert limiter.allow("ann")
    assert not limiter.allow("ann")


def test_a_strict_clock_that_steps_back_keeps_the_window(make, time):
    limiter = make("5/s", strict=True)
    assert limiter.allow("ann", 5)
    time.now -= 3_600_000_000
    assert limiter.peek("ann").retry_after == 1.0
    assert limiter.decide("ann").retry_after == 1.0
    time.now += 999_999
    assert not limiter.allow("ann")
    time.now += 1
    assert limiter.allow("ann", 5)


@pytest.mark.parametrize("options", [{"rate": "10/s, burst 100"}, {"rate": "100/10s", "strict": True}],
                         ids=["tiers", "strict"])
@pytest.mark.parametrize("back", [0, 5, 3600])
def test_a_reservation_across_a_step_back_gives_back_its_cost_at_most(make, time, options, back):
    """min(its cost, rate * the step), if strict its cost; nothing if the clock has not stepped."""
    limiter = make(**options)
    reservation = limiter.reserve("ann", 50)
    for _ in range(13):
        while limiter.allow("ann"):
            pass
        time.now += MICROSECONDS
    time.now -= back * MICROSECONDS
    while limiter.allow("ann"):
        pass
    reservation.cancel()
    most = back * (100 if "strict" in options else 10)
    assert sum([limiter.allow("ann") for _ in range(101)]) <= min(50, most)


def test_a_denial_changes_nothing(make, redis_server, prefix):
    limiter, client = make("5/min; 100/h"), redis_server.client()
    assert limiter.allow("ann", 5)
    (key,) = client.keys(f"{prefix}:*")
    before = client.get(key)
    assert not limiter.allow("ann")
    assert limiter.peek("ann").violated == ("5/min",)
    assert client.get(key) == before


@pytest.mark.parametrize("strict", [False, True])
def test_keys_expire_when_nothing_is_owed(make, redis_server, prefix, strict):
    limiter, client = make("10/min", strict=strict), redis_server.client()
    assert limiter.allow("ann", 5)
    (key,) = client.keys(f"{prefix}:*")
    assert 0 < client.pttl(key) <= (60_002 if strict else 30_002)


def test_all_tiers_of_a_key_are_one_value_of_known_size(make, redis_server, prefix):
    limiter, client = make("5/min; 100/h"), redis_server.client()
    assert limiter.allow("ann")
    (key,) = client.keys(f"{prefix}:*")
    assert client.strlen(key) == 9 + 2 * 32
    assert client.get(key)[0] == 1
    assert len(key) == len(prefix) + len(":{}") + 32


def test_an_entry_of_a_strict_key_takes_about_ten_bytes(make, redis_server, prefix):
    limiter, client = make("10000/h", strict=True), redis_server.client()
    assert limiter.allow("ann", 10_000)
    (key,) = client.keys(f"{prefix}:*")
    assert client.llen(key) == 10_000
    assert client.memory_usage(key, samples=0) < 10.7 * 10_000
    assert not limiter.allow("ann")


def test_a_value_of_another_version_is_an_error(make, redis_server, prefix):
    limiter, client = make("5/min"), redis_server.client()
    assert limiter.allow("ann")
    (key,) = client.keys(f"{prefix}:*")
    client.set(key, b"\2" + client.get(key)[1:])
    with pytest.raises(StoreError, match="another version") as caught:
        limiter.allow("ann")
    assert isinstance(caught.value.__cause__, redis.ResponseError)


def test_keys_of_different_types_are_different(make):
    limiter = make("1/h")
    assert [limiter.allow(key) for key in ("7", b"7", 7, "7", b"7", 7)] == [True] * 3 + [False] * 3


def test_decide_many_keeps_order_and_charges_each_whole(make):
    limiter = make("10/h")
    requests = [("a", 6), ("b", 10), ("a", 6), ("a", 4), *[(number, 1) for number in range(300)], ("b", 1)]
    decisions = limiter.decide_many(requests)
    assert [bool(decision) for decision in decisions[:4]] == [True, True, False, True]
    assert [decision.remaining for decision in decisions[4:-1]] == [9.0] * 300
    assert not decisions[-1]
    assert limiter.decide_many([]) == []
    assert limiter.counters().calls == 1


def test_decide_many_takes_nothing_if_a_request_is_bad(make):
    limiter = make("10/h")
    for bad in [("b", 11), ("b", -1), (None, 1), ("b",), 7]:
        with pytest.raises((TypeError, ValueError)):
            limiter.decide_many([("a", 1), bad])
    assert limiter.peek("a").remaining == 10


def test_acquire_waits_and_refunds_wake(make):
    limiter = make("20/s, burst 1")
    assert [limiter.acquire("ann") for _ in range(3)] == [True] * 3
    slow = make("1/h", prefix="waits")
    slow.reset("ann")
    assert slow.acquire("ann", timeout=0)
    assert not slow.acquire("ann", timeout=0)
    assert not slow.acquire("ann", timeout=0.02)


def test_a_refund_wakes_a_thread_that_waits(redis_server, prefix):
    with RedisRateLimiter(redis_server.client(), "1/h", prefix=prefix, timeout=20) as limiter:
        assert limiter.allow("ann")
        timer = threading.Timer(0.05, limiter.refund, ["ann"])
        timer.start()
        assert limiter.acquire("ann", timeout=30)
        timer.join()


def test_a_refund_wakes_a_task_that_waits(redis_server, prefix):
    async def main():
        client = redis.asyncio.Redis(port=redis_server.port)
        async with AsyncRedisRateLimiter(client, "1/h", prefix=prefix, timeout=20) as limiter:
            assert await limiter.allow("ann")
            waiting = asyncio.create_task(limiter.acquire("ann", timeout=30))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await limiter.refund("ann")
            assert await waiting
        await client.aclose()

    in_a_loop(main())


@pytest.mark.parametrize(("cost", "match"), [
    (6, "cost must be at most the burst 5, got 6"), (-1, "cost must be finite and non-negative, got -1"),
    (inf, "cost must be finite and non-negative, got inf"),
])
def test_bad_costs(make, cost, match):
    limiter = make("5/s")
    for method in ("allow", "decide", "peek", "reserve", "acquire"):
        with pytest.raises(ValueError, match=match):
            getattr(limiter, method)("ann", cost)
    with pytest.raises(ValueError, match=r"cost must be whole with strict=True, got 0\.5"):
        make("5/s", strict=True, prefix="strict").allow("ann", 0.5)


@pytest.mark.parametrize(("options", "error", "match"), [
    ({"rate": "x"}, ValueError, "rate must be like"),
    ({"rate": Rate(1, 2.0**40)}, ValueError, "rate must be countable in microseconds below"),
    ({"rate": "10001/s", "strict": True}, ValueError, "a limit of at most 10000 with strict=True"),
    ({"prefix": ""}, ValueError, "prefix must be 1 to 200 printable ASCII characters without spaces, got ''"),
    ({"prefix": "{}"}, ValueError, "prefix must have a whole hash tag or no braces, got '{}'"),
    ({"prefix": 7}, TypeError, "prefix must be a str, got 7"),
    ({"on_error": "pass"}, ValueError, "on_error must be one of"),
    ({"on_error": 7}, TypeError, "on_error must be one of"),
    ({"on_error": None}, TypeError, "on_error must be one of .*, got None"),
    ({"on_error": RateLimits(ip="1/s")}, TypeError, "or a local RateLimiter, got RateLimits"),
    ({"timeout": 0}, ValueError, "timeout must be positive and at most 3600, got 0"),
    ({"timeout": "x"}, TypeError, "timeout must be a number, got 'x'"),
    ({"lease": -1}, ValueError, r"lease must be in \[0, 10000\], got -1"),
    ({"lease": 5, "strict": True}, ValueError, "lease must be 0 with strict=True, got 5"),
    ({"lease_ttl": 0}, ValueError, "lease_ttl must be positive and at most 3600, got 0"),
    ({"client": 7}, TypeError, "client must be a client of redis or valkey, got 7"),
])
def test_bad_arguments(redis_server, options, error, match):
    options = dict(options)
    client, rate = options.pop("client", redis_server.client()), options.pop("rate", "5/s")
    for form in (RedisRateLimiter, AsyncRedisRateLimiter):
        with pytest.raises(error, match=match):
            form(client, rate, **options)


def test_a_limit_of_nothing(make):
    limiter = make("0/s")
    assert limiter.decide("ann").retry_after == inf
    assert limiter.decide("ann", 0)
    assert RateLimiter("0/s").decide("ann") == limiter.decide("ann")


def test_valkey_is_a_client_too(make, redis_server):
    client = valkey.Valkey(port=redis_server.port)
    assert make("1/h", client).allow("ann")
    client.close()


def test_settings_of_the_client_are_taken(make, redis_server, prefix):
    """Its database, its user and its name, not its timeouts."""
    admin = redis_server.client()
    admin.acl_setuser("gate", enabled=True, passwords=["+secret"], keys=["*"],
                      commands=["+evalsha", "+eval", "+time", "+get", "+set", "+del", "+select", "+client"])
    client = redis.Redis(port=redis_server.port, db=3, username="gate", password="secret", client_name="gate")
    assert make("1/h", client).allow("ann")
    assert [each["db"] for each in admin.client_list() if each["name"] == "gate"] == ["3"]
    with redis_server.client(db=3) as third:
        assert third.keys(f"{prefix}:*")
        third.flushdb()
    wrong = redis.Redis(port=redis_server.port, username="gate", password="wrong")
    with pytest.raises(StoreError, match="WRONGPASS"):
        make("1/h", wrong).allow("ann")


def test_the_documented_rules_of_access_suffice(make, redis_server):
    """Nothing but these commands on the keys of the limit; see docs/redis.md."""
    admin = redis_server.client()
    rules = "on >pw resetkeys ~narrow:* -@all +evalsha +eval +time +get +set +del"
    strict = "+lindex +llen +lrange +rpush +ltrim +pexpire"
    admin.execute_command("ACL", "SETUSER", "narrow", *rules.split(), *strict.split())
    client = redis.Redis(port=redis_server.port, username="narrow", password="pw")
    for options in ({}, {"lease": 3}, {"strict": True}):
        limiter = make("5/h", client, prefix=f"narrow:{'-'.join(options)}", **options)
        assert limiter.allow("ann")
        limiter.reserve("ann", 2).settle(1)
        limiter.refund("ann")
        limiter.reset("ann")
        assert all(limiter.decide_many([("ann", 1), ("bob", 1)]))


def test_it_is_a_level_of_local_limits(redis_server, prefix):
    with RedisRateLimiter(redis_server.client(), "3/h", prefix=prefix, timeout=20) as fleet:
        limits = RateLimits(ip="2/h", user=fleet)
        assert [limits.allow(ip=ip, user="ann") for ip in ("::1", "::1", "::1", "::2", "::2")] == [
            True, True, False, True, False
        ]
        assert fleet.peek("ann").remaining == pytest.approx(0, abs=0.1)
        assert limits.decide(ip="::3", user="ann").policy == "user: 3/h"
        reservation = limits.reserve(ip="::4", user="bob", cost=2)
        reservation.settle(1)
        assert limits.peek(user="bob").remaining == pytest.approx(2, abs=0.1)
        limits.reconfigure(user="5/h")
        assert limits.peek(user="bob").limit == 5
        with pytest.raises(TypeError, match="a level must not be asynchronous"):
            RateLimits(user=AsyncRedisRateLimiter(redis_server.client(), "3/h"))


def test_eight_threads_admit_exactly_the_burst(redis_server, prefix):
    with RedisRateLimiter(redis_server.client(), Rate(100, 10**6), prefix=prefix, timeout=20) as limiter:
        outcomes = in_threads(lambda: sum([limiter.allow("ann") for _ in range(50)]), 8)
        assert sum(outcomes) == 100


def test_concurrent_tasks_share_a_connection_and_admit_exactly_the_burst(redis_server, prefix):
    async def main():
        client = redis.asyncio.Redis(port=redis_server.port, client_name="crowd")
        async with AsyncRedisRateLimiter(client, Rate(100, 10**6), prefix=prefix, timeout=20) as limiter:
            allowed = await asyncio.gather(*[limiter.allow("ann") for _ in range(1000)])
            names = [each["name"] for each in redis_server.client().client_list()]
            assert names.count("crowd") == 1
            return sum(allowed)

    assert in_a_loop(main()) == 100


def test_nothing_leaks_after_cancelled_calls(redis_server, prefix, exhaustive):
    """Connections, tasks and what waits for a reply are as before."""

    async def main():
        client = redis.asyncio.Redis(port=redis_server.port, client_name="leaks")
        async with AsyncRedisRateLimiter(client, "1000000/s", prefix=prefix, timeout=20) as limiter:
            assert await limiter.allow("ann")
            count, chance = 10_000, random.Random(0)
            for _ in range(count // 500):
                tasks = [asyncio.create_task(limiter.allow("ann")) for _ in range(500)]
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            assert await limiter.allow("ann")
            (pipeline,) = limiter._store._pipelines._here().values()
            assert not pipeline._pending
            assert pipeline._timer is None
            assert len(asyncio.all_tasks()) == 1
            names = [each["name"] for each in redis_server.client().client_list()]
            assert names.count("leaks") == 1

    before = threading.active_count()
    in_a_loop(main())
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_loops_that_have_ended_are_forgotten(redis_server, prefix):
    """Those whose connections were not closed too."""

    def run_often():
        limiter = AsyncRedisRateLimiter(redis_server.client(), Rate(20, 10**6), prefix=prefix, timeout=20)

        async def main():
            return await limiter.allow("ann")

        assert all(asyncio.run(main()) for _ in range(5))
        return len(limiter._store._pipelines._loops)

    assert run_often() == 1
    gc.collect()


def test_a_loop_that_begins_while_another_one_does(redis_server, prefix):
    """A limiter goes through the loops that it knows although another thread adds one at any line."""
    limiter = AsyncRedisRateLimiter(redis_server.client(), "10/s", prefix=prefix)
    pipelines, added = limiter._store._pipelines, []

    async def here():
        return pipelines._here()

    def trace(frame, event, _):
        if frame.f_code.co_filename == weakref.__file__ and len(added) < 100:
            added.append(asyncio.new_event_loop())
            pipelines._loops[added[-1]] = None
        return trace

    first = in_a_loop(here())
    before = sys.gettrace()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        coroutine = here()
        sys.settrace(trace)
        try:
            second = loop.run_until_complete(coroutine)
        finally:
            sys.settrace(before)
    assert added
    assert second is not first
    for each in added:
        each.close()


def test_a_limiter_serves_several_loops_at_once(redis_server, prefix):
    limiter = AsyncRedisRateLimiter(redis_server.client(), Rate(20, 10**6), prefix=prefix, timeout=20)

    async def main():
        async with limiter:
            return sum(await asyncio.gather(*[limiter.allow("ann") for _ in range(10)]))

    assert sum(in_threads(lambda: asyncio.run(main()), 4)) == 20


@pytest.mark.parametrize("form", [RedisRateLimiter, AsyncRedisRateLimiter])
def test_repr_and_copies(redis_server, form):
    limiter = form(redis_server.client(), "5/s; 100/min", prefix="api")
    assert repr(limiter) == f"{form.__name__}('5/s; 100/min', prefix='api')"
    limiter.reconfigure("7/s")
    assert limiter.rates == (Rate(7, 1),)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        limiter.__reduce__()


def test_a_unix_socket(make, tmp_path, prefix):
    path = tmp_path / "socket"
    with RedisServer(tmp_path, "--unixsocket", str(path)):
        client = redis.Redis(unix_socket_path=str(path))
        assert make("1/h", client).allow("ann")
        assert not make("1/h", client).allow("ann")
        client.close()


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory):
    """A server that speaks only TLS, and the certificate that it and its clients trust."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file",
               str(certificate), "--tls-auth-clients", "no"]
    port = Port()
    with RedisServer(folder, *options, "--tls-port", str(port.number), path=server_program("system")):
        yield port.number, certificate
    port.release()


def test_tls_is_the_client_s(make, tls_server):
    port, certificate = tls_server
    client = redis.Redis(host="localhost", port=port, ssl=True, ssl_ca_certs=str(certificate))
    limiter = make("5/h", client)
    assert [limiter.allow("ann") for _ in range(6)] == [True] * 5 + [False]
    assert limiter.counters().failures == 0
    wrong = redis.Redis(host="localhost", port=port, ssl=True)
    with pytest.raises(StoreError, match="certificate verify failed"):
        make("5/h", wrong).allow("ann")
    with pytest.raises(ValueError, match="client must not validate OCSP"):
        make("5/h", redis.Redis(port=port, ssl=True, ssl_validate_ocsp=True))


def test_a_provider_of_credentials_is_asked_for_each_connection(make, redis_server):
    class Provider(redis.CredentialProvider):
        asked = 0

        def get_credentials(self):
            self.asked += 1
            return ("provided", "pw")

        async def get_credentials_async(self):
            return self.get_credentials()

    redis_server.client().execute_command("ACL", "SETUSER", "provided", "on", ">pw", "~*", "+@all")
    provider = Provider()
    limiter = make("5/h", redis.Redis(port=redis_server.port, credential_provider=provider))
    assert limiter.allow("ann")
    assert limiter.allow("ann")
    assert provider.asked == 1


def test_a_provider_of_credentials_that_fails_is_a_failure_of_the_store(make, redis_server):
    class Provider(redis.CredentialProvider):
        def get_credentials(self):
            raise KeyError("vault")

        async def get_credentials_async(self):
            return self.get_credentials()

    client = redis.Redis(port=redis_server.port, credential_provider=Provider())
    with pytest.raises(StoreError, match=r"no credentials: KeyError\('vault'\)"):
        make("5/h", client).allow("ann")
    assert make("5/h", client, on_error="allow").decide("ann").degraded


@pytest.mark.filterwarnings("error")
def test_a_limiter_that_is_dropped_closes_its_connections(redis_server, prefix):
    with redis.Redis(port=redis_server.port) as client:
        limiter = RedisRateLimiter(client, "2/s", prefix=prefix, timeout=20)
        assert limiter.allow("ann")
        connected = len(client.client_list())
        del limiter
        gc.collect()
        until(lambda: len(client.client_list()) < connected)
