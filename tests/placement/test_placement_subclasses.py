"""Attributes that a user's subclass of a placement adds are copied and pickled."""

import copy
import pickle

import pytest

from headgate import placement


class Named(placement.HashRing):
    """With a dictionary."""


class Slotted(placement.Rendezvous):
    """With slots alone."""

    __slots__ = ("label", "unset")


class Both(Slotted):
    """With a dictionary and inherited slots."""


class Table(placement.Maglev):
    def __init__(self, nodes, label):
        super().__init__(nodes, 251)
        self.label = label


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda ring: pickle.loads(pickle.dumps(ring))])
@pytest.mark.parametrize("make", [Named, Slotted, Both, lambda nodes: Table(nodes, "")])
def test_attributes_are_carried(make, way):
    ring = make({"a": 1, "b": 0})
    assert way(ring) == ring
    ring.label = ["x"]
    if not isinstance(ring, Slotted) or isinstance(ring, Both):
        ring.more = 7
    other = way(ring)
    assert type(other) is type(ring)
    assert other == ring and other.weights == {"a": 1, "b": 0}
    assert other.label == ["x"]
    assert (other.label is ring.label) == (way is copy.copy)
    assert getattr(other, "more", None) == getattr(ring, "more", None)
    assert not hasattr(other, "unset")
    other._check()


def test_twins_carry_alike(both_twins):
    for module in (twin.placement for twin in both_twins):
        class Own(module.HashRing):
            __slots__ = ("__dict__", "label")

        ring = Own(["a"])
        ring.label, ring.more = 1, 2
        other = copy.copy(ring)
        assert (other.label, other.more, vars(other)) == (1, 2, {"more": 2})
        assert ring.__reduce__()[2] == ({"more": 2}, {"label": 1})
        assert module.HashRing(["a"]).__reduce__()[2] is None
