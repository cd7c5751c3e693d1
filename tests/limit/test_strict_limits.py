"""Limits that hold in every window: what is allowed, returned and refused, and what a full table does."""

import random
import sys
from pathlib import Path

import pytest
from threads import run_threads
from twins import Twin
from virtual_time import run_on

from headgate import Rate, RateLimits

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9


@pytest.fixture
def make(twin, clock):
    def make(rate, **options):
        return twin.keyed.RateLimiter(rate, strict=True, **{"max_keys": 100, "clock": clock, **options})
    return make


# windows


def test_all_of_a_window_may_come_at_once_and_then_nothing_until_its_end(make, clock):
    limiter = make("3/10s")
    assert [limiter.allow("ann") for _ in range(4)] == [True, True, True, False]
    clock.now += 10 * SECOND - 1
    assert not limiter.allow("ann")
    clock.now += 1
    assert [limiter.allow("ann") for _ in range(4)] == [True, True, True, False]
    limiter._check()


def test_entries_leave_the_window_one_by_one(make, clock):
    limiter = make("3/10s")
    for _ in range(3):
        assert limiter.allow("ann")
        clock.advance(1)
    for _ in range(9):
        clock.advance(7)
        assert [limiter.allow("ann"), limiter.allow("ann")] == [True, False]
        for _ in range(2):
            clock.advance(1)
            assert [limiter.allow("ann"), limiter.allow("ann")] == [True, False]
        clock.advance(1)


@pytest.mark.parametrize("rate", ["7/s", "20/min", "1/s; 5/10s; 10/min", "50/ms"])
def test_no_window_ever_has_more_than_the_limit(make, clock, rate):
    limiter, chance, passed = make(rate), random.Random(3), []
    span = round(limiter.rates[-1].period * SECOND)
    for _ in range(1500):
        clock.now += round(chance.expovariate(2 * limiter.rates[-1].limit / span))
        if limiter.allow("ann"):
            passed.append(clock.now)
    for limit, period, _ in limiter.rates:
        for first, beyond in zip(passed, passed[limit:], strict=False):
            assert beyond - first >= round(period * SECOND)
    assert len(passed) > limiter.rates[-1].limit * 5


def test_the_default_lets_twice_the_limit_through_where_strict_does_not(twin, make, clock):
    loose, strict = twin.keyed.RateLimiter("100/min", max_keys=100, clock=clock), make("100/min")
    counts = [0, 0]
    for _ in range(6000):
        for which, limiter in enumerate((loose, strict)):
            counts[which] += limiter.allow("ann")
        clock.now += SECOND // 100
    assert counts == [199, 100]


def test_every_tier_must_have_room_and_a_denial_takes_nothing(make, clock):
    limiter = make("2/s; 3/10s")
    assert [limiter.allow("ann") for _ in range(3)] == [True, True, False]
    clock.advance(1)
    assert [limiter.allow("ann") for _ in range(3)] == [True, False, False]
    assert limiter.decide("ann").policy == "3/10s"
    clock.advance(9)
    assert [limiter.allow("ann") for _ in range(3)] == [True, True, False]


def test_keys_have_logs_of_their_own(make):
    limiter = make("2/s")
    assert [limiter.allow(key) for key in ("ann", b"ann", 7, "ann", 7, "ann", 7)] == [
        True, True, True, True, True, False, False]


def test_a_cost_takes_as_many_places(make, clock):
    limiter = make("5/10s; 100/min")
    assert [limiter.allow("ann", cost) for cost in (3, 3, 2.0, 1, 0)] == [True, False, True, False, True]
    clock.advance(10)
    assert [limiter.allow("ann", 5), limiter.allow("ann")] == [True, False]


def test_large_logs_and_large_costs(make, clock):
    limiter = make("10000/min", max_keys=1)
    assert limiter.allow("ann", 9000)
    clock.advance(1)
    assert [limiter.allow("ann", 1001), limiter.allow("ann", 1000)] == [False, True]
    assert limiter.peek("ann", 9500).retry_after == 60
    assert limiter.peek("ann", 9000).retry_after == 59
    clock.advance(59)
    assert limiter.peek("ann").remaining == 9000
    limiter._check()


# decisions


def test_decisions(make, clock):
    limiter = make("2/10s; 10/min")
    assert limiter.decide("ann") == (True, 2, 1.0, 0.0, 10.0, "2/10s")
    clock.advance(4)
    assert limiter.peek("ann") == (True, 2, 1.0, 0.0, 6.0, "2/10s")
    assert limiter.decide("ann") == (True, 2, 0.0, 0.0, 10.0, "2/10s")
    assert limiter.decide("ann") == (False, 2, 0.0, 6.0, 10.0, "2/10s")
    assert limiter.peek("ann", 2).retry_after == 10.0
    assert limiter.peek("ann").headers()["Retry-After"] == "6"
    assert limiter.peek("bob") == (True, 2, 2.0, 0.0, 0.0, "2/10s")


def test_a_client_that_waits_for_retry_after_is_allowed_and_not_before(make, clock):
    limiter, chance = make("3/s; 7/10s; 20/min"), random.Random(5)
    for _ in range(300):
        cost = chance.randint(1, 3)
        wait = round(limiter.decide("ann", cost).retry_after * SECOND)
        if wait:
            clock.now += wait - 1
            assert not limiter.allow("ann", cost)
            clock.now += 1
            assert limiter.allow("ann", cost)
        clock.now += chance.randint(0, SECOND)


def test_a_refund_drops_the_oldest_entry_so_that_no_window_overflows(make, clock):
    limiter = make("2/10s")
    limiter.allow("ann")
    clock.advance(5)
    limiter.allow("ann")
    limiter.refund("ann")
    assert limiter.peek("ann") == (True, 2, 1.0, 0.0, 10.0, "2/10s")
    limiter.refund("ann", 7)
    assert limiter.peek("ann").remaining == 2
    assert limiter.allow("ann", 2)
    limiter.reset("ann")
    assert limiter.allow("ann", 2)
    limiter.reset("never seen")
    limiter._check()


# clocks


def test_a_clock_that_steps_back_admits_no_more_and_heals_within_a_window(make, clock):
    limiter = make("2/10s")
    assert limiter.allow("ann", 2)
    for step in (5, 3600, 10**6):
        clock.advance(-step)
        assert not limiter.allow("ann")
        clock.now += 10 * SECOND - 1
        assert not limiter.allow("ann")
        clock.now += 1
        assert limiter.allow("ann", 2)
    limiter._check()


def test_a_reading_that_others_have_overtaken_is_not_the_clock(make, clock):
    readings = []
    limiter = make("2/10s", clock=lambda: readings.pop() if readings else clock.now)
    clock.advance(100)
    assert limiter.allow("ann")
    readings.append(clock.now - 60 * SECOND)
    assert [limiter.allow("ann"), limiter.allow("ann")] == [True, False]
    assert limiter.peek("ann").retry_after == 10


# a full table


def fill(limiter, count):
    for key in range(count):
        limiter.allow(f"junk:{key}")


def test_where_all_cells_are_in_use_the_oldest_is_evicted(make, clock):
    limiter = make("2/min", max_keys=1)
    for key in range(8):
        clock.advance(1)
        assert limiter.allow(key, 2)
    clock.advance(1)
    assert limiter.peek("new").remaining == 2
    assert limiter.decide("new") == (True, 2, 1.0, 0.0, 60.0, "2/min")
    assert limiter.evictions == 1
    assert not limiter.allow("new"), "it has taken over what the other owed"
    assert not limiter.peek(7, 2)
    assert limiter.peek(0).remaining == 2, "the oldest was evicted"
    limiter._check()


def test_or_the_new_key_is_denied(make, clock):
    limiter = make("2/min", max_keys=1, on_full="deny")
    for key in range(8):
        assert limiter.allow(key)
        clock.advance(1)
    denied = limiter.decide("new")
    assert (denied.allowed, denied.remaining, denied.policy) == (False, 0.0, "2/min")
    assert 52 <= denied.retry_after < 52.0001
    assert limiter.evictions == 0
    clock.now += round(denied.retry_after * SECOND) + 1
    assert limiter.allow("new", 2)


def test_a_flood_of_junk_gets_one_request_an_eviction(make):
    limiter = make("5/h", max_keys=200, clock=lambda: 0)
    passed = 0
    for turn in range(2000):
        passed += limiter.allow("ann")
        limiter.allow(f"junk:{turn}")
    assert passed <= 5 + limiter.evictions
    limiter._check()


# reconfiguration


def test_logs_are_kept_for_other_windows(make, clock):
    limiter = make("3/10s")
    limiter.allow("ann", 3)
    clock.advance(5)
    limiter.reconfigure("5/min; 4/10s")
    assert limiter.decide("ann") == (True, 4, 0.0, 0.0, 10.0, "4/10s")
    limiter.reconfigure("1/s")
    assert not limiter.allow("ann")
    clock.advance(1)
    assert [limiter.allow("ann"), limiter.allow("ann")] == [True, False]
    assert limiter.rates == (Rate(1, 1),)
    limiter._check()


# what is refused


@pytest.mark.parametrize(("rate", "message"), [
    ("0.5/s", "rate must have a whole limit with strict=True, got '0.5/s'"),
    (Rate(2, 1, burst=4), "burst must be the limit with strict=True, got '2/s, burst 4'"),
    ("2000000/s", "rate must have a limit of at most 1048576 with strict=True, got '2000000/s'"),
    (Rate(1, 2**32), "rate must have a period of at most 2147483648 s with strict=True, got '1/4294967296s'"),
])
def test_rates_that_no_log_can_hold(make, rate, message):
    with pytest.raises(ValueError) as caught:
        make(rate)
    assert str(caught.value) == message
    limiter = make("1/s")
    with pytest.raises(ValueError) as caught:
        limiter.reconfigure(rate)
    assert str(caught.value) == message
    assert limiter.allow("ann")


@pytest.fixture
def little_memory():
    """The process may grow by a GiB."""
    if sys.platform != "linux":
        pytest.skip("the limit of memory is that of Linux")
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.usefixtures("little_memory")
def test_more_memory_than_there_is(make, clock):
    with pytest.raises(MemoryError, match=r"^max_keys and the limits need more memory than there is$"):
        make("1000000/s", max_keys=2**32)
    limiter = make("1/s", max_keys=2**10)
    with pytest.raises(MemoryError, match=r"^max_keys and the limits need more memory than there is$"):
        limiter.reconfigure("1048576/s; 1/h")
    assert [limiter.allow("ann"), limiter.allow("ann")] == [True, False]


def test_costs_are_whole_and_at_most_the_limit(make):
    limiter = make("3/s; 2/min")
    with pytest.raises(ValueError, match=r"^cost must be whole with strict=True, got 0\.5$"):
        limiter.allow("ann", 0.5)
    with pytest.raises(ValueError, match=r"^cost must be whole with strict=True, got 1\.5$"):
        limiter.refund("ann", 1.5)
    with pytest.raises(ValueError, match=r"^cost must be at most the burst 2, got 3$"):
        limiter.decide("ann", 3)
    assert limiter.peek("ann").remaining == 2


# waiting, levels, threads


def test_waiting(make, clock):
    limiter, start = make("20/50ms"), clock.now
    assert limiter.acquire("ann", 20)
    assert not limiter.acquire("ann", timeout=0)
    assert run_on(clock, limiter.acquire_async("ann", 20, timeout=10))
    assert clock.now - start == SECOND // 20


def test_a_strict_level(twin, make, clock):
    limits = RateLimits(ip="10/s", user=make("2/min"), clock=clock)
    results = [limits.decide(ip="192.0.2.1", user="ann") for _ in range(3)]
    assert [result.allowed for result in results] == [True, True, False]
    assert results[2].policy == "user: 2/min"
    assert limits.peek(ip="192.0.2.1").remaining == 8


@pytest.mark.parametrize("rate", ["1000/h", "1000/h; 3000/day"])
def test_threads_are_admitted_what_one_would_be(twin, rate):
    limiter = twin.keyed.RateLimiter(rate, strict=True, max_keys=10, clock=lambda: 0)
    passed = [0] * 8

    def work(number):
        passed[number] = sum(limiter.allow("ann") for _ in range(200))

    run_threads(work)
    assert sum(passed) == 1000
    limiter._check()


def test_threads_that_reconfigure_meanwhile(twin):
    limiter = twin.keyed.RateLimiter("100/h", strict=True, max_keys=10, clock=lambda: 0)
    passed = [0] * 4

    def work(number):
        for turn in range(100):
            if number == 0:
                limiter.reconfigure("100/h; 200/day" if turn % 2 else "100/day")
            else:
                passed[number] += limiter.allow("ann")
                assert limiter.decide("bob", 0)

    run_threads(work, count=4)
    assert sum(passed) == 100
    limiter._check()


def test_a_pure_take_that_is_cut_short_costs_what_it_was_about_to_take(clock):
    """A process that is killed may have written entries, but neither the start of the ring nor its head."""
    limiter = Twin("pure").keyed.RateLimiter("5/10s", strict=True, max_keys=1, clock=clock)
    assert limiter.allow("ann", 2)
    clock.advance(1)
    (table,) = limiter._tiers
    at = next(at for at, tag in enumerate(table.tags) if tag)
    for number in range(2):
        table.logs[table.slot(at, number)] = clock.now - table.epoch + 2**63
    assert limiter.peek("ann").remaining == 1
    assert [limiter.allow("ann"), limiter.allow("ann")] == [True, False]
    clock.advance(9)
    assert limiter.peek("ann").remaining == 2
    clock.advance(1)
    assert limiter.allow("ann", 5)
    limiter._check()


def test_a_clock_that_was_far_back_for_a_while(make, clock):
    """Far back, the table counts from then on; what it has logged holds again when the clock is right."""
    limiter = make("2/s; 3/10s", max_keys=8)
    assert limiter.allow("ann", 2)
    for step in (-2000 * SECOND, 11 * SECOND, 1989 * SECOND):
        clock.now += step
        limiter._check()
        assert limiter.allow("bob")
        limiter._check()
    assert not limiter.allow("ann")
    clock.now += 10 * SECOND
    assert limiter.allow("ann", 2)
    limiter._check()
