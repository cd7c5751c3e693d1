"""JSON by RFC 8259, with the places of its values; keys must be unique."""

from __future__ import annotations

import re
from bisect import bisect_right
from json import JSONDecodeError, decoder

from headgate.config._errors import Mark, Path, Problem
from headgate.config._nodes import Bounds, Node, checked_text, given_twice, number_of, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

_BLANK = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_SCAN: Callable[[str, int, bool], tuple[str, int]] = decoder.scanstring  # type: ignore[attr-defined]
_WORD = re.compile(r"[A-Za-z_]\w*")


def parse_json(text: str, source: str | None, problems: list[Problem]) -> Node:
    """The tree of a text; keys that it gives twice are added to `problems`. Raises ConfigError if it is not
    JSON.
    """
    return _Reader(text, source, problems).document()


class _Reader:
    __slots__ = ("_at", "_bounds", "_lines", "_problems", "_source", "_text")

    def __init__(self, text: str, source: str | None, problems: list[Problem]) -> None:
        self._problems = problems
        self._text = text
        self._source = source
        self._at = 0
        self._bounds = Bounds()
        self._lines = [0, *[found.end() for found in re.finditer("\n", text)]]

    def document(self) -> Node:
        self._skip_blanks()
        node = self._value((), None)
        if self._at < len(self._text):
            self._refuse((), "expected the end of the text")
        return node

    def _mark(self, at: int | None = None) -> Mark:
        at = self._at if at is None else at
        line = bisect_right(self._lines, at)
        return Mark(self._source, line, at - self._lines[line - 1] + 1)

    def _refuse(self, path: Path, wanted: str, hint: str = "") -> Never:
        rest = self._text[self._at : self._at + 1]
        got = f"{rest!r}" if rest else "the end"
        raise refused(path, f"{wanted}, got {got}", hint, self._mark())

    def _skip_blanks(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _is_next(self, character: str) -> bool:
        """Pass a character, with the blanks behind it, if it is the next one."""
        if not self._text.startswith(character, self._at):
            return False
        self._at += 1
        self._skip_blanks()
        return True

    def _value(self, path: Path, key_mark: Mark | None) -> Node:
        """A value and the blanks behind it."""
        mark = self._mark()
        self._bounds.add(path, mark)
        if self._is_next("{"):
            return Node(self._members(path), mark, key_mark)
        if self._is_next("["):
            return Node(self._elements(path), mark, key_mark)
        start = self._at
        value = self._scalar(path)
        shown = None if isinstance(value, str) else self._text[start : self._at]
        self._skip_blanks()
        return Node(value, mark, key_mark, shown)

    def _members(self, path: Path) -> dict[str, Node]:
        found: dict[str, Node] = {}
        if self._is_next("}"):
            return found
        while True:
            mark = self._mark()
            if not self._text.startswith('"', self._at):
                self._refuse(path, "expected a key in double quotes")
            key = self._string(path)
            self._skip_blanks()
            if key in found:
                self._problems.append(given_twice((*path, key), found[key], mark))
            if not self._is_next(":"):
                self._refuse((*path, key), "expected ':'")
            value = self._value((*path, key), mark)
            found.setdefault(key, value)
            if self._is_next("}"):
                return found
            if not self._is_next(","):
                self._refuse(path, "expected ',' or '}'")

    def _elements(self, path: Path) -> list[Node]:
        found: list[Node] = []
        if self._is_next("]"):
            return found
        while True:
            found.append(self._value((*path, len(found)), None))
            if self._is_next("]"):
                return found
            if not self._is_next(","):
                self._refuse(path, "expected ',' or ']'")

    def _scalar(self, path: Path) -> object:
        if self._text.startswith('"', self._at):
            return self._string(path)
        if number := _NUMBER.match(self._text, self._at):
            self._at = number.end()
            return number_of(number[0])
        word = _WORD.match(self._text, self._at)
        if word is None or word[0] not in _WORDS:
            return self._refuse(path, "expected a value")
        self._at = word.end()
        return _WORDS[word[0]]

    def _string(self, path: Path) -> str:
        mark = self._mark()
        try:
            value, self._at = _SCAN(self._text, self._at + 1, True)
        except JSONDecodeError as error:
            hint = error.msg.removesuffix(" at").lower()
            raise refused(path, "expected a text in double quotes", hint, self._mark(error.pos)) from None
        return checked_text(value, path, mark)
