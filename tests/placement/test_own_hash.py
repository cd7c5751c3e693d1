"""headgate's own scheme with another hash function, compared with a few lines of hashlib."""

import array
import copy
import hashlib
import pickle
from bisect import bisect_left

import pytest
from ring_model import name_of, splitmix64

from headgate import schemes

NODES = {"a": 1, "b": 2.5, "é": 1, b"\xff": 0.5, 7: 1}
KEYS = ["", "user:1", "é", b"\xff\x00", b"bytes", 0, -1, 2**63 - 1, *map(str, range(150))]


def word(name, data):
    """The first eight bytes of a digest, little-endian."""
    return int.from_bytes(hashlib.new(name, data).digest()[:8], "little")


def sha3(data):
    return word("sha3_256", data)


def shake(data):
    return int.from_bytes(hashlib.shake_128(data).digest(8), "little")


HASHES = {
    "sha256": lambda data: word("sha256", data),
    "sha3_256": sha3,
    "blake2b": lambda data: word("blake2b", data),
    "sha512": lambda data: word("sha512", data),
    "shake_128": shake,
}


def owners(hash):
    """The owner of each of the keys, among NODES with 20 replicas."""
    points = sorted(((splitmix64(hash(name_of(node)) + i), name_of(node), node)
                     for node, weight in NODES.items() for i in range(max(1, round(weight * 20)))),
                    key=lambda point: point[:2])
    places = [place for place, *_ in points]
    return [points[bisect_left(places, hash(name_of(key))) % len(points)][2] for key in KEYS]


@pytest.mark.parametrize("name", HASHES)
def test_names_of_hashlib(twin, name):
    ring = twin.placement.HashRing(NODES, 20, scheme=schemes.headgate(hash=name))
    expected = owners(HASHES[name])
    assert len(set(expected)) == len(NODES)
    assert [ring.get_node(key) for key in KEYS] == ring.get_many(KEYS) == expected
    assert [ring.preference(key)[0] for key in KEYS] == expected
    assert [ring.get_nodes(key, 1) for key in KEYS] == [[node] for node in expected]
    hashes = array.array("Q", [HASHES[name](name_of(key)) for key in KEYS])
    assert [ring.nodes[i] for i in ring.locate(hashes)] == expected
    ring._check()


def test_a_function_is_called_with_the_bytes_of_names_and_keys(twin):
    seen = []

    def hash(data):
        seen.append(data)
        return sha3(data)

    ring = twin.placement.HashRing(NODES, 20, scheme=schemes.headgate(hash=hash))
    assert [ring.get_node(key) for key in KEYS] == owners(sha3)
    assert set(map(type, seen)) == {bytes}
    assert set(seen) == {name_of(key) for key in [*NODES, *KEYS]}


def test_known_vectors(twin):
    """The position of FIPS 202's hash of the empty string and of two names, recorded once."""
    assert schemes.headgate("sha3_256").hash(b"") == 0x66D71EBFF8C6FFA7 == sha3(b"")
    ring = twin.placement.HashRing(["a", "b", "c"], 1, scheme=schemes.headgate("sha3_256"))
    points = {node: splitmix64(sha3(node.encode())) for node in "abc"}
    above = [node for node in sorted(points, key=points.get) if points[node] >= sha3(b"")]
    assert ring.get_node("") == (above or sorted(points, key=points.get))[0]


def test_xxh64_is_the_default(twin):
    plain = twin.placement.HashRing(NODES)
    for scheme in (schemes.headgate(), schemes.headgate(hash="xxh64"), schemes.find("headgate")):
        ring = twin.placement.HashRing(NODES, scheme=scheme)
        assert ring == plain
        assert ring.get_many(KEYS) == plain.get_many(KEYS)
        assert ring.diff(plain) == {}
        assert ring.scheme == scheme
    named = twin.placement.HashRing(NODES, scheme=schemes.headgate(hash=twin.hashing.xxh64))
    assert named.get_many(KEYS) == plain.get_many(KEYS)
    assert named.scheme != schemes.headgate()


def test_changes(twin):
    scheme = schemes.headgate(hash="sha256")
    ring = twin.placement.HashRing(["a", "b"], scheme=scheme)
    ring.get_node("x")
    ring.add_node("c", 2.5)
    ring.set_weight("a", 0)
    ring.remove_node("b")
    ring._check()
    other = twin.placement.HashRing({"a": 0, "c": 2.5}, scheme=schemes.headgate("sha256"))
    assert ring == other and ring.get_many(KEYS) == other.get_many(KEYS)
    assert ring != twin.placement.HashRing({"a": 0, "c": 2.5})
    assert ring != twin.placement.HashRing({"a": 0, "c": 2.5}, scheme=schemes.headgate("sha512"))


def test_diff_compares_rings_of_one_hash_only(twin):
    ring = twin.placement.HashRing(["a"], scheme=schemes.headgate(hash=sha3))
    assert ring.diff(twin.placement.HashRing(["b"], scheme=schemes.headgate(hash=sha3))) == {("a", "b"): 1.0}
    for scheme in ("headgate", schemes.headgate("sha3_256"), "envoy"):
        with pytest.raises(ValueError, match="other must hash keys as this ring does"):
            ring.diff(twin.placement.HashRing(["b"], scheme=scheme))


def test_copies_and_pickles(both_twins):
    for scheme in (schemes.headgate(hash="blake2b"), schemes.headgate(hash=sha3)):
        assert pickle.loads(pickle.dumps(scheme)) == scheme == copy.copy(scheme)
        assert hash(pickle.loads(pickle.dumps(scheme))) == hash(scheme)
        rings = [twin.placement.HashRing(NODES, 20, scheme=scheme) for twin in both_twins]
        assert pickle.dumps(rings[0]) == pickle.dumps(rings[1])
        for ring in rings:
            assert copy.copy(ring) == ring
            for other in (pickle.loads(pickle.dumps(ring)), copy.copy(ring), copy.deepcopy(ring)):
                assert (other.weights, other.scheme) == (ring.weights, scheme)
                assert other.get_many(KEYS) == ring.get_many(KEYS)
    ring = both_twins[0].placement.HashRing(NODES, scheme=schemes.headgate(hash=lambda data: 1))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(ring)


class Picky:
    """A hash function that raises or misbehaves for listed data."""

    def __init__(self):
        self.wrong = {}

    def __call__(self, data):
        result = self.wrong.get(data, sha3(data))
        if isinstance(result, Exception):
            raise result
        return result


OUTCOMES = [
    (OSError("no entropy"), OSError, "no entropy"),
    ("1", TypeError, "hash(data) must be an int, got '1'"),
    (None, TypeError, "hash(data) must be an int, got None"),
    (1.0, TypeError, "hash(data) must be an int, got 1.0"),
    (2**64, ValueError, f"hash(data) must be in [0, 2**64), got {2**64}"),
    (-1, ValueError, "hash(data) must be in [0, 2**64), got -1"),
]


@pytest.mark.parametrize("result, error, message", OUTCOMES, ids=[message for *_, message in OUTCOMES])
def test_errors_reach_the_caller_and_change_nothing(twin, result, error, message):
    hash = Picky()
    ring = twin.placement.HashRing(["a", "b"], scheme=schemes.headgate(hash=hash))
    bounded, before = twin.placement.BoundedLoad(ring), ring.get_many(KEYS)
    hash.wrong[b"bad"] = result
    for act in (lambda: ring.add_node("bad"), lambda: ring.replace_nodes(["a", "bad"]),
                lambda: ring.get_node("bad"), lambda: ring.get_many(["a", "bad"]),
                lambda: ring.get_nodes("bad", 1), lambda: ring.preference("bad"), lambda: bounded.pick("bad"),
                lambda: twin.placement.HashRing(["bad"], scheme=schemes.headgate(hash=hash))):
        with pytest.raises(error) as caught:
            act()
        assert str(caught.value) == message
        assert ring.nodes == ("a", "b") and ring.get_many(KEYS) == before
        ring._check()
        assert bounded.loads == {"a": 0, "b": 0}
        bounded._check()


def test_an_error_amid_a_build_is_the_callers_and_is_over_after_it(twin):
    hash = Picky()
    ring = twin.placement.HashRing(["a"], scheme=schemes.headgate(hash=hash))
    ring.add_node("b")
    hash.wrong[b"b"] = OSError("later")
    with pytest.raises(OSError, match="later"):
        ring.get_node("x")
    assert ring.weights == {"a": 1, "b": 1}
    del hash.wrong[b"b"]
    assert ring.nodes == ("a", "b")
    ring._check()


def test_bounded_load_hashes_before_it_counts(twin):
    """A hash function that itself picks sees consistent counts."""
    picks = []

    def nested(data):
        if data.startswith(b"outer"):
            bounded._check()
            picks.append(bounded.pick(b"inner" + data))
        return sha3(data)

    ring = twin.placement.HashRing(["a", "b", "c"], scheme=schemes.headgate(hash=nested))
    bounded = twin.placement.BoundedLoad(ring, 1)
    picks += [bounded.pick(f"outer {i}") for i in range(9)]
    assert sum(bounded.loads.values()) == 18
    assert set(bounded.loads.values()) == {6}
    bounded._check()


def test_a_function_that_changes_the_ring(twin):
    def hash(data):
        if data == b"meddle" and "late" not in ring:
            ring.add_node("late")
        return sha3(data)

    ring = twin.placement.HashRing(["a"], scheme=schemes.headgate(hash=hash))
    assert ring.get_node("meddle") in ("a", "late")
    assert ring.nodes == ("a", "late")
    ring._check()


def test_numbers_that_are_no_int_but_an_index(twin):
    class Word:
        def __init__(self, value):
            self.value = value

        def __index__(self):
            return self.value

    scheme = schemes.headgate(hash=lambda data: Word(sha3(data)))
    ring = twin.placement.HashRing(NODES, 20, scheme=scheme)
    assert [ring.get_node(key) for key in KEYS] == owners(sha3)


def test_wrong_hashes():
    with pytest.raises(ValueError, match="hash must be 'xxh64' or a name of hashlib, got 'sha0'"):
        schemes.headgate(hash="sha0")
    with pytest.raises(TypeError, match="hash must be a callable or a name of hashlib, got 256"):
        schemes.headgate(hash=256)
    assert repr(schemes.headgate("sha256")) == "headgate(hash='sha256')"
