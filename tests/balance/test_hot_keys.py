"""Hot keys of a KeyHash: which ones are, where they go, and what else a balancer does meanwhile."""

import gc
import sys
import weakref
from collections import Counter
from contextlib import suppress

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import run_threads

from headgate import schemes
from headgate.errors import NoServerError

SECOND = 1_000_000_000


def hot_hash(twin, servers=(*"abcdef",), counted=(("hot", 1000),), **options):
    """A KeyHash that has counted keys before."""
    hotkeys = twin.hotkeys.HotKeys(100, clock=options.get("clock"))
    for key, count in counted:
        hotkeys.add(key, count)
    return twin.balance.KeyHash(servers, hotkeys=hotkeys, **{"seed": 0} | options)


def preference(twin, balancer, key="hot"):
    return twin.placement.HashRing({row.server: row.weight for row in balancer.records}).preference(key)


def taken(balancer, key="hot", picks=200, **options):
    """How often each server is picked, one pick at a time."""
    counts = Counter()
    for _ in range(picks):
        with balancer.pick(key, **options) as pick:
            counts[pick.server] += 1
    return counts


# ---- where a hot key goes -------------------------------------------------------------------


def test_a_hot_key_has_replicas_and_others_have_not(twin):
    balancer = hot_hash(twin)
    first, second, *_ = preference(twin, balancer)
    counts = taken(balancer, picks=400)
    assert set(counts) == {first, second} and min(counts.values()) > 130
    assert set(taken(balancer, "cold")) == {preference(twin, balancer, "cold")[0]}


def test_it_goes_to_the_less_loaded_replica(twin):
    balancer = hot_hash(twin, hot_replicas=3)
    picks = [balancer.pick("hot") for _ in range(30)]
    counts = Counter(pick.server for pick in picks)
    assert set(counts) == set(preference(twin, balancer)[:3])
    assert max(counts.values()) - min(counts.values()) <= 4
    fewer = hot_hash(twin)
    held = [fewer.pick("hot") for _ in range(20)]
    assert sorted(Counter(pick.server for pick in held).values()) == [10, 10]


def test_weights_share_a_hot_key(twin):
    weights = {"a": 1, "b": 4}
    counts = taken(hot_hash(twin, weights), picks=1000)
    assert 140 < counts["a"] < 260
    held = list(map(hot_hash(twin, weights).pick, ["hot"] * 50))
    assert 5 <= Counter(pick.server for pick in held)["a"] <= 15


@pytest.mark.parametrize("out", ["excluded", "drained", "down", "ejected", "removed"])
def test_a_replica_that_is_out_is_replaced_by_the_next_one(twin, clock, out):
    balancer = hot_hash(twin, clock=clock, max_failures=1)
    first, second, third, *_ = preference(twin, balancer)
    options = {}
    if out == "excluded":
        options = {"exclude": [first]}
    elif out == "drained":
        balancer.drain_server(first)
    elif out == "down":
        balancer.mark_down(first)
    elif out == "removed":
        balancer.remove_server(first)
    else:
        balancer.pick("hot", exclude=set(balancer.servers) - {first}).done(ok=False)
    assert set(taken(balancer, **options)) == {second, third}
    balancer._check()
    if out == "drained":
        balancer.drain_server(first, False)
        assert set(taken(balancer)) == {first, second}


def test_a_retry_goes_on_in_the_order_of_preference(twin):
    balancer = hot_hash(twin)
    order = preference(twin, balancer)
    assert set(taken(balancer, exclude=order[:2])) == set(order[2:4])
    assert set(taken(balancer, exclude=order[:-1])) == {order[-1]}
    with pytest.raises(NoServerError, match="every server is excluded"):
        balancer.pick("hot", exclude=order)


def test_a_slow_start_withholds_a_hot_key_as_any_other(twin, clock):
    balancer = hot_hash(twin, [*"abcde"], clock=clock, slow_start=100)
    plain = twin.balance.KeyHash([*"abcde"], clock=clock, slow_start=100)
    plain.add_server("f")
    key = next(name for name in map(str, range(1000))
               if plain.get_server(name) != preference(twin, plain, name)[0])
    balancer.hotkeys.add(key, 1000)
    balancer.add_server("f")
    seen = []
    for _ in range(11):
        seen.append("f" in taken(balancer, key))
        assert seen[-1] == (plain.get_server(key) == "f")
        assert len(taken(balancer, key)) == 2
        clock.advance(10)
    assert seen[-1] and not seen[0]
    assert set(taken(balancer)) == set(preference(twin, balancer)[:2])
    alone = hot_hash(twin, [], clock=clock, slow_start=100)
    alone.add_server("a")
    assert taken(alone) == {"a": 200}


def test_in_panic_replicas_are_picked_by_weight_alone(twin, clock):
    balancer = hot_hash(twin, [*"abcd"], clock=clock, max_failures=1, panic_threshold=1, hot_replicas=4)
    balancer.pick("hot").done(ok=False)
    assert [row.health for row in balancer.records].count("ejected") == 1
    held = [balancer.pick("hot") for _ in range(400)]
    counts = Counter(pick.server for pick in held)
    assert set(counts) == set("abcd") and max(counts.values()) - min(counts.values()) > 4


def test_many_replicas_are_found_by_one_lookup(twin):
    """Counted are hashes, which are this test's, and all calls, most of them in the pure twin."""
    lookups, calls = [], []

    def hashed(data):
        lookups.append(data)
        return twin.hashing.xxh64(data)

    def make(weights):
        return twin.placement.HashRing(weights, scheme=schemes.headgate(hash=hashed))

    balancer = hot_hash(twin, range(200), placement=make, hot_replicas=200)
    balancer.get_server("hot")
    lookups.clear()
    sys.setprofile(lambda frame, event, arg: calls.append(event))
    try:
        balancer.get_server("hot")
    finally:
        sys.setprofile(None)
    assert len(lookups) <= 1 and len(calls) < 200 * 20


# ---- which keys are hot ---------------------------------------------------------------------


@pytest.mark.parametrize(("counted", "hot"), [
    ([("key", 99)], False),
    ([("key", 100)], True),
    ([("key", 100), ("other", 9900)], True),
    ([("key", 100), ("other", 9901)], False),
])
def test_a_key_is_hot_from_a_share_and_from_a_hundred(twin, counted, hot):
    balancer = hot_hash(twin, counted=counted)
    servers = {balancer.get_server("key") for _ in range(60)}
    assert len(servers) == 1 + hot
    assert balancer.hotkeys.total == sum(count for _, count in counted)


def test_what_may_be_an_error_does_not_make_a_key_hot(twin):
    hotkeys = twin.hotkeys.HotKeys(1)
    hotkeys.add("before", 1000)
    hotkeys.add("key")
    balancer = twin.balance.KeyHash([*"abc"], hotkeys=hotkeys)
    assert hotkeys.top() == [("key", 1001, 1000)]
    assert {balancer.get_server("key") for _ in range(60)} == {preference(twin, balancer, "key")[0]}


def test_hot_keys_are_read_at_most_once_a_second(twin, clock):
    balancer = hot_hash(twin, counted=(), clock=clock)
    home = balancer.get_server("key")
    balancer.hotkeys.add("key", 1000)
    clock.advance(0.999)
    assert set(taken(balancer, "key")) == {home}
    clock.advance(0.001)
    assert len(taken(balancer, "key")) == 2
    balancer.hotkeys.clear()
    assert len(taken(balancer, "key", 50)) == 2
    clock.advance(1)
    assert set(taken(balancer, "key", 99)) == {home}
    assert len(taken(balancer, "key", 1)) == 1
    clock.advance(-50)  # a clock that steps back heals
    assert len(taken(balancer, "key", 99)) == 2


def test_a_thread_that_is_late_does_not_read_again(twin, clock):
    class Counted(twin.hotkeys.HotKeys):
        readings = 0

        def top(self, n=None):
            self.readings += 1
            return super().top(n)

    hotkeys = Counted(100)
    balancer = twin.balance.KeyHash([*"abc"], hotkeys=hotkeys, clock=clock)
    balancer.pick("key")
    clock.advance(-0.001)
    balancer.pick("key")
    assert hotkeys.readings == 1
    clock.advance(-1)
    balancer.pick("key")
    assert hotkeys.readings == 2


def test_counts_that_decay_cool_a_key(twin, clock):
    hotkeys = twin.hotkeys.HotKeys(100, half_life=10, clock=clock)
    balancer = twin.balance.KeyHash([*"abcd"], hotkeys=hotkeys, clock=clock, seed=0)
    hotkeys.add("key", 250)
    assert len({balancer.get_server("key") for _ in range(60)}) == 2
    clock.advance(11)
    assert len({balancer.get_server("key") for _ in range(60)}) == 2  # 125 are left
    clock.advance(10)
    assert len({balancer.get_server("key") for _ in range(60)}) == 1


def test_balancers_may_share_the_counts(twin):
    one = hot_hash(twin, counted=())
    other = twin.balance.KeyHash([*"xyz"], hotkeys=one.hotkeys, seed=1)
    for _ in range(60):
        one.pick("key").done()
        other.pick("key").done()
    assert one.hotkeys.top() == [("key", 120, 0)]
    one.reconfigure()
    assert len(taken(one, "key", 50)) == 2
    one.hotkeys.add(("no", "key"), 1000)  # anything may be counted besides
    one.reconfigure()
    assert len(taken(one, "key", 50)) == 2


def test_a_pick_counts_its_key_and_a_lookup_does_not(twin):
    balancer = hot_hash(twin, ["a"], counted=())
    for key in ("text", b"bytes", 7):
        balancer.get_server(key)
        balancer.pick(key).done()
        balancer.pick(key, exclude=()).done()
    with pytest.raises(NoServerError):
        balancer.pick("text", exclude=["a"])
    with pytest.raises(TypeError, match="key must be str, bytes or int, got None"):
        balancer.pick()
    assert balancer.hotkeys.top() == [("text", 3, 0), (b"bytes", 2, 0), (7, 2, 0)]


# ---- settings -------------------------------------------------------------------------------


def test_settings_of_hot_keys_change_live(twin):
    balancer = hot_hash(twin, counted=[("hot", 500), ("warm", 120), ("rest", 380)])
    order = preference(twin, balancer)
    assert len(taken(balancer)) == 2
    balancer.reconfigure(hot_replicas=4)
    assert set(taken(balancer)) == set(order[:4])
    assert len(taken(balancer, "warm", 50)) == 4
    balancer.reconfigure(hot_share=0.3, max_failures=1)
    assert len(taken(balancer, "warm", 50)) == 1 and set(taken(balancer)) == set(order[:4])
    balancer.reconfigure(hot_replicas=1)
    assert set(taken(balancer)) == {order[0]}
    balancer.reconfigure(hot_replicas=100, hot_share=0.0001)
    assert set(taken(balancer)) == set(order)
    with pytest.raises(ValueError, match="hot_replicas must be positive, got 0"):
        balancer.reconfigure(hot_share=1, hot_replicas=0)
    assert set(taken(balancer)) == set(order)
    with pytest.raises(TypeError, match=r"^settings must be among .*, slow_start, got 'hot_share'"):
        twin.balance.AddressHash(["a"]).reconfigure(hot_share=1)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"hotkeys": 5}, TypeError, "hotkeys must be HotKeys or None, got 5"),
    ({"hot_replicas": 0}, ValueError, "hot_replicas must be positive, got 0"),
    ({"hot_replicas": 2**63}, ValueError, "hot_replicas must be positive, got 9223372036854775808"),
    ({"hot_replicas": 1.5}, TypeError, r"hot_replicas must be an int, got 1\.5"),
    ({"hot_share": 0}, ValueError, r"hot_share must be from 0\.0001 to 1, got 0"),
    ({"hot_share": 1.5}, ValueError, r"hot_share must be from 0\.0001 to 1, got 1\.5"),
    ({"hot_share": float("nan")}, ValueError, r"hot_share must be from 0\.0001 to 1, got nan"),
    ({"hot_share": "x"}, TypeError, "hot_share must be a number, got 'x'"),
])
def test_wrong_arguments_are_named(twin, options, error, message):
    with pytest.raises(error, match=message):
        twin.balance.KeyHash(["a"], **options)


def test_an_init_that_is_called_again_keeps_the_hot_keys(twin):
    balancer = hot_hash(twin)
    before = balancer.hotkeys
    with pytest.raises(TypeError):
        balancer.__init__(["a"], hotkeys=twin.hotkeys.HotKeys(1))
    assert balancer.hotkeys is before and len(taken(balancer)) == 2


# ---- foreign code, threads and garbage ------------------------------------------------------


def test_a_clock_and_keys_that_use_the_balancer(twin):
    """The clock of the counts runs at each addition, ``__eq__`` of keys where hashes are equal."""
    balancer = None

    def clock():
        if balancer is not None:
            balancer.get_server("other", exclude=["a"])
            balancer.set_weight("b", 1)
            balancer._check()
        return 0

    class Key(str):
        __slots__ = ()

        def __hash__(self):
            return 7

        def __eq__(self, other):
            if balancer is not None:
                balancer.pick("other").done()
                balancer._check()
            return str.__eq__(self, other)

    hotkeys = twin.hotkeys.HotKeys(100, half_life=60, clock=clock)
    balancer = twin.balance.KeyHash([*"abc"], hotkeys=hotkeys, clock=lambda: 0)
    for number in range(200):
        balancer.pick(Key(number % 2)).done()
    balancer._check()
    hotkeys._check()
    assert all(row.in_flight == 0 for row in balancer.records)


def test_errors_of_the_clock_of_the_counts_reach_the_caller(twin, clock):
    ticks = [0]

    def broken():
        return ticks.pop() if ticks else 1 / 0

    balancer = twin.balance.KeyHash(
        ["a"], hotkeys=twin.hotkeys.HotKeys(1, half_life=1, clock=broken), clock=clock)
    for call in (balancer.pick, balancer.get_server):
        with pytest.raises(ZeroDivisionError):
            call("key")
        balancer._check()
    assert balancer.records[0].in_flight == 0


def test_threads_count_every_pick(twin):
    balancer = hot_hash(twin, counted=(), hot_replicas=3)

    def work(number):
        for turn in range(150):
            with balancer.pick("hot" if turn % 2 else f"{number}-{turn % 10}"):
                balancer.get_server("hot")
            if turn % 50 == 0:
                balancer.reconfigure(hot_replicas=2 + turn % 3)

    run_threads(work, 8)
    balancer._check()
    assert all(row.in_flight == 0 for row in balancer.records)
    assert balancer.hotkeys.total == 8 * 150
    assert balancer.hotkeys.top(1) == [("hot", 8 * 75, 0)]


def test_counts_that_know_the_balancer_are_collected(twin):
    class Known(twin.hotkeys.HotKeys):
        pass

    hotkeys = Known(10)
    hotkeys.balancer = balancer = twin.balance.KeyHash(["a"], hotkeys=hotkeys)
    balancer.pick("key").done()
    gone = weakref.ref(hotkeys)
    del hotkeys, balancer
    gc.collect()
    assert gone() is None


# ---- a naive model --------------------------------------------------------------------------

KEYS = ("x", "y", b"z", 7)
STEPS = st.lists(st.one_of(
    st.tuples(st.just("pick"), st.sampled_from(KEYS), st.sets(st.sampled_from("abcde"), max_size=3)),
    st.tuples(st.just("done"), st.integers(0, 9)),
    st.tuples(st.just("get"), st.sampled_from(KEYS), st.sets(st.sampled_from("abcde"), max_size=3)),
    st.tuples(st.just("count"), st.sampled_from([*KEYS, ("alien",)]), st.integers(1, 400)),
    st.tuples(st.just("clear")),
    st.tuples(st.just("wait"), st.integers(1, 8)),
    st.tuples(st.just("drain"), st.sampled_from("abcde"), st.booleans()),
    st.tuples(st.just("mark"), st.sampled_from("abcde"), st.booleans()),
    st.tuples(st.just("add"), st.sampled_from("abcde"), st.integers(1, 3)),
    st.tuples(st.just("remove"), st.sampled_from("abcde")),
    st.tuples(st.just("set"), st.integers(1, 4), st.sampled_from([0.01, 0.2, 0.5, 1])),
), max_size=60)


class Model:
    """A KeyHash with hot keys, by sorting and counting."""

    def __init__(self, twin, servers):
        self.ring, self.weights, self.draining = twin.placement.HashRing, dict.fromkeys(servers, 1), set()
        self.down = set()
        self.counts, self.hot, self.read_at = Counter(), set(), None
        self.replicas, self.share, self.now = 2, 0.01, 0
        self.removals, self.flying = Counter(), []

    def member(self, server):
        """A server since it was added last: what a pick in flight belongs to."""
        return server, self.removals[server]

    def load(self, server):
        return self.flying.count(self.member(server))

    def is_hot(self, key):
        if self.read_at is None or self.now - self.read_at >= SECOND:
            self.read_at = self.now
            least = max(100, self.share * self.counts.total())
            self.hot = {each for each, count in self.counts.items() if count >= least}
        return key in self.hot

    def servers(self, key, exclude):
        """The servers that a pick may go to; two of equal weight differ by their load."""
        replicas = self.replicas if self.is_hot(key) else 1
        order = self.ring(self.weights).preference(key) if self.weights else []
        out = self.draining if self.is_panic() else self.draining | self.down
        usable = [server for server in order if server not in out | exclude][:replicas]
        if len(usable) == 2 and not self.is_panic() and self.weights[usable[0]] == self.weights[usable[1]]:
            loads = [self.load(server) for server in usable]
            usable = [server for server, load in zip(usable, loads, strict=True) if load == min(loads)]
        return set(usable)

    def is_panic(self):
        present = self.weights.keys() - self.draining
        up = present - self.down
        return not up or len(up) < len(present) // 2

    def mark(self, server, down):
        if server in self.weights:
            (self.down.add if down else self.down.discard)(server)

    def count(self, key, number):
        self.counts[key] += number

    def clear(self):
        self.counts.clear()

    def wait(self, quarters):
        self.now += quarters * SECOND // 4

    def set(self, replicas, share):
        self.replicas, self.share, self.read_at = replicas, share, None

    def add(self, server, weight):
        self.weights.setdefault(server, weight)

    def drain(self, server, draining):
        if server in self.weights:
            (self.draining.add if draining else self.draining.discard)(server)

    def remove(self, server):
        self.weights.pop(server, None)
        self.draining.discard(server)
        self.down.discard(server)
        self.removals[server] += 1


def change(balancer, clock, kind, *rest):
    """Apply a step that is no pick."""
    if kind == "count":
        balancer.hotkeys.add(*rest)
    elif kind == "clear":
        balancer.hotkeys.clear()
    elif kind == "wait":
        clock.advance(rest[0] / 4)
    elif kind == "mark":
        with suppress(KeyError):
            (balancer.mark_down if rest[1] else balancer.mark_up)(rest[0])
    elif kind == "set":
        balancer.reconfigure(hot_replicas=rest[0], hot_share=rest[1])
    else:
        with suppress(KeyError, ValueError):
            getattr(balancer, f"{kind}_server")(*rest)


def choose(balancer, model, picks, kind, key, exclude):
    """Pick a server that the model may pick, or none where it has none."""
    if kind == "pick":
        model.counts[key] += 1
    expected = model.servers(key, exclude)
    method = balancer.pick if kind == "pick" else balancer.get_server
    if not expected:
        with pytest.raises(NoServerError):
            method(key, exclude=exclude)
    elif kind == "get":
        assert method(key, exclude=exclude) in expected
    else:
        pick = method(key, exclude=exclude)
        assert pick.server in expected
        picks.append((pick, model.member(pick.server)))
        model.flying.append(model.member(pick.server))


@settings(max_examples=80)
@given(steps=STEPS)
def test_picks_are_those_of_a_naive_model(twins, steps):
    for twin in twins:
        clock, picks, model = FakeClock(), [], Model(twin, "abcd")
        balancer = hot_hash(twin, [*"abcd"], counted=(), clock=clock)
        for kind, *rest in steps:
            if kind in ("pick", "get"):
                choose(balancer, model, picks, kind, *rest)
            elif kind != "done":
                change(balancer, clock, kind, *rest)
                getattr(model, kind)(*rest)
            elif picks:
                pick, member = picks.pop(rest[0] % len(picks))
                pick.done()
                model.flying.remove(member)
            balancer._check()
            assert {row.server: row.in_flight for row in balancer.records} == {
                server: model.load(server) for server in model.weights}
        assert balancer.hotkeys.total == model.counts.total()

