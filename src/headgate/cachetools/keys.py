"""The key functions of ``cachetools.keys``."""

from __future__ import annotations

from typing import Any

__all__ = ["hashkey", "methodkey", "typedkey", "typedmethodkey"]


class KEYWORDS:
    """Separates the keywords in a key; pickled by name."""


def hashkey(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The key of a call: its arguments, and its keywords sorted by name.

    >>> from headgate.cachetools.keys import hashkey
    >>> hashkey(1, 2), hashkey(1, b=2, a=3) == hashkey(1, a=3, b=2)
    ((1, 2), True)
    """
    if not kwargs:
        return args
    return (*args, KEYWORDS, *[part for pair in sorted(kwargs.items()) for part in pair])


def methodkey(_self: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """`hashkey` without the first argument, for methods."""
    return hashkey(*args, **kwargs)


def typedkey(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """`hashkey` that distinguishes arguments of different types."""
    values = (*args, *[kwargs[name] for name in sorted(kwargs)])
    return hashkey(*args, **kwargs) + tuple([type(value) for value in values])


def typedmethodkey(_self: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """`typedkey` without the first argument, for methods."""
    return typedkey(*args, **kwargs)
