"""Several limits for one request: all or nothing over levels and prefixes, overrides, exempt keys."""

import asyncio
import copy
import os
import pickle
import time
from fractions import Fraction
from functools import partial
from math import inf

import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from threads import run_threads
from twins import Twin, twin_names
from virtual_time import SECOND, started

from headgate import AddressLimiter, Decision, Rate, RateLimits, TokenBucket
from headgate.limit._decision import as_degraded

pytestmark = pytest.mark.usefixtures("one_secret")

LEVELS = {"ip": "4/2s", "user": "3/s; 10/5s", "endpoint": "5/5s, burst 8"}


def over(twin, clock, shadow=(), **levels):
    """RateLimits of one twin, with limiters of it as levels."""
    make = partial(twin.keyed.RateLimiter, max_keys=100, clock=clock)
    limiters = {name: make(rate) for name, rate in levels.items()}
    return over_limiters(twin, limiters, clock=clock, shadow=shadow)


def over_limiters(twin, levels, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headgate.limit._levels.Levels", twin.joint.Levels)
        return RateLimits(levels, **options)


@pytest.fixture
def limits(twin, clock):
    return over(twin, clock, **LEVELS)


# all or nothing


class Debts:
    """What every key owes at every tier of every level, as fractions."""

    def __init__(self, levels):
        self.tiers = {
            (level, number): Rate.parse(tier)
            for level, rates in levels.items()
            for number, tier in enumerate(rates.split(";"))
        }
        self.debts = {}

    def pass_time(self, seconds):
        for (tier, key), debt in self.debts.items():
            rate = self.tiers[tier]
            self.debts[tier, key] = max(Fraction(0), debt - seconds * Fraction(rate.limit) / rate.period)

    def take(self, keys, cost):
        charged = [(tier, keys[tier[0]]) for tier in self.tiers if tier[0] in keys]
        allowed = all(self.debts.get(at, 0) + cost <= self.tiers[at[0]].burst for at in charged)
        if allowed or not cost:
            for at in charged:
                self.debts[at] = self.debts.get(at, 0) + cost
        return allowed or not cost


KEYS = st.dictionaries(st.sampled_from(list(LEVELS)), st.sampled_from(["a", "b"]), min_size=1)
REQUESTS = st.lists(
    st.tuples(KEYS, st.integers(0, 3), st.integers(0, 8).map(lambda n: Fraction(n, 4))), max_size=40
)


ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.77", "10.0.0.1", "::1", None])
USERS = st.sampled_from(["ann", b"ann", 5, None, 1.5])
COSTS = st.sampled_from([0, 1, 2, 2.5, 4, -1, "1"])
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["allow", "decide", "peek", "reserve", "settle", "refund", "rule", "pass"]),
        st.fixed_dictionaries({}, optional={"ip": ADDRESSES, "user": USERS, "team": USERS, "zone": USERS}),
        COSTS,
    ),
    max_size=40,
)


class Session:
    """Calls of RateLimits with everything that a level may have, and what came of them."""

    def __init__(self, twin):
        self.clock, self.held = FakeClock(), []
        levels = {"ip": "3/s", "user": "5/s; 8/min", "team": "4/s"}
        self.limits = over(twin, self.clock, shadow=["team"], **levels)
        self.limits.deny("ip", "10.0.0.0/8")
        self.limits.exempt("ip", "::1")

    def call(self, method, keys, cost):
        try:
            found = self._call(method, keys, cost)
        except (TypeError, ValueError) as error:
            found = type(error), str(error)
        return found, self.limits.counters()

    def _call(self, method, keys, cost):
        if method == "pass":
            return self.clock.advance(0.3)
        if method == "settle":
            return [reservation.settle(cost) for reservation in self.held]
        if method == "rule":
            (level, key), *_ = keys.items() or [("user", "ann")]
            return self.limits.override(level, key, "2/s")
        found = getattr(self.limits, method)(cost=cost, **keys)
        if method != "reserve":
            return found, getattr(found, "violated", None)
        self.held.append(found)
        return bool(found), found.decision, found.tokens


@given(calls=CALLS)
def test_the_twins_agree_in_everything(calls):
    sessions = [Session(Twin(name)) for name in twin_names()]
    for call in calls:
        results = [session.call(*call) for session in sessions]
        assert all(result == results[0] for result in results)
    for session in sessions:
        session.limits._check()


@given(requests=REQUESTS)
def test_as_the_model_decides(requests):
    clocks = [FakeClock() for _ in twin_names()]
    every = [over(Twin(name), clock, **LEVELS) for name, clock in zip(twin_names(), clocks, strict=True)]
    model = Debts(LEVELS)
    for keys, cost, pause in requests:
        decisions = [limits.decide(cost=cost, **keys) for limits in every]
        assert all(decision == decisions[0] for decision in decisions)
        assert decisions[0].allowed == model.take(keys, cost)
        for clock in clocks:
            clock.advance(float(pause))
        model.pass_time(pause)
    for limits in every:
        limits._check()


def test_a_denied_request_takes_nothing_at_any_level(limits):
    while limits.allow(ip="1", user="ann"):
        pass
    before = [limits.peek(**{level: key}) for level, key in (("ip", "1"), ("user", "ann"), ("endpoint", "/"))]
    for _ in range(20):
        assert not limits.decide(ip="1", user="ann", endpoint="/")
        assert not limits.decide(endpoint="/", ip="1", user="ann")
    after = [limits.peek(**{level: key}) for level, key in (("ip", "1"), ("user", "ann"), ("endpoint", "/"))]
    assert before == after


def test_of_levels_that_deny_alike_the_first_is_reported(twin, clock):
    limits = over(twin, clock, ip="1/s", user="1/s")
    assert limits.allow(ip="1", user="ann")
    for keys in ({"ip": "1", "user": "ann"}, {"user": "ann", "ip": "1"}):
        assert limits.peek(**keys) == limits.decide(**keys)
        assert limits.decide(**keys).policy == f"{next(iter(keys))}: 1/s"


@pytest.mark.parametrize("order", [("plain", "own"), ("own", "plain")])
def test_a_limiter_of_a_subclass_decides_itself(twin, clock, order):
    class Halved(twin.keyed.RateLimiter):
        """What remains is half of it."""

        def decide(self, key, cost=1):
            decision = super().decide(key, cost)
            return Decision(*decision._replace(remaining=decision.remaining / 2))

    both = {"plain": twin.keyed.RateLimiter("9/s", max_keys=100, clock=clock),
            "own": Halved("12/s", max_keys=100, clock=clock)}
    limits = over_limiters(twin, {name: both[name] for name in order})
    decision = limits.reserve(**dict.fromkeys(order, "ann")).decision
    assert (decision.policy, decision.remaining) == ("own: 12/s", 5.5)
    assert limits.decide(**dict.fromkeys(order, "ann"), cost=7).remaining == 1
    assert limits.decide(plain="ann").policy == "plain: 9/s"


@pytest.mark.parametrize("strict", [False, True])
def test_policies_have_the_name_under_which_they_were_asked(twin, clock, strict):
    limiter = twin.keyed.RateLimiter("2/s; 5/min", strict=strict, max_keys=100, clock=clock)

    def within(name):
        return partial(over_limiters(twin, {name: limiter}).decide, **{name: "ann"})

    user, team = within("user"), within("team")
    assert [user().policy, team().policy] == ["user: 2/s", "team: 2/s"]
    for _ in range(2):
        decided = limiter.decide("ann").policy, user().policy, team().policy
        assert decided == ("2/s", "user: 2/s", "team: 2/s")
    clock.advance(1)
    for cost in (2, 1):
        limiter.decide("ann", cost)
    assert user(cost=2).violated == ("user: 2/s", "user: 5/min")
    assert team(cost=2).violated == ("team: 2/s", "team: 5/min")
    assert limiter.decide("ann", 2).violated == ("2/s", "5/min")
    limiter.reconfigure("3/s")
    assert [user().policy, team().policy, limiter.peek("ann").policy] == ["user: 3/s", "team: 3/s", "3/s"]


def test_a_strict_level_says_when_there_is_more(twin, clock):
    """Which only its log knows, whether it allows or denies."""
    levels = {"user": twin.keyed.RateLimiter("2/min", strict=True, max_keys=100, clock=clock)}
    limits = over_limiters(twin, levels)
    limits.decide(user="ann")
    clock.advance(20)
    assert b"t=40" in dict(limits.decide(user="ann").fields())[b"ratelimit"]
    assert b"t=40" in dict(limits.decide(user="ann").fields())[b"ratelimit"]


def test_the_level_that_denies_for_longest_is_reported(twin, clock):
    limits = over(twin, clock, ip="1/s", user="1/min", endpoint="100/s")
    keys = {"ip": "1", "user": "ann", "endpoint": "/"}
    assert limits.decide(**keys) == Decision(True, 1, 0.0, 0.0, 1.0, "ip: 1/s")
    assert limits.decide(**keys) == limits.peek(**keys) == Decision(False, 1, 0.0, 60.0, 60.0, "user: 1/min")
    assert limits.decide(user="ann", ip="2").headers("user")["Retry-After"] == "60"
    assert limits.decide(user="bob", ip="1").policy == "ip: 1/s"


class Quicker:
    """A level at which another request takes the last token between the check and the charge."""

    def __init__(self, limiter, error=None):
        self._limiter = limiter
        self._error = error
        self.peek = limiter.peek

    def decide(self, key, cost):
        if self._error:
            raise self._error
        self._limiter.allow(key, cost)
        return self._limiter.decide(key, cost)

    def allow(self, key, cost):
        return self.decide(key, cost).allowed


@pytest.fixture(params=["allow", "decide"])
def ask(request):
    return lambda limits: getattr(limits, request.param)(ip="1", user="ann")


@pytest.fixture
def pair(twin, clock):
    return [twin.keyed.RateLimiter(rate, max_keys=9, clock=clock) for rate in ("5/s", "1/s")]


@pytest.mark.usefixtures("limits_of_twin")
def test_a_request_that_loses_a_race_gives_back_what_was_taken(pair, ask):
    limits = RateLimits(ip=pair[0], user=Quicker(pair[1]))
    assert ask(limits) in (False, Decision(False, 1, 0.0, 1.0, 1.0, "user: 1/s"))
    assert limits.peek(ip="1").remaining == 5.0


@pytest.mark.usefixtures("limits_of_twin")
def test_an_error_gives_back_what_was_taken(pair, ask):
    limits = RateLimits(ip=pair[0], user=Quicker(pair[1], KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ask(limits)
    assert limits.peek(ip="1").remaining == 5.0


def test_threads_together_are_allowed_what_one_level_admits(limits):
    allowed = []

    def ask(number):
        keys = {"endpoint": "/", "user": f"user {number}", "ip": f"address {number}"}
        allowed.append(sum(limits.allow(**keys) for _ in range(50)))

    run_threads(ask, 4)
    assert sum(allowed) <= 8
    assert limits.peek(endpoint="/").remaining == 8 - sum(allowed)
    limits._check()


def test_refund_and_reset_reach_every_level(limits):
    keys = {"ip": "1", "user": "ann", "endpoint": "/"}
    assert limits.allow(cost=3, **keys)
    limits.refund(cost=2, **keys)
    assert [limits.peek(**{level: key}).remaining for level, key in keys.items()] == [3.0, 2.0, 7.0]
    limits.reset(**keys)
    assert [limits.peek(**{level: key}).remaining for level, key in keys.items()] == [4.0, 3.0, 8.0]


# keys


def test_a_key_that_is_none_is_not_limited(limits):
    assert limits.decide(ip=None, user=None) == Decision(True, inf, inf, 0.0, 0.0, "")
    assert limits.decide(ip="1", user=None).policy == "ip: 4/2s"


def test_overrides(twin, clock):
    limits = over(twin, clock, user="1/s", ip="100/s")
    limits.override("user", "ann", "3/s; 4/min")
    assert [limits.allow(user="ann", ip="1") for _ in range(4)] == [True, True, True, False]
    assert [limits.allow(user="bob") for _ in range(2)] == [True, False]
    limits.override("user", "ann", "10/s")
    assert limits.peek(user="ann")[1:3] == (10, 7.0)
    limits.restore("user", "ann", "nobody")
    assert limits.peek(user="ann").policy == "user: 1/s"
    limits._check()


def test_exempt_keys(twin, clock):
    limits = over(twin, clock, user="1/s", ip="2/s")
    limits.exempt("ip", "::1", "127.0.0.1")
    assert [limits.allow(ip="::1") for _ in range(9)] == [True] * 9
    assert [limits.allow(ip="::1", user="ann") for _ in range(2)] == [True, False]
    limits.override("ip", "::1", "3/s")
    assert limits.peek(ip="::1").limit == 3
    limits.exempt("ip", "::1")
    assert limits.peek(ip="::1").limit == inf


def test_reconfigure(limits):
    assert limits.allow(cost=2, ip="1", user="ann")
    limits.reconfigure(ip="10/s", user=Rate(8, 1))
    assert limits.rates["ip"] == (Rate(10, 1),)
    assert limits.peek(ip="1").remaining == 8.0
    with pytest.raises(ValueError, match="rate must be like"):
        limits.reconfigure(ip="20/s", user="often")
    assert limits.rates["ip"] == (Rate(10, 1),)


def test_no_level_is_changed_if_one_cannot_be(twin, clock):
    limits = RateLimits(
        endpoint="9/s",
        ip=AddressLimiter("2/s", v4={32: 1, 24: 1.5}, strict=True, max_keys=9, clock=clock),
        user=twin.keyed.RateLimiter("5/s", strict=True, max_keys=9, clock=clock),
    )
    rates = limits.rates
    for refused, message in (({"ip": "3/s"}, "got '4.5/s'"), ({"ip": "4/s", "user": "0.5/s"}, "got '0.5/s'")):
        with pytest.raises(ValueError, match=f"rate must have a whole limit with strict=True, {message}"):
            limits.reconfigure(endpoint="1/s", **refused)
        assert limits.rates == rates
        limits._check()
    limits.reconfigure(endpoint="1/s", ip="4/s", user="1/s")
    assert [str(*each) for each in limits.rates.values()] == ["1/s", "4/s", "1/s"]
    limits._check()


def test_a_limiter_of_another_kind_is_reconfigured():
    class Own:
        rates, rate = (), None
        decide = allow = peek = None

        def reconfigure(self, rate):
            self.rate = rate

    own = Own()
    RateLimits(own=own).reconfigure(own="2/s")
    assert own.rate == (Rate(2, 1),)


# waiting


def test_waiters_for_the_same_keys_are_served_in_order(twin, clock, run):
    limits = over(twin, clock, ip="1000/s, burst 1", user="100/s, burst 1")
    left = []

    async def task(number):
        assert await limits.acquire_async(ip="1", user="ann", timeout=None if number % 5 else 9.0)
        left.append((number, clock.now))

    async def main():
        start = clock.now
        tasks = await started(*[task(number) for number in range(300)])
        for number in range(2, 300, 3):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, _ in left] == [number for number in range(300) if number % 3 != 2]
        for place, (_, when) in enumerate(left):
            assert abs(when - start - place * SECOND // 100) < 100_000

    run(main())
    assert len(limits._waiting) == 0
    assert not limits.peek(ip="1", user="ann").allowed
    limits._check()


def test_a_large_cost_at_the_head_is_not_starved(twin, clock, run):
    limits = over(twin, clock, ip="5/5s", user="100/h")
    left = []

    async def task(cost):
        assert await limits.acquire_async(cost=cost, user="ann", ip="1")
        left.append(cost)

    async def main():
        limits.allow(ip="1", cost=5)
        await asyncio.gather(*await started(task(5), *[task(1) for _ in range(9)]))

    run(main())
    assert left == [5] + [1] * 9


def test_other_keys_wait_apart_and_take_all_or_nothing(twin, clock, run):
    limits = over(twin, clock, ip="1/10s", user="2/min")

    async def main():
        limits.allow(ip="slow")
        start = clock.now
        slow, *_ = await started(limits.acquire_async(ip="slow", user="ann"))
        assert await limits.acquire_async(ip="quick", user="ann")
        assert clock.now == start
        assert limits.peek(user="ann").remaining == 1.0
        assert await slow
        assert 10 * SECOND <= clock.now - start < 11 * SECOND

    run(main())


def test_how_long_a_request_waits(twin, clock, run):
    limits = over(twin, clock, ip="10/s", user="2/min; 9/h")
    limits.exempt("ip", "::1")

    async def main():
        start = clock.now
        assert await limits.acquire_async(ip="1", user="ann", cost=2, timeout=0)
        assert not await limits.acquire_async(ip="1", user="ann", timeout=0)
        assert clock.now == start
        assert not await limits.acquire_async(ip="1", user="ann", timeout=9)
        assert clock.now == start + 9 * SECOND, "the time is waited to its end"
        tasks = await started(*[limits.acquire_async(ip="1", user="ann", timeout=21.01) for _ in range(2)])
        assert await asyncio.gather(*tasks) == [True, False]
        assert await limits.acquire_async(ip="::1", user=None, cost=99)

    run(main())
    assert limits.peek(ip="1").remaining == pytest.approx(9.1), "what had to wait took no part"


def test_addresses_are_waited_for(clock, run):
    limits = RateLimits(ip=AddressLimiter("1/s", v4={32: 1, 24: 2}, max_keys=9, clock=clock))

    async def main():
        start = clock.now
        assert [await limits.acquire_async(ip=f"192.0.2.{host}") for host in (1, 2, 3)] == [True] * 3
        assert clock.now - start == SECOND // 2
        assert not await limits.acquire_async(ip="::ffff:192.0.2.3", timeout=0.25)
        assert clock.now - start == SECOND * 3 // 4

    run(main())


def test_a_limiter_of_another_kind_is_waited_for(twin, clock, run):
    class Own:
        def __init__(self):
            limiter = twin.keyed.RateLimiter("1/s", max_keys=9, clock=clock)
            self.allow, self.decide, self.peek = limiter.allow, limiter.decide, limiter.peek

    limits = RateLimits(own=Own())

    async def main():
        return [await limits.acquire_async(own="a", timeout=timeout) for timeout in (0, None, 0.9)]

    assert run(main()) == [True, True, False]


def test_threads_wait(twin):
    limiter = partial(twin.keyed.RateLimiter, max_keys=100)
    limits = RateLimits(ip=limiter("1000/s", burst=1), user=limiter("2000/s", burst=1))
    start = time.monotonic()
    taken = [0] * 8

    def work(number):
        for _ in range(25):
            taken[number] += limits.acquire(ip="1", user=number % 2)

    run_threads(work)
    assert taken == [25] * 8
    assert time.monotonic() - start >= 198 / 1000
    limits._check()


# wrong input


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({}, TypeError, "the key of at least one level must be given"),
        ({"zone": "1"}, ValueError, "level must be one of ip, user, endpoint, got 'zone'"),
        ({"ip": "1", "user": 1.5}, TypeError, "key must be str, bytes or int, got 1.5"),
        ({"ip": "1", "user": "ann", "cost": 4}, ValueError, "cost must be at most the burst 3, got 4"),
        ({"ip": "1", "timeout": -1}, ValueError, "timeout must be a non-negative number or None, got -1"),
    ],
)
def test_wrong_requests_do_not_wait(limits, run, keys, error, message):
    with pytest.raises(error, match=message):
        limits.acquire(**keys)
    with pytest.raises(error, match=message):
        run(limits.acquire_async(**keys))
    assert limits.peek(ip="1").remaining == 4.0


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({}, TypeError, "the key of at least one level must be given"),
        ({"ip": "1", "usr": "ann"}, ValueError, "level must be one of ip, user, endpoint, got 'usr'"),
        ({"ip": "1", "user": 1.5}, TypeError, "key must be str, bytes or int, got 1.5"),
        ({"endpoint": "/", "user": "ann", "cost": 4}, ValueError, "cost must be at most the burst 3, got 4"),
        ({"ip": "1", "cost": -1}, ValueError, "cost must be finite and non-negative, got -1"),
        ({"ip": None, "cost": -1}, ValueError, "cost must be finite and non-negative, got -1"),
        ({"ip": None, "cost": "1"}, TypeError, "cost must be a number, got '1'"),
    ],
)
def test_wrong_requests_take_nothing(limits, keys, error, message):
    for ask in (limits.decide, limits.allow, limits.peek):
        with pytest.raises(error, match=message):
            ask(**keys)
    assert limits.peek(ip="1").remaining == 4.0
    assert limits.peek(endpoint="/").remaining == 8.0


# levels that decide without their store


class Cut:
    """A limiter that does not reach its store while it `is_cut`, and allows then."""

    def __init__(self, twin, rate):
        self.is_cut = False
        self._store = twin.keyed.RateLimiter(rate)
        self.refund, self.reset, self.rates = self._store.refund, self._store.reset, self._store.rates

    def decide(self, key, cost=1):
        return self._outcome(self._store.decide, key, cost)

    def peek(self, key, cost=1):
        return self._outcome(self._store.peek, key, cost)

    def allow(self, key, cost=1):
        return self.decide(key, cost).allowed

    def _outcome(self, method, key, cost):
        if self.is_cut:
            return as_degraded(Decision(True, 9, 9.0, 0.0, 0.0, "9/h"))
        return method(key, cost)


def test_a_decision_is_degraded_if_that_of_a_level_is(twin):
    cut = Cut(twin, "9/h")
    limits = over_limiters(twin, {"ip": twin.keyed.RateLimiter("2/h"), "user": cut})
    keys = {"ip": "::1", "user": "ann"}
    assert not limits.decide(**keys).degraded
    cut.is_cut = True
    assert limits.peek(**keys).degraded
    decision = limits.decide(**keys)
    assert (decision.allowed, decision.degraded, decision.policy) == (True, True, "ip: 2/h")
    assert not limits.decide(ip="::2").degraded
    denied = limits.decide(user="ann", ip="::1")
    assert (denied.allowed, denied.degraded, denied.policy) == (False, True, "ip: 2/h")


@pytest.mark.parametrize("shadow", [(), ("user",)])
def test_what_was_taken_without_a_store_is_not_given_back_to_it(twin, shadow):
    """Others have taken what it would refund."""
    cut = Cut(twin, "9/h")
    levels = {"ip": twin.keyed.RateLimiter("9/h"), "user": cut}
    limits = over_limiters(twin, levels, shadow=shadow)
    keys = {"ip": "::1", "user": "ann"}
    assert limits.allow(**keys, cost=9)
    limits.reset(ip="::1")
    cut.is_cut = True
    reservation = limits.reserve(**keys, cost=9)
    assert reservation
    assert reservation.decision.degraded is not bool(shadow)
    cut.is_cut = False
    reservation.cancel()
    assert cut.peek("ann", 1).remaining == pytest.approx(0, abs=0.1)
    assert levels["ip"].peek("::1").remaining == 9


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        ({}, ValueError, "levels must be at least one, got none"),
        ({"cost": "1/s"}, ValueError, r"level must be printable ASCII and none of .*, got 'cost'"),
        ({"timeout": "1/s"}, ValueError, r"level must be printable ASCII and none of .*, got 'timeout'"),
        ({"self": "1/s"}, ValueError, r"level must be printable ASCII and none of .*, got 'self'"),
        ({3: "1/s"}, ValueError, r"level must be printable ASCII and none of .*, got 3"),
        ({"a\nb": "1/s"}, ValueError, r"level must be printable ASCII and none of .*, got 'a\\nb'"),
        ({"ip": "often"}, ValueError, "rate must be like"),
        ({"all": TokenBucket(1, 1)}, TypeError, "a level must be a rate or a limiter by key, got Token"),
        ({"all": RateLimits(ip="1/s")}, TypeError, "a level must be a rate or a limiter by key, got RateL"),
        ({"ip": 7}, TypeError, "rate must be a str, a Rate or several of them, got 7"),
        ("10/s", TypeError, "levels must be a mapping of names to limits, got '10/s'"),
        ([("ip", "10/s")], TypeError, r"levels must be a mapping of names to limits, got \[\('ip'"),
    ],
)
def test_wrong_levels(levels, error, message):
    with pytest.raises(error, match=message):
        RateLimits(levels)


def test_wrong_overrides(limits):
    for call in (lambda: limits.override("zone", "a", "1/s"), lambda: limits.exempt("zone", "a")):
        with pytest.raises(ValueError, match="level must be one of"):
            call()
    with pytest.raises(ValueError, match="rate must be like"):
        limits.override("ip", "1", "never")
    with pytest.raises(TypeError, match="key must be"):
        limits.exempt("ip", "1", None)
    assert limits.peek(ip="1").limit == 4


def test_an_override_is_for_what_the_level_takes_as_a_key(clock):
    limits = RateLimits(ip=AddressLimiter("1/s", max_keys=9, clock=clock), clock=clock)
    calls = (
        (limits.override, "192.0.2.0/24", "9/s"),
        (limits.exempt, "192.0.2.1", "192.0.2.0/33"),
        (limits.deny, "192.0.2.1", "example.org"),
        (limits.restore, "192.0.2.1", "a/8"),
    )
    for call, *arguments in calls:
        with pytest.raises(ValueError, match=r"^address must be an IPv4 or IPv6 address, got '"):
            call("ip", *arguments)
    assert limits.peek(ip="192.0.2.1").limit == 1


def test_no_copies():
    """One that is reconfigured would leave the other with limiters of other rates."""
    for limits in (RateLimits(ip="1/s"), AddressLimiter("1/s")):
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=f"an? {type(limits).__name__} cannot be copied or pickled: "):
                call(limits)


def test_what_it_looks_like():
    limits = RateLimits(ip="10/s", user=["1/s", Rate(9, 60)])
    assert repr(limits) == "RateLimits(ip='10/s', user='1/s; 9/min')"
    assert repr(AddressLimiter("1/s; 9/min")) == "AddressLimiter('1/s; 9/min')"


# prefixes


def test_the_networks_of_an_address(clock):
    v4, v6 = {32: 1, 24: 2, 20: 4}, {128: 1, 64: 1.5, 48: 4}
    limiter = AddressLimiter("2/s", v4=v4, v6=v6, max_keys=9, clock=clock)
    for network, more in (("192.0.2.%d", "192.0.3.%d"), ("2001:db8:0:1::%d", "2001:db8:0:2::%d")):
        assert [limiter.allow(network % 1) for _ in range(3)] == [True, True, False]
        assert limiter.decide(network % 1).policy.startswith(("/32: 2/s", "/128: 2/s"))
        taken = sum(limiter.allow(network % host) for host in range(2, 9))
        assert taken == (2 if "." in network else 1)
        assert limiter.decide(network % 9).policy in ("/24: 4/s", "/64: 3/s")
        assert sum(limiter.allow(more % host) for host in range(9)) == (4 if "." in network else 3)
    limiter._check()


def test_strict_networks(clock):
    limiter = AddressLimiter("2/min", v4={32: 1, 24: 2}, strict=True, max_keys=9, clock=clock)
    assert [limiter.allow(f"192.0.2.{host}") for host in (1, 1, 1, 2, 3, 4)] == [
        True, True, False, True, True, False]
    clock.advance(30)
    assert not limiter.allow("192.0.2.1")


def test_a_denied_address_takes_nothing_from_its_networks(clock):
    limiter = AddressLimiter("1/s", v4={32: 1, 24: 5}, max_keys=9, clock=clock)
    assert [limiter.allow("192.0.2.1") for _ in range(9)] == [True] + [False] * 8
    assert sum(limiter.allow(f"192.0.2.{host}") for host in range(2, 20)) == 4
    limiter.refund("192.0.2.1")
    assert [limiter.peek("192.0.2.1").remaining, limiter.peek("192.0.2.2").remaining] == [1.0, 0.0]
    limiter.reset("192.0.2.2")
    assert limiter.allow("192.0.2.2")


def test_one_address_written_in_many_ways(clock):
    limiter = AddressLimiter("4/s", v6=128, max_keys=9, clock=clock)
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201", "::ffff:192.0.2.1%eth0"):
        assert limiter.allow(address)
    assert not limiter.allow("192.0.2.1")
    for address in ("::1", "0:0:0:0:0:0:0:1", "::0:1", "::1%lo"):
        assert limiter.allow(address)
    assert not limiter.allow("::1")


@pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl")
def test_networks_that_processes_share(clock, tmp_path):
    options = {"v4": {32: 1, 24: 2.5}, "v6": 64, "max_keys": 9, "path": tmp_path / "ip", "clock": clock}
    one, other = AddressLimiter("2/s", **options), AddressLimiter("2/s", **options)
    hosts = (1, 1, 2, 2, 3, 3, 4)
    results = [limiter.allow(f"192.0.2.{host}") for host in hosts for limiter in (one, other)]
    assert results == [True, True, False, False, True, True, False, False] + [True] + [False] * 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ip", "ip.x2.5"]
    one.reconfigure("3/s")
    assert one.rates == other.rates == (Rate(3, 1),)
    with pytest.raises(ValueError, match=r"rate must be '3/s' as in '.*ip', got '2/s'"):
        AddressLimiter("2/s", **options)


def test_a_unix_socket_has_one_limit_at_the_smallest_multiple(clock):
    limiter = AddressLimiter("1/s", v4={24: 9, 32: 2}, max_keys=9, clock=clock)
    assert [limiter.allow("unix") for _ in range(3)] == [True, False, False]
    assert limiter.peek("unix").policy == "unix: 1/s"


def test_prefixes_as_a_level(twin, clock):
    addresses = AddressLimiter("1/s", v4={32: 1, 24: 2}, max_keys=9, clock=clock)
    limits = RateLimits(ip=addresses, user="9/s", max_keys=9, clock=clock)
    results = [limits.decide(ip=f"192.0.2.{host}", user="ann") for host in (1, 1, 2, 3)]
    assert list(map(bool, results)) == [True, False, True, False]
    assert [result.policy for result in results[1::2]] == ["ip: /32: 1/s", "ip: /24: 2/s"]
    assert results[3].headers()["RateLimit"] == '"ip: /24: 2/s";r=0;t=1'
    assert limits.peek(user="ann").remaining == 7.0
    limits.reconfigure(ip="3/s")
    assert limits.peek(ip="192.0.2.9").limit == 3
    limits._check()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"v4": 33}, ValueError, r"v4 must be in \[0, 32\], got 33"),
        ({"v6": {64: 1, -1: 2}}, ValueError, r"v6 must be in \[0, 128\], got -1"),
        ({"v6": {64: 0}}, ValueError, "v6 must be positive and finite, got 0"),
        ({"v4": ["24"]}, TypeError, "v4 must be an int, got '24'"),
        ({"v4": None}, TypeError, "v4 must be an int, several or a mapping of them, got None"),
        ({"v4": ()}, ValueError, r"v4 must be at least one length, got \(\)"),
        ({"max_keys": 0}, ValueError, "max_keys must be in"),
    ],
)
def test_wrong_prefixes(options, error, message):
    with pytest.raises(error, match=message):
        AddressLimiter("1/s", **options)


NO_ADDRESSES = ["testclient", "1.2.3", "1.2.3.4/24", "", ":::1", None, b"1.2.3.4", "1.2.3.4\0"]


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match="address must be an IPv4 or IPv6 address, got"):
        AddressLimiter("1/s").decide(address)


def test_overrides_distinguish_kinds_of_keys():
    limits = RateLimits(user="1/h")
    limits.exempt("user", 97)
    assert [limits.allow(user=97) for _ in range(2)] == [True, True]
    assert [limits.allow(user="a" + 7 * "\0") for _ in range(2)] == [True, False]


def test_a_part_of_a_rate_lets_one_come_at_once(clock):
    limiter = AddressLimiter("2/s; 0.5/s", v4={32: 0.25, 24: 1}, max_keys=9, clock=clock)
    assert [limiter.allow("192.0.2.1"), limiter.allow("192.0.2.1")] == [True, False]
    clock.advance(8)
    assert limiter.allow("192.0.2.1")
    assert not AddressLimiter("0/s", v4={32: 0.25}, max_keys=9, clock=clock).allow("192.0.2.1")
