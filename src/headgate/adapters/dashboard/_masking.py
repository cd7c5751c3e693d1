"""Keys of users as the dashboard shows them: hidden unless asked for, and short and printable in any case."""

from __future__ import annotations

from hashlib import blake2b
from os import urandom

from headgate._base.checks import checked_callable
from headgate._base.texts import shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Mask: TypeAlias = "bool | Callable[[Any], str]"

_LONGEST, _READ = 80, 320
_SHOWN, _SHOWN_OF = 2, 8
_SECRET = urandom(16)


def masked(key: Any) -> str:
    """The first two characters of a key that has at least eight, and a tag that distinguishes it from others.

    The tag is a keyed hash with a secret of this process, so that nobody finds the key by trying.

    >>> masked("ann")[0], masked("alexandra")[:3], masked("ann") == masked("ann"), masked("a") == masked("b")
    ('…', 'al…', True, False)
    """
    text = plain(key)
    tag = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=3, key=_SECRET).hexdigest()
    return f"{text[:_SHOWN] if len(text) >= _SHOWN_OF else ''}…{tag}"


def plain(key: Any) -> str:
    """A key of any type as short, printable text. Those of routes have two lines, which become one.

    >>> plain("GET /orders\\nann")
    'GET /orders ann'
    >>> plain(b"a\\xff"), plain("\\x1b[2J"), len(plain("x" * 10**6))
    ('a\\ufffd', '\\\\x1b[2J', 80)
    """
    if isinstance(key, bytes):
        key = key[:_READ].decode(errors="replace")
    elif not isinstance(key, str):
        try:
            key = str(key)
        except Exception:
            key = f"<{type(key).__name__}>"
    return shortened(" ".join(key[:_READ].splitlines()), _LONGEST)


def checked_mask(mask: Mask) -> Callable[[Any], str]:
    """What shows a key: ``masked``, ``plain``, or the function of the user, whose result is made short and
    printable too.
    """
    if mask is True:
        return masked
    if mask is False:
        return plain
    function: Any = checked_callable("mask", mask)
    if function is None:
        raise TypeError("mask must be True, False or a callable, got None")
    return lambda key: plain(function(key))
