"""One node more: the share of keys that move, of real keys and of all, and where they move."""

import pytest

KEYS = {"compiled": 400_000, "pure": 3000}
TOLERANCE = {"compiled": 0.05, "pure": 0.5}


def ring(placement, nodes):
    return placement.HashRing(nodes, 1000).get_many


def rendezvous(placement, nodes):
    return placement.Rendezvous(nodes).get_many


def jump(placement, nodes):
    return lambda keys: [placement.jump_hash(key, len(nodes)) for key in keys]


@pytest.mark.parametrize("make", [ring, rendezvous, jump])
def test_one_node_more_takes_its_share_and_nothing_else_moves(twin, make):
    keys = [f"user:{number}" for number in range(KEYS[twin.name])]
    before = make(twin.placement, list(range(100)))(keys)
    after = make(twin.placement, list(range(101)))(keys)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {100}
    assert len(moved) / len(keys) == pytest.approx(1 / 101, rel=TOLERANCE[twin.name])


@pytest.mark.parametrize("make", [lambda module, nodes: module.HashRing(nodes, 1000),
                                  lambda module, nodes: module.Rendezvous(nodes)])
def test_the_share_of_all_keys(twin, make):
    moved = make(twin.placement, range(100)).diff(make(twin.placement, range(101)))
    assert {new for _, new in moved} == {100}
    assert sum(moved.values()) == pytest.approx(1 / 101, rel=0.05)
