"""HashRing beside dict.get and uhashring: ``pytest bench/bench_placement.py --benchmark-only``."""

from array import array
from itertools import count

import pytest

from headgate._compiled.placement import HashRing as CompiledRing
from headgate._pure.placement import HashRing as PureRing

NODES = [f"10.0.{i // 250}.{i % 250}:11211" for i in range(1000)]
KEYS = [f"user:{i * 7919}" for i in range(1000)]


class Peer:
    """uhashring's ring with our constructor."""

    def __new__(cls, nodes, replicas):
        return pytest.importorskip("uhashring").HashRing(nodes, vnodes=replicas)


RINGS = pytest.mark.parametrize("ring", [CompiledRing, PureRing, Peer], ids=["compiled", "pure", "uhashring"])
OURS = pytest.mark.parametrize("ring", [CompiledRing, PureRing], ids=["compiled", "pure"])


def each(call):
    for key in KEYS:
        call(key)


@pytest.mark.benchmark(group="get_node, 1,000 hot keys, 100 nodes x 160")
def test_dict_get(benchmark):
    benchmark(each, dict.fromkeys(KEYS).get)


@RINGS
@pytest.mark.benchmark(group="get_node, 1,000 hot keys, 100 nodes x 160")
def test_get_node_100(benchmark, ring):
    benchmark(each, ring(NODES[:100], 160).get_node)


@RINGS
@pytest.mark.benchmark(group="get_node, 1,000 hot keys, 1,000 nodes x 160")
def test_get_node_1000(benchmark, ring):
    benchmark(each, ring(NODES, 160).get_node)


@OURS
@pytest.mark.benchmark(group="get_many, 1,000 hot keys, 100 nodes x 160")
def test_get_many(benchmark, ring):
    benchmark(ring(NODES[:100], 160).get_many, KEYS)


@OURS
@pytest.mark.benchmark(group="get_nodes, 3 of 100 nodes x 160")
def test_get_nodes(benchmark, ring):
    benchmark(ring(NODES[:100], 160).get_nodes, "user:1", 3)


@OURS
@pytest.mark.benchmark(group="locate, 10,000 hashes, 100 nodes x 160")
def test_locate(benchmark, ring):
    hashes = array("Q", [i * 0x9E3779B97F4A7C15 % 2**64 for i in range(10_000)])
    benchmark(ring(NODES[:100], 160).locate, hashes)


@RINGS
@pytest.mark.benchmark(group="build, 1,000 nodes x 160")
def test_build(benchmark, ring):
    benchmark(lambda: ring(NODES, 160).get_node("user:1"))


@RINGS
@pytest.mark.benchmark(group="add one node to 1,000 x 160, and look up")
def test_add_node(benchmark, ring):
    names, target = count(), ring(NODES, 160)

    def add():
        target.add_node(f"new{next(names)}")
        target.get_node("user:1")

    benchmark.pedantic(add, rounds=20)
