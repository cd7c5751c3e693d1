"""Calls of listeners: what they raise is reported, never raised into the cache."""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class _Target:
    __slots__ = ("__weakref__",)


def report(error: BaseException) -> None:
    """Hand `error` to ``sys.unraisablehook``, as the interpreter does for weakref callbacks."""

    def listener_failed(_: object) -> None:
        raise error

    target = _Target()
    reference = weakref.ref(target, listener_failed)
    del target
    del reference


def notify(listener: Callable[[Any, Any, Any], object], dropped: Iterable[Any], reason: str) -> None:
    """Call ``listener(key, value, reason)`` for the keys and values that `dropped` alternates."""
    pairs = iter(dropped)
    for key, value in zip(pairs, pairs, strict=True):
        try:
            listener(key, value, reason)
        except BaseException as error:
            report(error)
