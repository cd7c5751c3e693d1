"""Kinds of values: how a field is read, what is said of a wrong value, and its JSON Schema."""

from __future__ import annotations

import re
from math import inf, isfinite
from typing import NamedTuple
from urllib.parse import urlsplit

from headgate._base.durations import checked_duration, written_duration
from headgate._base.sizes import checked_size
from headgate.config._errors import MOST_PROBLEMS, Path, Problem, place_of
from headgate.config._hints import listed, meant
from headgate.config._nodes import Node
from headgate.config._yaml import core_scalar
from headgate.limit._rate import checked_rates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FAILED: Any = object()
"""What is read of a value that is wrong; why has been reported."""


class Wrong(Exception):
    """A value is not of its kind: what was expected, and a hint. What was got is added."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint


class Reference(NamedTuple):
    """A name that stands for an object of one of some sections, and where it is."""

    path: Path
    node: Node
    name: str
    sections: tuple[str, ...]


class Full(Exception):
    """There are so many problems that no more are looked for."""


class Reports:
    """The problems found so far, and the references, which are checked last. One too many raises Full."""

    __slots__ = ("problems", "references")

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.references: list[Reference] = []

    def add(self, path: Path, node: Node, message: str, hint: str = "") -> Any:
        """Report what is wrong with a value, with the value if another one was expected. Returns FAILED."""
        if message.startswith("expected"):
            message = f"{message}, got {node.kind}"
        return self._append(Problem(place_of(path), message, hint, node.mark))

    def add_key(self, path: Path, node: Node, message: str, hint: str = "") -> Any:
        """Report what is wrong with a key. Returns FAILED."""
        return self._append(Problem(place_of(path), message, hint, node.key_mark))

    def _append(self, problem: Problem) -> Any:
        if len(self.problems) >= MOST_PROBLEMS:
            raise Full
        self.problems.append(problem)
        return FAILED

    def unknown(self, path: Path, node: Node, known: list[str]) -> Any:
        """Report a key that is none of those known."""
        hint = meant(str(path[-1]), known) or f"known are {listed(known)}"
        return self.add_key(path, node, "unknown", hint)


class Kind:
    """A kind of scalar. `text` is what tables of documentation call it."""

    text = "text"
    reads_text = False
    """Whether a text is read as it is, also where it was substituted."""

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        """The value of a node, or FAILED."""
        value = node.value
        try:
            if isinstance(value, str) and node.substituted and not self.reads_text:
                value = core_scalar(value)
            if isinstance(value, (dict, list)):
                raise Wrong(f"expected {self.text}")
            return self.convert(value)
        except Wrong as wrong:
            return reports.add(path, node, wrong.expected, wrong.hint)

    def convert(self, value: Any) -> Any:
        """The checked value of a scalar. Raises Wrong."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of what `read` accepts, or more."""
        raise NotImplementedError



class Text(Kind):
    """Any text that is not empty."""

    reads_text = True

    def __init__(self, text: str = "text") -> None:
        self.text = text

    def convert(self, value: Any) -> str:
        if isinstance(value, str) and value:
            return value
        quoted = "write it in quotes" if isinstance(value, (int, float)) else ""
        raise Wrong(f"expected {self.text}", quoted)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


class StoreURL(Text):
    """The URL of a store, without what a client would take for another part of it than is meant."""

    _SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")

    def __init__(self) -> None:
        super().__init__("a URL")

    def convert(self, value: Any) -> str:
        text = super().convert(value)
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in self._SCHEMES:
            raise Wrong("expected a URL", "it begins with redis://, rediss:// or unix://")
        if scheme != "unix":
            _check_address(text, rest)
        return text


def _check_address(text: str, rest: str) -> None:
    """Raise Wrong if the port is none, or an at sign is where only a password that is not quoted puts it."""
    address = re.split("[/?#]", rest, maxsplit=1)[0]
    path, beyond = rest.partition("?")[0][len(address) :], rest[len(address) :]
    try:
        _ = urlsplit(text).port
        is_port, is_cut = True, "@" in path
    except ValueError:
        is_port, is_cut = False, "@" in beyond
    if is_cut:
        raise Wrong("expected a URL", "in a password # is %23, / is %2F and ? is %3F")
    if not is_port:
        raise Wrong("expected a URL", "its port is a number up to 65535")


class Choice(Kind):
    """One of some words, each with the value that it means, by default itself."""

    def __init__(self, *words: str, meaning: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = {word: word for word in words} | (meaning or {})
        self.text = " or ".join([", ".join(list(self.values)[:-1]), list(self.values)[-1]])
        self.text = self.text if len(self.values) > 2 else " or ".join(self.values)

    def convert(self, value: Any) -> Any:
        if isinstance(value, str) and value in self.values:
            return self.values[value]
        hint = meant(value, list(self.values)) if isinstance(value, str) else ""
        raise Wrong(f"expected {self.text}", hint)

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


class Flag(Kind):
    """True or false."""

    text = "true or false"

    def convert(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        word = words.get(value.lower()) if isinstance(value, str) else None
        raise Wrong(f"expected {self.text}", f"write {word}" if word else "")

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Number(Kind):
    """A number from `least`, or `above` it, to `most`."""

    noun = "a number"

    def __init__(self, least: float = -inf, most: float = inf, *, above: float = -inf,
                 below: float = inf) -> None:
        self.least, self.most, self.above, self.below = least, most, above, below
        bounds = {"from": least, "above": above, "to": most, "below": below}
        words = [f"{word} {_shown(bound)}" for word, bound in bounds.items() if isfinite(bound)]
        self.text = " ".join([self.noun, *words]) + (" on" if len(words) == 1 and isfinite(least) else "")

    def convert(self, value: Any) -> float:
        number = self.number(value)
        if self.least <= number <= self.most and self.above < number < self.below:
            return number
        raise Wrong(f"expected {self.text}")

    def number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Wrong(f"expected {self.text}")
        return value

    def schema(self) -> dict[str, Any]:
        limits = {"minimum": self.least, "maximum": self.most,
                  "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        finite = {word: limit for word, limit in limits.items() if isfinite(limit)}
        return {"type": "number", **finite}


class Whole(Number):
    """A whole number; one such as 1e6 is one."""

    noun = "a whole number"

    def number(self, value: Any) -> float:
        number = super().number(value)
        if not isfinite(number) or number != int(number):
            raise Wrong(f"expected {self.text}")
        return int(number)

    def schema(self) -> dict[str, Any]:
        return {**super().schema(), "type": "integer"}


class Size(Kind):
    """A size in bytes."""

    text = "a size"

    def convert(self, value: Any) -> int:
        try:
            return checked_size("size", float_as_int(value))
        except (TypeError, ValueError):
            raise Wrong("expected a size", 'write bytes, or for example "64 MiB"') from None

    def schema(self) -> dict[str, Any]:
        return {"type": ["integer", "string"]}


class Bytes(int):
    """A number that was written as a size."""


class Entries(Kind):
    """How much a cache has: entries, or bytes."""

    text = "a number of entries or a size"

    def convert(self, value: Any) -> int:
        if isinstance(value, str):
            return Bytes(Size().convert(value))
        number = float_as_int(value)
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise Wrong(f"expected {self.text}", 'write for example 10000 or "64 MiB"')
        return number

    def schema(self) -> dict[str, Any]:
        return {"type": ["integer", "string"], "minimum": 0}


class Duration(Kind):
    """A time in seconds, from `least` to `most`; 0 only if `zero`."""

    text = "a duration"

    def __init__(self, *, zero: bool = False, least: float = 0, most: float = 1e9) -> None:
        self.zero, self.least, self.most = zero, least, most

    def convert(self, value: Any) -> float:
        if self.zero and value == 0 and not isinstance(value, bool):
            return 0
        try:
            if isinstance(value, bool):
                raise TypeError
            seconds = checked_duration("duration", value)
        except (OverflowError, TypeError, ValueError):
            raise Wrong("expected a duration", 'write seconds, or for example "15 min"') from None
        if not self.least <= seconds <= self.most:
            bounds = f"from {written_duration(self.least)} to" if self.least else "of at most"
            most = f"{self.most:,.0f} s" if self.most % 60 else written_duration(self.most)
            raise Wrong(f"expected a duration {bounds} {most}")
        return seconds

    def schema(self) -> dict[str, Any]:
        least = {"minimum": self.least} if self.zero or self.least else {"exclusiveMinimum": 0}
        return {"type": ["number", "string"], **least, "maximum": self.most}


class RateText(Kind):
    """A rate, or several with ``;`` between them."""

    text = "a rate"
    reads_text = True

    def convert(self, value: Any) -> str:
        if not isinstance(value, str):
            raise Wrong("expected a rate", 'write for example "10/s" or "100/min; 1000/h"')
        return canonical_rate(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


class Name(Kind):
    """The name of an object of one of some sections."""

    reads_text = True

    def __init__(self, *sections: str) -> None:
        self.sections = sections
        self.text = f"a name in {' or '.join(sections)}"

    def read(self, node: Node, path: Path, reports: Reports) -> Any:
        name = super().read(node, path, reports)
        if name is not FAILED:
            reports.references.append(Reference(path, node, name, self.sections))
        return name

    def convert(self, value: Any) -> str:
        if isinstance(value, str) and value:
            return value
        raise Wrong(f"expected {self.text}")

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}



class Mode(Kind):
    """Permissions of a file."""

    text = "permissions of a file"
    reads_text = True

    def convert(self, value: Any) -> int:
        digits = value.removeprefix("0o") if isinstance(value, str) else None
        if digits is not None and 1 <= len(digits) <= 4 and set(digits) <= set("01234567"):
            value = int(digits, 8)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
            raise Wrong(f"expected {self.text}", 'write for example "0600" in quotes')
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": ["integer", "string"], "minimum": 0, "maximum": 0o777}


class OneOf(Kind):
    """A word, or else what another kind reads."""

    def __init__(self, word: str, meaning: Any, other: Kind) -> None:
        self.word, self.meaning, self.other = word, meaning, other
        self.text = f"{other.text}, or {word}"

    def convert(self, value: Any) -> Any:
        if value == self.word:
            return self.meaning
        try:
            return self.other.convert(value)
        except Wrong as wrong:
            raise Wrong(f"{wrong.expected}, or {self.word}", wrong.hint) from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": self.word}, self.other.schema()]}


def float_as_int(value: Any) -> Any:
    """A number such as 1e6 as the int that it is. Raises Wrong for true and false."""
    if isinstance(value, float) and isfinite(value) and value == int(value):
        return int(value)
    return None if isinstance(value, bool) else value


def canonical_rate(text: str) -> str:
    """The text of the tiers as decisions have it, with the meaning of `text`. Raises Wrong."""
    try:
        return "; ".join(map(str, checked_rates(text, None)))
    except (OverflowError, TypeError, ValueError) as error:
        wrong, _, hint = str(error).partition(": ")
        if not hint and not wrong.startswith("rate must be like"):
            hint = wrong.partition(", got ")[0]
        raise Wrong("expected a rate", hint or 'write for example "10/s" or "100/min; 1000/h"') from None


def _shown(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) and number < 10**12 else f"{number:g}"
