"""Eight threads on one memoizer: every call is counted and right."""

import random

import pytest
from threads import run_threads


@pytest.mark.parametrize("maxsize", [None, 1, 50])
def test_every_call_is_counted_and_right(twin, maxsize):
    memoized = twin.memoize.lru_cache(maxsize)(lambda *args, **kwargs: (args, kwargs))
    calls = 1500

    def work(number):
        draw = random.Random(number)
        for _ in range(calls):
            n = draw.randrange(80)
            assert memoized(n) == ((n,), {})
            assert memoized(n, "b") == ((n, "b"), {})
            assert memoized(str(n), c=n) == ((str(n),), {"c": n})

    run_threads(work)
    memoized._check()
    hits, misses, _, currsize = memoized.cache_info()
    assert hits + misses == 8 * 3 * calls
    assert currsize == (240 if maxsize is None else maxsize)


def test_clear_while_others_call(twin):
    memoized = twin.memoize.lru_cache(100)(lambda *args: args)

    def work(number):
        draw = random.Random(number)
        for i in range(1500):
            if number == 0 and i % 20 == 0:
                memoized.cache_clear()
            n = draw.randrange(300)
            assert memoized(n, n) == (n, n)

    run_threads(work)
    memoized._check()
    assert memoized.cache_info().currsize <= 100


def test_size_while_results_are_added(twin):
    memoized = twin.memoize.cached(maxsize=None)(lambda n: n)
    for n in range(20):
        memoized(n)

    def work(number):
        for n in range(20, 500):
            memoized(n)
            assert 20 < memoized.cache_info().currsize <= 500

    run_threads(work)
