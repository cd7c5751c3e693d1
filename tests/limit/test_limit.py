"""TokenBucket: what it allows, returns and refuses, with a clock that is moved by hand."""

import copy
import gc
import math
import os
import pickle
import weakref
from fractions import Fraction

import pytest
from finalizers import struck_at
from watchdog import in_a_thread

SECOND = 10**9


@pytest.fixture
def make(twin, clock):
    def make(capacity, refill_rate):
        return twin.bucket.TokenBucket(capacity, refill_rate, clock=clock)

    return make


def test_a_burst_then_the_rate(make, clock):
    bucket = make(3, 10)
    assert [bucket.consume() for _ in range(4)] == [True, True, True, False]
    clock.now += 100_000_000 - 1
    assert not bucket.consume()
    clock.now += 1
    assert bucket.consume()
    assert not bucket.consume()
    clock.now += 100 * SECOND
    assert [bucket.consume() for _ in range(4)] == [True, True, True, False]
    bucket._check()


@pytest.mark.parametrize("rate", ["0.1", "0.3", "3", "7", "10", "1000", "3.7", "1000000", "123456.789"])
def test_the_kth_token_comes_at_its_nanosecond(make, clock, rate):
    bucket = make(200, float(rate))
    assert bucket.consume(200)
    start = clock.now
    for k in range(1, 200):
        clock.now = start + math.ceil(k * SECOND / Fraction(rate)) - 1
        assert not bucket.consume()
        clock.now += 1
        assert bucket.consume()


def test_denied_means_untouched(make, clock):
    bucket = make(5, 1)
    assert bucket.consume(3)
    before = bucket.peek(0)
    for _ in range(10):
        assert not bucket.consume(3)
        assert not bucket.decide(3)
    assert bucket.peek(0) == before
    assert bucket.consume(2)


def test_fractions_of_tokens(make):
    bucket = make(1, 1)
    assert [bucket.consume(0.25) for _ in range(5)] == [True] * 4 + [False]
    assert make(2.5, 1).consume(2.5)
    bucket = make(1, 1)
    assert [bucket.consume(Fraction(1, 4)) for _ in range(5)] == [True] * 4 + [False]


def test_zero_tokens_are_always_there(make):
    bucket = make(1, 1)
    bucket.consume()
    assert bucket.consume(0)
    assert bucket.decide(0).allowed
    assert bucket.reserve(0).delay == 0


def test_decide_returns_the_state(make, clock):
    bucket = make(10, 2)
    assert bucket.decide(4) == (True, 10, 6.0, 0.0, 2.0, "2/s, burst 10")
    denied = bucket.decide(7)
    assert not denied
    assert denied == (False, 10, 6.0, 0.5, 2.0, "2/s, burst 10")
    clock.now += SECOND // 2
    assert bucket.decide(7)


def test_retry_after_is_exact(make, clock):
    for rate in (3, 7, 0.7, 12345.678, 1e9, 1 / 86400):
        bucket = make(5, rate)
        bucket.consume(5)
        wait = round(bucket.peek(3).retry_after * 1e9)
        clock.now += wait - 1 - wait // 10**13
        assert not bucket.peek(3)
        clock.now += 1 + 2 * (wait // 10**13)
        assert bucket.peek(3)


def test_peek_touches_nothing(make):
    bucket = make(2, 1)
    for _ in range(5):
        assert bucket.peek(2) == (True, 2, 2.0, 0.0, 0.0, "1/s, burst 2")
    assert bucket.consume(2)
    assert bucket.peek(1) == (False, 2, 0.0, 1.0, 2.0, "1/s, burst 2")


def test_reserve_and_cancel(make, clock):
    bucket = make(2, 1)
    first, second, third = bucket.reserve(2), bucket.reserve(1), bucket.reserve(2)
    assert [r.delay for r in (first, second, third)] == [0.0, 1.0, 3.0]
    assert third.tokens == 2
    assert not bucket.consume()
    third.cancel()
    third.cancel()
    assert bucket.peek(1).retry_after == 2.0
    clock.now += SECOND
    assert second.delay == 0.0
    assert bucket.peek(1).retry_after == 1.0
    second.cancel()
    assert bucket.peek(1).retry_after == 1.0
    bucket._check()


def test_cancel_refunds_less_what_has_elapsed(make, clock):
    bucket = make(4, 1)
    booking = bucket.reserve(4)
    clock.now += SECOND
    booking.cancel()
    assert bucket.available == 4.0
    booking = bucket.reserve(4)
    clock.now += 5 * SECOND
    booking.cancel()
    assert bucket.available == 4.0


def test_reserving_too_far_ahead(make):
    bucket = make(2**61, 1)
    bucket.reserve(2**61)
    bucket.reserve(2**61)
    with pytest.raises(ValueError, match=r"^tokens cannot be reserved that far ahead, got \d+$"):
        bucket.reserve(2**61)
    bucket._check()


def test_reconfigure_keeps_what_was_taken(make, clock):
    bucket = make(10, 1)
    bucket.consume(8)
    bucket.reconfigure(capacity=20)
    assert (bucket.capacity, bucket.refill_rate, bucket.available) == (20, 1, 12.0)
    bucket.reconfigure(capacity=4)
    assert bucket.available == 0.0
    assert bucket.peek().retry_after == 5.0
    bucket.reconfigure(refill_rate=1000)
    assert round(bucket.peek().retry_after, 6) == 0.005
    clock.now += SECOND
    assert bucket.available == 4.0
    bucket.reconfigure()
    bucket._check()


def test_reconfigure_refuses_and_changes_nothing(make):
    bucket = make(10, 1)
    for arguments in ({"capacity": 0}, {"refill_rate": math.nan}, {"capacity": 5, "refill_rate": -1}):
        with pytest.raises(ValueError, match="must be positive and finite"):
            bucket.reconfigure(**arguments)
    assert (bucket.capacity, bucket.refill_rate) == (10, 1)


@pytest.mark.parametrize("name", ["capacity", "refill_rate"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "must be positive and finite, got 0"),
        (-1, ValueError, "must be positive and finite, got -1"),
        (math.nan, ValueError, "must be positive and finite, got nan"),
        (math.inf, ValueError, "must be positive and finite, got inf"),
        (2**61 + 1, ValueError, f"must be at most {2**61}, got {2**61 + 1}"),
        ("1", TypeError, "must be a number, got '1'"),
        (None, TypeError, "must be a number, got None"),
    ],
)
def test_constructor_refuses(twin, name, value, error, message):
    arguments = {"capacity": 1, "refill_rate": 1, name: value}
    with pytest.raises(error) as caught:
        twin.bucket.TokenBucket(**arguments)
    assert str(caught.value) == f"{name} {message}"


@pytest.mark.parametrize("method", ["consume", "decide", "peek", "reserve", "acquire"])
@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (-1, ValueError, "tokens must be finite and non-negative, got -1"),
        (-0.5, ValueError, "tokens must be finite and non-negative, got -0.5"),
        (math.nan, ValueError, "tokens must be finite and non-negative, got nan"),
        (math.inf, ValueError, "tokens must be finite and non-negative, got inf"),
        (6, ValueError, "tokens must be at most the capacity 5, got 6"),
        (5.5, ValueError, "tokens must be at most the capacity 5, got 5.5"),
        (2**80, ValueError, f"tokens must be at most the capacity 5, got {2**80}"),
        (1e300, ValueError, "tokens must be at most the capacity 5, got 1e+300"),
        (Fraction(16, 3), ValueError, "tokens must be at most the capacity 5, got Fraction(16, 3)"),
        ("1", TypeError, "tokens must be a number, got '1'"),
    ],
)
def test_bad_tokens(make, method, tokens, error, message):
    bucket = make(5, 1)
    with pytest.raises(error) as caught:
        getattr(bucket, method)(tokens)
    assert str(caught.value) == message
    assert bucket.available == 5.0


@pytest.mark.parametrize("method", ["consume", "decide", "peek", "reserve"])
def test_no_lock_is_held_while_an_error_is_worded(make, method):
    bucket = make(2**60, 1)

    class Tokens(int):
        def __repr__(self):
            return f"these, of {bucket.available:g}"

    error = in_a_thread(getattr(bucket, method), Tokens(2**61))
    assert str(error) == f"tokens must be at most the capacity {2**60}, got these, of {2.0**60:g}"
    if method == "reserve":
        *_, error = [in_a_thread(bucket.reserve, Tokens(2**60)) for _ in range(5)]
        assert str(error) == "tokens cannot be reserved that far ahead, got these, of 0"


def test_clock_steps_back(make, clock):
    bucket = make(10, 1)
    assert bucket.consume(10)
    clock.now -= 3600 * SECOND
    assert not bucket.consume()
    clock.now += 9 * SECOND
    assert bucket.consume(9)
    assert not bucket.consume(2)
    clock.now -= 10**6 * SECOND
    assert not bucket.consume()
    clock.now += 10 * SECOND
    assert bucket.available == 10.0
    bucket._check()


def test_default_clock_runs(twin):
    bucket = twin.bucket.TokenBucket(1, 1000)
    assert bucket.consume()
    assert bucket.acquire(timeout=1)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (1.5, TypeError, "clock must return an int, got 1.5"),
        (None, TypeError, "clock must return an int, got None"),
        (2**62, ValueError, f"clock must return nanoseconds within 2**62 of zero, got {2**62}"),
    ],
)
def test_bad_clocks(twin, result, error, message):
    results = [0]
    bucket = twin.bucket.TokenBucket(1, 1, clock=lambda: results[0])
    results[0] = result
    for call in (bucket.consume, bucket.reserve, bucket.reconfigure):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == message
    results[0] = 0
    assert bucket.available == 1.0
    with pytest.raises(TypeError, match=r"^clock must be callable or None, got 5$"):
        twin.bucket.TokenBucket(1, 1, clock=5)


def test_a_clock_that_uses_the_bucket(twin):
    buckets, depth = [], [0]

    def clock():
        if buckets and depth[0] == 0:
            depth[0] = 1
            buckets[0].consume()
            buckets[0].reconfigure(capacity=7)
            depth[0] = 0
        return 0

    buckets.append(twin.bucket.TokenBucket(5, 1, clock=clock))
    assert buckets[0].consume(3)
    assert buckets[0].capacity == 7
    assert sum(buckets[0].consume() for _ in range(10)) <= 3
    buckets[0]._check()


def test_a_clock_that_raises(twin):
    fail = []

    def clock():
        if fail:
            raise ZeroDivisionError
        return 0

    bucket = twin.bucket.TokenBucket(1, 1, clock=clock)
    fail.append(1)
    for call in (bucket.consume, bucket.decide, bucket.reserve, bucket.reconfigure, bucket.acquire):
        with pytest.raises(ZeroDivisionError):
            call()
    fail.clear()
    assert bucket.consume()


@pytest.mark.parametrize(("capacity", "rate"), [(1e6, 1e10), (10**6, 3e9), (1e6, 8.5e9), (10**6, 10**10)])
def test_high_rates_lose_nothing_by_the_thousand(make, clock, capacity, rate):
    bucket = make(capacity, rate)
    bucket.consume(capacity)
    admitted = 0
    for _ in range(2000):
        clock.now += 997
        while bucket.consume(1000):
            admitted += 1000
    assert admitted == pytest.approx(rate * 2000 * 997e-9, abs=1000)


def test_low_rates(make, clock):
    bucket = make(2, 1 / 86400)
    assert bucket.consume(2)
    clock.now += 86_399 * SECOND
    assert not bucket.consume()
    clock.now += SECOND + 1
    assert bucket.consume()


@pytest.mark.parametrize("years", [1, 30, 100])
def test_long_idle_times(make, clock, years):
    bucket = make(5, 100)
    bucket.consume(5)
    clock.now += years * 365 * 86400 * SECOND
    bucket.consume(0)
    clock.now += SECOND
    assert bucket.consume(5)
    assert not bucket.consume()


@pytest.mark.parametrize("capacity", [1, 7, 1000, 2**40, 2**61, 0.1, 1e-6, 2.5])
@pytest.mark.parametrize("rate", [1e-300, 1e-9, 0.001, 1, 1e3, 1e10, 2**61])
def test_a_full_bucket_holds_its_capacity_exactly(make, capacity, rate):
    bucket = make(capacity, rate)
    assert bucket.consume(capacity)
    assert not bucket.consume(capacity / 2 if capacity < 2**50 else capacity // 2)
    bucket._check()


def test_no_copies_no_pickles(make):
    bucket = make(1, 1)
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^a TokenBucket cannot be copied or pickled"):
            call(bucket)
        with pytest.raises(TypeError, match=r"^a Reservation cannot be copied or pickled"):
            call(bucket.reserve())


def test_cancel_gives_back_nothing_that_others_took_meanwhile(twin):
    """A cancellation is delayed just after it has read the clock."""
    def clock():
        read = now[-1]
        if len(now) == 2:
            now.append(9_000_000_000)
            assert bucket.consume(9)
        return read

    now = [0]
    bucket = twin.bucket.TokenBucket(9, 1, clock=clock)
    booking = bucket.reserve(4)
    now.append(0)
    booking.cancel()
    assert bucket.available == 0


def test_repr(make):
    bucket = make(2.5, 10)
    assert repr(bucket) == "TokenBucket(capacity=2.5, refill_rate=10)"
    assert repr(bucket.reserve(2)) == "Reservation(tokens=2)"


def test_cycles_are_collected(twin):
    class Owner:
        def clock(self):
            return 0

    owner = Owner()
    owner.bucket = twin.bucket.TokenBucket(1, 1, clock=owner.clock)
    owner.booking = owner.bucket.reserve()
    seen = weakref.ref(owner), weakref.ref(owner.bucket)
    del owner
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


# amid a call


STEPS = 60


@pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl")
@pytest.mark.parametrize("act", ["consume", "cancel"])
@pytest.mark.parametrize("call", ["consume", "reserve"])
def test_a_finalizer_amid_a_call_finds_the_file_whole(twin, clock, tmp_path, call, act):
    path = tmp_path / "limit"
    for step in range(STEPS):
        bucket, other = (twin.bucket.TokenBucket(4, 1, path=path, clock=clock) for _ in range(2))
        reserved = bucket.reserve()
        acts = {"consume": bucket.consume, "cancel": reserved.cancel}
        with struck_at(step, acts[act]):
            getattr(bucket, call)()
        assert other.consume(0), "no process holds the lock"
        bucket._check()
        path.unlink()


@pytest.mark.parametrize("act", ["consume", "decide", "reserve", "cancel", "reconfigure"])
@pytest.mark.parametrize("call", ["consume", "decide", "reserve", "cancel", "reconfigure"])
def test_a_finalizer_amid_a_call_finds_the_bucket_whole(twin, clock, call, act):
    for step in range(STEPS):
        bucket = twin.bucket.TokenBucket(4, 1, clock=clock)
        reserved = [bucket.reserve(), bucket.reserve()]
        taken = []

        def do(what, bucket=bucket, reserved=reserved, taken=taken):
            if what == "cancel":
                reserved.pop().cancel()
                taken.append(-1)
            elif what == "reconfigure":
                bucket.reconfigure(4, 1)
            else:
                taken.append(bool(getattr(bucket, what)()))

        with struck_at(step, lambda do=do: do(act)):
            do(call)
        assert bucket.available == 2 - sum(taken)
        bucket._check()
