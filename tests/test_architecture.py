"""Imports run downwards only, without a circle, and no source file is too long to read in a sitting."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/headgate"
BELOW = {  # what the modules of a package may import besides their own
    "_c": set(), "_base": {"_c", "errors"}, "errors": set(),
    "hashing": {"_c", "_base"},
    "schemes": {"hashing"},
    "placement": {"schemes", "errors"},
    "balance": {"hotkeys", "placement"},
    "cache": {"hashing"},
    "memoize": {"cache"},
    "cachetools": {"memoize"},
    "limit": {"_c", "_base", "errors"},
    "hotkeys": {"_c", "_base"},
    "slo": {"_c", "_base", "errors"},
    "headgate": {"balance", "memoize", "limit", "hotkeys", "slo"},
    "httpcache": {"cache", "errors"},
    "near": {"cache", "errors"},
    "adapters": {"headgate", "httpcache", "near"},
    "config": {"adapters"},
    "cli": {"config", "cachetools"},
    "__main__": {"cli"},
}
LONGEST = 600
IMPORT = re.compile(
    r"^( *)(?:from (headgate[\w.]*) c?import (?:\(([^)]*)\)|([^#\n]*))|c?import (headgate[\w.]*))",
    re.MULTILINE,
)


def sources(*suffixes):
    return [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in suffixes]


def module_of(path):
    """The dotted name of a source file, without the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "headgate"


def package_of(module):
    return module.partition(".")[0]


def imports(path):
    """What a source file imports of this package: modules without the package's name, and whether at once."""
    for found in IMPORT.finditer(path.read_text(encoding="utf-8")):
        indent, origin, several, single, plain = found.groups()
        inner = (origin or plain).partition(".")[2]
        names = [name.split()[0] for name in (several or single or "").split(",") if name.strip()]
        modules = {f"{inner}.{name}".strip(".") for name in names if is_module(f"{inner}.{name}".strip("."))}
        for module in modules or {inner or "headgate"}:
            yield module, not indent


def is_module(name):
    path = PACKAGE.joinpath(*name.split("."))
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxd"))


def reachable(package):
    """The packages that `package` may import, its own among them."""
    found, pending = set(), [package]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(BELOW[name])
    return found


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxi", ".pxd"), ids=module_of)
def test_imports_run_downwards(path):
    allowed = reachable(package_of(module_of(path)))
    assert {module for module, _ in imports(path) if package_of(module) not in allowed} == set()


@pytest.mark.parametrize("path", sources(".h"), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_headers_include_those_beside_them_and_of_c(path):
    beside = {header.name for folder in (path.parent, PACKAGE / "_c") for header in folder.glob("*.h")}
    assert set(re.findall(r'#include "(.+)"', path.read_text(encoding="utf-8"))) <= beside


@pytest.mark.parametrize("twin", ["_pure", "_compiled"])
def test_no_circle(twin):
    """Among the modules that are imported with a twin; the other twin's are left out."""
    other = {"_pure": ".pyx", "_compiled": "_pure.py"}[twin]
    paths = [path for path in sources(".py", ".pyx", ".pxi") if not path.name.endswith(other)]
    graph = {}
    for path in paths:
        found = {module for module, at_once in imports(path) if at_once}
        graph.setdefault(module_of(path), set()).update(found)
    tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxi", ".pxd", ".pyi", ".h"),
                         ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_can_be_read_in_a_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_modules_are_parsed():
    """The expression that finds imports finds those that Python does."""
    for path in sources(".py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = {package_of((node.module or "").partition("headgate")[2].lstrip("."))
                 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0
                 and (node.module or "").startswith("headgate.")}
        assert known <= {package_of(module) for module, _ in imports(path)}, path
