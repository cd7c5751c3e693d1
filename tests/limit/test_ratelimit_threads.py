"""Many threads on one limiter: as many requests pass as with one thread."""

import pytest
from threads import run_threads

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9


def test_one_key(twin):
    limiter = twin.keyed.RateLimiter("1000/h", max_keys=100, clock=lambda: 0)
    passed = [0] * 8

    def work(number):
        passed[number] = sum(limiter.allow("ann") for _ in range(400))

    run_threads(work)
    assert sum(passed) == 1000
    limiter._check()


def test_new_keys_are_inserted_once(twin):
    limiter = twin.keyed.RateLimiter("3/h; 5/day", max_keys=4000, clock=lambda: 0)
    passed = [[] for _ in range(8)]

    def work(number):
        passed[number] = [key for key in range(300) if limiter.allow(key)]

    run_threads(work)
    counts = [sum(keys.count(key) for keys in passed) for key in range(300)]
    assert counts == [3] * 300
    limiter._check()


def test_refunds_and_charges_balance(twin):
    limiter = twin.keyed.RateLimiter("100/h; 1000/day", max_keys=100, clock=lambda: 0)

    def work(number):
        for _ in range(300):
            if limiter.allow("ann", 5):
                limiter.refund("ann", 5)

    run_threads(work)
    assert limiter.peek("ann").remaining == 100.0
    limiter._check()


def test_reconfiguring_meanwhile(twin):
    limiter = twin.keyed.RateLimiter("100/h", max_keys=100, clock=lambda: 0)
    passed = [0] * 8

    def work(number):
        for turn in range(100):
            if number == 0:
                limiter.reconfigure("100/h; 1000/day" if turn % 2 else "100/day")
                assert limiter.rates
            else:
                passed[number] += limiter.allow("ann")
                assert limiter.decide("bob", 0)

    run_threads(work)
    assert sum(passed) == 100
    limiter._check()
