"""Memoizers are garbage like all else, and nothing leaks."""

import gc
import sys
import weakref

import pytest
from growth import growth
from twins import CLASSES_ARE_COLLECTED


class Object:
    def method(self, *args, **kwargs):
        return self


def test_cycles_through_a_memoizer_are_collected(twin):
    def build():
        held = Object()
        memoized = twin.memoize.lru_cache(held.method)
        held.memoized = memoized
        memoized(held)
        memoized(1, key=held)
        memoized.memoized = memoized
        return weakref.ref(held), weakref.ref(memoized)

    seen = build()
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


@CLASSES_ARE_COLLECTED
def test_a_class_with_a_memoized_method_is_collected(twin):
    class Memoized:
        @twin.memoize.lru_cache
        def method(self):
            return self

    Memoized().method()
    seen = weakref.ref(Memoized)
    del Memoized
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("maxsize", [None, 0, 1, 3])
@pytest.mark.parametrize("typed", [False, True])
def test_references_are_returned(twin, maxsize, typed):
    argument, result, text = Object(), Object(), "".join(["a", " text"])
    before = [sys.getrefcount(item) for item in (argument, result, text)]
    memoized = twin.memoize.lru_cache(maxsize, typed)(lambda *args, **kwargs: result)
    for i in range(10):
        memoized(argument), memoized(argument, i), memoized(argument, key=argument)
        memoized(text), memoized(text, text), memoized(i)
        with pytest.raises(TypeError):
            memoized(argument, []) if maxsize != 0 else [] + 1
    memoized.cache_clear()
    assert [sys.getrefcount(item) for item in (argument, result, text)] == before


def test_errors_return_references(twin):
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            raise ZeroDivisionError

    first, second, argument = Key(), Key(), Object()
    memoized = twin.memoize.lru_cache(lambda *args: None)
    memoized(argument, first)
    before = sys.getrefcount(argument), sys.getrefcount(second)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            memoized(argument, second)
    assert (sys.getrefcount(argument), sys.getrefcount(second)) == before


def test_200_000_nested_memoizers_are_deallocated(twin, exhaustive):
    """Fewer of the pure twin, which is Python's own objects."""
    lru_cache = twin.memoize.lru_cache
    pairs = 100_000 if exhaustive or twin.name == "compiled" else 20_000
    held = None
    gc.disable()
    try:
        for _ in range(pairs):
            memoized = lru_cache(lambda x: x)
            memoized(held)
            held = lru_cache(memoized)
    finally:
        gc.enable()
    del memoized, held
    gc.collect()


WORK = """
def work(module):
    for maxsize in (None, 100):
        memoized = module.lru_cache(maxsize)(lambda *args, **kwargs: [args])
        for i in range(1000):
            memoized(i % 170)
            memoized(i, "b")
            memoized(str(i), key=i)
            if i % 500 == 0:
                memoized.cache_clear()
"""


def test_memory_does_not_grow(twin):
    assert growth(twin, "memoize", WORK) < 2_000_000
