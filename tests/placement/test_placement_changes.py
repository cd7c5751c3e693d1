"""A change of a weight or of all nodes is one step, and a node of weight 0 is a member without keys."""

import array
import copy
import pickle
from itertools import pairwise

import pytest
from threads import run_threads

from headgate import NoServerError, schemes

KEYS = [f"user:{i}" for i in range(120)]
WEIGHTS = {"a": 1, "b": 2, "c": 3, "d": 2}
MAKERS = {
    "HashRing": lambda module, nodes: module.HashRing(nodes, 40),
    "nginx": lambda module, nodes: module.HashRing(nodes, scheme="nginx"),
    "libmemcached": lambda module, nodes: module.HashRing(nodes, scheme="libmemcached"),
    "envoy": lambda module, nodes: module.HashRing(nodes, scheme="envoy"),
    "sha256": lambda module, nodes: module.HashRing(nodes, scheme=schemes.headgate(hash="sha256")),
    "Rendezvous": lambda module, nodes: module.Rendezvous(nodes),
    "Maglev": lambda module, nodes: module.Maglev(nodes, 251),
}


@pytest.fixture(params=MAKERS)
def make(request, twin):
    """Makes a placement of each kind."""
    return lambda nodes: MAKERS[request.param](twin.placement, nodes)


def moved(before, after):
    """The pairs (old node, new node) of the keys that moved."""
    return {(old, new) for old, new in zip(before, after, strict=True) if old != new}


def assert_same(one, other):
    one._check()
    assert one == other
    assert one.nodes == other.nodes
    assert one.weights == other.weights
    assert one.get_many(KEYS) == other.get_many(KEYS)
    assert [one.preference(key) for key in KEYS[:30]] == [other.preference(key) for key in KEYS[:30]]
    assert one.ownership() == other.ownership()
    assert one.diff(other) == {}


def test_a_weight_that_is_set_is_as_if_it_had_always_been(make):
    placement = make(WEIGHTS)
    for weight in (5, 1, 0, 0, 7):
        placement.get_node("x")
        placement.set_weight("b", weight)
        assert_same(placement, make(WEIGHTS | {"b": weight}))
    assert list(placement.weights.values()) == [1, 7, 3, 2]


@pytest.mark.parametrize("kind", ["HashRing", "nginx", "sha256", "Rendezvous"])
def test_only_keys_of_the_node_move(twin, kind):
    placement = MAKERS[kind](twin.placement, WEIGHTS)
    before = placement.get_many(KEYS)
    for weight in (4, 1, 0):
        old = placement.get_many(KEYS)
        placement.set_weight("b", weight)
        gone = moved(old, placement.get_many(KEYS))
        assert gone and all("b" in pair for pair in gone)
        assert all((new == "b") == (weight == 4) for _, new in gone)
    placement.set_weight("b", 2)
    assert placement.get_many(KEYS) == before


def test_a_node_of_weight_0_is_a_member_that_owns_nothing(make):
    placement, without = make(WEIGHTS), make({node: WEIGHTS[node] for node in "acd"})
    placement.set_weight("b", 0)
    assert placement.nodes == ("a", "b", "c", "d") and "b" in placement and len(placement) == 4
    assert placement.weights["b"] == 0
    assert placement.get_many(KEYS) == without.get_many(KEYS)
    assert placement.preference("x") == without.preference("x")
    assert placement.get_nodes("x", 4) == without.get_nodes("x", 4)
    assert placement.ownership() == without.ownership() | {"b": 0}
    assert placement.diff(without) == without.diff(placement) == {}
    assert placement != without
    placement.add_node("e", 0)
    with pytest.raises(ValueError, match="node must not be a member already, got 'e'"):
        placement.add_node("e")
    assert placement.get_many(KEYS) == without.get_many(KEYS)
    placement.remove_node("e")
    assert_same(placement, make(WEIGHTS | {"b": 0}))


def test_where_every_weight_is_0(make):
    placement, empty = make(dict.fromkeys("ab", 0)), make([])
    assert placement.nodes == ("a", "b")
    assert placement.get_node("x") is None
    assert placement.preference("x") == placement.get_nodes("x", 2) == []
    assert placement.get_many(["x", "y"]) == [None, None]
    assert placement.ownership() == {"a": 0, "b": 0}
    assert placement.diff(empty) == empty.diff(placement) == {}
    full = make(WEIGHTS)
    assert placement.diff(full) == empty.diff(full)
    placement._check()
    if hasattr(placement, "locate"):
        assert list(placement.locate(array.array("Q", [0, 2**63]))) == [-1, -1]
    placement.set_weight("b", 1)
    assert set(placement.get_many(KEYS)) == {"b"}


def test_indices_of_locate_count_the_drained(twin):
    ring = twin.placement.HashRing({"a": 0, "b": 1, "c": 0, "d": 1})
    assert {ring.nodes[i] for i in ring.locate(array.array("Q", range(0, 2**64, 2**56)))} == {"b", "d"}


def test_copies_and_pickles_keep_weight_0(make):
    placement = make(WEIGHTS | {"c": 0})
    for other in (copy.copy(placement), copy.deepcopy(placement), pickle.loads(pickle.dumps(placement))):
        assert (other.nodes, other.weights) == (placement.nodes, placement.weights)
        assert other.get_many(KEYS) == placement.get_many(KEYS)
        other.set_weight("c", 1)
        assert placement.weights["c"] == 0


def test_pymemcache_drains_too(twin):
    placement = twin.placement.Rendezvous([f"n{i}" for i in range(20)], scheme="pymemcache")
    others = twin.placement.Rendezvous([f"n{i}" for i in range(20) if i not in (0, 7)], scheme="pymemcache")
    placement.set_weight("n7", 0)
    placement.set_weight("n0", 0)
    placement._check()
    assert placement.get_many(KEYS) == others.get_many(KEYS)
    assert [placement.preference(key) for key in KEYS] == [others.preference(key) for key in KEYS]


def test_all_nodes_are_replaced(make):
    placement = make(WEIGHTS)
    for nodes in ({"b": 2, "e": 1, "a": 1}, ["d", "c"], iter("xyz"), [], WEIGHTS):
        nodes = list(nodes) if not isinstance(nodes, (dict, list)) else nodes
        placement.get_node("x")
        placement.replace_nodes(nodes)
        assert_same(placement, make(nodes))


def test_lookups_amid_a_replacement_see_the_nodes_of_before(make):
    placement = make(WEIGHTS)
    before, seen = placement.get_many(KEYS), []

    def nodes():
        for node in "bcde":
            seen.append(placement.get_many(KEYS))
            yield node

    placement.replace_nodes(nodes())
    assert seen == [before] * 4
    assert placement.get_many(KEYS) == make(["b", "c", "d", "e"]).get_many(KEYS)


WRONG = [
    (lambda ring: ring.set_weight("x", 1), KeyError, "node must be a member, got 'x'"),
    (lambda ring: ring.set_weight("a", -1), ValueError, "weight must be finite and not negative, got -1"),
    (lambda ring: ring.set_weight("a", float("inf")), ValueError,
     "weight must be finite and not negative, got inf"),
    (lambda ring: ring.set_weight("a", "1"), TypeError, "weight must be an int or a float, got '1'"),
    (lambda ring: ring.set_weight(1.5, 1), TypeError, "node must be str, bytes or int, got 1.5"),
    (lambda ring: ring.replace_nodes(["x", "x"]), ValueError, "node must not be a member already, got 'x'"),
    (lambda ring: ring.replace_nodes({"x": 1, "y": -2}), ValueError,
     "weight must be finite and not negative, got -2"),
    (lambda ring: ring.replace_nodes("abc"), TypeError,
     "nodes must be an iterable of nodes or a mapping of node to weight, got 'abc'"),
    (lambda ring: ring.replace_nodes(7), TypeError,
     "nodes must be an iterable of nodes or a mapping of node to weight, got 7"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_input_leaves_everything_as_it_was(make, act, error, message):
    placement = make(WEIGHTS)
    with pytest.raises(error) as caught:
        act(placement)
    assert caught.value.args == (message,)
    assert_same(placement, make(WEIGHTS))


def test_a_warning_made_an_error_leaves_the_weights_as_they_were(twin):
    ring = twin.placement.HashRing({"a": 1000, "b": 1000}, scheme="libmemcached")
    with pytest.warns(RuntimeWarning, match="too small for a point"):
        ring.set_weight("b", 1)
    with pytest.warns(RuntimeWarning, match="too small for a point"):
        ring.replace_nodes({"a": 1, "b": 1000})
    ring.set_weight("a", 0)  # no warning: it is not meant to own keys
    ring.set_weight("a", 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headgate.schemes._program.warn", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ring.set_weight("b", 1)
    assert ring.weights == {"a": 1000, "b": 1000}


def test_the_object_of_the_member_stays(twin):
    first, second = "".join(["no", "de"]), "".join(["no", "de"])
    ring = twin.placement.HashRing([first])
    ring.set_weight(second, 2)
    assert ring.nodes[0] is first
    ring.replace_nodes([second])
    assert ring.nodes[0] is second


def test_threads_see_the_keys_in_one_of_two_places(make):
    states = [WEIGHTS, WEIGHTS | {"b": 5}, {"b": 2, "x": 1, "y": 3}]
    homes = [make(state).get_many(KEYS[:20]) for state in states]
    placement, looked = make(states[0]), []

    def work(number):
        for _, state in zip(range(25), states * 10, strict=False):
            if number == 0:
                placement.replace_nodes(state)
            else:
                looked.append(placement.get_many(KEYS[:20]))

    run_threads(work, 4)
    assert len(looked) == 75 and all(seen in homes for seen in looked)
    placement._check()


def test_threads_that_change_weights_lose_none(make):
    placement = make(dict.fromkeys("abcdefgh", 1))

    def work(number):
        node = "abcdefgh"[number]
        for weight in (2, 0, 5, 3 + number):
            placement.set_weight(node, weight)
            assert placement.weights[node] == weight
            assert (node in placement.preference("x")) == (weight > 0)

    run_threads(work)
    assert placement.weights == {node: 3 + i for i, node in enumerate("abcdefgh")}
    placement._check()


def test_bounded_load_follows_weights(twin):
    ring = twin.placement.HashRing(dict.fromkeys("abc", 1))
    bounded = twin.placement.BoundedLoad(ring, 1)
    picks = [bounded.pick(key) for key in KEYS[:9]]
    assert bounded.loads == {"a": 3, "b": 3, "c": 3}
    ring.set_weight("b", 0)
    more = [bounded.pick(key) for key in KEYS[:6]]
    assert bounded.loads == {"a": 6, "b": 3, "c": 6}  # draining nodes do not count in the average
    bounded._check()
    for pick in picks:
        pick.done()
    assert bounded.loads["b"] == 0
    bounded._check()
    ring.set_weight("b", 2)
    del picks, more
    picks = [bounded.pick(key) for key in KEYS[:8]]
    assert bounded.loads == {"a": 2, "b": 4, "c": 2}
    for node in "abc":
        ring.set_weight(node, 0)
    with pytest.raises(NoServerError, match="the placement has no server"):
        bounded.pick("x")
    ring.set_weight("c", 1)
    with pytest.raises(NoServerError, match="every server is excluded"):
        bounded.pick("x", exclude=["c"])
    assert bounded.pick("x").server == "c"
    assert len(picks) == 8
    bounded._check()


@pytest.mark.parametrize("weights", [
    {"a": 1e308, "b": 1e308, "c": 5e307},
    {"a": 10**308, "b": 10**308, "c": 5 * 10**307},
    {"a": 1e-323, "b": 1e-323, "c": 5e-324},
], ids=["heavy", "heavy ints", "light"])
def test_weights_at_the_ends_of_the_range(twin, weights):
    small = {"a": 2, "b": 2, "c": 1}
    module = twin.placement
    for cls in (module.Rendezvous, lambda nodes: module.Maglev(nodes, 8191)):
        placement, same = cls(weights), cls(small)
        assert placement.get_many(KEYS) == same.get_many(KEYS)
        assert placement.ownership() == same.ownership()
        assert placement.diff(cls(["x"])) == pytest.approx(same.diff(cls(["x"])))
        assert cls(["a", "x"]).diff(placement) == pytest.approx(cls(["a", "x"]).diff(same))
        bounded, other = module.BoundedLoad(placement), module.BoundedLoad(same)
        picks = [(bounded.pick(key), other.pick(key)) for key in KEYS[:40]]
        assert [one.server for one, _ in picks] == [one.server for _, one in picks]
        assert bounded.loads == other.loads


def test_a_weight_beside_one_that_is_beyond_compare(twin):
    weights, module = {"a": 1.7e308, "b": 5e-324}, twin.placement
    for cls in (module.Rendezvous, lambda nodes: module.Maglev(nodes, 8191)):
        placement = cls(weights)
        assert set(placement.get_many(KEYS)) == {"a"}
        assert placement.ownership()["a"] == pytest.approx(1, abs=0.01)
        assert sum(placement.diff(cls(["b"])).values()) == pytest.approx(1, abs=0.01)
        assert sum(cls(["b"]).diff(placement).values()) == pytest.approx(1, abs=0.01)


def test_shares_grow_with_the_weight(make):
    placement, shares = make(WEIGHTS), []
    for weight in (0, 1, 4, 16):
        placement.set_weight("a", weight)
        shares.append(placement.ownership()["a"])
    assert shares[0] == 0 and all(low < high for low, high in pairwise(shares))
