"""References that HashRing holds and releases."""

import copy
import gc
import sys
import weakref
from contextlib import suppress


class Node:
    def __init__(self, name):
        self.name = name


def name_of(node):
    return node.name


def test_a_removed_node_is_dropped_at_once(twin):
    ring = twin.placement.HashRing([Node("a"), node := Node("b")], node_key=name_of)
    ring.get_node("x")
    gone = weakref.ref(node)
    ring.remove_node(node)
    del node
    assert gone() is None


def test_references_are_balanced(twin):
    nodes = [Node(f"n{i}") for i in range(5)]
    keys = ["user:é", b"user", "u" * 100, 2**40, 2**40 + 1]
    ring = twin.placement.HashRing(nodes, node_key=name_of)

    def exercise():
        ring.add_node(extra := Node("x"))
        ring.get_node(keys[0]), ring.get_nodes(keys[1], 3), ring.preference(keys[2]), ring.get_many(keys)
        ring.ownership(), ring.diff(copy.copy(ring)), ring.weights, ring.nodes, list(ring), extra in ring
        ring.remove_node(extra)
        with suppress(TypeError):
            ring.get_many([*keys, None])
        with suppress(ValueError):
            ring.add_node(nodes[0])
        ring.get_node("x")

    exercise()
    before = [sys.getrefcount(thing) for thing in nodes + keys]
    for _ in range(50):
        exercise()
    assert [sys.getrefcount(thing) for thing in nodes + keys] == before


def test_a_cycle_through_a_node_is_collected(twin):
    node = Node("a")
    node.ring = twin.placement.HashRing([node], node_key=name_of)
    node.ring.get_node("x")
    gone = weakref.ref(node.ring)
    del node
    gc.collect()
    assert gone() is None


def test_a_cycle_through_node_key_is_collected(twin):
    class Names:
        def __call__(self, node):
            return node

    names = Names()
    names.ring = twin.placement.HashRing(["a"], node_key=names)
    gone = weakref.ref(names)
    del names
    gc.collect()
    assert gone() is None


def test_a_dying_node_may_use_the_ring(twin):
    seen = []

    class Dying(Node):
        def __del__(self):
            seen.append((self in ring, ring.get_node("x") in ring.nodes))
            ring._check()

    ring = twin.placement.HashRing([Node("a"), Dying("b")], node_key=name_of)
    ring.get_node("x")
    ring.remove_node(Node("b"))
    ring.add_node(Dying("c"))
    ring.get_node("x")
    ring.replace_nodes([Node("d")])
    assert seen == [(False, True)] * 2


def test_memory_of_many_changes_is_bounded(twin):
    ring = twin.placement.HashRing([f"n{i}" for i in range(20)], 100)
    for i in range(200):
        ring.add_node(f"x{i}")
        ring.get_node("x")
        ring.remove_node(f"x{i}")
    assert len(ring) == 20
    ring._check()
