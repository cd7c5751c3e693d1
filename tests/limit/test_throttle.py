"""Throttle: Google SRE's rule over a window, to the letter and in effect."""

import copy
import pickle
from random import Random

import pytest
from finalizers import struck_at
from hypothesis import given
from hypothesis import strategies as st
from threads import run_threads

from headgate import Throttle

BIN = 2 * 10**9


def probability(requests, accepts, k=2.0):
    return max(0.0, (requests - k * accepts) / (requests + 1))


PAUSES = st.integers(0, 200) | st.integers(0, 10**7)
STEPS = st.lists(st.tuples(st.sampled_from(["allow", "accept"]), PAUSES, st.floats(0, 0.99)), max_size=200)


@given(steps=STEPS, k=st.sampled_from([1.0, 1.5, 2]))
def test_as_the_rule_says(steps, k):
    now, drawn, events = [0], [0.0], []
    throttle = Throttle(k, random=lambda: drawn[0], clock=lambda: now[0])
    for what, pause, drawn[0] in steps:
        now[0] += pause * 10**9
        first = now[0] // BIN - 59
        kept = [kind for at, kind in events if at // BIN >= first]
        requests, accepts = kept.count("allow"), kept.count("accept")
        assert (throttle.requests, throttle.accepts) == (requests, accepts)
        assert throttle.rejection_probability == probability(requests, accepts, k)
        if what == "allow":
            assert throttle.allow() is (drawn[0] >= probability(requests, accepts, k))
        else:
            throttle.accept()
        events.append((now[0], what))
        throttle._check()


def send(throttle, clock, capacity, seconds=600):
    """The share of ten requests a second that is sent to a server that accepts `capacity` a second."""
    sent = 0
    for _ in range(seconds):
        left = capacity
        for _ in range(10):
            clock.advance(0.1)
            if throttle.allow():
                sent += 1
                if left > 0:
                    left -= 1
                    throttle.accept()
    return sent / (10 * seconds)


def test_a_server_that_accepts_half_gets_everything(clock):
    assert send(Throttle(clock=clock), clock, 10) == 1.0
    assert send(Throttle(clock=clock), clock, 5) > 0.99


def test_a_server_that_accepts_less_gets_twice_what_it_accepts(clock):
    throttle = Throttle(random=Random(5).random, clock=clock)
    send(throttle, clock, 2)
    assert 0.35 < send(throttle, clock, 2) < 0.45


def test_a_server_that_accepts_nothing_is_spared_but_not_forgotten(clock):
    throttle = Throttle(random=Random(5).random, clock=clock)
    send(throttle, clock, 0)
    assert 0 < send(throttle, clock, 0, 1_200) < 0.003
    send(throttle, clock, 10, 1_800)
    assert throttle.rejection_probability == 0.0
    throttle._check()


def test_the_window_passes(clock):
    throttle = Throttle(window=60, clock=clock)
    for _ in range(10):
        throttle.allow()
        clock.advance(1)
    clock.advance(48.9)
    assert throttle.requests in (9, 10)
    clock.advance(60)
    assert (throttle.requests, throttle.accepts, throttle.rejection_probability) == (0, 0, 0.0)
    assert repr(throttle) == "<Throttle requests=0 accepts=0>"


def test_a_clock_that_steps_back_a_little_loses_nothing(clock):
    throttle = Throttle(clock=clock)
    throttle.allow()
    clock.advance(-100)
    throttle.accept()
    assert (throttle.requests, throttle.accepts) == (1, 1)
    clock.advance(218)
    assert (throttle.requests, throttle.accepts) == (1, 1)
    clock.advance(2)
    assert (throttle.requests, throttle.accepts) == (0, 0)
    throttle._check()


def test_a_clock_that_steps_back_far_heals_within_a_window(clock):
    throttle = Throttle(clock=clock)
    throttle.allow()
    clock.advance(-100_000)
    throttle.accept()
    assert (throttle.requests, throttle.accepts) == (1, 1)
    clock.advance(120)
    assert (throttle.requests, throttle.accepts) == (0, 0)
    throttle._check()


def test_threads_lose_no_count():
    throttle = Throttle(random=lambda: 0.999)

    def work(_):
        for _ in range(200):
            throttle.allow()
            throttle.accept()

    run_threads(work)
    assert (throttle.requests, throttle.accepts) == (1600, 1600)
    throttle._check()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0.5}, ValueError, "k must be finite and at least 1, got 0.5"),
        ({"k": float("nan")}, ValueError, "k must be finite and at least 1, got nan"),
        ({"k": "2"}, TypeError, "k must be a number, got '2'"),
        ({"window": 0}, ValueError, "window must be positive and finite, got 0"),
        ({"window": 1e9}, ValueError, "window must be at most 100000000, got 1000000000.0"),
        ({"random": 0.5}, TypeError, "random must be callable or None, got 0.5"),
        ({"clock": 1}, TypeError, "clock must be callable or None, got 1"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        Throttle(**options)


def test_neither_copies_nor_pickles():
    for make in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="a Throttle cannot be copied or pickled"):
            make(Throttle())


@pytest.mark.parametrize("window", [10, 120])
def test_after_an_outage_all_is_sent_again_in_eight_windows(clock, window):
    for seed in range(3):
        throttle = Throttle(window=window, random=Random(seed).random, clock=clock)
        for request in range(11 * 100 * window):
            clock.advance(0.01)
            if throttle.allow() and request > 3 * 100 * window:
                throttle.accept()
        assert throttle.rejection_probability == 0


@pytest.mark.parametrize("act", ["allow", "accept"])
@pytest.mark.parametrize("call", ["allow", "accept"])
def test_a_finalizer_amid_a_call_finds_the_throttle_whole(clock, call, act):
    for step in range(40):
        throttle = Throttle(window=60, clock=clock)
        for _ in range(3):
            throttle.allow()
            throttle.accept()
        clock.advance(50)
        acts = [call]

        def strike(throttle=throttle, acts=acts):
            getattr(throttle, act)()
            acts.append(act)

        with struck_at(step, strike):
            getattr(throttle, call)()
        throttle._check()
        assert (throttle.requests, throttle.accepts) == (3 + acts.count("allow"), 3 + acts.count("accept"))
