"""Checks of arguments: each returns the value in an exact type or raises an error that names the argument."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def checked_int(name: str, value: Any) -> int:
    """`value` as an int."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None


def checked_int_or_none(name: str, value: Any) -> int | None:
    """`value` as an int, or None."""
    if value is None:
        return None
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int or None, got {value!r}") from None


def checked_number(name: str, value: Any) -> float:
    """`value` as an int or a float, whatever numeric type it has."""
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"{name} must be a number, got {value!r}")


def checked_callable(name: str, value: Any) -> Any:
    """`value`, if it is callable or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {value!r}")
    return value


def checked_iterable(name: str, value: Any) -> Iterable[Any]:
    """`value`, if it is iterable and neither a str nor bytes."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an iterable, got {value!r}")
    return value
