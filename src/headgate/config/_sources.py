"""What `read` accepts as a source: a text, a file, or a mapping."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from headgate.config._errors import Mark, Problem
from headgate.config._json import parse_json
from headgate.config._nodes import NOTHING_HINT, Node, checked_text, node_of, refused
from headgate.config._yaml import parse_yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any]"

MOST_BYTES = 4 * 2**20
_LONGEST_NAME = 4096
_TEXT_HINT = "a str is the text itself, so give a pathlib.Path for a file"
_IS_JSON = re.compile(r'\s*\{\s*["}]')
_FILE = re.compile(r"[^\n{}\[\]]*(?:[/\\][^\n{}\[\]]*|\.(?:ya?ml|json|conf|cfg|toml))")


def tree_of(source: Source, problems: list[Problem]) -> Node:
    """The tree of a source; what is wrong with keys and tags is added to `problems`. Raises what `read`
    raises.
    """
    if isinstance(source, str):
        return _mapping(_of_text(source.removeprefix("\ufeff"), problems), source)
    if isinstance(source, os.PathLike):
        return _mapping(_of_file(os.fspath(source), problems))
    if isinstance(source, Mapping):
        return node_of(source)
    kind = type(source).__name__
    raise TypeError(f"source must be a text, a path or a mapping, got an object of the type {kind}")


def _of_text(text: str, problems: list[Problem]) -> Node:
    if len(text) <= _LONGEST_NAME and _FILE.fullmatch(text.strip()) and ": " not in text:
        raise refused((), "expected a document, got what looks like the name of a file", _TEXT_HINT)
    if len(text) > MOST_BYTES:
        raise _too_long(None)
    checked_text(text, (), None)
    return (parse_json if _IS_JSON.match(text) else parse_yaml)(text, None, problems)


def _of_file(name: str, problems: list[Problem]) -> Node:
    """JSON if the name ends in ``.json`` or the text begins as JSON does, else YAML."""
    with open(name, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _too_long(name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise refused((), "expected UTF-8", "save it as that", Mark(name, line, column)) from None
    if not text.strip():
        raise refused((), "expected a document, got an empty file", NOTHING_HINT, Mark(name, 1, 1))
    is_json = name.endswith(".json") or (not name.endswith((".yaml", ".yml")) and _IS_JSON.match(text))
    return (parse_json if is_json else parse_yaml)(text, name, problems)


def _too_long(name: str | None) -> Exception:
    return refused((), f"expected at most {MOST_BYTES:,} bytes", "", Mark(name, 1, 1))


def _mapping(node: Node, text: str = "") -> Node:
    if not isinstance(node.value, dict):
        hint = _TEXT_HINT if isinstance(node.value, str) and text and "\n" not in text.strip() else ""
        raise refused((), f"expected a mapping of sections, got {node.kind}", hint, node.mark)
    return node
