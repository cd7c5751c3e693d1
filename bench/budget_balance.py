"""The cost of picks, in multiples of a C call that does nothing: ``python bench/budget_balance.py``.

Each operation is interleaved with an empty loop and with a loop of such calls; medians, the empty loop
subtracted. ``str.expandtabs`` of three letters is a method with optional arguments that does nothing.
"""

import sys
from itertools import repeat
from operator import index
from statistics import median
from time import perf_counter_ns

from bench_balance import NAMES, TIMES, fleet

from headgate.balance import _compiled as balance

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
    def operation():
        for _ in repeat(1, TIMES):
            balancer.get_server()

    return operation


def pick(balancer):
    def operation():
        for _ in repeat(1, TIMES):
            balancer.pick().done()

    return operation


def clock(operation):
    start = perf_counter_ns()
    operation()
    return perf_counter_ns() - start


def in_calls(operation):
    """The cost of an operation in calls, and of a call in ns."""
    rounds = [(clock(loop), clock(calls), clock(operation)) for _ in range(ROUNDS)]
    empty, call, elapsed = (median(times) for times in zip(*rounds, strict=True))
    return f"{(elapsed - empty) / (call - empty):.2f} of {(call - empty) / TIMES:.1f}"


def main():
    print(f"CPython {sys.version.split()[0]}; costs in calls of operator.index(1), and the ns of such a call")
    print(f"an empty method: {in_calls(method)}")
    for name in NAMES:
        operations = [make(fleet(balance, name, size)) for make in (get_server, pick) for size in SIZES]
        print(f"{name}: {', '.join(map(in_calls, operations))}")
    print(f"each: get_server, then pick and done, of {' and '.join(map(str, SIZES))} servers")


if __name__ == "__main__":
    main()
