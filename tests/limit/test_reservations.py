"""Reservations of all limits: settled with what was used, cancelled, denied, forgotten."""

import math
from fractions import Fraction
from functools import partial

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import run_threads
from twins import Twin, twin_names

from headgate import AddressLimiter, RateLimits

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9
KINDS = {
    "one tier": {},
    "shared": {"path": "limit"},
    "strict": {"strict": True, "max_keys": 8},
    "strict and shared": {"strict": True, "max_keys": 8, "path": "limit"},
}


@pytest.fixture(params=KINDS)
def make(request, twin, clock, tmp_path):
    def make(rate):
        options = dict(KINDS[request.param], max_keys=8, clock=clock)
        if "path" in options:
            options["path"] = tmp_path / options["path"]
        return twin.keyed.RateLimiter(rate, **options)
    return make


def left(limiter, key="ann"):
    return limiter.peek(key, 0).remaining


def test_what_was_not_used_comes_back(make):
    limiter = make("100/s; 1000/h")
    reservation = limiter.reserve("ann", 60)
    assert reservation
    assert (reservation.tokens, reservation.delay, reservation.decision.remaining) == (60, 0.0, 40.0)
    assert not limiter.allow("ann", 41)
    reservation.settle(10)
    assert left(limiter) == 90
    reservation.cancel()
    reservation.settle(0)
    assert left(limiter) == 90
    limiter.reserve("ann", 30)
    assert left(limiter) == 60
    limiter.reserve("ann", 5).cancel()
    limiter.reserve("ann", 5).settle(5)
    assert left(limiter) == 55
    limiter._check()


def test_what_was_used_beyond_is_owed_up_to_the_burst(make, clock):
    limiter = make("100/s; 1000/h")
    limiter.reserve("ann", 10).settle(40)
    assert left(limiter) == 60
    limiter.reserve("ann", 10).settle(5000)
    assert left(limiter) == 0
    limiter._check()
    clock.advance(4)
    assert limiter.allow("ann", 1)


def test_a_denied_reservation_took_nothing(make):
    limiter = make("10/h")
    limiter.reserve("ann", 9)
    denied = limiter.reserve("ann", 2)
    assert not denied
    assert denied.delay == denied.decision.retry_after > 0
    denied.settle(5)
    denied.cancel()
    assert left(limiter) == 1


def test_each_tier_is_charged_as_far_as_it_can(twin, clock):
    """What is beyond the burst of the first is charged at the second all the same."""
    limiter = twin.keyed.RateLimiter("10/s; 1000/h", clock=clock)
    limiter.reserve("ann", 10).settle(400)
    clock.advance(10)
    assert limiter.decide("ann", 10).policy == "10/s"
    for _ in range(59):
        clock.advance(1)
        assert limiter.allow("ann", 10)
    clock.advance(1)
    assert limiter.peek("ann", 10).remaining < 20


def test_what_came_back_by_itself_is_not_given_back(twin, clock):
    limiter = twin.keyed.RateLimiter("10/s", clock=clock)
    reservation = limiter.reserve("ann", 10)
    clock.advance(0.7)
    assert limiter.allow("ann", 7)
    reservation.cancel()
    assert left(limiter) == pytest.approx(3)
    late = limiter.reserve("bob", 10)
    clock.advance(1)
    assert limiter.allow("bob", 10)
    late.cancel()
    assert left(limiter, "bob") == 0


def test_a_strict_limit_gives_back_within_its_window_only(twin, clock):
    limiter = twin.keyed.RateLimiter("4/s", strict=True, max_keys=8, clock=clock)
    reservation = limiter.reserve("ann", 3)
    with pytest.raises(ValueError, match=r"^actual must be whole with strict=True, got 1.5$"):
        reservation.settle(1.5)
    clock.advance(1)
    assert limiter.allow("ann", 4)
    reservation.cancel()
    assert left(limiter) == 0


def test_buckets(twin, clock):
    bucket = twin.bucket.TokenBucket(10, 1, clock=clock)
    reservation = bucket.reserve(8)
    assert reservation.decision is None
    reservation.settle(2)
    assert bucket.available == 8
    bucket.reserve(2).settle(25)
    assert bucket.peek().retry_after == 5
    bucket.reserve(1).settle(1e300)
    assert bucket.peek().retry_after == 16
    bucket._check()


@pytest.mark.parametrize("actual", [-1, math.inf, math.nan])
def test_what_cannot_have_been_used(make, actual):
    reservation = make("10/s").reserve("ann", 3)
    with pytest.raises(ValueError, match=r"^actual must be finite and non-negative, got"):
        reservation.settle(actual)
    reservation.cancel()


@pytest.mark.usefixtures("limits_of_twin")
def test_levels_and_networks_are_settled_together(clock):
    addresses = AddressLimiter("20/s", v4={32: 1, 24: 2}, clock=clock)
    limits = RateLimits(ip=addresses, user="30/s", clock=clock)
    reservation = limits.reserve(ip="192.0.2.1", user="ann", cost=20)
    assert not limits.reserve(ip="192.0.2.1", user="bob")
    assert limits.peek(user="bob").remaining == 30
    reservation.settle(5)
    assert addresses.peek("192.0.2.1", 0).remaining == 15
    assert addresses.peek("192.0.2.9", 20).remaining == 20
    assert limits.peek(user="ann").remaining == 25
    assert not limits.reserve(user="ann", cost=26)
    assert limits.reserve(user=None)
    with pytest.raises(ValueError, match=r"^cost must be at most the burst 30, got 31$"):
        limits.reserve(user="ann", cost=31)


def test_what_joined_is_settled_together(make, twin, clock):
    users, routes = make("100/s"), twin.keyed.RateLimiter("50/s; 200/min", clock=clock)
    bucket = twin.bucket.TokenBucket(20, 1, clock=clock)
    request = users.reserve("ann", 10)
    route = routes.reserve("/search", 30)
    assert request.join(route)
    assert route.join(bucket.reserve(2))
    request.settle(4)
    assert (left(users), left(routes, "/search"), bucket.available) == (96, 46, 16)
    route.cancel()
    request.cancel()
    assert (left(users), left(routes, "/search"), bucket.available) == (96, 46, 16)
    assert request.join(routes.reserve("/search", 6))
    assert left(routes, "/search") == 40
    request.cancel()
    assert (left(users), left(routes, "/search")) == (96, 46)


def test_a_denial_at_a_later_limit_takes_nothing_at_the_earlier(make, twin, clock):
    users, routes = make("5/s"), twin.keyed.RateLimiter("1/s", clock=clock)
    assert routes.allow("/search")
    request = users.reserve("ann", 2)
    assert request.join(users.reserve("ann"))
    assert not request.join(routes.reserve("/search"))
    assert left(users) == 5
    request.cancel()
    assert left(users) == 5


def test_a_request_that_is_cancelled_late_loses_the_refill_at_most(twin, clock):
    limiter = twin.keyed.RateLimiter("10/s", clock=clock)
    limiter.reserve("ann").cancel()
    assert left(limiter) == 10
    limiter.allow("ann", 5)
    late = limiter.reserve("ann")
    clock.advance(0.01)
    late.cancel()
    assert left(limiter) == pytest.approx(5)


def test_a_denied_request_that_passes_anyway_can_be_joined(twin, clock):
    """As in a dry run."""
    limiter = twin.keyed.RateLimiter("1/s; 9/min", clock=clock)
    limiter.allow("ann")
    request = limiter.reserve("ann")
    assert not request
    assert request.join(limiter.reserve("bob"))
    request.cancel()
    assert left(limiter, "bob") == 1


def test_all_can_be_settled_or_none_is(twin, clock):
    plain = twin.keyed.RateLimiter("9/s", clock=clock)
    strict = twin.keyed.RateLimiter("9/s", strict=True, max_keys=9, clock=clock)
    request = plain.reserve("ann", 3)
    request.join(strict.reserve("ann", 3))
    with pytest.raises(ValueError, match=r"^actual must be whole with strict=True, got 1.5$"):
        request.settle(1.5)
    assert (left(plain), left(strict)) == (6, 6)
    request.settle(2)
    assert (left(plain), left(strict)) == (7, 7)


def test_what_cannot_join(make):
    request, other = make("9/s").reserve("ann"), make("9/s").reserve("ann")
    with pytest.raises(TypeError, match=r"^other must be a Reservation, got True$"):
        request.join(True)
    assert request.join(other)
    for again in (request, other):
        with pytest.raises(ValueError, match=r"^other must be another reservation, got Reservation"):
            again.join(request)


def test_threads_settle_once(make):
    limiter = make("1000/s")
    request = limiter.reserve("ann", 100)
    for _ in range(8):
        request.join(limiter.reserve("ann", 10))
    run_threads(lambda number: request.settle(number))
    assert 1000 - 9 * 8 <= left(limiter) <= 1000


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2 * SECOND), st.integers(1, 6), st.integers(0, 6), st.integers(0, 3)),
        max_size=40,
    )
)
def test_no_interval_uses_more_than_the_burst_and_the_rate(steps):
    """What is given back is counted as never taken, at the time at which it was reserved; the twins agree."""
    clock, held, used = FakeClock(), [], []
    options = {"max_keys": 8, "clock": clock}
    limiters = [Twin(name).keyed.RateLimiter("3/s, burst 6", **options) for name in twin_names()]
    for pause, cost, actual, wait in steps:
        clock.now += pause
        made = [limiter.reserve("ann", cost) for limiter in limiters]
        assert len({bool(reservation) for reservation in made}) == 1
        if made[0]:
            held.append((wait, made, len(used), min(actual, cost)))
            used.append((clock.now, cost))
        for _, reservations, at, spent in [each for each in held if each[0] == 0]:
            for reservation in reservations:
                reservation.settle(spent)
            used[at] = used[at][0], spent
        held = [(wait - 1, *rest) for wait, *rest in held if wait]
        assert len({left(limiter) for limiter in limiters}) == 1
    for start, (begin, _) in enumerate(used):
        total = 0
        for when, cost in used[start:]:
            total += cost
            assert total <= (6 + Fraction(3 * (when - begin), SECOND)) * (1 + Fraction(1, 2**30))


@pytest.mark.parametrize("strict", [False, True])
def test_what_was_too_little_is_charged_in_one_step(twin, clock, strict):
    """Not by asking what is left and then taking it, between which others may come."""
    class Whole(twin.keyed.RateLimiter):
        def allow(self, *given):
            raise AssertionError(given)

        peek = allow

    limiter = Whole("9/min; 5000/h", strict=strict, max_keys=4, clock=clock)
    remaining = partial(twin.keyed.RateLimiter.peek, limiter, "ann", 0)
    limiter.reserve("ann", 2).settle(5)
    assert remaining().remaining == 4
    limiter.reserve("ann", 1).settle(50)
    assert remaining().remaining == 0
    clock.advance(60)
    limiter.reserve("ann", 0).settle(3)
    assert remaining().remaining == 6
    limiter._check()
