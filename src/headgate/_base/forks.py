"""What is made new in the child of a fork.

A child has one thread. A lock that another thread of the parent held at the fork would stay held in the
child for ever, and what waited in the parent does not exist there. So locks that ``new_lock`` returns are
free in a child, and ``renew`` registers objects whose method ``_renew`` is then called, when all locks are.
The thread that forks, in a finalizer or signal handler, still holds what it held: in the child it goes on
with the call that holds it.

Whatever such a lock protects is whole at each call and return of Python code, which is where CPython switches
threads, since finalizers and signal handlers may use it there.
"""

from __future__ import annotations

import os
import sys
import weakref
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Renewed(Protocol):
        """An object that has something to make new in a child."""

        def _renew(self) -> None: ...


class _Lock(RLock):  # type: ignore[misc]  # final to typeshed only
    """A lock that ``with`` frees wherever an exception comes out of a signal handler.

    CPython 3.14 and later may run a handler after ``__enter__`` is called and before the block is entered.
    """

    __slots__ = ()

    def __enter__(self) -> bool:  # type: ignore[override]
        depth = self._recursion_count()  # type: ignore[attr-defined]
        try:
            return self.acquire()
        except BaseException:
            if self._recursion_count() > depth:  # type: ignore[attr-defined]
                self.release()
            raise


_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_objects: weakref.WeakSet[Renewed] = weakref.WeakSet()


def new_lock() -> Any:
    """A re-entrant lock that no other thread holds in the child of a fork.

    >>> with new_lock():
    ...     "held"
    'held'
    """
    lock = _Lock() if sys.version_info >= (3, 14) else RLock()
    _locks.add(lock)
    return lock


def under(lock: Any) -> Callable[..., Any]:
    """A function that calls another one, with its arguments, while it holds `lock`.

    >>> under(new_lock())(max, 1, 2)
    2
    """

    def locked(function: Callable[..., Any], *args: Any) -> Any:
        with lock:
            return function(*args)

    return locked


def renew(made: Renewed) -> None:
    """Have ``made._renew()`` called in the child of a fork, as long as `made` exists."""
    _objects.add(made)


def _in_child() -> None:
    for lock in list(_locks):
        if not lock._is_owned():
            lock._at_fork_reinit()
    for made in list(_objects):
        made._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
