"""The protocol of the server, RESP2: commands packed, replies parsed."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Buffer = bytes | bytearray

_IN_SCRIPT = re.compile(r": -([A-Z]+) ")


class ReplyError(Exception):
    """An error that the server replied."""

    @property
    def kind(self) -> str:
        """Its code, such as ``"NOSCRIPT"``; before Redis 7 that of a script is within the text."""
        text = str(self)
        inner = _IN_SCRIPT.search(text) if text.startswith("ERR Error running script") else None
        return inner[1] if inner else text.partition(" ")[0]


def packed_head(count: int, *parts: bytes) -> bytes:
    """The start of a command of `count` words, of which `parts` are the first."""
    return b"*%d\r\n%b" % (count, b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))


def packed(*parts: bytes) -> bytes:
    """A command."""
    return packed_head(len(parts), *parts)


def parse(data: Buffer, at: int) -> tuple[Any, int] | None:
    """The reply that starts at `at` and where it ends, or None if it is not complete.

    Raises ConnectionError if there is no reply.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, head, after = data[at], bytes(data[at + 1 : end]), end + 2
    if kind == 36:  # $
        length = _number(head)
        if length < 0:
            return None, after
        if len(data) < after + length + 2:
            return None
        return bytes(data[after : after + length]), after + length + 2
    if kind == 43:  # +
        return head, after
    if kind == 58:  # :
        return _number(head), after
    if kind == 45:  # -
        return ReplyError(head.decode("utf-8", "replace")), after
    if kind == 42:  # *
        return _array(data, after, _number(head))
    raise ConnectionError(f"no reply: {bytes(data[at:end])[:100]!r}")


def _array(data: Buffer, at: int, count: int) -> tuple[Any, int] | None:
    if count < 0:
        return None, at
    values = []
    for _ in range(count):
        found = parse(data, at)
        if found is None:
            return None
        value, at = found
        values.append(value)
    return values, at


def _number(head: bytes) -> int:
    try:
        return int(head)
    except ValueError:
        raise ConnectionError(f"no number in a reply: {head[:100]!r}") from None
