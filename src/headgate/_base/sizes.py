"""Sizes in bytes as people write them."""

from __future__ import annotations

import re
from operator import index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZE = re.compile(r"\s*(\d+)(?:\.(\d+))?\s*(?:([KMGT])(i?))?B\s*", re.IGNORECASE | re.ASCII)
_MOST = 2**62


def checked_size(name: str, value: Any) -> int:
    """`value` in bytes, from 1 to 2**62: an int, or text such as ``"64 MiB"`` or ``"1.5 GB"``.

    A unit is B, or K, M, G or T with B (powers of 1000) or iB (powers of 1024), in any case. Raises
    ValueError if the size is out of range or not readable, TypeError if it is neither int nor str.

    >>> checked_size("maxsize", "64 MiB"), checked_size("maxsize", "1.5kB"), checked_size("maxsize", 100)
    (67108864, 1500, 100)
    """
    if isinstance(value, str):
        size = _parsed(value)
    else:
        try:
            size = index(value)
        except TypeError:
            raise TypeError(f'{name} must be an int or a text such as "64 MiB", got {value!r}') from None
    if size is None:
        raise ValueError(f'{name} must be a size such as "64 MiB", got {value!r}')
    if not 0 < size <= _MOST:
        raise ValueError(f"{name} must be from 1 to 2**62 bytes, got {value!r}")
    return size


def _parsed(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    whole, fraction, prefix, binary = match.groups(default="")
    scale = (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " ")
    return int(int(whole + fraction) * scale // 10 ** len(fraction))
