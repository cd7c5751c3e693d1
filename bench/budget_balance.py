"""What picks cost as multiples of a C call that does no work: ``python bench/budget_balance.py``.

Each act stands beside an empty loop and a loop of such calls of its own, taken in turns; medians, the loop
taken off. ``str.expandtabs`` on three letters is a method with optional arguments that has nothing to do.
"""

import sys
from itertools import repeat
from operator import index
from statistics import median
from time import perf_counter_ns

from bench_balance import NAMES, TIMES, fleet

from headgate._compiled import balance

ROUNDS = 200
SIZES = [10, 1000]


def loop():
    for _ in repeat(1, TIMES):
        pass


def calls():
    for one in repeat(1, TIMES):
        index(one)


def method(text="abc"):
    for _ in repeat(1, TIMES):
        text.expandtabs()


def get_server(balancer):
    def act():
        for _ in repeat(1, TIMES):
            balancer.get_server()

    return act


def pick(balancer):
    def act():
        for _ in repeat(1, TIMES):
            balancer.pick().done()

    return act


def clock(act):
    start = perf_counter_ns()
    act()
    return perf_counter_ns() - start


def in_calls(act):
    """The cost of an act in calls, and that of a call in ns."""
    rounds = [(clock(loop), clock(calls), clock(act)) for _ in range(ROUNDS)]
    empty, call, took = (median(times) for times in zip(*rounds, strict=True))
    return f"{(took - empty) / (call - empty):.2f} of {(call - empty) / TIMES:.1f}"


def main():
    print(f"CPython {sys.version.split()[0]}; costs in calls of operator.index(1), and the ns of such a call")
    print(f"an empty method: {in_calls(method)}")
    for name in NAMES:
        acts = [make(fleet(balance, name, size)) for make in (get_server, pick) for size in SIZES]
        print(f"{name}: {', '.join(map(in_calls, acts))}")
    print(f"each: get_server, then pick and done, of {' and '.join(map(str, SIZES))} servers")


if __name__ == "__main__":
    main()
