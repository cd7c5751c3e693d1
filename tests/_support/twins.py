"""The twins under test, and where their sources and the recorded data are."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from headgate.cli.twins import IDEAS, twin_module

SOURCES = Path(__file__).parents[2] / "src"
SHARED = Path(os.environ.get("HEADGATE_SHARED", Path(__file__).parents[3] / "shared"))

CLASSES_ARE_COLLECTED = pytest.mark.skipif(
    sys.version_info < (3, 14) and not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="CPython 3.13 without the GIL keeps all classes for ever once a thread was started")


def homes(module):
    """The names of the modules that make up a twin's module: its own, and any x.py beside an x.pxi."""
    package = SOURCES.joinpath(*module.__package__.split("."))
    halves = [path.relative_to(SOURCES).with_suffix("") for path in package.rglob("*.pxi")]
    return {module.__name__, *(".".join(half.parts) for half in halves)}


class Twin:
    """One twin; its modules are imported when asked for: ``twin.cache.LRUCache``."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, idea):
        if idea not in IDEAS:
            raise AttributeError(idea)
        return twin_module(self.name, idea)


def twin_names():
    wish = os.environ.get("HEADGATE_PURE")
    if wish == "1":
        return ["pure"]
    if wish == "0" or find_spec("headgate.hashing._compiled"):
        return ["compiled", "pure"]
    return ["pure"]
