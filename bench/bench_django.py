"""Django: CacheBackend beside LocMemCache."""

from importlib import import_module

import pytest

RECORD = {"id": 7, "name": "Ann", "groups": list(range(20)), "html": "x" * 1000}
VALUES = {"int": 7, "text": "x" * 1000, "dict": RECORD}
KEYS = [f"user:{i}" for i in range(1000)]


def headgate(name="headgate.adapters.django", kind="CacheBackend"):
    pytest.importorskip("django")
    return getattr(import_module(name), kind)("bench", {"OPTIONS": {"MAX_ENTRIES": 1000}})


def locmem():
    return headgate("django.core.cache.backends.locmem", "LocMemCache")


@pytest.fixture(params=[headgate, locmem], ids=lambda make: make.__name__)
def cache(request):
    made = request.param()
    made.clear()
    return made


@pytest.mark.parametrize("kind", VALUES)
def test_get(benchmark, cache, kind):
    cache.set_many(dict.fromkeys(KEYS, VALUES[kind]))

    def get_all(get=cache.get, keys=KEYS):
        for key in keys:
            get(key)

    benchmark(get_all)


@pytest.mark.parametrize("kind", VALUES)
def test_set(benchmark, cache, kind):
    def set_all(set=cache.set, keys=KEYS, value=VALUES[kind]):
        for key in keys:
            set(key, value)

    set_all()
    benchmark(set_all)


def test_set_that_evicts(benchmark, cache):
    keys = [f"page:{i}" for i in range(4000)]

    def set_all(set=cache.set, keys=keys):
        for key in keys:
            set(key, 7)

    set_all()
    benchmark(set_all)


def test_incr(benchmark, cache):
    cache.set_many(dict.fromkeys(KEYS, 7))

    def incr_all(incr=cache.incr, keys=KEYS):
        for key in keys:
            incr(key)

    benchmark(incr_all)
