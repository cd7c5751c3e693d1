"""Pickles of HashRing: both twins write the same bytes, and read those of all versions."""

import copy
import pickle
from pathlib import Path

import pytest

from headgate.placement import HashRing

GOLDEN = Path(__file__).parents[1] / "golden" / "headgate-ring-v1.pickle"
WEIGHTS = {"a": 1, "b": 2.5, "cache-é": 1}


def lower(node):
    return node.lower()


class Tagged(HashRing):
    pass


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_both_twins_write_the_same_bytes(both_twins, protocol):
    rings = [twin.placement.HashRing(WEIGHTS, 40, node_key=lower) for twin in both_twins]
    first, second = (pickle.dumps(ring, protocol) for ring in rings)
    assert first == second
    restored = pickle.loads(first)
    assert type(restored) is HashRing
    assert (restored.weights, restored.replicas) == (WEIGHTS, 40)
    assert "A" in restored


def test_golden_pickle(twin):
    ring = twin.placement.HashRing(WEIGHTS, 40)
    assert pickle.dumps(ring, 4) == GOLDEN.read_bytes()
    restored = pickle.loads(GOLDEN.read_bytes())
    assert restored.nodes == ring.nodes
    assert restored.get_many(map(str, range(99))) == ring.get_many(map(str, range(99)))


def test_a_subclass_comes_back_as_itself():
    ring = Tagged(WEIGHTS)
    for other in (pickle.loads(pickle.dumps(ring)), copy.copy(ring), copy.deepcopy(ring)):
        assert type(other) is Tagged
        assert other == ring


def test_an_unknown_version_is_named(twin):
    with pytest.raises(ValueError, match=r"^state must be of version 1, got 99$"):
        twin.placement.HashRing._from_state((99, ()))
