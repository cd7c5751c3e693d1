"""Every test that takes `twin` runs on both twins, or on those that HEADGATE_PURE allows."""

import os
from importlib import import_module
from importlib.util import find_spec

import pytest


class Twin:
    """One twin; its rooms are imported when asked for: ``twin.cache.LRUCache``."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, room):
        return import_module(f"headgate._{self.name}.{room}")


def twin_names():
    wish = os.environ.get("HEADGATE_PURE")
    if wish == "1":
        return ["pure"]
    if wish == "0" or find_spec("headgate._compiled.hashing"):
        return ["compiled", "pure"]
    return ["pure"]


@pytest.fixture(params=twin_names())
def twin(request):
    return Twin(request.param)


@pytest.fixture
def both_twins():
    """The compiled and the pure twin, for tests that compare them."""
    if "compiled" not in twin_names():
        pytest.skip("the compiled twin is ignored or absent: there is nothing to compare")
    return Twin("compiled"), Twin("pure")


class FakeClock:
    """A clock in integer nanoseconds that moves only when told to."""

    def __init__(self, now=1_000_000_000):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock():
    return FakeClock()
