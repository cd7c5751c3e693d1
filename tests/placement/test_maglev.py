"""Maglev: Envoy's table slot for slot, even shares, and its protocol."""

import copy
import json
import pickle
from collections import Counter
from pathlib import Path

import pytest
from twins import SHARED
from xxhash import xxh64_intdigest

VECTORS = SHARED / "vectors" / "envoy-maglev.json"
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "maglev.json").read_text())
KEYS = [f"user:{i}" for i in range(2000)]


def naive_table(weights, size):
    names = sorted(weights)
    total, heaviest = sum(weights.values()), max(weights.values())
    nexts, targets, table = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0), [None] * size
    turn = 0
    while None in table:
        turn += 1
        for name in names:
            if None not in table or turn * (weights[name] / total) < targets[name]:
                continue
            targets[name] += heaviest / total
            offset = xxh64_intdigest(name.encode()) % size
            skip = xxh64_intdigest(name.encode(), 1) % (size - 1) + 1
            while table[(offset + skip * nexts[name]) % size] is not None:
                nexts[name] += 1
            table[(offset + skip * nexts[name]) % size] = name
    return table


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_some_recorded_rows(twin, case):
    maglev = twin.placement.Maglev(dict(zip(case["nodes"], case["weights"], strict=True)), case["size"])
    assert {key: maglev.get_node(key) for key in case["keys"]} == case["keys"]


@pytest.mark.skipif(not VECTORS.exists(), reason="the recorded results of Envoy are not beside the project")
def test_every_recorded_row(twin):
    for case in json.loads(VECTORS.read_text())["cases"]:
        weights = dict(zip(case["nodes"], case["weights"], strict=True))
        maglev = twin.placement.Maglev(weights, case["config"].get("table_size", 65537))
        assert {key: maglev.get_node(key) for key in case["keys"]} == case["keys"]
        maglev._check()


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": 1, "c": 1},
                                     {"a": 1, "b": 7, "c": 2.5, "d": 0.5}])
@pytest.mark.parametrize("size", [2, 5, 101])
def test_it_is_the_naive_table(twin, weights, size):
    maglev, table = twin.placement.Maglev(weights, size), naive_table(weights, size)
    for key in KEYS[:300]:
        slot = xxh64_intdigest(key.encode()) % size
        assert maglev.get_node(key) == table[slot]
        assert maglev.preference(key) == list(dict.fromkeys(table[slot:] + table[:slot]))
        assert maglev.get_nodes(key, 2) == maglev.preference(key)[:2]
    assert maglev.ownership() == {node: table.count(node) / size for node in weights}
    maglev._check()


def test_shares_are_even(twin):
    shares = twin.placement.Maglev([f"n{i}" for i in range(100)]).ownership()
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares.values()) * 100 < 1.002


def test_insertion_order_does_not_matter(twin):
    maglev = twin.placement.Maglev(["c", "a"], 1009)
    maglev.get_node("x")
    maglev.add_node("b")
    assert maglev == twin.placement.Maglev(["a", "b", "c"], 1009)
    assert maglev.get_many(KEYS) == twin.placement.Maglev(["b", "c", "a"], 1009).get_many(KEYS)
    assert maglev != twin.placement.Maglev(["a", "b", "c"], 1013)


def test_diff_counts_slots(twin):
    old = twin.placement.Maglev([f"n{i}" for i in range(10)], 1009)
    new = copy.copy(old)
    new.remove_node("n3")
    new.add_node("late")
    counted = Counter(zip(naive_table(old.weights, 1009), naive_table(new.weights, 1009), strict=True))
    assert old.diff(new) == {pair: slots / 1009 for pair, slots in counted.items() if pair[0] != pair[1]}


def test_an_empty_table(twin):
    maglev = twin.placement.Maglev(size=7)
    assert maglev.get_node("x") is None
    assert maglev.get_nodes("x", 3) == maglev.preference("x") == list(maglev) == []
    assert maglev.get_many(["x"]) == [None]
    assert maglev.ownership() == maglev.diff(maglev) == {}
    assert maglev.diff(twin.placement.Maglev(["a"], 7)) == {(None, "a"): 1.0}
    maglev._check()
    with pytest.raises(TypeError):
        maglev.get_node(None)


WRONG = [
    (lambda maglev: maglev.__init__([], 10), ValueError, "size must be a prime below 2**24, got 10"),
    (lambda maglev: maglev.__init__([], 1), ValueError, "size must be a prime below 2**24, got 1"),
    (lambda maglev: maglev.__init__([], 10**9 + 7), ValueError,
     "size must be a prime below 2**24, got 1000000007"),
    (lambda maglev: maglev.__init__([], 7.0), TypeError, "size must be an int, got 7.0"),
    (lambda maglev: maglev.diff(3), TypeError, "other must be a Maglev, got 3"),
    (lambda maglev: maglev.diff(type(maglev)([], 5)), ValueError,
     "other must have 7 slots too, got <Maglev nodes=0 size=5>"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_input_leaves_it_untouched(twin, act, error, message):
    maglev = twin.placement.Maglev(["a", "b"], 7)
    with pytest.raises(error) as caught:
        act(maglev)
    assert caught.value.args == (message,)
    assert maglev == twin.placement.Maglev(["b", "a"], 7)
    maglev._check()


def test_pickles_agree(both_twins):
    first, second = (twin.placement.Maglev({"a": 1, "b": 2}, 11) for twin in both_twins)
    assert pickle.dumps(first) == pickle.dumps(second)
    restored = pickle.loads(pickle.dumps(first))
    assert (restored.weights, restored.size) == ({"a": 1, "b": 2}, 11)
