"""Decision for decision: both twins, an exact model of the rates, and one of a table that is full."""

import math
from fractions import Fraction

from conftest import FakeClock, Twin, twin_names
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from headgate import Rate

SECOND = 10**9
KEYS = st.sampled_from(["ann", "bob", b"cid", 7])
COSTS = st.one_of(st.integers(0, 6), st.sampled_from([0.5, 0.25, 1.75]))
RATES = st.builds(
    Rate,
    st.one_of(st.integers(1, 10**6), st.floats(0.1, 1000)),
    st.one_of(st.integers(1, 86400), st.floats(0.01, 100)),
    st.integers(6, 1000),
)
STEPS = st.one_of(
    st.integers(0, 10**9),
    st.integers(0, 3000).map(lambda ms: ms * 10**6),
    st.integers(0, 365 * 86400).map(lambda seconds: seconds * SECOND),
)


def limiters(rates, clock, **options):
    return [Twin(name).ratelimit.RateLimiter(rates, clock=clock, **options) for name in twin_names()]


def agreed(answers):
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


class ExactTier:
    """The tokens that each key owes, as fractions."""

    def __init__(self, rate):
        self.burst = Fraction(rate.burst)
        self.speed = Fraction(rate.limit) / Fraction(rate.period) / SECOND
        self.debts = {}

    def pass_time(self, nanoseconds):
        come = self.speed * nanoseconds
        self.debts = {key: max(Fraction(0), debt - come) for key, debt in self.debts.items()}

    def excess(self, key, cost):
        return self.debts.get(key, 0) + Fraction(cost) - self.burst


class RateMachine(RuleBasedStateMachine):
    """Any tiers; where rounding may decide, the twins' common answer is taken over."""

    @initialize(rates=st.lists(RATES, min_size=1, max_size=3))
    def start(self, rates):
        self.clock = FakeClock()
        self.limiters = limiters(rates, self.clock, max_keys=500)
        self.tiers = [ExactTier(rate) for rate in rates]
        self.slack = Fraction(1, 10**6)

    def expected(self, key, cost):
        """True or False, or None if it is within the rounding."""
        excess = [tier.excess(key, cost) for tier in self.tiers]
        if any(over > self.slack for over in excess):
            return cost == 0
        return None if any(over > -self.slack for over in excess) and cost else True

    def settle(self, key, cost, answer):
        wanted = self.expected(key, cost)
        assert wanted is None or answer == wanted
        if answer:
            for tier in self.tiers:
                tier.debts[key] = tier.debts.get(key, Fraction(0)) + Fraction(cost)

    @rule(key=KEYS, cost=COSTS)
    def allow(self, key, cost):
        self.settle(key, cost, agreed([limiter.allow(key, cost) for limiter in self.limiters]))

    @rule(key=KEYS, cost=COSTS)
    def decide(self, key, cost):
        decision = agreed([limiter.decide(key, cost) for limiter in self.limiters])
        self.settle(key, cost, decision.allowed)
        if decision.allowed:
            left = max(0, min(tier.burst - tier.debts.get(key, 0) for tier in self.tiers))
            assert math.isclose(decision.remaining, left, abs_tol=1e-5)

    @rule(key=KEYS, cost=COSTS)
    def peek(self, key, cost):
        decision = agreed([limiter.peek(key, cost) for limiter in self.limiters])
        wanted = self.expected(key, cost)
        assert wanted is None or decision.allowed == wanted
        if wanted is False:
            waits = [max(0, tier.excess(key, cost)) / tier.speed / SECOND for tier in self.tiers]
            slack = max(self.slack / tier.speed / SECOND for tier in self.tiers) + Fraction(2, SECOND)
            assert math.isclose(decision.retry_after, max(waits), abs_tol=slack, rel_tol=1e-9)

    @rule(key=KEYS, cost=COSTS)
    def refund(self, key, cost):
        for limiter in self.limiters:
            limiter.refund(key, cost)
        for tier in self.tiers:
            if key in tier.debts:
                tier.debts[key] -= min(Fraction(cost), tier.debts[key])

    @rule(key=KEYS)
    def reset(self, key):
        for limiter in self.limiters:
            limiter.reset(key)
        for tier in self.tiers:
            tier.debts.pop(key, None)

    @rule(step=STEPS)
    def wait(self, step):
        self.clock.now += step
        for tier in self.tiers:
            tier.pass_time(step)

    @rule(key=KEYS)
    def wait_until_allowed(self, key):
        retry_after = agreed([limiter.peek(key).retry_after for limiter in self.limiters])
        self.wait(math.ceil(retry_after * SECOND) + math.ceil(retry_after / 10**5))
        assert agreed([limiter.peek(key).allowed for limiter in self.limiters])

    @rule(rates=st.lists(RATES, min_size=1, max_size=3))
    def reconfigure(self, rates):
        for limiter in self.limiters:
            limiter.reconfigure(rates)
        before, self.tiers = self.tiers, [ExactTier(rate) for rate in rates]
        for old, tier in zip(before, self.tiers, strict=False):
            tier.debts = old.debts
        self.slack += Fraction(1, 10**6)

    def teardown(self):
        for limiter in getattr(self, "limiters", []):
            limiter._check()
            assert limiter.evictions == 0


TestRateMachine = RateMachine.TestCase
TestRateMachine.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


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


@settings(max_examples=150, deadline=None)
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
        answers = [limiter.allow(key, cost) for limiter in tables]
        assert answers == [model.allow(key, cost, clock.now)] * len(tables)
        assert {limiter.evictions for limiter in tables} == {model.evictions}
        for limiter in tables:
            limiter._check()


@settings(max_examples=150, deadline=None)
@given(
    rates=st.lists(RATES, min_size=1, max_size=2),
    steps=st.lists(
        st.tuples(st.integers(-(10**12), 10**12), KEYS, COSTS, st.sampled_from("aadprf")), max_size=50
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
            agreed([getattr(limiter, ask)(key, cost) for limiter in pair])
        agreed([limiter.peek(key, 0) for limiter in pair])


@settings(max_examples=150, deadline=None)
@given(
    rates=st.lists(RATES, min_size=1, max_size=3),
    steps=st.lists(st.tuples(st.integers(-(10**11), 10**10), st.integers(1, 6)), max_size=60),
)
def test_no_interval_admits_more_than_the_burst_and_the_rate(rates, steps):
    """At every tier, and where the clock steps back, by the time that went forward."""
    for name in twin_names():
        clock = FakeClock()
        limiter = Twin(name).ratelimit.RateLimiter(rates, clock=clock, max_keys=100)
        passed, forward = [], 0
        for step, cost in steps:
            clock.now += step
            forward += max(step, 0)
            if limiter.allow("ann", cost):
                passed.append((forward, cost))
        for rate in rates:
            speed = Fraction(rate.limit) / Fraction(rate.period) / SECOND
            for first, (start, _) in enumerate(passed):
                total = 0
                for when, cost in passed[first:]:
                    total += cost
                    assert total <= (rate.burst + speed * (when - start)) * (1 + Fraction(1, 2**30))
