"""Consistent-hash rings side by side."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from headgate.cli.bench import textbook
from headgate.cli.bench.peers import peer
from headgate.cli.bench.race import Contestant, Field, Loop, Trial, always, clock, empty_loop
from headgate.cli.bench.work import Scale, Work, twin_room, twins
from headgate.cli.bench.workload import user_id

BASELINE = "dict.get"
_NEW_NODE = "cache-new:11211"
_KEY = user_id(0)


class Ring(NamedTuple):
    """How to make one of `nodes` with `replicas` points each."""

    name: str
    kind: str
    make: Callable[[Sequence[str], int], Any]


def rings() -> list[Ring]:
    found = [Ring(f"headgate {twin}", twin, twin_room(twin, "placement").HashRing) for twin in twins()]
    if (uhashring := peer("uhashring")) is not None:
        found.append(
            Ring("uhashring", "peer", lambda nodes, replicas: uhashring.HashRing(nodes, vnodes=replicas))
        )
    found.append(Ring("text md5 + bisect", "text", textbook.Ring))
    return found


def works(scale: Scale) -> list[Work]:
    few, many = (f"{nodes:,} x {scale.replicas}" for nodes in (scale.nodes, scale.many_nodes))
    return [
        Work("ring.get_node", "get_node", few, partial(_get_node, scale)),
        Work("ring.build", "build", many, partial(_build, scale), warm_up=False),
        Work("ring.add_node", "add 1, look up", many, partial(_add_node, scale)),
    ]


def node_names(count: int) -> list[str]:
    return [f"cache-{number:04}:11211" for number in range(count)]


def _get_node(scale: Scale) -> Field:
    keys = [user_id(number) for number in range(scale.hot)]
    nodes = node_names(scale.nodes)
    contestants = [
        Contestant(
            ring.name,
            ring.kind,
            Loop("target.get_node(key)", keys, always(ring.make(nodes, scale.replicas)), scale.trial_ns),
        )
        for ring in rings()
    ]
    table = Loop("target.get(key)", keys, always(dict.fromkeys(keys, "node")), scale.trial_ns)
    return Field([*contestants, Contestant(BASELINE, "baseline", table)], empty_loop(keys, scale.trial_ns))


def _build(scale: Scale) -> Field:
    nodes = node_names(scale.many_nodes)
    return Field(
        [Contestant(ring.name, ring.kind, _build_trial(ring, nodes, scale.replicas)) for ring in rings()]
    )


def _build_trial(ring: Ring, nodes: Sequence[str], replicas: int) -> Trial:
    def trial() -> float:
        start = clock()
        ring.make(nodes, replicas).get_node(_KEY)
        return clock() - start

    return trial


def _add_node(scale: Scale) -> Field:
    nodes = node_names(scale.many_nodes)
    return Field(
        [Contestant(ring.name, ring.kind, _add_trial(ring.make(nodes, scale.replicas))) for ring in rings()]
    )


def _add_trial(ring: Any) -> Trial:
    def trial() -> float:
        start = clock()
        ring.add_node(_NEW_NODE)
        ring.get_node(_KEY)
        elapsed = clock() - start
        ring.remove_node(_NEW_NODE)
        return elapsed

    return trial
