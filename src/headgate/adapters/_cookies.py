"""The value of a cookie, read as frameworks read it.

A request may have a name twice, and a quoted value may be written in many ways. A limit that reads another
value than the application would give a client as many limits as it likes.
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\(?:([0-3][0-7]{2})|(.))", re.DOTALL)
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_VALUE = rf'[ \t]*=[ \t]*(?P<value>{_QUOTED}|[^ \t";]*)'
_PAIR = re.compile(rf'[ \t]*(?P<name>[^ \t=";]+)(?:{_VALUE})?[ \t]*(?:;|\Z)')


def last_cookie(text: str, name: str) -> str | None:
    """The last value of a name, as Starlette, Litestar and Django read it; each semicolon ends a pair.

    >>> last_cookie(r'sid=7; theme=dark; sid="\\063\\061d4"', "sid")
    '31d4'
    """
    value = None
    for pair in text.split(";"):
        found, equals, rest = pair.partition("=")
        if equals and found.strip() == name:
            value = rest
    return None if value is None else _unquoted(value.strip())


def first_cookie(text: str, name: str) -> str | None:
    """The first value of a name, as Werkzeug reads it: a semicolon may be quoted, and what is no pair is
    left out.

    >>> first_cookie(r'a="; sid=8"; sid=7"; sid="\\063\\061d4"; sid=9', "sid")
    '31d4'
    """
    if name not in text:
        return None
    start = 0
    while start < len(text):
        pair = _PAIR.match(text, start)
        if pair is None:
            start = text.find(";", start) + 1 or len(text)
        elif pair["name"] == name:
            return _unquoted(pair["value"] or "")
        else:
            start = pair.end()
    return None


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    return _ESCAPED.sub(lambda escape: chr(int(escape[1], 8)) if escape[1] else escape[2], value[1:-1])
