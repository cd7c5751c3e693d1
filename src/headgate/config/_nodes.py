"""The tree of a document before it is checked: values that know where they were written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from headgate.config._errors import ConfigError, Mark, Path, Problem, masked, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_DEPTH = 32
MOST_NODES = 200_000
"""The most values of a document, with what its aliases repeat."""
NOTHING_HINT = "write {} for one that has nothing"
_LONGEST_SHOWN = 60
_LONGEST_NUMBER = 40
_EXACT = 2**53


class Node:
    """A value of a document: a scalar, a list of nodes, or a dict of nodes.

    `mark` is where it begins and `key_mark` where its key does; `shown` is how a scalar was written, before
    anything was substituted in it, and `substituted` whether that has happened.
    """

    __slots__ = ("key_mark", "mark", "shown", "substituted", "value")

    def __init__(self, value: Any, mark: Mark | None = None, key_mark: Mark | None = None,
                 shown: str | None = None, substituted: bool = False) -> None:
        self.value = value
        self.mark = mark
        self.key_mark = key_mark or mark
        self.shown = _written(value) if shown is None else shown
        self.substituted = substituted

    def with_key(self, mark: Mark | None) -> Node:
        """The same value under another key."""
        return Node(self.value, self.mark, mark, self.shown, self.substituted)

    def at(self, path: Path) -> Node:
        """The node at a place below this one, or the last one on the way."""
        node = self
        for part in path:
            inner = node.value
            parts = dict(enumerate(inner)) if isinstance(inner, list) else inner
            if not isinstance(parts, dict) or part not in parts:
                break
            node = parts[part]
        return node

    @property
    def kind(self) -> str:
        """What it is, as messages say it."""
        if isinstance(self.value, dict):
            return "a mapping"
        return "a list" if isinstance(self.value, list) else shortened(masked(self.shown))


def plain(node: Node) -> Any:
    """The value as it was written, for those who look at it: without substitutions and passwords.

    >>> plain(Node({"url": Node("redis://:secret@10.0.0.1")}))
    {'url': 'redis://:***@10.0.0.1'}
    >>> plain(Node({"http://ann:secret@10.0.0.1": Node(2)}))
    {'http://ann:***@10.0.0.1': 2}
    """
    if isinstance(node.value, dict):
        return {masked(name): plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    if isinstance(node.value, str):
        return masked(json.loads(node.shown))
    if isinstance(node.value, float) and node.value.is_integer() and abs(node.value) < _EXACT:
        return int(node.value)
    return node.value


def tree_of_values(node: Node) -> Any:
    """The value with all its references substituted, as dicts, lists and scalars of Python.

    >>> tree_of_values(Node({"a": Node([Node(1), Node(None)])}))
    {'a': [1, None]}
    """
    if isinstance(node.value, dict):
        return {name: tree_of_values(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [tree_of_values(child) for child in node.value]
    return node.value


def shortened(text: str) -> str:
    """The text, or its beginning."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 4]}..."


def _written(value: Any) -> str:
    return "" if isinstance(value, (dict, list)) else json.dumps(value, ensure_ascii=False)


def refused(path: Path, message: str, hint: str = "", mark: Mark | None = None) -> ConfigError:
    """The error of a document that cannot be read any further."""
    return ConfigError([Problem(place_of(path), message, hint, mark)])


def checked_text(text: str, path: Path, mark: Mark | None) -> str:
    """The text, if it is one of Unicode. Raises ConfigError if it has surrogates, which no UTF-8 has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refused(path, "expected a text of Unicode, got one with a lone surrogate", "", mark) from None
    return text


def number_of(text: str) -> float:
    """The number that decimal digits say: an int if there is neither a point nor an exponent, and it is not
    too long.
    """
    return int(text) if len(text) <= _LONGEST_NUMBER and text.lstrip("-+").isdecimal() else float(text)


def given_twice(path: Path, first: Node, mark: Mark | None) -> Problem:
    """The problem of a key that a mapping has already."""
    hint = f"first on line {first.key_mark.line}" if first.key_mark else ""
    return Problem(place_of(path), "given twice", hint, mark)


class Bounds:
    """Counts the values of a document, and refuses too many or too deep ones."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def add(self, path: Path, mark: Mark | None, count: int = 1, height: int = 0) -> None:
        """Count values at a place, of which the deepest is `height` below it."""
        self._count += count
        if self._count > MOST_NODES:
            raise refused(path, f"expected at most {MOST_NODES:,} values", "with what aliases repeat", mark)
        if len(path) + height > MOST_DEPTH:
            raise refused(path[:MOST_DEPTH], f"expected at most {MOST_DEPTH} levels of nesting", "", mark)


def node_of(value: Any) -> Node:
    """The tree of a mapping of Python."""
    return _node_of(value, (), Bounds())


def _node_of(value: Any, path: Path, bounds: Bounds) -> Node:
    bounds.add(path, None)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise refused(path, f"expected keys of type str, got one of the type {type(key).__name__}")
            checked_text(key, path, None)
        return Node({str(key): _node_of(child, (*path, key), bounds) for key, child in value.items()})
    if isinstance(value, (list, tuple)):
        return Node([_node_of(child, (*path, at), bounds) for at, child in enumerate(value)])
    return Node(_scalar_of(value, path))


def _scalar_of(value: Any, path: Path) -> Any:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return checked_text(str(value), path, None)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and abs(value) < 10**_LONGEST_NUMBER:
        return int(value)
    raise refused(path, "expected a text, a number, true, false, null, a list or a mapping,"
                        f" got an object of the type {type(value).__name__}")


def merged(base: Node, overlay: Node) -> Node:
    """`overlay` on `base`: mappings are merged, null removes, and anything else replaces."""
    if not (isinstance(base.value, dict) and isinstance(overlay.value, dict)):
        return overlay
    found = dict(base.value)
    for name, child in overlay.value.items():
        if child.value is None:
            found.pop(name, None)
        elif name in found:
            found[name] = merged(found[name], child)
        else:
            found[name] = _without_nulls(child)
    return Node(found, base.mark, overlay.key_mark or base.key_mark)


def _without_nulls(node: Node) -> Node:
    """What an overlay adds, in which null removes nothing."""
    if not isinstance(node.value, dict):
        return node
    kept = {name: _without_nulls(child) for name, child in node.value.items() if child.value is not None}
    return Node(kept, node.mark, node.key_mark)
