"""The description of a document: sections of objects with fields, each written once.

Reading, errors, JSON Schema, the tables of the documentation, and what a reload may change follow from it.
"""

from __future__ import annotations

from typing import NamedTuple

from headgate.config._errors import Path
from headgate.config._nodes import Node
from headgate.config.fields._compounds import NAME, NAME_HINT, part_schema
from headgate.config.fields._kinds import FAILED, Kind, Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeAlias

    Found: TypeAlias = Iterator[tuple[str | Path, str, str]]
    Check: TypeAlias = Callable[[Mapping[str, Any]], Found]

REQUIRED: Any = object()
"""The default of a field that must be given."""


class Field(NamedTuple):
    """A field of an object.

    `default` is its value where it is absent; `only` are the kinds of objects that have it, all if empty;
    `live` is whether a reload changes it in the object that exists.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    live: bool = False
    only: tuple[str, ...] = ()

    def belongs_to(self, variant: str) -> bool:
        """Whether objects of that kind have it; all do if it is FAILED."""
        return variant is FAILED or not self.only or variant in self.only

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its value, which null makes absent."""
        found = {"description": self.help, **part_schema(self.kind.schema(), nullable=True)}
        if isinstance(self.default, (bool, int, float, str)):
            found["default"] = self.default
        return found


class Record(Kind):
    """A mapping of fields.

    `selector` is the field that says which kind of object it is, and `variant` returns that kind from what is
    given where it does not. `rest` is the kind of the values of all other fields, which are collected in one
    called `collected`. `checks` yield (field or place, message, hint) for what is wrong between fields.
    """

    def __init__(self, noun: str, *fields: Field, selector: str = "",
                 variant: Callable[[Mapping[str, Any]], str] | None = None, collected: str = "",
                 rest: Kind | None = None, checks: tuple[Check, ...] = ()) -> None:
        self.noun = noun
        self.text = f"a mapping of the fields of {noun}"
        self.fields = fields
        self.selector, self.variant = selector, variant
        self.collected, self.rest, self.checks = collected, rest, checks

    def field(self, name: str) -> Field:
        """The field of a name."""
        return next(field for field in self.fields if field.name == name)

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        if not isinstance(node.value, dict):
            needed = [field for field in self.fields if field.default is REQUIRED] or self.fields
            hint = f"write for example {{{needed[0].name}: ...}}"
            return reports.add(path, node, f"expected {self.text}", hint)
        before = len(reports.problems)
        variant = self._variant(node, path, reports)
        fields = {field.name: field for field in self.fields if field.belongs_to(variant)}
        found = {name: field.default for name, field in fields.items()}
        if self.selector:
            found[self.selector] = variant
        if self.rest is not None:
            found[self.collected] = {}
        for name, child in node.value.items():
            if not self.selector or name != self.selector:
                self._read_field(name, child, (*path, name), fields, found, variant, reports)
        for name, value in found.items():
            if value is REQUIRED and not (variant is FAILED and fields[name].only):
                reports.add_key(path, node, f"{name} is missing", fields[name].help)
        if len(reports.problems) > before:
            return FAILED
        for check in self.checks:
            for where, message, hint in check(found):
                below = (where,) if isinstance(where, str) else where
                reports.add((*path, *below), node.at(below), message, hint)
        return found if len(reports.problems) == before else FAILED

    def _variant(self, node: Node, path: Path, reports: Reports) -> Any:
        """Which kind of object it is."""
        given = {name: child.value for name, child in node.value.items() if child.value is not None}
        if not self.selector:
            return ""
        field = self.field(self.selector)
        if self.selector in given:
            return field.kind.read(node.value[self.selector], (*path, self.selector), reports)
        return field.default if self.variant is None else self.variant(given)

    def _read_field(self, name: str, node: Node, path: Path, fields: Mapping[str, Field],
                    found: dict[str, Any], variant: str, reports: Reports) -> None:
        if name in fields:
            if node.value is not None:
                found[name] = fields[name].kind.read(node, path, reports)
        elif self.rest is not None:
            self._collect(name, node, path, found[self.collected], reports)
        elif any(field.name == name for field in self.fields):
            owners = self.field(name).only
            reports.add_key(path, node, f"not a field of the {self.selector} {variant}",
                            f"only of {', '.join(owners)}")
        else:
            reports.unknown(path, node, list(fields))

    def _collect(self, name: str, node: Node, path: Path, found: dict[str, Any], reports: Reports) -> None:
        if not NAME.fullmatch(name):
            reports.add_key(path, node, "not a name", NAME_HINT)
        elif node.value is not None and self.rest is not None:
            found[name] = self.rest.read(node, path, reports)

    def schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "object",
            "properties": {field.name: field.schema() for field in self.fields},
            "required": [field.name for field in self.fields if field.default is REQUIRED and not field.only],
            "additionalProperties": False,
        }
        if self.rest is not None:
            found["additionalProperties"] = part_schema(self.rest.schema(), nullable=True)
        return found


class Section(NamedTuple):
    """A section of a document: a mapping of names to objects of a kind."""

    name: str
    record: Record
    help: str
