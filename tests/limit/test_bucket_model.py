"""Decision for decision, both twins and an exact model in fractions."""

import math
from fractions import Fraction

import pytest
from clocks import FakeClock
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twins import Twin, twin_names

SECOND = 10**9
AMOUNTS = st.one_of(st.integers(0, 12), st.floats(0, 12).map(lambda x: round(x, 3)))
RATES = st.one_of(
    st.integers(1, 10**10),
    st.floats(1e-5, 1e10),
    st.sampled_from([0.1, 1 / 3, 10 / 60, 2.5, 1e9]),
)


EXAMPLES = settings.default.max_examples


class ExactBucket:
    """When nothing is owed any more, in tokens: the time is what the refill has brought up to it."""

    def __init__(self, capacity, rate):
        self.capacity, self.rate = Fraction(capacity), Fraction(rate)
        self.ceiling = self.capacity
        self.end = -math.inf

    def beyond(self, now):
        """How far ahead the end is, however far."""
        return max(0, self.end - self.rate * now / SECOND)

    def owed(self, now):
        return min(self.beyond(now), self.ceiling)

    def take(self, tokens, now):
        self.end = self.rate * now / SECOND + self.owed(now) + Fraction(tokens)
        self.ceiling = max(self.ceiling, self.beyond(now))

    def clamp(self, now):
        self.end = min(self.end, self.rate * now / SECOND + self.ceiling)

    def give(self, tokens, booked, now):
        back = tokens - self.rate * max(0, now - booked) / SECOND
        self.end -= min(max(back, 0), self.beyond(now))


class BucketMachine(RuleBasedStateMachine):
    """At a rate in whole tokens and at whole microseconds the model decides exactly, as long as nothing was
    given back or carried over to another rate; else where rounding may decide, the twins do.
    """

    @initialize(
        capacity=st.one_of(st.integers(1, 12), st.floats(0.5, 12)),
        rate=st.one_of(st.integers(1, 1000), st.floats(0.01, 10**6)),
    )
    def start(self, capacity, rate):
        self.clock = FakeClock()
        self.begun = self.clock.now
        self.buckets = [
            Twin(name).bucket.TokenBucket(capacity, rate, clock=self.clock) for name in twin_names()
        ]
        self.model = ExactBucket(capacity, rate)
        self.exact = isinstance(rate, int) and isinstance(capacity, int)
        self.slack = Fraction(1, 10**9) if self.exact else self.units(rate)
        self.bookings = []

    def units(self, rate):
        """What rounding may amount to: a unit for each of some operations."""
        return Fraction(1, 10**6) + Fraction(rate) / 2**25

    def expect(self, tokens):
        return self.model.owed(self.clock.now) + Fraction(tokens) - self.model.capacity

    def close(self, excess):
        """Whether rounding may decide."""
        return abs(excess) < self.slack and (excess != 0 or not self.exact)

    def same_time(self, result, tokens):
        """Whether `result` is the seconds in which `tokens` come, by so much."""
        slack = 2e-9 + float(self.slack / self.model.rate)
        return math.isclose(result, max(0, tokens) / self.model.rate, abs_tol=slack, rel_tol=1e-9)

    @rule(tokens=st.integers(0, 12))
    def consume(self, tokens):
        if 0 < tokens - self.model.capacity <= self.slack:
            return  # rounding decides whether they are too many
        excess = self.expect(tokens)
        results = []
        for bucket in self.buckets:
            try:
                results.append(bucket.consume(tokens))
            except ValueError:
                results.append(ValueError)
        assert len(set(results)) == 1
        if tokens > self.model.capacity:
            assert results[0] is ValueError
            return
        if not self.close(excess):
            assert results[0] == (excess <= 0 or tokens == 0)
        self.model.clamp(self.clock.now)
        if results[0] and tokens:
            self.model.take(tokens, self.clock.now)

    @precondition(lambda self: not self.exact)
    @rule(tokens=AMOUNTS)
    def consume_a_part(self, tokens):
        self.consume(tokens)

    @rule(tokens=AMOUNTS)
    def peek(self, tokens):
        if tokens > self.model.capacity:
            return
        excess = self.expect(tokens)
        results = [bucket.peek(tokens) for bucket in self.buckets]
        assert all(result == results[0] for result in results)
        result = results[0]
        if not self.close(excess):
            assert result.allowed == (excess <= 0 or tokens == 0)
        owed = self.model.owed(self.clock.now)
        left = max(Fraction(0), self.model.capacity - owed)
        assert math.isclose(result.remaining, left, abs_tol=1e-6 + float(self.slack))
        if not result.allowed:
            assert self.same_time(result.retry_after, excess)
        assert self.same_time(result.reset_after, owed)

    @rule(tokens=st.integers(0, 12))
    def reserve(self, tokens):
        if tokens > self.model.capacity:
            return
        excess = self.expect(tokens)
        bookings = [bucket.reserve(tokens) for bucket in self.buckets]
        assert len({booking.delay for booking in bookings}) == 1
        assert self.same_time(bookings[0].delay, excess)
        self.model.clamp(self.clock.now)
        if tokens:
            self.model.take(tokens, self.clock.now)
        self.bookings.append((bookings, tokens, self.clock.now))

    @precondition(lambda self: self.bookings)
    @rule(which=st.integers(0, 100))
    def cancel(self, which):
        bookings, tokens, booked = self.bookings.pop(which % len(self.bookings))
        self.model.give(tokens, booked, self.clock.now)
        self.exact = False
        self.slack = max(self.slack, self.units(self.model.rate))
        for booking in bookings:
            booking.cancel()
            booking.cancel()

    @rule(microseconds=st.integers(0, 2_000_000))
    def wait(self, microseconds):
        self.clock.now += 1000 * microseconds

    @rule(microseconds=st.one_of(st.integers(0, 2_000_000), st.integers(0, 50_000_000)))
    def step_back(self, microseconds):
        self.clock.now = max(self.clock.now - 1000 * microseconds, self.begun)

    @precondition(lambda self: self.model.capacity >= 1)
    @rule()
    def wait_until_allowed(self):
        self.consume(0)  # as after a step back a peek does not cut what is owed
        decision = self.buckets[0].peek(1)
        self.clock.now += round(decision.retry_after * SECOND)
        assert all(bucket.peek(1).allowed for bucket in self.buckets)

    @precondition(lambda self: not self.bookings)
    @rule(capacity=st.integers(1, 12), rate=st.integers(1, 1000))
    def reconfigure(self, capacity, rate):
        owed = self.model.owed(self.clock.now)
        for bucket in self.buckets:
            bucket.reconfigure(capacity, rate)
        self.model = ExactBucket(capacity, rate)
        self.model.end = self.model.rate * self.clock.now / SECOND + owed
        self.model.ceiling = max(self.model.capacity, owed)
        self.exact = False
        self.slack += self.units(rate)

    @invariant()
    def whole(self):
        for bucket in self.buckets:
            bucket._check()
        states = {(bucket.available, bucket.peek(0).reset_after) for bucket in self.buckets}
        assert len(states) == 1


TestBucketMachine = BucketMachine.TestCase
TestBucketMachine.settings = settings(max_examples=2 * EXAMPLES, stateful_step_count=40, deadline=None)


STEPS = st.lists(
    st.tuples(st.integers(-(10**9), 3 * 10**9), st.integers(0, 10**6), st.sampled_from("ccccdpr")),
    max_size=60,
)


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(capacity=st.one_of(st.integers(1, 10**6), st.floats(0.5, 1e6)), rate=RATES, steps=STEPS)
@example(capacity=1, rate=1, steps=[(-10**9, 0, "c"), (-1000, 0, "r"), (333_333_334, 2, "c")])
def test_twins_agree_on_everything(capacity, rate, steps):
    """Any rate, any step of the clock, backwards too."""
    clock = FakeClock()
    buckets = [Twin(name).bucket.TokenBucket(capacity, rate, clock=clock) for name in twin_names()]
    for step, tokens, what in steps:
        clock.now += step
        if tokens > capacity:
            tokens = capacity / 3
        if what == "c":
            results = [bucket.consume(tokens) for bucket in buckets]
        elif what == "d":
            results = [bucket.decide(tokens) for bucket in buckets]
        elif what == "p":
            results = [bucket.peek(tokens) for bucket in buckets]
        else:
            bookings = [bucket.reserve(tokens) for bucket in buckets]
            results = [booking.delay for booking in bookings]
            if tokens % 2 < 1:
                for booking in bookings:
                    booking.cancel()
        assert all(result == results[0] for result in results)
        assert len({bucket.peek(0) for bucket in buckets}) == 1
        for bucket in buckets:
            bucket._check()


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(
    capacity=st.integers(1, 50),
    rate=st.one_of(st.integers(1, 1000), st.floats(0.01, 1000)),
    steps=st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 50), st.booleans()), max_size=60),
)
def test_no_interval_admits_more_than_the_burst_and_the_rate(capacity, rate, steps):
    for name in twin_names():
        clock = FakeClock()
        bucket = Twin(name).bucket.TokenBucket(capacity, rate, clock=clock)
        taken = []
        for step, tokens, give_back in steps:
            clock.now += step
            tokens = min(tokens, capacity)
            if give_back:
                booking = bucket.reserve(tokens)
                clock.now += step // 7
                booking.cancel()
            elif bucket.consume(tokens):
                taken.append((clock.now, tokens))
        for first in range(len(taken)):
            total = 0
            for when, tokens in taken[first:]:
                total += tokens
                allowed = capacity + Fraction(rate) * (when - taken[first][0]) / SECOND
                assert total <= allowed * (1 + Fraction(1, 2**45))


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(capacity=st.integers(1, 1000), rate=RATES, steps=st.lists(st.integers(-(10**10), 10**9), max_size=40))
def test_a_clock_that_steps_back_never_over_admits(capacity, rate, steps):
    """What passes is at most the burst and what the steps forward bring."""
    for name in twin_names():
        clock = FakeClock()
        bucket = Twin(name).bucket.TokenBucket(capacity, rate, clock=clock)
        admitted, forward = 0, 0
        for step in steps:
            clock.now += step
            forward += max(step, 0)
            while admitted < 10**4 and bucket.consume():
                admitted += 1
        assert admitted <= capacity + Fraction(rate) * forward / SECOND * (1 + Fraction(1, 2**45)) + 1
        bucket.consume(0)  # the first call after a step back detects it
        clock.now += math.ceil(capacity * SECOND / rate) + 3  # the units of two readings are rounded down
        assert bucket.consume(capacity), "the debt ends within the time that an empty bucket takes to fill"


def test_refused_requests_change_nothing_after_the_clock_stepped_back(both_twins):
    """Decisions clamp a debt above the ceiling; calls that raise do not, in either twin."""
    states = []
    for twin in both_twins:
        clock = FakeClock()
        bucket = twin.bucket.TokenBucket(1, 1, clock=clock)
        clock.now -= 3 * SECOND
        for refused in (bucket.consume, bucket.reserve):
            with pytest.raises(ValueError, match=r"^tokens must be at most the capacity 1, got 2$"):
                refused(2)
        clock.now += 5 * SECOND // 2
        states.append(bucket.peek())
    assert states[0] == states[1]
    assert states[0].remaining == pytest.approx(0.5)
