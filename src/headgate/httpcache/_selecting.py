"""Which of several stored responses fits a request: Vary, RFC 9111 4.1, with normalised fields."""

from __future__ import annotations

import re
from functools import lru_cache

from headgate.httpcache._fields import parse_names

MOST_NAMES = 16
"""More selecting fields than this are taken as ``*``."""

_LONGEST_REMEMBERED = 256
_MOST_REMEMBERED = 1024
_LISTS = frozenset((b"accept-encoding", b"accept-language", b"accept-charset"))
_COMMAS = re.compile(rb"[ \t]*,[ \t]*")
_COMMA, _QUOTE, _NEWLINE = b',"\n'
_QUALITY = re.compile(rb"[ \t]*([^\s;,]+)[ \t]*(?:;[ \t]*[qQ][ \t]*=[ \t]*([01](?:\.\d{0,3})?)[ \t]*)?")


def selecting_names(vary: bytes | None) -> tuple[bytes, ...] | None:
    """The sorted names of a Vary field, None if no later request can match.

    >>> selecting_names(b"Accept-Encoding, accept"), selecting_names(b"a, *"), selecting_names(None)
    ((b'accept', b'accept-encoding'), None, ())
    """
    names = parse_names(vary)
    return None if b"*" in names or len(names) > MOST_NAMES else tuple(sorted(names))


def secondary_key(fields: dict[bytes, bytes], names: tuple[bytes, ...]) -> bytes:
    """The normalised values of the selecting fields of a request: equal where they have the same meaning.

    >>> secondary_key({b"accept-encoding": b"gzip;q=0.5, BR"}, (b"accept-encoding", b"x"))
    b'+br,gzip;q=0.5\\n-'
    """
    return b"\n".join([_normalised(name, fields.get(name)) for name in names])


def language_key(
    fields: dict[bytes, bytes], names: tuple[bytes, ...], language: bytes | None = None
) -> bytes | None:
    """The secondary key of a request that has one favourite language, with that in place of all languages.

    A response in exactly that language is what any origin would select. With `language` the key of a stored
    response in it. None if there is no such key.

    >>> names = (b"accept-language",)
    >>> language_key({b"accept-language": b"fr;q=0.5, de"}, names) == language_key({}, names, b"DE")
    True
    >>> language_key({b"accept-language": b"fr, de"}, names) is None
    True
    """
    if b"accept-language" not in names:
        return None
    if language is None:
        ranked = ranked_members(fields.get(b"accept-language") or b"")
        if not ranked or ranked[0][0] == 0.0 or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        language = ranked[0][1]
    chosen = language.strip().lower()
    if not chosen or b"," in chosen or chosen == b"*":
        return None
    return b"\n".join([
        b"=" + chosen if name == b"accept-language" else _normalised(name, fields.get(name))
        for name in names])


def _normalised(name: bytes, value: bytes | None) -> bytes:
    if value is None:
        return b"-"
    if name in _LISTS:
        return _remembered(value) if len(value) <= _LONGEST_REMEMBERED else _as_list(value)
    value = value.strip()
    if _NEWLINE in value:
        value = value.replace(b"\n", b"\0")
    return b"+" + (_COMMAS.sub(b",", value) if _COMMA in value and _QUOTE not in value else value)


def _as_list(value: bytes) -> bytes:
    """A list of members with qualities in one form of several with the same meaning."""
    return b"+" + b",".join([
        member if quality == -1.0 else b"%b;q=%.3g" % (member, -quality)
        for quality, member in _sorted(value.replace(b"\n", b"\0"))])


_remembered = lru_cache(_MOST_REMEMBERED)(_as_list)


def _sorted(value: bytes) -> list[tuple[float, bytes]]:
    """The members of a list with their negative qualities, best first and then by name, each once."""
    found: set[tuple[float, bytes]] = set()
    for member in value.split(b","):
        match = _QUALITY.fullmatch(member)
        if match is not None:
            found.add((-float(match[2] or 1.0), match[1].lower()))
        elif junk := member.strip():
            found.add((-1.0, junk))
    return sorted(found)


def ranked_members(value: bytes) -> list[tuple[float, bytes]]:
    """The members of a field such as Accept-Language with their qualities, the best first.

    >>> ranked_members(b"en;q=0.5, DE")
    [(1.0, b'de'), (0.5, b'en')]
    """
    return [(-quality, member) for quality, member in _sorted(value)]
