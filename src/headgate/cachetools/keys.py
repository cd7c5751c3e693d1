"""Keys of calls, as ``cachetools.keys`` makes them."""

from __future__ import annotations

from typing import Any

__all__ = ["hashkey", "methodkey", "typedkey", "typedmethodkey"]


class KEYWORDS:
    """Stands in a key before the keywords; pickles by name."""


def hashkey(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The key of a call: its arguments, and its keywords in the order of their names.

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
    """`hashkey`, with arguments of different types told apart."""
    values = (*args, *[kwargs[name] for name in sorted(kwargs)])
    return hashkey(*args, **kwargs) + tuple([type(value) for value in values])


def typedmethodkey(_self: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """`typedkey` without the first argument, for methods."""
    return typedkey(*args, **kwargs)
