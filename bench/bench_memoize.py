"""Memoized functions: both twins and the peers, with 1,000 hot str arguments."""

from importlib import import_module

import pytest

SIZE = 1000
HOT = [f"user:{i}" for i in range(SIZE)]
CHURN = [f"session:{i}" for i in range(4 * SIZE)]


def compiled():
    return import_module("headgate.memoize._compiled").lru_cache(SIZE)


def pure():
    return import_module("headgate.memoize._pure").lru_cache(SIZE)


def functools():
    return import_module("functools").lru_cache(SIZE)


def cachebox():
    module = pytest.importorskip("cachebox")
    return module.cached(module.LRUCache(SIZE))


def cachetools():
    return pytest.importorskip("cachetools.func").lru_cache(SIZE)


@pytest.fixture(params=[compiled, pure, functools, cachebox, cachetools], ids=lambda make: make.__name__)
def memoize(request):
    return request.param()


def cached(twin, **options):
    return import_module(f"headgate.memoize.{twin}").cached(maxsize=SIZE, **options)


def single_flight():
    return cached("_compiled")


def single_flight_timed():
    return cached("_compiled", ttl=60)


def single_flight_pure():
    return cached("_pure")


@pytest.fixture(params=[single_flight, single_flight_timed, single_flight_pure, cachebox, cachetools],
                ids=lambda make: make.__name__)
def load_once(request):
    return request.param()


def test_hit_of_cached(benchmark, load_once):
    load = load_once(lambda name: name)

    def call_all(load=load, names=HOT):
        for name in names:
            load(name)

    call_all()
    benchmark(call_all)


def test_hit(benchmark, memoize):
    memoized = memoize(lambda name: name)

    def call_all(memoized=memoized, names=HOT):
        for name in names:
            memoized(name)

    call_all()
    benchmark(call_all)


def test_hit_of_two_arguments(benchmark, memoize):
    memoized = memoize(lambda name, number: name)

    def call_all(memoized=memoized, names=HOT):
        for name in names:
            memoized(name, 7)

    call_all()
    benchmark(call_all)


def test_hit_by_keyword(benchmark, memoize):
    memoized = memoize(lambda name, number: name)

    def call_all(memoized=memoized, names=HOT):
        for name in names:
            memoized(name, number=7)

    call_all()
    benchmark(call_all)


def test_hit_of_a_method(benchmark, memoize):
    class Service:
        method = memoize(lambda self, name: name)

    service = Service()

    def call_all(service=service, names=HOT):
        for name in names:
            service.method(name)

    call_all()
    benchmark(call_all)


def test_miss_that_evicts(benchmark, memoize):
    memoized = memoize(lambda name: name)

    def call_all(memoized=memoized, names=CHURN):
        for name in names:
            memoized(name)

    call_all()
    benchmark(call_all)
