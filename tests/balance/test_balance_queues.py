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


def clients(twin, name):
    return lambda servers, clock, client: getattr(twin.balance, name)(servers, clock=clock, seed=client)


BY_LOAD = ["PowerOfTwo", "PeakEWMA", "LeastLoaded"]


@pytest.mark.parametrize("name", ["PowerOfTwo", "PeakEWMA"])
def test_fifty_clients_do_not_herd(twin, name):
    median, _ = queue_model.many_clients(clients(twin, name), 4000)
    herd, _ = queue_model.many_clients(
        lambda servers, clock, _: getattr(twin.balance, name)(servers, clock=clock, seed=0), 4000)
    assert median < 2.6
    assert median < herd


@pytest.mark.parametrize(("servers", "refusing", "outcome"), [
    (10, 1, {"ok": False}), (3, 2, {"ok": False}), (5, 1, {"overloaded": True}),
])
@pytest.mark.parametrize("name", BY_LOAD)
def test_what_fails_at_once_gets_little(twin, name, servers, refusing, outcome):
    assert queue_model.refused(clients(twin, name), 2000, servers, refusing, outcome) < 0.12


@pytest.mark.parametrize("name", ["RandomChoice", *BY_LOAD])
def test_a_light_server_has_its_share_at_low_load(twin, name):
    def make(_, clock, client):
        return getattr(twin.balance, name)({"light": 1, "heavy": 4}, clock=clock, seed=client)

    assert 0.15 < queue_model.share_of_the_light(make, 3000) < 0.25
