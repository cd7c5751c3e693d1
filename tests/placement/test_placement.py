"""HashRing: where keys are placed, which keys a change moves, and that wrong input changes nothing."""

import array
import copy
import doctest
import json
import random
from pathlib import Path
from time import thread_time_ns

import pytest
from ring_model import ModelRing
from xxhash import xxh64_intdigest

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "headgate-ring.json").read_text())
NODES = [f"10.0.0.{i}:6379" for i in range(100)]
KEYS = [f"user:{i}" for i in range(2000)]


class Server:
    """A node whose name only node_key returns."""

    def __init__(self, name):
        self.name = name


def name_of(server):
    return server.name


def test_golden_placement_is_stable(twin):
    ring = twin.placement.HashRing(GOLDEN["weights"], GOLDEN["replicas"])
    assert {key: ring.get_node(key) for key in GOLDEN["keys"]} == GOLDEN["keys"]
    assert [ring.get_node(key) for key in GOLDEN["ints"]] == GOLDEN["int_nodes"]
    assert ring.preference("user:1") == GOLDEN["preference"]


def test_str_bytes_and_int_keys(twin):
    ring = twin.placement.HashRing(NODES)
    for key in ["", "user:1", "é", "日本語", "\U0001f600", "a" * 500]:
        assert ring.get_node(key) == ring.get_node(key.encode())
    for key in [0, 1, -1, 2**63 - 1, -(2**63)]:
        assert ring.get_node(key) == ring.get_node(key.to_bytes(8, "little", signed=True))
    assert ring.get_node(True) == ring.get_node(1)


def test_subclasses_of_keys_run_no_code_of_their_own(twin):
    class Text(str):
        def encode(self, *args):
            raise AssertionError

        __hash__ = __eq__ = __len__ = __iter__ = encode

    class Data(bytes):
        __hash__ = __eq__ = __len__ = __iter__ = __getitem__ = __bytes__ = Text.encode

    class Number(int):
        __hash__ = __eq__ = __index__ = __int__ = to_bytes = Text.encode

    ring = twin.placement.HashRing(NODES)
    assert ring.get_node(Text("user:1")) == ring.get_node(Data(b"user:1")) == ring.get_node("user:1")
    assert ring.get_node(Number(7)) == ring.get_node(7)
    ring.add_node(Text("new"))
    assert "new" in ring and Data(b"new") in ring


def test_balance_of_100_nodes(twin):
    shares = twin.placement.HashRing(NODES).ownership()
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares.values()) * 100 == pytest.approx(1.22, abs=0.1)


def test_balance_follows_weights(twin):
    ring = twin.placement.HashRing({f"n{i}": 1 + i % 3 for i in range(30)}, 2000)
    for node, share in ring.ownership().items():
        assert share == pytest.approx(ring.weights[node] / 60, rel=0.12)


def test_a_new_node_takes_its_share_and_nothing_else_moves(twin):
    small = twin.placement.HashRing(NODES, 1000)
    large = copy.copy(small)
    large.add_node("new")
    moved = small.diff(large)
    assert {new for _, new in moved} == {"new"}
    assert sum(moved.values()) == pytest.approx(1 / 101, rel=0.05)
    assert sum(moved.values()) == pytest.approx(large.ownership()["new"])


def test_order_of_insertion_does_not_matter(twin):
    shuffled = random.Random(1).sample(NODES, len(NODES))
    ring = twin.placement.HashRing(NODES)
    other = twin.placement.HashRing(["gone", *shuffled[:50]])
    other.get_node("x")
    other.remove_node("gone")
    for node in shuffled[50:]:
        other.add_node(node)
    assert ring == other
    assert ring.nodes == other.nodes
    assert ring.get_many(KEYS) == other.get_many(KEYS)
    assert ring.diff(other) == {}
    other._check()


def test_nodes_are_sorted_by_name_bytes(twin):
    ring = twin.placement.HashRing(["b", "é", b"c", 1, "a"])
    assert ring.nodes == (1, "a", "b", b"c", "é")
    assert list(ring) == list(ring.nodes)
    assert len(ring) == 5
    assert ring.weights == dict.fromkeys(ring.nodes, 1)


@pytest.mark.parametrize("weight, points", [(0.001, 1), (1, 10), (0.25, 2), (2.5, 25), (True, 10)])
def test_points_of_a_weight(twin, weight, points):
    ring = twin.placement.HashRing({"a": weight, "b": 1}, 10)
    model = ModelRing(10)
    model.add_node("a", weight)
    model.add_node("b")
    assert sum(name == b"a" for _, name in model.points()) == points
    assert [ring.get_node(key) for key in KEYS[:200]] == [model.get_node(key) for key in KEYS[:200]]


def test_preference_agrees_with_removal(twin):
    ring = twin.placement.HashRing(NODES[:10])
    for key in KEYS[:20]:
        order = ring.preference(key)
        assert sorted(order) == sorted(ring.nodes)
        shrinking = copy.copy(ring)
        for node in order:
            assert shrinking.get_node(key) == node
            shrinking.remove_node(node)


def test_get_nodes(twin):
    ring = twin.placement.HashRing(NODES[:10])
    order = ring.preference("user:1")
    for n in (0, 1, 3, 10, 11, 2**70):
        assert ring.get_nodes("user:1", n) == order[:n]


def test_empty_ring(twin):
    ring = twin.placement.HashRing()
    assert ring.get_node("x") is None
    assert ring.get_nodes("x", 3) == ring.preference("x") == list(ring) == []
    assert ring.get_many(["x", 1]) == [None, None]
    assert ring.locate(array.array("Q", [1, 2])) == array.array("i", [-1, -1])
    assert ring.nodes == () and ring.weights == {} and ring.ownership() == {} and len(ring) == 0
    assert ring.diff(ring) == {}
    with pytest.raises(TypeError):
        ring.get_node(None)
    with pytest.raises(TypeError):
        ring.get_many([None])
    ring._check()


def test_diff_with_an_empty_ring(twin):
    ring, empty = twin.placement.HashRing({"a": 1, "b": 3}), twin.placement.HashRing()
    shares = ring.ownership()
    assert ring.diff(empty) == {("a", None): shares["a"], ("b", None): shares["b"]}
    assert empty.diff(ring) == {(None, "a"): shares["a"], (None, "b"): shares["b"]}


def test_diff_is_exact(twin):
    old = twin.placement.HashRing(NODES[:20], 7)
    new = twin.placement.HashRing(dict.fromkeys(NODES[5:25], 2), 9)
    moved = old.diff(new)
    assert all(was != now for was, now in moved)
    stayed = 1 - sum(moved.values())
    rng = random.Random(2)
    hashes = array.array("Q", [rng.getrandbits(64) for _ in range(20000)])
    pairs = list(zip(old.locate(hashes), new.locate(hashes), strict=True))
    assert sum(old.nodes[a] == new.nodes[b] for a, b in pairs) / len(pairs) == pytest.approx(stayed, abs=0.02)
    for node, share in old.ownership().items():
        away = sum(part for (was, _), part in moved.items() if was == node)
        assert away <= share + 1e-12


def test_ownership_of_one_point(twin):
    assert twin.placement.HashRing(["a"], 1).ownership() == {"a": 1.0}
    assert sum(twin.placement.HashRing(["a", "b"], 1).ownership().values()) == pytest.approx(1, abs=1e-15)


def test_locate_agrees_with_get_node(twin):
    ring = twin.placement.HashRing(NODES)
    hashes = array.array("Q", [xxh64_intdigest(key.encode()) for key in KEYS])
    assert [ring.nodes[i] for i in ring.locate(hashes)] == ring.get_many(KEYS)
    assert ring.get_many(KEYS) == [ring.get_node(key) for key in KEYS]


def test_locate_at_the_points_themselves(twin):
    ring, model = twin.placement.HashRing(NODES[:5], 4), ModelRing(4)
    for node in NODES[:5]:
        model.add_node(node)
    edges = {0, 1, 2**64 - 1, *(at + d for at, _ in model.points() for d in (-1, 0, 1))}
    hashes = array.array("Q", sorted(edges))
    assert [ring.nodes[i] for i in ring.locate(hashes)] == [model.locate(hash)[0] for hash in hashes]


def test_locate_takes_only_words_of_64_bits_in_a_row(twin):
    ring = twin.placement.HashRing(NODES)
    words = memoryview(array.array("Q", range(16)))
    assert len(ring.locate(words)) == 16
    assert ring.locate(array.array("L", range(16))) == ring.locate(words)
    assert ring.locate(array.array("Q")) == array.array("i")
    with pytest.raises(TypeError, match=r"^hashes must be a buffer of unsigned 64-bit integers, got \[1\]$"):
        ring.locate([1])
    for wrong in ("d", "q", "I", "B"):
        message = rf"^hashes must hold unsigned 64-bit integers, got format '{wrong}'$"
        with pytest.raises(ValueError, match=message):
            ring.locate(array.array(wrong, [1, 2, 3]))
    with pytest.raises(ValueError, match=r"one-dimensional and contiguous, got shape \(8,\) and strides "):
        ring.locate(words[::2])
    with pytest.raises(ValueError, match=r"one-dimensional and contiguous, got shape \(4, 4\) and "):
        ring.locate(words.cast("B").cast("Q", (4, 4)))


def test_locate_releases_the_buffer(twin):
    hashes = array.array("Q", [1, 2, 3])
    twin.placement.HashRing(NODES).locate(hashes)
    hashes.append(4)


def test_get_many_takes_any_iterable(twin):
    ring = twin.placement.HashRing(NODES)
    expected = [ring.get_node(key) for key in KEYS[:50]]
    assert ring.get_many(KEYS[:50]) == ring.get_many(tuple(KEYS[:50])) == expected
    assert ring.get_many(key for key in KEYS[:50]) == expected
    assert ring.get_many([]) == []


def test_any_node_by_node_key(twin):
    servers = [Server(f"s{i}") for i in range(10)]
    ring = twin.placement.HashRing(servers, node_key=name_of)
    plain = twin.placement.HashRing([server.name for server in servers])
    assert [ring.get_node(key).name for key in KEYS] == plain.get_many(KEYS)
    assert servers[0] in ring and Server("s1") in ring and Server("x") not in ring
    ring.remove_node(Server("s0"))
    assert ring.nodes == tuple(servers[1:])


def test_a_subscript_names_the_type_of_node(twin):
    assert twin.placement.HashRing[str].__args__ == (str,)


def test_equality(twin):
    HashRing = twin.placement.HashRing
    ring = HashRing({"a": 1, "b": 2})
    assert ring == HashRing({"b": 2.0, "a": 1})
    assert ring != HashRing({"a": 1, "b": 3})
    assert ring != HashRing({"a": 1, "b": 2}, 149)
    assert ring != HashRing({"a": 1})
    assert ring != "ring"
    with pytest.raises(TypeError, match="unhashable"):
        hash(ring)


def test_repr(twin):
    ring = twin.placement.HashRing(["a", "b"], 7)
    assert repr(ring) == "<HashRing nodes=2 replicas=7 scheme='headgate'>"
    assert (ring.replicas, ring.scheme) == (7, "headgate")


def test_copy_is_independent_and_keeps_the_twin(twin):
    ring = twin.placement.HashRing(NODES[:5], 33)
    twin_of_it = copy.copy(ring)
    assert type(twin_of_it) is twin.placement.HashRing
    assert twin_of_it == ring and twin_of_it.get_many(KEYS) == ring.get_many(KEYS)
    twin_of_it.add_node("new")
    ring.remove_node(NODES[0])
    assert "new" not in ring and NODES[0] in twin_of_it
    ring._check()
    twin_of_it._check()


def test_an_instance_without_init_is_an_empty_ring(twin):
    ring = twin.placement.HashRing.__new__(twin.placement.HashRing)
    assert ring.get_node("x") is None
    ring.add_node("a")
    assert ring.get_node("x") == "a"


def test_many_changes_before_a_lookup(twin):
    ring = twin.placement.HashRing(NODES)
    for i in range(300):
        ring.add_node(f"n{i}", 1 + i % 3)
    for node in [*NODES[::2], *(f"n{i}" for i in range(0, 300, 2))]:
        ring.remove_node(node)
    ring.add_node("n0", 9)
    fresh = twin.placement.HashRing(ring.weights)
    assert ring == fresh
    assert ring.get_many(KEYS) == fresh.get_many(KEYS)
    ring._check()


@pytest.mark.parametrize("scheme", ["headgate", "nginx"])
def test_a_change_does_not_walk_the_members(twin, scheme):
    times = []
    for count in (50, 20_000):
        ring = twin.placement.HashRing([f"node-{i}" for i in range(count)], scheme=scheme)
        turns = []
        for _ in range(5):
            start = thread_time_ns()
            for i in range(20):
                ring.add_node(f"new-{i}")
                ring.remove_node(f"new-{i}")
            turns.append(thread_time_ns() - start)
        times.append(min(turns))
    assert times[1] < 10 * times[0]


def test_a_node_that_returns_with_another_weight(twin):
    ring = twin.placement.HashRing(NODES[:5])
    before = ring.ownership()
    ring.remove_node(NODES[0])
    ring.add_node(NODES[0], 4)
    assert ring.ownership()[NODES[0]] > 2 * before[NODES[0]]
    ring._check()


NODE_TYPES = "str, bytes or int"
NO_WEIGHT = "weight must be finite and not negative, got"
TOO_HEAVY = "weight must give at most 16777216 points, got"
WRONG = [
    (lambda ring: ring.get_node(1.5), TypeError, f"key must be {NODE_TYPES}, got 1.5"),
    (lambda ring: ring.get_node(None), TypeError, f"key must be {NODE_TYPES}, got None"),
    (lambda ring: ring.get_node(bytearray()), TypeError, f"key must be {NODE_TYPES}, got bytearray(b'')"),
    (lambda ring: ring.get_node(2**63), ValueError, f"key must be in [-2**63, 2**63), got {2**63}"),
    (lambda ring: ring.get_nodes(-(2**63) - 1, 1), ValueError,
     f"key must be in [-2**63, 2**63), got {-(2**63) - 1}"),
    (lambda ring: ring.get_nodes("x", -1), ValueError, "n must not be negative, got -1"),
    (lambda ring: ring.get_nodes("x", "2"), TypeError, "n must be an int, got '2'"),
    (lambda ring: ring.preference(()), TypeError, f"key must be {NODE_TYPES}, got ()"),
    (lambda ring: ring.get_many("abc"), TypeError, "keys must be an iterable of keys, got 'abc'"),
    (lambda ring: ring.get_many(5), TypeError, "keys must be an iterable of keys, got 5"),
    (lambda ring: ring.get_many(["a", None]), TypeError, f"key must be {NODE_TYPES}, got None"),
    (lambda ring: ring.add_node("a"), ValueError, "node must not be a member already, got 'a'"),
    (lambda ring: ring.add_node(b"a"), ValueError, "node must not be a member already, got b'a'"),
    (lambda ring: ring.add_node(1.5), TypeError, f"node must be {NODE_TYPES}, got 1.5"),
    (lambda ring: ring.add_node(2**64), ValueError, f"node must be in [-2**63, 2**63), got {2**64}"),
    (lambda ring: ring.add_node("x", -1.5), ValueError, f"{NO_WEIGHT} -1.5"),
    (lambda ring: ring.add_node("x", float("nan")), ValueError, f"{NO_WEIGHT} nan"),
    (lambda ring: ring.add_node("x", float("inf")), ValueError, f"{NO_WEIGHT} inf"),
    (lambda ring: ring.add_node("x", "1"), TypeError, "weight must be an int or a float, got '1'"),
    (lambda ring: ring.add_node("x", 1e308), ValueError, f"{TOO_HEAVY} 1e+308"),
    (lambda ring: ring.add_node("x", 10**30), ValueError, f"{TOO_HEAVY} {10**30}"),
    (lambda ring: ring.remove_node("x"), KeyError, "node must be a member, got 'x'"),
    (lambda ring: ring.remove_node(()), TypeError, f"node must be {NODE_TYPES}, got ()"),
    (lambda ring: 1.5 in ring, TypeError, f"node must be {NODE_TYPES}, got 1.5"),
    (lambda ring: ring.diff({}), TypeError, "other must be a HashRing, got {}"),
    (lambda ring: ring.__init__(["x", "x"]), ValueError, "node must not be a member already, got 'x'"),
    (lambda ring: ring.__init__("abc"), TypeError,
     "nodes must be an iterable of nodes or a mapping of node to weight, got 'abc'"),
    (lambda ring: ring.__init__(7), TypeError,
     "nodes must be an iterable of nodes or a mapping of node to weight, got 7"),
    (lambda ring: ring.__init__({"x": -1}), ValueError, f"{NO_WEIGHT} -1"),
    (lambda ring: ring.__init__([], 0), ValueError, "replicas must be in [1, 16777216], got 0"),
    (lambda ring: ring.__init__([], 1.5), TypeError, "replicas must be an int, got 1.5"),
    (lambda ring: ring.__init__([], scheme="other"), ValueError,
     "scheme must be one of headgate, libmemcached, uhashring, twemproxy, nginx, envoy, haproxy or a Scheme, "
     "got 'other'"),
    (lambda ring: ring.__init__([], node_key=5), TypeError, "node_key must be callable or None, got 5"),
    (lambda ring: ring.__init__([1], node_key=lambda node: None), TypeError,
     f"node_key(node) must be {NODE_TYPES}, got None"),
    (lambda ring: ring._from_state((2,)), ValueError, "state must be of version 1, got 2"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_input_leaves_the_ring_untouched(twin, act, error, message):
    ring = twin.placement.HashRing(["a", "b"])
    before = ring.nodes, ring.weights, ring.get_many(KEYS[:100])
    with pytest.raises(error) as caught:
        act(ring)
    assert caught.value.args == (message,)
    assert (ring.nodes, ring.weights, ring.get_many(KEYS[:100])) == before
    ring._check()


def test_lone_surrogates_have_no_utf8(twin):
    with pytest.raises(UnicodeEncodeError):
        twin.placement.HashRing(["a"]).get_node("\ud800")


def test_a_failing_node_key_or_iterable_changes_nothing(twin):
    def fail(node):
        raise LookupError(node)

    def nodes():
        yield "x"
        raise LookupError("nodes")

    ring = twin.placement.HashRing(["a"], node_key=lambda node: node if node != "bad" else fail(node))
    for act, argument in ((ring.add_node, "bad"), (ring.remove_node, "bad"), (ring.__init__, nodes())):
        with pytest.raises(LookupError):
            act(argument)
        assert ring.nodes == ("a",)
    ring._check()


def test_node_key_may_change_the_ring_it_serves(twin):
    def meddle(node):
        if node == "outer" and "inner" not in ring.nodes:
            ring.add_node("inner")
            ring.get_node("x")
        return node

    ring = twin.placement.HashRing(["a"], node_key=meddle)
    ring.add_node("outer")
    assert ring.nodes == ("a", "inner", "outer")
    ring._check()
    ring.remove_node("inner")
    ring.remove_node("outer")
    assert ring.nodes == ("a", "inner")


def test_docstring_examples_hold_on_both_twins(twin):
    ring_class = twin.placement.HashRing
    runner, parser = doctest.DocTestRunner(), doctest.DocTestParser()
    for name in [name for name in dir(ring_class) if not name.startswith("_")]:
        doc = getattr(ring_class, name).__doc__
        runner.run(parser.get_doctest(doc, {"HashRing": ring_class}, name, None, None))
    runner.run(parser.get_doctest(ring_class.__doc__, {"HashRing": ring_class}, "HashRing", None, None))
    assert (runner.failures, runner.tries > 20) == (0, True)
