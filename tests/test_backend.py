"""Which twin `import headgate` chooses, what HEADGATE_PURE makes of it, and what it brings along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twins import Twin

from headgate._base import backend
from headgate.cli.twins import IDEAS

LIGHT = {"__future__", "array", "bisect", "collections", "collections.abc", "contextvars", "functools",
         "itertools", "keyword", "math", "math.integer", "operator", "reprlib", "types", "weakref"}
PURE = LIGHT | {"binascii", "heapq", "mmap", "struct"}


def python(program, wish=None):
    """Run `program` in a new interpreter with HEADGATE_PURE set to `wish`."""
    environment = {name: value for name, value in os.environ.items() if name != "HEADGATE_PURE"}
    if wish is not None:
        environment["HEADGATE_PURE"] = wish
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True,
                          timeout=60)


def output(program, wish=None):
    done = python(program, wish)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def no_compiled_twin(monkeypatch):
    monkeypatch.setattr(backend, "_has_compiled", lambda: False)


@pytest.mark.parametrize("wish", [None, "", "0", "1"])
def test_import_chooses(both_twins, wish):
    compiled = wish != "1"
    program = "import headgate.hashing; print(headgate.backend, headgate.xxh64.__module__)"
    name = "compiled" if compiled else "pure"
    assert output(program, wish) == [name, f"headgate.hashing._{name}"]


@pytest.mark.parametrize("wish", [None, "", "1"])
def test_without_the_compiled_twin_the_pure_one_serves(no_compiled_twin, wish):
    assert backend._choose(wish)[0] == "pure"


def test_zero_requires_the_compiled_twin(no_compiled_twin):
    with pytest.raises(ImportError, match=r"^HEADGATE_PURE=0 requires the compiled twin, which is not "):
        backend._choose("0")


@pytest.mark.parametrize("wish", ["2", "yes", " 1", "true"])
def test_other_values_are_refused(wish):
    done = python("import headgate", wish)
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: HEADGATE_PURE must be unset, 0 or 1, got {wish!r}"


@pytest.mark.parametrize("idea", IDEAS)
def test_both_twins_are_importable_side_by_side(both_twins, idea):
    modules = [getattr(twin, idea) for twin in both_twins]
    names = [module.__name__ for module in modules]
    assert names == [f"{IDEAS[idea]}._compiled", f"{IDEAS[idea]}._pure"]


@pytest.mark.parametrize(("wish", "light"), [("0", LIGHT), ("1", PURE)])
def test_import_brings_nothing_heavy(both_twins, wish, light):
    """Of the standard library only these modules, and modules that CPython has in C; no other package."""
    program = "import sys; before = set(sys.modules); import headgate; print(*(set(sys.modules) - before))"
    brought = {name for name in output(program, wish) if name.partition(".")[0] != "headgate"}
    assert {name for name in brought if name[0] != "_" and name != "cython_runtime"} <= light
    assert brought.isdisjoint({"_hashlib", "_json", "_ssl", "_typing"})


def test_import_leaves_the_gil_as_it_was(both_twins):
    imports = "; ".join(f"import {package}._compiled" for package in IDEAS.values())
    gil = "getattr(sys, '_is_gil_enabled', bool)()"
    before, after = output(f"import sys; print({gil}); {imports}; print({gil})")
    assert before == after


WITHOUT_FILES = """
import sys
sys.modules["fcntl"] = sys.modules["mmap"] = None
import headgate, headgate.cli
print(headgate.backend)
for make, ask in (
    (lambda path: headgate.RateLimiter("2/h", max_keys=9, path=path), lambda limiter: limiter.allow("ann")),
    (lambda path: headgate.RateLimiter("2/h", strict=True, path=path), lambda limiter: limiter.allow("ann")),
    (lambda path: headgate.TokenBucket(2, 0.001, path=path), lambda limiter: limiter.consume()),
    (lambda path: headgate.ConcurrencyLimiter(2, algorithm="fixed", path=path),
     lambda limiter: limiter.acquire()),
):
    limiter = make(None)
    given = [ask(limiter) for _ in range(3)]
    assert list(map(bool, given)) == [True, True, False], limiter
    try:
        make("a-file")
    except ValueError as error:
        assert str(error) == "path must be None on a system without fcntl and mmap, got 'a-file'", error
    else:
        raise AssertionError(limiter)
"""


@pytest.mark.parametrize("wish", ["0", "1"])
def test_without_mmap_and_fcntl_limits_are_private(both_twins, wish, tmp_path, monkeypatch):
    """As in WASI and in browsers, which have neither; Windows has no fcntl."""
    monkeypatch.setenv("PYTHONPATH", str(Path(backend.__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    assert output(WITHOUT_FILES, wish) == ["compiled" if wish == "0" else "pure"]
    assert list(tmp_path.iterdir()) == []


def test_twin_fixture_covers_the_active_backend():
    from twins import twin_names

    assert backend.backend in twin_names()
    assert Twin(backend.backend).hashing
