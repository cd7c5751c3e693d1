"""HotKeys, compared with dict.get and Counter: ``pytest bench/bench_hotkeys.py --benchmark-only``."""

from collections import Counter
from random import Random

import pytest

from headgate.hotkeys import _compiled as compiled
from headgate.hotkeys import _pure as pure

DRAW = Random(1)
KEYS = [f"user:{i * 7919}" for i in range(1000)]
STREAM = [f"user:{int(DRAW.paretovariate(0.7))}" for _ in range(10_000)]
HOT = pytest.mark.parametrize("hot", [compiled.HotKeys, pure.HotKeys], ids=["compiled", "pure"])


def each(call, keys):
    for key in keys:
        call(key)


@pytest.mark.benchmark(group="1,000 counted str keys")
def test_dict_get(benchmark):
    benchmark(each, dict.fromkeys(KEYS).get, KEYS)


@HOT
@pytest.mark.benchmark(group="1,000 counted str keys")
def test_add_watched(benchmark, hot):
    benchmark(each, hot(1000).add, KEYS)


@pytest.mark.benchmark(group="10,000 additions of a skewed stream")
def test_counter(benchmark):
    benchmark(Counter, STREAM)


@HOT
@pytest.mark.benchmark(group="10,000 additions of a skewed stream")
def test_add_skewed(benchmark, hot):
    benchmark(each, hot(100).add, STREAM)


@HOT
@pytest.mark.benchmark(group="the top 10 of 1,000")
def test_top(benchmark, hot):
    counts = hot(1000)
    each(counts.add, STREAM)
    benchmark(counts.top, 10)
