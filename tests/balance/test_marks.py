"""Servers that health checks mark as down or up, with everything else that takes them out of use."""

from collections import Counter
from math import ceil

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.errors import NoServerError

NAMES = ["RoundRobin", "WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA",
         "AddressHash", "KeyHash"]
ADDRESSES = [f"10.0.{number}.1" for number in range(99)]


@pytest.fixture(params=NAMES)
def make(request, twin):
    return lambda servers="abcd", **options: getattr(twin.balance, request.param)(
        servers if isinstance(servers, dict) else list(servers), **{"seed": 0} | options)


def used(balancer, **options):
    """The servers that picks go to."""
    return {balancer.pick(address, **options).server for address in ADDRESSES}


def health(balancer):
    return {row.server: row.health for row in balancer.records}


def fail(balancer, server, times=1):
    for _ in range(times):
        balancer.pick("10.0.0.1", exclude=set(balancer.servers) - {server}).done(ok=False)


def test_a_server_that_is_down_gets_no_pick_until_it_is_up(make, clock):
    balancer = make(clock=clock, ejection_time=1)
    clock.advance(3)
    balancer.mark_down("b")
    assert health(balancer) == {"a": "healthy", "b": "down", "c": "healthy", "d": "healthy"}
    assert balancer.records[1].since == clock.now
    clock.advance(10_000)
    balancer.mark_down("b")
    assert used(balancer) == set("acd") and balancer.records[1].since == clock.now - 10**13
    balancer._check()
    balancer.mark_up("b")
    assert used(balancer) == set("abcd") and health(balancer)["b"] == "healthy"
    assert balancer.records[1].since == clock.now
    balancer._check()


def test_unknown_servers_are_named(make):
    balancer = make()
    for call in balancer.mark_down, balancer.mark_up:
        with pytest.raises(KeyError, match="server must be a member, got 'x'"):
            call("x")
        with pytest.raises(TypeError, match="unhashable"):
            call([])
    assert set(health(balancer).values()) == {"healthy"}


def test_more_may_be_down_than_ejected_but_panic_uses_all(make, clock):
    balancer = make("abcdef", clock=clock, max_ejected=0)
    for server, left in [("a", "bcdef"), ("b", "cdef"), ("c", "def"), ("d", "abcdef"), ("e", "abcdef")]:
        balancer.mark_down(server)
        assert used(balancer) == set(left)
        balancer._check()
    balancer.mark_up("b")
    assert used(balancer) == set("abcdef")
    balancer.mark_up("c")
    assert used(balancer) == set("bcf")


def test_where_all_are_down_all_are_used(make):
    balancer = make("ab", panic_threshold=0)
    balancer.mark_down("a")
    assert used(balancer) == {"b"}
    balancer.mark_down("b")
    assert used(balancer) == {"a", "b"}
    balancer.drain_server("b")
    assert used(balancer) == {"a"}
    balancer._check()


def test_the_last_healthy_one_is_never_ejected(make, clock):
    balancer = make("abc", clock=clock, max_failures=1, max_ejected=1, panic_threshold=0)
    balancer.mark_down("a")
    fail(balancer, "b")
    fail(balancer, "c")
    assert health(balancer) == {"a": "down", "b": "ejected", "c": "healthy"}
    assert used(balancer) == {"c"}
    balancer._check()


def test_servers_that_are_down_do_not_count_as_ejected(make, clock):
    balancer = make("abcdef", clock=clock, max_failures=1, max_ejected=0.5)
    for server in "ab":
        balancer.mark_down(server)
    for server in "cde":
        fail(balancer, server)
    assert Counter(health(balancer).values()) == {"down": 2, "ejected": 3, "healthy": 1}


def test_an_ejection_ends_as_its_server_is_down(make, clock):
    balancer = make("abcd", clock=clock, max_failures=2, ejection_time=10)
    fail(balancer, "a", 2)
    balancer.mark_up("a")
    assert health(balancer)["a"] == "ejected"  # which says nothing of checks
    balancer.mark_down("a")
    clock.advance(100)
    assert health(balancer)["a"] == "down" and used(balancer) == set("bcd")
    balancer.mark_up("a")
    assert health(balancer)["a"] == "healthy" and used(balancer) == set("abcd")
    fail(balancer, "a")
    assert health(balancer)["a"] == "healthy"  # failures before do not count
    balancer._check()


def test_outcomes_of_a_server_that_is_down_do_not_count(make, clock):
    balancer = make("abcd", clock=clock, max_failures=1)
    picks = [balancer.pick("10.0.0.1", exclude=[*"bcd"]) for _ in range(3)]
    balancer.mark_down("a")
    picks.pop().done(ok=False)
    assert health(balancer)["a"] == "down" and balancer.records[0].in_flight == 2
    balancer.mark_up("a")
    assert health(balancer)["a"] == "healthy"
    picks.pop().done(ok=False)
    assert health(balancer)["a"] == "ejected"


def test_draining_and_down(make, clock):
    balancer = make("abc", clock=clock)
    balancer.drain_server("a")
    before = balancer.records[0].since
    clock.advance(1)
    balancer.mark_down("a")
    assert health(balancer)["a"] == "draining" and balancer.records[0].since == before
    balancer.drain_server("a", False)
    assert health(balancer)["a"] == "down" and used(balancer) == set("bc")
    balancer.drain_server("a")
    balancer.mark_up("a")
    assert used(balancer) == set("bc")
    balancer.drain_server("a", False)
    assert used(balancer) == set("abc")
    balancer._check()


def test_a_server_removed_while_down_comes_back_up(make):
    balancer = make("abc")
    pick = balancer.pick("10.0.0.1", exclude=[*"bc"])
    balancer.mark_down("a")
    balancer.remove_server("a")
    pick.done()
    balancer.add_server("a")
    assert health(balancer)["a"] == "healthy" and balancer.records[2].in_flight == 0
    balancer.mark_down("a")
    balancer.set_weight("a", 3)
    assert used(balancer) == set("bc") and balancer.records[2].weight == 3
    balancer._check()


def test_a_retry_does_not_go_to_a_server_that_is_down(make, clock):
    balancer = make("abcd", clock=clock, max_failures=1)
    balancer.mark_down("a")
    fail(balancer, "b")
    assert used(balancer, exclude=[*"cd"]) == {"b"}
    with pytest.raises(NoServerError, match="every server is excluded"):
        balancer.pick("10.0.0.1", exclude=[*"bcd"])
    assert used(balancer, exclude=[*"c"]) == {"d"}


@pytest.mark.parametrize("name", [each for each in NAMES if each != "AddressHash"])
def test_a_server_that_is_up_again_starts_slowly(twin, clock, name):
    balancer = getattr(twin.balance, name)({"a": 1, "b": 1}, seed=0, clock=clock, slow_start=100)
    shares = []
    balancer.mark_down("a")
    balancer.mark_up("a")
    for _ in range(11):
        picks = [balancer.get_server(f"key {number}") for number in range(2000)] if name in (
            "KeyHash", "RoundRobin", "WeightedRoundRobin", "RandomChoice") else held(balancer, 600)
        shares.append(picks.count("a") / len(picks))
        clock.advance(10)
    assert shares[0] < 0.2 < 0.4 < shares[-1]
    balancer.mark_down("a")
    balancer._check()


def held(balancer, count):
    """The servers of so many picks that are in flight together."""
    picks = [balancer.pick() for _ in range(count)]
    return [pick.server for pick in picks]


# ---- a naive model --------------------------------------------------------------------------

SERVERS = st.sampled_from("abcdef")
STEPS = st.lists(st.one_of(
    st.tuples(st.just("mark"), SERVERS, st.booleans()),
    st.tuples(st.just("mark"), SERVERS, st.booleans()),
    st.tuples(st.just("drain"), SERVERS, st.booleans()),
    st.tuples(st.just("fail"), SERVERS),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("add"), SERVERS),
    st.tuples(st.just("remove"), SERVERS),
), max_size=40)


class Model:
    """What takes servers out of use, one record a server."""

    def __init__(self, servers):
        self.now = 0
        self.rows = {server: self.row() for server in servers}

    def row(self):
        return {"down": False, "draining": False, "until": 0, "ejections": 0, "since": self.now}

    def is_up(self, row):
        return not row["down"] and row["until"] <= self.now

    def present(self):
        return {server: row for server, row in self.rows.items() if not row["draining"]}

    def active(self):
        present = self.present()
        up = {server for server, row in present.items() if self.is_up(row)}
        return up if up and len(up) >= len(present) // 2 else set(present)

    def mark(self, row, down):
        if row["down"] != down:
            row["down"], row["since"] = down, row["since"] if row["draining"] else self.now
            row["until"] = 0 if down else row["until"]

    def drain(self, row, draining):
        if row["draining"] != draining:
            row["draining"], row["since"] = draining, self.now

    def fail(self, row):
        """A failure of a server that is in use ejects it, unless too many are."""
        rows = self.present().values()
        ejected = sum(each["until"] > self.now for each in rows)
        left = sum(map(self.is_up, rows))
        if self.is_up(row) and not row["draining"] and ejected < ceil(len(rows) / 2) and left > 1:
            if self.now - row["since"] > 100:
                row["ejections"] = 0
            row["ejections"] += 1
            row["until"], row["since"] = self.now + 10 * min(row["ejections"], 10), self.now

    def wait(self, seconds):
        """Time passes; an ejection that has ended is noticed at its end or later, when all look."""
        self.now += seconds
        for row in self.rows.values():
            if 0 < row["until"] <= self.now:
                row["until"], row["since"] = 0, row["since"] if row["draining"] else self.now

    def health(self, row):
        if row["draining"]:
            return "draining"
        return "down" if row["down"] else "ejected" if row["until"] > self.now else "healthy"


def apply(balancer, model, clock, kind, name, *rest):
    """One step, on both."""
    if kind == "wait":
        clock.advance(name)
        model.wait(name)
    elif kind == "add":
        if name not in model.rows:
            balancer.add_server(name)
            model.rows[name] = model.row()
    elif name in model.rows:
        row = model.rows[name]
        if kind == "remove":
            balancer.remove_server(name)
            del model.rows[name]
        elif kind == "mark":
            (balancer.mark_down if rest[0] else balancer.mark_up)(name)
            model.mark(row, rest[0])
        elif kind == "drain":
            balancer.drain_server(name, rest[0])
            model.drain(row, rest[0])
        elif name in model.active():
            fail(balancer, name)
            model.fail(row)


@settings(max_examples=120)
@given(steps=STEPS)
def test_servers_in_use_are_those_of_a_naive_model(twins, steps):
    for twin in twins:
        clock, model = FakeClock(0), Model("abcd")
        balancer = twin.balance.RoundRobin([*"abcd"], clock=clock, max_failures=1, ejection_time=10, seed=0)
        for step in steps:
            apply(balancer, model, clock, *step)
            balancer._check()
            assert {row.server: (row.health, row.since) for row in balancer.records} == {
                server: (model.health(row), row["since"] * 10**9) for server, row in model.rows.items()}
            active = model.active()
            if active:
                assert {balancer.get_server() for _ in active} == active
