"""Strict limits decision for decision: both twins, and a list of the times of each key."""

import pytest
from clocks import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twins import Twin, twin_names

from headgate import Decision, Rate

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9
EXAMPLES = settings.default.max_examples
KEYS = st.sampled_from(["ann", "bob", b"cid", 7])
RATES = st.lists(
    st.builds(Rate, st.integers(1, 12), st.sampled_from([0.001, 0.3, 1, 2.5, 10, 60])), min_size=1, max_size=3
)
COSTS = st.one_of(st.integers(0, 4), st.just(12), st.sampled_from([1.0, 2.0]))
STEPS = st.one_of(
    st.sampled_from([-1, 0, 1]),
    st.builds(
        lambda period, part, more: period * part // 4 + more,
        st.sampled_from([10**6, 3 * 10**8, SECOND, 10 * SECOND, 60 * SECOND]),
        st.sampled_from([1, 2, 4, 4, 4, 8]),
        st.sampled_from([-1, 0, 0, 0, 1]),
    ),
    st.integers(-100 * SECOND, 365 * 86400 * SECOND),
)


def period_of(rate):
    return round(rate.period * SECOND)


class StrictMachine(RuleBasedStateMachine):
    """A log of each key, cut to what the largest limit can look back upon."""

    @initialize(rates=RATES)
    def start(self, rates):
        self.clock = FakeClock()
        self.limiters = [
            Twin(name).keyed.RateLimiter(rates, strict=True, max_keys=4, clock=self.clock)
            for name in twin_names()
        ]
        self.rates = rates
        self.logs = {}

    def agreed(self, ask):
        results = [ask(limiter) for limiter in self.limiters]
        assert all(result == results[0] for result in results)
        return results[0]

    @property
    def longest(self):
        return max(map(period_of, self.rates))

    def settle(self, key):
        """A call that takes clamps what is ahead of the clock."""
        self.logs[key] = [min(time, self.clock.now) for time in self.logs.get(key, [])]

    def measured(self, key, cost, rate):
        """The entries that count in a window, how long a request waits, and until when any of them counts."""
        seen = sorted(min(time, self.clock.now) for time in self.logs.get(key, []))
        ends = [time + period_of(rate) - self.clock.now for time in seen]
        ends = [end for end in ends if end > 0]
        excess = len(ends) + int(cost) - rate.limit
        return len(ends), ends[excess - 1] if excess > 0 and cost else 0, ends[-1] if ends else 0

    def expected(self, key, cost, take):
        met = [self.measured(key, cost, rate) for rate in self.rates]
        waits = [wait for _, wait, _ in met]
        if any(waits):
            worst = waits.index(max(waits))
            used, wait, rest = met[worst]
            rate = self.rates[worst]
            left = float(max(0, rate.limit - used))
            return Decision(False, rate.limit, left, wait / 1e9, rest / 1e9, str(rate))
        taken = cost if take else 0
        left = [max(0, rate.limit - used - taken) for rate, (used, _, _) in zip(self.rates, met, strict=True)]
        worst = left.index(min(left))
        rate = self.rates[worst]
        rest = period_of(rate) if taken else met[worst][2]
        return Decision(True, rate.limit, float(left[worst]), 0.0, rest / 1e9, str(rate))

    def capped(self, cost):
        return min(cost, *[rate.limit for rate in self.rates])

    @rule(key=KEYS, cost=COSTS)
    def decide(self, key, cost):
        cost = self.capped(cost)
        self.settle(key)
        result = self.expected(key, cost, True)
        assert self.agreed(lambda limiter: limiter.decide(key, cost)) == result
        if result.allowed:
            self.log(key, cost)

    @rule(key=KEYS, cost=COSTS)
    def allow(self, key, cost):
        cost = self.capped(cost)
        self.settle(key)
        result = self.expected(key, cost, True).allowed
        assert self.agreed(lambda limiter: limiter.allow(key, cost)) == result
        if result:
            self.log(key, cost)

    def log(self, key, cost):
        most = max(rate.limit for rate in self.rates)
        self.logs[key] = sorted(self.logs.get(key, []) + [self.clock.now] * int(cost))[-most:]

    @rule(key=KEYS, cost=COSTS)
    def peek(self, key, cost):
        cost = self.capped(cost)
        assert self.agreed(lambda limiter: limiter.peek(key, cost)) == self.expected(key, cost, False)

    @rule(key=KEYS, cost=COSTS)
    def refund(self, key, cost):
        self.agreed(lambda limiter: limiter.refund(key, cost))
        self.settle(key)
        self.drop(key, int(cost))

    @rule(key=KEYS)
    def reset(self, key):
        self.agreed(lambda limiter: limiter.reset(key))
        self.settle(key)
        self.drop(key, len(self.logs[key]))

    def drop(self, key, count):
        """The oldest that count, and with them all before."""
        log = sorted(self.logs[key])
        counting = [time for time in log if time > self.clock.now - self.longest]
        if counting and count:
            self.logs[key] = counting[count:]

    @rule(step=STEPS)
    def wait(self, step):
        self.clock.now += step

    @rule(key=KEYS)
    def wait_until_allowed(self, key):
        self.settle(key)
        self.agreed(lambda limiter: limiter.allow(key, 0))
        self.clock.now += round(self.agreed(lambda limiter: limiter.peek(key)).retry_after * 1e9)
        assert self.agreed(lambda limiter: limiter.peek(key).allowed)

    @rule(rates=RATES)
    def reconfigure(self, rates):
        """What lies ahead of the clock is cut."""
        self.agreed(lambda limiter: limiter.reconfigure(rates))
        self.rates = rates
        most = max(rate.limit for rate in rates)
        self.logs = {
            key: sorted(min(time, self.clock.now) for time in log)[-most:]
            for key, log in self.logs.items()
            if log and max(log) > self.clock.now - self.longest
        }

    @rule()
    def check(self):
        for limiter in self.limiters:
            limiter._check()

    def teardown(self):
        for limiter in getattr(self, "limiters", []):
            limiter._check()
            assert limiter.evictions == 0


TestStrictMachine = StrictMachine.TestCase
TestStrictMachine.settings = settings(max_examples=2 * EXAMPLES, stateful_step_count=30, deadline=None)
