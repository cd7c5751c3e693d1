"""Values of header fields: Cache-Control, structured fields, ages, dates and lists. Junk never raises."""

from __future__ import annotations

import re
from datetime import UTC, datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    Directives = dict[bytes, bytes | None]

MOST_SECONDS = 2**31
"""What a larger number of seconds is taken as: RFC 9111 1.2.2."""

_DIRECTIVE = re.compile(rb'([^\s,="]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?([^,]*)', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


def parse_cache_control(value: bytes) -> Directives:
    """The directives of a Cache-Control field by name in lower case, each with its argument or None.

    The first of several directives of one name counts. What follows a value without a comma makes it invalid,
    so it is kept there.

    >>> parse_cache_control(b'Max-Age=60, no-cache="a, b", x="max-age=1", max-age=5')
    {b'max-age': b'60', b'no-cache': b'a, b', b'x': b'max-age=1'}
    """
    directives: Directives = {}
    for name, quoted, token, rest in _DIRECTIVE.findall(value):
        argument: bytes | None = quoted or token or None
        if b"\\" in quoted:
            argument = _QUOTED_PAIR.sub(rb"\1", quoted)
        if rest := rest.strip():
            argument = (argument or b"") + rest
        directives.setdefault(name.lower(), argument)
    return directives


def parse_seconds(text: bytes | None) -> int | None:
    """A number of seconds in decimal digits, at most `MOST_SECONDS`; None for anything else.

    >>> parse_seconds(b"0060"), parse_seconds(b"99999999999"), parse_seconds(b"-1"), parse_seconds(None)
    (60, 2147483648, None, None)
    """
    if text is None or not text.isdigit():
        return None
    digits = text.lstrip(b"0")
    return min(int(digits or b"0"), MOST_SECONDS) if len(digits) <= 10 else MOST_SECONDS


def parse_length(text: bytes | None) -> int | None:
    """The bytes of a Content-Length field; None for anything but decimal digits.

    >>> parse_length(b"5000000000"), parse_length(b"5, 5"), parse_length(None)
    (5000000000, None, None)
    """
    return int(text[:19]) if text is not None and text.isdigit() else None


def parse_age(value: bytes | None) -> int:
    """The seconds of an Age field: its first member counts, and an invalid one is 0.

    >>> parse_age(b"7200, 0"), parse_age(b"7200.0"), parse_age(None)
    (7200, 0, 0)
    """
    return parse_seconds(value.partition(b",")[0].strip()) or 0 if value else 0


_MONTHS = {name: number for number, name in enumerate(
    (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1)}
_CLOCK = rb"(\d\d):(\d\d):(\d\d)"
_MONTH = rb"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_DAY = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_FIXDATE = re.compile(_DAY + rb", (\d\d) " + _MONTH + rb" (\d{4}) " + _CLOCK + rb" gmt")
_RFC850 = re.compile(
    rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day, (\d\d)-" + _MONTH + rb"-(\d\d) " + _CLOCK + rb" gmt")
_ASCTIME = re.compile(_DAY + rb" " + _MONTH + rb" (\d\d| \d) " + _CLOCK + rb" (\d{4})")


def parse_date(value: bytes | None, now: float = 0.0) -> int | None:
    """The seconds since 1970 of an HTTP date in one of its three forms, None for anything else.

    A year of two digits is the last one of that ending that is less than 50 years after `now`: RFC 9110
    5.6.7.

    >>> parse_date(b"Sun, 06 Nov 1994 08:49:37 GMT"), parse_date(b"Sun Nov  6 08:49:37 1994")
    (784111777, 784111777)
    >>> parse_date(b"Sunday, 06-Nov-94 08:49:37 GMT", 1.8e9), parse_date(b"tomorrow")
    (784111777, None)
    """
    if value is None or len(value) > 40:
        return None
    text = value.strip().lower()
    if match := _FIXDATE.fullmatch(text):
        day, month, year, *clock = match.groups()
        return _timestamp(int(year), month, day, clock)
    if match := _ASCTIME.fullmatch(text):
        month, day, *clock, year = match.groups()
        return _timestamp(int(year), month, day, clock)
    if match := _RFC850.fullmatch(text):
        day, month, ending, *clock = match.groups()
        latest = datetime.fromtimestamp(now, UTC).year + 50
        return _timestamp(latest - (latest - int(ending)) % 100, month, day, clock)
    return None


def _timestamp(year: int, month: bytes, day: bytes, clock: list[bytes]) -> int | None:
    hour, minute, second = map(int, clock)
    try:
        at = datetime(year, _MONTHS[month], int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return int(at.timestamp()) if second <= 60 else None


_BARE = (rb'(?:-?\d{1,12}\.\d{1,3}|-?\d{1,15}|@-?\d{1,15}|"(?:[ !#-\[\]-~]|\\["\\])*"'
         rb"|:[A-Za-z0-9+/=]*:|\?[01]"
         rb"|[A-Za-z*][!#$%&'*+\-.^_`|~\w:/]*)")
_KEY = rb"[a-z*][a-z0-9_\-.*]*"
_PARAMETERS = rb"(?:; *" + _KEY + rb"(?:=" + _BARE + rb")?)*"
_INNER = rb"\( *(?:" + _BARE + _PARAMETERS + rb"(?: +|(?=\))))*\)"
_MEMBER = re.compile(
    rb"[ \t]*(" + _KEY + rb")(?:=(" + _BARE + rb"|" + _INNER + rb"))?" + _PARAMETERS + rb"[ \t]*(,|\Z)",
    re.ASCII)
_NUMBERS = frozenset((b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"))


def parse_targeted(value: bytes) -> Directives | None:
    """The directives of a targeted field, such as CDN-Cache-Control, as `parse_cache_control` returns them.

    None, and so no field at all, if it is empty, no dictionary of RFC 8941, or a time in it no integer:
    RFC 9213 2.1.

    >>> parse_targeted(b"max-age=60, must-revalidate"), parse_targeted(b"max-age=60, &&"), parse_targeted(b"")
    ({b'max-age': b'60', b'must-revalidate': None}, None, None)
    """
    directives: Directives = {}
    text = value.strip(b" ")
    position = 0
    while position < len(text):
        match = _MEMBER.match(text, position)
        if match is None or (match[3] and match.end() == len(text)):
            return None
        name, item = match[1], match[2]
        directives.pop(name, None)
        if name in _NUMBERS and (item is None or not item.removeprefix(b"-").isdigit()):
            return None
        if item != b"?0":
            directives[name] = None if item is None or item == b"?1" else item.strip(b'"')
        position = match.end()
    return directives or None


_WORD = re.compile(rb"[^\s,]+")


def parse_names(value: bytes | None) -> tuple[bytes, ...]:
    """The members of a list of field names, in lower case, each once.

    >>> parse_names(b"Accept, , X-a accept")
    (b'accept', b'x-a')
    """
    return tuple(dict.fromkeys(_WORD.findall(value.lower()))) if value else ()
