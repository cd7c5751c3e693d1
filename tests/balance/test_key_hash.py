"""KeyHash and AddressHash: keys over a placement, with health, and changes of members that are atomic."""

import sys
from collections import Counter
from functools import partial
from pickle import dumps
from threading import Barrier, Event, Thread

import pytest
from threads import run_threads
from watchdog import PATIENCE, in_threads

import headgate
from headgate import schemes
from headgate.errors import NoServerError

KEYS = [f"user:{number}" for number in range(400)]
PLACEMENTS = ["HashRing", "Rendezvous", "Maglev"]


def homes(balancer, **options):
    return {key: balancer.get_server(key, **options) for key in KEYS}


@pytest.fixture(params=PLACEMENTS)
def placement(request, twin):
    return getattr(twin.placement, request.param)


def test_keys_are_where_the_placement_has_them(twin, placement):
    weights = {"a": 1, "b": 2, "c": 3}
    balancer, nodes = twin.balance.KeyHash(weights, placement=placement), placement(weights)
    assert homes(balancer) == dict(zip(KEYS, nodes.get_many(KEYS), strict=True))
    for key in ["é", "é".encode(), -1, 2**63 - 1, b"\0"]:
        assert balancer.get_server(key) == nodes.get_node(key)


def test_hash_functions_that_use_the_other_balancer(twin):
    """No lock is held over a hash function, so two that meet do not wait for one another."""
    begun, balancers = Barrier(2), []
    met = set()

    def hash(data, own, other):
        if data == b"first" and own not in met:
            met.add(own)
            begun.wait(PATIENCE)
            balancers[other].pick("second").done()
        return len(data)

    for own, other in ((0, 1), (1, 0)):
        scheme = schemes.headgate(hash=partial(hash, own=own, other=other))
        ring = partial(twin.placement.HashRing, scheme=scheme)
        balancers.append(twin.balance.KeyHash(["a", "b"], placement=ring))
    waiting = iter(balancers)
    assert set(in_threads(lambda: next(waiting).get_server("first"), 2)) <= {"a", "b"}


def test_picks_that_a_hash_function_suspends_at_once(twin):
    """One that ends first leaves changes of the members in force, though the other one began amid it."""
    second_began, first_ended = Event(), Event()

    def hash(data):
        if data == b"first":
            second.start()
            second_began.wait(0.2)  # in vain where a lock keeps the other one out
        elif data == b"second":
            second_began.set()
            first_ended.wait(5)
        return twin.hashing.xxh64(data)

    ring = partial(twin.placement.HashRing, scheme=schemes.headgate(hash=hash))
    balancer = twin.balance.KeyHash([*"abc"], placement=ring, max_failures=1)
    second = Thread(target=balancer.get_server, args=["second"], kwargs={"exclude": [*"ab"]})
    next(pick for pick in map(balancer.pick, KEYS) if pick.server == "c").done(False)
    balancer.get_server("first")
    first_ended.set()
    second.join()
    balancer.add_server("d")
    balancer._check()
    assert set(homes(balancer).values()) == set("abd")


def test_the_placement_is_a_hash_ring_by_default(twin):
    ring = twin.balance.KeyHash([*"abcd"], placement=twin.placement.HashRing)
    assert homes(twin.balance.KeyHash([*"abcd"])) == homes(ring)


def test_schemes_and_node_keys(twin):
    ring = partial(twin.placement.HashRing, scheme="libmemcached", node_key=lambda one: f"host-{one[0]}")
    servers = {("a", 1): 1, ("b", 2): 3, ("c", 3): 1}
    balancer = twin.balance.KeyHash(servers, placement=ring)
    assert homes(balancer) == dict(zip(KEYS, ring(servers).get_many(KEYS), strict=True))
    with pytest.raises(ValueError, match=r"server must not be a member already, got \('a', 9\)"):
        balancer.add_server(("a", 9))
    balancer.set_weight(("a", 1), 2)
    assert homes(balancer) == dict(zip(KEYS, ring(servers | {("a", 1): 2}).get_many(KEYS), strict=True))


@pytest.mark.parametrize("out", ["excluded", "drained", "down", "ejected", "removed"])
def test_only_keys_of_a_server_that_is_out_move_and_as_they_prefer(twin, clock, placement, out):
    balancer = twin.balance.KeyHash([*"abcdefghi"], placement=placement, clock=clock, max_failures=1)
    nodes = placement(balancer.servers)
    before, options = homes(balancer), {}
    if out == "excluded":
        options = {"exclude": ["f"]}
    elif out == "drained":
        balancer.drain_server("f")
    elif out == "down":
        balancer.mark_down("f")
    elif out == "removed" and placement is not twin.placement.Maglev:
        balancer.remove_server("f")
    else:
        balancer.pick("user:1", exclude=set(balancer.servers) - {"f"}).done(False)
    after = homes(balancer, **options)
    for key in KEYS:
        expected = next(node for node in nodes.preference(key) if node != "f")
        assert after[key] == (expected if before[key] == "f" else before[key])
    balancer._check()


def test_keys_come_to_a_new_server_one_by_one_and_stay(twin, clock, placement):
    balancer = twin.balance.KeyHash([*"abcd"], placement=placement, clock=clock, slow_start=100)
    before = homes(balancer)
    balancer.add_server("new")
    final = dict(zip(KEYS, placement([*"abcd", "new"]).get_many(KEYS), strict=True))
    came, shares = set(), []
    for _ in range(11):
        now = homes(balancer)
        here = {key for key in KEYS if now[key] == "new"}
        assert came <= here
        came = here
        shares.append(len(here))
        clock.advance(10)
    total = list(final.values()).count("new")
    assert 0 < shares[0] < 0.25 * total
    assert sorted(shares) == shares
    assert shares[-1] == total
    assert homes(balancer) == final
    assert before != final


def test_a_slow_start_of_all_that_are_left(twin, clock):
    balancer = twin.balance.KeyHash([], clock=clock, slow_start=100)
    with pytest.raises(NoServerError, match="there is no server"):
        balancer.get_server("key")
    balancer.add_server("a")
    assert set(homes(balancer).values()) == {"a"}
    balancer.add_server("b")
    assert set(homes(balancer, exclude=["a"]).values()) == {"b"}


def test_picks_are_counted_and_no_key_is_kept(twin):
    balancer = twin.balance.KeyHash([*"abc"])
    with balancer.pick("user:1") as pick:
        assert pick.server == balancer.get_server("user:1")
        assert {record.server: record.in_flight for record in balancer.records}[pick.server] == 1
    size = sum(map(sys.getsizeof, [balancer, *balancer.records]))
    homes(balancer)
    assert sum(map(sys.getsizeof, [balancer, *balancer.records])) == size


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"placement": 5}, TypeError, "placement must be callable or None, got 5"),
    ({"placement": list}, TypeError, r"placement must return a HashRing, Rendezvous or Maglev, got \['a'\]"),
    ({"servers": [None]}, TypeError, "node must be str, bytes or int, got None"),
    ({"servers": ["a", b"a"]}, ValueError, "node must not be a member already, got b'a'"),
    ({"servers": {"a": 1e9}}, ValueError, "weight must give at most 16777216 points, got 1000000000"),
    ({"servers": "a"}, TypeError, "servers must be an iterable of servers or a mapping"),
])
def test_wrong_arguments_are_named(twin, options, error, message):
    with pytest.raises(error, match=message):
        twin.balance.KeyHash(**{"servers": ["a"]} | options)


@pytest.mark.parametrize("key", [None, 1.5, ("a",)])
def test_wrong_keys_are_named(twin, key):
    balancer = twin.balance.KeyHash(["a"])
    for call in balancer.pick, balancer.get_server:
        with pytest.raises(TypeError, match=r"key must be str, bytes or int, got "):
            call(key)
    with pytest.raises(ValueError, match=r"key must be in \[-2\*\*63, 2\*\*63\), got 9223372036854775808"):
        balancer.get_server(2**63)
    with pytest.raises(TypeError, match="cannot pickle 'KeyHash' object"):
        dumps(balancer)


def test_a_placement_that_fails_leaves_everything_as_it_was(twin):
    calls = []

    def fussy(weights):
        calls.append(dict(weights))
        if len(weights) == 3:
            raise ZeroDivisionError
        return twin.placement.HashRing(weights)

    balancer = twin.balance.KeyHash(["a", "b"], placement=fussy)
    before = homes(balancer)
    with pytest.raises(ZeroDivisionError):
        balancer.add_server("c", 2)
    assert balancer.servers == ("a", "b")
    assert homes(balancer) == before
    assert calls[-1] == {"a": 1, "b": 1, "c": 2}
    balancer._check()


class Changing:
    """Makes rings, and uses the balancer meanwhile, as another thread may."""

    def __init__(self, twin):
        self.ring, self.balancer, self.act = twin.placement.HashRing, None, None

    def __call__(self, weights):
        act, self.act = self.act, None
        if act is not None:
            act(self.balancer)
        return self.ring(weights)


@pytest.mark.parametrize("change", [
    lambda balancer: balancer.add_server("z"),
    lambda balancer: balancer.set_weight("b", 9),
    lambda balancer: balancer.remove_server("c"),
])
def test_a_change_amid_a_change_is_not_lost(twin, change):
    make = Changing(twin)
    make.balancer = balancer = twin.balance.KeyHash([*"abc"], placement=make)
    make.act = lambda balancer: (balancer.add_server("w"), balancer.set_weight("a", 3),
                                 balancer.drain_server("b"), balancer.get_server("k"))
    change(balancer)
    plain = twin.balance.KeyHash([*"abc"])
    plain.add_server("w")
    plain.set_weight("a", 3)
    plain.drain_server("b")
    change(plain)
    assert sorted(balancer.servers) == sorted(plain.servers)
    assert homes(balancer) == homes(plain)
    balancer._check()


def test_the_same_server_twice_at_one_time(twin):
    make = Changing(twin)
    make.balancer = balancer = twin.balance.KeyHash(["a"], placement=make)
    make.act = lambda balancer: balancer.add_server("b", 2)
    with pytest.raises(ValueError, match="server must not be a member already, got 'b'"):
        balancer.add_server("b")
    assert {record.server: record.weight for record in balancer.records} == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", ["AddressHash", "KeyHash"])
def test_picks_go_home_while_members_change(twin, name):
    keys = [f"10.0.{number}.1" for number in range(60)]
    balancer = getattr(twin.balance, name)([f"s{number}" for number in range(20)])
    drained, excluded = balancer.get_server(keys[0]), balancer.get_server(keys[1])
    balancer.drain_server(drained)
    home = {key: balancer.get_server(key, exclude=[excluded]) for key in keys}
    ended, elsewhere = Event(), []

    def change(number):
        for _ in range(60):
            balancer.add_server(f"extra {number}")
            balancer.remove_server(f"extra {number}")

    def pick():
        while not ended.is_set():
            for key, server in home.items():
                got = balancer.get_server(key, exclude=[excluded])
                if got != server and not got.startswith("extra"):
                    elsewhere.append((key, got))

    picker = Thread(target=pick)
    picker.start()
    try:
        run_threads(change)
    finally:
        ended.set()
        picker.join()
    assert elsewhere == []
    assert len(balancer) == 20
    assert {key: balancer.get_server(key, exclude=[excluded]) for key in keys} == home
    balancer._check()


@pytest.mark.parametrize("name", ["AddressHash", "KeyHash", "LeastLoaded", "RoundRobin"])
def test_concurrent_changes_all_count(twin, name):
    balancer = getattr(twin.balance, name)(["first"])

    def work(number):
        for turn in range(25):
            balancer.add_server(f"{number}-{turn}")
            assert f"{number}-{turn}" in balancer.servers
            if turn % 3 == 0:
                balancer.set_weight(f"{number}-{turn}", 2)
            if turn % 2:
                balancer.remove_server(f"{number}-{turn}")

    run_threads(work)
    counts = Counter(server.partition("-")[0] for server in balancer.servers)
    assert counts.pop("first") == 1
    assert set(counts.values()) == {13}
    assert {record.server for record in balancer.records if record.weight == 2} == {
        server for server in balancer.servers if server != "first" and int(server.partition("-")[2]) % 3 == 0}
    balancer._check()


@pytest.mark.parametrize("name", ["AddressHash", "KeyHash", "LeastLoaded", "RoundRobin"])
def test_an_init_that_is_called_again(twin, name):
    balancer = getattr(twin.balance, name)(["a", "b", "c"], max_failures=1)
    picks = [balancer.pick("10.0.0.1") for _ in range(3)]
    balancer.drain_server("b")
    again = {"servers": {"x": 1, "y": 2, "b": 3}, "seed": 0}
    for wrong in ({"servers": ["x", "x"]}, {"servers": ["x"], "seed": "y"}, {"servers": {"x": -1}}, again):
        with pytest.raises((TypeError, ValueError)):
            balancer.__init__(**wrong)
        assert balancer.servers == ("a", "b", "c")
        assert balancer.get_server("10.0.0.1") in {"a", "c"}
    for pick in picks:
        pick.done()
    balancer._check()
    assert {record.health for record in balancer.records} == {"healthy", "draining"}


def test_an_address_hash_of_another_scheme(twin):
    balancer = twin.balance.AddressHash({"x": 1, "y": 3}, scheme="nginx")
    with pytest.raises(ValueError, match=r"weight must be whole in nginx's scheme, got 1\.5"):
        balancer.set_weight("x", 1.5)
    with pytest.raises(ValueError, match="scheme must be 'headgate' or 'nginx', got 'y'"):
        twin.balance.AddressHash(["q"], scheme="y")
    assert balancer.servers == ("x", "y")


def test_public_names():
    assert headgate.KeyHash is headgate.balance.KeyHash
