"""Both twins of HashRing against a sorted list of tuples, step by step."""

import array
import copy
import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ring_model import ModelRing
from twins import Twin, twin_names

NODES = st.sampled_from(["a", "b", b"b", "c", "é", "日本", 0, -1, True, 7, 2**63 - 1, "", b"\xff"])
WEIGHTS = st.one_of(st.integers(0, 5), st.floats(0.01, 4))
KEYS = st.one_of(st.text(max_size=40), st.binary(max_size=40), st.integers(-(2**63), 2**63 - 1))


class RingMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.replicas = 6
        self.model = ModelRing(self.replicas)
        self.rings = [Twin(name).placement.HashRing([], self.replicas) for name in twin_names()]

    def both(self, act):
        """Does the same on the model and the rings, and expects the same result or error."""
        outcomes = []
        for ring in [self.model, *self.rings]:
            try:
                outcomes.append(act(ring))
            except (KeyError, ValueError) as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[1:] == outcomes[:1] * len(self.rings)

    @rule(node=NODES, weight=WEIGHTS)
    def add(self, node, weight):
        self.both(lambda ring: ring.add_node(node, weight))

    @rule(node=NODES)
    def remove(self, node):
        self.both(lambda ring: ring.remove_node(node))

    @rule(node=NODES, weight=WEIGHTS)
    def reweigh(self, node, weight):
        self.both(lambda ring: ring.set_weight(node, weight))

    @rule(nodes=st.one_of(st.lists(NODES, max_size=5), st.dictionaries(NODES, WEIGHTS, max_size=5)))
    def replace_all(self, nodes):
        self.both(lambda ring: ring.replace_nodes(nodes))

    @rule(key=KEYS)
    def look_up(self, key):
        self.both(lambda ring: ring.get_node(key))
        self.both(lambda ring: ring.preference(key))

    @rule(key=KEYS, n=st.integers(0, 6))
    def look_up_some(self, key, n):
        expected = self.model.preference(key)[:n]
        assert [ring.get_nodes(key, n) for ring in self.rings] == [expected] * len(self.rings)

    @rule(hashes=st.lists(st.integers(0, 2**64 - 1), max_size=5))
    def locate(self, hashes):
        expected = [next(iter(self.model.locate(hash)), None) for hash in hashes]
        for ring in self.rings:
            found = ring.locate(array.array("Q", hashes))
            assert [ring.nodes[i] if i >= 0 else None for i in found] == expected

    @rule(way=st.sampled_from([copy.copy, lambda ring: type(ring)(ring.weights, ring.replicas)]))
    def replace(self, way):
        self.rings = [way(ring) for ring in self.rings]

    @rule()
    def compare(self):
        self.both(lambda ring: ring.ownership())
        assert len({pickle.dumps(ring) for ring in self.rings}) == 1

    @invariant()
    def sound(self):
        for ring in self.rings:
            assert len(ring) == len(self.model.members)

    def teardown(self):
        for ring in self.rings:
            ring._check()


RingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRing = RingMachine.TestCase


@pytest.mark.parametrize("old", [{}, {"a": 1}, {"a": 1, "b": 2}])
@pytest.mark.parametrize("new", [{"a": 1}, {"b": 2, "c": 1}, {"a": 3}])
def test_the_twins_agree_on_diff(both_twins, old, new):
    moves = [twin.placement.HashRing(old, 20).diff(twin.placement.HashRing(new, 30)) for twin in both_twins]
    assert list(moves[0].items()) == list(moves[1].items())
