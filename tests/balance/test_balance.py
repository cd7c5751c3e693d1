"""Balancers on both twins: sequences, members, health, picks, and the same results from both."""

import asyncio
import json
from collections import Counter
from copy import copy
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from pickle import dumps
from random import Random
from time import thread_time_ns

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import run_threads

import headgate
from headgate.errors import NoServerError

NAMES = ["RoundRobin", "WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA"]
ALL = [*NAMES, "AddressHash", "KeyHash"]
FLEET = {"a": 1, "b": 2, "c": 3, "d": 1}


def make(twin, name, servers=("a", "b", "c"), seed=0, **settings):
    if name == "hot keys":
        name, settings["hotkeys"] = "KeyHash", twin.hotkeys.HotKeys(9)
        settings["hotkeys"].add("192.0.2.7", 100)
    return getattr(twin.balance, name)(servers, seed=seed, **settings)


def named(balancer, count):
    return [balancer.get_server("10.0.0.1") for _ in range(count)]


def record(balancer, server):
    return next(record for record in balancer.records if record.server == server)


def smooth(weights, excluded):
    """nginx's smooth weighted round robin, as its source says; each pick passes over some servers."""
    current, names = dict.fromkeys(weights, 0), []
    for skip in excluded:
        left = [server for server in weights if server not in skip]
        for server in left:
            current[server] += weights[server]
        best = max(left, key=current.get)
        current[best] -= sum(weights[server] for server in left)
        names.append(best)
    return names


# ---- sequences ------------------------------------------------------------------------------


def test_round_robin_takes_turns(twin):
    assert named(make(twin, "RoundRobin"), 7) == list("abcabca")


def test_smooth_sequence_of_nginx(twin, shared):
    case = json.loads((shared / "vectors/nginx-smooth-wrr.json").read_text())
    balancer = make(twin, "WeightedRoundRobin", dict(zip(case["nodes"], case["weights"], strict=True)))
    assert named(balancer, len(case["sequence"])) == case["sequence"]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_smooth_sequence_of_any_weights(twins, weights):
    fleet = dict(enumerate(weights))
    for twin in twins:
        assert named(make(twin, "WeightedRoundRobin", fleet), 100) == smooth(fleet, [()] * 100)


@given(st.lists(st.integers(1, 9), min_size=4, max_size=12),
       st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=60))
def test_smooth_sequence_with_retries(twins, weights, excluded):
    fleet = dict(enumerate(weights))
    for twin in twins:
        balancer = make(twin, "WeightedRoundRobin", fleet)
        assert [balancer.get_server(exclude=skip) for skip in excluded] == smooth(fleet, excluded)
        balancer._check()


def test_smooth_sequence_of_a_thousand_servers(twin):
    weights = Random(4).choices(range(1, 60), k=1000)
    fleet = dict(enumerate(weights))
    assert named(make(twin, "WeightedRoundRobin", fleet), 1200) == smooth(fleet, [()] * 1200)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7, 1, 3.7, 1e-6, 1e9]), min_size=2, max_size=9))
def test_smooth_sequence_of_weights_that_round(twins, weights):
    """The picked server had the largest weight, except for rounding; the twins round alike."""
    balancers = [make(twin, "WeightedRoundRobin", dict(enumerate(weights))) for twin in twins]
    for _ in range(150):
        assert len({balancer.get_server() for balancer in balancers}) == 1
        for balancer in balancers:
            balancer._check()


def test_ip_hash_of_nginx(twin, shared):
    case = json.loads((shared / "vectors/nginx-ip-hash.json").read_text())
    fleet = dict(zip(case["nodes"], case["weights"], strict=True))
    balancer = make(twin, "AddressHash", fleet, scheme="nginx")
    assert {key: balancer.get_server(key) for key in case["keys"]} == case["keys"]


def test_golden_picks_of_nginx(twin):
    case = json.loads((Path(__file__).parents[1] / "golden" / "nginx.json").read_text())
    balancer = make(twin, "AddressHash", case["weights"], scheme="nginx")
    down = list(case["weights"])[-1:]
    for fleet, excluded in {"ip_hash": (), "ip_hash_down": down}.items():
        picks = {key: balancer.get_server(key, exclude=excluded) for key in case[fleet]}
        assert picks == case[fleet]
    smooth = make(twin, "WeightedRoundRobin", case["weights"])
    assert named(smooth, len(case["smooth"])) == case["smooth"]


def test_ip_hash_rehashes_where_a_server_is_out(twin):
    balancer = make(twin, "AddressHash", scheme="nginx")
    first = balancer.get_server("10.0.0.1")
    second = balancer.get_server("10.0.0.1", exclude=[first])
    assert second != first
    assert balancer.get_server(b"\x0a\0\0\x09") == first


STEPS = st.lists(st.one_of(
    st.tuples(st.just("get"), st.lists(st.integers(0, 5), max_size=2)),
    st.tuples(st.just("pick"), st.lists(st.integers(0, 5), max_size=2)),
    st.tuples(st.just("done"), st.integers(0, 9), st.booleans(), st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, 40)),
    st.tuples(st.just("add"), st.integers(0, 7), st.integers(1, 3)),
    st.tuples(st.just("remove"), st.integers(0, 7)),
    st.tuples(st.just("drain"), st.integers(0, 7), st.booleans()),
    st.tuples(st.sampled_from(["mark_down", "mark_up"]), st.integers(0, 7)),
    st.tuples(st.just("set_weight"), st.integers(0, 7), st.integers(1, 5)),
), max_size=50)


def perform(balancer, picks, step):
    """What a step returns, or the error that it raises."""
    kind, *rest = step
    key = "192.0.2.7"
    try:
        if kind == "get":
            return balancer.get_server(key, exclude=rest[0])
        if kind == "pick":
            picks.append(balancer.pick(key, exclude=rest[0]))
            return picks[-1].server
        if kind == "done" and picks:
            return picks.pop(rest[0] % len(picks)).done(rest[1], overloaded=rest[2])
        if kind in ("add", "remove", "drain"):
            return getattr(balancer, f"{kind}_server")(*rest)
        if kind in ("set_weight", "mark_down", "mark_up"):
            return getattr(balancer, kind)(*rest)
    except (KeyError, ValueError, NoServerError) as error:
        return repr(error)
    return None


@pytest.mark.parametrize("name", [*ALL, "hot keys"])
@settings(max_examples=40)
@given(steps=STEPS)
def test_twins_return_the_same_for_any_steps(twins, name, steps):
    clock = FakeClock()
    pairs = [(make(twin, name, {0: 1, 1: 2, 2: 3}, clock=clock, seed=5, max_failures=2, success_rate=0.9,
                   ejection_time=7, max_ejected=0.7, slow_start=20), []) for twin in twins]
    for step in steps:
        if step[0] == "wait":
            clock.advance(step[1] / 4)
        results = [perform(*pair, step) for pair in pairs]
        assert results[0] == results[-1]
        assert pairs[0][0].records == pairs[-1][0].records
        for balancer, picks in pairs:
            balancer._check()
            flying = Counter(pick.server for pick in picks)
            assert all(row.in_flight <= flying[row.server] for row in balancer.records)
    for balancer, picks in pairs:
        for pick in picks:
            pick.done()
        assert all(row.in_flight == 0 for row in balancer.records)


# ---- draws ----------------------------------------------------------------------------------


def test_random_choice_follows_the_weights(twin):
    counts = Counter(named(make(twin, "RandomChoice", FLEET, seed=3), 14_000))
    for server, weight in FLEET.items():
        assert abs(counts[server] - 2000 * weight) < 300
    rest = Counter(make(twin, "RandomChoice", FLEET).get_server(exclude=list("ab")) for _ in range(50))
    assert set(rest) <= set("cd")


def test_two_idle_servers_of_power_of_two_tie_at_random(twin):
    counts = Counter(named(make(twin, "PowerOfTwo", ["a", "b", "c", "d"], seed=9), 8000))
    assert all(abs(count - 2000) < 200 for count in counts.values())


def test_power_of_two_draws_two_distinct_servers(twin):
    balancer = make(twin, "PowerOfTwo", ["a", "b"])
    busy = balancer.pick()
    assert set(named(balancer, 50)) == {"a", "b"} - {busy.server}


@pytest.mark.parametrize("seed", range(20))
def test_the_least_loaded_is_picked_after_penalties_that_end_together(twin, clock, seed):
    draw, servers = Random(seed), range(12)
    balancer = make(twin, "LeastLoaded", servers, clock=clock, max_failures=100)
    flying = [balancer.pick(exclude=draw.sample(servers, 8)) for _ in range(60)]
    for pick in draw.sample(flying, 40):
        pick.done(ok=draw.random() < 0.5)
    clock.advance(1000)
    for _ in range(60):
        loads = {record.server: record.in_flight for record in balancer.records}
        flying.append(balancer.pick())
        assert loads[flying[-1].server] == min(loads.values())
        balancer._check()


def test_least_loaded_heeds_weights(twin):
    balancer = make(twin, "LeastLoaded", {"a": 1, "b": 3})
    picks = [balancer.pick() for _ in range(80)]
    assert 17 <= Counter(pick.server for pick in picks)["a"] <= 21


def test_peak_ewma_avoids_the_slow_server(twin, clock):
    balancer = make(twin, "PeakEWMA", ["a", "b"], clock=clock)
    for server, seconds in {"a": 0.5, "b": 0.1}.items():
        pick = balancer.pick(exclude={"a", "b"} - {server})
        clock.advance(seconds)
        pick.done()
    assert set(named(balancer, 20)) == {"b"}
    assert record(balancer, "a").latency == 0.5
    clock.advance(1)
    with balancer.pick(exclude=["b"]):
        clock.advance(0.1)
    assert 0.1 < record(balancer, "a").latency < 0.5


def test_peak_ewma_avoids_a_server_that_has_not_answered_yet(twin, clock):
    balancer = make(twin, "PeakEWMA", ["a", "b"], clock=clock)
    waiting = balancer.pick(exclude=["b"])
    assert set(named(balancer, 20)) == {"b"}
    waiting.done()


# ---- addresses ------------------------------------------------------------------------------


def test_addresses_stay_with_their_network(twin):
    balancer = make(twin, "AddressHash", [f"s{i}" for i in range(20)])
    assert balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::ffff:2")
    for text in ["203.0.113.9", "2001:db8:5::1"]:
        assert balancer.get_server(text) == balancer.get_server(ip_address(text).packed)
    assert balancer.get_server("::ffff:203.0.113.9") == balancer.get_server("203.0.113.9")
    keys = [f"10.{i}.0.1" for i in range(200)]
    before = {key: balancer.get_server(key) for key in keys}
    balancer.remove_server("s3")
    assert all(balancer.get_server(key) == server for key, server in before.items() if server != "s3")


@pytest.mark.parametrize(("key", "error", "message"), [
    ("nowhere", ValueError, "key must be an IPv4 or IPv6 address, got 'nowhere'"),
    (b"abc", ValueError, "key must have 4 or 16 bytes, got b'abc'"),
    (None, TypeError, "key must be an address as str or bytes, got None"),
])
def test_wrong_addresses_are_named(twin, key, error, message):
    with pytest.raises(error, match=message):
        make(twin, "AddressHash").get_server(key)


# ---- health ---------------------------------------------------------------------------------


def fail(balancer, server, times, ok=False):
    others = set(balancer.servers) - {server}
    for _ in range(times):
        balancer.pick("10.0.0.1", exclude=others).done(ok)


@pytest.mark.parametrize("name", NAMES)
def test_failures_in_a_row_eject(twin, clock, name):
    balancer = make(twin, name, clock=clock)
    fail(balancer, "a", 4)
    fail(balancer, "a", 1, ok=True)
    fail(balancer, "a", 4)
    assert record(balancer, "a").health == "healthy"
    fail(balancer, "a", 1)
    assert record(balancer, "a").health == "ejected"
    assert "a" not in named(balancer, 30)
    clock.advance(30)
    assert "a" in {balancer.pick().server for _ in range(60)}
    assert record(balancer, "a").health == "healthy"
    fail(balancer, "a", 5)
    clock.advance(59)
    assert record(balancer, "a").health == "ejected"
    clock.advance(1)
    assert record(balancer, "a").health == "healthy"


def test_a_low_success_rate_ejects(twin, clock):
    balancer = make(twin, "RoundRobin", clock=clock, max_failures=None, success_rate=0.8)
    for _ in range(6):
        fail(balancer, "a", 2, ok=True)
        fail(balancer, "a", 1)
    assert record(balancer, "a").health == "healthy"
    fail(balancer, "a", 2)
    assert record(balancer, "a").health == "ejected"


def test_panic_uses_all_servers(twin, clock):
    balancer = make(twin, "RoundRobin", clock=clock)
    fail(balancer, "a", 5)
    assert set(named(balancer, 9)) == {"b", "c"}
    fail(balancer, "b", 5)
    assert set(named(balancer, 9)) == {"c"}
    balancer.drain_server("c")
    assert set(named(balancer, 9)) == {"a", "b"}
    balancer._check()


@pytest.mark.parametrize("name", NAMES)
def test_a_new_server_starts_slowly(twin, clock, name):
    balancer = make(twin, name, clock=clock, slow_start=100)
    balancer.add_server("new")

    def named(balancer, count):
        picked = []
        for _ in range(count):
            with balancer.pick() as pick:
                picked.append(pick.server)
        return picked

    shares = []
    for _ in range(4):
        shares.append(named(balancer, 1000).count("new"))
        clock.advance(33)
    assert shares[0] < 60 < shares[1] < shares[2] < shares[3]
    clock.advance(10)
    assert 200 < named(balancer, 1000).count("new") < 300


# ---- members and picks ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_members_change_while_picks_go_on(twin, name):
    balancer = make(twin, name, ["a"])
    pick = balancer.pick()
    balancer.add_server("b", 2)
    balancer.drain_server("a")
    assert set(named(balancer, 9)) == {"b"}
    assert record(balancer, "a").health == "draining"
    assert record(balancer, "a").in_flight == 1
    pick.done()
    pick.done()
    assert record(balancer, "a").in_flight == 0
    balancer.drain_server("a", False)
    balancer.set_weight("a", 5)
    assert record(balancer, "a")[:3] == ("a", 5, 0)
    waiting = balancer.pick(exclude=["a"])
    balancer.remove_server("b")
    waiting.done(False)
    assert balancer.servers == ("a",)
    assert "b" not in balancer
    assert len(balancer) == 1


@pytest.mark.parametrize("name", ALL)
def test_no_server_is_an_error(twin, name):
    balancer = make(twin, name, [])
    with pytest.raises(NoServerError, match="there is no server"):
        balancer.get_server("10.0.0.1")
    balancer.add_server("a")
    with pytest.raises(NoServerError, match="every server is excluded"):
        balancer.pick("10.0.0.1", exclude=["a", "a", "z"])
    assert balancer.get_server("10.0.0.1", exclude=["z"]) == "a"
    balancer.drain_server("a")
    with pytest.raises(NoServerError, match="there is no server"):
        balancer.get_server("10.0.0.1")


def ejected(balancer, *servers):
    """The balancer, with these servers ejected."""
    others = set(balancer.servers) - set(servers)
    while {one.server for one in balancer.records if one.health == "ejected"} != set(servers):
        balancer.pick("10.0.0.1", exclude=others).done(ok=False)
    return balancer


@pytest.mark.parametrize("name", [*ALL, "ip_hash"])
def test_ejected_servers_are_picked_where_all_others_are_excluded(twin, clock, name):
    options = {"scheme": "nginx"} if name == "ip_hash" else {}
    balancer = make(twin, "AddressHash" if options else name, ["a", "b", "c", "d"], max_failures=1,
                    clock=clock, **options)
    ejected(balancer, "c", "d")
    balancer.drain_server("d")
    assert {balancer.get_server(f"10.0.{i}.1") for i in range(50)} <= {"a", "b"}
    with balancer.pick("10.0.0.1", exclude=["a", "b"]) as pick:
        assert pick.server == "c"
        assert record(balancer, "c").in_flight == 1
    assert balancer.get_server("10.0.0.1", exclude=["a", "b"]) == "c"
    assert record(balancer, "c").health == "ejected"
    assert balancer.get_server("10.0.0.1", exclude=["b", "c"]) == "a"
    for excluded in ("abc", "abcd"):
        with pytest.raises(NoServerError, match="every server is excluded"):
            balancer.pick("10.0.0.1", exclude=list(excluded))
    balancer._check()


def test_ejected_servers_are_picked_by_weight_or_key(twin, clock):
    fleet = {"a": 1, "b": 1, "c": 1, "d": 3}
    balancer = ejected(make(twin, "PowerOfTwo", fleet, max_failures=1, clock=clock), "c", "d")
    counts = Counter(balancer.get_server(exclude=["a", "b"]) for _ in range(4_000))
    assert counts["d"] == pytest.approx(3_000, abs=150)
    assert set(counts) == {"c", "d"}
    hashed = ejected(make(twin, "KeyHash", fleet, max_failures=1, clock=clock), "c", "d")
    placement = twin.placement.HashRing({"c": 1, "d": 3})
    for key in range(100):
        assert hashed.get_server(key, exclude=["a", "b"]) == placement.get_node(key)


@pytest.mark.parametrize("name", ["RandomChoice", "PowerOfTwo", "PeakEWMA", "LeastLoaded"])
@pytest.mark.parametrize("fleet", [
    {"a": 1, "b": 2}, {"a": 1e-100, "b": 1e100}, {"a": 1e100, "b": 1e-100, "c": 1},
    {number: 1 + number % 3 for number in range(17)}, {number: 10.0 ** number for number in range(-40, 40)},
])
def test_draws_by_weight_agree_whatever_the_weights(twins, name, fleet):
    balancers = [make(twin, name, fleet, seed=3) for twin in twins]
    held = [[] for _ in balancers]
    for step in range(300):
        for balancer, picks in zip(balancers, held, strict=True):
            picks.append(balancer.pick(exclude=list(fleet)[:1] if step % 7 == 3 else ()))
            if step % 2:
                picks.pop(0)
        assert len({picks[-1].server for picks in held}) == 1


@pytest.mark.parametrize("name", ALL)
def test_blocks_end_picks_with_their_outcome(twin, name):
    balancer = make(twin, name, ["a", "b"], max_failures=1, panic_threshold=0)
    with balancer.pick("10.0.0.1") as pick:
        assert record(balancer, pick.server).in_flight == 1
    assert record(balancer, pick.server).health == "healthy"
    with pytest.raises(ZeroDivisionError), balancer.pick("10.0.0.1") as pick:
        raise ZeroDivisionError
    assert record(balancer, pick.server).health == "ejected"
    balancer.pick("10.0.0.1")
    assert sum(row.in_flight for row in balancer.records) == 0


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_a_cancellation_says_nothing_of_the_server(twin, kind):
    balancer = make(twin, "PeakEWMA", ["a", "b"], max_failures=1, panic_threshold=0)
    with pytest.raises(kind), balancer.pick() as pick:
        raise kind

    async def cancelled():
        async with balancer.pick():
            raise kind

    with pytest.raises(kind):
        cancelled().send(None)
    pick.done(False)
    assert {row.health for row in balancer.records} == {"healthy"}
    assert {(row.in_flight, row.latency) for row in balancer.records} == {(0, 0.0)}
    balancer._check()


@pytest.mark.parametrize("exclude", ["a", b"a", 5])
def test_a_single_server_is_not_several(twin, exclude):
    balancer = make(twin, "RoundRobin")
    for ask in balancer.pick, balancer.get_server:
        with pytest.raises(TypeError, match=f"^exclude must be an iterable, got {exclude!r}$"):
            ask(exclude=exclude)
    assert sum(row.in_flight for row in balancer.records) == 0


def test_async_blocks(twin):
    balancer = make(twin, "LeastLoaded")

    async def body():
        async with balancer.pick() as pick:
            assert record(balancer, pick.server).in_flight == 1
            await asyncio.sleep(0)

    asyncio.run(body())
    assert sum(row.in_flight for row in balancer.records) == 0


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"servers": "abc"}, TypeError, "servers must be an iterable of servers or a mapping"),
    ({"servers": ["a", "a"]}, ValueError, "server must not be a member already, got 'a'"),
    ({"servers": {"a": 0}}, ValueError, "weight must be positive and finite, got 0"),
    ({"servers": {"a": 1e-101}}, ValueError, "weight must be from 1e-100 to 1e100, got 1e-101"),
    ({"max_ejected": 2}, ValueError, "max_ejected must be from 0 to 1, got 2"),
    ({"servers": {"a": 10**400}}, ValueError, "weight must be positive and finite, got 1000"),
    ({"clock": 1}, TypeError, "clock must be callable or None, got 1"),
    ({"seed": "x"}, TypeError, "seed must be an int or None, got 'x'"),
    ({"max_failures": 0}, ValueError, "max_failures must be positive, got 0"),
    ({"max_failures": 1.5}, TypeError, "max_failures must be an int or None, got 1.5"),
    ({"success_rate": 2}, ValueError, "success_rate must be from 0 to 1, got 2"),
    ({"ejection_time": 0}, ValueError, "ejection_time must be positive, got 0"),
    ({"slow_start": -1}, ValueError, "slow_start must be finite and non-negative, got -1"),
    ({"panic_threshold": "x"}, TypeError, "panic_threshold must be a number, got 'x'"),
])
def test_wrong_arguments_are_named(twin, arguments, error, message):
    with pytest.raises(error, match=message):
        twin.balance.PowerOfTwo(**{"servers": ["a"]} | arguments)


def test_wrong_servers_are_named(twin):
    balancer = make(twin, "RoundRobin")
    for call in (balancer.remove_server, balancer.drain_server, partial(balancer.set_weight, weight=1)):
        with pytest.raises(KeyError, match="server must be a member, got 'z'"):
            call("z")
    with pytest.raises(ValueError, match="server must not be a member already, got 'a'"):
        balancer.add_server("a")
    with pytest.raises(ValueError, match=r"weight must be whole in nginx's scheme, got 1.5"):
        make(twin, "AddressHash", {"a": 1.5}, scheme="nginx")
    with pytest.raises(ValueError, match="scheme must be 'headgate' or 'nginx', got 'x'"):
        make(twin, "AddressHash", scheme="x")
    for call in (copy, dumps):
        with pytest.raises(TypeError, match=r"cannot (copy|pickle) 'RoundRobin' object"):
            call(balancer)


@pytest.mark.parametrize("name", ALL)
def test_a_subscript_names_the_type_of_server(twin, name):
    assert getattr(twin.balance, name)[str].__args__ == (str,)


@pytest.mark.parametrize(("server", "weight", "message"), [
    ("z", 1e6, "weight must give at most 16777216 points, got 1000000"),
    (b"a", 1, "server must not be a member already, got b'a'"),
    (b"b", 1, "server must not be a member already, got b'b'"),
    (None, 1, "node must be str, bytes or int, got None"),
])
def test_an_address_hash_refuses_before_it_changes(twin, server, weight, message):
    balancer = make(twin, "AddressHash")
    balancer.drain_server("b")
    before = balancer.records
    with pytest.raises((TypeError, ValueError)) as caught:
        balancer.add_server(server, weight)
    assert caught.value.args == (message,)
    with pytest.raises(ValueError, match="weight must give at most 16777216 points, got 1e"):
        balancer.set_weight("a", 1e50)
    assert balancer.records == before
    balancer.drain_server("b", False)
    balancer._check()


def least_time(call, repeats=5):
    """The thread's time for a call, the least of some."""
    times = []
    for _ in range(repeats):
        start = thread_time_ns()
        call()
        times.append(thread_time_ns() - start)
    return min(times)


@pytest.mark.parametrize("warming", [0, 20])
@pytest.mark.parametrize("excluded", [1, 6])
@pytest.mark.parametrize("name", [*NAMES, "AddressHash"])
def test_no_pick_is_linear_in_the_servers(twin, clock, name, excluded, warming):
    draw, times = Random(7), []
    for count in (40, 2000):
        weights = [1] * count if name == "AddressHash" else draw.choices(range(1, 100), k=count)
        balancer = make(twin, name, dict(enumerate(weights)), max_failures=None, clock=clock, slow_start=60)
        for number in range(warming):
            balancer.add_server(f"new{number}")

        def picks(balancer=balancer):
            for _ in range(20):
                picked = []
                for _ in range(excluded + 1):
                    picked.append(balancer.pick("10.0.0.1", exclude=[pick.server for pick in picked]))
                balancer.get_server("10.0.0.1")
                for pick in picked:
                    pick.done(False)

        picks()
        times.append(least_time(picks))
    assert times[1] < 10 * times[0]


@pytest.mark.parametrize("name", ALL)
def test_threads_leave_nothing_in_flight(twin, name):
    balancer = make(twin, name, range(10), max_failures=None)

    def work(number):
        draw = Random(number)
        for turn in range(200):
            with balancer.pick("10.0.0.1"):
                balancer.get_server("10.0.0.2")
            if number == 0 and turn % 5 == 0:
                balancer.drain_server(draw.randrange(10), draw.random() < 0.5)
                balancer.set_weight(draw.randrange(10), draw.randrange(1, 5))
                balancer.drain_server(0, False)

    run_threads(work)
    balancer._check()
    assert all(row.in_flight == 0 for row in balancer.records)


class Evil:
    """A server of one hash whose ``__eq__`` uses the balancer."""

    def __init__(self, balancer, name):
        self.balancer, self.name = balancer, name

    def __hash__(self):
        return 1

    def __eq__(self, other):
        if self.balancer.servers:
            self.balancer.pick().done(False)
            self.balancer.get_server()
        return self is other


@pytest.mark.parametrize("name", NAMES)
def test_evil_servers_and_clocks_find_the_balancer_whole(twin, name):
    now, busy = [0], []

    def clock():
        now[0] += 10**8
        if balancer is not None and len(balancer) > 3 and not busy:
            busy.append(True)
            balancer.remove_server(balancer.servers[0])
            busy.clear()
        return now[0]

    balancer = None
    balancer = make(twin, name, [], clock=clock, slow_start=1, max_failures=2, ejection_time=0.5)
    for number in range(40):
        balancer.add_server(Evil(balancer, number))
        pick = balancer.pick()
        balancer._check()
        pick.done(number % 3 == 0)
        balancer._check()
    assert all(row.in_flight == 0 for row in balancer.records)


def test_public_names():
    for name in [*ALL, "ServerRecord"]:
        assert getattr(headgate, name) is getattr(headgate.balance, name)


# ---- other settings -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_reconfigure_counts_what_failed_so_far(twin, name):
    balancer = make(twin, name, clock=FakeClock())
    for server in "abc":
        balancer.pick("10.0.0.1", exclude=set("abc") - {server}).done(ok=False)
    balancer.reconfigure(max_failures=2, max_ejected=0.4, ejection_time=7)
    for _ in range(2):
        balancer.pick("10.0.0.1").done(ok=False)
    balancer._check()
    assert [record.health for record in balancer.records].count("ejected") in (1, 2)


def test_a_new_slow_start_begins_none_before_the_origin_of_the_clock(twin):
    balancer = make(twin, "RandomChoice", clock=FakeClock(-1_000_000_000_000))
    balancer.reconfigure(slow_start=60)
    balancer.add_server("d")
    assert Counter(named(balancer, 400))["d"] < 40


@pytest.mark.parametrize("name", ["RoundRobin", "WeightedRoundRobin", "RandomChoice"])
def test_a_slow_start_ends_at_the_latest_after_the_new_time(twin, name):
    clock = FakeClock()
    balancer = make(twin, name, clock=clock, slow_start=100)
    balancer.add_server("d")
    clock.advance(1)
    balancer.reconfigure(slow_start=2)
    balancer._check()
    named(balancer, 9)
    clock.advance(2)
    assert Counter(named(balancer, 400))["d"] > 40
    balancer.reconfigure(slow_start=100)
    balancer.add_server("e")
    balancer.reconfigure(slow_start=0)
    balancer._check()
    named(balancer, 20)
    balancer._check()


def test_settings_that_are_wrong_change_nothing(twin):
    balancer = make(twin, "RoundRobin", max_failures=1, clock=FakeClock())
    with pytest.raises(TypeError, match=r"^settings must be among max_failures, .*, got 'seed'$"):
        balancer.reconfigure(max_failures=5, seed=1)
    with pytest.raises(ValueError, match=r"^panic_threshold must be from 0 to 1, got 2$"):
        balancer.reconfigure(max_failures=5, panic_threshold=2)
    balancer.reconfigure()
    balancer.pick().done(ok=False)
    assert record(balancer, "a").health == "ejected"
