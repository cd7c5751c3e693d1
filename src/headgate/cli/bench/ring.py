"""Consistent-hash rings side by side."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from headgate.cli.bench import textbook
from headgate.cli.bench.benchmark import Benchmark, Scale, twins
from headgate.cli.bench.interleave import Candidate, Comparison, Loop, Trial, always, clock, empty_loop
from headgate.cli.bench.peers import available, load
from headgate.cli.bench.workload import user_id
from headgate.cli.twins import twin_module

BASELINE = "dict.get"
_NEW_NODE = "cache-new:11211"
_KEY = user_id(0)


class Ring(NamedTuple):
    """How to make a ring of `nodes` with `replicas` virtual nodes each."""

    name: str
    kind: str
    make: Callable[[Sequence[str], int], Any]


def rings() -> list[Ring]:
    found = [Ring(f"headgate {twin}", twin, twin_module(twin, "placement").HashRing) for twin in twins()]
    if available("uhashring"):
        found.append(Ring("uhashring", "peer", _uhashring))
    found.append(Ring("text md5 + bisect", "text", textbook.Ring))
    return found


def _uhashring(nodes: Sequence[str], replicas: int) -> Any:
    return load("uhashring").HashRing(nodes, vnodes=replicas)


def benchmarks(scale: Scale) -> list[Benchmark]:
    few, many = (f"{nodes:,} x {scale.replicas}" for nodes in (scale.nodes, scale.many_nodes))
    return [
        Benchmark("ring.get_node", "get_node", few, partial(_get_node, scale)),
        Benchmark("ring.build", "build", many, partial(_build, scale)),
        Benchmark("ring.add_node", "add 1, look up", many, partial(_add_node, scale)),
    ]


def node_names(count: int) -> list[str]:
    return [f"cache-{number:04}:11211" for number in range(count)]


def _get_node(scale: Scale) -> Comparison:
    keys = [user_id(number) for number in range(scale.hot)]
    nodes = node_names(scale.nodes)
    candidates = [
        Candidate(ring.name, ring.kind, partial(_lookups, ring, nodes, keys, scale)) for ring in rings()
    ]
    table = partial(Loop, "target.get(key)", keys, always(dict.fromkeys(keys, "node")), scale.trial_ns)
    return Comparison([*candidates, Candidate(BASELINE, "baseline", table)], empty_loop(keys, scale.trial_ns))


def _lookups(ring: Ring, nodes: Sequence[str], keys: Sequence[str], scale: Scale) -> Loop:
    return Loop("target.get_node(key)", keys, always(ring.make(nodes, scale.replicas)), scale.trial_ns)


def _build(scale: Scale) -> Comparison:
    nodes = node_names(scale.many_nodes)
    return Comparison([
        Candidate(ring.name, ring.kind, partial(_build_trial, ring, nodes, scale.replicas))
        for ring in rings()
    ])


def _build_trial(ring: Ring, nodes: Sequence[str], replicas: int) -> Trial:
    def trial() -> float:
        start = clock()
        ring.make(nodes, replicas).get_node(_KEY)
        return clock() - start

    return trial


def _add_node(scale: Scale) -> Comparison:
    nodes = node_names(scale.many_nodes)
    return Comparison([
        Candidate(ring.name, ring.kind, partial(_add_trial, ring, nodes, scale.replicas))
        for ring in rings()
    ])


def _add_trial(ring: Ring, nodes: Sequence[str], replicas: int) -> Trial:
    made = ring.make(nodes, replicas)

    def trial() -> float:
        start = clock()
        made.add_node(_NEW_NODE)
        made.get_node(_KEY)
        elapsed = clock() - start
        made.remove_node(_NEW_NODE)
        return elapsed

    return trial
