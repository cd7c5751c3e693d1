"""RetryBudget beside an exact count, and its errors."""

import copy
import math
import pickle
import random
from fractions import Fraction

import pytest
from clocks import FakeClock
from threads import run_threads

from headgate import RetryBudget


def test_a_share_of_the_requests():
    budget = RetryBudget(share=0.25, per_second=0, clock=FakeClock())
    granted = 0
    for number in range(1, 1001):
        budget.deposit()
        granted += budget.withdraw()
        assert granted == number // 4


def test_a_reserve_for_quiet_times(clock):
    budget = RetryBudget(share=0, per_second=3, window=10, clock=clock)
    assert [budget.withdraw() for _ in range(31)] == [True] * 30 + [False]
    clock.advance(8.9)
    assert not budget.withdraw()
    clock.advance(2.2)
    assert budget.balance == 30


def test_it_forgets_what_is_older_than_the_window():
    """Against an exact model that counts tenths of the window, under random times."""
    draw, clock = random.Random(7), FakeClock(0)
    budget = RetryBudget(share=0.5, per_second=0.5, window=2, clock=clock)
    requests, retries = [], []
    for _ in range(1500):
        clock.advance(draw.choice([0, 0.01, 0.1, 0.3, 1.5]))
        tenth = clock.now // 200_000_000
        recent = [[at for at in times if at > tenth - 10] for times in (requests, retries)]
        balance = 1 + Fraction(len(recent[0]), 2) - len(recent[1])
        assert budget.balance == balance
        if draw.random() < 0.5:
            budget.deposit()
            requests.append(tenth)
        else:
            assert budget.withdraw() == (balance >= 1)
            if balance >= 1:
                retries.append(tenth)


def test_a_clock_that_steps_back_grants_no_more(clock):
    budget = RetryBudget(share=0, per_second=1, window=10, clock=clock)
    assert [budget.withdraw() for _ in range(11)] == [True] * 10 + [False]
    clock.advance(-0.5)
    assert not budget.withdraw()
    clock.advance(-3600)
    assert not budget.withdraw()
    clock.advance(3700)
    assert budget.withdraw()


def test_threads_get_no_more_than_there_is(clock):
    budget, granted = RetryBudget(share=0.5, per_second=0, clock=clock), []

    def work(number):
        for _ in range(200):
            budget.deposit()
            granted.append(budget.withdraw())

    run_threads(work)
    assert sum(granted) <= 800
    assert budget.balance == 800 - sum(granted)


WRONG = [
    (lambda: RetryBudget(share=1.5), ValueError, "share must be from 0 to 1, got 1.5"),
    (lambda: RetryBudget(share=-0.1), ValueError, "share must be from 0 to 1, got -0.1"),
    (lambda: RetryBudget(per_second=math.nan), ValueError, "per_second must be from 0 to 1000000, got nan"),
    (lambda: RetryBudget(window=0.5), ValueError, "window must be from 1 to 86400, got 0.5"),
    (lambda: RetryBudget(clock=5), TypeError, "clock must be callable or None, got 5"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_arguments(act, error, message):
    with pytest.raises(error) as caught:
        act()
    assert caught.value.args == (message,)
    with pytest.raises(TypeError, match="share must be"):
        RetryBudget("0.2")


def test_repr_and_what_it_refuses():
    budget = RetryBudget(clock=FakeClock())
    assert repr(budget) == "<RetryBudget share=0.2 per_second=10 balance=100>"
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"cannot (copy|pickle) 'RetryBudget' object"):
            act(budget)
