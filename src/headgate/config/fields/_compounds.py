"""Kinds of values that have parts, each of which is checked at its own place."""

from __future__ import annotations

import re
from collections import OrderedDict
from math import inf

from headgate.config._errors import Path
from headgate.config._hints import listed, meant
from headgate.config._nodes import Node
from headgate.config.fields._kinds import (
    FAILED,
    Kind,
    Number,
    Reference,
    Reports,
    Text,
    Wrong,
    canonical_rate,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_-]*")
"""The names of objects; none of them is the text of a rate, which begins with a digit or a point."""
NAME_HINT = "names are of a-z, 0-9, _ and -, and begin with a letter"


class ListOf(Kind):
    """A list of one kind; a single one stands for a list of it."""

    def __init__(self, element: Kind, text: str = "") -> None:
        self.element = element
        self.text = text or f"a list, each {element.text}"

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        if not isinstance(node.value, list):
            found = self.element.read(node, path, reports)
            return found if found is FAILED else (found,)
        parts = [self.element.read(each, (*path, at), reports) for at, each in enumerate(node.value)]
        return FAILED if any(part is FAILED for part in parts) else tuple(parts)

    def schema(self) -> dict[str, Any]:
        element = part_schema(self.element.schema())
        return {"anyOf": [element, {"type": "array", "items": element}]}


class MapOf(Kind):
    """A mapping whose values are of one kind."""

    def __init__(self, value: Kind, text: str = "") -> None:
        self.value = value
        self.text = text or f"a mapping, each {value.text}"

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        if not isinstance(node.value, dict):
            return reports.add(path, node, f"expected {self.text}")
        found = {}
        for name, child in node.value.items():
            if child.value is not None:
                found[name] = self.member(name, child, (*path, name), reports)
        return FAILED if any(value is FAILED for value in found.values()) else found

    def member(self, name: str, node: Node, path: Path, reports: Reports) -> Any:
        return self.value.read(node, path, reports)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": part_schema(self.value.schema(), nullable=True)}



class Weights(Kind):
    """Nodes or servers: a list, or a mapping of each to its weight."""

    def __init__(self, least: float = 0, most: float = inf) -> None:
        self.weight = Number(least, most)
        self.text = "a list of names, or a mapping of names to weights"

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        if isinstance(node.value, dict):
            return MapOf(self.weight).read(node, path, reports)
        if not isinstance(node.value, list):
            return reports.add(path, node, f"expected {self.text}")
        found: dict[Any, Any] = {}
        for at, each in enumerate(node.value):
            name = self._name(each, (*path, at), reports)
            if name is not FAILED and name in found:
                name = reports.add((*path, at), each, "expected each name once")
            found[name] = 1
        return FAILED if FAILED in found else found

    def _name(self, node: Node, path: Path, reports: Reports) -> Any:
        """A text; or the number that is the id of a server, as text too."""
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            return str(node.value)
        return Text("a name").read(node, path, reports)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [
            {"type": "array", "items": {"type": ["string", "integer"]}}, MapOf(self.weight).schema(),
        ]}


class Servers(Weights):
    """Servers, whose order counts, as it does for nginx's ip_hash."""

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        found = super().read(node, path, reports)
        return found if found is FAILED else OrderedDict(found)


class Limit(Kind):
    """A level: the name of a limit, or a rate."""

    text = "the name of a limit or a rate"
    reads_text = True

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        limit = super().read(node, path, reports)
        if limit is not FAILED and NAME.fullmatch(limit):
            reports.references.append(Reference(path, node, limit, ("limits",)))
        return limit

    def convert(self, value: Any) -> str:
        if isinstance(value, str) and NAME.fullmatch(value):
            return value
        if not isinstance(value, str):
            raise Wrong(f"expected {self.text}", 'write for example "10/s"')
        try:
            return canonical_rate(value)
        except Wrong as wrong:
            raise Wrong(f"expected {self.text}", wrong.hint) from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}



_WITHOUT_ARGUMENT = ("client", "method", "path", "route", "user")
_WITH_ARGUMENT = ("const", "cookie", "header")


class Extractor(Kind):
    """What of a request is the key: a function of `headgate.adapters.keys`, with its argument."""

    text = "a key such as client, user or header x-user"
    reads_text = True

    def convert(self, value: Any) -> tuple[str, str | None]:
        words = value.split(None, 1) if isinstance(value, str) else []
        function, argument = (*words, None, None)[:2]
        if function in _WITHOUT_ARGUMENT and argument is None:
            return function, None
        if function in _WITH_ARGUMENT and argument and (function == "const" or argument.isascii()):
            return function, argument.strip()
        known = [*_WITHOUT_ARGUMENT, *(f"{each} NAME" for each in _WITH_ARGUMENT)]
        close = "" if function in _WITH_ARGUMENT else meant(function or "", known)
        raise Wrong(f"expected {self.text}", close or f"known are {listed(known)}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


class Either(Kind):
    """The first of some kinds that fits the form of the value: a scalar, a list, or a mapping."""

    def __init__(self, scalar: Kind, several: Kind | None = None, mapping: Kind | None = None) -> None:
        self.scalar, self.several, self.mapping = scalar, several, mapping
        self.text = ", or ".join([kind.text for kind in self._kinds()])

    def _kinds(self) -> list[Kind]:
        return [kind for kind in (self.scalar, self.several, self.mapping) if kind is not None]

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        form: Kind | None = self.scalar
        if isinstance(node.value, (dict, list)):
            form = self.mapping if isinstance(node.value, dict) else self.several
        if form is None:
            return reports.add(path, node, f"expected {self.text}")
        return form.read(node, path, reports)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [part_schema(kind.schema()) for kind in self._kinds()]}


def part_schema(schema: dict[str, Any], nullable: bool = False) -> dict[str, Any]:
    """The schema of a part, which may be a text in which something is substituted."""
    more: list[dict[str, Any]] = [{"$ref": "#/$defs/substituted"}]
    return {"anyOf": [schema, *more, *([{"type": "null"}] if nullable else [])]}

