"""What each server gets: random starts, shares by weight; failures, refusals and slow starts."""

import os
from collections import Counter
from heapq import heappop, heappush
from random import Random

import pytest

BY_WEIGHT = ["WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA"]
BY_LOAD = ["LeastLoaded", "PowerOfTwo", "PeakEWMA"]
KEYLESS = ["RoundRobin", *BY_WEIGHT]
SECOND = 10**9


def served(balancer, clock, callers, requests, serve):
    """The servers of so many requests from callers that wait for one at a time.

    `serve` is called with a server and returns the seconds it takes and what `done` is called with.
    """
    running, got = [], []
    for number in range(requests):
        if number >= callers:
            clock.now, _, pick, outcome = heappop(running)
            pick.done(**outcome)
        pick = balancer.pick(number)
        got.append(pick.server)
        seconds, outcome = serve(pick.server)
        heappush(running, (clock.now + round(seconds * SECOND), number, pick, outcome))
    while running:
        heappop(running)[2].done()
    balancer._check()
    return got


# ---- seeds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEYLESS)
def test_fresh_balancers_begin_anywhere(twin, name):
    first = Counter(getattr(twin.balance, name)(range(10)).get_server() for _ in range(500))
    assert len(first) == 10
    assert max(first.values()) < 120


@pytest.mark.parametrize("name", KEYLESS)
def test_a_seed_fixes_the_sequence(twins, name):
    sequences = set()
    for twin in twins:
        for _ in range(2):
            balancer = getattr(twin.balance, name)({"a": 1, "b": 2, "c": 3}, seed=7)
            sequences.add("".join(balancer.get_server() for _ in range(60)))
    assert len(sequences) == 1


@pytest.mark.parametrize(("name", "first"), [("RoundRobin", "abc"), ("WeightedRoundRobin", "aab")])
def test_round_robins_with_a_seed_begin_at_the_first_server(twin, name, first):
    balancer = getattr(twin.balance, name)({"a": 5, "b": 1, "c": 1}, seed=3)
    assert "".join(balancer.get_server() for _ in range(3)) == first


def test_a_sequence_without_a_seed_is_the_one_of_nginx_from_another_place(twin):
    places = set()
    for _ in range(200):  # one of the seven places is missed once in 10**12 runs
        balancer = twin.balance.WeightedRoundRobin({"a": 5, "b": 1, "c": 1})
        sequence = "".join(balancer.get_server() for _ in range(14))
        assert sequence in "aabacaa" * 3
        places.add(("aabacaa" * 3).index(sequence))
    assert len(places) == 7


# ---- weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("callers", [1, 2, 5, 20])
@pytest.mark.parametrize("fleet", [{"a": 1, "b": 4}, {"a": 1, "b": 1.01}, {"a": 1, "b": 2, "c": 3, "d": 1}])
@pytest.mark.parametrize("name", BY_WEIGHT)
def test_shares_are_those_of_the_weights(twin, clock, name, fleet, callers):
    draw = Random(5)
    got = Counter(served(getattr(twin.balance, name)(fleet, clock=clock, seed=2), clock, callers, 3000,
                         lambda _: (draw.uniform(0.04, 0.06), {})))
    for server, weight in fleet.items():
        share = weight / sum(fleet.values())
        assert 0.75 * share < got[server] / 3000 < 1.25 * share


@pytest.mark.parametrize("name", BY_WEIGHT)
def test_many_callers_of_one_request_each_share_by_weight(twin, name):
    cls = getattr(twin.balance, name)
    got = Counter(cls({"a": 1, "b": 4}).get_server() for _ in range(1000))
    assert 100 < got["a"] < 310


@pytest.mark.parametrize("name", BY_LOAD)
def test_extreme_weights(twin, name):
    balancer = getattr(twin.balance, name)({"a": 1e100, "b": 1e-100, "c": 1e100}, seed=1)
    picks = [balancer.pick() for _ in range(40)]
    assert {pick.server for pick in picks} <= {"a", "b", "c"}
    assert balancer.get_server(exclude=["a", "c"]) == "b"
    balancer._check()


# ---- failures -------------------------------------------------------------------------------


def failing(bad, **outcome):
    draw = Random(6)

    def serve(server):
        if server in bad:
            return 0.001, outcome or {"ok": False}
        return draw.expovariate(20), {}

    return serve


@pytest.mark.parametrize("callers", [1, 5, 50])
@pytest.mark.parametrize("name", KEYLESS)
def test_two_of_three_servers_that_fail_at_once_are_left(twin, clock, name, callers):
    balancer = getattr(twin.balance, name)(["good", "bad", "worse"], clock=clock, seed=1)
    got = served(balancer, clock, callers, 3000, failing({"bad", "worse"}))
    assert Counter(got[500:])["good"] > 0.98 * 2500


@pytest.mark.parametrize("callers", [1, 5, 50])
@pytest.mark.parametrize("name", BY_LOAD)
@pytest.mark.parametrize("outcome", [{"ok": False}, {"overloaded": True}, {"ok": False, "overloaded": True}])
def test_what_fails_or_refuses_does_not_look_fast(twin, clock, name, callers, outcome):
    balancer = getattr(twin.balance, name)(range(5), clock=clock, seed=1, max_failures=None)
    got = served(balancer, clock, callers, 3000, failing({0}, **outcome))
    assert got.count(0) < 0.1 * 3000


@pytest.mark.parametrize("callers", [5, 50])
@pytest.mark.parametrize("name", BY_LOAD)
@pytest.mark.parametrize("fleet", [{0: 1, 1: 1, 2: 1}, {0: 2, 1: 3, 2: 4}])
def test_two_of_three_servers_that_refuse_get_little(twin, clock, name, fleet, callers):
    balancer = getattr(twin.balance, name)(fleet, clock=clock, seed=1)
    got = served(balancer, clock, callers, 3000, failing({0, 1}, overloaded=True))
    assert got.count(2) > 0.9 * 3000


@pytest.mark.parametrize("name", BY_LOAD)
def test_a_refusal_is_no_failure(twin, clock, name):
    balancer = getattr(twin.balance, name)(["a", "b"], clock=clock, max_failures=2, success_rate=1)
    for _ in range(30):
        balancer.pick(exclude=["b"]).done(overloaded=True)
    assert [record.health for record in balancer.records] == ["healthy", "healthy"]
    assert {balancer.pick().server for _ in range(8)} == {"b"}
    clock.advance(31)
    balancer.remove_server("b")
    balancer._check()
    assert balancer.pick().server == "a"


@pytest.mark.parametrize("name", BY_LOAD)
def test_one_failure_is_soon_forgotten(twin, clock, name):
    balancer = getattr(twin.balance, name)(["a", "b"], clock=clock, seed=1)
    balancer.pick(exclude=["b"]).done(False)
    assert {balancer.get_server() for _ in range(20)} == {"b"}
    clock.advance(1)
    assert served(balancer, clock, 2, 20, lambda _: (0.05, {})).count("a") == 10
    balancer.pick(exclude=["b"]).done(False)
    with balancer.pick(exclude=["b"]):
        pass
    assert served(balancer, clock, 2, 20, lambda _: (0.05, {})).count("a") == 10


def test_penalties_follow_a_clock_that_steps_back(twin, clock):
    balancer = twin.balance.LeastLoaded(["a", "b"], clock=clock, seed=1)
    balancer.pick(exclude=["b"]).done(False)
    clock.now -= 500 * SECOND
    balancer._check()
    assert balancer.get_server() == "b"
    clock.advance(1)
    picks = [balancer.pick(), balancer.pick()]
    assert {pick.server for pick in picks} == {"a", "b"}


@pytest.mark.parametrize(("servers", "share", "left"), [
    (1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.5, 5), (10, 0.1, 9), (10, 0, 10), (3, 1, 1),
])
def test_a_cap_on_the_share_that_is_ejected_at_once(twin, clock, servers, share, left):
    balancer = twin.balance.RoundRobin(range(servers), clock=clock, max_ejected=share, panic_threshold=0)
    for _ in range(20 * servers):
        balancer.pick().done(False)
    assert [record.health for record in balancer.records].count("healthy") == left
    assert len({balancer.get_server() for _ in range(3 * servers)}) == left
    balancer._check()


@pytest.mark.parametrize("name", BY_LOAD)
def test_panic_spreads_evenly(twin, clock, name):
    balancer = getattr(twin.balance, name)(["good", "bad", "worse"], clock=clock, seed=1, panic_threshold=1,
                                           max_failures=1, ejection_time=3600)
    got = Counter(served(balancer, clock, 5, 3000, failing({"bad", "worse"}))[500:])
    assert all(abs(count - 2500 / 3) < 120 for count in got.values())


@pytest.mark.parametrize("name", KEYLESS)
def test_a_draining_or_removed_server_is_not_judged(twin, clock, name):
    balancer = getattr(twin.balance, name)(["a", "b", "c"], clock=clock, max_failures=1)
    picks = [balancer.pick(exclude=["b", "c"]) for _ in range(2)]
    balancer.drain_server("a")
    picks.pop().done(False)
    assert balancer.records[0].health == "draining"
    balancer.drain_server("a", False)
    assert balancer.records[0].health == "healthy"
    balancer.remove_server("a")
    picks.pop().done(False)
    balancer._check()
    assert {record.health for record in balancer.records} == {"healthy"}


# ---- slow starts ----------------------------------------------------------------------------


@pytest.mark.parametrize("callers", [1, 100])
@pytest.mark.parametrize("name", BY_LOAD)
def test_a_slow_start_holds_back_in_a_large_fleet(twin, clock, name, callers):
    balancer = getattr(twin.balance, name)(range(20), clock=clock, slow_start=600, seed=1)
    served(balancer, clock, callers, 1000, lambda _: (0.05, {}))
    balancer.add_server("new")
    early = served(balancer, clock, callers, 2000, lambda _: (0.05, {})).count("new")
    assert 1 <= early < 45
    clock.advance(300)
    assert early < served(balancer, clock, callers, 2000, lambda _: (0.05, {})).count("new") < 130
    clock.advance(600)
    assert 60 < served(balancer, clock, callers, 2000, lambda _: (0.05, {})).count("new") < 140


# ---- forks ----------------------------------------------------------------------------------


def in_child(balancer):
    """The first picks of the child of a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, "".join(balancer.get_server() for _ in range(16)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        picks = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return picks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
@pytest.mark.parametrize("name", KEYLESS)
def test_children_of_a_fork_begin_anywhere_unless_there_is_a_seed(twin, name):
    cls = getattr(twin.balance, name)
    balancer = cls(map(str, range(1000)))
    assert len({in_child(balancer) for _ in range(5)}) > 1  # all begin alike once in 10**12 runs
    balancer._check()
    seeded = cls(["a", "b", "c"], seed=4)
    assert len({in_child(seeded) for _ in range(2)}) == 1
