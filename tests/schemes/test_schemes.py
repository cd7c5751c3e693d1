"""Foreign schemes of HashRing against recorded results of the real programs."""

import array
import copy
import json
import pickle
import random
import warnings
from collections import Counter
from pathlib import Path

import pytest
from twins import SHARED

from headgate import schemes

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "schemes.json").read_text())
VECTORS = SHARED / "vectors"
RECORDED = pytest.mark.skipif(
    not VECTORS.exists(), reason="the recorded results of the programs are not beside the project"
)
NODES = [f"10.0.{i}.1:11211" for i in range(12)]


def vector_cases(program):
    return json.loads((VECTORS / f"{program}.json").read_text())["cases"]


def libmemcached_cases():
    named = {
        "KETAMA_WEIGHTED=1": "libmemcached",
        "KETAMA=1 HASH=md5": schemes.libmemcached(weighted=False, hash="md5"),
    }
    for case in vector_cases("libmemcached-ketama"):
        scheme = next((named[start] for start in named if case["behaviors"].startswith(start)), None)
        if scheme is not None:
            yield scheme, case, None


def twemproxy_cases():
    for case in vector_cases("twemproxy-ketama"):
        if case["hash"] in ("fnv1a_64", "md5", "crc32a"):
            yield schemes.twemproxy(hash=case["hash"]), case, case["hash_names"]


def nginx_cases():
    for case in vector_cases("nginx-consistent"):
        yield "nginx", case, None


def uhashring_cases():
    for case in vector_cases("uhashring"):
        yield schemes.uhashring(ketama=case["mode"] == "ketama"), case, None


def envoy_cases():
    for case in vector_cases("envoy-ring-hash"):
        config = dict(case["config"])
        hash = {"MURMUR_HASH_2": "murmur2"}.get(config.pop("hash_function", None), "xxhash")
        yield schemes.envoy(hash=hash, **config), case, case["hash_keys"]


def haproxy_cases():
    for case in vector_cases("haproxy-consistent"):
        _, hash, *avalanche = [*case["hash_type"].split(" "), None][:3]
        scheme = schemes.haproxy(hash=hash or None, avalanche=True if avalanche[0] else None)
        yield scheme, case, case["ids"]


PROGRAMS = [libmemcached_cases, twemproxy_cases, nginx_cases, uhashring_cases, envoy_cases, haproxy_cases]


def ring_of(twin, scheme, case, names):
    keys = dict(zip(case["nodes"], names or case["nodes"], strict=True))
    weights = dict(zip(case["nodes"], case["weights"], strict=True))
    return twin.placement.HashRing(weights, scheme=scheme, node_key=keys.get)


@RECORDED
@pytest.mark.parametrize("cases", PROGRAMS)
def test_every_recorded_row(twin, cases):
    rows = 0
    for scheme, case, names in cases():
        ring = ring_of(twin, scheme, case, names)
        assert {key: ring.get_node(key) for key in case["keys"]} == case["keys"], (scheme, case["weights"])
        ring._check()
        rows += len(case["keys"])
    assert rows > 400


@pytest.mark.parametrize("case", GOLDEN, ids=[case["program"] for case in GOLDEN])
def test_some_recorded_rows(twin, case):
    scheme = getattr(schemes, case["program"])(**case["options"])
    ring = ring_of(twin, scheme, case, case["names"])
    assert {key: ring.get_node(key) for key in case["keys"]} == case["keys"]


SCHEMES = [
    schemes.libmemcached(),
    schemes.libmemcached(hash="default"),
    schemes.libmemcached(weighted=False),
    schemes.libmemcached(weighted=False, hash="default"),
    schemes.uhashring(),
    schemes.uhashring(ketama=True),
    *(schemes.twemproxy(hash=hash) for hash in ("fnv1a_64", "md5", "crc32", "crc32a")),
    schemes.nginx(),
    schemes.envoy(),
    schemes.envoy(hash="murmur2", minimum_ring_size=100, maximum_ring_size=1000),
    *(schemes.haproxy(hash=hash, avalanche=avalanche)
      for hash in (None, "sdbm", "djb2", "wt6", "crc32") for avalanche in (None, True, False)),
]
EACH = pytest.mark.parametrize("scheme", SCHEMES, ids=repr)


def nodes_for(scheme, count=12):
    return [i if scheme.name == "haproxy" else f"10.0.{i}.1:11211" for i in range(1, count + 1)]


def random_keys(count):
    rng = random.Random(3)
    return [rng.randbytes(rng.randrange(150)) for _ in range(count)]


@EACH
def test_the_twins_hash_every_key_alike(both_twins, scheme):
    """Bytes above 127, all lengths around the blocks of MD5, and weights."""
    weights = {node: 1 + i % 3 for i, node in enumerate(nodes_for(scheme))}
    compiled, pure = (twin.placement.HashRing(weights, scheme=scheme) for twin in both_twins)
    keys = random_keys(2000) + ["é" * i for i in range(80)] + list(range(-20, 20))
    assert compiled.get_many(keys) == pure.get_many(keys)
    assert [compiled.preference(key) for key in keys[:20]] == [pure.preference(key) for key in keys[:20]]
    assert compiled.ownership() == pure.ownership()
    words = array.array("Q", [random.Random(4).getrandbits(64) for _ in range(500)])
    assert compiled.locate(words) == pure.locate(words)
    assert pickle.dumps(compiled) == pickle.dumps(pure)


@EACH
def test_a_node_that_leaves_is_as_if_it_had_never_been(twin, scheme):
    """The ring depends only on its members, not on earlier merges."""
    nodes, keys = nodes_for(scheme), random_keys(100)
    ring = twin.placement.HashRing(nodes, scheme=scheme)
    ring.get_node("x")
    for node in (nodes[3], nodes[0]):
        ring.remove_node(node)
    ring.get_node("x")
    ring.add_node(nodes[3], 2)
    ring.remove_node(nodes[5])
    ring.add_node(nodes[5])
    fresh = twin.placement.HashRing(ring.weights, scheme=scheme)
    assert ring.nodes == fresh.nodes == (*nodes[1:3], nodes[4], *nodes[6:], nodes[3], nodes[5])
    assert ring == fresh
    assert ring.get_many(keys) == fresh.get_many(keys)
    ring._check()


@pytest.mark.parametrize("scheme", ["nginx", "haproxy", "uhashring", "twemproxy"])
def test_preference_agrees_with_removal(twin, scheme):
    """For programs whose point counts do not depend on other nodes; twemproxy's do not among equal nodes."""
    ring = twin.placement.HashRing(nodes_for(schemes.find(scheme)), scheme=scheme)
    for key in random_keys(30):
        shrinking, order = copy.copy(ring), ring.preference(key)
        assert sorted(order) == sorted(ring.nodes)
        for node in order[:4]:
            assert shrinking.get_node(key) == node
            shrinking.remove_node(node)


@EACH
def test_shares_are_what_the_arcs_say(twin, scheme):
    """Of hashes drawn at random, ownership and diff hold within sampling error."""
    old = twin.placement.HashRing(nodes_for(scheme), scheme=scheme)
    new = copy.copy(old)
    new.remove_node(old.nodes[2])
    new.add_node(99 if scheme.name == "haproxy" else "late:1", 3)
    rng = random.Random(5)
    hashes = array.array("Q", [rng.getrandbits(64 if scheme.wide else 32) for _ in range(20_000)])
    ranks = zip(old.locate(hashes), new.locate(hashes), strict=True)
    pairs = [(old.nodes[a], new.nodes[b]) for a, b in ranks]
    shares, moved = old.ownership(), old.diff(new)
    assert sum(shares.values()) == pytest.approx(1)
    for node, hits in Counter(was for was, _ in pairs).items():
        assert hits / len(pairs) == pytest.approx(shares[node], abs=0.015)
    assert sum(was != now for was, now in pairs) / len(pairs) == pytest.approx(sum(moved.values()), abs=0.015)


def test_exact_shares_of_a_nearest_ring(twin):
    """Every position at a boundary between two of HAProxy's points."""
    ring = twin.placement.HashRing([1, 2, 3], scheme="haproxy")
    points = sorted(point for own in schemes.haproxy().points(
        [bytes([i, 0, 0, 0, 0, 0, 0, 0]) for i in (1, 2, 3)], [1, 1, 1]) for point in own)
    shares = Counter()
    for before, last, after in zip([points[-1], *points], points, [*points[1:], points[0]], strict=False):
        first = (before + (last - before) % 2**32 // 2 + 1) % 2**32
        past = (last + (after - last) % 2**32 // 2 + 1) % 2**32
        owner, same, other = (ring.nodes[i] for i in ring.locate(array.array("Q", [first, last, past])))
        assert owner == same
        assert other == ring.nodes[ring.locate(array.array("Q", [after]))[0]]
        shares[owner] += (past - first) % 2**32
    assert ring.ownership() == {node: share / 2**32 for node, share in shares.items()}


def test_single_precision_costs_points(twin):
    """As in libmemcached, 25, 47, 50 ... equal nodes have 156 points each, most other numbers 160."""
    def counts(weights):
        names = [b"n%d" % i for i in range(len(weights))]
        return [len(own) for own in schemes.libmemcached().points(names, weights)]

    for n in (25, 47, 50, 55, 61, 71, 94, 100):
        assert set(counts([1] * n)) == {156}
    for n in (1, 2, 10, 24, 26, 48, 99, 101):
        assert set(counts([1] * n)) == {160}
    with pytest.warns(RuntimeWarning):
        weights = dict(zip(NODES, [1, 2, 3, 4, 600, 7, 8, 10], strict=False))
        twin.placement.HashRing(weights, scheme="libmemcached")
    assert counts([1, 2, 3, 4, 600, 7, 8, 10]) == [0, 4, 4, 8, 1208, 12, 16, 20]


@RECORDED
def test_recorded_point_counts():
    for scheme, case, names in twemproxy_cases():
        points = scheme.points([name.encode() for name in names], case["weights"])
        assert [len(own) for own in points] == case["points"]
    for scheme, case, _ in envoy_cases():
        points = scheme.points([node.encode() for node in case["nodes"]], case["weights"])
        assert sum(map(len, points)) == case["ring_points"]


@pytest.mark.parametrize("scheme", ["libmemcached", "twemproxy", schemes.uhashring(ketama=True)])
def test_a_weight_too_small_for_a_point_warns(twin, scheme):
    ring = twin.placement.HashRing({"heavy": 5000, "b": 5000}, scheme=scheme)
    message = r"^weight 1 of 10001 in total is too small for a point under the scheme \w+: the node "
    with pytest.warns(RuntimeWarning, match=message) as caught:
        ring.add_node("light", 1)
        twin.placement.HashRing(ring.weights, scheme=scheme)
    assert [warning.filename for warning in caught] == [__file__] * 2
    assert ring.ownership()["light"] == 0
    assert sorted(ring.preference("x")) == ["b", "heavy"]
    ring._check()


def envoy_weights():
    """Weights on small rings, and of a fleet with more shares than the ring has points."""
    rng = random.Random(6)
    yield 1024, 8388608, [2, 3, 1500, 1, 1]
    for _ in range(300):
        yield rng.randrange(1, 60), 60, rng.choices([1, 2, 3, 50, 5000], k=rng.randrange(1, 30))


def test_envoy_warns_of_the_nodes_without_a_point_and_of_no_others():
    for minimum, maximum, weights in envoy_weights():
        scheme = schemes.envoy(minimum_ring_size=minimum, maximum_ring_size=maximum)
        points = scheme.points([b"n%d" % i for i in range(len(weights))], weights)
        starved = [weight for weight, own in zip(weights, points, strict=True) if not own]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scheme.warn(weights)
        assert [str(warning.message).split()[1] for warning in caught] == [str(w) for w in starved[:1]]


def test_weighted_libmemcached_always_hashes_keys_by_md5(twin):
    """As pylibmc does: KETAMA_WEIGHTED sets the hash."""
    weights, keys = {"a": 1, "b": 1, "c": 2}, random_keys(300)
    plain = twin.placement.HashRing(weights, scheme="libmemcached")
    named = twin.placement.HashRing(weights, scheme=schemes.libmemcached(hash="default"))
    assert plain.get_many(keys) == named.get_many(keys)


def test_a_warning_made_an_error_leaves_the_ring_untouched(twin):
    ring = twin.placement.HashRing({"heavy": 5000}, scheme="libmemcached")
    with pytest.raises(RuntimeWarning):
        ring.add_node("light", 1)
    assert ring.nodes == ("heavy",)


def test_the_default_port_is_left_out(twin):
    for scheme in ("libmemcached", "twemproxy"):
        with_port = twin.placement.HashRing(["a:11211", "b:11211", "c:11212"], scheme=scheme)
        without = twin.placement.HashRing(["a", "b", "c:11212"], scheme=scheme)
        keys = random_keys(200)
        assert [node.removesuffix(":11211") for node in with_port.get_many(keys)] == without.get_many(keys)


def test_unweighted_libmemcached_turns_weighted_with_the_first_weight(twin):
    weights = {"a": 1, "b": 1, "c": 2}
    light = twin.placement.HashRing(weights, scheme=schemes.libmemcached(weighted=False))
    heavy = twin.placement.HashRing(weights, scheme="libmemcached")
    assert light.get_many(random_keys(500)) == heavy.get_many(random_keys(500))


def test_nginx_server_strings(twin):
    names = [b"10.0.0.1:80", b"10.0.0.1", b"unix:/run/a.sock", b"UNIX:/run/a.sock", b"[::1]:80"]
    names += [b"host:", b"host"]
    first = [own[0] for own in schemes.nginx().points(names, [1] * len(names))]
    assert first[0] != first[1]
    assert first[2] == first[3]
    assert first[5] == first[6]
    assert len(set(first)) == 5


def test_schemes_by_name_and_as_objects(twin):
    HashRing = twin.placement.HashRing
    by_name, by_object = HashRing(NODES, scheme="nginx"), HashRing(NODES, scheme=schemes.nginx())
    assert by_name == by_object and by_name.scheme == "nginx" and by_object.scheme == schemes.nginx()
    assert HashRing(NODES, scheme="nginx") != HashRing(NODES[::-1], scheme="nginx")
    assert by_name != HashRing(NODES, scheme="twemproxy")
    assert repr(by_object) == "<HashRing nodes=12 replicas=150 scheme=nginx()>"
    assert repr(schemes.haproxy(hash="sdbm")) == "haproxy(hash='sdbm', avalanche=False)"
    restored = pickle.loads(pickle.dumps(HashRing([1, 2], scheme=schemes.haproxy(hash="wt6"))))
    assert restored.scheme == schemes.haproxy(hash="wt6") != schemes.haproxy()
    assert len({schemes.nginx(), schemes.nginx(), schemes.envoy()}) == 2


WRONG = [
    (lambda: schemes.libmemcached(hash="crc"), "hash must be one of 'default', 'md5', got 'crc'"),
    (lambda: schemes.twemproxy(hash="x"),
     "hash must be one of 'fnv1a_64', 'md5', 'crc32', 'crc32a', got 'x'"),
    (lambda: schemes.envoy(hash="md5"), "hash must be one of 'xxhash', 'murmur2', got 'md5'"),
    (lambda: schemes.envoy(minimum_ring_size=9, maximum_ring_size=8),
     "minimum_ring_size and maximum_ring_size must be in order in [1, 8388608], got 9 and 8"),
    (lambda: schemes.haproxy(hash="md5"),
     "hash must be one of None, 'sdbm', 'djb2', 'wt6', 'crc32', got 'md5'"),
]
WRONG_TYPES = [
    (lambda: schemes.libmemcached(weighted="no"), "weighted must be a bool, got 'no'"),
    (lambda: schemes.uhashring(ketama=None), "ketama must be a bool, got None"),
    (lambda: schemes.haproxy(avalanche="yes"), "avalanche must be a bool or None, got 'yes'"),
    (lambda: schemes.envoy(minimum_ring_size="64"), "minimum_ring_size must be an int, got '64'"),
    (lambda: schemes.envoy(maximum_ring_size=2.5), "maximum_ring_size must be an int, got 2.5"),
]


@pytest.mark.parametrize("act, message", WRONG, ids=[message for _, message in WRONG])
def test_wrong_options(act, message):
    with pytest.raises(ValueError) as caught:
        act()
    assert caught.value.args == (message,)


@pytest.mark.parametrize("act, message", WRONG_TYPES, ids=[message for _, message in WRONG_TYPES])
def test_options_of_a_wrong_type(act, message):
    with pytest.raises(TypeError) as caught:
        act()
    assert caught.value.args == (message,)


WRONG_NODES = [
    ("nginx", "a", 1.5, "weight must be an int under the scheme nginx, got 1.5"),
    ("nginx", "a", 10**6, "weight must give at most 16777216 points, got 1000000"),
    ("twemproxy", "a", 2**32, "weight must be below 2**32 under the scheme twemproxy, got 4294967296"),
    ("haproxy", "s1", 1, "node must be a server id in [1, 2**31) under the scheme haproxy, got 's1'"),
    ("haproxy", 0, 1, "node must be a server id in [1, 2**31) under the scheme haproxy, got 0"),
    ("haproxy", 1, 257, "weight must be at most 256 under the scheme haproxy, got 257"),
]


@pytest.mark.parametrize("scheme, node, weight, message", WRONG_NODES)
def test_nodes_that_a_program_could_not_have(twin, scheme, node, weight, message):
    ring = twin.placement.HashRing(scheme=scheme)
    for act in (lambda: ring.add_node(node, weight), lambda: ring.__init__({node: weight}, scheme=scheme)):
        with pytest.raises(ValueError) as caught:
            act()
        assert caught.value.args == (message,)
    assert len(ring) == 0


def test_shares_of_rings_that_hash_keys_otherwise_do_not_compare(twin):
    own = twin.placement.HashRing(["a"])
    with pytest.raises(ValueError, match=r"^other must hash keys as this ring does, got <HashRing nodes=0 "):
        own.diff(twin.placement.HashRing(scheme="nginx"))
    assert own.diff(twin.placement.HashRing(["b"], scheme="envoy")) == {("a", "b"): 1.0}
