"""The budgets of placements, in interleaved rounds: ``python bench/budget_placement.py``."""

import sys
from itertools import count
from statistics import median
from time import perf_counter_ns

import uhashring
from pymemcache.client.rendezvous import RendezvousHash

from headgate.placement import _compiled as compiled
from headgate.placement import _pure as pure

NODES = [f"10.0.{i // 250}.{i % 250}:11211" for i in range(1000)]
KEYS = [f"user:{i * 7919}" for i in range(1000)]
RINGS = {
    "compiled": lambda nodes: compiled.HashRing(nodes, 160),
    "pure": lambda nodes: pure.HashRing(nodes, 160),
    "uhashring": uhashring.HashRing,
}
RENDEZVOUS = {
    "compiled": compiled.Rendezvous(NODES[:100]),
    "weighted": compiled.Rendezvous({node: 1 + i % 3 for i, node in enumerate(NODES[:100])}),
    "compiled as pymemcache": compiled.Rendezvous(NODES[:100], scheme="pymemcache"),
    "pure": pure.Rendezvous(NODES[:100]),
    "pure as pymemcache": pure.Rendezvous(NODES[:100], scheme="pymemcache"),
    "pymemcache": RendezvousHash(NODES[:100]),
}


def clock(operation, passes):
    """The best of some passes in a row, in ns, so that the CPU caches hold the operation's own data."""
    best = 2**63
    for _ in range(passes):
        start = perf_counter_ns()
        operation()
        best = min(best, perf_counter_ns() - start)
    return best


def each(call):
    def operation():
        for key in KEYS:
            call(key)

    return operation


def few(call):
    def operation():
        for key in KEYS[:10]:
            call(key)

    return operation


def adding(ring):
    names = count()

    def operation():
        ring.add_node(f"new{next(names)}")
        ring.get_node("user:1")

    return operation


def compare(title, operations, rounds, passes=1):
    """Interleave the operations; print the medians in µs, and ratios to the first."""
    times = {name: [] for name in operations}
    for _ in range(rounds):
        for name, operation in operations.items():
            times[name].append(clock(operation, passes))
    base = median(next(iter(times.values())))
    cells = [f"{name} {median(took) / 1000:.1f} ({median(took) / base:.3g}x)" for name, took in times.items()]
    print(f"{title}: {', '.join(cells)}")


def main():
    print(f"CPython {sys.version.split()[0]}; medians in µs, ratios to the first")
    some = {name: make(NODES[:100]) for name, make in RINGS.items()}
    whole = {name: make(NODES) for name, make in RINGS.items()}
    table = dict.fromkeys(KEYS)
    gets = {"dict.get": each(table.get)} | {name: each(ring.get_node) for name, ring in some.items()}
    compare("get_node, 100 nodes x 160, 1,000 keys", gets, 50, passes=5)
    gets = {name: each(ring.get_node) for name, ring in whole.items()}
    compare("get_node, 1,000 nodes x 160, 1,000 keys", gets, 50, passes=5)
    many = {"get_node": each(some["compiled"].get_node), "get_many": lambda: some["compiled"].get_many(KEYS)}
    compare("get_many against get_node", many, 100, passes=5)
    places = {"HashRing": some["compiled"], "Maglev": compiled.Maglev(NODES[:100])}
    gets = {name: each(place.get_node) for name, place in places.items()}
    compare("Maglev.get_node, 100 nodes, 1,000 keys", gets, 50, passes=5)
    lookups = {name: few(rendezvous.get_node) for name, rendezvous in RENDEZVOUS.items()}
    compare("Rendezvous, 100 nodes, 10 keys", lookups, 20, passes=3)
    builds = {name: lambda make=make: make(NODES).get_node("user:1") for name, make in RINGS.items()}
    compare("build, 1,000 nodes x 160", builds, 5)
    compare("add one node to 1,000 x 160, look up", {name: adding(ring) for name, ring in whole.items()}, 20)


if __name__ == "__main__":
    main()
