"""cachetools' own tests, from its source distribution, on our drop-in; and both on the same calls."""

import os
import re
import subprocess
import sys
import tarfile
from importlib import import_module
from pathlib import Path
from random import Random
from threading import Condition, Lock

import pytest

import headgate.cachetools as ours

WANTED = "cachetools>=8,<9"
DOWNLOAD = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-binary", "cachetools",
            "--no-deps", "--no-build-isolation", "--retries", "1", "--timeout", "10", WANTED]
RUN = """
import sys, unittest
import headgate.cachetools, headgate.cachetools.func, headgate.cachetools.keys
for name in "", ".func", ".keys":
    sys.modules["cachetools" + name] = sys.modules["headgate.cachetools" + name]
sys.path.insert(0, sys.argv[1])
unittest.main(module=None, argv=["unittest", "discover", "-s", sys.argv[1] + "/tests", "-t", sys.argv[1]])
"""


def download(where):
    alien = {"HEADGATE_PURE", "LD_PRELOAD", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in alien}
    done = subprocess.run([sys.executable, *DOWNLOAD, "-d", where], env=environment, capture_output=True,
                          text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"pip cannot download {WANTED}: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The source distribution, unpacked: from the folder HEADGATE_CACHETOOLS, or else from the index."""
    where = tmp_path_factory.mktemp("cachetools")
    given = os.environ.get("HEADGATE_CACHETOOLS")
    if not given:
        download(where)
    (archive,) = Path(given or where).glob("cachetools-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(where / "unpacked", filter="data")
    return next((where / "unpacked").iterdir())


@pytest.fixture
def theirs(source, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "cachetools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(source / "src")
    yield import_module("cachetools")
    for name in [name for name in sys.modules if name.split(".")[0] == "cachetools"]:
        del sys.modules[name]


def test_their_tests_pass(twin, source):
    environment = os.environ | {"HEADGATE_PURE": "1" if twin.name == "pure" else "0"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", RUN, source], env=environment,
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"Ran (\d+) tests", done.stderr)[1]) > 400


class Clock:
    now = 0

    def __call__(self):
        return self.now


def pair(theirs, name, hooked, **options):
    """A cache of theirs and of ours, their clocks, and what their hooks have seen."""
    for module in theirs, ours:
        clock, seen = Clock(), []
        time = {"TTLCache": {"ttl": 7, "timer": clock},
                "TLRUCache": {"ttu": lambda key, value, now: now + value % 9, "timer": clock},
                "RRCache": {"choice": min}}.get(name, {})
        kind = getattr(module, name)
        yield (hook(kind, seen) if hooked else kind)(10, **time, **options), clock, seen


def hook(kind, seen):
    class Hooked(kind):
        def popitem(self):
            pair = super().popitem()
            seen.append(("popitem", pair))
            return pair

        def __delitem__(self, key):
            seen.append(("delete", key))
            super().__delitem__(key)

        def __setitem__(self, key, value):
            seen.append(("set", key))
            super().__setitem__(key, value)

        def __missing__(self, key):
            seen.append(("missing", key))
            return -1

    return Hooked


def outcome(call, *args):
    try:
        return call(*args)
    except (KeyError, ValueError) as error:
        return type(error), error.args[:1] if isinstance(error, KeyError) else "too large"


CALLS = {
    "get": lambda cache, key, value: cache.get(key),
    "[]": lambda cache, key, value: cache[key],
    "in": lambda cache, key, value: key in cache,
    "set": lambda cache, key, value: cache.__setitem__(key, value),
    "again": lambda cache, key, value: cache.__setitem__(key, value),
    "delete": lambda cache, key, value: cache.__delitem__(key),
    "pop": lambda cache, key, value: cache.pop(key),
    "popped": lambda cache, key, value: cache.pop(key, None),
    "default": lambda cache, key, value: cache.setdefault(key, value),
    "popitem": lambda cache, key, value: cache.popitem() if value == 0 else None,
    "clear": lambda cache, key, value: cache.clear() if value == key == 0 else None,
}


@pytest.mark.parametrize("options", [{}, {"getsizeof": lambda value: value / 4}], ids=["entries", "weights"])
@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
@pytest.mark.parametrize("name", ["FIFOCache", "LFUCache", "LRUCache", "RRCache", "TTLCache", "TLRUCache"])
def test_they_agree_on_random_calls(theirs, name, hooked, options):
    draw = Random(f"{name} {hooked}")
    (other, their_clock, they_saw), (own, clock, we_saw) = pair(theirs, name, hooked, **options)
    for _ in range(4000):
        their_clock.now = clock.now = clock.now + (draw.random() < 0.3)
        call, key, value = draw.choice(list(CALLS)), draw.randrange(20), draw.randrange(12)
        assert outcome(CALLS[call], own, key, value) == outcome(CALLS[call], other, key, value), call
        assert (own.currsize, len(own), set(own)) == (other.currsize, len(other), set(other)), call
        assert own.maxsize == other.maxsize == 10
    assert we_saw == they_saw
    drained = [[cache.popitem() for _ in range(len(cache))] for cache in (own, other)]
    assert drained[0] == drained[1]


@pytest.mark.parametrize("makers", [{}, {"lock": Lock}, {"condition": Condition}], ids=str)
def test_decorators_agree(theirs, makers):
    functions = []
    for module in theirs, ours:
        arguments = {name: make() for name, make in makers.items()}
        decorate = module.cached(module.LRUCache(5), info=True, **arguments)
        functions.append(decorate(lambda *args, **kwargs: [args]))
    draw = Random(1)
    for _ in range(2000):
        args = [draw.randrange(3) for _ in range(draw.randrange(3))]
        kwargs = {name: draw.randrange(2) for name in draw.sample("ab", draw.randrange(3))}
        results = [function(*args, **kwargs) for function in functions]
        assert results[0] == results[1]
        assert functions[0].cache_info() == functions[1].cache_info()
