"""BoundedLoad: no node above its bound, keys stay where possible, picks end once."""

import copy
import gc
import math
import pickle
import random
import weakref

import pytest
from finalizers import struck_by
from threads import run_threads

from headgate.errors import HeadgateError, NoServerError

NODES = [f"n{i}" for i in range(10)]


def placements(twin):
    module = twin.placement
    return [module.HashRing(NODES), module.Rendezvous(NODES), module.Maglev(NODES, 1009)]


def test_a_pick_is_the_first_preferred_node_below_its_bound(twin):
    for placement in placements(twin):
        bounded, picks = twin.placement.BoundedLoad(placement, 1.5), []
        loads = dict.fromkeys(placement.nodes, 0)
        for i in range(300):
            key = f"user:{i % 7}"
            bound = math.ceil(1.5 * (i + 1) / len(NODES))
            expected = next(node for node in placement.preference(key) if loads[node] < bound)
            picks.append(bounded.pick(key))
            assert picks[-1].server == expected
            loads[expected] += 1
            assert bounded.loads == loads
        for pick in picks:
            pick.done()
        assert bounded.loads == dict.fromkeys(placement.nodes, 0)
        bounded._check()


def test_a_random_walk_never_exceeds_the_bound(both_twins):
    """Both twins do the same steps, while members are added and removed and weights differ."""
    sides = []
    for twin in both_twins:
        ring = twin.placement.HashRing({f"n{i}": 1 + i % 3 for i in range(8)}, 20)
        sides.append((ring, twin.placement.BoundedLoad(ring, 1.25), []))
    rng = random.Random(1)
    for _ in range(4000):
        action, choice, key = rng.random(), rng.random(), rng.randrange(30)
        nodes = []
        for ring, bounded, picks in sides:
            if action < 0.55:
                picks.append(bounded.pick(key))
                node, weights, loads = picks[-1].server, ring.weights, bounded.loads
                share = weights[node] / sum(weights.values())
                assert loads[node] <= math.ceil(1.25 * sum(loads.values()) * share + 1e-9)
                nodes.append(node)
            elif action < 0.97:
                if picks:
                    picks.pop(int(choice * len(picks))).done()
            elif len(ring) > 4 and choice < 0.5:
                ring.remove_node(ring.nodes[int(choice * len(ring))])
            elif f"n{key}" not in ring:
                ring.add_node(f"n{key}", 1 + key % 2)
            bounded._check()
        assert len(set(nodes)) <= 1
        assert sides[0][1].loads == sides[1][1].loads


def test_few_keys_are_sent_on(twin):
    """With c = 1.25 and balanced keys, nearly all stay on the node of the placement."""
    placement = twin.placement.Rendezvous(NODES)
    bounded = twin.placement.BoundedLoad(placement)
    picks = [(key, bounded.pick(key)) for key in range(2000)]
    assert sum(pick.server != placement.get_node(key) for key, pick in picks[200:]) < 40
    assert max(bounded.loads.values()) <= math.ceil(1.25 * 200)


def test_excluded_nodes_are_passed_over(twin):
    for placement in placements(twin):
        bounded = twin.placement.BoundedLoad(placement)
        order = placement.preference("x")
        assert bounded.pick("x", exclude=[]).server == order[0]
        assert bounded.pick("x", exclude=order[:1]).server == order[1]
        assert bounded.pick("x", exclude=iter(order[:9])).server == order[9]
        assert bounded.pick("x", exclude=["unknown"]).server == order[0]
        with pytest.raises(NoServerError, match=r"^every server is excluded$"):
            bounded.pick("x", exclude=order)
        with pytest.raises(TypeError, match=r"^exclude must be an iterable, got 'a'$"):
            bounded.pick("x", exclude="a")
        assert sum(bounded.loads.values()) == 0
        bounded._check()


def test_the_average_is_that_of_the_nodes_left(twin):
    bounded = twin.placement.BoundedLoad(twin.placement.HashRing(["a", "b", "c"]), c=1)
    picks = [bounded.pick(i, exclude=["a"]) for i in range(10)]
    assert bounded.loads == {"a": 0, "b": 5, "c": 5}
    picks.append(bounded.pick(0))
    assert bounded.loads["a"] in (0, 1)


def test_an_empty_placement(twin):
    bounded = twin.placement.BoundedLoad(twin.placement.HashRing())
    with pytest.raises(NoServerError, match=r"^the placement has no server$"):
        bounded.pick("x")
    with pytest.raises(LookupError):
        bounded.pick("x", exclude=["a"])
    assert issubclass(NoServerError, HeadgateError)
    assert bounded.loads == {}


def test_a_pick_names_its_server_as_picks_of_balancers_do(twin):
    pick = twin.placement.BoundedLoad(twin.placement.HashRing(["a"])).pick("x")
    assert pick.server == twin.balance.RoundRobin(["a"]).pick().server == "a"
    assert not hasattr(pick, "node")
    with pytest.raises(AttributeError):
        pick.server = "b"


def test_picks_end_once(twin):
    bounded = twin.placement.BoundedLoad(twin.placement.HashRing(["a"]))
    with bounded.pick("x") as pick, bounded.pick("y"):
        assert (pick.server, bounded.loads) == ("a", {"a": 2})
        pick.done()
        assert bounded.loads == {"a": 1}
    pick.done()
    assert bounded.loads == {"a": 0}
    with pytest.raises(LookupError), bounded.pick("x"):
        raise LookupError
    assert bounded.loads == {"a": 0}


def test_a_dropped_pick_ends_itself(twin):
    bounded = twin.placement.BoundedLoad(twin.placement.HashRing(["a"]))
    bounded.pick("x")
    gc.collect()
    assert bounded.loads == {"a": 0}


def test_a_node_that_returns_has_what_is_still_in_flight(twin):
    ring = twin.placement.HashRing(["a", "b"])
    bounded = twin.placement.BoundedLoad(ring)
    picks = [bounded.pick(i, exclude=["b"]) for i in range(3)]
    ring.remove_node("a")
    assert bounded.pick("x").server == "b"
    assert bounded.loads == {"b": 0}
    picks.pop().done()
    ring.add_node("a")
    assert bounded.loads == {"a": 2, "b": 0}
    assert bounded.pick("x", exclude=["b"]).server == "a"
    bounded._check()
    picks.clear()
    assert bounded.loads == {"a": 0, "b": 0}


@pytest.mark.parametrize("c", [1, 1.25])
def test_a_node_without_points_gets_picks_that_no_other_node_can_take(twin, c):
    placement = twin.placement.Maglev(["a", "b", "idle"], 2)
    assert placement.ownership()["idle"] == 0
    bounded, picks = twin.placement.BoundedLoad(placement, c), []
    assert bounded.pick("user:1", exclude=["a", "b"]).server == "idle"
    for i in range(60):
        before = bounded.loads
        picks.append(bounded.pick(f"user:{i % 7}"))
        bound = math.ceil(c * (i + 1) / 3)
        assert max(bounded.loads.values()) <= bound
        if picks[-1].server == "idle":
            assert before["a"] == before["b"] == bound
        bounded._check()
    assert bounded.loads["idle"] > 0
    with pytest.raises(NoServerError, match="every server is excluded"):
        bounded.pick("user:1", exclude=["a", "b", "idle"])


@pytest.mark.parametrize("weight", [1.7e308, pytest.param(10**308, id="int"), 5e-324])
def test_the_heaviest_and_lightest_weights_break_no_pick(twin, weight):
    bounded = twin.placement.BoundedLoad(twin.placement.Rendezvous({"a": weight, "b": weight, "c": 1}))
    picks = [bounded.pick(i) for i in range(20)]
    assert sum(bounded.loads.values()) == len(picks)
    bounded._check()


def test_attributes_and_repr(twin):
    ring = twin.placement.HashRing(["a"])
    bounded = twin.placement.BoundedLoad(ring, 2)
    assert bounded.placement is ring
    assert (bounded.c, type(bounded.c)) == (2.0, float)
    assert repr(bounded) == f"<BoundedLoad c=2.0 picks=0 of {ring!r}>"
    assert twin.placement.BoundedLoad[str].__args__ == (str,)


WRONG = [
    (lambda bounded: bounded.__init__([]), TypeError,
     "placement must be a HashRing, Rendezvous or Maglev, got []"),
    (lambda bounded: bounded.__init__(bounded.placement, 0.9), ValueError,
     "c must be finite and at least 1, got 0.9"),
    (lambda bounded: bounded.__init__(bounded.placement, math.inf), ValueError,
     "c must be finite and at least 1, got inf"),
    (lambda bounded: bounded.__init__(bounded.placement, 10**400), ValueError,
     f"c must be finite and at least 1, got {10**400}"),
    (lambda bounded: bounded.__init__(bounded.placement, "2"), TypeError,
     "c must be an int or a float, got '2'"),
    (lambda bounded: bounded.pick(None), TypeError, "key must be str, bytes or int, got None"),
    (lambda bounded: bounded.pick(2**63), ValueError, f"key must be in [-2**63, 2**63), got {2**63}"),
    (lambda bounded: bounded.pick("x", exclude=[1.5]), TypeError, "node must be str, bytes or int, got 1.5"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_input_leaves_it_untouched(twin, act, error, message):
    bounded = twin.placement.BoundedLoad(twin.placement.HashRing(["a"]))
    pick = bounded.pick("x")
    with pytest.raises(error) as caught:
        act(bounded)
    assert caught.value.args == (message,)
    assert (bounded.loads, bounded.c, pick.server) == ({"a": 1}, 1.25, "a")
    bounded._check()


def test_a_cycle_is_collected(twin):
    class Node:
        pass

    node = Node()
    node.bounded = twin.placement.BoundedLoad(twin.placement.HashRing([node], node_key=lambda node: "a"))
    node.pick = node.bounded.pick("x")
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


def test_threads_keep_the_bound_and_leave_nothing(twin):
    """A million picks on the compiled twin; each thread holds at most 21, so the largest bound is known."""
    ring = twin.placement.HashRing(NODES, 20)
    bounded = twin.placement.BoundedLoad(ring, 1.25)
    rounds = 125_000 if twin.name == "compiled" else 12_500
    bound = math.ceil(1.25 * 8 * 21 / len(NODES))

    def pick(seed):
        rng = random.Random(seed)
        held = []
        for i in range(rounds):
            held.append(bounded.pick(i * seed % 50))
            if i % 64 == 0:
                assert max(bounded.loads.values()) <= bound
            if len(held) > 20 or i % 5 < 2:
                held.pop(rng.randrange(len(held))).done()

    def change():
        for i in range(200):
            ring.add_node(f"late{i % 3}")
            ring.remove_node(f"late{i % 3}")

    run_threads(lambda number: pick(number) if number < 8 else change(), 9)
    gc.collect()
    assert bounded.loads == dict.fromkeys(sorted(NODES), 0)
    bounded._check()


def test_threads_never_exceed_a_bound_that_stands_still(twin):
    """With c = 1 and many picks held by 8 threads, loads are as even as possible."""
    bounded = twin.placement.BoundedLoad(twin.placement.Rendezvous(NODES), 1)
    held = [[] for _ in range(8)]
    run_threads(lambda number: held[number].extend(bounded.pick(i) for i in range(125)))
    assert set(bounded.loads.values()) == {100}


def test_nothing_that_counts_is_copied(twin):
    bounded = twin.placement.BoundedLoad(twin.placement.HashRing(NODES))
    pick = bounded.pick("user:1")
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        for counted in (pick, bounded):
            with pytest.raises(TypeError, match=rf"^cannot (copy|pickle) '{type(counted).__name__}' object$"):
                copied(counted)
    assert bounded.loads[pick.server] == 1
    bounded._check()


def test_finalizers_find_the_counts_whole(twin):
    """Threads pick, and end or drop picks, while the placement changes."""
    rng, picks, held = random.Random(4), [], []
    ring = twin.placement.HashRing(NODES, 5)
    bounded = twin.placement.BoundedLoad(ring, 1.1)

    def act():
        choice = rng.randrange(5)
        if choice < 2:
            held.append(bounded.pick(rng.randrange(30)))
        elif choice < 4 and held:
            held.pop().done()
        elif f"late{choice}" in ring:
            ring.remove_node(f"late{choice}")
        else:
            ring.add_node(f"late{choice}")

    for number in range(400):
        with struck_by(act, 6):
            picks.append(bounded.pick(number % 30, exclude=NODES[: number % 3]))
        if len(picks) > 20:
            with struck_by(act, 6):
                picks.pop(rng.randrange(20)).done()
        bounded._check()
    held.clear()
    picks.clear()
    assert set(bounded.loads.values()) == {0}
    bounded._check()
