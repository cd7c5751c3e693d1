"""Ranges of stored bodies: RFC 9110 14."""

from __future__ import annotations

import re
from os import urandom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._messages import Headers

MOST_RANGES = 16
"""A request for more ranges gets the whole response."""

_RANGE = re.compile(rb"[ \t]*(\d{0,18})-(\d{0,18})[ \t]*")


def parse_ranges(value: bytes, length: int) -> list[tuple[int, int]] | None:
    """The ranges of a Range field that a body of `length` bytes can satisfy, as starts and ends after the
    last byte.

    None for a field to ignore: invalid, of another unit, too many ranges, or more bytes than the whole. An
    empty list if no range can be satisfied.

    >>> parse_ranges(b"bytes=0-1, -2", 10), parse_ranges(b"bytes=10-", 10), parse_ranges(b"lines=1-2", 10)
    ([(0, 2), (8, 10)], [], None)
    """
    unit, equals, text = value.partition(b"=")
    if not equals or unit.strip().lower() != b"bytes" or text.count(b",") >= MOST_RANGES:
        return None
    ranges = []
    for spec in text.split(b","):
        if not spec.strip():
            continue
        match = _RANGE.fullmatch(spec)
        if match is None or match[0].strip() == b"-":
            return None
        first, last = match[1], match[2]
        if not first:
            start, end = max(0, length - int(last)), length
        else:
            start, end = int(first), min(int(last) + 1, length) if last else length
            if last and int(last) < start:
                return None
        if start < end:
            ranges.append((start, end))
    if not text.strip(b", \t"):
        return None
    return ranges if sum(end - start for start, end in ranges) <= length else None


def content_range(start: int, end: int, length: int) -> bytes:
    """The Content-Range of the bytes from `start` to before `end`.

    >>> content_range(0, 2, 10)
    b'bytes 0-1/10'
    """
    return b"bytes %d-%d/%d" % (start, end - 1, length)


def partial(
    ranges: list[tuple[int, int]], headers: Headers, body: bytes
) -> tuple[int, Headers, bytes | memoryview | list[bytes | memoryview]]:
    """Status, fields and body of a 206 with these ranges of a whole stored response, or of a 416 without any.

    >>> partial([(1, 3)], [(b"content-length", b"4")], b"abcd")[1]
    [(b'content-range', b'bytes 1-2/4'), (b'content-length', b'2')]
    """
    length = len(body)
    plain = [field for field in headers if field[0] != b"content-length"]
    if not ranges:
        refused = [field for field in plain if not field[0].startswith(b"content-")]
        return 416, [*refused, (b"content-range", b"bytes */%d" % length), (b"content-length", b"0")], b""
    whole = memoryview(body)
    if len(ranges) == 1:
        start, end = ranges[0]
        return 206, [
            *plain,
            (b"content-range", content_range(start, end, length)),
            (b"content-length", b"%d" % (end - start)),
        ], whole[start:end]
    return _multipart(ranges, plain, whole)


def _multipart(
    ranges: list[tuple[int, int]], headers: Headers, whole: memoryview
) -> tuple[int, Headers, list[bytes | memoryview]]:
    boundary = urandom(12).hex().encode()
    kind = b"".join([b"\r\nContent-Type: " + value for name, value in headers if name == b"content-type"])
    parts: list[bytes | memoryview] = []
    for start, end in ranges:
        parts.append(b"\r\n--%b%b\r\nContent-Range: %b\r\n\r\n" % (
            boundary, kind, content_range(start, end, len(whole))))
        parts.append(whole[start:end])
    parts.append(b"\r\n--%b--\r\n" % boundary)
    others = [field for field in headers if field[0] != b"content-type"]
    return 206, [
        *others,
        (b"content-type", b"multipart/byteranges; boundary=" + boundary),
        (b"content-length", b"%d" % sum(map(len, parts))),
    ], parts
