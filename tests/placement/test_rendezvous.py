"""Rendezvous: shares by weight, minimal movement, pymemcache's scheme, and its protocol."""

import copy
import json
import pickle
import random
from collections import Counter
from math import log
from pathlib import Path

import pytest
from ring_model import name_of, splitmix64
from twins import SHARED
from xxhash import xxh64_intdigest

VECTORS = SHARED / "vectors" / "pymemcache-rendezvous.json"
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "rendezvous.json").read_text())
NODES = [f"10.0.0.{i}:6379" for i in range(20)]
KEYS = [f"user:{i}" for i in range(3000)]


def naive(weights, key, seed=0):
    """The nodes by distance, the nearest first."""
    hash = xxh64_intdigest(name_of(key), seed)
    draws = {node: splitmix64(xxh64_intdigest(name_of(node)) ^ hash) for node in weights}
    distances = {node: -log(((draws[node] >> 12) + 0.5) * 2.0**-52) / weight
                 for node, weight in weights.items()}
    return sorted(weights, key=distances.get)


def murmur3(text, seed):
    """pymemcache's murmur3 of 32 bits, over the low byte of each code point."""
    data = bytes(ord(char) & 0xFF for char in text)
    h, mask = seed, 0xFFFFFFFF
    for at in range(0, len(data), 4):
        k = int.from_bytes(data[at : at + 4], "little") * 0xCC9E2D51 & mask
        h ^= (k << 15 | k >> 17) * 0x1B873593 & mask
        if at + 4 <= len(data):
            h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & mask
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    return h ^ h >> 16


@pytest.mark.parametrize("step", [0, 0.5])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_it_is_the_naive_race(twin, step, seed):
    weights = {node: 1 + i % 4 * step for i, node in enumerate(NODES)}
    placement = twin.placement.Rendezvous(weights, seed=seed)
    for key in [*KEYS[:200], b"", "é", -1, 2**63 - 1, "x" * 300]:
        order = naive(weights, key, seed)
        assert placement.get_node(key) == order[0]
        assert placement.preference(key) == order
        assert placement.get_nodes(key, 3) == order[:3]
    assert placement.get_many(KEYS[:50]) == [placement.get_node(key) for key in KEYS[:50]]
    placement._check()


def test_golden_placement_is_stable(twin):
    for case in GOLDEN:
        placement = twin.placement.Rendezvous(case["weights"], scheme=case["scheme"], seed=case["seed"])
        assert {key: placement.get_node(key) for key in case["keys"]} == case["keys"]


@pytest.mark.skipif(not VECTORS.exists(), reason="the recorded results are not beside the project")
def test_every_recorded_row_of_pymemcache(twin):
    for case in json.loads(VECTORS.read_text())["cases"]:
        placement = twin.placement.Rendezvous(case["nodes"], scheme="pymemcache", seed=case["seed"])
        assert {key: placement.get_node(key) for key in case["keys"]} == case["keys"]


@pytest.mark.parametrize("nodes", [
    NODES,
    ["", "a", "bc", "déf", "日本語", "\U0001f600x", "abcde"],
    ["only"],
    [f"{'n' * (i % 5)}{i}{end}" for i in range(40) for end in "aš"],  # the same low byte: equal scores
])
def test_pymemcache_counts_low_bytes(twin, nodes):
    """All lengths of prefix and key modulo 4, and text beyond ASCII."""
    placement = twin.placement.Rendezvous(nodes, scheme="pymemcache", seed=3)
    rng = random.Random(1)
    sizes = [*range(40), *range(50, 70), *range(120, 135)]
    texts = ["".join(rng.choices("ab-é日\U0001f600\xad", k=k)) for k in sizes for _ in range(3)]
    placement._check()
    for text in texts:
        scores = {node: murmur3(f"{node}-{text}", 3) for node in nodes}
        order = sorted(nodes, key=lambda node: (scores[node], node), reverse=True)
        assert placement.preference(text) == order
        assert placement.get_node(text) == placement.get_node(text.encode()) == order[0]


def test_pymemcache_reads_any_bytes_alike_on_both_twins(both_twins):
    compiled, pure = (twin.placement.Rendezvous(NODES, scheme="pymemcache") for twin in both_twins)
    rng = random.Random(2)
    pieces = [bytes([i]) for i in range(256)] + ["é日".encode()] * 20
    pieces += [b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\xaf"] * 20
    for _ in range(3000):
        key = b"".join(rng.choices(pieces, k=rng.randrange(8)))
        assert compiled.preference(key) == pure.preference(key)
    assert compiled.get_many(range(-5, 5)) == pure.get_many(range(-5, 5))


def test_shares_follow_weights(twin):
    weights = {f"n{i}": 1 + i for i in range(6)}
    placement = twin.placement.Rendezvous(weights)
    shares = placement.ownership()
    assert shares == {node: weight / 21 for node, weight in weights.items()}
    hits = Counter(placement.get_many(KEYS))
    for node, share in shares.items():
        assert hits[node] / len(KEYS) == pytest.approx(share, abs=0.025)


def test_a_new_node_takes_its_share_and_nothing_else_moves(twin):
    old = twin.placement.Rendezvous([f"n{i}" for i in range(100)])
    new = copy.copy(old)
    new.add_node("new")
    moved = old.diff(new)
    assert {now for _, now in moved} == {"new"}
    assert sum(moved.values()) == pytest.approx(1 / 101)
    for was, now in zip(old.get_many(KEYS), new.get_many(KEYS), strict=True):
        assert was == now or now == "new"


def test_preference_agrees_with_removal(twin):
    placement = twin.placement.Rendezvous({node: 1 + i % 3 for i, node in enumerate(NODES)})
    for key in KEYS[:10]:
        shrinking = copy.copy(placement)
        for node in placement.preference(key):
            assert shrinking.get_node(key) == node
            shrinking.remove_node(node)


def test_diff_is_the_expected_movement(twin):
    old = twin.placement.Rendezvous({"a": 1, "b": 2, "c": 3, "d": 1})
    new = twin.placement.Rendezvous({"b": 1, "c": 3, "d": 4, "e": 2})
    keys = range(20_000)
    counted = Counter(zip(old.get_many(keys), new.get_many(keys), strict=True))
    expected = old.diff(new)
    for pair in set(expected) | set(counted):
        if pair[0] != pair[1]:
            assert counted[pair] / len(keys) == pytest.approx(expected.get(pair, 0), abs=0.01)


def test_diff_with_an_empty_side(twin):
    placement, empty = twin.placement.Rendezvous({"a": 1, "b": 3}), twin.placement.Rendezvous()
    assert placement.diff(empty) == {("a", None): 0.25, ("b", None): 0.75}
    assert empty.diff(placement) == {(None, "a"): 0.25, (None, "b"): 0.75}
    assert empty.diff(empty) == placement.diff(placement) == {}


WRONG = [
    (lambda placement: placement.__init__([], scheme="ring"), ValueError,
     "scheme must be one of headgate, pymemcache, got 'ring'"),
    (lambda placement: placement.__init__([], seed=-1), ValueError, "seed must be in [0, 2**32), got -1"),
    (lambda placement: placement.__init__([], seed="x"), TypeError, "seed must be an int, got 'x'"),
    (lambda placement: placement.__init__({"a": 2}, scheme="pymemcache"), ValueError,
     "weight must be 0 or 1 under the scheme pymemcache, got 2"),
    (lambda placement: placement.add_node("x", 10**400), ValueError,
     f"weight must be finite and not negative, got {10**400}"),
    (lambda placement: placement.diff([]), TypeError, "other must be a Rendezvous, got []"),
    (lambda placement: placement.diff(type(placement)(seed=1)), ValueError,
     "other must hash keys as this placement does, got <Rendezvous nodes=0 scheme='headgate' seed=1>"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_input_leaves_it_untouched(twin, act, error, message):
    placement = twin.placement.Rendezvous(["a", "b"])
    with pytest.raises(error) as caught:
        act(placement)
    assert caught.value.args == (message,)
    assert placement == twin.placement.Rendezvous(["b", "a"])
    placement._check()


def test_pickles_agree(both_twins):
    first, second = (twin.placement.Rendezvous({"a": 1, "b": 2}, seed=9) for twin in both_twins)
    assert pickle.dumps(first) == pickle.dumps(second)
    restored = pickle.loads(pickle.dumps(first))
    assert (restored.weights, restored.seed, restored.scheme) == ({"a": 1, "b": 2}, 9, "headgate")
