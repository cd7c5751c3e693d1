"""Keys, and checks of arguments, for both twins."""

from __future__ import annotations

from collections.abc import MutableMapping
from itertools import pairwise

from headgate._base.checks import checked_iterable, checked_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_MOST_SECONDS = 2**61 / 1e9
_ABSENT: Any = object()


def key_name(key: str | bytes) -> str:
    """The one name of a key: text as it is, bytes as UTF-8 in which other bytes are lone surrogates.

    >>> key_name(b"user:1")
    'user:1'
    """
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return bytes.decode(key, "utf-8", "surrogateescape")
    raise TypeError(f"key must be str or bytes, got {key!r}")


def key_on_wire(key: str | bytes) -> bytes:
    """The bytes that a server takes for a key, UTF-8 for text.

    >>> key_on_wire("user:1")
    b'user:1'
    """
    if isinstance(key, bytes):
        return bytes(key)
    if not isinstance(key, str):
        raise TypeError(f"key must be str or bytes, got {key!r}")
    try:
        return str.encode(key)
    except UnicodeEncodeError as error:
        error.reason = "key must have no surrogates"
        raise


def checked_prefixes(prefixes: Iterable[str | bytes]) -> tuple[str, ...]:
    """The names of prefixes that a server accepts: at least one, none empty, none a part of another."""
    names = []
    for prefix in checked_iterable("prefixes", prefixes):
        if not isinstance(prefix, (str, bytes)):
            raise TypeError(f"prefixes must be str or bytes, got {prefix!r}")
        if not prefix:
            raise ValueError(f"prefixes must not be empty, which is any key of the server, got {prefix!r}")
        key_on_wire(prefix)
        names.append(key_name(prefix))
    if not names:
        raise ValueError("prefixes must name at least one, got none")
    names.sort()
    for first, second in pairwise(names):
        if second.startswith(first):
            raise ValueError(f"prefixes must be disjoint, got {first!r} and {second!r}")
    return tuple(names)


def checked_seconds(name: str, value: float, least: float = 1e-9) -> int:
    """The nanoseconds of so many seconds."""
    seconds = checked_number(name, value)
    if not least <= seconds < _MOST_SECONDS:
        bound = "positive" if least > 0 else "from 0 on"
        raise ValueError(f"{name} must be {bound} and less than 2**61 nanoseconds, got {value!r}")
    return round(seconds * 1e9)


def checked_cache(cache: Any) -> Any:
    """The cache of a user, which must be empty and bounded."""
    if not isinstance(cache, MutableMapping) or not hasattr(cache, "maxsize"):
        raise TypeError(f"cache must be a mapping with a maxsize, got {cache!r}")
    if len(cache):
        raise ValueError(f"cache must be empty, got {len(cache)} entries")
    return cache
