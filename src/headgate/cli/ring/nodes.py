"""Lists of nodes: plain text, JSON or YAML."""

import json
import re
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from headgate.cli.errors import CommandError, require

_YAML = (".yaml", ".yml")
_YAML_LINE = re.compile(r"^(---|-|[^\s#]\S*:)(\s|$)", re.MULTILINE)


def read_nodes(path: Path) -> dict[str, float]:
    """The nodes of a file and their weights; ``-`` is standard input.

    ``*.yaml`` and ``*.json`` are YAML and JSON. Of other names, a file that starts like a JSON document
    is JSON, one with a line like ``- node`` or ``node: weight`` is YAML, and any other has a node per line,
    optionally followed by its weight; ``#`` starts a comment. A document is a list of names, or of mappings
    with ``node`` and ``weight``, or a mapping of names to weights.
    """
    try:
        text = sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8")
        nodes = _parse(path, text)
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot read nodes from {path}: {error}") from error
    if not nodes:
        raise CommandError(f"{path} has no nodes")
    return nodes


def split_weight(text: str) -> tuple[str, float]:
    """``node`` or ``node=weight``.

    >>> split_weight("cache-1:11211=2")
    ('cache-1:11211', 2)
    """
    name, equals, weight = text.rpartition("=")
    return (_name(name, text), _weight(weight, text)) if equals else (_name(text, "NODE"), 1)


def _parse(path: Path, text: str) -> dict[str, float]:
    if path.suffix in _YAML:
        return _document(_load_yaml(text), "$")
    if path.suffix == ".json" or text.lstrip()[:1] in ("[", "{"):
        return _document(json.loads(text, object_pairs_hook=_unique), "$")
    if _YAML_LINE.search(text):
        return _document(_load_yaml(text), "$")
    return _lines(text)


def _lines(text: str) -> dict[str, float]:
    entries: list[tuple[str, float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        match line.partition("#")[0].split():
            case []:
                continue
            case [name]:
                entries.append((name, 1))
            case [name, weight]:
                entries.append((name, _weight(weight, f"line {number}")))
            case _:
                raise ValueError(f"line {number}: expected a node and optionally its weight, got {line!r}")
    return _unique(entries)


def _document(document: Any, where: str) -> dict[str, float]:
    if isinstance(document, dict):
        return {_name(name, where): _weight(weight, f"{where}.{name}") for name, weight in document.items()}
    if isinstance(document, list):
        return _unique([_entry(entry, f"{where}[{at}]") for at, entry in enumerate(document)])
    raise ValueError(f"{where}: expected a list or a mapping of nodes, got {document!r}")


def _entry(entry: Any, where: str) -> tuple[str, float]:
    match entry:
        case {"node": name, **rest} if rest.keys() <= {"weight"}:
            return _name(name, f"{where}.node"), _weight(rest.get("weight", 1), f"{where}.weight")
        case _:
            return _name(entry, where), 1


def _name(name: Any, where: str) -> str:
    """A number is a valid name too, such as the id of a server in HAProxy."""
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: expected the name of a node, got {name!r}")
    return name


def _weight(weight: Any, where: str) -> float:
    """Whole weights are returned as int, as some schemes accept no other."""
    try:
        number = 0.0 if isinstance(weight, bool) else float(weight)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < inf:
        raise ValueError(f"{where}: expected a positive weight, got {weight!r}")
    return int(number) if number.is_integer() else number


def _unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"duplicate name {name!r}")
        found[name] = value
    return found


def _load_yaml(text: str) -> Any:
    yaml = require("yaml", "a YAML file")
    loader: Any = type("UniqueKeys", (yaml.SafeLoader,), {})
    loader.add_constructor("tag:yaml.org,2002:map", lambda made, node: _unique(made.construct_pairs(node)))
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
