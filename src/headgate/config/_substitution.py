"""``${NAME}``, ``${NAME:-default}`` and ``${file:PATH}`` in the texts of a document."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from functools import partial
from urllib.parse import unquote

from headgate.config._errors import MOST_PROBLEMS, PASSWORD, Path, Problem, Unknown, place_of
from headgate.config._hints import meant
from headgate.config._nodes import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_REFERENCE = re.compile(r"\$(?:\$|\{([^{}]*)\}|)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_FILE = "file:"
_MOST_SECRET = 65536
_SHORT = 4


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that returns texts without these secrets and their lines, also as `repr` and JSON write
    them; short ones only where they are whole words.

    >>> masking(["hunter2", "1"])("got 'hunter2' in 12 of 1 s")
    "got '***' in 12 of *** s"
    """
    parts = {part for secret in secrets for part in (secret, *_lines(secret))}
    forms = {form for part in parts for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1])}
    patterns = [
        rf"(?<!\w){re.escape(form)}(?!\w)" if len(form) < _SHORT else re.escape(form)
        for form in sorted(forms, key=len, reverse=True)
    ]
    if not patterns:
        return str
    return partial(re.compile("|".join(patterns)).sub, "***")


def _lines(secret: str) -> list[str]:
    """The lines of a secret that has several, such as a file of keys; not short ones, which any may have."""
    return [line for line in map(str.strip, secret.splitlines()) if len(line) >= _SHORT]


class Substitution:
    """Substitutes references in scalars, so that they never add structure, and remembers what is secret.

    `secrets` are the values that came from outside, and the passwords of URLs; `files` are those that were
    read, or could not be, and `problems` what is wrong.
    Files are relative to the folder of the document, or else to that of the process.

    >>> found = Substitution({"PORT": "6379"})
    >>> found.resolved(Node("redis://${HOST:-localhost}:${PORT}/$$1")).value, found.secrets
    ('redis://localhost:6379/$1', {'6379'})
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.secrets: set[str] = set()
        self.files: list[str] = []
        self.problems: list[Problem] = []

    def resolved(self, node: Node, path: Path = ()) -> Node:
        """The tree with all its references substituted."""
        value = node.value
        if isinstance(value, dict):
            children = {name: self.resolved(child, (*path, name)) for name, child in value.items()}
            return Node(children, node.mark, node.key_mark)
        if isinstance(value, list):
            elements = [self.resolved(child, (*path, at)) for at, child in enumerate(value)]
            return Node(elements, node.mark, node.key_mark)
        if not isinstance(value, str):
            return node
        text = self._text(value, node, path) if "$" in value else value
        self._note_password(text)
        return Node(text, node.mark, node.key_mark, node.shown, text is not value)

    def _text(self, text: str, node: Node, path: Path) -> str:
        def put(found: re.Match[str]) -> str:
            if found[0] == "$$":
                return "$"
            if found[1] is None:
                self._report(path, node, "expected a name in braces after $", "write $$ for the sign itself")
                return ""
            return self._value(found[1], node, path)

        return _REFERENCE.sub(put, text)

    def _value(self, reference: str, node: Node, path: Path) -> str:
        if reference.startswith(_FILE):
            return self._secret(self._read(reference.removeprefix(_FILE), node, path))
        name = _NAME.fullmatch(reference)
        if name is None:
            self._report(path, node, "not the name of a variable in the braces of ${}",
                         "write ${NAME}, ${NAME:-default} or ${file:PATH}")
            return ""
        value, default = self._env.get(name[1]), name[2]
        if default is not None:
            return self._secret(value) if value else default
        if value is None:
            self._report(path, node, f"the variable {name[1]} is not set", self._hint(name[1]), Unknown)
        return self._secret(value or "")

    def _hint(self, name: str) -> str:
        return meant(name, list(self._env)) or f"write ${{{name}:-default}} for a default"

    def _read(self, name: str, node: Node, path: Path) -> str:
        folder = os.path.dirname(node.mark.source) if node.mark and node.mark.source else ""
        self.files.append(os.path.join(folder, name))
        try:
            return _contents(self.files[-1])
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._report(path, node, f"cannot read the file of ${{{_FILE}{name}}}", f"{reason}", Unknown)
            return ""

    def _secret(self, value: str) -> str:
        if value:
            self.secrets.add(value)
        return value

    def _note_password(self, text: str) -> None:
        password = PASSWORD.search(text)
        if password and password[2]:
            self.secrets |= {password[2], unquote(password[2])}

    def _report(self, path: Path, node: Node, message: str, hint: str, kind: type[Problem] = Problem) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(kind(place_of(path), message, hint, node.mark))


def _contents(name: str) -> str:
    """The text of a regular file, without the newlines at its end."""
    with open(name, "rb", opener=_opened) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = file.read(_MOST_SECRET + 1)
    if len(data) > _MOST_SECRET:
        raise ValueError(f"more than {_MOST_SECRET:,} bytes")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _opened(name: str, flags: int) -> int:
    """A pipe is opened at once too."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
