"""A document that was read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

from headgate.config._errors import Mark, Path, Problem, place_of
from headgate.config._nodes import Node, plain, tree_of_values
from headgate.config._substitution import masking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeAlias

    Fields: TypeAlias = Mapping[str, Any]


_PLACE = re.compile(r"[\w-]+(?:\.[\w-]+|\[\d{1,9}\])*")


def _steps(place: str) -> list[str | int]:
    """The steps of a text such as ``routes[0].to``."""
    return [int(step) if bracket else step for bracket, step in re.findall(r"(\[)?([\w-]+)", place)]


def _part(node: Node | None) -> str:
    return "null" if node is None else json.dumps(tree_of_values(node))


class Document:
    """A checked document of configuration, which does not change.

    ``sections[section][name][field]`` is a checked value: sizes in bytes, durations in seconds, rates as the
    text that limiters take, references as names; where a field was absent, its default. ``http[field]`` is
    the same for the middlewares of an application. `extensions` are the names of the parts that are not
    ignored although they begin with ``x-``. Two documents are equal if all their values are.

    >>> from headgate.config import read
    >>> document = read('{"limits": {"api": {"rate": "10 per second"}}}')
    >>> document.sections["limits"]["api"]["rate"], document
    ('10/s', <Document: limits: api>)
    """

    __slots__ = ("_mask", "_nodes", "_parts", "files", "http", "sections")

    def __init__(self, sections: Mapping[str, Mapping[str, Fields]], http: Fields, nodes: Node,
                 secrets: set[str], files: tuple[str, ...], extensions: Iterable[str] = ()) -> None:
        self.sections: Mapping[str, Mapping[str, Fields]] = MappingProxyType({
            section: MappingProxyType({name: MappingProxyType(fields) for name, fields in objects.items()})
            for section, objects in sections.items()
        })
        self.http: Fields = MappingProxyType(dict(http))
        self.files = files
        """The names of all files that were read, those of secrets included."""
        self._nodes = nodes
        self._mask = masking(secrets)
        # As texts, which tell 1 from true and one order from another, and are read anew by each caller.
        self._parts = {name: _part(nodes.value.get(name)) for name in extensions}

    @property
    def extensions(self) -> tuple[str, ...]:
        """The names of its extensions, absent ones included."""
        return tuple(self._parts)

    def part(self, name: str) -> str:
        """The text of an extension, which tells whether it has changed; ``null`` if it is absent."""
        return self._parts.get(name, "null")

    def extension(self, name: str) -> Any:
        """The part of an extension with its references substituted: a tree of dicts, lists and scalars that
        is the caller's own; None if it is absent.

        >>> from headgate.config import read
        >>> source = {"x-edge": {"token": "${TOKEN}", "hosts": ["a"]}}
        >>> read(source, env={"TOKEN": "t"}, extensions=["x-edge"]).extension("x-edge")
        {'token': 't', 'hosts': ['a']}
        """
        return json.loads(self._parts[name])

    def mark(self, *path: str | int) -> Mark | None:
        """Where a value was written, or else what contains it; None if the document was not a text."""
        return self._nodes.at(path).mark

    def shown(self, *path: str | int) -> Any:
        """A value as it was written, without what was substituted and without passwords; None if absent."""
        parent = self._nodes.at(path[:-1])
        found = parent.at(path[-1:])
        return None if found is parent else plain(found)

    def refused(self, section: str, name: str, error: Exception) -> Problem:
        """The problem of an object that could not be made: at the field that the error begins with, if it
        does, else at the object. `name` is ignored for the section http.
        """
        path: Path = (section,) if section == "http" else (section, name)
        fields = self.http if section == "http" else self.sections[section][name]
        message = self.masked(str(error) or type(error).__name__)
        word = re.split(r"[^a-z0-9_]", message, maxsplit=1)[0]
        if word in fields:
            path = (*path, word)
        return Problem(place_of(path), message, "", self.mark(*path))

    def refused_extension(self, name: str, error: Exception) -> Problem:
        """The problem of a part that its function refuses: at the place within it that the error begins with,
        such as ``routes[0].to``, if there is one.
        """
        message = str(error) or type(error).__name__
        said = _PLACE.match(message)
        steps = _steps(said[0]) if said else []
        while steps and not self._has((name, *steps)):
            steps.pop()
        path: Path = (name, *steps)
        if said and steps == _steps(said[0]):
            message = message.removeprefix(f"{said[0]}: ")
        return Problem(place_of(path), self.masked(message), "", self.mark(*path))

    def _has(self, path: Path) -> bool:
        return self._nodes.at(path) is not self._nodes.at(path[:-1])

    def is_clear(self, error: BaseException) -> bool:
        """Whether no secret is in an error, in its attributes, or in those that it has or comes from."""
        found, seen = [error], {id(error)}
        for each in found:
            text = f"{each}\n{each!r}\n{vars(each)}"
            if self.masked(text) != text:
                return False
            inner = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            for other in (each.__cause__, each.__context__, *inner):
                if other is not None and id(other) not in seen:
                    seen.add(id(other))
                    found.append(other)
        return True

    def masked(self, text: str) -> str:
        """A text without the secrets of this document."""
        return self._mask(text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        names = {*self.extensions, *other.extensions}
        return (self.sections == other.sections and self.http == other.http
                and all(self.part(name) == other.part(name) for name in names))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{section}: {', '.join(objects)}" for section, objects in self.sections.items() if objects]
        parts += [name for name in ("http", *self._parts) if name in self._nodes.value]
        return f"<Document: {'; '.join(parts)}>" if parts else "<Document: empty>"
