"""Idle times of any length: a debt ends when its time is over, with or without requests in between.

The times of most tables wrap around. So these schedules make requests now and then, at times that lie all
over the circle: lines are swept early, late or not at all before the next requests for the keys in them.
"""

from itertools import combinations

import pytest
from clocks import FakeClock

from headgate import AddressLimiter, ConcurrencyLimiter, RateLimits, Throttle
from headgate.limit._rate import checked_rates
from headgate.limit._tables import checked_windows, scale_of, tables_of

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9
YEAR = 365 * 86400 * SECOND
USERS = [f"u{number}" for number in range(24)]
PARTS = (1, 3, 5, 7, 8, 9, 10, 11, 13, 16)  # sixteenths of a circle
KINDS = {
    "one tier": ("1/s", {}),
    "two tiers": ("1/s; 20/min", {}),
    "fine units": ("1000000/s, burst 1", {}),
    "coarse units": ("1/h", {}),
    "full": ("1/s", {"on_full": "deny"}),
    "shared": ("1/s", {"path": "limit"}),
    "strict": ("1/s", {"strict": True, "on_full": "deny"}),
    "strict and shared": ("1/s", {"strict": True, "on_full": "deny", "path": "limit"}),
}


def circle_of(rate, strict=False, **_):
    """In how many nanoseconds the times of a limiter's first table wrap around."""
    rates = checked_rates(rate, None)
    _, multiplier, shift, _ = scale_of(tables_of(rates, checked_windows(rates) if strict else ())[0])
    return (2**40 << shift) // multiplier


@pytest.fixture(params=KINDS)
def idle(request, twin, tmp_path):
    """A limiter of each kind, its clock, and in how many nanoseconds its times wrap around."""
    rate, options = KINDS[request.param]
    clock = FakeClock(0)
    path = {"path": tmp_path / "limit"} if "path" in options else {}
    limiter = twin.keyed.RateLimiter(rate, max_keys=256, clock=clock, **options | path)
    return limiter, clock, circle_of(rate, **options)


def test_keys_that_were_idle_are_free(idle):
    limiter, clock, circle = idle
    for parts in combinations(PARTS, 3):
        start = clock.now
        for part in parts:
            denied = [user for user in USERS if not limiter.allow(user)] if part == parts[0] else []
            assert denied == []
            clock.now = start + circle * part // 16
            assert limiter.allow("z")
        assert [user for user in USERS if not limiter.peek(user).allowed] == []
    limiter._check()
    assert limiter.evictions == 0


def test_keys_that_were_idle_for_years_are_free(idle):
    limiter, clock, _ = idle
    for years in (1, 2, 5, 10, 20, 30, 30):
        assert [user for user in USERS if not limiter.allow(user)] == []
        clock.now += years * YEAR
    assert [user for user in USERS if not limiter.peek(user).allowed] == []


@pytest.mark.parametrize("strict", [False, True])
def test_reconfigure_after_a_silence(twin, strict):
    """An idle key never waits, before and after the rate is changed."""
    clock = FakeClock(0)
    rates = ["1/s", "3/min", "1/s; 20/min"]
    limiter = twin.keyed.RateLimiter(rates[0], max_keys=256, strict=strict, clock=clock)
    for number, parts in enumerate(combinations(PARTS, 3)):
        start, circle = clock.now, circle_of(str(limiter.rates[0]), strict)
        assert [user for user in USERS if not limiter.allow(user)] == []
        for part in parts:
            clock.now = start + circle * part // 16 + 60 * SECOND
            limiter.allow("z")
        limiter.reconfigure(rates[number % 3])
        assert {limiter.peek(user).retry_after for user in USERS} == {0.0}
        assert {limiter.peek(user).reset_after for user in USERS} == {0.0}
    limiter._check()


@pytest.mark.parametrize("part", range(1, 9))
def test_a_debt_that_was_carried_over_outlasts_a_silence(twin, part):
    """It may be 32 bursts and more after a change of rate, and is kept until it is over."""
    clock = FakeClock(0)
    limiter = twin.keyed.RateLimiter("4000000000/s", clock=clock, max_keys=256)
    limiter.allow("ann", 4_000_000_000)
    limiter.reconfigure("1/day")
    owed = limiter.peek("ann").reset_after
    assert owed >= 32 * 86400
    clock.now = round(owed * part / 8 * SECOND)
    limiter.allow("z")
    assert limiter.peek("ann").reset_after == pytest.approx(owed * (1 - part / 8), abs=1)
    clock.now = round((owed + 1) * SECOND)
    assert limiter.peek("ann").reset_after == 0.0


@pytest.mark.usefixtures("limits_of_twin")
@pytest.mark.parametrize("years", [0.001, 1, 15])
def test_levels_and_addresses(years):
    clock = FakeClock(0)
    addresses = AddressLimiter("2/min", v4={32: 1, 24: 2}, max_keys=256, clock=clock)
    limits = RateLimits(ip=addresses, user="5/s; 2/min", max_keys=256, clock=clock)
    limits.override("user", "ann", "2/h")
    for _ in range(9):
        assert [limits.allow(ip="192.0.2.1", user="ann") for _ in range(3)] == [True, True, False]
        clock.now += round(years * YEAR) // 3
        assert limits.allow(ip="192.0.2.1", user="bob")
        clock.now += round(years * YEAR) // 3
    limits._check()


@pytest.mark.parametrize("path", [None, "bucket"])
@pytest.mark.parametrize("rate", [0.001, 1, 10**9])
def test_buckets(twin, tmp_path, path, rate):
    clock = FakeClock(0)
    bucket = twin.bucket.TokenBucket(5, rate, clock=clock, path=path and tmp_path / path)
    for years in (0.001, 1, 2, 5, 10, 20, 30, 30):
        assert [bucket.consume(5), bucket.consume(5)] == [True, False]
        bucket.reserve(5).cancel()
        clock.now += round(years * YEAR)
        assert bucket.available == 5
        bucket._check()


@pytest.mark.parametrize("path", [None, "permits"])
def test_ledgers(tmp_path, path):
    clock = FakeClock(0)
    limiter = ConcurrencyLimiter(2, algorithm="fixed", clock=clock, path=path and tmp_path / path)
    for years in (0.001, 1, 10, 30, 100):
        first, second, third = (limiter.acquire() for _ in range(3))
        assert [bool(first), bool(second), bool(third)] == [True, True, False]
        clock.now += round(years * YEAR)
        first.release()
        second.release()
        assert limiter.inflight == 0


def test_throttles():
    clock = FakeClock(0)
    throttle = Throttle(clock=clock)
    for years in (0.001, 1, 10, 30, 100):
        while throttle.allow():
            pass
        clock.now += round(years * YEAR)
        assert throttle.rejection_probability == 0.0


@pytest.mark.parametrize("years", [0.001, 1, 10, 30, 100])
def test_the_timer_wheel(twin, years):
    """Entries are there until their time has come, and not a nanosecond longer."""
    clock = FakeClock(0)
    cache = twin.cache.LRUCache(1000, clock=clock)
    ends = [round(years * YEAR * part / 64) + part % 3 for part in range(1, 65)]
    for end in ends:
        cache.put(end, end, ttl=end / SECOND)
    due = sorted(cache, key=ends.index)
    for at in range(0, 64, 7):
        clock.now = round(years * YEAR * at / 64) + 1000
        assert sorted(cache) == [end for end in due if end > clock.now]
        cache._check()
