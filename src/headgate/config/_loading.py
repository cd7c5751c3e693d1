"""Reads a document of configuration: sources, overlays, substitution, and all checks but those of objects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from headgate._base.checks import checked_iterable
from headgate.config._document import Document
from headgate.config._errors import ConfigError, Path, Problem
from headgate.config._nodes import Node, merged
from headgate.config._references import check_references
from headgate.config._sources import tree_of
from headgate.config._substitution import Substitution, masking
from headgate.config.fields import HTTP, SECTIONS, Record
from headgate.config.fields._compounds import NAME, NAME_HINT
from headgate.config.fields._kinds import FAILED, Full, Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from headgate.config._sources import Source

VERSION = 1
_IGNORED = ("x-", "$schema")


def read(source: Source, *overlays: Source, env: Mapping[str, str] | None = None,
         extensions: Iterable[str] = ()) -> Document:
    """Read and check a document, with the overlays on it, in this order.

    A source is a text, a path-like object that names a file, or a mapping. A text is JSON if it begins with
    ``{`` and a double quote or ``}``, otherwise YAML, which needs PyYAML; so is a file, unless its name says
    ``.json`` or ``.yaml``. Overlays are merged: mappings with mappings, null removes, anything else replaces.
    ``${NAME}``, ``${NAME:-default}`` and ``${file:PATH}`` are substituted in texts, from `env`, by default
    that of the process, and from files; ``$$`` is a dollar sign. What begins with ``x-`` is ignored, except
    for the `extensions`, of which the names are given; they are read, but not checked.

    Raises ConfigError, with all errors, if the document is not valid; OSError if a file cannot be read,
    ImportError without PyYAML, TypeError if a source is none of these, TypeError or ValueError if a name of
    an extension is not a str that begins with ``x-``.

    >>> base = {"caches": {"pages": {"maxsize": 10, "ttl": "15 min"}}}
    >>> read(base, {"caches": {"pages": {"ttl": 5}}}).sections["caches"]["pages"]["ttl"]
    5
    """
    names = [checked_extension(name) for name in checked_iterable("extensions", extensions)]
    written: list[Problem] = []
    tree = tree_of(source, written)
    for overlay in overlays:
        tree = merged(tree, tree_of(overlay, written))
    kept = {
        name: node for name, node in tree.value.items() if name in names or not name.startswith(_IGNORED)
    }
    substitution = Substitution(os.environ if env is None else env)
    root = substitution.resolved(Node(kept, tree.mark))
    reports, sections, http = Reports(), {}, {}
    with suppress(Full):
        _check_top(root, names, reports)
        sections = {name: _read_section(root, name, reports) for name in SECTIONS}
        http = _read_http(root, reports)
        check_references(root, sections, http, reports)
    unresolved, mask = {problem.place for problem in substitution.problems}, masking(substitution.secrets)
    problems = [
        each._replace(message=mask(each.message), hint=mask(each.hint))
        for each in reports.problems if each.place not in unresolved
    ]
    problems += written + substitution.problems
    if problems:
        raise ConfigError(problems)
    files = [os.fspath(each) for each in (source, *overlays) if isinstance(each, os.PathLike)]
    return Document(sections, http, root, substitution.secrets, (*files, *substitution.files), names)


def checked_extension(name: str) -> str:
    """The name of an extension."""
    if not isinstance(name, str):
        raise TypeError(f"extensions must have names of type str, got {name!r}")
    if not name.startswith("x-"):
        raise ValueError(f"extensions must have names that begin with x-, got {name!r}")
    return name


def _check_top(root: Node, extensions: list[str], reports: Reports) -> None:
    """Check the version, and that all sections are known."""
    known = ["version", *SECTIONS, "http", *extensions]
    for name, node in root.value.items():
        if name == "include":
            reports.add_key((name,), node, "reserved", "give overlays instead")
        elif name not in known:
            reports.unknown((name,), node, known)
    node = root.value.get("version")
    if node is None or node.value is None:
        return
    if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < 1:
        reports.add(("version",), node, "expected a whole number", f"write {VERSION}")
    elif node.value > VERSION:
        reports.add(("version",), node, f"expected at most {VERSION}",
                    "a newer headgate reads it")


def _read_section(root: Node, section: str, reports: Reports) -> dict[str, Any]:
    """The checked objects of a section; those that are wrong are reported."""
    node = root.value.get(section)
    if node is None or node.value is None:
        return {}
    path: Path = (section,)
    if not isinstance(node.value, dict):
        noun = SECTIONS[section].record.noun
        reports.add(path, node, "expected a mapping of names", f"each the name of {noun}")
        return {}
    found = {}
    for name, child in node.value.items():
        if not NAME.fullmatch(name):
            reports.add_key((*path, name), child, "not a name", NAME_HINT)
        elif child.value is not None:
            found[name] = SECTIONS[section].record.read(child, (*path, name), reports)
    return {name: fields for name, fields in found.items() if fields is not FAILED}


def _read_http(root: Node, reports: Reports) -> dict[str, Any]:
    node = root.value.get("http")
    defaults = _defaults(HTTP)
    if node is None or node.value is None:
        return defaults
    found = HTTP.read(node, ("http",), reports)
    return defaults if found is FAILED else found


def _defaults(record: Record) -> dict[str, Any]:
    return {field.name: field.default for field in record.fields}
