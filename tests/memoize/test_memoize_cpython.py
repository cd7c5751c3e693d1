"""CPython's own tests of functools.lru_cache, from the interpreter's test package, on both twins."""

import functools
import unittest
from importlib import import_module
from types import SimpleNamespace

import pytest
from twins import twin_names

reference = pytest.importorskip("test.test_functools", reason="this Python came without its test package")


def functools_with(name):
    """functools, its lru_cache replaced by that of the twin `name`."""
    twin = import_module(f"headgate.memoize._{name}")
    return SimpleNamespace(**vars(functools) | {"lru_cache": twin.lru_cache})


if "compiled" in twin_names():
    compiled = functools_with("compiled")

    @compiled.lru_cache()
    def compiled_function(x, y):
        return 3 * x + y

    class TestCompiled(reference.TestLRU, unittest.TestCase):
        module = compiled
        cached_func = (compiled_function,)

        @module.lru_cache()
        def cached_meth(self, x, y):
            return 3 * x + y

        @staticmethod
        @module.lru_cache()
        def cached_staticmeth(x, y):
            return 3 * x + y


pure = functools_with("pure")


@pure.lru_cache()
def pure_function(x, y):
    return 3 * x + y


class TestPure(reference.TestLRU, unittest.TestCase):
    module = pure
    cached_func = (pure_function,)

    @module.lru_cache()
    def cached_meth(self, x, y):
        return 3 * x + y

    @staticmethod
    @module.lru_cache()
    def cached_staticmeth(x, y):
        return 3 * x + y
