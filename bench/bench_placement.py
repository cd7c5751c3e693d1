"""HashRing, compared with dict.get and uhashring: ``pytest bench/bench_placement.py --benchmark-only``."""

from array import array
from itertools import count

import pytest

from headgate.placement import _compiled as compiled
from headgate.placement import _pure as pure

NODES = [f"10.0.{i // 250}.{i % 250}:11211" for i in range(1000)]
KEYS = [f"user:{i * 7919}" for i in range(1000)]


class Peer:
    """uhashring's ring, with the constructor of HashRing."""

    def __new__(cls, nodes, replicas):
        return pytest.importorskip("uhashring").HashRing(nodes, vnodes=replicas)


RINGS = pytest.mark.parametrize(
    "ring", [compiled.HashRing, pure.HashRing, Peer], ids=["compiled", "pure", "uhashring"]
)
OURS = pytest.mark.parametrize("ring", [compiled.HashRing, pure.HashRing], ids=["compiled", "pure"])
TWINS = pytest.mark.parametrize("twin", [compiled, pure], ids=["compiled", "pure"])


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


@TWINS
@pytest.mark.parametrize("scheme", ["libmemcached", "uhashring", "nginx", "envoy"])
@pytest.mark.benchmark(group="get_node under a foreign scheme, 100 nodes")
def test_get_node_by_scheme(benchmark, twin, scheme):
    benchmark(each, twin.HashRing(NODES[:100], scheme=scheme).get_node)


def few(call):
    for key in KEYS[:10]:
        call(key)


@TWINS
@pytest.mark.parametrize("scheme", ["headgate", "pymemcache"])
@pytest.mark.benchmark(group="Rendezvous, 10 keys, 100 nodes")
def test_rendezvous(benchmark, twin, scheme):
    benchmark(few, twin.Rendezvous(NODES[:100], scheme=scheme).get_node)


@pytest.mark.benchmark(group="Rendezvous, 10 keys, 100 nodes")
def test_rendezvous_of_pymemcache(benchmark):
    peer = pytest.importorskip("pymemcache.client.rendezvous").RendezvousHash(NODES[:100])
    benchmark(few, peer.get_node)


@TWINS
@pytest.mark.benchmark(group="Maglev, 1,000 hot keys, 100 nodes")
def test_maglev(benchmark, twin):
    benchmark(each, twin.Maglev(NODES[:100]).get_node)


@TWINS
@pytest.mark.benchmark(group="jump_hash, 1,000 hot keys, 100 buckets")
def test_jump_hash(benchmark, twin):
    benchmark(each, lambda key: twin.jump_hash(key, 100))


@TWINS
@pytest.mark.benchmark(group="BoundedLoad, 1,000 hot keys, 100 nodes, pick and done")
def test_bounded_load(benchmark, twin):
    bounded = twin.BoundedLoad(twin.HashRing(NODES[:100], 160))
    held = [bounded.pick(key) for key in KEYS]
    benchmark(each, lambda key: bounded.pick(key).done())
    assert sum(bounded.loads.values()) == len(held)
