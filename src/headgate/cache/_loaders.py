"""Checks of loaders: functions and coroutine functions, whatever wraps them."""

from __future__ import annotations

from functools import partial
from types import MethodType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def unwrapped(function: Any) -> Any:
    """The function in partials and bound methods."""
    while isinstance(function, (partial, MethodType)):
        function = function.func if isinstance(function, partial) else function.__func__
    return function


def is_coroutine_function(function: Any) -> bool:
    """Whether `function`, or the ``__call__`` of an object, is an ``async def``."""
    from inspect import iscoroutinefunction

    inner = unwrapped(function)
    return iscoroutinefunction(inner) or iscoroutinefunction(type(inner).__call__)


def is_awaitable(value: Any) -> bool:
    """Whether `value` is what a coroutine function returns, or another object to be awaited."""
    return hasattr(type(value), "__await__")


def checked_loader(loader: Any) -> Any:
    """`loader`, if it can be called."""
    if not callable(loader):
        raise TypeError(f"loader must be callable, got {loader!r}")
    return loader


def refuse_coroutine_function(loader: Any) -> None:
    """TypeError for a loader whose results ``get_or_load`` would have to await."""
    if is_coroutine_function(loader):
        raise TypeError(
            f"loader must not be a coroutine function, got {loader!r}; await aget_or_load instead")


def checked_result(value: Any) -> Any:
    """What a loader of ``get_or_load`` returned, if it is not to be awaited."""
    if is_awaitable(value):
        if hasattr(value, "close"):
            value.close()  # no warning that it was never awaited
        raise TypeError(f"loader must not return an awaitable, got {value!r}; await aget_or_load instead")
    return value
