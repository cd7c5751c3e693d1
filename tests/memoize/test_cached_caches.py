"""cached with a cache that is given: whose results are whose, and until when they are fresh."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from math import inf

import pytest
from watchdog import in_a_loop, until

from headgate.memoize._stores import AgeingStore


class Plain:
    """The least that a cache must have."""

    def __init__(self):
        self.data = {}

    def get(self, key, default):
        return self.data.get(key, default)

    def put(self, key, value):
        self.data[key] = value


class Copying(dict):
    """A cache that stores pickles, as those in files and on servers do."""

    def get(self, key, default):
        return pickle.loads(dict.__getitem__(self, key)) if key in self else default

    def __setitem__(self, key, value):
        super().__setitem__(key, pickle.dumps(value))


def lru(twin, clock):
    return twin.cache.LRUCache(100, clock=clock)


def of_another_clock(twin, clock):
    return twin.cache.LRUCache(100)


CACHES = [lru, of_another_clock, lambda *_: {}, lambda *_: Plain(), lambda *_: Copying()]


@pytest.fixture(params=CACHES, ids=["lifetimes", "another clock", "dict", "get and put", "copies"])
def cache(request, twin, clock):
    return request.param(twin, clock)


def counted(function=None):
    calls = []

    def counting(*args):
        calls.append(args)
        return function(*args) if function else [len(calls), *args]

    return counting, calls


# ---- whose results ----------------------------------------------------------------------------------


def test_two_functions_of_one_cache(twin, cache):
    f, g = twin.memoize.cached(cache)(lambda x: x), twin.memoize.cached(cache)(lambda x: -x)
    assert (f(1), g(1), f(1), g(1)) == (1, -1, 1, -1)
    assert f.cache_key(1) != g.cache_key(1)


def test_functions_that_agree_on_their_keys(twin, cache):
    """With a key function of the user's own, keys are what it makes."""
    f, g = (twin.memoize.cached(cache, key=lambda x: x)(function) for function in (lambda x: x, lambda x: -x))
    assert (f(1), g(1), f.cache_key(1)) == (1, 1, 1)
    assert cache.get(1, None) == 1


def test_a_function_clears_and_counts_its_own(twin):
    cache = twin.cache.LRUCache(10)
    f, g = twin.memoize.cached(cache)(lambda x: x), twin.memoize.cached(cache)(lambda x: -x)
    f(1), f(2), g(1)
    assert f.cache_info() == (0, 2, 10, 2) and g.cache_info() == (0, 1, 10, 1)
    f.cache_clear()
    assert f.cache_info() == (0, 0, 10, 0) and g.cache_info() == (0, 1, 10, 1)
    assert list(cache) == [g.cache_key(1)]


def test_a_method_clears_and_counts_its_own(twin):
    cache = {}

    class Service:
        @twin.memoize.cached(cache)
        def load(self, x):
            return [x]

        @twin.memoize.cached(cache, key=lambda x: x)
        def find(self, x):
            return [x]

    one, two = Service(), Service()
    one.load(1), one.load(2), two.load(1), one.find(1), two.find(1)
    assert len(cache) == 5
    assert one.load.cache_info() == (0, 2, None, 2) and two.load.cache_info() == (0, 1, None, 1)
    assert one.find.cache_info() == (0, 1, None, 1)
    one.load.cache_clear()
    assert one.load.cache_info() == (0, 0, None, 0) and two.load.cache_info() == (0, 1, None, 1)
    assert len(cache) == 3
    Service.load.cache_clear()
    assert len(cache) == 2 and two.find(1) is two.find(1)


class Iterable(Plain):
    def __iter__(self):
        return iter(self.data)


@pytest.mark.parametrize(("cache", "key", "method", "needed"), [
    (Plain, None, "cache_info", "__iter__"), (Plain, None, "cache_clear", "pop"),
    (Iterable, None, "cache_clear", "pop"), (Plain, None, "cache_invalidate", "pop"),
    (Plain, str, "cache_info", "__len__"), (Plain, str, "cache_clear", "clear"),
])
def test_a_cache_that_is_too_simple(twin, cache, key, method, needed):
    load = twin.memoize.cached(cache(), key=key)(lambda x: [x])
    first = load(1)
    assert load.cache_contains(1)
    with pytest.raises(TypeError, match=rf"^{method} needs a cache with {needed}, got <"):
        getattr(load, method)(*[1] * (method == "cache_invalidate"))
    assert load(1) is first


def module_level(x):
    return [x]


def test_a_cache_survives_pickling_with_the_names_of_its_functions(twin, monkeypatch):
    cache = twin.cache.LRUCache(10)
    load = twin.memoize.cached(cache)(module_level)
    monkeypatch.setitem(globals(), "module_level", load)
    first = load(1)
    cache.update(pickle.loads(pickle.dumps(dict(cache))))
    assert load(1) == first and load.cache_info().hits == 1
    assert copy.deepcopy(cache)[load.cache_key(1)] == first


def test_keys_say_whose_they_are(twin):
    class Service:
        load = twin.memoize.cached({})(module_level)

    load = twin.memoize.cached({})(module_level)
    assert repr(load.cache_key(1)) == f"(<cached {module_level!r}>, 1)"
    assert repr(Service().load.cache_key()) == "(<module_level of one instance>, ())"


# ---- lifetimes --------------------------------------------------------------------------------------


def test_results_expire(twin, clock, cache):
    function, calls = counted()
    load = twin.memoize.cached(cache, ttl=10, clock=clock)(function)
    first = load(1)
    clock.advance(9.999)
    assert load(1) == first and len(calls) == 1
    clock.advance(0.001)
    second = load(1)
    assert second != first
    clock.advance(9)
    assert load(1) == second and len(calls) == 2
    assert cache.get(load.cache_key(1), None) == second


def test_a_stale_result_is_returned_while_one_refresh_runs(twin, clock, cache):
    function, calls = counted()
    executor = ThreadPoolExecutor(1)
    load = twin.memoize.cached(cache, ttl=10, stale=5, clock=clock, executor=executor)(function)
    first = load(1)
    clock.advance(12)
    assert load(1) == first
    until(lambda: load(1) != first)
    assert len(calls) == 2
    clock.advance(15)
    assert load.cache_contains(1) is False
    assert load(1) == [3, 1]
    executor.shutdown()


def test_the_cache_holds_the_results_themselves(twin):
    left = []
    cache = twin.cache.LRUCache(10_000, getsizeof=sys.getsizeof, on_evict=lambda *what: left.append(what[1]))
    for options in ({"ttl": 60}, {"ttl": 60, "stale": 60}):
        load = twin.memoize.cached(cache, **options)(lambda i: bytes(1000))
        for i in range(50):
            load(i)
        assert 1 < len(cache) < 11 and cache.currsize <= 10_000
    assert {type(value) for value in (*cache.values(), *left)} == {bytes}


def test_the_cache_s_own_lifetimes_are_used(twin, clock):
    cache = twin.cache.LRUCache(10, ttl=1, clock=clock)
    load = twin.memoize.cached(cache, ttl=10, stale=5)(lambda x: [x])
    load(1)
    clock.advance(14.9)
    assert len(cache.expire()) == 0
    clock.advance(0.1)
    assert len(cache.expire()) == 1


def test_a_lifetime_without_end_is_passed_on(twin, clock):
    cache = twin.cache.LRUCache(10, ttl=1, clock=clock)
    load = twin.memoize.cached(cache, ttl=inf)(lambda x: [x])
    first = load(1)
    clock.advance(1e6)
    assert load(1) is first


@pytest.mark.parametrize("stale", [None, 5])
def test_values_put_in_by_hand_are_used(twin, clock, cache, stale):
    function, calls = counted()
    load = twin.memoize.cached(cache, ttl=10, stale=stale, clock=clock)(function)
    put = cache.put if hasattr(cache, "put") else cache.__setitem__
    put(load.cache_key(1), "warm")
    assert load(1) == load(1) == "warm" and calls == [] and load.cache_contains(1)


def test_values_put_in_by_hand_are_new(twin, clock):
    """The deadline of an earlier result does not hold for them."""
    cache = {}
    function, calls = counted()
    load = twin.memoize.cached(cache, ttl=10, clock=clock)(function)
    load(1)
    clock.advance(20)
    cache[load.cache_key(1)] = "warm"
    assert load(1) == "warm"
    clock.advance(9)
    assert load(1) == "warm" and len(calls) == 1
    clock.advance(1)
    assert load(1) == [2, 1]


class Lifetimes:
    """Results are fresh for 5 seconds and usable for 10."""

    def __init__(self, clock):
        self.clock = clock

    def deadlines(self):
        return self.clock() + 5 * 10**9, self.clock() + 10 * 10**9


@pytest.mark.parametrize("contains", [True, False])
def test_deadlines_go_with_the_entries(twin, clock, contains):
    cache = twin.cache.LRUCache(10)
    least = Plain()
    least.data = cache
    store = AgeingStore(cache if contains else least, Lifetimes(clock))
    for key in range(5000):
        store.put(key, key)
        assert len(store._deadlines) <= 2 * 10 + 65
        assert set(cache) <= set(store._deadlines)
    clock.advance(7)
    assert all(store.is_usable(key, key) and not store.is_fresh(key, key) for key in cache)


def test_a_deadline_is_that_of_one_value(clock):
    cache, one, two = {}, [1], [2]
    store = AgeingStore(cache, Lifetimes(clock))
    store.put("a", one)
    clock.advance(20)
    assert not store.is_usable("a", one) and store.peek("a", None) is None
    cache["a"] = two
    assert store.peek("a", None) is two
    assert store.pop("a", None) is two and store._deadlines == {}


@pytest.mark.parametrize("ttl", [1e10, 1e300, inf, 10**400 // 10**390])
@pytest.mark.parametrize("stale", [None, 1e10])
def test_long_lifetimes(twin, clock, ttl, stale):
    for cache in (None, {}, twin.cache.LRUCache(5)):
        for ticks in (None, clock):
            load = twin.memoize.cached(cache, ttl=ttl, stale=stale, clock=ticks)(lambda x: [x])
            first = load(1)
            clock.advance(1000)
            assert load(1) is load(1) is first


def test_lifetimes_of_coroutine_functions(twin, clock, cache):
    calls = []

    @twin.memoize.cached(cache, ttl=10, clock=clock)
    async def load(x):
        calls.append(x)
        return [len(calls)]

    async def main():
        assert await load(1) == await load(1) == [1]
        clock.advance(10)
        assert await load(1) == [2]

    in_a_loop(main())
