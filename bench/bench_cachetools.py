"""headgate.cachetools compared with cachetools: hits, sets that evict, and decorators; 1,000 hot str keys."""

from importlib import import_module

import pytest

SIZE = 1000
HOT = [f"user:{i}" for i in range(SIZE)]
CHURN = [f"session:{i}" for i in range(4 * SIZE)]
MORE = {"TTLCache": [600], "TLRUCache": [lambda key, value, now: now + 600]}


@pytest.fixture(params=["headgate.cachetools", "cachetools"])
def module(request):
    pytest.importorskip("cachetools")
    return import_module(request.param)


@pytest.fixture(params=["Cache", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TTLCache", "TLRUCache"])
def cache(request, module):
    return getattr(module, request.param)(SIZE, *MORE.get(request.param, []))


def test_hit(benchmark, cache):
    cache.update(dict.fromkeys(HOT, 1))

    def look_up_all(cache=cache, names=HOT):
        for name in names:
            cache[name]

    benchmark(look_up_all)


def test_get(benchmark, cache):
    cache.update(dict.fromkeys(HOT, 1))

    def get_all(cache=cache, names=HOT):
        for name in names:
            cache.get(name)

    benchmark(get_all)


def test_set_that_evicts(benchmark, cache):
    def set_all(cache=cache, names=CHURN):
        for name in names:
            cache[name] = 1

    set_all()
    benchmark(set_all)


def call_all(function, names=HOT):
    for name in names:
        function(name)


def test_cached(benchmark, module):
    function = module.cached(module.LRUCache(SIZE))(lambda name: name)
    call_all(function)
    benchmark(call_all, function)


def test_cachedmethod(benchmark, module):
    class Service:
        def __init__(self):
            self.cache = module.LRUCache(SIZE)

        @module.cachedmethod(lambda self: self.cache)
        def method(self, name):
            return name

    service = Service()
    call_all(service.method)
    benchmark(call_all, service.method)


@pytest.mark.parametrize("name", ["lru_cache", "ttl_cache"])
def test_func(benchmark, module, name):
    function = getattr(import_module(f"{module.__name__}.func"), name)(SIZE)(lambda name: name)
    call_all(function)
    benchmark(call_all, function)
