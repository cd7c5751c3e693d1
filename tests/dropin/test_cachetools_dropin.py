"""headgate.cachetools: what its subclasses see, what its classes hide, where it is the better one."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from threading import Condition

import pytest
from watchdog import in_threads, until

from headgate import backend
from headgate.cachetools import (
    Cache,
    FIFOCache,
    LFUCache,
    LRUCache,
    RRCache,
    TLRUCache,
    TTLCache,
    cached,
    cachedmethod,
    func,
    keys,
)


class MinuteTTLCache(TTLCache):
    def __init__(self, maxsize, **options):
        super().__init__(maxsize, ttl=60, **options)


def in_a_minute(key, value, now):
    return now + 60


class MinuteTLRUCache(TLRUCache):
    def __init__(self, maxsize, **options):
        super().__init__(maxsize, in_a_minute, **options)


KINDS = [Cache, FIFOCache, LFUCache, LRUCache, RRCache, MinuteTTLCache, MinuteTLRUCache]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def test_every_kind_is_a_cache(kind):
    cache = kind(2)
    assert isinstance(cache, Cache) and cache.maxsize == 2
    with pytest.raises(KeyError, match=r"^'\w+ is empty'$"):
        cache.popitem()
    with pytest.raises(KeyError, match=r"^'x'$"):
        cache["x"]
    with pytest.raises(ValueError, match="maxsize must be non-negative"):
        kind(-1)
    with pytest.raises(ValueError, match="value too large"):
        kind(0)["a"] = 1
    with pytest.raises(TypeError, match="unhashable"):
        cache[[]] = 1


def test_sizes_may_be_fractions_and_the_bound_infinite(kind):
    cache = kind(1.5, getsizeof=lambda value: value)
    cache.update(a=0.5, b=0.75, c=0.25)
    assert cache.currsize == 1.5 and len(cache) == 3
    cache["b"] = 1.0
    assert cache.currsize <= 1.5 and cache["b"] == 1.0
    with pytest.raises(ValueError, match="value size must be non-negative"):
        cache["d"] = -1
    endless = kind(float("inf"))
    endless.update(dict.fromkeys(range(1000)))
    assert len(endless) == endless.currsize == 1000


def test_a_subclass_that_counts_and_stores_what_it_likes(kind):
    class Counting(kind):
        def __init__(self, maxsize):
            super().__init__(maxsize)
            self.hits = self.misses = self.evictions = 0
            self.lock = self.stats = self.put = None

        def __getitem__(self, key):
            self.hits += 1
            return super().__getitem__(key)

        def __missing__(self, key):
            self.hits -= 1
            self.misses += 1
            raise KeyError(key)

    cache = Counting(2)
    cache["a"] = 1
    assert cache["a"] == cache.get("a") == 1
    assert cache.get("b") is None
    with pytest.raises(KeyError):
        cache["b"]
    assert (cache.hits, cache.misses, cache.evictions, cache.put) == (2, 1, 0, None)
    twin = copy.copy(cache)
    assert twin == cache and twin.hits == cache.hits and type(twin) is Counting


def test_what_the_original_has_not_is_hidden(kind):
    for name in ("hits", "misses", "evictions", "peek", "put", "stats", "resize", "on_evict"):
        assert not hasattr(kind(2), name)


def test_eviction_goes_through_popitem_and_delete(kind):
    seen = []

    class Recorded(kind):
        def popitem(self):
            seen.append("popitem")
            return super().popitem()

        def __delitem__(self, key):
            seen.append(key)
            super().__delitem__(key)

    cache = Recorded(1)
    cache["a"], cache["b"] = 1, 2
    assert seen == ["popitem", "a"] and list(cache) == ["b"]


def test_a_class_whose_ancestor_has_hooks(kind):
    class Default(kind):
        def __missing__(self, key):
            return key * 2

    class Again(Default):
        pass

    class Plain(kind):
        pass

    assert Again(2)["a"] == "aa" and Again(2).get("a") is None
    with pytest.raises(KeyError):
        Plain(2)["a"]


def test_copies_and_pickles_keep_order_and_sizes(kind):
    cache = kind(6, getsizeof=abs)
    cache.update({1: 1, 2: 2, 3: 3})
    cache[1]
    for duplicate in copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache)):
        duplicate[4] = 2
        assert duplicate.currsize <= 6 and 4 in duplicate
        assert cache.currsize == 6 and 4 not in cache


class CopiedTimer:
    """A timer with its own way of being copied."""

    def __init__(self, now=0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds

    def __deepcopy__(self, memo):
        return CopiedTimer(self.now)


@pytest.mark.parametrize("make", [
    lambda timer: TTLCache(2, 1, timer), lambda timer: TLRUCache(2, lambda key, value, now: now + 1, timer),
])
def test_a_deep_copy_has_a_timer_of_its_own(make):
    cache = make(CopiedTimer())
    cache["a"] = 1
    duplicate = copy.deepcopy(cache)
    duplicate.timer.advance(5)
    assert list(duplicate) == [] and list(cache) == ["a"]


def test_cycles_through_a_cache_are_collected(kind):
    class Thing:
        pass

    thing, cache = Thing(), kind(2)
    thing.cache, cache["thing"] = cache, thing
    ghost = weakref.ref(thing)
    del thing, cache
    gc.collect()
    assert ghost() is None


def test_a_hit_is_the_engines_own():
    if backend == "compiled":
        assert not hasattr(LRUCache.__getitem__, "__code__")


def test_keys():
    assert keys.hashkey(1, 2) == (1, 2)
    assert keys.hashkey(b=1, a=2) == keys.hashkey(a=2, b=1) != keys.hashkey("a", 2, "b", 1)
    assert keys.methodkey(object(), 1) == keys.hashkey(1)
    assert keys.typedkey(1) != keys.typedkey(1.0)
    assert keys.typedmethodkey(object(), 1) == keys.typedkey(1)


@pytest.mark.parametrize("decorate", [func.fifo_cache, func.lfu_cache, func.lru_cache, func.rr_cache,
                                      func.ttl_cache], ids=lambda decorate: decorate.__name__)
def test_functions_load_once_and_may_come_back(decorate):
    calls = []

    @decorate(maxsize=10)
    def load(x):
        calls.append(x)
        until(lambda: load.cache_info().misses == 20)
        return [x]

    results = in_threads(load, 20, 1)
    assert calls == [1] and all(result is results[0] for result in results)

    @decorate
    def again(x):
        calls.append(x)
        return again(x) if len(calls) < 5 else x

    assert in_threads(again, 1, 2) == [2] and calls == [1, 2, 2, 2, 2]


def test_a_condition_lets_one_call_run():
    calls = []

    @cached(LRUCache(10), condition=Condition(), info=True)
    def load(x):
        calls.append(x)
        return [x]

    results = in_threads(load, 20, 1)
    assert calls == [1] and all(result is results[0] for result in results)


def test_methods_of_copies_are_their_own():
    class Service:
        def __init__(self):
            self.cache = LRUCache(10)

        @cachedmethod(lambda self: self.cache)
        def load(self, x):
            return [self, x]

    one = Service()
    assert one.load(1) is one.load(1)
    two = copy.deepcopy(one)
    assert two.load(1)[0] is two and two.load(1) is not one.load(1)


def test_the_package_is_imported_only_when_asked_for():
    code = "import sys, headgate; assert not any('cachetools' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
