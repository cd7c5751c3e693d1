"""The errors of a document, all of them at once, each with its place."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from headgate.errors import HeadgateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

Path: TypeAlias = tuple[str | int, ...]
"""The names and numbers of list elements that lead to a place in a document."""

MOST_PROBLEMS = 1000
"""How many errors of a document are found at most."""
_MOST_SHOWN = 50
PASSWORD = re.compile(r"(?<=://)([^@:/]*):(.*)(?=@)", re.DOTALL)
"""The user and the password of a URL, which may have any characters."""
_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


class Mark(NamedTuple):
    """Where something is in a text: the name of its file, if it has one, a line and a column from 1 on."""

    source: str | None
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source or 'line'}:{self.line}:{self.column}".replace("line:", "line ", 1)


def masked(text: str) -> str:
    """The text without the passwords of URLs in it.

    >>> masked("redis://:secret@10.0.0.1/0"), masked("redis://ann:secret@10.0.0.1/0")
    ('redis://:***@10.0.0.1/0', 'redis://ann:***@10.0.0.1/0')
    """
    return PASSWORD.sub(r"\1:***", text)


def place_of(path: Path) -> str:
    """The text of a place in a document.

    >>> place_of(("caches", "pages", "maxsize")), place_of(("placements", "shards", "nodes", "10.0.0.1", 0))
    ('$.caches.pages.maxsize', '$.placements.shards.nodes["10.0.0.1"][0]')
    """
    return "$" + "".join(map(_step, path))


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if _PLAIN.fullmatch(part):
        return f".{part}"
    return '["{}"]'.format(masked(part).replace("\\", r"\\").replace('"', r"\""))


class Problem(NamedTuple):
    """One error of a document: its place, what is wrong, what to do about it, and where that is in the text.

    `hint` is empty if there is none; `mark` is None if the document was not a text.

    >>> print(Problem("$.cachs", "unknown", 'did you mean "caches"?', Mark("gate.yaml", 3, 1)))
    gate.yaml:3:1: $.cachs: unknown, did you mean "caches"?
    """

    place: str
    message: str
    hint: str = ""
    mark: Mark | None = None

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}"
        if self.mark is not None:
            text = f"{self.mark}: {text}"
        return f"{text}, {self.hint}" if self.hint else text


class Unknown(Problem):
    """A value that is not here: a variable that is not set, or a file that cannot be read."""

    __slots__ = ()


class ConfigError(HeadgateError, ValueError):
    """A document of configuration is not valid; `errors` are all its `Problem`, in the order of the text.

    No secret is in its text: neither what was substituted nor the password of a URL.

    >>> error = ConfigError([Problem("$.cachs", "unknown", 'did you mean "caches"?')])
    >>> str(error), error.errors[0].place
    ('$.cachs: unknown, did you mean "caches"?', '$.cachs')
    """

    def __init__(self, errors: Iterable[Problem]) -> None:
        self.errors = sorted(errors, key=_position)
        super().__init__(self.errors)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.errors[:_MOST_SHOWN]]
        more = len(self.errors) - len(lines)
        if len(self.errors) > 1:
            lines.insert(0, f"{len(self.errors)} errors")
        return "\n".join([*lines, f"and {more} more"] if more else lines)


def _position(problem: Problem) -> tuple[str, int, int]:
    mark = problem.mark
    return ("", 0, 0) if mark is None else (mark.source or "", mark.line, mark.column)
