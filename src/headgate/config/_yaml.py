"""YAML with the scalars of the core schema of YAML 1.2, with the places of its values; keys must be unique.

The tree is made of the events of PyYAML's parser, of libyaml where it is there, so that nesting and what
aliases repeat are bounded before anything is built.
"""

from __future__ import annotations

import re
from importlib import import_module

from headgate.config._errors import ConfigError, Mark, Path, Problem, place_of
from headgate.config._nodes import NOTHING_HINT, Bounds, Node, checked_text, given_twice, number_of, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0(?:o[0-7]{1,40}|x[0-9a-fA-F]{1,40})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_TAG = "tag:yaml.org,2002:"


def parse_yaml(text: str, source: str | None, problems: list[Problem]) -> Node:
    """The tree of a text; keys that it gives twice, merge keys and unknown tags are added to `problems`.
    Raises ConfigError if it is not YAML, ImportError if there is no PyYAML.
    """
    try:
        yaml = import_module("yaml")
    except ImportError as error:
        raise ImportError("YAML needs PyYAML: pip install 'headgate[yaml]'") from error
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Reader(loader(text), source, problems).document()
    except yaml.YAMLError as error:
        raise _syntax_error(error, source, text) from None


def core_scalar(text: str) -> Any:
    """What a plain scalar says in the core schema of YAML 1.2.

    >>> [core_scalar(text) for text in ("no", "12:30", "2001-01-01", "0o17", "1e3", "~", "true")]
    ['no', '12:30', '2001-01-01', 15, 1000.0, None, True]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
        return number_of(text)
    return int(text, 0) if _RADIX.fullmatch(text) else text


def _syntax_error(error: Any, source: str | None, text: str) -> ConfigError:
    at = getattr(error, "problem_mark", None)
    if at is None:
        return _wrong_character(error, source, text)
    mark = Mark(source, at.line + 1, at.column + 1)
    if text[at.index : at.index + 1] == "\t":
        return refused((), "not YAML: a tab", "indent with spaces", mark)
    if text[at.index - 1 : at.index + 1] == "${":
        return refused((), "not YAML: a variable between braces", 'write "${NAME}" in quotes', mark)
    return refused((), f"not YAML: {error.problem}", _context(error), mark)


def _context(error: Any) -> str:
    """What was being read, and on which line it begins."""
    if not error.context or error.context_mark is None:
        return error.context or ""
    return f"{error.context} from line {error.context_mark.line + 1} on"


def _wrong_character(error: Any, source: str | None, text: str) -> ConfigError:
    """The reader of libyaml counts bytes, that of Python characters."""
    at = text.find(chr(error.character))
    mark = Mark(source, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
    return refused((), f"not YAML: the character U+{error.character:04X}", "", mark)


class _Anchored:
    """A node that aliases may repeat: how many values it has, and how deep."""

    __slots__ = ("count", "height", "node")

    def __init__(self) -> None:
        self.node: Node | None = None
        self.count = self.height = 0


class _Reader:
    __slots__ = ("_anchors", "_bounds", "_loader", "_problems", "_source")

    def __init__(self, loader: Any, source: str | None, problems: list[Problem]) -> None:
        self._problems = problems
        self._loader = loader
        self._source = source
        self._bounds = Bounds()
        self._anchors: dict[str, _Anchored] = {}

    def document(self) -> Node:
        self._loader.get_event()  # the start of the stream
        start = self._next()
        if start[0] == "StreamEnd":
            mark = Mark(self._source, 1, 1)
            if self._source is not None:
                raise refused((), "expected a document, got only comments", NOTHING_HINT, mark)
            return Node({}, mark)
        node, _, _ = self._value(self._next(), (), None)
        self._next()  # the end of the document
        kind, event = self._next()
        if kind != "StreamEnd":
            raise refused((), "expected one document", "got another one", self._mark(event))
        return node

    def _next(self) -> tuple[str, Any]:
        event = self._loader.get_event()
        return type(event).__name__.removesuffix("Event"), event

    def _mark(self, event: Any) -> Mark:
        at = event.start_mark
        return Mark(self._source, at.line + 1, at.column + 1)

    def _value(self, found: tuple[str, Any], path: Path, key_mark: Mark | None) -> tuple[Node, int, int]:
        """A node, the number of its values, and the levels below it."""
        kind, event = found
        mark = self._mark(event)
        if kind == "Alias":
            return self._repeated(event.anchor, path, mark, key_mark)
        self._bounds.add(path, mark)
        anchored = _Anchored()
        if event.anchor is not None:
            self._anchors[event.anchor] = anchored
        if kind == "Scalar":
            node, count, height = self._scalar(event, path, mark, key_mark), 1, 0
        elif kind == "MappingStart":
            self._check_tag(event.tag, "map", path, mark)
            node, count, height = self._mapping(path, mark, key_mark)
        else:
            self._check_tag(event.tag, "seq", path, mark)
            node, count, height = self._sequence(path, mark, key_mark)
        anchored.node, anchored.count, anchored.height = node, count, height
        return node, count, height

    def _report(self, path: Path, message: str, hint: str, mark: Mark) -> None:
        self._problems.append(Problem(place_of(path), message, hint, mark))

    def _check_tag(self, tag: str | None, own: str, path: Path, mark: Mark) -> None:
        if tag not in (None, "!", f"{_TAG}{own}"):
            self._report(path, f"unknown tag {tag!r}", "documents need none", mark)

    def _repeated(self, name: str, path: Path, mark: Mark, key_mark: Mark | None) -> tuple[Node, int, int]:
        found = self._anchors.get(name)
        if found is None or found.node is None:
            wrong = "unknown alias" if found is None else "alias of a value that it is part of:"
            raise refused(path, f"{wrong} *{name}", "", mark)
        self._bounds.add(path, mark, found.count, found.height)
        return found.node.with_key(key_mark), found.count, found.height

    def _mapping(self, path: Path, mark: Mark, key_mark: Mark | None) -> tuple[Node, int, int]:
        members: dict[str, Node] = {}
        count, height = 1, 0
        while (found := self._next())[0] != "MappingEnd":
            at = self._mark(found[1])
            key = self._key(found, path, at)
            value, more, below = self._value(self._next(), (*path, key), at)
            if self._is_merge(found[1]):
                hint = "overlays merge mappings, and an alias repeats a whole one"
                self._report((*path, key), "YAML 1.2 has no merge keys", hint, at)
            elif key in members:
                self._problems.append(given_twice((*path, key), members[key], at))
            else:
                members[key] = value
            count, height = count + more, max(height, below + 1)
        return Node(members, mark, key_mark), count, height

    def _key(self, found: tuple[str, Any], path: Path, mark: Mark) -> str:
        kind, event = found
        if kind != "Scalar":
            raise refused(path, "expected a text as key, got a list, a mapping or an alias", "", mark)
        return checked_text(event.value, path, mark)

    def _is_merge(self, event: Any) -> bool:
        return bool(event.value == "<<" and event.implicit[0])

    def _sequence(self, path: Path, mark: Mark, key_mark: Mark | None) -> tuple[Node, int, int]:
        elements: list[Node] = []
        count, height = 1, 0
        while (found := self._next())[0] != "SequenceEnd":
            node, more, below = self._value(found, (*path, len(elements)), None)
            elements.append(node)
            count, height = count + more, max(height, below + 1)
        return Node(elements, mark, key_mark), count, height

    def _scalar(self, event: Any, path: Path, mark: Mark, key_mark: Mark | None) -> Node:
        text = checked_text(event.value, path, mark)
        self._check_tag(event.tag, "str", path, mark)
        if event.style or event.tag in ("!", f"{_TAG}str"):
            return Node(text, mark, key_mark)
        value = core_scalar(text)
        shown = None if isinstance(value, str) else text or "null"
        return Node(value, mark, key_mark, shown)
