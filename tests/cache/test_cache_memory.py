"""Garbage is visible to the collector, nothing leaks, and deep nesting is deallocated."""

import gc
import subprocess
import sys
import weakref

import pytest
from growth import growth
from policies import POLICIES


class Object:
    pass


def test_a_cycle_through_the_cache_is_collected(twin):
    cache = twin.cache.LRUCache(3)
    held = Object()
    held.cache = cache
    cache["key"] = held
    cache[held] = 1
    seen = weakref.ref(held), weakref.ref(cache)
    del held, cache
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


@pytest.mark.parametrize("argument", ["getsizeof", "on_evict"])
def test_a_cycle_through_a_callback_is_collected(twin, argument):
    class Owner:
        def call(self, *args):
            return 1

    owner = Owner()
    owner.cache = twin.cache.LRUCache(3, **{argument: owner.call})
    owner.cache["a"] = 1
    seen = weakref.ref(owner)
    del owner
    gc.collect()
    assert seen() is None


def test_references_are_returned(twin):
    key, value = Object(), Object()
    before = sys.getrefcount(key), sys.getrefcount(value)
    cache = twin.cache.LRUCache(2, on_evict=lambda *what: None)
    for _ in range(10):
        cache[key] = value
        cache[key] = value
        cache.get(key), cache.peek(key), cache.setdefault(key, value)
        list(cache.items()), list(cache.values()), list(cache)
        cache.pop(key)
        cache[key] = value
        cache.popitem()
        cache[key] = value
        cache.update(a=1, b=2)
        cache[key] = value
        cache.resize(0)
        cache.resize(2)
        cache[key] = value
        del cache[key]
        cache[key] = value
        cache.__copy__()
        cache.clear()
    assert (sys.getrefcount(key), sys.getrefcount(value)) == before


def test_200_000_nested_caches_are_deallocated(twin, exhaustive):
    """Fewer of the pure twin, which is Python's own objects."""
    depth = 200_000 if exhaustive or twin.name == "compiled" else 40_000
    cache = None
    gc.disable()
    try:
        for _ in range(depth):
            outer = twin.cache.LRUCache(1)
            outer[0] = cache
            cache = outer
    finally:
        gc.enable()
    del outer
    cache = None
    gc.collect()


WORK = """
def work(module):
    events = []
    cache = module.LRUCache(100, on_evict=lambda *what: events.append(what))
    for i in range(3000):
        cache[f"key {i % 170}"] = [i]
        cache.get(str(i))
        cache.setdefault(i, [i])
        cache.pop(i, None)
    cache.resize(10)
    cache.__copy__()
    repr(cache)
"""


def test_memory_does_not_grow(twin):
    assert growth(twin, "cache", WORK) < 2_000_000


LATE = """
import sys
from importlib import import_module

module = import_module(f"headgate.cache._{sys.argv[1]}")

class Late:
    names = vars(module)
    caches = [getattr(module, name)(9) for name in sys.argv[2:]]

    def __del__(self):
        for name in list(self.names):
            self.names[name] = None
        while self.caches:
            self.caches.pop()

for cache in Late.caches:
    cache["a"] = cache["b"] = 1
late = Late()
"""


def test_a_cache_may_outlive_the_modules(twin):
    """The end of a free-threaded interpreter sets the names in modules to None."""
    command = [sys.executable, "-c", LATE, twin.name, *POLICIES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
