"""Decision for decision: both twins, an exact model of the rates, and one of a table that is full."""

import math
from fractions import Fraction

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twins import Twin, twin_names

from headgate import Rate
from headgate.limit._tables import scale_of

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9
KEYS = st.sampled_from(["ann", "bob", b"cid", 7])
COSTS = st.one_of(
    st.integers(0, 6), st.sampled_from([0.5, 0.25, 1.75]), st.floats(0, 6), st.integers(7, 1200)
)
RATES = st.builds(
    Rate,
    st.one_of(st.integers(1, 10**6), st.floats(0.1, 1000)),
    st.one_of(st.integers(1, 86400), st.floats(0.01, 100)),
    st.one_of(st.integers(1, 1000), st.floats(0.5, 1000)),
)
STEPS = st.one_of(
    st.integers(0, 10**9),
    st.integers(0, 3000).map(lambda ms: ms * 10**6),
    st.integers(0, 365 * 86400).map(lambda seconds: seconds * SECOND),
)
EXAMPLES = settings.default.max_examples


def limiters(rates, clock, **options):
    return [Twin(name).keyed.RateLimiter(rates, clock=clock, **options) for name in twin_names()]


def agreed(results):
    assert all(result == results[0] for result in results)
    return results[0]


def outcome(limiter, method, key, cost):
    """The result, or the message of the error."""
    try:
        return getattr(limiter, method)(key, cost)
    except ValueError as error:
        return str(error)


SCALES = st.integers(-18, 18).flatmap(lambda power: st.floats(1, 10).map(lambda times: times * 10.0**power))


@given(
    limit=SCALES, period=SCALES, burst=st.none() | st.integers(1, 2**32), start=st.integers(-(2**61), 2**61),
    steps=st.lists(st.tuples(STEPS, COSTS), min_size=1, max_size=5),
)
def test_the_twins_agree_at_the_slowest_and_the_fastest_rates(limit, period, burst, start, steps):
    """Waits that need more than 64 bits, or more than 128, among them."""
    try:
        rate = Rate(limit, period, burst)
    except ValueError:
        return
    clock = FakeClock()
    clock.now = start
    pair = limiters(rate, clock, max_keys=8)
    for pause, cost in steps:
        clock.now += pause
        for method in ("peek", "decide"):
            agreed([outcome(limiter, method, "ann", cost) for limiter in pair])


class ExactTier:
    """When each key owes nothing any more, in tokens: the time is what the rate has brought up to it."""

    def __init__(self, rate):
        self.rate = rate
        self.burst = self.ceiling = Fraction(rate.burst)
        self.speed = Fraction(rate.limit) / Fraction(rate.period) / SECOND
        self.ends = {}
        self.slack = 64 * max(self.burst / 2**31, self.speed * SECOND / 2**32)
        """What rounding may amount to: a unit for each of some operations."""
        self.reach = math.floor(max(15 * SECOND, 30 * self.burst / self.speed))
        """How far the clock may step back before what is long past counts anew."""
        _, multiplier, shift, _ = scale_of(rate)
        self.circle = (2**40 << shift) // multiplier

    def owed(self, key, now):
        return min(max(self.ends.get(key, -math.inf) - self.speed * now, 0), self.ceiling)

    def clamp(self, key, now):
        self.ends[key] = min(self.ends.get(key, -math.inf), self.speed * now + self.ceiling)

    def take(self, key, now, cost):
        self.ends[key] = self.speed * now + self.owed(key, now) + cost

    def give(self, key, now, cost):
        self.ends[key] = self.ends.get(key, -math.inf) - min(self.owed(key, now), cost)

    def excess(self, key, now, cost):
        return self.owed(key, now) + cost - self.burst

    def seconds(self, tokens):
        return max(0, tokens) / self.speed / SECOND

    def same_time(self, result, tokens):
        slack = self.seconds(self.slack) + 2 / SECOND
        return math.isclose(result, self.seconds(tokens), abs_tol=slack, rel_tol=1e-9)

    def fit(self, rate, now):
        """Whether no debt is so many bursts of another rate that it would be cut."""
        return all(self.owed(key, now) <= 30 * Fraction(rate.burst) for key in self.ends)

    def blurred(self, now):
        """Whether rounding may decide which keys owe nothing, and are forgotten when the rate changes."""
        return any(abs(end - self.speed * now) <= self.slack for end in self.ends.values())

    def changed(self, rate, now):
        """With another rate, at which is owed what was owed at this."""
        tier = ExactTier(rate)
        tier.slack += self.slack
        for key in self.ends:
            if owed := self.owed(key, now):
                tier.ends[key] = tier.speed * now + owed
                tier.ceiling = max(tier.ceiling, owed)
        return tier


class RateMachine(RuleBasedStateMachine):
    """Any tiers; where rounding may decide, the twins' common result is taken over."""

    @initialize(rates=st.lists(RATES, min_size=1, max_size=3))
    def start(self, rates):
        self.clock = FakeClock()
        self.latest, self.earliest = self.clock.now, -math.inf
        self.limiters = limiters(rates, self.clock, max_keys=500)
        self.tiers = [ExactTier(rate) for rate in rates]

    def expected(self, key, cost):
        """True or False, or None if it is within the rounding."""
        excess = [(tier.excess(key, self.clock.now, cost), tier.slack) for tier in self.tiers]
        if cost == 0 or all(over <= -slack for over, slack in excess):
            return True
        return None if all(over <= slack for over, slack in excess) else False

    def ask(self, method, key, cost):
        """The twins' common result, or None if the cost is too high for any time."""
        result = agreed([outcome(limiter, method, key, cost) for limiter in self.limiters])
        least = min(tier.rate.burst for tier in self.tiers)
        if cost > least:
            assert result == f"cost must be at most the burst {least!r}, got {cost!r}"
            return None
        return result

    def settle(self, key, cost, result):
        now = self.clock.now
        wanted = self.expected(key, Fraction(cost))
        assert wanted is None or result == wanted
        for tier in self.tiers:
            tier.clamp(key, now)
            if result and cost:
                tier.take(key, now, Fraction(cost))

    @rule(key=KEYS, cost=COSTS)
    def allow(self, key, cost):
        result = self.ask("allow", key, cost)
        if result is not None:
            self.settle(key, cost, result)

    @rule(key=KEYS, cost=COSTS)
    def decide(self, key, cost):
        decision = self.ask("decide", key, cost)
        if decision is not None:
            self.settle(key, cost, decision.allowed)
            self.check_decision(decision, key, 0 if decision.allowed else cost)

    @rule(key=KEYS, cost=COSTS)
    def peek(self, key, cost):
        decision = self.ask("peek", key, cost)
        if decision is not None:
            wanted = self.expected(key, Fraction(cost))
            assert wanted is None or decision.allowed == wanted
            self.check_decision(decision, key, cost)

    def check_decision(self, decision, key, cost):
        """The decision is right for its tier, and that is the right tier."""
        now = self.clock.now
        spoken = [tier for tier in self.tiers if str(tier.rate) == decision.policy]
        assert any(self.fits(decision, tier, key, cost) for tier in spoken)
        for tier in self.tiers:
            left = max(0, tier.burst - tier.owed(key, now))
            late = tier.seconds(tier.excess(key, now, Fraction(cost)) - tier.slack)
            assert not decision.allowed or decision.remaining <= left + tier.slack
            assert decision.allowed or decision.retry_after >= late * (1 - 1e-9) - 2e-9

    def fits(self, decision, tier, key, cost):
        owed = tier.owed(key, self.clock.now)
        left = max(0, tier.burst - owed)
        wait = 0 if decision.allowed else tier.excess(key, self.clock.now, Fraction(cost))
        return (
            decision.limit == tier.rate.burst
            and math.isclose(decision.remaining, left, abs_tol=tier.slack, rel_tol=1e-12)
            and tier.same_time(decision.reset_after, owed)
            and tier.same_time(decision.retry_after, wait)
        )

    @rule(key=KEYS, cost=COSTS)
    def refund(self, key, cost):
        for limiter in self.limiters:
            limiter.refund(key, cost)
        for tier in self.tiers:
            tier.clamp(key, self.clock.now)
            tier.give(key, self.clock.now, Fraction(cost))

    @rule(key=KEYS)
    def reset(self, key):
        for limiter in self.limiters:
            limiter.reset(key)
        for tier in self.tiers:
            tier.clamp(key, self.clock.now)
            tier.give(key, self.clock.now, tier.ceiling)

    @rule(step=STEPS)
    def wait(self, step):
        self.clock.now += step
        self.latest = max(self.latest, self.clock.now)

    @rule(which=st.integers(0, 2), part=st.integers(1, 80))
    def be_silent(self, which, part):
        """For a part of the time after which the times of a tier wrap around."""
        tier = self.tiers[which % len(self.tiers)]
        self.wait(min(part * tier.circle // 64, 365 * 86400 * SECOND))

    @rule(key=KEYS)
    def wait_until_allowed(self, key):
        if min(tier.burst for tier in self.tiers) < 1:
            return
        self.allow(key, 0)  # as after a step back a peek does not cut what is owed
        retry_after = agreed([limiter.peek(key).retry_after for limiter in self.limiters])
        self.wait(math.ceil(retry_after * SECOND) + math.ceil(retry_after / 10**5))
        assert agreed([limiter.peek(key).allowed for limiter in self.limiters])

    @rule(step=st.one_of(STEPS, st.integers(0, 100 * SECOND)))
    def step_back(self, step):
        """By no more than the table remembers."""
        reach = min(tier.reach for tier in self.tiers)
        self.clock.now = max(self.clock.now - step, self.latest - reach, self.earliest)

    @rule(rates=st.lists(RATES, min_size=1, max_size=3))
    def reconfigure(self, rates):
        if not all(tier.fit(rate, self.clock.now) for tier, rate in zip(self.tiers, rates, strict=False)):
            return
        for limiter in self.limiters:
            limiter.reconfigure(rates)
        if any(tier.blurred(self.clock.now) for tier in self.tiers):
            self.earliest = self.clock.now
        changed = [tier.changed(rate, self.clock.now) for tier, rate in zip(self.tiers, rates, strict=False)]
        self.tiers = changed + [ExactTier(rate) for rate in rates[len(changed) :]]
        self.latest = self.clock.now

    def teardown(self):
        for limiter in getattr(self, "limiters", []):
            limiter._check()
            assert limiter.evictions == 0


TestRateMachine = RateMachine.TestCase
TestRateMachine.settings = settings(max_examples=2 * EXAMPLES, stateful_step_count=30, deadline=None)


class FullTable:
    """One line of eight cells: key, and the time at which it owes nothing any more."""

    def __init__(self, rate, evict):
        self.interval = round(SECOND * rate.period / rate.limit)
        self.window = self.interval * rate.burst
        self.evict = evict
        self.cells = [(None, -math.inf)] * 8
        self.evictions = 0

    def allow(self, key, cost, now):
        cost *= self.interval
        mine = [at for at, (owner, _) in enumerate(self.cells) if owner == key]
        if mine:
            debt = max(0, self.cells[mine[0]][1] - now)
            if debt + cost > self.window:
                return False
            self.cells[mine[0]] = key, now + debt + cost
            return True
        at = min(range(8), key=lambda at: self.cells[at][1])
        inherited = max(0, self.cells[at][1] - now)
        if inherited and not self.evict:
            return False
        self.evictions += inherited > 0
        self.cells[at] = key, now + max(cost, inherited)
        return True


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(
    evict=st.booleans(),
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 14), st.sampled_from([1, 1, 2, 5])),
        min_size=30,
        max_size=90,
    ),
)
def test_a_full_table(evict, steps):
    """With time in quarters of a second and a token in a whole one, nothing is rounded."""
    clock = FakeClock()
    rate = Rate(1, 1, 8)
    tables = limiters(rate, clock, max_keys=4, on_full="evict" if evict else "deny")
    model = FullTable(rate, evict)
    for quarters, key, cost in steps:
        clock.now += quarters * SECOND // 4
        results = [limiter.allow(key, cost) for limiter in tables]
        assert results == [model.allow(key, cost, clock.now)] * len(tables)
        assert {limiter.evictions for limiter in tables} == {model.evictions}
        for limiter in tables:
            limiter._check()


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(
    rates=st.lists(RATES, min_size=1, max_size=2),
    steps=st.lists(
        st.tuples(
            st.one_of(st.integers(-(10**12), 10**12), st.integers(-(10**17), 10**17)),
            KEYS,
            COSTS,
            st.sampled_from("aadprf"),
        ),
        max_size=50,
    ),
)
def test_twins_agree_when_the_clock_steps_back(rates, steps):
    clock = FakeClock()
    pair = limiters(rates, clock, max_keys=500)
    for step, key, cost, what in steps:
        clock.now += step
        if what == "f":
            for limiter in pair:
                limiter.refund(key, cost)
        elif what == "r":
            for limiter in pair:
                limiter.reset(key)
        else:
            ask = {"a": "allow", "d": "decide", "p": "peek"}[what]
            agreed([outcome(limiter, ask, key, cost) for limiter in pair])
        agreed([limiter.peek(key, 0) for limiter in pair])


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(
    rates=st.lists(RATES, min_size=1, max_size=3),
    steps=st.lists(st.tuples(st.integers(-(10**11), 10**10), st.integers(1, 6)), max_size=60),
)
def test_no_interval_admits_more_than_the_burst_and_the_rate(rates, steps):
    """At every tier, and where the clock steps back, by the time that went forward."""
    for name in twin_names():
        clock = FakeClock()
        limiter = Twin(name).keyed.RateLimiter(rates, clock=clock, max_keys=100)
        passed, forward = [], 0
        for step, cost in steps:
            clock.now += step
            forward += max(step, 0)
            if cost <= min(rate.burst for rate in rates) and limiter.allow("ann", cost):
                passed.append((forward, cost))
        for rate in rates:
            speed = Fraction(rate.limit) / Fraction(rate.period) / SECOND
            for first, (start, _) in enumerate(passed):
                total = 0
                for when, cost in passed[first:]:
                    total += cost
                    assert total <= (rate.burst + speed * (when - start)) * (1 + Fraction(1, 2**30))
