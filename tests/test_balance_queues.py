"""What balancers that know their servers are worth: the tail of the times when a few servers are slow."""

import pytest
import queue_model


def p99(twin, name):
    """The 99th percentile of the times in the system, in mean service times of a fast server."""
    return queue_model.percentile(queue_model.times(
        lambda servers, clock: getattr(twin.balance, name)(servers, clock=clock, seed=1), 12_000), 0.99)


@pytest.mark.parametrize("name", ["PowerOfTwo", "PeakEWMA", "LeastLoaded"])
def test_load_bounds_the_queue(twin, name):
    assert p99(twin, name) < 10


@pytest.mark.parametrize("name", ["RoundRobin", "RandomChoice"])
def test_turns_and_draws_do_not_bound_it(twin, name):
    assert p99(twin, name) > 50
