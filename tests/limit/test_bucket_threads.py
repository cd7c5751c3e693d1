"""Threads on one bucket: exactly what may pass does."""

import pytest
from threads import run_threads


def test_eight_threads_admit_exactly_the_capacity(twin):
    bucket = twin.bucket.TokenBucket(1000, 1, clock=lambda: 0)
    admitted = [0] * 8

    def work(number):
        for _ in range(400):
            admitted[number] += bucket.consume()

    run_threads(work)
    assert sum(admitted) == 1000
    bucket._check()


@pytest.mark.parametrize("cost", [3, 0.5])
def test_costs_are_conserved(twin, cost):
    bucket = twin.bucket.TokenBucket(900, 1, clock=lambda: 0)
    admitted = [0] * 8

    def work(number):
        for i in range(300):
            if i % 3:
                admitted[number] += bucket.consume(cost)
            elif i % 2:
                admitted[number] += bucket.decide(cost).allowed
            else:
                bucket.reserve(cost).cancel()

    run_threads(work)
    left = bucket.available
    assert sum(admitted) * cost + left == 900


def test_reconfigure_while_others_consume(twin):
    bucket = twin.bucket.TokenBucket(1000, 1, clock=lambda: 0)
    admitted = [0] * 8

    def work(number):
        if number == 0:
            for i in range(300):
                bucket.reconfigure(refill_rate=1 + i % 7 * 10**6)
            return
        for _ in range(400):
            admitted[number] += bucket.consume()

    run_threads(work)
    assert 995 <= sum(admitted) <= 1000
    bucket._check()


def test_a_reservation_is_cancelled_once(twin):
    bucket = twin.bucket.TokenBucket(100, 1, clock=lambda: 0)
    bucket.consume(50)
    booking = bucket.reserve(10)
    run_threads(lambda number: booking.cancel())
    assert bucket.available == 50.0
