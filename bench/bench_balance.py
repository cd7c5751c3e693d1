"""Balancers, compared with a C call that does nothing: ``pytest bench/bench_balance.py --benchmark-only``."""

from itertools import repeat
from operator import index

import pytest

from headgate.balance import _compiled as compiled
from headgate.balance import _pure as pure

TIMES = 1000
NAMES = ["RoundRobin", "WeightedRoundRobin", "RandomChoice", "LeastLoaded", "PowerOfTwo", "PeakEWMA"]
EACH = pytest.mark.parametrize("name", NAMES)
SIZES = pytest.mark.parametrize("servers", [10, 1000])
TWINS = pytest.mark.parametrize("twin", [compiled, pure], ids=["compiled", "pure"])


def fleet(twin, name, servers):
    return getattr(twin, name)({f"server-{i}": 1 + i % 10 for i in range(servers)})


@pytest.mark.benchmark(group="get_server, 1,000 times")
def test_call(benchmark):
    def body():
        for one in repeat(1, TIMES):
            index(one)

    benchmark(body)


@EACH
@SIZES
@TWINS
@pytest.mark.benchmark(group="get_server, 1,000 times")
def test_get_server(benchmark, twin, name, servers):
    balancer = fleet(twin, name, servers)

    def body():
        for _ in repeat(1, TIMES):
            balancer.get_server()

    benchmark(body)


@EACH
@SIZES
@TWINS
@pytest.mark.benchmark(group="pick and done, 1,000 times")
def test_pick(benchmark, twin, name, servers):
    balancer = fleet(twin, name, servers)

    def body():
        for _ in repeat(1, TIMES):
            balancer.pick().done()

    benchmark(body)
