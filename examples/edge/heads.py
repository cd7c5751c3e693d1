"""Heads of HTTP/1.1 messages, parsed strictly: what two programs could read differently is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from headgate.adapters.proxy import end_to_end, forwarded_once, forwards_of

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/1\.([01])" % _TOKEN)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?")
_VISIBLE = rb"[\x21-\x7e\x80-\xff]"
_FIELD = re.compile(rb"(%b):[ \t]*(%b(?:[\t\x20-\x7e\x80-\xff]*%b)?|)[ \t]*" % (_TOKEN, _VISIBLE, _VISIBLE))
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*))(?::(\d{1,5}))?")
_LENGTH = re.compile(r"\d{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_PIECE = 64 * 1024
_MOST_TRAILERS = 64


class BadMessage(ValueError):
    """A message that is not HTTP, or ambiguous."""


@dataclass
class Head:
    """A request line or a status line, and fields by name in lower case, in order."""

    method: str
    target: str
    status: int
    reason: str
    minor: int
    fields: list[tuple[str, str]]

    @classmethod
    def request(cls, data: bytes) -> Head:
        """The head of a request. Raises BadMessage."""
        match, fields = _parsed(_REQUEST, data)
        return cls(match[1].decode(), match[2].decode(), 0, "", int(match[3]), fields)

    @classmethod
    def response(cls, data: bytes) -> Head:
        """The head of a response. Raises BadMessage."""
        match, fields = _parsed(_STATUS, data)
        return cls("", "", int(match[2]), (match[3] or b"").decode("latin-1"), int(match[1]), fields)

    @staticmethod
    def bytes_of(line: str, fields: list[tuple[str, str]]) -> bytes:
        """A head as it is sent."""
        return "\r\n".join([line, *(f"{name}: {value}" for name, value in fields), "", ""]).encode("latin-1")

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return any(field == name for field, _ in self.fields)

    def one(self, name: str) -> str:
        """The value of a field that must be there once."""
        values = [value for field, value in self.fields if field == name]
        if len(values) != 1:
            raise BadMessage(f"one {name} is needed, not {len(values)}")
        return values[0]

    def forwards_left(self) -> int | None:
        """What Max-Forwards says, None without a valid one."""
        return forwards_of([(name.encode(), value.encode("latin-1")) for name, value in self.fields])

    def body_length(self) -> int | None:
        """The bytes of the body, None for chunks. Raises BadMessage where it is ambiguous."""
        if self.has("transfer-encoding"):
            coding = self.one("transfer-encoding").lower()
            if self.has("content-length") or not self.minor or coding != "chunked":
                raise BadMessage("Transfer-Encoding must be chunked, alone, and of HTTP/1.1")
            return None
        if not self.has("content-length"):
            return 0
        length = self.one("content-length")
        if not _LENGTH.fullmatch(length):
            raise BadMessage("Content-Length must be a number")
        return int(length)


def _parsed(line: re.Pattern[bytes], data: bytes) -> tuple[re.Match[bytes], list[tuple[str, str]]]:
    first, *rest = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = line.fullmatch(first)
    if match is None:
        raise BadMessage("the first line is malformed")
    fields = []
    for text in rest:
        found = _FIELD.fullmatch(text)
        if found is None:
            raise BadMessage("a field is malformed")
        fields.append((found[1].decode().lower(), found[2].decode("latin-1")))
    return match, fields


def authority(text: str) -> tuple[str, int | None]:
    """Host, in lower case, and port of an authority without user. Raises BadMessage.

    >>> authority("Example.com:443"), authority("[::1]")
    (('example.com', 443), ('::1', None))
    """
    match = _AUTHORITY.fullmatch(text)
    port = int(match[2]) if match and match[2] else None
    if match is None or port == 0 or (port or 0) > 65535:
        raise BadMessage("the authority is malformed")
    return match[1].lower().strip("[]").removesuffix("."), port


def passed_on(head: Head) -> list[tuple[str, str]]:
    """The fields without Host and those of one connection, and one hop less for OPTIONS."""
    fields = [(name.encode(), value.encode("latin-1")) for name, value in head.fields if name != "host"]
    if head.method == "OPTIONS":
        fields = forwarded_once(fields)
    return [(name.decode(), value.decode("latin-1")) for name, value in end_to_end(fields)]


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of a chunked body; extensions and trailers are dropped. Raises BadMessage."""
    while True:
        try:
            match = _CHUNK.fullmatch(await reader.readuntil(b"\r\n"))
        except asyncio.LimitOverrunError as error:
            raise BadMessage("a chunk's line is too long") from error
        if match is None:
            raise BadMessage("a chunk's size is malformed")
        left = int(match[1], 16)
        if not left:
            break
        while left:
            data = await reader.read(min(left, _PIECE))
            if not data:
                raise BadMessage("the body ended within a chunk")
            left -= len(data)
            yield data
        if await reader.readexactly(2) != b"\r\n":
            raise BadMessage("a chunk is longer than its size")
    for _ in range(_MOST_TRAILERS):
        line = await reader.readuntil(b"\r\n")
        if line == b"\r\n":
            return
        if _FIELD.fullmatch(line[:-2]) is None:
            raise BadMessage("a trailer is malformed")
    raise BadMessage("there are too many trailers")
